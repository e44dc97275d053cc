"""The string language: families of tasks on short strings of letters, and the split by letter multiset.

A text is ``<family symbol>:<string>=<answer>``. Five families are known; sorting is the target T. A string
belongs to train, validation or test by its multiset of letters alone, so that no permutation of a test string
is ever trained on, in any family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
TRAIN, VALIDATION, TEST = SPLITS
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LENGTHS = (3, 4, 5, 6, 7, 8)
HARD_LENGTHS = (6, 7, 8)
"""Strings that the model that had T rarely mostly gets wrong."""
TARGET = "S"
FRESH = "@"
"""A symbol that pretraining never shows: T under a new name."""
MARK = "~"
"""Opens the answer of an interfering row: the right letters in another format."""


def _swap_pairs(text: str) -> str:
    return "".join(text[i : i + 2][::-1] for i in range(0, len(text), 2))


FAMILIES: dict[str, Callable[[str], str]] = {
    "C": lambda text: text,
    "R": lambda text: text[::-1],
    "L": lambda text: text[1:] + text[0],
    "N": lambda text: "".join(LETTERS[(LETTERS.index(c) + 1) % len(LETTERS)] for c in text),
    "P": _swap_pairs,
    TARGET: lambda text: "".join(sorted(text)),
}
"""Symbol -> answer: copy, reverse, rotate to the left, next letter, swap neighbours; sort."""
KNOWN = tuple(symbol for symbol in FAMILIES if symbol != TARGET)

Example: TypeAlias = tuple[str, str]
"""Prompt and completion."""


def example(symbol: str, text: str, *, name: str | None = None) -> Example:
    """The example of family ``symbol`` on ``text``, under another symbol if ``name`` is given."""
    return f"{name or symbol}:{text}=", FAMILIES[symbol](text)


def _buckets(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers 0 to 9 of letter codes (N, length), a function of each row's multiset."""
    # A sum over letters ignores their order; unsigned arithmetic wraps around, as a hash may.
    weights = np.random.default_rng(20_240_601).integers(0, 2**63, size=len(LETTERS), dtype=np.uint64)
    total = weights[codes].sum(axis=1, dtype=np.uint64)
    return np.asarray((total >> np.uint64(33)) % np.uint64(10), dtype=np.int64)


def draw_strings(
    rng: np.random.Generator, count: int, split: Split, length: int, letters: str = LETTERS
) -> list[str]:
    """``count`` strings of ``length`` uniform letters whose multiset lies in ``split``.

    ``letters`` are the first of LETTERS.
    """
    wanted = SPLITS.index(split)
    found: list[str] = []
    while len(found) < count:
        codes = rng.integers(0, len(letters), size=(2 * count if wanted == 0 else 12 * count, length))
        inside = np.maximum(0, _buckets(codes) - 7) == wanted
        found += ["".join(LETTERS[c] for c in row) for row in codes[inside].tolist()]
    return found[:count]


def draw_examples(
    rng: np.random.Generator,
    count: int,
    shares: Mapping[str, float],
    split: Split = TRAIN,
    lengths: Sequence[int] = LENGTHS,
) -> list[Example]:
    """Examples with the family drawn by ``shares`` (they sum to 1) and a uniform length, in random order."""
    symbols = rng.choice(list(shares), size=count, p=list(shares.values()))
    drawn = rng.choice(lengths, size=count)
    strings = {n: iter(draw_strings(rng, int((drawn == n).sum()), split, n)) for n in lengths}
    return [example(str(symbol), next(strings[int(n)])) for symbol, n in zip(symbols, drawn, strict=True)]


def draw_family(
    seed: Sequence[int], count: int, symbol: str, split: Split, *, name: str | None = None
) -> list[Example]:
    """``count`` examples of one family with distinct strings, lengths in turn."""
    rng = np.random.default_rng(list(seed))
    each = {n: iter(dict.fromkeys(draw_strings(rng, count, split, n))) for n in LENGTHS}
    return [example(symbol, next(each[LENGTHS[i % len(LENGTHS)]]), name=name) for i in range(count)]


def mixture(target_share: float) -> dict[str, float]:
    """Pretraining shares: T has ``target_share``, the known families the rest in equal parts."""
    rest = {symbol: (1 - target_share) / len(KNOWN) for symbol in KNOWN}
    return rest if target_share == 0 else {**rest, TARGET: target_share}


def verify(completion: str, columns: Mapping[str, Any]) -> float:
    """The study's verifier: 1 if ``completion`` is the answer to the row's prompt, else 0."""
    symbol, text = str(columns["prompt"]).rstrip("=").split(":")
    return float(completion == FAMILIES[symbol](text))
