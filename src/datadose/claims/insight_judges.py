"""Claims on Insights 1 to 4, section 7 and finding 3: judged from the insights' tables.

A comparison is made on the logarithm of the error over paired seeds at 95 percent confidence; a run that
diverged has lost its comparison. The threshold is always all settings, and no setting is left out for its
result; radii between 1 and 1.9 count neither as incremental nor as novel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from datadose.claims.figures import both, paired
from datadose.claims.ledger import (
    Judgement,
    Tables,
    Verdict,
    judge_settings,
    mean_interval,
)
from datadose.covariance import Array

NEAR = (0.7, 1.5)
"""Radii that count as near rho(M) = 1; below 0.6 is far below, from 1.9 on far above (and novel)."""
_BELOW, _ABOVE = 0.6, 1.9
_CONCENTRATED = 0.7
"""From this share of the trace on the shift's directions, pretraining starves the rest."""


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


def _by_seed(rows: pd.DataFrame, column: str = "error") -> Array:
    return np.asarray(rows.sort_values("seed")[column], dtype=np.float64)


def _seeds(table: pd.DataFrame) -> int:
    return int(table["seed"].nunique())


def _mean(values: Array) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def _is_more(values: Array) -> Verdict:
    """Whether the mean of paired differences is above zero."""
    _, low, high = mean_interval(values)
    if low > 0:
        return "holds"
    return "fails" if high <= 0 else "mixed"


# --- Insights 1 and 2 -----------------------------------------------------------------------------------


def hard_wins(clean: bool) -> Callable[[Tables, float], Judgement]:
    """Hardest against random (and, on the clean pool, easiest) at every B and for both estimators."""

    def judge(tables: Tables, threshold: float) -> Judgement:
        table = tables.get("insight1_selection")
        table = table[((table["panel"] == "clean") == clean) & (table["prompts"] > 0)]
        verdicts: dict[str, Verdict] = {}
        notes: list[str] = []
        for (pool, estimator, B), rows in table.groupby(["panel", "estimator", "prompts"]):
            kinds = {str(kind): _by_seed(part) for kind, part in rows.groupby("kind")}
            for other in ("random", "easy") if clean else ("random",):
                verdicts[f"{pool} {estimator} B={B:.0f} {other}"] = beats(kinds["hard"], kinds[other])
            if estimator == "trained":
                wrong = rows[rows["kind"] == "hard"]["share_wrong"].mean()
                notes.append(
                    f"{pool} B={B:.0f}: hard/random {kinds['hard'].mean() / kinds['random'].mean():.2f}, "
                    f"hard/shift {kinds['hard'].mean() / kinds['shift'].mean():.2f}, "
                    f"wrong among hard {wrong:.0%}"
                )
        return judge_settings(verdicts, threshold, _seeds(table), "; ".join(notes))

    return judge


def small_sets(tables: Tables, threshold: float) -> Judgement:
    table = tables.get("insight2_size")
    d = tables.config("insight2_size")["block"]["dimension"]
    simulated = table[table["model"] == "lsa"]
    verdicts: dict[str, Verdict] = {}
    for r, rows in simulated.groupby("interference"):
        wide = rows.pivot_table(index="seed", columns="prompts", values="error")
        means = wide.mean()
        best = means[(means.index > 0) & (means.index < d)].idxmin()
        verdicts[f"r={r:g}"] = beats(wide[best].to_numpy(), wide[wide.columns.max()].to_numpy())
    ratios, best_at = [], []
    for r, rows in table[table["model"] == "theory"].groupby("interference"):
        curve = rows.set_index("prompts")["predicted"].dropna()
        small = curve[(curve.index > 0) & (curve.index < d)]
        ratios.append((float(r), float(small.min() / curve[curve.index.max()])))
        best_at.append(f"{curve.idxmin() / d:.2f}")
    won = [r for r, ratio in ratios if ratio < 1]
    lost = [r for r, ratio in ratios if ratio > 1]
    note = (
        f"theory: the best B < d beats the largest B up to r={max(won, default=0):g}, loses "
        f"from r={min(lost, default=float('nan')):g}; ratio {ratios[0][1]:.2g} at r={ratios[0][0]:g}, "
        f"{ratios[-1][1]:.2g} at r={ratios[-1][0]:g}; best B/d from {best_at[0]} to {best_at[-1]}"
    )
    return judge_settings(verdicts, threshold, _seeds(simulated), note)


# --- Insight 3 ------------------------------------------------------------------------------------------


