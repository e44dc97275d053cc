"""Write a selection: four files that TRL and `datasets` read unchanged, a manifest and a report."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datadose.errors import reject
from datadose.files import atomic_file, prepare_folder, write_json
from datadose.llm.pool import Columns, answer_text, for_trl, kind_of, text_of
from datadose.llm.scores import CHANCE, ROLE, Scores, remove_manifest
from datadose.llm.selection.arrays import Indices
from datadose.llm.selection.chosen import Selection
from datadose.llm.selection.formats import check_format, write_format
from datadose.llm.selection.report import write_report
from datadose.llm.verifiers import TIMEOUT
from datadose.printing import note
from datadose.reading import is_folder
from datadose.versions import versions


@dataclass(frozen=True)
class _Source:
    """Scored rows with the number of each one's shape: its columns and all types in them."""

    scores: Scores
    shapes: NDArray[np.int64]
    """Per row; -1 where it is in no set."""

    @classmethod
    def survey(cls, scores: Scores, rows: Indices) -> _Source:
        """Number the shapes of ``rows`` (ascending) in one pass."""
        numbers: dict[Any, int] = {}
        shapes = np.full(len(scores.table), -1)
        for index, line in zip(rows, scores.raw_lines(rows), strict=True):
            shapes[index] = numbers.setdefault(_shape(json.loads(line.decode())), len(numbers))
        return cls(scores, shapes)


@dataclass(frozen=True)
class _Part:
    """Rows of a source that go into a file, and what is done to each."""

    source: _Source
    rows: Indices
    change: Callable[[Columns], Columns]
    chances: NDArray[np.float64] | None = None
    """Sampling weights of ``rows``, which each gets as a column; None for none."""

    def of_each_shape(self) -> Indices:
        """The first row of every shape."""
        return self.rows[np.sort(np.unique(self.source.shapes[self.rows], return_index=True)[1])]

    def records(self, rows: Indices) -> Iterator[Columns]:
        for index, line in zip(rows, self.source.scores.raw_lines(rows), strict=True):
            yield self._record(index, line)

    def _record(self, index: np.int64, line: bytes) -> Columns:
        row = self.change(json.loads(line))
        if self.chances is not None:
            row[CHANCE] = float(self.chances[np.searchsorted(self.rows, index)])
        return row

    def lines(self, rows: Indices, columns: dict[str, str]) -> Iterator[bytes]:
        """Those rows as the file has them; where nothing changes but the role, without parsing them."""
        ready: dict[int, bytes | None] = {}
        first = self.of_each_shape()
        for shape, raw, row in zip(
            self.source.shapes[first], self.source.scores.raw_lines(first), self.records(first), strict=True
        ):
            added = {ROLE: row[ROLE]} if ROLE in row else {}
            same = {**json.loads(raw), **added} == row and row.keys() == columns.keys()
            ready[int(shape)] = (b", " + json.dumps(added).encode()[1:-1] if added else b"") if same else None
        blank = dict.fromkeys(columns)
        for index, raw in zip(rows, self.source.scores.raw_lines(rows), strict=True):
            end = ready[int(self.source.shapes[index])]
            if end is None:
                row = {**blank, **self._record(index, raw)}
                yield json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
            elif end:
                yield raw.rstrip()[:-1] + end + b"}\n"
            else:
                yield raw


def write_selection(
    selection: Selection, pool: Scores, reference: Scores | None, out: Path, *, form: str = "trl"
) -> None:
    """Write sft, rl and their controls as JSONL, manifest.json and report.html to ``out``.

    The JSONL files are TRL's; for another ``form`` (of FORMATS) its files stand in a folder of that name too.

    The manifest comes last: a folder with one is complete. Without an RL set there is no rl.jsonl, without an
    SFT set no sft.jsonl, and none of an earlier selection is left. Raises InputError if ``out`` cannot be a
    folder or if replayed rows have other types than the pool's in a column; RunError if writing fails.
    """
    check_format(form)
    if selection.weights is not None and form != "trl":
        allowed = "trl with weights: only `datadose posttrain` draws rows by their sampling weight"
        reject("format", form, allowed)
    prepare_folder("out", out)
    remove_manifest(out)
    sft = (("sft", selection.sft), ("control_sft", selection.control_sft))
    rl = (("rl", selection.rl), ("control_rl", selection.control_rl))
    source = _Source.survey(pool, np.unique(np.concatenate([rows for _, rows in sft + rl])))
    replayed = []
    if reference is not None and len(selection.replay):
        old = _Source.survey(reference, selection.replay)
        replayed.append(_Part(old, selection.replay, _demonstration("replay")))
    taught = _demonstration("target")
    parts = [
        (name, rows, [_Part(source, rows, taught, chances), *replayed])
        for (name, rows), chances in zip(sft, (selection.weights, None), strict=True)
    ]
    parts += [(name, rows, [_Part(source, rows, _problem)]) for name, rows in rl]
    for name, rows, of_file in parts:
        if len(rows):
            _write_set(out / f"{name}.jsonl", of_file)
        else:
            (out / f"{name}.jsonl").unlink(missing_ok=True)
    verifier, timeout = pool.manifest.get("verifier"), pool.manifest.get("verifier_timeout") or TIMEOUT
    model, group = _model_name(pool), selection.config.group
    written = write_format(form, out, model, group, verifier=verifier, timeout=timeout)
    write_report(selection, pool, reference, out, written)
    write_json(out / "manifest.json", {**manifest(selection, pool, reference), "format": written})


