"""The built-in verifiers on what models write, and verifiers by name."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from datadose.errors import InputError
from datadose.llm.verifiers import (
    VERIFIERS,
    exact,
    final_form,
    is_fixed,
    is_unfinished,
    judge,
    judges_labels,
    load_verifier,
    mathematics,
    number,
    verifier_digest,
)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (r"\boxed{42}. (Check: 6 times 7)", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{3}, no: \boxed{4}", "4"),
        (r"\boxed{3} or \boxed{4}", "3, 4"),
        (r"\boxed{4} and \boxed{4}", "4"),
        (r"\boxed{42} and then \boxed{4", ""),
        (r"\boxed 42", "42"),
        (r"\framebox[2cm][c]{8}", "8"),
        (r"\fcolorbox{red}{white}{9}", "9"),
        (r"\boxed{\{1\}}", r"\{1\}"),
        ("#### 7 and the answer is 9", "9"),
        ("The answer is 9\n#### 7", "7"),
        ("#### 7\nThe answer is 9", "7"),
        (r"#### 7, or \boxed{8}", "8"),
        ("#### Step 3\nThe answer is 9.", "9"),
        ("####\n\n12", "12"),
        ("##### 12", None),
        ("The answer is 3.5. Next", "3.5"),
        ("answer: 1. Answer: 2", "2"),
        ("The answer is:\n\\[\n42\n\\]\nDone", "\\[\n42\n\\]"),
        ("the answer to 2+2 is 4", "4"),
        ("**Answer:** 42", "42"),
        ("<answer> 5 </answer>", "5"),
        ("<answer> 5", ""),
        ("The answer is", ""),
        (f"The answer is {'9' * 3000}", ""),
        ("so it is 42", None),
        ("42", None),
    ],
)
def test_the_last_final_form(text: str, form: str | None) -> None:
    assert final_form(text) == form


@pytest.mark.parametrize(
    ("completion", "answer", "passes"),
    [
        ("The answer is 42.", "42", True),
        ("#### 42", "6 * 7 is 42\n#### 42", True),
        ("42", 42, True),
        ("42", 42.0, True),
        ("0.00001", 1e-05, True),
        ("100000000000000000000", 1e20, True),
        ("1,234.50", "$1234.5", True),
        ("it is -3", "-3", False),
        ("\u22123", "-3", True),
        ("10-3", "3", False),
        (".5", "0.50", True),
        ("12,3", "3", False),
        ("(1,500)", "1500", False),
        ("3/2", "6/4", True),
        ("1.5", "3/2", False),
        ("3/2", "1.5", False),
        ("1/2", "3/2", False),
        ("42 or 43", "42", False),
        ("none", "42", False),
        ("", "0", False),
        ("007", "7", True),
        ("1e9999", "1e9998", False),
        ("9" * 5000, "42", False),
    ],
)
def test_number(completion: str, answer: Any, *, passes: bool) -> None:
    assert number(completion, {"answer": answer}) == passes
    assert judge(number, completion, {"answer": answer}) == (passes, None)


@pytest.mark.parametrize(
    "answer",
    ["(A) 12", "17 m^2", "(0, 1.5)", "1:00", "2^10", "1/0", "none", "", True, None, [4], float("nan")],
)
def test_an_answer_that_is_not_one_number_gives_no_verdict(answer: Any) -> None:
    assert number("12", {"answer": answer}) == 0
    passed, issue = judge(number, "12", {"answer": answer})
    assert passed is None
    assert issue is not None
    assert issue.startswith("answer is not one number: ")


@pytest.mark.parametrize(
    "piece", ["answer is ", "#### ", r"\boxed{", r"\boxed{1},", "( ", "9", "9,", "$", r"\(", " ", "{"]
)
def test_number_ends_soon_on_any_text(piece: str) -> None:
    text = piece * (300_000 // len(piece))
    start = time.monotonic()
    for one in (text, f"answer{text}", f"answer to {text}", f"answer is {text}", text + "!"):
        number(one, {"answer": "1"})
    # Quadratic work would take minutes.
    assert time.monotonic() - start < 20


def test_exact_strips_white_space_and_thoughts_only() -> None:
    assert exact(" yes\n", {"answer": "yes"}) == 1
    assert exact("Yes", {"answer": "yes"}) == 0
    assert exact("yes.", {"answer": "yes"}) == 0
    assert exact("<think>no</think>\n yes", {"answer": "yes"}) == 1
    assert exact("<think>no</think>yes", {"answer": "<think>no</think>yes"}) == 1


@pytest.mark.parametrize("name", list(VERIFIERS))
def test_a_thought_that_breaks_off_is_no_answer(name: str) -> None:
    text = r"<think>so \boxed{42}"
    assert is_unfinished(text)
    assert judge(VERIFIERS[name], text, {"answer": text}) == (False, None)
    assert not is_unfinished("<think>a</think> 42")
    assert is_unfinished("<think>a</think> 42 <think>or")


def test_reasoning_gym_scores_its_own_entries() -> None:
    gym = pytest.importorskip("reasoning_gym")
    score = load_verifier("reasoning-gym")
    for name in ("chain_sum", "countdown"):  # countdown needs the entry's metadata
        entry = gym.create_dataset(name, size=1, seed=3)[0]
        row = {"answer": entry["answer"], "metadata": entry["metadata"]}
        assert score(f" {entry['answer']}\n", row) == 1
        assert judge(score, f"<think>0</think> {entry['answer']}\n", row) == (True, None)
        assert score(entry["answer"], {**row, "metadata": json.dumps(entry["metadata"])}) == 1
        assert score(entry["answer"], {"answer": "x", "metadata": entry}) == 1
        assert score("no number here", row) < 1
    assert judge(score, "1", {"answer": "1"}) == (
        None,
        "verifier failed: TypeError: the row has no column metadata with an object in it",
    )


def test_math_gives_no_verdict_on_an_answer_that_it_cannot_read() -> None:
    answer = r"\frac{1}{"
    assert mathematics("1", {"answer": answer}) == 0
    passed, issue = judge(mathematics, "1", {"answer": answer})
    assert (passed, issue) == (None, "answer cannot be read as mathematics: \\frac{1}{")


def test_the_old_name_of_number_warns() -> None:
    with pytest.warns(FutureWarning, match="last-number is now called number"):
        assert load_verifier("last-number") is number


def test_what_is_known_of_each() -> None:
    assert [name for name, one in VERIFIERS.items() if is_fixed(one)] == ["exact", "number"]
    compares = [name for name, one in VERIFIERS.items() if not judges_labels(one, answered=False)]
    assert compares == ["exact", "number", "math"]
    assert all(judges_labels(one, answered=True) for one in VERIFIERS.values())
    assert len({verifier_digest(one) for one in VERIFIERS.values()}) == 3  # the libraries' versions differ


def test_a_function_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    (tmp_path / "my_checks.py").write_text(
        "print('imported')\n"
        "def long(text, row):\n    return len(text) > row['least']\n"
        "class Checker:\n    __hash__ = None\n"
        "    def __call__(self, text, row):\n        return text == 'abc'\n"
        "checker = Checker()\n"
    )
    (tmp_path / "my_broken_checks.py").write_text("1 / 0\n")
    (tmp_path / "my_leaving_checks.py").write_text("import sys\nsys.exit(3)\n")
    check = load_verifier("my_checks:long")
    assert capsys.readouterr() == ("", "imported\n")
    assert judge(check, "abc", {"least": 2}) == (True, None)
    assert judge(check, "abc", {"least": 3}) == (False, None)
    assert judge(load_verifier("my_checks:checker"), "abc", {}) == (True, None)
    assert len(verifier_digest(check)) == 64
    for name, allowed in (
        ("my_checks:short", "a function of the module my_checks"),
        ("no_such_module_here:f", "a module that can be imported"),
        ("my_broken_checks:f", "ZeroDivisionError"),
        ("my_leaving_checks:f", "SystemExit"),
        ("exakt", "exact, number, math, reasoning-gym or module:function"),
        ("my_checks:", "module:function"),
    ):
        with pytest.raises(InputError, match="verifier: got") as refused:
            load_verifier(name)
        assert allowed in str(refused.value)
