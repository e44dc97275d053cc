"""Repetition against one pass: its cells, and judges that can say *holds* and *fails*, on made tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.studies.fresh_batches import experiment
from datadose.studies.fresh_batches.experiment import (
    EPOCHS,
    FRESH,
    NAME,
    POPULATION,
    WHOLE,
    Column,
    FreshBatches,
    comparisons,
)
from datadose.studies.fresh_batches.study import STUDY
from datadose.studies.study import Saved
from datadose.studies.tables import LSA, THEORY, as_table
from helpers.studies import entry, write_result

UPDATES, BEST, ROWS, SEEDS = (10, 20, 50, 100, 200), 50, (4, 40), 6
EXACT = {10: 3.0, 20: 2.0, 50: 1.0, 100: 2.0, 200: 4.0}
"""Exact errors of one pass, the best at 50 updates."""

Ratio = Callable[[str, int, int], float]


def made(folder: Path, ratio: Ratio, spread: float = 0.01) -> Path:
    """A table in which a training on B rows has ``ratio`` times the error of its reference."""
    rng = np.random.default_rng(0)
    shared = {
        Column.FIGURE: NAME,
        Column.SHIFTED: 6,
        Column.INTERFERENCE: 0.01,
        Column.BATCH: 1,
        Column.FRACTION: 0.1,
    }
    rows: list[dict[str, Any]] = []
    for T in UPDATES:
        exact = {FRESH: EXACT[T], POPULATION: 0.8 * EXACT[T]}
        for training, error in exact.items():
            rows.append(
                {Column.MODEL: THEORY, Column.TRAINING: training, Column.UPDATES: T, Column.PREDICTED: error}
            )
        for training, reference in ((EPOCHS, FRESH), (WHOLE, POPULATION)):
            for B in ROWS:
                for seed in range(SEEDS):
                    error = exact[reference] * ratio(training, B, T) * (1 + spread * rng.standard_normal())
                    measured = {Column.PROMPTS: B, Column.SEED: seed, Column.ERROR: error}
                    rows.append({Column.MODEL: LSA, Column.TRAINING: training, Column.UPDATES: T, **measured})
    table = as_table([{**shared, **row} for row in rows], Column)
    folder.mkdir(exist_ok=True)
    return write_result(folder, STUDY, table)


def verdict(claim: str, folder: Path) -> str:
    return str(entry(STUDY, claim, folder)["verdict"])


def test_rows_count_as_repeated_from_the_second_epoch(tmp_path: Path) -> None:
    folder = made(tmp_path, lambda *_: 1.0)
    [few, many] = comparisons(Saved(STUDY, folder).table)
    assert (few.prompts, few.repeated, few.best_time) == (4, [10, 20, 50, 100, 200], BEST)
    assert (many.prompts, many.repeated) == (40, [100, 200])


def test_equal_updates_are_judged_cell_by_cell(tmp_path: Path) -> None:
    claim = "repetition-equal-updates"
    assert verdict(claim, made(tmp_path / "won", lambda *_: 0.5)) == "holds"
    assert verdict(claim, made(tmp_path / "lost", lambda *_: 1.5)) == "fails"
    late = entry(STUDY, claim, made(tmp_path / "late", lambda kind, B, T: 0.5 if T > BEST else 1.5))
    assert late["verdict"] == "mixed"
    assert late["value"] == pytest.approx(4 / 7)
    assert "earliest win at 2 of one pass's best time" in late["note"]
    # What happens before the second epoch does not count.
    early = entry(STUDY, claim, made(tmp_path / "early", lambda kind, B, T: 0.5 if T < 2 * B else 1.5))
    assert early["verdict"] == "fails"


def test_a_win_before_the_best_time_refutes(tmp_path: Path) -> None:
    claim = "repetition-before-best"
    assert verdict(claim, made(tmp_path / "late", lambda kind, B, T: 0.5 if T > BEST else 1.0)) == "holds"
    assert verdict(claim, made(tmp_path / "won", lambda kind, B, T: 0.9 if T == BEST else 1.2)) == "fails"
    assert verdict(claim, made(tmp_path / "noisy", lambda *_: 1.0, spread=0.3)) == "mixed"


def test_best_against_best(tmp_path: Path) -> None:
    claim = "repetition-best-time"
    assert verdict(claim, made(tmp_path / "even", lambda kind, B, T: 0.4 if T > BEST else 1.0)) == "fails"
    assert verdict(claim, made(tmp_path / "late", lambda kind, B, T: 0.6 if T > BEST else 1.0)) == "holds"


def test_the_noise_of_steps_is_set_apart(tmp_path: Path) -> None:
    claim = "repetition-dilution"

    def only(training: str) -> Ratio:
        return lambda kind, B, T: 0.8 if kind == training else 1.1

    assert verdict(claim, made(tmp_path / "epochs", only(EPOCHS))) == "holds"
    assert verdict(claim, made(tmp_path / "whole", only(WHOLE))) == "fails"


def test_a_run_that_diverges_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    """With forty times the largest stable step every run over the few rows overflows."""
    config = FreshBatches.preset("smoke")
    cell = config.cells()[1]
    wild = {**cell.arguments, "descent": {"batch": 1, "fraction": 0.5, "updates": (3, 4000)}}
    monkeypatch.setattr(experiment.Descent, "step", property(lambda run: 40 * run.one_pass().largest_step))
    monkeypatch.setattr(experiment, "simulate_training", _nothing)
    rows = cell.function(**wild)
    lost = [row for row in rows if row[1] == EPOCHS]
    assert [row[4] for row in lost] == [None] * len(lost)


def _nothing(*_: Any, stoppings: list[Any], **__: Any) -> Any:
    class Errors:
        values = np.ones((1, 1, len(stoppings), 1))

    return Errors()
