"""What a selection is: the rows of each set, what was measured, and why each row is where it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import Array
from datadose.llm.scores import Scores
from datadose.llm.selection.arrays import Indices, Mask
from datadose.llm.selection.config import SelectionConfig
from datadose.llm.selection.filters import Filter
from datadose.llm.selection.measures import Measures
from datadose.showing import Tabular

_SETS = ("sft", "rl", "control_sft", "control_rl")
_SHOWN = ("id", "tokens", "nll", "pass_rate", "label_passes", "issue")
"""What a selection's data frame shows of the measurements."""


@dataclass(frozen=True, eq=False, repr=False)
class Selection(Tabular):
    """Which rows were chosen, and why.

    Indices are positions in the pool (``replay``: in the reference), ascending. ``to_frame`` has a row for
    each row of the pool: what was measured on it, whether it is in each of the four sets, and the filter of
    either set that removed it ("" for none). ``plot`` draws how many rows each filter left.
    """

    _picture: ClassVar[str] = "datadose.llm.selection.drawing.draw_funnel"

    sft: Indices
    rl: Indices
    control_sft: Indices
    """As many rows as ``sft`` (with a budget in tokens: as many tokens), uniformly from the eligible ones;
    with weights the same rows, which are drawn equally often."""
    control_rl: Indices
    """As many rows as ``rl``, likewise, without the questions of ``sft`` and ``control_sft``."""
    replay: Indices
    """Rows of the reference that go into both sft.jsonl and control_sft.jsonl."""
    filters: list[Filter]
    """In order, first those of the SFT set, then those of the RL set."""
    geometry: dict[str, Any]
    """The shift; empty without an SFT set."""
    sizes: dict[str, int]
    planner: dict[str, Any]
    diversity: dict[str, Any]
    """How the SFT set was drawn."""
    weights: Array | None = field(repr=False)
    """Sampling weights of the rows of ``sft``, in (0, 1]; None where rows are cut, not weighed."""
    rl_record: dict[str, Any]
    """The prior of the pool's pass rates, the threshold and what they say; empty without an RL set."""
    repeats: dict[str, Any]
    """What was found of evaluation files and of near duplicates; without what was not looked for."""
    unchecked: list[str]
    """What could not be checked with these scores, a sentence each."""
    config: SelectionConfig
    pool: Scores = field(repr=False)
    target: Scores | None = field(repr=False)
    measures: Measures = field(repr=False)
    eligible: Mask = field(repr=False)
    """Per pool row: scored, the one of its question, and neither a near duplicate nor in an evaluation file;
    without an SFT set, sampled in place of scored."""
    sft_removed: NDArray[np.int8] = field(repr=False)
    """Per pool row, the place among the SFT set's filters of the one that removed it; -1 for none."""
    rl_removed: NDArray[np.int8] = field(repr=False)
    """The same for the RL set."""
    sft_crossed: NDArray[np.int8] = field(repr=False)
    """Per pool row, the place of the filter that it was taken in spite of; -1 for none."""
    rl_crossed: NDArray[np.int8] = field(repr=False)

    def _facts(self) -> dict[str, object]:
        return {
            "pool": len(self.pool.table),
            **{name: len(getattr(self, name)) for name in (*_SETS, "replay")},
        }

    def _columns(self) -> dict[str, Any]:
        table = self.pool.table
        columns: dict[str, Any] = {name: table[name] for name in _SHOWN}
        columns |= {name: np.isin(np.arange(len(table)), getattr(self, name)) for name in _SETS}
        for name, removed in (("sft", self.sft_removed), ("rl", self.rl_removed)):
            # -1, for none, is the last of these.
            filters = np.array([*(one["name"] for one in self.filters_of(name)), ""], dtype=object)
            columns[f"{name}_removed_by"] = filters[removed]
        return columns

    def filters_of(self, name: str) -> list[Filter]:
        """The filters of one set, ``sft`` or ``rl``."""
        return [one for one in self.filters if one["set"] == name]

    def has_control(self, name: str) -> bool:
        """Whether the control of one set, ``sft`` or ``rl``, is another one: there may be no other rows."""
        if name == "sft" and self.weights is not None:
            return True
        return not np.array_equal(getattr(self, name), getattr(self, f"control_{name}"))
