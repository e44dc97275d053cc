"""The deterministic equivalent beyond one peak: mixed counts, pairs of conditions, noise; all deterministic.

The twin is the theorem with a ridge, where there is one regime only: solved for diagonal matrices, feature by
feature with explicit 2 x 2 blocks, and carried to ridge 0 by extrapolation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import root

from datadose.covariance import dense, identity_like, product, wishart_second_moment
from datadose.errors import InputError
from datadose.theory import PeakError, Source, chain_weight, mixture_error, post_test_error
from datadose.theory.asymptotics import mixture_equivalent
from datadose.theory.equivalent import Columns, deterministic_equivalent
from helpers.literal import random_psd

D, ETA, N_TEST = 24, 0.3, 40
RNG = np.random.default_rng(3)
V0 = -RNG.uniform(0.4, 0.9, D)
TARGET = RNG.uniform(0.5, 1.5, D)
FULL, OTHER = RNG.uniform(0.3, 1.5, (2, D))
LOW = np.where(np.arange(D) < 10, RNG.uniform(0.3, 1.5, D), 0.0)
"""Rank 10."""
HIGH = np.where(np.arange(D) >= 7, RNG.uniform(0.3, 1.5, D), 0.0)
"""Rank 17; it shares three directions with LOW."""

CASES: dict[str, tuple[int, list[Source]]] = {
    "one below": (0, [Source(FULL, 30, 9)]),
    "two above": (0, [Source(FULL, 30, 20), Source(LOW, 20, 30)]),
    "mixed": (0, [Source(LOW, 30, 18), Source(FULL, 20, 6)]),
    "mixed, counts beyond the total rank": (0, [Source(LOW, 30, 40), Source(FULL, 20, 5)]),
    "mixed, overlapping ranges": (0, [Source(LOW, 30, 25), Source(HIGH, 20, 8)]),
    "mixed, the other range above": (0, [Source(LOW, 30, 3), Source(HIGH, 20, 35)]),
    "mixed, two on either side": (
        0,
        [Source(LOW, 30, 8), Source(FULL, 20, 3), Source(LOW**2, 25, 9), Source(OTHER, 30, 4)],
    ),
    "label noise, k = 0": (0, [Source(FULL, 30, 9, 3.0)]),
    "pair below": (2, [Source(FULL, 30, 9, 3.0, 0.2)]),
    "pair between half the rank and the rank": (2, [Source(FULL, 30, 18, 3.0, 0.2)]),
    "pair above": (2, [Source(FULL, 30, 50, 3.0, 0.2)]),
    "pair and a clean source above": (3, [Source(FULL, 30, 10, 3.0, 0.2), Source(OTHER, 20, 20, 0.0, 0.5)]),
    "mixed, the pair above": (2, [Source(LOW, 30, 9, 3.0, 0.2), Source(FULL, 20, 5)]),
    "mixed, the pair below": (2, [Source(LOW, 30, 19), Source(FULL, 20, 4, 3.0, 0.2)]),
    "mixed, pairs on both sides": (1, [Source(LOW, 30, 9, 3.0, 0.2), Source(HIGH, 20, 4, 2.0)]),
}


def error(sources: list[Source], steps: int = 0, start: np.ndarray = V0) -> float:
    return mixture_error(start, ETA, sources, TARGET, N_TEST, chain_steps=steps)


def error_of_the_equivalent(sources: list[Source], steps: int = 0) -> float:
    """The limit formula, which is finite next to peaks too, where the mean over finite prompts is not."""
    solved = mixture_equivalent(V0, ETA, sources, chain_steps=steps)
    return solved.error(TARGET, wishart_second_moment(TARGET, N_TEST))


def ridge_error(sources: list[Source], steps: int, ridge: float) -> float:
    """Err at a ridge > 0, sections 4, 5 and 9 word for word, for spectra: the twin."""
    M, rho = wishart_second_moment(TARGET, N_TEST), (1 - ETA) ** np.arange(steps + 1)
    C, P, B, place = [], [], [], []
    for s in sources:
        C.append(wishart_second_moment(s.covariance, s.length))
        place.append(len(B))
        O_k = np.array([[(rho**2).sum(), rho.sum()], [rho.sum(), steps + 1]]) / (rho**2).sum()
        pair = s.label_noise > 0 and steps > 0
        echo = s.label_noise / s.length * s.covariance
        if pair:
            C.append(echo)
        elif s.label_noise > 0:
            C[-1] = C[-1] + echo
        P.append(np.linalg.inv(O_k) if pair else np.eye(1))
        B += [s.prompts] * len(P[-1])
    B, C = np.array(B, dtype=float), np.array(C)
    joint = np.zeros((len(B), len(B)))
    for at, block in zip(place, P, strict=True):
        joint[at : at + len(block), at : at + len(block)] = block

    def solve(log_q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        R = 1 / (ridge + np.exp(log_q) @ C)
        return R, np.linalg.inv(joint + np.diag(C @ R))

    def miss(log_q: np.ndarray) -> np.ndarray:
        return np.log(B * solve(log_q)[1].diagonal()) - log_q

    x = root(miss, np.log(B), tol=1e-10).x
    for _ in range(6):
        # The root finder's own digits would be magnified by the extrapolation: Newton steps with complex-step
        # derivatives go down to rounding on any machine.
        slope = np.array([miss(x + 1e-30j * one).imag / 1e-30 for one in np.eye(len(B))]).T
        x = x - np.linalg.solve(slope, miss(x))
    q, (R, G) = np.exp(x), solve(x)
    assert np.abs(miss(x)).max() < 1e-12
    V = (ridge * V0 - ETA * sum(q[at] * s.covariance for at, s in zip(place, sources, strict=True))) * R
    residual = np.zeros_like(joint)
    for at, block, s in zip(place, P, sources, strict=True):
        own = slice(at, at + len(block))
        t = s.demonstration_noise / (rho**2).sum()
        residual[own, own] = t * D * block + np.diag((V**2 * C[own]).sum(axis=1))
        residual[at, at] += (2 * ETA * s.covariance * V + ETA**2).sum()
    # E D M D^T = sum_b t_b(M) z_b, where z also counts the residuals' own fluctuation E D C_a D^T.
    t_C = np.array([(C * X * R**2).sum(axis=1) for X in C])
    # In units of G: z spans ten decades at small ridges, of which a solver keeps the largest only.
    unit = G.diagonal()
    loop = np.eye(len(B)) - (B[:, None] * (G**2) @ t_C) * unit / unit[:, None]
    z = unit * np.linalg.solve(loop, B * (G @ residual @ G).diagonal() / unit)
    spread = (C * M * R**2).sum(axis=1) @ z
    return 1 + (2 * (V * TARGET).sum() + (V**2 * M).sum() + spread) / D


@pytest.mark.parametrize("name", CASES)
def test_every_regime_is_the_limit_of_the_ridge(name: str) -> None:
    """Extrapolated from ridges h, h/2 and h/4 (errors of order h^3 are left): relative 1e-6."""
    steps, sources = CASES[name]
    coarse, middle, fine = (ridge_error(sources, steps, ridge) for ridge in (4e-5, 2e-5, 1e-5))
    limit = (8 * fine - 6 * middle + coarse) / 3
    assert abs(fine / limit - 1) < 0.1
    assert error(sources, steps) == pytest.approx(limit, rel=1e-6)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ridge", [0.05, 4.0])
def test_with_a_ridge_it_is_the_twin(name: str, ridge: float) -> None:
    steps, sources = CASES[name]
    columns = mixture_equivalent(V0, ETA, sources, chain_steps=steps).columns
    solved = deterministic_equivalent(V0, ETA, columns, ridge=ridge)
    expected = ridge_error(sources, steps, ridge)
    assert solved.error(TARGET, wishart_second_moment(TARGET, N_TEST)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_dense_start_and_target_beside_spectra(name: str) -> None:
    steps, sources = CASES[name]
    start, target = random_psd(D, 1) - np.eye(D), random_psd(D, 2)
    beside = mixture_error(start, ETA, sources, target, N_TEST, chain_steps=steps)
    all_dense = [replace(s, covariance=dense(s.covariance)) for s in sources]
    assert beside == pytest.approx(
        mixture_error(start, ETA, all_dense, target, N_TEST, chain_steps=steps), rel=1e-9
    )


def test_mixed_counts_solve_their_own_equations() -> None:
    """Steps 1-3 of section 6 at the solution, dense and non-commuting."""
    A, thin = random_psd(D, 5), random_psd(D, 6, rank=9)
    start = random_psd(D, 7) - np.eye(D)
    solved = mixture_equivalent(start, ETA, [Source(thin, 30, 16), Source(A, 20, 6)])
    assert solved.is_mixed
    np.testing.assert_array_equal(solved.above, [True, False])
    q, (C1, C2) = solved.weights, (wishart_second_moment(thin, 30), wishart_second_moment(A, 20))
    R_T = np.linalg.pinv(q[0] * C1, rcond=1e-10)
    assert q[0] * (1 + np.trace(C1 @ R_T)) == pytest.approx(16, rel=1e-9)
    V_T = -ETA * q[0] * thin @ R_T
    values, vectors = np.linalg.eigh(thin)
    rest = vectors[:, values < 1e-10]
    inner = rest @ np.linalg.inv(np.eye(D - 9) + q[1] * rest.T @ C2 @ rest) @ rest.T
    assert q[1] * np.trace(C2 @ inner) == pytest.approx(6, rel=1e-9)
    mean = V_T + (start - q[1] * (ETA * A + V_T @ C2)) @ inner
    np.testing.assert_allclose(solved.mean, mean, rtol=0, atol=1e-9)


@pytest.mark.parametrize("matrix", [FULL, random_psd(D, 8)], ids=["spectrum", "dense"])
def test_pair_below_its_peak_is_two_sources(matrix: np.ndarray) -> None:
    """2B < r: the two conditions of a prompt act as prompts of two sources, the second with answer 0."""
    source = Source(matrix, 30, 9, label_noise=3.0)
    start = V0 if matrix.ndim == 1 else np.diag(V0)
    paired = mixture_equivalent(start, ETA, [source], chain_steps=2)
    first, echo = source.columns(ETA, 2), 3.0 / 30 * matrix
    # A source of answers -eta w has eta^2 I in its residual; the second condition has none.
    apart = [replace(first, pair=None), Columns(9, echo, 0 * matrix, -(ETA**2))]
    two = deterministic_equivalent(start, ETA, apart)
    np.testing.assert_allclose(paired.weights, two.weights, rtol=1e-9)
    np.testing.assert_allclose(paired.mean, two.mean, rtol=0, atol=1e-9)
    M = wishart_second_moment(matrix, N_TEST)
    assert paired.quadratic(M) == pytest.approx(two.quadratic(M), rel=1e-9)


def test_chain_length_matters_above_the_peak_of_a_pair_only() -> None:
    for prompts, alike in ((9, True), (18, False), (60, False)):
        found = [error([Source(FULL, 30, prompts, 3.0)], steps) for steps in (1, 2, 6)]
        assert (np.ptp(found) < 1e-9 * found[0]) == alike
    assert error([Source(FULL, 30, 9, 3.0)], 0) != pytest.approx(error([Source(FULL, 30, 9, 3.0)], 1))


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("covariance", [FULL, LOW], ids=["full", "singular"])
def test_many_prompts_with_noisy_labels(covariance: np.ndarray, steps: int) -> None:
    """B -> infinity: V = -eta A (C + (k+1)/c_k s^2/n A)^+ + V0 off the range, a ridge that grows with k."""
    C = wishart_second_moment(covariance, 30)
    total = C + (steps + 1) / chain_weight(ETA, steps) * 3.0 / 30 * covariance
    keep = covariance > 0
    V = np.where(keep, -ETA * covariance / np.where(keep, total, 1), V0)
    found = error([Source(covariance, 30, 1e10, 3.0, 0.4)], steps)
    assert found == pytest.approx(post_test_error(V, TARGET, N_TEST), rel=1e-6)


@pytest.mark.parametrize("prompts", [9, 60])
def test_label_noise_of_one_step_adds_to_the_second_moment(prompts: int) -> None:
    """k = 0: C + (s^2/n) A in place of C."""
    source = Source(FULL, 30, prompts, label_noise=3.0)
    plain = Columns(prompts, wishart_second_moment(FULL, 30) + 3.0 / 30 * FULL, FULL)
    expected = deterministic_equivalent(V0, ETA, [plain]).error(TARGET, wishart_second_moment(TARGET, N_TEST))
    assert error([source]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("counts", [(4, 5), (30, 20), (18, 6)], ids=["below", "above", "mixed"])
@pytest.mark.parametrize("steps", [0, 3])
def test_demonstration_noise_adds_its_leverage(counts: tuple[int, int], steps: int) -> None:
    """t^2/c_k more variance in a source's answers costs exactly kappa_c(M) t^2/c_k."""
    clean = [Source(LOW, 30, counts[0]), Source(FULL, 20, counts[1])]
    kappa = mixture_equivalent(V0, ETA, clean).leverages(wishart_second_moment(TARGET, N_TEST))
    for place in range(2):
        noisy = [replace(s, demonstration_noise=0.7 * (i == place)) for i, s in enumerate(clean)]
        added = kappa[place] * 0.7 / chain_weight(ETA, steps)
        assert error(noisy, steps) - error(clean, steps) == pytest.approx(added, rel=1e-9)


