"""Figure 5: V* and its first-order approximation V~ against Thm B.1, as printed and corrected, and exact.

The paper draws Err(V*), Err(V~) and its theory curve up to B = 1000 at d = 600; the corrected and the exact
curves, and what lies beyond B = 1000, are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from datadose.prompts import draw_moments
from datadose.simulation.curves import sft_error_curve
from datadose.studies.study import Preset
from datadose.studies.tables import TwoBlock, as_table, grid, predictions, sft_row
from datadose.sweep import Cell
from datadose.theory.asymptotics import FORMS, Form
from datadose.theory.post_test import post_test_error
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.sft import first_order_minimiser

FIGURE_5_AXIS = 1000 / 600
"""B / d at the right end of the paper's figure: claims on the figure are judged up to there."""


@dataclass(frozen=True)
class Figure5:
    """Two lengths (panels), error against B, for V* and V~."""

    block: TwoBlock
    interference: float
    lengths: tuple[int, ...]
    simulated_prompts: tuple[int, ...]
    theory_prompts: tuple[int, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> Figure5:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(
                block=TwoBlock(60, 30),
                interference=0.1,
                lengths=(100, 500),
                simulated_prompts=grid([6, 15, 30, 45, 90, 100, 150, 240]),
                theory_prompts=grid(range(0, 241, 3)),
                seeds=3,
            )
        sparse = grid([0, 60, 150, 300, 450, 540, 570, 630, 660, 750, 900, 1000, 1200, 1800, 2400])
        return cls(
            block=TwoBlock(600, 300),
            interference=0.1,
            lengths=(1000, 5000),
            simulated_prompts=grid(sparse, range(30, 2401, 90)) if name == "paper" else sparse,
            theory_prompts=grid(range(0, 900, 3), range(900, 2401, 10)),
            seeds=10,
        )

    def _pairs(self) -> list[tuple[int, int]]:
        return [(n, seed) for n in self.lengths for seed in range(self.seeds)]

    def cells(self) -> list[Cell]:
        """One cell a length and seed, V* and V~ on the same prompts."""
        return [
            Cell(
                simulate_both,
                {
                    "block": self.block,
                    "interference": self.interference,
                    "length": n,
                    "counts": list(self.simulated_prompts),
                    "seed": seed,
                },
            )
            for n, seed in self._pairs()
        ]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """V* rows predicted by the exact form, V~ rows by the first-order form, then all three forms."""
        shift = self.block.shift(self.interference)
        counts = grid(self.simulated_prompts, self.theory_prompts)
        predicted = {(n, form): predictions(shift, counts, n, form) for n in self.lengths for form in FORMS}

        def row(n: int, B: int, form: Form, **values: Any) -> dict[str, Any]:
            return sft_row(
                "fig5",
                f"n={n}",
                prompts=B,
                length=n,
                interference=self.interference,
                predicted=predicted[n, form][B],
                form=form,
                estimator="minimiser" if form == "exact" else "first-order",
                **values,
            )

        rows = [
            row(n, B, form, seed=seed, error=error)
            for (n, seed), result in zip(self._pairs(), results, strict=True)
            for form in ("exact", "first-order")
            for B, error in zip(self.simulated_prompts, result[form], strict=True)
        ]
        rows += [row(n, B, form, model="theory") for n in self.lengths for form in FORMS for B in counts]
        return as_table(rows)


def simulate_both(
    block: TwoBlock, interference: float, length: int, counts: list[int], seed: int
) -> dict[str, list[float]]:
    """Cell: Err(V*) / d ("exact") and Err(V~) / d ("first-order") at ``counts`` prompts of one stream."""
    shift = block.shift(interference)
    V0 = pretrained_operator(shift.sigma0, length)
    moments = draw_moments(shift.data, length, max(counts), seed=seed)
    first_order = [
        post_test_error(
            first_order_minimiser(moments.first(B), shift.data, shift.eta, V0), shift.target, length
        )
        for B in counts
    ]
    curve = sft_error_curve(shift, max(counts), length, seed=seed)
    return {"exact": [float(e) for e in curve[counts]], "first-order": first_order}
