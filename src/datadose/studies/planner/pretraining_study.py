"""Finding 1 as a decision: is the balanced mixture minimax, where not, and what does planning gain?

Settings are random and exact (:mod:`datadose.studies.planner.pretraining_cells`); gains are also simulated.
Ranges and thresholds were set on seeds from 10,000 on; the study judges seeds from 0 on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from datadose.studies.ledger import judge_settings, judge_share, told_apart
from datadose.studies.planner.pretraining_cells import (
    CHOICE,
    EXAMPLES,
    FINITE,
    KINDS,
    LENGTHS,
    MEASURED,
    OUTCOME,
    PRETRAINED,
    RIVAL,
    ROWS,
    SFT,
    SIMULATED,
    STARVED,
    UNLIMITED,
    WORTH,
    Column,
    Kind,
    choose_shares,
    share_curve,
    simulate_gain,
    starve,
)
from datadose.studies.planner.pretraining_figure import draw_shares
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study
from datadose.studies.tables import LSA, THEORY, Setting, SettingsExperiment
from datadose.sweep import Cell

NAME = "pretraining_shares"
SAME, NEAR = 0.01, 0.05
"""Gains that count as none where all is alike, and as small elsewhere."""
SCARCE, EVEN = 0.01, 0.5
"""Shares whose errors make the price of scarcity."""


@dataclass(frozen=True)
class PretrainingShares(SettingsExperiment):
    """``seeds`` settings of each kind; for the first ``simulated``, gains are simulated ``draws`` times."""

    figure, columns, measured = NAME, Column, MEASURED
    dimension: int
    seeds: int
    simulated: int
    draws: int

    @classmethod
    def preset(cls, name: Preset) -> PretrainingShares:
        """The configuration of a preset; with 36 settings a share of .74 is distinguished from one half."""
        if name == "smoke":
            return cls(14, 1, 1, 2)
        return cls(60, 36, 16, 6) if name == "quick" else cls(120, 100, 40, 10)

    def settings(self) -> Iterator[Setting]:
        """Choices, curves of the first setting with two categories, scarce categories, and simulations."""
        size: dict[str, Any] = {"dimension": self.dimension}
        for kind, pretrained in product(KINDS, (None, PRETRAINED)):
            for seed, objective in product(range(self.seeds), ("worst", "mean")):
                if objective == "worst" or kind == "alike":
                    arguments = {"kind": kind, **size, "seed": seed, "objective": objective}
                    shared = {Column.KIND: kind, Column.OBJECTIVE: objective, Column.SEED: seed}
                    cell = Cell(choose_shares, {**arguments, "pretrained": pretrained})
                    yield cell, {Column.MODEL: THEORY, **shared}
        for kind, pretrained in product(EXAMPLES, (None, PRETRAINED)):
            arguments = {"kind": kind, **size, "seed": 0, "pretrained": pretrained}
            yield Cell(share_curve, arguments), {Column.MODEL: THEORY, Column.KIND: kind, Column.SEED: 0}
        for seed in range(self.seeds):
            yield Cell(starve, {**size, "seed": seed}), {Column.MODEL: THEORY, Column.SEED: seed}
        for kind, seed in product(KINDS[1:], range(self.simulated)):
            arguments = {"kind": kind, **size, "seed": seed, "draws": list(range(self.draws))}
            yield (
                Cell(simulate_gain, arguments),
                {Column.MODEL: LSA, Column.KIND: kind, Column.SEED: seed},
            )


def gains(table: pd.DataFrame, kind: Kind, objective: str = "worst") -> pd.DataFrame:
    """1 - best / rival by setting (rows) and pretraining (columns "unlimited" and "30 d prompts")."""
    rows = table[(table[Column.PART] == CHOICE) & (table[Column.KIND] == kind)]
    rows = rows[rows[Column.OBJECTIVE] == objective]
    gain = 1 - rows[Column.PREDICTED] / rows[Column.RIVAL].astype(float)
    named = rows[Column.PRETRAINED].isna().map({True: "unlimited", False: f"{PRETRAINED} d prompts"})
    return rows.assign(gain=gain, of=named).pivot(index=Column.SEED, columns="of", values="gain")


def _spread(values: pd.Series) -> str:
    return f"median {values.median():.2%}, largest {values.max():.2%}"


def alike(saved: Saved[PretrainingShares], threshold: float, objective: str) -> Judgement:
    """Whether nothing gains where all is alike."""
    found = gains(saved.table, "alike", objective)
    note = "; ".join(f"gain, {name}: {_spread(found[name])}" for name in found)
    return judge_share((found < SAME).all(axis=1), threshold, note=note)


def near(saved: Saved[PretrainingShares], threshold: float, kind: Kind) -> Judgement:
    """Whether equal shares (spending) are near the best in most settings, with either pretraining."""
    found = gains(saved.table, kind)
    verdicts = {str(name): judge_share(found[name] < NEAR, 0.5).verdict for name in found}
    notes = [
        f"{name}: within {NEAR:.0%} in {(gain < NEAR).sum()} of {len(gain)}, {_spread(gain)}"
        for name, gain in found.items()
    ]
    note = "; ".join([*notes, told_apart(len(found), 0.5)])
    return judge_settings(verdicts, threshold, len(found), note)


def prices(table: pd.DataFrame) -> pd.DataFrame:
    """Error at a share of .01 over that at one half: settings by (stage, n / d, B / d)."""
    rows = table[table[Column.PART] == STARVED]
    place = [Column.STAGE, Column.LONG, Column.SIZE]
    wide = rows.pivot(index=Column.SEED, columns=[*place, Column.SHARE], values=Column.PREDICTED)
    ends = [wide.xs(share, axis=1, level=Column.SHARE) for share in (SCARCE, EVEN)]
    return ends[0] / ends[1]


def _compared(
    saved: Saved[PretrainingShares],
    threshold: float,
    pairs: dict[str, tuple[tuple[str, float, float], tuple[str, float, float]]],
) -> Judgement:
    """Whether the first place of each pair has the lower price in surely more than half of the settings."""
    found, verdicts, notes = prices(saved.table), {}, []
    for name, (first, second) in pairs.items():
        lower = found[first] < found[second]
        verdicts[name] = judge_share(lower, 0.5).verdict
        medians = f"{found[first].median():.3g} against {found[second].median():.3g}"
        notes.append(f"{name}: {int(lower.sum())} of {len(lower)} ({medians})")
    note = "; ".join([*notes, told_apart(len(found), 0.5)])
    return judge_settings(verdicts, threshold, len(found), note)


def rows_repair(saved: Saved[PretrainingShares], threshold: float) -> Judgement:
    """Whether scarcity costs less with many rows of post-training than with few."""
    pairs = {
        f"{stage}, n = {n:g} d": ((stage, n, ROWS[-1]), (stage, n, ROWS[0]))
        for stage, n in product((SFT, OUTCOME), LENGTHS)
    }
    return _compared(saved, threshold, pairs)


def outcome_needs_more(saved: Saved[PretrainingShares], threshold: float) -> Judgement:
    """Whether scarcity costs less before SFT than before outcome supervision."""
    pairs = {f"n = {n:g} d, B = {B:g} d": ((SFT, n, B), (OUTCOME, n, B)) for n, B in product(LENGTHS, ROWS)}
    return _compared(saved, threshold, pairs)


def short_prompts(saved: Saved[PretrainingShares], threshold: float) -> Judgement:
    """Whether scarcity costs less with short prompts than with long ones."""
    pairs = {
        f"{stage}, B = {B:g} d": ((stage, LENGTHS[0], B), (stage, LENGTHS[-1], B))
        for stage, B in product((SFT, OUTCOME), ROWS)
    }
    return _compared(saved, threshold, pairs)


def simulated_gains(table: pd.DataFrame, plan: str, pretrained: int | None) -> pd.DataFrame:
    """By setting: the predicted gain of a plan over the rival, the simulated log ratio and its error.

    The worst of the shifts is taken draw by draw, which counts against the plan whose errors are tied.
    """
    rows = table[table[Column.PART] == SIMULATED]
    at = rows[Column.PRETRAINED].isna() if pretrained is None else rows[Column.PRETRAINED] == pretrained
    index = [Column.KIND, Column.SEED]
    worst = rows[at].groupby([*index, Column.PLAN, Column.DRAW])[[Column.ERROR, Column.PREDICTED]].max()
    own, other = (worst.xs(name, level=Column.PLAN) for name in (plan, RIVAL))
    logs = np.log(own[Column.ERROR] / other[Column.ERROR]).groupby(level=index)
    predicted = (1 - own[Column.PREDICTED] / other[Column.PREDICTED]).groupby(level=index).first()
    return pd.DataFrame({"predicted": predicted, "log": logs.mean(), "sem": logs.sem()})


def measured(
    saved: Saved[PretrainingShares], threshold: float, plan: str, pretrained: int | None
) -> Judgement:
    """Whether predicted gains above 5 percent are there in simulation, above two standard errors."""
    found = simulated_gains(saved.table, plan, pretrained)
    found = found[found["predicted"] > WORTH]
    if found.empty:
        return judge_share([], threshold)
    gained = 1 - np.exp(found["log"])
    note = (
        f"gain predicted {found['predicted'].median():.1%}, simulated {gained.median():.1%} (medians; "
        f"smallest {gained.min():.1%}); in the median setting {2 * found['sem'].median():.2%} is told from 0"
    )
    return judge_share(found["log"] < -2 * found["sem"], threshold, note=note)


def unlimited_is_enough(saved: Saved[PretrainingShares], threshold: float) -> Judgement:
    """Whether shares planned for unlimited pretraining beat the rival's on a number of prompts too."""
    promised = simulated_gains(saved.table, UNLIMITED, None)["predicted"]
    found = simulated_gains(saved.table, UNLIMITED, PRETRAINED)[promised > WORTH]
    if found.empty:
        return judge_share([], threshold)
    ratio = np.exp(found["log"])
    planned = np.exp(simulated_gains(saved.table, FINITE, PRETRAINED)["log"][promised > WORTH])
    note = (
        f"error over the rival's: median {ratio.median():.3g}, largest {ratio.max():.3g}; of shares planned "
        f"for these prompts {planned.median():.3g}, {planned.max():.3g}"
    )
    return judge_share(found["log"] < -2 * found["sem"], threshold, note=note)


