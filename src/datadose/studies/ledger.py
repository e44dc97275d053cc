"""What a claim is and how a statistic over seeds becomes a verdict.

A verdict compares an interval with a threshold: *holds* if the whole interval is on the claim's side,
*fails* if it is wholly on the other side, *mixed* if it straddles the threshold or if the claim holds in
some of its settings only, *no difference* if a comparison's interval leaves room for no difference larger
than the detectable one, *not run* if its table is missing. Intervals have confidence 95 percent, so a
true claim at its threshold is called failed with probability at most 2.5 percent.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from datadose.covariance import Array
from datadose.errors import require_number
from datadose.power import CONFIDENCE, mean_interval
from datadose.studies.study import Claim, Judgement, Saved, Study, Verdict
from datadose.studies.tables import Column

PAIRED_SHARE = f"share of settings where it holds, each at {CONFIDENCE:.0%} confidence over paired seeds"


def judge_all(studies: Iterable[Study[Any]], folder: Path) -> list[dict[str, Any]]:
    """The ledger as entries for JSON: the claims of ``studies``, judged from the tables in ``folder``."""
    return [
        _entry(claim, saved.study, _judge(claim, saved))
        for saved in (Saved(study, folder) for study in studies)
        for claim in saved.study.claims
    ]


def _judge(claim: Claim, saved: Saved[Any]) -> Judgement:
    if saved.study.experiment is not None and not saved.exists:
        return Judgement(None, None, 0, "not run", f"{saved.study.name}.csv is not in this results folder")
    return claim.judge(saved, claim.threshold)


def _entry(claim: Claim, study: Study[Any], judgement: Judgement) -> dict[str, Any]:
    interval = None if judgement.interval is None else [_finite(x) for x in judgement.interval]
    return {
        "id": claim.id,
        "paper": claim.paper,
        "statement": claim.statement,
        "setting": claim.setting,
        "statistic": claim.statistic,
        "threshold": claim.threshold,
        "value": _finite(judgement.value),
        "interval": interval,
        "seeds": judgement.seeds,
        "verdict": judgement.verdict,
        "note": judgement.note,
        "experiment": study.name,
        "test": claim.test,
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(f"{value:.6g}")


def decide(low: float, high: float, threshold: float, *, below: bool = True) -> Verdict:
    """The verdict of an interval [low, high] on `statistic <= threshold` (or >= with ``below`` False)."""
    if not below:
        low, high, threshold = -high, -low, -threshold
    if high <= threshold:
        return "holds"
    return "fails" if low > threshold else "mixed"


def judge_mean(values: Array, threshold: float, *, below: bool = True, note: str = "") -> Judgement:
    """Judge the mean of ``values`` (seeds,) against a threshold, by its 95 percent Student interval.

    The claim is that the mean is at most ``threshold`` (``below``) or at least; ``note`` is kept with it.
    """
    mean, low, high = mean_interval(values)
    verdict = decide(low, high, threshold, below=below)
    return Judgement(mean, (low, high), len(values), verdict, note)


def judge_worst(values: Array, threshold: float, *, below: bool = True, note: str = "") -> Judgement:
    """Judge an identity on every seed: the worst of ``values`` must keep the threshold (no sampling error).

    The claim is that all are at most ``threshold`` (``below``) or at least; ``note`` is kept with it.
    """
    worst = float(values.max() if below else values.min())
    ends = (float(values.min()), float(values.max()))
    return Judgement(worst, ends, len(values), decide(worst, worst, threshold, below=below), note)


def judge_difference(values: Array, detectable: float, *, below: bool = True, note: str = "") -> Judgement:
    """Judge the mean of paired differences, such as log ratios of errors, against zero and ``detectable``.

    *no difference* if the whole interval lies within +-``detectable``, though it may leave out zero: no
    difference larger than that is there, which the note states. Else *holds* if it lies below zero (above it
    with ``below`` False), *fails* on the other side, *mixed* if it straddles zero.

    Args:
        values: differences (N,), one a seed.
        detectable: the smallest difference that matters, > 0, set before the run.
        below: whether the claim is that the differences are negative.
        note: further remarks.
    """
    bound = require_number("detectable", detectable, 0, np.inf, open_ends=True)
    mean, low, high = mean_interval(values)
    verdict = decide(low, high, 0.0, below=below)
    if -bound <= low and high <= bound:
        verdict = "no difference"
    told = "excluded" if verdict == "no difference" else "not excluded"
    parts = (f"a mean difference above {bound:g} either way is {told}", note)
    return Judgement(mean, (low, high), len(values), verdict, "; ".join(part for part in parts if part))


def judge_share(held: ArrayLike, threshold: float, *, below: bool = False, note: str = "") -> Judgement:
    """Judge the share of independent draws in which something is so, by its exact (Clopper-Pearson) interval.

    The note has the share that so many draws would distinguish from the threshold nine times in ten.

    Args:
        held: truth by draw, (N,); without a draw the claim is *not run*.
        threshold: share that is to be reached, or with ``below`` not to be passed.
        below: whether the share is to be at most the threshold.
        note: further remarks.
    """
    told = np.asarray(held, dtype=bool)
    count, size = int(told.sum()), len(told)
    if size == 0:
        return Judgement(None, None, 0, "not run", "no setting of this kind was drawn")
    ends = stats.binomtest(count, size).proportion_ci(CONFIDENCE)
    low, high = float(ends.low), float(ends.high)
    verdict = decide(low, high, threshold, below=below)
    parts = (f"{count} of {size}", told_apart(size, threshold, below=below), note)
    return Judgement(count / size, (low, high), size, verdict, "; ".join(part for part in parts if part))


def told_apart(size: int, threshold: float, *, below: bool = False) -> str:
    """The share nearest to the threshold at which ``size`` draws give *holds* with probability .9 or more."""
    counts = np.arange(size + 1)
    tail = (1 - CONFIDENCE) / 2
    low = np.nan_to_num(stats.beta.ppf(tail, counts, size - counts + 1), nan=0.0)
    high = np.nan_to_num(stats.beta.ppf(1 - tail, counts + 1, size - counts), nan=1.0)
    decided = high <= threshold if below else low >= threshold
    shares = np.linspace(0, 1, 201)
    chance = stats.binom.pmf(counts[None, :], size, shares[:, None]) @ decided
    found = shares[chance >= 0.9]
    if not len(found):
        return f"so few draws tell no share from {threshold:g}"
    share, side = (found.max(), "at most") if below else (found.min(), "at least")
    return f"a share of {side} {share:.3g} is told from {threshold:g} with probability .9"


def none_of(size: int) -> str:
    """The share of exceptions of which ``size`` independent draws would show one with probability .95."""
    share = 1 - (1 - CONFIDENCE) ** (1 / size)
    return (
        f"a share of exceptions of {100 * share:.2g} percent would show one with probability {CONFIDENCE:g}"
    )


def judge_settings(verdicts: dict[str, Verdict], threshold: float, seeds: int, note: str = "") -> Judgement:
    """Judge a claim over several settings: the share of settings where it holds, against ``threshold``.

    *holds* if the share reaches the threshold, *fails* if the claim fails in every setting, *no difference*
    if there is none in any, else *mixed*; the interval is the share counting undecided settings as failed and
    as held.

    Args:
        verdicts: the verdict of each setting, by its name.
        threshold: share in [0, 1].
        seeds: seeds a setting, which is recorded.
        note: further remarks.
    """
    held = sum(v == "holds" for v in verdicts.values())
    failed = sum(v == "fails" for v in verdicts.values())
    total = len(verdicts)
    share = (held / total, (total - failed) / total)
    verdict: Verdict = "holds" if share[0] >= threshold else "fails" if failed == total else "mixed"
    if all(v == "no difference" for v in verdicts.values()):
        verdict = "no difference"
    lost = ", ".join(f"{name} {v}" for name, v in verdicts.items() if v != "holds")
    parts = [f"not in: {lost}" if lost and held else "", note]
    return Judgement(share[0], share, seeds, verdict, "; ".join(p for p in parts if p))


def judge_deviation(deviation: Array, sem: Array, seeds: int, threshold: float, note: str = "") -> Judgement:
    """Judge the largest |relative deviation| over settings, each known up to a standard error.

    The interval widens every deviation by a Bonferroni Student quantile, so it covers all settings at once
    with probability 95 percent.

    Args:
        deviation: relative deviations, one a setting.
        sem: their standard errors.
        seeds: number of seeds behind each.
        threshold: the largest absolute deviation with which the claim holds.
        note: further remarks.
    """
    tail = 1 - (1 - CONFIDENCE) / (2 * len(deviation))
    quantile = float(stats.t.ppf(tail, max(seeds - 1, 1)))
    low = float((np.abs(deviation) - quantile * sem).max())
    high = float((np.abs(deviation) + quantile * sem).max())
    worst = float(np.abs(deviation).max())
    return Judgement(worst, (max(low, 0.0), high), seeds, decide(low, high, threshold), note)


def seeds_of(table: pd.DataFrame) -> int:
    """The number of seeds among the rows."""
    return int(table[Column.SEED].nunique())


def is_more(values: Array) -> Verdict:
    """Whether the mean of paired differences is above zero."""
    _, low, high = mean_interval(values)
    if low > 0:
        return "holds"
    return "fails" if high <= 0 else "mixed"


def paired(first: Array, second: Array) -> Verdict:
    """Whether ``first`` < ``second`` strictly, on average over paired seeds (a tie fails)."""
    return is_more(-np.log(first / second))


def both(*verdicts: Verdict) -> Verdict:
    """*holds* if all hold, *fails* if one fails."""
    if all(v == "holds" for v in verdicts):
        return "holds"
    return "fails" if "fails" in verdicts else "mixed"


def beats(first: Array, second: Array) -> Verdict:
    """Whether ``first`` < ``second`` over paired seeds; NaN is a diverged run, which loses."""
    lost, other = np.isnan(first), np.isnan(second)
    if lost.all():
        return "fails"
    if other.all():
        return "mixed" if lost.any() else "holds"
    kept = ~(lost | other)
    verdict: Verdict = paired(first[kept], second[kept]) if kept.sum() > 1 else "mixed"
    return "mixed" if verdict == "holds" and lost.any() else verdict


def paired_errors(rows: pd.DataFrame, column: str) -> tuple[Array, Array]:
    """The places (X,) along ``column``, in order, and the errors (seeds, X) there, from the rows of a table.

    An error is NaN where a run diverged.
    """
    wide = rows.pivot(index=Column.SEED, columns=column, values=Column.ERROR).sort_index(axis=1)
    return wide.columns.to_numpy(dtype=np.float64), wide.to_numpy(dtype=np.float64)


def by_seed(rows: pd.DataFrame, column: str = Column.ERROR) -> Array:
    """The values of ``column`` of ``rows`` in the order of the seeds."""
    return np.asarray(rows.sort_values(Column.SEED)[column], dtype=np.float64)


def finite_mean(values: Array) -> float:
    """The mean of what is not NaN; NaN if nothing is."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
