"""The sea on SmolLM2-135M-Instruct: which selector finds a few useful rows among many families?

A pool of short questions of reasoning-gym, in which two families are the target and some of their rows are
faulty, is scored once. A seed draws two thirds of it, a target sample, the adapter and the order of rows; a
method takes as many rows as the pool has right ones of the target, and all arms train by LoRA on the same
number of tokens in the same number of updates. The learning rate (``grid``) and the spread that the power is
stated from (``pilot``) come from seeds outside the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from datadose.errors import reject
from datadose.llm.selection.config import DEFAULT
from datadose.studies.llm_study.base_model import Base, make_base
from datadose.studies.referee.judging import Pilot
from datadose.studies.referee.smollm_grid import GRID, PILOT, GridPoint
from datadose.studies.referee.smollm_pool import SmolSea, make_scores
from datadose.studies.referee.smollm_runs import (
    ORACLE,
    UNTOUCHED,
    Column,
    Rows,
    SmolArm,
    run_arm,
    run_untouched,
)
from datadose.studies.referee.smollm_tasks import FAMILIES, SOLVED
from datadose.studies.referee.smollm_training import Training
from datadose.studies.study import Preset
from datadose.studies.tables import names
from datadose.sweep import Cell, Round, file_cell

NAME = "sea_smollm"
RANDOM, CANDIDATE = "random", DEFAULT
"""The baseline, and the method that the development setting of the sea on a model of our own chose."""
METHODS = (RANDOM, CANDIDATE, "rds", "sketch", "sketch-mean", "filters")
TARGET = ("reversals", "who")
OTHERS = tuple(name for name in FAMILIES if name not in TARGET)
CURVE_SEA = SmolSea(TARGET, SOLVED, OTHERS, right=140, sample=100, own=50)
"""More of the target, for curves over rows by ``datadose compare``."""


@dataclass(frozen=True)
class SmolStudy:
    """Sizes of everything, and how often.

    Args:
        base: SmolLM2 from its wheel, or a tiny random model.
        sea: the pool and what is measured.
        training: of every arm.
        size: rows that a method takes.
        methods: methods that are compared.
        unverified: methods that also choose without the verifier's verdicts.
        seeds: repetitions.
        first_seed: the seeds are this one and those behind it.
        grid: the runs that fixed the learning rate.
        pilot: of which the power is stated.
    """

    base: Base
    sea: SmolSea
    training: Training
    size: int
    methods: tuple[str, ...] = METHODS
    unverified: tuple[str, ...] = (CANDIDATE, "rds")
    seeds: int = 6
    first_seed: int = 0
    grid: tuple[GridPoint, ...] = GRID
    pilot: Pilot = PILOT

    @classmethod
    def preset(cls, name: Preset) -> SmolStudy:
        """Smoke: a tiny model, seconds. Quick: SmolLM2, about 70 minutes of one core. Paper: three times the
        rows that measure, every method without a verifier too, twelve seeds; four hours of one core."""
        if name == "smoke":
            sea = SmolSea(TARGET, SOLVED[:1], OTHERS[:2], 12, 3, 8, 4, 2, 3, 2, 2)
            training, methods = Training(1e-3, (1, 2), 200, 1), (RANDOM, CANDIDATE, "sketch", "sketch-mean")
            return cls("tiny", sea, training, 6, methods, (CANDIDATE,), seeds=2)
        if name in ("small", "medium"):
            reject("preset", name, "smoke, quick or paper")
        sea = SmolSea(TARGET, SOLVED, OTHERS)
        quick = cls("smollm2", sea, Training(1e-3, (10, 20, 40)), 80)
        if name == "quick":
            return quick
        sea = replace(sea, test=96, validation=48, earlier=32)
        return replace(quick, sea=sea, unverified=METHODS, seeds=12)

    @property
    def numbers(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def rounds(self, folder: Path) -> Iterator[Round]:
        """The base model, which the study of SmolLM2 has too; the scored pool; then every run."""
        base = file_cell(folder / "llm-study", f"base-{self.base}", "", make_base, base=self.base)
        yield "base model", [base]
        scores = file_cell(folder / NAME, "scores", "", make_scores, base=base.file, sea=self.sea)
        yield "scoring the pool", [scores]
        shared = {"base": base.file, "sea": self.sea, "training": self.training}
        cells = [Cell(run_untouched, shared)]
        for arm in self.arms():
            own = {"scores": scores.file, "size": self.size, "arm": arm}
            cells.append(Cell(run_arm, {**shared, **own}))
        yield "", cells

    def arms(self) -> Iterator[SmolArm]:
        """Every run, seed after seed, so that a stopped study has whole seeds."""
        for seed in self.numbers:
            yield from (SmolArm(method, seed) for method in (*self.methods, ORACLE))
            yield from (SmolArm(method, seed, verified=False) for method in self.unverified)

    def table(self, results: Sequence[Rows | None]) -> pd.DataFrame:
        """The untouched model, then a row for each measured update of a run; None is left out."""
        rows = [row for found in results if found is not None for row in found]
        table = pd.DataFrame(rows, columns=names(Column))
        return table.astype({Column.SEED: "Int64", Column.ROWS: "Int64", Column.FAMILIES: "Int64"})


def untouched(table: pd.DataFrame) -> pd.Series:
    """The row of the model before training."""
    return table[table[Column.METHOD] == UNTOUCHED].iloc[0]
