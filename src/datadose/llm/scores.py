"""A scores folder: what was measured on a pool, written whole and read without parsing it all.

``rows.jsonl`` is for readers and scripts: every row with all its columns and what was measured on it.
``samples.jsonl``, where completions were sampled or given, has {"id", "completions", "finish", "passed"} for
each row with any. ``table.parquet`` holds the numbers again, with each row's byte offset in ``rows.jsonl``;
the two arrays are memory-mapped. So a selection among a million rows reads numbers only, and full rows only
of what it chose.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datadose.errors import InputError, RunError, reject, require_extra
from datadose.files import atomic_file, file_digest, prepare_folder, write_atomic, write_json
from datadose.llm.cache import text_hash
from datadose.reading import is_folder, read_json

MEASURED: dict[str, str] = {
    "nll": "float64",
    "nll_alone": "float64",
    "tokens": "Int64",
    "prompt_tokens": "Int64",
    "pass_rate": "float64",
    "pass_rate_total": "Int64",
    "pass_rate_passed": "Int64",
    "pass_rate_low": "float64",
    "pass_rate_high": "float64",
    "signal": "float64",
    "truncated": "Int64",
    "label_passes": "boolean",
    "best_completion": "Int64",
    "completion_nlls": "object",
    "unfinished": "Int64",
    "own_completion": "string",
    "own_confidence": "float64",
    "own_differs": "boolean",
    "issue": "string",
    "incomplete": "string",
}
"""Columns that scoring adds to a row, and their types in the table (null where not measured)."""

_ROWS_ONLY = ("own_completion", "completion_nlls")
"""Of them those that the table does not have."""

ROLE = "datadose_role"
"""Column that a selection adds: ``target`` for rows of the pool, ``replay`` for those of the reference."""
CHANCE = "sampling_weight"
"""Column that a selection with weights adds: how often a row is drawn, relative to the others of its file."""

TABLE: dict[str, str] = {
    "id": "string",
    "question_hash": "int64",
    **{name: kind for name, kind in MEASURED.items() if name not in _ROWS_ONLY},
    "offset": "int64",
}
"""Columns of ``table.parquet`` and their types."""

SAMPLES = "samples.jsonl"
"""The file of sampled texts, where there are any."""


@dataclass(frozen=True)
class Vectors:
    """Vectors that are never all in memory."""

    shape: tuple[int, int]
    """(N, width)."""
    chunks: Iterator[NDArray[np.float32]]
    """The N rows in order, some at a time; they can be gone through once."""


EMBEDDING = "position-weighted"
"""The kind of mean that embeddings are, in a manifest."""
FILES = ("rows.jsonl", "table.parquet", "embeddings.npy", "sketches.npy", "manifest.json")


@dataclass(frozen=True)
class Scores:
    """A scored pool of N rows."""

    table: pd.DataFrame
    """N rows with the columns of TABLE, in the pool's order."""
    embeddings: NDArray[np.float32]
    """(N, H), position-weighted means of last hidden states; NaN rows where none was measured. May be a
    memory map."""
    sketches: NDArray[np.float32]
    """(N, D), sketches of the last layer's gradient, summed over tokens; NaN rows likewise."""
    manifest: dict[str, Any]
    folder: Path | None = None

    def part(self, rows: NDArray[np.int64]) -> Scores:
        """The scores of some ``rows``, given by their positions, in that order."""
        table = self.table.iloc[rows].reset_index(drop=True)
        return replace(self, table=table, embeddings=self.embeddings[rows], sketches=self.sketches[rows])

    def unjudged(self) -> Scores:
        """The same scores as if no verifier had judged the rows' own completions."""
        return replace(self, table=self.table.assign(label_passes=None))

    def lines(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """The full rows at ``indices``, in that order, read from ``rows.jsonl``."""
        return [json.loads(line) for line in self.raw_lines(indices)]

    def raw_lines(self, indices: Iterable[int]) -> Iterator[bytes]:
        """The full rows at ``indices`` as the bytes of ``rows.jsonl``, one at a time."""
        if self.folder is None:
            msg = "scores without a folder have no rows to read"
            raise ValueError(msg)
        offsets = self.table["offset"].to_numpy()
        # Not as a memory map, whose pages would stay: the rows' texts are most of a pool.
        with (self.folder / "rows.jsonl").open("rb") as handle:
            for index in indices:
                handle.seek(int(offsets[index]))
                yield handle.readline()


def join_scores(parts: Sequence[Scores]) -> Scores:
    """The rows of several scored pools, at least one, one after the other; of several, without a folder.

    The manifest is that of the first, with the names of all pools and the counts of all rows.
    """
    if len(parts) == 1:
        return parts[0]
    table = pd.concat([one.table for one in parts], ignore_index=True)
    embeddings = np.concatenate([one.embeddings for one in parts])
    sketches = np.concatenate([one.sketches for one in parts])
    names = ", ".join(str(one.manifest.get("pool")) for one in parts)
    return Scores(table, embeddings, sketches, {**parts[0].manifest, "pool": names, **_counts(table)})


def hash_question(question: str) -> int:
    """A 64-bit hash of a folded question, the same in every process."""
    return text_hash(question)


def write_scores(
    folder: Path,
    rows: Iterable[dict[str, Any]],
    ids: Iterable[str],
    questions: Iterable[int],
    embeddings: NDArray[np.float32] | Vectors,
    sketches: NDArray[np.float32] | Vectors,
    manifest: dict[str, Any],
    samples: Iterable[dict[str, Any]] = (),
) -> Scores:
    """Write a scores folder; the manifest last, so that a folder with one is complete.

    ``rows`` are the pool's rows with the columns of MEASURED added, written one by one; ``ids`` (as
    :class:`~datadose.llm.pool.Row` gives them) and ``questions`` (:func:`hash_question` of theirs) identify
    each. Vectors are arrays or are given part by part. ``samples`` are the lines of ``samples.jsonl``, which
    is there only if there are any. The manifest gains counts and means of the rows, and ``files``, the sha256
    of every other file.

    Raises InputError if ``folder`` cannot be a folder with files, RunError if writing fails.
    """
    require_extra("llm", "pyarrow")
    prepare_folder("out", folder)
    remove_manifest(folder)
    measured: dict[str, list[Any]] = {name: [] for name in MEASURED if name not in _ROWS_ONLY}
    offsets = []
    with atomic_file(folder / "rows.jsonl") as handle:
        for row in rows:
            offsets.append(handle.tell())
            handle.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            for name, values in measured.items():
                values.append(row[name])
    table = pd.DataFrame(
        {
            "id": list(ids),
            "question_hash": list(questions),
            **measured,
            "offset": offsets,
        }
    ).astype(TABLE)
    write_atomic(folder / "table.parquet", table.to_parquet(index=False))
    for name, array in (("embeddings", embeddings), ("sketches", sketches)):
        _write_vectors(folder / f"{name}.npy", array)
    _write_samples(folder / SAMPLES, samples)
    write_json(folder / "manifest.json", {**manifest, **_counts(table), "files": file_digests(folder)})
    return read_scores(folder)


def _write_vectors(path: Path, vectors: NDArray[np.float32] | Vectors) -> None:
    chunks = iter([vectors]) if isinstance(vectors, np.ndarray) else vectors.chunks
    with atomic_file(path) as handle:
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(vectors.shape)}
        np.lib.format.write_array_header_1_0(handle, header)
        for chunk in chunks:
            handle.write(np.ascontiguousarray(chunk, dtype="<f4").data)


