"""Counts of a pool: brute force over integer grids, marginal values, the price of noise."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.planner import ErrorModel, PoolSource, find_dose, noisy_for_clean, plan_counts
from datadose.theory.fixed_point import NoFixedPointError
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source

D, M, N, ETA = 24, 8, 60, 0.3
INSIDE = np.arange(D) < M
SIGMA0 = np.where(INSIDE, 0.1, 1.0)
TARGET = SIGMA0 + INSIDE
MODEL = ErrorModel(pretrained_operator(SIGMA0, N), ETA, TARGET, N)


def entry(name: str, inside: float, outside: float, size: int, **noise: float) -> PoolSource:
    return PoolSource(name, Source(np.where(INSIDE, inside, outside), N, 0, **noise), size)


EXPERTS = entry("experts", 0.33, 0.0, 30)
WEB = entry("web", 0.1, 0.08, 200)
RIGHT = entry("right", 0.33, 0.3, 150)
HALF = PoolSource("half", Source(np.where(np.arange(D) < M // 2, 0.33, 0.0), N, 0), 40)
CROWD = entry("crowd", 0.33, 0.0, 120, demonstration_noise=0.1)
ECHO = entry("echo", 0.33, 0.0, 120, label_noise=0.05)

POOLS = {
    "experts and web": [EXPERTS, WEB],
    "experts and right": [EXPERTS, RIGHT],
    "half and web": [HALF, WEB],
    "noisy beside clean": [EXPERTS, CROWD],
    "noisy labels": [ECHO, WEB],
    "three": [EXPERTS, CROWD, WEB],
    "three with a half": [HALF, EXPERTS, RIGHT],
}


def error_at(pool: list[PoolSource], counts: tuple[int, ...]) -> float:
    columns = [MODEL.columns(replace(source.source, prompts=1)) for source in pool]
    return MODEL.error(columns, counts)


@pytest.mark.parametrize("source", [EXPERTS, WEB, RIGHT, CROWD], ids=lambda source: source.name)
def test_one_source_is_the_dose(source: PoolSource) -> None:
    column = MODEL.columns(replace(source.source, prompts=1))
    rank = int((source.source.covariance > 0).sum())
    dose = find_dose(lambda B: MODEL.error([column], [B]), source.size, rank)
    found = plan_counts(MODEL, [source], 1000)
    assert found.error == pytest.approx(dose.error, rel=1e-9)
    assert found.prompts == (dose.prompts,)


@pytest.mark.parametrize("max_prompts", [10, 1000])
@pytest.mark.parametrize("name", POOLS)
def test_nothing_on_a_coarse_grid_is_better(name: str, max_prompts: int) -> None:
    """Every grid point has at least the plan's error, on all sides of all peaks, mixed cases included."""
    pool = POOLS[name]
    found = plan_counts(MODEL, pool, max_prompts)
    assert sum(found.prompts) <= max_prompts
    assert all(0 <= B <= source.size for B, source in zip(found.prompts, pool, strict=True))
    assert found.error == error_at(pool, found.prompts)
    points = 8 if len(pool) == 2 else 5
    grids = [
        np.unique(np.append(0, np.geomspace(1, min(source.size, max_prompts), points)).round().astype(int))
        for source in pool
    ]
    best = min(error_at(pool, counts) for counts in product(*grids) if sum(counts) <= max_prompts)
    assert found.error <= best * (1 + 1e-9)


@pytest.mark.parametrize("name", POOLS)
def test_marginal_values_are_differences(name: str) -> None:
    pool = POOLS[name]
    found = plan_counts(MODEL, pool, 1000)
    columns = [MODEL.columns(replace(source.source, prompts=1)) for source in pool]
    for places, values in (
        (found.prompts, [advice.marginal_value for advice in found.sources]),
        ([source.size for source in pool], [advice.marginal_value_at_all for advice in found.sources]),
    ):
        counts = np.maximum(np.array(places, dtype=float), 1e-3)
        for place, value in enumerate(values):
            step = 1e-2 * counts[place] if counts[place] >= 1 else 5e-4
            moved = step * (np.arange(len(pool)) == place)
            slope = (MODEL.error(columns, counts + moved) - MODEL.error(columns, counts - moved)) / (2 * step)
            assert value == pytest.approx(-slope, rel=2e-2, abs=1e-6)