def sensitive_near_one(tables: Tables, threshold: float) -> Judgement:
    table = tables.get("insight3_stability")
    config = tables.config("insight3_stability")
    few, many = min(config["probes"]), max(config["probes"])
    short = min((B, T) for B, T in config["probes"] if B == many[0])
    verdicts = _curvature_grows(table[table["kind"] == "map"])
    notes: list[str] = []
    for kind in ("own step", "one step"):
        rows = table[table["kind"] == kind]
        for name, measured in _sensitivities(rows, few, many, short).items():
            near, below, above = (_group(measured, *ends) for ends in (NEAR, (0, _BELOW), (_ABOVE, np.inf)))
            for where, other in (("below", below), ("above", above)):
                label = f"{kind}: {name} than {where}"
                verdicts[label] = "fails" if np.isnan(other).any() else _is_more(near - other)
            notes.append(f"{kind} {name} {below.mean():.3f} / {near.mean():.3f} / {above.mean():.3f}")
        lost = rows[rows["spectral_radius"] >= _ABOVE]["diverged"].mean()
        notes.append(f"{kind} diverged above {lost:.0%}")
    note = "below / near / above rho(M) = 1: " + "; ".join(notes)
    return judge_settings(verdicts, threshold, int(config["seeds"]), note)


def _curvature_grows(rows: pd.DataFrame) -> dict[str, Verdict]:
    """Per k > 1: the largest step size that no seed lost falls from far below to near, and again to above."""
    verdicts: dict[str, Verdict] = {}
    for k, part in rows.groupby("steps"):
        safe = part.groupby(["spectral_radius", "learning_rate"])["diverged"].max().reset_index()
        largest = safe[safe["diverged"] == 0].groupby("spectral_radius")["learning_rate"].max()
        largest = largest.reindex(safe["spectral_radius"].unique()).fillna(0.0)
        ends = [largest[(largest.index >= low) & (largest.index <= high)] for low, high in
                ((0, _BELOW), NEAR, (_ABOVE, np.inf))]  # fmt: skip
        if k > 1 and all(len(e) for e in ends):
            falls = ends[0].max() > ends[1].max() > ends[2].max()
            verdicts[f"largest safe step falls, k={k}"] = "holds" if falls else "fails"
    return verdicts


def _sensitivities(
    rows: pd.DataFrame, few: tuple[int, int], many: tuple[int, int], short: tuple[int, int]
) -> dict[str, pd.DataFrame]:
    """(seed x radius) tables: spread of log error at few prompts, gain from data, gain from steps."""

    def log_error(setting: tuple[int, int]) -> pd.DataFrame:
        chosen = rows[(rows["prompts"] == setting[0]) & (rows["training_steps"] == setting[1])]
        wide = chosen.pivot(index="seed", columns="spectral_radius", values="error")
        return np.log(wide)

    low, high = log_error(few), log_error(many)
    return {
        "more variation": (low - low.mean()).abs(),
        "more gain from data": low - high,
        "more gain from steps": log_error(short) - high,
    }


def _group(measured: pd.DataFrame, low: float, high: float) -> Array:
    """Per seed, the mean over the radii of a group; NaN if a run of the group was lost."""
    chosen = measured.loc[:, (measured.columns >= low) & (measured.columns <= high)]
    return np.asarray(chosen.mean(axis=1, skipna=False), dtype=np.float64)


# --- Insight 4 and section 7 ----------------------------------------------------------------------------


def _arms(table: pd.DataFrame) -> dict[tuple[float, str], pd.DataFrame]:
    return {(float(s), str(kind)): rows for (s, kind), rows in table.groupby(["share", "kind"])}


def _balanced(tables: Tables, table: pd.DataFrame) -> float:
    """The share nearest to the isotropic Sigma0."""
    budget = tables.config("insight4_balance")["budget"]
    shares = table["share"].unique()
    return float(shares[np.abs(shares - budget["shifted"] / budget["dimension"]).argmin()])


def incremental_or_novel(tables: Tables, threshold: float) -> Judgement:
    table = tables.get("insight4_balance")
    arms, even = _arms(table), _balanced(tables, table)
    verdicts: dict[str, Verdict] = {}
    notes: list[str] = []
    for share, radius in table.groupby("share")["spectral_radius"].first().items():
        where = f"radius {radius:.2g}"
        after = _by_seed(arms[share, "outcome"], "shift_error")
        before = _by_seed(arms[share, "base"], "shift_error")
        lost = float(arms[share, "outcome-gd"]["diverged"].mean())
        if radius < 1:
            verdicts[f"{where}: OS improves"] = beats(after, before)
            verdicts[f"{where}: descent is stable"] = (
                "holds" if lost == 0 else "fails" if lost == 1 else "mixed"
            )
        elif radius >= _ABOVE:
            verdicts[f"{where}: descent is unstable"] = (
                "holds" if lost == 1 else "fails" if lost == 0 else "mixed"
            )
            verdicts[f"{where}: OS learns slowly"] = beats(
                _by_seed(arms[even, "outcome"], "shift_error"), after
            )
        notes.append(f"{where}: {_mean(before):.3g} -> {_mean(after):.3g}, descent lost {lost:.0%}")
    note = "error on the shift before -> after OS: " + "; ".join(notes)
    return judge_settings(verdicts, threshold, _seeds(table), note)


