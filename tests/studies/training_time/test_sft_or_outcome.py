"""The judges of SFT against outcome supervision on tables made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.studies.training_time.outcome_cells import (
    BOTH,
    CONVERGED,
    OUTCOME,
    PENALTY,
    SFT,
    converged_errors,
    rescaled,
)
from datadose.studies.training_time.settings import paper_setting
from datadose.studies.training_time.sft_or_outcome import BALANCE, LENGTHS, RANDOM, SAME, STUDY, crossing

from .made_up import SEEDS, verdict

BUDGETS = (0.25, 2.0, 32.0, 0.0)


def _rows(error: Callable[[str, float], float]) -> list[dict[str, Any]]:
    random = [
        {
            "panel": RANDOM,
            "seed": seed,
            "stage": stage,
            "rule": rule,
            "budget": b,
            "predicted": error(stage, b),
        }
        for seed in range(SEEDS)
        for stage in (SFT, OUTCOME)
        for rule in (PENALTY, CONVERGED)
        for b in BUDGETS
    ]
    shared = {"panel": LENGTHS, "stage": SFT, "rule": PENALTY, "budget": 8.0}
    return [*random, *({**shared, "share": x, "predicted": 1.0} for x in (1.0, 4.0))]


def _crossing(stage: str, b: float) -> float:
    rows = 1e6 if b == 0 else b
    return 1 + 1 / rows if stage == SFT else 0.5 + 3 / rows


def test_few_and_many_rows_have_to_differ(tmp_path: Path) -> None:
    claim = "sft-few-outcome-many"
    assert verdict(STUDY, claim, tmp_path, _rows(_crossing)) == "holds"
    assert (
        verdict(STUDY, claim, tmp_path, _rows(lambda s, b: _crossing(s, b) / (3 if s == OUTCOME else 1)))
        == "fails"
    )
    assert (
        verdict(STUDY, claim, tmp_path, _rows(lambda s, b: _crossing(s, b) * (3 if s == OUTCOME else 1)))
        == "fails"
    )


def test_the_contrast_is_where_the_least_error_lies(tmp_path: Path) -> None:
    def few(stage: str, b: float) -> float:
        return 1 + b if stage == SFT else 1 / (1 + b)

    claim = "sft-few-outcome-many-converged"
    assert verdict(STUDY, claim, tmp_path, _rows(few)) == "holds"
    assert verdict(STUDY, claim, tmp_path, _rows(lambda _, b: few(SFT, b))) == "fails"
    assert verdict(STUDY, claim, tmp_path, _rows(lambda _, b: few(OUTCOME, b))) == "fails"


def test_synergy_has_to_beat_the_better(tmp_path: Path) -> None:
    def rows(both: float) -> list[dict[str, Any]]:
        return [
            {"panel": BALANCE, "stage": arm, "balance": rho, "pretraining": before, "cost": 1.0, "budget": b}
            | {"predicted": error}
            for rho in (0.1, 0.5, 1.0)
            for before in (2.0, 1e6)
            for b in (0.5, 2.0, 8.0)
            for arm, error in ((SFT, 1.0), (OUTCOME, 2.0), (BOTH, both))
        ]

    assert verdict(STUDY, "stages-synergy", tmp_path, rows(0.9)) == "holds"
    assert verdict(STUDY, "stages-synergy", tmp_path, rows(1.1)) == "fails"


def test_the_rescaled_error_is_compared_at_every_place(tmp_path: Path) -> None:
    rows = [{"panel": SAME, "seed": s, "budget": 1.0, "error": 2.0, "predicted": 2.0} for s in range(9)]
    assert verdict(STUDY, "sft-is-outcome-rescaled", tmp_path, rows) == "holds"
    rows[3]["error"] = 2.0001
    assert verdict(STUDY, "sft-is-outcome-rescaled", tmp_path, rows) == "fails"
    found = np.array(rescaled(1, 24, (0.5, 2.0)))
    np.testing.assert_allclose(found[:, 1], found[:, 2], rtol=1e-9)


def test_a_crossing_is_found_between_neighbours() -> None:
    x = [0.5, 1.0, 2.0, 4.0]
    sft, outcome = pd.Series([1.0, 1.0, 1.0, 1.0], x), pd.Series([4.0, 2.0, 0.5, 0.25], x)
    assert crossing(sft, outcome) == pytest.approx(2**0.5)
    assert np.isnan(crossing(outcome, sft))
    assert np.isnan(crossing(sft, pd.Series([2.0, 0.5, 2.0, 0.5], x)))


def test_the_peak_is_refused_at_convergence() -> None:
    s = paper_setting(24)
    found = converged_errors(s, s.sft, np.array([12.0, 24.0, 48.0]))
    assert np.isfinite(found).tolist() == [True, False, True]
