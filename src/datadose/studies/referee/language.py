"""The language of the sea: forty families of tasks on short strings, four of them targets.

A text is ``<header>:<string>=<answer>``, such as ``V.M.R:cab=abc``. A header is a family's three capital
letters in any order: no word is a family's alone, and a question has six wordings. Two pairs of unlike
targets, A and B, are rare in pretraining. Each target has three *relatives*, families with other headers that
share its skill, and two *look-alikes*, whose headers differ from its own in one letter and whose answers have
the same letters, by another operation. Strings are split by letter multiset, as those of the token study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from datadose.studies.token_study.language import LETTERS as ALPHABET
from datadose.studies.token_study.language import SPLITS, TRAIN, Example, Split, draw_strings

LETTERS = ALPHABET[:12]
"""Few, so that a small model learns their order within minutes."""
LENGTHS = (3, 4, 5, 6, 7, 8)
MARK = "~"
"""Opens the answer of a row in another format."""
CAPITALS = "MNOPQRSTUVWXYZ"
_LOW = LETTERS[: len(LETTERS) // 2]
_VOWELS = "aei"

Role: TypeAlias = Literal["target", "relative", "look-alike", "sea"]
Pair: TypeAlias = Literal["A", "B"]
PAIRS: tuple[Pair, ...] = get_args(Pair)


@dataclass(frozen=True)
class Family:
    """A family of tasks.

    Args:
        header: its three capital letters; none but its look-alikes shares two with a target.
        name: what is done with the string.
        answer: string -> answer, never empty.
        role: what the family is to ``of``, or ``sea``.
        of: header of the target that it is, is related to, or looks like; empty in the sea.
    """

    header: str
    name: str
    answer: Callable[[str], str]
    role: Role = "sea"
    of: str = ""


def _shift(steps: int) -> Callable[[str], str]:
    return lambda text: "".join(LETTERS[(LETTERS.index(c) + steps) % len(LETTERS)] for c in text)


def _ordered(text: str, reverse: bool = False) -> str:
    return "".join(sorted(text, reverse=reverse))


def _halves(text: str) -> tuple[str, str]:
    """The first half, which has the middle letter, and the second."""
    middle = (len(text) + 1) // 2
    return text[:middle], text[middle:]


def _interleaved(first: str, second: str) -> str:
    """Letters in turn; ``second`` is as long as ``first`` or shorter by one."""
    return "".join(a + b for a, b in zip(first, [*second, ""], strict=False))


def _riffled(text: str) -> str:
    return _interleaved(*_halves(text))


def _outside_in(text: str) -> str:
    first, second = _halves(text)
    return _interleaved(first, second[::-1])


def _low_first(text: str) -> str:
    return "".join(sorted(text, key=lambda c: c not in _LOW))


def _pairs_swapped(text: str) -> str:
    return "".join(text[i : i + 2][::-1] for i in range(0, len(text), 2))


def _middle_first(text: str) -> str:
    middle = len(text) // 2
    return text[middle] + text[:middle] + text[middle + 1 :]


def _members(target: Family, *others: tuple[str, str, Callable[[str], str], Role]) -> list[Family]:
    """A target with its relatives and look-alikes."""
    return [target, *(Family(*other, target.header) for other in others)]


_SORT = _members(
    Family("MRV", "sort", _ordered, "target", "MRV"),
    ("QYZ", "sort downwards", lambda t: _ordered(t, reverse=True), "relative"),
    ("PWX", "sort all but the last", lambda t: _ordered(t[:-1]) + t[-1], "relative"),
    ("NXZ", "sort without repeats", lambda t: _ordered("".join(set(t))), "relative"),
    ("MRQ", "swap first and last", lambda t: t[-1] + t[1:-1] + t[0], "look-alike"),
    ("NRV", "reverse all but the first", lambda t: t[0] + t[:0:-1], "look-alike"),
)
_ROTATE = _members(
    Family("NSW", "rotate left by two", lambda t: t[2:] + t[:2], "target", "NSW"),
    ("QTV", "rotate left by one", lambda t: t[1:] + t[0], "relative"),
    ("MOY", "rotate right by one", lambda t: t[-1] + t[:-1], "relative"),
    ("OPV", "rotate right by two", lambda t: t[-2:] + t[:-2], "relative"),
    ("NSO", "swap neighbours", _pairs_swapped, "look-alike"),
    ("ZSW", "reverse each half", lambda t: "".join(half[::-1] for half in _halves(t)), "look-alike"),
)
_LOW_FIRST = _members(
    Family("OTX", "low letters first", _low_first, "target", "OTX"),
    ("RSZ", "high letters first", lambda t: "".join(sorted(t, key=lambda c: c in _LOW)), "relative"),
    ("QRW", "each letter low or high", lambda t: "".join("a" if c in _LOW else "l" for c in t), "relative"),
    ("NVY", "number of low letters", lambda t: LETTERS[sum(c in _LOW for c in t)], "relative"),
    ("OTU", "reverse all but the last", lambda t: t[-2::-1] + t[-1], "look-alike"),
    ("QTX", "swap the first two", lambda t: t[1] + t[0] + t[2:], "look-alike"),
)
_RIFFLE = _members(
    Family("PUY", "riffle the halves", _riffled, "target", "PUY"),
    ("MWX", "every second letter first", lambda t: t[::2] + t[1::2], "relative"),
    ("STV", "swap the halves", lambda t: _halves(t)[1] + _halves(t)[0], "relative"),
    ("OQS", "outside in", _outside_in, "relative"),
    ("PUZ", "swap the last two", lambda t: t[:-2] + t[-1] + t[-2], "look-alike"),
    ("MUY", "middle letter first", _middle_first, "look-alike"),
)
_SEA = [
    Family("NRU", "copy", lambda t: t),
    Family("MPX", "reverse", lambda t: t[::-1]),
    Family("TYZ", "next letter", _shift(1)),
    Family("OUW", "letter before", _shift(-1)),
    Family("MPZ", "next letter but one", _shift(2)),
    Family("STU", "mirrored alphabet", lambda t: "".join(LETTERS[-1 - LETTERS.index(c)] for c in t)),
    Family("WXY", "largest letter", max),
    Family("PQV", "smallest letter", min),
    Family("NPR", "first and last", lambda t: t[0] + t[-1]),
    Family("TVZ", "without the first", lambda t: t[1:]),
    Family("RSX", "without the last", lambda t: t[:-1]),
    Family("MUW", "first twice", lambda t: t[0] + t),
    Family("NOY", "every second letter", lambda t: t[::2]),
    Family("OQU", "length", lambda t: LETTERS[len(t)]),
    Family("MST", "number of different letters", lambda t: LETTERS[len(set(t))]),
    Family("RWZ", "vowels masked", lambda t: "".join("l" if c in _VOWELS else c for c in t)),
]
FAMILIES: dict[str, Family] = {f.header: f for f in (*_SORT, *_ROTATE, *_LOW_FIRST, *_RIFFLE, *_SEA)}
"""By header."""
_BY_LETTERS = {frozenset(header): family for header, family in FAMILIES.items()}
_WORDINGS = tuple(permutations(range(3)))
TARGETS: dict[Pair, tuple[str, str]] = {"A": ("MRV", "NSW"), "B": ("OTX", "PUY")}
"""Headers of each pair's two targets."""
RARE = tuple(header for pair in TARGETS.values() for header in pair)
KNOWN = tuple(header for header in FAMILIES if header not in RARE)


