"""Insight 2: the size of the SFT set against interference r, exact theory with simulated points.

How does the best B, and what the best set below the peak (B < d) has over the largest, depend on r? The data
are the paper's A = diag(eta (rho + 1) 1_m, r 1_{d-m}); at r = eta they are eta Sigma, the test distribution
itself at its right scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from datadose.experiments.common import Preset, TwoBlock, curve_cell, grid, predictions
from datadose.experiments.insights.setting import insight_row, insight_table
from datadose.sweep import Cell

NAME = "insight2_size"


@dataclass(frozen=True)
class Size:
    """Theory on ``theory_interferences`` x ``theory_prompts``, simulation on the shorter lists."""

    block: TwoBlock
    length: int
    interferences: tuple[float, ...]
    prompts: tuple[int, ...]
    theory_interferences: tuple[float, ...]
    theory_prompts: tuple[int, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> Size:
        """The configuration of a preset; B up to 5 d, as in Figure 1."""
        if name == "smoke":
            return cls._of(TwoBlock(20, 10), 4, 6, 16, 2)
        if name == "quick":
            return cls._of(TwoBlock(100, 50), 9, 33, 60, 8)
        return cls._of(TwoBlock(400, 200), 12, 45, 100, 20)

    @classmethod
    def _of(cls, block: TwoBlock, simulated: int, theory: int, counts: int, seeds: int) -> Size:
        d = block.dimension
        places = grid(
            [0], np.unique(np.geomspace(max(1, d // 40), 5 * d, counts).round().astype(int)).tolist()
        )
        kept = [B for B in places if abs(B / d - 1) > 0.02]
        inside = [round(share * d) for share in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.5, 2, 3, 5)]
        return cls(
            block,
            2 * d,
            _log_steps(simulated),
            grid([0], inside),
            _log_steps(theory),
            tuple(kept),
            seeds,
        )

    def _curves(self) -> list[tuple[float, int]]:
        return [(r, seed) for r in self.interferences for seed in range(self.seeds)]

    def cells(self) -> list[Cell]:
        """One cell an interference and seed; it holds all B."""
        return [curve_cell(self.block, r, self.length, self.prompts, seed) for r, seed in self._curves()]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """Simulated rows (model lsa) with their prediction, then the theory on its grid."""

        def row(r: float, B: int, **values: Any) -> dict[str, Any]:
            return insight_row(
                NAME,
                "simulated" if "seed" in values else "theory",
                stage="sft",
                prompts=B,
                length=self.length,
                interference=r,
                predicted=predicted[r][B],
                estimator="minimiser",
                form="exact",
                **values,
            )

        counts = {*self.prompts, *self.theory_prompts}
        predicted = {
            r: predictions(self.block.shift(r), counts, self.length)
            for r in {*self.interferences, *self.theory_interferences}
        }
        rows = [
            row(r, B, seed=seed, error=error)
            for (r, seed), errors in zip(self._curves(), results, strict=True)
            for B, error in zip(self.prompts, errors, strict=True)
        ]
        rows += [row(r, B, model="theory") for r in self.theory_interferences for B in self.theory_prompts]
        return insight_table(rows, ())


def _log_steps(count: int) -> tuple[float, ...]:
    """``count`` interferences from 0.001 to 1, evenly in log r, to three digits."""
    return tuple(float(f"{r:.3g}") for r in np.geomspace(1e-3, 1.0, count))
