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

from datadose.errors import RunError
from datadose.models.gpt import load_gpt
from datadose.studies.gpt.paper_model import PaperModel
from datadose.studies.gpt.paths import GptPath
from datadose.studies.gpt.timed import probes
from datadose.studies.gpt.timed import run as timed
from datadose.studies.gpt.timed.plan import (
    MARGIN,
    PRETRAINING_SHARE,
    RUNGS,
    Rung,
    StepTimes,
    choose_rung,
    panels_seconds,
    path_seconds,
    pretraining_seconds,
    pretraining_steps,
)

PAPER = PaperModel.preset("paper")
TIMES = StepTimes(0.004, 0.7, {"sft": 0.004, "outcome": 0.006}, {"sft": 0.003, "outcome": 0.003}, 2.0, 0.02)

# --- the plan -------------------------------------------------------------------------------------------


def test_a_paths_forecast_is_its_steps_setup_and_looks() -> None:
    """At the base n and k; looks at one length are two kinds of prompts, at two lengths three."""
    path = GptPath("sft", "delta", (64, 512), 30, 3, (10, 100), (30,), 1e-4, 64, "bf16")
    expected = 2.0 + 100 * (0.004 + 20 * 0.003) + 2 * 20 * 0.02
    assert path_seconds(PAPER, TIMES, path, 20) == pytest.approx(MARGIN * expected)
    two = replace(path, test_lengths=(20, 30))
    assert path_seconds(PAPER, TIMES, two, 20) == pytest.approx(MARGIN * (expected + 20 * 0.02))
    assert path_seconds(PAPER, TIMES, replace(path, length=20), 20) < MARGIN * expected
    rl = replace(path, stage="rl")
    assert path_seconds(PAPER, TIMES, rl, 20) == pytest.approx(MARGIN * (expected + 100 * 0.002))
    assert path_seconds(PAPER, TIMES, replace(rl, chain_steps=8), 20) > path_seconds(PAPER, TIMES, rl, 20)


def test_every_rung_takes_less_than_the_one_before() -> None:
    taken = [panels_seconds(rung.of(PAPER, 20_000), TIMES) for rung in RUNGS]
    assert taken == sorted(taken, reverse=True)
    assert len(set(taken)) == len(taken)


@pytest.mark.parametrize("left", [0.0, 60.0, 150.0, 300.0, 1000.0, 1e9])
def test_the_first_rung_that_fits_is_chosen(left: float) -> None:
    chosen = choose_rung(PAPER, TIMES, left)
    fit = [rung for rung in RUNGS if panels_seconds(rung.of(PAPER, 20_000), TIMES) <= left]
    assert chosen == (fit[0] if fit else RUNGS[-1])


def test_pretraining_is_cut_to_its_share() -> None:
    most, share = 20_000, 540 * PRETRAINING_SHARE
    assert pretraining_steps(PAPER, replace(TIMES, pretrain=1e-4), 540) == most
    slow = replace(TIMES, pretrain=0.02)
    cut = pretraining_steps(PAPER, slow, 540)
    assert cut < most
    assert pretraining_seconds(PAPER, slow, cut) <= share < pretraining_seconds(PAPER, slow, cut + 1)
    assert pretraining_steps(PAPER, replace(TIMES, pretrain=10.0), 540) == most // 10
    assert pretraining_steps(PaperModel.preset("smoke"), TIMES, 0.1) == 1


