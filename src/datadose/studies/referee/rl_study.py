"""Claims on RL in the sea, from sea_rl.csv: which prompts, at equal steps and samples, and which stage.

A gain is a difference of mean pass probabilities over paired seeds. The detectable one is that of the pilot,
stated before the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pandas as pd

from datadose.power import CONFIDENCE
from datadose.studies.referee.judging import compare_all
from datadose.studies.referee.rl import NAME, SeaRlStudy
from datadose.studies.referee.rl_arms import UNFILTERED, Comparisons, RlArm, arms_of, gains
from datadose.studies.referee.rl_figure import draw_sea_rl
from datadose.studies.referee.rl_prompts import Selector
from datadose.studies.referee.rl_runs import Column
from datadose.studies.referee.stage_rules import judge_both, judge_rule
from datadose.studies.study import Claim, Judgement, Saved, Study

Judge: TypeAlias = Callable[[Saved[SeaRlStudy], float], Judgement]
Find: TypeAlias = Callable[[pd.DataFrame, SeaRlStudy], Comparisons]
_TEST = "tests/studies/referee/test_rl_claims.py"


def _judge(find: Find, measure: str, *, scored: bool = False) -> Judge:
    """Whether all gains are positive; ``scored`` where both arms of each read pass rates."""

    def judge(saved: Saved[SeaRlStudy], threshold: float) -> Judgement:
        config = saved.config
        return compare_all(find(saved.table, config), config.pilot(measure, scored=scored), threshold)

    return judge


def _signals(table: pd.DataFrame, config: SeaRlStudy) -> list[RlArm]:
    arms = [arm for arm in arms_of(table) if arm.selector == Selector.SIGNAL]
    return [arm for arm in arms if arm.prompts == config.prompts]


def _over_random(measure: str) -> Find:
    """The expected signal over as many random prompts, at equal steps."""

    def find(table: pd.DataFrame, config: SeaRlStudy) -> Comparisons:
        random = RlArm(Selector.RANDOM, 0, config.prompts)
        return {arm.name: gains(table, arm, random, measure) for arm in _signals(table, config)}

    return find


def _over_unfiltered(measure: str) -> Find:
    """The expected signal over the whole pool, at equal samples in all."""

    def find(table: pd.DataFrame, config: SeaRlStudy) -> Comparisons:
        arms = _signals(table, config)
        return {arm.name: gains(table, arm, UNFILTERED, measure, samples=True) for arm in arms}

    return find


def _against(first: str, second: str, measure: str) -> Find:
    """A selector over another at the middle K; unfiltered and drop have all their prompts."""

    def find(table: pd.DataFrame, config: SeaRlStudy) -> Comparisons:
        one, two = _scored(first, config), _scored(second, config)
        return {f"{one.name} over {two.name}": gains(table, one, two, measure)}

    return find


def _scored(selector: str, config: SeaRlStudy) -> RlArm:
    """The arm of a selector at the middle K, or the unfiltered one."""
    if selector == UNFILTERED.selector:
        return UNFILTERED
    return RlArm(selector, config.scored, 0 if selector == Selector.DROP else config.prompts)


def _many(measure: str) -> Find:
    """Many prompts over few, at equal steps."""

    def find(table: pd.DataFrame, config: SeaRlStudy) -> Comparisons:
        kinds = ((Selector.RANDOM, 0), (Selector.SIGNAL, config.scored))
        return {
            name: gains(
                table, RlArm(name, K, config.prompts), RlArm(name, K, config.few), measure
            )
            for name, K in kinds
        }  # fmt: skip

    return find


_SETTING = (
    "0.3M-parameter character Llama; GRPO (groups of 8, verifier), prompts of 40 families and of 3 to 10 "
    "letters, from hopeless to solved; a tenth of the pool (sizes of the preset)"
)
_SHARE = (
    f"share of comparisons, each the mean gain in exact pass probability over paired seeds with its "
    f"{CONFIDENCE:.0%} Student interval; the detectable gain is the pilot's"
)
_STEPS = "equal steps"
_SAMPLES = "K = 4, 8 and 16 samples a prompt (preset quick)"
_MIDDLE = "K = 8 (preset quick)"
_ON_RARE, _ON_ALL = "held-out prompts of the four rare families", "held-out prompts as the pool's"


def _claim(name: str, statement: str, where: str, judge: Judge, setting: str = _SETTING) -> Claim:
    return Claim(
        f"sea-rl-{name}",
        "ours (language models)",
        statement,
        f"{setting}; {where}",
        _SHARE,
        1.0,
        judge,
        f"{_TEST}::test_selectors_are_judged_at_equal_steps_and_samples",
    )


_STAGE_SETTING = (
    "0.3M-parameter character Llama; targets, each one family on strings of some lengths, in the "
    "order of their pass rates in turn for development and held out; at preset quick 23 of them with 32 "
    "demonstrations and 192 prompts for RL; equal compute, best look on validation"
)
CLAIMS = [
    _claim(
        "signal-rare",
        "RL in a sea of prompts: those with the largest expected p(1-p) beat as many random ones on what was "
        "rare.",
        f"{_SAMPLES}, {_STEPS}; {_ON_RARE}",
        _judge(_over_random(Column.RARE), Column.RARE),
    ),
    _claim(
        "signal-all",
        "RL in a sea of prompts: those with the largest expected p(1-p) beat as many random ones on all.",
        f"{_SAMPLES}, {_STEPS}; {_ON_ALL}",
        _judge(_over_random(Column.ALL), Column.ALL),
    ),
    _claim(
        "signal-samples",
        "RL in a sea of prompts: the expected signal beats the unfiltered pool on what was rare, even where "
        "its own samples count.",
        f"{_SAMPLES}, equal samples in all; {_ON_RARE}",
        _judge(_over_unfiltered(Column.RARE), Column.RARE),
    ),
    _claim(
        "drop",
        "RL in a sea of prompts: the pool without solved and hopeless prompts beats all of it.",
        f"{_MIDDLE}, {_STEPS}; {_ON_ALL}",
        _judge(_against(Selector.DROP, Selector.UNFILTERED, Column.ALL), Column.ALL),
    ),
    _claim(
        "hardest",
        "RL in a sea of prompts: the hardest tenth of all prompts beats medium pass rates.",
        f"{_MIDDLE}, {_STEPS}; {_ON_RARE}",
        _judge(_against(Selector.HARDEST, Selector.MEDIUM, Column.RARE), Column.RARE, scored=True),
    ),
    _claim(
        "hardest-passed",
        "RL in a sea of prompts: the hardest that pass at all beat medium pass rates.",
        f"{_MIDDLE}, {_STEPS}; {_ON_RARE}",
        _judge(_against(Selector.PASSED, Selector.MEDIUM, Column.RARE), Column.RARE, scored=True),
    ),
    _claim(
        "signal-medium",
        "RL in a sea of prompts: the largest expected p(1-p) beats a draw from medium pass rates.",
        f"{_MIDDLE}, {_STEPS}; {_ON_RARE}",
        _judge(_against(Selector.SIGNAL, Selector.MEDIUM, Column.RARE), Column.RARE, scored=True),
    ),
    _claim(
        "number",
        "RL in a sea of prompts: a tenth of the pool beats sixteen prompts, at random and by signal.",
        f"{_STEPS}; {_ON_ALL}",
        _judge(_many(Column.ALL), Column.ALL),
    ),
    Claim(
        "sea-rl-stage-rule",
        "ours (language models)",
        "SFT, RL or both: a threshold on one number that score measures beats any fixed choice.",
        f"{_STAGE_SETTING}; the rule is found on the development targets",
        "share of fixed choices with more regret, each by its 95% Student interval over held-out targets",
        1.0,
        lambda saved, threshold: judge_rule(saved.table, threshold),
        f"{_TEST}::test_a_rule_is_found_in_development_and_tested_once",
    ),
    Claim(
        "sea-rl-stage-both",
        "ours (language models)",
        "SFT, RL or both: half of each beats SFT alone and RL alone.",
        f"{_STAGE_SETTING}; the held-out targets",
        "share of the two comparisons, each the mean gain in exact pass probability over targets",
        1.0,
        lambda saved, threshold: judge_both(saved.table, threshold),
        f"{_TEST}::test_both_stages_are_held_against_each",
    ),
]

STUDY = Study(
    name=NAME,
    title="RL in a sea of prompts: which ones, and RL at all?",
    story=(
        "A small language model has a pool of prompts from hopeless to solved; selectors take a tenth, by "
        "samples that count as well. Points show the gain over random prompts in exact pass probability, "
        "bars are 95 percent intervals over pretrained models; the last panel has what SFT, RL or half of "
        "each make of single families."
    ),
    experiment=SeaRlStudy,
    draw=draw_sea_rl,
    claims=CLAIMS,
)
"""Which prompts RL learns most from, and which stage a target needs."""
