"""Claims on a real language model: rows for SFT and how many, prompts for RL; from llm_study.csv.

Every comparison is paired by seed: the same pool, the same order of events, the same test rows. Three seeds
give wide intervals, and a verdict of *mixed* then says that they decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.studies.ledger import CONFIDENCE, decide, judge_settings, mean_interval
from datadose.studies.study import Claim, Judgement, Saved, Verdict

_TEST = "tests/claims/test_llm_study_claims.py"
_MARGIN = -0.02
"""A loss of pass rate that still counts as no loss."""


def paired(table: pd.DataFrame, first: str, second: str, column: str) -> Array:
    """``first`` minus ``second`` in ``column``, by seed; each is ``question/contents/arm/size``."""
    one, two = (_values(table, name, column) for name in (first, second))
    both = one.index.intersection(two.index)
    return np.asarray(one[both] - two[both], dtype=np.float64)


def _values(table: pd.DataFrame, name: str, column: str) -> pd.Series:
    question, contents, arm, size = name.split("/")
    rows = table[(table["question"] == question) & (table["contents"] == contents) & (table["arm"] == arm)]
    if size:
        rows = rows[rows["size"] == int(size)]
    return rows.set_index("seed")[column].sort_index()


def _versus(
    first: str, rivals: dict[str, str], column: str = "target_probability"
) -> Callable[[Saved[Any], float], Judgement]:
    """A judge: is the mean difference to every rival at least the threshold, beyond doubt?"""

    def judge(saved: Saved[Any], threshold: float) -> Judgement:
        table = saved.table
        verdicts: dict[str, Verdict] = {}
        notes, seeds, only = [], 0, None
        for label, rival in rivals.items():
            differences = paired(table, first, rival, column)
            if len(differences) < 2:
                continue
            only = mean, low, high = mean_interval(differences)
            seeds = max(seeds, len(differences))
            verdicts[label] = decide(low, high, threshold, below=False)
            notes.append(f"minus {label} {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
        if only is None:
            return Judgement(None, None, 0, "not run", "too few finished seeds")
        level = _values(table, first, column).mean()
        untouched = float(table.loc[table["question"] == "base", column].iloc[0])
        note = f"{level:.3f} (untouched {untouched:.3f}): {'; '.join(notes)}"
        if len(verdicts) == 1:
            return Judgement(only[0], only[1:], seeds, next(iter(verdicts.values())), note)
        return judge_settings(verdicts, 1.0, seeds, note)

    return judge


def _sizes(saved: Saved[Any], threshold: float) -> Judgement:
    """Small sets against large ones of random rows, at equal steps."""
    config = saved.config
    small, large = config.size, max(config.sizes)
    rivals = {f"{large} rows": f"sizes/clean/random/{large}", "the whole pool": "arms/clean/all/"}
    return _versus(f"arms/clean/random/{small}", rivals)(saved, threshold)


_SETTING = (
    "SmolLM2-135M-Instruct, LoRA, sums that it rarely solves as the target, sums, products and gcd that it "
    "mostly solves as earlier abilities; equal steps for all (sizes of the preset)"
)
_RIVALS = {
    "random": "random", "raw NLL": "nll_top", "easiest": "easiest", "NLL band": "nll_band", "all": "all",
}  # fmt: skip


def _arms(contents: str, names: dict[str, str]) -> dict[str, str]:
    return {label: f"arms/{contents}/{arm}/" for label, arm in names.items()}


def _claim(
    id_: str,
    statement: str,
    where: str,
    judge: Callable[[Saved[Any], float], Judgement],
    threshold: float = 0.0,
    what: str = "pass rate on the target",
) -> Claim:
    return Claim(
        id_,
        "ours (language models)",
        statement,
        f"{_SETTING}; {where}",
        f"{what}: paired difference, mean over seeds and its {CONFIDENCE:.0%} interval (several rivals: the "
        "share of them)",
        threshold,
        judge,
        f"{_TEST}::test_differences_are_paired_by_seed",
    )


LLM_STUDY_CLAIMS = [
    _claim(
        "llm-select-clean",
        "A real model: SFT on our selection raises the target more than any rival at equal steps.",
        "clean pool",
        _versus("arms/clean/ours/", _arms("clean", _RIVALS)),
    ),
    _claim(
        "llm-select-contaminated",
        "A real model: the same from a pool in which a third of the rows is faulty.",
        "pool with wrong answers and another answer format, answers verifiable",
        _versus("arms/contaminated/ours/", _arms("contaminated", _RIVALS)),
    ),
    _claim(
        "llm-select-unverified",
        "A real model: our selection beats random rows of a faulty pool even without a verifier.",
        "pool with wrong answers and another answer format, no verifier",
        _versus("arms/contaminated/ours_unverified/", _arms("contaminated", {"random": "random"})),
    ),
    _claim(
        "llm-hard",
        "A real model: hard rows of the target teach more than rows of the target drawn at random.",
        "clean pool; the rival knows which rows are the target's",
        _versus("arms/clean/ours/", _arms("clean", {"random on target": "random_target"})),
    ),
    _claim(
        "llm-raw-nll",
        "A real model: the rows of largest NLL are a worse SFT set than random ones if the pool has faults.",
        "pool with wrong answers and another answer format",
        _versus("arms/contaminated/random/", _arms("contaminated", {"raw NLL": "nll_top"})),
    ),
    _claim(
        "llm-forgetting",
        "A real model: our selection costs earlier abilities no more than random rows do.",
        "clean pool; a loss of 0.02 counts as none",
        _versus("arms/clean/ours/", _arms("clean", {"random": "random"}), "earlier_greedy"),
        _MARGIN,
        "greedy accuracy on earlier abilities",
    ),
    _claim(
        "llm-replay",
        "A real model: replaying a quarter of reference rows keeps more of the earlier abilities.",
        "clean pool, our selection",
        _versus("arms/clean/ours_replay/", _arms("clean", {"no replay": "ours"}), "earlier_greedy"),
        0.0,
        "greedy accuracy on earlier abilities",
    ),
    _claim(
        "llm-small-sft",
        "A real model: a small SFT set teaches as much as a large one at equal steps.",
        "clean pool, random rows; a loss of 0.02 counts as none",
        _sizes,
        _MARGIN,
    ),
    _claim(
        "llm-rl-medium",
        "A real model: GRPO gains more from prompts of medium pass rate than from easy or hard ones.",
        "sums of the clean pool, equal numbers of prompts and steps",
        _versus("bands/clean/medium/", {band: f"bands/clean/{band}/" for band in ("easy", "hard")}),
    ),
    _claim(
        "llm-rl-extremes",
        "A real model: dropping only the extremes and keeping many prompts does as well as any band.",
        "sums of the clean pool, equal steps; a loss of 0.02 counts as none",
        _versus(
            "bands/clean/ours/",
            {band: f"bands/clean/{band}/" for band in ("easy", "medium", "hard", "all")},
        ),
        _MARGIN,
    ),
]
