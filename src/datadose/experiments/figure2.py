"""Figure 2: post-test error of SFT against the prompt length n (tied across stages), at four sizes B.

Departures from the paper: eta is not stated; 0.2 as in Figure 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from datadose.experiments.common import (
    Preset,
    TwoBlock,
    as_table,
    curve_cell,
    grid,
    predicted_or_none,
    sft_row,
)
from datadose.sweep import Cell


def _even_steps(count: int) -> list[int]:
    """About ``count`` lengths from 20 to 1000 in even steps of log n: the curves turn at small n."""
    return [round(float(n)) for n in np.geomspace(20, 1000, count)]


@dataclass(frozen=True)
class Figure2:
    """Three interferences (panels) times four sizes, error against n."""

    block: TwoBlock
    interferences: tuple[float, ...]
    prompts: tuple[int, ...]
    lengths: tuple[int, ...]
    theory_lengths: tuple[int, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> Figure2:
        """The configuration of a preset."""
        interferences = (0.0, 0.01, 0.1)
        if name == "smoke":
            return cls(
                block=TwoBlock(40, 20),
                interferences=interferences,
                prompts=(5, 15, 30, 50),
                lengths=(4, 10, 25, 60, 100),
                theory_lengths=grid(range(2, 101, 2)),
                seeds=3,
            )
        count = 40 if name == "paper" else 16
        return cls(
            block=TwoBlock(400, 200),
            interferences=interferences,
            prompts=(50, 150, 300, 500),
            lengths=grid(_even_steps(count)),
            theory_lengths=grid(_even_steps(120)),
            seeds=50 if name == "paper" else 10,
        )

    def _curves(self) -> list[tuple[float, int, int]]:
        return [(r, n, seed) for r in self.interferences for n in self.lengths for seed in range(self.seeds)]

    def cells(self) -> list[Cell]:
        """One cell an interference, length and seed; it holds all four sizes."""
        return [curve_cell(self.block, r, n, self.prompts, seed) for r, n, seed in self._curves()]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """Simulated rows (model lsa) with their prediction, then the theory on a fine grid."""

        def row(r: float, n: int, B: int, **values: Any) -> dict[str, Any]:
            predicted = predicted_or_none(self.block.shift(r), B, n)
            return sft_row(
                "fig2", f"r={r:g}", prompts=B, length=n, interference=r, predicted=predicted, **values
            )

        rows = [
            row(r, n, B, seed=seed, error=error)
            for (r, n, seed), errors in zip(self._curves(), results, strict=True)
            for B, error in zip(self.prompts, errors, strict=True)
        ]
        rows += [
            row(r, n, B, model="theory")
            for r in self.interferences
            for n in self.theory_lengths
            for B in self.prompts
        ]
        return as_table(rows)
