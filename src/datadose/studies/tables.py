"""What every experiment shares: the tidy table's columns, presets, and cells that simulate V*."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

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


def names_in(kind: type) -> list[str]:
    """The names that a class like Column itself defines, in their order, without those that it inherits."""
    return [value for name, value in vars(kind).items() if name.isupper()]


COLUMNS = names_in(Column)
"""The columns of every experiment's table, then ``estimator`` (minimiser | first-order) and the ``form`` of
`predicted`."""


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


def simulate_curve(
    block: TwoBlock, interference: float, length: int, counts: list[int], seed: int
) -> list[float]:
    """Cell: Err(V*) / d at ``counts`` prompts of one nested stream."""
    shift = block.shift(interference)
    return [float(e) for e in sft_error_curve(shift, max(counts), length, seed=seed)[counts]]


def curve_cell(block: TwoBlock, interference: float, length: int, counts: Sequence[int], seed: int) -> Cell:
    """The cell of :func:`simulate_curve`."""
    arguments = {"block": block, "interference": interference, "length": length}
    return Cell(simulate_curve, {**arguments, "counts": [int(B) for B in counts], "seed": seed})


def predictions(
    shift: Shift, prompts: Iterable[int], length: int, form: Form = "exact"
) -> dict[int, float | None]:
    """B -> :func:`predict_error`; None at the peak, where the mean is infinite."""
    counts = sorted({*prompts})
    if form == "exact":
        curve = predict_curve(shift, counts, length).tolist()
        return {B: error if np.isfinite(error) else None for B, error in zip(counts, curve, strict=True)}
    found: dict[int, float | None] = {}
    for B in counts:
        with suppress(PeakError):
            found[B] = predict_error(shift, B, length, form=form)
    return {B: found.get(B) for B in counts}


def sft_row(figure: str, panel: str, **values: Any) -> dict[str, Any]:
    """A row for the SFT minimiser; ``values`` fill the remaining columns."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(
        figure=figure, panel=panel, stage="sft", diverged=0, estimator="minimiser", form="exact", model="lsa"
    )
    unknown = values.keys() - row.keys()
    if unknown:
        msg = f"not a column: {sorted(unknown)}"
        raise KeyError(msg)
    row.update(values)
    return row


def as_table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table with the columns in the order of ``COLUMNS`` and integer counts."""
    table = pd.DataFrame(rows, columns=COLUMNS)
    for column in ("length", "steps", "seed", "diverged"):
        table[column] = table[column].astype("Int64")
    for column in ("prompts", "interference", "error", "predicted"):
        table[column] = table[column].astype("float64")
    return table


def grid(*pieces: Sequence[int] | range) -> tuple[int, ...]:
    """The sorted union of ranges of prompt counts."""
    return tuple(int(B) for B in np.unique(np.concatenate([np.asarray(piece) for piece in pieces])))
