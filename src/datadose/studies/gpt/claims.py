"""Claims on Figure 3: the GPT-2's error after SFT, OS and RL against B, n and k, from fig3.csv.

The trends, their statistics and constants are Figure 4's (:mod:`~datadose.studies.trends`). A claim is judged
once for each pretraining length: it holds if it holds in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from datadose.configs import Stage
from datadose.studies.gpt.figure3 import CONTROLS
from datadose.studies.ledger import CONFIDENCE, judge_settings, mean_interval
from datadose.studies.study import Claim, Judgement, Saved, Verdict
from datadose.studies.trends import (
    BASE_PANEL,
    PAPER_CLAIMS,
    STATISTICS,
    curve,
    judge_trend,
    listed,
    panel_letter,
    threshold_of,
    trend_sentence,
)

_TEST = "tests/claims/test_figure3_claims.py"


def _judge(stage: Stage, axis: str, trend: str, control: bool) -> Callable[[Saved[Any], float], Judgement]:
    def judge(saved: Saved[Any], threshold: float) -> Judgement:
        table = saved.table
        letter = panel_letter(stage, axis)
        name = f"{letter}-{CONTROLS[axis]}" if control else letter
        verdicts: dict[str, Verdict] = {}
        notes, seeds = [], 0
        for T, rows in table.groupby("pretrain_steps"):
            x, errors, lost = curve(rows, name, axis)
            untouched = rows[rows["panel"] == BASE_PANEL].set_index("length")["error"]
            length = int(rows.loc[rows["panel"] == name, "length"].max())
            base = np.full(len(errors), float(untouched[length])) if axis == "prompts" else None
            found = judge_trend(trend, x, errors, threshold, base)
            seeds = found.seeds
            verdicts[f"{T:,} pretraining steps"] = found.verdict
            gone = f", {lost} runs lost" if lost else ""
            notes.append(
                f"after {T:,} steps: error/d {listed(errors.mean(axis=0))} at {listed(x)}{gone}, "
                f"untouched {float(untouched[length]):.3g}"
            )
        size = _size(saved)
        return judge_settings(verdicts, 1.0, seeds, f"{size}; " + "; ".join(notes))

    return judge


def _size(saved: Saved[Any]) -> str:
    config = saved.config
    preset = config.pretrainings[0].preset
    return f"{preset} GPT, d={config.task.dimension}, n={config.task.length}"


def _better_with_replay(saved: Saved[Any], threshold: float) -> Judgement:
    """Per stage and pretraining: does replay lower the error on Sigma0 after post-training on Delta?"""
    table = saved.table
    rows = table[(table["model"] == "gpt") & table["variant"].notna()]
    verdicts: dict[str, Verdict] = {}
    notes, seeds = [], 0
    for (T, stage), group in rows.groupby(["pretrain_steps", "kind"]):
        wide = group.pivot(index="seed", columns="variant", values="pretraining_error").astype(np.float64)
        seeds = len(wide)
        mean, low, high = np.exp(mean_interval(np.log((wide["delta"] / wide["replay"]).to_numpy())))
        verdict: Verdict = "holds" if low > threshold else "fails" if high < 1 else "mixed"
        verdicts[f"{stage} after {int(T):,}"] = verdict
        notes.append(f"{stage} after {int(T):,}: {mean:.3g} times")
    return judge_settings(
        verdicts, 1.0, seeds, "forgetting with Delta alone over with replay: " + "; ".join(notes)
    )


def _first_thought(saved: Saved[Any], threshold: float) -> Judgement:
    """Per untouched GPT and group of directions: is S w* a better regressor of the first thought than w*?"""
    table = saved.table
    rows = table[(table["model"] == "gpt") & (table["kind"] == "untouched")]
    verdicts: dict[str, Verdict] = {}
    notes = []
    for _, row in rows.iterrows():
        for group in ("rare", "common"):
            phi, w = (float(row[f"target_fit_{group}_{regressor}"]) for regressor in ("phi", "w"))
            name = f"{group} after {int(row['pretrain_steps']):,}"
            verdicts[name] = "holds" if phi >= w + threshold else "fails"
            notes.append(f"{name}: R2 {phi:.2f} on S w*, {w:.2f} on w*")
    return judge_settings(verdicts, 1.0, 1, "; ".join(notes))


_SETTING = (
    "GPT-2 pretrained on Sigma0=diag(0.1 on d/5, 1) with Garg's curriculum, two pretraining lengths; Delta=1 "
    "on d/5, post-training on Delta, batch 64, fixed steps, eta=0.5, test k=3 (sizes of the preset)"
)
_WHERE = {
    ("prompts", False): "B moves, equal steps",
    ("prompts", True): "B moves, equal epochs",
    ("length", False): "n moves in post-training and test",
    ("length", True): "n moves in post-training alone",
    ("steps", False): "training k moves",
}


def _claim(id_: str, paper: str, stage: Stage, axis: str, trend: str, control: bool = False) -> Claim:
    return Claim(
        id_,
        paper,
        f"GPT-2: {trend_sentence(stage, axis, trend)}",
        f"{_SETTING}; {_WHERE[axis, control]}",
        f"share of pretraining lengths where it holds: {STATISTICS[trend]}; {CONFIDENCE:.0%} interval",
        threshold_of(trend),
        _judge(stage, axis, trend, control),
        f"{_TEST}::test_trends_are_judged_for_each_pretraining_length",
    )


FIGURE3_CLAIMS = [
    *(
        _claim(f"fig-3{letter}", f"Fig 3{letter}", stage, axis, trend)
        for letter, stage, axis, trend in PAPER_CLAIMS
    ),
    *(
        _claim(f"fig-3{letter}-{CONTROLS[axis]}", "Fig 3 (ours)", stage, axis, trend, control=True)
        for letter, stage, axis, trend in PAPER_CLAIMS
        if axis in CONTROLS
    ),
    *(
        _claim(f"fig-3{letter}-rl", "Fig 3 (ours)", "rl", axis, trend)
        for letter, _, axis, trend in PAPER_CLAIMS
        if letter in "def"
    ),
]
DATA_CLAIMS = [
    Claim(
        "fig-3-replay",
        "Fig 3 (ours)",
        "GPT-2: replaying Sigma0 prompts in post-training lowers the error on Sigma0 afterwards.",
        f"{_SETTING}; half of the post-training prompts from Sigma0, or none",
        f"share of stages and pretraining lengths with a ratio above 1 at {CONFIDENCE:.0%} confidence",
        1.0,
        _better_with_replay,
        f"{_TEST}::test_replay_is_judged_per_stage",
        shown_by=("fig3",),
    ),
    Claim(
        "fig-3-mechanism",
        "Fig 3 (ours)",
        "GPT-2: the first thought is a linear function of S w*, as in the linear theory, rather than of w*.",
        f"{_SETTING}; the untouched models on the target's prompts, rare and common directions apart",
        "share of models and groups of directions where R2 on S w* is not below that on w*",
        0.0,
        _first_thought,
        f"{_TEST}::test_the_mechanism_is_judged_by_both_regressors",
        shown_by=("fig3",),
    ),
]
