"""Every method in every pool: judges on hand-made tables, the picture, and a whole small run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.errors import InputError
from datadose.studies.referee.experiment import Setting
from datadose.studies.referee.grid import PoolPilot
from datadose.studies.referee.judging import Pilot
from datadose.studies.referee.language import Pair
from datadose.studies.referee.methods_experiment import BLIND, METHODS, MethodsStudy
from datadose.studies.referee.methods_figure import draw_methods
from datadose.studies.referee.methods_study import STUDY
from datadose.studies.referee.pools import Contents
from helpers.sea_runs import check_runs
from helpers.studies import entry, run_twice, write_result

SEEDS = 5
PILOTS = (PoolPilot("clean", "best", Pilot(0.05, (100,), "a test")),)
POOLS: tuple[tuple[Contents, Pair], ...] = (("clean", "A"), ("clean", "B"), ("wrong", "B"), ("mixed", "B"))
CONFIG = replace(
    MethodsStudy.preset("smoke"), seeds=SEEDS, pilots=PILOTS, settings=tuple(Setting(*pool) for pool in POOLS)
)
GOOD = {
    **dict.fromkeys(BLIND, -0.2), "random": 0.0, "filters": 0.1, "sketch-mean": 0.1, "sketch": 0.2,
    "gradient": 0.4, "rds": 0.6, "transport": 0.8, "bm25": 0.9, "oracle": 1.0, "full": 0.1, "untouched": -0.5,
}  # fmt: skip
"""Lift in log loss of each arm if every claim holds."""


def table(lifts: dict[str, float] | None = None, *, fault: float = 0.0) -> pd.DataFrame:
    """Five seeds in each pool; faults raise the log loss of all arms by ``fault``."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for contents, pair in POOLS:
        for name, lift in (lifts or GOOD).items():
            for seed in range(SEEDS):
                level = lift + 0.3 * seed + rng.normal(0, 0.005) - (fault if contents != "clean" else 0)
                row = {"contents": contents, "pair": pair, "method": name, "verified": True, "seed": seed}
                row |= {"budget": {"full": 1.0, "untouched": 0.0}.get(name, 0.05), "stop": "best"}
                rows.append({**row, "loss": float(np.exp(-level))})
    return pd.DataFrame(rows)


def judged(
    claim_id: str, content: pd.DataFrame, folder: Path, config: MethodsStudy = CONFIG
) -> dict[str, Any]:
    return entry(STUDY, claim_id, write_result(folder, STUDY, content, config))


def at(content: pd.DataFrame, contents: str, method: str, pair: str = "B") -> pd.Series:
    """Which rows are those of an arm."""
    found = (content["contents"] == contents) & (content["pair"] == pair) & (content["method"] == method)
    assert found.any()
    return found


@pytest.mark.parametrize("claim_id", [claim.id for claim in STUDY.claims])
def test_a_claim_holds_fails_or_finds_no_difference(claim_id: str, tmp_path: Path) -> None:
    good = judged(claim_id, table(), tmp_path)
    assert (good["verdict"], good["seeds"]) == ("holds", SEEDS), good["note"]
    bad = judged(claim_id, table({name: -lift for name, lift in GOOD.items()}, fault=0.3), tmp_path)
    assert bad["verdict"] == "fails", bad["note"]
    same = judged(claim_id, table(dict.fromkeys(GOOD, 0.0)), tmp_path)["verdict"]
    unbeaten = ("sea-methods-blind", "sea-methods-rivals", "sea-methods-faults")
    assert same == ("holds" if claim_id in unbeaten else "no difference")


def test_a_fault_is_held_against_the_clean_pool_of_its_own_targets(tmp_path: Path) -> None:
    content = table()
    other = (content["contents"] == "clean") & (content["pair"] == "A")
    content.loc[other, "loss"] *= np.exp(-1.0)
    found = judged("sea-methods-faults", content, tmp_path)
    assert found["verdict"] == "holds"
    assert "clean" not in found["note"]


@pytest.mark.parametrize(
    ("claim_id", "contents", "method", "named"),
    [
        ("blind", "wrong", "ifd", "wrong B, ifd, 5%"),
        ("turns-random", "mixed", "gradient", "mixed B, gradient, 5%"),
        ("rivals", "mixed", "transport", "mixed B, transport, 5%"),
        ("gradient-sketch", "clean", "sketch", "clean B, gradient, 5%"),
        ("states-gradient", "clean", "rds", "clean B, rds, 5%"),
        ("transport", "wrong", "rds", "wrong B, transport, 5%"),
        ("faults", "mixed", "bm25", "mixed B, 5%"),
    ],
)
@pytest.mark.parametrize("seeds", [0, 1])
def test_a_claim_does_not_hold_by_what_is_not_finished(
    claim_id: str, contents: str, method: str, named: str, seeds: int, tmp_path: Path
) -> None:
    content = table()
    lost = at(content, contents, method) & (content["seed"] >= seeds)
    found = judged(f"sea-methods-{claim_id}", content[~lost], tmp_path)
    assert found["verdict"] == "mixed"
    assert found["note"].startswith(f"not finished: {named}; ")


