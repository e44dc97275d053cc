"""The study of pretraining shares: judges on made tables, and cells that are what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.studies.planner.pretraining_cells import (
    CHOICE,
    FINITE,
    KINDS,
    LENGTHS,
    MEASURED,
    OUTCOME,
    PRETRAINED,
    RIVAL,
    ROWS,
    SFT,
    SIMULATED,
    STARVED,
    UNLIMITED,
    Column,
    choose_shares,
    random_setting,
    simulate_gain,
    starve,
)
from datadose.studies.planner.pretraining_study import EVEN, NAME, SCARCE, STUDY, PretrainingShares
from datadose.studies.tables import LSA, THEORY, as_table
from helpers.studies import entry, write_result

SEEDS = 40
Row = dict[str, Any]


def verdict(claim: str, rows: Iterable[Row], folder: Path) -> str:
    config = replace(PretrainingShares.preset("smoke"), seeds=SEEDS)
    folder.mkdir(exist_ok=True)
    table = as_table([{Column.FIGURE: NAME, **row} for row in rows], Column)
    return str(entry(STUDY, claim, write_result(folder, STUDY, table, config))["verdict"])


def choices(gain: Callable[[str, int, int | None], float]) -> list[Row]:
    """A row a choice, with ``gain`` (kind, seed, pretrained) over the rival's error of 2."""
    return [
        {
            Column.PART: CHOICE,
            Column.MODEL: THEORY,
            Column.KIND: kind,
            Column.SEED: seed,
            Column.OBJECTIVE: objective,
            Column.PRETRAINED: pretrained,
            Column.PREDICTED: 2 * (1 - gain(kind, seed, pretrained)),
            Column.RIVAL: 2.0,
        }
        for kind, seed, pretrained, objective in product(
            KINDS, range(SEEDS), (None, PRETRAINED), ("worst", "mean")
        )
    ]


@pytest.mark.parametrize("claim", ["shares-minimax", "shares-mean"])
def test_one_gain_where_all_is_alike_counts(claim: str, tmp_path: Path) -> None:
    assert verdict(claim, choices(lambda *_: 0.0), tmp_path / "none") == "holds"
    one = choices(lambda kind, seed, P: 0.02 if (kind, seed, P) == ("alike", 3, None) else 0.0)
    assert verdict(claim, one, tmp_path / "one") == "mixed"
    assert verdict(claim, choices(lambda *_: 0.02), tmp_path / "all") == "fails"


def _gain_of(kind: str, always: bool, other: str, seed: int, pretrained: int | None) -> float:
    """A fifth in settings of ``kind``, with a number of prompts or ``always``."""
    return 0.2 if other == kind and (always or pretrained is not None) else 0.0


def test_near_is_judged_for_either_pretraining(tmp_path: Path) -> None:
    for kind in KINDS[1:]:
        own = choices(partial(_gain_of, kind, False))
        assert verdict(f"shares-{kind}", own, tmp_path / "one") == "mixed"
        both = choices(partial(_gain_of, kind, True))
        assert verdict(f"shares-{kind}", both, tmp_path / "both") == "fails"
        assert verdict(f"shares-{kind}", choices(lambda *_: 0.04), tmp_path / "near") == "holds"


def scarcity(price: Callable[[str, float, float], float]) -> list[Row]:
    """``price`` (stage, n / d, B / d) of a scarce category, a little different from seed to seed."""
    return [
        {
            Column.PART: STARVED,
            Column.MODEL: THEORY,
            Column.SEED: seed,
            Column.STAGE: stage,
            Column.LONG: n,
            Column.SIZE: B,
            Column.SHARE: share,
            Column.PREDICTED: (1 + 0.01 * seed) * (price(stage, n, B) if share == SCARCE else 1.0),
        }
        for seed, stage, n, B, share in product(range(SEEDS), (SFT, OUTCOME), LENGTHS, ROWS, (SCARCE, EVEN))
    ]


@pytest.mark.parametrize(
    ("claim", "held", "other"),
    [
        ("shares-more-rows", lambda stage, n, B: 9 / B, lambda stage, n, B: 1 + B),
        (
            "shares-outcome",
            lambda stage, n, B: 3.0 if stage == OUTCOME else 2.0,
            lambda stage, n, B: 3.0 if stage == SFT else 2.0,
        ),
        ("shares-short-prompts", lambda stage, n, B: 1 + n, lambda stage, n, B: 9 / n),
    ],
)
def test_prices_of_scarcity_are_compared(
    claim: str,
    held: Callable[[str, float, float], float],
    other: Callable[[str, float, float], float],
    tmp_path: Path,
) -> None:
    assert verdict(claim, scarcity(held), tmp_path / "holds") == "holds"
    assert verdict(claim, scarcity(other), tmp_path / "fails") == "fails"


