"""SFT sets of methods that order rows: sizes, tokens, weights and several targets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.llm.mixing import draw_places, read_sources
from datadose.llm.scores import Scores, join_scores
from datadose.llm.selection import (
    SelectionConfig,
    describe,
    select,
    training_commands,
    write_selection,
)
from datadose.llm.selection.arrays import Usable
from datadose.llm.selection.config import FILTERS
from datadose.llm.selection.methods import choose_rows
from datadose.llm.selection.ordered import place_weights
from helpers.synthetic import make

SHARES = (0.2, 0.6, 0.2, 0.0)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scores, Scores]:
    folder: Path = tmp_path_factory.mktemp("ordered")
    pool = make(200, 1, SHARES, name="pool").saved(folder / "pool")
    return pool, make(40, 2, name="target").saved(folder / "target")


def test_the_set_is_the_first_of_the_order_among_rows_that_are_not_wrong(
    scored: tuple[Scores, Scores],
) -> None:
    pool, target = scored
    found = select(pool, target, config=SelectionConfig(method="rds", sft_size=30, rl_size=0))
    passing = np.flatnonzero(pool.table["label_passes"].to_numpy(dtype=bool))
    assert 0 < len(passing) < 200
    usable = Usable(pool, passing)
    expected = choose_rows("rds", usable, [Usable(target, np.arange(40))], 30, 0)
    assert found.sft.tolist() == sorted(expected.tolist())
    assert [one["name"] for one in found.filters if one["removed"]] == ["label fails the verifier"]
    # Without verdicts wrong rows on the target's questions are as near.
    config = SelectionConfig(method="rds", sft_size=30, rl_size=0)
    unjudged = select(pool.unjudged(), target, config=config)
    assert not pool.table["label_passes"][unjudged.sft].all()
    assert any("target's kind of question" in sentence for sentence in unjudged.unchecked)


def test_a_budget_of_tokens_is_the_longest_beginning_that_fits(scored: tuple[Scores, Scores]) -> None:
    pool, target = scored
    config = SelectionConfig(method="sketch", sft_tokens=300, rl_size=0)
    found = select(pool, target, config=config)
    tokens = pool.table["tokens"].to_numpy(dtype=int)
    more = select(
        pool, target, config=SelectionConfig(method="sketch", sft_size=len(found.sft) + 1, rl_size=0)
    )
    assert tokens[found.sft].sum() <= 300 < tokens[more.sft].sum()
    assert set(found.sft) < set(more.sft)


def test_several_targets_are_joined_and_take_turns(scored: tuple[Scores, Scores]) -> None:
    pool, target = scored
    parts = [target.part(np.arange(0, 20)), target.part(np.arange(20, 40))]
    joined = join_scores(parts)
    np.testing.assert_array_equal(joined.embeddings, target.embeddings)
    assert joined.table["id"].tolist() == target.table["id"].tolist()
    assert joined.manifest["rows"] == 40
    found = select(pool, parts, config=SelectionConfig(method="rds", sft_size=30, rl_size=0))
    usable = Usable(pool, np.flatnonzero(pool.table["label_passes"].to_numpy(dtype=bool)))
    places = [Usable(one, np.arange(20)) for one in parts]
    assert found.sft.tolist() == sorted(choose_rows("rds", usable, places, 30, 0).tolist())
    # Filters take several targets as one.
    config = SelectionConfig(method="filters", sft_size=10, rl_size=0)
    assert select(pool, parts, config=config).sft.tolist() == select(pool, target, config=config).sft.tolist()


@pytest.mark.parametrize(
    ("method", "first"),
    [("longest", r"[0-9]+, the tokens of the first row by the method longest"), (FILTERS, "")],
)
def test_a_budget_below_the_first_row_is_refused(
    method: str, first: str, scored: tuple[Scores, Scores]
) -> None:
    pool, target = scored
    least = int(pool.table["tokens"][pool.table["label_passes"].to_numpy(dtype=bool)].min())
    with pytest.raises(InputError, match=f"sft-tokens: got {least}; allowed: at least {first}"):
        select(pool, target, config=SelectionConfig(method=method, sft_tokens=least))


def test_a_target_that_is_given_twice_is_refused(scored: tuple[Scores, Scores]) -> None:
    pool, target = scored
    with pytest.raises(InputError, match="with the rows of another one; allowed: each target once"):
        select(pool, [target, replace(target)], config=SelectionConfig(method="rds", sft_size=3))


def test_beside_weights_the_control_is_the_same_rows_and_there_is_no_rl_set(
    scored: tuple[Scores, Scores], tmp_path: Path
) -> None:
    pool, target = scored
    found = select(pool, target, config=SelectionConfig(method="rds", weights=True, sft_size=20))
    assert found.control_sft.tolist() == found.sft.tolist()
    assert len(found.rl) == len(found.control_rl) == 0
    assert any("no RL set beside weights" in sentence for sentence in found.unchecked)
    said = describe(found, None, training_commands(found, tmp_path))
    assert "the same rows, drawn equally often" in said
    assert "its control is much the same set" not in said
    assert "random control" not in said


@pytest.mark.parametrize(("size", "usable"), [(5, 20_000), (50, 5_000), (7, 60), (3, 3)])
def test_half_of_the_weight_is_on_the_first_rows(size: int, usable: int) -> None:
    ordered = min(16 * size, usable)
    weights = place_weights(size, ordered, usable)
    assert weights.shape == (usable,)
    assert (weights > 0).all()
    assert (np.diff(weights) <= 0).all()
    if usable > 100 * size:
        # Sums of a falling curve differ from its integral by half of its first value.
        assert weights[:size].sum() / weights.sum() == pytest.approx(0.5, abs=0.5 / size)


def test_weights_are_written_and_rows_are_drawn_by_them(
    scored: tuple[Scores, Scores], tmp_path: Path
) -> None:
    pool, target = scored
    found = select(pool, target, config=SelectionConfig(method="rds", weights=True, sft_size=20, rl_size=0))
    share = 100 * np.sort(found.weights)[-20:].sum() / found.weights.sum()
    assert f"{share:.0f} percent of the draws are of the first 20 by the method rds" in describe(found)
    write_selection(found, pool, None, tmp_path / "out")
    told: list[str] = []
    read_sources(tmp_path / "out" / "sft.jsonl", weighted=True, tell=told.append)
    count = len(found.sft)
    assert (
        told[-1]
        == f"data: rows are drawn by their column sampling_weight, {count} of {count} with one above 0"
    )
    rows = [json.loads(line) for line in (tmp_path / "out" / "sft.jsonl").read_text().splitlines()]
    assert len(rows) == len(found.sft) == int(pool.table["label_passes"].sum())
    heavy = {row["id"] for row in rows if row["sampling_weight"] > 0.5}
    cut = select(pool, target, config=SelectionConfig(method="rds", sft_size=20, rl_size=0))
    assert heavy == set(pool.table["id"][cut.sft])
    assert "sampling_weight" not in (tmp_path / "out" / "control_sft.jsonl").read_text()
    (source,) = read_sources(tmp_path / "out" / "sft.jsonl", weighted=True)
    places = draw_places([source], 4000, seed=3)
    share = np.mean([source.rows[place].id in heavy for place in places])
    chance = sum(row["sampling_weight"] for row in rows if row["id"] in heavy)
    chance /= sum(row["sampling_weight"] for row in rows)
    # Five standard errors: level 1e-6.
    assert share == pytest.approx(chance, abs=5 * (chance * (1 - chance) / 4000) ** 0.5)
    with pytest.raises(InputError, match="format: got verl; allowed: trl with weights"):
        write_selection(found, pool, None, tmp_path / "verl", form="verl")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "RDS"}, "method: got RDS"),
        (
            {"method": "filters", "weights": True},
            "method: got filters with weights; allowed: an order of rows",
        ),
        ({"method": "rds", "weights": True, "replay": 0.5}, "replay: got 0.5; allowed: 0 with weights"),
        (
            {"method": "rds", "weights": True, "sft_tokens": 9},
            "sft_tokens: got 9; allowed: none with weights",
        ),
        ({"method": "rds", "weights": True, "rl_size": 5}, "rl_size: got 5; allowed: auto or 0 with weights"),
        ({"method": "rds", "weights": True, "sft_size": 0}, "sft_size: got 0; allowed: auto, or a number"),
        (
            {"method": "transport", "sft_tokens": 9},
            "sft_tokens: got 9; allowed: none with the method transport",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SelectionConfig(**settings)  # type: ignore[arg-type]


def test_the_report_says_nothing_of_filters_that_were_not_applied(
    scored: tuple[Scores, Scores], tmp_path: Path
) -> None:
    pool, target = scored
    said = {}
    for method in ("sketch", FILTERS):
        found = select(pool, target, config=SelectionConfig(method=method, sft_size=20, rl_size=0))
        write_selection(found, pool, None, tmp_path / method)
        said[method] = (tmp_path / method / "report.html").read_text()
    assert "taken by the method sketch" in said["sketch"]
    for sentence in ("chosen to be hard for this model", "Removed were rows", "Hard for its length"):
        assert sentence in said[FILTERS]
        assert sentence not in said["sketch"]
