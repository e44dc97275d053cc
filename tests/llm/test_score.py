"""A scored pool end to end: what rows gain, what is marked; an interrupted run ends with the same bytes."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datadose.errors import InputError, RunError
from datadose.llm import score as module
from datadose.llm.language_model import LanguageModel
from datadose.llm.score import score
from datadose.llm.scores import FILES, MEASURED, Scores
from datadose.llm.sketch import TensorSketch

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LanguageModel:
    return LanguageModel.load(tiny_llama)


def chat(question: str, label: str, **columns: Any) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": label}],
        **columns,
    }


ROWS = [chat(f"what is {i}+{i * i}?", str(i + i * i), level=i % 3) for i in range(12)]
"""Twelve rows of slightly different lengths."""

SAMPLED: dict[str, Any] = {"samples": 3, "verifier": "last-number", "max_tokens": 6, "batch_tokens": 150}
"""Small enough batches for several of each kind."""


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_rows_keep_their_columns_and_gain_the_measured_ones(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    scores = score(
        model,
        write_rows(ROWS),
        tmp_path / "out",
        **SAMPLED,
        progress=lambda name, done, total: seen.setdefault(name, []).append((done, total)),
    )
    lines = scores.lines(range(len(ROWS)))
    for line, row in zip(lines, ROWS, strict=True):
        assert list(line) == [*row, *MEASURED]
        assert {name: line[name] for name in row} == row
        assert line["issue"] is None
        assert line["pass_rate_total"] == 3
        assert line["pass_rate"] == line["pass_rate_passed"] / 3
        assert line["pass_rate_low"] <= line["pass_rate"] <= line["pass_rate_high"]
        # Without an answer the verifier would compare the label with itself.
        assert line["label_passes"] is None
        assert 0 < line["own_confidence"] <= 1
    assert scores.embeddings.shape == (12, model.hidden_size)
    assert scores.sketches.shape == (12, 512)
    assert scores.embeddings.dtype == scores.sketches.dtype == np.float32
    assert np.isfinite(scores.embeddings).all()
    for name in ("score (tokens)", "sample (prompts)", "verify (rows)"):
        done, total = zip(*seen[name], strict=True)
        assert done[0] == 0
        assert done[-1] == total[-1]
        assert list(done) == sorted(done)
    assert seen["score (tokens)"][-1][1] == sum(
        model.encode(row).length for row in module.read_pool(tmp_path / "pool.jsonl")
    )


def test_numbers_are_those_of_the_model_row_by_row(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool = write_rows(ROWS)
    scores = score(model, pool, tmp_path / "out", batch_tokens=100, sketch_size=64)
    sketch = TensorSketch(model.hidden_size, model.vocabulary_size, 64)
    for place, row in enumerate(module.read_pool(pool)):
        encoded = model.encode(row)
        alone = model.measure([encoded], sketch)
        assert alone.sketches is not None
        assert scores.table["nll"][place] == pytest.approx(alone.nll[0], rel=1e-5)
        assert scores.table["tokens"][place] == len(encoded.completion_ids)
        np.testing.assert_allclose(scores.embeddings[place], alone.embeddings[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scores.sketches[place], alone.sketches[0], rtol=1e-3, atol=1e-4)
    assert scores.table[["pass_rate", "label_passes", "own_differs"]].isna().all(axis=None)


def test_the_manifest_says_how(model: LanguageModel, write_rows: Write, tmp_path: Path) -> None:
    manifest = score(model, write_rows(ROWS[:2]), tmp_path / "out", **SAMPLED, seed=4).manifest
    expected = {
        "model": model.name,
        "model_digest": model.digest,
        "chat_template_digest": model.template_digest,
        "template": "chat",
        "dtype": "float32",
        "samples": 3,
        "temperature": 1.0,
        "max_tokens": 6,
        "seed": 4,
        "verifier": "last-number",
        "sketch": {"size": 512, "seed": 20130811},
        "rows": 2,
        "scored": 2,
        "issues": {},
    }
    assert {name: manifest[name] for name in expected} == expected
    assert {"torch", "transformers", "datadose"} <= set(manifest["versions"])
    assert len(manifest["pool_digest"]) == 64


class KilledError(Exception):
    """Stands for a kill between two batches."""


def killed_after(target: Any, name: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``target.name`` work ``calls`` times, then fail."""
    original, done = getattr(target, name), [0]

    def act(*values: Any, **options: Any) -> Any:
        done[0] += 1
        if done[0] > calls:
            raise KilledError
        return original(*values, **options)

    monkeypatch.setattr(target, name, act)


