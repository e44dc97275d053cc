"""Figure 1: post-test error of SFT against the number of prompts, with and without interference.

Departures from the paper: eta is not stated for this figure; 0.2 (Figure 5's value) gives its ranges. All
numbers of prompts come from one nested stream per seed. Every preset but smoke has the paper's sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Figure1:
    """Three interferences (panels) times three lengths, error against B."""

    block: TwoBlock
    interferences: tuple[float, ...]
    lengths: tuple[int, ...]
    simulated_prompts: tuple[int, ...]
    theory_prompts: tuple[int, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> Figure1:
        """The configuration of a preset."""
        interferences = (0.0, 0.01, 0.1)
        if name == "smoke":
            return cls(
                block=TwoBlock(40, 20),
                interferences=interferences,
                lengths=(40, 80, 120),
                simulated_prompts=grid([0], range(4, 200, 12)),
                theory_prompts=grid(range(0, 201, 2)),
                seeds=3,
            )
        dense = grid([0, 10], range(25, 600, 25), range(600, 1000, 50), range(1000, 2001, 100))
        around_peaks = grid([180, 190, 210, 220], [380, 390, 410, 420])
        return cls(
            block=TwoBlock(400, 200),
            interferences=interferences,
            lengths=(400, 800, 1200),
            simulated_prompts=grid(dense, around_peaks),
            theory_prompts=grid(range(0, 600, 2), range(600, 2001, 10)),
            seeds=50 if name == "paper" else 20,
        )

    def _curves(self) -> list[tuple[float, int, int]]:
        return [(r, n, seed) for r in self.interferences for n in self.lengths for seed in range(self.seeds)]

    def cells(self) -> list[Cell]:
        """One cell a curve and seed."""
        return [curve_cell(self.block, r, n, self.simulated_prompts, seed) for r, n, seed in self._curves()]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """Simulated rows (model lsa) with their prediction, then the theory on a fine grid."""
        predicted = {
            (r, n, B): predicted_or_none(self.block.shift(r), B, n)
            for r in self.interferences
            for n in self.lengths
            for B in grid(self.simulated_prompts, self.theory_prompts)
        }

        def row(r: float, n: int, B: int, **values: Any) -> dict[str, Any]:
            return sft_row(
                "fig1",
                f"r={r:g}",
                prompts=B,
                length=n,
                interference=r,
                predicted=predicted[r, n, B],
                **values,
            )

        rows = [
            row(r, n, B, seed=seed, error=error)
            for (r, n, seed), errors in zip(self._curves(), results, strict=True)
            for B, error in zip(self.simulated_prompts, errors, strict=True)
        ]
        rows += [
            row(r, n, B, model="theory")
            for r in self.interferences
            for n in self.lengths
            for B in self.theory_prompts
        ]
        return as_table(rows)
