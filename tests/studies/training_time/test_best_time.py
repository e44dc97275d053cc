"""The best time against convergence and penalty: judges that can say *holds* and *fails*, on made tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.studies.study import Saved
from datadose.studies.tables import THEORY, as_table
from datadose.studies.training_time.best_time import NAME, STUDY, BestTimes, errors_by_size
from datadose.studies.training_time.names import (
    CEILING,
    CONVERGED,
    PENALTY,
    SIZES,
    STOPPED,
    TIME,
    UNLIMITED,
    UNTOUCHED,
    Column,
)
from datadose.studies.training_time.shifts import KINDS
from helpers.studies import entry, write_result

SEEDS = 40
Value = Callable[[str, float, int], float | None]


def falling(kind: str, size: float, seed: int) -> float:
    return float(size**-0.3)


def rising(kind: str, size: float, seed: int) -> float:
    return float(size**0.3)


def made(folder: Path, **columns: Value) -> Path:
    """A table whose columns are functions of (kind, B / d, seed); errors fall with B unless given."""
    usual: dict[str, Value] = {CONVERGED: falling, PENALTY: falling, STOPPED: falling}
    usual |= {TIME: lambda _, size, __: size**0.5, CEILING: lambda *_: 1e-9, UNTOUCHED: lambda *_: 9.0}
    rows: list[dict[str, Any]] = []
    for kind, seed, size in product(KINDS, range(SEEDS), SIZES):
        values = {name: value(kind, size, seed) for name, value in (usual | columns).items()}
        shared = {Column.FIGURE: NAME, Column.MODEL: THEORY, Column.KIND: kind, Column.SEED: seed}
        rows.append({**shared, Column.SIZE: size, **values})
    config = replace(BestTimes.preset("smoke"), seeds=SEEDS)
    folder.mkdir(exist_ok=True)
    return write_result(folder, STUDY, as_table(rows, Column), config)


def verdict(claim: str, folder: Path) -> str:
    return str(entry(STUDY, claim, folder)["verdict"])


def test_small_sets_are_judged_by_kind(tmp_path: Path) -> None:
    def in_one(kind: str, size: float, seed: int) -> float:
        return rising(kind, size, seed) if kind == KINDS[0] else falling(kind, size, seed)

    claim = "time-small-converged"
    assert verdict(claim, made(tmp_path / "won", converged=rising)) == "holds"
    assert verdict(claim, made(tmp_path / "lost")) == "fails"
    assert verdict(claim, made(tmp_path / "one", converged=in_one)) == "mixed"
    # In half of the shifts is not in most.
    half = made(tmp_path / "half", converged=lambda k, s, seed: (rising, falling)[seed % 2](k, s, seed))
    found = entry(STUDY, claim, half)
    assert (found["verdict"], found["interval"]) == ("mixed", [0.0, 1.0])
    assert "small wins in 20 of 40" in found["note"]
    claim = "time-small-tuned"
    assert verdict(claim, made(tmp_path / "tuned", best_time=rising, best_penalty=rising)) == "holds"
    assert verdict(claim, made(tmp_path / "penalty", best_penalty=rising)) == "mixed"
    assert verdict(claim, made(tmp_path / "untuned", converged=rising)) == "fails"


def test_one_rise_refutes(tmp_path: Path) -> None:
    claim = "time-more-rows"

    def bumped(by: float) -> Value:
        def value(kind: str, size: float, seed: int) -> float:
            bump = (1 + by) * (2.0 / 0.9) ** 0.3 if (kind, size, seed) == (KINDS[1], 2.0, 7) else 1.0
            return falling(kind, size, seed) * bump

        return value

    assert verdict(claim, made(tmp_path / "even", best_time=lambda *_: 1.0)) == "holds"
    assert verdict(claim, made(tmp_path / "rounding", best_time=bumped(1e-8))) == "holds"
    found = entry(STUDY, claim, made(tmp_path / "risen", best_time=bumped(1e-4)))
    assert found["verdict"] == "fails"
    assert found["value"] == pytest.approx(1e-4, rel=1e-3)
    assert f"1 of {3 * SEEDS} rise" in found["note"]
    assert f"{KINDS[1]}, seed 7, to B = 2 d" in found["note"]


def test_two_filters_are_compared(tmp_path: Path) -> None:
    claim = "time-against-penalty"

    def times(mean: float, spread: float = 0.001) -> Value:
        noise = np.random.default_rng(1).standard_normal(SEEDS)
        return lambda kind, size, seed: falling(kind, size, seed) * float(np.exp(mean + spread * noise[seed]))

    assert verdict(claim, made(tmp_path / "better", best_time=times(-0.1))) == "holds"
    assert verdict(claim, made(tmp_path / "worse", best_time=times(0.1))) == "fails"
    assert verdict(claim, made(tmp_path / "alike", best_time=times(0.005))) == "no difference"
    assert verdict(claim, made(tmp_path / "unsure", best_time=times(0.0, 1.0))) == "mixed"


def test_steps_and_epochs_are_told_apart(tmp_path: Path) -> None:
    claim = "time-clocks"

    def power(exponent: float) -> Value:
        return lambda _, size, __: size**exponent

    assert verdict(claim, made(tmp_path / "between", time=power(0.5))) == "holds"
    assert verdict(claim, made(tmp_path / "more epochs", time=power(1.5))) == "mixed"
    assert verdict(claim, made(tmp_path / "fewer steps", time=power(-0.5))) == "mixed"
    # Shifts that are not to be trained, or without end, are left out.
    few = made(tmp_path / "few", time=lambda k, size, seed: (0.0, None, size**0.5, 1.0)[seed % 4])
    assert "of 20" in entry(STUDY, claim, few)["note"]


def test_the_best_of_all_ways_is_found_at_any_size() -> None:
    """Against convergence, and against the untouched model, which both are among the times and penalties."""
    for kind in KINDS:
        for row in errors_by_size(kind, 12, 3, (0.5, 3.0, UNLIMITED)):
            _, converged, penalised, stopped, _, ceiling, untouched = row
            assert max(penalised, stopped) <= min(converged, untouched) * (1 + 1e-9)
            assert ceiling <= penalised * (1 + 1e-9)
    assert ceiling == pytest.approx(penalised, rel=1e-3)


def test_the_cells_are_those_of_the_table(tmp_path: Path) -> None:
    config = replace(BestTimes.preset("smoke"), seeds=1, sizes=(0.5, 2.0))
    results = [cell.function(**cell.arguments) for cell in config.cells()]
    folder = write_result(tmp_path, STUDY, config.table(results), config)
    table = Saved(STUDY, folder).table
    assert len(table) == len(KINDS) * 2
    assert table[Column.STOPPED].notna().all()
