"""RL on the sea: which prompts, and which stage?

*Selectors*: one pool of prompts a seed, from hopeless to solved. A selector takes a tenth of it, or keeps
what it does not drop, and GRPO trains for the same number of steps; what a selector samples before is
counted, so that arms are compared at equal steps and at equal samples in all. *Stages*: single families of
graded difficulty, each learned by SFT on a few demonstrations, by RL, or by half of each. Every second one in
the order of the pretrained model's pass rate is for development, where a rule for the stage is sought; the
others test it once.

The pretrained models are those of the study ``sea``. Learning rates, targets and the spread of differences
come from seeds outside the study (:mod:`~datadose.studies.referee.rl_grid`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from datadose.errors import reject
from datadose.studies.levels.descent import Descent
from datadose.studies.referee.base import PRETRAINING, model_cells
from datadose.studies.referee.judging import Pilot
from datadose.studies.referee.rl_grid import (
    RL_GRID,
    RL_PILOTS,
    STAGE_GRID,
    TARGETS,
    RlPilot,
    RlPoint,
    StagePoint,
)
from datadose.studies.referee.rl_prompts import RlRun, Selector
from datadose.studies.referee.rl_runs import Column, RlHeldOut, run_rl
from datadose.studies.referee.runs import Rows
from datadose.studies.referee.stage_runs import (
    NONE,
    STAGES,
    Number,
    Stage,
    StageDescents,
    StageRows,
    StageRun,
    StageTarget,
    run_numbers,
    run_stage,
)
from datadose.studies.study import Preset
from datadose.studies.tables import names
from datadose.studies.token_study.model import DecoderShape, TokenPretraining
from datadose.sweep import Cell, Round

NAME = "sea_rl"


class Panel:
    """The two questions."""

    SELECTORS, STAGES = "selectors", "stages"


class Role:
    """What a target is for."""

    DEVELOPMENT, HELD_OUT = "development", "held out"


@dataclass(frozen=True)
class StagePart:
    """The question of stages: targets in the order of their pass rates, rows, steps and seeds."""

    targets: tuple[StageTarget, ...]
    rows: StageRows
    descents: StageDescents
    seeds: int
    grid: tuple[StagePoint, ...] = STAGE_GRID
    """The runs that fixed the learning rates."""

    def role(self, target: StageTarget) -> str:
        """Every second target is for development, the first among them."""
        return (Role.DEVELOPMENT, Role.HELD_OUT)[self.targets.index(target) % 2]

    def runs(self, first_seed: int) -> list[StageRun]:
        """Every run, seed after seed; the untouched model first of a target's."""
        seeds = range(first_seed, first_seed + self.seeds)
        every: tuple[Stage, ...] = (NONE, *STAGES)
        return [StageRun(t, s, seed) for seed, t, s in product(seeds, self.targets, every)]


