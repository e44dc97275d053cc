"""Forecasts at four times as many rows: curves of a table, judges on hand-made ones, a whole small run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.llm.compare.forecast import Estimate
from datadose.studies.referee import forecasting
from datadose.studies.referee.forecast_figure import draw_forecasts
from datadose.studies.referee.forecast_study import STUDY
from datadose.studies.referee.forecasting import ForecastStudy, curves_of, ends, spread_of
from datadose.studies.referee.grid import PoolPilot
from datadose.studies.referee.judging import Pilot
from helpers.studies import entry, run_twice, write_result

SEEDS = 6
METHODS = ("oracle", "rds")
POOLS = (("clean", "A"), ("mixed", "B"))
ROWS = (8, 16, 32, 64, 256)
PILOTS = tuple(PoolPilot("clean", "best", Pilot(0.05, (100,), "a test")) for _ in "1")
CONFIG = replace(ForecastStudy.preset("smoke"), seeds=SEEDS, pilots=PILOTS)


def scarce(B: float) -> float:
    return 0.1 + 2.0 / (B - 2)


def table(loss: Any = scarce, *, last: float = 1.0, noise: float = 0.001) -> pd.DataFrame:
    """Curves of every arm; the loss at the largest number of rows is ``last`` times what ``loss`` says."""
    rng = np.random.default_rng(0)
    rows = []
    for contents, pair in POOLS:
        for method in METHODS:
            for B in ROWS:
                for seed in range(SEEDS):
                    value = loss(B) * (last if B == ROWS[-1] else 1.0) + rng.normal(0, noise)
                    row = {"contents": contents, "pair": pair, "method": method, "budget": B / 1000}
                    row |= {"rows": B, "seed": seed, "stop": "best", "verified": True, "loss": value}
                    rows.append(row)
    return pd.DataFrame(rows)


def verdicts(content: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """By the end of a claim's name, of one curve."""
    first = (content["contents"] == "clean") & (content["method"] == "oracle")
    write_result(folder, STUDY, content[first], CONFIG)
    found = {claim.id: entry(STUDY, claim.id, folder) for claim in STUDY.claims}
    return {name.removeprefix("sea-forecast-"): one["verdict"] for name, one in found.items()}


def test_a_forecast_that_is_right_is_told_from_one_that_is_not(tmp_path: Path) -> None:
    assert verdicts(table(), tmp_path) == {"near": "holds", "covered": "holds", "theory": "holds"}
    # A loss of half or twice the foretold one is outside of every interval.
    for last in (0.5, 2.0):
        wrong = verdicts(table(last=last), tmp_path)
        assert (wrong["near"], wrong["covered"]) == ("fails", "fails")
    power = verdicts(table(lambda B: 0.05 + B**-0.5), tmp_path)
    assert power == {"near": "holds", "covered": "holds", "theory": "fails"}
    noisy = verdicts(table(noise=0.02), tmp_path)
    assert noisy["near"] == "mixed"


def test_curves_that_do_not_fall_are_refused_and_named(tmp_path: Path) -> None:
    flat = table(lambda B: 0.3)
    assert set(verdicts(flat, tmp_path).values()) == {"not run"}
    half = pd.concat([table()[lambda t: t["contents"] == "clean"], flat[flat["contents"] == "mixed"]])
    note = entry(STUDY, "sea-forecast-near", write_result(tmp_path, STUDY, half, CONFIG))["note"]
    assert note.count("refused: mixed B, ") == 2
    assert "does not fall" in note
    assert draw_forecasts(half, CONFIG).axes


def test_a_curve_has_the_seeds_that_finished_it() -> None:
    content = table()
    content = content[~((content["seed"] == 1) & (content["rows"] == 32) & (content["method"] == "rds"))]
    shapes = {one.name: one.losses.shape for one in curves_of(content)}
    assert shapes["clean A, rds"] == (SEEDS - 1, len(ROWS))
    assert shapes["clean A, oracle"] == (SEEDS, len(ROWS))


def test_curves_share_fits_only_if_all_their_losses_are_alike() -> None:
    content = table()
    first, again = curves_of(content)[0], curves_of(content.copy())[0]
    assert again.trial is first.trial
    last = content.index[(content["rows"] == ROWS[-1]) & (content["seed"] == 1)]
    content.loc[last, "loss"] *= 1.5
    other = curves_of(content)[0]
    assert other.error("scarcity").value != first.error("scarcity").value
    # Of a process that judges many tables, only so many fits are kept.
    assert forecasting._fit.cache_info().maxsize == 64


def test_the_error_is_relative_and_its_spread_that_of_a_mean() -> None:
    curve = curves_of(table(last=1.25))[0]
    assert curve.rows == ROWS
    assert curve.error("scarcity").value == pytest.approx(1 / 1.25 - 1, abs=0.02)
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.3, 400)
    half = 1.96 * values.std() / 20
    assert spread_of(Estimate(0.0, -half, half), 400) == pytest.approx(0.3, rel=0.1)
    assert ends(Estimate(0.0, None, 1.0)) == (-np.inf, 1.0)


def test_presets_grow() -> None:
    smoke, quick, paper = (ForecastStudy.preset(name) for name in ("smoke", "quick", "paper"))
    assert smoke.seeds < quick.seeds < paper.seeds
    assert [round(budget * quick.pool_rows) for budget in quick.budgets] == [*ROWS]
    assert quick.budgets[-1] == pytest.approx(4 * quick.budgets[-2])
    assert len(paper.settings) == 4
    for one in quick.pilots:
        assert not {*one.pilot.seeds} & {*quick.numbers}


@pytest.mark.slow
def test_a_whole_study_runs_resumes_and_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = ForecastStudy.preset("smoke")
    found = run_twice(study, tmp_path, monkeypatch)
    assert {*found["figure"]} == {"sea_forecast"}
    assert {*found["method"]} == {*study.methods}
    assert (found["rows"] == (found["budget"] * study.pool_rows).round()).all()
    assert len(curves_of(found)) == 6
    assert draw_forecasts(found, study).axes