def test_no_noise_is_the_clean_case() -> None:
    """Without noise k plays no part; above the peak a vanishing label noise does not either, for any k."""
    for sources in ([Source(FULL, 30, 9)], [Source(LOW, 30, 18), Source(FULL, 20, 6)]):
        silent = [replace(s, label_noise=0.0, demonstration_noise=0.0) for s in sources]
        assert error(silent, 4) == error(sources, 0)
    clean = error([Source(FULL, 30, 60)])
    for steps in (0, 2):
        assert error([Source(FULL, 30, 60, 1e-7, 1e-7)], steps) == pytest.approx(clean, rel=1e-6)
    # Below the peak the second condition V h = 0 binds however small h is.
    assert error([Source(FULL, 30, 9, 1e-7)], 2) != pytest.approx(error([Source(FULL, 30, 9)], 2), rel=1e-2)


TIES: dict[str, tuple[int, list[Source]]] = {
    "one source's own rank": (0, [Source(LOW, 30, 10), Source(FULL, 30, 3)]),
    "the total": (0, [Source(LOW, 30, 8), Source(FULL, 30, 16)]),
    "what a source above leaves": (0, [Source(LOW, 30, 16), Source(FULL, 30, 14)]),
    "two sources in one range": (0, [Source(LOW, 30, 4), Source(LOW**2, 30, 6), Source(FULL, 30, 3)]),
    "two sources for what is left": (0, [Source(LOW, 30, 16), Source(FULL, 30, 5), Source(OTHER, 30, 9)]),
    "pairs alone": (1, [Source(FULL, 30, 12, 2.0)]),
    "pairs in their own range": (1, [Source(LOW, 30, 5, 2.0), Source(FULL, 30, 3)]),
    "pairs for what is left": (1, [Source(LOW, 30, 16), Source(FULL, 30, 7, 2.0)]),
}


