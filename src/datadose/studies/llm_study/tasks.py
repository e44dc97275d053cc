"""Arithmetic by level, from solved to hopeless for a small model, and the faults that a real pool has.

Questions and answers are reasoning-gym's; the wording is the shortest with which an untrained model shows
what it can do: one solved example, then the question ("4 + 3 = 7\\n5 - 9 ="). A completion is the answer
and the line's end, so that the probability of passing is that of a few known tokens, before training and
after. Item i of seed s is item 0 of seed s + i in reasoning-gym, so seeds here are far apart and questions
are kept once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from datadose.errors import require_extra

_APART = 1_000_003
"""Distance of two seeds' items in reasoning-gym."""


@dataclass(frozen=True)
class Level:
    """A task of reasoning-gym with its options, and the solved example that every prompt starts with."""

    task: str
    options: tuple[tuple[str, int], ...]
    shot: str


def _sum(terms: int, digits: int) -> Level:
    options = {"min_terms": terms, "max_terms": terms, "min_digits": digits, "max_digits": digits}
    return Level("chain_sum", tuple(options.items()), "4 + 3 = 7\n")


def _product(digits: int) -> Level:
    options = {"min_terms": 2, "max_terms": 2, "min_digits": digits, "max_digits": digits}
    return Level("products", tuple(options.items()), "2 * 3 = 6\n")


def _gcd(largest: int) -> Level:
    options = {"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": largest}
    return Level("gcd", tuple(options.items()), "gcd(4, 6) = 2\n")


LEVELS: dict[str, Level] = {
    "sum 2x1": _sum(2, 1),
    "sum 3x1": _sum(3, 1),
    "sum 4x1": _sum(4, 1),
    "sum 2x2": _sum(2, 2),
    "sum 3x2": _sum(3, 2),
    "sum 2x3": _sum(2, 3),
    "product 1": _product(1),
    "product 2": _product(2),
    "gcd 12": _gcd(12),
    "gcd 30": _gcd(30),
    "gcd 100": _gcd(100),
}
"""Name -> level: sums of terms x digits, products of two numbers by digits, gcd by the largest number."""


def draw_rows(level: str, count: int, seed: int, taken: Collection[str] = ()) -> list[dict[str, Any]]:
    """``count`` rows of the level with distinct prompts, none of them in ``taken``.

    Raises ValueError if the level has too few distinct questions.
    """
    rows: list[dict[str, Any]] = []
    seen = set(taken)
    for question, answer in _items(level, seed):
        prompt = LEVELS[level].shot + _expression(question)
        if prompt in seen:
            continue
        seen.add(prompt)
        place = len(rows)
        rows.append(
            {
                "id": f"{level} {seed}-{place}",
                "prompt": prompt,
                "completion": f" {answer}\n",
                "answer": answer,
                "level": level,
                "kind": "clean",
            }
        )
        if len(rows) == count:
            return rows
    msg = f"{level}: fewer than {count} distinct questions"
    raise ValueError(msg)


def draw_mixture(levels: Mapping[str, int], seed: int, taken: Collection[str] = ()) -> list[dict[str, Any]]:
    """Rows of several levels, counts given, one after the other."""
    return [row for level, count in levels.items() for row in draw_rows(level, count, seed, taken)]


def _items(level: str, seed: int, limit: int = 20_000) -> Iterator[tuple[str, str]]:
    require_extra("llm", "reasoning_gym")
    import reasoning_gym  # noqa: PLC0415 - optional, and slow to import

    kind = LEVELS[level]
    items = reasoning_gym.create_dataset(
        kind.task, size=limit, seed=(seed + 1) * _APART, **dict(kind.options)
    )
    for item in items:
        yield item["question"], item["answer"]


def _expression(question: str) -> str:
    """The question without its words: ``5 - 9 =``, ``gcd(4, 6) =``."""
    if "GCD" in question:
        numbers = re.findall(r"\d+", question)
        return f"gcd({', '.join(numbers)}) ="
    # The words hold no digit.
    expression = re.search(r"\d[\d+*\s-]*", question)
    if expression is None:
        msg = f"no expression in {question!r}"
        raise ValueError(msg)
    return f"{expression.group().strip()} ="


def first_line(completion: str, columns: Mapping[str, Any]) -> float:
    """Verifier: 1 if the completion's first line is the answer, white space aside."""
    return float(completion.strip().partition("\n")[0].strip() == str(columns["answer"]))


def spoil(rows: list[dict[str, Any]], kinds: Collection[str], seed: int) -> list[dict[str, Any]]:
    """Copies of ``rows`` with faulty completions, the kinds taken in turn.

    ``wrong`` is a number near the answer, ``format`` the right number, worded; the column ``answer`` stays
    right.
    """
    generator = np.random.default_rng([seed, 1])
    names = sorted(kinds)
    spoiled = []
    for place, row in enumerate(rows):
        kind, answer = names[place % len(names)], int(row["answer"])
        if kind == "wrong":
            away = int(generator.integers(1, 10)) * int(generator.choice([-1, 1]))
            completion = f" {answer + away}\n"
        else:
            completion = f" The answer is {answer}.\n"
        spoiled.append({**row, "id": f"{row['id']} {kind}", "completion": completion, "kind": kind})
    return spoiled
