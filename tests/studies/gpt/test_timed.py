"""Figure 3 within a budget: forecasts and cuts by their rules, a whole run of seconds, and its resumption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from datadose.models.gpt import load_gpt
from datadose.studies.gpt import timed
from datadose.studies.gpt.paths import GptPath
from datadose.studies.gpt.timed_plan import (
    MARGIN,
    RUNGS,
    Rung,
    StepTimes,
    TimedFigure3,
    choose_rung,
    path_seconds,
    pretraining_seconds,
    pretraining_steps,
    rung_seconds,
)

PAPER = TimedFigure3.preset()
TIMES = StepTimes(0.004, 0.7, {"sft": 0.004, "outcome": 0.006}, {"sft": 0.003, "outcome": 0.003}, 2.0, 0.02)

# --- the plan -------------------------------------------------------------------------------------------


def test_a_paths_forecast_is_its_steps_setup_and_looks() -> None:
    """Two chunks of 40 and 20 runs at the base n and k; looks at one length are two kinds of prompts."""
    path = GptPath("sft", "delta", (64, 256), 40, 3, (10, 100), (40,), 1e-4, 64, "bf16")
    expected = sum(2.0 + 100 * (0.004 + R * 0.003) + 2 * R * 0.02 for R in (40, 20))
    assert path_seconds(PAPER, TIMES, path, 30) == pytest.approx(MARGIN * expected)
    shorter = replace(path, length=20)
    assert path_seconds(PAPER, TIMES, shorter, 30) < path_seconds(PAPER, TIMES, path, 30)
    longer = replace(path, stage="rl", chain_steps=8)
    assert path_seconds(PAPER, TIMES, longer, 30) > path_seconds(PAPER, TIMES, replace(path, stage="rl"), 30)


def test_every_rung_takes_less_than_the_one_before() -> None:
    taken = [rung_seconds(PAPER, TIMES, rung) for rung in RUNGS]
    assert taken == sorted(taken, reverse=True)
    assert len(set(taken)) == len(taken)


@pytest.mark.parametrize("left", [0.0, 60.0, 150.0, 300.0, 1000.0, 1e9])
def test_the_first_rung_that_fits_is_chosen(left: float) -> None:
    chosen = choose_rung(PAPER, TIMES, left)
    fit = [rung for rung in RUNGS if rung_seconds(PAPER, TIMES, rung) <= left]
    assert chosen == (fit[0] if fit else RUNGS[-1])


def test_pretraining_is_cut_to_its_share() -> None:
    share = PAPER.seconds * PAPER.pretraining_share
    assert pretraining_steps(PAPER, replace(TIMES, pretrain=1e-4)) == PAPER.pretraining.steps
    cut = pretraining_steps(PAPER, replace(TIMES, pretrain=0.02))
    assert cut < PAPER.pretraining.steps
    slow = replace(TIMES, pretrain=0.02)
    assert pretraining_seconds(PAPER, slow, cut) <= share < pretraining_seconds(PAPER, slow, cut + 1)
    assert pretraining_steps(PAPER, replace(TIMES, pretrain=10.0)) == PAPER.pretraining.steps // 10


def test_the_plan_has_every_place_and_the_issues_sizes() -> None:
    """d = 20, n up to 40, k up to 8, batches of 64, 100 steps of SFT; OS and RL as long as the rung says."""
    task = PAPER.task
    assert (task.dimension, task.length, task.chain_steps, PAPER.grid.batch) == (20, 40, 8, 64)
    rung = Rung(3, 1000, 300, 100)
    paths = list(PAPER.paths(rung, 5))
    ends = {(p.stage, p.length == 40 and p.chain_steps == 3): p.looks[-1] for _, p in paths}
    assert ends == {
        ("sft", True): 100,
        ("sft", False): 100,
        ("outcome", True): 1000,
        ("outcome", False): 100,
        ("rl", True): 300,
        ("rl", False): 100,
    }
    assert len(paths) == 3 * 2 * 5
    assert [p.stage for _, p in paths] == ["sft"] * 10 + ["outcome"] * 10 + ["rl"] * 10
    assert {p.precision for _, p in paths} == {"bf16"}
    assert {p.variant for _, p in paths} == {"delta", "target"}
    without = list(PAPER.paths(replace(rung, rl_steps=0), 5))
    assert {p.stage for _, p in without} == {"sft", "outcome"}
    # A batch is a whole one: no shape but that of the path.
    assert all(B % PAPER.grid.batch == 0 for B in PAPER.grid.prompts)


# --- a whole run ----------------------------------------------------------------------------------------


def small() -> TimedFigure3:
    """The smoke configuration with fewer places and one kind of data."""
    smoke = TimedFigure3.preset(smoke=True)
    grid = replace(smoke.grid, prompts=(8, 16), lengths=(6, 8), chains=(1, 2), test_prompts=4)
    rungs = (Rung(2, 4, 2, 2), Rung(2, 2, 0, 2))
    return replace(smoke, grid=grid, variants=("delta",), rungs=rungs, seconds=1000.0)


class Ticks:
    """A clock that moves a little whenever it is read, and far at a given reading."""

    def __init__(self, jump_at: int | None = None) -> None:
        self.reads, self.jump_at = 0, jump_at

    def __call__(self) -> float:
        self.reads += 1
        jumped = self.jump_at is not None and self.reads >= self.jump_at
        return 1e-4 * self.reads + (1e6 if jumped else 0.0)


def _table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / f"{timed.NAME}.csv")


def _record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{timed.NAME}.json").read_text())
    return found


@pytest.fixture(scope="module", autouse=True)
def _short_probes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timed, "_LAST", 6)
        patch.setattr(timed, "_PROBED_RUNS", 2)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder of an undisturbed run, and how often it read the clock."""
    out, clock = tmp_path_factory.mktemp("timed"), Ticks()
    timed.run(small(), out, clock)
    return out, clock.reads


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the picture, which takes as long as the training."""
    monkeypatch.setattr(timed, "save", lambda *given: None)
    monkeypatch.setattr(timed, "draw", lambda *given: None)


@pytest.mark.long
def test_a_whole_run_measures_trains_judges_and_draws(whole: tuple[Path, int]) -> None:
    out, _ = whole
    table, record = _table(out), _record(out)
    assert record["left_out"] == []
    assert record["rung"] == {"seeds": 2, "outcome_steps": 4, "rl_steps": 2, "moved_steps": 2}
    trained = table[table["optimiser_steps"] > 0]
    assert sorted(trained["stage"].unique()) == ["outcome", "rl", "sft"]
    assert sorted(trained["seed"].unique()) == [0, 1]
    places = trained.groupby("stage")[["prompts", "length", "steps"]].nunique()
    assert (places == 2).all().all()
    assert len(table[table["optimiser_steps"] == 0]) == 2 * 2
    claims = {row["claim"] for row in record["verdicts"]}
    assert claims == {"a", "b", "c", "d", "e", "f", "sft-helps", "outcome-helps"}
    assert (out / f"{timed.NAME}.png").stat().st_size > 10_000
    assert not list(out.rglob("*.checkpoint"))


@pytest.mark.long
@pytest.mark.usefixtures("undrawn")
def test_a_run_that_is_cut_says_so_and_a_second_call_ends_as_if_it_had_not_been(
    whole: tuple[Path, int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected, reads = whole
    timed.run(small(), tmp_path, Ticks(jump_at=int(0.7 * reads)))
    cut = _record(tmp_path)["left_out"]
    assert cut
    assert "left out" in capfd.readouterr().err
    done = _table(tmp_path)
    assert 0 < len(done) < len(_table(expected))
    timed.run(small(), tmp_path, Ticks())
    assert _record(tmp_path)["left_out"] == []
    pd.testing.assert_frame_equal(_table(tmp_path), _table(expected))


@pytest.mark.long
@pytest.mark.usefixtures("undrawn")
def test_time_that_is_up_while_pretraining_costs_nothing(whole: tuple[Path, int], tmp_path: Path) -> None:
    """The first call ends with a checkpoint, the second one's model is the undisturbed run's bit for bit."""
    probes = 2 * 3 + 4 * 4
    timed.run(small(), tmp_path, Ticks(jump_at=1 + probes + 2 + 7))
    (checkpoint,) = tmp_path.rglob("*.checkpoint")
    assert not (tmp_path / f"{timed.NAME}.csv").exists()
    assert _record(tmp_path)["left_out"] == ["all post-training"]
    timed.run(small(), tmp_path, Ticks())
    assert not checkpoint.exists()
    models = [load_gpt(next(out.glob("pretrained/*.safetensors"))) for out in (whole[0], tmp_path)]
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    pd.testing.assert_frame_equal(_table(tmp_path), _table(whole[0]))