@pytest.mark.parametrize("form", ["spectra", "dense"])
@pytest.mark.parametrize("name", TIES)
def test_ties_are_peaks(name: str, form: str) -> None:
    """At a tie there is no equivalent; a hundredth of a prompt beside it is large, the mean infinite."""
    steps, sources = TIES[name]
    if form == "dense":
        turn = np.linalg.qr(np.random.default_rng(1).standard_normal((D, D)))[0]
        sources = [replace(s, covariance=(turn * s.covariance) @ turn.T) for s in sources]
    start, target = (V0, TARGET) if form == "spectra" else (dense(V0), dense(TARGET))
    with pytest.raises(PeakError, match="prompts"):
        mixture_error(start, ETA, sources, target, N_TEST, chain_steps=steps)
    for side in (-0.01, 0.01):
        # The last source but one is part of every tie with more than one.
        place = max(len(sources) - 2, 0) if "own" in name or "range" in name else len(sources) - 1
        near = [replace(s, prompts=s.prompts + side * (i == place)) for i, s in enumerate(sources)]
        found = mixture_equivalent(start, ETA, near, chain_steps=steps)
        assert found.error(target, wishart_second_moment(target, N_TEST)) > 3
        with pytest.raises(PeakError, match="prompts"):
            mixture_error(start, ETA, near, target, N_TEST, chain_steps=steps)