_SETTING = (
    "random settings of 2 or 3 categories and as many shifts, one of which comes, d=60: variance outside a "
    "category's own directions .02 to .5, n d/2 to 8d, B .2d to 8d, SFT by the paper's allocation with its "
    "best penalty; pretraining on unlimited prompts and on 30d; exact theory (sizes of the preset)"
)
_SCARCE = (
    "36 random settings of two categories that are alike, n = d/2 and 4d, B = d/2, 2d and 8d; cost: error at "
    "a share of .01 over that at one half, after the shift of that category; exact theory, unlimited "
    "pretraining"
)
_SIMULATED = (
    "settings of the first 16 seeds of each kind, by simulated pretraining (30d prompts) and post-training "
    "with the penalties of the theory, 6 draws (sizes of the preset)"
)
_FINDING = "Finding 1, Sec 7 as a decision (ours)"
_TEST = "tests/studies/planner/test_pretraining_study.py"
_MOST = "share of settings of pretraining in which that is so in surely more than half of the draws"


def _near(kind: Kind, name: str, rival: str = "equal shares are") -> Claim:
    return Claim(
        f"shares-{kind}",
        _FINDING,
        f"With unknown shifts: {rival} within 5 percent of the least worst error where {name} differ.",
        _SETTING,
        _MOST,
        1.0,
        partial(near, kind=kind),
        f"{_TEST}::test_near_is_judged_for_either_pretraining",
    )


