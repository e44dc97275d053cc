"""Each verifier on what models write, and verifiers that misbehave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.llm.verifiers import exact, judge, last_number, load_verifier, verifier_digest


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        ("The answer is 42.", "42", 1),
        ("6 * 7 = 42", "#### 42", 1),
        ("1,234.50 dollars", "$1234.5", 1),
        ("it is -3", "-3", 1),
        ("it is \u22123", "-3", 1),
        ("10-3", "3", 1),
        ("10 - 3", "-3", 0),
        ("(2)-3", "3", 1),
        (".5", "0.50", 1),
        ("12,3", "3", 1),
        ("42 or 43", "42", 0),
        ("none", "42", 0),
        ("", "0", 0),
        ("007", "7", 1),
    ],
)
def test_last_number(completion: str, answer: str, score: float) -> None:
    assert last_number(completion, {"answer": answer}) == score


def test_exact_strips_white_space_only() -> None:
    assert exact(" yes\n", {"answer": "yes"}) == 1
    assert exact("Yes", {"answer": "yes"}) == 0
    assert exact("yes.", {"answer": "yes"}) == 0


def test_reasoning_gym_scores_its_own_entries() -> None:
    gym = pytest.importorskip("reasoning_gym")
    score = load_verifier("reasoning-gym")
    for name in ("chain_sum", "countdown"):  # countdown needs the entry's metadata
        entry = gym.create_dataset(name, size=1, seed=3)[0]
        row = {"answer": entry["answer"], "metadata": entry["metadata"]}
        assert score(f" {entry['answer']}\n", row) == 1
        assert score(entry["answer"], {**row, "metadata": json.dumps(entry["metadata"])}) == 1
        assert score(entry["answer"], {"answer": "x", "metadata": entry}) == 1
        assert score("no number here", row) < 1
    assert judge(score, "1", {"answer": "1"}) == (
        None,
        "verifier raised: TypeError: the row has no column metadata with an object in it",
    )


def test_a_function_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    (tmp_path / "my_checks.py").write_text("def long(text, row):\n    return len(text) > row['least']\n")
    (tmp_path / "my_broken_checks.py").write_text("1 / 0\n")
    check = load_verifier("my_checks:long")
    assert judge(check, "abc", {"least": 2}) == (True, None)
    assert judge(check, "abc", {"least": 3}) == (False, None)
    assert len(verifier_digest(check)) == 64
    for name, allowed in (
        ("my_checks:short", "a function of the module my_checks"),
        ("no_such_module_here:f", "a module that can be imported"),
        ("my_broken_checks:f", "ZeroDivisionError"),
        ("exakt", "exact, last-number, reasoning-gym or module:function"),
        ("my_checks:", "module:function"),
    ):
        with pytest.raises(InputError, match="verifier: got") as refused:
            load_verifier(name)
        assert allowed in str(refused.value)


def returns(value: Any) -> Any:
    """A verifier that gives ``value``."""

    def verifier(_: str, columns: Mapping[str, Any]) -> Any:
        return value

    return verifier


@pytest.mark.parametrize("value", [1, 1.0, True, np.float32(1.0), np.int64(1)])
def test_ones_pass(value: Any) -> None:
    assert judge(returns(value), "", {}) == (True, None)


@pytest.mark.parametrize("value", [0, 0.999, False, np.float64(0.0)])
def test_less_than_one_fails(value: Any) -> None:
    assert judge(returns(value), "", {}) == (False, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1, None, "1", [1], 1j])
def test_what_is_no_score_is_neither(value: Any) -> None:
    verdict, issue = judge(returns(value), "", {})
    assert verdict is None
    assert issue is not None
    assert issue.startswith("verifier returned: ")


def test_what_a_verifier_raises_is_named_in_one_line() -> None:
    def verifier(_: str, columns: Mapping[str, Any]) -> float:
        raise RuntimeError("two\nlines")

    assert judge(verifier, "", {}) == (None, "verifier raised: RuntimeError: two lines")
