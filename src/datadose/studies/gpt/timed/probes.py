"""How long steps take on this machine: a few of every kind, by the code that trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from datadose.configs import Stage
from datadose.models.gpt import GptConfig, GptModel, save_gpt
from datadose.stages.config import PretrainConfig
from datadose.stages.pretrain import pretrain_on_chains
from datadose.studies.gpt.paper_model import PaperModel
from datadose.studies.gpt.paths import GptPath, follow_path
from datadose.studies.gpt.runs import GptTask, Watch, best_device
from datadose.studies.gpt.timed.plan import StepTimes

_FIRST, _LAST = 4, 16
"""Steps between which the time is taken: the first one warms up, the second one is recorded."""
_RUNS = 8
"""Trained side by side in the second probe of a stage."""


def measure(config: PaperModel, folder: Path, now: Callable[[], float]) -> StepTimes:
    """The times of steps of pretraining, and of SFT and OS with one run and with several.

    ``folder`` takes a file for the while; ``now`` is a clock in seconds.
    """
    # The first probe also starts the device and loads its libraries.
    shape, pretrain = [_probe_pretraining(config, now) for _ in range(2)][-1]
    file = folder / "probe.safetensors"
    save_gpt(file, _model(config))
    fixed: dict[str, float] = {}
    per_run: dict[str, float] = {}
    setups, looks = [], []
    stages: tuple[Stage, ...] = ("sft", "outcome")
    for stage in stages:
        _, one, _ = _probe(config, file, stage, 1, now)
        setup, several, look = _probe(config, file, stage, _RUNS, now)
        per_run[stage] = max(several - one, 0.02 * several) / (_RUNS - 1)
        fixed[stage] = max(one - per_run[stage], 0.0)
        setups.append(setup)
        looks.append(look / _RUNS)
    file.unlink()
    return StepTimes(pretrain, shape, fixed, per_run, max(setups), max(looks))


def _task(config: PaperModel) -> GptTask:
    return config.task(config.sizes[0].given[0].eta)


def _model(config: PaperModel) -> GptModel:
    task = _task(config)
    sizes = GptConfig.preset(config.sizes[0].preset, task.dimension, task.length, task.chain_steps)
    return GptModel(sizes, seed=0)


def _timer(now: Callable[[], float]) -> tuple[Watch, dict[int, float]]:
    """A watch that takes the time at the two ends of a probe, when the device has done its steps."""
    marks: dict[int, float] = {}

    def watch(step: int) -> None:
        if step in (_FIRST, _LAST):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks[step] = now()

    return watch, marks


def _taken(begin: float, marks: dict[int, float]) -> tuple[float, float]:
    """Seconds before steps repeat, and of a step."""
    step = (marks[_LAST] - marks[_FIRST]) / (_LAST - _FIRST)
    return max(marks[_FIRST] - begin - _FIRST * step, 0.0), step


def _probe_pretraining(config: PaperModel, now: Callable[[], float]) -> tuple[float, float]:
    """Seconds before steps repeat, and of a step, at full dimension and length."""
    task, size = _task(config), config.sizes[0]
    how = PretrainConfig(
        length=task.length,
        method="train",
        steps=_LAST,
        batch=size.batch,
        learning_rate=1e-6,
        optimiser=size.optimiser,
        eta=task.eta,
        chain_steps=task.chain_steps,
        precision=size.precision,
    )
    model, (watch, marks) = _model(config).to(best_device()), _timer(now)
    begin = now()
    pretrain_on_chains(model, task.sigma0, how, seed=1, progress=lambda step, _: watch(step))
    return _taken(begin, marks)


def _probe(
    config: PaperModel, file: Path, stage: Stage, runs: int, now: Callable[[], float]
) -> tuple[float, float, float]:
    """Seconds before steps repeat, of a step, and of measuring all runs once."""
    n, k, batch = config.base_length, config.base_chain, config.batch
    path = GptPath(stage, "delta", (batch,), n, k, (_LAST,), (n,), 1e-6, batch, config.sizes[0].precision)
    watch, marks = _timer(now)
    begin = now()
    follow_path(file, _task(config), path, [[batch, seed] for seed in range(runs)], watch)
    end = now()
    return *_taken(begin, marks), end - marks[_LAST]
