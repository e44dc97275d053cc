"""What stages do in T steps: against real gradient descent, closed forms and Monte Carlo."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from datadose.covariance import Array, dense, wishart_second_moment
from datadose.errors import InputError
from datadose.planner import ErrorModel, PostTraining
from datadose.planner.dynamics import (
    Descent,
    Ground,
    State,
    after_outcome,
    long_prompt_operator,
    outcome,
    outcome_request,
    sft,
    start_curvature,
)
from datadose.prompts import draw_moments
from datadose.shift import Shift
from datadose.theory.equivalent import Columns
from datadose.theory.post_test import quadratic_error
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source

D, M, N = 60, 20, 120
SHIFT = Shift.two_block(D, M, 0.1, 0.2, 0.02)
SECOND = wishart_second_moment(SHIFT.target, N)
SEEDS = 24


def ground(training: PostTraining | None = None, shift: Shift = SHIFT, length: int = N) -> Ground:
    model = ErrorModel(pretrained_operator(shift.sigma0, length), shift.eta, shift.target, length)
    return Ground(model, np.where(shift.delta > 0, 1.0, 0.0), training or PostTraining())


def sft_columns(where: Ground, prompts: float, data: Array = SHIFT.data, length: int = N) -> list[Columns]:
    return [replace(where.model.columns(Source(data, length, 1)), count=float(prompts))]


def turned(where: Ground, basis: Array) -> Ground:
    return Ground(where.model.rotated(basis.T), basis[:, where.judged > 0], where.training)


def random_basis(d: int) -> Array:
    return np.linalg.qr(np.random.default_rng(5).standard_normal((d, d)))[0]


def descend(V: Array, stage: Descent, data: Array, steps: int, *, seed: int, own: bool = False) -> Array:
    """T literal steps of a stage, in closed form; ``own`` is half of the sample's largest stable step."""
    request = stage.request
    drawn = draw_moments(data, N, round(request.prompts), seed=seed)
    values, vectors = np.linalg.eigh(drawn.phi @ drawn.phi.T)
    values = np.clip(values, 0, None)
    step = 1 / values[-1] if own else stage.rate * request.copies / request.prompts
    decay = (1 - step * values) ** steps
    reached = np.divide(
        1 - decay, values, out=np.full(len(V), steps * step), where=values > 1e-9 * values[-1]
    )
    pull = request.eta * drawn.weights @ drawn.phi.T
    return np.asarray((V @ (vectors * decay) - pull @ (vectors * reached)) @ vectors.T)


def measured(prompts: int, steps: int, *, own: bool) -> tuple[Array, Array]:
    """Mean error / d after SFT, outcome supervision and both over SEEDS samples, and its standard error."""
    where = ground()
    first, alone = (
        sft(where, sft_columns(where, prompts)),
        outcome(where, where.start, outcome_request(where.model, prompts)),
    )
    V0, errors = dense(where.model.V0), []
    for seed in range(SEEDS):
        taught = descend(V0, first, SHIFT.data, steps, seed=seed, own=own)
        ends = (
            taught,
            descend(V0, alone, SHIFT.target, steps, seed=100 + seed, own=own),
            descend(taught, alone, SHIFT.target, steps, seed=100 + seed, own=own),
        )
        errors.append([quadratic_error(V, SHIFT.target, SECOND) for V in ends])
    found = np.array(errors)
    return found.mean(axis=0), found.std(axis=0, ddof=1) / SEEDS**0.5


def reinforced(where: Ground, start: State, prompts: int, steps: int) -> float:
    """The error after outcome supervision."""
    return after_outcome(where, outcome(where, start, outcome_request(where.model, prompts)), steps)[1]


def forecast(prompts: int, steps: int) -> Array:
    """The errors of :func:`measured` by the law."""
    where = ground()
    taught = sft(where, sft_columns(where, prompts)).after(steps)
    alone, both = (reinforced(where, start, prompts, steps) for start in (where.start, taught))
    return np.array([where.error(taught), alone, both])


