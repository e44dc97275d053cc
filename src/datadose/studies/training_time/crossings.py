"""Up to how many rows SFT is ahead of outcome supervision, over r, rho and n; and the best split over "
"both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.curves import level, log_y, plain_log_ticks
from datadose.drawing.style import LOOKS, Look, caption, draw_theory, new_grid
from datadose.shapes import Array
from datadose.studies.ledger import judge_share
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study
from datadose.studies.tables import THEORY, Setting, SettingsExperiment
from datadose.studies.training_time.outcome_cells import OUTCOME, SFT
from datadose.studies.training_time.settings import (
    DRAWN,
    POWER,
    Column,
    paper_setting,
    random_setting,
    spread,
)
from datadose.studies.training_time.two_stages import best_penalties, best_penalty, time_path
from datadose.sweep import Cell
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.training_time import trained

NAME = "crossings"
PENALTY, TIME, CONVERGED = "best penalty", "best time", "converged"
RULES = (PENALTY, TIME, CONVERGED)
CEILING, PRICE = "ceiling", "price of scarcity"
RANDOM, PAPER, SPLIT = "random", "paper", "best split"
_TIMES = 32
"""A time is then known to a half, and the least error, which is flat there, to a few percent."""
_UNLIMITED = 1e6
_SHARES = tuple(float(x) for x in np.linspace(0, 1, 21).round(4))
_GAIN = 1.05
_NEAR = (0.5, 2.0)


def compare(
    dimension: int, rho: float, interference: float, length: int, counts: tuple[float, ...]
) -> list[list[object]]:
    """Cell: stage, rule, B / d and error / d of both stages in the paper's setting with prompts of "
    "``length``."""
    setting = replace(paper_setting(dimension, rho, 0.2, interference), length=length)
    found: list[list[object]] = []
    rows = dimension * np.asarray(counts)
    for stage, prompts in ((SFT, setting.sft), (OUTCOME, setting.outcome)):
        best = best_penalty(setting.start, prompts, rows, setting.test).error
        converged = setting.test.error(prompts.train(setting.start, rows, 0.0))
        for B, tuned, last in zip(rows, best, converged, strict=True):
            times = setting.test.error(time_path(setting, float(B), _TIMES, prompts).states)
            values = (tuned, times.min(), last)
            found += [[stage, rule, B / dimension, float(e)] for rule, e in zip(RULES, values, strict=True)]
    return found


def scarcity(seed: int, dimension: int) -> list[list[object]]:
    """Cell: ceiling F* and price G / d of both stages in one random setting.

    With the best penalty the error past a ceiling is about (G / d) / (B / d).
    """
    setting = random_setting(seed, dimension)
    found: list[list[object]] = []
    for stage, prompts in ((SFT, setting.sft), (OUTCOME, setting.outcome)):
        top = best_penalty(setting.start, prompts, _UNLIMITED**2 * dimension, setting.test)
        mu, rows = float(top.first[0]), _UNLIMITED * dimension
        excess = setting.test.error(prompts.train(setting.start, rows, mu)) - top.error[0]
        price = float(excess * (rows - prompts.degrees(mu)[1]) / dimension)
        found += [[stage, CEILING, None, float(top.error[0])], [stage, PRICE, None, price]]
    return found


def one_after_the_other(
    dimension: int, rho: float, pretraining: float | None, cost: float, budgets: tuple[float, ...]
) -> list[list[object]]:
    """Cell: stage, rule (share of SFT), budget / d and the least error, after ``pretraining`` d prompts.

    None is unlimited pretraining; fewer prompts are trained to convergence from V = 0.
    """
    setting = paper_setting(dimension, rho)
    start = setting.start
    if pretraining is not None:
        source = Source(setting.sigma0, setting.length, round(pretraining * dimension))
        model = trained(np.zeros(dimension), 1.0, [source], Stopping())
        start = setting.states([model]).at(0)
    found: list[list[object]] = []
    shares = np.asarray(_SHARES)
    for b in budgets:
        rows = b * dimension
        first, second = shares * rows / cost, (1 - shares) * rows
        best = best_penalties(start, setting.sft, first, setting.outcome, second, setting.test)
        found += [["sft then outcome", x, b, float(e)] for x, e in zip(_SHARES, best.error, strict=True)]
    return found


