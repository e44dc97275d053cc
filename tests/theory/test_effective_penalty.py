"""The effective penalty of one source: the fixed point's numbers, the published ones, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.shapes import Array
from datadose.shift import Shift
from datadose.theory import PeakError, Source, TrainedOperator, mixture_error, pretrained_operator
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.equivalent import deterministic_equivalent
from datadose.theory.weighted_test import WeightedTest

N = 900
SHIFT = Shift.two_block(300, 150, 0.1, 0.2, 0.01)
START = pretrained_operator(SHIFT.sigma0, N)
SOURCE = Source(SHIFT.data, N, 1)
TEST = WeightedTest.of(SHIFT.target, N)
PAPER = EffectivePenalty.of(START, 0.2, SOURCE, TEST)


def problem(seed: int, *, dense: bool = False) -> tuple[Array, Source, WeightedTest]:
    """A start, a source with both noises, and a weighted sum of two tests; the dense ones do not commute."""
    rng = np.random.default_rng([5, seed])
    d = int(rng.integers(5, 40))

    def covariance(low: float) -> Array:
        values = np.exp(rng.uniform(low, 0, d))
        if not dense:
            return values
        basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
        return (basis * values) @ basis.T

    V0 = rng.standard_normal((d, d)) / 3 - np.eye(d) if dense else -np.exp(rng.standard_normal(d))
    source = Source(covariance(-5), int(rng.integers(3, 60)), 1.0, rng.uniform(0, 2), rng.uniform(0, 0.5))
    test = WeightedTest.weighted([(0.7, covariance(-1), 20), (0.3, covariance(-3), 9)])
    return V0, source, test


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_fixed_point_of_the_equivalent(seed: int, dense: bool) -> None:
    """To 1e-10 over ten decades of the penalty, on both sides of the rank; at zero too."""
    V0, source, test = problem(seed, dense=dense)
    d = len(V0)
    found = EffectivePenalty.of(V0, 0.3, source, test)
    prompts, ridges = np.array([0.3 * d, 0.9 * d, d, 1.7 * d, 50 * d]), np.array([1e-6, 1e-3, 0.1, 1, 1e4])
    surface = found.errors(prompts[:, None], ridges)
    for i, B in enumerate(prompts):
        columns = [replace(source, prompts=B).columns(0.3, 0)]
        for j, ridge in enumerate(ridges):
            fixed = deterministic_equivalent(V0, 0.3, columns, ridge=ridge)
            expected = fixed.error(test.target, test.second_moment)
            point = found.at(B, ridge)
            assert point.error == pytest.approx(expected, rel=1e-10)
            assert surface[i, j] == pytest.approx(expected, rel=1e-10)
            assert point.penalty == pytest.approx(ridge / fixed.weights[0], rel=1e-9)
            assert found.at_penalty(B, point.penalty).ridge == pytest.approx(ridge, rel=1e-6)
    for B in (0.4 * d, 3.0 * d):
        fixed = deterministic_equivalent(V0, 0.3, [replace(source, prompts=B).columns(0.3, 0)])
        expected = fixed.error(test.target, test.second_moment)
        assert found.at(B, 0).error == pytest.approx(expected, rel=1e-10)
        assert found.errors(B, 0) == pytest.approx(expected, rel=1e-10)


def test_a_singular_covariance_leaves_the_start_off_its_range() -> None:
    rng = np.random.default_rng(0)
    A = np.append(np.exp(rng.standard_normal(9)), np.zeros(6))
    V0, target = -np.exp(rng.standard_normal(15)), np.exp(rng.standard_normal(15))
    found = EffectivePenalty.of(V0, 0.4, Source(A, 30, 1), WeightedTest.of(target, 12))
    for B in (4, 25):
        assert found.at(B, 0).error == pytest.approx(
            mixture_error(V0, 0.4, [Source(A, 30, B)], target, 12), rel=1e-11
        )
    assert found.at(9 * 10**8, 0).limit == pytest.approx(found.ceiling.error, rel=0.5)


def test_few_examples_are_a_penalty_in_published_numbers() -> None:
    """Errors of converged small sets, apart: 3.611 = 1.140 + 2.471 and 6.776 = .430 + 6.346; ceiling .429."""
    few, peak = PAPER.at(100, 0), PAPER.at(150, 0)
    parts = [few.error, few.limit, few.variance, peak.error, peak.limit, peak.variance]
    np.testing.assert_allclose(parts, [3.611, 1.140, 2.471, 6.776, 0.430, 6.346], atol=5.1e-4)
    assert few.error == pytest.approx(
        mixture_error(START, 0.2, [replace(SOURCE, prompts=100)], SHIFT.target, N)
    )
    df1, df2 = PAPER.degrees(few.penalty)
    assert df1 == pytest.approx(100, rel=1e-10)
    assert df2 < df1
    assert PAPER.ceiling.error == pytest.approx(0.429, abs=5e-4)
    assert PAPER.degrees(PAPER.ceiling.penalty)[0] == pytest.approx(148, abs=0.5)


def test_the_price_of_scarcity_in_published_numbers() -> None:
    """(error - F*) B at the best penalty: 280 (published as 281), 179, 146, 141, 140."""
    counts = [100, 300, 1000, 3000, 30000]
    excess = [(PAPER.best(B).error - PAPER.ceiling.error) * B for B in counts]
    np.testing.assert_allclose(excess, [280.46, 179, 146, 141, 140], atol=0.5)
    F, G = PAPER.limit_and_scatter(PAPER.ceiling.penalty)
    assert F == PAPER.ceiling.error
    assert excess[-1] == pytest.approx(G, rel=0.01)


@pytest.mark.parametrize("share", [1e-3, 0.05, 1.0])
def test_how_many_rows_are_enough(share: float) -> None:
    """The best penalty at that number of rows is exactly that close to the ceiling, at fewer it is not."""
    B = PAPER.prompts_within(share)
    for rows, allowed in ((B, 1 + 1e-9), (1.01 * B, 1.0)):
        assert PAPER.best(rows).error <= (1 + share) * PAPER.ceiling.error * allowed
    assert PAPER.best(0.99 * B).error > (1 + share) * PAPER.ceiling.error
    assert PAPER.prompts_within(1e3) == 0


def test_about_as_many_as_the_formula_says() -> None:
    F, G = PAPER.limit_and_scatter(PAPER.ceiling.penalty)
    _, df2 = PAPER.degrees(PAPER.ceiling.penalty)
    assert PAPER.prompts_within(0.001) == pytest.approx(df2 + G / (0.001 * F), rel=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_the_best_penalty_is_the_best_of_many(seed: int) -> None:
    V0, source, test = problem(seed)
    found, d = EffectivePenalty.of(V0, 0.3, source, test), len(V0)
    for B in (0.5 * d, d, 4 * d):
        best = found.best(B)
        tried = found.errors(B, np.geomspace(1e-8, 1e8, 500))
        assert best.error <= tried.min() * (1 + 1e-12)
        if best.kind == "penalised":
            assert best.error == pytest.approx(tried.min(), rel=2e-3)
            assert found.at(B, best.ridge).error == pytest.approx(best.error, rel=1e-9)


def test_a_start_that_is_best_is_left_untouched() -> None:
    """Misleading data (eta w has the wrong sign for the test) cannot help a start that is the optimum."""
    A = np.full(8, 0.5)
    ideal = -np.ones(8) / (1.01 + 0.08)
    found = EffectivePenalty.of(ideal, 1.9, Source(A, 50, 1), WeightedTest.of(np.ones(8), 100))
    best = found.best(30)
    assert best.kind == "untouched"
    assert best.error == found.at(0, 0.0).error == found.ceiling.error
    assert best.variance == 0
    assert np.isinf(best.ridge)
    assert np.isinf(found.ceiling.penalty)
    assert found.prompts_within(0.1) == 0


def far_off(length: int) -> EffectivePenalty:
    """A start that is far off in five strong directions and right in sixty weak ones.

    Rows fewer than the directions shrink the strong ones too much as it is: a penalty would only add to it.
    """
    A = np.append(np.ones(5), np.full(60, 0.1))
    right = -0.3 * A / ((1 + 1 / length) * A**2 + A.sum() / length * A)
    start = np.where(A == 1, -60.0, right)
    return EffectivePenalty.of(start, 0.3, Source(A, length, 1), WeightedTest.of(A, 10**6))


def test_convergence_can_be_the_best_penalty() -> None:
    found = far_off(60)
    best = found.best(30)
    assert best.kind == "converged"
    assert best.ridge == 0
    assert best.error == found.at(30, 0).error
    assert best.error < found.errors(30, np.geomspace(1e-6, 1e6, 300)).min()


def test_no_penalty_is_refused_as_the_best_where_the_mean_is_infinite() -> None:
    with pytest.raises(PeakError, match="a ridge above 0"):
        far_off(2).best(10)


def test_a_random_start_of_no_spread_is_the_known_one() -> None:
    V0, source, test = problem(3)
    known, random = EffectivePenalty.of(V0, 0.3, source, test), TrainedOperator.fixed(V0)
    wide = replace(random, second_moment=random.second_moment + 0.2)
    assert EffectivePenalty.of(random, 0.3, source, test).at(9, 0.4).error == known.at(9, 0.4).error
    assert EffectivePenalty.of(wide, 0.3, source, test).at(9, 0.4).error > known.at(9, 0.4).error


def test_a_common_scale_changes_nothing() -> None:
    V0, source, test = problem(1)
    base = EffectivePenalty.of(V0, 0.3, source, test)
    for scale in (1e-60, 1e60):
        scaled = replace(source, covariance=scale * source.covariance, label_noise=scale * source.label_noise)
        judged = WeightedTest(scale * test.target, scale**2 * test.second_moment)
        found = EffectivePenalty.of(V0 / scale, 0.3, scaled, judged)
        assert found.at(20, 0.3 * scale**2).error == pytest.approx(base.at(20, 0.3).error, rel=1e-11)
        assert found.best(20).ridge == pytest.approx(base.best(20).ridge * scale**2, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PAPER.at(-1, 0.1), "prompts: got -1; allowed: a number in [0, inf)"),
        (lambda: PAPER.at(100, -0.1), "ridge: got -0.1"),
        (lambda: PAPER.at(100, np.nan), "ridge: got nan"),
        (lambda: PAPER.errors([10, np.inf], 0.1), "prompts"),
        (lambda: PAPER.errors(10, [-1.0]), "ridge"),
        (lambda: PAPER.degrees(-1.0), "penalty"),
        (lambda: PAPER.limit_and_scatter([np.nan]), "penalty"),
        (lambda: PAPER.prompts_within(0), "share: got 0"),
        (lambda: PAPER.at_penalty(120, 0.0056), "prompts: got 120 at penalty 0.0056; allowed: more than df2"),
        (lambda: PAPER.at_penalty(140, 0.0056), "penalty: got 0.0056; allowed: one with df1 <= prompts"),
        (lambda: EffectivePenalty.of(START, 0.2, SOURCE, WeightedTest.of(np.ones(7), 9)), "test: got dim"),
        (lambda: EffectivePenalty.of(np.ones(7), 0.2, SOURCE, TEST), "start: got dimension 7"),
        (lambda: EffectivePenalty.of(START, 2.0, SOURCE, TEST), "eta: got 2.0"),
        (
            lambda: EffectivePenalty.of(START, 0.2, replace(SOURCE, label_noise=1.0), TEST, chain_steps=1),
            "label_noise: got 1 with chain_steps 1; allowed: 0 where chain_steps >= 1; `trained` with",
        ),
        (lambda: WeightedTest.weighted([(0.5, SHIFT.target, 9), (0.4, SHIFT.sigma0, 9)]), "weights: got"),
        (lambda: WeightedTest.weighted([(0.5, SHIFT.target, 9), (0.5, np.ones(3), 9)]), "targets: got dim"),
        (lambda: WeightedTest.weighted([(-1.0, SHIFT.target, 9), (2.0, SHIFT.target, 9)]), "weight: got -1"),
        (lambda: WeightedTest.weighted([]), "tests: got none"),
    ],
)
def test_bad_input_is_one_clear_line(call: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        call()  # type: ignore[operator]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("length", "prompts"), [(N, 300), (N, 299.5), (2, 40)])
def test_an_infinite_mean_has_no_number(length: int, prompts: float) -> None:
    """Next to the rank, and where prompts of two examples are interpolated; any penalty makes it finite."""
    found = EffectivePenalty.of(START, 0.2, replace(SOURCE, length=length), TEST)
    with pytest.raises(PeakError):
        found.at(prompts, 0)
    assert found.errors(prompts, 0) == np.inf
    assert np.isfinite(found.errors(prompts, 1e-3))
    assert np.isfinite(found.best(prompts).error)
