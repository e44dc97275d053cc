"""The planner over random shifts and pools: it always answers, nothing beats it, and its numbers agree."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

from datadose.covariance import dense
from datadose.errors import InputError
from datadose.planner import ErrorModel, Plan, PoolSource, PostTraining, plan, plan_counts
from datadose.planner.dose import dose_of
from datadose.shift import Shift
from datadose.theory import Source, mixture_error, predict_curve, predict_error, pretrained_operator
from helpers.problems import (
    Problem,
    examples,
    finite_problem,
    is_infinite,
    log_integer,
    log_uniform,
    random_basis,
    random_shift,
    spectrum,
    turned_shift,
)

SAME = 1e-7
"""Two routes to one error, by other sums and in other bases, far from what would change a decision."""


@cache
def planned(seed: int) -> tuple[Shift, int, int, Plan]:
    """(shift, length, max_prompts, plan): spectra or matrices, any reward, one to three thinking steps."""
    rng = np.random.default_rng([51, seed])
    matrices = seed % 3 == 2
    shift, n = random_shift(seed, 24, 1e2) if matrices else random_shift(seed, 60)
    if matrices:
        shift = turned_shift(shift, random_basis(rng, shift.dimension))
    most = log_integer(rng, 1, 20 * shift.dimension)
    training = PostTraining(
        chain_steps=int(rng.integers(1, 4)),
        steps=log_integer(rng, 1, 10_000),
        reward=str(rng.choice(["dense", "verifiable"])),  # type: ignore[arg-type]
        tolerance=log_uniform(rng, 0.01, 3),
        noise=log_uniform(rng, 1e-3, 0.5),
    )
    found = plan(shift, length=n, max_prompts=most, rl_prompts=log_integer(rng, 1, 1000), training=training)
    return shift, n, most, found


def numbers(found: Plan) -> list[float]:
    """Every number of the plan's document."""

    def walk(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [x for entry in value.values() for x in walk(entry)]
        if isinstance(value, list | tuple):
            return [x for entry in value for x in walk(entry)]
        return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []

    return walk(found.to_json())


@examples(24)
def test_a_plan_for_every_shift(seed: int) -> None:
    """No exception, no NaN, no infinity; errors are not negative, probabilities are in [0, 1]."""
    _, _, most, found = planned(seed)
    assert np.isfinite(numbers(found)).all()
    assert 0 <= found.prompts <= most
    errors = [found.predicted_error, found.error_before, found.error_at_max_prompts]
    errors += [error for _, error in found.curve] + [error for *_, error in found.by_length]
    assert found.stages is not None
    errors += [outlook.error for outlook in found.stages.outlooks]
    assert min(error for error in errors if error is not None) >= 0
    rates = [outlook.pass_rate for outlook in found.stages.outlooks]
    assert all(0 <= rate <= 1 for rate in rates if rate is not None)


@examples(24)
def test_the_plan_s_numbers_are_those_of_the_theory(seed: int) -> None:
    shift, n, most, found = planned(seed)

    def expected(B: int) -> float | None:
        value = predict_curve(shift, [B], n)[0]
        return pytest.approx(value, rel=SAME) if np.isfinite(value) else None

    assert found.predicted_error == pytest.approx(predict_error(shift, found.prompts, n), rel=SAME)
    assert found.error_before == expected(0)
    assert found.error_at_max_prompts == expected(most)
    for B, error in found.curve:
        assert error == expected(B), B
    assert found.stages is not None
    assert found.stages.of("none").error == expected(0)
    if found.near_optimal is not None:
        ends = predict_curve(shift, found.near_optimal, n)
        assert (ends <= 1.05 * found.predicted_error * (1 + SAME)).all()


@examples(24)
def test_no_number_of_prompts_is_better(seed: int) -> None:
    """Every integer up to 3,000, and 400 beyond."""
    shift, n, most, found = planned(seed)
    counts = np.arange(min(most, 3000) + 1)
    if most > 3000:
        counts = np.unique(np.append(counts, np.geomspace(3000, most, 400).astype(int)))
    assert found.predicted_error <= predict_curve(shift, counts, n).min() * (1 + SAME)
    for length, B, error in found.by_length:
        # The pretrained model and the test prompts keep the plan's length.
        curve = predict_curve(shift, counts, length, pretrain_length=n, test_length=n)
        assert error == pytest.approx(curve[np.searchsorted(counts, B)], rel=SAME)
        if length == n:
            assert error <= curve.min() * (1 + SAME)


@examples(24)
def test_a_better_allocation_is_better(seed: int) -> None:
    """Never worse than the start; error and gain are those of ``predict_error``; the budget holds."""
    shift, n, most, found = planned(seed)
    better = found.better
    if better is None:
        return
    assert better.gain >= 0
    assert 0 <= better.prompts <= most
    if better.gain == 0:
        return
    spent = float(np.trace(dense(better.allocation)))
    assert spent <= better.budget * (1 + 1e-9)
    changed = Shift(shift.sigma0, shift.delta, better.allocation, shift.eta)
    again = predict_error(changed, better.prompts, n)
    assert better.predicted_error == pytest.approx(again, rel=SAME)
    assert again <= found.predicted_error * (1 + SAME)
    # The gain is told to order 1/d, against the start's best dose on a coarser grid.
    after, before = (
        predict_error(which, B, n, finite_size=True)
        for which, B in ((changed, better.prompts), (shift, found.prompts))
    )
    assert better.gain == pytest.approx(1 - after / before, abs=5e-3)


@examples(6)
def test_pass_rates_grow_with_the_tolerance(seed: int) -> None:
    """Of every choice of stages, where the reward does not steer the training itself."""
    shift, n = random_shift(seed, 30)
    rng = np.random.default_rng([52, seed])
    steps, most = int(rng.integers(1, 4)), int(rng.integers(1, 100))
    rates = []
    for tolerance in (1e-3, 0.2, 1.0, 1e3):
        training = PostTraining(steps, 500, "dense", tolerance, 0.1)
        stages = plan(shift, length=n, max_prompts=most, training=training).stages
        assert stages is not None
        rates.append([np.nan if o.pass_rate is None else o.pass_rate for o in stages.outlooks])
    for place in range(4):
        along = np.array([row[place] for row in rates])
        along = along[np.isfinite(along)]
        assert (np.diff(along) >= -1e-9).all()
        assert ((along >= 0) & (along <= 1)).all()


# --- pools ----------------------------------------------------------------------------------------------


def small_pool(seed: int) -> tuple[ErrorModel, list[PoolSource], int]:
    """Two or three sources of at most a dozen prompts, and how many may be taken in all."""
    rng = np.random.default_rng([53, seed])
    shift, n = random_shift(1000 + seed, 12)
    model = ErrorModel(
        pretrained_operator(shift.sigma0, n), shift.eta, shift.target, n, int(rng.integers(1, 4))
    )
    count = int(rng.integers(2, 4))
    pool = []
    for place in range(count):
        covariance = spectrum(rng, shift.dimension, condition=1e3) * log_uniform(rng, 0.05, 5)
        noise = {}
        if rng.random() < 0.3:
            noise["label_noise"] = float(covariance.sum() * log_uniform(rng, 1e-2, 10))
        if rng.random() < 0.3:
            noise["demonstration_noise"] = shift.eta**2 * log_uniform(rng, 1e-2, 10)
        size = int(rng.integers(1, 13 if count == 2 else 7))
        pool.append(PoolSource(f"s{place}", Source(covariance, log_integer(rng, 3, 1000), 0, **noise), size))
    return model, pool, int(rng.integers(1, 1 + sum(p.size for p in pool)))


@examples(24)
def test_counts_are_those_of_an_exhaustive_search(seed: int) -> None:
    model, pool, most = small_pool(seed)
    found = plan_counts(model, pool, most)
    columns = [model.columns(replace(entry.source, prompts=1)) for entry in pool]
    allowed = [c for c in product(*(range(entry.size + 1) for entry in pool)) if sum(c) <= most]
    errors = {counts: model.error(columns, counts) for counts in allowed}
    assert found.prompts in errors
    assert found.error == pytest.approx(errors[found.prompts], rel=SAME)
    assert found.error <= min(errors.values()) * (1 + SAME)
    # The model's errors are those of the theory, and infinite exactly where those are refused.
    rng = np.random.default_rng([54, seed])
    for place in rng.integers(0, len(allowed), 10):
        counts = allowed[place]
        sources = tuple(replace(e.source, prompts=B) for e, B in zip(pool, counts, strict=True))
        problem = Problem(model.V0, model.eta, sources, model.target, model.test_length, model.chain_steps)
        if is_infinite(problem):
            assert errors[counts] == np.inf
        else:
            assert errors[counts] == pytest.approx(problem.error(), rel=SAME)


@examples(12)
def test_a_plan_for_every_pool(seed: int) -> None:
    """Up to six sources of any scale, noise and length: an answer whose numbers are those of the theory."""
    problem = finite_problem(seed, 30)
    rng = np.random.default_rng([55, seed])
    d, n = problem.dimension, problem.test_length
    shift = Shift(spectrum(rng, d, full=True), spectrum(rng, d), np.ones(d), problem.eta)
    sizes = [min(100, max(1, round(s.prompts))) for s in problem.sources]
    pool = [
        PoolSource(f"s{i}", s, size) for i, (s, size) in enumerate(zip(problem.sources, sizes, strict=True))
    ]
    most = int(rng.integers(1, 150))
    training = PostTraining(chain_steps=max(1, problem.chain_steps))
    found = plan(shift, length=n, max_prompts=most, sources=pool, training=training)
    assert np.isfinite(numbers(found)).all()
    assert found.sources is not None
    assert found.prompts == sum(advice.prompts for advice in found.sources) <= most
    assert all(advice.prompts <= size for advice, size in zip(found.sources, sizes, strict=True))
    V0 = pretrained_operator(shift.sigma0, n)

    def error(counts: Any) -> float | None:
        sources = [replace(s, prompts=B) for s, B in zip(problem.sources, counts, strict=True)]
        try:
            return mixture_error(V0, shift.eta, sources, shift.target, n, chain_steps=training.chain_steps)
        except InputError:
            return None

    assert found.predicted_error == pytest.approx(error([a.prompts for a in found.sources]), rel=SAME)
    assert found.error_before == pytest.approx(error([0] * len(sizes)), rel=SAME)
    assert found.predicted_error <= found.error_before * (1 + SAME)
    for place in range(len(sizes)):
        alone = [size if i == place else 0 for i, size in enumerate(sizes)]
        value = error(alone)
        if sum(alone) <= most and value is not None:
            assert found.predicted_error <= value * (1 + SAME)
    if sum(sizes) <= most:
        everything = error(sizes)
        assert found.error_at_max_prompts == (
            None if everything is None else pytest.approx(everything, rel=SAME)
        )


@examples(20)
def test_the_dose_is_the_plan_s(seed: int) -> None:
    """``dose_of`` alone finds the plan's number of prompts and its error."""
    shift, n, most, found = planned(seed)
    model = ErrorModel(pretrained_operator(shift.sigma0, n), shift.eta, shift.target, n)
    dose = dose_of(model, shift.data, n, most)
    assert dose.error == pytest.approx(found.predicted_error, rel=SAME)
    assert dose.prompts == found.prompts
