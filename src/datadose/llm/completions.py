"""Completions made elsewhere, in place of samples: our own form, and the results of a batch job.

Two forms of JSONL, packed with gzip or not, a line at a time:

- ``{"id" or "prompt": ..., "completions": [text, ...], "finish": ["stop" or "length", ...]}``, the last one
  optional: what ``samples.jsonl`` of a scores folder holds.
- ``{"custom_id": ..., "response": {"status_code": 200, "body": {"choices": [...]}}, "error": null}``: what
  OpenAI's batch interface and ``vllm run-batch`` write, where ``custom_id`` is the id of a row.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datadose.errors import reject
from datadose.llm.pool import Row, read_jsonl
from datadose.llm.responses import choices_of, message_of
from datadose.llm.sampling import Texts
from datadose.reading import check_file


@dataclass
class _Given:
    """What the file has for a row."""

    texts: list[str] = field(default_factory=list)
    finish: list[str | None] = field(default_factory=list)
    missing: int = 0
    reason: str | None = None

    def texts_of(self) -> Texts:
        return Texts(self.texts, finish=self.finish, missing=self.missing, reason=self.reason)


def read_completions(path: Path, rows: Sequence[Row]) -> list[Texts]:
    """The completions in the file ``path``, by row; none for a row that the file does not have.

    A prompt stands for all rows that have it. Lines of a batch with the same ``custom_id`` add up; a request
    in it that failed, or has an empty answer, is a missing sample of its row.

    Raises InputError with the line: malformed JSON, another form, an id or prompt that the pool does not
    have, completions given twice; and for a file with completions for no row at all.
    """
    check_file("completions", path, "a JSONL file")
    places = _Places(rows)
    found: dict[str, _Given] = defaultdict(_Given)
    whole: set[str] = set()
    for line, entry in read_jsonl(path, "completions"):
        where = f"{path}, line {line}"
        if entry.get("custom_id") is not None:
            _add_response(found[places.by_id(str(entry["custom_id"]), where, "custom_id")], entry)
            continue
        texts, finish = _texts(entry, where)
        for id_ in places.named(entry, where):
            if id_ in whole:
                reject("completions", f"{where}: row {id_} again", "one line for each row of the pool")
            whole.add(id_)
            found[id_].texts += texts
            found[id_].finish += finish
    good = [row.id for row in rows if row.issue is None]
    if not any(found[id_].texts for id_ in good if id_ in found):
        failed = next((one.reason for one in found.values() if one.reason), None)
        what = "without a completion" if failed is None else f"with failed requests alone: {failed}"
        reject("completions", f"{path} {what}", "completions for at least one row of the pool")
    none = Texts([])
    return [found[row.id].texts_of() if row.issue is None and row.id in found else none for row in rows]


class _Places:
    """The pool's rows by id and by prompt."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.ids = {row.id for row in rows}
        self.prompts: dict[str, list[str]] = {}
        for row in rows:
            if row.issue is None:
                self.prompts.setdefault(_prompt_key(row.prompt), []).append(row.id)

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
        found = self.prompts.get(_prompt_key(entry["prompt"]))
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


def _add_response(given: _Given, entry: Mapping[str, Any]) -> None:
    """Add what a request of a batch gave, or count it as missing."""
    response = entry.get("response")
    response = response if isinstance(response, dict) else {}
    body, status, error = response.get("body"), response.get("status_code"), entry.get("error")
    status = 200 if status is None else status
    choices = choices_of(body)
    if choices and status == 200 and not error:
        given.texts += [text for text, _ in choices]
        given.finish += [finish for _, finish in choices]
        return
    given.missing += 1
    if given.reason is None:
        detail = message_of({"error": error} if error else body, "an answer without a completion")
        given.reason = detail if status == 200 else f"status {status}: {detail}"


def _prompt_key(prompt: Any) -> str:
    return json.dumps(prompt, sort_keys=True)
