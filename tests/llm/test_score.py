"""A scored pool end to end: what rows gain, what is marked."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datadose.errors import InputError
from datadose.llm import engines
from datadose.llm.language_model import LanguageModel
from datadose.llm.pass_rates import fit_prior
from datadose.llm.pool import read_pool
from datadose.llm.score import score
from datadose.llm.score_config import ScoreConfig
from datadose.llm.scores import MEASURED, Scores
from datadose.llm.sketch import TensorSketch
from helpers.scored_pool import ROWS, SAMPLED, SETTINGS, Write, chat, killed_after


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
    prior = scores.manifest["pass_rates"]
    assert prior == fit_prior(scores.table["pass_rate_passed"], scores.table["pass_rate_total"]).to_json()
    for line, row in zip(lines, ROWS, strict=True):
        alpha, total = prior["a"] + line["pass_rate_passed"], prior["a"] + prior["b"] + 3
        assert line["signal"] == pytest.approx(alpha * (total - alpha) / (total * (total + 1)))
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
        model.encode(row).length for row in read_pool(tmp_path / "pool.jsonl")
    )


def test_numbers_are_those_of_the_model_row_by_row(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool = write_rows(ROWS)
    scores = score(model, pool, tmp_path / "out", config=ScoreConfig(batch_tokens=100, sketch_size=64))
    sketch = TensorSketch(model.hidden_size, model.vocabulary_size, 64)
    for place, row in enumerate(read_pool(pool)):
        encoded = model.encode(row)
        alone = model.measure([encoded], sketch)
        assert alone.sketches is not None
        assert scores.table["nll"][place] == pytest.approx(alone.nll[0], rel=1e-5)
        assert scores.table["tokens"][place] == len(encoded.completion_ids)
        np.testing.assert_allclose(scores.embeddings[place], alone.embeddings[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scores.sketches[place], alone.sketches[0], rtol=1e-3, atol=1e-4)
    unknown = ["pass_rate", "signal", "label_passes", "own_differs"]
    assert scores.table[unknown].isna().all(axis=None)
    assert scores.manifest["pass_rates"] is None


def test_settings_as_keywords_still_work(model: LanguageModel, write_rows: Write, tmp_path: Path) -> None:
    pool = write_rows(ROWS[:3])
    with pytest.warns(DeprecationWarning, match=r"score\(batch_tokens\).*ScoreConfig"):
        old = score(model, pool, tmp_path / "old", batch_tokens=100)
    new = score(model, pool, tmp_path / "new", config=ScoreConfig(batch_tokens=100))
    assert old.manifest == new.manifest
    with pytest.raises(TypeError), pytest.warns(DeprecationWarning, match="nonsense"):
        score(model, pool, tmp_path / "old", nonsense=1)


def test_the_manifest_says_how(model: LanguageModel, write_rows: Write, tmp_path: Path) -> None:
    options = {**SAMPLED, "config": replace(SETTINGS, seed=4)}
    manifest = score(model, write_rows(ROWS[:2]), tmp_path / "out", **options).manifest
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
        "verifier": "number",
        "sketch": {"size": 512, "seed": 20130811},
        "rows": 2,
        "scored": 2,
        "issues": {},
    }
    assert {name: manifest[name] for name in expected} == expected
    assert {"torch", "transformers", "datadose"} <= set(manifest["versions"])
    assert len(manifest["pool_digest"]) == 64


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
    killed_after(engines, "sample_batch", 0, monkeypatch)
    given = [["0", "The answer is 0.", "1"], ["2"]]
    scores = scored_with(model, write_rows, tmp_path, given, verifier="number")
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
    lines = scores.lines(range(3))
    assert [line["issue"] for line in lines] == [None, "verifier failed: returned nan", None]
    # What two of three samples say stands.
    assert [line["incomplete"] for line in lines] == ["verifier failed: ValueError: no", None, None]
    assert scores.table["pass_rate_total"].tolist() == [2, 0, 1]
    assert scores.table["pass_rate"].isna().tolist() == [False, True, False]
    assert scores.table["nll"].notna().all()
    assert scores.manifest["issues"] == scores.manifest["incomplete"] == {"verifier failed": 1}


def test_labels_are_checked_without_samples(model: LanguageModel, write_rows: Write, tmp_path: Path) -> None:
    rows = [chat("1+1?", "2", answer="2"), chat("1+2?", "4", answer="3")]
    scores = score(model, write_rows(rows), tmp_path / "out", verifier="number")
    assert scores.table["label_passes"].tolist() == [True, False]
    assert scores.table["pass_rate_total"].isna().all()


def test_rows_of_one_prompt_share_samples_and_are_sampled_once(
    model: LanguageModel, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = []
    original = engines.sample_batch

    def act(model: LanguageModel, batch: Any, *values: Any, **options: Any) -> Any:
        prompts.extend(batch)
        return original(model, batch, *values, **options)

    monkeypatch.setattr(engines, "sample_batch", act)
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
    ("field", "settings", "options", "allowed"),
    [
        ("verifier", {"samples": 2}, {}, "a verifier with samples: exact, number"),
        ("verifier", {}, {"completions": Path("x.jsonl")}, "a verifier with completions"),
        ("samples", {"samples": 2}, {"completions": Path("x"), "verifier": "exact"}, "0 with completions"),
        ("batch-tokens", {"batch_tokens": 0}, {}, "an integer >= 1"),
        ("sketch-size", {"sketch_size": 1}, {}, "an integer >= 2"),
        ("pool", {}, {"pool": Path("nothing.jsonl")}, "an existing file"),
        ("dtype", {"dtype": "float8"}, {}, "auto, float32, bfloat16, float16"),
    ],
)
def test_bad_requests_are_refused(
    field: str,
    settings: dict[str, Any],
    options: dict[str, Any],
    allowed: str,
    tiny_llama: Path,
    write_rows: Write,
    tmp_path: Path,
) -> None:
    request: dict[str, Any] = {"pool": write_rows(ROWS), "out": tmp_path / "out", **options}
    with pytest.raises(InputError, match=f"{field}: got") as refused:
        score(tiny_llama, **request, config=ScoreConfig(**settings))
    assert allowed in str(refused.value)


def test_a_file_in_the_place_of_the_folder_and_duplicate_ids(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool = write_rows(ROWS)
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out: got"):
        score(model, pool, tmp_path / "out")


CHAT = json.dumps(chat("9+9?", "18"))[1:-1].encode()
BAD_LINES = {
    "not JSON": b"{" + CHAT,
    "not text": b"{" + CHAT.replace(b"9+9", b"\xff") + b"}",
    "no object": b"[1, 2]",
    "no completion": b"{" + CHAT.split(b', "completion"')[0] + b"}",
    "another type": b'{"prompt": 3, "completion": "b"}',
    "unwritable value": b"{" + CHAT + b', "answer": 1e999}',
    "repeated id": b'{"id": "row-1", ' + CHAT + b"}",
}


def test_bad_rows_are_issues_with_their_line_and_every_row_is_kept_in_order(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool = write_rows([*ROWS[:2], *ROWS[2:4]])
    good = pool.read_bytes().splitlines()
    pool.write_bytes(b"\n".join([*good[:2], *BAD_LINES.values(), *good[2:]]))
    scores = score(model, pool, tmp_path / "out", **SAMPLED)
    text = (tmp_path / "out" / "rows.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == len(scores.table) == 4 + len(BAD_LINES)
    for line, row in zip([*lines[:2], *lines[-2:]], ROWS[:4], strict=True):
        assert {name: line[name] for name in row} == row
        assert line["issue"] is None
        assert line["pass_rate_total"] == 3
    for place, kind in enumerate(BAD_LINES, start=2):
        assert lines[place]["issue"].startswith(f"{kind}: line {place + 1}: ")
        assert {lines[place][name] for name in MEASURED if name != "issue"} == {None}
    # What can be written of a bad row is kept.
    assert {name: lines[7][name] for name in ("prompt", "completion", "answer")} == chat(
        "9+9?", "18", answer=None
    )
    assert scores.manifest["issues"] == dict.fromkeys(sorted(BAD_LINES), 1)
    assert (scores.manifest["rows"], scores.manifest["scored"]) == (11, 4)
    sound = score(model, write_rows(ROWS[:4]), tmp_path / "sound", **SAMPLED)
    kept = [0, 1, 9, 10]
    np.testing.assert_allclose(scores.table["nll"][kept], sound.table["nll"], rtol=1e-5)
    np.testing.assert_allclose(scores.sketches[kept], sound.sketches, rtol=1e-3, atol=1e-4)
    assert np.isnan(np.delete(scores.sketches, kept, axis=0)).all()


def test_a_row_that_the_template_refuses_is_marked(
    tiny_llama: Path, write_rows: Write, tmp_path: Path
) -> None:
    strict = LanguageModel.load(tiny_llama)
    strict.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}"
        "{% endif %}{{ m['content'] }}{% endfor %}"
    )
    odd = {**chat("1+1?", "2"), "level": 0}
    odd["prompt"] = [{"role": "system", "content": "Be brief."}, *odd["prompt"]]
    scores = score(strict, write_rows([ROWS[0], odd]), tmp_path / "out")
    issues = [line["issue"] for line in scores.lines(range(2))]
    assert issues[0] is None
    assert "no system role" in issues[1]
    assert scores.manifest["issues"] == {"messages": 1}


def test_completions_are_not_needed_for_bad_rows(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool = write_rows([ROWS[0], {"prompt": "a"}])
    given = write_rows([{"id": "row-1", "completions": ["0"]}], "given.jsonl")
    scores = score(model, pool, tmp_path / "out", completions=given, verifier="exact")
    assert scores.table["pass_rate_total"].isna().tolist() == [False, True]


def test_a_pool_without_a_good_row_is_refused(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="line 1: no prompt"):
        score(model, write_rows([{"completion": "a"}, {"completion": "b"}]), tmp_path / "out")


def test_columns_with_our_names_are_kept_under_others(
    model: LanguageModel, write_rows: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = {"nll": "high", "issue": "#12", "pool_issue": 3, "own_completion": "so", "datadose_role": "x"}
    scores = score(model, write_rows([{**row, **theirs} for row in ROWS[:2]]), tmp_path / "out")
    line = scores.lines([0])[0]
    names = {
        "nll": "pool_nll",
        "issue": "pool_pool_issue",
        "own_completion": "pool_own_completion",
        "datadose_role": "pool_datadose_role",
    }
    assert {name: line[name] for name in ROWS[0]} == ROWS[0]
    assert {name: line[names.get(name, name)] for name in theirs} == theirs
    assert line["nll"] == scores.table["nll"][0]
    assert line["issue"] is None
    assert scores.manifest["renamed_columns"] == names
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert "issue (kept as pool_pool_issue)" in said
    assert score(model, write_rows(ROWS[:2]), tmp_path / "other").manifest["renamed_columns"] == {}


def test_the_manifest_names_the_model_from_everywhere(
    tiny_llama: Path, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_llama.parent)
    scores = score(tiny_llama.name, write_rows(ROWS[:2]), tmp_path / "out")
    assert scores.manifest["model"] == str(tiny_llama.resolve())


def test_rows_json_is_plain(model: LanguageModel, write_rows: Write, tmp_path: Path) -> None:
    score(model, write_rows(ROWS), tmp_path / "out", **SAMPLED)
    text = (tmp_path / "out" / "rows.jsonl").read_text()
    assert len([json.loads(line) for line in text.splitlines()]) == len(ROWS)
    assert "NaN" not in text
