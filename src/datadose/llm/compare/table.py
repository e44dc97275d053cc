"""From the losses of all arms to a table: intervals over seeds, differences from random, verdicts, advice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.errors import InputError
from datadose.llm.compare.config import BASELINE
from datadose.power import detectable_difference, mean_interval, required_seeds

UNTOUCHED = "untouched"
"""The name of the model before any training, in the column of methods; its budget is 0."""
BETTER, WORSE, SAME, OPEN = "better", "worse", "no difference", "undecided"
RUNS = ("method", "budget", "seed", "tokens", "test_loss", "validation_loss", "best_step", "last_loss")
"""Columns of runs.csv."""
TABLE = (
    *("method", "budget", "seeds", "test_loss", "test_loss_low", "test_loss_high", "last_loss", "best_step"),
    *("tokens", "difference", "difference_low", "difference_high", "detectable_difference", "verdict"),
)
"""Columns of table.csv."""


def table_of(runs: pd.DataFrame) -> pd.DataFrame:
    """One row an arm, with the columns TABLE, in the order of the runs.

    Losses are means over seeds, in nats per completion token; ``test_loss`` is that of the step with the
    lowest loss on validation, between the ends of its 95 percent Student interval. ``difference`` is the
    test loss minus that of ``random`` with the same budget and seed; negative is better. The untouched
    model is compared where there is one budget.

    Args:
        runs: one row an arm and seed, with the columns RUNS, and ``random`` at every budget.
    """
    losses = {key: arm.set_index("seed")["test_loss"] for key, arm in runs.groupby(["method", "budget"])}
    budgets = sorted(set(runs["budget"]) - {0})
    rows = []
    for (method, budget), arm in runs.groupby(["method", "budget"], sort=False):
        mean, low, high = mean_interval(arm["test_loss"])
        row: dict[str, Any] = {
            "method": method,
            "budget": budget,
            "seeds": len(arm),
            "test_loss": mean,
            "test_loss_low": low,
            "test_loss_high": high,
            **{name: float(arm[name].mean()) for name in ("last_loss", "best_step", "tokens")},
        }
        same = budgets[0] if method == UNTOUCHED and len(budgets) == 1 else budget
        if method != BASELINE and (BASELINE, same) in losses:
            difference = losses[method, budget] - losses[BASELINE, same]
            row |= judged(difference.to_numpy(dtype=np.float64))
        rows.append(row)
    return pd.DataFrame(rows, columns=list(TABLE))


def judged(differences: Array) -> dict[str, Any]:
    """What paired differences from the baseline, one a seed (at least two), say.

    Returns their mean and Student interval, the difference that so many seeds with this spread detect with
    80 percent power, and the verdict: ``better`` or ``worse`` where the interval leaves out 0, ``no
    difference`` (none larger than the detectable one) where it lies within that, else ``undecided``.
    """
    mean, low, high = mean_interval(differences)
    spread = float(differences.std(ddof=1))
    least = detectable_difference(spread, len(differences)) if spread > 0 else 0.0
    if high < 0 or low > 0:
        verdict = BETTER if high < 0 else WORSE
    else:
        verdict = SAME if -least <= low and high <= least else OPEN
    return {
        "difference": mean,
        "difference_low": low,
        "difference_high": high,
        "detectable_difference": least,
        "verdict": verdict,
    }


def in_words(verdict: Any, detectable: float) -> str:
    """The verdict with the difference that it is about, for a reader."""
    if not isinstance(verdict, str):
        return "-"
    if verdict == SAME:
        return f"no difference larger than {detectable:.2g}" if detectable else "equal in every seed"
    return verdict


def shown_rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """The table for a reader: the heads of its columns, and a row of as many cells for each arm."""
    header = [
        *("method", "rows", "test loss", "95 percent", "last step's", "best step"),
        *("against random", "95 percent", "verdict"),
    ]
    rows = [
        [
            str(arm["method"]),
            f"{arm['budget']:.0f}",
            f"{arm['test_loss']:.4g}",
            interval_text(arm["test_loss_low"], arm["test_loss_high"]),
            f"{arm['last_loss']:.4g}",
            f"{arm['best_step']:.4g}",
            "-" if np.isnan(arm["difference"]) else f"{arm['difference']:+.3g}",
            interval_text(arm["difference_low"], arm["difference_high"]),
            in_words(arm["verdict"], arm["detectable_difference"]),
        ]
        for _, arm in table.iterrows()
    ]
    return header, rows


def interval_text(low: float | None, high: float | None) -> str:
    """The ends of an interval in three digits; a dash for none."""
    if low is None or high is None or np.isnan(low) or np.isnan(high):
        return "-"
    return f"{low:.3g} to {high:.3g}"


def advice(table: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """Which method to take: a sentence for each budget where one is better than random, one for the others.

    Budgets at which every run was best untouched have a sentence of their own: all losses are then those of
    one model, and that they are equal says nothing about the methods.

    Args:
        table: as :func:`table_of` returns it.
        runs: what it was made from.
    """
    others = table[(table["budget"] > 0) & (table["method"] != BASELINE)]
    if others.empty:
        return [f"only {BASELINE} was run, and nothing to compare it with"]
    said, untrained, without = [], [], []
    for budget, arms in others.groupby("budget"):
        better = arms[arms["verdict"] == BETTER].sort_values("test_loss", kind="stable")
        if (runs.loc[runs["budget"] == budget, "best_step"] == 0).all():
            untrained.append(int(budget))
        elif len(better):
            said.append(_best(better, runs[runs["budget"] == budget]))
        else:
            without.append(int(budget))
    if untrained:
        said.append(_nothing_learned(untrained))
    if without:
        said.append(_none(without, others[others["budget"].isin(without)]))
    return said


def _best(better: pd.DataFrame, runs: pd.DataFrame) -> str:
    """That the first of the ``better`` arms of a budget is to be taken."""
    best = better.iloc[0]
    return (
        f"{best['budget']} rows: take {best['method']}, whose test loss is {-best['difference']:.3g} nats a "
        f"token below that of {BASELINE} ({-best['difference_high']:.3g} to {-best['difference_low']:.3g})"
        + _rivals(best["method"], better["method"].iloc[1:], runs)
    )


def _none(budgets: Sequence[int], others: pd.DataFrame) -> str:
    """That no arm of these ``budgets`` is better than random, and what would have been seen."""
    least = float(others["detectable_difference"].max())
    ahead = others[(others["verdict"] == OPEN) & (others["difference"] < 0)]["method"]
    maybe = f" (ahead, but undecided: {', '.join(dict.fromkeys(ahead))})" if len(ahead) else ""
    return (
        f"{', '.join(map(str, budgets))} rows: no method is better than {BASELINE} beyond doubt"
        f"{maybe}; one that is better by {least:.2g} nats a token would have been found in 4 of 5 such "
        f"comparisons; to find half of that, {_seeds_for_half(others, least)}"
    )


def _nothing_learned(budgets: Sequence[int]) -> str:
    """That training only did harm at these ``budgets``, and what to change."""
    return (
        f"{', '.join(map(str, budgets))} rows: the methods were not compared, since training only did harm: "
        f"every run, {BASELINE}'s too, was best before its first step (0); take a lower --learning-rate, or "
        "a smaller --evaluate-every to see earlier steps, in another folder"
    )


def _rivals(best: str, others: Sequence[str], runs: pd.DataFrame) -> str:
    """Which of the other better methods are not told from the best one."""
    here = runs.pivot_table(index="seed", columns="method", values="test_loss")
    level = []
    for method in others:
        _, low, high = mean_interval((here[method] - here[best]).to_numpy(dtype=np.float64))
        if low <= 0 <= high:
            level.append(method)
    return f"; not told from it: {', '.join(level)}" if level else ""


def _seeds_for_half(others: pd.DataFrame, least: float) -> str:
    seeds = int(others["seeds"].iloc[0])
    if least == 0:
        return "no more seeds are needed"
    # The spread that this many seeds see so much with.
    spread = least / detectable_difference(1.0, seeds)
    try:
        return f"{required_seeds(spread, least / 2)} seeds are needed in place of {seeds}"
    except InputError:
        return "more than 10,000 seeds are needed"
