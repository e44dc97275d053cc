"""The exact error over random problems: right to the digits, invariant, the same by every path, never NaN.

Sources of up to 1e8 in scale and condition, dimensions 1 to 200, prompts of 1 to 100,000 examples, fractional
and huge counts, both noises. Tolerances are measured, see :func:`problems.tolerance`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datadose.covariance import dense, wishart_second_moment
from datadose.errors import InputError
from datadose.planner import ErrorModel
from datadose.shift import Shift
from datadose.theory import (
    PeakError,
    Source,
    first_order_error,
    first_order_limits,
    mixture_equivalent,
    mixture_error,
    post_test_error,
    predict_curve,
    predict_error,
    pretrained_operator,
)
from helpers.problems import (
    Problem,
    any_problem,
    examples,
    finite_problem,
    is_clearly_finite,
    is_infinite,
    log_uniform,
    plain_problem,
    random_basis,
    random_shift,
    spectrum,
    tangled,
    tolerance,
    turned_shift,
)
from helpers.reference import exact_error

LARGEST_SCALE = 75.0
CONDITION_LIMIT = 1e-4
"""A problem whose tolerance is above this is not determined well enough to be a test."""


def close(found: float, expected: float, problem: Problem) -> None:
    """Equal within what rounding leaves of this problem."""
    assert found == pytest.approx(expected, rel=min(tolerance(problem), CONDITION_LIMIT), abs=0)


@examples(100)
def test_right_to_the_digits(seed: int) -> None:
    """Against 120 digits, in every regime: below, above, mixed, pairs, sources 1e8 apart, condition 1e8."""
    problem = finite_problem(seed)
    close(problem.error(), exact_error(problem), problem)


# --- invariance -----------------------------------------------------------------------------------------


@examples(60)
def test_a_common_scale_changes_nothing(seed: int) -> None:
    problem, rng = finite_problem(seed), np.random.default_rng([11, seed])
    for power in (-LARGEST_SCALE, rng.uniform(-LARGEST_SCALE, LARGEST_SCALE), LARGEST_SCALE):
        close(problem.scaled(10.0**power).error(), problem.error(), problem)


@examples(15)
def test_a_common_scale_changes_nothing_with_matrices(seed: int) -> None:
    rng = np.random.default_rng([12, seed])
    problem = tangled(plain_problem(seed, 30), rng)
    if not is_clearly_finite(problem):
        pytest.skip("matrices in general position meet a peak here")
    for power in (-LARGEST_SCALE, rng.uniform(-LARGEST_SCALE, LARGEST_SCALE), LARGEST_SCALE):
        close(problem.scaled(10.0**power).error(), problem.error(), problem)


@examples(30)
def test_a_common_scale_of_a_shift(seed: int) -> None:
    """The pretrained operator scales inversely; the first-order form and the 1/d term are invariant too."""
    shift, n = random_shift(seed)
    rng = np.random.default_rng([13, seed])
    B = shift.data_rank * float(rng.choice([0.4, 3.0]))
    for power in (-LARGEST_SCALE, rng.uniform(-LARGEST_SCALE, LARGEST_SCALE), LARGEST_SCALE):
        scale = 10.0**power
        other = Shift(scale * shift.sigma0, scale * shift.delta, scale * shift.data, shift.eta)
        for options in ({}, {"form": "first-order"}, {"finite_size": True}):
            expected = _outcome(lambda s, o=options: predict_error(s, B, n, **o), shift)
            found = _outcome(lambda s, o=options: predict_error(s, B, n, **o), other)
            assert found == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-7))
        assert first_order_limits(other, n) == pytest.approx(first_order_limits(shift, n), rel=1e-9)


def _outcome(call: object, argument: object) -> float | str:
    """The number, or the name of the refusal."""
    try:
        return float(call(argument))  # type: ignore[operator]
    except InputError as refused:
        return type(refused).__name__


def _rearranged(problem: Problem, rng: np.random.Generator) -> Problem:
    """Every source in parts, all parts in another order, beside sources without prompts or content."""
    parts = []
    for s in problem.sources:
        share = float(rng.uniform(0.05, 0.95))
        parts += [replace(s, prompts=share * s.prompts), replace(s, prompts=(1 - share) * s.prompts)]
    shape = problem.sources[0].covariance
    idle = np.where(shape == 0, 0.0, shape) if shape.ndim == 2 else spectrum(rng, len(shape))
    parts += [Source(3 * idle, 7, 0.0), Source(0 * shape, 7, 5.0), replace(parts[0], prompts=0.0)]
    return replace(problem, sources=tuple(parts[i] for i in rng.permutation(len(parts))))


@examples(60)
def test_how_sources_are_told_apart_does_not_matter(seed: int) -> None:
    """Splitting, merging, order, sources of zero prompts and of zero covariance."""
    problem = finite_problem(seed)
    close(_rearranged(problem, np.random.default_rng([14, seed])).error(), problem.error(), problem)


@examples(15)
def test_how_matrices_are_told_apart_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng([15, seed])
    problem = tangled(plain_problem(seed, 30), rng)
    if not is_clearly_finite(problem):
        pytest.skip("matrices in general position meet a peak here")
    close(_rearranged(problem, rng).error(), problem.error(), problem)


@examples(40)
def test_spectra_and_the_same_as_matrices(seed: int) -> None:
    problem = plain_problem(seed)
    turned = problem.turned(random_basis(np.random.default_rng([16, seed]), problem.dimension))
    expected = problem.error()
    close(problem.mapped(dense).error(), expected, turned)
    close(turned.error(), expected, turned)
    beside = replace(problem, V0=dense(problem.V0), target=dense(problem.target))
    close(beside.error(), expected, problem)


@examples(30)
def test_a_rotation_changes_nothing(seed: int) -> None:
    """Matrices that do not commute."""
    rng = np.random.default_rng([17, seed])
    problem = tangled(plain_problem(seed, 40), rng)
    if not is_clearly_finite(problem):
        pytest.skip("matrices in general position meet a peak here")
    close(problem.turned(random_basis(rng, problem.dimension)).error(), problem.error(), problem)


# --- every path to one number ---------------------------------------------------------------------------


def _counts(shift: Shift, rng: np.random.Generator) -> np.ndarray:
    r = shift.data_rank
    fixed = [0.0, 0.5, 1.0, r - 2.5, r - 1.0, float(r), r + 0.7, r + 1.5, 2.0 * r, 1e9]
    return np.array([B for B in [*fixed, *(r * 10 ** rng.uniform(-1.5, 1.5, 6))] if B >= 0])


@pytest.mark.parametrize("form", ["spectra", "matrices"])
@examples(30)
def test_every_path_to_the_error_of_a_shift(seed: int, form: str) -> None:
    """``predict_error``, ``predict_curve``, ``mixture_error``, its equivalent and the planner's model."""
    shift, n = random_shift(seed) if form == "spectra" else random_shift(seed, 40, 1e2)
    rng = np.random.default_rng([18, seed])
    if form == "matrices":
        shift = turned_shift(shift, random_basis(rng, shift.dimension))
    pretrain, test = (int(m) for m in rng.integers(5, 2000, 2))
    lengths = {"pretrain_length": pretrain, "test_length": test}
    V0 = pretrained_operator(shift.sigma0, pretrain)
    model = ErrorModel(V0, shift.eta, shift.target, test)
    form_of_test = wishart_second_moment(shift.target, test)
    counts = _counts(shift, rng)
    for B, on_curve in zip(counts, predict_curve(shift, counts, n, **lengths), strict=True):
        source = Source(shift.data, n, B)
        problem = Problem(V0, shift.eta, (source,), shift.target, test, 0)
        if is_infinite(problem):
            assert on_curve == np.inf
            assert model.error([model.columns(source)], [B]) == np.inf
            for refuse in (problem.error, lambda B=B: predict_error(shift, B, n, **lengths)):
                with pytest.raises(PeakError, match="prompts"):
                    refuse()
            continue
        paths = [
            predict_error(shift, B, n, **lengths),
            problem.error(),
            mixture_equivalent(V0, shift.eta, [source]).error(shift.target, form_of_test),
            model.error([model.columns(source)], [B]),
        ]
        allowed = min(tolerance(problem), CONDITION_LIMIT) if np.isfinite(on_curve) else 0
        assert paths == pytest.approx([on_curve] * 4, rel=allowed, abs=0), B


