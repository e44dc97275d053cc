"""Derivatives in counts, moments, eta and the data's eigenvalues against central differences.

A difference at step h has an error of order h^2, which the difference at 2h shows (four times as large), and
one from rounding, the error's tolerance over h: the comparison allows both, and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from datadose.covariance import wishart_second_moment
from datadose.planner import AllocationProblem, ErrorModel
from datadose.theory import Source, mixture_equivalent, pretrained_operator
from datadose.theory.equivalent import Columns, deterministic_equivalent
from datadose.theory.sensitivity import sensitivity
from helpers.problems import (
    Problem,
    examples,
    finite_problem,
    lead_and_short,
    plain_problem,
    random_basis,
    random_shift,
    spectrum,
    tolerance,
)

STEP = 1e-4


def agrees(slope: float, along: Callable[[float], float], relative_rounding: float) -> None:
    """``slope`` is the derivative of ``along`` at 0."""
    ends = np.array([along(k * STEP) for k in (-2, -1, 1, 2)])
    fine, coarse = (ends[2] - ends[1]) / (2 * STEP), (ends[3] - ends[0]) / (4 * STEP)
    slack = abs(fine - coarse) + relative_rounding * np.abs(ends).max() / STEP
    assert slope == pytest.approx(fine, abs=slack, rel=1e-9)


def moved(problem: Problem, columns: tuple[Columns, ...], eta: float) -> float:
    """The error with other columns or another eta, V0 and the moments held."""
    found = deterministic_equivalent(problem.V0, eta, columns)
    return found.error(problem.target, wishart_second_moment(problem.target, problem.test_length))


def far_from_peaks(draw: Callable[[int], Problem], seed: int) -> Problem:
    """The first problem from ``seed`` on that lies so far from its peaks that steps stay on their side."""
    for attempt in range(seed, seed + 1000):
        problem = draw(1000 + attempt)
        lead, _ = lead_and_short(problem)
        largest = max(s.prompts for s in problem.sources)
        if lead > 1 + 4 * STEP * largest:
            return problem
    raise AssertionError("no such problem")


@pytest.mark.parametrize("form", ["spectra", "matrices"])
@examples(30)
def test_all_derivatives_of_the_error(seed: int, form: str) -> None:
    """By counts, by every second and cross moment in a random direction, by eta: on one side of the peaks."""
    rng = np.random.default_rng([31, seed])
    if form == "spectra":
        problem = far_from_peaks(lambda s: finite_problem(s, 60, 4), seed)
    else:
        problem = far_from_peaks(lambda s: plain_problem(s, 20), seed)
        problem = problem.turned(random_basis(rng, problem.dimension))
    equivalent = mixture_equivalent(problem.V0, problem.eta, problem.sources, chain_steps=problem.chain_steps)
    if equivalent.is_mixed or problem.eta > 1.99:
        pytest.skip("sources on both sides of their peaks: no derivative in closed form")
    M = wishart_second_moment(problem.target, problem.test_length)
    found, columns, slack = sensitivity(equivalent, problem.target, M), equivalent.columns, tolerance(problem)

    def put(place: int, changed: Columns) -> float:
        return moved(problem, (*columns[:place], changed, *columns[place + 1 :]), problem.eta)

    def by_count(place: int, h: float) -> float:
        return put(place, replace(columns[place], count=columns[place].count * (1 + h)))

    def by_moment(place: int, field: str, turn: np.ndarray, h: float) -> float:
        return put(place, replace(columns[place], **{field: getattr(columns[place], field) * (1 + h * turn)}))

    agrees(problem.eta * found.eta, lambda h: moved(problem, columns, problem.eta * (1 + h)), slack)
    for place, c in enumerate(columns):
        agrees(c.count * found.counts[place], partial(by_count, place), slack)
        if form == "matrices":
            continue
        turn, feature = rng.standard_normal(problem.dimension), int(equivalent.features.first[place])
        slope = found.second_moments[feature] @ (turn * c.second_moment)
        agrees(slope, partial(by_moment, place, "second_moment", turn), slack)
        agrees(found.crosses[place] @ (turn * c.cross), partial(by_moment, place, "cross", turn), slack)


def test_the_worth_of_a_small_source_beside_large_ones_as_matrices() -> None:
    """Sources 1e7 apart in size: products of whole matrices lose what the smallest one sees.

    Its prompts are worth 4e-6 of the error. Rounding leaves 1e-2 of that; with such products it is 0.75.
    """
    problem = plain_problem(1, 30)
    worth = []
    for form in (problem, problem.turned(random_basis(np.random.default_rng([22, 1]), problem.dimension))):
        equivalent = mixture_equivalent(form.V0, form.eta, form.sources, chain_steps=form.chain_steps)
        M = wishart_second_moment(form.target, form.test_length)
        worth.append(sensitivity(equivalent, form.target, M).counts)
    np.testing.assert_allclose(worth[1], worth[0], rtol=0.2)


@examples(30)
def test_what_one_more_prompt_is_worth(seed: int) -> None:
    """The planner's gradient in the counts, on both sides of the peaks at once too."""
    problem = far_from_peaks(lambda s: finite_problem(s, 60, 4), seed)
    model = ErrorModel(problem.V0, problem.eta, problem.target, problem.test_length, problem.chain_steps)
    columns = [model.columns(s) for s in problem.sources]
    gradient = model.count_gradient(columns, problem.counts)
    for place, (B, slope) in enumerate(zip(problem.counts, gradient, strict=True)):
        if B < 1e-2:
            continue

        def along(h: float, place: int = place) -> float:
            counts = problem.counts
            counts[place] *= 1 + h
            return problem.with_counts(counts).error()

        # Where it is by differences itself, its own step is 1e-4 of the count as well.
        agrees(B * slope, along, 3 * tolerance(problem))


@examples(30)
def test_the_gradient_in_the_eigenvalues_of_the_data(seed: int) -> None:
    shift, n = random_shift(seed, 60)
    rng = np.random.default_rng([32, seed])
    V0 = pretrained_operator(shift.sigma0, n)
    a = spectrum(rng, shift.dimension) * float(shift.data.max())
    inside = a > 0
    model = ErrorModel(V0, shift.eta, shift.target, n)
    asked = AllocationProblem(model, n, a, np.zeros_like(a), inside, 2 * a.sum())
    turn, r = rng.standard_normal(len(a)), int(inside.sum())
    for B in {1, r // 2, 2 * r + 2} - {0}:
        if abs(B - r) <= 1:
            continue
        _, gradient = asked.value_and_gradient(a, B)

        def along(h: float, B: int = B) -> float:
            return asked.value_and_gradient(a * (1 + h * turn), B)[0]

        problem = Problem(V0, shift.eta, (Source(a, n, B),), shift.target, n, 0)
        agrees(float(gradient @ (turn * a)), along, tolerance(problem))
