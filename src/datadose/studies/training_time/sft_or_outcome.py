"""SFT against outcome supervision at k = 1, exact at every number of rows: ceilings, and where they cross."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from datadose.drawing.curves import level, log_y, plain_log_ticks
from datadose.drawing.style import LOOKS, Look, caption, draw_theory, new_grid
from datadose.studies.ledger import judge_share, judge_worst
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study
from datadose.studies.tables import THEORY, Setting, as_table
from datadose.studies.training_time.outcome_cells import (
    BOTH,
    CONVERGED,
    OUTCOME,
    PENALTY,
    SFT,
    TIME,
    UNLIMITED,
    Column,
    balanced,
    lengths_of_paper,
    rescaled,
    rows_of_paper,
    rows_of_random,
)
from datadose.studies.training_time.settings import DRAWN, POWER, spread
from datadose.sweep import Cell

NAME = "sft_or_outcome"
RANDOM, PAPER, LENGTHS, SAME, BALANCE = "random", "paper", "lengths", "rescaled", "balance"
_FEW, _MANY, _PEAK = 0.25, 32.0, 1.0
_ARM = (Column.STAGE, Column.RULE, Column.BUDGET, Column.PREDICTED)


@dataclass(frozen=True)
class SftOrOutcome:
    """Random settings over rows; the paper's over rows, lengths, and balance with finite pretraining."""

    dimension: int
    seeds: int
    budgets: tuple[float, ...]
    paper_budgets: tuple[float, ...]
    lengths: tuple[float, ...]
    balances: tuple[float, ...]
    pretraining: tuple[float, ...]
    costs: tuple[float, ...]
    first_seed: int = 0

    @classmethod
    def preset(cls, name: Preset) -> SftOrOutcome:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(
                24, 4, (0.25, 2.0, 32.0), (0.25, 4.0), (1.0, 4.0), (0.1, 1.0), (4.0, UNLIMITED), (1.0,)
            )
        many = name != "quick"
        places = np.geomspace(0.05, 32, 61 if many else 25)
        paper = tuple(float(f"{b:.4g}") for b in places if abs(b - 1) > 0.05)
        budgets = (0.0625, 0.125, 0.25, 0.5, 0.75, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0)
        balances = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
        lengths = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
        costs = (0.3, 1.0, 3.0)
        return cls(
            120, 1000 if many else 200, budgets, paper, lengths, balances, (2.0, 10.0, UNLIMITED), costs
        )

    def settings(self) -> Iterator[tuple[Setting, tuple[str, ...]]]:
        """Cells with what their rows share and the columns of what they return."""
        d = self.dimension
        for seed in range(self.first_seed, self.first_seed + self.seeds):
            cell = Cell(rows_of_random, {"seed": seed, "dimension": d, "budgets": self.budgets})
            yield (cell, {Column.PANEL: RANDOM, Column.SEED: seed}), _ARM
        for seed in range(self.first_seed, self.first_seed + min(self.seeds, 30)):
            cell = Cell(rescaled, {"seed": seed, "dimension": d, "budgets": self.budgets[::3]})
            found = (Column.BUDGET, Column.ERROR, Column.PREDICTED)
            yield (cell, {Column.PANEL: SAME, Column.SEED: seed}), found
        cell = Cell(rows_of_paper, {"dimension": d, "budgets": self.paper_budgets})
        yield (cell, {Column.PANEL: PAPER}), _ARM
        arguments = {"dimension": d, "lengths": self.lengths, "budgets": (_FEW, 8.0)}
        yield (
            (Cell(lengths_of_paper, arguments), {Column.PANEL: LENGTHS}),
            (*_ARM, Column.SHARE),
        )
        for rho in self.balances:
            for rows in self.pretraining:
                for cost in self.costs:
                    arguments = {"dimension": d, "rho": rho, "pretraining": rows, "cost": cost}
                    cell = Cell(balanced, {**arguments, "budgets": (0.5, 2.0, 8.0)})
                    shared = {Column.BALANCE: rho, Column.PRETRAINING: rows, Column.COST: cost}
                    yield (cell, {Column.PANEL: BALANCE, **shared}), _ARM

    def cells(self) -> list[Cell]:
        """The cell of each setting."""
        return [cell for (cell, _), _ in self.settings()]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """A row for each row of the results."""
        rows = [
            {Column.FIGURE: NAME, Column.MODEL: THEORY, **shared, **dict(zip(columns, values, strict=True))}
            for ((_, shared), columns), found in zip(self.settings(), results, strict=True)
            for values in found
        ]
        return as_table(rows, Column)


