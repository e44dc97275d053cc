"""Verdicts on the real model's study, from tables that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.studies.ledger import judge_all
from datadose.studies.llm_study.experiment import LlmStudy
from datadose.studies.llm_study.study import STUDY, Side, paired
from helpers.studies import write_result

CONFIG = LlmStudy.preset("quick")


def made_up(gains: dict[str, float], noise: float = 0.0) -> pd.DataFrame:
    """A table in which every arm or band ends at 0.1 plus its gain, seeds differing by a common offset."""
    draw = np.random.default_rng(0)
    shifts = draw.normal(0, 0.05, CONFIG.seeds)
    results: list[Any] = []
    for run in CONFIG.runs():
        name = f"{run.question}/{run.arm}"
        value = 0.1 + gains.get(name, gains.get(run.arm, 0.0)) + shifts[run.seed] + noise * draw.normal()
        numbers = dict.fromkeys(("target_probability", "earlier_greedy", "earlier_probability"), value)
        results.append({**numbers, "target_greedy": value, "rows": run.size, "text_nll": 3.0})
    base = dict.fromkeys(("target_probability", "earlier_greedy", "earlier_probability"), 0.1)
    profile = [{"level": "sum 2x1", "probability": 0.4, "greedy": 0.6}]
    return CONFIG.table([profile, base, *results])


def verdicts(table: pd.DataFrame, folder: Path) -> dict[str, str]:
    entries = judge_all([STUDY], write_result(folder, STUDY, table, CONFIG))
    return {entry["id"]: entry["verdict"] for entry in entries}


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    # The seeds differ far more than the arms: only pairing sees the gain.
    table = made_up({"ours": 0.03}, noise=1e-3)
    differences = paired(table, Side("ours"), Side("random"), "target_probability")
    assert len(differences) == CONFIG.seeds
    assert differences == pytest.approx(0.03, abs=0.01)
    assert table["target_probability"].std() > 0.015
    found = verdicts(table, tmp_path)
    assert found["llm-select-clean"] == "holds"
    assert found["llm-select-contaminated"] == "holds"


def test_a_loss_fails_and_no_difference_decides_nothing(tmp_path: Path) -> None:
    found = verdicts(made_up({"ours": -0.05, "medium": -0.05, "nll_top": 0.05}, noise=1e-3), tmp_path)
    assert found["llm-select-clean"] == "fails"
    assert found["llm-rl-medium"] == "fails"
    assert found["llm-raw-nll"] == "fails"
    found = verdicts(made_up({}, noise=0.05), tmp_path)
    assert found["llm-hard"] == "mixed"


def test_a_small_loss_counts_as_none_where_the_claim_says_so(tmp_path: Path) -> None:
    found = verdicts(made_up({"ours": -0.01, "sizes/random": 0.01}, noise=1e-4), tmp_path)
    assert found["llm-forgetting"] == "holds"
    assert found["llm-small-sft"] == "holds"
    assert found["llm-rl-extremes"] == "holds"
    assert found["llm-hard"] == "fails"


def test_unfinished_seeds_are_left_out(tmp_path: Path) -> None:
    table = made_up({"ours": 0.03}, noise=1e-3)
    bands = table["question"] == "bands"
    found = verdicts(table[~bands], tmp_path)
    assert found["llm-rl-medium"] == "not run"
    missing = (table["arm"] == "ours") & (table["contents"] == "clean") & (table["seed"] == 2)
    rest = paired(table[~missing], Side("ours"), Side("random"), "target_probability")
    assert len(rest) == CONFIG.seeds - 1
