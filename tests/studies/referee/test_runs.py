"""Pools of the sea and runs on them, with a tiny model: what a pool holds, what is chosen and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.llm.scores import Scores
from datadose.studies.levels.descent import Descent, weighted_batches
from datadose.studies.referee.base import pretrain
from datadose.studies.referee.language import TARGETS, parsed, verify
from datadose.studies.referee.pools import (
    SeaPool,
    make_scores,
    pool_rows,
    read_pool,
    target_rows,
)
from datadose.studies.referee.runs import HeldOut, SeaRun, choose, run_arm, run_untouched
from datadose.studies.token_study.model import DecoderShape, TokenPretraining

MIXED = SeaPool("mixed", "B", 800, 8)
RUN = SeaRun("mixed", "B", "random", 0.05, 3)


def share(rows: Sequence[Any]) -> float:
    return float(np.mean(rows))


@pytest.mark.parametrize("contents", ["clean", "wrong", "format", "duplicates", "mixed"])
def test_a_pool_has_the_faults_that_its_name_says(contents: Any) -> None:
    rows = pool_rows(replace(MIXED, contents=contents), 3)
    target = [row for row in rows if row.header in TARGETS["B"]]
    others = [row for row in rows if row.header not in TARGETS["B"] and not row.repeats]
    right = [verify(row.example[1], {"prompt": row.example[0]}) == 1 for row in rows]
    assert right == [row.fault == "right" for row in rows]
    assert len(rows) == 800
    of_target = {"clean": (0.0, 0.0), "wrong": (0.4, 0.0), "format": (0.0, 0.4), "duplicates": (0.0, 0.0)}
    wrong, other_format = of_target.get(contents, (0.25, 0.25))
    fresh = [row for row in target if not row.repeats]
    assert len(fresh) == 40
    assert share([row.fault == "wrong" for row in fresh]) == wrong
    assert share([row.fault == "format" for row in fresh]) == other_format
    assert share([row.fault != "right" for row in others]) == pytest.approx(
        0.1 * ((wrong > 0) + (other_format > 0)), abs=0.02
    )
    assert share([row.repeats for row in rows]) == (0.2 if contents in ("duplicates", "mixed") else 0.0)
    families = {(parsed(row.example[0])[0].header, parsed(row.example[0])[1]) for row in rows}
    assert len(families) == (640 if contents in ("duplicates", "mixed") else 800)


def test_the_target_s_sample_is_right_and_shares_no_string_with_the_pool() -> None:
    sample = target_rows(MIXED, 3)
    headers = [row.header for row in sample]
    assert sorted(headers) == ["OTX"] * 4 + ["PUY"] * 4 != headers
    pool = {"".join(sorted(parsed(row.example[0])[1])) for row in pool_rows(MIXED, 3)}
    assert not pool & {"".join(sorted(parsed(row.example[0])[1])) for row in sample}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its scored pool."""
    folder = tmp_path_factory.mktemp("sea")
    model, scores = folder / "model", folder / "scores"
    pretrain(TokenPretraining(0.02, DecoderShape(16, 1, 2, 32), steps=2, batch=16, warmup=1), file=model)
    make_scores(model, MIXED, 3, file=scores)
    return model, scores


def chosen(made: tuple[Path, Path], run: SeaRun) -> tuple[list[dict[str, Any]], Any]:
    pool, target = read_pool(made[1])
    lines = pool.lines(range(len(pool.table)))
    found = choose(run, pool, target, lines)
    return [lines[i] for i in found.rows], found.weights


def test_what_an_arm_is_trained_on(made: tuple[Path, Path]) -> None:
    oracle, _ = chosen(made, replace(RUN, method="oracle"))
    assert {(line["role"], line["fault"]) for line in oracle} == {("target", "right")}
    assert len(oracle) == min(40, len(chosen(made, replace(RUN, method="oracle", budget=1.0))[0]))
    assert len(chosen(made, replace(RUN, method="full", budget=1.0))[0]) == 800
    verified, _ = chosen(made, replace(RUN, budget=0.25))
    assert len(verified) == 200
    assert {line["fault"] for line in verified} == {"right"}
    unverified, _ = chosen(made, replace(RUN, budget=0.25, verified=False))
    assert {line["fault"] for line in unverified} == {"right", "wrong", "format"}
    weighted, weights = chosen(made, replace(RUN, method="weighted"))
    assert {line["fault"] for line in weighted} == {"right"}
    assert len(weighted) == len(weights) > 400
    assert weights.max() == 1 > weights.min() > 0


def test_batches_are_drawn_in_proportion_to_weights() -> None:
    batches = weighted_batches(np.array([3.0, 0.0, 1.0]), 400, 5)
    drawn = np.concatenate([next(batches) for _ in range(10)])
    assert np.bincount(drawn, minlength=3) / 4000 == pytest.approx([0.75, 0, 0.25], abs=0.03)


def test_a_run_is_measured_at_its_end_and_at_its_best_step(made: tuple[Path, Path]) -> None:
    descent, held = Descent(1.0, (0, 1, 2), batch=4, warmup=1), HeldOut(6, 6, 1)
    end, best = run_arm(made[0], made[1], replace(RUN, method="oracle"), descent, held)
    # A rate of 1 spoils the model: the best step is the untouched one.
    assert (end["stop"], end["step"], best["stop"], best["step"]) == ("end", 2, "best", 0)
    assert best["validation"] < end["validation"]
    assert best["loss"] < end["loss"]
    untouched = run_untouched(made[0], RUN, held)[0]
    assert {key: best[key] for key in ("loss", "accuracy", "known")} == {
        key: untouched[key] for key in ("loss", "accuracy", "known")
    }
    assert (best["rows"], best["share_target"], best["share_faulty"]) == (20, 1.0, 0.0)
    assert isinstance(read_pool(made[1])[0], Scores)
