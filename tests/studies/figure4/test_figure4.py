"""Figure 4 and its map, smoke presets end to end: tables, base rows, independence of runs, divergence."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.configs import STAGES
from datadose.studies.figure4 import map as figure4_map
from datadose.studies.figure4.experiment import (
    CONTROLS,
    Figure4,
    base_error,
    data_covariance,
    panel,
    post_trained_errors,
)
from datadose.studies.figure4.figure import draw
from datadose.studies.figure4.map import Figure4Map, MapRow
from datadose.studies.study import PRESETS
from datadose.studies.tables import COLUMNS
from datadose.studies.training import shift_covariances
from datadose.studies.trends import PAPER_CLAIMS
from datadose.theory.post_test import post_test_error
from datadose.theory.pretraining import pretrained_operator

pytestmark = pytest.mark.long

SMALL: dict[str, Any] = {
    "dimension": 10,
    "prompts": 16,
    "length": 20,
    "base_length": 20,
    "chain_steps": 2,
    "steps": 15,
    "batch": 8,
    "test_prompts": 64,
}


def _run(config: Any) -> pd.DataFrame:
    return config.table([cell.function(**cell.arguments) for cell in config.cells()])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return _run(Figure4.preset("smoke"))


@pytest.fixture(scope="module")
def map_table() -> pd.DataFrame:
    return _run(Figure4Map.preset("smoke"))


def test_table_has_the_shared_columns_then_its_own(table: pd.DataFrame) -> None:
    own = ["axis", "variant", "optimiser_steps", "diverged_step", "divergence_radius"]
    assert list(table.columns) == [*COLUMNS, *own]
    for column in ("figure", "panel", "stage", "model", "prompts", "length", "steps", "error", "diverged"):
        assert table[column].notna().all(), column
    assert np.isfinite(table["error"]).all()
    assert set(table["stage"]) == set(STAGES)


def test_every_panel_and_control_has_every_place_and_seed(table: pd.DataFrame) -> None:
    config = Figure4.preset("smoke")
    places = {"prompts": config.prompts, "length": config.lengths, "steps": config.chains}
    panels = set()
    for stage in STAGES:
        for axis, xs in places.items():
            for control in (False, True):
                name = panel(stage, axis, control)
                rows = table[table["panel"] == name]
                panels.add(name)
                assert sorted(set(rows[axis])) == sorted(xs)
                assert len(rows) == len(xs) * config.seeds
    assert panels | {"base"} == set(table["panel"])
    assert panel("sft", "prompts", control=True) == "a-steps"
    assert panel("outcome", "length", control=True) == "e-fixed-lengths"


def test_controls_hold_what_they_say(table: pd.DataFrame) -> None:
    steps = table[table["axis"] == "prompts"].groupby("variant")["optimiser_steps"].nunique()
    assert steps[CONTROLS["prompts"]] == 1
    assert steps["main"] > 1
    # With pretraining and test fixed, only the post-training prompts differ along n.
    cells = Figure4.preset("smoke").points()
    fixed = [p.work for p in cells if p.axis == "length" and p.control]
    assert len({work.base_length for work in fixed}) == 1
    assert len({work.length for work in fixed}) > 1


def test_base_rows_are_the_untouched_model(table: pd.DataFrame) -> None:
    base = table[table["variant"] == "base"]
    config = Figure4.preset("smoke")
    assert set(base["length"]) == {*config.lengths, config.base_length, config.short_length}
    assert (base["prompts"] == 0).all()
    assert (base["stage"] == "sft").all()
    sigma0, delta = shift_covariances(config.dimension)
    for n, error in zip(base["length"], base["error"], strict=True):
        exact = post_test_error(pretrained_operator(sigma0, int(n)), sigma0 + delta, int(n))
        assert error == pytest.approx(exact, rel=0.1)


def test_no_training_is_the_untouched_model() -> None:
    found = post_trained_errors(stage="outcome", seeds=[3], **{**SMALL, "steps": 0})
    assert found["errors"] == [
        pytest.approx(base_error(dimension=10, length=20, test_prompts=64), rel=1e-5),
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_a_seed_does_not_depend_on_its_neighbours(stage: Any) -> None:
    """Alone, beside others and in the second chunk of runs a seed has the same error."""
    together = post_trained_errors(stage=stage, seeds=[0, 1, 2, 3, 4, 5, 6], **SMALL)["errors"]
    alone = [post_trained_errors(stage=stage, seeds=[s], **SMALL)["errors"][0] for s in (0, 6)]
    assert [together[0], together[6]] == pytest.approx(alone, rel=1e-4)
    assert len(set(together)) == 7


def test_divergence_is_reported_and_its_error_is_empty() -> None:
    config = replace(Figure4.preset("smoke"), learning_rate=1e4, prompts=(16,), lengths=(40,), chains=(4,))
    made = _run(config)
    lost = made[made["diverged"] == 1]
    assert len(lost) > 0
    assert lost["error"].isna().all()
    assert lost["diverged_step"].notna().all()
    assert made[made["diverged"] == 0]["error"].notna().all()
    draw(made, config)


def test_allocated_data_carry_interference() -> None:
    sigma0, delta = shift_covariances(10)
    np.testing.assert_array_equal(data_covariance(10, 0.2, None), delta)
    A = data_covariance(10, 0.2, 0.1)
    np.testing.assert_allclose(A[delta > 0], 0.2 * (sigma0 + delta)[delta > 0])
    np.testing.assert_allclose(A[delta == 0], 0.1)


def test_presets_share_the_protocol() -> None:
    configs = [Figure4.preset(name) for name in PRESETS]
    assert {(c.eta, c.batch, c.learning_rate) for c in configs} == {(0.2, 32, 1e-3)}
    assert (configs[-1].dimension, configs[-1].epochs, configs[-1].seeds) == (100, 130, 10)
    keys = [repr(cell) for cell in configs[-1].cells()]
    assert len(keys) == len(set(keys))


def test_map_judges_every_claim_in_every_setting(map_table: pd.DataFrame) -> None:
    config = Figure4Map.preset("smoke")
    assert list(map_table.columns) == [field.name for field in fields(MapRow)]
    assert len(map_table) == len(config.settings()) * len(PAPER_CLAIMS)
    assert map_table.notna().all(axis=None)
    assert set(map_table["verdict"]) <= {"holds", "fails", "mixed"}
    assert len(Figure4Map.preset("paper").settings()) == 36
    assert len(Figure4Map.preset("quick").settings()) == 7


def test_outcome_supervision_on_delta_shares_its_work_over_eta() -> None:
    config = Figure4Map.preset("quick")
    works = config._works()
    assert len(works) == len(set(works))
    outcome = [w for w in works if w.work.stage == "outcome" and w.interference is None]
    assert {w.eta for w in outcome} == {0.2}


def test_figures_draw_from_table_and_configuration(table: pd.DataFrame, map_table: pd.DataFrame) -> None:
    figure = draw(table, Figure4.preset("smoke"))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert [title[:3] for title in titles] == [f"({letter})" for letter in "abcdefghi"]
    assert "d = 20 (scaled down" in figure.get_supxlabel()
    drawn = figure4_map.draw(map_table, Figure4Map.preset("smoke"))
    assert len(drawn.axes[0].texts) == 2 * len(map_table)
