"""The judges of the law of budgets on tables made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datadose.studies.training_time.budgets import OWN, SAME, SHARES, STUDY, split_budget, split_paper

from .made_up import SEEDS, verdict

BUDGETS = (0.125, 0.5, 2.0, 8.0, 32.0)


def _rows(
    error: Callable[[float, float], float], costs: tuple[float, ...] = (0.3, 1.0, 3.0)
) -> list[dict[str, Any]]:
    return [
        {"panel": panel, "seed": seed, "cost": cost, "budget": b, "share": x, "predicted": error(b, x)}
        for seed in range(SEEDS)
        for panel, cost in (*((OWN, c) for c in costs), (SAME, 1.0))
        for b in BUDGETS
        for x in SHARES
    ]


def _best_at(place: Callable[[float], float]) -> Callable[[float, float], float]:
    """An error that is least at a share which depends on the budget."""
    return lambda b, x: 1 + abs(x - place(b))


LAW = _best_at(lambda b: 1.0 if b < 1 else 0.5 if b < 4 else 0.0)


@pytest.mark.parametrize("claim", ["budgets-law", "budgets-same-prompts"])
def test_the_law_needs_all_three_parts(claim: str, tmp_path: Path) -> None:
    broken = {
        "no SFT at the small budget": _best_at(lambda b: 0.5 if b < 1 else 0.0),
        "no fall": _best_at(lambda _: 1.0),
        "rises in between": _best_at(lambda b: {0.125: 1.0, 0.5: 0.25, 2.0: 0.5}.get(b, 0.0)),
    }
    assert verdict(STUDY, claim, tmp_path, _rows(LAW)) == "holds"
    for error in broken.values():
        assert verdict(STUDY, claim, tmp_path, _rows(error)) == "fails"


def test_a_mixture_has_to_beat_both(tmp_path: Path) -> None:
    mixed, little = _best_at(lambda _: 0.25), lambda _, x: 1 + 0.005 * abs(x - 0.25)
    assert verdict(STUDY, "budgets-mixture", tmp_path, _rows(mixed)) == "holds"
    assert verdict(STUDY, "budgets-mixture", tmp_path, _rows(little)) == "fails"
    assert verdict(STUDY, "budgets-mixture", tmp_path, _rows(LAW)) == "fails"


def test_a_cold_start_is_a_tenth_against_none(tmp_path: Path) -> None:
    assert verdict(STUDY, "budgets-cold-start", tmp_path, _rows(_best_at(lambda _: 0.1))) == "holds"
    assert verdict(STUDY, "budgets-cold-start", tmp_path, _rows(LAW)) == "fails"


def test_a_share_of_nothing_is_outcome_supervision_and_the_design_matters() -> None:
    own, same = (split_budget(0, 24, design, 1.0, (2.0,), (0.0, 1.0)) for design in (OWN, SAME))
    assert own[0][2] == pytest.approx(same[0][2], rel=1e-6)
    assert abs(own[1][2] / same[1][2] - 1) > 1e-3


def test_cheap_demonstrations_are_more_rows() -> None:
    """SFT alone at cost .5 and budget 1 is SFT alone at cost 1 and budget 2."""
    half, whole = split_paper(24, 0.1, 0.5, (1.0,), (1.0,)), split_paper(24, 0.1, 1.0, (2.0,), (1.0,))
    assert half[0][2] == pytest.approx(whole[0][2], rel=1e-12)
