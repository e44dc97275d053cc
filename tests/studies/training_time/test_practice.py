"""The judges of the reports from practice on tables made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from datadose.studies.training_time.practice import STUDY
from datadose.studies.training_time.practice_cells import measure

from .made_up import SEEDS, verdict


def _verdict(claim: str, folder: Path, **values: float) -> str:
    """Of a table in which every setting has the same values, 1 unless given."""
    names = {name.replace("_", " "): value for name, value in values.items()}
    base = {str(name): 1.0 for name, _ in measure(0, 24, 8)}
    unknown = {key for key in names if key not in base}
    assert not unknown
    rows = [
        {"seed": seed, "panel": name, "value": value}
        for seed in range(SEEDS)
        for name, value in {**base, **names}.items()
    ]
    return verdict(STUDY, f"practice-{claim}", folder, rows)


def test_a_switch_before_or_long_after_the_least_loss_fails(tmp_path: Path) -> None:
    over, after = "switch_loss_over_least", "switch_after_least_loss"
    for loss, later, expected in (
        (1.01, 0.0, "holds"),
        (1.01, 1.0, "holds"),
        (1.05, 1.0, "holds"),
        (1.05, 0.0, "fails"),
        (1.2, 1.0, "fails"),
    ):
        assert _verdict("switch", tmp_path, **{over: loss, after: later}) == expected


def test_scale_is_the_largest_against_the_smallest(tmp_path: Path) -> None:
    ends = {"scale_0.25_end": 3.0, "scale_1_end": 5.0, "scale_4_end": 4.0, "scale_16_end": 2.0}
    assert _verdict("scale", tmp_path, **ends) == "holds"
    assert _verdict("scale", tmp_path, **{**ends, "scale_16_end": 3.5}) == "fails"


def test_difficulty_is_a_negative_correlation(tmp_path: Path) -> None:
    name = "hardness_with_end,_few_rows"
    assert _verdict("difficulty", tmp_path, **{name: -0.3}) == "holds"
    assert _verdict("difficulty", tmp_path, **{name: 0.3}) == "fails"


def test_the_loss_predicts_by_its_correlation(tmp_path: Path) -> None:
    name = "pool_validation_with_end"
    assert _verdict("validation-loss", tmp_path, **{name: 0.8}) == "holds"
    assert _verdict("validation-loss", tmp_path, **{name: 0.3}) == "fails"


@pytest.mark.parametrize(
    ("claim", "name", "held_above"),
    [
        ("rl-raises-loss", "SFT_loss_after_RL_over_before", True),
        ("sft-lowers-reward", "error_after_SFT_over_before,_after_RL", True),
        ("stronger-penalty", "penalty_before_RL_over_own", True),
        ("value-only", "error_on_the_old_task_over_before", False),
    ],
)
def test_coupling_is_a_ratio_above_one(claim: str, name: str, held_above: bool, tmp_path: Path) -> None:
    above = _verdict(claim, tmp_path, **{name: 1.1})
    below = _verdict(claim, tmp_path, **{name: 0.9})
    assert (above, below) == (("holds", "fails") if held_above else ("fails", "holds"))


def test_what_is_an_identity_is_met() -> None:
    """From the optimum of unlimited SFT any stage raises its loss; the best is no worse than the rest."""
    for seed in range(3):
        found = {str(name): float(value) for name, value in measure(seed, 24, 16)}
        assert found["SFT loss after RL over before, unlimited SFT"] >= 1 - 1e-9
        assert found["switch cost of least loss"] >= 1
        assert found["cost of own penalty"] >= 1
        assert found["switch loss over least"] >= 1
