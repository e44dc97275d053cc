"""The planner's schedules: what both stages add to the better one, and whether the forecasts come true.

Random settings of three kinds with random prices and budgets: a demonstration costs .1 to 3 prompts, the
budget is d/2 to 16 d prompts, and in every other setting an optimiser update costs a ten-thousandth to a
hundredth of the budget. The plan that is chosen is simulated: gradient flow for its times on drawn prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from datadose.drawing.curves import level, plain_log_ticks
from datadose.drawing.style import LOOKS, caption, draw_points, new_grid
from datadose.planner import Costs, ErrorModel, Schedule, plan_schedule
from datadose.power import CONFIDENCE
from datadose.simulation.training import TrainingStage, simulate_stages
from datadose.studies import tables
from datadose.studies.ledger import decide, judge_share
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study
from datadose.studies.tables import THEORY, as_table
from datadose.studies.training_time.settings import DRAWN, random_setting, spread
from datadose.studies.training_time.two_stages import Setup
from datadose.sweep import Cell
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping

NAME = "plan_budget"
PLANNED, SIMULATED = "planned", "simulated"
BOTH = "both"
_PRICES, _BUDGETS, _UPDATES = (0.1, 3.0), (0.5, 16.0), (1e-4, 1e-2)
_CHEAP = 0.3
_NOTICEABLE = 1.01


class Column(tables.Column):
    """The columns of this study; a setting has one row an alternative and one a simulated seed."""

    SETTING = "setting"
    COST = "cost"
    """Of a demonstration, in prompts."""
    BUDGET = "budget"
    """In prompts, over d."""
    UPDATE = "update"
    """The price of an update over the budget."""
    CHOSEN = "chosen"
    """The stages of the schedule, of the best plan."""


def run_budget(setting: int, dimension: int, seeds: int) -> dict[str, Any]:
    """Cell: the schedule of a random setting, its alternatives, and its error on drawn prompts."""
    setup, rng = random_setting(setting, dimension), np.random.default_rng([21, setting])
    price, budget, update = (float(np.exp(rng.uniform(*np.log(r)))) for r in (_PRICES, _BUDGETS, _UPDATES))
    update = update if setting % 2 else 0.0
    total = budget * dimension
    found = _schedule(setup, Costs(price, 1.0, total, update * total))
    errors: list[float] = []
    if found.stages:
        V0 = pretrained_operator(setup.sigma0, setup.length)
        simulated = simulate_stages(V0, _stages(setup, found), [setup.target], setup.length, seeds=seeds)
        errors = simulated.values[:, -1, 0].tolist()
    return {
        "price": price,
        "budget": budget,
        "update": update,
        "stages": " then ".join(stage.stage for stage in found.stages) or "none",
        "predicted": found.predicted_error,
        "alternatives": found.alternatives,
        "errors": errors,
    }


def _schedule(setup: Setup, costs: Costs) -> Schedule:
    n, target = setup.length, setup.target
    model = ErrorModel(pretrained_operator(setup.sigma0, n), setup.eta, target, n)
    most = int(200 * setup.dimension)
    data = [model.columns(Source(setup.data, n, 1))]
    return plan_schedule(model, data, costs, max_demonstrations=most, max_prompts=most)


def _stages(setup: Setup, found: Schedule) -> list[TrainingStage]:
    kinds = {"sft": (setup.eta, setup.data), "outcome": (1.0, setup.target)}
    stages = []
    for told in found.stages:
        eta, covariance = kinds[told.stage]
        source = Source(covariance, setup.length, told.prompts)
        stages.append(TrainingStage(eta, [source], Stopping(time=told.time)))
    return stages


@dataclass(frozen=True)
class PlanBudget:
    """Settings drawn by seed from ``first_setting`` on; those from 10,000 on set the ranges."""

    dimension: int
    settings: int
    seeds: int
    first_setting: int = 0

    @classmethod
    def preset(cls, name: Preset) -> PlanBudget:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(24, 2, 2)
        return cls(120, 60, 6) if name == "quick" else cls(120, 300, 12)

    def cells(self) -> list[Cell]:
        """One cell a setting."""
        return [
            Cell(run_budget, {"setting": i, "dimension": self.dimension, "seeds": self.seeds})
            for i in range(self.first_setting, self.first_setting + self.settings)
        ]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """A row for each alternative of a setting, then one for each simulated seed of what is chosen."""
        rows: list[dict[str, Any]] = []
        for i, found in enumerate(results, self.first_setting):
            shared = {
                Column.FIGURE: NAME,
                Column.SETTING: i,
                Column.COST: found["price"],
                Column.BUDGET: found["budget"],
                Column.UPDATE: found["update"],
                Column.CHOSEN: found["stages"],
            }
            rows += [
                {**shared, Column.MODEL: THEORY, Column.PANEL: PLANNED, Column.STAGE: s, Column.PREDICTED: e}
                for s, e in found["alternatives"].items()
            ]
            simulated = {**shared, Column.PANEL: SIMULATED, Column.STAGE: found["stages"]}
            rows += [
                {**simulated, Column.PREDICTED: found["predicted"], Column.SEED: seed, Column.ERROR: error}
                for seed, error in enumerate(found["errors"])
            ]
        return as_table(rows, Column)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """One row a setting: ``gain``, the error of the better single stage over that of both, and the prices."""
    rows = table[table[Column.PANEL] == PLANNED]
    wide = rows.pivot(index=Column.SETTING, columns=Column.STAGE, values=Column.PREDICTED)
    about = rows.groupby(Column.SETTING)[[Column.COST, Column.BUDGET, Column.UPDATE, Column.CHOSEN]].first()
    return about.assign(gain=wide[["sft", "outcome"]].min(axis=1) / wide[BOTH])


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """One row a setting: ``ratio``, forecast over the simulated mean, and ``sem`` of that ratio."""
    rows = table[table[Column.PANEL] == SIMULATED]
    grouped = rows.groupby(Column.SETTING)
    mean, sem = grouped[Column.ERROR].mean(), grouped[Column.ERROR].sem()
    ratio = grouped[Column.PREDICTED].first() / mean
    about = grouped[[Column.BUDGET, Column.CHOSEN]].first()
    return about.assign(ratio=ratio, sem=ratio * sem / mean)


def both_stages_pay(saved: Saved[PlanBudget], threshold: float) -> Judgement:
    """In what share of the settings both stages beat the better one by more than 1 percent."""
    found = gains(saved.table)
    noticed = found["gain"] > _NOTICEABLE
    cheap, dear = found[Column.COST] < _CHEAP, found[Column.UPDATE] > 0
    chosen = found[Column.CHOSEN].value_counts(normalize=True)
    note = (
        f"where a demonstration costs less than {_CHEAP:g} prompts {noticed[cheap].mean():.2f}, where more "
        f"{noticed[~cheap].mean():.2f}; where updates cost something {noticed[dear].mean():.2f}; gain "
        f"{spread(found['gain'])}; chosen: {', '.join(f'{k} {v:.2f}' for k, v in chosen.items())}"
    )
    return judge_share(noticed.to_numpy(), threshold, note=note)


def forecasts_come_true(saved: Saved[PlanBudget], threshold: float) -> Judgement:
    """The median of |forecast / simulated mean - 1| over the settings, with its order-statistic interval."""
    found = gaps(saved.table)
    off = (found["ratio"] - 1).abs().to_numpy(dtype=np.float64)
    ends = stats.quantile_test(off, p=0.5).confidence_interval(CONFIDENCE)
    low, high = float(np.nan_to_num(ends.low)), float(np.nan_to_num(ends.high, nan=np.inf))
    note = (
        f"{len(off)} settings, largest {off.max():.2%}; standard errors {spread(found['sem'])}: a median gap "
        f"below about {found['sem'].median():.2%} would be noise"
    )
    verdict = decide(low, high, threshold)
    return Judgement(float(np.median(off)), (low, high), saved.config.seeds, verdict, note)


def draw_plan_budget(table: pd.DataFrame, config: PlanBudget) -> Figure:
    """What both stages add to the better one, and forecasts over what was simulated."""
    with new_grid(1, 2, width=9.5, height=4.2) as (figure, axes):
        left, right = axes[0]
        _draw_gains(left, gains(table))
        _draw_gaps(right, gaps(table))
        caption(
            figure,
            f"{config.settings} random settings, d = {config.dimension}, with random prices; every plan has "
            f"its best rows and times. Right: {config.seeds} seeds a setting, bars of 2 standard errors.",
        )
    return figure


def _draw_gains(axis: Axes, found: pd.DataFrame) -> None:
    for look, (name, chosen) in zip(
        LOOKS,
        {"updates free": found[Column.UPDATE] == 0, "updates cost": found[Column.UPDATE] > 0}.items(),
        strict=False,
    ):
        rows = found[chosen]
        draw_points(axis, rows[Column.COST], rows["gain"], look, name, markersize=5)
    level(axis, 1.0)
    # Room for the legend.
    axis.set_ylim(top=1 + 1.4 * max(float(found["gain"].max()) - 1, 0.01))
    plain_log_ticks(axis, (0.1, 0.3, 1, 3))
    axis.set(xlabel="price of a demonstration, in prompts", ylabel="error of the better stage / of both")
    axis.set_title("What both stages add", loc="left")
    axis.legend(loc="upper right", fontsize=8)


def _draw_gaps(axis: Axes, found: pd.DataFrame) -> None:
    for look, chosen in zip(LOOKS, ("sft", "outcome", "sft then outcome"), strict=False):
        rows = found[found[Column.CHOSEN] == chosen]
        axis.errorbar(
            rows[Column.BUDGET],
            rows["ratio"],
            2 * rows["sem"],
            fmt="none",
            ecolor=look.color,
            alpha=0.6,
            lw=1,
        )
        draw_points(axis, rows[Column.BUDGET], rows["ratio"], look, chosen, markersize=5)
    level(axis, 1.0)
    plain_log_ticks(axis, (0.5, 1, 2, 4, 8, 16))
    axis.set(xlabel="budget in prompts / d", ylabel="forecast / simulated error")
    axis.set_title("Does the forecast come true?", loc="left")
    axis.legend(loc="best", fontsize=8)


_TEST = "tests/studies/planner/test_budget.py::"
_SETTING = (
    f"{DRAWN}; a demonstration costs .1 to 3 prompts, budgets of d/2 to 16 d prompts, updates free in every "
    "other setting; outcome supervision at k = 1; the best times of all plans"
)
CLAIMS = (
    Claim(
        "plan-budget-both",
        "ours",
        "A budget is best spent on SFT and outcome supervision in order: both beat the better of the two by "
        "more than 1 percent.",
        _SETTING,
        "share of settings where they do",
        0.5,
        both_stages_pay,
        _TEST + "test_both_stages_have_to_beat_the_better",
    ),
    Claim(
        "plan-budget-forecast",
        "ours",
        "What a schedule of the planner promises is what training on drawn prompts comes to.",
        _SETTING,
        "median over the settings of |forecast over the simulated mean - 1|, 95% interval from order "
        "statistics",
        0.02,
        forecasts_come_true,
        _TEST + "test_the_gap_is_that_of_the_middle_setting",
    ),
)
STUDY = Study(
    name=NAME,
    title="A budget for post-training: which stage gets it?",
    story=(
        "With prices of demonstrations, prompts and updates the planner decides how many rows a stage gets "
        "and how long it lasts. One stage alone is nearly always as good as both in order; the second pays "
        "where demonstrations are cheap."
    ),
    experiment=PlanBudget,
    draw=draw_plan_budget,
    claims=CLAIMS,
)