def test_at_the_plan_no_single_prompt_helps() -> None:
    for name in ("experts and web", "half and web", "three with a half"):
        pool = POOLS[name]
        found = plan_counts(MODEL, pool, 60)
        for place, sign in product(range(len(pool)), (1, -1)):
            moved = tuple(B + sign * (c == place) for c, B in enumerate(found.prompts))
            if all(0 <= B <= s.size for B, s in zip(moved, pool, strict=True)) and sum(moved) <= 60:
                assert error_at(pool, moved) >= found.error, name


def test_identical_sources_are_exchangeable() -> None:
    """Two halves of a source do as the whole, and how the plan splits it does not matter."""
    whole = plan_counts(MODEL, [replace(EXPERTS, size=60)], 1000)
    twins = plan_counts(MODEL, [replace(EXPERTS, name="a"), replace(EXPERTS, name="b")], 1000)
    assert sum(twins.prompts) == whole.prompts[0]
    assert twins.error == pytest.approx(whole.error, rel=1e-9)
    first, second = (advice.marginal_value for advice in twins.sources)
    assert first == pytest.approx(second, rel=1e-6)


def test_the_order_of_the_sources_does_not_matter() -> None:
    found = plan_counts(MODEL, [EXPERTS, CROWD], 1000)
    turned = plan_counts(MODEL, [CROWD, EXPERTS], 1000)
    assert turned.error == pytest.approx(found.error, rel=1e-6)


# --- what noise costs -----------------------------------------------------------------------------------


def test_noise_has_a_price_only_where_there_is_noise() -> None:
    experts, crowd = plan_counts(MODEL, [EXPERTS, CROWD], 1000).sources
    assert (experts.noisy_per_clean, experts.clean_error) == (None, None)
    assert crowd.noisy_per_clean is not None
    assert crowd.noisy_per_clean > 1
    assert crowd.clean_error is not None
    assert crowd.clean_error < plan_counts(MODEL, [EXPERTS, CROWD], 1000).error


def test_noisy_per_clean_is_the_ratio_of_first_prompts() -> None:
    """By differences: what one clean prompt adds at the plan over what one noisy prompt adds."""
    pool = [CROWD]
    found = plan_counts(MODEL, pool, 1000)
    [B] = found.prompts
    clean = replace(CROWD, name="clean", source=replace(CROWD.source, demonstration_noise=0.0))
    columns = [MODEL.columns(replace(source.source, prompts=1)) for source in (CROWD, clean)]
    here = MODEL.error(columns, [B, 0])
    ratio = (here - MODEL.error(columns, [B, 0.01])) / (here - MODEL.error(columns, [B + 0.01, 0]))
    assert found.sources[0].noisy_per_clean == pytest.approx(ratio, rel=2e-2)


def test_noisy_for_clean_is_the_smallest_number_that_does() -> None:
    for prompts in (12, 20, 60):
        found = noisy_for_clean(MODEL, CROWD.source, prompts, 100_000)
        assert found is not None
        assert found > prompts
        clean = replace(CROWD.source, demonstration_noise=0.0)
        goal = MODEL.error([MODEL.columns(replace(clean, prompts=1))], [prompts])
        column = MODEL.columns(replace(CROWD.source, prompts=1))
        assert MODEL.error([column], [found]) <= goal < MODEL.error([column], [found - 1])


def test_no_number_of_noisy_prompts_may_do() -> None:
    """A cap below what is needed, and labels whose noise biases V* however many prompts there are."""
    assert noisy_for_clean(MODEL, CROWD.source, 60, 61) is None
    assert noisy_for_clean(MODEL, replace(ECHO.source, label_noise=10.0), 20_000, 100_000) is None


