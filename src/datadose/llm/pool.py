"""A pool of examples for a language model: JSONL or parquet, read strictly, with one fault per bad row.

A row holds ``prompt`` and ``completion`` (both strings, or both lists of messages), or ``messages``, whose
last one is the assistant's and becomes the completion. ``id`` and ``answer`` are optional. Every row has the
same kind of value in a column, that of most rows: a reader that casts (3 and "3" become one type) would
change data unsaid. What JSON cannot hold (infinities, half a character) is found here, before any work.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from datadose.errors import InputError, reject
from datadose.llm.cache import content_digest
from datadose.llm.parquet import read_parquet
from datadose.reading import NotJSONError, check_file, load_json

Message: TypeAlias = dict[str, str]
"""A role and its content, under these names."""
Text: TypeAlias = str | list[Message]
"""A string, or the messages of a conversation."""

Columns: TypeAlias = dict[str, Any]
"""A row by the names of its columns."""

COLUMNS = "prompt and completion (two strings or two lists of messages), or messages"
DEEPEST = 100
"""Lists and objects inside each other, at most: readers and writers of JSON give up at some depth."""


class BadRowError(ValueError):
    """What is wrong with one row: its kind in two or three words, what was found, what is allowed."""

    def __init__(self, kind: str, found: str, allowed: str) -> None:
        self.kind, self.found, self.allowed = kind, " ".join(found.split()), allowed
        super().__init__(f"{kind}: {self.found}; allowed: {allowed}")


@dataclass(frozen=True)
class Row:
    """One example. ``line`` counts from 1: the line of a JSONL file, the row of a parquet file."""

    id: str
    prompt: Text
    completion: Text
    columns: Columns
    """The row as it was read; without what cannot be written back (null then, with an ``issue``)."""
    line: int
    issue: str | None = None
    """Why the row cannot be used, with its line; ``prompt`` and ``completion`` are empty then."""

    @property
    def question(self) -> str:
        """What deduplication compares: all that the user says, case and white space folded."""
        if isinstance(self.prompt, str):
            text = self.prompt
        else:
            said = [m["content"] for m in self.prompt if m["role"] == "user"]
            text = " ".join(said or [m["content"] for m in self.prompt])
        return " ".join(text.split()).casefold()

    @property
    def completion_text(self) -> str:
        """The completion's text without its message's frame."""
        return self.completion if isinstance(self.completion, str) else self.completion[-1]["content"]

    @property
    def answer(self) -> str:
        """The column ``answer`` if there is one, else the completion's text."""
        answer = self.columns.get("answer")
        return self.completion_text if answer is None else str(answer)

    @property
    def key(self) -> str:
        """A digest of prompt and completion (64 hexadecimal digits): equal content, equal key."""
        return content_digest([self.prompt, self.completion])


def read_pool(path: Path, field: str = "pool", *, mark: bool = False) -> list[Row]:
    """The rows of a ``.jsonl`` or ``.parquet`` file, in order.

    ``field`` is how errors call the file. A row is bad if it is malformed JSON, not UTF-8, no object, without
    the columns it needs, of another type in a column than most rows, with prompts or messages of another
    form, with values that cannot be written back, or has the id of an earlier row. With ``mark`` such rows
    are kept, with an ``issue``; else the first of them is an error. An empty completion is no fault here:
    scoring marks and counts it.

    Raises InputError for a bad row, or with ``mark`` for a file without a single good one; and for a file
    that is missing, empty, no file of its kind, or cannot be read.
    """
    records = list(_records(path, field))
    if not records:
        reject(field, str(path), f"at least one row with {COLUMNS}")
    kinds = _kinds(records)
    rows: list[Row] = []
    known: dict[str, int] = {}
    first_fault: InputError | None = None
    for line, columns, fault in records:
        try:
            if fault is not None:
                raise fault
            _check_kinds(columns, kinds)
            prompt, completion = _split(columns)
            id_ = _identity(columns, line)
            if id_ in known:
                allowed = f"ids that differ (line {known[id_]} has the same)"
                raise BadRowError("repeated id", f"id {id_}", allowed)
        except BadRowError as bad:
            place = f"{'line' if path.suffix == '.jsonl' else 'row'} {line}"
            error = InputError(field, f"{path}, {place}: {bad.found}", bad.allowed)
            if not mark:
                raise error from bad
            first_fault = first_fault or error
            issue = f"{bad.kind}: {place}: {bad.found}; allowed: {bad.allowed}"
            rows.append(Row(_label(columns, line), "", "", columns, line, issue))
        else:
            known[id_] = line
            rows.append(Row(id_, prompt, completion, columns, line))
    if first_fault is not None and not known:
        raise first_fault
    return rows


_Line: TypeAlias = tuple[int, Columns, BadRowError | None]
"""A line's number, its columns (as far as they could be read), and what is wrong with it."""


def _records(path: Path, field: str) -> Iterator[_Line]:
    if path.suffix not in (".jsonl", ".parquet"):
        reject(field, str(path), "a .jsonl or .parquet file")
    check_file(field, path, "a .jsonl or .parquet file")
    if path.suffix == ".jsonl":
        yield from _json_lines(path, field)
        return
    for line, (columns, trouble) in enumerate(read_parquet(path, field), start=1):
        fault = None if trouble is None else BadRowError("unreadable row", trouble, "values that JSON has")
        yield line, columns, fault or _clean(columns)


def read_jsonl(path: Path, field: str) -> Iterator[tuple[int, Columns]]:
    """(line, object) of a JSONL file's lines that are not blank; InputError, with the line, at a bad one."""
    for line, columns, fault in _json_lines(path, field):
        if fault is not None:
            raise InputError(field, f"{path}, line {line}: {fault.found}", fault.allowed) from fault
        yield line, columns


