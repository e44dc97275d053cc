"""The three forms: twins written independently, limits, invariances, Prop B.2, errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from datadose import Shift
from datadose.covariance import wishart_second_moment
from datadose.errors import InputError
from datadose.theory import (
    PeakError,
    Source,
    first_order_error,
    first_order_limits,
    mixture_error,
    population_minimiser,
    post_test_error,
    predict_error,
    pretrained_operator,
)
from datadose.theory.asymptotics import mixture_equivalent
from datadose.theory.printed import Blocks, printed_error
from helpers.literal import random_psd

BLOCK = {"dimension": 60, "shifted": 30, "rho": 0.1, "eta": 0.2}


def single_source_error(shift: Shift, B: float, n: int) -> float:
    """Section 3's K = 1 formulas with q, K, T, leak and quad, dense, for full-rank A: the twin."""
    A, Sigma, S0 = (np.diag(X) if X.ndim == 1 else X for X in (shift.data, shift.target, shift.sigma0))
    d, eta, identity = len(A), shift.eta, np.eye(len(A))
    V0 = -np.linalg.inv((1 + 1 / n) * S0 + np.trace(S0) / n * identity)
    C = (1 + 1 / n) * A @ A + np.trace(A) / n * A
    V_inf = -eta * A @ np.linalg.inv(C)
    psi = np.trace(identity - A @ np.linalg.inv(C) @ A)
    D0 = V0 - V_inf
    if B < d:
        c = np.linalg.eigvalsh(C)
        log_q = brentq(lambda x: (c / (c + np.exp(-x))).sum() - B, -60, 60, xtol=1e-14)
        q = np.exp(log_q)
        R = np.linalg.inv(identity + q * C)
        K = q * C @ R @ R
        T = lambda M: q * np.trace(M @ K) / np.trace(K)  # noqa: E731
        leak = lambda M: np.trace(D0 @ K @ D0.T) / d * np.trace(M @ K) / np.trace(K)  # noqa: E731
    else:
        R = np.zeros((d, d))
        T = lambda M: np.trace(M @ np.linalg.inv(C)) / (B - d)  # noqa: E731
        leak = lambda M: 0.0  # noqa: E731
    mean = V_inf + D0 @ R
    noise = eta**2 / d * psi
    quad = lambda M: np.trace(mean @ M @ mean.T) / d + leak(M) + noise * T(M)  # noqa: E731
    square = Sigma @ Sigma
    bias = np.linalg.norm(identity + mean @ Sigma) ** 2 / d
    return bias + leak(square) + noise * T(square) + (quad(square) + np.trace(Sigma) * quad(Sigma)) / n


