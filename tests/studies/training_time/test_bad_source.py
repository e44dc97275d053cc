"""A misleading source removed or weighted: judges that can say *holds* and *fails*, on made tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from datadose.studies.tables import THEORY, as_table
from datadose.studies.training_time.bad_source import (
    NAME,
    PENALTY,
    STOPPED,
    STUDY,
    TEN,
    TUNED,
    UNTOUCHED,
    WEIGHTS,
    BadSource,
    Column,
    errors_of_pool,
)
from helpers.studies import entry, write_result

SEEDS = 40


def made(
    folder: Path,
    removed: float = 1.0,
    weighted: float = 1.0,
    ten: float = 1.0,
    tuned: Mapping[int, float] = {},
) -> Path:
    """Errors over that of all rows alike; ``tuned``: by seed, what ten times the rows do to tuned weights."""
    rows: list[dict[str, Any]] = []
    for seed in range(SEEDS):
        at = {w: (weighted if 0 < w < 1 else removed if w == 0 else 1.0) for w in WEIGHTS}
        found: list[tuple[str, float | None, int, float]] = []
        found += [(STOPPED, w, 1, error) for w, error in at.items()]
        found += [(way, None, times, 2.0) for way in (UNTOUCHED, PENALTY) for times in (1, TEN)]
        found += [
            (STOPPED, 1.0, TEN, ten),
            (TUNED, None, 1, 0.5),
            (TUNED, None, TEN, 0.5 * tuned.get(seed, 1.0)),
        ]
        names = (Column.WAY, Column.WEIGHT, Column.TIMES, Column.PREDICTED)
        shared = {Column.FIGURE: NAME, Column.MODEL: THEORY, Column.SEED: seed}
        rows += [{**shared, **dict(zip(names, row, strict=True))} for row in found]
    config = replace(BadSource.preset("smoke"), seeds=SEEDS)
    folder.mkdir(exist_ok=True)
    return write_result(folder, STUDY, as_table(rows, Column), config)


def verdict(claim: str, folder: Path) -> str:
    return str(entry(STUDY, claim, folder)["verdict"])


def test_removal_and_weight_are_told_apart(tmp_path: Path) -> None:
    both = made(tmp_path / "both", removed=0.8, weighted=0.6)
    assert [verdict(c, both) for c in ("time-removal", "time-smaller-weight")] == ["holds", "holds"]
    removed = made(tmp_path / "removed", removed=0.6, weighted=0.6)
    assert [verdict(c, removed) for c in ("time-removal", "time-smaller-weight")] == ["holds", "fails"]
    harmless = made(tmp_path / "harmless", removed=1.2, weighted=0.995)
    assert [verdict(c, harmless) for c in ("time-removal", "time-smaller-weight")] == ["fails", "fails"]
    assert (
        f"removal raises the error by over 1 percent in {SEEDS}"
        in entry(STUDY, "time-removal", harmless)["note"]
    )


def test_more_bad_rows(tmp_path: Path) -> None:
    assert verdict("time-ten-times-bad", made(tmp_path / "bad", ten=1.5)) == "holds"
    assert verdict("time-ten-times-bad", made(tmp_path / "even")) == "fails"
    assert verdict("time-ten-times-tuned", made(tmp_path / "tuned", tuned={3: 0.9})) == "holds"
    found = entry(STUDY, "time-ten-times-tuned", made(tmp_path / "one", tuned={3: 1.001}))
    assert found["verdict"] == "fails"
    assert f"1 of {SEEDS} rise" in found["note"]


def test_no_way_of_a_pool_is_better_than_tuned_penalties_nor_worse_than_none() -> None:
    rows = errors_of_pool(12, 1)
    for times in (1, TEN):
        of = {(row[0], row[1]): row[3] for row in rows if row[2] == times}
        untouched = of[UNTOUCHED, None]
        assert of[TUNED, None] <= of[PENALTY, 1.0] * (1 + 1e-6)
        assert max(error for error in of.values()) <= untouched * (1 + 1e-9)
    assert np.isfinite([row[3] for row in rows]).all()
    assert [row[1] for row in rows if row[0] == STOPPED and row[2] == 1] == [*WEIGHTS]
