"""The claim on the planner's forecasts: what it tells of SFT and RL is what real training comes to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from datadose.studies.ledger import decide, mean_interval
from datadose.studies.planner.rules import compare_forecasts, compare_rules, forecast_panels
from datadose.studies.study import Claim, Judgement, Saved


def told_forecasts_come_true(saved: Saved[Any], threshold: float) -> Judgement:
    """The share of told forecasts that are off.

    A case's forecasts share its shift, so the interval is Student's over the cases' own shares.
    """
    table = saved.table
    seeds = int(saved.config.seeds)
    if not forecast_panels(table).any():
        return Judgement(None, None, seeds, "not run", "no case of the forecasts in planner_stages.csv")
    found = compare_forecasts(table)
    found = found[(found["optimiser"] == "gd") & (found["stage"] != "none")]
    tested, withheld = found[~found["withheld"]], found[found["withheld"]]
    if tested.empty:
        return Judgement(None, None, seeds, "mixed", "the plan tells no forecast of these cases")
    shares = tested.groupby("case")["off"].mean().to_numpy(dtype=np.float64)
    mean, low, high = mean_interval(shares)
    rules = compare_rules(table, forecasts=True)
    good = rules.groupby("rule")["good"].mean()
    note = (
        f"{len(tested)} forecasts of {len(shares)} cases: {_shares(tested)}; withheld {_shares(withheld)}; "
        f"the choice, which also rests on what is withheld, is as good as the best arm in "
        f"{good['planner']:.0%} of the cases (always RL {good['always rl']:.0%}, always both "
        f"{good['always sft then rl']:.0%})"
    )
    return Judgement(mean, (low, high), seeds, decide(low, high, threshold), note)


def _shares(found: pd.DataFrame) -> str:
    off = found.groupby("measure")["off"].agg(["mean", "size"])
    return " and ".join(
        f"{name} off in {row['mean']:.0%} of {int(row['size'])}" for name, row in off.iterrows()
    )


FORECAST_CLAIMS = [
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
        "tests/claims/test_planner_forecasts.py::test_told_forecasts_are_judged",
    ),
]
