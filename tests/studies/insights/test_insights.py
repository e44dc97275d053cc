"""The insights' experiments run, tabulate, draw and keep their seeds apart: at smoke size, in process."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from datadose.studies.fresh_batches import study as fresh_batches
from datadose.studies.insights import (
    balance,
    bands,
    overthinking,
    selection,
    sft_then_rl,
    size,
    stability,
)
from datadose.studies.insights.overthinking import Overthinking
from datadose.studies.insights.selection import HardnessSelection
from datadose.studies.insights.stability import Descent
from datadose.studies.tables import names
from datadose.studies.training import Recipe, ScaledShift, pass_probabilities
from datadose.theory.outcome import adaptation_radius, rollout_error

pytestmark = pytest.mark.long

MODULES: dict[str, Any] = {
    module.NAME: module
    for module in (selection, size, fresh_batches, stability, balance, bands, sft_then_rl, overthinking)
}


def preset(name: str, which: str = "smoke") -> Any:
    return MODULES[name].STUDY.experiment.preset(which)


@cache
def smoke(name: str, seeds: int | None = None) -> pd.DataFrame:
    config = preset(name)
    if seeds is not None:
        config = replace(config, seeds=seeds)
    return config.table([cell.function(**cell.arguments) for cell in config.cells()])


@pytest.mark.parametrize("name", MODULES)
def test_tables_have_the_columns_and_say_what_diverged(name: str) -> None:
    table = smoke(name)
    assert list(table.columns) == names(MODULES[name].Column)
    assert set(table["figure"]) == {name}
    measured = table[table["model"] == "lsa"]
    assert measured["seed"].notna().all()
    kept = measured[measured["diverged"] == 0]
    assert not kept.empty
    assert np.isfinite(kept["error"].to_numpy(dtype=float)).all()
    assert measured.loc[measured["diverged"] == 1, "error"].isna().all()


@pytest.mark.parametrize("name", MODULES)
def test_a_seed_does_not_depend_on_those_beside_it(name: str) -> None:
    fewer, more = smoke(name, 2), smoke(name, 3)
    more = more[more["seed"].isna() | (more["seed"] < 2)]
    for column in ("error", "predicted", "diverged"):
        a, b = (t[column].to_numpy(dtype=float, na_value=np.nan) for t in (fewer, more))
        np.testing.assert_allclose(a, b, rtol=1e-4, err_msg=column)


@pytest.mark.parametrize("name", MODULES)
def test_figures_draw_from_the_table_and_the_configuration(name: str) -> None:
    figure = MODULES[name].STUDY.draw(smoke(name), preset(name))
    assert all(axis.has_data() for axis in figure.axes)


@pytest.mark.parametrize("which", ["quick", "paper"])
@pytest.mark.parametrize("name", MODULES)
def test_larger_presets_are_configured(name: str, which: str) -> None:
    config = preset(name, which)
    assert len(config.cells()) > len(preset(name).cells())
    assert config.seeds >= (10 if which == "paper" else 6)


def test_the_shift_has_the_wanted_radius() -> None:
    task = ScaledShift(12, 3, 50)
    assert adaptation_radius(task.sigma0, task.delta(1.7), 50) == pytest.approx(1.7)


def test_measured_hardness_ranks_the_shift_above_what_was_pretrained() -> None:
    block = HardnessSelection.preset("smoke").block
    pool = selection.draw_pool(block, 40, 400, 0.0, seed=0)
    V0 = selection.pretrained_operator(block.shift(0.0).sigma0, 40)
    score = selection.measured_hardness(pool, V0, block.eta)
    by_kind = [float(np.median(score[pool.kind == kind])) for kind in range(4)]
    assert min(by_kind[0], by_kind[3]) > 2 * max(by_kind[1], by_kind[2])
    wrong = selection.draw_pool(block, 40, 400, 0.3, seed=0)
    assert wrong.wrong.mean() == pytest.approx(0.3)
    assert not np.allclose(wrong.moments.weights[:, wrong.wrong], pool.moments.weights[:, wrong.wrong])
    np.testing.assert_array_equal(
        wrong.moments.weights[:, ~wrong.wrong], pool.moments.weights[:, ~wrong.wrong]
    )
    np.testing.assert_array_equal(wrong.moments.phi, pool.moments.phi)


def test_bands_are_what_they_say() -> None:
    rates = np.linspace(0, 1, 101)
    squared = 1 - rates
    assert rates[bands.choose(rates, squared, "too hard", 8, 0)].max() <= 0.1
    assert rates[bands.choose(rates, squared, "too easy", 8, 0)].min() >= 0.9
    medium = rates[bands.choose(rates, squared, "medium", 40, 0)]
    assert medium.min() >= 0.1
    assert medium.max() <= 0.9
    assert sorted(bands.choose(rates, squared, "hardest", 3, 0)) == [0, 1, 2]
    # A band that is too small is filled with its neighbours.
    assert rates[bands.choose(rates, squared, "too hard", 20, 0)].max() == pytest.approx(0.19)
    assert len(set(bands.choose(rates, squared, "all", 50, 0))) == 50


def test_candidates_ask_only_for_what_they_show() -> None:
    task = ScaledShift(10, 4, 200)
    pool = bands.draw_candidates(task, bands.graded_target(task, (0.5, 3.0)), 64, [0, 1])
    assert pool.covariances is not None
    shown = pool.covariances.diagonal(dim1=-2, dim2=-1) > 0
    assert torch.equal(shown, pool.weights != 0)
    whole = bands.embed(pool, task.dimension)
    assert whole.covariances is not None
    assert torch.equal(whole.weights[..., : task.shifted], pool.weights)
    assert not whole.weights[..., task.shifted :].any()
    assert torch.equal(whole.covariances[..., : task.shifted, : task.shifted], pool.covariances)
    assert float(whole.covariances.sum()) == pytest.approx(float(pool.covariances.sum()))
    assert shown.sum(-1).min() >= 1
    assert set(shown.sum(-1).flatten().tolist()) == {1, 2, 3, 4}


def test_passing_agrees_with_sampling() -> None:
    recipe = Recipe(0, 0, noise=0.3, tolerance=0.5)
    for norm in (0.0, 0.8, 1.2):
        draws = np.random.default_rng(0).standard_normal((20_000, 4)) * recipe.noise
        draws[:, 0] += norm
        sampled = float((np.linalg.norm(draws, axis=1) <= recipe.radius(4)).mean())
        gaps = torch.tensor([norm**2, 0.0, 0.0, 0.0, 9.0], dtype=torch.float64)
        exact = float(pass_probabilities(gaps, recipe, np.arange(5) < 4))
        # 5 standard errors of a share over 20,000 draws: a false alarm in fewer than one run in a million.
        assert sampled == pytest.approx(exact, abs=5 * (0.25 / 20_000) ** 0.5)
    assert float(pass_probabilities(torch.full((4,), torch.inf), recipe, np.ones(4, bool))) == 0


def test_the_pretrained_model_thinks_as_the_theory_says() -> None:
    config = replace(Overthinking.preset("smoke"), task=ScaledShift(10, 2, 200))
    found = overthinking.think(config.task, 0.5, "base", config.recipe, [1, 2, 4], 2000, [0])
    _, _, thinking, tested, predicted, far = np.array(found, float).T
    assert list(thinking) == [1, 2, 4]
    np.testing.assert_allclose(tested, predicted, rtol=0.25)
    assert far[0] == pytest.approx(
        rollout_error(config.task.operator, config.task.target(0.5), 1).value, rel=1e-5
    )


def test_a_lost_run_has_no_error_and_spares_the_others() -> None:
    task = ScaledShift(8, 2, 800, rho=1.0)
    found = stability.descend(Descent(task, (0.5, 2.0), 2, 0.3, 1.0, 32, 60, 2))
    assert [after is None for *_, after in found] == [False, False, True, True]
    alone = stability.descend(Descent(task, (0.5,), 2, 0.3, 1.0, 32, 60, 2))
    np.testing.assert_allclose(
        np.array([after for *_, after in found[:2]], float),
        np.array([after for *_, after in alone], float),
        rtol=1e-4,
    )
