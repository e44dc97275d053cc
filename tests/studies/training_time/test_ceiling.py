"""Ceilings by source: every judge can say *holds* and *fails*, and the numbers of one known setting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.studies.tables import LSA, THEORY, TwoBlock, as_table
from datadose.studies.training_time.ceiling import (
    ALIGNED,
    MISLEADING,
    SOURCES,
    STUDY,
    TARGET,
    CeilingBySource,
    Column,
    covariance,
    measure_source,
)
from datadose.studies.training_time.time_curves import BEST_PENALTY, BEST_TIME
from helpers.studies import entry, write_result

SEEDS = 8


def write(
    folder: Path, *, scatter: float = 1.0, forecast: float = 1.0, time: float = 0.9, measured: float = 1.0
) -> Path:
    """Errors F* + G/B with F* = 1 and G = 10; what is claimed about one source is off by these factors."""
    rng, rows = np.random.default_rng(0), []
    for source in SOURCES:
        factor = 1.0 if source == MISLEADING else scatter
        known = {Column.SCATTER: 10.0 * factor, Column.WITHIN: 100.0, Column.FORECAST: 100.0 * forecast}
        for rule, B in ((BEST_PENALTY, 10), (BEST_PENALTY, 1000), (BEST_TIME, 10), (BEST_TIME, 1000)):
            place: dict[str, Any] = {Column.SOURCE: source, Column.RULE: rule, Column.PROMPTS: B}
            place[Column.PREDICTED] = 1 + 10 / B
            place[Column.CEILING] = 1.0 if rule == BEST_PENALTY else 1.0 if source == TARGET else time
            rows.append({Column.MODEL: THEORY, **place, **(known if rule == BEST_PENALTY else {})})
            for seed in range(SEEDS):
                error = (1 + 10 / B) * measured * float(np.exp(0.001 * rng.standard_normal()))
                rows.append({Column.MODEL: LSA, Column.SEED: seed, Column.ERROR: error, **place})
    config = replace(CeilingBySource.preset("smoke"), seeds=SEEDS)
    return write_result(folder, STUDY, as_table(rows, Column), config)


def verdict(claim: str, folder: Path) -> str:
    return str(entry(STUDY, claim, folder)["verdict"])


def test_excess_and_need_are_judged_against_the_table(tmp_path: Path) -> None:
    write(tmp_path)
    assert verdict("ceiling-excess", tmp_path) == "holds"
    assert verdict("ceiling-prompts", tmp_path) == "holds"
    write(tmp_path, scatter=1.2, forecast=0.8)
    assert verdict("ceiling-excess", tmp_path) == "fails"
    assert verdict("ceiling-prompts", tmp_path) == "fails"


def test_the_ceiling_of_time_is_compared_by_source(tmp_path: Path) -> None:
    for time, expected in ((0.9, "holds"), (1.1, "mixed")):
        write(tmp_path, time=time)
        assert verdict("ceiling-of-time", tmp_path) == expected
    write(tmp_path, time=1.1)
    assert entry(STUDY, "ceiling-of-time", tmp_path)["value"] == 0.25  # of the target-like source alone


def test_simulation_has_to_agree(tmp_path: Path) -> None:
    for measured, expected in ((1.0, "holds"), (1.2, "fails")):
        write(tmp_path, measured=measured)
        assert verdict("ceiling-theory", tmp_path) == expected


def test_the_numbers_of_the_figure() -> None:
    """d = 300, n = 900, r = 0.01, aligned data: ceilings of penalty and time, and the excess times B."""
    found = measure_source(TwoBlock(300, 150), 0.01, 900, ALIGNED, [30], [100, 300, 1000, 3000, 30000], [0])
    assert found["ceilings"][BEST_PENALTY] == pytest.approx(0.429, abs=5e-4)
    assert found["ceilings"][BEST_TIME] == pytest.approx(0.296, abs=5e-4)
    penalised = {
        B: predicted for rule, B, predicted, seed, _ in found["rows"] if rule == BEST_PENALTY and seed is None
    }
    excess = [(penalised[B] - found["ceilings"][BEST_PENALTY]) * B for B in (100, 300, 1000, 3000, 30000)]
    assert excess == pytest.approx([281, 179, 146, 141, 140], abs=0.6)
    assert found["scatter"] == pytest.approx(139.8, abs=0.1)


def test_the_sources_are_what_their_names_say() -> None:
    block = TwoBlock(20, 10)
    shift = block.shift(0.01)
    assert covariance(block, 0.01, ALIGNED) == pytest.approx(shift.data)
    assert covariance(block, 0.01, TARGET) == pytest.approx(shift.eta * shift.target)
    assert covariance(block, 0.01, MISLEADING) == pytest.approx(0.5 * shift.eta * shift.target)
    mixed = covariance(block, 0.01, SOURCES[-1])
    assert mixed == pytest.approx((shift.data + 0.5 * shift.eta * shift.target) / 2)
