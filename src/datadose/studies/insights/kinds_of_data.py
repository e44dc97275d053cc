"""Insight 1: SFT on data that are hard for the pretrained model against other data, at equal B.

Four kinds of data on the paper's two-block shift (no interference), each the right allocation
A = eta (its part of Sigma) for the directions it covers, so that no kind loses by its scale:

- hard: the shift's directions, A = eta P Sigma P (section 5.1);
- easy: the directions that did not move, A = eta (I - P) Sigma;
- pretraining: the pretraining distribution, A = eta Sigma0;
- test: the test distribution, A = eta Sigma, i.e. hard and easy examples unselected.

Hardness is measured on the pretrained model: its own one-step error on such prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.power import CONFIDENCE
from datadose.shift import Shift
from datadose.simulation.curves import sft_error_curve
from datadose.studies.ledger import judge_settings, paired, paired_errors, seeds_of
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import Column, TwoBlock, as_table, grid, predictions, sft_row
from datadose.sweep import Cell
from datadose.theory.post_test import hardness
from datadose.theory.pretraining import pretrained_operator

NAME = "insight1"
HARD = "hard"
KINDS = (HARD, "easy", "pretraining", "test")
"""The panels; every other kind is compared with HARD."""


def kinds_of_data(block: TwoBlock) -> tuple[Array, ...]:
    """Spectra of the four kinds of data at their natural scale, in the order of KINDS."""
    base = block.shift(0.0)
    inside = base.delta > 0
    return (
        np.where(inside, base.target, 0.0),
        np.where(inside, 0.0, base.target),
        base.sigma0,
        base.target,
    )


def shift_with_data(block: TwoBlock, kind: str) -> Shift:
    """The two-block shift with one of the four kinds of data."""
    base = block.shift(0.0)
    return Shift(base.sigma0, base.delta, base.eta * kinds_of_data(block)[KINDS.index(kind)], base.eta)


def kind_hardness(block: TwoBlock, kind: str, length: int) -> float:
    """One-step error / d of the pretrained model on this data at its natural scale A / eta."""
    shift = shift_with_data(block, kind)
    return hardness(shift.data / shift.eta, pretrained_operator(shift.sigma0, length), length)


def simulate_kind(block: TwoBlock, kind: str, length: int, counts: list[int], seed: int) -> list[float]:
    """Cell: Err(V*) / d at ``counts`` prompts of this kind of data."""
    shift = shift_with_data(block, kind)
    return [float(e) for e in sft_error_curve(shift, max(counts), length, seed=seed)[counts]]


@dataclass(frozen=True)
class Insight1:
    """Four kinds of data (panels), error against B."""

    block: TwoBlock
    length: int
    prompts: tuple[int, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> Insight1:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(TwoBlock(40, 20), 80, (5, 10), 3)
        return cls(TwoBlock(400, 200), 800, grid([25, 50, 75, 100]), 50 if name == "paper" else 20)

    def cells(self) -> list[Cell]:
        """One cell a kind and seed."""
        shared = {"block": self.block, "length": self.length, "counts": list(self.prompts)}
        return [
            Cell(simulate_kind, {**shared, "kind": kind, "seed": seed})
            for kind, seed in product(KINDS, range(self.seeds))
        ]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a kind, B and seed; ``panel`` is the kind."""
        predicted = {
            kind: predictions(shift_with_data(self.block, kind), self.prompts, self.length) for kind in KINDS
        }
        return as_table(
            [
                sft_row(
                    NAME,
                    kind,
                    prompts=B,
                    length=self.length,
                    interference=0.0,
                    seed=seed,
                    error=error,
                    predicted=predicted[kind][B],
                )
                for (kind, seed), errors in zip(product(KINDS, range(self.seeds)), results, strict=True)
                for B, error in zip(self.prompts, errors, strict=True)
            ]
        )


def _aligned_data_win(saved: Saved[Insight1], threshold: float) -> Judgement:
    table, config = saved.table, saved.config
    verdicts: dict[str, Verdict] = {}
    ratios: list[str] = []
    errors = {kind: paired_errors(rows, Column.PROMPTS)[1] for kind, rows in table.groupby(Column.PANEL)}
    for kind in KINDS[1:]:
        for place, B in enumerate(config.prompts):
            verdicts[f"{kind} B={B}"] = paired(errors[HARD][:, place], errors[kind][:, place])
        ratios.append(f"{kind} {errors[HARD][:, -1].mean() / errors[kind][:, -1].mean():.2f}")
    hardness = [f"{kind} {kind_hardness(config.block, kind, config.length):.2f}" for kind in KINDS]
    note = (
        f"error ratio hard/other at B={config.prompts[-1]}: {', '.join(ratios)}; hardness (error / d of the "
        f"pretrained model on such prompts): {', '.join(hardness)}"
    )
    return judge_settings(verdicts, threshold, seeds_of(table), note)


CLAIMS = (
    Claim(
        id="insight-1",
        paper="Insight 1",
        statement="For SFT, choose examples aligned with the shift (hard for the pretrained model): at equal "
        "B they beat easy, pretraining and unselected test examples.",
        setting="d=400, m=200, rho=0.1, eta=0.2, r=0, n=800, B in {25, 50, 75, 100} (sizes of the preset)",
        statistic=f"share of comparisons won, each at {CONFIDENCE:.0%} confidence over paired seeds",
        threshold=1.0,
        judge=_aligned_data_win,
        test="tests/studies/sft_curves/test_claims.py::test_insight_1_is_judged_per_comparison",
        shown_by=("insight1_selection",),
    ),
)
STUDY = Study(name=NAME, experiment=Insight1, claims=CLAIMS)
