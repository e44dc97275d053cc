"""Simulated training against its definitions: explicit descent, expm, a ridge solve, repeated rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import expm

from datadose.covariance import dense
from datadose.errors import InputError
from datadose.prompts import Moments, NoisyMoments, draw_moments, draw_noisy_moments
from datadose.simulation.mixtures import draw_source, regression
from datadose.simulation.spectral import Pool, Regression
from datadose.simulation.training import (
    TrainingStage,
    simulate_average,
    simulate_stages,
    simulate_training,
    train_operator,
)
from datadose.theory import GradientDescent, Source, chain_weight, post_test_error, sft_minimiser
from datadose.theory.sft import nearest_fit, sft_gradient
from datadose.theory.stopping import Stopping
from helpers.literal import random_psd

D, ETA, LENGTH = 12, 0.3, 25
A = random_psd(D, 1)
V0 = -0.6 * random_psd(D, 2) + 0.1 * np.random.default_rng(3).standard_normal((D, D))
TARGETS = [random_psd(D, 4), np.linspace(0.2, 1.5, D)]
STOPPINGS = [
    Stopping(),
    Stopping(time=0.0),
    Stopping(time=0.7),
    Stopping(time=40.0),
    Stopping(steps=7, learning_rate=0.02),
    Stopping(steps=0, learning_rate=0.02),
    Stopping(ridge=0.0),
    Stopping(ridge=2.0),
]


def moments_of(prompts: int, seed: int) -> Moments:
    """The prompts of the only source of :func:`train_operator` under ``seed``."""
    return draw_moments(A, LENGTH, prompts, seed=[seed, 0])


def trained(prompts: int, stopping: Stopping, chain_steps: int = 0, seed: int = 5) -> np.ndarray:
    return train_operator(V0, ETA, [Source(A, LENGTH, prompts)], stopping, chain_steps=chain_steps, seed=seed)


@pytest.mark.parametrize("prompts", [1, 5, 12, 13, 60])
@pytest.mark.parametrize("k", [0, 3])
def test_each_stopping_is_what_it_says(prompts: int, k: int) -> None:
    """Explicit gradient descent, expm of the flow, a dense ridge solve and the minimiser; 1e-9 of the largest
    entry, with fewer prompts than directions, as many, and more.
    """
    moments = moments_of(prompts, 5)
    M, B = moments.phi @ moments.phi.T, prompts
    edge = chain_weight(ETA, k) * np.linalg.eigvalsh(M)[-1] / B
    minimiser = sft_minimiser(moments, ETA, V0)
    scale = np.abs(minimiser).max()
    for rate in (0.2 / edge, 1.9 / edge):
        V = V0
        for _ in range(15):
            V = V - rate * sft_gradient(V, moments, ETA, k)
        found = trained(B, Stopping(steps=15, learning_rate=rate), k)
        np.testing.assert_allclose(found, V, rtol=0, atol=1e-9 * scale)
        iterated = GradientDescent.of(moments, ETA, V0, k).iterate(rate, 4000)
        found = trained(B, Stopping(steps=4000, learning_rate=rate), k)
        np.testing.assert_allclose(found, iterated, rtol=0, atol=1e-9 * scale)
    for time in (0.3, 30.0):
        flow = minimiser + (V0 - minimiser) @ expm(-time / B * M)
        np.testing.assert_allclose(trained(B, Stopping(time=time), k), flow, rtol=0, atol=1e-9 * scale)
    for ridge in (0.1, 10.0):
        wanted = ridge * V0 - ETA * moments.weights @ moments.phi.T
        solved = np.linalg.solve(M + ridge * np.eye(D), wanted.T).T
        np.testing.assert_allclose(trained(B, Stopping(ridge=ridge), k), solved, rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(trained(B, Stopping(), k), minimiser, rtol=0, atol=1e-9 * scale)
    np.testing.assert_array_equal(trained(B, Stopping(time=0.0), k), V0)


def test_weights_repeat_rows() -> None:
    """Weight 3 is each row three times, at B without the copies; weight 0 is no source and no part of B."""
    sources = [Source(A, LENGTH, 9), Source(TARGETS[0], 40, 5), Source(np.eye(D), 10, 50)]
    first, second = (draw_source(s, ETA, 0, seed=[2, c]) for c, s in enumerate(sources[:2]))
    F, Y = (np.hstack([a, a, a, b]) for a, b in zip(first, second, strict=True))
    V = V0
    for _ in range(25):
        V = V - 0.1 / 14 * (V @ F - Y) @ F.T
    options = {"weights": [3.0, 1.0, 0.0], "seed": 2}
    found = train_operator(V0, ETA, sources, Stopping(steps=25, learning_rate=0.1), **options)
    np.testing.assert_allclose(found, V, rtol=0, atol=1e-9)
    found = train_operator(V0, ETA, sources, Stopping(ridge=1.5), **options)
    solved = np.linalg.solve(F @ F.T + 1.5 * np.eye(D), (1.5 * V0 + Y @ F.T).T).T
    np.testing.assert_allclose(found, solved, rtol=0, atol=1e-9)


@pytest.mark.parametrize("prompts", [4, 9, 40])
@pytest.mark.parametrize("k", [0, 3])
def test_noisy_rows_follow_descent_on_the_literal_loss(prompts: int, k: int) -> None:
    """Noisy labels and demonstrations: descent on the sum over all teacher-forced steps, and its ridge."""
    moments = draw_noisy_moments(A, LENGTH, prompts, 2.0, seed=5)
    assert isinstance(moments, NoisyMoments)
    nu = 0.4 * np.random.default_rng(6).standard_normal((k + 1, D, prompts))
    rho = (1 - ETA) ** np.arange(k + 1)
    F = np.hstack([r * moments.phi + moments.echo for r in rho])
    Y = np.hstack([-ETA * r * moments.weights - n for r, n in zip(rho, nu, strict=True)])
    c = chain_weight(ETA, k)
    if k == 0:
        short = regression(moments, ETA, None, nu)
    else:
        O_k = np.array([[c, rho.sum()], [rho.sum(), k + 1]])
        pulls = np.stack([np.tensordot(rho, nu, 1), nu.sum(axis=0)])
        noise = np.tensordot(np.linalg.inv(np.linalg.cholesky(O_k / c)), pulls, 1) / c
        short = regression(moments, ETA, O_k / c, noise)
    request = Regression.of(ETA, [Source(A, LENGTH, prompts, 2.0, 0.16)], None, k)
    blocks = [[X.reshape(D, -1, prompts)] for X in short]
    factors = Pool(request, *blocks).factors(np.array([prompts]), V0)
    assert len(factors.singular) == min(D, (1 if k == 0 else 2) * prompts)
    V, rate = V0, prompts / np.linalg.eigvalsh(F @ F.T)[-1]
    for _ in range(20):
        V = V - rate / prompts * (V @ F - Y) @ F.T
    gains = factors.gains(Stopping(steps=20, learning_rate=rate), request.speed)
    np.testing.assert_allclose(V0 + factors.change(gains), V, rtol=0, atol=1e-9)
    solved = np.linalg.solve(F @ F.T / c + 0.5 * np.eye(D), (0.5 * V0 + Y @ F.T / c).T).T
    gains = factors.gains(Stopping(ridge=0.5), request.speed)
    np.testing.assert_allclose(V0 + factors.change(gains), solved, rtol=0, atol=1e-9)


SPECTRA = [np.linspace(0.1, 1, D), np.where(np.arange(D) < 7, 0.8, 0.0)]
POOLS = {
    "dense": [Source(A, LENGTH, 0), Source(random_psd(D, 8, rank=4), 30, 0, 0.5, 0.2)],
    "missing directions": [Source(random_psd(D, 8, rank=4), 30, 0), Source(random_psd(D, 9, rank=3), 30, 0)],
    "spectra": [Source(SPECTRA[0], LENGTH, 0), Source(SPECTRA[1], 9, 0, 1.0)],
    "missing coordinates": [Source(SPECTRA[1], LENGTH, 0), Source(np.where(np.arange(D) < 3, 1e-3, 0), 9, 0)],
    "small beside large": [Source(SPECTRA[1], 900, 0), Source(1e-7 * SPECTRA[0], 900, 0)],
}
GRID = np.array([[0, 0], [2, 1], [4, 9], [7, 9], [30, 9], [20, 30]])


@pytest.mark.parametrize("start", [V0, V0.diagonal()], ids=["dense start", "spectral start"])
@pytest.mark.parametrize("pool", POOLS)
def test_a_surface_is_the_error_of_each_trained_operator(pool: str, start: np.ndarray) -> None:
    """Every point of the grid, every stopping and both tests against Prop 5.1 at the operator, which at
    convergence is the least-squares fit nearest to the start; smaller counts after larger ones too.
    """
    sources, weights = POOLS[pool], [1.0, 0.3]
    surface = simulate_training(
        start, ETA, sources, TARGETS, 20, STOPPINGS, counts=GRID, weights=weights, chain_steps=2, seeds=[3]
    ).values
    assert surface.shape == (1, len(GRID), len(STOPPINGS), 2)
    for point, counts in enumerate(GRID):
        own = [replace(s, prompts=int(B)) for s, B in zip(sources, counts, strict=True)]
        drawn = [draw_source(s, ETA, 2, seed=[3, c]) for c, s in enumerate(own)]
        F, Y = (
            np.hstack([np.sqrt(w) * pair[i] for w, pair in zip(weights, drawn, strict=True)]) for i in (0, 1)
        )
        for place, stopping in enumerate(STOPPINGS):
            V = train_operator(start, ETA, own, stopping, weights=weights, chain_steps=2, seed=3)
            if stopping == Stopping():
                fit = nearest_fit(F, Y, start)
                np.testing.assert_allclose(V, fit, rtol=0, atol=1e-8 * np.abs(fit).max())
            expected = [post_test_error(V, target, 20) for target in TARGETS]
            np.testing.assert_allclose(surface[0, point, place], expected, rtol=1e-8)


def test_shorter_grids_and_single_seeds_are_parts_of_longer_ones() -> None:
    request = (V0, ETA, [Source(A, LENGTH, 8, 0.3, 0.1)], TARGETS, 20, STOPPINGS)
    whole = simulate_training(*request, counts=[3, 8, 20, 50], chain_steps=1, seeds=3)
    part = simulate_training(*request, counts=[3, 20], chain_steps=1, seeds=[1])
    np.testing.assert_allclose(part.values[0], whole.values[1, [0, 2]], rtol=1e-9)
    own = simulate_training(*request, chain_steps=1, seeds=[1])
    np.testing.assert_allclose(own.values[0, 0], whole.values[1, 1], rtol=1e-9)
    np.testing.assert_array_equal(
        simulate_training(*request, counts=[3, 20], chain_steps=1, seeds=[1]).values, part.values
    )
    np.testing.assert_allclose(whole.mean, whole.values.mean(axis=0))
    np.testing.assert_allclose(whole.sem, whole.values.std(axis=0, ddof=1) / np.sqrt(3))
    assert np.isnan(part.sem).all()


def test_stages_start_where_the_one_before_ended_on_rows_of_their_own() -> None:
    sft = TrainingStage(
        ETA, [Source(A, LENGTH, 7), Source(np.ones(D), 30, 4)], Stopping(time=3.0), [1.0, 2.0]
    )
    outcome = TrainingStage(1.0, [Source(TARGETS[0], 20, 30)], Stopping(ridge=4.0))
    found = simulate_stages(V0, [sft, outcome, outcome], TARGETS, 20, seeds=2)
    assert found.values.shape == (2, 3, 2)
    V = train_operator(V0, ETA, sft.sources, sft.stopping, weights=[1.0, 2.0], seed=(1, 0))
    drawn = []
    for place in range(1, 3):
        np.testing.assert_allclose(
            found.values[1, place - 1], [post_test_error(V, t, 20) for t in TARGETS], rtol=1e-12
        )
        F, Y = draw_source(outcome.sources[0], 1.0, 0, seed=(1, place, 0))
        V = np.linalg.solve(F @ F.T + 4.0 * np.eye(D), (4.0 * V + Y @ F.T).T).T
        drawn.append(F)
    np.testing.assert_allclose(found.values[1, 2], [post_test_error(V, t, 20) for t in TARGETS], rtol=1e-10)
    assert np.abs(drawn[0] - drawn[1]).min() > 0


def test_averages_of_models_on_disjoint_rows() -> None:
    stage = TrainingStage(ETA, [Source(A, LENGTH, 7)], Stopping(time=3.0))
    found = simulate_average(V0, stage, 3, TARGETS, 20, seeds=[4])
    assert found.values.shape == (1, 3, 2)
    models = [train_operator(V0, ETA, stage.sources, stage.stopping, seed=(4, m)) for m in range(3)]
    for m in range(3):
        V = np.mean(models[: m + 1], axis=0)
        np.testing.assert_allclose(
            found.values[0, m], [post_test_error(V, t, 20) for t in TARGETS], rtol=1e-12
        )
    rows = [draw_source(stage.sources[0], ETA, 0, seed=(4, m, 0))[0] for m in range(3)]
    assert np.abs(rows[0] - rows[1]).min() > 0
    assert np.abs(rows[1] - rows[2]).min() > 0


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("weights", {"weights": [1.0, 1.0]}),
        ("weights", {"weights": [-1.0]}),
        ("weights", {"weights": [np.nan]}),
        ("counts", {"counts": [[1, 2]]}),
        ("counts", {"counts": [1.5]}),
        ("counts", {"counts": [-1]}),
        ("counts", {"counts": []}),
        ("counts", {"counts": ["many"]}),
        ("counts", {"counts": [np.nan]}),
        ("seeds", {"seeds": []}),
        ("chain_steps", {"chain_steps": -1}),
        ("eta", {"eta": 2.5}),
        ("sources", {"sources": []}),
        ("sources", {"sources": [Source(A, 5, 3), Source(np.ones(3), 5, 3)]}),
        ("targets", {"targets": []}),
        ("targets", {"targets": [np.ones(3)]}),
        ("targets", {"targets": np.ones(D)}),
        ("test_length", {"test_length": 0}),
        ("stoppings", {"stoppings": []}),
        ("learning_rate", {"stoppings": [Stopping(steps=3, learning_rate=1e3)]}),
        ("prompts", {"sources": [Source(A, 5, -3)]}),
        ("V0", {"V0": np.ones(3)}),
    ],
)
def test_bad_input_is_named(field: str, options: dict[str, object], any_shape: None) -> None:
    request: dict[str, object] = {
        "V0": V0,
        "eta": ETA,
        "sources": [Source(A, 5, 3)],
        "targets": TARGETS,
        "test_length": 20,
        "stoppings": STOPPINGS,
        "seeds": 1,
    }
    with pytest.raises(InputError) as caught:
        simulate_training(**{**request, **options})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_the_largest_learning_rate_is_named() -> None:
    """Just below it the run is done, just above it is refused, and both agree with the eigenvalues."""
    phi, k = moments_of(20, 5).phi, 2
    largest = 2 * 20 / (chain_weight(ETA, k) * np.linalg.eigvalsh(phi @ phi.T)[-1])
    assert np.isfinite(trained(20, Stopping(steps=10**6, learning_rate=largest * 0.999), k)).all()
    with pytest.raises(InputError, match=f"below {largest:.5g}"):
        trained(20, Stopping(steps=2, learning_rate=largest * 1.001), k)


def test_no_weight_and_no_prompts_leave_the_start() -> None:
    for weights, counts in (([0.0], [9]), ([1.0], [0])):
        found = simulate_training(
            V0.diagonal(),
            ETA,
            [Source(A, 5, 0)],
            TARGETS,
            20,
            STOPPINGS,
            counts=counts,
            weights=weights,
            seeds=1,
        )
        expected = [post_test_error(dense(V0.diagonal()), t, 20) for t in TARGETS]
        np.testing.assert_allclose(found.values[0, 0], np.tile(expected, (len(STOPPINGS), 1)), rtol=1e-12)
    nothing = train_operator(V0, ETA, [Source(np.zeros(D), 5, 4)], Stopping(), seed=0)
    np.testing.assert_array_equal(nothing, V0)
