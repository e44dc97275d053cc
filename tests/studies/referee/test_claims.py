"""The judges of the sea on hand-made tables: each claim can hold, fail and find no difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.studies.referee.arms import Arm, gains
from datadose.studies.referee.default import chosen_default
from datadose.studies.referee.experiment import METHODS, SeaStudy
from datadose.studies.referee.figure import draw_sea
from datadose.studies.referee.grid import PoolPilot
from datadose.studies.referee.judging import Pilot, beaten_by, compare_all
from datadose.studies.referee.study import STUDY
from helpers.studies import entry, write_result

SEEDS = 5
PILOT = Pilot(0.05, (100, 101, 102), "a test")
PILOTS = tuple(PoolPilot("clean", stop, PILOT) for stop in ("best", "end"))
CONFIG = replace(SeaStudy.preset("smoke"), seeds=SEEDS, pilots=PILOTS)
BUDGETS = (0.05, 0.25)
GOOD = {
    "random": 0.0, "bm25": 0.4, "sketch-mean": 0.3, "sketch": 0.5, "filters": 0.2, "rds": 0.7,
    "oracle": 0.9, "full": 0.1, "weighted": 0.8, "untouched": -0.5,
}  # fmt: skip
"""Lift in log loss of each arm if every claim holds."""
EVERY = [claim.id for claim in STUDY.claims]


def table(lifts: dict[str, float] | None = None, *, unverified: float = -0.6) -> pd.DataFrame:
    """Five seeds in both settings; arms of a setting move together by seed."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for contents, pair in (("clean", "A"), ("mixed", "B")):
        for name, lift in (lifts or GOOD).items():
            budgets = {"full": (1.0,), "untouched": (0.0,), "weighted": (0.05,), "oracle": (0.05,)}
            arms = [(budget, True) for budget in budgets.get(name, BUDGETS)]
            arms += [(0.05, False)] * (contents == "mixed" and name in METHODS)
            for budget, verified in arms:
                for seed in range(SEEDS):
                    for stop in ("end", "best"):
                        level = lift + (0 if verified else unverified) + 0.3 * seed + rng.normal(0, 0.005)
                        row = {"contents": contents, "pair": pair, "method": name, "budget": budget}
                        row |= {"verified": verified, "seed": seed, "stop": stop}
                        loss = float(np.exp(-level))
                        rows.append({**row, "loss": loss, "known": 0.1 * loss})
    return pd.DataFrame(rows)


def judged(claim_id: str, content: pd.DataFrame, folder: Path) -> dict[str, Any]:
    return entry(STUDY, claim_id, write_result(folder, STUDY, content, CONFIG))


@pytest.mark.parametrize("claim_id", EVERY)
def test_a_claim_holds_fails_or_finds_no_difference(claim_id: str, tmp_path: Path) -> None:
    good = judged(claim_id, table(), tmp_path)
    assert (good["verdict"], good["seeds"]) == ("holds", SEEDS), good["note"]
    reverse = table({name: -lift for name, lift in GOOD.items()}, unverified=1.5)
    bad = judged(claim_id, reverse, tmp_path)["verdict"]
    # The default that such a table chooses is random rows, which have no gain over themselves.
    expected = {"sea-default-random": "no difference", "sea-default-rivals": "holds"}
    assert bad == expected.get(claim_id, "fails")
    same = judged(claim_id, table(dict.fromkeys(GOOD, 0.0), unverified=0.0), tmp_path)
    if claim_id == "sea-keeps":
        assert same["verdict"] == "mixed"
    elif claim_id not in ("sea-default-choice", "sea-default-rivals"):
        assert same["verdict"] == "no difference"
        assert "detect" in same["note"] or "above" in same["note"]


def test_the_default_is_chosen_on_the_development_setting_alone(tmp_path: Path) -> None:
    content = table()
    held_out = content["contents"] == "mixed"
    spoiled = held_out & (content["method"] == "rds")
    content.loc[spoiled, "loss"] *= np.exp(1.0)
    assert chosen_default(content)[0] == "rds"
    assert judged("sea-default-choice", content, tmp_path)["verdict"] == "holds"
    assert judged("sea-default-random", content, tmp_path)["verdict"] == "fails"
    assert judged("sea-default-rivals", content, tmp_path)["verdict"] == "fails"


def test_gains_are_paired_by_seed() -> None:
    content = table()
    first, second = Arm("clean", "A", "rds", 0.05), Arm("clean", "A", "random", 0.05)
    assert gains(content, first, second) == pytest.approx(np.full(SEEDS, 0.7), abs=0.03)
    lacking = content[~((content["method"] == "rds") & (content["seed"] == 2))]
    assert len(gains(lacking, first, second)) == SEEDS - 1


def test_a_rival_within_the_detectable_difference_does_not_beat() -> None:
    pilot = Pilot(0.1, (100,), "a test")
    limit = pilot.detectable(8)
    noise = np.linspace(-0.01, 0.01, 8)
    assert beaten_by({"near": 0.5 * limit + noise}, pilot).verdict == "holds"
    assert beaten_by({"near": 0.5 * limit + noise, "far": 2 * limit + noise}, pilot).verdict == "fails"
    assert beaten_by({"at": limit + noise}, pilot).verdict == "mixed"
    assert beaten_by({}, pilot).verdict == "not run"
    assert compare_all({"one": 0.5 * limit + noise}, pilot, 1.0).verdict == "no difference"
    # A comparison with a pilot of its own is judged by that.
    two = {"one": 0.5 * limit + noise, "two": 0.5 * limit + noise}
    sharp = {"one": pilot, "two": Pilot(0.01, (100,), "a test")}
    assert "not in: one no difference" in compare_all(two, sharp, 1.0).note
    assert beaten_by(two, sharp).verdict == "fails"


def test_the_picture_has_four_panels() -> None:
    figure = draw_sea(table(), CONFIG)
    assert len(figure.axes) == 4
    assert "Gain" in str(figure.get_supxlabel())


def test_presets_grow() -> None:
    smoke, quick, paper = (SeaStudy.preset(name) for name in ("smoke", "quick", "paper"))  # type: ignore[arg-type]
    assert smoke.seeds < quick.seeds < paper.seeds
    assert {*quick.settings} < {*paper.settings}
    for one in quick.pilots:
        assert not {*one.pilot.seeds} & {*quick.numbers}
        assert quick.pilot(one.contents, one.stop) == one.pilot
    assert quick.pilot("wrong", "end").spread == max(one.pilot.spread for one in quick.pilots)
    runs = list(quick.runs())
    assert len(runs) == len(set(runs)) == 10 * (23 + 29)
