"""Results of a long run, batch by batch on disk: a killed run loses one batch at most.

A stage (losses, samples, verdicts) has a folder named by the digest of all settings its results depend on,
and in it one file per finished batch, written whole or not at all and named by the digest of its content: a
file that is cut or changed is noticed. Results belong to rows, not to batches: a pool that has grown has only
its new rows computed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from datadose.files import prepare_folder, write_atomic, write_json
from datadose.printing import note

Record: TypeAlias = dict[str, Any]
"""What is known of a row: JSON values, and numpy vectors (the same names and shapes for every row)."""


def content_digest(content: Any) -> str:
    """sha256 of ``content`` as JSON (64 hexadecimal digits)."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def text_hash(text: str) -> int:
    """A 64-bit number from ``text``, the same in every process; a lone surrogate is no fault."""
    digest = hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class BatchCache:
    """The finished batches of one stage under ``folder``/.cache."""

    def __init__(self, folder: Path, stage: str, settings: dict[str, Any]) -> None:
        self.path = folder / ".cache" / f"{stage}-{content_digest(settings)[:16]}"
        prepare_folder("out", self.path)
        write_json(self.path / "settings.json", settings)

    def run(
        self,
        batches: Sequence[Sequence[str]],
        compute: Callable[[Sequence[list[str]]], Iterable[tuple[int, list[Record]]]],
        keep: Callable[[str, Record], None],
        report: Callable[[list[str]], None],
    ) -> None:
        """Find the records of all keys in ``batches``, those on disk read, the others computed and written.

        ``keep`` gets each key once, with its record; vectors in it are to be copied out, as each is a part of
        its batch's array. ``compute`` gets all batches of missing keys, and gives the place of each batch
        among them and one record per key, in any order of batches; ``report`` is called with the keys found
        at the start, then with those of each finished batch. Raises RunError if a batch cannot be written.
        """
        found = self._read({key for batch in batches for key in batch}, keep)
        report(list(found))
        missing = [left for batch in batches if (left := [key for key in batch if key not in found])]
        for place, values in compute(missing):
            records = dict(zip(missing[place], values, strict=True))
            content = _pack(records)
            write_atomic(self.path / f"{_name(content)}.npz", content)
            for key, record in records.items():
                keep(key, record)
            report(missing[place])

    def remove(self) -> None:
        """Remove the files of this stage."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _read(self, wanted: set[str], keep: Callable[[str, Record], None]) -> set[str]:
        found: set[str] = set()
        damaged = []
        for name in sorted(path.name for path in self.path.iterdir() if path.suffix == ".npz"):
            path, content = self.path / name, b""
            with contextlib.suppress(OSError):
                content = path.read_bytes()
            if _name(content) != path.stem:
                damaged.append(path)
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            for key, record in _unpack(content).items():
                if key in wanted and key not in found:
                    keep(key, record)
                    found.add(key)
        if damaged:
            what = f"{len(damaged)} damaged files of finished batches in {self.path}"
            note(f"{what} are dropped; their rows are computed again")
        return found


def _name(content: bytes) -> str:
    """A file's name, from its content."""
    return hashlib.sha256(content).hexdigest()[:32]


def _pack(records: dict[str, Record]) -> bytes:
    """An .npz file: the JSON values of all records in one string, each vector's name with an array."""
    first = next(iter(records.values()))
    vectors = [name for name, value in first.items() if isinstance(value, np.ndarray)]
    values = {
        key: {name: value for name, value in record.items() if name not in vectors}
        for key, record in records.items()
    }
    arrays: dict[str, Any] = {name: np.stack([one[name] for one in records.values()]) for name in vectors}
    text = np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, records=text, **arrays)
    return buffer.getvalue()


def _unpack(content: bytes) -> dict[str, Record]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    records: dict[str, Record] = json.loads(arrays.pop("records").tobytes())
    for place, record in enumerate(records.values()):
        record.update({name: array[place] for name, array in arrays.items()})
    return records
