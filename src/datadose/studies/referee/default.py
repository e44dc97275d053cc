"""The default method: chosen on the development setting, tested once on the held-out ones.

The candidate is the method with the lowest mean logarithm of the test loss over budgets and seeds on the
first setting of the study, at the best stop. Held-out settings, which differ in targets and faults, then
judge it by a bar fixed beforehand: it beats random rows at every budget; no method beats it by more than the
detectable difference at any; and on pools with faults it beats every method that has no verifier.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from datadose.studies.referee.arms import Arm, Pairs, all_gains, budgets_of, methods_of, settings_of
from datadose.studies.referee.experiment import CANDIDATE, RANDOM, SeaStudy
from datadose.studies.referee.judging import Pilot, beaten_by, compare_all
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


def _against(table: pd.DataFrame, rivals: list[str], *, verified: bool = True) -> dict[str, tuple[Arm, Arm]]:
    """The candidate and each rival on the held-out settings, by name."""
    best, _ = chosen_default(table)
    return {
        f"{contents} {pair}, {rival}, {budget:.0%}": (
            Arm(contents, pair, best, budget),
            Arm(contents, pair, rival, budget, verified),
        )
        for contents, pair in settings_of(table)[1:]
        for rival in rivals
        for budget in budgets_of(table, rival, verified=verified)
    }


def judge_pairs(saved: Saved[SeaStudy], pairs: Pairs, threshold: float) -> Judgement:
    """Judge that the first arm of every pair has the lower loss, with the pilot of its pool and stop."""
    return compare_all(all_gains(saved.table, pairs), pilots_of(saved, pairs), threshold)


def pilots_of(saved: Saved[SeaStudy], pairs: Pairs) -> dict[str, Pilot]:
    """The pilot of each comparison, by name."""
    return {name: saved.config.pilot(first.contents, first.stop) for name, (first, _) in pairs.items()}


def judge_random(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    """Whether the chosen default beats random rows on every held-out setting and budget."""
    return judge_pairs(saved, _against(saved.table, [RANDOM]), threshold)


def judge_rivals(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    """Whether no method beats the chosen default by more than the detectable difference there."""
    best, _ = chosen_default(saved.table)
    rivals = [name for name in methods_of(saved.table) if name != best]
    pairs = {name: (rival, own) for name, (own, rival) in _against(saved.table, rivals).items()}
    return beaten_by(all_gains(saved.table, pairs), pilots_of(saved, pairs))


def judge_unverified(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    """Whether the chosen default with verdicts beats every method without them, where rows are faulty."""
    return judge_pairs(saved, _against(saved.table, methods_of(saved.table), verified=False), threshold)
