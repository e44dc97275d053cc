"""From records to rows: read a pool whole, or keep it on disk and read row by row."""

from __future__ import annotations

import contextlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from datadose.errors import InputError, reject
from datadose.files import atomic_file, prepare_folder
from datadose.llm.cache import text_hash
from datadose.llm.pool.layouts import COLUMNS, Layout, final_form, find_answer, split, value_at
from datadose.llm.pool.messages import parsed
from datadose.llm.pool.records import Record
from datadose.llm.pool.row import BadRowError, Columns, Row, Text, malformed, text_of
from datadose.llm.pool.sources import Source, find_source
from datadose.llm.pool.survey import Survey, Understanding, label_of
from datadose.llm.pool.values import WRITABLE, without_nulls
from datadose.printing import note
from datadose.reading import exists

OPTIONS = "chat_template_kwargs"
"""The column of a row's own options of the chat template."""


def read_pool(
    path: Path | str,
    field: str = "pool",
    *,
    mark: bool = False,
    columns: Mapping[str, str] | None = None,
    several: bool = False,
    prompts_alone: bool = False,
    used: Collection[str] = (),
    tell: Callable[[str], None] = note,
) -> list[Row]:
    """The rows of a pool, in order.

    A row is bad if it is malformed JSON, not UTF-8, no object, without the columns that the layout of most
    rows needs, with prompts or messages of another form, with values in these columns that cannot be written
    back, or has the id of an earlier row. An empty completion is no fault here: scoring marks and counts it.

    Args:
        path: a file (``.jsonl``, ``.json``, ``.csv``, each also ``.gz``, ``.parquet``), a folder or glob of
            such files, or ``hf:owner/name[/config][:split]``.
        field: how errors call it.
        mark: whether bad rows are kept with an ``issue``; else the first of them is an error.
        columns: the column of each role that is not recognised by its name (see ``parse_columns``).
        several: whether ``columns`` are those of several files, and not used where this one lacks them.
        prompts_alone: whether most rows may have no completion.
        used: other columns that are read, in which a value that JSON does not have makes the row bad.
        tell: called with each line on how the rows were read, once they are.

    Raises InputError for a bad row, or with ``mark`` for a pool without a single good one; and for what is
    missing, empty, no pool, or cannot be read.
    """
    source = find_source(path, field)
    records = list(source.records())
    survey = _survey(field, columns, source, lambda: records, several=several)
    reader = _Reader(path, survey, prompts_alone=prompts_alone, mark=mark, used=used)
    rows = list(reader.rows(records))
    for line in reader.finish():
        tell(line)
    return rows


def open_pool(
    path: Path | str,
    folder: Path,
    field: str = "pool",
    *,
    columns: Mapping[str, str] | None = None,
    several: bool = False,
    prompts_alone: bool = True,
    reserved: Collection[str] = (),
) -> Pool:
    """The rows of a pool, bad ones marked, kept in a file of ``folder`` and not in memory.

    Args:
        path: as for :func:`read_pool`, with ``field``, ``columns`` and ``prompts_alone``.
        folder: where the rows are kept until :meth:`Pool.remove`.
        field: how errors call the pool.
        columns: the column of each role.
        several: whether ``columns`` are those of several files.
        prompts_alone: whether most rows may have no completion.
        reserved: names that no column of the pool may keep: it is called ``pool_NAME`` then.

    Raises InputError as :func:`read_pool` does with ``mark``; RunError if writing fails.
    """
    source = find_source(path, field)
    survey = _survey(field, columns, source, source.records, several=several)
    reader = _Reader(path, survey, prompts_alone=prompts_alone, mark=True, reserved=reserved)
    made = [path for path in (folder, folder.parent) if not exists(path)]
    prepare_folder("out", folder)
    offsets = array("Q", [0])
    file = folder / "pool.jsonl"
    with contextlib.ExitStack() as failed:
        failed.callback(_remove, file, made)
        with atomic_file(file) as handle:
            for row in reader.rows(source.records()):
                kept = [row.id, row.line, row.place, row.issue, len(row.completions), row.answer_derived]
                kept.append(row.columns)
                line = json.dumps(kept, ensure_ascii=False, allow_nan=False).encode() + b"\n"
                handle.write(line)
                offsets.append(offsets[-1] + len(line))
            said = reader.finish()
        failed.pop_all()
    return Pool(file, offsets, reader.layout, said, source, made)


