"""The claims on each level: seven questions, judged over paired seeds by log ratios of errors.

Before the runs: a ratio is distinguished from 1 with probability .9 if its log is 1.65 (6 seeds), 2.4 (4) or
3.6 (3) standard deviations of a pair's log ratio; the note of a claim gives its own ratio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from datadose.power import CONFIDENCE, mean_interval
from datadose.shapes import Array
from datadose.studies.ledger import both, decide, is_more, judge_mean, judge_settings
from datadose.studies.levels.arms import (
    Arm,
    at_saturation,
    best,
    common_updates,
    epochs_of,
    log_ratio,
)
from datadose.studies.levels.schema import AVERAGED, LOWER_WEIGHT, Column, Pool
from datadose.studies.study import Judgement, Verdict

MUCH_LARGER = 8
"""A set is small beside one with so many times its rows."""
MANY_EPOCHS = 4.0
SMALL_COST = 1.1
"""Times the best error: what stopping by another rule may cost."""
_POWER = 0.9

Judge = Callable[[pd.DataFrame, Arm, float], Judgement]


def not_run(what: str) -> Judgement:
    return Judgement(None, None, 0, "not run", f"no {what} in this table")


def _power(logs: Array) -> str:
    """The ratio that so many seeds distinguish from 1 with probability .9, at the spread that they have."""
    n = len(logs)
    if n < 2:
        return "one seed tells nothing apart"
    quantiles = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) + stats.t.ppf(_POWER, n - 1)
    return f"detectable ratio {np.exp(quantiles * logs.std(ddof=1) / n**0.5):.3g}"


def judge_ratio(logs: Array, threshold: float, note: str, *, below: bool = True) -> Judgement:
    """Judge a geometric mean ratio over paired seeds; ``logs`` (seeds,), the threshold that of the ratio."""
    if len(logs) == 0:
        return not_run("pair of runs")
    mean, low, high = (float(np.exp(x)) for x in mean_interval(logs))
    verdict = decide(low, high, threshold, below=below)
    if not np.any(logs) and threshold == 1:
        verdict = "no difference"  # Such as where both are best untouched.
    return Judgement(mean, (low, high), len(logs), verdict, f"{note}; {_power(logs)}")


def _mean(values: pd.Series) -> str:
    """The geometric mean over seeds."""
    return f"{float(np.exp(np.log(values).mean())):.3g}"


def _best_small(curves: dict[int, pd.DataFrame], large: int, updates: int) -> int:
    """The B, small beside ``large``, of the least mean error after so many updates."""
    small = [B for B in curves if B * MUCH_LARGER <= large]
    return min(small, key=lambda B: float(np.log(curves[B][updates]).mean()))


# --- questions --------------------------------------------------------------------------------------------


def dilution(table: pd.DataFrame, arm: Arm, threshold: float) -> Judgement:
    """Whether the largest set is worse than the best small one at the end, and not at its own best time."""
    curves = arm.curves(table)
    last = max((int(curve.columns.max()) for curve in curves.values()), default=0)
    long = {B: curve for B, curve in curves.items() if last in curve.columns}
    if len(long) < 2 or min(long) * MUCH_LARGER > max(long):
        return not_run("pair of a small and a large set trained long")
    large = max(long)
    shared = common_updates(long)
    early = min(shared, key=lambda u: float(np.log(long[large][u]).mean()))
    logs = {}
    for updates in (last, early):
        small = _best_small(long, large, updates)
        logs[updates] = (small, log_ratio(long[large][updates], long[small][updates]))
    late_small, late = logs[last]
    early_small, first = logs[early]
    found = judge_ratio(
        late,
        threshold,
        f"B={large} over B={late_small} after {last} updates; after {early}, the large set's best, "
        f"{float(np.exp(first.mean())):.3g} (B={early_small})",
        below=False,
    )
    only_late = decide(*mean_interval(first)[1:], 0.0)
    return replace(found, verdict=both(found.verdict, only_late))


def best_falls(table: pd.DataFrame, arm: Arm, threshold: float) -> Judgement:
    """Whether the error at the best of the looks that all had falls with B: the slope of logs, by seed."""
    curves = arm.curves(table)
    if len(curves) < 2:
        return not_run("two numbers of rows")
    shared = [0, *common_updates(curves)]  # A run with more looks has more times to choose from.
    wide = pd.DataFrame({B: np.log(best(curve[shared])) for B, curve in curves.items()}).dropna()
    x = np.log([float(B) for B in wide.columns])
    slopes = np.array([np.polyfit(x, row, 1)[0] for row in wide.to_numpy()])
    steps = wide.mean().diff().dropna()
    told = ", ".join(f"{B}: {np.exp(value):.3g}" for B, value in wide.mean().items())
    rise = float(np.expm1(max(steps.max(), 0.0)))
    note = f"best by B, {told}; largest rise to the next B {rise:.2%}; untouched {_untouched(curves)}"
    found = judge_mean(slopes, threshold, note=note)
    return replace(found, verdict=is_more(threshold - slopes))


def _untouched(curves: dict[int, pd.DataFrame]) -> str:
    return _mean(next(iter(curves.values()))[0])


def weight_or_removal(table: pd.DataFrame, arm: Arm, threshold: float) -> Judgement:
    """Whether the lower weight beats removal, each at its best time: a verdict at each B."""
    lower, removed, equal = (
        arm.curves(table, pool=Pool.MISLEADING, weight=weight) for weight in (LOWER_WEIGHT, 0.0, 1.0)
    )
    if not lower:
        return not_run("pool with a misleading source")
    verdicts: dict[str, Verdict] = {}
    notes, seeds = [], 0
    for B in sorted(lower):
        logs = log_ratio(best(lower[B]), best(removed[B]))
        found = judge_ratio(logs, threshold, "")
        alike = float(np.exp(log_ratio(best(equal[B]), best(removed[B])).mean()))
        verdicts[f"B={B}"], seeds = found.verdict, found.seeds
        low, high = found.interval or (0.0, np.inf)
        notes.append(
            f"B={B}: weighted/removed {found.value:.3g} ({low:.3g} to {high:.3g}), alike/removed "
            f"{alike:.3g}, {_power(logs)}"
        )
    return judge_settings(verdicts, threshold, seeds, "; ".join(notes))


def repetition(table: pd.DataFrame, arm: Arm, threshold: float) -> Judgement:
    """Whether a set used many times beats one pass at equal updates; judged at the longest single pass."""
    curves = arm.curves(table)
    found = []
    for updates in common_updates(curves) if curves else []:
        epochs = {B: epochs_of(arm, table, B)[updates] for B in curves}
        once = [B for B, seen in epochs.items() if seen <= 1]
        often = [B for B, seen in epochs.items() if seen >= MANY_EPOCHS]
        if once and often:
            small = min(often, key=lambda B: float(np.log(curves[B][updates]).mean()))
            logs = log_ratio(curves[small][updates], curves[max(once)][updates])
            found.append((updates, small, max(once), logs))
    if not found:
        return not_run("single pass beside many epochs")
    told = ", ".join(f"{u}: {float(np.exp(logs.mean())):.3g} (B={s})" for u, s, _, logs in found)
    updates, small, large, logs = found[-1]
    note = f"B={small} over one pass (B={large}) at {updates} updates; by updates, {told}"
    return judge_ratio(logs, threshold, note)


def saturation(table: pd.DataFrame, arm: Arm, threshold: float) -> Judgement:
    """Whether stopping where the fit saturates costs at most the threshold: a verdict at each B."""
    errors, fits = arm.curves(table), arm.curves(table, column=Column.TRAIN)
    if not errors:
        return not_run("run")
    verdicts: dict[str, Verdict] = {}
    notes, seeds = [], 0
    for B in sorted(errors):
        logs = log_ratio(at_saturation(errors[B], fits[B]), best(errors[B]))
        found = judge_ratio(logs, SMALL_COST, "")
        verdicts[f"B={B}"], seeds = found.verdict, found.seeds
        notes.append(f"{B}: {found.value:.3g}")
    return judge_settings(verdicts, threshold, seeds, f"error there over the best by B, {', '.join(notes)}")


def averaging(table: pd.DataFrame, arm: Arm, threshold: float) -> Judgement:
    """Whether the mean of models of disjoint shares beats one of them, at the best time that all have."""
    single, averaged = arm.curves(table), arm.curves(table, models=AVERAGED)
    sizes = [B for B in sorted(averaged) if B // AVERAGED in single and B in single]
    if not sizes:
        return not_run("averaged models")
    shares, whole = [], []
    for B in sizes:
        runs = {0: averaged[B], 1: single[B // AVERAGED], 2: single[B]}
        shared = [0, *common_updates(runs)]  # One that was trained longer has more times to choose from.
        mean, share, all_rows = (best(run[[u for u in shared if u in run.columns]]) for run in runs.values())
        shares.append(log_ratio(mean, share))
        whole.append(log_ratio(mean, all_rows))
    told = "; ".join(
        f"B={B}: over one of B/{AVERAGED} {float(np.exp(one.mean())):.3g}, over one of B "
        f"{float(np.exp(all_.mean())):.3g}"
        for B, one, all_ in zip(sizes, shares, whole, strict=True)
    )
    return judge_ratio(np.mean(shares, axis=0), threshold, told)
