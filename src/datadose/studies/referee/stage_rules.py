"""Rules for the stage: one threshold on one number that ``score`` measures, found on development targets.

A rule's regret on a target is what the best stage passes more often, on average over seeds, than the stage
that the rule takes; it decides for each seed by the number that this seed's model has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.power import pooled_spread
from datadose.studies.ledger import judge_settings
from datadose.studies.referee.judging import Pilot, compare, compare_all, detects, shown
from datadose.studies.referee.rl import Panel, Role
from datadose.studies.referee.rl_runs import Column
from datadose.studies.referee.stage_runs import BOTH, NONE, RL, SFT, STAGES, Number
from datadose.studies.study import Judgement
from datadose.studies.tables import names

NUMBERS = names(Number)
_FEWEST = 2
"""Targets for an interval."""


@dataclass(frozen=True)
class Rule:
    """``below`` where the number is under the threshold, else ``above``."""

    number: str
    threshold: float
    below: str
    above: str

    @property
    def name(self) -> str:
        """The rule in words."""
        if self.below == self.above:
            return f"always {self.above}"
        return f"{self.below} if {self.number} < {self.threshold:.3g}, else {self.above}"

    def choose(self, value: float) -> str:
        """The stage for a value of the number."""
        return self.below if value < self.threshold else self.above


FIXED = tuple(Rule(Number.RATE, 0.0, stage, stage) for stage in STAGES)


@dataclass(frozen=True)
class Outcomes:
    """Of the targets of one role: mean pass probability by target and stage, numbers by target and seed."""

    passed: pd.DataFrame
    numbers: pd.DataFrame

    @classmethod
    def of(cls, table: pd.DataFrame, role: str) -> Outcomes:
        """Those that all stages have finished; a target keeps the seeds that have a number."""
        rows = table[(table[Column.PANEL] == Panel.STAGES) & (table[Column.ROLE] == role)]
        wide = rows.pivot_table(index=Column.TARGET, columns=Column.ARM, values=Column.ON_TARGET)
        passed = wide.reindex(columns=[*STAGES]).dropna()
        numbers = rows[(rows[Column.ARM] == NONE) & rows[Column.TARGET].isin(passed.index)]
        numbers = numbers.dropna(subset=NUMBERS).set_index(Column.TARGET)[NUMBERS]
        return cls(passed.loc[numbers.index.unique()], numbers)

    def regrets(self, rule: Rule) -> Array:
        """The rule's regret on each target, (targets,)."""
        lost = -self.passed.sub(self.passed.max(axis=1), axis=0)
        found = [
            np.mean([lost.loc[target, rule.choose(value)] for value in values])
            for target, values in self.numbers.groupby(level=0, sort=False)[rule.number]
        ]
        return np.array(found, dtype=np.float64)

    def spread(self) -> Pilot:
        """The spread over targets of what one stage passes more often than another, which states a power."""
        pairs = [self.regrets(one) - self.regrets(two) for one, two in combinations(FIXED, 2)]
        return Pilot(pooled_spread(np.array(pairs)), (), "development targets")

    def accuracy(self, rule: Rule) -> float:
        """How often the rule takes the best stage."""
        best = self.passed.idxmax(axis=1)
        right = [rule.choose(value) == best[target] for target, value in self.numbers[rule.number].items()]
        return float(np.mean(right))


def candidates(outcomes: Outcomes) -> Iterator[Rule]:
    """The fixed rules, then every split of the values of every number."""
    yield from FIXED
    for number in NUMBERS:
        values = np.unique(outcomes.numbers[number])
        for threshold, (below, above) in product((values[1:] + values[:-1]) / 2, product(STAGES, repeat=2)):
            if below != above:
                yield Rule(number, float(threshold), below, above)


def find_rule(outcomes: Outcomes) -> Rule:
    """The rule with the least mean regret on these targets, the first of equal ones."""
    return min(candidates(outcomes), key=lambda rule: float(outcomes.regrets(rule).mean()))


def judge_rule(table: pd.DataFrame, threshold: float) -> Judgement:
    """Whether the rule found in development has less regret than each fixed rule on the held-out targets."""
    development, held_out = (Outcomes.of(table, role) for role in (Role.DEVELOPMENT, Role.HELD_OUT))
    if min(len(development.passed), len(held_out.passed)) < _FEWEST:
        return Judgement(None, None, 0, "not run", "too few finished targets")
    rule, pilot = find_rule(development), development.spread()
    ours = held_out.regrets(rule)
    gains = {one.name: held_out.regrets(one) - ours for one in FIXED}
    found = {name: compare(values, pilot) for name, values in gains.items()}
    told = "; ".join(
        f"{one.name}: regret {held_out.regrets(one).mean():.3f}, best in {held_out.accuracy(one):.0%}, gain "
        f"of the rule {shown(found[one.name])}"
        for one in FIXED
    )
    note = (
        f"rule: {rule.name}; regret {development.regrets(rule).mean():.3f} in development, {ours.mean():.3f} "
        f"held out, the best stage in {held_out.accuracy(rule):.0%}; {told}; targets in place of seeds: "
        f"{detects(gains, pilot)}"
    )
    return judge_settings({name: one.verdict for name, one in found.items()}, threshold, len(ours), note)


def judge_both(table: pd.DataFrame, threshold: float) -> Judgement:
    """Whether half of each stage beats each alone on the held-out targets; a gain is a target's."""
    development, held_out = (Outcomes.of(table, role) for role in (Role.DEVELOPMENT, Role.HELD_OUT))
    if min(len(development.passed), len(held_out.passed)) < _FEWEST:
        return Judgement(None, None, 0, "not run", "too few finished targets")
    passed = held_out.passed
    gains = {f"over {one}": np.asarray(passed[BOTH] - passed[one], dtype=np.float64) for one in (SFT, RL)}
    return compare_all(gains, development.spread(), threshold)
