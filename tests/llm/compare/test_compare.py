"""A whole comparison of a tiny model: what it leaves, that it continues, what it refuses to begin with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("trl")
pytest.importorskip("peft")

from datadose.errors import InputError
from datadose.llm import evaluation
from datadose.llm.compare import CompareConfig, Compared, arms, compare
from datadose.llm.compare.table import TABLE
from datadose.llm.score import score
from datadose.llm.scores import read_scores
from datadose.llm.selection import geometry
from helpers.command import run_main

pytestmark = pytest.mark.usefixtures("one_thread", "quick")

CONFIG = CompareConfig(["longest"], 6, seeds=2, steps=2, batch=3, lora_rank=2, evaluate_every=1)
OPTIONS = [
    *("--methods", "longest", "--budget", "6", "--seeds", "2", "--steps", "2", "--batch", "3"),
    *("--lora-rank", "2", "--evaluate-every", "1"),
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture of every run, and few permutations."""
    monkeypatch.setattr(evaluation, "draw_curve", lambda *_: None)
    monkeypatch.setattr(geometry, "PERMUTATIONS", 19)


def rows(first: int, last: int, word: str = "") -> list[dict[str, str]]:
    return [
        {"id": f"q{i}", "prompt": f"{i} + 1 =", "completion": f"{i + 1}{word * (i % 3)}"}
        for i in range(first, last)
    ]