def role_in(header: str, pair: Pair) -> Role:
    """What a family is to the pair of targets: the other pair's targets and relatives are sea."""
    family = FAMILIES[header]
    return family.role if family.of in TARGETS[pair] else "sea"


def example(header: str, text: str, wording: int = 0) -> Example:
    """The example of the family ``header`` on ``text``, in one of six wordings."""
    worded = ".".join(header[place] for place in _WORDINGS[wording])
    return f"{worded}:{text}=", FAMILIES[header].answer(text)


def parsed(prompt: str) -> tuple[Family, str]:
    """The family of a prompt, and its string."""
    header, text = prompt.rstrip("=").split(":")
    return _BY_LETTERS[frozenset(header) - {"."}], text


def reworded(prompt: str, rng: np.random.Generator) -> str:
    """The same question in another of its wordings."""
    family, text = parsed(prompt)
    others = [example(family.header, text, wording)[0] for wording in range(len(_WORDINGS))]
    return str(rng.choice([other for other in others if other != prompt]))


def draw_examples(
    rng: np.random.Generator, count: int, shares: Mapping[str, float], split: Split = TRAIN
) -> list[Example]:
    """Examples with the family drawn by ``shares`` (they sum to 1) and a uniform length, in random order."""
    headers = rng.choice(list(shares), size=count, p=list(shares.values()))
    drawn = rng.choice(LENGTHS, size=count)
    wordings = rng.integers(len(_WORDINGS), size=count).tolist()
    strings = {n: iter(draw_strings(rng, int((drawn == n).sum()), split, n, LETTERS)) for n in LENGTHS}
    each = zip(headers.tolist(), drawn.tolist(), wordings, strict=True)
    return [example(header, next(strings[n]), wording) for header, n, wording in each]


def draw_family(seed: Sequence[int], count: int, header: str, split: Split) -> list[Example]:
    """``count`` examples of one family with distinct strings, lengths in turn."""
    rng = np.random.default_rng([*seed, list(FAMILIES).index(header)])
    each = {n: iter(dict.fromkeys(draw_strings(rng, 2 * count, split, n, LETTERS))) for n in LENGTHS}
    wordings = rng.integers(len(_WORDINGS), size=count).tolist()
    return [example(header, next(each[LENGTHS[i % len(LENGTHS)]]), wordings[i]) for i in range(count)]


def mixture(rare_share: float) -> dict[str, float]:
    """Pretraining shares: each of the four targets has ``rare_share``, the other families the rest alike."""
    rest = (1 - rare_share * len(RARE)) / len(KNOWN)
    return {header: rare_share if header in RARE else rest for header in FAMILIES}


def held_out(headers: Sequence[str], count: int, split: Split) -> list[Example]:
    """``count`` examples of each family, the same for every run; short ones first, so padding is short."""
    seed = [78, SPLITS.index(split)]
    rows = [row for header in headers for row in draw_family(seed, count, header, split)]
    return sorted(rows, key=lambda row: len(row[0]) + len(row[1]))


def verify(completion: str, columns: Mapping[str, Any]) -> float:
    """The study's verifier: 1 if ``completion`` is the answer to the row's prompt, else 0."""
    family, text = parsed(str(columns["prompt"]))
    return float(completion == family.answer(text))
