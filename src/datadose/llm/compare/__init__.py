"""Compare selection methods on a pool of one's own; see docs/how_to/compare_selectors.md."""

from datadose.llm.compare.compare import compare
from datadose.llm.compare.config import CompareConfig
from datadose.llm.compare.forecast import Forecast, Trial, forecast, try_forms
from datadose.llm.compare.result import Compared

__all__ = ["CompareConfig", "Compared", "Forecast", "Trial", "compare", "forecast", "try_forms"]
