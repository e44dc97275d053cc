"""The law of budgets: how a budget is best split between SFT and outcome supervision, each trained well.

A demonstration costs p prompts of outcome supervision; a share x of the budget b buys demonstrations for SFT,
the rest prompts for outcome supervision at k = 1, which follows. Each stage has the penalty that is best for
the error at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from datadose.drawing.curves import cell_edges, log_y, plain_log_ticks
from datadose.drawing.hover import Cells, record_cells
from datadose.drawing.style import LOOKS, caption, draw_theory, new_grid
from datadose.shapes import Array
from datadose.studies.ledger import judge_share
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study
from datadose.studies.tables import THEORY, Setting, SettingsExperiment
from datadose.studies.training_time.settings import (
    DRAWN,
    POWER,
    Column,
    paper_setting,
    random_setting,
    spread,
)
from datadose.studies.training_time.two_stages import Setup, best_penalties
from datadose.sweep import Cell

NAME = "budgets"
OWN, SAME, PAPER = "own covariance", "same covariance", "paper"
SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_COLD = 0.1
"""The share of the cold start that arXiv 2502.11284 reports."""
_LARGE = 8.0
"""A large budget: 8 d rows."""
_NOTICEABLE = 1.01


def split_budget(
    seed: int, dimension: int, design: str, cost: float, budgets: tuple[float, ...], shares: tuple[float, ...]
) -> list[list[float]]:
    """Cell: budget / d, share of SFT and the error / d there, for one random setting.

    With the design ``same covariance`` both stages have prompts of the target; else SFT has its own.
    """
    setting = random_setting(seed, dimension)
    return _split(setting, setting.target if design == SAME else setting.data, cost, budgets, shares)


def split_paper(
    dimension: int, rho: float, cost: float, budgets: tuple[float, ...], shares: tuple[float, ...]
) -> list[list[float]]:
    """Cell: the same for the paper's setting with a balance ``rho``."""
    setting = paper_setting(dimension, rho)
    return _split(setting, setting.data, cost, budgets, shares)


def _split(
    setup: Setup, data: Array, cost: float, budgets: tuple[float, ...], shares: tuple[float, ...]
) -> list[list[float]]:
    b, x = (grid.ravel() for grid in np.meshgrid(budgets, shares, indexing="ij"))
    rows = b * setup.dimension
    sft = setup.prompts(data, setup.eta)
    found = best_penalties(setup.start, sft, x * rows / cost, setup.outcome, (1 - x) * rows, setup.test)
    return [[float(v) for v in row] for row in zip(b, x, found.error, strict=True)]


@dataclass(frozen=True)
class Budgets(SettingsExperiment):
    """Random settings over costs and designs, and the paper's setting on a finer grid for the map."""

    figure, columns = NAME, Column
    measured = (Column.BUDGET, Column.SHARE, Column.PREDICTED)

    dimension: int
    seeds: int
    costs: tuple[float, ...]
    budgets: tuple[float, ...]
    map_costs: tuple[float, ...]
    map_budgets: tuple[float, ...]
    map_shares: tuple[float, ...]
    balances: tuple[float, ...]
    first_seed: int = 0

    @classmethod
    def preset(cls, name: Preset) -> Budgets:
        """The configuration of a preset."""
        costs, budgets = (0.3, 1.0, 3.0), (0.125, 0.5, 2.0, 8.0, 32.0)
        if name == "smoke":
            return cls(24, 3, costs, budgets, (0.3, 1.0), (0.25, 1.0, 8.0), (0.0, 0.5, 1.0), (0.1,))
        many = name != "quick"
        map_costs = tuple(float(c) for c in np.geomspace(0.1, 10, 41 if many else 21).round(4))
        map_budgets = tuple(float(b) for b in np.geomspace(0.1, 30, 41 if many else 21).round(4))
        shares = tuple(float(x) for x in np.linspace(0, 1, 41 if many else 21).round(4))
        return cls(
            120, 1000 if many else 200, costs, budgets, map_costs, map_budgets, shares, (0.05, 0.1, 0.5)
        )

    def settings(self) -> Iterator[Setting]:
        """One cell a random setting, cost and design, then one a balance and cost of the map."""
        ours = {Column.STAGE: "sft then outcome", Column.MODEL: THEORY}
        for seed in range(self.first_seed, self.first_seed + self.seeds):
            for cost, design in (*((cost, OWN) for cost in self.costs), (1.0, SAME)):
                arguments = {"seed": seed, "dimension": self.dimension, "design": design, "cost": cost}
                cell = Cell(split_budget, {**arguments, "budgets": self.budgets, "shares": SHARES})
                yield (
                    cell,
                    {Column.PANEL: design, Column.SEED: seed, Column.COST: cost, **ours},
                )
        for rho in self.balances:
            for cost in self.map_costs:
                arguments = {"dimension": self.dimension, "rho": rho, "cost": cost}
                cell = Cell(
                    split_paper, {**arguments, "budgets": self.map_budgets, "shares": self.map_shares}
                )
                yield cell, {Column.PANEL: PAPER, Column.BALANCE: rho, Column.COST: cost, **ours}


