"""Figure 3 at the paper's size within a wall-clock budget, on one GPU: measure, forecast, cut, train, draw.

``python -m datadose.studies.gpt.timed --out OUT [--minutes 9]`` measures a few steps of every kind, prints
the forecast, cuts what does not fit (:mod:`~datadose.studies.gpt.timed_plan`), pretrains one GPT and
post-trains it on every kind of data, with the runs of all B and seeds side by side. It writes
``fig3timed.csv``, ``.json`` (verdicts, times, what was left out) and the picture. No training is begun whose
forecast does not fit what is left, and none goes on after the end. What is finished is kept: a second call
with the same folder goes on with the same plan. ``--smoke`` is a run of seconds of a tiny GPT.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import TypeAdapter

from datadose.cell_cache import CellCache
from datadose.configs import Stage
from datadose.drawing.style import save
from datadose.files import prepare_folder, write_json, write_recorded_table
from datadose.models.gpt import GptConfig, GptModel, save_gpt
from datadose.printing import note
from datadose.reading import read_json
from datadose.stages.pretrain import pretrain_on_chains
from datadose.studies.gpt.map import map_table, setting_rows
from datadose.studies.gpt.map_verdicts import verdicts
from datadose.studies.gpt.paths import GptPath, follow_path, untouched_errors
from datadose.studies.gpt.runs import Watch, best_device, pretrain, pretrained_cells
from datadose.studies.gpt.timed_figure import draw
from datadose.studies.gpt.timed_plan import (
    Rung,
    StepTimes,
    TimedFigure3,
    choose_rung,
    path_seconds,
    pretraining_seconds,
    pretraining_steps,
    rung_seconds,
)
from datadose.versions import versions

NAME = "fig3timed"
_FIRST, _LAST = 4, 16
"""Steps between which a probe's time is taken: the first one warms up, the second one is recorded."""
_PROBED_RUNS = 8
_WRITING = 10.0
"""Seconds kept for the table and the picture."""
_CHECKPOINTS = 10
"""So many while the GPT is pretrained: each takes a moment."""


class _TimeIsUpError(Exception):
    """Raised inside a training when the budget is spent; a checkpoint is kept where there are any."""


@dataclass
class _Clock:
    """Seconds since the start, and what may be stopped by it."""

    seconds: float
    now: Callable[[], float] = time.monotonic
    begin: float = field(init=False)

    def __post_init__(self) -> None:
        self.begin = self.now()

    @property
    def left(self) -> float:
        """Seconds for training."""
        return self.seconds - _WRITING - (self.now() - self.begin)

    def watch(self, step: int) -> None:
        """Ends a training after its step when none are left."""
        del step
        if self.left <= 0:
            raise _TimeIsUpError


@dataclass
class _Progress:
    """What was decided and done, for the record."""

    times: StepTimes
    pretrain_steps: int
    rung: Rung | None = None
    left_out: list[str] = field(default_factory=list)


def measure(config: TimedFigure3, folder: Path, now: Callable[[], float]) -> StepTimes:
    """The times of a few steps of pretraining, SFT and OS, the latter with one run and with several."""
    # The first probe also starts the device and loads its libraries.
    shape, steps = [_probe_pretraining(config, now) for _ in range(2)][-1]
    file = folder / "probe.safetensors"
    save_gpt(file, GptModel(_sizes(config), seed=0))
    fixed: dict[str, float] = {}
    per_run: dict[str, float] = {}
    setups, looks = [], []
    stages: tuple[Stage, ...] = ("sft", "outcome")
    for stage in stages:
        found = {runs: _probe(config, file, stage, runs, now) for runs in (1, _PROBED_RUNS)}
        (_, one, _), (setup, several, look) = found.values()
        per_run[stage] = max(several - one, 0.02 * several) / (_PROBED_RUNS - 1)
        fixed[stage] = max(one - per_run[stage], 0.0)
        setups.append(setup)
        looks.append(look / _PROBED_RUNS)
    file.unlink()
    return StepTimes(steps, shape, fixed, per_run, max(setups), max(looks))


def _sizes(config: TimedFigure3) -> GptConfig:
    task = config.task
    return GptConfig.preset(config.pretraining.preset, task.dimension, task.length, task.chain_steps)