# --- where there is no number, and where there always is ------------------------------------------------


@examples(200)
def test_a_number_or_a_refusal(seed: int) -> None:
    """Never NaN, never negative, never another exception; a number if and only if the mean is finite."""
    problem = any_problem(seed)
    if is_infinite(problem):
        with pytest.raises(PeakError, match="prompts"):
            problem.error()
    elif is_clearly_finite(problem):
        error = problem.error()
        assert np.isfinite(error)
        assert error >= 0


@examples(60)
def test_no_number_at_any_peak(seed: int) -> None:
    """Counts on and within one of a peak of all or of some sources, integers and not."""
    rng = np.random.default_rng([19, seed])
    problem = any_problem(seed, 40, 4)
    ranks = [int((s.covariance > 0).sum()) for s in problem.sources]
    gaps = rng.choice([-1.0, -0.5, 0.0, 0.3, 1.0], len(ranks))
    problem = problem.with_counts(np.maximum(np.array(ranks) + gaps, 0))
    if is_infinite(problem):
        with pytest.raises(PeakError, match="prompts"):
            problem.error()
        with pytest.raises(InputError):
            problem.error(finite_size=True)


@examples(40)
def test_no_number_for_short_prompts_that_are_interpolated(seed: int) -> None:
    """E ||phi||^{-2} is infinite for n <= 2: for 1 <= B <= rank the mean is, and not above."""
    shift, _ = random_shift(seed)
    rng, r = np.random.default_rng([20, seed]), shift.data_rank
    for n in (1, 2):
        V0 = pretrained_operator(shift.sigma0, n)
        for B in (1.0, float(r), float(rng.uniform(1, max(r, 1)))):
            assert predict_curve(shift, [B], n)[0] == np.inf
            with pytest.raises(PeakError):
                predict_error(shift, B, n)
            with pytest.raises(PeakError):
                mixture_error(V0, shift.eta, [Source(shift.data, n, B)], shift.target, n)
        enough = r + 2 if r > 1 else 5
        assert np.isfinite(predict_error(shift, enough, n))
        with pytest.raises(PeakError):
            predict_error(shift, min(r, 4 / n) if r == 1 else r, n)
    if r > 4:
        assert np.isfinite(predict_error(shift, 1, 3))