def _model_name(pool: Scores) -> str:
    """The base model as another trainer finds it, which runs in a folder of its own."""
    name = str(pool.manifest.get("model"))
    return str(Path(name).resolve()) if is_folder(Path(name)) else name


def manifest(selection: Selection, pool: Scores, reference: Scores | None) -> Columns:
    """The document of a selection: the request, what was measured, removed and assumed."""
    return {
        "config": asdict(selection.config),
        "sizes": selection.sizes,
        "filters": selection.filters,
        "planner": selection.planner,
        "geometry": selection.geometry,
        "diversity": selection.diversity,
        "rl": selection.rl_record,
        "repeats": selection.repeats,
        "unchecked": selection.unchecked,
        "scores": {
            "pool": pool.manifest,
            "target": None if selection.target is None else selection.target.manifest,
            "reference": None if reference is None else reference.manifest,
        },
        "versions": versions(),
    }


def write_demonstrations(scores: Scores, rows: Indices, path: Path) -> None:
    """Write the rows at ``rows`` (ascending) of the scores as ``sft.jsonl`` has them; RunError on failure."""
    _write_set(path, [_Part(_Source.survey(scores, rows), rows, _demonstration("target"))])


def _demonstration(role: str) -> Callable[[Columns], Columns]:
    return lambda row: {**for_trl(row), ROLE: role}


def _problem(row: Columns) -> Columns:
    """A row of rl.jsonl: it has an answer, else the completion's text for one, else null."""
    row = for_trl(row)
    if row.get("answer") is None and row.get("completion") is not None:
        row["answer"] = text_of(row["completion"])
    return row


def _write_set(path: Path, parts: list[_Part]) -> None:
    """Write the rows of all parts, one of every shape first, replay spread evenly among the rest.

    `datasets` takes a column's type from the first 10 MB of a file: a column that is null or whole there, and
    text or fractional later, would fail to load: columns of several types become text. And not every trainer
    shuffles.
    """
    columns: dict[str, str] = {}
    mixed: set[str] = set()
    first = [part.of_each_shape() for part in parts]
    for part, rows in zip(parts, first, strict=True):
        for row in part.records(rows):
            mixed |= _note_kinds(row, columns, path.name)
    if mixed:
        note(f"{path.name}: columns of several types are written as JSON text: {', '.join(sorted(mixed))}")
        parts = [replace(part, change=_with_text(part.change, mixed)) for part in parts]
    spread = []
    with atomic_file(path) as handle:
        for place, (part, rows) in enumerate(zip(parts, first, strict=True)):
            handle.writelines(part.lines(rows, columns))
            rest = np.setdiff1d(part.rows, rows)
            # By position in (0, 1), then by part.
            positions = (np.arange(len(rest)) + 0.5) / len(rest)
            spread.append(zip(positions, repeat(place), part.lines(rest, columns), strict=False))
        handle.writelines(line for _, _, line in heapq.merge(*spread))


def _shape(row: Columns) -> tuple[Any, ...]:
    """Equal for rows with the same columns and the same types in them, at any depth."""
    kinds = tuple(map(type, row.values()))
    if dict not in kinds and list not in kinds:
        return (*row, *kinds)
    return tuple((name, frozenset(_types((), value))) for name, value in row.items())


def _types(path: tuple[object, ...], value: Any) -> Iterator[tuple[object, ...]]:
    """(path, type) of a value and of everything in it."""
    yield (*path, type(value))
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _types((*path, key), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _types((*path, "[]"), inner)


def _note_kinds(row: Columns, columns: dict[str, str], name: str) -> set[str]:
    """Add the row's columns and their kinds; returns those whose kind differs from an earlier row's.

    Raises InputError if that is the prompt or the completion, which trainers read.
    """
    mixed = set()
    for column, value in row.items():
        known = columns.setdefault(column, "")
        if value is None:
            continue
        kind = kind_of(value)
        if known and known != kind:
            if column in ("prompt", "completion"):
                allowed = "one type per column, reference included"
                reject("column", f"{column} as {kind} and as {known} in {name}", allowed)
            mixed.add(column)
        columns[column] = kind
    return mixed


def _with_text(change: Callable[[Columns], Columns], mixed: set[str]) -> Callable[[Columns], Columns]:
    """``change``, then the ``mixed`` columns as JSON text; answers and ids that are text stay as they are."""

    def text(name: str, value: Any) -> Any:
        if value is None or (name == "id" and isinstance(value, str)):
            return value
        return answer_text(value) if name == "answer" else json.dumps(value, ensure_ascii=False)

    def changed(row: Columns) -> Columns:
        return {name: text(name, value) if name in mixed else value for name, value in change(row).items()}

    return changed
