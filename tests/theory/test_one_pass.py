"""One pass on fresh rows against explicit simulation, its limits and its largest step.

Monte Carlo tests compare every entry of a matrix of means over independent runs, in standard errors; with
Bonferroni over the entries a true statement fails with probability ``LEVEL``. Seeds are fixed beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from datadose.covariance import dense, product, transpose
from datadose.errors import InputError
from datadose.prompts import draw_noisy_moments
from datadose.shift import Shift
from datadose.theory.one_pass import OnePass
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.row_moments import MixedRows, RowMoments
from datadose.theory.sft import population_minimiser
from datadose.theory.source import Source
from datadose.theory.trained_operator import TrainedOperator

LEVEL = 1e-3


def psd(rng: np.random.Generator, d: int) -> np.ndarray:
    X = rng.standard_normal((d, d))
    return X @ X.T / d


def farthest(draws: np.ndarray, expected: np.ndarray) -> float:
    """The largest |mean - expected| in standard errors over the allowed one; ``draws`` is (runs, ...)."""
    sem = draws.std(axis=0, ddof=1) / len(draws) ** 0.5
    allowed = stats.norm.isf(LEVEL / 2 / expected.size)
    return float((np.abs(draws.mean(axis=0) - expected) / sem).max() / allowed)


def simulate(
    sources: list[Source],
    shares: np.ndarray,
    eta: float,
    start: np.ndarray,
    *,
    step: float,
    updates: int,
    batch: int,
    chain_steps: int = 0,
    decay: bool = False,
    seed: int,
) -> np.ndarray:
    """Literal stochastic descent, one run for each of ``start`` (runs, d, d), all at once."""
    V, c_k = start.copy(), sum((1 - eta) ** (2 * i) for i in range(chain_steps + 1))
    runs, d = len(V), V.shape[1]
    rng = np.random.default_rng(seed)
    for j in range(updates):
        count = runs * batch
        which = rng.choice(len(sources), size=count, p=shares)
        phi, answers = np.empty((count, d)), np.empty((count, d))
        for c, source in enumerate(sources):
            mine = which == c
            drawn = draw_noisy_moments(
                source.covariance, source.length, int(mine.sum()), source.label_noise, seed=[seed, j, c]
            )
            noise = rng.standard_normal((int(mine.sum()), d)) * np.sqrt(source.demonstration_noise / c_k)
            phi[mine], answers[mine] = (drawn.phi + drawn.echo).T, eta * drawn.weights.T + noise
        phi, answers = phi.reshape(runs, batch, d), answers.reshape(runs, batch, d)
        gradient = c_k * np.matmul((phi @ V.transpose(0, 2, 1) + answers).transpose(0, 2, 1), phi) / batch
        V = V - step * (1 - j / updates if decay else 1) * gradient
    return V


def gaussian_square(rows: MixedRows) -> Callable[..., np.ndarray]:
    """E[g^T g] if rows were Gaussian: what the exact moments replace."""

    def square(second: np.ndarray, mean: np.ndarray, batch: int) -> np.ndarray:
        C, A, eta = dense(rows.second), dense(rows.cross), rows.eta
        s, v = dense(second), dense(mean)
        crossed = eta * C @ v.T @ A
        G = C @ s @ C + crossed + crossed.T + eta**2 * A @ A
        R = np.trace(s @ C) + 2 * eta * np.trace(v @ A) + eta**2 * len(C)
        return (1 + 1 / batch) * G + C * R / batch

    return square


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("form", ["spectra", "dense"])
def test_means_and_second_moments_are_those_of_simulated_runs(batch: int, form: str) -> None:
    """Two sources, noise of both kinds, random start; a Gaussian closure is rejected by the same test."""
    rng, d, eta = np.random.default_rng([batch, len(form)]), 3, 0.4
    spectra = (rng.uniform(0.3, 1.5, d), np.array([1.2, 0.4, 0.0]))
    A = spectra if form == "spectra" else (psd(rng, d), psd(rng, d))
    sources = [Source(A[0], 2, 30, 0.3, 0.2), Source(A[1], 4, 10)]
    descent = OnePass.of(sources, eta, batch=batch, rates=[1, 2])
    shares = np.array([0.6, 0.4])
    mean = -rng.uniform(0.5, 2, d) if form == "spectra" else rng.standard_normal((d, d))
    runs, updates, step = 40_000, 6, 0.35 * descent.largest_step
    starts = dense(mean) + 0.3 * rng.standard_normal((runs, d, d))
    second = product(transpose(mean), mean) + 0.09 * d * (np.ones(d) if form == "spectra" else np.eye(d))
    start = TrainedOperator(mean, second, np.zeros_like(second))
    [predicted] = descent.path(start, step, [updates])
    V = simulate(sources, shares, eta, starts, step=step, updates=updates, batch=batch, seed=5 + batch)
    grams = V.transpose(0, 2, 1) @ V
    assert farthest(V, dense(predicted.mean)) < 1
    assert farthest(grams, dense(predicted.second_moment)) < 1
    if batch == 1:
        rows = MixedRows(descent.rows.rows, descent.rows.shares, eta)
        object.__setattr__(rows, "square", gaussian_square(rows))
        closed = replace(descent, rows=rows)
        [wrong] = [
            state for T, state in enumerate(closed._walk(start, iter([step] * updates))) if T == updates
        ]
        assert farthest(grams, dense(wrong.second)) > 2


def test_the_scatter_is_the_chance_of_the_rows_alone() -> None:
    """Two runs from one random start: their mean product is the second moment without its scatter."""
    rng, d, eta, runs = np.random.default_rng(8), 3, 0.3, 30_000
    source = Source(np.array([1.0, 0.5, 0.2]), 3, 1)
    descent = OnePass.of([source], eta)
    mean = np.array([-1.0, -2.0, -3.0])
    start = TrainedOperator(mean, mean**2 + 0.25 * d, np.zeros(d))
    starts = np.diag(mean) + 0.5 * rng.standard_normal((runs, d, d))
    step = 0.3 * descent.largest_step
    [predicted] = descent.path(start, step, [8])
    first, second = (
        simulate([source], np.ones(1), eta, starts, step=step, updates=8, batch=1, seed=seed)
        for seed in (1, 2)
    )
    crossed = first.transpose(0, 2, 1) @ second
    assert farthest(crossed, np.diag(predicted.second_moment - predicted.scatter)) < 1
    averaged = (first + second) / 2
    grams = averaged.transpose(0, 2, 1) @ averaged
    assert farthest(grams, np.diag(predicted.averaged(2).second_moment)) < 1
    assert predicted.scatter.min() > 0


def test_chains_and_a_falling_step_are_those_of_simulated_runs() -> None:
    d, eta, runs = 3, 0.5, 30_000
    source = Source(np.array([1.0, 0.6, 0.3]), 3, 1, demonstration_noise=0.4)
    descent = OnePass.of([source], eta, batch=2, chain_steps=2)
    V0 = np.array([-0.5, -1.0, -2.0])
    step = 0.6 * descent.largest_step
    [predicted] = descent.path(V0, step, [7], decay=True)
    starts = np.broadcast_to(np.diag(V0), (runs, d, d))
    V = simulate(
        [source], np.ones(1), eta, starts, step=step, updates=7, batch=2, chain_steps=2, decay=True, seed=4
    )
    assert farthest(V.transpose(0, 2, 1) @ V, np.diag(predicted.second_moment)) < 1


def quadrature(degrees: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, variables) and weights exact for polynomials of these degrees in independent N(0, 1)."""
    rules = [np.polynomial.hermite_e.hermegauss(degree // 2 + 1) for degree in degrees]
    points = np.stack(np.meshgrid(*(x for x, _ in rules), indexing="ij"), axis=-1)
    weights = np.stack(np.meshgrid(*(w / w.sum() for _, w in rules), indexing="ij"), axis=-1)
    return points.reshape(-1, len(degrees)), weights.prod(axis=-1).ravel()


@pytest.mark.parametrize(("n", "label_noise"), [(1, 0.0), (1, 0.7), (2, 0.0), (2, 0.5)])
def test_fourth_moments_of_rows_are_exact(n: int, label_noise: float) -> None:
    """At d = 2, by a quadrature that is exact for these polynomials in x, w* and eps."""
    rng, d = np.random.default_rng(n), 2
    A, X, v = psd(rng, d), psd(rng, d) - np.eye(d), rng.standard_normal((d, d))
    row = RowMoments(A, n, label_noise)
    noises = n if label_noise else 0
    points, weight = quadrature([8] * (n * d) + [6] * d + [4] * noises)
    x = points[:, : n * d].reshape(-1, n, d) @ np.linalg.cholesky(A).T
    w = points[:, n * d : n * d + d]
    y = np.einsum("pni,pi->pn", x, w) + (label_noise**0.5 * points[:, n * d + d :] if noises else 0)
    phi = np.einsum("pn,pni->pi", y, x) / n
    for factor, expected in (
        (np.ones(len(phi)), row.second),
        (np.einsum("pi,ij,pj->p", phi, X, phi), row.quartic(X)),
        (np.einsum("pi,ij,pj->p", phi, v.T, w), row.crossed(v)),
        ((w**2).sum(axis=1), row.answered),
    ):
        found = np.einsum("p,pi,pj->ij", weight * factor, phi, phi)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def mixture(d: int) -> tuple[list[Source], np.ndarray]:
    rng = np.random.default_rng(d)
    A = [np.exp(rng.standard_normal(d)), np.where(np.arange(d) < d // 2, rng.uniform(0.2, 1, d), 0)]
    return [Source(A[0], 3, 5, label_noise=0.2), Source(A[1], 20, 7, 0.0, 0.1)], -np.exp(
        rng.standard_normal(d)
    )


def test_spectra_are_their_diagonal_matrices() -> None:
    sources, V0 = mixture(6)
    whole = [replace(s, covariance=np.diag(s.covariance)) for s in sources]
    quick, literal = OnePass.of(sources, 0.3, batch=3), OnePass.of(whole, 0.3, batch=3)
    assert quick.largest_step == pytest.approx(literal.largest_step, rel=1e-10)
    step = 0.7 * quick.largest_step
    models = [(quick.path(V0, step, [9])[0], literal.path(V0, step, [9])[0])]
    models.append((quick.limit(V0, step), literal.limit(V0, step)))
    models.append((quick.path(V0, step, [9])[0], quick.path(np.diag(V0), step, [9])[0]))
    for found, expected in models:
        for name in ("mean", "second_moment", "scatter"):
            np.testing.assert_allclose(
                dense(getattr(found, name)), dense(getattr(expected, name)), rtol=1e-9, atol=1e-9
            )


def test_large_batches_are_descent_on_the_population() -> None:
    """V_inf + (V0 - V_inf)(1 - g C)^T; what is left falls like 1/b."""
    A, n, eta, T = np.array([1.5, 0.7, 0.0, 0.2]), 5, 0.3, 40
    V0 = -np.array([1.0, 2.0, 3.0, 4.0])
    errors = []
    for batch in (10**5, 10**6):
        descent = OnePass.of([Source(A, n, 1)], eta, batch=batch)
        step = 0.5 * descent.largest_step
        [model] = descent.path(V0, step, [T])
        goal = population_minimiser(A, n, eta, V0)
        V = goal + (V0 - goal) * (1 - step * descent.rows.second) ** T
        np.testing.assert_allclose(model.mean, V, rtol=1e-12)
        errors.append(model.second_moment - V**2)
        np.testing.assert_allclose(errors[-1], model.scatter, atol=1e-12)
        assert descent.largest_step == pytest.approx(2 / descent.rows.second.max(), rel=1e-4)
    np.testing.assert_allclose(errors[0][[0, 1, 3]], 10 * errors[1][[0, 1, 3]], rtol=1e-3)
    assert errors[0][2] == 0


@pytest.mark.parametrize("form", ["spectra", "dense"])
def test_the_largest_step_parts_bounded_from_unbounded(form: str) -> None:
    """Just below it the noise settles at ``limit``; just above it every update multiplies it."""
    rng, eta = np.random.default_rng(3), 0.3
    A = rng.uniform(0.4, 1, 4) if form == "spectra" else psd(rng, 4) / 4 + 0.3 * np.eye(4)
    descent = OnePass.of([Source(A, 3, 1), Source(np.full(4, 0.5), 2, 1)], eta, batch=2)
    largest = descent.largest_step
    V0 = -np.ones(4)
    below, end = descent.path(V0, 0.9 * largest, [1000])[0], descent.limit(V0, 0.9 * largest)
    np.testing.assert_allclose(below.second_moment, end.second_moment, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(below.scatter, end.scatter, rtol=1e-8, atol=1e-10)
    start = TrainedOperator.fixed(V0)
    sizes = {}
    for factor in (0.999, 1.001):
        walk = descent._walk(start, iter([factor * largest] * 1000))
        sizes[factor] = [np.trace(dense(state.second)) for state in walk]
    assert sizes[1.001][1000] - sizes[1.001][999] > sizes[1.001][999] - sizes[1.001][998] > 0
    assert 0 < sizes[0.999][1000] - sizes[0.999][999] < sizes[0.999][999] - sizes[0.999][998]
    with pytest.raises(InputError, match=f"learning_rate.*below {largest:.6g}, the largest stable"):
        descent.path(V0, 1.0001 * largest, [1])


def test_many_directions_by_iteration_agree_with_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Largest step and limit found by Lanczos and conjugate gradients, as for d > 32."""
    rng = np.random.default_rng(0)
    sources, V0 = [Source(psd(rng, 5), 4, 1), Source(psd(rng, 5), 2, 2)], rng.standard_normal((5, 5))
    written = OnePass.of(sources, 0.2)
    step = 0.8 * written.largest_step
    expected = written.limit(V0, step)
    monkeypatch.setattr("datadose.theory.one_pass._SMALL", 0)
    found = OnePass.of(sources, 0.2)
    assert found.largest_step == pytest.approx(written.largest_step, rel=1e-10)
    np.testing.assert_allclose(found.limit(V0, step).scatter, expected.scatter, rtol=1e-8, atol=1e-12)


def test_one_direction_by_hand() -> None:
    """d = 1: phi = A c w / n, so every moment is a product of two known ones."""
    a, n, eta, V0 = 1.3, 3, 0.4, -2.0
    descent = OnePass.of([Source(np.array([a]), n, 1)], eta)
    c2, c3, c4 = n * (n + 2), n * (n + 2) * (n + 4), n * (n + 2) * (n + 4) * (n + 6)
    C, fourth = a**2 * c2 / n**2, 3 * a**4 * c4 / n**4
    assert descent.largest_step == pytest.approx(2 * C / fourth)
    g = 0.5 * descent.largest_step
    [model] = descent.path(np.array([V0]), g, [1])
    gradient = V0 * C + eta * a
    square = V0**2 * fourth + 2 * eta * V0 * 3 * a**3 * c3 / n**3 + eta**2 * 3 * C
    assert model.second_moment[0] == pytest.approx(V0**2 - 2 * g * V0 * gradient + g**2 * square)


def test_best_and_errors_agree_with_the_path() -> None:
    shift = Shift.two_block(20, 10, 0.1, 0.2, 0.05)
    V0 = pretrained_operator(shift.sigma0, 40)
    descent = OnePass.of([Source(shift.data, 40, 1)], shift.eta)
    step = descent.largest_step / 3
    errors = descent.errors(V0, step, range(301), shift.target, 40)
    assert descent.best(V0, step, 300, shift.target, 40) == (errors.argmin(), errors.min())
    assert 0 < errors.argmin() < 300
    models = descent.path(V0, step, [200, 5, 0])
    found = [model.error(shift.target, 40) for model in models]
    np.testing.assert_allclose(found, errors[[200, 5, 0]], rtol=1e-12)
    np.testing.assert_array_equal(
        descent.errors(V0, step, [200, 5, 0], shift.target, 40), errors[[200, 5, 0]]
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"batch": 0}, "batch"),
        ({"rates": [1, 2]}, "rates: got 2 rates; allowed: 1"),
        ({"rates": [-1]}, "rates"),
        ({"rates": [0]}, "sources: got no rows"),
        ({"chain_steps": 1}, "label_noise: got 0.1 with chain_steps = 1"),
    ],
)
def test_bad_descents_are_one_line(change: dict[str, object], line: str) -> None:
    with pytest.raises(InputError, match=line):
        OnePass.of([Source(np.ones(2), 3, 4, label_noise=0.1)], 0.3, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [{"learning_rate": 0}, {"updates": [-1]}, {"start": np.ones(3)}])
def test_bad_paths_are_one_line(bad: dict[str, object]) -> None:
    given: dict[str, object] = {"start": -np.ones(2), "learning_rate": 0.01, "updates": [3]}
    with pytest.raises(InputError, match=next(iter(bad))):
        OnePass.of([Source(np.ones(2), 3, 4)], 0.3).path(**(given | bad))  # type: ignore[arg-type]
