"""Equal steps and epochs, and forgetting: judges that can say *holds* and *fails*, on made tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from datadose.studies.tables import THEORY, as_table
from datadose.studies.training_time.equal_time import NAME, STUDY, EqualTime, along_path
from datadose.studies.training_time.names import LARGE
from datadose.studies.training_time.path_names import (
    ALLOWED,
    AT_EPOCHS,
    BEFORE,
    BEST,
    FACTORS,
    HELD,
    PACES,
    ROWS,
    STEPS,
    Column,
)
from datadose.studies.training_time.shifts import KINDS
from helpers.studies import entry, write_result

SEEDS = 40
Ratio = Callable[[str, float], float]


def made(
    folder: Path,
    steps: Ratio = lambda *_: 2.0,
    epochs: Ratio = lambda *_: 2.0,
    forgotten: float = 0.0,
    price: float = 1.0,
) -> Path:
    """A table in which small sets have ``steps`` and ``epochs`` (kind, factor) times the error of B "
    "= 30 d."""
    rows: list[dict[str, Any]] = []

    def add(kind: str, seed: int, clock: str, factor: float, size: float, *errors: float | None) -> None:
        shared = {Column.FIGURE: NAME, Column.MODEL: THEORY, Column.KIND: kind, Column.SEED: seed}
        place = {Column.CLOCK: clock, Column.FACTOR: factor, Column.SIZE: size}
        rows.append({**shared, **place, Column.ON_TARGET: errors[0], Column.ON_KNOWN: errors[1]})

    for kind, seed in product(KINDS, range(SEEDS)):
        for clock, factors, ratio in ((STEPS, FACTORS, steps), (AT_EPOCHS, PACES, epochs)):
            for factor, size in product(factors, ROWS):
                add(kind, seed, clock, factor, size, ratio(kind, factor) if size < 1 else 1.0, None)
        add(kind, seed, BEFORE, 1.0, LARGE, 3.0, 2.0)
        add(kind, seed, BEST, 1.0, LARGE, 1.0, 2.0 * (1 + forgotten))
        add(kind, seed, HELD, 1.0, LARGE, price, 2.0)
    config = replace(EqualTime.preset("smoke"), seeds=SEEDS)
    folder.mkdir(exist_ok=True)
    return write_result(folder, STUDY, as_table(rows, Column), config)


def verdict(claim: str, folder: Path) -> str:
    return str(entry(STUDY, claim, folder)["verdict"])


def test_a_small_set_that_wins_early_refutes(tmp_path: Path) -> None:
    claim = "time-equal-steps"
    late = entry(STUDY, claim, made(tmp_path / "late", steps=lambda _, f: 0.5 if f > 1 else 1.1))
    assert (late["verdict"], late["value"]) == ("holds", 1.1)
    assert late["seeds"] == 3 * SEEDS
    assert "3 times it: 100%" in late["note"]
    early = made(tmp_path / "early", steps=lambda kind, f: 0.9 if (kind, f) == (KINDS[2], 0.3) else 1.1)
    assert verdict(claim, early) == "fails"


def test_epochs_are_judged_by_kind_and_rate(tmp_path: Path) -> None:
    claim = "time-equal-epochs"
    assert verdict(claim, made(tmp_path / "won", epochs=lambda *_: 0.9)) == "holds"
    assert verdict(claim, made(tmp_path / "lost")) == "fails"
    one = made(tmp_path / "one", epochs=lambda kind, f: 0.9 if kind == KINDS[1] and f == PACES[2] else 1.1)
    found = entry(STUDY, claim, one)
    assert found["verdict"] == "mixed"
    assert found["value"] == pytest.approx(1 / 9)


def test_forgetting_and_its_price(tmp_path: Path) -> None:
    lost = made(tmp_path / "lost", forgotten=0.2, price=1.3)
    assert verdict("time-forgets", lost) == "holds"
    assert verdict("time-price-of-keeping", lost) == "fails"
    kept = made(tmp_path / "kept", forgotten=0.04, price=1.05)
    assert verdict("time-forgets", kept) == "fails"
    assert verdict("time-price-of-keeping", kept) == "holds"


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_held_back_forgets_no_more_than_allowed_and_is_the_best_of_that(seed: int) -> None:
    """Against the path itself: no time up to the best one keeps the bar with a lower error on the target."""
    rows = along_path(KINDS[0], 12, seed)
    of = {row[0]: row for row in rows}
    bar = (1 + ALLOWED) * of[BEFORE][4]
    assert of[HELD][4] <= bar * (1 + 1e-3)
    assert of[BEST][3] <= of[HELD][3] * (1 + 1e-9)
    path = [(row[3], row[4]) for row in rows if row[0] == "path"]
    assert len(path) > 5
    assert of[HELD][3] <= min(target for target, known in path if known <= bar) * (1 + 1e-9)
