"""Two penalised stages at many penalties: against the general law, SciPy's search and drawn prompts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from datadose.simulation.training import TrainingStage, simulate_stages
from datadose.studies.ledger import judge_share
from datadose.studies.training_time.settings import paper_setting, random_setting
from datadose.studies.training_time.two_stages import (
    after_best_penalty,
    best_penalties,
    best_penalty,
    penalty_path,
)
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.training_time import trained


def ridge_of(prompts, count: float, mu: float) -> float:  # type: ignore[no-untyped-def]
    """lambda = mu (B - df1(mu)); 0 at convergence."""
    mu = max(mu, float(prompts.converged(count)))
    found = mu * (count - float(prompts.degrees(mu)[0]))
    return found if found > 1e-9 else 0.0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("mu", "counts"), [((3e-3, 0.5), (100, 150)), ((0.4, 0.0), (40, 60)), ((2.0, 0.2), (500, 30))]
)
def test_two_stages_are_those_of_the_general_law(
    seed: int, mu: tuple[float, float], counts: tuple[int, int]
) -> None:
    s = random_setting(seed)
    middle = s.sft.train(s.start, counts[0], mu[0])
    end = s.outcome.train(middle, counts[1], mu[1])
    ridges = ridge_of(s.sft, counts[0], mu[0]), ridge_of(s.outcome, counts[1], mu[1])
    n, start = s.length, pretrained_operator(s.sigma0, s.length)
    one = trained(start, s.eta, [Source(s.data, n, counts[0])], Stopping(ridge=ridges[0]))
    two = trained(one, 1.0, [Source(s.target, n, counts[1])], Stopping(ridge=ridges[1]))
    assert s.test.error(middle) == pytest.approx(one.error(s.target, n), rel=1e-8)
    assert s.test.error(end) == pytest.approx(two.error(s.target, n), rel=1e-8)
    assert s.known.error(end) == pytest.approx(two.error(s.sigma0, n), rel=1e-8)
    assert s.outcome.before(s.test, counts[1], mu[1]).error(middle) == pytest.approx(
        s.test.error(end), rel=1e-10
    )


@pytest.mark.parametrize("seed", range(6))
def test_scipy_finds_no_better_penalties(seed: int) -> None:
    s, (B1, B2) = random_setting(seed), (70.0, 200.0)
    found = best_penalties(s.start, s.sft, B1, s.outcome, B2, s.test)

    def error(u: np.ndarray) -> float:
        middle = s.sft.train(s.start, B1, float(np.exp(u[0])))
        return float(s.test.error(s.outcome.train(middle, B2, float(np.exp(u[1])))))

    starts = [np.log([first, second]) for first in (1e-3, 0.1, 10) for second in (1e-2, 1.0)]
    best = min(minimize(error, u, method="Nelder-Mead", options={"xatol": 1e-4}).fun for u in starts)
    assert found.error[0] <= best * (1 + 1e-4)
    assert found.error[0] == pytest.approx(error(np.log([found.first[0], found.second[0]])), rel=1e-9)


def test_a_stage_without_prompts_changes_nothing() -> None:
    s = random_setting(1)
    both = best_penalties(s.start, s.sft, [0.0, 90.0], s.outcome, [90.0, 0.0], s.test)
    alone = [best_penalty(s.start, p, 90.0, s.test) for p in (s.outcome, s.sft)]
    np.testing.assert_allclose(both.error, [a.error[0] for a in alone], rtol=1e-6)
    assert np.isinf(both.first[0])
    assert np.isinf(both.second[1])
    path = penalty_path(s, s.sft, 90.0)
    assert s.test.error(path.states).min() == pytest.approx(alone[1].error[0], rel=1e-3)
    end = after_best_penalty(path.states, s.outcome, 0.0, s.test)
    np.testing.assert_allclose(end, s.test.error(path.states), rtol=1e-12)


def test_the_known_table_of_two_stages() -> None:
    """d = 120, 60 rows: shares 0, 1/4, 1/2, 1 of the budget on SFT, found by an independent programme."""
    s, x = paper_setting(), np.array([0, 0.25, 0.5, 1])
    found = best_penalties(s.start, s.sft, x * 60, s.outcome, (1 - x) * 60, s.test).error
    np.testing.assert_allclose(found, [3.45, 3.35, 3.03, 2.12], rtol=5e-3)


def test_stages_against_drawn_prompts() -> None:
    """Pretraining, SFT and outcome supervision over 24 seeds; within 4 standard errors and 3 / d."""
    s = paper_setting(dimension=60)
    n, zero = s.length, np.zeros(60)
    plan = [
        TrainingStage(1.0, [Source(s.sigma0, n, 600)], Stopping()),
        TrainingStage(s.eta, [Source(s.data, n, 90)], Stopping(ridge=1.0)),
        TrainingStage(1.0, [Source(s.target, n, 80)], Stopping(time=2.0)),
    ]
    model = TrainedOperator.fixed(zero)
    found = simulate_stages(zero, plan, [s.target], n, seeds=24)
    for number, stage in enumerate(plan):
        model = trained(model, stage.eta, stage.sources, stage.stopping)
        expected = model.error(s.target, n)
        assert abs(found.mean[number, 0] - expected) < 4 * found.sem[number, 0] + 3 / 60 * expected


def test_a_share_has_the_interval_of_its_count() -> None:
    held = np.arange(100) < 70
    assert judge_share(held, 0.5).verdict == "holds"
    assert judge_share(held, 0.65).verdict == "mixed"
    assert judge_share(held, 0.85).verdict == "fails"
    assert judge_share(held[:0], 0.5).verdict == "not run"
    assert judge_share(held, 0.5).interval == pytest.approx((0.600, 0.788), abs=2e-3)