def test_a_peak_of_some_sources_is_not_called_one_of_the_total() -> None:
    """13 prompts are 11 away from rank(A) = 24; the ten in a range of ten are the peak."""
    with pytest.raises(PeakError, match="got 13; allowed: other counts of some sources"):
        error([Source(LOW, 30, 10), Source(FULL, 30, 3)])
    with pytest.raises(PeakError, match="allowed: any number more than 1 away from rank"):
        error([Source(LOW, 30, 8), Source(FULL, 30, 16)])


def test_peak_of_a_mixed_count_is_a_simple_pole() -> None:
    near, far = (
        error_of_the_equivalent([Source(LOW, 30, 16), Source(FULL, 30, 14 - gap)]) for gap in (1e-5, 2e-5)
    )
    assert near / far == pytest.approx(2, rel=1e-3)


def test_total_equal_to_the_rank_is_no_peak_when_mixed() -> None:
    """LOW has 8 prompts too many and the rest 8 too few: the error passes through D = 24 prompts smoothly."""
    gaps = np.array([-1e-3, 0.0, 1e-3])
    before, at, after = (error([Source(LOW, 30, 18), Source(FULL, 30, 6 + gap)]) for gap in gaps)
    assert at == pytest.approx((before + after) / 2, rel=1e-7)