def curves(table: pd.DataFrame, stage: str, rule: str) -> pd.DataFrame:
    """Errors / d in the random settings: a row a setting, a column a number of rows / d; 0 is unlimited."""
    rows = table[
        (table[Column.PANEL] == RANDOM) & (table[Column.STAGE] == stage) & (table[Column.RULE] == rule)
    ]
    return rows.pivot_table(index=Column.SEED, columns=Column.BUDGET, values=Column.PREDICTED)


def crossing(sft: pd.Series, outcome: pd.Series) -> float:
    """Rows / d at which outcome supervision overtakes SFT, interpolated in logarithms; NaN if not once."""
    x = np.array([b for b in sft.index if b > 0])
    gap = np.log(sft[x].to_numpy() / outcome[x].to_numpy())
    turns = np.flatnonzero((gap[:-1] < 0) & (gap[1:] >= 0))
    if len(turns) != 1 or (np.diff(np.sign(gap)) != 0).sum() != 1:
        return float("nan")
    i = int(turns[0])
    return float(np.exp(np.interp(0, gap[i : i + 2], np.log(x[i : i + 2]))))


def same_estimator(saved: Saved[SftOrOutcome], threshold: float) -> Judgement:
    rows = saved.table[saved.table[Column.PANEL] == SAME]
    off = (rows[Column.ERROR] / rows[Column.PREDICTED] - 1).abs().to_numpy(dtype=float)
    note = "V Phi + eta Omega = eta (V Phi' + Omega) with Phi' of covariance A / eta; times are eta^2 as long"
    return judge_worst(off, threshold, note=note)


def few_sft_many_outcome(saved: Saved[SftOrOutcome], threshold: float) -> Judgement:
    table = saved.table
    sft, outcome = (curves(table, stage, PENALTY) for stage in (SFT, OUTCOME))
    held = (sft[_FEW] < outcome[_FEW]) & (sft[_MANY] > outcome[_MANY])
    cross = np.array([crossing(sft.loc[i], outcome.loc[i]) for i in sft.index])
    # Unlimited rows are column 0; the price of scarcity is what the most rows still lack, times those rows.
    ceilings = sft[0.0] / outcome[0.0]
    scarcity = (sft[_MANY] - sft[0.0]) / (outcome[_MANY] - outcome[0.0])
    at_end = {stage: curves(table, stage, CONVERGED) for stage in (SFT, OUTCOME)}
    last = (at_end[SFT][_FEW] < at_end[OUTCOME][_FEW]) & (at_end[SFT][_MANY] > at_end[OUTCOME][_MANY])
    note = (
        f"ceilings F* of SFT over outcome {spread(ceilings)}, above 1 in {(ceilings > 1).mean():.2f}; "
        "prices of scarcity "
        f"{spread(scarcity)}, below 1 in {(scarcity < 1).mean():.2f}; they cross once in "
        f"{np.isfinite(cross).mean():.2f}, "
        f"at B/d {spread(cross[np.isfinite(cross)])}; at convergence the same signs in "
        f"{last.mean():.2f}, ratio at "
        f"{_MANY:g}d {spread(at_end[SFT][_MANY] / at_end[OUTCOME][_MANY])}"
    )
    return judge_share(held.to_numpy(), threshold, note=note)


def _best_is_few(errors: pd.DataFrame) -> NDArray[np.bool_]:
    rows = errors[[b for b in errors if b > 0]]
    return np.asarray(rows.idxmin(axis=1) < _PEAK)


