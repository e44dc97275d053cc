"""One call of a verifier, whatever it does, as a verdict."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, TypeAlias

from datadose.llm.verifiers.builtin import NotJudged
from datadose.printing import shortened

Verdict: TypeAlias = tuple[bool | None, str | None]
"""Whether it passes; or None, and the issue in one line."""

_LONGEST = 300


def failed(reason: str) -> Verdict:
    """The verdict where the verifier did not return one; ``reason`` is a part of the issue."""
    return None, f"verifier failed: {shortened(' '.join(reason.split()), _LONGEST)}"


def call(
    verifier: Any,
    completion: str,
    columns: Mapping[str, Any],
    caught: tuple[type[BaseException], ...],
) -> Verdict:
    """The verdict of ``verifier`` on ``completion``; exceptions of the kinds ``caught`` are its failure."""
    try:
        # Code of any author: whatever it raises or returns belongs to this row.
        score: Any = verifier(completion, columns)
        if isinstance(score, NotJudged):
            return None, score.reason
        if isinstance(score, numbers.Real) and 0 <= float(score) <= 1:
            return float(score) >= 1, None
        shown = repr(score)
    except caught as error:
        return failed(describe(error))
    return failed(f"returned {shown}")


def describe(error: BaseException) -> str:
    """Kind and message of ``error``, even of one that cannot be printed."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # its own __str__ may be at fault
        return type(error).__name__