@examples(20)
def test_short_prompts_in_parts_and_with_noisy_labels(seed: int) -> None:
    """One prompt in several parts is one prompt; a noisy chain's two columns need n >= 4, or one more.

    Given w, phi and h of a prompt are X^T applied to an n x 2 Gaussian matrix, whose inverse has a second
    moment if n > 3. For n = 1 the two are parallel: a prompt has one direction, as many as without noise.
    """
    shift, _ = random_shift(seed)
    rng, r = np.random.default_rng([24, seed]), shift.data_rank
    V0, total = pretrained_operator(shift.sigma0, 9), float(rng.uniform(1, max(r - 2, 1)))
    share = float(rng.uniform(0.2, 0.8))
    parts = tuple(Source(shift.data, 2, B) for B in (share * total, (1 - share) * total))
    noise = float(shift.data.sum()) * log_uniform(rng, 1e-2, 10)
    pairs = [(n, B) for n in (1, 2, 3) for B in (1.0, 0.4 * r)] + [(1, 0.7 * r), (1, r + 0.5)]
    cases = [Problem(V0, shift.eta, parts, shift.target, 9, 0)]
    cases += [
        Problem(V0, shift.eta, (Source(shift.data, n, B, noise),), shift.target, 9, 2) for n, B in pairs
    ]
    for problem in cases:
        if is_infinite(problem):
            with pytest.raises(PeakError):
                problem.error()
        elif is_clearly_finite(problem):
            assert np.isfinite(problem.error())
    assert is_infinite(cases[0])


@examples(40)
def test_no_prompts_and_no_data_leave_the_pretrained_model(seed: int) -> None:
    """B = 0 at any length and rank; A = 0 with any number of prompts."""
    shift, n = random_shift(seed)
    basis = random_basis(np.random.default_rng([21, seed]), shift.dimension)
    matrices = [turned_shift(shift, basis)] if shift.dimension <= 60 else []
    for form in (shift, *matrices):
        empty = Shift(form.sigma0, form.delta, 0 * form.data, form.eta)
        for length in (1, 2, n):
            V0 = pretrained_operator(form.sigma0, length)
            untouched = post_test_error(V0, form.target, length)
            same = pytest.approx(untouched, rel=1e-10)
            assert predict_error(form, 0, length) == same
            assert predict_error(form, 0, length, form="first-order") == pytest.approx(
                first_order_error(V0, form.eta, Source(form.data, length, 0), form.target, length), rel=1e-10
            )
            assert predict_curve(form, [0.0], length) == same
            for data, B in ((form.data, 0), (0 * form.data, 0), (0 * form.data, 1), (0 * form.data, 7.5)):
                assert mixture_error(V0, form.eta, [Source(data, length, B)], form.target, length) == same
            for B in (0, 1, 7.5, 1e6):
                assert predict_error(empty, B, length) == same
                assert predict_curve(empty, [B], length) == same


@examples(40)
def test_the_correction_for_finite_size(seed: int) -> None:
    """It is refused or finite; with spectra and the same as matrices it is one number.

    Matrices of sources of very different sizes may lose its digits: then they are refused, spectra are not.
    """
    problem = replace(plain_problem(seed, 30), chain_steps=0)
    sources = tuple(replace(s, label_noise=0.0, demonstration_noise=0.0) for s in problem.sources)
    problem = replace(problem, sources=sources)
    if not is_clearly_finite(problem):
        return
    turned = problem.turned(random_basis(np.random.default_rng([22, seed]), problem.dimension))
    found = _outcome(lambda p: p.error(finite_size=True), problem)
    again = _outcome(lambda p: p.error(finite_size=True), turned)
    if isinstance(found, str):
        assert again == found
        return
    assert np.isfinite(found)
    if again == "InputError":
        sizes = [s.covariance.max() for s in sources] + [
            s.covariance[s.covariance > 0].min() for s in sources
        ]
        assert max(sizes) / min(sizes) > 100
        return
    # The correction is a derivative of the error's own pieces: allow it a hundred times the error's rounding,
    # and what traces that are right to 1e-7 (beyond it is refused) may do to it.
    slack = 100 * tolerance(turned) * max(abs(found), problem.error())
    assert again == pytest.approx(found, abs=max(slack, 1e-6 * abs(found)))