@dataclass(frozen=True)
class SeaRlStudy:
    """Sizes of everything, and how often.

    Args:
        pretraining: of the model of seed 0, as in the study ``sea``.
        each: prompts of the pool, of each known family and length; of a rare one four times as many.
        prompts: what a selector takes, a tenth of the pool.
        few: prompts of the arms with few.
        samples: K of the expected signal, ascending; the other selectors that score have the middle one.
        descent: of every RL run on the pool.
        held_out: test rows.
        stages: the question of stages.
        seeds: repetitions of the selectors.
        first_seed: the seeds are this one and those behind it.
        grid: the runs that fixed the learning rate.
        pilots: of differences in pass probability, for each test and sort of comparison.
    """

    pretraining: TokenPretraining
    each: int
    prompts: int
    few: int
    samples: tuple[int, ...]
    descent: Descent
    held_out: RlHeldOut
    stages: StagePart
    seeds: int
    first_seed: int = 0
    grid: tuple[RlPoint, ...] = RL_GRID
    pilots: tuple[RlPilot, ...] = RL_PILOTS

    @classmethod
    def preset(cls, name: Preset) -> SeaRlStudy:
        """Smoke: seconds. Quick: about 45 minutes of one core after pretraining. Paper: a pool three times as
        large, twice the steps and seeds; half a day of one core."""
        if name == "smoke":
            return cls(
                TokenPretraining(0.02, DecoderShape(16, 1, 2, 32), steps=4, batch=16, warmup=2),
                1, 40, 4, (2, 3, 4), Descent(1e-3, (0, 1, 15), batch=16, warmup=1), RlHeldOut(1, 1, 1),
                StagePart(TARGETS[:4], StageRows(4, 4, 4, 4), StageDescents(1e-3, 1e-3, 2, 2, 4, 2), 1), 2,
            )  # fmt: skip
        if name in ("small", "medium"):
            reject("preset", name, "smoke, quick or paper")
        quick = cls(
            PRETRAINING,
            each=3,
            prompts=125,
            few=16,
            samples=(4, 8, 16),
            descent=Descent(1e-4, (0, 39, 78, 117, 156, 195, 234), batch=16),
            held_out=RlHeldOut(),
            stages=StagePart(TARGETS, StageRows(), StageDescents(1e-3, 1e-4, 96), seeds=3),
            seeds=10,
        )
        if name == "quick":
            return quick
        return replace(
            quick,
            each=9,
            prompts=375,
            descent=replace(quick.descent, updates=tuple(117 * i for i in range(7))),
            held_out=RlHeldOut(4, 36, 4),
            stages=replace(quick.stages, seeds=10),
            seeds=20,
        )

    @property
    def scored(self) -> int:
        """The middle K, of every selector but the expected signal at the others."""
        return sorted(self.samples)[len(self.samples) // 2]

    def pilot(self, measure: str, *, scored: bool = False) -> Pilot:
        """The pilot of comparisons by ``measure``, of two selectors that read pass rates or of other arms."""
        [found] = [one.pilot for one in self.pilots if (one.measure, one.scored) == (measure, scored)]
        return found

    def arms(self) -> list[RlRun]:
        """The arms of the first seed."""
        K, B = self.scored, self.prompts
        arms = [(Selector.UNFILTERED, 0, 0), (Selector.RANDOM, 0, B), (Selector.DROP, K, 0)]
        arms += [(selector, K, B) for selector in (Selector.MEDIUM, Selector.HARDEST, Selector.PASSED)]
        arms += [(Selector.SIGNAL, samples, B) for samples in self.samples]
        arms += [(Selector.RANDOM, 0, self.few), (Selector.SIGNAL, K, self.few)]
        return [RlRun(*arm, seed=self.first_seed) for arm in arms]

    def runs(self) -> list[RlRun]:
        """Every run of RL, seed after seed."""
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return [replace(arm, seed=seed) for seed in seeds for arm in self.arms()]

    def rounds(self, folder: Path) -> Iterator[Round]:
        """The pretrained models, then every run."""
        last = self.first_seed + max(self.seeds, self.stages.seeds)
        models = model_cells(folder, self.pretraining, range(self.first_seed, last))
        yield "pretraining", list(models.values())
        cells = []
        for run in self.runs():
            shared: dict[str, Any] = {"model": models[run.seed].file, "run": run, "each": self.each}
            cells.append(Cell(run_rl, {**shared, "descent": self.descent, "held": self.held_out}))
        for trial in self.stages.runs(self.first_seed):
            shared = {"model": models[trial.seed].file, "rows": self.stages.rows}
            cells.append(Cell(run_stage, {**shared, "run": trial, "descents": self.stages.descents}))
            if trial.stage == NONE:
                cells.append(Cell(run_numbers, {**shared, "target": trial.target, "seed": trial.seed}))
        yield "", cells

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """A row for each look of a selector's run and for each stage's run; those without a result (None) are
        left out."""
        remaining = iter(results)
        rows: Rows = []
        for _ in self.runs():
            for row in next(remaining) or []:
                selector = row["selector"]
                rows.append({Column.PANEL: Panel.SELECTORS, Column.ARM: selector, **row})
        for trial in self.stages.runs(self.first_seed):
            found = next(remaining)
            measured = (next(remaining) or {}) if trial.stage == NONE else {}
            if found is not None:
                rows.append({**_shared(trial, self.stages.role(trial.target)), **found, **measured})
        table = pd.DataFrame(
            [{Column.FIGURE: NAME, **row} for row in rows], columns=[*names(Column), *names(Number)]
        )
        whole = (Column.SAMPLES, Column.PROMPTS, Column.STEP, Column.TOTAL, Column.CHOSEN)
        return table.astype(dict.fromkeys(whole, "Int64"))


def _shared(trial: StageRun, role: str) -> dict[str, Any]:
    return {
        Column.PANEL: Panel.STAGES,
        Column.ARM: trial.stage,
        Column.TARGET: trial.target.name,
        Column.ROLE: role,
        Column.SEED: trial.seed,
    }