@pytest.mark.parametrize(
    ("sources", "distance"),
    [
        ([Source(FULL, 30, 9)], 15),
        ([Source(FULL, 30, 30)], 6),
        # A source with few prompts is not near a peak when others cover its range.
        ([Source(FULL, 30, 40), Source(LOW, 30, 0.5)], 16.5),
        ([Source(LOW, 30, 8), Source(FULL, 30, 5)], 2),
        ([Source(LOW, 30, 18), Source(FULL, 30, 6)], 8),
        ([Source(LOW, 30, 11.5), Source(FULL, 30, 6)], 1.5),
        ([Source(LOW, 30, 11.5), Source(FULL, 30, 13)], 1),
    ],
)
def test_distance_to_the_nearest_peak(sources: list[Source], distance: float) -> None:
    assert mixture_equivalent(V0, ETA, sources).distance_to_peak == pytest.approx(distance)


def test_bad_noise_is_named() -> None:
    for field in ("label_noise", "demonstration_noise"):
        with pytest.raises(InputError, match=field):
            error([replace(Source(FULL, 30, 5), **{field: -0.1})])
    with pytest.raises(InputError, match="chain_steps"):
        error([Source(FULL, 30, 5)], -1)


def test_resolvent_is_symmetric_and_leaves_no_direction_out() -> None:
    """R of both regimes inverts what it says it inverts."""
    for prompts, base in ((9, 1.0), (60, 0.0)):
        solved = mixture_equivalent(V0, ETA, [Source(FULL, 30, prompts)])
        mixed = base + solved.weights[0] * wishart_second_moment(FULL, 30)
        np.testing.assert_allclose(product(solved.resolvent, mixed), identity_like(FULL), rtol=1e-10)
