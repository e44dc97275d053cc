"""What scoring keeps on disk while it runs: token ids, vectors and verdicts, which memory could not hold.

The files have no names: they end with the process, however that ends. In memory remain a few numbers a row.
Reading and writing go by offsets, not by memory maps, whose pages would count as the process's memory.
"""

from __future__ import annotations

import json
import tempfile
import threading
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from datadose.errors import RunError
from datadose.llm.cache import Record
from datadose.llm.chat import Encoded
from datadose.llm.scores import Vectors

_CHUNK = 2**20
"""Numbers that are read together."""


class _ScratchFile:
    """A file in ``folder`` that is open for reading and writing; as a context, it is closed at the end."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.size, self._lock = folder, 0, threading.Lock()
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise self._refused(error) from error

    def append(self, content: bytes) -> int:
        """Write ``content`` at the end; returns where it begins. RunError if it cannot be written."""
        place = self.size
        self.write(content, place)
        self.size += len(content)
        return place

    def write(self, content: bytes, place: int) -> None:
        """Write ``content`` at ``place``; RunError if it cannot be written."""
        try:
            with self._lock:
                self._file.seek(place)
                while content:
                    content = content[self._file.write(content) :]
        except OSError as error:
            raise self._refused(error) from error

    def read(self, place: int, size: int) -> bytes:
        """``size`` bytes from ``place`` on; several threads may read."""
        with self._lock:
            self._file.seek(place)
            return self._file.read(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _refused(self, error: OSError) -> RunError:
        where = self.folder or "temporary files"
        return RunError(f"{where}: could not be written ({error.strerror or error})")


class TokenFile(_ScratchFile):
    """Token ids of distinct rows with one completion, found by the rows' keys."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.numbers: dict[str, int] = {}
        """Of each key its number, from 0 in the order of :meth:`add`."""
        self.lengths, self.starts, self.targets = array("I"), array("I"), array("I")
        """By number: all tokens, those before the first scored one, and those that are scored."""
        self._places, self._masked = array("Q"), array("B")

    def add(self, key: str, row: Encoded, targets: int) -> int:
        """Keep the ids of a row that is not there yet, of which ``targets`` tokens are scored.

        Returns its number. What the template leaves out (``row.issue``) is not kept.
        """
        content = row.ids.tobytes() + (b"" if row.scored is None else row.scored.tobytes())
        self._places.append(self.append(content))
        self._masked.append(row.scored is not None)
        self.starts.append(row.start)
        self.lengths.append(row.length)
        self.targets.append(targets)
        return self.numbers.setdefault(key, len(self.numbers))

    def __getitem__(self, number: int) -> Encoded:
        place, length = self._places[number], self.lengths[number]
        ids = np.frombuffer(self.read(place, 4 * length), dtype=np.int32)
        scored = None
        if self._masked[number]:
            scored = np.frombuffer(self.read(place + 4 * length, length), dtype=np.bool_)
        return Encoded(ids, self.starts[number], scored)


class VectorFile(_ScratchFile):
    """Vectors (rows, width) float32 on disk, written row by row in any order; NaN where none was."""

    def __init__(self, folder: Path, rows: int, width: int) -> None:
        super().__init__(folder)
        self.shape = (rows, width)
        self._known = np.zeros(rows, dtype=np.bool_)

    def put(self, places: NDArray[np.int64], vector: NDArray[np.float32]) -> None:
        """Write ``vector`` (width,) at each of ``places``."""
        content = np.ascontiguousarray(vector, dtype=np.float32).tobytes()
        for place in places.tolist():
            self.write(content, place * len(content))
        self._known[places] = True

    def at(self, places: NDArray[np.int64]) -> Vectors:
        """The rows at ``places``, in that order."""
        return Vectors((len(places), self.shape[1]), self._chunks(places))

    def _chunks(self, places: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        width = self.shape[1]
        step = max(1, _CHUNK // width)
        for start in range(0, len(places), step):
            part = places[start : start + step]
            found = np.full((len(part), width), np.nan, dtype=np.float32)
            for i in np.flatnonzero(self._known[part]).tolist():
                found[i] = np.frombuffer(self.read(int(part[i]) * 4 * width, 4 * width), dtype=np.float32)
            yield found


class RecordFile(_ScratchFile, Sequence[Record]):
    """Records of rows on disk, as JSON: of each row the one that was added last, or all in their order."""

    def __init__(self, folder: Path | None, rows: int) -> None:
        super().__init__(folder)
        self._last = np.full((rows, 2), -1, dtype=np.int64)
        """Where the last record of each row begins, and its size."""

    def add(self, place: int, record: Record) -> None:
        """Write a record of the row at ``place``."""
        content = json.dumps([*self._last[place].tolist(), record]).encode()
        self._last[place] = self.append(content), len(content)

    def all(self, place: int) -> list[Record]:
        """The records of a row in the order in which they were added."""
        found = []
        start, size = self._last[place].tolist()
        while start >= 0:
            start, size, record = json.loads(self.read(start, size))
            found.append(record)
        return found[::-1]

    def __len__(self) -> int:
        return len(self._last)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        start, size = self._last[index].tolist()
        if start < 0:
            return {}
        found: Record = json.loads(self.read(start, size))[2]
        return found
