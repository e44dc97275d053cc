"""Completions made elsewhere, in place of samples: our own form, and the results of a batch job.

Two forms of JSONL, packed with gzip or not, a line at a time:

- ``{"id" or "prompt": ..., "completions": [text, ...], "finish": ["stop" or "length", ...]}``, the last one
  optional: what ``samples.jsonl`` of a scores folder holds.
- ``{"custom_id": ..., "response": {"status_code": 200, "body": {"choices": [...]}}, "error": null}``: what
  OpenAI's batch interface and ``vllm run-batch`` write, where ``custom_id`` is the id of a row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datadose.errors import reject
from datadose.llm.cache import content_digest
from datadose.llm.pool import Row, read_jsonl
from datadose.llm.responses import choices_of, message_of
from datadose.llm.sampling import Texts
from datadose.llm.scratch import RecordFile
from datadose.reading import check_file


class Given(Sequence[Texts]):
    """The completions of each row, kept on disk; as a context, it closes its file."""

    def __init__(self, rows: int, folder: Path | None) -> None:
        self._file = RecordFile(folder, rows)
        self.texts = 0
        """Of all rows."""
        self.reason: str | None = None
        """Why the first of the requests that failed did."""

    def add(self, place: int, texts: list[str], finish: list[str | None]) -> None:
        """Add completions to those of the row at ``place``, and how each ended."""
        self._file.add(place, {"texts": texts, "finish": finish})
        self.texts += len(texts)

    def miss(self, place: int, reason: str) -> None:
        """Count a completion of the row at ``place`` that could not be had."""
        self._file.add(place, {"texts": [], "finish": [], "reason": reason})
        self.reason = self.reason or reason

    def __enter__(self) -> Given:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def __len__(self) -> int:
        return len(self._file)

    def __getitem__(self, place: Any) -> Any:
        parts = self._file.all(place)
        reasons = [part["reason"] for part in parts if "reason" in part]
        return Texts(
            [text for part in parts for text in part["texts"]],
            finish=[finish for part in parts for finish in part["finish"]],
            missing=len(reasons),
            reason=reasons[0] if reasons else None,
        )

    def __iter__(self) -> Iterator[Texts]:
        return map(self.__getitem__, range(len(self)))


def read_completions(path: Path, rows: Sequence[Row], folder: Path | None = None) -> Given:
    """The completions in the file ``path``, by row; none for a row that the file does not have.

    A prompt represents all rows that have it. Lines of a batch with the same ``custom_id`` add up; a request
    in it that failed, or has an empty answer, is a missing sample of its row.

    Args:
        path: a JSONL file, packed with gzip or not.
        rows: of the pool.
        folder: where the texts are kept while they are in use; None: where temporary files are.

    Raises InputError with the line: malformed JSON, another form, an id or prompt that the pool does not
    have, completions given twice; and for a file with completions for no row at all.
    """
    check_file("completions", path, "a JSONL file")
    places, whole = _Places(rows), set[str]()
    with contextlib.ExitStack() as failed:
        found = failed.enter_context(Given(len(rows), folder))
        for line, entry in read_jsonl(path, "completions"):
            where = f"{path}, line {line}"
            if entry.get("custom_id") is not None:
                id_ = places.by_id(str(entry["custom_id"]), where, "custom_id")
                if (place := places.ids[id_]) >= 0:
                    _add_response(found, place, entry)
                continue
            texts, finish = _texts(entry, where)
            for id_ in places.named(entry, where):
                if id_ in whole:
                    reject("completions", f"{where}: row {id_} again", "one line for each row of the pool")
                whole.add(id_)
                if (place := places.ids[id_]) >= 0:
                    found.add(place, texts, finish)
        if not found.texts:
            reason = found.reason
            what = "without a completion" if reason is None else f"with failed requests alone: {reason}"
            reject("completions", f"{path} {what}", "completions for at least one row of the pool")
        failed.pop_all()
    return found


class _Places:
    """The pool's rows by id and by prompt."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.ids: dict[str, int] = {}
        """Places of the well-formed rows; -1 for others, of which nothing is kept."""
        self.prompts: dict[str, list[str]] = {}
        for place, row in enumerate(rows):
            if row.issue is not None:
                self.ids.setdefault(row.id, -1)
                continue
            self.ids[row.id] = place
            self.prompts.setdefault(content_digest(row.prompt), []).append(row.id)

    def by_id(self, id_: str, where: str, name: str) -> str:
        if id_ not in self.ids:
            reject("completions", f"{where}: {name} {id_}", f"the {_KNOWN[name]} of a row of the pool")
        return id_

    def named(self, entry: Mapping[str, Any], where: str) -> list[str]:
        """Ids of the rows that an entry is for."""
        if entry.get("id") is not None:
            return [self.by_id(str(entry["id"]), where, "id")]
        if entry.get("prompt") is None:
            reject("completions", f"{where}: no id and no prompt", "an id or a prompt of the pool")
        found = self.prompts.get(content_digest(entry["prompt"]))
        if not found:
            reject("completions", f"{where}: prompt {entry['prompt']}", "the prompt of a row of the pool")
        return found


_KNOWN = {"id": "id", "custom_id": "id (as custom_id)"}


def _texts(entry: Mapping[str, Any], where: str) -> tuple[list[str], list[str | None]]:
    """The completions of an entry of our own form, and how each ended."""
    texts, finish = entry.get("completions"), entry.get("finish")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        reject("completions", f"{where}: completions", "a list of at least one string")
    if finish is None:
        return texts, [None] * len(texts)
    known = ("stop", "length", None)
    if not isinstance(finish, list) or len(finish) != len(texts) or any(one not in known for one in finish):
        reject(
            "completions", f"{where}: finish {finish}", "a list of stop or length, one for each completion"
        )
    return texts, finish


def _add_response(given: Given, place: int, entry: Mapping[str, Any]) -> None:
    """Add what a request of a batch gave, or count it as missing."""
    response = entry.get("response")
    response = response if isinstance(response, dict) else {}
    body, status, error = response.get("body"), response.get("status_code"), entry.get("error")
    status = 200 if status is None else status
    choices = choices_of(body)
    if choices and status == 200 and not error:
        given.add(place, [text for text, _ in choices], [finish for _, finish in choices])
        return
    detail = message_of({"error": error} if error else body, "an answer without a completion")
    given.miss(place, detail if status == 200 else f"status {status}: {detail}")
