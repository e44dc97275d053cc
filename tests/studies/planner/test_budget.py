"""The study of schedules: what counts as a gain and as a gap, and its judges on made-up tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.studies.planner.budget import (
    STUDY,
    Column,
    PlanBudget,
    both_stages_pay,
    draw_plan_budget,
    forecasts_come_true,
    gains,
    gaps,
)
from datadose.studies.study import Saved


def made_up(gain: float, off: float, settings: int = 40) -> tuple[PlanBudget, pd.DataFrame]:
    """Both stages better by ``gain``, the forecast off by ``off``; four seeds that scatter by a percent."""
    config = PlanBudget(24, settings, 4)
    noise = np.random.default_rng(0).standard_normal((settings, 4)) / 100
    results: list[dict[str, Any]] = [
        {
            "price": 0.1 + i / 20,
            "budget": 1.0 + i / 10,
            "update": 0.001 * (i % 2),
            "stages": "sft then outcome",
            "predicted": 1 + off,
            "alternatives": {"none": 4.0, "sft": gain, "outcome": 2 * gain, "both": 1.0},
            "errors": (1 + noise[i]).tolist(),
        }
        for i in range(settings)
    ]
    return config, config.table(results)


def saved(config: PlanBudget, table: pd.DataFrame, folder: Path) -> Saved[PlanBudget]:
    found = Saved(STUDY, folder)
    found.__dict__.update(table=table, config=config)
    return found


@pytest.mark.parametrize(("gain", "verdict"), [(1.05, "holds"), (1.005, "fails")])
def test_both_stages_have_to_beat_the_better(gain: float, verdict: str, tmp_path: Path) -> None:
    config, table = made_up(gain, 0.0)
    np.testing.assert_allclose(gains(table)["gain"], gain)
    assert both_stages_pay(saved(config, table, tmp_path), 0.5).verdict == verdict


@pytest.mark.parametrize(("off", "verdict"), [(0.005, "holds"), (0.06, "fails")])
def test_the_gap_is_that_of_the_middle_setting(off: float, verdict: str, tmp_path: Path) -> None:
    config, table = made_up(1.0, off)
    found = gaps(table)
    assert found["ratio"].median() == pytest.approx(1 + off, abs=0.01)
    assert found["sem"].median() == pytest.approx(0.005, rel=0.5)
    judged = forecasts_come_true(saved(config, table, tmp_path), 0.02)
    assert judged.verdict == verdict
    assert "would be noise" in judged.note


def test_the_smallest_study_is_drawn() -> None:
    config = PlanBudget.preset("smoke")
    table = config.table([cell.function(**cell.arguments) for cell in config.cells()])
    assert set(table[Column.SETTING]) == {0, 1}
    best = gains(table)
    assert (best["gain"] >= 1).all()
    assert len(draw_plan_budget(table, config).axes) == 2
