"""Gaps of answers drawn without drawing prompts: against prompts drawn in full."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from datadose.covariance import Array, square_root
from datadose.planner import ErrorModel, PostTraining
from datadose.planner.answers import draw_gaps
from datadose.planner.dynamics import Ground, State
from datadose.prompts import draw_wishart
from datadose.shift import Shift
from datadose.theory.pretraining import pretrained_operator


def literal_gaps(V: Array, target: Array, n: int, steps: int, draws: int) -> Array:
    """The chain itself on explicit inputs, (draws, d)."""
    rng = np.random.default_rng(5)
    d = len(target)
    inputs = rng.standard_normal((draws, n, d)) @ square_root(target)
    gap = rng.standard_normal((draws, d))
    for _ in range(steps):
        seen = np.einsum("bnd,bn->bd", inputs, np.einsum("bnd,bd->bn", inputs, gap)) / n
        gap = gap + seen @ V.T
    return gap


@pytest.mark.parametrize(
    ("dimension", "length", "steps"),
    [(5, 3, 4), (6, 12, 3), (4, 1, 3), (8, 2, 4), (3, 40, 1)],
    ids=["n<d", "n>d", "one example", "n<k", "one step"],
)
@pytest.mark.parametrize("is_dense", [False, True], ids=["spectra", "dense"])
def test_gaps_have_the_law_of_the_literal_chain(
    dimension: int, length: int, steps: int, *, is_dense: bool
) -> None:
    """Two-sample Kolmogorov-Smirnov tests of the norm and of one coordinate, 20,000 draws of each.

    20 tests at level 1e-6 each: a false alarm has probability 2e-5 (the seeds are fixed). Leaving out the
    part of Z p along q, or one degree of freedom of chi, is found in most of them.
    """
    rng = np.random.default_rng(dimension)
    target, V = np.exp(rng.standard_normal(dimension)), -0.5 * rng.random(dimension)
    matrices = np.diag(V), np.diag(target)
    if is_dense:
        basis = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
        V = np.diag(V) + 0.1 * rng.standard_normal((dimension, dimension))
        target = basis @ np.diag(target) @ basis.T
        matrices = V, target
    drawn = draw_gaps(V, target, length, steps, 20_000, seed=1)
    literal = literal_gaps(*matrices, length, steps, 20_000)
    for found, expected in (
        (np.linalg.norm(x, axis=1) for x in (drawn, literal)),
        (drawn[:, 0], literal[:, 0]),
    ):
        assert stats.ks_2samp(found, expected).pvalue > 1e-6


def test_gaps_on_a_singular_target_repeat_and_stay_where_nothing_is_seen() -> None:
    target = np.array([1.0, 2.0, 0.0, 0.0])
    first, again = (draw_gaps(-0.4 * np.ones(4), target, 6, 3, 50, seed=2) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    start = draw_gaps(-0.4 * np.ones(4), target, 6, 3, 50, seed=2)[:, 2:]
    shorter = draw_gaps(-0.4 * np.ones(4), target, 6, 1, 50, seed=2)[:, 2:]
    np.testing.assert_array_equal(start, shorter)


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_pass_rates_of_long_chains_above_256_dimensions(share: float) -> None:
    """d = 300, n = 2d, k = 3: an expansion in 1/n says 1.000 at both, literal chains .000 and .99.

    12 prompts' S with 200 w* each; the rate varies little between prompts. Allowed: 5 standard errors of
    1,000 draws (false alarm 6e-7), and .02 for the 12 prompts.
    """
    d, m, n, k, tolerance, noise = 300, 150, 600, 3, 0.55, 0.1
    shift = Shift.two_block(d, m, 0.3, 0.2)
    V = -share / shift.target
    model = ErrorModel(pretrained_operator(shift.sigma0, n), 0.2, shift.target, n, k)
    where = Ground(
        model, np.where(shift.delta > 0, 1.0, 0.0), PostTraining(k, tolerance=tolerance, noise=noise)
    )
    rng, rates = np.random.default_rng(3), []
    for seed in range(12):
        S = draw_wishart(shift.target, n, 1, seed=seed)[0]
        gap = rng.standard_normal((d, 200))
        for _ in range(k):
            gap = gap + V[:, None] * (S @ gap)
        inside = gap[:m] + noise * rng.standard_normal((m, 200))
        rates.append(((inside**2).sum(axis=0) <= tolerance**2 * m).mean())
    assert where.pass_rate(State.fixed(V, where.projector)) == pytest.approx(
        np.mean(rates), abs=5 * (0.25 / 1000) ** 0.5 / 2 + 0.02
    )
