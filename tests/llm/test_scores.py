"""The scores folder: what is written is what is read, and a broken one is named."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.errors import InputError, RunError
from datadose.files import write_json
from datadose.llm.represent import scores_of
from datadose.llm.scores import (
    FILES,
    MEASURED,
    Scores,
    file_digests,
    hash_question,
    read_scores,
    write_scores,
)


def measured(**given: Any) -> dict[str, Any]:
    return {**dict.fromkeys(MEASURED), **given}


def recorded(folder: Path) -> None:
    """Record the files as they are, as if they had been written so."""
    write_json(folder / "manifest.json", {"files": file_digests(folder)})


def example(folder: Path, **manifest: Any) -> Scores:
    rows = [
        {"prompt": "a", "note": "ünïcode\nline", **measured(nll=1.5, tokens=3, label_passes=True)},
        {"prompt": "b", **measured(issue="prompt too long")},
        {"prompt": "c", **measured(nll=0.25, tokens=1, pass_rate=0.5, pass_rate_total=4, pass_rate_passed=2)},
    ]
    arrays = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones((3, 2), dtype=np.float32)
    return write_scores(folder, rows, ["x", "y", "z"], [hash_question(q) for q in "abc"], *arrays, manifest)


def test_written_and_read(tmp_path: Path) -> None:
    scores = example(tmp_path, model="m")
    table = scores.table
    assert list(table["id"]) == ["x", "y", "z"]
    assert table["nll"].tolist()[::2] == [1.5, 0.25]
    assert np.isnan(table["nll"][1])
    assert table["tokens"].isna().tolist() == [False, True, False]
    assert table["label_passes"].isna().tolist() == [False, True, True]
    assert table["issue"][1] == "prompt too long"
    assert scores.embeddings.shape == (3, 4)
    assert scores.sketches.dtype == np.float32
    counts = {"rows": 3, "scored": 2, "mean_nll": 0.875, "with_pass_rate": 1, "mean_pass_rate": 0.5}
    counts |= {"unfinished": 0, "issues": {"prompt too long": 1}, "incomplete": {}}
    assert scores.manifest == {"model": "m", **counts, "files": file_digests(tmp_path)}
    assert [line["prompt"] for line in scores.lines([2, 0])] == ["c", "a"]
    assert scores.lines([0])[0]["note"] == "ünïcode\nline"


def test_the_same_scores_have_the_same_bytes(tmp_path: Path) -> None:
    example(tmp_path / "a")
    example(tmp_path / "b")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_question_hashes_do_not_depend_on_the_process() -> None:
    code = "from datadose.llm.scores import hash_question; print(hash_question('what is two?'))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(shown) == hash_question("what is two?") != hash_question("what is three?")


@pytest.mark.parametrize("name", FILES)
def test_an_unfinished_folder_is_refused(tmp_path: Path, name: str) -> None:
    example(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        read_scores(tmp_path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    example(tmp_path)
    np.save(tmp_path / "sketches.npy", np.ones((2, 2), dtype=np.float32))
    with pytest.raises(InputError, match=r"sketches\.npy; allowed: .*cut or changed"):
        read_scores(tmp_path)
    recorded(tmp_path)
    with pytest.raises(InputError, match=r"sketches of shape \(2, 2\)"):
        read_scores(tmp_path)
    (tmp_path / "sketches.npy").write_bytes(b"no array")
    recorded(tmp_path)
    with pytest.raises(InputError, match="well-formed score files"):
        read_scores(tmp_path)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def reverse_lines(path: Path) -> None:
    path.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))))


def end_lines_as_windows_does(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, flip_a_bit) for name in FILES if name != "manifest.json"),
        *(("rows.jsonl", change) for change in (cut, reverse_lines, end_lines_as_windows_does)),
    ],
)
def test_a_changed_file_is_noticed(tmp_path: Path, name: str, change: Callable[[Path], None]) -> None:
    example(tmp_path)
    change(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}; allowed: .*cut or changed"):
        read_scores(tmp_path)


@pytest.mark.parametrize("manifest", [[], {}, {"files": []}, {"files": {"rows.jsonl": "0"}}, 3])
def test_a_manifest_without_digests_is_refused(tmp_path: Path, manifest: Any) -> None:
    example(tmp_path)
    write_json(tmp_path / "manifest.json", manifest)
    with pytest.raises(InputError, match=r"manifest\.json; allowed: a manifest with the digests"):
        read_scores(tmp_path)


def test_a_folder_that_cannot_be_changed_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example(tmp_path)

    def refused(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(RunError, match=r"manifest\.json: could not be removed \(Permission denied\)"):
        example(tmp_path)


def test_a_target_under_another_model_is_refused(tmp_path: Path) -> None:
    pool = example(tmp_path / "pool", model_digest="1")
    example(tmp_path / "same", model_digest="1")
    example(tmp_path / "other", model_digest="2")
    assert len(scores_of(tmp_path / "same", "target", pool).table) == 3
    with pytest.raises(InputError, match=r"target: .*model_digest.*same model"):
        scores_of(tmp_path / "other", "target", pool)
    with pytest.raises(InputError, match=r"target: .*absent"):
        scores_of(tmp_path / "absent.jsonl", "target", pool)
