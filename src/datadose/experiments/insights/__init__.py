"""Insights 1-4, section 7 and finding 3 of the paper as experiments, one module each."""

from datadose.experiments.insights.balance import Balance
from datadose.experiments.insights.bands import Bands
from datadose.experiments.insights.overthinking import Overthinking
from datadose.experiments.insights.selection import Selection
from datadose.experiments.insights.size import Size
from datadose.experiments.insights.stability import Stability
from datadose.experiments.insights.synergy import SftThenRl

__all__ = ["Balance", "Bands", "Overthinking", "Selection", "SftThenRl", "Size", "Stability"]
