"""Compare selection methods on a pool of one's own; see docs/how_to/compare_selectors.md."""

from datadose.llm.compare.compare import Compared, compare
from datadose.llm.compare.config import CompareConfig
from datadose.llm.compare.forecast import Forecast, forecast

__all__ = ["CompareConfig", "Compared", "Forecast", "compare", "forecast"]