def _timer(now: Callable[[], float]) -> tuple[Watch, dict[int, float]]:
    """A watch that takes the time at the two ends of a probe, when the device has done its steps."""
    marks: dict[int, float] = {}

    def watch(step: int) -> None:
        if step in (_FIRST, _LAST):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks[step] = now()

    return watch, marks


def _probe_pretraining(config: TimedFigure3, now: Callable[[], float]) -> tuple[float, float]:
    """Seconds before steps repeat, and of a step, at full dimension and length."""
    task = config.task
    watch, marks = _timer(now)
    how = config.pretraining.config(task.length, task.chain_steps, task.eta)
    how = how.model_copy(update={"steps": _LAST, "curriculum": None})
    model = GptModel(_sizes(config), seed=0).to(best_device())
    begin = now()
    pretrain_on_chains(model, task.sigma0, how, seed=1, progress=lambda step, _: watch(step))
    step = (marks[_LAST] - marks[_FIRST]) / (_LAST - _FIRST)
    return max(marks[_FIRST] - begin - _FIRST * step, 0.0), step


def _probe(
    config: TimedFigure3, file: Path, stage: Stage, runs: int, now: Callable[[], float]
) -> tuple[float, float, float]:
    """Seconds before steps repeat, of a step, and of measuring all runs once."""
    grid = config.grid
    n, k = grid.base_length, grid.base_chain
    path = GptPath(stage, "delta", (grid.batch,), n, k, (_LAST,), (n,), 1e-6, grid.batch, config.precision)
    watch, marks = _timer(now)
    begin = now()
    follow_path(file, config.task, path, list(range(runs)), runs, watch)
    step = (marks[_LAST] - marks[_FIRST]) / (_LAST - _FIRST)
    return max(marks[_FIRST] - begin - _FIRST * step, 0.0), step, now() - marks[_LAST]