def _counts(table: pd.DataFrame) -> dict[str, Any]:
    """Rows, scored rows and those with a pass rate, the means over them, samples that broke off in a thought,
    and rows with each kind of issue."""
    nll, rate = table["nll"], table["pass_rate"]
    return {
        "rows": len(table),
        "scored": int(nll.notna().sum()),
        "mean_nll": None if nll.isna().all() else float(nll.mean()),
        "with_pass_rate": int(rate.notna().sum()),
        "mean_pass_rate": None if rate.isna().all() else float(rate.mean()),
        "unfinished": int(table["unfinished"].sum()),
        "issues": _kinds(table["issue"]),
        "incomplete": _kinds(table["incomplete"]),
    }


def _kinds(texts: pd.Series[str]) -> dict[str, int]:
    """How often each kind of issue occurs."""
    kinds = texts.dropna().str.split(":").str[0].value_counts()
    return {str(kind): int(count) for kind, count in sorted(kinds.items())}


def _write_samples(path: Path, samples: Iterable[dict[str, Any]]) -> None:
    with atomic_file(path) as handle:
        for line in samples:
            handle.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        empty = handle.tell() == 0
    if empty:
        path.unlink()


def file_digests(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a scores folder, by name, but of the manifest, which records them."""
    names = [name for name in FILES if name != "manifest.json"]
    if (folder / SAMPLES).is_file():
        names.append(SAMPLES)
    return {name: file_digest(folder / name) for name in names}


def remove_manifest(folder: Path) -> None:
    """Mark a folder of results as unfinished; RunError if writing fails."""
    path = folder / "manifest.json"
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        msg = f"{path}: could not be removed ({error.strerror or error})"
        raise RunError(msg) from error


def read_scores(folder: Path, field: str = "scores") -> Scores:
    """The scores in ``folder``, arrays memory-mapped.

    Raises InputError for a folder that ``datadose score`` has not finished, and for one with a file that was
    cut or changed since: the manifest holds the digest of each.
    """
    require_extra("llm", "pyarrow")
    missing = [name for name in FILES if not is_folder(folder) or not (folder / name).is_file()]
    if missing:
        reject(field, str(folder), f"a folder that `datadose score` has written ({missing[0]} is missing)")
    manifest = read_json(folder / "manifest.json")
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or {*files, "manifest.json"} - {SAMPLES} != set(FILES):
        allowed = "a manifest with the digests of the folder's files (run the same `datadose score` again)"
        reject(field, str(folder / "manifest.json"), allowed)
    try:
        found = file_digests(folder)
        changed = [name for name in {**files, **found} if found.get(name) != files.get(name)]
    except OSError as error:
        raise InputError(field, str(folder), f"files that can be read ({error.strerror or error})") from error
    if changed:
        allowed = "the file that `datadose score` wrote (cut or changed since: run the same command again)"
        reject(field, str(folder / changed[0]), allowed)
    try:
        table = pd.read_parquet(folder / "table.parquet")
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("embeddings", "sketches")]
    except (OSError, ValueError) as error:
        raise InputError(field, str(folder), f"well-formed score files ({error})") from error
    for name, array in zip(("embeddings", "sketches"), arrays, strict=True):
        if array.ndim != 2 or len(array) != len(table):
            reject(field, f"{folder}: {name} of shape {array.shape}", f"({len(table)}, size): one per row")
    absent = [name for name in TABLE if name not in table]
    if absent:
        allowed = f"the columns {', '.join(TABLE)} (run the same `datadose score` again)"
        reject(field, f"{folder}: table without {absent[0]}", allowed)
    return Scores(table, arrays[0], arrays[1], manifest, folder)
