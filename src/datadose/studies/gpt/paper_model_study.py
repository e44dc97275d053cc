"""Figure 3 with the paper's model, the study: each claim judged in the setting of its best chance.

The other setting, both versions of the test's n and the untouched model stand in the notes. That nothing
helps where it should fail is a claim of its own.
"""

from __future__ import annotations

from functools import partial

import pandas as pd

from datadose.configs import Stage
from datadose.power import CONFIDENCE
from datadose.studies.gpt.map_settings import Column
from datadose.studies.gpt.map_verdicts import HELPS, RL_CLAIM, verdicts
from datadose.studies.gpt.paper_model import BEST, FAILING, NAME, PaperModel
from datadose.studies.gpt.paper_model_figure import draw
from datadose.studies.ledger import decide, judge_settings
from datadose.studies.study import Claim, Judgement, Saved, Study, Verdict
from datadose.studies.trends import (
    CHANGE,
    FALLS,
    PAPER_CLAIMS,
    ROW_NAMES,
    SHORT_NAMES,
    STATISTICS,
    threshold_of,
    trend_sentence,
)

_LEFT_OUT = "a run within a budget has left these trainings out"


def _judge(saved: Saved[PaperModel], threshold: float, *, claim: str) -> Judgement:
    """A claim in the setting of its best chance, at the end of the stage; all others in the note."""
    del threshold  # The trend's own, which the verdicts have been found with.
    found = verdicts(saved.table, saved.config, claim)
    names = [setting.name for _, setting in saved.config.settings()]
    here = found[(found[Column.PANEL] == names[BEST]) & found["own"]]
    if here.empty:
        return Judgement(None, None, 0, "not run", _LEFT_OUT)
    [own] = here.to_dict("records")
    others = found[found.index != here.index[0]]
    note = "; ".join(
        filter(None, [own["note"], f"untouched {own['untouched']:.3g}, last {own['error']:.3g}"])
    )
    parts = [note, *(_told(row) for _, row in others.iterrows())]
    interval = None if pd.isna(own["low"]) else (float(own["low"]), float(own["high"]))
    value = None if pd.isna(own["value"]) else float(own["value"])
    return Judgement(value, interval, int(own["seeds"]), own["verdict"], "; ".join(parts))


def _told(row: pd.Series) -> str:
    """A verdict in another setting, after other steps or with the other version of the test, in words."""
    n = "" if row["claim"] not in "be" else " with n tied" if row["test_tied"] else " with the test's n fixed"
    value = "every run lost" if pd.isna(row["value"]) else f"{row['value']:.3g}"
    return (
        f"on {row[Column.VARIANT]} after {int(row['optimiser_steps']):,} steps{n}: {row['verdict']}, "
        f"{value}, untouched {row['untouched']:.3g}, last {row['error']:.3g}"
    )


def _judge_failing(saved: Saved[PaperModel], threshold: float) -> Judgement:
    """Per stage: is the untouched model better than the one post-trained where it should fail?"""
    found = verdicts(saved.table, saved.config)
    name = saved.config.settings()[FAILING][1].name
    rows = found[(found[Column.PANEL] == name) & found["own"] & found["claim"].isin(HELPS)]
    by_stage: dict[str, Verdict] = {}
    notes = []
    for row in rows.to_dict("records"):
        stage = SHORT_NAMES[HELPS[row["claim"]]]
        # The ratio is that of the untouched error over the one after training: below 1 training hurts.
        by_stage[stage] = decide(1 / row["high"], 1 / row["low"], threshold, below=False)
        notes.append(f"{stage}: {row['untouched']:.3g} to {row['error']:.3g}")
    if len(by_stage) < len(saved.config.stages):
        return Judgement(None, None, 0, "not run", _LEFT_OUT)
    return judge_settings(by_stage, 1.0, saved.config.seeds, "; ".join(notes))


_SETTING = (
    "eta=0.5, pretrained with Muon; Adam 1e-4, fixed steps, 100 of SFT; test k=3. Preset medium: GPT-2 of 12 "
    "layers, 8 heads, width 256, d=10, batches of 16, 1,000 steps of OS (100 where n or k moves), 300 of RL. "
    "Preset paper: d=20, batches of 64, longer OS and RL, within a budget less. Preset quick: a tiny GPT, d=5"
)
_BEST = "post-training on Sigma0+Delta, n tied"
_TEST = "tests/studies/gpt/test_paper_model.py"


def _claim(name: str, paper: str, stage: Stage, sentence: str, statistic: str, threshold: float) -> Claim:
    return Claim(
        f"{NAME}-{name}",
        paper,
        f"GPT-2 where Figure 3 has its best chance: {sentence}",
        f"{_SETTING}; {_BEST}; {ROW_NAMES[stage]}",
        f"{statistic}; {CONFIDENCE:.0%} interval",
        threshold,
        partial(_judge, claim=name),
        f"{_TEST}::test_claims_are_judged_in_the_best_setting",
    )


CLAIMS = [
    *(
        _claim(
            letter,
            f"Fig 3{letter}",
            stage,
            trend_sentence(stage, axis, trend),
            STATISTICS[trend],
            threshold_of(trend),
        )
        for letter, stage, axis, trend in (*PAPER_CLAIMS, (RL_CLAIM, "rl", Column.PROMPTS, FALLS))
    ),
    *(
        _claim(
            name,
            "Fig 3 (ours)",
            stage,
            f"{ROW_NAMES[stage]} on the most prompts lowers the error.",
            "error of the untouched model / error after post-training",
            CHANGE,
        )
        for name, stage in HELPS.items()
    ),
    Claim(
        f"{NAME}-delta",
        "Fig 3 (ours)",
        "GPT-2: on prompts of Delta alone every stage raises the error.",
        f"{_SETTING}; post-training on Delta, the most prompts",
        f"share of stages with error after post-training / untouched above the threshold; {CONFIDENCE:.0%} "
        "interval",
        CHANGE,
        _judge_failing,
        f"{_TEST}::test_that_delta_alone_hurts_can_be_refuted",
    ),
]

STUDY = Study(
    name=NAME,
    title="Figure 3 with the paper's own model",
    story=(
        "A GPT-2 (of the paper's 9.5 million parameters from the preset medium on), "
        "post-trained where the map gives Figure 3 its best chance "
        "(prompts of the target) and where it should fail (prompts of the shift alone). Dotted: the "
        "untouched model. Right: the error along training for several numbers of prompts."
    ),
    experiment=PaperModel,
    draw=draw,
    claims=CLAIMS,
)
