"""The O(1/d) correction: exact identities, simulation at finite d, and the rate at which what is left falls.

Simulations have fixed seeds, so each test always gives the same result; the failure probabilities in the
docstrings are those of a fresh choice of seeds, from normal tails at the standard errors measured here.
"""

from __future__ import annotations

import numpy as np
import pytest

from datadose.covariance import Array, dense, wishart_second_moment
from datadose.errors import InputError
from datadose.prompts import Moments, draw_moments
from datadose.shift import Shift
from datadose.simulation.curves import error_curve, simulate_error
from datadose.theory import (
    PeakError,
    Source,
    mixture_equivalent,
    population_minimiser,
    post_test_error,
    pretrained_operator,
)
from datadose.theory.finite_size import FiniteSize, finite_size_correction


def predictions(
    V0: Array, eta: float, sources: list[Source], target: Array, test_length: int
) -> tuple[float, FiniteSize]:
    """The asymptotic error and its correction, both divided by d."""
    equivalent = mixture_equivalent(V0, eta, sources)
    lengths = [source.length for source in sources if source.prompts > 0]
    correction = finite_size_correction(equivalent, eta, lengths, target, test_length)
    return equivalent.error(target, wishart_second_moment(target, test_length)), correction


def two_block(d: int, prompts: float, interference: float = 0.1) -> tuple[float, FiniteSize]:
    """The same for the paper's two-block shift with n = d."""
    shift = Shift.two_block(d, d // 2, 0.1, 0.2, interference)
    V0 = pretrained_operator(shift.sigma0, d)
    return predictions(V0, shift.eta, [Source(shift.data, d, prompts)], shift.target, d)


def simulate(
    V0: Array, eta: float, sources: list[Source], target: Array, test_length: int, seeds: int
) -> tuple[float, float]:
    """Mean of Err(V*) / d over ``seeds`` draws of all sources' prompts, and its standard error."""
    # One stream a source, cut into draws: sampling a block costs less than seeding each draw.
    block = 500
    data = np.asarray(sum(source.covariance for source in sources))
    errors = []
    for start in range(0, seeds, block):
        drawn = [
            draw_moments(
                c.covariance, c.length, int(c.prompts) * block, seed=1000 * (len(V0) * 10**6 + start) + i
            )
            for i, c in enumerate(sources)
        ]
        for j in range(min(block, seeds - start)):
            cuts = [slice(j * int(c.prompts), (j + 1) * int(c.prompts)) for c in sources]
            weights = np.hstack([m.weights[:, cut] for m, cut in zip(drawn, cuts, strict=True)])
            phi = np.hstack([m.phi[:, cut] for m, cut in zip(drawn, cuts, strict=True)])
            curve = error_curve(
                Moments(weights, phi), eta=eta, V0=V0, data=data, target=target, test_length=test_length
            )
            errors.append(curve[-1])
    return float(np.mean(errors)), float(np.std(errors, ddof=1) / len(errors) ** 0.5)


def wishart(d: int, rank: int, scale: float, rng: np.random.Generator) -> Array:
    factor = rng.standard_normal((d, rank))
    return scale * factor @ factor.T / rank


def dense_problem(d: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """V0, Sigma and the covariances of two sources: four dense matrices, no two of which commute."""
    rng = np.random.default_rng(seed)
    sigma0 = wishart(d, 2 * d, 1.0, rng)
    target = sigma0 + wishart(d, d // 4, 1.0, rng)
    return (
        pretrained_operator(sigma0, 2 * d),
        target,
        wishart(d, 2 * d, 0.5, rng),
        wishart(d, 2 * d, 1.0, rng),
    )


@pytest.mark.parametrize(("interference", "rank"), [(0.1, 40), (0.0, 20)])
@pytest.mark.parametrize("excess", [5, 40, 400.5])
def test_gaussian_part_is_the_first_term_of_the_inverse_wishart_mean(
    interference: float, rank: int, excess: float
) -> None:
    """K = 1, B > rank: E (Phi Phi^T)^{-1} = C^{-1}/(B - rank - 1) on the range, so the Gaussian error is
    Err(inf) + (asymptotic - Err(inf)) (B - rank)/(B - rank - 1). Deterministic, relative 1e-7."""
    asymptotic, correction = two_block(40, rank + excess, interference)
    shift = Shift.two_block(40, 20, 0.1, 0.2, interference)
    limit = population_minimiser(shift.data, 40, 0.2, pretrained_operator(shift.sigma0, 40))
    infinite = post_test_error(limit, shift.target, 40)
    assert correction.gaussian == pytest.approx((asymptotic - infinite) / excess, rel=1e-7)


@pytest.mark.parametrize(("first", "second"), [(7, 9), (11.5, 13.5), (70, 23)])
def test_splitting_a_source_changes_nothing(first: float, second: float) -> None:
    """Two sources with one law are one source, dense and non-commuting. Deterministic, relative 1e-6 (the
    fixed point is solved to 1e-8 or better)."""
    V0, target, A, _ = dense_problem(30, 0)
    whole = predictions(V0, 0.3, [Source(A, 50, first + second)], target, 80)[1]
    parts = predictions(V0, 0.3, [Source(A, 50, first), Source(A, 50, second)], target, 80)[1]
    assert parts.gaussian == pytest.approx(whole.gaussian, rel=1e-6)
    assert parts.law == pytest.approx(whole.law, rel=1e-6)


@pytest.mark.parametrize("counts", [(9, 6), (50, 21)], ids=["below the peak", "above the peak"])
def test_spectrum_equals_dense_diagonal_equals_rotated(counts: tuple[int, int]) -> None:
    """One value in any basis and any form, also when only the target is dense. Deterministic, 1e-6."""
    rng = np.random.default_rng(1)
    sigma0, target, A1, A2 = rng.uniform(0.2, 1.5, (4, 24))
    V0 = pretrained_operator(sigma0, 30)
    U = np.linalg.qr(rng.standard_normal((24, 24)))[0]

    def corrected(V: Array, A: Array, A_other: Array, S: Array) -> float:
        sources = [Source(A, 20, counts[0]), Source(A_other, 40, counts[1])]
        return predictions(V, 0.4, sources, S, 35)[1].total

    expected = corrected(V0, A1, A2, target)
    turned = [(U * x) @ U.T for x in (V0, A1, A2, target)]
    assert corrected(*(np.diag(x) for x in (V0, A1, A2, target))) == pytest.approx(expected, rel=1e-6)
    assert corrected(*turned) == pytest.approx(expected, rel=1e-6)
    equivalent = mixture_equivalent(V0, 0.4, [Source(A1, 20, counts[0]), Source(A2, 40, counts[1])])
    mixed = finite_size_correction(equivalent, 0.4, [20, 40], dense(target), 35)
    assert mixed.total == pytest.approx(expected, rel=1e-12)


def test_zero_prompts_need_no_correction() -> None:
    """V* = V0 without prompts, so the error is exact; an unused source is ignored."""
    assert two_block(40, 0)[1] == FiniteSize(0.0, 0.0)
    V0, target, A, other = dense_problem(20, 3)
    alone = predictions(V0, 0.3, [Source(A, 40, 8)], target, 40)[1]
    assert predictions(V0, 0.3, [Source(other, 9, 0), Source(A, 40, 8)], target, 40)[1] == alone


def test_values_of_record() -> None:
    """Values of independent code (dense, its own fixed point, the derivatives term by term): two blocks at
    d = n = 40, B = 20, and two dense non-commuting sources. Deterministic."""
    asymptotic, correction = two_block(40, 20)
    assert asymptotic == pytest.approx(2.02169207, abs=1e-8)
    assert (correction.gaussian, correction.law) == pytest.approx((0.05852014, 0.11501944), abs=1e-8)
    V0, target, A1, A2 = dense_problem(30, 0)
    for counts, expected in (
        ((9, 6), (4.170758675, 0.088880986, 0.114458235)),
        ((30, 40), (1.206348666, 0.018876264, 0.047910427)),
    ):
        sources = [Source(A1, 50, counts[0]), Source(A2, 25, counts[1])]
        asymptotic, correction = predictions(V0, 0.3, sources, target, 80)
        assert (asymptotic, correction.gaussian, correction.law) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("prompts", "allowance"), [(20, 20.0), (80, 12.0)])
def test_correction_explains_the_gap_at_d_40(prompts: int, allowance: float) -> None:
    """d = n = 40: the asymptotic form is off by > 5 standard errors, the corrected one is within 4 plus an
    O(1/d^2) allowance of ``allowance``/d^2 of the error (measured: 17.2 +- 0.5 and 8.0 +- 0.7). 800 seeds of
    `sft_error_curve`: expected gaps of 30 standard errors before, and 4.5 below the limit after, so a fresh
    set of seeds fails with probability below 1e-5."""
    asymptotic, correction = two_block(40, prompts)
    result = simulate_error(Shift.two_block(40, 20, 0.1, 0.2, 0.1), prompts, 40, seeds=800)
    mean, sem = float(result.mean[0]), float(result.sem[0])
    assert mean - asymptotic > 5 * sem
    assert abs(mean - asymptotic - correction.total) < 4 * sem + allowance / 40**2 * asymptotic


@pytest.mark.long
@pytest.mark.parametrize("counts", [(9, 6), (30, 40)], ids=["below the peak", "above the peak"])
def test_correction_explains_the_gap_of_dense_mixtures(counts: tuple[int, int]) -> None:
    """d = 30, two dense sources that commute with nothing, of lengths 50 and 25. Criterion as at d = 40 with
    allowance 10/d^2 (measured: 5.6 +- 1.0 and 2.8 +- 0.7). 2000 seeds: expected gaps of 18 standard errors
    before, and 5 below the limit after, so a fresh set of seeds fails with probability below 1e-5."""
    V0, target, A1, A2 = dense_problem(30, 0)
    sources = [Source(A1, 50, counts[0]), Source(A2, 25, counts[1])]
    asymptotic, correction = predictions(V0, 0.3, sources, target, 80)
    mean, sem = simulate(V0, 0.3, sources, target, 80, 2000)
    assert mean - asymptotic > 5 * sem
    assert abs(mean - asymptotic - correction.total) < 4 * sem + 10 / 30**2 * asymptotic


@pytest.mark.long
@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(((20, 20_000), (40, 30_000)), marks=pytest.mark.slow),
        pytest.param(((40, 30_000), (80, 40_000)), marks=pytest.mark.slow),
    ],
    ids=["20 to 40", "40 to 80"],
)
def test_what_is_left_falls_like_one_over_d_squared(sizes: tuple[tuple[int, int], ...]) -> None:
    """B = d/2, n = d = 20, 40, 80: d times the gap of the asymptotic form is constant within 30% (it is 4.3,
    3.9, 3.6 in units of the error), and what the correction leaves falls at least 3x per doubling (4x in the
    limit). From 120,000 other seeds, 4.35 +- 0.07, 1.07 +- 0.03 and 0.227 +- 0.013% are left; against the
    standard errors here (0.18, 0.057, 0.022%) each bound of 3x is 4.5 sigma away, so a fresh set of seeds
    fails with probability about 1e-5 (below 1e-3 if those values are off by 1.5 of their own errors)."""
    before, after = [], []
    for d, seeds in sizes:
        shift = Shift.two_block(d, d // 2, 0.1, 0.2, 0.1)
        V0 = pretrained_operator(shift.sigma0, d)
        asymptotic, correction = two_block(d, d // 2)
        mean, _ = simulate(V0, shift.eta, [Source(shift.data, d, d // 2)], shift.target, d, seeds)
        before.append(d * (mean / asymptotic - 1))
        after.append((mean - correction.total) / asymptotic - 1)
    assert max(before) < 1.3 * min(before)
    assert after[1] < after[0] / 3


@pytest.mark.parametrize("prompts", [39, 39.5, 40.25, 41])
def test_within_one_prompt_of_the_peak_it_refuses(prompts: float) -> None:
    with pytest.raises(PeakError, match=rf"prompts: got '?{prompts:g}'?; allowed: .*rank\(A\) = 40"):
        two_block(40, prompts)


def test_just_outside_the_peak_it_answers() -> None:
    for prompts in (38.9, 41.1):
        assert two_block(40, prompts)[1].total > 0


def test_bad_lengths_are_named() -> None:
    V0, target, A, _ = dense_problem(12, 0)
    equivalent = mixture_equivalent(V0, 0.3, [Source(A, 50, 6)])
    with pytest.raises(InputError, match=r"lengths: got '?2 lengths'?; allowed: 1"):
        finite_size_correction(equivalent, 0.3, [50, 50], target, 10)
    with pytest.raises(InputError, match=r"length: got '?0'?;"):
        finite_size_correction(equivalent, 0.3, [0], target, 10)
