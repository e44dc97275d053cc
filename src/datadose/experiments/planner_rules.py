"""Rules for the choice of stage, compared on the table of :mod:`datadose.experiments.planner_stages`."""

from __future__ import annotations

from typing import Literal, TypeAlias

import pandas as pd

Arm: TypeAlias = Literal["none", "sft", "rl", "sft then rl"]
ARMS: tuple[Arm, ...] = ("none", "sft", "rl", "sft then rl")
RULES = ("planner", "paper", "always sft", "always rl", "always sft then rl")
CLOSE_ERROR, CLOSE_PASS_RATE = 0.05, 0.05
"""An arm is as good as the best if its error is within 5 percent, or its pass rate within 0.05, of it."""


def compare_rules(table: pd.DataFrame) -> pd.DataFrame:
    """One row a case and rule: the arm that the rule picks, what was measured, and what it loses to the best.

    ``loss`` is the error over the best arm's minus 1 (dense) or the best pass rate minus the arm's. The
    paper's rule of thumb is RL within reach of the pretrained model (radius < 1), else SFT then RL.
    """
    rows = []
    for panel, case in table.groupby("panel", sort=False):
        reward, radius = case["reward"].iloc[0], float(case["spectral_radius"].iloc[0])
        means = case.groupby("kind")[["error", "pass_rate"]].mean()
        dense = reward == "dense"
        best = means["error"].idxmin() if dense else means["pass_rate"].idxmax()
        picks = {
            "planner": case["recommended"].iloc[0],
            "paper": "rl" if radius < 1 else "sft then rl",
            **{f"always {arm}": arm for arm in ARMS[1:]},
        }
        for rule, arm in picks.items():
            if dense:
                loss = float(means["error"][arm] / means["error"][best] - 1)
            else:
                loss = float(means["pass_rate"][best] - means["pass_rate"][arm])
            good = loss <= (CLOSE_ERROR if dense else CLOSE_PASS_RATE)
            rows.append(
                {
                    "case": panel,
                    "reward": reward,
                    "radius": radius,
                    "rule": rule,
                    "arm": arm,
                    "best": best,
                    "loss": loss,
                    "good": good,
                }
            )
    return pd.DataFrame(rows)
