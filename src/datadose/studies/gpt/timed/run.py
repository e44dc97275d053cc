"""Figure 3 with the paper's model within a wall-clock budget on one GPU: measure, forecast, cut, train, draw.

``python -m datadose.studies.gpt.timed --out OUT [--minutes 9]`` measures a few steps of every kind, prints
the forecast, cuts what does not fit (:mod:`~datadose.studies.gpt.timed.plan`), pretrains the model and
post-trains it, the runs of all B and seeds side by side. It writes what ``datadose reproduce fig3paper``
does, and ``fig3paper-timed.json``: times, verdicts, what was left out. No training is begun whose forecast
does not fit what is left, and none goes on after the end. What is finished is kept: a second call with the
same folder goes on with the same plan. ``--smoke`` is a run of seconds of a tiny GPT.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from datadose.cell_cache import CellCache
from datadose.configs import STAGES
from datadose.errors import InputError, RunError, reject, require_number
from datadose.files import prepare_folder, write_json
from datadose.printing import note
from datadose.reading import read_json
from datadose.studies.gpt.map_verdicts import verdicts
from datadose.studies.gpt.paper_model import PaperModel
from datadose.studies.gpt.paper_model_study import STUDY
from datadose.studies.gpt.paths import GptPath
from datadose.studies.gpt.runs import pretrain
from datadose.studies.gpt.timed.plan import (
    RUNGS,
    SMOKE,
    Rung,
    StepTimes,
    choose_rung,
    panels_seconds,
    path_seconds,
    pretraining_seconds,
    pretraining_steps,
)
from datadose.studies.gpt.timed.probes import measure
from datadose.studies.reproduce import draw_saved, write_results
from datadose.studies.study import Preset
from datadose.sweep import Cell
from datadose.versions import versions

WRITING = 10.0
"""Seconds kept for the table and the picture."""
_CHECKPOINTS = 4
"""So many while the GPT is pretrained: each takes a moment."""


class _TimeIsUpError(Exception):
    """Raised inside a training when the budget is spent; a checkpoint is kept where there are any."""


@dataclass
class _Clock:
    """Seconds since the start, and what is stopped by it."""

    seconds: float
    now: Callable[[], float] = time.monotonic
    begin: float = field(init=False)

    def __post_init__(self) -> None:
        self.begin = self.now()

    @property
    def left(self) -> float:
        """Seconds for training."""
        return self.seconds - WRITING - (self.now() - self.begin)

    def watch(self, step: int) -> None:
        """Ends a training after its step when none are left."""
        del step
        if self.left <= 0:
            raise _TimeIsUpError


@dataclass
class _Done:
    """What was measured, decided and left out, for the record."""

    preset: Preset
    times: StepTimes
    pretrain_steps: int
    rung: Rung | None
    left_out: list[str] = field(default_factory=list)

    def write(self, out: Path, seconds: float, found: Sequence[Any] = ()) -> None:
        """The record of the call; ``found`` are the verdicts."""
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        made = {"seconds": seconds, "device": device, "versions": versions(), "verdicts": list(found)}
        write_json(out / f"{STUDY.name}-timed.json", asdict(self) | made)


@dataclass(frozen=True)
class _Plan:
    """What later calls with the same folder keep to."""

    preset: Preset
    pretrain_steps: int
    rung: Rung | None


def run(
    out: Path, seconds: float, *, smoke: bool = False, now: Callable[[], float] = time.monotonic
) -> _Done:
    """Everything of the module's docstring into ``out``; returns what is in the record.

    Raises InputError for an ``out`` that cannot be written, or that holds a damaged plan.
    """
    clock = _Clock(seconds, now)
    prepare_folder("out", out)
    preset: Preset = "smoke" if smoke else "paper"
    config, plan = PaperModel.preset(preset), out / "plan.json"
    times = measure(config, out, now)
    _say(f"measured, in seconds: {times}")
    steps, rung = _kept_plan(plan, preset) or (pretraining_steps(config, times, seconds), None)
    done = _Done(preset, times, steps, rung)
    # What the model is made of is the same on every rung.
    cell = _rounds(config, out, done, rung or RUNGS[-1])[0][0]
    if cell.file is None or not cell.file.is_file():
        forecast = pretraining_seconds(config, times, steps)
        most = config.sizes[0].given[0].pretrain_steps
        _say(f"pretraining for {steps:,} of {most:,} steps: about {forecast:.0f} s")
        _keep_plan(plan, done)
        if not _pretrain(cell, steps, clock):
            _say("time is up while pretraining: call again with the same folder to go on")
            done.left_out.append("all post-training")
            done.write(out, seconds)
            return done
    done.rung = rung = rung or choose_rung(config, times, clock.left, SMOKE if smoke else RUNGS)
    chosen = rung.of(config, steps)
    _say(f"{clock.left:.0f} s left; {rung}: about {panels_seconds(chosen, times):.0f} s")
    _keep_plan(plan, done)
    results = _train(chosen, out, done, clock)
    write_results(STUDY, chosen, results, preset, out, " ".join(sys.argv))
    judged = verdicts(chosen.table(results), chosen)
    own = judged[judged["own"]].astype(object)
    found = own.where(own.notna(), None).to_dict("records")
    for row in found:
        value = "no number" if row["value"] is None else f"{row['value']:.3g}"
        _say(f"{row['variant']}, {row['claim']}: {row['verdict']} ({value})")
    done.write(out, seconds, found)
    if done.left_out:
        _say("no picture before all is there: call again with the same folder to go on")
    else:
        draw_saved(STUDY.name, out)
    return done


def _rounds(config: PaperModel, out: Path, done: _Done, rung: Rung) -> list[Sequence[Cell]]:
    """The cell that pretrains, and all others."""
    return [cells for _, cells in rung.of(config, done.pretrain_steps).rounds(out / ".cache")]


def _pretrain(cell: Cell, steps: int, clock: _Clock) -> bool:
    """Whether the model was finished in time."""
    if cell.file is None:
        raise AssertionError
    prepare_folder("out", cell.file.parent)
    every = max(1, steps // _CHECKPOINTS)
    try:
        pretrain(**cell.arguments, file=cell.file, checkpoint_every=every, watch=clock.watch)
    except _TimeIsUpError:
        return False
    return True


def _train(chosen: PaperModel, out: Path, done: _Done, clock: _Clock) -> list[Any]:
    """The results of all cells in their order, those that did not fit without a row."""
    cells = [*chosen.rounds(out / ".cache")][-1][1]
    cache = CellCache(out / ".cache")
    results: list[Any] = [[] for _ in cells]
    pace = 1.0
    for place in sorted(range(len(cells)), key=lambda i: _rank(cells[i], chosen)):
        cell = cells[place]
        path, file = cell.arguments.get("path"), cache.path(cell.function, cell.arguments)
        if kept := cache.read(file):
            results[place] = kept[0]
            continue
        forecast, name = 0.0, "the untouched model"
        watched: dict[str, Any] = {}
        if path is not None:
            runs = cell.arguments["runs"]
            forecast, watched = path_seconds(chosen, done.times, path, len(runs)), {"watch": clock.watch}
            name = _named(path, len(runs))
        begin, left = clock.now(), clock.left
        try:
            if pace * forecast > left:
                raise _TimeIsUpError
            results[place] = cache.write(file, cell.function(**cell.arguments, **watched))
        except _TimeIsUpError:
            done.left_out.append(name)
            _say(f"left out: {name}, about {pace * forecast:.0f} s of {max(0.0, left):.0f} s left")
            continue
        took = clock.now() - begin
        if path is not None:
            pace = max(1.0, took / forecast)
        _say(f"{name}: {took:.1f} s, forecast {forecast:.1f} s, {clock.left:.0f} s left")
    return results


def _rank(cell: Cell, config: PaperModel) -> tuple[int, bool]:
    """What comes first: the untouched model, then SFT, OS and RL, in each B before n and k."""
    path: GptPath | None = cell.arguments.get("path")
    if path is None:
        return -1, False
    base = (config.base_length, config.base_chain)
    return STAGES.index(path.stage), (path.length, path.chain_steps) != base


def _named(path: GptPath, runs: int) -> str:
    B = ", ".join(f"{number:,}" for number in path.prompts)
    return f"{path.stage} on {path.variant}, B = {B}, n = {path.length}, k = {path.chain_steps}, {runs} runs"


def _keep_plan(file: Path, done: _Done) -> None:
    write_json(file, asdict(_Plan(done.preset, done.pretrain_steps, done.rung)))


def _kept_plan(file: Path, preset: Preset) -> tuple[int, Rung | None] | None:
    """Steps of pretraining and rung of an earlier call with this preset, if there was one."""
    if not file.is_file():
        return None
    try:
        found = TypeAdapter(_Plan).validate_python(read_json(file))
    except ValidationError:
        reject(
            str(file),
            "another text",
            "the plan that an earlier call wrote; without the file a new one is made",
        )
    return (found.pretrain_steps, found.rung) if found.preset == preset else None


def _say(text: str) -> None:
    note(f"{STUDY.name}: {text}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m datadose.studies.gpt.timed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args(arguments)
    try:
        minutes = require_number("minutes", given.minutes, 0, math.inf, open_ends=True)
        run(given.out, 60 * minutes, smoke=given.smoke)
    except InputError as error:
        parser.error(str(error))
    except RunError as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: error: interrupted; call again with the same folder to go on\n")
