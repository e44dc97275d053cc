"""Which selector wins in a sea of rows of which 5 percent are useful, and by how much?

One pretrained model a seed, which knows thirty-six families and has seen four targets rarely. From a pool of
forty families in equal parts, of which two are the target, a method takes 1, 5 or 25 percent; fine-tuning has
the same number of steps for all. Two settings: a clean pool with the targets of pair A, on which the default
is chosen, and a pool with faults with those of pair B, which tests it once. Seed s sets the model, the pool
and the order of rows, so that arms are paired by seed.

The learning rate, the steps and the pretraining were fixed on validation rows, with models outside the study
(``grid``); the spread of paired differences comes from three such seeds (``pilots``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pandas as pd

from datadose.errors import reject
from datadose.studies.levels.descent import Descent
from datadose.studies.referee.base import PRETRAINING, model_cells
from datadose.studies.referee.gradients import make_gradients
from datadose.studies.referee.grid import GRID, PILOTS, GridPoint, PoolPilot
from datadose.studies.referee.judging import Pilot
from datadose.studies.referee.language import Pair
from datadose.studies.referee.pools import CONTENTS, Contents, SeaPool, make_scores
from datadose.studies.referee.runs import (
    GRADIENT,
    Column,
    HeldOut,
    Reference,
    Rows,
    SeaRun,
    run_arm,
    run_untouched,
)
from datadose.studies.study import Preset
from datadose.studies.tables import names
from datadose.studies.token_study.model import DecoderShape, TokenPretraining
from datadose.sweep import Cell, Round, file_cell

NAME = "sea"
RANDOM, CANDIDATE = "random", "rds"
METHODS = (RANDOM, "bm25", CANDIDATE, "sketch", "sketch-mean", "filters")
DESCENT = Descent(3e-4, (0, 5, 10, 20, 35, 50, 75, 100, 125, 150), falling=True)
"""Of every run; ten looks."""


@dataclass(frozen=True)
class Setting:
    """A pool's faults and the pair of targets. The first setting of a study is for development."""

    contents: Contents
    pair: Pair


