"""What a comparison found: tables, curves, and what they say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd

from datadose.llm.compare.forecast import Forecast
from datadose.showing import Tabular
from datadose.versions import versions


@dataclass(frozen=True, eq=False, repr=False)
class Compared(Tabular):
    """The result of a comparison. ``to_frame`` is the table; ``plot`` draws the differences from random."""

    _picture: ClassVar[str] = "datadose.llm.compare.picture.draw_differences"

    table: pd.DataFrame = field(repr=False)
    """One row an arm, with the columns TABLE of :mod:`datadose.llm.compare.table`."""
    runs: pd.DataFrame = field(repr=False)
    """One row an arm and seed, with the columns RUNS."""
    curves: pd.DataFrame = field(repr=False)
    """One row an evaluation: method, budget, seed, step, test_loss, validation_loss."""
    forecasts: dict[str, Forecast]
    """By method, from the best-stopped test losses; empty for one budget."""
    advice: list[str]
    """Which method to take, in sentences."""
    unchecked: list[str]
    """What the comparison does not show, a sentence each."""
    setting: dict[str, Any]
    """The model, the pool, the target and how each arm was trained."""

    def _facts(self) -> dict[str, object]:
        return {"arms": len(self.table), "runs": len(self.runs), "advice": "; ".join(self.advice)}

    def _columns(self) -> dict[str, Any]:
        return dict(self.table.items())

    def to_json(self) -> dict[str, Any]:
        """The result as a document; null where there is no number."""
        return {
            "table": _records(self.table),
            "advice": self.advice,
            "forecasts": {name: one.to_json() for name, one in self.forecasts.items()},
            "unchecked": self.unchecked,
            "setting": self.setting,
            "versions": versions("transformers", "trl", "peft"),
        }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    plain = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]
