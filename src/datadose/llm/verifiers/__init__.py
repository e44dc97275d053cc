"""Verifiers decide whether a completion answers its row.

A verifier takes the completion's text and the row's columns (with ``answer`` always there) and returns a
score in [0, 1]; 1 passes. It needs neither a model nor a trainer. The package calls verifiers through
:func:`judge` alone: whatever one does, the outcome is a verdict. ``docs/verifiers.md`` describes when each is
right.
"""

from __future__ import annotations

from datadose.llm.verifiers.answers import final_form, is_unfinished
from datadose.llm.verifiers.builtin import (
    NotJudged,
    exact,
    last_number,
    mathematics,
    number,
    reasoning_gym_score,
)
from datadose.llm.verifiers.judging import TIMEOUT, judge, require_timeout, threaded
from datadose.llm.verifiers.processes import CHILDREN
from datadose.llm.verifiers.registry import (
    VERIFIERS,
    Verifier,
    is_fixed,
    judges_labels,
    load_verifier,
    verifier_digest,
)
from datadose.llm.verifiers.verdicts import Verdict

__all__ = [
    "CHILDREN",
    "TIMEOUT",
    "VERIFIERS",
    "NotJudged",
    "Verdict",
    "Verifier",
    "exact",
    "final_form",
    "is_fixed",
    "is_unfinished",
    "judge",
    "judges_labels",
    "last_number",
    "load_verifier",
    "mathematics",
    "number",
    "reasoning_gym_score",
    "require_timeout",
    "threaded",
    "verifier_digest",
]
