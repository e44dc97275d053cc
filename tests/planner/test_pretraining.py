"""Shares of a pretraining mixture: feasible, the best on a grid, no worse than what is obvious; bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.covariance import dense
from datadose.errors import InputError
from datadose.planner import plan_file
from datadose.planner.pretraining import (
    Category,
    PossibleShift,
    PretrainingPlan,
    plan_pretraining,
    shares_problem,
)
from datadose.planner.shares import LEAST_SHARE, Objective
from datadose.shapes import Array
from datadose.shift import Shift
from datadose.theory import Source, WeightedTest
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.pretraining import pretrained_on_mixture

D, LENGTH, ETA, R, B = 24, 40, 0.3, 0.02, 20
GROUP = np.arange(D) * 3 // D
SETTING: dict[str, Any] = {"eta": ETA, "length": LENGTH, "max_prompts": B, "interference": R}


def categories(scales: tuple[float, ...] = (1.0, 0.5, 2.0), low: float = 0.1) -> list[Category]:
    return [Category("abc"[j], scale * np.where(j == GROUP, 1.0, low)) for j, scale in enumerate(scales)]


SHIFTS = [PossibleShift(np.where(j == GROUP, size, 0.0)) for j, size in enumerate((1.0, 0.5, 1.5))]
BASE = np.full(D, 0.4)


def planned(**changes: Any) -> PretrainingPlan:
    options = {"sigma0": BASE, **SETTING, **changes}
    kinds, shifts = options.pop("categories", categories()), options.pop("shifts", SHIFTS)
    return plan_pretraining(kinds, shifts, **options)


def errors_at(shares: Array, kinds: list[Category], shifts: list[PossibleShift]) -> Array:
    """Errors after the best post-training from theory's own functions, one by one."""
    used = [(float(s), kind.covariance) for s, kind in zip(shares, kinds, strict=True) if s > 0]
    V0 = pretrained_on_mixture(used, LENGTH)
    found = []
    for one in shifts:
        shift = Shift.aligned(BASE, one.delta, ETA, R)
        curve = EffectivePenalty.of(
            V0, ETA, Source(shift.data, LENGTH, 1), WeightedTest.of(shift.target, LENGTH)
        )
        found.append(curve.best(B).error)
    return np.array(found)


@pytest.mark.parametrize("budget", [None, 0.35])
@pytest.mark.parametrize("objective", ["mean", "worst"])
def test_no_mixture_on_a_grid_is_better(objective: Objective, budget: float | None) -> None:
    """All shares in steps of 1/6, single categories and the balanced mixture among them."""
    kinds = categories()
    found = planned(objective=objective, budget=budget)
    shares = np.array([one.share for one in found.shares])
    costs = np.array([np.mean(kind.covariance) for kind in kinds])
    assert (shares >= 0).all()
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    value = np.mean if objective == "mean" else np.max
    own = errors_at(shares, kinds, SHIFTS)
    assert found.error == pytest.approx(value(own), rel=1e-9)
    np.testing.assert_allclose([one.error for one in found.by_shift], own, rtol=1e-9)
    assert found.error_balanced == pytest.approx(value(errors_at(np.full(3, 1 / 3), kinds, SHIFTS)), rel=1e-9)
    assert found.gain == pytest.approx(1 - found.error / found.error_balanced)
    assert found.worst_shift == own.argmax()
    if budget is not None:
        assert found.cost <= budget * (1 + 1e-9)
    for i in range(7):
        for j in range(7 - i):
            grid = np.array([i, j, 6 - i - j]) / 6
            if budget is None or grid @ costs <= budget:
                assert found.error <= value(errors_at(grid, kinds, SHIFTS)) * (1 + 1e-9)


def test_at_the_optimum_no_category_is_worth_more_than_another() -> None:
    """Of a mean without a budget: an inner minimum is stationary, by differences of the error."""
    found = planned()
    shares = np.array([one.share for one in found.shares])
    assert (shares > 0.01).all()
    for j in range(3):
        step = 1e-3 * (np.eye(3)[j] - shares)
        change = errors_at(shares + step, categories(), SHIFTS) - errors_at(
            shares - step, categories(), SHIFTS
        )
        assert abs(change.mean()) < 2e-4 * 2e-3 * found.error


