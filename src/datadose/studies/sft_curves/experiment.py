"""Figures 1 and 2: the error of the SFT minimiser over interference r, prompt length n and number B.

Figure 1 reads the table along B, Figure 2 along n (tied across stages). Departures from the paper: eta is not
stated for these figures; 0.2 (Figure 5's value) gives their ranges. All B of a curve come from one nested
stream per seed. Every preset but smoke has the paper's sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from datadose.studies.study import Preset
from datadose.studies.tables import TwoBlock, as_table, curve_cell, grid, predictions, sft_row
from datadose.sweep import Cell

INTERFERENCES = (0.0, 0.01, 0.1)


@dataclass(frozen=True)
class SftCurves:
    """Simulation at ``lengths`` x ``prompts``, theory at ``theory_lengths`` x ``theory_prompts``, per r."""

    figure: ClassVar[str]

    block: TwoBlock
    interferences: tuple[float, ...]
    lengths: tuple[int, ...]
    prompts: tuple[int, ...]
    theory_lengths: tuple[int, ...]
    theory_prompts: tuple[int, ...]
    seeds: int

    def _curves(self) -> list[tuple[float, int, int]]:
        return [(r, n, seed) for r in self.interferences for n in self.lengths for seed in range(self.seeds)]

    def cells(self) -> list[Cell]:
        """One cell an interference, length and seed; it holds all B."""
        return [curve_cell(self.block, r, n, self.prompts, seed) for r, n, seed in self._curves()]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """Simulated rows (model lsa) with their prediction, then the theory on its grid."""
        counts, lengths = {*self.prompts, *self.theory_prompts}, {*self.lengths, *self.theory_lengths}
        predicted = {
            (r, n): predictions(self.block.shift(r), counts, n) for r in self.interferences for n in lengths
        }

        def row(r: float, n: int, B: int, **values: Any) -> dict[str, Any]:
            where = {"prompts": B, "length": n, "interference": r, "predicted": predicted[r, n][B]}
            return sft_row(self.figure, f"r={r:g}", **where, **values)

        rows = [
            row(r, n, B, seed=seed, error=error)
            for (r, n, seed), errors in zip(self._curves(), results, strict=True)
            for B, error in zip(self.prompts, errors, strict=True)
        ]
        rows += [
            row(r, n, B, model="theory")
            for r in self.interferences
            for n in self.theory_lengths
            for B in self.theory_prompts
        ]
        return as_table(rows)


@dataclass(frozen=True)
class Figure1(SftCurves):
    """Error against B, three lengths."""

    figure = "fig1"

    @classmethod
    def preset(cls, name: Preset) -> Figure1:
        """The configuration of a preset."""
        if name == "smoke":
            lengths: tuple[int, ...] = (40, 80, 120)
            return cls(
                TwoBlock(40, 20),
                INTERFERENCES,
                lengths,
                prompts=grid(range(0, 200, 12), [18, 22, 38, 42]),
                theory_lengths=lengths,
                theory_prompts=grid(range(0, 201, 2)),
                seeds=3,
            )
        lengths = (400, 800, 1200)
        around_peaks = grid([180, 190, 210, 220], [380, 390, 410, 420])
        return cls(
            TwoBlock(400, 200),
            INTERFERENCES,
            lengths,
            prompts=grid(
                [0, 10], range(25, 600, 25), range(600, 1000, 50), range(1000, 2001, 100), around_peaks
            ),
            theory_lengths=lengths,
            theory_prompts=grid(range(0, 600, 2), range(600, 2001, 10)),
            seeds=50 if name == "paper" else 30,
        )


@dataclass(frozen=True)
class Figure2(SftCurves):
    """Error against n, four numbers of prompts."""

    figure = "fig2"

    @classmethod
    def preset(cls, name: Preset) -> Figure2:
        """The configuration of a preset."""
        if name == "smoke":
            prompts: tuple[int, ...] = (5, 15, 30, 50)
            return cls(
                TwoBlock(40, 20),
                INTERFERENCES,
                lengths=(4, 10, 25, 60, 100),
                prompts=prompts,
                theory_lengths=grid(range(2, 101, 2)),
                theory_prompts=prompts,
                seeds=3,
            )
        prompts = (50, 150, 300, 500)
        return cls(
            TwoBlock(400, 200),
            INTERFERENCES,
            lengths=_even_steps(40 if name == "paper" else 16),
            prompts=prompts,
            theory_lengths=_even_steps(120),
            theory_prompts=prompts,
            seeds=50 if name == "paper" else 10,
        )


def _even_steps(count: int) -> tuple[int, ...]:
    """About ``count`` lengths from 20 to 1000 in even steps of log n: the curves turn at small n."""
    return grid([round(float(n)) for n in np.geomspace(20, 1000, count)])
