"""Where SFT is overtaken, and the best split: every judge says *holds* and *fails*; curves made by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datadose.studies.tables import THEORY, as_table
from datadose.studies.training_time.crossings import (
    CEILING,
    PAPER,
    PENALTY,
    PRICE,
    RANDOM,
    RULES,
    SPLIT,
    STUDY,
    Crossings,
    compare,
    crossing,
    one_after_the_other,
    scarcity,
)
from datadose.studies.training_time.outcome_cells import OUTCOME, SFT
from datadose.studies.training_time.settings import Column, paper_setting, random_setting
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.weighted_test import WeightedTest
from helpers.studies import entry, write_result

SEEDS = 30
CONFIG = replace(Crossings.preset("smoke"), seeds=SEEDS)


def verdict(claim: str, folder: Path, *, crossed: float = 1.0, price: float = 0.5, split: float = 0.5) -> str:
    """SFT's error is B / ``crossed`` times that of outcome supervision; ``split`` is the error half-way."""
    rows: list[dict[str, object]] = []

    def add(panel: str, stage: str, rule: object, budget: float | None, error: float, **more: object) -> None:
        shared = {Column.PANEL: panel, Column.MODEL: THEORY, Column.STAGE: stage, Column.RULE: rule}
        rows.append({**shared, Column.BUDGET: budget, Column.PREDICTED: error, **more})

    for seed, stage in product(range(SEEDS), (SFT, OUTCOME)):
        add(RANDOM, stage, PRICE, None, price if stage == SFT else 1.0, seed=seed)
        add(RANDOM, stage, CEILING, None, 1.5 if stage == SFT else 1.0, seed=seed)
    for i, stage, rule, B in product(range(SEEDS), (SFT, OUTCOME), RULES, (0.1, 1.0, 10.0)):
        known = {Column.BALANCE: 0.1, Column.INTERFERENCE: (i + 1) / SEEDS, Column.LENGTH: 3}
        add(PAPER, stage, rule, B, B / crossed if stage == SFT else 1.0, **known)
    for i, (share, error) in product(range(SEEDS), ((0.0, 1.0), (0.5, split), (1.0, 1.0))):
        add(SPLIT, "both", share, 1.0, error, **{Column.BALANCE: (i + 1) / SEEDS, Column.COST: 1.0})
    write_result(folder, STUDY, as_table(rows, Column), CONFIG)
    return str(entry(STUDY, claim, folder)["verdict"])


def test_a_crossing_has_to_be_near_the_rank(tmp_path: Path) -> None:
    assert verdict("crossings-near-rank", tmp_path) == "holds"
    assert verdict("crossings-near-rank", tmp_path, crossed=5.0) == "fails"
    assert verdict("crossings-near-rank", tmp_path, crossed=0.2) == "fails"
    assert verdict("crossings-near-rank", tmp_path, crossed=0.01) == "mixed"


def test_prices_are_compared_per_setting(tmp_path: Path) -> None:
    assert verdict("crossings-scarcity", tmp_path) == "holds"
    assert verdict("crossings-scarcity", tmp_path, price=1.1) == "fails"


def test_the_order_has_to_gain(tmp_path: Path) -> None:
    assert verdict("stages-best-split", tmp_path) == "holds"
    assert verdict("stages-best-split", tmp_path, split=0.97) == "fails"


def test_a_crossing_is_where_sft_first_loses() -> None:
    places = [0.1, 1.0, 10.0]
    assert crossing(pd.Series([-1.0, -1.0, 1.0], places)) == pytest.approx(10**0.5)
    assert np.isnan(crossing(pd.Series([1.0, -1.0, 1.0], places)))
    assert np.isinf(crossing(pd.Series([-1.0, -1.0, -0.1], places)))


def test_ceiling_and_price_are_those_of_the_closed_form() -> None:
    setting = random_setting(0, 40)
    found = {str(row[1]): float(str(row[3])) for row in scarcity(0, 40) if row[0] == SFT}
    start = pretrained_operator(setting.sigma0, setting.length)
    source = Source(setting.data, setting.length, 1)
    curve = EffectivePenalty.of(start, setting.eta, source, WeightedTest.of(setting.target, setting.length))
    assert found[CEILING] == pytest.approx(curve.ceiling.error, rel=1e-5)
    G = float(curve.limit_and_scatter([curve.ceiling.penalty])[1][0])
    assert found[PRICE] == pytest.approx(G / setting.dimension, rel=0.02)


def test_rules_are_in_their_order_and_lengths_matter() -> None:
    """The best penalty and the best time are no worse than convergence; longer prompts are not the same."""
    short, long = (
        {(row[0], row[1], row[2]): float(str(row[3])) for row in compare(24, 0.1, 0.01, n, (0.5, 3.0))}
        for n in (24, 240)
    )
    for stage, B in product((SFT, OUTCOME), (0.5, 3.0)):
        tuned, timed, last = (short[stage, rule, B] for rule in RULES)
        assert tuned <= last * (1 + 1e-9)
        assert timed <= last * 1.01
        assert short[stage, PENALTY, B] != pytest.approx(long[stage, PENALTY, B], rel=0.01)


def test_few_prompts_of_pretraining_leave_more_to_gain() -> None:
    few, many = (one_after_the_other(24, 0.1, B0, 1.0, (1.0,)) for B0 in (2.0, None))
    assert len(few) == len(many)
    untouched = paper_setting(24)
    assert min(float(str(row[3])) for row in few) < float(untouched.test.error(untouched.start))
    assert [row[3] for row in few] != [row[3] for row in many]
