"""SmolLM2's sea on a tiny random model: rows, pool, losses, equal tokens, what arms take, a whole run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl")
pytest.importorskip("reasoning_gym")

from datadose.llm.language_model import LanguageModel
from datadose.studies.levels.smollm import add_adapter
from datadose.studies.llm_study.measure import encode_rows, pass_probabilities
from datadose.studies.referee.smollm_experiment import SmolStudy
from datadose.studies.referee.smollm_figure import draw_sea_smollm
from datadose.studies.referee.smollm_pilot import run_pilot
from datadose.studies.referee.smollm_pool import draw_seed, held_out, make_scores, pool_rows, write_pool
from datadose.studies.referee.smollm_runs import ORACLE, SmolArm, choose, run_arm, run_untouched
from datadose.studies.referee.smollm_tasks import FAMILIES, Fault, draw_family, first_line, spoil
from datadose.studies.referee.smollm_training import (
    completion_nll,
    load_lines,
    measure,
    token_batches,
)
from helpers.command import environment

pytestmark = pytest.mark.long

SMOKE = SmolStudy.preset("smoke")
SEA = SMOKE.sea


@pytest.fixture(scope="module")
def scored(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scores") / "scores"
    make_scores(tiny, SEA, file=path)
    return path


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_distinct_and_short_and_their_answers_pass(name: str) -> None:
    rows = draw_family(name, 6, seed=3)
    again = draw_family(name, 6, seed=3, taken=[rows[0]["prompt"]])
    assert rows[0]["prompt"] not in {row["prompt"] for row in again}
    assert len({row["prompt"] for row in rows}) == 6
    for row in rows:
        assert row["prompt"].endswith("\nAnswer:")
        assert len(row["prompt"]) > len("\nAnswer:") + 8
        assert row["completion"].count("\n") == 1
        assert first_line(row["completion"], row) == 1
        for fault in (Fault.WRONG, Fault.FORMAT):
            bad = spoil(row, fault, rows, np.random.default_rng(0))
            assert first_line(bad["completion"], bad) == 0
            assert bad["answer"] == row["answer"]


def test_the_pool_has_what_it_says_and_no_question_twice() -> None:
    quick = SmolStudy.preset("quick").sea
    rows = pool_rows(quick)
    assert len(rows) == quick.rows
    assert len({row["prompt"] for row in rows}) == len(rows)
    held = held_out(quick)
    assert len(held.prompts) == sum(
        len(part) for part in (held.test, held.validation, held.earlier, held.sample)
    )
    assert held.prompts.isdisjoint(row["prompt"] for row in rows)
    kinds = [row["kind"] for row in rows if row["family"] == quick.target[1]]
    assert [kinds.count(k) for k in (Fault.NONE, Fault.WRONG, Fault.FORMAT)] == [
        quick.right,
        quick.faulty,
        quick.faulty,
    ]
    assert {row["kind"] for row in rows if row["family"] not in quick.target} == {Fault.NONE}


_DIGEST = """
import hashlib, json
from datadose.studies.llm_study.tasks import LEVELS, draw_rows
from datadose.studies.referee.smollm_tasks import FAMILIES, draw_family
rows = {name: draw_family(name, 5, 9004) for name in FAMILIES}
rows |= {f"level {name}": draw_rows(name, 5, 9004) for name in LEVELS}
print(json.dumps({name: hashlib.sha256(json.dumps(one).encode()).hexdigest() for name, one in rows.items()}))
"""


@pytest.mark.slow
def test_questions_are_the_same_in_every_process() -> None:
    """Sets of strings have another order in each process, and three families of reasoning-gym use it."""
    found = [
        json.loads(
            subprocess.check_output(
                [sys.executable, "-c", _DIGEST], env={**environment(), "PYTHONHASHSEED": seed}
            )
        )
        for seed in ("0", "1", "2")
    ]
    assert len(found[0]) > 36
    assert found[0] == found[1] == found[2]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_pool_for_the_tools_own_commands(tmp_path: Path) -> None:
    assert len([*write_pool(tmp_path, SEA, "tiny")]) == 3
    names = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "model").iterdir()}
    rows = {name: lines(tmp_path / f"{name}.jsonl") for name in ("pool", "target")}
    assert {row["prompt"] for row in rows["pool"]}.isdisjoint(row["prompt"] for row in rows["target"])
    assert (len(rows["pool"]), len(rows["target"])) == (SEA.rows, 2 * SEA.own)
    # Again: the model is kept, the rows are the same.
    assert len([*write_pool(tmp_path, SEA, "tiny")]) == 3
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "model").iterdir()} == names
    assert lines(tmp_path / "pool.jsonl") == rows["pool"]


def test_rows_in_one_sequence_do_not_see_each_other(tiny: Path) -> None:
    model = LanguageModel.load(tiny)
    rows = held_out(SEA).test + held_out(SEA).earlier
    probability, _ = pass_probabilities(model, rows)
    encoded = encode_rows(model, rows)
    nll, counts = completion_nll(model, encoded, bfloat16=False)
    np.testing.assert_allclose(nll.detach().numpy(), -np.log(probability), rtol=1e-5)
    found = measure(model, encoded, bfloat16=False)
    assert found.loss == pytest.approx(-np.log(probability).sum() / int(counts.sum()), rel=1e-5)
    assert found.probability == pytest.approx(probability.mean(), rel=1e-4)


def test_bfloat16_follows_the_weights_as_they_change(tiny: Path) -> None:
    # A context that stays open over an update would go on with its copies of the old weights.
    model = LanguageModel.load(tiny)
    rows = encode_rows(model, held_out(SEA).test)
    adapter = add_adapter(model.model, 2, 0)
    exact, close = [], []
    draw = torch.Generator().manual_seed(0)
    for size in (0.0, 3.0):
        for weight in adapter:
            weight.data += size * torch.randn(weight.shape, generator=draw)
        exact.append(measure(model, rows, bfloat16=False).loss)
        close.append(measure(model, rows, bfloat16=True).loss)
    assert abs(exact[1] - exact[0]) > 1e-3
    np.testing.assert_allclose(close, exact, atol=abs(exact[1] - exact[0]) / 10)


def test_all_arms_have_the_same_tokens_after_each_update() -> None:
    draw = np.random.default_rng(0)
    for lengths in (draw.integers(5, 40, 30).tolist(), [100] * 3):
        batches = list(islice(token_batches(lengths, 64, 1), 50))
        had = np.cumsum([sum(lengths[i] for i in batch) for batch in batches])
        if max(lengths) <= 64:
            assert (had >= 64 * np.arange(1, 51)).all()
            assert (had < 64 * np.arange(1, 51) + 40).all()
        seen = np.concatenate(batches)
        epoch = len(lengths)
        assert sorted(seen[:epoch]) == sorted(seen[epoch : 2 * epoch]) == list(range(epoch))


def test_arms_take_what_they_are_called(scored: Path) -> None:
    drawn = draw_seed(scored, SEA, 0)
    assert len(drawn.rows) == round(SEA.rows * 2 / 3)
    assert [row["id"] for row in drawn.rows] == drawn.pool.table["id"].tolist()
    assert [row["id"] for row in draw_seed(scored, SEA, 1).rows] != drawn.pool.table["id"].tolist()
    sample = drawn.target.lines(range(len(drawn.target.table)))
    assert [row["family"] for row in sample].count(SEA.target[0]) == SEA.own
    right = choose(SmolArm(ORACLE, 0), drawn, SEA, 8)
    assert {row["kind"] for row in right} == {Fault.NONE}
    assert {row["family"] for row in right} == set(SEA.target)
    verified = choose(SmolArm("random", 0), drawn, SEA, 30)
    assert len(verified) == 30
    assert {row["kind"] for row in verified} == {Fault.NONE}
    faulty = sum(row["kind"] != Fault.NONE for row in drawn.rows)
    assert faulty > 0
    all_rows = choose(SmolArm("random", 0, verified=False), drawn, SEA, len(drawn.rows))
    assert sum(row["kind"] != Fault.NONE for row in all_rows) == faulty


def test_what_is_scored_is_what_is_trained_on(tiny: Path, scored: Path) -> None:
    drawn = draw_seed(scored, SEA, 0)
    model = load_lines(tiny)
    rows = encode_rows(model, drawn.rows)
    assert [row.targets for row in rows] == drawn.pool.table["tokens"].tolist()
    found = measure(model, rows, bfloat16=False).loss
    nll = drawn.pool.table["nll"].to_numpy(dtype=float)
    assert found == pytest.approx(np.average(nll, weights=drawn.pool.table["tokens"]), rel=0.01)


def test_a_run_begins_at_the_untouched_model_and_a_look_changes_nothing(tiny: Path, scored: Path) -> None:
    training = replace(SMOKE.training, rate=3e-2, updates=(0, 2))
    first, last = run_arm(tiny, scored, SEA, training, 6, SmolArm("rds", 0))
    (before,) = run_untouched(tiny, SEA, training)
    assert first["loss"] == pytest.approx(before["loss"], rel=1e-3)
    assert last["loss"] < first["loss"]
    assert (last["rows"], last["tokens"]) == (6, 400)
    assert run_arm(tiny, scored, SEA, replace(training, updates=(2,)), 6, SmolArm("rds", 0)) == [last]


@pytest.mark.slow
def test_a_pilot_and_a_study_share_the_scored_pool(tmp_path: Path) -> None:
    grid, spread = run_pilot(tmp_path, "smoke", rates=(1e-3, 1e-2))
    assert len(grid) == 12
    assert spread > 0
    (folder,) = (tmp_path / ".cache" / "sea_smollm").iterdir()
    *_, (_, cells) = SMOKE.rounds(tmp_path / ".cache")
    assert cells[-1].arguments["scores"] == folder.absolute()
    table = SMOKE.table([run_untouched(cells[0].arguments["base"], SEA, SMOKE.training)])
    assert len(table) == 1


def test_the_figure_has_every_arm(tiny: Path, scored: Path) -> None:
    arms = [SmolArm(method, seed) for method in ("random", "rds") for seed in (0, 1)]
    results = [
        run_untouched(tiny, SEA, SMOKE.training),
        *(run_arm(tiny, scored, SEA, SMOKE.training, 6, arm) for arm in arms),
    ]
    figure = draw_sea_smollm(SMOKE.table(results), SMOKE)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["random", "rds"]