def balance_helps(tables: Tables, threshold: float) -> Judgement:
    table = tables.get("insight4_balance")
    arms, even = _arms(table), _balanced(tables, table)
    radius = table.groupby("share")["spectral_radius"].first()
    starved = [s for s in radius.index if radius[s] >= _ABOVE]
    verdicts: dict[str, Verdict] = {}
    notes: list[str] = []
    for arm in ("sft", "outcome", "rl"):
        balanced = _by_seed(arms[even, arm])
        for share in [*starved, *(s for s in radius.index if s >= _CONCENTRATED)]:
            verdicts[f"{arm}, share {share:g}"] = beats(balanced, _by_seed(arms[share, arm]))
        errors = ", ".join(f"{s:g} {_mean(_by_seed(arms[s, arm])):.3g}" for s in radius.index)
        notes.append(f"{arm} by share: {errors}")
    for share in starved:
        for arm in ("outcome", "rl"):
            penalty = [np.log(_by_seed(arms[share, a]) / _by_seed(arms[even, a])) for a in (arm, "sft")]
            verdicts[f"share {share:g}: {arm} suffers more than sft"] = _is_more(penalty[0] - penalty[1])
    return judge_settings(verdicts, threshold, _seeds(table), "; ".join(notes))


# --- RL, compositions, thinking -------------------------------------------------------------------------


def not_too_hard(tables: Tables, threshold: float) -> Judgement:
    table = tables.get("rl_bands")
    verdicts: dict[str, Verdict] = {}
    notes: list[str] = []
    for pool, rows in table[table["prompts"] > 0].groupby("panel"):
        missed = {
            (str(kind), float(B)): np.maximum(1 - _by_seed(part, "pass_rate"), 1e-9)
            for (kind, B), part in rows.groupby(["kind", "prompts"])
        }
        counts = sorted({B for _, B in missed})
        for B in counts:
            for other in ("too hard", "hardest"):
                verdicts[f"{pool}: medium beats {other}, B={B:.0f}"] = beats(
                    missed["medium", B], missed[other, B]
                )
        for band in ("medium", "all"):
            verdicts[f"{pool}: {band}, large B beats small"] = beats(
                missed[band, counts[-1]], missed[band, counts[0]]
            )
        kinds = dict.fromkeys(kind for kind, _ in missed)
        base = table[(table["panel"] == pool) & (table["prompts"] == 0)]["pass_rate"].mean()
        rates = ", ".join(f"{kind} {1 - missed[kind, counts[-1]].mean():.3f}" for kind in kinds)
        notes.append(f"{pool}: pass rate before {base:.3f}, at B={counts[-1]:.0f} {rates}")
    return judge_settings(verdicts, threshold, _seeds(table), "; ".join(notes))


def both_beat_either(tables: Tables, threshold: float) -> Judgement:
    table = tables.get("sft_then_rl")
    verdicts: dict[str, Verdict] = {}
    notes: list[str] = []
    for (panel, steps), rows in table[table["training_steps"] > 0].groupby(["panel", "training_steps"]):
        alone = _by_seed(rows[rows["kind"] == "rl"])
        for count in sorted(set(rows["demonstrations"]) - {0}):
            part = rows[rows["demonstrations"] == count]
            errors = {str(kind): _by_seed(arm) for kind, arm in part.groupby("kind")}
            joint = errors["sft then rl"]
            name = f"{panel} T={steps} demonstrations={count:.0f}"
            verdicts[name] = both(beats(joint, alone), beats(joint, errors["sft"]))
            notes.append(
                f"{name}: rl {_mean(alone):.3g}, sft {_mean(errors['sft']):.3g}, both {_mean(joint):.3g}, "
                f"reversed {_mean(errors['rl then sft']):.3g}"
            )
    return judge_settings(verdicts, threshold, _seeds(table), "; ".join(notes))


def thinking_hurts(tables: Tables, threshold: float) -> Judgement:
    table = tables.get("overthinking")
    longest = table["thinking_steps"].max()
    verdicts: dict[str, Verdict] = {}
    notes: list[str] = []
    for (panel, kind), rows in table.groupby(["panel", "kind"], sort=False):
        trained = _by_seed(rows[rows["thinking_steps"] == rows["steps"]])
        last = _by_seed(rows[rows["thinking_steps"] == longest])
        name = f"{panel} {kind}"
        verdicts[name] = beats(trained, last)
        means = rows.groupby("thinking_steps")["error"].mean()
        notes.append(
            f"{name} (rho(I + V Sigma) {rows['rollout_radius'].mean():.2f}): {_mean(trained):.3g} -> "
            f"{_mean(last):.3g}, best at {means.idxmin():.0f}"
        )
    note = f"error at the trained length -> at {longest:.0f} steps: " + "; ".join(notes)
    return judge_settings(verdicts, threshold, _seeds(table), note)
