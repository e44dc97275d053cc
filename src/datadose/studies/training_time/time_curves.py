"""What the figures of training time share: theory and simulation at several ways to stop, in one tidy table.

Ways to stop: convergence, fixed times of gradient flow, the best time and the best penalty. The last two are
found by the theory for each number of prompts, and the simulation stops there: an oracle of the limit in d
chooses, not the error that is then measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import stats

from datadose.power import CONFIDENCE
from datadose.simulation.training import simulate_training
from datadose.studies import tables
from datadose.studies.ledger import decide, judge_deviation, paired_errors, seeds_of
from datadose.studies.sft_curves.curves import away_from_peak
from datadose.studies.study import Judgement, Saved
from datadose.studies.tables import LSA, THEORY, TwoBlock, as_table
from datadose.studies.training_time.judges import deviations, judge_exact
from datadose.sweep import Cell
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.equivalent import PeakError
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.time_search import best_time
from datadose.theory.training_time import trained_path
from datadose.theory.weighted_test import WeightedTest

CONVERGED, BEST_TIME, BEST_PENALTY = "converged", "best time", "best penalty"
TUNED = (BEST_TIME, BEST_PENALTY)


class Column(tables.Column):
    """The columns of these figures."""

    RULE = "rule"
    TIME = "time"
    RIDGE = "ridge"


_SETTING = (Column.RULE, Column.INTERFERENCE, Column.LENGTH, Column.PROMPTS)
_MEASURED = (
    Column.RULE,
    Column.PROMPTS,
    Column.TIME,
    Column.RIDGE,
    Column.PREDICTED,
    Column.SEED,
    Column.ERROR,
)


def fixed(time: float) -> str:
    """The name of stopping at a fixed time."""
    return f"t = {time:g}"


@dataclass(frozen=True)
class Rule:
    """One way to stop at one number of prompts, with the theory's error / d; None where it is infinite."""

    name: str
    stopping: Stopping
    error: float | None


def rules(
    block: TwoBlock, interference: float, length: int, prompts: int, times: Sequence[float]
) -> list[Rule]:
    """Every way to stop at B = ``prompts``: convergence, ``times``, the best time and the best penalty."""
    shift = block.shift(interference)
    start = pretrained_operator(shift.sigma0, length)
    test = WeightedTest.of(shift.target, length)
    sources = [Source(shift.data, length, prompts)]
    stoppings = [Stopping(time=float(t)) for t in times]
    models = trained_path(start, shift.eta, sources, stoppings)
    found = [Rule(fixed(t), s, test.error(m)) for t, s, m in zip(times, stoppings, models, strict=True)]
    longest = best_time(start, shift.eta, sources, test)
    stop = Stopping() if longest.time is None else Stopping(time=longest.time)
    penalty = EffectivePenalty.of(start, shift.eta, sources[0], test)
    held = penalty.best(prompts)
    # An infinite penalty is the untouched model.
    ridge = Stopping(time=0.0) if np.isinf(held.ridge) else Stopping(ridge=held.ridge)
    try:
        end: float | None = penalty.at(prompts, 0.0).error
    except PeakError:
        end = None
    return [
        Rule(CONVERGED, Stopping(), end),
        *found,
        Rule(BEST_TIME, stop, longest.error),
        Rule(BEST_PENALTY, ridge, held.error),
    ]


def measure_stops(
    block: TwoBlock,
    interference: float,
    length: int,
    simulated: list[int],
    theory: list[int],
    times: list[float],
    seeds: list[int],
) -> list[list[Any]]:
    """Cell: rows (rule, B, time, ridge, predicted, seed, error) of theory, then of simulation.

    All B and all ways to stop of a seed come from one nested stream. Without ``seeds`` there is theory alone.
    """
    known = {B: rules(block, interference, length, B, times) for B in {*simulated, *theory}}
    rows: list[list[Any]] = [
        [rule.name, B, rule.stopping.time, rule.stopping.ridge, rule.error, None, None]
        for B in theory
        for rule in known[B]
    ]
    if not seeds:
        return rows
    shift = block.shift(interference)
    stoppings = [rule.stopping for B in simulated for rule in known[B]]
    errors = simulate_training(
        pretrained_operator(shift.sigma0, length),
        shift.eta,
        [Source(shift.data, length, max(simulated))],
        [shift.target],
        length,
        stoppings,
        counts=simulated,
        seeds=seeds,
    ).values[..., 0]
    for at, B in enumerate(simulated):
        first = at * len(known[B])
        for place, rule in enumerate(known[B]):
            shared = [rule.name, B, rule.stopping.time, rule.stopping.ridge, rule.error]
            rows += [
                [*shared, seed, float(e)] for seed, e in zip(seeds, errors[:, at, first + place], strict=True)
            ]
    return rows