def test_a_rung_is_the_papers_preset_cut() -> None:
    """d = 20, n up to 40, chains of 8, batches of 64, 100 steps of SFT stay; all start from one model."""
    rung = Rung(4, 1000, 300, 100)
    config = rung.of(PAPER, 10_000)
    task = config.task(0.5)
    assert (task.dimension, task.length, task.chain_steps, config.batch) == (20, 40, 8, 64)
    assert (config.seeds, config.stages) == (4, ("sft", "outcome", "rl"))
    base = (config.base_length, config.base_chain)
    [size] = config.sizes
    assert (size.precision, size.side_by_side, size.every) == ("bf16", 12, 250)
    ends = {
        (path.stage, (path.length, path.chain_steps) == base): path.looks[-1]
        for one, setting in config.settings()
        for path in config.paths(one, setting)
    }
    assert ends == {
        ("sft", True): 100,
        ("sft", False): 100,
        ("outcome", True): 1000,
        ("outcome", False): 100,
        ("rl", True): 300,
    }
    assert replace(rung, rl_steps=0).of(PAPER, 10_000).stages == ("sft", "outcome")
    assert config._models() == RUNGS[-1].of(PAPER, 10_000)._models()


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_a_budget_that_is_no_time_is_bad_input(
    minutes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        timed.main(["--smoke", "--out", str(tmp_path / "out"), "--minutes", minutes])
    assert stop.value.code == 2
    assert f"minutes: got {float(minutes)}; allowed: a number in (0, inf)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_a_file_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(SystemExit) as stop:
        timed.main(["--smoke", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "out: got" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"preset": "smoke", "pretrain_steps": 4, "rung": {"seeds": 2}}']
)
def test_a_damaged_plan_is_bad_input(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        timed.main(["--out", str(tmp_path), "--smoke"])
    assert stopped.value.code == 2
    assert f"{tmp_path / 'plan.json'}: got" in capsys.readouterr().err


@pytest.mark.parametrize(("reason", "code"), [(RunError("disk full"), 1), (KeyboardInterrupt(), 130)])
def test_a_run_that_stops_says_so_in_a_line(
    reason: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise reason

    monkeypatch.setattr(timed, "run", stop)
    with pytest.raises(SystemExit) as found:
        timed.main(["--out", "out"])
    assert found.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


# --- a whole run ----------------------------------------------------------------------------------------


class Ticks:
    """A clock that moves a little whenever it is read, and far at a given reading."""

    def __init__(self, jump_at: int | None = None) -> None:
        self.reads, self.jump_at = 0, jump_at

    def __call__(self) -> float:
        self.reads += 1
        jumped = self.jump_at is not None and self.reads >= self.jump_at
        return 1e-4 * self.reads + (1e6 if jumped else 0.0)


def call(out: Path, clock: Ticks) -> dict[str, Any]:
    """A smoke run on this clock, and its record."""
    timed.run(out, 1000.0, smoke=True, now=clock)
    found: dict[str, Any] = json.loads((out / "fig3paper-timed.json").read_text())
    return found


def table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "fig3paper.csv")


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Short probes, fewer places, and no picture: a third of the time."""
    smoke = PaperModel.preset("smoke")
    few = replace(smoke, prompts=(8, 16), lengths=(4, 6), chains=(1, 2), rl_prompts=(16,), test_prompts=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "_LAST", 6)
        patch.setattr(probes, "_RUNS", 2)
        patch.setattr(PaperModel, "preset", lambda name: few if name == "smoke" else PAPER)
        patch.setattr(timed, "draw_saved", lambda name, out: (out / f"{name}.drawn").touch())
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder of an undisturbed run, and how often it read the clock."""
    out, clock = tmp_path_factory.mktemp("timed"), Ticks()
    call(out, clock)
    return out, clock.reads


@pytest.mark.long
def test_a_whole_run_measures_trains_and_judges(whole: tuple[Path, int]) -> None:
    out, _ = whole
    found, record = table(out), json.loads((out / "fig3paper-timed.json").read_text())
    assert record["left_out"] == []
    assert record["rung"] == {"seeds": 2, "outcome_steps": 4, "rl_steps": 2, "moved_steps": 2}
    assert record["pretrain_steps"] == 6
    trained = found[found["optimiser_steps"] > 0]
    assert sorted(trained["stage"].unique()) == ["outcome", "rl", "sft"]
    assert sorted(trained["seed"].unique()) == [0, 1]
    assert sorted(trained["variant"].unique()) == ["delta", "target"]
    assert trained["error"].notna().all()
    claims = {row["claim"] for row in record["verdicts"]}
    assert claims == {*"abcdef", "d-rl", "sft-helps", "outcome-helps", "rl-helps"}
    assert (out / "fig3paper.drawn").exists()
    assert not list(out.rglob("*.checkpoint"))


@pytest.mark.long
def test_a_run_that_is_cut_says_so_and_a_second_call_ends_as_if_it_had_not_been(
    whole: tuple[Path, int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected, reads = whole
    cut = call(tmp_path, Ticks(jump_at=int(0.7 * reads)))["left_out"]
    assert cut
    assert f"left out: {cut[0]}" in capfd.readouterr().err
    assert 0 < len(table(tmp_path)) < len(table(expected))
    assert not (tmp_path / "fig3paper.drawn").exists()
    assert call(tmp_path, Ticks())["left_out"] == []
    pd.testing.assert_frame_equal(table(tmp_path), table(expected))


@pytest.mark.long
def test_time_that_is_up_while_pretraining_costs_nothing(whole: tuple[Path, int], tmp_path: Path) -> None:
    """The first call ends with a checkpoint, the second one's model is the undisturbed run's bit for bit."""
    measured = Ticks()
    probes.measure(PaperModel.preset("smoke"), tmp_path, measured)
    # One reading when the clock starts, and one a step.
    record = call(tmp_path, Ticks(jump_at=measured.reads + 1 + 4))
    assert record["left_out"] == ["all post-training"]
    (checkpoint,) = tmp_path.rglob("*.checkpoint")
    assert not (tmp_path / "fig3paper.csv").exists()
    call(tmp_path, Ticks())
    assert not checkpoint.exists()
    models = [load_gpt(next(out.rglob("pretrained/*.safetensors"))) for out in (whole[0], tmp_path)]
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    pd.testing.assert_frame_equal(table(tmp_path), table(whole[0]))
