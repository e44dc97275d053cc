"""Rows to read: a few of each set and of what each filter removed, each with its own reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from datadose.llm.pool import for_trl
from datadose.llm.scores import Scores
from datadose.llm.selection.arrays import Indices, stream
from datadose.llm.selection.chosen import Selection
from datadose.llm.selection.filters import DUPLICATE, IN_SFT, UNSCORED
from datadose.llm.selection.reasons import Reasons, Why
from datadose.printing import shortened

_EXAMPLES, _REMOVED = 4, 2
_LONGEST = 600
"""Characters of a prompt or completion that the report shows."""


@dataclass(frozen=True)
class Example:
    """A row as the report shows it."""

    id: str
    reason: str
    """Why it is where it is: what was measured on it, against the threshold."""
    prompt: str
    completion: str
    own: str | None
    """What the model answers by itself, where that differs."""
    facts: list[str]
    """What else was measured."""


@dataclass(frozen=True)
class Group:
    """Some rows of one kind."""

    title: str
    count: int
    """Of all rows of the kind."""
    rows: list[Example]


@dataclass(frozen=True)
class _Kind:
    """Rows of one kind: all of them, and those that may be shown."""

    title: str
    scores: Scores
    rows: Indices
    told: Indices
    shown: int
    why: Why


def find_examples(selection: Selection, pool: Scores, reference: Scores | None) -> list[Group]:
    """A few rows of each set and of what each filter removed, drawn by the selection's seed.

    Of near copies and of rows that repeat an evaluation file those are shown of which it is recorded what
    they repeat.
    """
    rng = stream(selection.config.seed, "order")
    found = []
    for kind in _kinds(selection, pool, reference):
        some = np.sort(rng.choice(kind.told, min(kind.shown, len(kind.told)), replace=False))
        lines = zip(kind.scores.lines(some), some.tolist(), strict=True)
        rows = [_shown(row, selection, place, kind) for row, place in lines]
        found.append(Group(kind.title, len(kind.rows), rows))
    return found


def _kinds(selection: Selection, pool: Scores, reference: Scores | None) -> Iterator[_Kind]:
    reasons = Reasons(selection)
    if len(rows := selection.sft):
        yield _Kind("In the SFT set", pool, rows, rows, _EXAMPLES, reasons.why_sft)
    if reference is not None and len(rows := selection.replay):
        title = "Replayed from the reference"
        yield _Kind(title, reference, rows, rows, _REMOVED, lambda *_: "drawn at random")
    if len(rows := selection.rl):
        yield _Kind("In the RL set", pool, rows, rows, _EXAMPLES, reasons.why_rl)
    for name, removed_by in (("sft", selection.sft_removed), ("rl", selection.rl_removed)):
        # What the two sets remove for the same reason is shown once.
        once = (IN_SFT, UNSCORED, DUPLICATE) if name == "rl" and selection.filters_of("sft") else ()
        for place, one in enumerate(selection.filters_of(name)):
            rows = np.flatnonzero(removed_by == place)
            if len(rows) and one["name"] not in once:
                title = f"Removed from the {name.upper()} set: {one['name']}"
                told = reasons.told(one["name"], rows)
                yield _Kind(title, pool, rows, told, _REMOVED, reasons.of(one, name))


def _shown(row: dict[str, Any], selection: Selection, place: int, kind: _Kind) -> Example:
    row, facts = for_trl(row), []
    measures = selection.measures
    if row.get("nll") is not None:
        facts.append(f"NLL {row['nll']:.2f}")
    if row.get("tokens") is not None:
        facts.append(f"{row['tokens']} tokens")
    if row.get("pass_rate_total"):
        facts.append(f"{row['pass_rate_passed']} of {row['pass_rate_total']} pass")
    if row.get("truncated"):
        facts.append(f"{row['truncated']} samples cut")
    if row.get("signal") is not None:
        facts.append(f"signal {row['signal']:.3f}")
    if kind.scores is selection.pool and measures.stratum[place] >= 0:
        facts.append(f"alignment {measures.alignment[place]:+.2f}")
        facts.append(f"reference {measures.interference[place]:+.2f}")
    own = row.get("own_completion") if row.get("own_differs") else None
    if own is not None:
        confidence = row.get("own_confidence")
        facts.append("own answer differs" + ("" if confidence is None else f", confidence {confidence:.2f}"))
    return Example(
        id=str(row.get("id", place)),
        reason=kind.why(place, row.get("issue")),
        prompt=_text(row.get("prompt", "")),
        completion=_text(row.get("completion", "")),
        own=None if own is None else _text(own),
        facts=facts,
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = "\n".join(_said(m) if len(value) == 1 else f"{m['role']}: {_said(m)}" for m in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shortened(text, _LONGEST)


def _said(message: dict[str, Any]) -> str:
    """A message's text; beside a call or a thought, all of it."""
    other = {name: value for name, value in message.items() if name not in ("role", "content")}
    more = f" {json.dumps(other, ensure_ascii=False)}" if other else ""
    return f"{message.get('content') or ''}{more}".strip()