def simulations(error: Callable[[str, int | None, int], float]) -> list[Row]:
    """Errors of the plans with a predicted gain of 10 percent, 20 settings, 4 draws and two shifts each."""
    rng, rows = np.random.default_rng(0), []
    plans = {RIVAL: 2.0, UNLIMITED: 1.8, FINITE: 1.8}
    for seed, P, draw, plan, shift in product(range(20), (None, PRETRAINED), range(4), plans, (0, 1)):
        found = error(plan, P, seed) * (1 - 0.3 * shift) * (1 + 0.01 * rng.standard_normal())
        rows.append(
            {
                Column.PART: SIMULATED,
                Column.MODEL: LSA,
                Column.KIND: "scales",
                Column.SEED: seed,
                Column.PLAN: plan,
                Column.PRETRAINED: P,
                Column.DRAW: draw,
                Column.SHIFT: shift,
                Column.ERROR: found,
                Column.PREDICTED: plans[plan] * (1 - 0.3 * shift),
            }
        )
    return rows


def test_gains_are_measured_draw_by_draw(tmp_path: Path) -> None:
    good = simulations(lambda plan, P, seed: 2.0 if plan == RIVAL else 1.8)
    assert verdict("shares-gain", good, tmp_path / "good") == "holds"
    assert verdict("shares-unlimited", good, tmp_path / "good") == "holds"
    bad = simulations(lambda plan, P, seed: 4.0 if plan == UNLIMITED and P else 2.0)
    assert verdict("shares-gain", bad, tmp_path / "bad") == "fails"
    assert verdict("shares-unlimited", bad, tmp_path / "bad") == "fails"
    half = simulations(lambda plan, P, seed: 1.8 if plan == FINITE and seed % 4 else 2.0)
    assert verdict("shares-gain", half, tmp_path / "half") == "mixed"


# --- cells ----------------------------------------------------------------------------------------------


def cells(rows: list[list[Any]]) -> list[Row]:
    return [dict(zip(MEASURED, row, strict=True)) for row in rows]


def test_kinds_of_one_seed_differ_in_one_thing() -> None:
    like, sizes, scales, shifts, costs = (random_setting(kind, 30, 1) for kind in KINDS)
    assert len(like.covariances) == len(like.deltas) == 3
    assert {np.count_nonzero(delta) for delta in like.deltas} == {10}
    assert len({np.count_nonzero(delta) for delta in sizes.deltas}) > 1
    np.testing.assert_allclose(
        [C.max() / C.min() for C in scales.covariances], like.covariances[0].max() / like.covariances[0].min()
    )
    assert len({C.max() for C in scales.covariances}) == len({D.max() for D in shifts.deltas}) == 3
    for one in (sizes, scales, shifts, costs):
        assert (one.length, one.prompts, one.eta) == (like.length, like.prompts, like.eta)
    assert costs.rival @ costs.costs == pytest.approx(costs.budget)
    np.testing.assert_allclose(costs.rival * costs.costs, costs.rival[0] * costs.costs[0])


def test_a_choice_is_no_worse_than_its_rival_and_scarcity_costs() -> None:
    [row] = cells(choose_shares("scales", 14, 0, "worst", PRETRAINED))
    assert row[Column.PREDICTED] <= row[Column.RIVAL] * (1 + 1e-9)
    assert 0 <= row[Column.SHARE] <= 1 / 2
    table = cells(starve(12, 0))
    few = [r for r in table if (r[Column.STAGE], r[Column.LONG], r[Column.SIZE]) == (SFT, 4.0, 0.5)]
    assert few[0][Column.PREDICTED] > few[-1][Column.PREDICTED]


def test_a_draw_is_its_own_whatever_else_is_drawn() -> None:
    both, one = (cells(simulate_gain("scales", 14, 0, draws)) for draws in ([0, 1], [1]))
    assert {(row[Column.PLAN], row[Column.PRETRAINED]) for row in one} == {
        (plan, P) for plan in (UNLIMITED, FINITE, RIVAL) for P in (None, PRETRAINED)
    }
    assert [row for row in both if row[Column.DRAW] == 1] == one
