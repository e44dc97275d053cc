"""The map of Figure 3: paths that serve every number of steps, even draws, judges on hand-made tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from datadose.models.gpt import GptConfig, GptModel, save_gpt
from datadose.studies.gpt.map import Figure3Map
from datadose.studies.gpt.map_settings import STAGES, Column
from datadose.studies.gpt.map_study import STUDY
from datadose.studies.gpt.map_verdicts import errors_along, relative_paths, rises_with_prompts, verdicts
from datadose.studies.gpt.paths import GptPath, HeldOut, beginnings, follow_path, untouched_errors
from datadose.studies.gpt.runs import GptTask, draw_prompts
from helpers.studies import entry, write_result
from helpers.training_tables import Curve, against_the_paper, along_training, as_in_the_paper, flat

TASK = GptTask(5, 6, 2, 2, eta=0.5, test_prompts=70)
PATH = GptPath("sft", "delta", (8, 16), 4, 1, (1, 3), (4, 6), 1e-3, 8)

# --- paths ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpt") / "gpt.safetensors"
    save_gpt(path, GptModel(GptConfig(5, 1, 2, 8, 20), seed=0))
    return path


@pytest.mark.parametrize("stage", [*STAGES, "rl"])
def test_a_path_serves_every_number_of_steps_and_company_changes_nothing(stage: Any, model: Path) -> None:
    path = replace(PATH, stage=stage)
    runs = [[B, seed] for B in (8, 16) for seed in (0, 1)]
    rows = follow_path(model, TASK, path, runs)
    places = [tuple(row[:4]) for row in rows]
    assert places == [(B, s, T, n) for B in (8, 16) for s in (0, 1) for T in (1, 3) for n in (4, 6)]
    short = follow_path(model, TASK, replace(path, looks=(1,)), runs)
    assert short == [row for row in rows if row[2] == 1]
    alone = [row for run in runs for row in follow_path(model, TASK, path, [run])]
    np.testing.assert_allclose(np.array(alone), np.array(rows), rtol=1e-4)
    assert len({row[4] for row in rows}) == len(rows)
    before = untouched_errors(model, TASK, [4, 6], [0, 1])
    assert [row[:2] for row in before] == [[s, n] for n in (4, 6) for s in (0, 1)]
    assert before[0][2] != rows[0][4]


def test_errors_are_means_over_directions(model: Path) -> None:
    """d = 5 has one rare direction; the error on Sigma0 is that at the last length."""
    for _, _, error, rare, common, kept in untouched_errors(model, TASK, [4, 6], [0]):
        assert error == pytest.approx((rare + 4 * common) / 5)
        assert kept == untouched_errors(model, TASK, [6], [0])[0][-1]


def test_prompts_are_nested_and_the_tests_are_apart() -> None:
    few, many = (draw_prompts(TASK, "target", B, 6, 3) for B in (8, 16))
    assert torch.equal(few.weights, many.weights[:, :8])
    assert torch.equal(few.held_inputs(), many.held_inputs()[:, :8])
    short = beginnings(few, 4)
    assert (short.length, short.held_inputs().shape) == (4, (1, 8, 4, 5))
    assert torch.equal(short.held_inputs(), few.held_inputs()[:, :, :4])
    shown = HeldOut.of(TASK, (6,), [3])
    assert torch.equal(shown.target.weights, shown.sigma0.weights)
    assert not torch.isin(few.weights, shown.target.weights).any()


def test_a_lost_run_has_no_errors_from_there_on(model: Path) -> None:
    path = replace(PATH, stage="outcome", learning_rate=1e30, prompts=(8,))
    rows = follow_path(model, TASK, path, [[8, 0]])
    assert [row[4] is None for row in rows] == [True] * 4


# --- the draw -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["smoke", "quick", "paper"])
def test_levels_are_dealt_evenly_and_the_draw_is_fixed(preset: Any) -> None:
    config = Figure3Map.preset(preset)
    settings = config.settings()
    assert settings == Figure3Map.preset(preset).settings()
    assert [s for _, s in settings] != [s for _, s in replace(config, draw=1).settings()]
    for size in config.sizes:
        own = [s for one, s in settings if one == size]
        assert len(own) == size.settings
        for name in ("learning_rate", "variant", "pretrain_steps", "eta", "tied"):
            counts = Counter(getattr(s, name) for s in own)
            assert max(counts.values()) - min(counts.values()) <= 1
        met = Counter((s.learning_rate, s.variant) for s in own)
        assert max(met.values()) <= -(-size.settings // (len(size.rates) * 3)) + 1
    if preset == "paper":
        assert [(size.preset, size.settings) for size in config.sizes] == [("tiny", 24), ("small", 6)]
        assert max(path.looks[-1] for size, s in settings for path in config.paths(size, s)) == 1000


# --- judges ---------------------------------------------------------------------------------------------

CONFIG = replace(
    Figure3Map.preset("smoke"),
    sizes=(replace(Figure3Map.preset("smoke").sizes[0], settings=8),),
    seeds=3,
)


def table(curve: Curve, *, settings: int = 8, **options: Any) -> pd.DataFrame:
    return along_training(CONFIG, curve, settings=settings, **options)


def judged(claim: str, made: pd.DataFrame, folder: Path) -> dict[str, Any]:
    return entry(STUDY, f"fig3map-{claim}", write_result(folder, STUDY, made, CONFIG))


@pytest.mark.parametrize("claim", ["a", "b", "c", "d", "e", "f"])
def test_shares_are_judged_over_settings(claim: str, tmp_path: Path) -> None:
    held = judged(claim, table(as_in_the_paper), tmp_path)
    assert (held["verdict"], held["value"], held["seeds"]) == ("holds", 1.0, 8)
    assert held["interval"][0] > 0.5
    assert "data delta: " in held["note"]
    assert "after 2 steps: 8 of 8" in held["note"]
    lost = judged(claim, table(against_the_paper), tmp_path)
    assert (lost["verdict"], lost["value"]) == ("fails", 0.0)
    assert "fails in 8" in lost["note"]
    few = judged(claim, table(as_in_the_paper, settings=3), tmp_path)
    assert few["verdict"] == "mixed"


@pytest.mark.parametrize("claim", ["sft-helps", "outcome-helps"])
def test_help_is_judged_against_the_untouched_model(claim: str, tmp_path: Path) -> None:
    assert judged(claim, table(flat), tmp_path)["verdict"] == "holds"
    assert judged(claim, table(flat, before=0.7), tmp_path)["verdict"] == "fails"


def test_a_rise_at_the_best_time_refutes_stopping(tmp_path: Path) -> None:
    """The same rise late: with fewer steps gone, or there at every time that is not worse than the start."""
    late = judged("stopping", table(flat, late=as_in_the_paper), tmp_path)
    assert (late["verdict"], late["value"]) == ("holds", 1.0)
    assert "0 of 8 after 2, 8 of 8 after 4 steps" in late["note"]
    assert judged("stopping", table(as_in_the_paper), tmp_path)["verdict"] == "fails"
    none = judged("stopping", table(flat), tmp_path)
    assert (none["verdict"], none["value"]) == ("mixed", None)
    assert "nothing to judge" in none["note"]


# --- what the verdicts are read from ---------------------------------------------------------------------


def test_verdicts_have_both_versions_of_the_test_and_one_of_them_drawn() -> None:
    made = table(as_in_the_paper)
    found = verdicts(made, CONFIG)
    b = found[found["claim"] == "b"]
    assert Counter(b["test_tied"]) == {True: 16, False: 16}
    assert b["own"].sum() == 8
    assert (b.loc[b["own"], "test_tied"] == b.loc[b["own"], "tied"]).all()
    own = found[found["own"]].groupby("claim").size()
    assert own.to_dict() == dict.fromkeys([*"abcdef", "sft-helps", "outcome-helps"], 8)


def test_tied_tests_follow_the_training_length() -> None:
    made = table(flat, settings=1)
    moved = made["test_length"] == made["length"]
    made.loc[moved & (made["length"] == 8), "error"] = 0.1
    x, tied = errors_along(made, CONFIG, "sft", Column.LENGTH, 2, tied=True)
    _, fixed = errors_along(made, CONFIG, "sft", Column.LENGTH, 2)
    assert x.tolist() == [4, 6, 8]
    assert tied[:, 2] == pytest.approx(0.1)
    assert fixed[:, 2] == pytest.approx(0.8, rel=0.01)


def test_lost_runs_count_as_ten_times_the_worst() -> None:
    made = table(flat, settings=1)
    made.loc[(made["prompts"] == 32) & (made["seed"] == 0) & (made["stage"] == "sft"), "error"] = np.nan
    _, errors = errors_along(made, CONFIG, "sft", Column.PROMPTS, 2)
    assert errors[0, 2] == pytest.approx(10 * errors[1:].max(), rel=0.01)


def test_paths_over_training_start_at_one_and_best_times_are_told() -> None:
    made = table(flat, late=as_in_the_paper)
    [rise, *_] = rises_with_prompts(made, CONFIG, "sft")
    assert rise.after == {2: "fails", 4: "holds"}
    assert rise.best_steps[-1] == 2
    panels = sorted(made["panel"].unique())
    paths = relative_paths(made, CONFIG, "sft", panels)
    assert list(paths) == [8, 16, 32]
    steps, errors = paths[32]
    assert steps == [0, 2, 4]
    np.testing.assert_allclose(errors, [1.0, 0.8, 0.9], rtol=0.01)


@pytest.mark.long
def test_the_picture_has_a_tile_a_setting_and_claim() -> None:
    made = table(as_in_the_paper)
    assert STUDY.draw is not None
    figure = STUDY.draw(made, CONFIG)
    tiles = [axis for axis in figure.axes if len(axis.get_xticks()) == 8 and axis.texts]
    assert len(tiles[0].texts) == 2 * 8 * 8
