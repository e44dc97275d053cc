"""The judges of SFT before outcome supervision on tables made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datadose.studies.training_time.sft_before_outcome import PENALTY, STUDY, TIME, measure

from .made_up import SEEDS, verdict


def _rows(**changed: float) -> list[dict[str, Any]]:
    base = {"prompts": 100, "outcome_prompts": 100, "ratio": 1.0, "best": 1.0, "alone": 1.0, "converged": 1.0}
    rest = {"none": 2.0, "strength": 0.05}
    return [
        {"seed": seed, "rule": rule, **base, **rest, **changed}
        for seed in range(SEEDS)
        for rule in (PENALTY, TIME)
    ]


def test_not_knowing_is_judged_by_its_cost(tmp_path: Path) -> None:
    assert verdict(STUDY, "sft-before-outcome", tmp_path, _rows(alone=1.005, ratio=30.0)) == "holds"
    assert verdict(STUDY, "sft-before-outcome", tmp_path, _rows(alone=1.02)) == "fails"


def test_ruin_counts_strong_interference_alone(tmp_path: Path) -> None:
    claim, weak = (
        "sft-converged-before-outcome",
        [{**row, "seed": row["seed"] + SEEDS} for row in _rows(strength=1.0)],
    )
    assert verdict(STUDY, claim, tmp_path, [*_rows(converged=9.0), *weak]) == "holds"
    strong = _rows(converged=1.0)
    harmful = [{**row, "converged": 9.0} for row in weak]
    assert verdict(STUDY, claim, tmp_path, [*strong, *harmful]) == "fails"


@pytest.mark.parametrize("seed", range(3))
def test_the_best_is_no_worse_than_the_rest(seed: int) -> None:
    for _, _, _, ratio, best, alone, converged, none, strength in measure(seed, 24, 24):
        assert float(best) <= min(float(alone), float(converged)) + 1e-12
        assert float(best) <= float(none) * (1 + 1e-3)
        assert float(ratio) > 0
        assert 0.003 / 0.8 <= float(strength) <= 0.3 / 0.1
