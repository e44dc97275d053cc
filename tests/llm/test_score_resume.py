"""An interrupted run ends with the same bytes, and nothing that still holds is computed twice."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.errors import RunError
from datadose.llm import engines
from datadose.llm import score_stages as module
from datadose.llm.language_model import LanguageModel
from datadose.llm.score import score
from datadose.llm.scores import FILES, SAMPLES, read_scores
from helpers.scored_pool import ROWS, SAMPLED, SETTINGS, KilledError, Write, bytes_of, killed_after


@pytest.mark.parametrize(
    ("target", "name"), [(LanguageModel, "measure"), (engines, "sample_batch"), (module, "verify")]
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
    killed_after(engines, "sample_batch", 0, monkeypatch)
    score(model, pool, out, **SAMPLED)
    assert bytes_of(out) == before
    assert not list((out / ".cache").glob("verdicts-*"))


@pytest.mark.parametrize(
    ("change", "recomputed"),
    [
        ({"temperature": 0.5}, {"sample_batch"}),
        ({"max_tokens": 7}, {"sample_batch"}),
        ({"seed": 1}, {"sample_batch"}),
        ({"batch_tokens": 300}, {"measure", "sample_batch"}),
        ({"sketch_size": 256}, {"measure"}),
        ({}, set()),
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
    for target, name in ((LanguageModel, "measure"), (engines, "sample_batch")):
        original = getattr(target, name)

        def act(*values: Any, name: str = name, original: Any = original, **options: Any) -> Any:
            called.add(name)
            return original(*values, **options)

        monkeypatch.setattr(target, name, act)
    other = {**SAMPLED, "config": replace(SETTINGS, **change)} if change else {**SAMPLED, "verifier": "exact"}
    score(model, pool, out, **other)
    assert called == recomputed
    score(model, pool, tmp_path / "fresh", **other)
    assert bytes_of(out) == bytes_of(tmp_path / "fresh")


@pytest.mark.parametrize("first", [1, 4])
def test_another_number_of_samples_reuses_those_that_are_there(
    first: int, model: LanguageModel, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, out = write_rows(ROWS), tmp_path / "out"
    score(model, pool, tmp_path / "fresh", **SAMPLED)
    score(model, pool, out, **{**SAMPLED, "config": replace(SETTINGS, samples=first)})
    drawn = []
    original = engines.sample_batch

    def act(*values: Any, **options: Any) -> Any:
        found = original(*values, **options)
        drawn.extend(one.index for row in found for one in row)
        return found

    monkeypatch.setattr(engines, "sample_batch", act)
    more = score(model, pool, out, **SAMPLED)
    assert sorted(drawn) == sorted([1, 2] * len(ROWS) if first == 1 else [])
    assert (out / SAMPLES).read_bytes() == (tmp_path / "fresh" / SAMPLES).read_bytes()
    fresh = read_scores(tmp_path / "fresh")
    # Greedy completions were drawn in another batch, which rounds their confidence otherwise.
    rest = [name for name in more.table if name not in ("own_confidence", "offset")]
    pd.testing.assert_frame_equal(more.table[rest], fresh.table[rest])
    np.testing.assert_allclose(more.table["own_confidence"], fresh.table["own_confidence"], rtol=1e-5)


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


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:100]), flip_a_bit],
    ids=["empty", "cut", "one bit"],
)
def test_a_damaged_cache_file_is_dropped_and_computed_again(
    damage: Callable[[Path], Any],
    model: LanguageModel,
    write_rows: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pool, out = write_rows(ROWS), tmp_path / "out"
    score(model, pool, out, **SAMPLED)
    before = bytes_of(out)
    (out / "manifest.json").unlink()
    kept = sorted((out / ".cache").glob("*/*.npz"))
    for path in (*kept, *(out / ".cache").glob("samples-*/*.log")):
        damage(path)
    capsys.readouterr()
    score(model, pool, out, **SAMPLED)
    assert bytes_of(out) == before
    said = capsys.readouterr().err
    assert said.count("are dropped; their rows are computed again\n") == 1
    # A file of samples that ends within a line was killed there: no damage.
    assert said.count("1 damaged lines of kept samples in ") == (damage is flip_a_bit)
    # Nothing damaged is left.
    (out / "manifest.json").unlink()
    killed_after(LanguageModel, "measure", 0, monkeypatch)
    killed_after(engines, "sample_batch", 0, monkeypatch)
    score(model, pool, out, **SAMPLED)
    assert bytes_of(out) == before
    assert " damaged " not in capsys.readouterr().err
    assert len(kept) == len(list((out / ".cache").glob("*/*.npz")))


@pytest.mark.parametrize("name", FILES)
def test_a_finished_folder_with_a_damaged_file_is_written_again(
    name: str, model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool, out = write_rows(ROWS), tmp_path / "out"
    score(model, pool, out)
    before = bytes_of(out)
    flip_a_bit(out / name)
    score(model, pool, out)
    assert bytes_of(out) == before


def test_a_finished_run_answers_by_its_digests(
    model: LanguageModel, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row is encoded, verified or written again, unless the verifier is code that may change unseen."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_checks.py").write_text("def check(text, row):\n    return 1.0\n")
    pool = write_rows(ROWS)
    options = {**SAMPLED, "verifier": "own_checks:check"}
    score(model, pool, tmp_path / "built-in", **SAMPLED)
    score(model, pool, tmp_path / "own", **options)
    killed_after(LanguageModel, "encode", 0, monkeypatch)
    assert len(score(model, pool, tmp_path / "built-in", **SAMPLED).table) == 12
    with pytest.raises(KilledError):
        score(model, pool, tmp_path / "own", **options)
    with pytest.raises(KilledError):
        score(model, write_rows(ROWS[:11]), tmp_path / "built-in", **SAMPLED)


def test_a_full_disk_is_an_error_in_one_line(
    model: LanguageModel, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = write_rows(ROWS)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        score(model, pool, tmp_path / "out")
