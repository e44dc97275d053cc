"""Balance of pretraining and a well-timed stage: judges that can say *holds* and *fails*, on made tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from datadose.studies.tables import THEORY, as_table
from datadose.studies.training_time.balance import (
    BALANCES,
    NAME,
    NONE,
    SFT,
    STAGES,
    STUDY,
    Balances,
    Column,
    errors_by_balance,
)
from helpers.studies import entry, write_result

SEEDS = 40
Value = Callable[[str, float], float]


def made(folder: Path, error: Value, before: Callable[[float], float] = lambda _: 9.0) -> Path:
    """A table in which a stage leaves ``error`` (stage, rho), and the untouched model has "
    "``before`` (rho)."""
    rows: list[dict[str, Any]] = []
    for seed, rho in product(range(SEEDS), BALANCES):
        shared = {Column.FIGURE: NAME, Column.MODEL: THEORY, Column.SEED: seed, Column.BALANCE: rho}
        for stage, size in STAGES:
            values = {Column.STAGE: stage, Column.SIZE: size, Column.PREDICTED: error(stage, rho)}
            rows.append({**shared, **values})
        rows.append({**shared, Column.STAGE: NONE, Column.PREDICTED: before(rho)})
    config = replace(Balances.preset("smoke"), seeds=SEEDS)
    folder.mkdir(exist_ok=True)
    return write_result(folder, STUDY, as_table(rows, Column), config)


def verdict(claim: str, folder: Path) -> str:
    return str(entry(STUDY, claim, folder)["verdict"])


def test_one_rise_on_the_way_counts(tmp_path: Path) -> None:
    claim = "time-balance"
    assert verdict(claim, made(tmp_path / "falls", lambda _, rho: 1 / rho)) == "holds"
    assert verdict(claim, made(tmp_path / "rises", lambda _, rho: rho)) == "fails"
    bump = made(tmp_path / "bump", lambda stage, rho: 1 / rho if stage != SFT or rho != 0.12 else 99.0)
    found = entry(STUDY, claim, bump)
    assert (found["verdict"], found["value"]) == ("mixed", 0.5)


def test_what_a_stage_leaves_is_compared(tmp_path: Path) -> None:
    claim = "time-latent"
    assert verdict(claim, made(tmp_path / "more", lambda _, rho: 1 / rho)) == "holds"
    # The error falls, but that of the untouched model falls faster.
    less = made(tmp_path / "less", lambda _, rho: 1 / rho, before=lambda rho: 9 / rho**2)
    assert verdict(claim, less) == "fails"


def test_a_stage_at_its_best_time_is_no_worse_than_none() -> None:
    rows = errors_by_balance(12, 0)
    before = {rho: error for stage, rho, _, error in rows if stage == NONE}
    assert [*before] == [*BALANCES]
    for _, rho, _, error in rows:
        assert error <= before[rho] * (1 + 1e-9)
    few, many = ([e for s, _, size, e in rows if s == SFT and size == at] for at in (0.4, 4.0))
    assert many == pytest.approx([min(a, b) for a, b in zip(few, many, strict=True)])