CLAIMS = (
    Claim(
        "shares-minimax",
        _FINDING,
        "With unknown shifts the balanced mixture is minimax where categories, shifts and costs are alike: "
        "no shares have a worst error that is lower by 1 percent.",
        _SETTING,
        "share of settings in which that is so with either pretraining",
        0.9,
        partial(alike, objective="worst"),
        f"{_TEST}::test_one_gain_where_all_is_alike_counts",
    ),
    Claim(
        "shares-mean",
        _FINDING,
        "There it also has the least mean error, within 1 percent.",
        _SETTING,
        "share of settings in which that is so with either pretraining",
        0.9,
        partial(alike, objective="mean"),
        f"{_TEST}::test_one_gain_where_all_is_alike_counts",
    ),
    _near("sizes", "groups of directions"),
    _near("scales", "the scales of the inputs"),
    _near("shifts", "the sizes of the shifts"),
    _near("costs", "costs", "equal spending is"),
    Claim(
        "shares-more-rows",
        _FINDING,
        "Post-training repairs what pretraining missed: a scarce category costs less with 8d rows than with "
        "d/2.",
        _SCARCE,
        "share of stages and lengths in which that is so in surely more than half of the settings",
        1.0,
        rows_repair,
        f"{_TEST}::test_prices_of_scarcity_are_compared",
    ),
    Claim(
        "shares-outcome",
        _FINDING,
        "Outcome supervision depends on pretraining more than SFT: a scarce category costs it more at equal "
        "rows.",
        _SCARCE,
        "share of lengths and rows in which that is so in surely more than half of the settings",
        1.0,
        outcome_needs_more,
        f"{_TEST}::test_prices_of_scarcity_are_compared",
    ),
    Claim(
        "shares-short-prompts",
        _FINDING,
        "With short prompts the shares matter less: a scarce category costs less with n = d/2 than with 4d.",
        _SCARCE,
        "share of stages and rows in which that is so in surely more than half of the settings",
        1.0,
        short_prompts,
        f"{_TEST}::test_prices_of_scarcity_are_compared",
    ),
    Claim(
        "shares-gain",
        _FINDING,
        "Predicted gains above 5 percent over equal shares are measured, with pretraining on 30d prompts.",
        _SIMULATED,
        "share of them that is above two standard errors",
        0.75,
        partial(measured, plan=FINITE, pretrained=PRETRAINED),
        f"{_TEST}::test_gains_are_measured_draw_by_draw",
    ),
    Claim(
        "shares-unlimited",
        _FINDING,
        "Shares planned for unlimited pretraining (gain above 5 percent there) beat equal ones on 30d "
        "prompts too.",
        _SIMULATED,
        "share of settings in which they do, above two standard errors",
        0.5,
        unlimited_is_enough,
        f"{_TEST}::test_gains_are_measured_draw_by_draw",
    ),
)
STUDY = Study(
    name=NAME,
    title="What to pretrain on, if one of several shifts may come",
    story=(
        "Where categories and shifts are alike the balanced mixture guards best against the worst of them "
        "(all but 1 of 36 settings, and that by 2 percent); where sizes or scales differ other shares gain "
        "some percent, and equal spending is right where costs differ. Plan with the number of pretraining "
        "prompts: shares for unlimited ones starve what is scarce, at worst forty times the error on 30 d."
    ),
    experiment=PretrainingShares,
    draw=draw_shares,
    claims=CLAIMS,
)
