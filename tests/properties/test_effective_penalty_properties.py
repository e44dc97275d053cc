"""With the penalty, and the weights, tuned no data ever hurt: over random sources and pools.

Theorems about the limit formula at the oracle's penalty and weights. For one source the minimum is found to
rounding. For several it is that of a local search, which may miss the least one, so these tests check the
search too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.theory import Source, pretrained_operator
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.effective_weights import EffectiveSources
from datadose.theory.equal_weights import effective_weights
from datadose.theory.tuned_weights import tuned_weights
from datadose.theory.weighted_test import WeightedTest
from helpers.problems import Array, examples, log_integer, log_uniform, random_basis

ROUNDING = 1e-9


def random_pool(seed: int, K: int, *, dense: bool = False) -> tuple[Array, float, list[Source], WeightedTest]:
    """A pretrained start, K sources (aligned, flat, one-sided or spread), and a target with forgetting."""
    rng = np.random.default_rng([20, seed])
    d, n = int(rng.integers(12, 31)), log_integer(rng, 4, 400)
    eta, basis = rng.uniform(0.05, 1.5), [random_basis(rng, d) for _ in range(K)]
    sigma0 = np.exp(rng.uniform(-3, 0, d))
    target = sigma0 + np.where(rng.random(d) < 0.5, rng.random(d), 0.0)
    kinds = [eta * target, np.full(d, 0.3), np.where(rng.random(d) < 0.5, eta * target, 0.01)]
    kinds.append(np.exp(rng.uniform(-5, 1, d)))
    sources = []
    for place in range(K):
        A = kinds[int(rng.integers(4))]
        A = (basis[place] * A) @ basis[place].T if dense else A
        noise = [rng.uniform(0, 2), rng.uniform(0, 1)] if rng.random() < 0.3 else [0.0, 0.0]
        sources.append(Source(A, n, log_uniform(rng, 0.1 * d, 30 * d), *noise))
    start, kept = pretrained_operator(sigma0, n), rng.uniform(0.3, 1)
    if dense:
        start, sigma0, target = np.diag(start), np.diag(sigma0), np.diag(target)
    return start, eta, sources, WeightedTest.weighted([(kept, target, n), (1 - kept, sigma0, n)])


@examples(100)
def test_more_rows_of_one_source_never_hurt(seed: int) -> None:
    V0, eta, (source,), test = random_pool(seed, 1)
    found = EffectivePenalty.of(V0, eta, source, test)
    errors = [found.best(B).error for B in len(V0) * np.geomspace(0.05, 300, 14)]
    assert (np.diff(errors) <= ROUNDING * errors[0]).all()
    assert min(errors) >= found.ceiling.error * (1 - ROUNDING)
    assert errors[0] <= found.at(0, 0).error * (1 + ROUNDING)


@examples(100)
def test_the_variance_refuses_what_it_cannot_be(seed: int) -> None:
    """At any mu: B <= df2 has no variance, df2 < B < df1 no penalty >= 0, and beyond all is well."""
    V0, eta, (source,), test = random_pool(seed, 1)
    found, rng = EffectivePenalty.of(V0, eta, source, test), np.random.default_rng(seed)
    mu = log_uniform(rng, 1e-4, 10) * float((source.covariance**2).max())
    df1, df2 = (float(x) for x in found.degrees(mu))
    assert 0 < df2 < df1 < len(V0)
    for B in (df2 * (1 - 1e-12), 0.5 * df2):
        with pytest.raises(InputError, match=r"prompts: .* more than df2"):
            found.at_penalty(B, mu)
    with pytest.raises(InputError, match="penalty"):
        found.at_penalty((df1 + df2) / 2, mu)
    point = found.at_penalty(1.01 * df1 + 0.01, mu)
    assert point.variance > 0
    assert found.at(1.01 * df1 + 0.01, point.ridge).error == pytest.approx(point.error, rel=1e-8)


@examples(60)
def test_leverages_of_feasible_weights_are_positive_and_fall_in_every_count(seed: int) -> None:
    """I - T is an M-matrix: at fixed effective weights the error falls in every B_c, residuals stay."""
    V0, eta, sources, test = random_pool(seed, 3, dense=seed % 5 == 0)
    found, rng = EffectiveSources.of(V0, eta, sources), np.random.default_rng(seed)
    rho = effective_weights(found, log_uniform(rng, 1e-4, 1e3), rng.dirichlet(np.ones(3)) + 1e-3)
    model = found.at(rho)
    gradient = model.gradient(test)
    assert (model.residuals > 0).all()
    assert model.variance(test) > 0
    assert (gradient.prompts < 0).all()
    for place in range(3):
        more = list(sources)
        more[place] = replace(sources[place], prompts=1.5 * sources[place].prompts)
        richer = EffectiveSources.of(V0, eta, more).at(rho)
        assert richer.error(test) < model.error(test)
        assert richer.limit(test) == pytest.approx(model.limit(test), rel=1e-12)


def require_no_rise(seed: int) -> None:
    """More rows of any one source, and a new source, leave the tuned error where it was or lower it."""
    K = 2 + seed % 2
    V0, eta, sources, test = random_pool(seed, K)
    least = tuned_weights(EffectiveSources.of(V0, eta, sources), test)
    assert (least.values >= 0).all()
    for place in range(K):
        more = list(sources)
        more[place] = replace(sources[place], prompts=(1.3, 3, 30)[seed % 3] * sources[place].prompts)
        found = tuned_weights(EffectiveSources.of(V0, eta, more), test)
        assert found.error <= least.error * (1 + ROUNDING)
    without = tuned_weights(EffectiveSources.of(V0, eta, sources[1:]), test)
    assert least.error <= without.error * (1 + ROUNDING)


@pytest.mark.long
@examples(6)
def test_with_tuned_weights_no_rows_hurt(seed: int) -> None:
    require_no_rise(seed)


@pytest.mark.slow
@examples(200)
def test_with_tuned_weights_no_rows_hurt_in_many_pools(seed: int) -> None:
    require_no_rise(1000 + seed)


def test_a_start_many_orders_outside_the_feasible_set_is_brought_back() -> None:
    """In this pool a source alone is best converged, at 1e17 times the weights that all together may have."""
    require_no_rise(1069)