def test_the_balanced_mixture_of_like_categories_is_minimax() -> None:
    """Like categories, shifts and costs: any step from equal shares makes the error of some shift larger."""
    kinds = categories((1.0, 1.0, 1.0))
    shifts = [PossibleShift(np.where(j == GROUP, 1.0, 0.0)) for j in range(3)]
    found = planned(categories=kinds, shifts=shifts, objective="worst")
    np.testing.assert_allclose([one.share for one in found.shares], 1 / 3, atol=1e-6)
    assert found.gain == pytest.approx(0, abs=1e-9)
    problem = shares_problem(kinds, shifts, sigma0=BASE, **SETTING)
    errors, slopes = problem.errors(problem.balanced)
    np.testing.assert_allclose(errors, errors[0], rtol=1e-9)
    # What one shift gains by a step the others lose together (section 4 of pretraining_shares.md).
    np.testing.assert_allclose(slopes.sum(axis=0), 0, atol=1e-7)
    np.testing.assert_allclose(slopes - slopes.mean(), slopes[0, 0] * (1.5 * np.eye(3) - 0.5), atol=1e-7)
    assert abs(slopes[0, 0]) > 1e-3


def test_dense_categories_are_those_of_their_spectra_turned() -> None:
    Q = np.linalg.qr(np.random.default_rng(3).standard_normal((D, D)))[0]

    def turned(C: Array) -> Array:
        return np.asarray(Q @ dense(C) @ Q.T)

    flat = planned(objective="worst")
    found = planned(
        objective="worst",
        sigma0=turned(BASE),
        categories=[replace(kind, covariance=turned(kind.covariance)) for kind in categories()],
        shifts=[PossibleShift(turned(shift.delta)) for shift in SHIFTS],
    )
    assert found.error == pytest.approx(flat.error, rel=1e-6)
    for one, other in zip(found.shares, flat.shares, strict=True):
        assert one.share == pytest.approx(other.share, abs=1e-3)
        assert one.cost == pytest.approx(other.cost, rel=1e-9)


def test_a_direction_that_one_category_alone_has_keeps_the_least_share() -> None:
    """The others are all that the shift needs; the rare one is held at the floor, not at 0."""
    kinds = [
        Category("common", np.where(GROUP < 2, 1.0, 0.0)),
        Category("rare", np.where(GROUP == 2, 3.0, 0.1)),
    ]
    found = planned(categories=kinds, shifts=[PossibleShift(np.where(GROUP == 0, 2.0, 0.0))], budget=0.70)
    assert found.shares[1].share >= LEAST_SHARE * (1 - 1e-9)
    # Without it its directions would stay at 0.
    alone = planned(categories=kinds[:1], shifts=[PossibleShift(np.where(GROUP == 0, 2.0, 0.0))])
    assert alone.shares[0].share == 1
    assert alone.error > found.error


def test_a_budget_that_pays_for_the_cheapest_alone_takes_it() -> None:
    least = float(np.mean(categories()[1].covariance))
    found = planned(budget=least)
    assert [one.share for one in found.shares] == pytest.approx([0, 1, 0], abs=1e-9)
    assert found.cost_balanced > least


def test_a_number_of_prompts_makes_small_shares_dear() -> None:
    """The best shares for unlimited prompts leave one category few; with 8 d prompts they do worse."""
    unlimited, finite = (planned(objective="worst", prompts=P) for P in (None, 8 * D))
    assert min(one.share for one in unlimited.shares) < 0.5 * min(one.share for one in finite.shares)
    problem = shares_problem(categories(), SHIFTS, sigma0=BASE, **SETTING, prompts=8 * D, objective="worst")
    there = problem.errors(np.array([one.share for one in unlimited.shares]))[0].max()
    assert finite.error < 0.95 * there
    assert unlimited.error < finite.error
    assert problem.value(problem.errors(problem.balanced)[0]) == pytest.approx(finite.error_balanced)


def test_costs_and_weights_count() -> None:
    """A shift that never comes changes nothing; given costs replace those of the trace."""
    first = [replace(shift, weight=float(place == 0)) for place, shift in enumerate(SHIFTS)]
    assert planned(shifts=first).error == pytest.approx(planned(shifts=SHIFTS[:1]).error, rel=1e-6)
    dear = [replace(kind, cost=cost) for kind, cost in zip(categories(), (1.0, 2.0, 30.0), strict=True)]
    found = planned(categories=dear, budget=1.5)
    assert found.cost == pytest.approx(sum(one.share * one.cost for one in found.shares))
    assert found.shares[2].share <= 0.5 / 29 * (1 + 1e-9)


def test_a_task_without_a_shift_is_judged_as_it_is() -> None:
    [outcome] = planned(shifts=[PossibleShift(np.zeros(D))]).by_shift
    assert outcome.penalty is None
    assert outcome.error == outcome.error_before