def dense_shift(d: int, seed: int = 0, rank: int | None = None) -> Shift:
    data = random_psd(d, seed + 2, rank=rank)
    return Shift(random_psd(d, seed), random_psd(d, seed + 1, rank=d // 3), data, 0.3)


@pytest.mark.parametrize("shift", [Shift.two_block(**BLOCK, interference=0.05), dense_shift(20)])
def test_exact_form_equals_the_single_source_formulas(shift: Shift) -> None:
    d = shift.dimension
    for B in (0.1 * d, 0.5 * d, d - 1.01, 1.1 * d, 4 * d):
        assert predict_error(shift, B, 50) == pytest.approx(single_source_error(shift, B, 50), rel=1e-9)


@pytest.mark.parametrize("form", ["exact", "first-order"])
def test_spectra_and_dense_matrices_agree_in_any_basis(form: str) -> None:
    spectral = Shift.two_block(12, 5, 0.1, 0.2, 0.05)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    dense = Shift(
        *(rotation * M @ rotation.T for M in (spectral.sigma0, spectral.delta, spectral.data)), spectral.eta
    )
    for B in (0, 3, 10.9, 14, 60):
        assert predict_error(dense, B, 30, form=form) == pytest.approx(
            predict_error(spectral, B, 30, form=form), rel=1e-9
        )


@pytest.mark.parametrize("dense", [False, True])
def test_splitting_a_source_changes_nothing(dense: bool) -> None:
    shift = dense_shift(15) if dense else Shift.two_block(15, 6, 0.1, 0.2, 0.1)
    V0 = pretrained_operator(shift.sigma0, 40)
    for B in (5.0, 12.0, 40.0):
        one = mixture_error(V0, shift.eta, [Source(shift.data, 40, B)], shift.target, 40)
        parts = [Source(shift.data, 40, share * B) for share in (0.2, 0.5, 0.3, 0.0)]
        assert mixture_error(V0, shift.eta, parts, shift.target, 40) == pytest.approx(one, rel=1e-9)


@pytest.mark.parametrize("counts", [(2.0, 5.0), (6.0, 5.0), (30.0, 2.0), (20.0, 20.0)])
def test_fixed_point_of_two_non_commuting_sources(counts: tuple[float, float]) -> None:
    """The equations of the theorem hold at the solution, on both sides of the peak."""
    sources = [Source(random_psd(12, seed), 30, B) for seed, B in enumerate(counts)]
    solved = mixture_equivalent(-np.eye(12), 0.3, sources)
    above = sum(counts) > 12
    C = [wishart_second_moment(s.covariance, 30) for s in sources]
    base = np.zeros((12, 12)) if above else np.eye(12)
    R = np.linalg.inv(base + sum(q * X for q, X in zip(solved.weights, C, strict=True)))
    np.testing.assert_allclose(solved.resolvent, R, rtol=1e-8, atol=1e-10)
    for q, X, B in zip(solved.weights, C, counts, strict=True):
        assert q * (float(above) + np.trace(X @ R)) == pytest.approx(B, rel=1e-10)


def test_limits_no_prompts_and_many_prompts() -> None:
    for shift in (
        Shift.two_block(**BLOCK, interference=0.05),
        Shift.two_block(**BLOCK),
        dense_shift(15, rank=6),
    ):
        V0 = pretrained_operator(shift.sigma0, 40)
        assert predict_error(shift, 0, 40) == pytest.approx(post_test_error(V0, shift.target, 40), rel=1e-12)
        limit = post_test_error(population_minimiser(shift.data, 40, shift.eta, V0), shift.target, 40)
        assert predict_error(shift, 1e11, 40) == pytest.approx(limit, rel=1e-6)


@pytest.mark.parametrize("interference", [0.0, 0.1])
def test_exact_form_near_the_peak_is_a_simple_pole(interference: float) -> None:
    """|B - rank| Err tends to the same residue per side: halving the distance doubles the error."""
    shift = Shift.two_block(**BLOCK, interference=interference)
    V0, M = pretrained_operator(shift.sigma0, 50), wishart_second_moment(shift.target, 50)

    def error(B: float) -> float:
        return mixture_equivalent(V0, shift.eta, [Source(shift.data, 50, B)]).error(shift.target, M)

    for side in (-1, 1):
        near, far = (error(shift.data_rank + side * gap) for gap in (1e-5, 2e-5))
        assert near / far == pytest.approx(2, rel=1e-3)


def test_lengths_of_the_stages_are_separate() -> None:
    shift = Shift.two_block(**BLOCK, interference=0.05)
    V0 = pretrained_operator(shift.sigma0, 200)
    separate = mixture_error(V0, shift.eta, [Source(shift.data, 50, 20)], shift.target, 90)
    assert predict_error(shift, 20, 50, pretrain_length=200, test_length=90) == pytest.approx(separate)
    assert separate != pytest.approx(predict_error(shift, 20, 50), rel=1e-2)


@pytest.mark.parametrize("B", [0, 10, 30, 55, 70, 300])
def test_first_order_form_equals_the_corrected_scalars(B: int) -> None:
    """The general matrix form against Thm B.1's scalars with the corrected T12, from the same V0."""
    shift = Shift.two_block(**BLOCK, interference=0.05)
    b = Blocks.of(shift, 100)
    V0 = np.where(shift.delta > 0, b.g[0], b.g[1])
    general = first_order_error(V0, shift.eta, Source(shift.data, 100, B), shift.target, 100)
    assert printed_error(shift, B, 100, corrected=True) == pytest.approx(general, rel=1e-10)


@pytest.mark.parametrize(("B", "differs"), [(20, True), (50, True), (70, False), (300, False)])
def test_as_printed_differs_below_the_peak_only(B: int, differs: bool) -> None:
    shift = Shift.two_block(**BLOCK, interference=0.1)
    printed, corrected = (printed_error(shift, B, 100, corrected=fix) for fix in (False, True))
    assert (abs(printed / corrected - 1) > 0.01) == differs


def first_order(shift: Shift, B: float, n: int) -> float:
    """The limit formula F(beta), which is finite next to the peak too."""
    V0 = pretrained_operator(shift.sigma0, n)
    return first_order_error(V0, shift.eta, Source(shift.data, n, B), shift.target, n)


def test_first_order_form_diverges_at_the_peak() -> None:
    """Prop B.2 (i)."""
    shift = Shift.two_block(**BLOCK, interference=0.1)
    for side in (-1, 1):
        near, far = (first_order(shift, 60 * (1 + side * e), 100) for e in (1e-5, 1e-3))
        assert near / far == pytest.approx(100, rel=0.05)


def test_first_order_form_decreases_past_the_peak() -> None:
    """Prop B.2 (i), with its explicit limit."""
    shift = Shift.two_block(**BLOCK, interference=0.1)
    grid = 60 * (1 + np.geomspace(1e-3, 1e5, 200))
    curve = np.array([first_order(shift, B, 100) for B in grid])
    assert (np.diff(curve) < 0).all()
    mu, a, sigma = 0.5, np.array([0.22, 0.1]), np.array([1.1, 1.0])
    after = -0.2 / a
    expected = mu * ((1 + after * sigma) ** 2).sum() + 0.6 * mu * sigma.sum() * mu * (sigma * after**2).sum()
    assert first_order_limits(shift, 100)[1] == pytest.approx(expected, rel=1e-6)
    assert curve[-1] == pytest.approx(expected, rel=1e-3)


def test_no_prompts_limit_of_the_first_order_form() -> None:
    """F(0) = sum mu alpha^2 + gamma Sbar sum mu Sigma g^2."""
    shift = Shift.two_block(**BLOCK, interference=0.1)
    g = pretrained_operator(shift.sigma0, 100)
    expected = ((1 + g * shift.target) ** 2).mean() + 0.6 * shift.target.mean() * (shift.target * g**2).mean()
    assert first_order_limits(shift, 100)[0] == pytest.approx(expected, rel=1e-12)


def test_small_interference_limit() -> None:
    """Prop B.2 (ii): F(inf) - F(0) times r^2 tends to eta^2 mu2 (1 + gamma Sbar), at rate r."""
    gaps = []
    for r in (1e-3, 1e-4, 1e-5):
        before, after = first_order_limits(Shift.two_block(**BLOCK, interference=r), 100)
        gaps.append(abs((after - before) * r**2 / (0.04 * 0.5 * (1 + 0.6 * 1.05)) - 1))
    assert gaps[2] < 1e-4
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.2)


def early_slope(rho: float, mu1: float, r: float, n: int) -> float:
    shift = Shift.two_block(100, round(100 * mu1), rho, 0.2, r)
    start = printed_error(shift, 0, n, corrected=True)
    return (printed_error(shift, 1e-5, n, corrected=True) - start) / 1e-7


def test_early_slope() -> None:
    """Prop B.2 (iii): F'(0) -> -alpha_1^2 + mu2/mu1 as r, gamma -> 0 (bias part), here about -99; on the
    boundary mu1 = rho^2/(1 + rho^2) it has no sign, so the condition must be strict.
    """
    for rho, mu1 in ((0.1, 0.5), (0.5, 0.5), (0.1, 0.2)):
        slope = early_slope(rho, mu1, 1e-5, 10**9)
        assert slope == pytest.approx(-(1 / rho**2) + (1 - mu1) / mu1, rel=1e-2)
        assert slope < 0
    assert early_slope(1.0, 0.5, 1e-6, 10**5) > 1e-3
    assert early_slope(1.0, 0.5, 1e-3, 10**8) < -1e-3


@pytest.mark.long
def test_minimum_before_the_peak_needs_small_interference() -> None:
    """Prop B.2 (ii) at Figure 5's sizes: true at r = 0.01, not at the figure's own r = 0.1."""
    for r, early in ((0.01, True), (0.1, False)):
        shift = Shift.two_block(600, 300, 0.1, 0.2, r)
        best = min(first_order(shift, B, 1000) for B in range(600))
        assert (best < first_order_limits(shift, 1000)[1]) == early


@pytest.mark.parametrize(("interference", "peak"), [(0.0, 30), (0.1, 60)])
@pytest.mark.parametrize("form", ["exact", "first-order"])
def test_at_the_peak_the_mean_is_infinite(interference: float, peak: int, form: str) -> None:
    shift = Shift.two_block(**BLOCK, interference=interference)
    for B in (peak - 1, peak - 0.3, peak, peak + 1):
        with pytest.raises(PeakError, match=f"prompts: got {B}"):
            predict_error(shift, B, 100, form=form)
    for B in (peak - 1.01, peak + 1.01):
        assert predict_error(shift, B, 100, form=form) > 1


@pytest.mark.parametrize(
    ("field", "arguments", "options"),
    [
        ("prompts", (-1, 10), {}),
        ("prompts", (float("nan"), 10), {}),
        ("length", (5, 0), {}),
        ("test_length", (5, 10), {"test_length": -3}),
        ("pretrain_length", (5, 10), {"pretrain_length": 0}),
        ("form", (5, 10), {"form": "second-order"}),
        ("form", (5, 10), {"form": "as-printed", "test_length": 11}),
    ],
)
def test_bad_requests_are_named(field: str, arguments: tuple, options: dict) -> None:
    with pytest.raises(InputError) as caught:
        predict_error(Shift.two_block(**BLOCK, interference=0.1), *arguments, **options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "shift",
    [Shift.two_block(**BLOCK), dense_shift(9), Shift(np.linspace(0.1, 1, 9), np.ones(9), np.ones(9), 0.2)],
)
def test_as_printed_wants_two_full_blocks(shift: Shift) -> None:
    with pytest.raises(InputError, match="as-printed"):
        predict_error(shift, 5, 10, form="as-printed")
