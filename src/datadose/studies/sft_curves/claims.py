"""Claims on Figures 1 and 2 and on Insights 1 and 2: judged from the saved tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.studies.ledger import CONFIDENCE, both, judge_deviation, judge_settings, paired, seeds_of
from datadose.studies.study import Claim, Judgement, Saved, Verdict

_PEAK_WINDOW = 0.05
AWAY_FROM_PEAK = 0.2
"""Deviations are judged where |B - peak| exceeds this fraction of the peak: the mean is infinite at it."""


def _curves(table: pd.DataFrame, r: float) -> Iterator[tuple[int, Array, Array]]:
    """(n, prompts (P,), errors (seeds, P)) of each simulated curve at interference r."""
    simulated = table[(table["model"] == "lsa") & np.isclose(table["interference"], r)]
    for n, rows in simulated.groupby("length"):
        wide = rows.pivot_table(index="seed", columns="prompts", values="error")
        yield int(n), wide.columns.to_numpy(dtype=np.float64), wide.to_numpy(dtype=np.float64)


def _peaks(table: pd.DataFrame) -> tuple[float, float]:
    """(m, d) of Figure 1's shift: the two places where the theory has no finite mean."""
    missing = table[table["predicted"].isna()]
    m = missing[missing["interference"] == 0]["prompts"].iloc[0]
    d = missing[missing["interference"] > 0]["prompts"].iloc[0]
    return float(m), float(d)


def _interferences(table: pd.DataFrame) -> list[float]:
    return sorted(float(r) for r in table["interference"].unique())


def _peak_at(with_interference: bool):  # type: ignore[no-untyped-def]
    def judge(saved: Saved[Any], threshold: float) -> Judgement:
        table = saved.table
        m, d = _peaks(table)
        hits: list[bool] = []
        for r in _interferences(table):
            if (r > 0) != with_interference:
                continue
            for _, B, errors in _curves(table, r):
                top = B[np.exp(np.log(errors).mean(axis=0)).argmax()]
                hits.append(abs(top / (d if r > 0 else m) - 1) <= _PEAK_WINDOW)
        share = float(np.mean(hits))
        verdict: Verdict = "holds" if share >= threshold else "fails" if share == 0 else "mixed"
        return Judgement(share, (share, share), seeds_of(table), verdict, f"{len(hits)} curves")

    return judge


def _best_before(B: Array, errors: Array, peak: float) -> int:
    """Index of the smallest mean error with 0 < B < peak."""
    inside = np.flatnonzero((B > 0) & (B < peak))
    return int(inside[errors[:, inside].mean(axis=0).argmin()])


def _falls_then_rises(saved: Saved[Any], threshold: float) -> Judgement:
    table = saved.table
    m, d = _peaks(table)
    verdicts: dict[str, Verdict] = {}
    for r in _interferences(table):
        peak = d if r > 0 else m
        for n, B, errors in _curves(table, r):
            late = int(np.abs(B - 0.95 * peak).argmin())
            best = errors[:, _best_before(B, errors, B[late])]
            verdicts[f"r={r:g} n={n}"] = both(paired(best, errors[:, 0]), paired(best, errors[:, late]))
    return judge_settings(verdicts, threshold, seeds_of(table))


def _dilution(interference: float | None):  # type: ignore[no-untyped-def]
    """The best error before the peak stays below the error at the largest B."""

    def judge(saved: Saved[Any], threshold: float) -> Judgement:
        table = saved.table
        _, d = _peaks(table)
        verdicts: dict[str, Verdict] = {}
        ratios: list[str] = []
        for r in _interferences(table):
            if r == 0 or (interference is not None and not np.isclose(r, interference)):
                continue
            for n, B, errors in _curves(table, r):
                best = _best_before(B, errors, d)
                verdicts[f"r={r:g} n={n}"] = paired(errors[:, best], errors[:, -1])
                ratio = errors[:, best].mean() / errors[:, -1].mean()
                ratios.append(f"r={r:g} n={n}: B={B[best]:.0f}, {ratio:.2f}")
        note = "best small B, its error over the error at the largest B: " + "; ".join(ratios)
        return judge_settings(verdicts, threshold, seeds_of(table), note)

    return judge


def _turning_point_moves_right(saved: Saved[Any], threshold: float) -> Judgement:
    table = saved.table
    _, d = _peaks(table)
    theory = table[table["model"] == "theory"]
    verdicts: dict[str, Verdict] = {}
    places: list[str] = []
    for r in _interferences(table):
        if r == 0:
            continue
        rows = theory[np.isclose(theory["interference"], r) & (theory["prompts"] < d)]
        turning = [
            (int(n), float(curve.loc[curve["predicted"].idxmin(), "prompts"]))
            for n, curve in rows.groupby("length")
        ]
        verdicts[f"r={r:g}"] = "holds" if np.all(np.diff([B for _, B in turning]) > 0) else "fails"
        places += [f"r={r:g} n={n}: B={B:.0f}" for n, B in turning]
    note = "turning points of the exact theory: " + "; ".join(places)
    return judge_settings(verdicts, threshold, seeds_of(table), note)


def _u_shape(saved: Saved[Any], threshold: float) -> Judgement:
    table = saved.table
    simulated = table[(table["model"] == "lsa") & (table["interference"] > 0)]
    largest = simulated["prompts"].max()
    verdicts: dict[str, Verdict] = {}
    for (r, B), rows in simulated[simulated["prompts"] < largest].groupby(["interference", "prompts"]):
        errors = rows.pivot_table(index="seed", columns="length", values="error").to_numpy()
        best = errors[:, errors.mean(axis=0).argmin()]
        verdicts[f"r={r:g} B={B:.0f}"] = both(paired(best, errors[:, 0]), paired(best, errors[:, -1]))
    return judge_settings(verdicts, threshold, seeds_of(table))


