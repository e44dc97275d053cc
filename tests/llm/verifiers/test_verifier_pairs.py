"""Verdicts on labelled pairs of answers: nothing wrong passes, and the page's tables are the measurement."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from datadose.llm.verifiers import VERIFIERS, Verdict, judge

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "verifiers.md"
PAIRS: list[dict[str, Any]] = [json.loads(line) for line in (HERE / "pairs.jsonl").read_text().splitlines()]
"""``answer`` (of the row), ``completion``, and whether a person who reads both calls it ``right``."""
PATIENCE = 60.0
"""Seconds for a call: a busy machine is no verdict."""


@cache
def verdicts(name: str) -> list[Verdict]:
    """Of one verifier, on each pair."""
    return [
        judge(VERIFIERS[name], pair["completion"], {"answer": pair["answer"]}, timeout=PATIENCE)
        for pair in PAIRS
    ]


def counts(passed: list[bool | None], kind: str = "") -> list[int]:
    """Pairs, agreeing verdicts, false passes, false fails, no verdict."""
    found: Counter[str] = Counter()
    for pair, verdict in zip(PAIRS, passed, strict=True):
        if kind in {"", pair["kind"]}:
            found["pairs"] += 1
            if verdict is None:
                found["none"] += 1
            elif verdict == pair["right"]:
                found["agree"] += 1
            else:
                found["false pass" if verdict else "false fail"] += 1
    return [found[name] for name in ("pairs", "agree", "false pass", "false fail", "none")]


def of(name: str) -> list[bool | None]:
    return [passed for passed, _ in verdicts(name)]


def table(title: str) -> dict[str, list[int]]:
    """The page's table whose first column has this title: first cell -> the numbers."""
    (body,) = re.findall(rf"^\| {title} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    rows = [[cell.strip(" `") for cell in line.strip().strip("|").split("|")] for line in body.splitlines()]
    return {name: [int(cell) for cell in cells] for name, *cells in rows}


def test_the_pairs_are_many_of_all_kinds_and_distinct() -> None:
    assert len(PAIRS) >= 150
    assert len({(str(pair["answer"]), pair["completion"]) for pair in PAIRS}) == len(PAIRS)
    for kind in {pair["kind"] for pair in PAIRS}:
        labels = [pair["right"] for pair in PAIRS if pair["kind"] == kind]
        assert len(labels) >= 10, kind
        assert set(labels) == {True, False}, kind


@pytest.mark.parametrize("name", ["exact", "number", "math"])
def test_nothing_wrong_passes(name: str) -> None:
    wrong = [
        (pair["answer"], pair["completion"])
        for pair, (passed, _) in zip(PAIRS, verdicts(name), strict=True)
        if passed and not pair["right"]
    ]
    assert wrong == []


def test_every_pair_gets_a_verdict_or_a_reason() -> None:
    for name in ("exact", "number", "math"):
        for passed, issue in verdicts(name):
            assert (passed is None) == (issue is not None)
            assert issue is None or issue.startswith("answer ")


def test_the_page_has_the_measured_agreement() -> None:
    measured = {name: counts(of(name)) for name in ("exact", "number", "math")}
    stated = table("verifier")
    assert {name: stated[name] for name in measured} == measured


def test_the_page_has_the_measured_agreement_by_kind() -> None:
    kinds = list(dict.fromkeys(pair["kind"] for pair in PAIRS))
    # Of number: agreement, false fails, no verdict; of math the same; neither has a false pass.
    measured = {
        kind: [
            counts(of("number"), kind)[0],
            *(counts(of("number"), kind)[i] for i in (1, 3, 4)),
            *(counts(of("math"), kind)[i] for i in (1, 3, 4)),
        ]
        for kind in kinds
    }
    assert table("kind of answer") == measured


@pytest.mark.slow
def test_the_page_has_the_agreement_of_math_verify_alone() -> None:
    library = pytest.importorskip("math_verify")
    if version("math-verify") != "0.9.0":
        pytest.skip("the page states that of 0.9.0")
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    passed = [
        bool(library.verify(library.parse(str(pair["answer"])), library.parse(pair["completion"])))
        for pair in PAIRS
    ]
    assert table("verifier")["math-verify 0.9.0 alone"] == counts([*passed])