def convergence_contrast(saved: Saved[SftOrOutcome], threshold: float) -> Judgement:
    table = saved.table
    few = {stage: _best_is_few(curves(table, stage, CONVERGED)) for stage in (SFT, OUTCOME)}
    tuned = {stage: _best_is_few(curves(table, stage, PENALTY)) for stage in (SFT, OUTCOME)}
    lengths = table[table[Column.PANEL] == LENGTHS]
    parts = []
    for (rule, stage, b), rows in lengths.groupby([Column.RULE, Column.STAGE, Column.BUDGET]):
        errors = rows.sort_values(Column.SHARE)[Column.PREDICTED]
        parts.append(f"{rule} {stage} at {b:g}d rows {errors.iloc[0]:.3g} to {errors.iloc[-1]:.3g}")
    first, last = lengths[Column.SHARE].min(), lengths[Column.SHARE].max()
    note = (
        f"the least error is below the peak in {few[SFT].mean():.2f} for SFT and "
        f"{few[OUTCOME].mean():.2f} for outcome "
        f"at convergence, in {tuned[SFT].mean():.2f} and {tuned[OUTCOME].mean():.2f} at the best "
        "penalty; in the "
        f"paper's setting from prompts of {first:g}d to {last:g}d examples: {'; '.join(parts)}"
    )
    return judge_share(few[SFT] & ~few[OUTCOME], threshold, note=note)


def synergy(saved: Saved[SftOrOutcome], threshold: float) -> Judgement:
    rows = saved.table[saved.table[Column.PANEL] == BALANCE]
    keys = [Column.PRETRAINING, Column.COST, Column.BUDGET, Column.BALANCE]
    wide = rows.pivot_table(index=keys, columns=Column.STAGE, values=Column.PREDICTED)
    gain = wide[[SFT, OUTCOME]].min(axis=1) / wide[BOTH]
    level_of = gain.index.get_level_values
    equal = gain[level_of(Column.COST) == 1]
    by_rho = ", ".join(f"{v:.2f}" for v in equal.groupby(Column.BALANCE).max())
    by_cost = "; ".join(
        f"cost {c:g}: {(g > 1).mean():.2f}, most {g.max():.2f}" for c, g in gain.groupby(Column.COST)
    )
    finite = equal[equal.index.get_level_values(Column.PRETRAINING) < UNLIMITED]
    note = (
        f"half the budget each; better of either alone over both, most by rho {by_rho}; {by_cost}; "
        "after finite "
        f"pretraining {(finite > 1).mean():.2f}, most {finite.max():.2f}"
    )
    return judge_share((equal > 1).to_numpy(), threshold, note=note)


def draw_sft_or_outcome(table: pd.DataFrame, config: SftOrOutcome) -> Figure:
    """Errors over rows and lengths in the paper's setting, and the order of both against either alone."""
    with new_grid(1, 3, width=13.0, height=4.2) as (figure, axes):
        left, middle, right = axes[0]
        paper = table[table[Column.PANEL] == PAPER]
        for color, stage in zip((LOOKS[0].color, LOOKS[1].color), (SFT, OUTCOME), strict=True):
            for look, rule in zip(LOOKS, (PENALTY, TIME, CONVERGED), strict=False):
                rows = paper[(paper[Column.STAGE] == stage) & (paper[Column.RULE] == rule)]
                drawn = Look(color, look.dash, "")
                draw_theory(left, rows[Column.BUDGET], rows[Column.PREDICTED], drawn, f"{stage}, {rule}")
        left.set_ylim(0.1, 110)
        log_y(left)
        plain_log_ticks(left, (0.1, 0.3, 1, 3, 10, 30))
        left.set(xlabel="rows B / d", ylabel="error / d", title="rows")
        left.legend(loc="lower left", fontsize=7.5)
        _draw_lengths(middle, table)
        _draw_balance(right, table)
        caption(
            figure,
            f"exact theory, d = {config.dimension}, m = d/2, eta = 0.2, r = 0.01, rho = 0.1 and n = 3d "
            "unless on the "
            "axis; outcome supervision at k = 1",
        )
    return figure


def _draw_lengths(axis: Axes, table: pd.DataFrame) -> None:
    rows = table[(table[Column.PANEL] == LENGTHS) & (table[Column.RULE] == PENALTY)]
    for color, stage in zip((LOOKS[0].color, LOOKS[1].color), (SFT, OUTCOME), strict=True):
        for look, b in zip(LOOKS, sorted(rows[Column.BUDGET].unique()), strict=False):
            part = rows[(rows[Column.STAGE] == stage) & (rows[Column.BUDGET] == b)]
            name = f"{stage}, {b:g} d rows"
            draw_theory(axis, part[Column.SHARE], part[Column.PREDICTED], Look(color, look.dash, ""), name)
    plain_log_ticks(axis, sorted(rows[Column.SHARE].unique()))
    log_y(axis)
    axis.set(xlabel="length of the stage's prompts n / d", title="length, best penalty")
    axis.legend(loc="best", fontsize=7.5)