@pytest.mark.parametrize(
    ("target", "name"), [(LanguageModel, "measure"), (module, "sample_batch"), (module, "verify")]
)
def test_an_interrupted_run_ends_with_the_same_bytes(
    target: Any,
    name: str,
    model: LanguageModel,
    write_rows: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_VERIFY_ROWS", 1)
    pool, out = write_rows(ROWS), tmp_path / "stopped"
    score(model, pool, tmp_path / "whole", **SAMPLED)
    with monkeypatch.context() as patch:
        killed_after(target, name, 2, patch)
        with pytest.raises(KilledError):
            score(model, pool, out, **SAMPLED)
    assert not (out / "manifest.json").exists()
    # What was finished is not done again: two calls less are needed.
    calls = {"whole": 0, "rest": 0}
    for label, folder in (("whole", tmp_path / "again"), ("rest", out)):
        with monkeypatch.context() as patch:
            original = getattr(target, name)

            def count(*values: Any, label: str = label, original: Any = original, **options: Any) -> Any:
                calls[label] += 1
                return original(*values, **options)

            patch.setattr(target, name, count)
            score(model, pool, folder, **SAMPLED)
    assert calls["rest"] == calls["whole"] - 2 > 0
    assert bytes_of(out) == bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "again")


def test_a_finished_run_again_computes_nothing(
    model: LanguageModel, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, out = write_rows(ROWS), tmp_path / "out"
    score(model, pool, out, **SAMPLED)
    before = bytes_of(out)
    killed_after(LanguageModel, "measure", 0, monkeypatch)
    killed_after(module, "sample_batch", 0, monkeypatch)
    score(model, pool, out, **SAMPLED)
    assert bytes_of(out) == before
    assert not list((out / ".cache").glob("verdicts-*"))


@pytest.mark.parametrize(
    ("change", "recomputed"),
    [
        ({"samples": 4}, {"sample_batch"}),
        ({"temperature": 0.5}, {"sample_batch"}),
        ({"max_tokens": 7}, {"sample_batch"}),
        ({"seed": 1}, {"sample_batch"}),
        ({"batch_tokens": 300}, {"measure", "sample_batch"}),
        ({"sketch_size": 256}, {"measure"}),
        ({"verifier": "exact"}, set()),
    ],
)
def test_a_changed_setting_reuses_only_what_does_not_depend_on_it(
    change: dict[str, Any],
    recomputed: set[str],
    model: LanguageModel,
    write_rows: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool, out = write_rows(ROWS), tmp_path / "out"
    score(model, pool, out, **SAMPLED)
    called = set()
    for target, name in ((LanguageModel, "measure"), (module, "sample_batch")):
        original = getattr(target, name)

        def act(*values: Any, name: str = name, original: Any = original, **options: Any) -> Any:
            called.add(name)
            return original(*values, **options)

        monkeypatch.setattr(target, name, act)
    score(model, pool, out, **{**SAMPLED, **change})
    assert called == recomputed
    score(model, pool, tmp_path / "fresh", **{**SAMPLED, **change})
    assert bytes_of(out) == bytes_of(tmp_path / "fresh")


def test_another_model_of_the_same_name_is_not_mistaken(
    tiny_llama: Path, write_rows: Write, tmp_path: Path
) -> None:
    folder, pool = tmp_path / "model", write_rows(ROWS)
    shutil.copytree(tiny_llama, folder)
    first = score(folder, pool, tmp_path / "out").table["nll"]
    changed = LanguageModel.load(folder)
    changed.model.model.norm.weight.mul_(1.5)
    changed.model.save_pretrained(folder)
    second = score(folder, pool, tmp_path / "out").table["nll"]
    assert not np.isclose(first, second).any()


def test_a_grown_pool_has_its_new_rows_computed_only(
    model: LanguageModel, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = score(model, write_rows(ROWS[:8]), out)
    measured = []
    original = LanguageModel.measure

    def act(self: LanguageModel, batch: Any, sketch: Any = None) -> Any:
        measured.extend(batch)
        return original(self, batch, sketch)

    monkeypatch.setattr(LanguageModel, "measure", act)
    second = score(model, write_rows(ROWS), out)
    assert len(measured) == 4
    assert second.table["nll"][:8].tolist() == first.table["nll"].tolist()


def test_a_damaged_cache_file_is_computed_again(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool, out = write_rows(ROWS), tmp_path / "out"
    score(model, pool, out, **SAMPLED)
    before = bytes_of(out)
    for path in (out / ".cache").glob("*/*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    score(model, pool, out, **SAMPLED)
    assert bytes_of(out) == before


def test_a_full_disk_is_an_error_in_one_line(
    model: LanguageModel, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = write_rows(ROWS)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        score(model, pool, tmp_path / "out")


def test_rows_that_cannot_be_scored_are_kept_marked_and_counted(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    rows = [
        chat("2+3?", "5"),
        chat("2+3?" * 100, "5"),
        chat("2+4?", "  "),
        {"prompt": chat("", "")["prompt"], "completion": [{"role": "assistant", "content": ""}]},
        chat("2+5?", "7"),
    ]
    rows = [{**row, "answer": "5"} for row in rows]
    scores = score(model, write_rows(rows), tmp_path / "out", **SAMPLED)
    issues = [line["issue"] for line in scores.lines(range(5))]
    assert issues[0] is issues[4] is None
    assert issues[1].startswith("prompt too long: ")
    assert f"in a context of {model.context_length}" in issues[1]
    assert issues[2] == issues[3] == "empty completion"
    unscored = [1, 2, 3]
    assert scores.table["nll"].isna().tolist() == [False, True, True, True, False]
    assert scores.table["label_passes"].isna().tolist() == [False, True, True, True, False]
    assert scores.table["label_passes"][[0, 4]].tolist() == [True, False]
    assert np.isnan(scores.embeddings[unscored]).all()
    assert np.isnan(scores.sketches[unscored]).all()
    assert np.isfinite(scores.embeddings[[0, 4]]).all()
    assert scores.manifest["issues"] == {"empty completion": 2, "prompt too long": 1}
    assert (scores.manifest["rows"], scores.manifest["scored"]) == (5, 2)


def test_a_loss_that_is_no_number_is_marked_and_spoils_no_other_row(
    tiny_llama: Path, write_rows: Write, tmp_path: Path, model: LanguageModel
) -> None:
    broken = LanguageModel.load(tiny_llama)
    # The character z becomes not a number: rows with it alone are spoiled. Input and output weights are tied.
    table = broken.model.get_input_embeddings()
    table.weight = torch.nn.Parameter(table.weight.clone(), requires_grad=False)
    table.weight[broken.encode_prompt("z")[0]] = math.nan
    rows = [chat("2+3?", "5"), chat("a z?", "5"), chat("2+7?", "9")]
    scores = score(broken, write_rows(rows), tmp_path / "out", **SAMPLED)
    assert [line["issue"] for line in scores.lines(range(3))] == [None, "non-finite loss", None]
    assert scores.manifest["issues"] == {"non-finite loss": 1}
    expected = score(model, write_rows(rows), tmp_path / "sound").table["nll"]
    np.testing.assert_allclose(scores.table["nll"][[0, 2]], expected[[0, 2]], rtol=1e-5)
    assert np.isnan(scores.sketches[1]).all()


def scored_with(
    model: LanguageModel, write_rows: Write, tmp_path: Path, given: list[list[str]], **options: Any
) -> Scores:
    """Scores with completions made elsewhere."""
    lines = [{"id": f"row-{place + 1}", "completions": texts} for place, texts in enumerate(given)]
    pool = write_rows(ROWS[: len(given)])
    completions = write_rows(lines, "given.jsonl")
    return score(model, pool, tmp_path / "out", completions=completions, **options)


def test_completions_made_elsewhere_are_judged_and_nothing_is_sampled(
    model: LanguageModel, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_after(module, "sample_batch", 0, monkeypatch)
    given = [["0", "so 0", "1"], ["2"]]
    scores = scored_with(model, write_rows, tmp_path, given, verifier="last-number")
    assert scores.table["pass_rate_passed"].tolist() == [2, 1]
    assert scores.table["pass_rate_total"].tolist() == [3, 1]
    assert scores.table[["own_confidence", "own_differs"]].isna().all(axis=None)
    assert [line["own_completion"] for line in scores.lines([0, 1])] == [None, None]
    assert len(scores.manifest["completions_digest"]) == 64


def test_a_verifier_that_fails_is_marked_and_counted(
    model: LanguageModel, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moody_checks.py").write_text(
        "def check(text, row):\n"
        "    if text == 'bad':\n"
        "        raise ValueError('no')\n"
        "    return float('nan') if text == 'nan' else text == row['answer']\n"
    )
    given = [["0", "bad", "1"], ["nan", "nan"], ["6"]]
    scores = scored_with(model, write_rows, tmp_path, given, verifier="moody_checks:check")
    issues = [line["issue"] for line in scores.lines(range(3))]
    assert issues == ["verifier raised: ValueError: no", "verifier returned: nan", None]
    assert scores.table["pass_rate_total"].tolist() == [2, 0, 1]
    assert scores.table["pass_rate"].isna().tolist() == [False, True, False]
    assert scores.table["nll"].notna().all()
    assert scores.manifest["issues"] == {"verifier raised": 1, "verifier returned": 1}


def test_labels_are_checked_without_samples(model: LanguageModel, write_rows: Write, tmp_path: Path) -> None:
    rows = [chat("1+1?", "2", answer="2"), chat("1+2?", "4", answer="3")]
    scores = score(model, write_rows(rows), tmp_path / "out", verifier="last-number")
    assert scores.table["label_passes"].tolist() == [True, False]
    assert scores.table["pass_rate_total"].isna().all()


def test_rows_of_one_prompt_share_samples_and_are_sampled_once(
    model: LanguageModel, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = []
    original = module.sample_batch

    def act(model: LanguageModel, batch: Any, *values: Any) -> Any:
        prompts.extend(batch)
        return original(model, batch, *values)

    monkeypatch.setattr(module, "sample_batch", act)
    rows = [chat("1+1?", "2"), chat("1+1?", "two"), chat("1+2?", "3")]
    lines = score(model, write_rows(rows), tmp_path / "out", **SAMPLED).lines(range(3))
    assert len(prompts) == 2
    assert lines[0]["own_completion"] == lines[1]["own_completion"] != lines[2]["own_completion"]


def test_plain_strings_and_twins_with_other_ids(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    rows = [{"id": i, "prompt": "1+1=", "completion": "2"} for i in (7, 8)]
    scores = score(model, write_rows(rows), tmp_path / "out")
    assert scores.table["id"].tolist() == ["7", "8"]
    assert scores.table["nll"][0] == scores.table["nll"][1]
    assert scores.manifest["template"] == "none"


@pytest.mark.parametrize(
    ("field", "options", "allowed"),
    [
        ("verifier", {"samples": 2}, "a verifier with samples: exact, last-number"),
        ("verifier", {"completions": Path("x.jsonl")}, "a verifier with completions"),
        ("samples", {"samples": 2, "completions": Path("x"), "verifier": "exact"}, "0 with completions"),
        ("batch-tokens", {"batch_tokens": 0}, "an integer >= 1"),
        ("sketch-size", {"sketch_size": 1}, "an integer >= 2"),
        ("pool", {"pool": Path("nothing.jsonl")}, "an existing file"),
        ("dtype", {"dtype": "float16"}, "float32 or bfloat16"),
    ],
)
def test_bad_requests_are_refused(
    field: str,
    options: dict[str, Any],
    allowed: str,
    tiny_llama: Path,
    write_rows: Write,
    tmp_path: Path,
) -> None:
    request: dict[str, Any] = {"pool": write_rows(ROWS), "out": tmp_path / "out", **options}
    with pytest.raises(InputError, match=f"{field}: got") as refused:
        score(tiny_llama, **request)
    assert allowed in str(refused.value)


def test_a_file_in_the_place_of_the_folder_and_duplicate_ids(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool = write_rows(ROWS)
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out: got"):
        score(model, pool, tmp_path / "out")
    twice = write_rows([{**row, "id": "a"} for row in ROWS[:2]], "twice.jsonl")
    with pytest.raises(InputError, match="line 2: id a"):
        score(model, twice, tmp_path / "other")


def test_rows_json_is_plain(model: LanguageModel, write_rows: Write, tmp_path: Path) -> None:
    score(model, write_rows(ROWS), tmp_path / "out", **SAMPLED)
    text = (tmp_path / "out" / "rows.jsonl").read_text()
    assert len([json.loads(line) for line in text.splitlines()]) == len(ROWS)
    assert "NaN" not in text
