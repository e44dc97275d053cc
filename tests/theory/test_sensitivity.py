"""The derivatives of the exact error against central differences of the error itself; all deterministic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from datadose.covariance import Array, dense, trace_product, wishart_second_moment
from datadose.errors import InputError
from datadose.theory import Source
from datadose.theory.asymptotics import mixture_equivalent
from datadose.theory.equivalent import Columns, deterministic_equivalent
from datadose.theory.sensitivity import Sensitivity, sensitivity
from helpers.literal import random_psd

D, ETA, N_TEST = 12, 0.3, 30
STEP = 1e-5

FORMS = ("spectra", "dense", "dense start")
COUNTS = {"below": (3.0, 2.0), "above": (20.0, 9.0), "far above": (400.0, 2.0)}


class Problem:
    """Two sources in one of three forms; the first may be noisy."""

    def __init__(self, form: str, counts: tuple[float, float], noisy: bool, steps: int) -> None:
        rng = np.random.default_rng(1)
        spectra = rng.uniform(0.3, 2.0, (2, D))
        covariances = [random_psd(D, 1), random_psd(D, 2)] if form == "dense" else list(spectra)
        self.target: Array = random_psd(D, 3) + np.eye(D)
        self.start: Array = random_psd(D, 4) - 1.5 * np.eye(D)
        if form == "spectra":
            self.target, self.start = rng.uniform(1, 2, D), -rng.uniform(0.4, 1, D)
        noise = (3.0, 0.5) if noisy else (0.0, 0.0)
        sources = [
            Source(covariances[0], 40, counts[0], *noise),
            Source(covariances[1], 20, counts[1], 0.0, noise[1]),
        ]
        self.columns = list(mixture_equivalent(self.start, ETA, sources, chain_steps=steps).columns)
        self.second_moment = wishart_second_moment(self.target, N_TEST)
        self.direction = rng.standard_normal((D, D)) if form == "dense" else rng.standard_normal(D)
        if form == "dense":
            self.direction = (self.direction + self.direction.T) / D

    def error(self, columns: list[Columns], eta: float = ETA) -> float:
        return deterministic_equivalent(self.start, eta, columns).error(self.target, self.second_moment)

    @property
    def derivatives(self) -> Sensitivity:
        solved = deterministic_equivalent(self.start, ETA, self.columns)
        return sensitivity(solved, self.target, self.second_moment)

    def difference(self, moved: Callable[[float], list[Columns]]) -> float:
        """Of step h = STEP and h/2, extrapolated: what is left is O(h^4)."""
        coarse, fine = ((self.error(moved(h)) - self.error(moved(-h))) / (2 * h) for h in (STEP, STEP / 2))
        return (4 * fine - coarse) / 3

    @property
    def tolerance(self) -> dict[str, float]:
        """Rounding leaves about 1e-15 / STEP = 1e-10 of the error in a difference; 20 times that passes."""
        return {"rel": 1e-6, "abs": 2e-9 * self.error(self.columns)}

    def replaced(self, place: int, **changes: object) -> list[Columns]:
        return [replace(c, **changes) if i == place else c for i, c in enumerate(self.columns)]


PROBLEMS = [
    (form, where, noisy, steps)
    for form in FORMS
    for where in COUNTS
    for noisy, steps in ((False, 0), (True, 0), (True, 2))
]


@pytest.mark.parametrize(("form", "where", "noisy", "steps"), PROBLEMS)
def test_all_derivatives_are_those_of_the_error(form: str, where: str, noisy: bool, steps: int) -> None:
    """Counts, second moments (of pairs too), cross moments and eta, along a random symmetric direction."""
    p = Problem(form, COUNTS[where], noisy, steps)
    found, X, close = p.derivatives, p.direction, p.tolerance
    assert len(found.second_moments) == 2 + (noisy and steps > 0)
    for place, c in enumerate(p.columns):
        by_count = p.difference(lambda e, i=place, c=c: p.replaced(i, count=c.count * (1 + e)))
        assert found.counts[place] * c.count == pytest.approx(by_count, **close)
        by_cross = p.difference(lambda e, i=place, c=c: p.replaced(i, cross=c.cross + e * X))
        assert trace_product(found.crosses[place], X) == pytest.approx(by_cross, **close)
    feature = 0
    for place, c in enumerate(p.columns):
        moved = p.difference(lambda e, i=place, c=c: p.replaced(i, second_moment=c.second_moment + e * X))
        assert trace_product(found.second_moments[feature], X) == pytest.approx(moved, **close)
        feature += 1
        if c.pair is not None:
            echo = c.pair
            moved = p.difference(
                lambda e, i=place, h=echo: p.replaced(
                    i, pair=replace(h, second_moment=h.second_moment + e * X)
                )
            )
            assert trace_product(found.second_moments[feature], X) == pytest.approx(moved, **close)
            feature += 1
    by_eta = (p.error(p.columns, ETA + STEP) - p.error(p.columns, ETA - STEP)) / (2 * STEP)
    assert found.eta == pytest.approx(by_eta, **close)


@pytest.mark.parametrize("form", FORMS)
def test_derivatives_with_a_ridge(form: str) -> None:
    """The same formulas hold for the minimiser with a ridge, which knows no peak (12 prompts at d = 12)."""
    p = Problem(form, (8.0, 4.0), True, 2)

    def error(columns: list[Columns]) -> float:
        solved = deterministic_equivalent(p.start, ETA, columns, ridge=0.7)
        return solved.error(p.target, p.second_moment)

    found = sensitivity(
        deterministic_equivalent(p.start, ETA, p.columns, ridge=0.7), p.target, p.second_moment
    )
    for place, c in enumerate(p.columns):
        more, less = (error(p.replaced(place, count=c.count * (1 + e))) for e in (1e-4, -1e-4))
        assert found.counts[place] * c.count == pytest.approx((more - less) / 2e-4, rel=1e-5)
    c = p.columns[1]
    more, less = (
        error(p.replaced(1, second_moment=c.second_moment + e * p.direction)) for e in (1e-5, -1e-5)
    )
    assert trace_product(found.second_moments[2], p.direction) == pytest.approx(
        (more - less) / 2e-5, rel=1e-5
    )


@pytest.mark.parametrize("prompts", [5.0, 40.0])
def test_chain_rule_for_covariance_and_length(prompts: float) -> None:
    """Eq. (8) of docs/derivations/sensitivity.md: the length taken as a real number."""
    A, target, start = random_psd(D, 1), random_psd(D, 2), random_psd(D, 4) - np.eye(D)
    M, X = wishart_second_moment(target, N_TEST), random_psd(D, 5) - np.eye(D)

    def error(A: Array, n: float) -> float:
        C = (1 + 1 / n) * A @ A + np.trace(A) / n * A
        return deterministic_equivalent(start, ETA, [Columns(prompts, C, A)]).error(target, M)

    n = 25.0
    solved = mixture_equivalent(start, ETA, [Source(A, 25, prompts)])
    found = sensitivity(solved, target, M)
    G = found.second_moments[0]
    by_A = found.crosses[0] + (1 + 1 / n) * (A @ G + G @ A)
    by_A = by_A + (np.trace(A @ G) * np.eye(D) + np.trace(A) * G) / n
    slope = (error(A + 1e-5 * X, n) - error(A - 1e-5 * X, n)) / 2e-5
    assert trace_product(by_A, X) == pytest.approx(slope, rel=1e-6)
    by_n = -np.trace(G @ (A @ A + np.trace(A) * A)) / n**2
    assert by_n == pytest.approx((error(A, n + 1e-3) - error(A, n - 1e-3)) / 2e-3, rel=1e-6)


@pytest.mark.parametrize("where", COUNTS)
def test_dense_gradients_are_the_spectra_s_on_the_diagonal(where: str) -> None:
    p = Problem("spectra", COUNTS[where], True, 2)
    spectral = p.derivatives
    p.start, p.target, p.second_moment = (dense(X) for X in (p.start, p.target, p.second_moment))
    p.columns = [
        replace(
            c,
            second_moment=dense(c.second_moment),
            cross=dense(c.cross),
            pair=c.pair and replace(c.pair, second_moment=dense(c.pair.second_moment)),
        )
        for c in p.columns
    ]
    full = p.derivatives
    np.testing.assert_allclose(full.counts, spectral.counts, rtol=1e-8)
    pairs = zip(full.second_moments + full.crosses, spectral.second_moments + spectral.crosses, strict=True)
    for matrix, spectrum in pairs:
        np.testing.assert_allclose(matrix.diagonal(), spectrum, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-14)


@pytest.mark.parametrize("prompts", [2.0, 30.0])
def test_singular_data_below_and_above_its_rank(prompts: float) -> None:
    """Along the data's own directions; above the peak the directions without data have derivative 0."""
    A = np.where(np.arange(D) < 7, np.linspace(0.5, 1.5, D), 0.0)
    V0, target = -np.full(D, 0.6), np.linspace(1, 2, D)
    M = wishart_second_moment(target, N_TEST)
    columns = mixture_equivalent(V0, ETA, [Source(A, 30, prompts)]).columns[0]
    found = sensitivity(deterministic_equivalent(V0, ETA, [columns]), target, M)

    def error(change: float) -> float:
        moved = replace(columns, second_moment=columns.second_moment * (1 + change))
        return deterministic_equivalent(V0, ETA, [moved]).error(target, M)

    slope = (error(STEP) - error(-STEP)) / (2 * STEP)
    along = trace_product(found.second_moments[0], columns.second_moment)
    assert along == pytest.approx(slope, rel=1e-6)
    if prompts > 7:
        np.testing.assert_array_equal(found.second_moments[0][7:], 0.0)


