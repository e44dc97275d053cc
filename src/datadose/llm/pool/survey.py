"""What a file as a whole shows of its rows: its layout, its columns, ids that repeat."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as having
from typing import Any

import numpy as np

from datadose.errors import close_match, reject
from datadose.llm.cache import text_hash
from datadose.llm.pool.layouts import ANSWERS, Layout, layouts_for, value_at
from datadose.llm.pool.records import Record
from datadose.llm.pool.row import Columns
from datadose.llm.pool.values import kind_of

_CANONICAL = ("prompt", "completion", "answer", "tools", "id")
_SHOWN = 5


@dataclass(frozen=True)
class Understanding:
    """How the rows of a file are read."""

    field: str
    layout: Layout
    """The layout of most rows."""
    layouts: tuple[Layout, ...]
    """The layouts that a row may have, in the order in which they are tried."""
    chat: bool
    """Whether strings become messages, since most rows are messages."""
    answers: tuple[str, ...]
    """Columns that may hold the final answer, in order."""
    id: str
    tools: str
    renamed: dict[str, dict[str, str]]
    """The new names, by layout, of the columns that have a name of ours and are something else."""
    mixed: bool
    """Whether some rows are strings and some messages."""
    text: frozenset[str]
    """The columns, out of id and answer, whose values become text, as the file has several kinds of them."""
    prompts_alone: bool
    """Whether rows without a completion are taken."""
    repeated: frozenset[int]
    """Hashes of the ids that the file has more than once: they are found without holding all ids."""

    def layout_of(self, columns: Columns) -> Layout | None:
        """The layout of a row: the first that fits."""
        return next((one for one in self.layouts if one.fits(columns)), None)


@dataclass
class Survey:
    """What one reading of all records finds; a few numbers a row."""

    field: str
    roles: Mapping[str, str]
    shards: Sequence[str]
    rows: int = 0
    seen: Counter[str] = having(default_factory=Counter)
    """Values that are not null, by column."""
    kinds: dict[str, set[str]] = having(default_factory=dict)
    """Kinds of the values of id and of the answers."""
    fits: Counter[tuple[tuple[int, str], ...]] = having(default_factory=Counter)
    """Rows by the layouts that fit (their places) with the form that each gives."""
    troubles: dict[str, tuple[int, str]] = having(default_factory=dict)
    """The rows with a value that JSON does not have, by column: their number, and what the first is."""
    shard_rows: Counter[int] = having(default_factory=Counter)
    shard_columns: dict[int, set[str]] = having(default_factory=dict)
    unused: str | None = None
    """A role whose column was not there, for which the given roles are not used."""
    _ids: array[int] = having(default_factory=lambda: array("q"), init=False)

    def read(self, records: Iterable[Record]) -> None:
        """Note what is needed of every record."""
        layouts = layouts_for(self.roles)
        id_column = self.roles.get("id", "id")
        watched = [id_column, *([self.roles["answer"]] if "answer" in self.roles else ANSWERS)]
        for record in records:
            columns = record.columns
            self.rows += 1
            self.shard_rows[record.shard] += 1
            self.shard_columns.setdefault(record.shard, set()).update(columns)
            self.seen.update(name for name, value in columns.items() if value is not None)
            for name in watched:
                if (value := value_at(columns, name)) is not None:
                    self.kinds.setdefault(name, set()).add(kind_of(value))
            for name, trouble in record.troubles.items():
                count, first = self.troubles.get(name, (0, trouble))
                self.troubles[name] = (count + 1, first)
            if record.fault is None:
                fitting = [(place, one) for place, one in enumerate(layouts) if one.fits(columns)]
                self.fits[tuple((place, one.form(columns)) for place, one in fitting)] += 1
            self._ids.append(text_hash(label_of(value_at(columns, id_column), record, len(self.shards))))

    def conclude(self, *, prompts_alone: bool, reserved: Collection[str]) -> Understanding:
        """The way in which the file is read.

        Args:
            prompts_alone: whether a file of prompts without completions is accepted.
            reserved: names that no column may keep.

        Raises InputError for a role whose column no row has.
        """
        if (absent := self.absent()) is not None:
            allowed = f"a column of {self.field}: {', '.join(self.seen) or 'none'}"
            asked = absent.partition("=")[2]
            reject("columns", absent, allowed, hint=close_match(asked, self.seen))
        layout, layouts, alone = self._majority()
        repeats, counts = np.unique(np.frombuffer(self._ids, dtype=np.int64), return_counts=True)
        used, forms = self._used(layouts)
        taken = {one.roles.get("completion") for one in used.values()}
        places = (self.roles["answer"],) if "answer" in self.roles else ANSWERS
        there = {*self.kinds, *self.troubles}
        answers = tuple(name for name in places if name in there and name not in taken)
        id_column, tools = self.roles.get("id", "id"), self.roles.get("tools", "tools")
        several = {
            role
            for role, names in (("id", (id_column,)), ("answer", answers))
            if len(set().union(*(self.kinds.get(name, set()) for name in names))) > 1
        }
        return Understanding(
            field=self.field,
            layout=layout,
            layouts=layouts,
            chat=forms["messages"] >= forms["strings"],
            answers=answers,
            id=id_column,
            tools=tools,
            renamed=self._renamed({layout.name: layout, **used}, answers, id_column, tools, reserved),
            mixed=min(forms["messages"], forms["strings"]) > 0,
            text=frozenset(several),
            prompts_alone=alone and prompts_alone,
            repeated=frozenset(repeats[counts > 1].tolist()),
        )

    def absent(self) -> str | None:
        """A role whose column no row has, as ``role=column``; None if all are there."""
        for role, column in self.roles.items():
            if self.rows and not self.seen[column] and not self.seen[column.split(".")[0]]:
                return f"{role}={column}"
        return None

    def _majority(self) -> tuple[Layout, tuple[Layout, ...], bool]:
        """The layout of most rows; those to try, in order; whether most rows have no completion."""
        known = layouts_for(self.roles)
        fitting: Counter[int] = Counter()
        with_completion = 0
        for found, count in self.fits.items():
            fitting.update({place: count for place, _ in found})
            with_completion += count * any(known[place].has_completion for place, _ in found)
        alone = 2 * with_completion < sum(count for found, count in self.fits.items() if found)
        whole = [place for place, one in enumerate(known) if one.has_completion]
        rest = [place for place, one in enumerate(known) if not one.has_completion]
        main = max(rest if alone or not whole else whole, key=lambda place: (fitting[place], -place))
        first, last = (whole, rest) if alone or not whole else ([], whole)
        others = [place for place in last if place != main]
        return known[main], tuple(known[place] for place in (*first, main, *others)), alone

    def _used(self, layouts: Sequence[Layout]) -> tuple[dict[str, Layout], Counter[str]]:
        """The layouts that some row has, by name, and rows by form."""
        known, forms = layouts_for(self.roles), Counter[str]()
        used: dict[str, Layout] = {}
        for found, count in self.fits.items():
            by_layout = {known[place].name: form for place, form in found}
            one = next((layout for layout in layouts if layout.name in by_layout), None)
            if one is not None:
                used[one.name] = one
                forms[by_layout[one.name]] += count
        return used, forms

    def _renamed(
        self,
        used: Mapping[str, Layout],
        answers: Sequence[str],
        id_: str,
        tools: str,
        reserved: Collection[str],
    ) -> dict[str, dict[str, str]]:
        """By layout: new names of the columns that are called like ours and are something else."""
        columns = set().union(*self.shard_columns.values())
        free: dict[str, str] = {}
        for name in (*_CANONICAL, *reserved):
            if name in columns:
                free[name] = f"pool_{name}"
                while free[name] in columns:
                    free[name] = f"pool_{free[name]}"
                columns.add(free[name])
        found = {}
        for name, layout in used.items():
            roles = layout.roles
            same = {
                "prompt": roles.get("prompt") == "prompt",
                "completion": roles.get("completion") == "completion",
                "answer": "answer" in answers and roles.get("completion") != "answer",
                "tools": tools == "tools",
                "id": id_ == "id",
            }
            found[name] = {old: new for old, new in free.items() if not same.get(old, False)}
        return found

    def lines(
        self, understanding: Understanding, counts: Mapping[str, int], renamed: Mapping[str, str]
    ) -> list[str]:
        """The lines to print on how the file was read, from the arguments of :meth:`record`."""
        found = self.record(understanding, counts, renamed)
        sentences = (f"read as {describe_layout(found)}", *found["notes"])
        return [f"{self.field}: {sentence}" for sentence in sentences]

    def record(
        self, understanding: Understanding, counts: Mapping[str, int], renamed: Mapping[str, str]
    ) -> dict[str, Any]:
        """The part of a manifest on how the file was read.

        It has the layout's name and roles, the rows by layout, new names of columns, and what else was done.
        """
        layout = understanding.layout
        roles = {
            role: column for role, column in layout.roles.items() if role != "input" or self.seen[column]
        }
        if understanding.answers:
            roles["answer"] = " or ".join(understanding.answers)
        return {
            "name": layout.name,
            "roles": roles,
            "rows": dict(counts),
            "renamed": dict(renamed),
            "notes": list(self._notes(understanding, renamed)),
        }

    def _notes(self, understanding: Understanding, renamed: Mapping[str, str]) -> Iterator[str]:
        layout = understanding.layout
        if self.unused is not None:
            yield f"there is no column for {self.unused}: --columns is not used"
        if layout.chat and layout.key == "prompt":
            yield "strings are read as messages of a user and an assistant"
        elif understanding.mixed and understanding.chat:
            yield "most rows are messages: strings are read as messages of a user and an assistant"
        if renamed:
            what = ", ".join(f"{name} (kept as {free})" for name, free in renamed.items())
            yield f"columns with names of ours: {what}"
        for role in sorted(understanding.text):
            yield f"{role} has several kinds of values: all are read as text"
        for name, (count, first) in self.troubles.items():
            yield f"column {name} has {first} ({count} rows): text or null in its place"
        yield from self._shard_notes()

    def _shard_notes(self) -> Iterator[str]:
        empty = [name for place, name in enumerate(self.shards) if not self.shard_rows[place]]
        if empty and self.rows:
            yield f"shards without rows: {_some(empty)}"
        whole = set().union(*self.shard_columns.values()) if self.shard_columns else set()
        for place, columns in self.shard_columns.items():
            if missing := sorted(whole - columns):
                yield f"shard {self.shards[place]} has no column {_some(missing)}: null there"


def describe_layout(record: Mapping[str, Any]) -> str:
    """How most rows of a file were understood, and which otherwise, from what :meth:`Survey.record` gives."""
    roles = ", ".join(f"{role} from {column}" for role, column in record["roles"].items())
    said = f"{record['name']} ({roles})"
    if len(counts := record["rows"]) > 1:
        said = f"{said}; " + ", ".join(f"{count} rows as {name}" for name, count in counts.items())
    return said


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def label_of(value: Any, record: Record, shards: int) -> str:
    """The row's id if it has a usable one, else a name from its place."""
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)
    return f"row-{record.line}" if shards == 1 else f"row-{record.shard + 1}-{record.line}"
