"""Insight 2: the size of the SFT set against interference r, exact theory with simulated points.

How does the best B, and what the best set below the peak (B < d) has over the largest, depend on r? The data
are the paper's A = diag(eta (rho + 1) 1_m, r 1_{d-m}); at r = eta they are eta Sigma, the test distribution
itself at its right scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from datadose.drawing.curves import cell_edges, level, log_y
from datadose.drawing.hover import Cells, record_cells
from datadose.drawing.style import LOOKS, Look, caption, draw_simulation, draw_theory, new_grid
from datadose.power import CONFIDENCE
from datadose.studies import tables
from datadose.studies.ledger import beats, judge_settings, seeds_of
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import LSA, THEORY, Column, TwoBlock
from datadose.sweep import Cell

NAME = "insight2_size"


@dataclass(frozen=True)
class SetSize:
    """Theory on ``theory_interferences`` x ``theory_prompts``, simulation on the shorter lists."""

    block: TwoBlock
    length: int
    interferences: tuple[float, ...]
    prompts: tuple[int, ...]
    theory_interferences: tuple[float, ...]
    theory_prompts: tuple[int, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> SetSize:
        """The configuration of a preset; B up to 5 d, as in Figure 1."""
        if name == "smoke":
            return cls._of(TwoBlock(20, 10), 4, 6, 16, 2)
        if name == "quick":
            return cls._of(TwoBlock(100, 50), 9, 33, 60, 8)
        return cls._of(TwoBlock(400, 200), 12, 45, 100, 20)

    @classmethod
    def _of(cls, block: TwoBlock, simulated: int, theory: int, counts: int, seeds: int) -> SetSize:
        d = block.dimension
        places = tables.grid([0], np.geomspace(max(1, d // 40), 5 * d, counts).round().astype(int).tolist())
        kept = tuple(B for B in places if abs(B / d - 1) > 0.02)
        inside = [round(share * d) for share in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.5, 2, 3, 5)]
        few, many = _log_steps(simulated), _log_steps(theory)
        return cls(block, 2 * d, few, tables.grid([0], inside), many, kept, seeds)

    def cells(self) -> list[Cell]:
        """One cell an interference and seed; it holds all B."""
        return [
            tables.curve_cell(self.block, r, self.length, self.prompts, seed)
            for r, seed in product(self.interferences, range(self.seeds))
        ]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """Simulated rows (model lsa) with their prediction, then the theory on its grid."""

        counts = {*self.prompts, *self.theory_prompts}
        predicted = {
            r: tables.predictions(self.block.shift(r), counts, self.length)
            for r in {*self.interferences, *self.theory_interferences}
        }
        simulated = [
            (r, B, {"panel": "simulated", "seed": seed, "error": error})
            for (r, seed), errors in zip(product(self.interferences, range(self.seeds)), results, strict=True)
            for B, error in zip(self.prompts, errors, strict=True)
        ]
        theory = [
            (r, B, {"panel": "theory", "model": THEORY})
            for r, B in product(self.theory_interferences, self.theory_prompts)
        ]
        return tables.as_table(
            tables.sft_row(
                NAME, prompts=B, length=self.length, interference=r, predicted=predicted[r][B], **values
            )
            for r, B, values in [*simulated, *theory]
        )


def _log_steps(count: int) -> tuple[float, ...]:
    """``count`` interferences from 0.001 to 1, evenly in log r, to three digits."""
    return tuple(float(f"{r:.3g}") for r in np.geomspace(1e-3, 1.0, count))


def draw_size(table: pd.DataFrame, config: SetSize) -> Figure:
    """Insight 2: a map of the error over (r, B) with the best B, and best small set against the largest."""
    d = config.block.dimension
    theory = table[table[Column.MODEL] == THEORY]
    simulated = table[table[Column.MODEL] == LSA]
    with new_grid(1, 2, width=10.5, height=4.3, width_ratios=[1.25, 1]) as (figure, axes):
        heat, right = axes[0]
        shown = theory[theory[Column.PROMPTS] > 0]
        grid = shown.pivot_table(index=Column.PROMPTS, columns=Column.INTERFERENCE, values=Column.PREDICTED)
        low = float(grid.min().min())
        mesh = heat.pcolormesh(
            grid.columns.to_numpy(),
            grid.index.to_numpy() / d,
            grid.to_numpy(),
            norm=LogNorm(0.9 * low, 30 * low),
            cmap="cividis",
            shading="nearest",
            rasterized=True,
        )
        bar = figure.colorbar(mesh, ax=heat, extend="max")
        bar.set_label("predicted error / d")
        best = theory.loc[theory.groupby(Column.INTERFERENCE)[Column.PREDICTED].idxmin()]
        early = theory[theory[Column.PROMPTS] < d]
        small = early.loc[early.groupby(Column.INTERFERENCE)[Column.PREDICTED].idxmin()]
        x, y = grid.columns.to_numpy(dtype=float), grid.index.to_numpy(dtype=float) / d
        x_edges, y_edges = (cell_edges(centres).tolist() for centres in (x, y))
        values = grid.to_numpy().tolist()
        record_cells(heat, Cells(x_edges, y_edges, x.tolist(), y.tolist(), values, "predicted error / d"))
        for rows, dash, name, marks in (
            (small, (0, (4, 2)), "_best B below the peak", {}),
            (best, "-", "_best B", {"marker": "o", "markersize": 3}),
        ):
            places = rows[Column.PROMPTS] / d
            draw_theory(heat, rows[Column.INTERFERENCE], places, Look("white", dash, ""), name, **marks)
        heat.axhline(1, color="black", linewidth=0.8)
        heat.text(1.1e-3, 1.06, "peak: B = d", color="black", fontsize=8.5)
        heat.set(yscale="log", xscale="log")
        heat.set_ylim(grid.index.min() / d, grid.index.max() / d)
        heat.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2, 5], labels=["0.05", "0.1", "0.2", "0.5", "1", "2", "5"])
        heat.set(xlabel="interference r", ylabel="SFT prompts B / d")
        heat.set_title("dots: best B; dashes: best B below the peak")
        _draw_ratio(right, theory, simulated, d)
        block = config.block
        caption(
            figure,
            f"d = {d}, m = {block.shifted}, rho = {block.rho:g}, eta = {block.eta:g}, n = "
            f"{config.length}; lines and map: exact theory; markers: simulated V*, mean of "
            f"{config.seeds} seeds with standard errors",
        )
    return figure


def _small(errors: pd.Series, d: int) -> pd.Series:
    """Those of ``errors`` by B below the peak."""
    return errors[(errors.index > 0) & (errors.index < d)]


def _by_prompts(rows: pd.DataFrame) -> pd.DataFrame:
    """Simulated errors, a row a seed and a column a B."""
    return rows.pivot_table(index=Column.SEED, columns=Column.PROMPTS, values=Column.ERROR)


def _predicted(theory: pd.DataFrame) -> dict[float, pd.Series]:
    """r to predicted errors by B."""
    return {
        float(str(r)): rows.set_index(Column.PROMPTS)[Column.PREDICTED]
        for r, rows in theory.groupby(Column.INTERFERENCE)
    }


def _draw_ratio(axis: Axes, theory: pd.DataFrame, simulated: pd.DataFrame, d: int) -> None:
    """Error of the best B < d over the error at the largest B, and over no SFT."""
    curves = _predicted(theory)
    references: Any = ((max, "over the largest set (B = 5d)"), (min, "over no SFT (B = 0)"))
    for look, (reference, label) in zip(LOOKS, references, strict=False):
        line = [_small(curve, d).min() / curve[reference(curve.index)] for curve in curves.values()]
        draw_theory(axis, list(curves), line, look, label)
        for r, rows in simulated.groupby(Column.INTERFERENCE):
            wide = _by_prompts(rows)
            ratio = wide[_small(wide.mean(), d).idxmin()] / wide[reference(wide.columns)]
            points = pd.DataFrame({"r": r, Column.ERROR: ratio.to_numpy()})
            draw_simulation(axis, points, "r", look, f"_{label}, simulated")
    level(axis, 1.0)
    axis.set_xscale("log")
    log_y(axis)
    axis.set(xlabel="interference r", ylabel="error of the best B < d, as a ratio")
    axis.set_title("below 1: the small set wins")
    axis.legend(loc="best")


def small_sets(saved: Saved[SetSize], threshold: float) -> Judgement:
    table = saved.table
    d = saved.config.block.dimension
    simulated = table[table[Column.MODEL] == LSA]
    verdicts: dict[str, Verdict] = {}
    for r, rows in simulated.groupby(Column.INTERFERENCE):
        wide = _by_prompts(rows)
        best = _small(wide.mean(), d).idxmin()
        verdicts[f"r={r:g}"] = beats(wide[best].to_numpy(), wide[wide.columns.max()].to_numpy())
    curves = _predicted(table[table[Column.MODEL] == THEORY])
    ratios = [(r, _small(curve, d).min() / curve[curve.index.max()]) for r, curve in curves.items()]
    best_at = [f"{curve.idxmin() / d:.2f}" for curve in curves.values()]
    won = [r for r, ratio in ratios if ratio < 1]
    lost = [r for r, ratio in ratios if ratio > 1]
    note = (
        f"theory: the best B < d beats the largest B up to r={max(won, default=0):g}, loses "
        f"from r={min(lost, default=float('nan')):g}; ratio {ratios[0][1]:.2g} at r={ratios[0][0]:g}, "
        f"{ratios[-1][1]:.2g} at r={ratios[-1][0]:g}; best B/d from {best_at[0]} to {best_at[-1]}"
    )
    return judge_settings(verdicts, threshold, seeds_of(simulated), note)


CLAIMS = (
    Claim(
        "insight-2-size",
        "Insight 2",
        "Under interference keep SFT data small: the best B below the peak beats the largest B, whatever r.",
        "d=100, m=50, n=200, r from 0.001 to 1, largest B = 5d; exact theory and simulated V* (sizes of the "
        "preset)",
        f"share of r where it holds, each at {CONFIDENCE:.0%} confidence over paired seeds",
        1.0,
        small_sets,
        "tests/studies/insights/test_claims.py::test_size_is_judged_per_interference",
        shown_by=("fig1",),
    ),
)
STUDY = Study(
    name=NAME,
    title="How much SFT data under interference? (Insight 2)",
    story=(
        "While the data vary little off the shift (a small r > 0, strong interference for the paper), a set "
        "well below the peak at B = d beats even the largest one. Past a certain r the examples teach the "
        "other directions at nearly the right scale, and more data win: keep sets small only if r is small."
    ),
    experiment=SetSize,
    draw=draw_size,
    claims=CLAIMS,
)
