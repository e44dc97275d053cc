"""A small set is a penalty: the parts are what they are called, and judges can say *holds* and *fails*."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.simulation.training import TrainingStage, simulate_average
from datadose.studies.tables import LSA, THEORY, TwoBlock, as_table
from datadose.studies.training_time.small_set_penalty import (
    ALL,
    LARGE,
    LIMIT,
    STUDY,
    VARIANCE,
    Column,
    SmallSetPenalty,
    measure_parts,
    penalty_curve,
)
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from helpers.studies import entry, write_result

SEEDS = 8
PARTS: dict[str, dict[int, float]] = {
    ALL: {4: 3.0, 8: 2.5, 12: 6.0, 30: 4.0},
    LIMIT: {4: 2.0, 8: 1.0, 12: 0.5, 30: 2.0},
    VARIANCE: {4: 1.0, 8: 1.5, 12: 5.5, 30: 2.0},
    LARGE: {4: 2.0, 8: 1.0, 12: 0.5},
}


def write(folder: Path, changed: Mapping[str, float], off: Mapping[str, float] | None = None) -> Path:
    """PARTS, the simulated ones times ``changed`` at B = 12, the predicted ones times ``off`` everywhere."""
    rng, rows = np.random.default_rng(0), []
    for part, values in PARTS.items():
        for B, value in values.items():
            place: dict[str, Any] = {Column.PART: part, Column.PROMPTS: B, Column.INTERFERENCE: 0.01}
            place[Column.PREDICTED] = value * (off or {}).get(part, 1.0)
            if part != LARGE:
                rows.append({Column.MODEL: THEORY, **place})
            for seed in range(SEEDS):
                noise = float(np.exp(0.001 * rng.standard_normal()))
                error = value * noise * (changed.get(part, 1.0) if B == 12 else 1.0)
                rows.append({Column.MODEL: LSA, Column.SEED: seed, Column.ERROR: error, **place})
    config = replace(
        SmallSetPenalty.preset("smoke"), block=TwoBlock(20, 10), prompts=(4, 8, 12, 30), seeds=SEEDS
    )
    return write_result(folder, STUDY, as_table(rows, Column), config)


def verdict(claim: str, folder: Path) -> str:
    return str(entry(STUDY, claim, folder)["verdict"])


@pytest.mark.parametrize("part", [LIMIT, VARIANCE])
def test_each_part_is_judged(tmp_path: Path, part: str) -> None:
    write(tmp_path, {})
    assert verdict("small-set-parts", tmp_path) == "holds"
    write(tmp_path, {}, {part: 1.3})
    assert verdict("small-set-parts", tmp_path) == "fails"


def test_a_large_set_has_to_agree(tmp_path: Path) -> None:
    write(tmp_path, {})
    assert verdict("small-set-is-a-penalty", tmp_path) == "holds"
    write(tmp_path, {LARGE: 1.3})
    assert verdict("small-set-is-a-penalty", tmp_path) == "fails"


def test_f_has_to_fall_on(tmp_path: Path) -> None:
    write(tmp_path, {})
    found = entry(STUDY, "small-set-turning-point", tmp_path)
    assert found["verdict"] == "holds"
    assert "from B=8 to 12" in found["note"]
    write(tmp_path, {LIMIT: 4.0})
    assert verdict("small-set-turning-point", tmp_path) == "mixed"
    write(tmp_path, {LIMIT: 4.0, ALL: 0.1})
    assert verdict("small-set-turning-point", tmp_path) == "fails"


def test_the_parts_are_those_of_averaged_models() -> None:
    """From the same disjoint sets: the average errs as F + variance / M says, and one model as their sum."""
    block, length, B, M = TwoBlock(24, 12), 60, 9, 3
    shift = block.shift(0.01)
    stage = TrainingStage(shift.eta, [Source(shift.data, length, B)])
    V0 = pretrained_operator(shift.sigma0, length)
    averaged = simulate_average(V0, stage, M, [shift.target], length, seeds=[5]).values[0, -1, 0]
    one, limit, variance = measure_parts(block, 0.01, length, B, M, 5)
    assert limit + variance / M == pytest.approx(averaged, rel=1e-10)
    assert limit + variance == pytest.approx(one, rel=1e-12)


def test_the_numbers_of_the_figure() -> None:
    """d = 300, n = 900, r = 0.01: the parts of the error, and where F is least."""
    curve = penalty_curve(TwoBlock(300, 150), 0.01, 900)
    for B, parts in ((100, (3.611, 1.140, 2.471)), (150, (6.776, 0.430, 6.346))):
        at = curve.at(B, 0.0)
        assert (at.error, at.limit, at.variance) == pytest.approx(parts, abs=6e-4)
    assert curve.ceiling.error == pytest.approx(0.429, abs=5e-4)
    assert float(curve.degrees(curve.ceiling.penalty)[0]) == pytest.approx(148.4, abs=0.6)


def test_the_large_set_has_the_penalty_of_the_small_one() -> None:
    config = SmallSetPenalty.preset("smoke")
    table = config.table([cell.function(**cell.arguments) for cell in config.cells()])
    curve = penalty_curve(config.block, config.interference, config.length)
    large = table[table[Column.PART] == LARGE]
    assert set(large[Column.PROMPTS]) == {*config.small}
    for B, ridge in large.groupby(Column.PROMPTS)[Column.PENALTY].first().items():
        mu = curve.penalty(config.large, float(ridge))
        assert float(curve.degrees(mu)[0]) == pytest.approx(float(str(B)), rel=1e-6)
