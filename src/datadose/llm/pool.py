"""A pool of examples for a language model: JSONL or parquet, read strictly.

A row holds ``prompt`` and ``completion`` (both strings, or both lists of messages), or ``messages``, whose
last one is the assistant's and becomes the completion. ``id`` and ``answer`` are optional. Every row has the
same kind of value in a column: a reader that casts (3 and "3" become one type) would change data unsaid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from datadose.errors import InputError, reject
from datadose.extras import require_extra
from datadose.files import refuse_constant

Message: TypeAlias = dict[str, str]
"""A role and its content, under these names."""
Text: TypeAlias = str | list[Message]
"""A string, or the messages of a conversation."""

COLUMNS = "prompt and completion (two strings or two lists of messages), or messages"


@dataclass(frozen=True)
class Row:
    """One example. ``line`` counts from 1: the line of a JSONL file, the row of a parquet file."""

    id: str
    prompt: Text
    completion: Text
    columns: dict[str, Any]
    """The row as it was read."""
    line: int

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
        content = json.dumps([self.prompt, self.completion], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def read_pool(path: Path, field: str = "pool") -> list[Row]:
    """The rows of a ``.jsonl`` or ``.parquet`` file, in order.

    ``field`` is how errors call the file. An empty completion is kept: scoring marks and counts it.

    Raises InputError, with the line: malformed JSON, a row that is no object, missing columns, a column of
    mixed types, prompts or messages of another form, duplicate ids; or a file that is missing or empty.
    """
    rows: list[Row] = []
    kinds: dict[str, tuple[str, int]] = {}
    known: dict[str, int] = {}
    for line, columns in _records(path, field):
        where = f"{path}, line {line}"
        _check_kinds(columns, kinds, line, field, where)
        prompt, completion = _split(columns, field, where)
        id_ = _identity(columns, line, field, where)
        if id_ in known:
            reject(field, f"{where}: id {id_}", f"ids that differ (line {known[id_]} has the same)")
        known[id_] = line
        rows.append(Row(id_, prompt, completion, columns, line))
    if not rows:
        reject(field, str(path), f"at least one row with {COLUMNS}")
    return rows


def _records(path: Path, field: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix not in (".jsonl", ".parquet"):
        reject(field, str(path), "a .jsonl or .parquet file")
    if not path.is_file():
        reject(field, str(path), "an existing file")
    yield from _parquet(path, field) if path.suffix == ".parquet" else read_jsonl(path, field)


def read_jsonl(path: Path, field: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) for the lines of a JSONL file that are not blank; InputError with the line."""
    with path.open("rb") as handle:
        for line, raw in enumerate(handle, start=1):
            if not raw.strip():
                continue
            where = f"{path}, line {line}"
            try:
                columns = json.loads(raw.decode(), parse_constant=refuse_constant)
            except UnicodeDecodeError as error:
                raise InputError(field, where, f"UTF-8 (byte {error.start} of the line is not)") from error
            except json.JSONDecodeError as error:
                raise InputError(field, where, f"well-formed JSON ({error.msg})") from error
            except ArithmeticError as error:
                raise InputError(field, f"{where} with {error}", "JSON numbers (NaN is none)") from error
            if not isinstance(columns, dict):
                reject(field, f"{where}: {type(columns).__name__}", f"an object with {COLUMNS}")
            yield line, columns


def _parquet(path: Path, field: str) -> Iterator[tuple[int, dict[str, Any]]]:
    require_extra("llm", "pyarrow")
    from pyarrow import ArrowInvalid, parquet  # noqa: PLC0415

    try:
        table = parquet.read_table(path)
    except (ArrowInvalid, OSError) as error:
        raise InputError(field, str(path), f"a well-formed parquet file ({error})") from error
    line = 0
    for batch in table.to_batches(max_chunksize=1024):
        for columns in batch.to_pylist():
            line += 1
            try:
                json.dumps(columns, allow_nan=False)
            except (TypeError, ValueError) as error:
                where = f"{path}, row {line}"
                raise InputError(field, where, f"values that JSON has ({error})") from error
            yield line, columns


def kind_of(value: Any) -> str:
    """The kind of a column's value, which all its rows share: whole and decimal numbers are one."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return "number" if number else type(value).__name__


def _check_kinds(
    columns: dict[str, Any], kinds: dict[str, tuple[str, int]], line: int, field: str, where: str
) -> None:
    """Null goes with every type."""
    for name, value in columns.items():
        if value is None:
            continue
        kind = kind_of(value)
        first, seen = kinds.setdefault(name, (kind, line))
        if kind != first:
            allowed = f"{first}, as in line {seen}: one type per column"
            reject(field, f"{where}: column {name} is {kind}", allowed)


def _split(columns: dict[str, Any], field: str, where: str) -> tuple[Text, Text]:
    """Prompt and completion of a row."""
    if columns.get("prompt") is not None or columns.get("completion") is not None:
        missing = [name for name in ("prompt", "completion") if columns.get(name) is None]
        if missing:
            reject(field, f"{where}: no {missing[0]}", COLUMNS)
        prompt, completion = columns["prompt"], columns["completion"]
        if isinstance(prompt, str) and isinstance(completion, str):
            if not prompt.strip():
                reject(field, f"{where}: empty prompt", "a prompt with text")
            return prompt, completion
        prompt = _messages(prompt, "prompt", field, where)
        completion = _messages(completion, "completion", field, where)
        if len(completion) != 1 or completion[0]["role"] != "assistant":
            reject(field, f"{where}: completion", "one message of the assistant")
        return prompt, completion
    if columns.get("messages") is None:
        reject(field, f"{where}: columns {', '.join(columns) or 'none'}", COLUMNS)
    messages = _messages(columns["messages"], "messages", field, where)
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        reject(field, f"{where}: messages", "at least two messages, the last one of the assistant")
    return messages[:-1], messages[-1:]


def _messages(value: Any, name: str, field: str, where: str) -> list[Message]:
    allowed = "a list of messages {role, content}, both strings"
    if isinstance(value, str):
        reject(field, f"{where}: {name} is a string", f"{allowed}, since the other one is")
    if not isinstance(value, list) or not value:
        reject(field, f"{where}: {name}", allowed)
    for message in value:
        if not isinstance(message, dict) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            reject(field, f"{where}: {name} has {json.dumps(message, default=str)[:80]}", allowed)
    return [{"role": m["role"], "content": m["content"]} for m in value]


def _identity(columns: dict[str, Any], line: int, field: str, where: str) -> str:
    id_ = columns.get("id")
    if id_ is None:
        return f"row-{line}"
    if isinstance(id_, bool) or not isinstance(id_, (str, int)):
        reject(field, f"{where}: id {id_}", "a string or an integer")
    return str(id_)
