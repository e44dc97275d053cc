"""Many epochs on few rows against one pass over fresh ones, at the same number of updates: what is run.

Kopiczko et al. (arXiv 2602.11149) report for long chains of thought and models of 7B parameters that
repetition wins. Here both are run on the paper's two-block shifts with the same batches and steps. What
separates them is taken apart with two paths without the noise of steps: descent on all of the B rows at once,
and descent on the population. One pass is exact theory (docs/derivations/one_pass.md); the rest is simulated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.errors import InputError
from datadose.shift import Shift
from datadose.simulation.descent import simulate_descent
from datadose.simulation.training import simulate_training
from datadose.studies import tables
from datadose.studies.study import Preset
from datadose.studies.tables import LSA, THEORY, Setting, SettingsExperiment, TwoBlock
from datadose.sweep import Cell
from datadose.theory.one_pass import OnePass
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping

NAME = "fresh_batches"
TRAININGS = EPOCHS, WHOLE, FRESH, POPULATION = ("epochs", "all rows at once", "one pass", "population")
_POPULATION = 10**9
"""Rows in a batch whose noise is gone."""


class Column(tables.Column):
    """The columns of this study; ``training`` is one of TRAININGS."""

    SHIFTED = "shifted"
    BATCH = "batch"
    FRACTION = "fraction"
    TRAINING = "training"
    UPDATES = "updates"


@dataclass(frozen=True)
class Descent:
    """Batches of ``batch`` rows at a constant step, ``fraction`` of the largest stable one in one pass."""

    shift: Shift
    length: int
    batch: int
    fraction: float
    updates: tuple[int, ...]

    @property
    def start(self) -> Array:
        """The pretrained operator."""
        return np.asarray(pretrained_operator(self.shift.sigma0, self.length))

    def one_pass(self, batch: int | None = None) -> OnePass:
        """The descent on fresh rows."""
        return OnePass.of([self.source(1)], self.shift.eta, batch=self.batch if batch is None else batch)

    @property
    def step(self) -> float:
        """The learning rate."""
        return self.fraction * self.one_pass().largest_step

    def source(self, prompts: int) -> Source:
        """The data, with so many rows."""
        return Source(self.shift.data, self.length, prompts)


Row = list[Any]


def repeat_rows(
    block: TwoBlock, interference: float, length: int, descent: dict[str, Any], prompts: int, seeds: int
) -> list[Row]:
    """Cell: errors of epochs over B rows, and of descent on all of them at once."""
    run = Descent(block.shift(interference), length, **descent)
    options: Any = {"targets": [run.shift.target], "test_length": length}
    sources, rows = [run.source(prompts)], []
    stoppings = [Stopping(steps=T, learning_rate=run.step) for T in run.updates]
    for seed in range(seeds):
        try:
            found = simulate_descent(
                run.start, run.shift.eta, sources, run.batch, run.step, run.updates, seeds=[seed], **options
            ).values[0, :, 0]
        except InputError:
            # The step is stable on fresh rows; on a few it may not be.
            found = np.full(len(run.updates), np.nan)
        whole = simulate_training(
            run.start, run.shift.eta, sources, stoppings=stoppings, seeds=[seed], **options
        ).values[0, 0, :, 0]
        for kind, errors in ((EPOCHS, found), (WHOLE, whole)):
            rows += [
                [LSA, kind, T, seed, float(error) if np.isfinite(error) else None, None]
                for T, error in zip(run.updates, errors, strict=True)
            ]
    return rows


def pass_once(
    block: TwoBlock, interference: float, length: int, descent: dict[str, Any], seeds: int
) -> list[Row]:
    """Cell: one pass, exact and simulated, and descent on the population; the exact best time of each."""
    run = Descent(block.shift(interference), length, **descent)
    target, updates = run.shift.target, list(run.updates)
    rows: list[Row] = []
    for kind, batch in ((FRESH, run.batch), (POPULATION, _POPULATION)):
        every = run.one_pass(batch).errors(run.start, run.step, range(max(updates) + 1), target, length)
        best = int(every.argmin())
        rows += [[THEORY, kind, T, None, None, float(every[T])] for T in sorted({*updates, best})]
    for seed in range(seeds):
        found = simulate_descent(
            run.start,
            run.shift.eta,
            [run.source(1)],
            run.batch,
            run.step,
            updates,
            [target],
            length,
            fresh=True,
            seeds=[seed],
        ).values[0, :, 0]
        rows += [[LSA, FRESH, T, seed, float(e), None] for T, e in zip(updates, found, strict=True)]
    return rows


@dataclass(frozen=True)
class FreshBatches(SettingsExperiment):
    """Each of ``shifts`` (m, r) with each of ``steps`` (batch, fraction of the largest stable step)."""

    figure, columns = NAME, Column
    measured = (
        Column.MODEL,
        Column.TRAINING,
        Column.UPDATES,
        Column.SEED,
        Column.ERROR,
        Column.PREDICTED,
    )
    dimension: int
    length: int
    shifts: tuple[tuple[int, float], ...]
    steps: tuple[tuple[int, float], ...]
    prompts: tuple[int, ...]
    updates: tuple[int, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> FreshBatches:
        """The configuration of a preset.

        In a pilot on seeds of its own (1000 to 1005) the spread of log errors over seeds was .03 (median) and
        at most .15; 12 seeds detect 5 percent with power .8 up to a spread of .057, 16 up to .067.
        """
        if name == "smoke":
            return cls(12, 36, ((6, 0.01),), ((1, 0.1), (2, 0.5)), (3, 18), (3, 10, 30, 100), 2)
        if name == "quick":
            return cls._of(60, ((30, 0.01), (30, 0.1), (15, 0.01)), ((1, 0.1), (1, 0.5), (8, 0.5)), 3000, 12)
        shifts = ((60, 0.01), (60, 0.03), (60, 0.1), (30, 0.01))
        return cls._of(120, shifts, ((1, 0.1), (1, 0.5), (8, 0.5)), 10_000, 16)

    @classmethod
    def _of(
        cls,
        d: int,
        shifts: tuple[tuple[int, float], ...],
        steps: tuple[tuple[int, float], ...],
        last: int,
        seeds: int,
    ) -> FreshBatches:
        counts = (d // 4, d // 2, 3 * d // 2, 4 * d)
        grid = tables.grid(
            np.geomspace(10, last, round(6 * np.log10(last / 10)) + 1).round().astype(int).tolist()
        )
        return cls(d, 3 * d, shifts, steps, counts, grid, seeds)

    def settings(self) -> Iterator[Setting]:
        """One pass, then each number of rows, for each shift and step."""
        for (m, r), (b, fraction) in product(self.shifts, self.steps):
            arguments: dict[str, Any] = {
                "block": TwoBlock(self.dimension, m),
                "interference": r,
                "length": self.length,
                "descent": {"batch": b, "fraction": fraction, "updates": self.updates},
                "seeds": self.seeds,
            }
            shared = {
                Column.STAGE: "sft",
                Column.LENGTH: self.length,
                Column.INTERFERENCE: r,
                Column.SHIFTED: m,
                Column.BATCH: b,
                Column.FRACTION: fraction,
            }
            yield Cell(pass_once, arguments), shared
            for B in self.prompts:
                yield Cell(repeat_rows, {**arguments, "prompts": B}), {**shared, Column.PROMPTS: B}


@dataclass(frozen=True)
class Comparison:
    """Training on B rows against rows without end in one setting: errors by seed, a column each T."""

    name: str
    prompts: int
    batch: int
    ratios: pd.DataFrame
    """``errors`` over ``one_pass``."""
    errors: pd.DataFrame
    one_pass: pd.Series
    """Exact errors of the reference by number of updates, the best one among them."""

    @property
    def best_time(self) -> int:
        """The number of updates at which the reference is best."""
        return int(self.one_pass.idxmin())

    @property
    def repeated(self) -> list[int]:
        """The numbers of updates at which rows have been used at least twice on average."""
        return [T for T in self.ratios.columns if T * self.batch >= 2 * self.prompts]


SETTING = [Column.SHIFTED, Column.INTERFERENCE, Column.BATCH, Column.FRACTION]


def comparisons(table: pd.DataFrame, training: str = EPOCHS, reference: str = FRESH) -> Iterator[Comparison]:
    """Every setting and number of rows; a run that diverged has an infinite error."""
    exact = table[(table[Column.MODEL] == THEORY) & (table[Column.TRAINING] == reference)]
    known = {key: rows.set_index(Column.UPDATES)[Column.PREDICTED] for key, rows in exact.groupby(SETTING)}
    measured = table[table[Column.TRAINING] == training]
    for (m, r, b, fraction, B), rows in measured.groupby([*SETTING, Column.PROMPTS]):
        one_pass = known[m, r, b, fraction].astype(float)
        wide = rows.pivot(index=Column.SEED, columns=Column.UPDATES, values=Column.ERROR).fillna(np.inf)
        name = f"m={m}, r={r:g}, b={b}, step {fraction:g}, B={B:g}"
        yield Comparison(name, int(B), int(b), wide / one_pass[wide.columns], wide, one_pass)