BAD: list[tuple[dict[str, Any], str]] = [
    ({"categories": []}, "categories: got none"),
    ({"categories": [*categories(), categories()[0]]}, "categories: got the name a twice"),
    ({"categories": [*categories(), Category("n", np.zeros(D))]}, "category n: got a zero matrix"),
    ({"categories": [Category("n", np.ones(D - 1))]}, r"covariance of category n: got shape \(23,\)"),
    ({"categories": [replace(categories()[0], cost=1.0), categories()[1]]}, "cost: got costs of a only"),
    ({"categories": [replace(categories()[0], cost=-1.0)]}, "cost of category a: got -1"),
    ({"shifts": []}, "shifts: got none"),
    ({"shifts": [PossibleShift(BASE, 0.5), PossibleShift(BASE)]}, "weight: got weights of 1 of 2 shifts"),
    ({"shifts": [PossibleShift(BASE, 0.5), PossibleShift(BASE, 0.4)]}, "weight: got .* with sum 0.9"),
    ({"shifts": [PossibleShift(BASE, -0.5)]}, "weight: got -0.5"),
    ({"shifts": [PossibleShift(np.ones(3))]}, r"delta: got shape \(3,\)"),
    ({"budget": 0.05}, r"budget: got 0.05; allowed: at least 0.2, .*\(b\)"),
    ({"budget": -1.0}, "budget: got -1"),
    ({"objective": "median"}, r"objective: got median \(did you mean mean\?\); allowed: mean, worst"),
    ({"max_prompts": 0}, "max_prompts: got 0"),
    ({"eta": 2.5}, "eta: got 2.5"),
    ({"prompts": 0}, "prompts: got 0"),
    ({"length": 0}, "length: got 0"),
    ({"interference": -1.0}, "interference: got -1"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_input_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        planned(**changes)
    assert "\n" not in str(caught.value)


# --- in a file ------------------------------------------------------------------------------------------

FILE = """
sigma0: {blocks: [[0.4, 24]]}
delta: {blocks: [[0.0, 24]]}
length: 40
eta: 0.3
interference: 0.02
max_prompts: 20
pretraining:
  categories:
    - {name: a, covariance: a.npy, cost: 1}
    - {name: b, covariance: {blocks: [[0.1, 12], [1.0, 12]]}, cost: 4}
  prompts: 600
  budget: 2
  shifts:
    - {delta: {blocks: [[1.0, 12], [0.0, 12]]}, weight: 0.7}
    - {delta: {blocks: [[0.0, 12], [1.0, 12]]}, weight: 0.3}
  objective: mean
"""


def test_a_file_gives_the_plan_of_the_function(tmp_path: Path) -> None:
    first = np.repeat([1.0, 0.1], 12)
    np.save(tmp_path / "a.npy", first)
    (tmp_path / "plan.yaml").write_text(FILE)
    document = json.loads(json.dumps(plan_file(tmp_path / "plan.yaml").to_json(), allow_nan=False))
    half = np.arange(D) < 12
    found = planned(
        categories=[Category("a", first, 1.0), Category("b", np.where(half, 0.1, 1.0), 4.0)],
        shifts=[PossibleShift(np.where(half, 1.0, 0.0), 0.7), PossibleShift(np.where(half, 0.0, 1.0), 0.3)],
        prompts=600,
        budget=2.0,
    )
    assert document["pretraining"] == [vars(one) for one in found.shares]
    assert document["pretraining_error"]["error"] == found.error
    assert document["pretraining_error"]["by_shift"] == [vars(one) for one in found.by_shift]
    assert document["prompts"] == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("budget: 2", "budget: 0.2", r"pretraining.budget: got 0.2; allowed: at least 1, .*\(a\)"),
        ("name: b", "name: a", "pretraining.categories: got the name a twice"),
        (", weight: 0.3", "", "pretraining.weight: got weights of 1 of 2 shifts"),
        ("a.npy", "c.npy", "pretraining.covariance of category a: got .*c.npy"),
        ("objective: mean", "objective: max", "pretraining.objective: got max; allowed: mean, worst"),
        ("prompts: 600", "prompts: 24", "pretraining.prompts: got 24; allowed: any number more than 1 away"),
        (
            "interference: 0.02",
            "sources: [{name: s, covariance: a.npy, size: 9}]",
            "pretraining: got one beside sources",
        ),
    ],
)
def test_a_bad_section_is_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.repeat([1.0, 0.1], 12))
    (tmp_path / "plan.yaml").write_text(FILE.replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        plan_file(tmp_path / "plan.yaml")
    assert "\n" not in str(caught.value)
