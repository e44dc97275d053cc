"""The map of Figure 3, the study: in which share of the settings each claim holds, and what is claimed.

A claim on a share holds if its exact interval lies above one half of the settings; that a share differs by
level is reported in the notes, with an interval each, and judged nowhere.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

from datadose.power import CONFIDENCE
from datadose.studies.gpt.map import NAME, Figure3Map
from datadose.studies.gpt.map_figure import draw
from datadose.studies.gpt.map_settings import STAGES
from datadose.studies.gpt.map_verdicts import HALF, HELPS, rises_with_prompts, shares_by_level, verdicts
from datadose.studies.ledger import judge_share
from datadose.studies.study import Claim, Judgement, Saved, Study
from datadose.studies.trends import PAPER_CLAIMS, ROW_NAMES, STATISTICS, trend_sentence


def _judge_claim(saved: Saved[Figure3Map], threshold: float, *, claim: str) -> Judgement:
    """The share of settings in which a claim holds at what was drawn for them; by level in the note."""
    found = verdicts(saved.table, saved.config, claim)
    own, shares = found[found["own"]], shares_by_level(found, claim)
    counts = Counter(own["verdict"])
    parts = [f"mixed in {counts['mixed']}, fails in {counts['fails']}"]
    for choice in dict.fromkeys(name for name, *_ in shares):
        levels = [f"{label}: {_counted(made)}" for name, label, made in shares if name == choice]
        parts.append(f"{choice} {', '.join(levels)}")
    return judge_share((own["verdict"] == "holds").to_numpy(), threshold, note="; ".join(parts))


def _counted(made: Judgement) -> str:
    """A share in few characters: how many of how many, and the interval."""
    low, high = made.interval or (0.0, 1.0)
    return f"{round((made.value or 0.0) * made.seeds)} of {made.seeds} ({low:.2f} to {high:.2f})"


def _judge_stopping(saved: Saved[Figure3Map], threshold: float) -> Judgement:
    """Among settings where SFT's error rises with B after some number of steps: does it not at the best?"""
    rises = rises_with_prompts(saved.table, saved.config, "sft")
    seen = [entry for entry in rises if entry.somewhere]
    looks = sorted({steps for entry in rises for steps in entry.after})
    by_steps = [
        f"{sum(entry.after.get(steps) == 'holds' for entry in rises)} of "
        f"{sum(steps in entry.after for entry in rises)} after {steps:,}"
        for steps in looks
    ]
    ends = [entry.best_steps[-1] for entry in rises]
    inside = sum(0 < steps < max(entry.after) for steps, entry in zip(ends, rises, strict=True))
    note = (
        f"it rises in {', '.join(by_steps)} steps; with the most prompts the best time is 0 in "
        f"{ends.count(0)}, the last in {len(ends) - ends.count(0) - inside} and between in {inside} of "
        f"{len(ends)}"
    )
    if not seen:
        return Judgement(None, None, len(rises), "mixed", f"nothing to judge: {note}")
    return judge_share([entry.at_best != "holds" for entry in seen], threshold, note=note)


_SETTING = (
    "tiny and small GPT, d=5, settings drawn evenly from learning rate, data (Delta, Sigma0+Delta, replay), "
    "length of pretraining, eta, OS steps, n of the test (tied or fixed); SFT 100 steps (sizes of the preset)"
)
_TEST = "tests/studies/gpt/test_map.py"
_SHARE = f"share of settings where it holds (exact interval); in each: {{}}, {CONFIDENCE:.0%} interval"

CLAIMS = [
    *(
        Claim(
            f"fig3map-{letter}",
            f"Fig 3{letter} (ours)",
            f"GPT-2, in most settings: {trend_sentence(stage, axis, trend)}",
            _SETTING,
            _SHARE.format(STATISTICS[trend]),
            HALF,
            partial(_judge_claim, claim=letter),
            f"{_TEST}::test_shares_are_judged_over_settings",
        )
        for letter, stage, axis, trend in PAPER_CLAIMS
    ),
    *(
        Claim(
            f"fig3map-{name}",
            "Fig 3 (ours)",
            f"GPT-2, in most settings: {ROW_NAMES[stage]} on the most prompts lowers the error.",
            _SETTING,
            _SHARE.format("error of the untouched model / error after post-training"),
            HALF,
            partial(_judge_claim, claim=name),
            f"{_TEST}::test_shares_are_judged_over_settings",
        )
        for name, stage in HELPS.items()
        if stage in STAGES
    ),
    Claim(
        "fig3map-stopping",
        "Fig 3a (ours)",
        "GPT-2: where SFT's error rises with B after some number of steps, it does not with each B at its "
        "best time: the rise is a matter of stopping.",
        f"{_SETTING}; the best of the recorded times, the start included, chosen by the other seeds",
        "share of these settings without a rise at the best times (exact interval)",
        HALF,
        _judge_stopping,
        f"{_TEST}::test_a_rise_at_the_best_time_refutes_stopping",
    ),
]

STUDY = Study(
    name=NAME,
    title="Where do Figure 3's claims hold?",
    story=(
        "Each row is a setting drawn from what the paper leaves unstated, each column one of its claims on "
        "the nonlinear transformer, with whether post-training helps at all beside them. Shares by level say "
        "which choice a claim hangs on, the paths below whether it is a matter of when training stops."
    ),
    experiment=Figure3Map,
    draw=draw,
    claims=CLAIMS,
)
