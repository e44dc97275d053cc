"""Short tasks of reasoning-gym for SmolLM2: families of questions, and the faults that a real pool has.

A row is one question in few words and its answer with the line's end, so that the probability of passing is
that of a few known tokens. Long questions are cut to what decides the answer: a family has a pattern and a
template for that (``re``), else reasoning-gym's own wording is kept. Item i of seed s is item 0 of seed s + i
in reasoning-gym, so seeds here are far apart and every question is kept once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from datadose.errors import require_extra
from datadose.studies.llm_study.tasks import LEVELS, draw_rows, first_line

__all__ = [
    "FAMILIES",
    "SOLVED",
    "Family",
    "Fault",
    "Row",
    "draw_families",
    "draw_family",
    "first_line",
    "spoil",
]

Row: TypeAlias = dict[str, Any]
_APART = 1_000_003
"""Distance of two seeds' items in reasoning-gym."""
_LONGEST = 122
"""Characters of a question and its answer at most: length decides what a run costs."""
_ATTEMPTS = 40
"""Items looked at for each row that is required; short ones are rare in some families."""


@dataclass(frozen=True)
class Family:
    """A task of reasoning-gym with its options, and how its question is cut.

    Args:
        task: its name there.
        options: of the task.
        pattern: what is sought in the question, which starts there; an item without it is left out.
        template: the short question, with the pattern's groups; empty for what the pattern matched.
    """

    task: str
    options: Mapping[str, Any]
    pattern: str = r"(?s).*"
    template: str = r"\g<0>"


FAMILIES: dict[str, Family] = {
    "relatives": Family(
        "family_relationships",
        {"min_family_size": 4, "max_family_size": 4},
        r"(.*)\n\n(.*\?)",
        r"\1\n\2",
    ),
    "siblings": Family("aiw", {}),
    "bases": Family(
        "base_conversion",
        {"max_base": 10, "max_value": 200},
        r"(base-\d+) number (\w+) to (base-\d+)",
        r"Convert the \1 number \2 to \3.",
    ),
    "expressions": Family("basic_arithmetic", {"min_terms": 2, "max_terms": 3, "max_digits": 2}),
    "caesar": Family(
        "caesar_cipher",
        {"min_words": 1, "max_words": 2, "max_rotation": 3},
        r"(Decrypt.*: .*)\. Provide",
        r"\1",
    ),
    "weekdays": Family("calendar_arithmetic", {}, r"(.*day.*?[.?]) [A-Z].*", r"\1"),
    "sums": Family("chain_sum", {"min_terms": 2, "max_terms": 3, "max_digits": 2}),
    "complex": Family("complex_arithmetic", {}),
    "bits": Family("count_bits", {"max_n": 1000}),
    "primes": Family("count_primes", {"max_n": 100}),
    "decimals": Family(
        "decimal_chain_sum",
        {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2, "max_decimal_places": 1},
    ),
    "fractions": Family(
        "fraction_simplification",
        {"max_value": 20, "max_factor": 10, "styles": ("plain",)},
        r"Simplify the fraction \S+",
        r"\g<0>.",
    ),
    "gcd": Family("gcd", {"max_value": 100}, r"(Find.*?)\. Give", r"\1"),
    "lcm": Family("lcm", {"max_value": 20}),
    "letters": Family("letter_counting", {"min_words": 2, "max_words": 4}),
    "sequences": Family("number_sequence", {}, r".*", r"Continue: \g<0>"),
    "factors": Family("prime_factorization", {"max_value": 200}, r"(Find.*?)\. Write", r"\1."),
    "products": Family("products", {"max_digits": 2}, r"(.*)\. Give", r"\1"),
    "word order": Family("sentence_reordering", {"min_words_in_sentence": 3, "max_words_in_sentence": 5}),
    "equations": Family("simple_equations", {"min_terms": 2, "max_terms": 2, "max_value": 20}),
    "backward": Family(
        "spell_backward",
        {"min_word_len": 3, "max_word_len": 4},
        r": (\w+)$",
        r"Spell this word backward: \1",
    ),
    "syllogisms": Family(
        "syllogism",
        {},
        r"1\. (.*)\n2\. (.*)\n\nDoes it logically follow that:\n(.*\?)",
        r"\1. \2. Does it follow: \3",
    ),
    "durations": Family(
        "time_intervals", {"task_types": ("time",)}, r"(.*) (?:Please a|A)nswer in.*MM\.", r"\1"
    ),
    "legs": Family(
        "leg_counting",
        {"min_animals": 2, "max_animals": 2, "max_instances": 6},
        r"how many (legs are there.*)",
        r"How many \1",
    ),
    "reversals": Family(
        "word_sequence_reversal", {"min_words": 3, "max_words": 4}, r"Reverse this list of words: .*"
    ),
    "polygons": Family(
        "simple_geometry",
        {"max_sides": 4},
        r"(?s)(?:first )?(\d) interior angles are: (.*?)\.(?=[^\d])",
        r"A polygon has \1 angles of \2 and one more. Which?",
    ),
    "sorted words": Family(
        "word_sorting",
        {"min_words": 3, "max_words": 4, "max_word_length": 6},
        r"sort these words in (\w+) order .*?: (.*)",
        r"Sort this list of words in \1 order: \2",
    ),
    "alternations": Family(
        "binary_alternation",
        {"min_n": 5, "max_n": 8},
        r"alternating: (\d+)",
        r"Fewest swaps to make \1 alternating:",
    ),
    "filters": Family(
        "number_filtering",
        {"min_numbers": 3, "max_numbers": 3, "max_decimals": 0, "min_value": 0, "max_value": 99},
        r".* list: .*",
    ),
    "unscrambled": Family(
        "letter_jumble",
        {"min_words": 1, "max_words": 2, "min_word_len": 2, "max_word_len": 5},
        r"unscramble these words: (.*)",
        r"Unscramble these words: \1",
    ),
    "who": Family(
        "needle_haystack", {"min_num_statements": 2, "max_num_statements": 3}, r"(?s)(.*\?)", r"\1"
    ),
    "linear": Family(
        "polynomial_equations",
        {"min_degree": 1, "max_degree": 1},
        r"(?s)^(.*?)\nIn solving",
        r"\1",
    ),
    "matrices": Family(
        "rotate_matrix",
        {"min_n": 2, "max_n": 2},
        r"by (\d+) degrees clockwise:\n(.*)\n(.*)",
        r"Rotate by \1 degrees: \2 / \3",
    ),
}
"""Name -> family. Left out: isomorphic strings, ransom notes and word ladders, of which reasoning-gym draws
others in every process, since it goes through sets of strings."""
SOLVED = ("sum 2x1", "product 1", "gcd 12")
"""Families besides, the levels of :mod:`datadose.studies.llm_study.tasks` that SmolLM2 mostly solves."""