def draw_budgets(table: pd.DataFrame, config: Budgets) -> Figure:
    """Maps of the best share of SFT over budget and cost, and who wins in the random settings."""
    paper = table[table[Column.PANEL] == PAPER]
    count = len(config.balances)
    with new_grid(1, count + 1, width=3.3 * (count + 1) + 0.8, height=4.0) as (figure, axes):
        for axis, rho in zip(axes[0], config.balances, strict=False):
            mesh = _draw_map(axis, paper[paper[Column.BALANCE] == rho])
            axis.set_title(f"balance rho = {rho:g}")
        axes[0][0].set_ylabel("cost of a demonstration, in prompts")
        bar = figure.colorbar(mesh, ax=list(axes[0][:count]), location="left", shrink=0.9, pad=0.02)
        bar.set_label("best share of the budget on SFT")
        _draw_winners(axes[0][-1], table, config)
        caption(
            figure,
            f"exact theory, d = {config.dimension}, best penalty in each stage; maps: m = d/2, eta = 0.2, "
            f"r = 0.01, n = 3d; right: {config.seeds} random settings, demonstrations as dear as prompts",
        )
    return figure


def _draw_map(axis: Axes, rows: pd.DataFrame) -> QuadMesh:
    best = rows.loc[rows.groupby([Column.COST, Column.BUDGET])[Column.PREDICTED].idxmin()]
    grid = best.pivot_table(index=Column.COST, columns=Column.BUDGET, values=Column.SHARE)
    x, y = grid.columns.to_numpy(dtype=float), grid.index.to_numpy(dtype=float)
    mesh = axis.pcolormesh(
        x, y, grid.to_numpy(), vmin=0, vmax=1, cmap="cividis", shading="nearest", rasterized=True
    )
    edges = [np.exp(cell_edges(np.log(v))).tolist() for v in (x, y)]
    values = grid.to_numpy().tolist()
    record_cells(axis, Cells(edges[0], edges[1], x.tolist(), y.tolist(), values, "best share of SFT"))
    plain_log_ticks(axis, (0.1, 0.3, 1, 3, 10, 30))
    log_y(axis)
    axis.grid(visible=False)
    axis.set_xlabel("budget, in prompts / d")
    return mesh


def _draw_winners(axis: Axes, table: pd.DataFrame, config: Budgets) -> None:
    """Shares of the random settings in which SFT alone, both, or outcome supervision alone is best."""
    x = best_shares(table, OWN, 1.0)
    same = best_shares(table, SAME, 1.0)
    budgets = x.columns.to_numpy(dtype=float)
    curves = (
        ("SFT alone", (x == 1).mean()),
        ("SFT, then outcome", ((x > 0) & (x < 1)).mean()),
        ("outcome alone", (x == 0).mean()),
        ("SFT alone, same covariance", (same == 1).mean()),
    )
    for look, (name, values) in zip(LOOKS, curves, strict=True):
        draw_theory(axis, budgets, values.to_numpy(dtype=float), look, name, marker=look.marker)
    plain_log_ticks(axis, config.budgets)
    axis.set(xlabel="budget, in prompts / d", ylim=(-0.03, 1.03), title="who is best, random settings")
    axis.set_ylabel("share of settings")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=7.5)


def errors_by_share(table: pd.DataFrame, design: str, cost: float) -> pd.DataFrame:
    """Errors / d of the random settings: rows (seed, budget), a column a share."""
    rows = table[(table[Column.PANEL] == design) & (table[Column.COST] == cost)]
    return rows.pivot_table(index=[Column.SEED, Column.BUDGET], columns=Column.SHARE, values=Column.PREDICTED)


def best_shares(table: pd.DataFrame, design: str, cost: float) -> pd.DataFrame:
    """The best share of SFT: a row a setting, a column a budget; 0 wins ties."""
    return errors_by_share(table, design, cost).idxmin(axis=1).unstack(Column.BUDGET)


def _law(x: pd.DataFrame) -> pd.Series:
    """Per setting: SFT alone at the smallest budget, below half of it at the largest, never rising."""
    values = x.to_numpy(dtype=float)
    falls = (np.diff(values, axis=1) <= 0).all(axis=1)
    return pd.Series((values[:, 0] == 1) & (values[:, -1] < 0.5) & falls, index=x.index)


def budget_law(saved: Saved[Budgets], threshold: float) -> Judgement:
    x = {cost: best_shares(saved.table, OWN, cost) for cost in saved.config.costs}
    parts = []
    for cost, best in x.items():
        mean = ", ".join(f"{v:.2f}" for v in best.mean())
        parts.append(f"at cost {cost:g} in {_law(best).mean():.2f}, mean best shares {mean}")
    note = "; ".join(parts) + f" at budgets {', '.join(f'{b:g}' for b in saved.config.budgets)} (/ d)"
    return judge_share(_law(x[1.0]).to_numpy(), threshold, note=note)