def test_a_method_that_never_ran_and_no_table_at_all_are_told(tmp_path: Path) -> None:
    content = table()
    found = judged("sea-methods-turns-random", content[content["method"] != "gradient"], tmp_path)
    assert found["verdict"] == "mixed"
    assert {judged(claim.id, content[:0], tmp_path)["verdict"] for claim in STUDY.claims} == {"not run"}


def test_the_largest_gain_may_be_none_at_all(tmp_path: Path) -> None:
    """Two methods that never get below the untouched model have the same loss."""
    content = table()
    content.loc[at(content, "wrong", "longest"), "loss"] = content.loc[
        at(content, "wrong", "random"), "loss"
    ].to_numpy()
    found = judged("sea-methods-blind", content, tmp_path)
    assert (found["verdict"], found["value"], found["interval"]) == ("holds", 0.0, [0.0, 0.0])


@pytest.mark.parametrize(("spread", "verdict"), [(0.3, "holds"), (0.05, "fails")])
def test_each_pool_has_the_power_of_its_own_pilot(spread: float, verdict: str, tmp_path: Path) -> None:
    content = table()
    content.loc[at(content, "mixed", "rds"), "loss"] *= np.exp(-0.5)
    pilots = (*PILOTS, PoolPilot("mixed", "best", Pilot(spread, (100,), "a test")))
    found = judged("sea-methods-rivals", content, tmp_path, replace(CONFIG, pilots=pilots))
    assert (found["verdict"], found["value"]) == (verdict, pytest.approx(0.2, abs=0.02))


@pytest.mark.parametrize("loss", [np.nan, 0.0, np.inf, -1.0])
def test_a_loss_without_a_logarithm_is_refused(loss: float, tmp_path: Path) -> None:
    content = table()
    content.loc[at(content, "mixed", "rds") & (content["seed"] == 3), "loss"] = loss
    complaint = rf"loss: got {loss} \(mixed, B, rds, seed 3\)"
    with pytest.raises(InputError, match=complaint):
        judged("sea-methods-rivals", content, tmp_path)
    with pytest.raises(InputError, match=complaint):
        draw_methods(content, CONFIG)


def test_all_pairs_and_budgets_are_compared(tmp_path: Path) -> None:
    """As in the preset paper."""
    second = table()
    second["budget"] = second["budget"].replace(0.05, 0.25)
    content = pd.concat([table(), second]).drop_duplicates(["contents", "pair", "method", "budget", "seed"])
    content.loc[at(content, "wrong", "rds") & (content["budget"] == 0.25), "loss"] *= np.exp(-1.0)
    config = replace(CONFIG, budgets=(0.05, 0.25))
    found = judged("sea-methods-rivals", content, tmp_path, config)
    assert (found["verdict"], found["value"]) == ("fails", pytest.approx(0.7, abs=0.02))
    assert judged("sea-methods-turns-random", content, tmp_path, config)["verdict"] == "holds"


def test_the_picture_of_a_table_that_lacks_arms() -> None:
    content = table()
    some = content[~(at(content, "mixed", "bm25") | at(content, "clean", "transport", "A"))]
    some = some[(some["contents"] != "wrong") | (some["seed"] == 0)]
    shown = [axis for axis in draw_methods(some, CONFIG).axes if axis.get_visible()]
    names = [text.get_text() for text in shown[0].get_yticklabels()]
    assert names[:3] == ["bm25", "transport", "rds"]
    titles = {axis.get_title(loc="left")[4:] for axis in shown}
    assert {"wrong pool, targets B", "mixed pool, targets B; detects 8%"} <= titles


@pytest.mark.parametrize("content", [table()[:0], table().query("method != 'random'")])
def test_no_picture_without_random_rows(content: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no run on random rows"):
        draw_methods(content, CONFIG)


def test_the_picture_has_a_panel_a_pool_and_the_best_method_on_top() -> None:
    figure = draw_methods(table(), CONFIG)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == len(POOLS)
    # Three panels a row: the last of each column says what the axis is.
    assert [bool(axis.get_xlabel()) for axis in shown] == [False, True, True, True]
    names = [text.get_text() for text in shown[0].get_yticklabels()]
    assert names[:3] == ["bm25", "transport", "rds"]
    assert {*names[-len(BLIND) :]} == {*BLIND}
    assert {*names} == {*METHODS} - {"random"}


def test_presets_grow() -> None:
    smoke, quick, paper = (MethodsStudy.preset(name) for name in ("smoke", "quick", "paper"))
    assert smoke.seeds < quick.seeds < paper.seeds
    assert {*quick.settings} < {*paper.settings}
    assert smoke.methods == quick.methods == paper.methods == METHODS
    for one in quick.pilots:
        assert not {*one.pilot.seeds} & {*quick.numbers}


@pytest.mark.slow
def test_a_whole_study_runs_resumes_and_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = MethodsStudy.preset("smoke")
    found = run_twice(study, tmp_path, monkeypatch)
    assert {*found["figure"]} == {"sea_methods"}
    assert {*found["method"]} == {*METHODS, "oracle", "full", "untouched"}
    check_runs(found, study)
    assert len(draw_methods(found, study).axes) == len(study.settings)