def _json_lines(path: Path, field: str) -> Iterator[_Line]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            for line, raw in enumerate(handle, start=1):
                if not raw.strip():
                    continue
                try:
                    columns = _parse(raw, "utf-8-sig" if line == 1 else "utf-8")
                except BadRowError as fault:
                    yield line, {}, fault
                else:
                    yield line, columns, _clean(columns)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(field, str(path), f"a file that can be read ({reason})") from error


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


def _clean(columns: Columns) -> BadRowError | None:
    """What cannot be written back, and is now null or missing in ``columns``; None if all can."""
    if _trouble(columns) is None:
        return None
    fault = None
    for name, value in list(columns.items()):
        if (trouble := _trouble([name, value])) is None:
            continue
        found = f"column {ascii(name)[1:-1]} has {trouble}"
        fault = fault or BadRowError("unwritable value", found, _WRITABLE)
        columns[name] = None
        if _trouble(name):
            del columns[name]
    return fault


_WRITABLE = f"values that JSON has (finite numbers, whole characters, at most {DEEPEST} levels)"


def _trouble(value: Any) -> str | None:
    """Why ``value`` cannot be written as JSON, None if it can."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        return "half a character (a lone surrogate)"
    except RecursionError:
        return "too many levels"
    except ValueError:
        return "a number without a finite value"
    except TypeError as error:
        return str(error)
    # Most rows hold fewer brackets than levels are allowed, in their texts and out of them.
    return "too many levels" if text.count("[") + text.count("{") > DEEPEST and _too_deep(value) else None


def _too_deep(value: Any) -> bool:
    """Whether more than DEEPEST lists and objects are inside each other."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [x for x in level if isinstance(x, (dict, list))]
        level = [inner for x in level for inner in (x.values() if isinstance(x, dict) else x)]
    return any(isinstance(x, (dict, list)) for x in level)


def kind_of(value: Any) -> str:
    """The kind of a column's value, which all its rows share: whole and decimal numbers are one."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return "number" if number else type(value).__name__


def _kinds(records: list[_Line]) -> dict[str, tuple[str, int]]:
    """By column the kind of most rows (the earlier one of two that are as frequent), and its first line."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    lines: dict[tuple[str, str], int] = {}
    for line, columns, _ in records:
        for name, value in columns.items():
            if value is not None:
                kind = kind_of(value)
                counts[name][kind] += 1
                lines.setdefault((name, kind), line)
    most = {name: max(found, key=found.__getitem__) for name, found in counts.items()}
    return {name: (kind, lines[name, kind]) for name, kind in most.items()}


def _check_kinds(columns: Columns, kinds: dict[str, tuple[str, int]]) -> None:
    """Null goes with every type."""
    for name, value in columns.items():
        if value is not None and kind_of(value) != kinds[name][0]:
            kind, seen = kinds[name]
            allowed = f"{kind}, as in line {seen}: one type per column"
            raise BadRowError("another type", f"column {name} is {kind_of(value)}", allowed)


def _malformed(found: str, allowed: str) -> NoReturn:
    raise BadRowError("malformed row", found, allowed)


def _split(columns: Columns) -> tuple[Text, Text]:
    """Prompt and completion of a row."""
    if columns.get("prompt") is not None or columns.get("completion") is not None:
        prompt, completion = columns.get("prompt"), columns.get("completion")
        if prompt is None or completion is None:
            missing = "no prompt" if prompt is None else "no completion"
            raise BadRowError(missing, missing, COLUMNS)
        if isinstance(prompt, str) and isinstance(completion, str):
            if not prompt.strip():
                raise BadRowError("empty prompt", "empty prompt", "a prompt with text")
            return prompt, completion
        prompt, completion = _messages(prompt, "prompt"), _messages(completion, "completion")
        if len(completion) != 1 or completion[0]["role"] != "assistant":
            _malformed("completion", "one message of the assistant")
        return prompt, completion
    if columns.get("messages") is None:
        _malformed(f"columns {', '.join(columns) or 'none'}", COLUMNS)
    messages = _messages(columns["messages"], "messages")
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        _malformed("messages", "at least two messages, the last one of the assistant")
    return messages[:-1], messages[-1:]


_SET_ASIDE = ("messages", "conversations", "text", "input_ids", "labels")
"""Columns that TRL would train on instead of prompt and completion."""


def for_trl(row: Columns) -> Columns:
    """The row with ``prompt`` and ``completion`` and without the columns that TRL would prefer to them."""
    messages = row.get("messages")
    if row.get("prompt") is None and messages is not None:
        row = {**row, "prompt": messages[:-1], "completion": messages[-1:]}
    return {name: value for name, value in row.items() if name not in _SET_ASIDE}


def _messages(value: Any, name: str) -> list[Message]:
    allowed = "a list of messages {role, content}, both strings"
    if isinstance(value, str):
        _malformed(f"{name} is a string", f"{allowed}, since the other one is")
    if not isinstance(value, list) or not value:
        _malformed(name, allowed)
    for message in value:
        if not isinstance(message, dict) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            _malformed(f"{name} has {json.dumps(message, default=str)[:80]}", allowed)
    return [{"role": m["role"], "content": m["content"]} for m in value]


def _identity(columns: Columns, line: int) -> str:
    id_ = columns.get("id")
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, (str, int))):
        _malformed(f"id {id_}", "a string or an integer")
    return _label(columns, line)


def _label(columns: Columns, line: int) -> str:
    """The row's id if it has a usable one, else a name from its line."""
    id_ = columns.get("id")
    usable = isinstance(id_, (str, int)) and not isinstance(id_, bool)
    return str(id_) if usable else f"row-{line}"
