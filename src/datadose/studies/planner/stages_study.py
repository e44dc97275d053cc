"""What is drawn, judged and reported of the planner's choice of stage and of its forecasts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.curves import FIFTH
from datadose.drawing.hover import record_points
from datadose.drawing.style import GREY, LOOKS, Look, caption, draw_points, name_ticks, new_grid
from datadose.power import mean_interval
from datadose.studies.ledger import decide, judge_settings
from datadose.studies.planner import rules
from datadose.studies.planner.rules import PLANNER, RULES, ForecastColumn, RuleColumn
from datadose.studies.planner.stages import (
    ARMS,
    DENSE,
    NAME,
    NO_STAGE,
    SFT,
    VERIFIABLE,
    Column,
    PlannerStages,
)
from datadose.studies.study import Claim, Judgement, Saved, Study, Verdict


def draw_planner_stages(table: pd.DataFrame, config: PlannerStages) -> Figure:
    """Every case's four arms, the recommended one with a ring; the loss of fixed rules; the forecasts."""
    with new_grid(1, 4, width=15.0, height=4.4, width_ratios=(1.25, 1.25, 1.0, 1.0)) as (figure, axes):
        chosen = table[~rules.forecast_panels(table)]
        dense, verifiable = (chosen[chosen[Column.REWARD] == reward] for reward in (DENSE, VERIFIABLE))
        _draw_cases(axes[0][0], dense, Column.ERROR, "dense reward: post-test error / d")
        axes[0][0].set_yscale("log")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
        _draw_cases(axes[0][1], verifiable, Column.PASS_RATE, "verifiable reward: pass rate")
        _draw_rules(axes[0][2], rules.compare_rules(table))
        _draw_forecasts(axes[0][3], rules.compare_forecasts(table))
        caption(
            figure,
            f"{config.cases} random shifts (d = {config.dimension}) that the rule was not built on, "
            f"{config.seeds} seeds; ring: the planner's choice, if it has one. Cases sorted by "
            "rho(Gamma0^-1 Delta). "
            f"Right: {config.forecasts} other shifts, error after descent (GRPO if verifiable).",
        )
    return figure


def _draw_cases(axis: Axes, table: pd.DataFrame, column: str, title: str) -> None:
    cases = table.groupby(Column.PANEL)[Column.SPECTRAL_RADIUS].first().sort_values()
    means = table.groupby([Column.PANEL, Column.KIND])[column].mean()
    chosen = table.groupby(Column.PANEL)[Column.RECOMMENDED].first()
    for arm, look in zip(ARMS, LOOKS, strict=True):
        values = [means.get((panel, arm), np.nan) for panel in cases.index]
        label = "no stage" if arm == NO_STAGE else arm
        draw_points(axis, range(len(values)), values, look, label, markersize=4.5)
    best = [means.get((panel, chosen.get(panel)), np.nan) for panel in cases.index]
    ring = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.1}
    draw_points(axis, range(len(best)), best, Look("#202124", "none", "o"), "recommended", **ring)
    radii = [f"{radius:.1f}" for radius in cases]
    name_ticks(axis.xaxis, radii, label="case, by its radius", rotation=90, fontsize=7)
    axis.set_title(title, loc="left")


def _draw_rules(axis: Axes, compared: pd.DataFrame) -> None:
    share = compared.groupby(RuleColumn.RULE)[RuleColumn.GOOD].mean()[list(RULES)]
    place = np.arange(len(share))
    colors = [LOOKS[1].color, *[LOOKS[0].color] * (len(share) - 1)]
    axis.barh(place, share, color=colors, height=0.6)
    record_points(axis, "rule", FIFTH.color, share, place)
    for i, value in enumerate(share):
        axis.text(value, i, f" {value:.0%}", va="center", fontsize=8.5)
    name_ticks(axis.yaxis, list(share.index))
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15)
    axis.axvline(1, color=GREY, linewidth=0.8)
    axis.set_title("As good as the best arm", loc="left")
    axis.set_xlabel("share of cases within 5 percent (0.05)")


