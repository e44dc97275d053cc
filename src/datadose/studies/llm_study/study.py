"""Claims on a real language model: rows for SFT and how many, prompts for RL; from llm_study.csv.

Every comparison is paired by seed: the same pool, the same order of events, the same test rows. Three seeds
give wide intervals, and a verdict of *mixed* then means that they decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.power import CONFIDENCE, mean_interval
from datadose.studies.ledger import decide, judge_settings
from datadose.studies.llm_study.experiment import BASE, NAME, LlmStudy, Question
from datadose.studies.llm_study.figure import draw_llm_study
from datadose.studies.llm_study.pools import Arm, Band, Contents
from datadose.studies.llm_study.runs import Column
from datadose.studies.study import Claim, Judgement, Saved, Study, Verdict

Judge: TypeAlias = Callable[[Saved[LlmStudy], float], Judgement]
_TEST = "tests/studies/llm_study/test_claims.py"
_MARGIN = -0.02
"""A loss of pass rate that still counts as no loss."""


class Side(NamedTuple):
    """The runs on one side of a comparison; size None: the arm's only one."""

    arm: Arm | Band
    contents: Contents = "clean"
    question: Question = "arms"
    size: int | None = None


def paired(table: pd.DataFrame, first: Side, second: Side, column: str) -> Array:
    """``first`` minus ``second`` in ``column``, by seed."""
    one, two = (_values(table, side, column) for side in (first, second))
    both = one.index.intersection(two.index)
    return np.asarray(one[both] - two[both], dtype=np.float64)


def _values(table: pd.DataFrame, side: Side, column: str) -> pd.Series:
    found = (table[Column.QUESTION] == side.question) & (table[Column.CONTENTS] == side.contents)
    found &= table[Column.ARM] == side.arm
    if side.size is not None:
        found &= table[Column.SIZE] == side.size
    return table[found].set_index(Column.SEED)[column].sort_index()


def _versus(first: Side, rivals: Mapping[str, Side], column: str = Column.TARGET_PROBABILITY) -> Judge:
    """A judge: is the mean difference to every rival at least the threshold, beyond doubt?"""

    def judge(saved: Saved[LlmStudy], threshold: float) -> Judgement:
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
        untouched = float(table.loc[table[Column.QUESTION] == BASE, column].iloc[0])
        note = f"{level:.3f} (untouched {untouched:.3f}): {'; '.join(notes)}"
        if len(verdicts) == 1:
            return Judgement(only[0], only[1:], seeds, next(iter(verdicts.values())), note)
        return judge_settings(verdicts, 1.0, seeds, note)

    return judge


def _sizes(saved: Saved[LlmStudy], threshold: float) -> Judgement:
    """Small sets against large ones of random rows, at equal steps."""
    config = saved.config
    small, large = config.size, max(config.sizes)
    rivals = {f"{large} rows": Side("random", "clean", "sizes", large), "the whole pool": Side("all")}
    return _versus(Side("random", size=small), rivals)(saved, threshold)


_SETTING = (
    "SmolLM2-135M-Instruct, LoRA, sums that it rarely solves as the target, sums, products and gcd that it "
    "mostly solves as earlier abilities; equal steps for all (sizes of the preset)"
)
_RIVALS: dict[str, Arm] = {
    "random": "random", "raw NLL": "nll_top", "easiest": "easiest", "NLL band": "nll_band", "all": "all",
}  # fmt: skip
_BANDS: tuple[Band, ...] = ("easy", "medium", "hard", "all")


def _band(band: Band) -> Side:
    return Side(band, "clean", "bands")


def _claim(
    id_: str,
    statement: str,
    where: str,
    judge: Judge,
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


CLAIMS = [
    _claim(
        "llm-select-clean",
        "A real model: SFT on our selection raises the target more than any rival at equal steps.",
        "clean pool",
        _versus(Side("ours"), {label: Side(arm) for label, arm in _RIVALS.items()}),
    ),
    _claim(
        "llm-select-contaminated",
        "A real model: the same from a pool in which a third of the rows is faulty.",
        "pool with wrong answers and another answer format, answers verifiable",
        _versus(
            Side("ours", "contaminated"),
            {label: Side(arm, "contaminated") for label, arm in _RIVALS.items()},
        ),
    ),
    _claim(
        "llm-select-unverified",
        "A real model: our selection beats random rows of a faulty pool even without a verifier.",
        "pool with wrong answers and another answer format, no verifier",
        _versus(Side("ours_unverified", "contaminated"), {"random": Side("random", "contaminated")}),
    ),
    _claim(
        "llm-hard",
        "A real model: hard rows of the target teach more than rows of the target drawn at random.",
        "clean pool; the rival knows which rows are the target's",
        _versus(Side("ours"), {"random on target": Side("random_target")}),
    ),
    _claim(
        "llm-raw-nll",
        "A real model: the rows of largest NLL are a worse SFT set than random ones if the pool has faults.",
        "pool with wrong answers and another answer format",
        _versus(Side("random", "contaminated"), {"raw NLL": Side("nll_top", "contaminated")}),
    ),
    _claim(
        "llm-forgetting",
        "A real model: our selection costs earlier abilities no more than random rows do.",
        "clean pool; a loss of 0.02 counts as none",
        _versus(Side("ours"), {"random": Side("random")}, Column.EARLIER_GREEDY),
        _MARGIN,
        "greedy accuracy on earlier abilities",
    ),
    _claim(
        "llm-replay",
        "A real model: replaying a quarter of reference rows keeps more of the earlier abilities.",
        "clean pool, our selection",
        _versus(Side("ours_replay"), {"no replay": Side("ours")}, Column.EARLIER_GREEDY),
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
        _versus(_band("medium"), {"easy": _band("easy"), "hard": _band("hard")}),
    ),
    _claim(
        "llm-rl-extremes",
        "A real model: dropping only the extremes and keeping many prompts does as well as any band.",
        "sums of the clean pool, equal steps; a loss of 0.02 counts as none",
        _versus(_band("ours"), {band: _band(band) for band in _BANDS}),
        _MARGIN,
    ),
]

STUDY = Study(
    name=NAME,
    title="Does the selection pay on a real model?",
    story=(
        "SmolLM2-135M-Instruct on arithmetic from solved to hopeless: SFT by LoRA on sets of equal size that "
        "were chosen in different ways, from a clean and from a contaminated pool, and GRPO on bands of pass "
        "rates. The gain on the target stands beside what the model forgets."
    ),
    experiment=LlmStudy,
    draw=draw_llm_study,
    claims=CLAIMS,
)
