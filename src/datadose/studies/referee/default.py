"""The default method: chosen on the development setting, tested once on the held-out ones.

The candidate is the method with the lowest mean logarithm of the test loss over budgets and seeds on the
first setting of the study, at the best stop. Held-out settings, which differ in targets and faults, then
judge it by a bar fixed beforehand: it beats random rows at every budget; no method beats it by more than the
detectable difference at any; and on pools with faults it beats every method that has no verifier.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.studies.referee.arms import Arm, budgets_of, gains, methods_of, settings_of
from datadose.studies.referee.experiment import CANDIDATE, RANDOM, SeaStudy
from datadose.studies.referee.judging import beaten_by, compare_all
from datadose.studies.study import Judgement, Saved, Verdict


def chosen_default(table: pd.DataFrame) -> tuple[str, dict[str, float]]:
    """The candidate, and the mean log loss of each method on the development setting."""
    development = settings_of(table)[0]
    means = {
        method: float(
            np.mean(
                [
                    np.log(Arm(*development, method, budget).losses(table)).mean()
                    for budget in budgets_of(table, method)
                ]
            )
        )
        for method in methods_of(table)
    }
    return min(means, key=lambda name: means[name]), means


def judge_choice(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    """Whether the candidate that was expected has the lowest mean log loss; the note lists all."""
    best, means = chosen_default(saved.table)
    told = ", ".join(f"{name} {value:.3f}" for name, value in sorted(means.items(), key=lambda item: item[1]))
    lag = means[CANDIDATE] - means[best]
    verdict: Verdict = "holds" if best == CANDIDATE else "fails"
    return Judgement(lag, None, saved.config.seeds, verdict, f"chosen: {best}; mean log loss: {told}")


def _against(
    table: pd.DataFrame, rivals: list[str], *, first_wins: bool, verified: bool = True
) -> dict[str, Array]:
    """Gains on the held-out settings by name: of the candidate over each rival, or of the rival over it."""
    best, _ = chosen_default(table)
    found = {}
    for contents, pair in settings_of(table)[1:]:
        for rival in rivals:
            for budget in budgets_of(table, rival, verified=verified):
                ours = Arm(contents, pair, best, budget)
                theirs = Arm(contents, pair, rival, budget, verified)
                values = gains(table, ours, theirs) if first_wins else gains(table, theirs, ours)
                if len(values):
                    found[f"{contents} {pair}, {rival}, {budget:.0%}"] = values
    return found


def judge_random(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    """Whether the chosen default beats random rows on every held-out setting and budget."""
    return compare_all(_against(saved.table, [RANDOM], first_wins=True), saved.config.pilot, threshold)


def judge_rivals(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    """Whether no method beats the chosen default by more than the detectable difference there."""
    best, _ = chosen_default(saved.table)
    rivals = [name for name in methods_of(saved.table) if name != best]
    return beaten_by(_against(saved.table, rivals, first_wins=False), saved.config.pilot)


def judge_unverified(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    """Whether the chosen default with verdicts beats every method without them, where rows are faulty."""
    found = _against(saved.table, methods_of(saved.table), first_wins=True, verified=False)
    return compare_all(found, saved.config.pilot, threshold)