def write(path: Path, lines: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def scores(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scores of twenty rows, beside them the target."""
    folder = tmp_path_factory.mktemp("scored")
    score(tiny_llama, write(folder / "pool.jsonl", rows(0, 20, "!")), folder / "scores")
    write(folder / "target.jsonl", rows(50, 62))
    return folder / "scores"


@pytest.fixture(scope="module")
def target(scores: Path) -> Path:
    return scores.parent / "target.jsonl"


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be trained."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(arms, "posttrain", fail)


def contents(out: Path) -> dict[str, bytes]:
    return {
        name: (out / name).read_bytes() for name in ("table.csv", "runs.csv", "curves.csv", "report.html")
    }


@pytest.mark.long
def test_a_comparison_continues_where_it_stopped_and_keeps_what_is_done(
    scores: Path,
    target: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["compare", "--scores", str(scores), "--target", str(target), "--out", str(tmp_path / "out")]
    out = tmp_path / "out"

    def stop(name: str, done: int, total: int) -> None:
        # In the second of four arms, before its last step.
        if "training" in name and (done, total) == (3, 8):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(scores, target, out, config=CONFIG, progress=stop)
    assert not (out / "table.csv").exists()
    capsys.readouterr()
    assert run_main([*command, *OPTIONS, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((out / "manifest.json").read_text())

    table, runs = pd.read_csv(out / "table.csv"), pd.read_csv(out / "runs.csv")
    assert list(table) == list(TABLE)
    assert table["method"].to_list() == ["untouched", "random", "longest"]
    assert [row["method"] for row in document["table"]] == table["method"].to_list()
    assert document["setting"]["methods"] == ["random", "longest"]
    assert any("trained" not in sentence and "Labels" in sentence for sentence in document["unchecked"])
    # The longest completions were trained on, and of each run only its curve is left.
    pool = read_scores(scores)
    for seed in (0, 1):
        arm = out / "arms" / f"longest-6-{seed}"
        chosen = [json.loads(line) for line in (arm / "sft.jsonl").read_text().splitlines()]
        assert min(row["tokens"] for row in chosen) >= np.sort(pool.table["tokens"].to_numpy(dtype=int))[-6]
        assert {path.name for path in (arm / "run").iterdir()} == {"curve.csv", "result.json", "setting.json"}
        curve = pd.read_csv(arm / "run" / "curve.csv")
        run = runs[(runs["method"] == "longest") & (runs["seed"] == seed)].iloc[0]
        best = curve.loc[curve["validation_loss"].idxmin()]
        assert (run["best_step"], run["last_loss"]) == (best["step"], curve["keep_loss"].iloc[-1])
        assert (run["test_loss"], run["validation_loss"]) == (best["keep_loss"], best["validation_loss"])
        untouched = runs[(runs["method"] == "untouched") & (runs["seed"] == seed)].iloc[0]
        assert untouched["test_loss"] == curve["keep_loss"].iloc[0]
    difference = runs.pivot_table(index="seed", columns="method", values="test_loss")
    expected = (difference["longest"] - difference["random"]).mean()
    assert table.iloc[2]["difference"] == pytest.approx(expected, abs=1e-10)

    # Nothing is trained again, by whatever way it is asked for; the terminal says what to take.
    before = contents(out)
    monkeypatch.setattr(arms, "posttrain", None)
    found = compare(scores, target, out, config=CONFIG)
    assert contents(out) == before
    assert isinstance(found, Compared)
    assert found.to_frame().equals(found.table)
    assert found.plot().get_yticklabels()[1].get_text() == "longest"
    assert run_main([*command, *OPTIONS]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert found.advice[0] in shown
    for options in (["--steps", "3"], ["--learning-rate", "0.1"]):
        assert run_main([*command, *OPTIONS, *options]) == 2
        assert f"out: got {out} (differs in " in capsys.readouterr().err
    assert contents(out) == before


@pytest.mark.slow
def test_a_stopped_comparison_ends_with_the_bytes_of_a_whole_one(
    scores: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a curve over three budgets; and one seed more keeps the arms that are there."""
    config = replace(CONFIG, budgets=(3, 6, 12), seeds=2)
    whole, out = tmp_path / "whole", tmp_path / "out"
    found = compare(scores, target, whole, config=config)
    assert set(found.forecasts) == {"random", "longest"}
    steps: list[int] = []

    def stop(name: str, done: int, total: int) -> None:
        if "training" in name and done % 5 == 1 and done not in steps:
            steps.append(done)
            raise KeyboardInterrupt

    for _ in range(40):
        try:
            compare(scores, target, out, config=config, progress=stop)
            break
        except KeyboardInterrupt:
            continue
    assert contents(out) == contents(whole)
    trained = []
    train = arms.posttrain
    monkeypatch.setattr(arms, "posttrain", lambda *a, **k: trained.append(a[2].parent.name) or train(*a, **k))
    more = compare(scores, target, out, config=replace(config, seeds=3))
    assert trained == [f"{method}-{budget}-2" for budget in (3, 6, 12) for method in ("random", "longest")]
    assert more.runs[more.runs["seed"] < 2].reset_index(drop=True).equals(found.runs)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("config", "questions", "said"),
    [
        ({"methods": ["longest", "ifd"]}, (50, 62), "nll_alone"),
        ({"budgets": 21}, (50, 62), r"^budget: got 21; allowed: at most 20, the usable rows: "),
        ({}, (50, 57), r"^target: got 7 scored questions; allowed: at least 8"),
        # The last question is in the pool: in whichever part of the target it is.
        ({}, (50, 62, 19), "questions that are not in the pool"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(
    config: dict[str, Any], questions: tuple[int, ...], said: str, scores: Path, tmp_path: Path
) -> None:
    lines = [row for first in questions[2:] for row in rows(first, first + 1)]
    path = write(tmp_path / "target.jsonl", rows(*questions[:2]) + lines)
    with pytest.raises(InputError, match=said):
        compare(scores, path, tmp_path / "out", config=replace(CONFIG, **config))
    assert not (tmp_path / "out" / "arms").exists()


@pytest.mark.usefixtures("untrained")
def test_a_model_that_changed_since_is_refused(
    scores: Path, target: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    copy, model = tmp_path / "scores", tmp_path / "model"
    shutil.copytree(scores, copy)
    shutil.copytree(tiny_llama, model)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "model_from_here": "../model"}))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    with pytest.raises(InputError, match=r"scores: got .* of a model that has changed since"):
        compare(copy, target, tmp_path / "out", config=CONFIG)


@pytest.mark.usefixtures("untrained")
def test_an_arm_on_other_rows_is_refused(scores: Path, target: Path, tmp_path: Path) -> None:
    """A later version of a method could select others: no table mixes the two."""
    arm = tmp_path / "out" / "arms" / "random-6-0"
    arm.mkdir(parents=True)
    (arm / "arm.json").write_text(json.dumps({"rows": 6, "rows_digest": "0"}))
    with pytest.raises(InputError, match="random-6-0 with other rows; allowed: a folder of its own"):
        compare(scores, target, tmp_path / "out", config=CONFIG)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": []}, "methods: got none"),
        ({"methods": ["rds", "longst"]}, r"methods: got longst \(did you mean longest\?\)"),
        ({"methods": ["rds", "rds"]}, "methods: got rds twice"),
        ({"budgets": ()}, r"budgets: got \[\]"),
        ({"budgets": (8, 8)}, r"budgets: got \[8, 8\]"),
        ({"seeds": 1}, "seeds: got 1"),
        ({"learning_rate": 2}, "learning_rate: got 2"),
        ({"evaluate_every": 0}, "evaluate_every: got 0"),
    ],
)
def test_bad_settings(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        CompareConfig(**{"methods": ["rds"], "budgets": 8, **changes})


def test_random_is_always_an_arm() -> None:
    assert CompareConfig(["rds"], 8).arms == ("random", "rds")
    assert CompareConfig(["rds", "random"], 8).arms == ("rds", "random")
    assert CompareConfig("rds", (8, 16)).rows == (8, 16)
