"""Rows that nearly repeat another question, and rows that repeat an evaluation file: compared by their words.

Both compare word n-grams. What many rows share (an instruction, a template) is the frame of their file and
counts for nothing. Numbers and the signs of arithmetic are words; in scripts without spaces, each character.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datadose.errors import require_extra
from datadose.llm.pool import Row, Text, for_trl
from datadose.llm.scores import Scores
from datadose.llm.selection.arrays import Indices, Mask
from datadose.llm.selection.filters import IN_EVALUATION, NEAR_COPY, Funnel

OVERLAP_WORDS = 8
"""Words of an n-gram that is sought in the pool; a shorter question counts only as a whole."""
COPY_WORDS = 5
"""Words of an n-gram of which two questions share many if they are near copies."""
PERMUTATIONS = 128
"""Numbers of a question's MinHash: the similarity is known within 0.04."""

_SIGNS = re.escape("+-*/=<>^%\u00d7\u00f7\u221a\u2264\u2265\u2260")
_ALONE = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
"""Kana, ideographs, Hangul and Thai."""
_WORD = re.compile(rf"[{_SIGNS}{_ALONE}]|[^\W{_ALONE}]+")
_BLOCK = 4096
_EXAMPLES = 5
"""Rows of which the record shows what they repeat."""
_SEED = 42
"""Of the hashes; rensa's own."""
_FRAME_SAMPLE = 2000
_FRAME_SHARE_POOL, _FRAME_SHARE_AGAINST = 0.05, 0.1
_FRAME_ROWS_POOL, _FRAME_ROWS_AGAINST = 10, 2
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd: multiplication by it loses nothing of 64 bits."""


@dataclass(frozen=True, eq=False)
class Repeats:
    """Which rows of a pool repeat what they should not; None for what was not sought."""

    overlaps: Mask | None = None
    """Rows that repeat a question of an evaluation file."""
    copies: Mask | None = None
    """Rows whose question nearly repeats that of a row that stays."""
    record: dict[str, Any] = field(default_factory=dict)
    """The part of the manifest."""

    def not_looked_for(self) -> list[str]:
        """A sentence on each check that was not made."""
        said = []
        if self.overlaps is None:
            said.append("Evaluation files: none was given to compare the rows with (--against FILE).")
        if self.copies is None:
            said.append(
                "Near duplicates: only equal questions were found (--near-duplicates 0.8 finds more)."
            )
        return said

    def drop_overlaps(self, funnel: Funnel) -> None:
        """Remove the rows that repeat an evaluation file, if it was sought."""
        if self.overlaps is not None:
            share = 100 * self.record["against"]["share"]
            why = (
                f"{share:g} percent or more of an evaluation question's {OVERLAP_WORDS}-grams are in the row"
            )
            funnel.drop(IN_EVALUATION, self.overlaps, why)

    def drop_copies(self, funnel: Funnel) -> None:
        """Remove the near copies, if they were sought."""
        if self.copies is not None:
            threshold = self.record["near_duplicates"]["threshold"]
            why = f"a row that stays has a question with a similarity of {threshold:g} or more"
            funnel.drop(NEAR_COPY, self.copies, why)


NO_REPEATS = Repeats()
"""Nothing was sought."""


def words_of(text: str) -> list[str]:
    """The words of a text, case folded."""
    return _WORD.findall(text.casefold())


def grams_of(words: Sequence[str], size: int) -> list[str]:
    """The n-grams of ``size`` words, in order; of fewer words, all of them as one."""
    if len(words) <= size:
        return [" ".join(words)]
    return [" ".join(words[i : i + size]) for i in range(len(words) - size + 1)]


def spoken(text: Text | None) -> str:
    """The words of a prompt or completion without those of the system."""
    if text is None or isinstance(text, str):
        return text or ""
    return "\n".join(str(message.get("content") or "") for message in text if message.get("role") != "system")


def find_near_copies(pool: Scores, order: Indices, threshold: float) -> tuple[Mask, dict[str, Any]]:
    """Which rows of ``order`` nearly repeat the question of an earlier one that stays, and the record of it.

    Two questions are near copies if the Jaccard similarity of their sets of 5-grams, estimated from 128
    MinHashes (standard error at most 0.04), is at least ``threshold``. Pairs are found by locality-sensitive
    hashing (rensa's): one of exactly that similarity is found with a chance of at least 0.9, one above it
    nearly always.

    Args:
        pool: with its folder, where the texts are.
        order: rows, the ones to keep rather than a copy of them first.
        threshold: in (0, 1].
    """
    require_extra("llm", "rensa")
    from rensa import RMinHash, RMinHashDeduplicator  # noqa: PLC0415

    bands = next(b for b in (4, 8, 16, 32, 64, 128) if b == PERMUTATIONS or _found(threshold, b) >= 0.9)
    seen = RMinHashDeduplicator(threshold, PERMUTATIONS, True, bands, _SEED)
    frame = _frame_of_pool(pool, order)
    copies = np.zeros(len(pool.table), dtype=bool)
    examples: list[dict[str, Any]] = []
    for start in range(0, len(order), _BLOCK):
        rows = order[start : start + _BLOCK]
        entries = [
            (str(row), _told(line, frame)) for row, line in zip(rows, pool.raw_lines(rows), strict=True)
        ]
        copies[rows] = ~np.array(seen.add_pairs(entries), dtype=bool)
        for place in np.flatnonzero(copies[rows])[: _EXAMPLES - len(examples)]:
            row, grams = entries[place]
            hashed = RMinHash(PERMUTATIONS, _SEED)
            hashed.update(grams)
            stays = [int(found) for found in seen.get_duplicates(hashed)]
            examples.append(_nearest_of(pool, int(row), set(grams), stays, frame))
    record = {"threshold": threshold, "words": COPY_WORDS, "found": int(copies.sum()), "frame": len(frame)}
    return copies, {**record, "examples": examples}


def _nearest_of(
    pool: Scores, row: int, grams: set[str], stays: Sequence[int], frame: set[str]
) -> dict[str, Any]:
    """A near copy by its id, and the row of ``stays`` that it is nearest to with their exact similarity."""
    ids = pool.table["id"]
    found: dict[str, Any] = {"id": str(ids.iloc[row]), "of": None, "similarity": None}
    for other, line in zip(stays, pool.raw_lines(stays), strict=True):
        theirs = set(_told(line, frame))
        similarity = len(grams & theirs) / len(grams | theirs)
        if found["of"] is None or similarity > found["similarity"]:
            found |= {"of": str(ids.iloc[other]), "similarity": round(similarity, 3)}
    return found


def _found(similarity: float, bands: int) -> float:
    """The chance that two questions of this similarity share a band."""
    return float(1 - (1 - similarity ** (PERMUTATIONS // bands)) ** bands)


def _question(line: bytes) -> list[str]:
    """The words of a row's prompt."""
    prompt = spoken(json.loads(line).get("prompt"))
    return words_of(prompt) or [prompt]


def _told(line: bytes, frame: set[str]) -> list[str]:
    """The n-grams of a row's question without the frame; all of them if it is nothing else."""
    grams = grams_of(_question(line), COPY_WORDS)
    return [gram for gram in grams if gram not in frame] or grams


def _frame_of_pool(pool: Scores, order: Indices) -> set[str]:
    some = order[np.linspace(0, len(order) - 1, min(len(order), _FRAME_SAMPLE)).astype(np.int64)]
    lines = pool.raw_lines(np.sort(some))
    counts = Counter(chain.from_iterable(set(grams_of(_question(line), COPY_WORDS)) for line in lines))
    most = max(_FRAME_ROWS_POOL, _FRAME_SHARE_POOL * len(some))
    return {gram for gram, count in counts.items() if count > most}


def find_overlaps(
    pool: Scores, against: Mapping[str, Sequence[Row]], share: float
) -> tuple[Mask, dict[str, Any]]:
    """Which rows of the pool repeat a question of an evaluation file, and the record of it.

    A row does if its prompt and completion hold at least ``share`` of the 8-grams of an evaluation prompt, or
    if its prompt has the same words as one. N-grams in more than a tenth of an evaluation file's rows (and in
    at least 3 of them) are its frame and do not count.

    Args:
        pool: with its folder, where the texts are.
        against: the rows of each file by its name.
        share: in (0, 1].
    """
    index = _Questions(against)
    found = np.zeros(len(pool.table), dtype=bool)
    hit = np.zeros(len(index.names), dtype=bool)
    examples: list[dict[str, Any]] = []
    ids = pool.table["id"]
    lines = pool.raw_lines(range(len(pool.table)))
    for start in range(0, len(found), _BLOCK):
        for row, question, overlap in index.matches(list(islice(lines, _BLOCK)), share):
            if not found[start + row] and len(examples) < _EXAMPLES:
                name, place = index.names[question]
                pair = {"id": str(ids.iloc[start + row]), "file": name, "place": place}
                examples.append(pair | {"share": round(overlap, 3)})
            found[start + row] = hit[question] = True
    files = [
        {
            "file": name,
            "rows": len(rows),
            "unread": sum(row.issue is not None for row in rows),
            "repeated": int(sum(h for h, (owner, _) in zip(hit, index.names, strict=True) if owner == name)),
        }
        for name, rows in against.items()
    ]
    record = {"share": share, "words": OVERLAP_WORDS, "found": int(found.sum()), "files": files}
    return found, {**record, "examples": examples}


class _Questions:
    """The questions of evaluation files, by their n-grams."""

    def __init__(self, against: Mapping[str, Sequence[Row]]) -> None:
        self.names: list[tuple[str, str]] = []
        """File and place of each question."""
        self.whole: dict[str, int] = {}
        self.ids: dict[str, int] = {}
        grams: list[NDArray[np.uint64]] = []
        for name, rows in against.items():
            texts = [(row.place, words_of(spoken(row.prompt))) for row in rows if row.issue is None]
            of_file = [self._hashes([self._learn(words)]) for _, words in texts]
            frame = _frame(of_file)
            for (place, words), hashes in zip(texts, of_file, strict=True):
                self.whole.setdefault(" ".join(words), len(self.names))
                self.names.append((name, place))
                grams.append(hashes[~np.isin(hashes, frame)])
        self.sizes = np.array([len(g) for g in grams], dtype=np.int64)
        hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *grams])
        owners = np.repeat(np.arange(len(grams)), self.sizes)
        order = np.argsort(hashes, kind="stable")
        self.owners = owners[order]
        self.grams, starts = np.unique(hashes[order], return_index=True)
        self.starts = np.append(starts, len(hashes))

    def _learn(self, words: Sequence[str]) -> list[int]:
        return [self.ids.setdefault(word, len(self.ids) + 1) for word in words]

    def _hashes(self, texts: Sequence[Sequence[int]]) -> NDArray[np.uint64]:
        """The distinct n-grams of some texts."""
        return np.unique(_hash_windows(np.fromiter(chain.from_iterable(texts), dtype=np.uint64))[1])

    def matches(self, lines: Sequence[bytes], share: float) -> Iterator[tuple[int, int, float]]:
        """(row, question, share of the question's n-grams) of the ``lines``' rows that repeat a question."""
        words: list[int] = []
        ends = []
        for row, line in enumerate(lines):
            columns = for_trl(json.loads(line))
            prompt = words_of(spoken(columns.get("prompt")))
            if prompt and (question := self.whole.get(" ".join(prompt))) is not None:
                yield row, question, 1.0
            for part in (prompt, words_of(spoken(columns.get("completion")))):
                # Zero is no known word: no n-gram goes over it.
                words.extend(map(self.ids.get, part, repeat(0)))
                words.append(0)
            ends.append(len(words))
        places, hashes = _hash_windows(np.array(words, dtype=np.uint64))
        where = np.searchsorted(self.grams, hashes)
        known = where < len(self.grams)
        known[known] = self.grams[where[known]] == hashes[known]
        of_row = np.searchsorted(ends, places[known], side="right")
        # Each n-gram once a row, then each question that has it.
        of_row, gram = np.divmod(np.unique(of_row * len(self.grams) + where[known]), max(1, len(self.grams)))
        counts = self.starts[gram + 1] - self.starts[gram]
        first = np.repeat(self.starts[gram] - np.cumsum(counts) + counts, counts)
        questions = self.owners[first + np.arange(len(first))]
        pairs = np.repeat(of_row, counts) * len(self.names) + questions
        pairs, shared = np.unique(pairs, return_counts=True)
        rows, questions = np.divmod(pairs, max(1, len(self.names)))
        shares = shared / self.sizes[questions]
        for place in np.flatnonzero(shares >= share):
            yield int(rows[place]), int(questions[place]), float(shares[place])


def _hash_windows(ids: NDArray[np.uint64]) -> tuple[Indices, NDArray[np.uint64]]:
    """(first places, hashes) of the windows of 8 ids without a zero."""
    count = len(ids) - OVERLAP_WORDS + 1
    if count <= 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint64)
    mixed = (ids * _FACTOR) ^ (ids * _FACTOR >> np.uint64(29))
    hashes = np.zeros(count, dtype=np.uint64)
    gaps = np.zeros(count, dtype=bool)
    for offset in range(OVERLAP_WORDS):
        hashes = (hashes ^ mixed[offset : offset + count]) * _FACTOR
        hashes ^= hashes >> np.uint64(32)
        gaps |= ids[offset : offset + count] == 0
    places = np.flatnonzero(~gaps)
    return places, hashes[places]


def _frame(texts: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """The n-grams that many of the ``texts`` share."""
    hashes, counts = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *texts]), return_counts=True)
    return hashes[counts > max(_FRAME_ROWS_AGAINST, _FRAME_SHARE_AGAINST * len(texts))]
