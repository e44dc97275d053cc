"""Figure 3: post-training a GPT-2 on in-context weight prediction, against B, n and chain length k.

The paper's protocol (section 8): pretrained on Sigma0 with teacher-forced chains and Garg's curriculum, then
a fixed number of SFT or OS steps at batch 64 on prompts of Delta, tested on Sigma0 + Delta. Not stated there,
and chosen here: eta = 0.5 (with 0.2 a model that follows its chain exactly keeps an error of 0.26 after three
thoughts), the grids, learning rates, d, n and the length of pretraining. How long the model was pretrained
decides what post-training can show, so every panel has at least two pretraining lengths and their untouched
models.

Controls (ours). The paper fixes the number of steps, so B moves nothing else; the twin over B fixes the
epochs instead ("epochs"). With n moving in post-training and test alike, the twin over n moves it in
post-training alone ("fixed-test"). Data other than Delta are compared in
:mod:`datadose.studies.gpt.data`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from datadose.configs import STAGES, Stage
from datadose.studies import trends
from datadose.studies.gpt.paths import GptPath, follow_seeds, path_of, seeds_at_once
from datadose.studies.gpt.runs import (
    COMMON,
    GPT,
    PRETRAINING,
    RARE,
    TARGET,
    GptPretraining,
    GptRun,
    GptTask,
    of,
    pretrained_cells,
    pretraining_round,
    run_gpt,
)
from datadose.studies.study import Preset
from datadose.studies.tables import PRETRAINED, TRAINED, as_table
from datadose.studies.trends import AXES, BASE_PANEL, MAIN, panel_letter
from datadose.sweep import Cell, Round

NAME = "fig3"


class Column(trends.Column):
    """The columns of ``fig3.csv``; the error is that on the target, over all directions."""

    PRETRAIN_STEPS = "pretrain_steps"
    PRETRAINING_ERROR = "pretraining_error"
    RARE_ERROR, COMMON_ERROR = "target_rare_error", "target_common_error"


CONTROLS = {Column.PROMPTS: "epochs", Column.LENGTH: "fixed-test"}
"""Axis -> its control; the number of thoughts has none."""


@dataclass(frozen=True)
class Point:
    """A place on a curve: the axis that moves, whether it is the control, the run, its test length."""

    axis: str
    control: bool
    pretrain_steps: int
    run: GptRun
    test_length: int


def _without_steps(run: GptRun) -> GptRun:
    return replace(run, steps=0)


@dataclass(frozen=True)
class Figure3:
    """Three stages (rows) by three axes (columns) for every pretraining length, curves with controls."""

    task: GptTask
    pretrainings: tuple[GptPretraining, ...]
    prompts: tuple[int, ...]
    lengths: tuple[int, ...]
    chains: tuple[int, ...]
    base_prompts: int
    base_chain: int
    stage_steps: tuple[int, int, int]
    """Optimiser steps of SFT, OS and RL."""
    learning_rate: float
    seeds: int
    batch: int = 64

    @classmethod
    def preset(cls, name: Preset) -> Figure3:
        """The configuration of a preset: a tiny, a small (d = 10) or the paper's model."""
        if name == "smoke":
            task = GptTask(5, 8, 2, 2, eta=0.5, test_prompts=64)
            pretrainings = tuple(GptPretraining("tiny", T, batch=16, warmup=5, every=5) for T in (10, 20))
            return cls(task, pretrainings, (8, 32), (4, 8), (1, 2), 16, 2, (3, 3, 3), 3e-5, 2, batch=16)
        if name == "quick":
            task = GptTask(5, 10, 3, 3, eta=0.5, test_prompts=128)
            pretrainings = tuple(
                GptPretraining("tiny", T, learning_rate=1e-3, every=40) for T in (1000, 2000)
            )
            return cls(
                task,
                pretrainings,
                prompts=(16, 128, 1024),
                lengths=(6, 8, 10),
                chains=(1, 2, 3),
                base_prompts=128,
                base_chain=3,
                stage_steps=(20, 20, 20),
                learning_rate=3e-5,
                seeds=3,
                batch=32,
            )
        if name == "small":
            return cls._small()
        task = GptTask(20, 40, 8, 3, eta=0.5, test_prompts=1024)
        pretrainings = tuple(
            GptPretraining("paper", T, 64, 3e-4, 2000, 5, 11, 2000, precision="bf16")
            for T in (50_000, 200_000)
        )
        return cls(
            task,
            pretrainings,
            prompts=(64, 256, 1024, 4096),
            lengths=(20, 30, 40),
            chains=(1, 2, 3, 5, 8),
            base_prompts=1024,
            base_chain=3,
            stage_steps=(100, 12_000, 12_000),
            learning_rate=1e-5,
            seeds=10,
        )

    @classmethod
    def _small(cls) -> Figure3:
        task = GptTask(10, 15, 5, 3, eta=0.5, test_prompts=256)
        pretrainings = tuple(
            GptPretraining("small", T, batch=32, learning_rate=1e-3, warmup=300, every=100)
            for T in (2000, 6000)
        )
        return cls(
            task,
            pretrainings,
            prompts=(16, 64, 256, 1024),
            lengths=(11, 13, 15),
            chains=(1, 3, 5),
            base_prompts=256,
            base_chain=3,
            stage_steps=(30, 30, 30),
            learning_rate=3e-5,
            seeds=3,
            batch=32,
        )

    def points(self) -> Iterator[Point]:
        """Every place, panel by panel, a control after its main curve."""
        places = {Column.PROMPTS: self.prompts, Column.LENGTH: self.lengths, Column.STEPS: self.chains}
        for pretraining, stage, axis in product(self.pretrainings, STAGES, AXES):
            for control in (False, True) if axis in CONTROLS else (False,):
                for x in places[axis]:
                    yield self._point(pretraining.steps, stage, axis, control, x)

    def _point(self, pretrain_steps: int, stage: Stage, axis: str, control: bool, x: int) -> Point:
        steps = self.stage_steps[STAGES.index(stage)]
        n = self.task.length
        B, k, length = self.base_prompts, self.base_chain, n
        if axis == Column.PROMPTS:
            B = x
            steps = max(1, round(steps * x / self.base_prompts)) if control else steps
        elif axis == Column.LENGTH:
            length = x
        else:
            k = x
        run = GptRun(stage, "delta", B, length, k, steps, self.learning_rate, self.batch)
        return Point(axis, control, pretrain_steps, run, x if axis == Column.LENGTH and not control else n)

    def rounds(self, folder: Path) -> Iterator[Round]:
        """The pretrained models, then the untouched ones measured and every training."""
        models = pretrained_cells(self.task, self.pretrainings, folder)
        yield pretraining_round(models.values())
        cells = [
            Cell(
                run_gpt,
                {"task": self.task, "seed": 0, "model": model.file, "run": self._untouched(n), "length": n},
            )
            for model in models.values()
            for n in self._test_lengths()
        ]
        for T, _, path in self._trainings():
            own = {"task": self.task, "model": models[T].file, "path": path}
            cells += [Cell(follow_seeds, {**own, "seeds": seeds}) for seeds in self._seeds_at_once(T)]
        yield "", cells

    def _untouched(self, length: int) -> GptRun:
        return GptRun("sft", "delta", 0, length, 1, 0, self.learning_rate)

    def _test_lengths(self) -> list[int]:
        return sorted({*self.lengths, self.task.length})

    def _trainings(self) -> list[tuple[int, GptRun, GptPath]]:
        """(pretraining, run without its steps, path), the longest first: one training serves all its points.

        Points share it whose runs differ in the number of steps alone, or in the length of their tests.
        """
        served: dict[tuple[int, GptRun], list[Point]] = {}
        for point in self.points():
            served.setdefault((point.pretrain_steps, _without_steps(point.run)), []).append(point)
        found = [
            (T, run, path_of(run, {p.run.steps for p in points}, {p.test_length for p in points}))
            for (T, run), points in served.items()
        ]
        return sorted(found, key=lambda training: -training[2].looks[-1])

    def _seeds_at_once(self, pretrain_steps: int) -> list[list[int]]:
        [pretraining] = (p for p in self.pretrainings if p.steps == pretrain_steps)
        return seeds_at_once(pretraining, self.seeds)

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a point and seed; before them the untouched models (no prompts, no seed)."""
        given = iter(results)
        rows = [
            {**self._row(BASE_PANEL, p.steps, self._untouched(n), next(given)), Column.VARIANT: BASE_PANEL}
            for p in self.pretrainings
            for n in self._test_lengths()
        ]
        measured = {
            (T, run, step, n, seed): found
            for T, run, _ in self._trainings()
            for _ in self._seeds_at_once(T)
            for seed, step, n, found in next(given)
        }
        for point in self.points():
            letter = panel_letter(point.run.stage, point.axis)
            variant = CONTROLS[point.axis] if point.control else MAIN
            panel = f"{letter}-{variant}" if point.control else letter
            own = {Column.AXIS: point.axis, Column.VARIANT: variant}
            T, run = point.pretrain_steps, point.run
            for seed in range(self.seeds):
                found = measured[T, _without_steps(run), run.steps, point.test_length, seed]
                row = self._row(panel, T, run, found)
                rows.append({**row, **own, Column.SEED: seed})
        return as_table(rows, Column)

    @staticmethod
    def _row(panel: str, pretrain_steps: int, run: GptRun, found: dict[str, float | None]) -> dict[str, Any]:
        return {
            Column.FIGURE: NAME,
            Column.PANEL: panel,
            Column.MODEL: GPT,
            Column.STAGE: run.stage,
            Column.PROMPTS: run.prompts,
            Column.LENGTH: run.length,
            Column.STEPS: run.chain_steps,
            Column.INTERFERENCE: 0.0,
            Column.ESTIMATOR: TRAINED if run.prompts else PRETRAINED,
            Column.OPTIMISER_STEPS: run.steps if run.prompts else 0,
            Column.PRETRAIN_STEPS: pretrain_steps,
            Column.ERROR: found.get(TARGET),
            Column.DIVERGED: int(found.get(TARGET) is None),
            Column.PRETRAINING_ERROR: found.get(PRETRAINING),
            Column.RARE_ERROR: found.get(of(TARGET, RARE)),
            Column.COMMON_ERROR: found.get(of(TARGET, COMMON)),
        }