def run(config: TimedFigure3, out: Path, now: Callable[[], float] = time.monotonic) -> Path:
    """Everything of the module's docstring into ``out``; returns the table's file.

    Raises InputError for an ``out`` that cannot be written.
    """
    clock = _Clock(config.seconds, now)
    prepare_folder("out", out)
    plan = out / "plan.json"
    done = _Progress(measure(config, out, now), 0)
    if kept := _kept_plan(plan, config):
        done.pretrain_steps, done.rung = kept
    else:
        done.pretrain_steps = pretraining_steps(config, done.times)
    _say(f"measured: {done.times}")
    cell = pretrained_cells(config.task, [_pretraining(config, done)], out)[done.pretrain_steps]
    model = cell.file
    if model is None:
        raise AssertionError
    if not model.is_file():
        most, forecast = (
            config.pretraining.steps,
            pretraining_seconds(config, done.times, done.pretrain_steps),
        )
        _say(f"pretraining for {done.pretrain_steps:,} of at most {most:,} steps: about {forecast:.0f} s")
        _keep_plan(plan, config, done)
        prepare_folder("out", model.parent)
        every = max(1, done.pretrain_steps // _CHECKPOINTS)
        try:
            pretrain(**cell.arguments, file=model, checkpoint_every=every, watch=clock.watch)
        except _TimeIsUpError:
            _say("time is up while pretraining: call again with the same folder to go on")
            write_json(out / f"{NAME}.json", _record(config, done) | {"left_out": ["all post-training"]})
            return plan
    if done.rung is None:
        done.rung = choose_rung(config, done.times, clock.left)
    _say(f"{clock.left:.0f} s left; {done.rung}: about {rung_seconds(config, done.times, done.rung):.0f} s")
    _keep_plan(plan, config, done)
    return _write(config, out, done, _train(config, out, model, done, done.rung, clock))


def _train(
    config: TimedFigure3, out: Path, model: Path, done: _Progress, rung: Rung, clock: _Clock
) -> pd.DataFrame:
    """Every training that fits, one after the other; the table of those that are finished."""
    cache, seeds = CellCache(out / ".cache"), list(range(rung.seeds))
    shared = {"model": model, "task": config.task, "seeds": seeds}

    def kept(function: Callable[..., Any], own: dict[str, Any], **beside: Any) -> Any:
        place = cache.path(function, shared | own)
        return (cache.read(place) or (cache.write(place, function(**shared, **own, **beside)),))[0]

    lengths = sorted({*config.grid.lengths, config.grid.base_length})
    before = kept(untouched_errors, {"lengths": lengths, "precision": config.precision})
    found: dict[int, list[tuple[GptPath, Any]]] = {}
    pace = 1.0
    for setting, path in config.paths(rung, done.pretrain_steps):
        own = {"path": path, "side_by_side": config.side_by_side}
        name = _named(path)
        forecast = path_seconds(config, done.times, path, rung.seeds)
        ready = bool(cache.read(cache.path(follow_path, shared | own)))
        if not ready and pace * forecast > clock.left:
            done.left_out.append(name)
            _say(f"left out: {name} takes about {pace * forecast:.0f} s of {max(0.0, clock.left):.0f} s left")
            continue
        begin = clock.now()
        try:
            rows = kept(follow_path, own, watch=clock.watch)
        except _TimeIsUpError:
            done.left_out.append(name)
            _say(f"left out: {name} was not done when time was up")
            continue
        if not ready:
            pace = max(1.0, (clock.now() - begin) / forecast)
            _say(f"{name}: {clock.now() - begin:.1f} s, forecast {forecast:.1f} s, {clock.left:.0f} s left")
        found.setdefault(setting.number, []).append((path, rows))
    settings = config.settings(rung, done.pretrain_steps)
    return map_table([row for s in settings for row in setting_rows(s, before, found.get(s.number, []))])


def _named(path: GptPath) -> str:
    sizes = f"B = {', '.join(map(str, path.prompts))}, n = {path.length}, k = {path.chain_steps}"
    return f"{path.stage} on {path.variant}, {sizes}"


def _write(config: TimedFigure3, out: Path, done: _Progress, table: pd.DataFrame) -> Path:
    record = _record(config, done)
    judged = verdicts(table, config.grid)
    record["verdicts"] = judged[judged["own"]].to_dict("records")
    for row in record["verdicts"]:
        value = "no number" if row["value"] is None else f"{row['value']:.3g}"
        _say(f"{row['variant']}, {row['claim']}: {row['verdict']} ({value}; {row['note']})")
    write_recorded_table(out, NAME, table, record)
    save(draw(table, config, done.pretrain_steps), out, NAME)
    return out / f"{NAME}.csv"


def _record(config: TimedFigure3, done: _Progress) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"config": asdict(config), "device": device, "versions": versions(), **asdict(done)}


def _pretraining(config: TimedFigure3, done: _Progress) -> Any:
    """The GPT's pretraining at the steps that fit, its warm-up and curriculum in proportion."""
    most, steps = config.pretraining, done.pretrain_steps
    share = steps / most.steps
    scaled = {name: max(1, round(getattr(most, name) * share)) for name in ("warmup", "every")}
    return type(most)(**{**asdict(most), **scaled, "steps": steps})


def _keep_plan(file: Path, config: TimedFigure3, done: _Progress) -> None:
    rung = None if done.rung is None else asdict(done.rung)
    # The budget is each call's own.
    config_ = {name: value for name, value in asdict(config).items() if name != "seconds"}
    write_json(file, {"config": config_, "pretrain_steps": done.pretrain_steps, "rung": rung})


def _kept_plan(file: Path, config: TimedFigure3) -> tuple[int, Rung | None] | None:
    """Steps of pretraining and rung of an earlier call with this configuration, if there was one."""
    if not file.is_file():
        return None
    found: Any = read_json(file)
    wanted = TypeAdapter(dict[str, Any]).dump_python(asdict(config), mode="json")
    del wanted["seconds"]
    if found.get("config") != wanted:
        return None
    return int(found["pretrain_steps"]), Rung(**found["rung"]) if found["rung"] else None


def _say(text: str) -> None:
    note(f"{NAME}: {text}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args(arguments)
    print(run(TimedFigure3.preset(smoke=given.smoke, seconds=60 * given.minutes), given.out))


if __name__ == "__main__":
    main()