def _remove(file: Path, made: Iterable[Path]) -> None:
    """Remove a file, and the folders that were made for it and hold nothing else."""
    file.unlink(missing_ok=True)
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _survey(
    field: str,
    columns: Mapping[str, str] | None,
    source: Source,
    records: Callable[[], Iterable[Record]],
    *,
    several: bool,
) -> Survey:
    """The survey of a pool."""
    found = Survey(field, columns or {}, source.shards)
    found.read(records())
    if several and (absent := found.absent()) is not None:
        found = _survey(field, None, source, records, several=False)
        found.unused = absent
    return found


class Pool(Sequence[Row]):
    """The rows of a pool on disk; in memory, eight bytes a row. As a context, it removes its file."""

    def __init__(
        self,
        file: Path,
        offsets: Sequence[int],
        layout: dict[str, Any],
        said: list[str],
        source: Source,
        made: Sequence[Path] = (),
    ) -> None:
        self.file, self._offsets, self._source, self._made = file, offsets, source, made
        self.layout = layout
        """How the rows were understood, for a manifest."""
        self.said = said
        """The same in lines to print."""

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        with self.file.open("rb") as handle:
            handle.seek(self._offsets[place])
            return _stored(handle.readline())

    def __iter__(self) -> Iterator[Row]:
        with self.file.open("rb") as handle:
            for line in handle:
                yield _stored(line)

    def digest(self) -> str:
        """The sha256 of what was read, as 64 hexadecimal digits."""
        return self._source.digest()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the rows' file, and the folders that were made for it and hold nothing else."""
        _remove(self.file, self._made)


def _stored(line: bytes) -> Row:
    id_, number, place, issue, count, derived, columns = json.loads(line)
    if issue is not None:
        return Row(id_, "", (), columns, number, issue, place=place)
    value = columns.get("completion")
    completions = () if count == 0 else tuple(value) if count > 1 else (value,)
    return _row(id_, columns["prompt"], completions, columns, number, place, derived=derived)


def _row(
    id_: str,
    prompt: Text,
    completions: tuple[Text, ...],
    columns: Columns,
    line: int,
    place: str,
    *,
    derived: bool,
) -> Row:
    options, tools = parsed(columns.get(OPTIONS)), columns.get("tools")
    return Row(
        id_,
        prompt,
        completions,
        columns,
        line,
        tools=tools if isinstance(tools, list) else None,
        template_options=without_nulls(options) if isinstance(options, dict) else {},
        place=place,
        answer_derived=derived,
    )