def test_the_closed_form_of_descent_is_descent() -> None:
    """The twin itself: 50 literal steps."""
    where = ground()
    stage = sft(where, sft_columns(where, 30))
    drawn = draw_moments(SHIFT.data, N, 30, seed=0)
    H, V = drawn.phi @ drawn.phi.T, dense(where.model.V0)
    for _ in range(50):
        gradient = stage.request.copies / 30 * (V @ H + SHIFT.eta * drawn.weights @ drawn.phi.T)
        V = V - stage.rate * gradient
    found = descend(dense(where.model.V0), stage, SHIFT.data, 50, seed=0)
    np.testing.assert_allclose(found, V, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("steps", [30, 100, 1000])
@pytest.mark.parametrize("prompts", [10, 40, 150, 600])
def test_stages_against_gradient_descent(prompts: int, steps: int) -> None:
    """At the plan's learning rate: 4 standard errors, and 4 percent for the order 1/d (d = 60).

    36 means are compared, so a right law fails with probability below 0.01 (normal means). At half of each
    sample's own largest stable step, which differs from the limit's by O(d^{-2/3}), 4 percent more.
    """
    predicted = forecast(prompts, steps)
    for own, allowed in ((False, 0.04), (True, 0.08)):
        mean, sem = measured(prompts, steps, own=own)
        assert (np.abs(predicted - mean) <= 4 * sem + allowed * mean).all()


def test_the_ends_of_time() -> None:
    """No prompts leave the start; all of time leads to the minimiser of the exact theorem."""
    where = ground()
    before = where.model.error([], [])
    for prompts in (10, 40, 150):
        columns = sft_columns(where, prompts)
        (forever,) = sft(where, columns).errors([10**9])
        assert forever == pytest.approx(where.model.error(columns, [prompts]), rel=1e-3)
        end = replace(where.model, eta=1.0).error([Columns(1, SECOND, SHIFT.target)], [prompts])
        found = reinforced(where, where.start, prompts, 10**9)
        assert found == pytest.approx(end, rel=1e-3)
    nothing = sft(where, sft_columns(where, 0))
    assert nothing.is_stable
    assert [where.error(nothing.after(100)), *nothing.errors([100])] == pytest.approx([before, before])


def test_a_learning_rate_sets_the_clock() -> None:
    """Ten times as many steps of a tenth are nearly the same time; of none given each stage takes its own."""
    where = ground()
    columns = sft_columns(where, 150)
    half = sft(where, columns)
    assert half.rate == pytest.approx(half.request.largest_rate / 2)
    slow, slower = (
        sft(replace(where, training=PostTraining(learning_rate=half.rate / x)), columns) for x in (10, 100)
    )
    assert slow.errors([200])[0] == pytest.approx(slower.errors([2000])[0], rel=0.01)
    assert slow.errors([200])[0] != pytest.approx(half.errors([200])[0], rel=0.05)
    assert slow.is_stable
    fast = sft(replace(where, training=PostTraining(learning_rate=half.rate * 3)), columns)
    assert not fast.is_stable
    with pytest.raises(InputError, match=r"learning_rate: got .*; allowed: a number below"):
        fast.errors([10])


def test_what_sft_left_uncertain_reaches_the_next_stage() -> None:
    """A fixed start with the same mean is more than a tenth better than the random one, as descent is not."""
    where, B, T = ground(), 50, 100
    taught = sft(where, sft_columns(where, B)).after(T)
    predicted = reinforced(where, taught, 40, 20)
    without = reinforced(where, State.fixed(taught.model.mean, where.projector), 40, 20)
    assert without < 0.9 * predicted


def test_dense_is_spectral() -> None:
    where = ground(PostTraining(tolerance=1.2))
    basis = random_basis(D)
    rotated = turned(where, basis)
    columns = sft_columns(where, 40)
    columns_in = [c.rotated(basis.T) for c in columns]
    states = [sft(where, columns).after(50), sft(rotated, columns_in).after(50)]
    for measure in (
        Ground.error,
        Ground.pass_rate,
        lambda w, s: reinforced(w, s, 40, 50),
    ):
        found = [measure(w, s) for w, s in zip((where, rotated), states, strict=True)]
        assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_the_flow_of_three_steps_dense_is_its_closed_form() -> None:
    """To the solver's tolerance of 1e-2; at equal times, since the two bound the curvature differently."""
    where = ground(PostTraining(3), Shift.two_block(16, 6, 0.3, 0.2), 64)
    basis = random_basis(16)
    rotated = turned(where, basis)
    paths = []
    for w in (where, rotated):
        curvature = start_curvature(w.model.V0, w.model.target, 3)
        counts: Any = [time * curvature for time in (0.01, 0.1, 1.0, 10.0)]
        paths.append([long_prompt_operator(w, w.model.V0, T) for T in counts])
    for flat, found in zip(*paths, strict=True):
        np.testing.assert_allclose(basis.T @ found @ basis, np.diag(flat), atol=2e-2 * np.abs(flat).max())


@pytest.mark.parametrize("tolerance", [0.4, 0.5, 0.6])
def test_pass_rate_against_sampling(tolerance: float) -> None:
    """20,000 prompts, one step: 5 standard errors (false alarm 6e-7) and 0.01 for the law's order 1/n."""
    shift = Shift.two_block(20, 8, 0.3, 0.2)
    where = ground(PostTraining(tolerance=tolerance, noise=0.2), shift, 400)
    drawn = draw_moments(shift.target, 400, 20_000, seed=0)
    rng = np.random.default_rng(1)
    V = -0.7 / shift.target
    gap = (drawn.weights + V[:, None] * drawn.phi)[:8]
    gap = gap + 0.2 * rng.standard_normal(gap.shape)
    sampled = float(((gap**2).sum(axis=0) <= tolerance**2 * 8).mean())
    assert 0.005 < sampled < 0.995
    assert where.pass_rate(State.fixed(V, where.projector)) == pytest.approx(
        sampled, abs=5 * (0.25 / 20_000) ** 0.5 + 0.01
    )


@pytest.mark.parametrize(("chain_steps", "share"), [(2, 0.25), (3, 0.18)])
def test_pass_rate_of_longer_chains(chain_steps: int, share: float) -> None:
    """Literal roll-outs of the answers w_{i+1} = w_i - V S (w* - w_i) on drawn Wisharts; to order 1/n."""
    d, m, n, count = 10, 4, 200, 8000
    shift = Shift.two_block(d, m, 0.3, 0.2)
    model = ErrorModel(pretrained_operator(shift.sigma0, n), 0.2, shift.target, n, chain_steps)
    where = Ground(
        model, np.where(shift.delta > 0, 1.0, 0.0), PostTraining(chain_steps, tolerance=0.7, noise=0.2)
    )
    rng = np.random.default_rng(2)
    x = rng.standard_normal((count, n, d)) * np.sqrt(shift.target)
    S = np.einsum("bni,bnj->bij", x, x, optimize=True) / n
    gap, V = rng.standard_normal((count, d)), -share / shift.target
    for _ in range(chain_steps):
        gap = gap + V * np.einsum("bij,bj->bi", S, gap)
    inside = gap[:, :m] + 0.2 * rng.standard_normal((count, m))
    sampled = float(((inside**2).sum(axis=1) <= 0.7**2 * m).mean())
    # 5 standard errors (false alarm 6e-7) and 0.03 for terms beyond 1/n.
    assert 0.05 < sampled < 0.95
    assert where.pass_rate(State.fixed(V, where.projector)) == pytest.approx(
        sampled, abs=5 * (0.25 / count) ** 0.5 + 0.03
    )


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"chain_steps": 0}, "chain_steps"),
        ({"steps": 0}, "steps"),
        ({"reward": "sparse"}, "reward"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"noise": float("nan")}, "noise"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_bad_recipes_are_named(values: dict[str, object], field: str) -> None:
    with pytest.raises(InputError, match=f"{field}: got .*; allowed: "):
        PostTraining(**values)  # type: ignore[arg-type]
