"""Pretraining on a number of prompts: its derivatives, its limit of unlimited prompts, and simulation."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.shapes import Array
from datadose.simulation.training import TrainingStage, simulate_stages
from datadose.theory import PeakError, Source, Stopping, WeightedTest
from datadose.theory.finite_pretraining import FinitePretraining
from datadose.theory.start_gradient import ErrorFromStart

D, LENGTH, P = 12, 20, 90
SHARES = np.array([0.2, 0.7, 0.1])


def covariances(*, dense: bool, ranks: tuple[int, ...] = (D, D, D)) -> list[Array]:
    rng = np.random.default_rng(8)
    found = []
    for rank in ranks:
        values = np.where(np.arange(D) < rank, np.exp(rng.uniform(-2, 1, D)), 0.0)
        Q = np.linalg.qr(rng.standard_normal((D, D)))[0]
        found.append((Q * values) @ Q.T if dense else values)
    return found


def judged(*, dense: bool) -> ErrorFromStart:
    data, target, _ = covariances(dense=dense)
    return ErrorFromStart.of(0.3, Source(data, LENGTH, 9.0), WeightedTest.of(target, LENGTH))


@pytest.mark.parametrize("ranks", [(D, D, D), (D, 5, 7)])
@pytest.mark.parametrize("dense", [False, True])
def test_derivatives_by_shares_are_those_of_the_error_after_post_training(
    dense: bool, ranks: tuple[int, ...]
) -> None:
    """Central differences through both stages; shares are known by their ratios."""
    model, end = FinitePretraining.of(covariances(dense=dense, ranks=ranks), LENGTH, P), judged(dense=dense)
    found = end.best(model.start(SHARES))
    slopes = model.slopes(SHARES, found.mean, found.second_moment)
    for j in range(3):
        step = 1e-5 * np.eye(3)[j]
        ends = [end.best(model.start(SHARES + sign * step)).error for sign in (1, -1)]
        assert slopes[j] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-8)
    assert end.best(model.start(5 * SHARES)).error == pytest.approx(found.error, rel=1e-12)


def test_sides_of_a_peak_are_differentiated_too() -> None:
    """The third category alone has some directions, and fewer prompts than those."""
    spectra = [np.where(np.arange(D) < 6, 1.0, 0.0), np.where(np.arange(D) < 5, 0.5, 0.0), np.ones(D)]
    model, end, shares = FinitePretraining.of(spectra, LENGTH, P), judged(dense=False), [0.5, 0.47, 0.03]
    found = end.best(model.start(shares))
    slopes = model.slopes(shares, found.mean, found.second_moment)
    for j in range(3):
        step = 1e-6 * np.eye(3)[j]
        ends = [end.best(model.start(shares + sign * step)).error for sign in (1, -1)]
        assert slopes[j] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


@pytest.mark.parametrize("dense", [False, True])
def test_many_prompts_are_unlimited_ones(dense: bool) -> None:
    """The distance falls like 1 / P."""
    off = []
    for prompts in (1e4, 1e5):
        model = FinitePretraining.of(covariances(dense=dense), LENGTH, prompts)
        known, end = model.mixture.start(SHARES), judged(dense=dense)
        finite, limit = end.best(model.start(SHARES)), end.best(known)
        slopes = model.slopes(SHARES, finite.mean, finite.second_moment)
        unlimited = model.mixture.slopes(SHARES, limit.mean, limit.second_moment)
        off.append([abs(finite.error - limit.error), np.abs(slopes - unlimited).max()])
    np.testing.assert_allclose(np.divide(off[0], off[1]), 10, rtol=0.05)


def test_both_stages_are_those_of_simulation() -> None:
    """Pretraining on 30 d prompts of three categories, one of them scarce, then SFT with a penalty, d = 48.

    Within 4 standard errors of the mean of 12 seeds and 2 percent, which is what d = 48 leaves.
    """
    d = 48
    group = np.arange(d) // 16
    spectra = [scale * np.where(group == j, 1.0, 0.2) for j, scale in enumerate((1.0, 2.0, 0.5))]
    target, shares, n = np.where(group == 0, 1.5, 0.5), np.array([0.05, 0.25, 0.7]), 60
    source = Source(0.3 * target, n, 40.0)
    end = ErrorFromStart.of(0.3, source, WeightedTest.of(target, n))
    found = end.best(FinitePretraining.of(spectra, n, 30 * d).start(shares))
    rows = [Source(C, n, round(float(share) * 30 * d)) for C, share in zip(spectra, shares, strict=True)]
    stages = [
        TrainingStage(1.0, rows),
        TrainingStage(0.3, [source], Stopping(ridge=found.trained.ridge)),
    ]
    simulated = simulate_stages(np.zeros(d), stages, [target], n, seeds=12)
    gap = abs(found.error - simulated.mean[1, 0])
    assert gap < 4 * simulated.sem[1, 0] + 0.02 * found.error
    unlimited = end.best(FinitePretraining.of(spectra, n, 30 * d).mixture.start(shares)).error
    assert abs(unlimited - simulated.mean[1, 0]) > 2 * gap


def test_what_cannot_be_is_named() -> None:
    spectra = covariances(dense=False)
    with pytest.raises(InputError, match="prompts: got 0"):
        FinitePretraining.of(spectra, LENGTH, 0)
    with pytest.raises(PeakError, match="prompts"):
        FinitePretraining.of(spectra, LENGTH, D).start(SHARES)
    with pytest.raises(InputError, match="shares: got"):
        FinitePretraining.of(spectra, LENGTH, P).start([1.0])