class _Reader:
    """Turns the records of one pool into rows."""

    def __init__(
        self,
        path: Path | str,
        survey: Survey,
        *,
        prompts_alone: bool,
        mark: bool,
        reserved: Collection[str] = (),
        used: Collection[str] = (),
    ) -> None:
        self.path, self.survey, self.mark, self.used = path, survey, mark, used
        if not survey.rows:
            reject(survey.field, str(path), f"at least one row with {COLUMNS}")
        self.how: Understanding = survey.conclude(prompts_alone=prompts_alone, reserved=reserved)
        self.counts: Counter[str] = Counter()
        """Good rows by the name of their layout."""
        self.new_names: dict[str, str] = {}
        """New names of the columns that had one of ours, and a value."""
        self.known: dict[str, str] = {}
        """Where the ids that repeat were first."""
        self.first_fault: InputError | None = None

    @property
    def layout(self) -> dict[str, Any]:
        """How the rows were understood, for a manifest."""
        return self.survey.record(self.how, self.counts, self.new_names)

    def finish(self) -> list[str]:
        """How the rows were understood, in lines; InputError if none is good."""
        if self.first_fault is not None and not self.counts:
            raise self.first_fault
        return self.survey.lines(self.how, self.counts, self.new_names)

    def rows(self, records: Iterable[Record]) -> Iterator[Row]:
        """A row of each record."""
        how = self.how
        for record in records:
            label = label_of(value_at(record.columns, how.id), record, len(self.survey.shards))
            try:
                row = self._understood(record, label)
            except BadRowError as bad:
                error = InputError(how.field, f"{self.path}, {record.place}: {bad.found}", bad.allowed)
                if not self.mark:
                    raise error from bad
                self.first_fault = self.first_fault or error
                issue = f"{bad.kind}: {record.place}: {bad.found}; allowed: {bad.allowed}"
                yield Row(
                    label, "", (), self._renamed(record.columns, None), record.line, issue, place=record.place
                )
            else:
                yield row

    def _understood(self, record: Record, label: str) -> Row:
        how, columns = self.how, record.columns
        if record.fault is not None:
            raise record.fault
        layout = how.layout_of(columns)
        if layout is None:
            if record.troubles:
                _check_troubles(record, set(record.troubles))
            raise _missing(columns, how.layout)
        prompt, completions = split(columns, layout, chat=how.chat)
        if not layout.has_completion and not how.prompts_alone:
            alone = f"{COLUMNS}; prompts alone are for samples (--samples K with a verifier) and for RL"
            raise BadRowError("no completion", "no completion", alone)
        if not how.chat and isinstance(prompt, list):
            raise BadRowError("another type", "messages", "strings, as in most rows")
        paths = (
            *layout.roles.values(),
            *how.answers,
            how.id,
            how.tools,
            OPTIONS,
            *(("system",) * layout.chat),
        )
        _check_troubles(record, {*self.used, *(path.split(".")[0] for path in paths)})
        _check_id(value_at(columns, how.id))
        if text_hash(label) in how.repeated:
            if label in self.known:
                allowed = f"ids that differ ({self.known[label]} has the same)"
                raise BadRowError("repeated id", f"id {label}", allowed)
            self.known[label] = record.place
        found = self._renamed(columns, layout)
        found["prompt"] = prompt
        if completions:
            found["completion"] = completions[0] if len(completions) == 1 else list(completions)
        derived = self._add_answer(found, columns, layout, completions)
        if (tools := _tools(value_at(columns, how.tools))) is not None:
            found["tools"] = tools
        if how.id != "id" or "id" in how.text:
            found["id"] = label
        self.counts[layout.name] += 1
        return _row(label, prompt, completions, found, record.line, record.place, derived=derived)

    def _add_answer(
        self, found: Columns, columns: Columns, layout: Layout, completions: tuple[Text, ...]
    ) -> bool:
        """Add the row's answer, if it has one; returns whether it is the final form of its completion."""
        how = self.how
        answer = find_answer(columns, how.answers)
        derived = answer is None and layout.derive and len(completions) == 1
        if derived:
            answer = final_form(text_of(completions[0]))
        if answer is not None:
            scalar = not isinstance(answer, (str, list, dict))
            found["answer"] = str(answer) if "answer" in how.text and scalar else answer
        return derived and answer is not None

    def _renamed(self, columns: Columns, layout: Layout | None) -> Columns:
        """The columns of a row of ``layout`` (None: of what fits), without names of ours for others."""
        layout = layout or self.how.layout_of(columns) or self.how.layout
        names = self.how.renamed.get(layout.name, {})
        self.new_names |= {
            name: names[name] for name in columns if name in names and columns[name] is not None
        }
        return {names.get(name, name): value for name, value in columns.items()}


def _missing(columns: Columns, layout: Layout) -> BadRowError:
    """What a row lacks of the layout of most rows."""
    if layout.key == "prompt":
        here = {
            role: value_at(columns, layout.roles.get(role, "")) is not None
            for role in ("prompt", "completion")
        }
        if any(here.values()):
            absent = "completion" if here["prompt"] else "prompt"
            return BadRowError(f"no {absent}", f"no {layout.roles[absent]}", COLUMNS)
    return BadRowError("malformed row", f"columns {', '.join(columns) or 'none'}", COLUMNS)


def _check_troubles(record: Record, used: Collection[str]) -> None:
    for name, trouble in record.troubles.items():
        if name in used:
            raise BadRowError("unwritable value", f"column {name} has {trouble}", WRITABLE)


def _check_id(id_: Any) -> None:
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, (str, int))):
        malformed(f"id {id_}", "a string or an integer")


def _tools(value: Any) -> list[dict[str, Any]] | None:
    """The tools of a row; None without a list. An empty one stays: some templates introduce it, as in TRL."""
    tools = without_nulls(parsed(value))
    if tools is None or tools == "":
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        malformed(f"tools is {json.dumps(value, default=str)[:80]}", "a list of objects, or its JSON text")
    return tools
