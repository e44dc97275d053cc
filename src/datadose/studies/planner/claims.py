"""Claims on the planner: its dose and its allocation on random shifts that nothing was built from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from datadose.studies.ledger import CONFIDENCE, judge_settings, mean_interval
from datadose.studies.planner.rules import RULES, compare_rules
from datadose.studies.study import Claim, Judgement, Saved, Verdict

_JUDGES = "tests/claims/test_planner_claims.py"
_MEDIAN = 0.01
"""The regret that half of the shifts must keep; the claim's threshold is for the worst."""
_NOTABLE, _BETTER = 0.02, 0.01
"""Predicted gains that must be seen, and measured ones that count as better."""


def dose_is_best(saved: Saved[Any], threshold: float) -> Judgement:
    """Holds on the regret that is biased high; fails only on the held-out one, beyond its standard error."""
    table = _measured(saved, "regret")
    seeds = int(saved.config.seeds)
    regret, held_out = _column(table, "regret"), _column(table, "held_out_regret")
    # Bonferroni over the shifts, as for any largest of several.
    quantile = float(stats.t.ppf(1 - (1 - CONFIDENCE) / len(table), max(seeds - 1, 1)))
    surely = float((held_out - quantile * _column(table, "held_out_sem")).max())
    verdict: Verdict = "mixed"
    if np.median(regret) < _MEDIAN and regret.max() < threshold:
        verdict = "holds"
    elif np.median(held_out) >= _MEDIAN or surely >= threshold:
        verdict = "fails"
    inner = (table["prompts"] > 0) & (table["prompts"] < table["max_prompts"])
    note = (
        f"median {np.median(regret):.2%} (held out {np.median(held_out):.2%}), worst {regret.max():.1%} "
        f"(held out {held_out.max():.1%}), above 1 percent in {int((regret > _MEDIAN).sum())} of "
        f"{len(table)} shifts"
    )
    if inner.any():
        note += (
            f"; B* is 0 or the largest B in {int((~inner).sum())}, in the other {int(inner.sum())} the "
            f"median is {np.median(regret[inner]):.2%} (held out {np.median(held_out[inner]):.2%})"
        )
    return Judgement(float(regret.max()), (max(surely, 0.0), float(regret.max())), seeds, verdict, note)


def allocation_gains(saved: Saved[Any], threshold: float) -> Judgement:
    """Per shift with a notable predicted gain: is the measured one positive by two standard errors?"""
    table = _measured(saved, "gain")
    seeds = int(saved.config.seeds)
    gain, sem = _column(table, "gain"), _column(table, "gain_sem")
    notable = _column(table, "predicted_gain") > _NOTABLE
    better = int(((gain > _BETTER) & (gain > 2 * sem)).sum())
    worse = int((gain < -2 * sem).sum())
    note = (
        f"better by more than 1 percent in {better} of {len(table)} shifts, worse in {worse}; median gain "
        f"{np.median(gain):.1%}, largest {gain.max():.1%}; the rule of refusal was chosen in three "
        "looks at shifts 0 to 55, these were never used"
    )
    if not notable.any():
        return Judgement(None, None, seeds, "mixed", f"no predicted gain above 2 percent; {note}")
    count, middle = int(notable.sum()), float(np.median(gain[notable]))
    note += f"; where predicted above 2 percent ({count} shifts): median {middle:.1%}"
    verdicts: dict[str, Verdict] = {
        str(name): "holds" if g > 2 * s else "fails" if g < -2 * s else "mixed"
        for name, g, s in zip(table["panel"][notable], gain[notable], sem[notable], strict=True)
    }
    return judge_settings(verdicts, threshold, seeds, note)


def stage_beats_fixed_rules(saved: Saved[Any], threshold: float) -> Judgement:
    """Per fixed rule: is the planner's choice as good as the best arm in more cases? Paired over cases."""
    rules = compare_rules(saved.table)
    seeds = int(saved.config.seeds)
    good = rules.pivot(index="case", columns="rule", values="good").astype(np.float64)
    verdicts: dict[str, Verdict] = {}
    for rule in RULES[1:]:
        _, low, high = mean_interval(np.asarray(good["planner"] - good[rule], dtype=np.float64))
        # Strictly more often: an interval that touches zero decides nothing.
        verdicts[f"against {rule}"] = "holds" if low > 0 else "fails" if high < 0 else "mixed"
    shares = ", ".join(f"{rule} {good[rule].mean():.0%}" for rule in RULES)
    losses = rules[rules["rule"] == "planner"].groupby("reward")["loss"].agg(["mean", "max"])
    decisive = int((good[list(RULES[1:])].min(axis=1) < 1).sum())
    note = (
        f"as good as the best: {shares} (in {decisive} of {len(good)} cases some rule is not); "
        + "; ".join(
            f"the planner's loss with a {reward} reward: mean {row['mean']:.3f}, largest {row['max']:.2f}"
            for reward, row in losses.iterrows()
        )
    )
    return judge_settings(verdicts, threshold, seeds, note)


def _measured(saved: Saved[Any], column: str) -> pd.DataFrame:
    """The rows of the study in which ``column`` is measured."""
    table = saved.table
    return table[table[column].notna()]


def _column(table: pd.DataFrame, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(table[name], dtype=np.float64)


DOSE_CLAIMS = (
    Claim(
        "planner-dose",
        "ours",
        "The number of prompts that the planner chooses from the exact theory is the best one: median regret "
        "below 1 percent, worst below 5.",
        "random shifts (d from 60 to 120, a quarter of them dense), B from 0 to 4d, V* simulated at every B "
        "(sizes of the preset)",
        "largest regret over shifts: simulated error at B* over the smallest simulated error, minus 1; lower "
        "end: the best B chosen on the other half of the seeds, less its Bonferroni error",
        0.05,
        dose_is_best,
        f"{_JUDGES}::test_dose_is_judged_on_both_regrets",
    ),
    Claim(
        "planner-allocation",
        "ours (sec 5.1)",
        "At equal tr A the planner's allocation beats the paper's A = eta (P Sigma0 P + Delta) wherever the "
        "exact theory with its O(1/d) correction predicts a gain above 2 percent.",
        "as many further random shifts, from 56 on, on which nothing was chosen (quick: 56 to 111); each "
        "allocation at its own best B, paired seeds",
        "share of the predicted gains above 2 percent that are measured above two standard errors",
        1.0,
        allocation_gains,
        f"{_JUDGES}::test_allocation_is_judged_where_a_gain_is_predicted",
    ),
)
CHOICE_CLAIMS = (
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
        f"{_JUDGES}::test_stages_are_judged_against_fixed_rules",
    ),
)
