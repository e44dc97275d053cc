"""Verifiers: plain functions that say whether a completion answers its row.

A verifier takes the completion's text and the row's columns (with ``answer`` always there) and returns a
score in [0, 1]; 1 passes. It needs neither a model nor a trainer.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import numbers
import re
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, cast

from datadose.errors import InputError, reject, require_extra

Verifier: TypeAlias = Callable[[str, Mapping[str, Any]], float]
"""Called with a completion and its row; 1 passes, and anything in [0, 1] may be returned."""

_NUMBER = re.compile(
    r"(?:(?<![\w)])[-\u2212])?"  # a sign, unless it follows what it could be subtracted from
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)


def exact(completion: str, columns: Mapping[str, Any]) -> float:
    """1 if the completion is the answer, outer white space aside."""
    return float(completion.strip() == str(columns["answer"]).strip())


def last_number(completion: str, columns: Mapping[str, Any]) -> float:
    """1 if the last number of the completion equals the last number of the answer.

    Numbers are whole or decimal, with a minus sign and commas between thousands; ``7.50`` equals ``7.5``. A
    minus after a digit, a letter or a bracket is a subtraction. Raises ValueError for an answer without one.
    """
    expected = _last_number(str(columns["answer"]))
    if expected is None:
        msg = "the answer has no number"
        raise ValueError(msg)
    return float(_last_number(completion) == expected)


def reasoning_gym_score(completion: str, columns: Mapping[str, Any]) -> float:
    """reasoning-gym's own score of the completion, outer white space aside, for the row's entry.

    The column ``metadata`` (an object or its JSON) holds ``source_dataset``, and the entry's ``question`` and
    ``answer`` if the columns do not. It may also be the whole entry, with ``metadata`` inside.
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
    return _reasoning_gym_scorer(inner["source_dataset"])(completion.strip(), entry)


VERIFIERS: dict[str, Verifier] = {
    "exact": exact,
    "last-number": last_number,
    "reasoning-gym": reasoning_gym_score,
}
"""Built-in verifiers by name."""


def judges_labels(verifier: Verifier, columns: Mapping[str, Any]) -> bool:
    """Whether ``verifier`` can tell a wrong completion of a row from a right one.

    Comparing with the answer cannot, where the row has no ``answer`` and its own completion stands for it.
    """
    return verifier not in (exact, last_number) or columns.get("answer") is not None


def is_fixed(verifier: Verifier) -> bool:
    """Whether the digest of ``verifier`` decides what it says: it calls nothing outside this module."""
    return verifier in (exact, last_number)


def load_verifier(name: str | None, purpose: str = "") -> Verifier:
    """The verifier of that name, or the function ``module:function``; the working directory is searched too.

    Raises InputError: no name (``purpose`` is what it is needed for), no such name, module or function, a
    module that cannot be imported, no callable.
    """
    known = f"{', '.join(VERIFIERS)} or module:function"
    if name is None:
        reject("verifier", "none", f"a verifier {purpose}: {known}")
    if name == "reasoning-gym":
        require_extra("llm", "reasoning_gym")
    if name in VERIFIERS:
        return VERIFIERS[name]
    module_name, colon, function_name = name.partition(":")
    if not (module_name and colon and function_name):
        reject("verifier", name, known)
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        allowed = f"a module that can be imported ({type(error).__name__}: {error})"
        raise InputError("verifier", name, allowed) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        reject("verifier", name, f"a function of the module {module_name}")
    return cast("Verifier", function)


def verifier_digest(verifier: Verifier) -> str:
    """sha256 of the source of the verifier's module; of its name where there is no source."""
    try:
        source = inspect.getsource(sys.modules[verifier.__module__])
    except (OSError, TypeError, KeyError):
        source = repr(getattr(verifier, "__qualname__", type(verifier)))
    return hashlib.sha256(source.encode()).hexdigest()


def judge(verifier: Verifier, completion: str, columns: Mapping[str, Any]) -> tuple[bool | None, str | None]:
    """Whether ``completion`` passes, or None and what was wrong with the verifier's own work."""
    try:
        # Anybody's code: whatever it raises or returns belongs to this row.
        score: Any = verifier(completion, columns)
    except Exception as error:
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        return None, f"verifier raised: {detail}"
    if not isinstance(score, numbers.Real) or not 0 <= float(score) <= 1:
        return None, f"verifier returned: {' '.join(repr(score).split())}"
    return float(score) >= 1, None


def _last_number(text: str) -> Decimal | None:
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "").replace("\u2212", "-")) if found else None


@cache
def _reasoning_gym_scorer(dataset: str) -> Callable[[str, dict[str, Any]], float]:
    """Making a scorer builds the data set's configuration: once per kind of task."""
    from reasoning_gym import get_score_answer_fn  # noqa: PLC0415 - optional, and slow to import

    return cast("Callable[[str, dict[str, Any]], float]", get_score_answer_fn(dataset))
