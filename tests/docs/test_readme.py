"""README can be followed as it stands, and the example that ships is what its script makes."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pandas as pd
import pytest

from helpers.command import run_datadose
from helpers.pages import differences, follow

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the example as a clone has it: the model is not in it."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("model", "__pycache__"))
    return tmp_path


def test_readme_shows_what_it_prints(checkout: Path) -> None:
    done = follow(README, checkout)
    assert [step.kind for step, _ in done] == ["command", "python", "command"]
    assert "\n".join(filter(None, (differences(step, printed) for step, printed in done))) == ""
    chosen = [json.loads(line) for line in (checkout / "selected" / "sft.jsonl").read_text().splitlines()]
    assert all(row["completion"][0]["content"].split()[-1] == row["answer"] for row in chosen)


def test_readme_is_short_and_begins_with_what_it_is() -> None:
    assert README.count("\n") < 120
    first = README.split("\n\n")[1].split(":")[0]
    for words in ("*exactly*", "linear transformer", "*measures*", "language models"):
        assert words in first
    assert README.index("make reproduce") < README.index("make test") < README.index("![")


def test_the_example_is_what_its_script_writes(tmp_path: Path) -> None:
    script = runpy.run_path(str(EXAMPLES / "make_example.py"))
    script["write_rows"](tmp_path)
    for name in ("pool.jsonl", "target.jsonl"):
        assert (tmp_path / name).read_bytes() == (EXAMPLES / name).read_bytes()
    manifests = [json.loads(path.read_text()) for path in sorted(EXAMPLES.glob("scores/**/manifest.json"))]
    assert [(one["model"], one["pool"]) for one in manifests] == [
        ("examples/model", "examples/pool.jsonl"),
        ("examples/model", "examples/target.jsonl"),
    ]


@pytest.mark.slow
def test_the_models_scores_come_out_much_alike(checkout: Path) -> None:
    """What does not depend on the weights, to the digit; what does, nearly: another CPU rounds otherwise."""
    script = runpy.run_path(str(checkout / "examples" / "make_example.py"))
    script["make_model"](checkout / "examples" / "model")
    options = ["--samples", 8, "--verifier", "number", "--max-tokens", 16]
    told = ["--model", "examples/model", "--pool", "examples/pool.jsonl", "--out", "scores", *options]
    done = run_datadose("score", *told, cwd=checkout)
    assert done.returncode == 0, done.stderr
    shipped, made = (
        pd.read_parquet(folder / "table.parquet") for folder in (EXAMPLES / "scores", checkout / "scores")
    )
    for name in ("id", "question_hash", "tokens", "label_passes", "pass_rate_total"):
        assert (shipped[name] == made[name]).all(), name
    assert shipped["pass_rate"].corr(made["pass_rate"]) > 0.8
    assert abs(shipped["pass_rate"].mean() - made["pass_rate"].mean()) < 0.1