def test_first_prompt_is_worth_what_section_8_says() -> None:
    """dErr/dB_c as B -> 0, eq. (22) of exact_asymptotics.md word for word."""
    A, target, V0 = random_psd(D, 1), random_psd(D, 2), random_psd(D, 4) - np.eye(D)
    C = wishart_second_moment(A, 25)
    M = wishart_second_moment(target, N_TEST)
    residual = np.trace(V0 @ C @ V0.T + ETA * (A @ V0.T + V0 @ A)) + ETA**2 * D
    pulled = V0 @ C + ETA * A
    expected = -2 * np.trace(pulled @ (target + M @ V0.T)) / (D * np.trace(C))
    expected += np.trace(C @ M) * residual / (D * np.trace(C) ** 2)
    solved = mixture_equivalent(V0, ETA, [Source(A, 25, 1e-7)])
    assert sensitivity(solved, target, M).counts[0] == pytest.approx(expected, rel=1e-5)


def test_one_more_prompt_is_worth_the_same_in_every_part_of_a_source() -> None:
    A = np.linspace(0.3, 1.5, D)
    M = wishart_second_moment(np.ones(D), N_TEST)
    parts = mixture_equivalent(-np.ones(D), ETA, [Source(A, 20, B) for B in (2.0, 3.0)])
    whole = mixture_equivalent(-np.ones(D), ETA, [Source(A, 20, 5.0)])
    one = sensitivity(whole, np.ones(D), M).counts[0]
    np.testing.assert_allclose(sensitivity(parts, np.ones(D), M).counts, one, rtol=1e-9)


def test_no_prompts_have_no_derivatives() -> None:
    found = sensitivity(mixture_equivalent(-np.ones(D), ETA, []), np.ones(D), np.ones(D))
    assert (len(found.counts), found.second_moments, found.crosses, found.eta) == (0, (), (), 0.0)


def test_mixed_counts_are_refused() -> None:
    thin = np.where(np.arange(D) < 5, 1.0, 0.0)
    solved = mixture_equivalent(-np.ones(D), ETA, [Source(thin, 20, 8), Source(np.ones(D), 20, 3)])
    with pytest.raises(InputError, match="both sides"):
        sensitivity(solved, np.ones(D), np.ones(D))
