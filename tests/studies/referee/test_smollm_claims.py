"""Verdicts on the sea of SmolLM2, from tables that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.studies.ledger import judge_all
from datadose.studies.referee.smollm_arms import Arm, gains, stopped
from datadose.studies.referee.smollm_experiment import CANDIDATE, SmolStudy
from datadose.studies.referee.smollm_study import STUDY
from helpers.studies import write_result

CONFIG = SmolStudy.preset("quick")
LIMIT = CONFIG.pilot.detectable(CONFIG.seeds)


def made_up(gained: dict[str, float], noise: float = 1e-3) -> pd.DataFrame:
    """A table in which an arm's log loss at its best look lies its gain below that of an ungifted one.

    Seeds share an offset, validation is lowest at the first look, and the last look is worse by a half.
    """
    draw = np.random.default_rng(0)
    offsets = draw.normal(0, 0.3, CONFIG.seeds)
    results: list[Any] = [
        [{"method": "untouched", "verified": True, "step": 0, "validation": 9.0, "loss": 9.0, "earlier": 1.0}]
    ]
    for arm in CONFIG.arms():
        name = arm.method if arm.verified else f"{arm.method} unverified"
        loss = float(np.exp(offsets[arm.seed] - gained.get(name, 0.0) + noise * draw.normal()))
        rest = {"seed": arm.seed, "earlier": loss, "rows": 2, "share_target": 0.5, "share_faulty": 0.1}
        run = {"method": arm.method, "verified": arm.verified, **rest}
        results.append([{**run, "step": 5 * k, "validation": k, "loss": loss * (1 + k) / 2} for k in (1, 2)])
    return CONFIG.table(results)


def verdicts(table: pd.DataFrame, folder: Path) -> dict[str, str]:
    entries = judge_all([STUDY], write_result(folder, STUDY, table, CONFIG))
    return {entry["id"].removeprefix("sea-smollm-"): entry["verdict"] for entry in entries}


def test_gains_are_paired_by_seed_and_taken_at_the_stop() -> None:
    table = made_up({"rds": 0.2})
    assert stopped(table, Arm("rds"))["step"].tolist() == [5] * CONFIG.seeds
    assert stopped(table, Arm("rds", best=False))["step"].tolist() == [10] * CONFIG.seeds
    assert gains(table, Arm("rds"), Arm("random")) == pytest.approx(0.2, abs=0.01)
    table.loc[table["method"] == "untouched", "validation"] = 0.5
    assert (stopped(table, Arm("rds"))["method"] == "untouched").all()
    assert gains(table, Arm("rds"), Arm("random")) == pytest.approx(0.0)


def test_verdicts_follow_the_gains(tmp_path: Path) -> None:
    much, little = 2 * LIMIT, LIMIT / 10
    wins = dict.fromkeys(("bm25", "rds", "sketch", "sketch-mean", "filters"), much)
    found = verdicts(made_up(wins | {"oracle": much + little}), tmp_path)
    assert found == {
        "random": "holds",
        "methods": "holds",
        "rivals": "holds",
        "unverified": "holds",
        "turns": "no difference",
        "oracle": "no difference",
        "forgetting": "holds",
    }
    found = verdicts(
        made_up({CANDIDATE: -much, "sketch-mean": much, f"{CANDIDATE} unverified": much}), tmp_path
    )
    assert found["random"] == found["rivals"] == found["turns"] == found["forgetting"] == "fails"
    assert found["unverified"] == "fails"
    assert verdicts(made_up({}, noise=3 * LIMIT), tmp_path)["oracle"] == "mixed"


def test_without_finished_seeds_nothing_is_judged(tmp_path: Path) -> None:
    table = made_up({})
    first = table[table["seed"].isna() | (table["seed"] == 0)]
    assert set(verdicts(first, tmp_path).values()) == {"not run"}
