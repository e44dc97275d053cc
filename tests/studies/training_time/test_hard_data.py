"""Hardness against the ceiling: judges that can say *holds* and *fails*, on made tables; the pools."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.studies.tables import THEORY, as_table
from datadose.studies.training_time.hard_data import NAME, POOLS, STUDY, WAYS, Column, HardData, pool
from datadose.theory import Source, Stopping, WeightedTest, pretrained_operator, trained
from helpers.studies import entry, write_result

SEEDS, MEMBERS = 12, 8


def made(folder: Path, hardness: float, ceiling: float, spread: float = 0.05) -> Path:
    """Errors are ``hardness`` and ``ceiling`` times a member's (independent) ranks, with little noise."""
    rng = np.random.default_rng(2)
    rows: list[dict[str, Any]] = []
    for kind, seed, (way, size) in product(POOLS, range(SEEDS), WAYS):
        hard, low = rng.permutation(MEMBERS), rng.permutation(MEMBERS)
        error = 50 + hardness * hard + ceiling * low + spread * rng.standard_normal(MEMBERS)
        shared = {
            Column.FIGURE: NAME,
            Column.MODEL: THEORY,
            Column.POOL: kind,
            Column.SEED: seed,
            Column.WAY: way,
            Column.SIZE: size,
        }
        names = (
            Column.MEMBER,
            Column.HARDNESS,
            Column.OUTCOME_HARDNESS,
            Column.CEILING,
            Column.PREDICTED,
        )
        forecasts = (hard.astype(float), hard.astype(float), low.astype(float))
        values = zip(range(MEMBERS), *forecasts, error, strict=True)
        rows += [{**shared, **dict(zip(names, value, strict=True))} for value in values]
    config = replace(HardData.preset("smoke"), seeds=SEEDS, members=MEMBERS)
    folder.mkdir(exist_ok=True)
    return write_result(folder, STUDY, as_table(rows, Column), config)


def verdict(claim: str, folder: Path) -> str:
    return str(entry(STUDY, claim, folder)["verdict"])


def test_hardness_is_judged_by_setting(tmp_path: Path) -> None:
    assert verdict("time-hardness", made(tmp_path / "hard", -1.0, 0.1)) == "holds"
    assert verdict("time-outcome-easy", tmp_path / "hard") == "fails"
    assert verdict("time-hardness", made(tmp_path / "easy", 1.0, 0.1)) == "fails"
    assert verdict("time-outcome-easy", tmp_path / "easy") == "holds"
    assert verdict("time-hardness", made(tmp_path / "neither", 0.0, 1.0)) == "fails"


def test_the_ceiling_is_held_against_hardness(tmp_path: Path) -> None:
    assert verdict("time-ceiling", made(tmp_path / "ceiling", 0.1, 1.0)) == "holds"
    assert verdict("time-ceiling", made(tmp_path / "hardness", -1.0, 0.1)) == "fails"
    # Hard data that are bad data are a wrong forecast, not a good one.
    assert verdict("time-ceiling", made(tmp_path / "turned", 1.0, 0.3)) == "holds"


def test_outcome_supervision_on_prompts_is_sft_on_their_scaled_covariance() -> None:
    """Why the same errors judge both: at every B and time, with the clock scaled by eta^2."""
    eta, n, sigma0, target, (A, *_) = pool(POOLS[1], 20, 2, 0)
    start, test = pretrained_operator(sigma0, n), WeightedTest.of(target, n)
    for time in (0.3, 3.0, 30.0):
        sft = trained(start, eta, [Source(A, n, 15)], Stopping(time=time))
        outcome = trained(start, 1.0, [Source(A / eta, n, 15)], Stopping(time=time * eta**2))
        assert test.error(sft) == pytest.approx(test.error(outcome), rel=1e-8)


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_covariances_of_a_pool_have_one_trace(kind: str, seed: int) -> None:
    eta, _, sigma0, target, covariances = pool(kind, 20, 5, seed)
    assert (target >= sigma0).all()
    assert [A.sum() for A in covariances] == pytest.approx([eta * target.sum()] * 5)
    assert all((A >= 0).all() for A in covariances)
    assert len({round(float(A[0]), 9) for A in covariances}) == 5
