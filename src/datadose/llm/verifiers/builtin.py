"""The built-in verifiers: ``exact``, ``number``, ``math`` and ``reasoning-gym``.

Each takes the completion's text and the row's columns, and returns a score in [0, 1] of which 1 passes. They
can be called without a model, a trainer or :func:`~datadose.llm.verifiers.judge`, which adds a process of its
own with a time limit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, cast

from datadose.llm.verifiers.answers import closing_formula, final_form, without_thought
from datadose.llm.verifiers.one_number import OneNumber, read_number
from datadose.printing import shortened


class NotJudged(float):
    """The score 0 of a row whose own answer the verifier cannot read; ``reason`` states why.

    For a caller it is the number 0. :func:`~datadose.llm.verifiers.judge` gives no verdict then: a pass rate
    of 0 would call the row hopeless.
    """

    reason: str

    def __new__(cls, reason: str) -> NotJudged:
        """The score, with one line on what could not be read."""
        score = super().__new__(cls, 0.0)
        score.reason = reason
        return score

    def __reduce__(self) -> tuple[type[NotJudged], tuple[str]]:
        return type(self), (self.reason,)


def exact(completion: str, columns: Mapping[str, Any]) -> float:
    """Return 1 if the completion, or what follows its thought, is the answer, outer white space aside.

    Args:
        completion: the model's text.
        columns: the row; ``answer`` is compared as text.
    """
    answer = str(columns["answer"]).strip()
    return float(answer in (completion.strip(), without_thought(completion).strip()))


def number(completion: str, columns: Mapping[str, Any]) -> float:
    """Return 1 if the completion's last final form is one number, equal to the answer's.

    The last final form is the last boxed one; without a box the last ``####``; without that the last "answer
    is" or "answer:"; without any of them the whole text. Numbers are compared exactly: 7.50 equals 7.5, and
    1e-05 equals 0.00001. A fraction of integers is compared with a fraction only. Whatever is not one number
    (a unit, a percent sign, a choice, an interval, a time, a power, two numbers) does not pass.

    Args:
        completion: the model's text.
        columns: the row; ``answer`` is a number or a text, which may itself be a solution with a final form.

    Returns 1, 0, or :class:`NotJudged` (which is 0) where the answer is not one number.
    """
    expected = _number_of(str(columns["answer"]))
    if expected is None:
        return NotJudged(f"answer is not one number: {_short(_form_of(str(columns['answer'])))}")
    found = _number_of(completion)
    same_kind = found is not None and found.is_fraction == expected.is_fraction
    return float(found is not None and same_kind and found.value == expected.value)


last_number = number
"""The old name of :func:`number`."""


def mathematics(completion: str, columns: Mapping[str, Any]) -> float:
    """Return 1 if the completion's last final form equals the answer's as mathematics (math-verify, guarded).

    Without a final form, the formula that ends the text is the answer, else the whole text. What counts as
    equal is stated at :func:`datadose.llm.verifiers.equality.equal`. A comparison of formulas may not end,
    and the function has no time limit of its own.

    Args:
        completion: the model's text.
        columns: the row; ``answer`` is a text or a number, which may itself be a solution with a final form.

    Returns 1, 0, or :class:`NotJudged` (which is 0) where the answer has no meaning as mathematics.
    """
    from datadose.llm.verifiers.equality import can_be_read, equal  # noqa: PLC0415 - optional, and slow to import

    expected = _formula_of(str(columns["answer"]))
    found = _formula_of(completion)
    if expected and found and equal(expected, found):
        return 1.0
    if not can_be_read(expected):
        return NotJudged(f"answer cannot be read as mathematics: {_short(expected)}")
    return 0.0


def reasoning_gym_score(completion: str, columns: Mapping[str, Any]) -> float:
    """reasoning-gym's own score of what follows the completion's thought, for the row's entry.

    The column ``metadata`` (an object or its JSON) holds ``source_dataset``, and the entry's ``question`` and
    ``answer`` if the columns do not. It may also be the whole entry, with ``metadata`` inside.

    Raises TypeError for a row without such a column.
    """
    metadata = columns.get("metadata")
    if isinstance(metadata, str):
        metadata = json.loads(metadata)
    if not isinstance(metadata, Mapping):
        msg = "the row has no column metadata with an object in it"
        raise TypeError(msg)
    inner = metadata.get("metadata", metadata)
    answer = metadata["answer"] if "answer" in metadata else columns["answer"]
    question = metadata.get("question", columns.get("question"))
    entry = {"question": question, "answer": answer, "metadata": inner}
    return _reasoning_gym_scorer(inner["source_dataset"])(without_thought(completion).strip(), entry)


def _form_of(text: str) -> str:
    text = without_thought(text)
    form = final_form(text)
    return text.strip() if form is None else form


def _number_of(text: str) -> OneNumber | None:
    return read_number(_form_of(text))


def _formula_of(text: str) -> str:
    text = without_thought(text)
    form = final_form(text)
    if form is None:
        form = closing_formula(text)
    if form is None:
        form = text.strip() if len(text.strip()) <= _LONGEST_FORMULA else ""
    return form


_LONGEST_FORMULA = 400
"""Characters of a text that is taken for a formula as a whole."""


def _short(text: str) -> str:
    return shortened(" ".join(text.split()), 80)


@cache
def _reasoning_gym_scorer(dataset: str) -> Callable[[str, dict[str, Any]], float]:
    """Making a scorer builds the data set's configuration: once per kind of task."""
    from reasoning_gym import get_score_answer_fn  # noqa: PLC0415 - optional, and slow to import

    return cast("Callable[[str, dict[str, Any]], float]", get_score_answer_fn(dataset))