def _draw_balance(axis: Axes, table: pd.DataFrame) -> None:
    rows = table[(table[Column.PANEL] == BALANCE) & (table[Column.COST] == 1)]
    wide = rows.pivot_table(
        index=[Column.PRETRAINING, Column.BUDGET, Column.BALANCE],
        columns=Column.STAGE,
        values=Column.PREDICTED,
    )
    ratio = (wide[BOTH] / wide[[SFT, OUTCOME]].min(axis=1)).reset_index(name="ratio")
    for rows_before, color in zip(
        sorted(ratio[Column.PRETRAINING].unique()), ["#0072B2", "#D55E00", "#009E73"], strict=False
    ):
        for look, b in zip(LOOKS, sorted(ratio[Column.BUDGET].unique()), strict=False):
            part = ratio[(ratio[Column.PRETRAINING] == rows_before) & (ratio[Column.BUDGET] == b)]
            before = "unlimited" if rows_before >= UNLIMITED else f"{rows_before:g} d"
            name = f"{before}, {b:g} d rows"
            draw_theory(axis, part[Column.BALANCE], part["ratio"], Look(color, look.dash, ""), name)
    level(axis, 1.0)
    axis.set(xlabel="balance of pretraining rho", ylabel="half and half / better of either alone")
    axis.set(title="SFT, then outcome: below 1 is synergy")
    axis.legend(loc="best", fontsize=7, title="pretraining, budget", title_fontsize=7.5)


_TEST = "tests/studies/training_time/test_sft_or_outcome.py::"
_SETTING = f"exact theory, outcome supervision at k = 1, {DRAWN}; {POWER}"
CLAIMS = (
    Claim(
        "sft-is-outcome-rescaled",
        "ours",
        "At k = 1 SFT on prompts of covariance A is outcome supervision on prompts of covariance A / "
        "eta: only the "
        "prompts tell them apart.",
        f"exact theory at four times and numbers of rows, {DRAWN}",
        "largest relative difference of their errors",
        1e-8,
        same_estimator,
        _TEST + "test_the_rescaled_error_is_compared_at_every_place",
    ),
    Claim(
        "sft-few-outcome-many",
        "Section 8 (Figures 3 and 4), at the best penalty",
        "Each at its best penalty, SFT has the lower error with few rows (d/4) and outcome supervision "
        "with many (32d).",
        _SETTING,
        "share of settings where both hold",
        0.5,
        few_sft_many_outcome,
        _TEST + "test_few_and_many_rows_have_to_differ",
    ),
    Claim(
        "sft-few-outcome-many-converged",
        "Section 8 (Figures 3 and 4), at convergence",
        "At convergence SFT is best on fewer rows than the peak, outcome supervision on more.",
        _SETTING,
        "share of settings where both hold",
        0.5,
        convergence_contrast,
        _TEST + "test_the_contrast_is_where_the_least_error_lies",
    ),
    Claim(
        "stages-synergy",
        "Sections 1 and 7 (synergy)",
        "SFT and then outcome supervision, half the rows each, beats either alone on all rows, "
        "whatever the balance of "
        "pretraining.",
        "exact theory, best penalty in each stage, the paper's two blocks with d=120, eta=.2, r=.01, "
        "n=3d, rho .05 to 1, "
        "budgets d/2, 2d and 8d, pretraining on 2d, 10d and unlimited rows; no sampling, the interval "
        "is that of a share",
        "share of settings with equal rows where it does",
        0.5,
        synergy,
        _TEST + "test_synergy_has_to_beat_the_better",
    ),
)
STUDY = Study(
    name=NAME,
    title="SFT or outcome supervision? Exact at every number of rows",
    story=(
        "With one thinking step the two are one estimator on different prompts: SFT's prompts win "
        "where rows are few, "
        "outcome supervision's lower ceiling where they are many, and the two cross near one row a "
        "direction. Half of "
        "the rows on each is worse than all on the better of the two."
    ),
    experiment=SftOrOutcome,
    draw=draw_sft_or_outcome,
    claims=CLAIMS,
)
