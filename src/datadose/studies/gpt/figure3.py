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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from datadose.configs import STAGES, Stage
from datadose.studies.gpt.runs import Pretraining, Task, Work, pretrain_all, pretrained_file, run_gpt
from datadose.studies.study import Preset
from datadose.studies.tables import COLUMNS, as_table
from datadose.studies.trends import AXES, BASE_PANEL, panel_letter
from datadose.sweep import Cell, Workers

CONTROLS = {"prompts": "epochs", "length": "fixed-test"}
"""Axis -> its control; the number of thoughts has none."""
MEASURES = ("target", "pretraining", "target_rare", "target_common")
EXTRA = ("axis", "variant", "optimiser_steps", "pretrain_steps", *(f"{m}_error" for m in MEASURES[1:]))


@dataclass(frozen=True)
class Point:
    """A place on a curve: the axis that moves, whether it is the control, the run, its test length."""

    axis: str
    control: bool
    pretrain_steps: int
    work: Work
    test_length: int


@dataclass(frozen=True)
class Figure3:
    """Three stages (rows) by three axes (columns) for every pretraining length, curves with controls."""

    task: Task
    pretrainings: tuple[Pretraining, ...]
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
            task = Task(5, 8, 2, 2, eta=0.5, test_prompts=64)
            pretrainings = tuple(Pretraining("tiny", T, batch=16, warmup=5, every=5) for T in (10, 20))
            return cls(task, pretrainings, (8, 32), (4, 8), (1, 2), 16, 2, (3, 3, 3), 3e-5, 2, batch=16)
        if name == "quick":
            task = Task(5, 10, 3, 3, eta=0.5, test_prompts=128)
            pretrainings = tuple(Pretraining("tiny", T, learning_rate=1e-3, every=40) for T in (1000, 2000))
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
        task = Task(20, 40, 8, 3, eta=0.5, test_prompts=1024)
        pretrainings = (
            Pretraining("paper", 50_000, learning_rate=3e-4, warmup=2000, start_dimension=5, start_length=11,
                        every=2000, precision="bf16"),
            Pretraining("paper", 200_000, learning_rate=3e-4, warmup=2000, start_dimension=5, start_length=11,
                        every=2000, precision="bf16"),
        )  # fmt: skip
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
        task = Task(10, 15, 5, 3, eta=0.5, test_prompts=256)
        pretrainings = tuple(
            Pretraining("small", T, batch=32, learning_rate=1e-3, warmup=300, every=100) for T in (2000, 6000)
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
        for pretraining in self.pretrainings:
            for stage in STAGES:
                for axis in AXES:
                    for control in (False, True) if axis in CONTROLS else (False,):
                        for x in {"prompts": self.prompts, "length": self.lengths, "steps": self.chains}[
                            axis
                        ]:
                            yield self._point(pretraining.steps, stage, axis, control, x)

    def _point(self, pretrain_steps: int, stage: Stage, axis: str, control: bool, x: int) -> Point:
        steps = self.stage_steps[STAGES.index(stage)]
        n = self.task.length
        B, k, length = self.base_prompts, self.base_chain, n
        if axis == "prompts":
            B = x
            steps = max(1, round(steps * x / self.base_prompts)) if control else steps
        elif axis == "length":
            length = x
        else:
            k = x
        work = Work(stage, "delta", B, length, k, steps, self.learning_rate, self.batch)
        return Point(axis, control, pretrain_steps, work, x if axis == "length" and not control else n)

    def prepare(self, folder: Path, workers: Workers) -> list[Cell]:
        """Pretrain what is missing in ``folder`` and return the cells."""
        folder = folder / "pretrained"
        pretrain_all(self.task, self.pretrainings, folder, workers)
        paths = {p.steps: str(pretrained_file(self.task, p, folder)) for p in self.pretrainings}
        cells = [
            Cell(
                run_gpt,
                {"path": paths[T], "task": self.task, "work": self._untouched(n), "seed": 0, "length": n},
            )
            for T in paths
            for n in self._test_lengths()
        ]
        for T, work, length in self._runs():
            shared = {"path": paths[T], "task": self.task, "work": work, "length": length}
            cells += [Cell(run_gpt, {**shared, "seed": seed}) for seed in range(self.seeds)]
        return cells

    def _untouched(self, length: int) -> Work:
        return Work("sft", "delta", 0, length, 1, 0, self.learning_rate)

    def _test_lengths(self) -> list[int]:
        return sorted({*self.lengths, self.task.length})

    def _runs(self) -> list[tuple[int, Work, int]]:
        """Distinct (pretraining, run, test length): curves that cross share them."""
        return list(dict.fromkeys((p.pretrain_steps, p.work, p.test_length) for p in self.points()))

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a point and seed; before them the untouched models (no prompts, no seed)."""
        lengths, rows = self._test_lengths(), []
        place = 0
        for pretraining in self.pretrainings:
            for n in lengths:
                rows.append(
                    self._row(
                        BASE_PANEL, pretraining.steps, self._untouched(n), results[place], variant="base"
                    )
                )
                place += 1
        by_run = {}
        for run in self._runs():
            by_run[run] = results[place : place + self.seeds]
            place += self.seeds
        for point in self.points():
            found = by_run[point.pretrain_steps, point.work, point.test_length]
            name = panel_letter(point.work.stage, point.axis)
            variant = CONTROLS[point.axis] if point.control else "main"
            rows += [
                self._row(
                    f"{name}-{variant}" if point.control else name,
                    point.pretrain_steps,
                    point.work,
                    result,
                    seed=seed,
                    axis=point.axis,
                    variant=variant,
                )
                for seed, result in enumerate(found)
            ]
        table, extra = (
            as_table({name: row.get(name) for name in COLUMNS} for row in rows),
            pd.DataFrame(rows, columns=list(EXTRA)),
        )
        return pd.concat([table, extra], axis=1)

    @staticmethod
    def _row(
        name: str, pretrain_steps: int, work: Work, found: dict[str, float | None], **values: Any
    ) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys([*COLUMNS, *EXTRA])
        row.update(
            figure="fig3",
            panel=name,
            model="gpt",
            stage=work.stage,
            prompts=work.prompts,
            length=work.length,
            steps=work.chain_steps,
            interference=0.0,
            estimator="trained" if work.prompts else "pretrained",
            optimiser_steps=work.steps if work.prompts else 0,
            pretrain_steps=pretrain_steps,
            error=found["target"],
            diverged=int(found["target"] is None),
        )
        row.update({f"{measure}_error": found[measure] for measure in MEASURES[1:]})
        row.update(values)
        return row
