"""The study of the whole decision: its simulation against the library's, and what each judge can say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.simulation.training import simulate_training
from datadose.studies.planner.decision import CAPPED_BELOW, STUDY, Column, Decisions
from datadose.studies.planner.decision_cells import (
    CHAIN,
    TILTS,
    DrawnRows,
    cap,
    decisions,
    measure_pool,
    random_pool,
    splits,
    stoppings,
)
from datadose.studies.tables import as_table
from datadose.theory.stopping import Stopping
from helpers.studies import entry, write_result

ROW = {
    Column.FIGURE: "plan_decision",
    Column.STOP: "best",
    Column.TUNED: 1,
    Column.SOURCES: 2,
    Column.DENSE: 0,
    Column.CAP: 1.0,
    Column.PREDICTED: 1.0,
    Column.ERROR: 1.0,
    Column.SEM: 1e-3,
    Column.REGRET_SEM: 1e-4,
    Column.UNTOUCHED: 2.0,
    Column.STEPS_PREDICTED: 1.0,
    Column.STEPS_ERROR: 1.0,
    Column.STEPS_SEM: 1e-3,
}


def judged(claim: str, rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    table = as_table([{**ROW, Column.SEED: at, **row} for at, row in enumerate(rows)], Column)
    config = replace(Decisions.preset("smoke"), seeds=16)
    return entry(STUDY, claim, write_result(folder, STUDY, table, config))


@pytest.mark.parametrize(
    ("regrets", "sem", "median", "worst"),
    [
        ([0.0, 0.001, 0.002] * 5, 1e-4, "holds", "holds"),
        ([0.0, 0.001, 0.04] * 5, 1e-4, "mixed", "holds"),
        ([0.0] * 14 + [0.08], 1e-4, "holds", "fails"),
        ([0.0] * 14 + [0.08], 0.02, "holds", "mixed"),
        ([0.02, 0.03, 0.09] * 5, 1e-4, "fails", "fails"),
    ],
)
def test_regrets_are_judged(
    regrets: list[float], sem: float, median: str, worst: str, tmp_path: Path
) -> None:
    rows = [{Column.REGRET: r, Column.REGRET_SEM: sem} for r in regrets]
    assert judged("plan-decision-median", rows, tmp_path)["verdict"] == median
    found = judged("plan-decision-worst", rows, tmp_path)
    assert found["verdict"] == worst
    assert "time, tuned weights" in found["note"]
    assert "no pool capped" in found["note"]


def test_the_note_tells_of_capped_pools_alone(tmp_path: Path) -> None:
    """Those that may use half of their rows are no capped ones."""
    caps = [(0.05, 0.01), (0.1, 0.03), (0.08, 0.02), (0.5, 0.9), (1.0, 0.8)]
    rows = [{Column.CAP: cap, Column.REGRET: regret, Column.REGRET_SEM: 1e-4} for cap, regret in caps]
    note = judged("plan-decision-worst", rows, tmp_path)["note"]
    assert "3 pools capped at 5.0% to 10.0% of their rows: median 2.00% [1.00%, 3.00%], worst 3.00%" in note


@pytest.mark.parametrize(
    ("claim", "column", "error"),
    [
        ("plan-decision-forecast", Column.PREDICTED, Column.SEM),
        ("plan-decision-descent", Column.STEPS_PREDICTED, Column.STEPS_SEM),
    ],
)
def test_forecasts_are_judged(claim: str, column: str, error: str, tmp_path: Path) -> None:
    for last, sem, verdict in ((1.03, 1e-3, "holds"), (1.3, 1e-3, "fails"), (1.12, 0.03, "mixed")):
        rows: list[dict[str, Any]] = [{column: told, error: sem, Column.REGRET: 0.0} for told in (1.0, last)]
        assert judged(claim, rows, tmp_path)["verdict"] == verdict


@pytest.mark.parametrize("seed", [1, 7])
def test_a_decision_is_simulated_as_elsewhere(seed: int) -> None:
    """The same rows under the same filter as in ``simulate_training``, spectra and dense, to rounding."""
    pool = random_pool(12, seed)
    counts, weights = np.round(0.6 * pool.sizes), np.array([1.0, 0.2, 0.7][: len(pool.sources)])
    ends = [Stopping(time=3.0), Stopping(ridge=2.0), Stopping(time=0.0)]
    form = pool.goal.target
    assert pool.goal.objective is form
    # A stream depends on how many rows are drawn of a source, not on what is taken of them.
    found = simulate_training(
        pool.start,
        pool.eta,
        pool.taking(pool.sizes),
        [form.target],
        pool.sources[0].length,
        ends,
        counts=np.array([counts, pool.sizes]).astype(int),
        weights=weights,
        chain_steps=CHAIN,
        seeds=[4],
    ).values[0, 0, :, 0]
    np.testing.assert_allclose(DrawnRows(pool, 4).errors(counts, weights, ends), found, rtol=1e-8)


def test_the_grid_keeps_to_the_limit_and_holds_all_and_nothing() -> None:
    for seed in (2, 5):
        pool = random_pool(12, seed)
        assert pool.is_limited
        for tuned in (False, True):
            grid = list(decisions(pool, tuned=tuned))
            assert max(counts.sum() for counts, _ in grid) <= pool.max_prompts
            assert all(weights.max() == 1 for _, weights in grid)
            ends = stoppings(pool, *grid[0], "best")
            assert any(end.is_converged for end in ends)
            assert any(end.is_untrained for end in ends)


def test_one_pool_in_five_is_capped() -> None:
    pools = [random_pool(12, seed) for seed in range(400)]
    capped = [pool for pool in pools if cap(pool) < CAPPED_BELOW]
    # Three standard deviations of 400 draws are 24.
    assert 56 <= len(capped) <= 104
    for pool in capped:
        total = pool.owned.sum()
        assert np.round(0.05 * total) <= pool.max_prompts <= np.round(0.1 * total)
    assert {round(cap(pool), 1) for pool in pools if pool not in capped} == {0.5, 1.0}


@pytest.mark.parametrize("tuned", [False, True])
def test_the_grid_splits_a_cap_between_the_sources(tuned: bool) -> None:
    """All of it to each source that has as many rows, and shares between; no row is taken for nothing."""
    pool = next(p for p in (random_pool(40, s) for s in range(99)) if cap(p) < 0.1 and len(p.sources) == 3)
    most, tilts = pool.max_prompts, TILTS[tuned]
    rows = splits(pool, tilts)
    assert all(0 < counts.sum() <= most and (counts <= pool.sizes).all() for counts in rows)
    tried = {tuple(counts) for counts, _ in decisions(pool, tuned=tuned)}
    assert {tuple(counts) for counts in rows} <= tried
    for at, size in enumerate(pool.sizes):
        assert tuple(size * np.eye(3)[at]) in tried
        shares = {counts[at] / most for counts in rows if counts.sum() == most}
        assert max(np.diff(sorted({0.0, *shares, size / most}))) <= 0.35
    if not tuned:
        assert min(sum(counts) for counts in tried) <= most / 3


def test_the_worst_decision_is_told_from_the_plan() -> None:
    """A regret is small where the plan is right; both errors are those of the same draws."""
    [row] = measure_pool(10, 3, "best", False, list(range(4)))
    named = dict(zip(Decisions.measured, row, strict=True))
    assert named[Column.REGRET] < 0.1
    assert named[Column.ERROR] < named[Column.UNTOUCHED]