def test_without_noise_a_prompt_is_a_prompt() -> None:
    assert noisy_for_clean(MODEL, EXPERTS.source, 20, 1000) == 20


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "max_prompts", "field"),
    [([], 10, "sources"), ([EXPERTS, EXPERTS], 10, "sources"), ([EXPERTS], 0, "max_prompts")],
)
def test_bad_pools_are_named(pool: list[PoolSource], max_prompts: int, field: str) -> None:
    with pytest.raises(InputError, match=f"{field}: got .*; allowed: "):
        plan_counts(MODEL, pool, max_prompts)


@pytest.mark.parametrize(("name", "size", "field"), [("", 3, "name"), ("a", 0, "size of source a")])
def test_bad_sources_are_named(name: str, size: int, field: str) -> None:
    with pytest.raises(InputError, match=f"{field}: got "):
        PoolSource(name, EXPERTS.source, size)


@pytest.mark.parametrize("max_prompts", [50, 97, 230, 1000])
def test_the_error_at_max_prompts_is_that_many_in_the_pools_proportions(max_prompts: int) -> None:
    found = plan_counts(MODEL, [EXPERTS, WEB], max_prompts)
    share = min(1.0, max_prompts / 230)
    counts = (round(30 * share), round(200 * share))
    assert sum(counts) == min(max_prompts, 230)
    assert found.error_at_max == pytest.approx(error_at([EXPERTS, WEB], counts))
    assert found.error_at_all == pytest.approx(error_at([EXPERTS, WEB], (30, 200)))


def test_points_without_a_fixed_point_do_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The solver fails at a fifth of all points: a plan comes out all the same, and says how many failed."""
    whole, pool = ErrorModel.error, POOLS["three"]
    usual = plan_counts(MODEL, pool, 150)
    assert usual.search.unsolved == 0

    def failing(self: ErrorModel, columns: Any, counts: Any) -> float:
        if int(np.sum(counts)) % 5 == 2:
            raise NoFixedPointError("prompts", counts, "none")
        return whole(self, columns, counts)

    monkeypatch.setattr(ErrorModel, "error", failing)
    found = plan_counts(MODEL, pool, 150)
    assert found.search.unsolved > 0
    assert found.error <= 1.2 * usual.error


@pytest.mark.parametrize("max_prompts", [1, 2, 8, 13, 50])
def test_no_more_prompts_are_tried_or_shown_than_there_may_be(
    max_prompts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three equal shares of 8 round to 9: the numbers tried are whole and keep to the total."""
    tried: list[int] = []
    whole = ErrorModel.error

    def watching(self: ErrorModel, columns: Any, counts: Any) -> float:
        tried.append(int(np.sum(counts)))
        return whole(self, columns, counts)

    pool = [replace(EXPERTS, name=name, size=40) for name in "abc"]
    monkeypatch.setattr(ErrorModel, "error", watching)
    found = plan_counts(MODEL, pool, max_prompts)
    # Everything at once is the one number that is told beside.
    assert {total for total in tried if total > max_prompts} <= {120}
    assert sum(found.prompts) <= max_prompts
    assert max(total for total, _ in found.curve) == max_prompts


def test_advice_that_cannot_be_worked_out_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: ErrorModel, columns: Any, counts: Any) -> Any:
        raise NoFixedPointError("prompts", counts, "none")

    monkeypatch.setattr(ErrorModel, "count_gradient", failing)
    found = plan_counts(MODEL, POOLS["noisy beside clean"], 100)
    assert np.isfinite(found.error)
    for advice in found.sources:
        assert advice.marginal_value is advice.marginal_value_at_all is advice.noisy_per_clean is None
    monkeypatch.setattr(ErrorModel, "error", failing)
    assert noisy_for_clean(MODEL, CROWD.source, 10, 30) is None