@dataclass(frozen=True)
class TimeCurves:
    """Simulation at ``lengths`` x ``prompts``, theory at ``theory_lengths`` x ``theory_prompts``; every r."""

    figure: ClassVar[str]

    block: TwoBlock
    interferences: tuple[float, ...]
    lengths: tuple[int, ...]
    prompts: tuple[int, ...]
    theory_lengths: tuple[int, ...]
    theory_prompts: tuple[int, ...]
    times: tuple[float, ...]
    seeds: int

    def _points(self) -> list[tuple[float, int]]:
        return list(product(self.interferences, sorted({*self.lengths, *self.theory_lengths})))

    def cells(self) -> list[Cell]:
        """One cell an interference and length; it holds all B, ways to stop and seeds."""
        return [
            Cell(
                measure_stops,
                {
                    "block": self.block,
                    "interference": r,
                    "length": n,
                    "simulated": list(self.prompts) if n in self.lengths else [],
                    "theory": list(self.theory_prompts) if n in self.theory_lengths else [],
                    "times": list(self.times),
                    "seeds": list(range(self.seeds)) if n in self.lengths else [],
                },
            )
            for r, n in self._points()
        ]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """The theory on its grid (model theory) and the simulated rows (model lsa) with their prediction."""
        rows = [
            {
                Column.FIGURE: self.figure,
                Column.PANEL: f"r={r:g}",
                Column.STAGE: "sft",
                Column.MODEL: THEORY if seed is None else LSA,
                Column.ESTIMATOR: tables.TRAINED,
                Column.LENGTH: n,
                Column.INTERFERENCE: r,
                **dict(zip(_MEASURED, values, strict=True)),
            }
            for (r, n), found in zip(self._points(), results, strict=True)
            for values in found
            for seed in values[-2:-1]
        ]
        return as_table(rows, Column)


def curves_of(table: pd.DataFrame, rule: str, across: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, rows) of each curve of one way to stop; ``across`` is its x, B or n; the other is fixed."""
    other, letter = (Column.LENGTH, "n") if across == Column.PROMPTS else (Column.PROMPTS, "B")
    for (r, value), rows in table[table[Column.RULE] == rule].groupby([Column.INTERFERENCE, other]):
        yield f"r={r:g} {letter}={value:g}", rows


def largest_rise(table: pd.DataFrame, names: Sequence[str], across: str) -> tuple[float, str]:
    """The largest relative rise of the theory between neighbours, and where it is."""
    theory, worst = table[table[Column.MODEL] == THEORY], (-np.inf, "")
    for rule in names:
        for name, rows in curves_of(theory, rule, across):
            curve = rows.sort_values(across)
            rises = np.diff(np.log(curve[Column.PREDICTED].to_numpy(dtype=float)))
            at = int(rises.argmax())
            place = f"{rule}, {name}, up to {curve[across].iloc[at + 1]:g}"
            worst = max(worst, (float(rises[at]), place))
    return float(np.expm1(worst[0])), worst[1]


def never_rises(saved: Saved[Any], threshold: float, *, across: str = Column.PROMPTS) -> Judgement:
    """Whether the simulated error at the best time and penalty rises nowhere between neighbours.

    The statistic is the largest mean log ratio of neighbours over paired seeds; its interval covers all
    neighbours of all curves at once (Bonferroni). The note has the theory's largest rise.
    """
    simulated = saved.table[saved.table[Column.MODEL] == LSA]
    means, sems = [], []
    for rule in TUNED:
        for _, rows in curves_of(simulated, rule, across):
            steps = np.diff(np.log(paired_errors(rows, across)[1]), axis=1)
            means.append(steps.mean(axis=0))
            sems.append(steps.std(axis=0, ddof=1) / len(steps) ** 0.5)
    mean, sem = np.concatenate(means), np.concatenate(sems)
    seeds = seeds_of(simulated)
    quantile = float(stats.t.ppf(1 - (1 - CONFIDENCE) / (2 * len(mean)), seeds - 1))
    low, high = float((mean - quantile * sem).max()), float((mean + quantile * sem).max())
    rise, place = largest_rise(saved.table, TUNED, across)
    note = (
        f"{len(mean)} steps; a rise of {2 * quantile * float(np.median(sem)):.2%} at the median step would "
        f"be told from none; theory's largest rise {rise:.2g} ({place})"
    )
    return Judgement(float(mean.max()), (low, high), seeds, decide(low, high, threshold), note)


def theory_never_rises(saved: Saved[Any], threshold: float, *, across: str = Column.PROMPTS) -> Judgement:
    """Whether the theory's error at the best time and the best penalty rises nowhere on the grid."""
    found = {rule: largest_rise(saved.table, [rule], across) for rule in TUNED}
    note = "; ".join(f"{rule}: {rise:.2g} ({place})" for rule, (rise, place) in found.items())
    worst = max(rise for rise, _ in found.values())
    return judge_exact(worst, threshold, note)


def stops_match(saved: Saved[Any], threshold: float) -> Judgement:
    """The largest relative deviation of theory from simulation over all that is stopped or penalised."""
    rows = saved.table[saved.table[Column.MODEL] == LSA]
    stopped = rows[rows[Column.RULE] != CONVERGED]
    deviation, sem = deviations(stopped, _SETTING)
    by_length = {n: np.abs(deviations(own, _SETTING)[0]).max() for n, own in stopped.groupby(Column.LENGTH)}
    far = [f"{n:g}" for n, worst in by_length.items() if worst > threshold]
    ended = away_from_peak(rows[rows[Column.RULE] == CONVERGED], saved.config.block)
    converged, _ = deviations(ended, _SETTING)
    tuned, _ = deviations(stopped[stopped[Column.RULE].isin(TUNED)], _SETTING)
    note = (
        f"{len(deviation)} settings, median |deviation| {np.median(np.abs(deviation)):.2%}; largest at the "
        f"best time and penalty {np.abs(tuned).max():.2%}; above the threshold at n = "
        f"{', '.join(far) or 'none'}; converged, away from the peak: largest "
        f"{np.nanmax(np.abs(converged)):.2%}, median {np.nanmedian(np.abs(converged)):.2%}"
    )
    return judge_deviation(deviation, sem, seeds_of(rows), threshold, note)
