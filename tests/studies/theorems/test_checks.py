"""The numerical checks behind the ledger say what they claim to say, and would notice a wrong formula."""

from __future__ import annotations

import pytest

from datadose.studies.theorems import outcome_checks as outcome_theorems
from datadose.studies.theorems.measured import CHECKS, Theorems

pytestmark = pytest.mark.long


def test_outcome_checks_measure_what_they_say() -> None:
    for seed in range(4):
        rollout = outcome_theorems.check_rollout(seed)
        assert max(rollout.values()) < 1e-9
        assert outcome_theorems.check_outcome_gradient(seed)["gradient_gap"] < 1e-9
        curvature = outcome_theorems.check_curvature(seed)
        printed = "scaled_printed_over_curvature"
        assert curvature[printed] == pytest.approx(curvature[f"{printed}_predicted"], rel=1e-6)
        assert curvature["scaled_curvature_over_proven"] == pytest.approx(1, rel=1e-6)
        # 2 ||M||^2 ||w||^2 ||S||^2 there, against 6 in the proven bound; rounding leaves rho(M) at 1e-8.
        assert curvature["zero_loss_curvature_over_proven"] == pytest.approx(1 / 3, rel=1e-6)
        assert curvature["zero_loss_printed_over_curvature"] < 1e-6
        assert curvature["zero_loss"] < 1e-25
        dynamics = outcome_theorems.check_dynamics(seed)
        assert dynamics["factor_gap"] < 2e-3
        assert dynamics["moved"] > 0.05


def test_a_wrong_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = outcome_theorems.outcome_gradient
    monkeypatch.setattr(outcome_theorems, "outcome_gradient", lambda *a: 1.001 * right(*a))
    assert outcome_theorems.check_outcome_gradient(0)["gradient_gap"] > 1e-4


def test_every_check_runs_once_a_seed() -> None:
    config = Theorems.preset("smoke")
    cells = config.cells()
    assert len(cells) == 3 * len(CHECKS)
    table = config.table([{"x": 1.0}] * len(cells))
    assert list(table.columns) == ["check", "seed", "statistic", "value"]
    assert len(table) == len(cells)