@dataclass(frozen=True)
class Crossings(SettingsExperiment):
    """The paper's setting on a grid of B over r, rho and n; prices in random ones; the best split over "
    "rho."""

    figure, columns = NAME, Column
    measured = (Column.STAGE, Column.RULE, Column.BUDGET, Column.PREDICTED)

    dimension: int
    seeds: int
    counts: tuple[float, ...]
    interferences: tuple[float, ...]
    balances: tuple[float, ...]
    lengths: tuple[float, ...]
    """n / d."""
    split_balances: tuple[float, ...]
    pretraining: tuple[float | None, ...]
    """Prompts over d, converged from V = 0; None is unlimited."""
    costs: tuple[float, ...]
    budgets: tuple[float, ...]
    first_seed: int = 0

    @classmethod
    def preset(cls, name: Preset) -> Crossings:
        """The configuration of a preset."""
        if name == "smoke":
            counts, two = (0.2, 0.6, 2.0, 8.0), (0.1, 0.5)
            return cls(24, 3, counts, (0.01, 0.1), (0.1,), (1.0, 3.0), two, (None,), (1.0,), (1.0,))
        more = name == "paper"
        places = np.geomspace(0.1, 30, 37 if more else 19)
        places = np.where(abs(places - 1) < 0.1, 0.85, places)
        return cls(
            120,
            1000 if more else 200,
            _digits(places),
            _digits(np.geomspace(0.002, 0.15, 13 if more else 6)),
            (0.05, 0.1, 0.5),
            _digits(np.geomspace(0.5, 10, 11 if more else 6)),
            _digits(np.geomspace(0.02, 1, 17 if more else 7)),
            (1.5, 4.0, None),
            (0.3, 1.0),
            (0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
        )

    def settings(self) -> Iterator[Setting]:
        """The random settings, the paper's, and the best split."""
        d, ours = self.dimension, {Column.MODEL: THEORY}
        for seed in range(self.first_seed, self.first_seed + self.seeds):
            cell = Cell(scarcity, {"seed": seed, "dimension": d})
            yield cell, {Column.PANEL: RANDOM, Column.SEED: seed, **ours}
        places = [(rho, r, 3 * d) for rho, r in product(self.balances, self.interferences)]
        places += [(0.1, 0.01, round(n * d)) for n in (*self.lengths, 3)]
        for rho, r, n in dict.fromkeys(places):
            arguments: dict[str, Any] = {"dimension": d, "rho": rho, "interference": r, "length": n}
            cell = Cell(compare, {**arguments, "counts": self.counts})
            shared: dict[str, Any] = {Column.BALANCE: rho, Column.INTERFERENCE: r, Column.LENGTH: n}
            yield cell, {Column.PANEL: PAPER, **shared, **ours}
        for rho, B0, cost in product(self.split_balances, self.pretraining, self.costs):
            arguments = {"dimension": d, "rho": rho, "pretraining": B0, "cost": cost}
            cell = Cell(one_after_the_other, {**arguments, "budgets": self.budgets})
            before = None if B0 is None else B0 * d
            shared = {Column.BALANCE: rho, Column.PROMPTS: before, Column.COST: cost}
            yield cell, {Column.PANEL: SPLIT, **shared, **ours}


def _digits(values: Array) -> tuple[float, ...]:
    return tuple(float(f"{v:.3g}") for v in values)


def log_ratio(rows: pd.DataFrame, rule: str, by: str) -> pd.DataFrame:
    """Log of SFT's error over that of outcome supervision: a row each of ``by``, a column a B / d."""
    rows = rows[rows[Column.RULE] == rule]
    index = [by, Column.BUDGET]
    errors = rows.pivot_table(index=index, columns=Column.STAGE, values=Column.PREDICTED)
    return np.log(errors[SFT] / errors[OUTCOME]).unstack(Column.BUDGET)


def crossing(ratio: pd.Series) -> float:
    """The largest B / d up to which SFT wins without a break; NaN if it never does, inf if always."""
    values, places = ratio.to_numpy(float), np.log(ratio.index.to_numpy(float))
    if values[0] >= 0:
        return float("nan")
    if (values < 0).all():
        return float("inf")
    i = int(np.argmax(values >= 0))
    share = values[i - 1] / (values[i - 1] - values[i])
    return float(np.exp(places[i - 1] + share * (places[i] - places[i - 1])))


def gains(table: pd.DataFrame, cost: float) -> pd.DataFrame:
    """The better of SFT and outcome alone over the best split: a row (B0, rho), a column a budget.

    B0 is infinite for unlimited pretraining.
    """
    rows = table[(table[Column.PANEL] == SPLIT) & (table[Column.COST] == cost)]
    rows = rows.assign(**{Column.PROMPTS: rows[Column.PROMPTS].fillna(np.inf)})
    rows = rows.assign(**{Column.RULE: rows[Column.RULE].astype(float)})
    index = [Column.PROMPTS, Column.BALANCE, Column.BUDGET]
    errors = rows.pivot_table(index=index, columns=Column.RULE, values=Column.PREDICTED)
    return (errors[[0.0, 1.0]].min(axis=1) / errors.min(axis=1)).unstack(Column.BUDGET)


def draw_crossings(table: pd.DataFrame, config: Crossings) -> Figure:
    """Error of either over B; where they cross over r and over n; what the order gains over the balance."""
    paper = table[table[Column.PANEL] == PAPER]
    with new_grid(2, 2, width=10.5, height=8.0) as (figure, axes):
        _draw_errors(axes[0][0], paper, config)
        same = paper[(paper[Column.LENGTH] == 3 * config.dimension) & (paper[Column.INTERFERENCE] != 0.01)]
        for look, rho in zip(LOOKS, config.balances, strict=False):
            rows = same[same[Column.BALANCE] == rho]
            _draw_crossings(axes[0][1], rows, Column.INTERFERENCE, ((PENALTY, look, f"rho = {rho:g}"),))
        axes[0][1].set(xlabel="interference r", title="where they cross, best penalty")
        axes[0][1].legend(loc="best")
        rows = paper[(paper[Column.BALANCE] == 0.1) & (paper[Column.INTERFERENCE] == 0.01)]
        rows = rows.assign(**{Column.LENGTH: rows[Column.LENGTH] / config.dimension})
        curves = tuple((rule, look, rule) for look, rule in zip(LOOKS, RULES, strict=False))
        _draw_crossings(axes[1][0], rows, Column.LENGTH, curves)
        axes[1][0].set(xlabel="prompt length n / d", title="where they cross, rho = 0.1")
        axes[1][0].legend(loc="best")
        _draw_gains(axes[1][1], table, config)
        caption(
            figure,
            f"exact theory, d = {config.dimension}, m = d/2, eta = 0.2, r = 0.01 and n = 3d unless on the "
            "axis; below a crossing SFT wins, above it outcome supervision does",
        )
    return figure


def _draw_errors(axis: Axes, paper: pd.DataFrame, config: Crossings) -> None:
    chosen = (paper[Column.BALANCE] == 0.1) & (paper[Column.INTERFERENCE] == 0.01)
    rows = paper[chosen & (paper[Column.LENGTH] == 3 * config.dimension)]
    dashes = dict(zip(RULES, ("-", (0, (4, 2)), (0, (1, 1.5))), strict=True))
    for look, stage in zip(LOOKS, (SFT, OUTCOME), strict=False):
        of_stage = rows[rows[Column.STAGE] == stage]
        for rule in RULES:
            line = of_stage[of_stage[Column.RULE] == rule].sort_values(Column.BUDGET)
            drawn = replace(look, dash=dashes[rule])
            draw_theory(axis, line[Column.BUDGET], line[Column.PREDICTED], drawn, f"{stage}, {rule}")
    axis.set_xscale("log")
    log_y(axis)
    axis.set(xlabel="prompts B / d", ylabel="error / d", ylim=(0.2, 20))
    axis.set_title("SFT and outcome supervision, rho = 0.1")
    axis.legend(loc="best", fontsize=7.5, ncols=2)


def _draw_crossings(axis: Axes, rows: pd.DataFrame, by: str, curves: Sequence[tuple[str, Look, str]]) -> None:
    for rule, look, label in curves:
        found = log_ratio(rows, rule, by).apply(crossing, axis=1)
        draw_theory(axis, found.index.to_numpy(), found.to_numpy(), look, label, marker=look.marker)
    axis.set_xscale("log")
    log_y(axis)
    axis.set(ylabel="B / d up to which SFT wins", ylim=(0.2, 3))


def _draw_gains(axis: Axes, table: pd.DataFrame, config: Crossings) -> None:
    for cost, dash in zip(config.costs, ("-", (0, (4, 2))), strict=False):
        most = gains(table, cost).max(axis=1).unstack(Column.PROMPTS)
        for look, B0 in zip(LOOKS, most.columns, strict=False):
            name = "unlimited" if np.isinf(B0) else f"{B0 / config.dimension:g}d"
            # Equal costs gain nothing at all: their lines are one, and named once.
            label = f"pretrained on {name} prompts" if cost == config.costs[0] else f"_{name}, cost {cost:g}"
            drawn = replace(look, dash=dash)
            draw_theory(axis, most.index.to_numpy(), most[B0].to_numpy(), drawn, label, marker=look.marker)
    level(axis, 1.0)
    axis.set_xscale("log")
    plain_log_ticks(axis, (0.02, 0.05, 0.1, 0.2, 0.5, 1))
    axis.set(
        xlabel="balance of pretraining rho", ylabel="the better alone / the best split", ylim=(0.98, 1.25)
    )
    costs = f"solid: demonstrations cost {config.costs[0]:g} prompts; dashed: {config.costs[-1]:g}"
    axis.set_title(f"what the order gains, at its best budget\n{costs}", fontsize=10)
    axis.legend(loc="upper right")


def near_the_rank(saved: Saved[Crossings], threshold: float) -> Judgement:
    paper = saved.table[saved.table[Column.PANEL] == PAPER]
    keys = [Column.BALANCE, Column.INTERFERENCE, Column.LENGTH]
    groups = [(f"rho {rho:g}, r {r:g}, n {n:g}", rows) for (rho, r, n), rows in paper.groupby(keys)]
    parts, held = [], np.zeros(0, dtype=bool)
    for rule in RULES:
        found = [crossing(log_ratio(rows, rule, Column.LENGTH).iloc[0]) for _, rows in groups]
        won = [(x, name) for x, (name, _) in zip(found, groups, strict=True) if not np.isnan(x)]
        low, high = min(won, default=(np.nan, "")), max(won, default=(np.nan, ""))
        parts.append(
            f"{rule}: SFT is ahead at first in {len(won)} of {len(groups)}, up to B / d of {low[0]:.2f} "
            f"({low[1]}) to {high[0]:.2f} ({high[1]})"
        )
        if rule == PENALTY:
            held = np.array([_NEAR[0] <= x <= _NEAR[1] for x, _ in won])
    if len(held) == 0:
        return Judgement(None, None, 0, "mixed", "SFT is ahead nowhere")
    return judge_share(held, threshold, note="; ".join(parts))


def cheaper_scarcity(saved: Saved[Crossings], threshold: float) -> Judgement:
    rows = saved.table[saved.table[Column.PANEL] == RANDOM]
    wide = rows.pivot_table(index=Column.SEED, columns=[Column.RULE, Column.STAGE], values=Column.PREDICTED)
    price, top = wide[PRICE][SFT] / wide[PRICE][OUTCOME], wide[CEILING][SFT] / wide[CEILING][OUTCOME]
    note = f"price of SFT over that of outcome supervision: {spread(price)}; ceilings: {spread(top)}"
    note += ", at least 1 always, as outcome supervision on unlimited prompts is the best of all models"
    return judge_share((price < 1).to_numpy(), threshold, note=note)


def order_gains(saved: Saved[Crossings], threshold: float) -> Judgement:
    parts, held = [], np.zeros(0, dtype=bool)
    for cost in saved.config.costs:
        gain = gains(saved.table, cost)
        most = gain.max(axis=1)
        for B0, of in most.groupby(Column.PROMPTS):
            name = "unlimited" if np.isinf(B0) else f"{B0 / saved.config.dimension:g}d"
            at = ", ".join(f"{rho:g}: {v:.2f}" for (_, rho), v in of.items())
            parts.append(f"cost {cost:g}, {name} prompts of pretraining: {at}")
        held = (most >= _GAIN).to_numpy() if cost == 1 else held
    note = "the better alone over the best split, at its best budget, by rho; " + "; ".join(parts)
    return judge_share(held, threshold, note=note)


_TEST = "tests/studies/training_time/test_crossings.py::"
_GRID = (
    "exact theory, the paper's two blocks with d=120, m=60, eta=.2; the grid is fixed, the interval a guide"
)
CLAIMS = (
    Claim(
        "crossings-near-rank",
        "section 3, exact at every B",
        "Where SFT is ahead of outcome supervision at first, each with its best penalty, it is overtaken "
        "between d/2 "
        "and 2d prompts: near one a direction, whatever r, rho and n.",
        _GRID + "; r .002 to .15 at rho .05, .1 and .5, and n d/2 to 10d",
        "share of these settings where it is",
        0.5,
        near_the_rank,
        _TEST + "test_a_crossing_has_to_be_near_the_rank",
    ),
    Claim(
        "crossings-scarcity",
        "ours",
        "SFT wins where rows are few because its price of scarcity is the lower.",
        f"exact theory at the penalty of the ceiling, {DRAWN}; {POWER}",
        "share of settings where SFT's price G is the lower",
        0.5,
        cheaper_scarcity,
        _TEST + "test_prices_are_compared_per_setting",
    ),
    Claim(
        "stages-best-split",
        "sections 1 and 7 (synergy)",
        "At equal rows the best split between SFT and then outcome supervision beats the better of the "
        "two alone by "
        "5 percent at some budget.",
        _GRID
        + "; r=.01, n=360, rho .02 to 1; pretraining on 1.5d, 4d and unlimited prompts; budgets d/4 to 8d",
        "share of (rho, prompts of pretraining) where it does, a demonstration being as dear as a prompt",
        0.5,
        order_gains,
        _TEST + "test_the_order_has_to_gain",
    ),
)
STUDY = Study(
    name=NAME,
    title="Up to how many rows is SFT ahead of outcome supervision?",
    story=(
        "Up to about one row a direction if both are stopped well, and to a third of that at "
        "convergence. The best "
        "split over both gains nothing at equal rows, and up to 15 percent where demonstrations are cheap."
    ),
    experiment=Crossings,
    draw=draw_crossings,
    claims=CLAIMS,
)
