"""Samples of prompts on disk: what was drawn once is never drawn again, and its texts take no memory.

Samples belong to a prompt and an index, not to a run: a run for more of them finds the earlier ones. They are
appended to a file of the run as soon as a prompt has them, each line with a digest of its own, so that a kill
loses what was under way and nothing else, and a changed line is noticed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from datadose.errors import RunError
from datadose.files import atomic_file, prepare_folder, write_json
from datadose.llm.cache import content_digest
from datadose.printing import note

OWN = -1
"""The index of a prompt's greedy completion, beside samples 0, 1, 2, ..."""

_DIGEST = 16
"""Hexadecimal digits at the beginning of a line."""


@dataclass(frozen=True)
class Drawn:
    """One completion of a prompt: the sample ``index``, or the greedy one (``OWN``)."""

    index: int
    text: str | None
    """The text; None for a completion that could not be drawn, and then ``finish`` is the reason."""
    finish: str
    """``stop``, or ``length`` for one that was cut by the limit of tokens."""
    confidence: float | None = None
    """The geometric mean of the probabilities of the greedy one's tokens, in (0, 1]."""


class SampleStore:
    """All samples of one setting, under ``folder``/.cache.

    ``settings`` are all that a sample depends on beside its prompt and its index. Prompts are called by keys
    of 64 hexadecimal digits. Memory holds their places in the files and which samples are there.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path = folder / ".cache" / f"samples-{content_digest(settings)[:16]}"
        prepare_folder("out", self.path)
        write_json(self.path / "settings.json", settings)
        self._places: dict[bytes, list[tuple[int, int]]] = {}
        self._kept: dict[bytes, int] = {}
        self._readers: list[BinaryIO] = []
        self._writer: FileIO | None = None
        self._reading = threading.Lock()
        """Verifiers read from several threads."""
        self._read()

    def missing(self, key: str, indices: Iterable[int]) -> tuple[int, ...]:
        """The ``indices`` of the prompt ``key`` that are not in the store."""
        kept = self._kept.get(bytes.fromhex(key), 0)
        return tuple(index for index in indices if not kept >> (index + 2) & 1)

    def unsure(self, key: str) -> bool:
        """Whether the prompt has a greedy completion whose confidence is not known."""
        return self._kept.get(bytes.fromhex(key), 0) & 0b11 == 0b10

    def add(self, drawn: Mapping[str, Sequence[Drawn]]) -> None:
        """Keep completions by their prompts' keys, those that were had: all of them or none.

        Of one index twice, the later counts. Raises RunError if they cannot be written.
        """
        had = {key: [one for one in ones if one.text is not None] for key, ones in drawn.items()}
        had = {key: ones for key, ones in had.items() if ones}
        if not had:
            return
        lines = [_line([key, [astuple(one) for one in ones]]) for key, ones in had.items()]
        content = b"".join(lines)
        try:
            if self._writer is None:
                name = f"{time.time_ns():020d}-{os.getpid()}.log"
                self._writer = (self.path / name).open("xb", buffering=0)
                self._readers.append((self.path / name).open("rb"))
            place = self._writer.tell()
            if self._writer.write(content) != len(content):
                self._writer.truncate(self._writer.seek(place))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            msg = f"{self.path}: could not be written ({error.strerror or error})"
            raise RunError(msg) from error
        for (key, ones), line in zip(had.items(), lines, strict=True):
            self._note(key, ones, (len(self._readers) - 1, place))
            place += len(line)

    def get(self, key: str) -> dict[int, Drawn]:
        """The completions of the prompt ``key`` by index, read from disk."""
        found: dict[int, Drawn] = {}
        for reader, place in self._places.get(bytes.fromhex(key), []):
            handle = self._readers[reader]
            with self._reading:
                handle.seek(place)
                line = handle.readline()
            if not _is_whole(line):
                msg = f"{self.path}: changed while it was in use; run the same command again"
                raise RunError(msg)
            found.update({one[0]: Drawn(*one) for one in json.loads(_body(line))[1]})
        return found

    def close(self) -> None:
        """Close the files; what was added is on the disk then, and not in the system's memory only."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._writer.fileno())
            self._writer.close()
            self._writer = None
        for handle in self._readers:
            handle.close()

    def _note(self, key: str, drawn: Iterable[Drawn], place: tuple[int, int]) -> None:
        short = bytes.fromhex(key)
        self._places.setdefault(short, []).append(place)
        kept = self._kept.get(short, 0)
        for one in drawn:
            kept |= 1 << (one.index + 2)
            if one.index == OWN:
                kept = kept | 1 if one.confidence is not None else kept & ~1
        self._kept[short] = kept

    def _read(self) -> None:
        damaged = 0
        for path in sorted(self.path.glob("*.log")):
            if bad := sum(not _is_whole(line) for _, line in _lines(path)):
                damaged += bad
                # Written again without them, so that they occur once.
                with atomic_file(path) as handle:
                    handle.writelines(line for _, line in _lines(path) if _is_whole(line))
            self._readers.append(path.open("rb"))
            for place, line in _lines(path):
                key, drawn = json.loads(_body(line))
                self._note(key, [Drawn(*one) for one in drawn], (len(self._readers) - 1, place))
        if damaged:
            what = f"{damaged} damaged lines of kept samples in {self.path}"
            note(f"{what} are dropped; they are drawn again")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Place and bytes of each line; the last one may be cut by a kill, which is no damage."""
    place = 0
    with path.open("rb") as handle:
        for line in handle:
            if line.endswith(b"\n"):
                yield place, line
            place += len(line)


def _line(content: list[Any]) -> bytes:
    body = json.dumps(content).encode()
    return hashlib.sha256(body).hexdigest()[:_DIGEST].encode() + b" " + body + b"\n"


def _body(line: bytes) -> bytes:
    return line[_DIGEST + 1 : -1]


def _is_whole(line: bytes) -> bool:
    """Whether a line is as it was written."""
    return hashlib.sha256(_body(line)).hexdigest()[:_DIGEST].encode() == line[:_DIGEST]
