"""What Figures 1, 2 and 5 share: the table of errors over r, n and B, their panels, the gap to the theory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from datadose.covariance import Array
from datadose.drawing.style import GREY, Look, draw_simulation, draw_theory
from datadose.studies.ledger import seeds_of
from datadose.studies.tables import (
    LSA,
    THEORY,
    Column,
    TwoBlock,
    as_table,
    curve_cell,
    predictions,
    sft_row,
)
from datadose.sweep import Cell

INTERFERENCES = (0.0, 0.01, 0.1)
AWAY_FROM_PEAK = 0.2
"""Deviations are judged where |B - peak| exceeds this fraction of the peak: the mean is infinite at it."""
SETTING = [Column.INTERFERENCE, Column.LENGTH, Column.PROMPTS]


@dataclass(frozen=True)
class SftCurves:
    """Simulation at ``lengths`` x ``prompts``, theory at ``theory_lengths`` x ``theory_prompts``, per r.

    All B of a simulated curve come from one nested stream per seed.
    """

    figure: ClassVar[str]

    block: TwoBlock
    interferences: tuple[float, ...]
    lengths: tuple[int, ...]
    prompts: tuple[int, ...]
    theory_lengths: tuple[int, ...]
    theory_prompts: tuple[int, ...]
    seeds: int

    def _curves(self) -> list[tuple[float, int, int]]:
        return [(r, n, seed) for r in self.interferences for n in self.lengths for seed in range(self.seeds)]

    def cells(self) -> list[Cell]:
        """One cell an interference, length and seed; it holds all B."""
        return [curve_cell(self.block, r, n, self.prompts, seed) for r, n, seed in self._curves()]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """Simulated rows (model lsa) with their prediction, then the theory on its grid."""
        counts, lengths = {*self.prompts, *self.theory_prompts}, {*self.lengths, *self.theory_lengths}
        predicted = {
            (r, n): predictions(self.block.shift(r), counts, n) for r in self.interferences for n in lengths
        }

        def row(r: float, n: int, B: int, **measured: Any) -> dict[str, Any]:
            found = predicted[r, n][B]
            return sft_row(
                self.figure, f"r={r:g}", prompts=B, length=n, interference=r, predicted=found, **measured
            )

        rows = [
            row(r, n, B, seed=seed, error=error)
            for (r, n, seed), errors in zip(self._curves(), results, strict=True)
            for B, error in zip(self.prompts, errors, strict=True)
        ]
        rows += [
            row(r, n, B, model=THEORY)
            for r in self.interferences
            for n in self.theory_lengths
            for B in self.theory_prompts
        ]
        return as_table(rows)


def panels(
    table: pd.DataFrame, config: SftCurves, axes: list[Axes]
) -> Iterator[tuple[float, Axes, pd.DataFrame]]:
    """(r, panel, rows) of each interference, the panel titled and with a log error axis."""
    axes[0].set_ylabel("post-test error / d")
    for axis, r in zip(axes, config.interferences, strict=True):
        axis.set_yscale("log")
        axis.set_title("no interference (r = 0)" if r == 0 else f"interference r = {r:g}")
        yield r, axis, table[np.isclose(table[Column.INTERFERENCE], r)]


def draw_both(axis: Axes, curve: pd.DataFrame, x: str, look: Look, label: str) -> pd.DataFrame:
    """The theory of a curve as a line, its simulation as markers; returns the theory's rows in order."""
    theory = curve[curve[Column.MODEL] == THEORY].sort_values(x)
    draw_theory(axis, theory[x].astype(float), theory[Column.PREDICTED], look, label)
    # At the peak itself the mean is infinite: a sample mean there means nothing.
    simulated = curve[(curve[Column.MODEL] == LSA) & curve[Column.PREDICTED].notna()]
    draw_simulation(axis, simulated, x, look, f"_{label}, simulated")
    return theory


def mark_peak(axis: Axes, place: float, label: str) -> None:
    """A dashed vertical line at ``place``, named at its top."""
    axis.axvline(place, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), zorder=0)
    axis.annotate(
        label,
        (place, 0.985),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        va="top",
        fontsize=8.5,
        color=GREY,
    )


def setting(block: TwoBlock, seeds: int, simulated: str = "V*") -> str:
    """The caption under a figure."""
    return (
        f"d = {block.dimension}, m = {block.shifted}, rho = {block.rho:g}, eta = {block.eta:g}; "
        f"markers: simulated {simulated}, mean of {seeds} seeds with standard errors; lines: theory"
    )


def away_from_peak(rows: pd.DataFrame, block: TwoBlock) -> pd.DataFrame:
    """Those of ``rows`` whose number of prompts is not near the peak of their interference."""
    peak = rows[Column.INTERFERENCE].map(block.peak)
    return rows[(rows[Column.PROMPTS] - peak).abs() > AWAY_FROM_PEAK * peak]


def deviations(rows: pd.DataFrame, predicted: pd.Series) -> tuple[Array, Array, int]:
    """How far the theory is from the simulation.

    Args:
        rows: simulated rows.
        predicted: the theory's error, indexed by ``SETTING``.

    Returns:
        Relative deviation of ``predicted`` from the mean simulated error, and its standard error, one per
        setting; then the number of seeds.
    """
    grouped = rows.groupby(SETTING)[Column.ERROR]
    mean, sem = grouped.mean(), grouped.sem()
    ratio = predicted.reindex(mean.index) / mean
    return (ratio - 1).to_numpy(), (ratio * sem / mean).to_numpy(), seeds_of(rows)
