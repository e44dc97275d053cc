"""What every experiment shares: the tidy table's columns, the two-block shift, and cells that simulate V*."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pandas as pd

from datadose.shift import Shift
from datadose.simulation.curves import sft_error_curve
from datadose.sweep import Cell
from datadose.theory.asymptotics import Form, PeakError, predict_curve, predict_error


class Column:
    """Names of the columns that all tables share; a study with more of them extends it."""

    FIGURE = "figure"
    PANEL = "panel"
    STAGE = "stage"
    MODEL = "model"
    PROMPTS = "prompts"
    LENGTH = "length"
    STEPS = "steps"
    INTERFERENCE = "interference"
    SEED = "seed"
    ERROR = "error"
    PREDICTED = "predicted"
    DIVERGED = "diverged"
    ESTIMATOR = "estimator"
    FORM = "form"


def names(columns: type) -> list[str]:
    """The names that a class like Column holds, in their order: those of the class that it extends first."""
    return [
        value for kind in reversed(columns.__mro__) for name, value in vars(kind).items() if name.isupper()
    ]


COLUMNS = names(Column)
"""The columns of every experiment's table, in their order."""
_INTEGERS = (Column.LENGTH, Column.STEPS, Column.SEED, Column.DIVERGED)
_FLOATS = (Column.PROMPTS, Column.INTERFERENCE, Column.ERROR, Column.PREDICTED)

LSA, THEORY = "lsa", "theory"
"""Values of ``model``: measured on the linear transformer (which V* is, too), or the theory alone."""
MINIMISER, FIRST_ORDER = "minimiser", "first-order"
"""Values of ``estimator``: V*, and its first-order approximation V~."""
TRAINED, PRETRAINED = "trained", "pretrained"
"""Values of ``estimator``: a model after gradient steps, and the one that they start from."""


@dataclass(frozen=True)
class TwoBlock:
    """The paper's two-block shift, without its interference."""

    dimension: int
    shifted: int
    rho: float = 0.1
    eta: float = 0.2

    def shift(self, interference: float) -> Shift:
        """The shift with this interference r."""
        return Shift.two_block(self.dimension, self.shifted, self.rho, self.eta, interference)

    def peak(self, interference: float) -> int:
        """The number of prompts at which the mean error is infinite, rank(A): m, or d under interference."""
        return self.dimension if interference > 0 else self.shifted


def simulate_curve(
    block: TwoBlock, interference: float, length: int, counts: list[int], seed: int
) -> list[float]:
    """The simulated errors Err(V*) / d at ``counts`` numbers of prompts of one nested stream; a cell.

    Args:
        block: the two-block shift.
        interference: r >= 0.
        length: prompt length n >= 1.
        counts: numbers of prompts B >= 0.
        seed: of the stream.
    """
    shift = block.shift(interference)
    return [float(e) for e in sft_error_curve(shift, max(counts), length, seed=seed)[counts]]


def curve_cell(block: TwoBlock, interference: float, length: int, counts: Sequence[int], seed: int) -> Cell:
    """The cell of :func:`simulate_curve`."""
    arguments = {"block": block, "interference": interference, "length": length}
    return Cell(simulate_curve, {**arguments, "counts": [int(B) for B in counts], "seed": seed})


def predictions(
    shift: Shift, prompts: Iterable[int], length: int, form: Form = "exact"
) -> dict[int, float | None]:
    """The predicted error / d by number of prompts B; None at the peak, where the mean is infinite.

    The arguments are those of :func:`predict_error`, with several ``prompts``.
    """
    counts = sorted({*prompts})
    if form == "exact":
        curve = predict_curve(shift, counts, length).tolist()
        return {B: error if np.isfinite(error) else None for B, error in zip(counts, curve, strict=True)}
    found: dict[int, float | None] = {}
    for B in counts:
        with suppress(PeakError):
            found[B] = predict_error(shift, B, length, form=form)
    return {B: found.get(B) for B in counts}


def sft_row(
    figure: str,
    panel: str,
    *,
    prompts: int,
    length: int,
    interference: float,
    predicted: float | None = None,
    seed: int | None = None,
    error: float | None = None,
    model: str = LSA,
    estimator: str = MINIMISER,
    form: Form = "exact",
) -> dict[str, Any]:
    """A row of a table for SFT to convergence: a simulated error with its ``seed``, or the theory alone.

    The arguments are values of the columns of their names; errors are divided by d.
    """
    return {
        Column.FIGURE: figure,
        Column.PANEL: panel,
        Column.STAGE: "sft",
        Column.MODEL: model,
        Column.PROMPTS: prompts,
        Column.LENGTH: length,
        Column.INTERFERENCE: interference,
        Column.SEED: seed,
        Column.ERROR: error,
        Column.PREDICTED: predicted,
        Column.DIVERGED: 0,
        Column.ESTIMATOR: estimator,
        Column.FORM: form,
    }


def as_table(
    rows: Iterable[Mapping[str, Any]],
    columns: type[Column] = Column,
    integers: Collection[str] = (),
    more: Sequence[str] = (),
) -> pd.DataFrame:
    """The table with a column each of ``columns``, in their order, and those of ``more`` behind them.

    Args:
        rows: values by column; those left out are missing. A row is one of linear self-attention unless it
            names another model, and has then diverged if it has no error.
        columns: names of the columns.
        more: names of further columns.
        integers: those of the study's own columns that hold whole numbers or nothing.

    Raises:
        KeyError: a value for what is no column.
    """
    full = [{Column.MODEL: LSA, **row} for row in rows]
    for row in full:
        row.setdefault(Column.DIVERGED, int(row[Column.MODEL] == LSA and row.get(Column.ERROR) is None))
    order = [*names(columns), *more]
    unknown = {key for row in full for key in row} - {*order}
    if unknown:
        msg = f"not a column: {sorted(unknown)}"
        raise KeyError(msg)
    kinds = {**dict.fromkeys((*_INTEGERS, *integers), "Int64"), **dict.fromkeys(_FLOATS, "float64")}
    return pd.DataFrame(full, columns=order).astype(kinds)


Setting: TypeAlias = tuple[Cell, dict[str, Any]]
"""A cell, and the columns that all rows of its result share."""


class SettingsExperiment(ABC):
    """An experiment given by its settings; results are lists of rows, values of the columns ``measured``."""

    figure: ClassVar[str]
    columns: ClassVar[type[Column]]
    measured: ClassVar[tuple[str, ...]]

    @abstractmethod
    def settings(self) -> Iterable[Setting]:
        """The settings, in the order of the table."""

    def cells(self) -> list[Cell]:
        """The cell of each setting."""
        return [cell for cell, _ in self.settings()]

    def rows(self, results: Sequence[Any]) -> list[dict[str, Any]]:
        """The rows of ``results``, by column."""
        return [
            {Column.FIGURE: self.figure, **shared, **dict(zip(self.measured, values, strict=True))}
            for (_, shared), found in zip(self.settings(), results, strict=True)
            for values in found
        ]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row for each row of the results."""
        return as_table(self.rows(results), self.columns)


def grid(*pieces: Sequence[int] | range) -> tuple[int, ...]:
    """The sorted union of ranges of prompt counts."""
    return tuple(int(B) for B in np.unique(np.concatenate([np.asarray(piece) for piece in pieces])))
