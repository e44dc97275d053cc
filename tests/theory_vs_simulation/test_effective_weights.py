"""The explicit form in effective weights against the ridge problem of drawn prompts, solved directly.

Prompts come from their exact law with fixed seeds. The law is a limit: of the mean's relative O(1/d) up to
3/d is allowed for, and 5 standard errors of the simulated mean beside it, which a fresh choice of 40 seeds
exceeds with probability 1e-5 a comparison (Student, 39 degrees), 2e-4 for all.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datadose.covariance import dense
from datadose.shapes import Array
from datadose.shift import Shift
from datadose.simulation.mixtures import draw_mixture
from datadose.theory import Source, TrainedOperator, post_test_error, pretrained_operator
from datadose.theory.effective_weights import EffectiveSources
from datadose.theory.equal_weights import effective_weights
from datadose.theory.weighted_test import WeightedTest

D, N, SEEDS, ERRORS = 80, 160, 40, 5.0
ALLOWED = 3 / D
SHIFT = Shift.two_block(D, D // 2, 0.1, 0.2, 0.05)
START = pretrained_operator(SHIFT.sigma0, N)
TEST = WeightedTest.of(SHIFT.target, N)


def solved(
    start: Array, eta: float, sources: list[Source], ridge: float, weights: Array, seed: object
) -> Array:
    """The minimiser of sum_c w_c ||V Phi_c - Y_c||^2 + ridge ||V - V0||^2 on drawn prompts."""
    columns, answers = draw_mixture(sources, eta, 0, seed=seed)  # type: ignore[arg-type]
    w = np.repeat(weights, [int(s.prompts) for s in sources])
    V0, d = dense(start), len(columns)
    right = (answers * w) @ columns.T + ridge * V0
    return np.linalg.solve((columns * w) @ columns.T + ridge * np.eye(d), right.T).T


def close(theory: float, errors: list[float], allowed: float = ALLOWED) -> None:
    """The simulated mean lies within the allowance and 5 standard errors of the prediction."""
    mean, sem = float(np.mean(errors)), float(np.std(errors, ddof=1) / np.sqrt(len(errors)))
    assert abs(mean - theory) < allowed * theory + ERRORS * sem, (theory, mean, sem)


def random_covariance(rng: np.random.Generator, d: int, scale: float) -> Array:
    """Dense, in general position."""
    X = rng.standard_normal((d, 2 * d))
    return scale * X @ X.T / (2 * d)


RNG = np.random.default_rng(8)
THREE = [
    Source(SHIFT.data, N, 30),
    Source(RNG.uniform(0.05, 0.5, D), 100, 50, 2.0, 0.3),
    Source(np.where(np.arange(D) < 30, 0.4, 0.0), 200, 20),
]
TANGLED = [Source(random_covariance(RNG, D, 0.3), N, B) for B in (25, 60, 90)]
POOLS = {
    "one source": (SHIFT.data, [Source(SHIFT.data, N, 60)], [1.0]),
    "three, weighted": (SHIFT.data, THREE, [1.0, 0.2, 3.0]),
    "dense, weighted": (random_covariance(RNG, D, 1.0), TANGLED, [0.3, 1.0, 2.0]),
}


@pytest.mark.parametrize("ridge", [0.3, 10.0])
@pytest.mark.parametrize("name", POOLS)
def test_one_stage(name: str, ridge: float) -> None:
    _, sources, weights = POOLS[name]
    found = EffectiveSources.of(START, 0.2, sources)
    theory = found.at(effective_weights(found, ridge, weights)).error(TEST)
    errors = [
        post_test_error(solved(START, 0.2, sources, ridge, np.array(weights), seed), SHIFT.target, N)
        for seed in range(SEEDS)
    ]
    close(theory, errors)
    # The comparison has power: the error without its variance is far outside.
    limit = found.at(effective_weights(found, ridge, weights)).limit(TEST)
    with pytest.raises(AssertionError):
        close(limit, errors)


@pytest.mark.parametrize("models", [1, 4])
def test_two_stages_and_averages(models: int) -> None:
    """SFT on three weighted sources, averaged over models on disjoint prompts, then outcome supervision."""
    weights, outcome = np.array([1.0, 0.2, 3.0]), Source(SHIFT.target, N, 50)
    sft = EffectiveSources.of(START, 0.2, THREE)
    first = sft.at(effective_weights(sft, 1.0, weights)).trained.averaged(models)
    second = EffectiveSources.of(first, 1.0, [outcome])
    theory = second.at(effective_weights(second, 2.0))
    between, after = [], []
    for seed in range(SEEDS):
        fits = [solved(START, 0.2, THREE, 1.0, weights, (seed, 7, model)) for model in range(models)]
        V = np.mean(fits, axis=0)
        between.append(post_test_error(V, SHIFT.target, N))
        last = solved(V, 1.0, [outcome], 2.0, np.ones(1), (seed, 11))
        after.append(post_test_error(last, SHIFT.target, N))
    close(TEST.error(first), between)
    close(theory.error(TEST), after)


@pytest.mark.long
def test_the_gap_shrinks_like_one_over_d() -> None:
    """At fixed n/d and B/d the simulated mean nears the prediction: d times the relative gap stays bounded.

    Measured: 3.0 percent (standard error .33) at d = 30, a quarter of it at d = 120. Fresh seeds fail the
    second line with probability 5e-4 if the gap is a quarter, and pass it with less than 1e-3 if it is the
    same at both.
    """
    gaps, sems = [], []
    for d, seeds in ((30, 400), (120, 150)):
        shift = Shift.two_block(d, d // 2, 0.1, 0.2, 0.05)
        start, sources = pretrained_operator(shift.sigma0, 2 * d), [Source(shift.data, 2 * d, 0.8 * d)]
        sources = [replace(s, prompts=float(round(s.prompts))) for s in sources]
        found = EffectiveSources.of(TrainedOperator.fixed(start), 0.2, sources)
        ridge = 0.003 * d
        theory = found.at(effective_weights(found, ridge)).error(WeightedTest.of(shift.target, 2 * d))
        errors = [
            post_test_error(solved(start, 0.2, sources, ridge, np.ones(1), seed), shift.target, 2 * d)
            for seed in range(seeds)
        ]
        gaps.append(np.mean(errors) / theory - 1)
        sems.append(np.std(errors, ddof=1) / theory / np.sqrt(seeds))
    assert abs(gaps[0]) > 5 * sems[0], (gaps, sems)
    assert abs(gaps[1]) < 0.5 * abs(gaps[0]), (gaps, sems)