@dataclass(frozen=True)
class SeaStudy:
    """Sizes of everything, and how often.

    Args:
        pretraining: of the model of seed 0; the seed is each run's.
        pool_rows: of a pool, a multiple of 40.
        target_rows: of the sample that the methods see.
        held_out: rows that are measured.
        descent: of every run.
        settings: the pools; the default is chosen on the first and tested on the others.
        methods: methods that are compared.
        budgets: shares of the pool that they take.
        unverified_budgets: those at which they also choose without the verifier, from pools with faults.
        seeds: repetitions.
        first_seed: the seeds are this one and those behind it.
        grid: the runs that fixed the learning rate.
        pilots: of which the power is stated.
    """

    name: ClassVar[str] = NAME
    pretraining: TokenPretraining
    pool_rows: int
    target_rows: int
    held_out: HeldOut
    descent: Descent
    settings: tuple[Setting, ...]
    methods: tuple[str, ...]
    budgets: tuple[float, ...]
    unverified_budgets: tuple[float, ...]
    seeds: int
    first_seed: int = 0
    grid: tuple[GridPoint, ...] = GRID
    pilots: tuple[PoolPilot, ...] = PILOTS

    @classmethod
    def preset(cls, name: Preset) -> SeaStudy:
        """Smoke: seconds. Quick: about 80 minutes of one core. Paper: all pools and pairs, twenty seeds;
        half a day of one core."""
        if name == "smoke":
            return cls(
                TokenPretraining(0.02, DecoderShape(16, 1, 2, 32), steps=4, batch=16, warmup=2),
                240, 8, HeldOut(6, 12, 1), Descent(1e-3, (0, 1, 3), batch=4, warmup=1, falling=True),
                (Setting("clean", "A"), Setting("mixed", "B")), METHODS, (0.05, 0.25), (0.05,), 2,
            )  # fmt: skip
        if name in ("small", "medium"):
            reject("preset", name, "smoke, quick or paper")
        quick = cls(
            PRETRAINING,
            pool_rows=4000,
            target_rows=64,
            held_out=HeldOut(),
            descent=DESCENT,
            settings=(Setting("clean", "A"), Setting("mixed", "B")),
            methods=METHODS,
            budgets=(0.01, 0.05, 0.25),
            unverified_budgets=(0.05,),
            seeds=10,
        )
        if name == "quick":
            return quick
        pairs: tuple[Pair, ...] = ("A", "B")
        return replace(
            quick,
            held_out=HeldOut(96, 300, 10),
            settings=tuple(Setting(contents, pair) for contents in CONTENTS for pair in pairs),
            unverified_budgets=quick.budgets,
            seeds=20,
        )

    def pilot(self, contents: str, stop: str) -> Pilot:
        """The pilot of a pool at a stop; of a pool that had none, the one with the largest spread."""
        at_stop = [one for one in self.pilots if one.stop == stop]
        own = [one.pilot for one in at_stop if one.contents == contents]
        return own[0] if own else max((one.pilot for one in at_stop), key=lambda pilot: pilot.spread)

    @property
    def numbers(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def pool(self, setting: Setting) -> SeaPool:
        """The pool of a setting."""
        return SeaPool(
            setting.contents, setting.pair, self.pool_rows, self.target_rows, "ifd" in self.methods
        )

    def rounds(self, folder: Path) -> Iterator[Round]:
        """The pretrained models, the scored pools, then every run."""
        made = folder / "sea"
        models = model_cells(folder, self.pretraining, self.numbers)
        yield "pretraining", list(models.values())
        pools = {
            (setting, seed): file_cell(
                made, f"pool-{setting.contents}-{setting.pair}-{seed}", "", make_scores,
                model=models[seed].file, pool=self.pool(setting), seed=seed,
            )
            for setting in self.settings
            for seed in self.numbers
        }  # fmt: skip
        yield "scoring pools", list(pools.values())
        gradients = {
            (setting, seed): file_cell(
                made, f"gradients-{setting.contents}-{setting.pair}-{seed}", "", make_gradients,
                model=models[seed].file, scores=cell.file,
            )
            for (setting, seed), cell in pools.items()
            if GRADIENT in self.methods
        }  # fmt: skip
        if gradients:
            yield "gradients", list(gradients.values())
        cells = []
        for run in self.runs():
            shared = {"model": models[run.seed].file, "run": run, "held": self.held_out}
            if run.method == Reference.UNTOUCHED:
                cells.append(Cell(run_untouched, shared))
                continue
            place = Setting(run.contents, run.pair), run.seed
            own = {**shared, "scores": pools[place].file, "descent": self.descent}
            if run.method == GRADIENT:
                own["gradients"] = gradients[place].file
            cells.append(Cell(run_arm, own))
        yield "", cells

    def runs(self) -> Iterator[SeaRun]:
        """Every run, seed after seed, so that a stopped study has whole seeds."""
        for seed in self.numbers:
            for setting in self.settings:
                yield from self._runs(setting, seed)

    def _runs(self, setting: Setting, seed: int) -> Iterator[SeaRun]:
        first = SeaRun(setting.contents, setting.pair, Reference.UNTOUCHED, 0.0, seed)
        yield first
        for budget in self.budgets:
            yield from (replace(first, method=method, budget=budget) for method in self.methods)
        yield from (replace(first, method=Reference.ORACLE, budget=budget) for budget in self._oracles())
        yield replace(first, method=Reference.WEIGHTED, budget=self._middle)
        yield replace(first, method=Reference.FULL, budget=1.0)
        if setting.contents not in ("clean", "duplicates"):
            for budget in self.unverified_budgets:
                for method in self.methods:
                    yield replace(first, method=method, budget=budget, verified=False)

    @property
    def _middle(self) -> float:
        return sorted(self.budgets)[(len(self.budgets) - 1) // 2]

    def _oracles(self) -> list[float]:
        """Budgets that the right rows of the target can differ at: the target is 5 percent of the pool."""
        within = [budget for budget in sorted(self.budgets) if budget < 0.05]
        return [*within, min(budget for budget in self.budgets if budget >= 0.05)]

    def table(self, results: Sequence[Rows | None]) -> pd.DataFrame:
        """Two rows a run, one for each stop; runs without a result (None) are left out."""
        rows = [{Column.FIGURE: self.name, **row} for found in results if found is not None for row in found]
        return pd.DataFrame(rows, columns=names(Column)).astype({Column.ROWS: "Int64"})