def _draw_forecasts(axis: Axes, found: pd.DataFrame) -> None:
    """Forecast error over measured, one point a case and stage; what the plan withholds is hollow."""
    found = found[
        (found[ForecastColumn.MEASURE] == rules.ERROR)
        & (found[ForecastColumn.OPTIMISER] == "gd")
        & (found[ForecastColumn.STAGE] != NO_STAGE)
    ]
    reinforced, dense = found[ForecastColumn.STAGE] != SFT, found[ForecastColumn.REWARD] == DENSE
    groups = {
        "SFT": ~reinforced,
        "RL, dense,\none step": reinforced & dense & (found[ForecastColumn.THINKING_STEPS] == 1),
        "RL, dense,\n2 to 4": reinforced & dense & (found[ForecastColumn.THINKING_STEPS] > 1),
        "RL,\nverifiable": reinforced & ~dense,
    }
    rng = np.random.default_rng(0)
    for place, chosen in enumerate(groups.values()):
        for withheld, face in ((False, LOOKS[0].color), (True, "none")):
            ratio = found.loc[chosen & (found[ForecastColumn.WITHHELD] == withheld), ForecastColumn.RATIO]
            look = Look(GREY if withheld else LOOKS[0].color, "none", "o")
            x, name = place + rng.uniform(-0.25, 0.25, len(ratio)), "_withheld" if withheld else "_told"
            draw_points(axis, x, ratio, look, name, markersize=4, markerfacecolor=face)
    axis.axhspan(1 - rules.OFF, 1 + rules.OFF, color=LOOKS[2].color, alpha=0.15, lw=0)
    axis.set_yscale("log")
    name_ticks(axis.xaxis, list(groups), fontsize=8)
    axis.set_title("Forecast / measured error", loc="left")
    axis.set_xlabel("full: told; hollow: withheld")


def stage_beats_fixed_rules(saved: Saved[PlannerStages], threshold: float) -> Judgement:
    """Per fixed rule: is the planner's choice as good as the best arm in more cases? Paired over cases."""
    compared = rules.compare_rules(saved.table)
    seeds = saved.config.seeds
    good = compared.pivot(index=RuleColumn.CASE, columns=RuleColumn.RULE, values=RuleColumn.GOOD).astype(
        np.float64
    )
    verdicts: dict[str, Verdict] = {}
    for rule in RULES[1:]:
        _, low, high = mean_interval(np.asarray(good[PLANNER] - good[rule], dtype=np.float64))
        # Strictly more often: an interval that touches zero decides nothing.
        verdicts[f"against {rule}"] = "holds" if low > 0 else "fails" if high < 0 else "mixed"
    shares = ", ".join(f"{rule} {good[rule].mean():.0%}" for rule in RULES)
    losses = (
        compared[compared[RuleColumn.RULE] == PLANNER]
        .groupby(RuleColumn.REWARD)[RuleColumn.LOSS]
        .agg(["mean", "max"])
    )
    silent, cases = rules.abstained(saved.table)
    decisive = int((good[list(RULES[1:])].min(axis=1) < 1).sum())
    note = (
        f"no stage is recommended in {silent} of {cases} cases, which are left out; as good as the best: "
        f"{shares} (in {decisive} of {len(good)} cases some rule is not); "
        + "; ".join(
            f"the planner's loss with a {reward} reward: mean {row['mean']:.3f}, largest {row['max']:.2f}"
            for reward, row in losses.iterrows()
        )
    )
    return judge_settings(verdicts, threshold, seeds, note)


