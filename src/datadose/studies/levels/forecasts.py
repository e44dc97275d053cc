"""How far a forecast goes: the linearised model, or exact theory of gradient descent, beside the real one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from datadose.shapes import Array
from datadose.studies.ledger import judge_mean
from datadose.studies.levels.arms import DESCENT, Arm
from datadose.studies.levels.judges import Judge, not_run
from datadose.studies.levels.schema import LOWER_WEIGHT, Column, Model, Pool
from datadose.studies.study import Judgement

CHANGED = 0.02
"""The least relative change, or difference, of the real model that a forecast is judged by."""


def forecasts(
    table: pd.DataFrame, arm: Arm, model: str, column: str
) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Name, real curve and forecast at the updates that both have, for each pool, weight and B."""
    for pool, weight in ((Pool.ONE_KIND, 1.0), *((Pool.MISLEADING, w) for w in (1.0, LOWER_WEIGHT, 0.0))):
        real, told = (
            arm.curves(table, pool=pool, weight=weight, model=kind, column=column)
            for kind in (Model.REAL, model)
        )
        for B in sorted(real.keys() & told.keys()):
            shared = sorted(set(real[B].columns) & set(told[B].columns))
            one, other = real[B][shared], told[B][shared]
            if len(other) == 1 < len(one):  # Exact theory has no seed.
                other = pd.concat([other] * len(one)).set_axis(one.index)
            seeds = one.index.intersection(other.index)
            yield f"{pool} {weight:g} {B}", one.loc[seeds], other.loc[seeds]


def _agreement(real: Array, told: Array) -> tuple[int, int]:
    """(how many of the real log ratios, shape (N,), that count have the forecast's sign, how many count)."""
    counts = np.abs(real) > np.log1p(CHANGED)
    return int((np.sign(real) == np.sign(told))[counts].sum()), int(counts.sum())


def shares_right(pairs: Sequence[tuple[str, pd.DataFrame, pd.DataFrame]], order: bool) -> Array:
    """By seed: the share of changes since the start, or of pairs of pools, that the forecast has right."""
    shares = []
    for seed in sorted({seed for _, real, _ in pairs for seed in real.index}):
        held = total = 0
        logs = [
            (np.log(real.loc[seed]), np.log(told.loc[seed])) for _, real, told in pairs if seed in real.index
        ]
        for place, (real, told) in enumerate(logs):
            others = logs[place + 1 :] if order else [(real[0] + 0 * real, told[0] + 0 * told)]
            for other, forecast in others:
                shared = [u for u in real.index if u in other.index and u > 0]
                found = _agreement(
                    (real[shared] - other[shared]).to_numpy(), (told[shared] - forecast[shared]).to_numpy()
                )
                held, total = held + found[0], total + found[1]
        if total:
            shares.append(held / total)
    return np.array(shares, dtype=np.float64)


def _where_it_parts(pairs: Sequence[tuple[str, pd.DataFrame, pd.DataFrame]]) -> str:
    """Median over pools and seeds of forecast over real, by updates."""
    ratios = pd.concat([told / real for _, real, told in pairs])
    return ", ".join(f"{int(u)}: {value:.3g}" for u, value in ratios.median().items() if u > 0)


def same_best_time(pairs: Sequence[tuple[str, pd.DataFrame, pd.DataFrame]]) -> float:
    """Share of pools and seeds whose best looks are the same or neighbours."""
    gaps = [
        np.abs(real.to_numpy().argmin(axis=1) - told.to_numpy().argmin(axis=1)) for _, real, told in pairs
    ]
    return float((np.concatenate(gaps) <= 1).mean())


def forecast_of(column: str) -> Judge:
    """The judge of whether forecasts of ``column`` have the pools in their real order."""

    def judge(table: pd.DataFrame, arm: Arm, threshold: float) -> Judgement:
        model = Model.THEORY if arm is DESCENT else Model.LINEARISED
        pairs = list(forecasts(table, arm, model, column))
        if len(pairs) < 2:
            return not_run("forecast of two pools")
        shares = shares_right(pairs, order=True)
        if len(shares) == 0:
            return not_run("two pools that differ")
        signs = shares_right(pairs, order=False)
        told = f"signs of changes {signs.mean():.2f}; " if len(signs) else ""
        times = f"best look the same or next {same_best_time(pairs):.2f}; " if column == Column.ERROR else ""
        note = f"{told}{times}forecast/real by updates, {_where_it_parts(pairs)}"
        return judge_mean(shares, threshold, below=False, note=note)

    return judge
