"""A scores folder: what was measured on a pool, written whole and read without parsing it all.

``rows.jsonl`` is for people and scripts: every row with all its columns and what was measured on it.
``table.parquet`` holds the numbers again, with each row's byte offset in ``rows.jsonl``; the two arrays are
memory-mapped. So a selection among a million rows reads numbers only, and full rows only of what it chose.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datadose.errors import InputError, reject
from datadose.extras import require_extra
from datadose.files import prepare_folder, read_json, write_atomic, write_json

MEASURED: dict[str, str] = {
    "nll": "float64",
    "tokens": "Int64",
    "pass_rate": "float64",
    "pass_rate_total": "Int64",
    "pass_rate_passed": "Int64",
    "pass_rate_low": "float64",
    "pass_rate_high": "float64",
    "label_passes": "boolean",
    "own_completion": "string",
    "own_confidence": "float64",
    "own_differs": "boolean",
    "issue": "string",
}
"""Columns that scoring adds to a row, and their types in the table (null where not measured)."""

TABLE: dict[str, str] = {
    "id": "string",
    "question_hash": "int64",
    **{name: kind for name, kind in MEASURED.items() if name != "own_completion"},
    "offset": "int64",
}
"""Columns of ``table.parquet`` and their types."""

FILES = ("rows.jsonl", "table.parquet", "embeddings.npy", "sketches.npy", "manifest.json")


@dataclass(frozen=True)
class Scores:
    """A scored pool of N rows."""

    table: pd.DataFrame
    """N rows with the columns of TABLE, in the pool's order."""
    embeddings: NDArray[np.float32]
    """(N, H), mean hidden states; a row of NaN where none was measured. May be a memory map."""
    sketches: NDArray[np.float32]
    """(N, D), sketches of the last layer's gradient, summed over tokens; NaN rows likewise."""
    manifest: dict[str, Any]
    folder: Path | None = None

    def lines(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """The full rows at ``indices``, in that order, read from ``rows.jsonl``."""
        return [json.loads(line) for line in self.raw_lines(indices)]

    def raw_lines(self, indices: Iterable[int]) -> Iterator[bytes]:
        """The same as they stand in the file, one at a time."""
        if self.folder is None:
            msg = "scores without a folder have no rows to read"
            raise ValueError(msg)
        offsets = self.table["offset"].to_numpy()
        with (self.folder / "rows.jsonl").open("rb") as handle:
            for index in indices:
                handle.seek(int(offsets[index]))
                yield handle.readline()


def hash_question(question: str) -> int:
    """A 64-bit hash of a folded question, the same in every process."""
    return int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big", signed=True)


def write_scores(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    ids: Sequence[str],
    questions: Sequence[str],
    embeddings: NDArray[np.float32],
    sketches: NDArray[np.float32],
    manifest: dict[str, Any],
) -> Scores:
    """Write a scores folder; the manifest last, so that a folder with one is complete.

    ``rows`` are the pool's rows with the columns of MEASURED added; ``ids`` and ``questions`` (as
    :class:`~datadose.llm.pool.Row` gives them) identify each.
    """
    require_extra("llm", "pyarrow")
    prepare_folder("out", folder)
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n" for row in rows]
    lengths = np.array([len(line) for line in lines], dtype=np.int64)
    measured = {name: [row[name] for row in rows] for name in MEASURED if name != "own_completion"}
    table = pd.DataFrame(
        {
            "id": list(ids),
            "question_hash": [hash_question(q) for q in questions],
            **measured,
            "offset": np.concatenate([[0], np.cumsum(lengths)[:-1]]),
        }
    ).astype(TABLE)
    (folder / "manifest.json").unlink(missing_ok=True)
    write_atomic(folder / "rows.jsonl", b"".join(lines))
    write_atomic(folder / "table.parquet", table.to_parquet(index=False))
    for name, array in (("embeddings", embeddings), ("sketches", sketches)):
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array, dtype=np.float32))
        write_atomic(folder / f"{name}.npy", buffer.getvalue())
    write_json(folder / "manifest.json", manifest)
    return read_scores(folder)


def read_scores(folder: Path, field: str = "scores") -> Scores:
    """The scores in ``folder``, arrays memory-mapped.

    Raises InputError for a folder that ``datadose score`` has not finished, or whose files do not fit.
    """
    require_extra("llm", "pyarrow")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        reject(field, str(folder), f"a folder that `datadose score` has written ({missing[0]} is missing)")
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
        reject(field, f"{folder}: table without {absent[0]}", f"the columns {', '.join(TABLE)}")
    return Scores(table, arrays[0], arrays[1], read_json(folder / "manifest.json"), folder)