def deviations(rows: pd.DataFrame, predicted: pd.Series) -> tuple[Array, Array, int]:
    """Relative deviation of mean simulated error from ``predicted`` and its standard error, per setting."""
    keys = ["interference", "length", "prompts"]
    grouped = rows.groupby(keys)["error"]
    mean, sem = grouped.mean(), grouped.sem()
    aligned = predicted.reindex(mean.index)
    ratio = aligned / mean
    return (ratio - 1).to_numpy(), (ratio * sem / mean).to_numpy(), int(rows["seed"].nunique())


def _away_from_peak(rows: pd.DataFrame, peaks: tuple[float, float]) -> pd.DataFrame:
    peak = np.where(rows["interference"] == 0, peaks[0], peaks[1])
    return rows[(rows["prompts"] - peak).abs() > AWAY_FROM_PEAK * peak]


def _exact_matches(saved: Saved[Any], threshold: float) -> Judgement:
    table = saved.table
    rows = _away_from_peak(table[table["model"] == "lsa"], _peaks(table))
    predicted = rows.groupby(["interference", "length", "prompts"])["predicted"].first()
    deviation, sem, seeds = deviations(rows, predicted)
    note = f"{len(deviation)} settings; median |deviation| {np.median(np.abs(deviation)):.2%}"
    return judge_deviation(deviation, sem, seeds, threshold, note)


_FIG1 = "d=400, m=200, rho=0.1, eta=0.2, n in {400, 800, 1200}, B up to 2000 (sizes of the preset)"
_SIMULATION = "tests/theory_vs_simulation/test_asymptotics.py"
_JUDGES = "tests/claims/test_figure_claims.py"

FIGURE1_CLAIMS = (
    Claim(
        "insight-2",
        "Insight 2",
        "Under interference keep SFT data small: the best B before the peak beats the largest B (section 5.2 "
        "says so of strong interference, Insight 2 of any).",
        _FIG1 + ", r in {0.01, 0.1}",
        f"share of (r, n) where it holds, each at {CONFIDENCE:.0%} confidence over paired seeds",
        1.0,
        _dilution(None),
        f"{_JUDGES}::test_dilution_depends_on_interference",
        shown_by=("insight2_size",),
    ),
    Claim(
        "fig-1-peak-clean",
        "Fig 1",
        "Without interference the error peaks at B = m.",
        _FIG1 + ", r=0",
        "share of curves with the peak within 5 percent of m",
        1.0,
        _peak_at(with_interference=False),
        f"{_JUDGES}::test_peaks_are_found_where_the_curve_has_them",
    ),
    Claim(
        "fig-1-peak-interference",
        "Fig 1",
        "With interference the error peaks at B = d.",
        _FIG1 + ", r in {0.01, 0.1}",
        "share of curves with the peak within 5 percent of d",
        1.0,
        _peak_at(with_interference=True),
        f"{_JUDGES}::test_peaks_are_found_where_the_curve_has_them",
    ),
    Claim(
        "fig-1-falls-then-rises",
        "Fig 1",
        "As B grows from 0 the error first falls, then rises towards the peak.",
        _FIG1 + ", all r",
        f"share of curves where both hold, each at {CONFIDENCE:.0%} confidence over paired seeds",
        1.0,
        _falls_then_rises,
        f"{_JUDGES}::test_monotone_curves_do_not_fall_then_rise",
    ),
    Claim(
        "fig-1-strong-interference",
        "Fig 1",
        "When interference is strong (r = 0.01; for the paper a smaller r > 0 is the stronger one) the error "
        "stays above its value at the best B even for large B.",
        _FIG1 + ", r=0.01",
        f"share of n where it holds, each at {CONFIDENCE:.0%} confidence over paired seeds",
        1.0,
        _dilution(0.01),
        f"{_JUDGES}::test_dilution_depends_on_interference",
    ),
    Claim(
        "fig-1-crossover",
        "Fig 1",
        "The B at which more data start to hurt moves right as n grows.",
        _FIG1 + ", r in {0.01, 0.1}",
        "share of r where the turning point increases with every n",
        1.0,
        _turning_point_moves_right,
        f"{_JUDGES}::test_peaks_are_found_where_the_curve_has_them",
    ),
    Claim(
        "exact-asymptotics",
        "ours (sec 3)",
        "The exact form predicts the simulated Err(V*) for all r, n and B away from the peak.",
        _FIG1 + ", all r, |B - peak| > 0.2 peak",
        "largest relative deviation of the prediction from the mean over seeds",
        0.05,
        _exact_matches,
        f"{_SIMULATION}::test_exact_form_predicts_the_simulated_error",
    ),
)
FIGURE2_CLAIMS = (
    Claim(
        "fig-2-u-shape",
        "Fig 2",
        "Under interference the error is U-shaped in n for small and moderate B.",
        "d=400, m=200, rho=0.1, eta=0.2, n tied across stages from 20 to 1000, r in {0.01, 0.1}, B in "
        "{50, 150, 300} (sizes of the preset)",
        f"share of (r, B) with both sides above the minimum, each at {CONFIDENCE:.0%} confidence",
        1.0,
        _u_shape,
        f"{_JUDGES}::test_u_shape_needs_both_sides",
    ),
)