def same_prompts(saved: Saved[Budgets], threshold: float) -> Judgement:
    x = best_shares(saved.table, SAME, 1.0)
    first = errors_by_share(saved.table, SAME, 1.0)
    ratio = (first[1.0] / first[0.0]).groupby(Column.BUDGET).median()
    note = (
        "prompts of the target in both stages, so SFT differs by its step eta alone: SFT alone is best in "
        + ", ".join(f"{(x[b] == 1).mean():.2f} at {b:g}" for b in x.columns)
        + "; median error of SFT over outcome "
        + ", ".join(f"{v:.2f}" for v in ratio)
        + "; on eta Sigma instead of Sigma the two are one and the same (claim sft-is-outcome-rescaled)"
    )
    return judge_share(_law(x).to_numpy(), threshold, note=note)


def mixture_wins(saved: Saved[Budgets], threshold: float) -> Judgement:
    parts, held = [], np.zeros(0, dtype=bool)
    for cost in saved.config.costs:
        errors = errors_by_share(saved.table, OWN, cost)
        gain = errors[[0.0, 1.0]].min(axis=1) / errors.min(axis=1)
        large = gain.xs(_LARGE, level=Column.BUDGET)
        worst = ", ".join(f"{v:.2f}" for v in gain.groupby(Column.BUDGET).max())
        parts.append(f"at cost {cost:g} by 1 percent in {(large >= _NOTICEABLE).mean():.2f}, most by {worst}")
        held = (large >= _NOTICEABLE).to_numpy() if cost == 1 else held
    note = "; ".join(parts) + " (largest ratio of the better alone to the mixture, by budget)"
    return judge_share(held, threshold, note=note)


def cold_start(saved: Saved[Budgets], threshold: float) -> Judgement:
    parts, held = [], np.zeros(0, dtype=bool)
    for cost in saved.config.costs:
        errors = errors_by_share(saved.table, OWN, cost)
        ratio = errors[_COLD] / errors[0.0]
        large = ratio.xs(_LARGE, level=Column.BUDGET)
        by_budget = ", ".join(f"{v:.2f}" for v in (ratio < 1).groupby(Column.BUDGET).mean())
        parts.append(f"cost {cost:g}: lower in {by_budget} by budget, ratio at {_LARGE:g}d {spread(large)}")
        held = (large < 1).to_numpy() if cost == 1 else held
    return judge_share(held, threshold, note="; ".join(parts))


_TEST = "tests/studies/training_time/test_budgets.py::"
_SETTING = f"exact theory, best penalty in each stage, {DRAWN}; {POWER}"
CLAIMS = (
    Claim(
        "budgets-law",
        "arXiv 2502.11284, (i) and (ii)",
        "SFT alone is best for a small annotation budget (d/8 rows), its best share never rises with "
        "the budget, and "
        "falls below half for a large one (32d), a demonstration being as dear as a prompt.",
        _SETTING,
        "share of settings where all three hold",
        0.5,
        budget_law,
        _TEST + "test_the_law_needs_all_three_parts",
    ),
    Claim(
        "budgets-same-prompts",
        "ours",
        "The law of budgets does not need prompts of different covariance: it holds with the target's "
        "in both stages.",
        _SETTING,
        "share of settings where the law holds with prompts of the target in both stages",
        0.5,
        same_prompts,
        _TEST + "test_the_law_needs_all_three_parts",
    ),
    Claim(
        "budgets-mixture",
        "arXiv 2502.11284, combination at larger budgets",
        "With a large budget (8d rows) SFT and then outcome supervision beats either alone by 1 "
        "percent or more.",
        _SETTING,
        "share of settings where it does, a demonstration being as dear as a prompt",
        0.5,
        mixture_wins,
        _TEST + "test_a_mixture_has_to_beat_both",
    ),
    Claim(
        "budgets-cold-start",
        "arXiv 2502.11284, (iii) cold start",
        "A tenth of a large budget (8d rows) on SFT first lowers the error against outcome supervision "
        "alone.",
        _SETTING + "; outcome supervision at k = 1 regresses on the truth and has no exploration to start",
        "share of settings where it does, a demonstration being as dear as a prompt",
        0.5,
        cold_start,
        _TEST + "test_a_cold_start_is_a_tenth_against_none",
    ),
)
STUDY = Study(
    name=NAME,
    title="How much of a budget for SFT, how much for outcome supervision?",
    story=(
        "With each stage stopped well it is nearly either-or: demonstrations where rows are few or "
        "demonstrations "
        "cheap, outcome supervision where rows are many. A mixture pays in a narrow band between, and "
        "then little."
    ),
    experiment=Budgets,
    draw=draw_budgets,
    claims=CLAIMS,
)