class Fault:
    """What is wrong with a row: nothing, its answer, or how the answer is put."""

    NONE, WRONG, FORMAT = "right", "wrong", "format"


def draw_family(name: str, count: int, seed: int, taken: Collection[str] = ()) -> list[Row]:
    """``count`` rows of the family with distinct prompts, none of them in ``taken``.

    Raises ValueError if the family has too few distinct short questions.
    """
    if name in LEVELS:
        return [_row(row, name) for row in draw_rows(name, count, seed, taken)]
    rows: list[Row] = []
    seen = set(taken)
    for question, answer in _items(name, seed, count * _ATTEMPTS):
        prompt, completion = f"{question}\nAnswer:", f" {answer}\n"
        if prompt in seen or len(prompt) + len(completion) > _LONGEST:
            continue
        seen.add(prompt)
        drawn = {"id": f"{name} {seed}-{len(rows)}", "prompt": prompt, "completion": completion}
        rows.append(_row({**drawn, "answer": answer}, name))
        if len(rows) == count:
            return rows
    msg = f"{name}: {len(rows)} distinct short questions, fewer than {count}"
    raise ValueError(msg)


def _row(found: Row, family: str) -> Row:
    kept = {name: found[name] for name in ("id", "prompt", "completion", "answer")}
    return {**kept, "family": family, "kind": Fault.NONE}


def draw_families(counts: Mapping[str, int], seed: int, taken: Collection[str] = ()) -> list[Row]:
    """Rows of several families, counts given, one family after the other."""
    return [row for name, count in counts.items() for row in draw_family(name, count, seed, taken)]


def _items(name: str, seed: int, limit: int) -> Iterator[tuple[str, str]]:
    """Short question and answer of the first ``limit`` items; an answer of several lines becomes one."""
    require_extra("llm", "reasoning_gym")
    import reasoning_gym  # noqa: PLC0415 - optional, and slow to import

    family = FAMILIES[name]
    items = reasoning_gym.create_dataset(
        family.task, size=limit, seed=(seed + 1) * _APART, **dict(family.options)
    )
    for item in items:
        found = re.search(family.pattern, item["question"].strip())
        answer = " / ".join(str(item["answer"]).strip().splitlines())
        if found and answer:
            yield found.expand(family.template).strip(), answer


def spoil(row: Row, fault: str, others: Sequence[Row], rng: np.random.Generator) -> Row:
    """The row with a wrong answer, or with the right one in a sentence; the column ``answer`` stays right.

    A wrong answer has the parts of the right one in another order where it is a list, else it is the answer
    to another question of the family, ``others``.
    """
    answer = str(row["answer"])
    completion = f" The answer is {answer}.\n"
    if fault == Fault.WRONG:
        parts = answer.split(", ")
        orders = [", ".join(order) for order in itertools.permutations(parts)] if len(parts) > 1 else []
        wrong = sorted({*orders, *(() if orders else (other["answer"] for other in others))} - {answer})
        completion = f" {rng.choice(wrong)}\n"
    return {**row, "id": f"{row['id']} {fault}", "completion": completion, "kind": fault}
