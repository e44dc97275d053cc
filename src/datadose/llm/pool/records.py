"""Files of a pool, record by record: JSON lines, JSON, CSV and parquet, each alone or compressed by gzip."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from datadose.errors import InputError, reject
from datadose.llm.parquet import read_parquet
from datadose.llm.pool.row import BadRowError, Columns
from datadose.llm.pool.values import make_writable
from datadose.reading import NotJSONError, check_file, load_json

LARGEST_JSON = 2**32
"""Bytes of a .json file, which is read whole."""
LONGEST_FIELD = 2**31 - 1
"""Characters of a field of a CSV file."""

_LISTS = ("data", "rows", "examples", "instances", "train")
"""Keys under which a JSON document may have its rows."""


@dataclass(frozen=True)
class Record:
    """One row as its file has it."""

    line: int
    """The number of the row, from 1, within its shard."""
    place: str
    """The place of the row, in words."""
    columns: Columns
    fault: BadRowError | None = None
    troubles: dict[str, str] = field(default_factory=dict)
    """What JSON cannot hold, by column, and is text or null in ``columns``."""
    shard: int = 0


def kind_of_file(path: Path) -> str | None:
    """The suffix that decides how ``path`` is read, None if it is no file of a pool."""
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    suffix = ".jsonl" if suffix == ".ndjson" else suffix
    return suffix if suffix in _READERS and (suffix != ".parquet" or path.suffix != ".gz") else None


def read_file(path: Path, field: str) -> Iterator[Record]:
    """The records of one file of a pool.

    Raises InputError, which names ``field``, if it cannot be read at all.
    """
    suffix = kind_of_file(path)
    kind = f"a {KINDS} file"
    if suffix is None:
        reject(field, str(path), kind)
    check_file(field, path, kind)
    with _readable(path, field):
        yield from _READERS[suffix](path, field)


@contextlib.contextmanager
def _readable(path: Path, field: str) -> Iterator[None]:
    """InputError, which calls the file ``field``, for what breaks off reading it."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(field, str(path), f"a file that can be read ({reason})") from error


def read_jsonl(path: Path, field: str) -> Iterator[tuple[int, Columns]]:
    """Pairs (line, object) of the lines of a JSONL file that are not blank; lines count from 1.

    Raises InputError, which names ``field`` and the line, at a bad one.
    """
    with _readable(path, field):
        for record in _json_lines(path, field):
            fault = record.fault
            if fault is None and record.troubles:
                name, trouble = next(iter(record.troubles.items()))
                fault = BadRowError(
                    "unwritable value", f"column {name} has {trouble}", "values that JSON has"
                )
            if fault is not None:
                found = f"{path}, line {record.line}: {fault.found}"
                raise InputError(field, found, fault.allowed) from fault
            yield record.line, record.columns


def _open(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _json_lines(path: Path, _: str) -> Iterator[Record]:
    with _open(path) as handle:
        for line, raw in enumerate(handle, start=1):
            if not raw.strip():
                continue
            try:
                columns = _parse(raw, "utf-8-sig" if line == 1 else "utf-8")
            except BadRowError as fault:
                yield Record(line, f"line {line}", {}, fault)
            else:
                yield Record(line, f"line {line}", columns, troubles=make_writable(columns))


def _parse(raw: bytes, encoding: str) -> Columns:
    """The object in a line."""
    try:
        columns = load_json(raw.decode(encoding), writable=False)
    except UnicodeDecodeError as error:
        raise BadRowError("not text", f"byte {error.start + 1} of the line is not UTF-8", "UTF-8") from error
    except NotJSONError as error:
        raise BadRowError("not JSON", error.found, error.allowed) from error
    if not isinstance(columns, dict):
        raise BadRowError("no object", type(columns).__name__, "an object with the columns of a row")
    return columns


def _json_document(path: Path, field: str) -> Iterator[Record]:
    """The rows in a list, in a list under a usual key of an object or, as in many files, one a line."""
    with _open(path) as handle:
        content = handle.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        reject(field, str(path), f"a .json file of at most {LARGEST_JSON:,} bytes (.jsonl may be larger)")
    try:
        text = content.decode("utf-8-sig")
        document = load_json(text, writable=False)
    except UnicodeDecodeError as error:
        raise InputError(field, f"{path}: byte {error.start + 1} is not UTF-8", "a file in UTF-8") from error
    except NotJSONError as error:
        if text.lstrip()[:1] == "{" and _is_object(text.lstrip().split("\n", 1)[0]):
            yield from _json_lines(path, field)
            return
        raise InputError(field, f"{path}{error.line}: {error.found}", error.allowed) from error
    if isinstance(document, dict):
        lists = [document[name] for name in _LISTS if isinstance(document.get(name), list)]
        document = lists[0] if len(lists) == 1 else [document]
    if not isinstance(document, list):
        reject(field, f"{path}: {type(document).__name__}", "a list of objects")
    for number, columns in enumerate(document, start=1):
        place = f"row {number}"
        if isinstance(columns, dict):
            yield Record(number, place, columns, troubles=make_writable(columns))
        else:
            fault = BadRowError("no object", type(columns).__name__, "an object with the columns of a row")
            yield Record(number, place, {}, fault)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _csv(path: Path, field: str) -> Iterator[Record]:
    """Rows of text: nothing is taken for a number, and an empty field is null."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        # What is not UTF-8 becomes half characters, which no text has otherwise: found row by row.
        with io.TextIOWrapper(_open(path), "utf-8-sig", "surrogateescape", newline="") as handle:
            rows = csv.reader(handle, strict=True)
            header = next(rows, None)
            if header is not None and (len(set(header)) < len(header) or "\0" in "".join(header)):
                reject(
                    field, f"{path}: header {', '.join(header)}", "a first row with each name once, in UTF-8"
                )
            for number, values in enumerate(rows, start=1):
                if values:
                    yield _csv_row(number, header or [], values)
    except csv.Error as error:
        raise InputError(field, f"{path}: {error}", "a well-formed CSV file") from error
    finally:
        csv.field_size_limit(before)


def _csv_row(number: int, header: list[str], values: list[str]) -> Record:
    place = f"row {number}"
    columns: Columns = {name: value or None for name, value in zip(header, values, strict=False)}
    if len(values) != len(header):
        found = f"{len(values)} fields"
        return Record(
            number, place, columns, BadRowError("malformed row", found, f"{len(header)}, as the header")
        )
    for name, value in columns.items():
        if value is not None and not value.isascii() and any("\udc80" <= c <= "\udcff" for c in value):
            columns[name] = None
            return Record(number, place, columns, BadRowError("not text", f"{name} is not UTF-8", "UTF-8"))
    return Record(number, place, columns)


def _parquet(path: Path, field: str) -> Iterator[Record]:
    return from_arrow(read_parquet(path, field))


def from_arrow(rows: Iterator[tuple[dict[str, Any], dict[str, str]]]) -> Iterator[Record]:
    """Records of rows as :func:`~datadose.llm.parquet.read_parquet` gives them."""
    for number, (columns, troubles) in enumerate(rows, start=1):
        yield Record(number, f"row {number}", columns, troubles=troubles | make_writable(columns))


_READERS: dict[str, Callable[[Path, str], Iterator[Record]]] = {
    ".jsonl": _json_lines,
    ".json": _json_document,
    ".csv": _csv,
    ".parquet": _parquet,
}
KINDS = ".jsonl, .json, .csv (each also .gz) or .parquet"