def told_forecasts_come_true(saved: Saved[PlannerStages], threshold: float) -> Judgement:
    """The share of reported forecasts that are off.

    A case's forecasts share its shift, so the interval is Student's over the cases' own shares.
    """
    table = saved.table
    seeds = saved.config.seeds
    if not rules.forecast_panels(table).any():
        return Judgement(None, None, seeds, "not run", "no case of the forecasts in planner_stages.csv")
    found = rules.compare_forecasts(table)
    found = found[(found[ForecastColumn.OPTIMISER] == "gd") & (found[ForecastColumn.STAGE] != NO_STAGE)]
    tested, withheld = found[~found[ForecastColumn.WITHHELD]], found[found[ForecastColumn.WITHHELD]]
    if tested.empty:
        return Judgement(None, None, seeds, "mixed", "the plan tells no forecast of these cases")
    shares = tested.groupby(ForecastColumn.CASE)[ForecastColumn.OFF].mean().to_numpy(dtype=np.float64)
    mean, low, high = mean_interval(shares)
    silent, cases = rules.abstained(table, forecasts=True)
    good = rules.compare_rules(table, forecasts=True).groupby(RuleColumn.RULE)[RuleColumn.GOOD].mean()
    note = (
        f"{len(tested)} forecasts of {len(shares)} cases: {_shares(tested)}; withheld {_shares(withheld)}; "
        f"the choice, which also rests on what is withheld, is not told in {silent} of {cases} cases and as "
        f"good as the best arm in {good[PLANNER]:.0%} of the others (always RL "
        f"{good[rules.ALWAYS_RL]:.0%}, always both "
        f"{good[rules.ALWAYS_SFT_THEN_RL]:.0%})"
    )
    return Judgement(mean, (low, high), seeds, decide(low, high, threshold), note)


def _shares(found: pd.DataFrame) -> str:
    off = found.groupby(ForecastColumn.MEASURE)[ForecastColumn.OFF].agg(["mean", "size"])
    return " and ".join(
        f"{name} off in {row['mean']:.0%} of {int(row['size'])}" for name, row in off.iterrows()
    )


CLAIMS = (
    Claim(
        "planner-stage",
        "ours",
        "The stage that the planner recommends is as good as the measured best more often than any fixed "
        "rule (RL or SFT then RL by the radius, as the paper suggests; always SFT; always RL; always both).",
        "40 random shifts at d=20, dense and verifiable rewards, k from 1 to 3, real training runs (sizes of "
        "the preset)",
        "share of the fixed rules that it beats, each at 95% confidence over paired cases; as good as the "
        "best: error within 5 percent, or pass rate within 0.05",
        1.0,
        stage_beats_fixed_rules,
        "tests/studies/planner/test_claims.py::test_stages_are_judged_against_fixed_rules",
    ),
    Claim(
        "planner-forecasts",
        "ours",
        "What the plan tells of a stage comes true in real training: the error within a fifth, the pass rate "
        "within a fifth or 0.05. Where this is not so the plan withholds the number.",
        "random shifts (d from 20 to 32, a third of them dense), dense and verifiable rewards, k from 1 to "
        "4, short and long prompts, gradient descent at half of the largest stable step (GRPO with Adam for "
        "a verifiable reward); the rule on what is withheld was found on other shifts",
        "mean over the cases of the share of told forecasts of SFT, RL and both that are off",
        0.1,
        told_forecasts_come_true,
        "tests/studies/planner/test_forecasts.py::test_told_forecasts_are_judged",
    ),
)
STUDY = Study(
    name=NAME,
    title="Does the planner choose the right stage?",
    story=(
        "On random shifts that the rule was not built on, no stage, SFT, RL and SFT then RL are run at the "
        "same number of optimiser steps; rings mark what the planner recommends. It is nearly always as good "
        "as the best of the four, while every fixed rule misses the best in a quarter of the cases or more. "
        "On further shifts the numbers behind it are compared with what training comes to: where they are "
        "wrong, the plan withholds them."
    ),
    experiment=PlannerStages,
    draw=draw_planner_stages,
    claims=CLAIMS,
)
