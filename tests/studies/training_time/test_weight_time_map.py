"""The map of weight and time: shares are shares of rows, and every judge can say *holds* and *fails*."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.studies.tables import LSA, THEORY, as_table
from datadose.studies.training_time.weight_time_map import (
    BEST,
    MAP,
    PRETRAINING,
    STUDY,
    TARGET,
    Column,
    WeightTimeMap,
    batch_weights,
    measure_share,
)
from helpers.studies import entry, write_result

SEEDS = 8
SHARES = (0.0, 0.5, 10 / 11)
TIMES = (10.0, 100.0, 1000.0)


def write(
    folder: Path,
    best: dict[float, float],
    surface: Callable[[float, float], float] = lambda share, time: 1 + abs(share - (np.log10(time) - 1) / 2),
    off: float = 1.0,
) -> Path:
    """Simulated errors at each share's best time, and over the map; predictions are ``off`` by a factor."""
    rng, rows = np.random.default_rng(0), []
    points = [(BEST, share, 50.0, best[share]) for share in SHARES]
    points += [(MAP, share, time, surface(share, time)) for share, time in product(SHARES, TIMES)]
    for (rule, share, time, value), test in product(points, (TARGET, PRETRAINING)):
        place: dict[str, Any] = {
            Column.RULE: rule,
            Column.SHARE: share,
            Column.TIME: time,
            Column.TEST: test,
            Column.PREDICTED: value * off,
        }
        rows.append({Column.MODEL: THEORY, **place})
        for seed in range(SEEDS):
            error = value * float(np.exp(0.001 * rng.standard_normal()))
            rows.append({Column.MODEL: LSA, Column.SEED: seed, Column.ERROR: error, **place})
    smoke = WeightTimeMap.preset("smoke")
    config = replace(smoke, shares=SHARES, times=TIMES, checked=TIMES, seeds=SEEDS)
    return write_result(folder, STUDY, as_table(rows, Column), config)


def judged(claim: str, folder: Path) -> Any:
    return entry(STUDY, claim, folder)


def test_the_gain_is_over_both_rivals(tmp_path: Path) -> None:
    for errors, expected, ratio in (
        ((1.0, 0.8, 1.1), "holds", 0.8),
        ((0.82, 0.8, 1.1), "fails", 0.8 / 0.82),
        ((1.1, 0.8, 0.82), "fails", 0.8 / 0.82),
    ):
        write(tmp_path, dict(zip(SHARES, errors, strict=True)))
        found = judged("weight-time-gain", tmp_path)
        assert found["verdict"] == expected
        assert found["value"] == pytest.approx(ratio, rel=0.002)


def test_later_times_have_to_prefer_more(tmp_path: Path) -> None:
    best = dict.fromkeys(SHARES, 1.0)
    write(tmp_path, best)
    assert judged("weight-time-later", tmp_path)["verdict"] == "holds"
    write(tmp_path, best, lambda share, time: 1 + abs(share - (3 - np.log10(time)) / 2))
    assert judged("weight-time-later", tmp_path)["verdict"] == "fails"
    write(tmp_path, best, lambda share, time: 1 + abs(share - 0.5))
    assert judged("weight-time-later", tmp_path)["verdict"] == "fails"


def test_the_map_has_to_be_measured(tmp_path: Path) -> None:
    best = dict.fromkeys(SHARES, 1.0)
    for off, expected in ((1.0, "holds"), (1.1, "fails")):
        write(tmp_path, best, off=off)
        assert judged("weight-time-theory", tmp_path)["verdict"] == expected


def test_weights_make_the_share_and_keep_the_rows() -> None:
    for share in (0.1, 0.5, 0.9):
        w = batch_weights(share, 20, 200)
        assert w[0] * 20 + w[1] * 200 == pytest.approx(220)
        assert w[1] * 200 / 220 == pytest.approx(share)
    assert batch_weights(200 / 220, 20, 200) == pytest.approx([1, 1])


def test_removal_is_the_end_of_a_falling_share() -> None:
    """The clock is the same on both sides: a tiny share at time t is removal at time t."""
    block, found = WeightTimeMap.preset("smoke").block, {}
    for share in (0.0, 1e-7):
        rows = measure_share(block, 0.01, 60, [20, 200], share, [30.0], [30.0], [0, 1])
        found[share] = (
            [row[3] for row in rows if row[0] == MAP],
            [row[5] for row in rows if row[0] == MAP and row[5]],
        )
    for ended, nearly in zip(found[0.0], found[1e-7], strict=True):
        assert nearly == pytest.approx(ended, rel=1e-4)


def test_every_share_has_its_best_time_and_all_rows_alike_are_among_them() -> None:
    config = WeightTimeMap.preset("smoke")
    assert config.alike in config.shares
    table = config.table([cell.function(**cell.arguments) for cell in config.cells()])
    theory = table[(table[Column.MODEL] == THEORY) & (table[Column.TEST] == TARGET)]
    best = theory[theory[Column.RULE] == BEST].set_index(Column.SHARE)[Column.PREDICTED]
    grid = theory[theory[Column.RULE] == MAP].groupby(Column.SHARE)[Column.PREDICTED].min()
    assert (best <= grid * (1 + 1e-6)).all()
    assert np.isclose(best.index.to_numpy(dtype=float), config.alike).any()
