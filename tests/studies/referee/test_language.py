"""The language of the sea: what headers share, what the families do, and how strings are split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from datadose.studies.referee.language import (
    FAMILIES,
    KNOWN,
    LETTERS,
    RARE,
    TARGETS,
    draw_examples,
    draw_family,
    example,
    held_out,
    mixture,
    parsed,
    reworded,
    role_in,
    verify,
)


def test_no_letter_is_a_family_s_own_and_only_look_alikes_share_two_with_a_target() -> None:
    assert len(FAMILIES) == 40
    assert len({frozenset(header) for header in FAMILIES}) == 40
    letters = set("".join(FAMILIES))
    assert all(sum(letter in header for header in FAMILIES) >= 5 for letter in letters)
    for target, (header, family) in itertools.product(RARE, FAMILIES.items()):
        shared = len({*target} & {*header})
        alike = family.role == "look-alike" and family.of == target
        assert shared == (3 if header == target else 2 if alike else shared)
        assert alike or header == target or shared < 2
        assert not (family.role == "relative" and family.of == target and shared)


def test_a_look_alike_answers_with_the_letters_of_the_target() -> None:
    for header in FAMILIES:
        of = FAMILIES[header].of
        if FAMILIES[header].role == "look-alike":
            for text in ("cab", "bdac", "lkcbadaf"):
                assert sorted(FAMILIES[header].answer(text)) == sorted(FAMILIES[of].answer(text))
            drawn = [text for _, text in map(parsed, (p for p, _ in held_out([header], 30, "test")))]
            assert any(FAMILIES[header].answer(t) != FAMILIES[of].answer(t) for t in drawn)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("sort", "aabcdefk"), ("rotate left by two", "cdkeafba"), ("low letters first", "bacdeafk"),
        ("riffle the halves", "bkaecadf"), ("outside in", "bfaacedk"), ("reverse each half", "dcabfaek"),
        ("mirrored alphabet", "kljibhlg"), ("sort without repeats", "abcdefk"),
    ],
)  # fmt: skip
def test_what_families_do(name: str, answer: str) -> None:
    [family] = [family for family in FAMILIES.values() if family.name == name]
    assert family.answer("bacdkeaf") == answer


def test_pairs_and_roles() -> None:
    assert {*RARE} | {*KNOWN} == {*FAMILIES}
    for pair, targets in TARGETS.items():
        roles = [role_in(header, pair) for header in FAMILIES]
        assert [roles.count(role) for role in ("target", "relative", "look-alike", "sea")] == [2, 6, 4, 28]
        assert all(role_in(header, pair) == "target" for header in targets)
    shares = mixture(0.01)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["MRV"] == 0.01 < shares["MRQ"]


def test_wordings_are_one_question_and_the_verifier_reads_each() -> None:
    rng = np.random.default_rng(0)
    worded = [example("MRV", "cab", wording)[0] for wording in range(6)]
    assert len(set(worded)) == 6
    assert {parsed(prompt)[0].header for prompt in worded} == {"MRV"}
    again = {reworded(worded[0], rng) for _ in range(60)}
    assert again == {*worded[1:]}
    assert [verify("abc", {"prompt": prompt}) for prompt in worded] == [1.0] * 6
    assert verify("acb", {"prompt": worded[0]}) == verify("~abc", {"prompt": worded[0]}) == 0.0


def test_strings_of_a_split_share_no_multiset_with_another_and_are_repeatable() -> None:
    train = draw_examples(np.random.default_rng(1), 400, mixture(0.01))
    seen = {"".join(sorted(parsed(prompt)[1])) for prompt, _ in train}
    tested = held_out(RARE, 30, "test")
    assert not seen & {"".join(sorted(parsed(prompt)[1])) for prompt, _ in tested}
    assert {*"".join(seen)} <= {*LETTERS}
    assert all(verify(answer, {"prompt": prompt}) for prompt, answer in (*train, *tested))
    assert draw_family([3], 24, "MRV", "train") == draw_family([3], 24, "MRV", "train")
    assert len({parsed(p)[1] for p, _ in draw_family([3], 24, "MRV", "train")}) == 24
