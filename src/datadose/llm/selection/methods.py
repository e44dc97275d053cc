"""Selection methods, called alike: which rows of a scored pool to train on first, for a target.

A method takes the pool's usable rows, the target's rows, a size and a seed, and returns that many rows in the
order of taking. What is usable is decided before and is the same for all: scored, one row of each question,
and not failed by the verifier where one has judged. So methods differ in their order alone. Apart from
``transport``, the first k rows are the set of size k.

``filters``, the selection of datadose with all its thresholds, is a name beside these
(:mod:`datadose.llm.selection.sft_set`): it has no order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import Array
from datadose.errors import reject, require_choice, require_extra
from datadose.llm.pool import for_trl
from datadose.llm.selection.arrays import Floats, Indices, Usable, stream
from datadose.llm.selection.duplicates import grams_of, spoken, words_of
from datadose.llm.selection.measures import mean_row, sizes_and_cosines
from datadose.llm.selection.nearest import draw_in_turns, take_turns, unit_rows
from datadose.llm.selection.transport import nearest_measure

Method: TypeAlias = Callable[[Usable, Usable, int, int], Indices]
"""(pool, target, size, seed) -> ``size`` of ``pool.rows``, first those to take first."""


def _ordered(pool: Usable, badness: Array, size: int) -> Indices:
    """The ``size`` usable rows with the smallest ``badness`` (one number each), ties to the earlier."""
    # Sorting all of a large pool for each target row would cost more than finding the rows.
    last = np.partition(badness, size - 1)[size - 1]
    # Not `<=`: a sort puts NaN last, and counts it.
    near = np.flatnonzero(~(badness > last))
    return pool.rows[near[np.argsort(badness[near], kind="stable")[:size]]]


def random(pool: Usable, target: Usable, size: int, seed: int) -> Indices:
    """Rows drawn uniformly: the baseline."""
    return stream(seed, "method").permutation(pool.rows)[:size]


def longest(pool: Usable, target: Usable, size: int, seed: int) -> Indices:
    """The rows with the most completion tokens (Zhao et al., "Long is more for alignment", 2402.04833)."""
    return _ordered(pool, -pool.numbers("tokens")[pool.rows], size)


def easiest(pool: Usable, target: Usable, size: int, seed: int) -> Indices:
    """The rows with the lowest loss per token."""
    return _ordered(pool, pool.numbers("nll")[pool.rows], size)


def hardest(pool: Usable, target: Usable, size: int, seed: int) -> Indices:
    """The rows with the highest loss per token."""
    return _ordered(pool, -pool.numbers("nll")[pool.rows], size)


def middle(pool: Usable, target: Usable, size: int, seed: int) -> Indices:
    """The rows whose loss per token is nearest to the median in rank (Marion et al., "When less is more",
    2309.04564)."""
    nll = pool.numbers("nll")[pool.rows]
    ranks = np.empty(len(nll))
    ranks[np.argsort(nll, kind="stable")] = np.arange(len(nll))
    return _ordered(pool, np.abs(ranks - (len(nll) - 1) / 2), size)


def ifd(pool: Usable, target: Usable, size: int, seed: int) -> Indices:
    """The rows whose prompt helps least with the completion: the largest loss over the loss without the
    prompt, of those below 1; rows above 1, whose prompt misleads, follow, the nearest to 1 first, and then
    rows that have no loss without the prompt: a completion of one token with nothing before it.

    Source: Li et al., "From quantity to quality" (2308.12032). Raises InputError for scores without
    ``nll_alone``.
    """
    alone = pool.numbers("nll_alone")[pool.rows]
    if not np.isfinite(alone).any():
        lacking = f"{len(alone)} usable rows without nll_alone"
        reject("method", f"ifd with {lacking}", "scores of `datadose score --alone` for ifd")
    # A completion that is certain without its prompt has nothing that the prompt could help with. NaN is not
    # above 0 either.
    ratio = np.divide(pool.numbers("nll")[pool.rows], alone, out=np.full(len(alone), np.inf), where=alone > 0)
    return _ordered(pool, np.where(ratio < 1, 1 - ratio, ratio), size)


def bm25(pool: Usable, target: Usable, size: int, seed: int) -> Indices:
    """The rows that share the rarest words and pairs of words with a target row, target rows taking turns.

    BM25 (k1 = 1.5, b = 0.75) of bm25s, a prompt with its completion being a text, without system messages.
    Pool and target need their folders. A target row without any word of the pool has no turn; InputError
    if none has one.
    """
    require_extra("llm", "bm25s")
    import bm25s  # noqa: PLC0415 - optional

    asked = [read_grams(line) for line in target.scores.raw_lines(_turns(target, seed))]
    # What no target row has counts for a text's length alone; one string for all of it saves the memory.
    wanted = {gram: gram for gram in chain.from_iterable(asked)}
    texts = [[wanted.get(gram, "") for gram in read_grams(line)] for line in pool.scores.raw_lines(pool.rows)]
    known = set(chain.from_iterable(texts))
    queries = [[gram for gram in grams if gram in known] for grams in asked]
    queries = [query for query in queries if query]
    if not queries:
        reject(
            "method",
            "bm25 with a target that shares no word with a usable row",
            "another method, such as rds",
        )
    index: Any = bm25s.BM25()
    index.index(texts, show_progress=False)
    lists = []
    for query in queries:
        badness: Array = -np.round(np.asarray(index.get_scores(query), dtype=float), 5)
        lists.append(_ordered(pool, badness, size))
    return take_turns(lists, size)


def read_grams(line: bytes) -> list[str]:
    """The words and the pairs of neighbouring words of a row, as its line in the file has them."""
    row = for_trl(json.loads(line))
    text = f"{spoken(row.get('prompt'))}\n{spoken(row.get('completion'))}"
    words = words_of(text)
    return words + (grams_of(words, 2) if len(words) > 1 else [])


def rds(pool: Usable, target: Usable, size: int, seed: int) -> Indices:
    """The rows nearest to a target row by position-weighted mean hidden states, target rows taking turns:
    RDS+ of Ivison et al. (2503.01807)."""
    units = _directions("rds", target.scores.embeddings, target, seed)
    return draw_in_turns(pool.scores.embeddings, pool.rows, units, size)


def sketch(pool: Usable, target: Usable, size: int, seed: int) -> Indices:
    """The rows nearest to a target row by sketches of the last layer's gradient, target rows taking turns."""
    units = _directions("sketch", target.scores.sketches, target, seed)
    return draw_in_turns(pool.scores.sketches, pool.rows, units, size)


def _turns(target: Usable, seed: int) -> Indices:
    """The target's rows in a random order: a file sorted by kind would give a small set to its first kind."""
    return stream(seed, "turns").permutation(target.rows)


def _directions(name: str, array: Floats, target: Usable, seed: int) -> NDArray[np.float32]:
    """The target's rows of ``array``, scaled to length 1, in the order of their turns.

    A row of zeros is equally near to all rows and has no turn; InputError for the method ``name`` if none
    has one.
    """
    units = unit_rows(array, _turns(target, seed))
    units = units[units.any(axis=1)]
    if not len(units):
        reject("method", f"{name} with a target whose vectors are all zero", "another method")
    return units


def sketch_mean(pool: Usable, target: Usable, size: int, seed: int) -> Indices:
    """The rows a step on which lowers the target's mean loss most: the largest cosine of their sketch with
    the target's mean gradient."""
    towards = mean_row(target.scores.sketches, target.numbers("tokens"), target.rows)
    if not towards.any():
        reject("method", "sketch-mean with a target whose mean gradient is zero", "another method")
    cosines = sizes_and_cosines(pool.scores.sketches, pool.rows, towards[:, None])[1]
    return _ordered(pool, -cosines[:, 0], size)


def transport(pool: Usable, target: Usable, size: int, seed: int) -> Indices:
    """The ``size`` rows that the target's rows are moved to at the least cost: optimal transport by POT.

    Costs are 1 - cosine of position-weighted mean hidden states; the pool's rows are those four times
    ``size`` that ``rds`` takes first (:func:`~datadose.llm.selection.transport.nearest_measure`).
    """
    near = np.sort(rds(pool, target, min(4 * size, len(pool.rows)), seed))
    units = unit_rows(pool.scores.embeddings, near)
    cosines = units @ unit_rows(target.scores.embeddings, target.rows).T
    return near[nearest_measure(1 - cosines.astype(np.float64), size)]


METHODS: dict[str, Method] = {
    "random": random,
    "longest": longest,
    "easiest": easiest,
    "middle": middle,
    "hardest": hardest,
    "ifd": ifd,
    "bm25": bm25,
    "rds": rds,
    "sketch": sketch,
    "sketch-mean": sketch_mean,
    "transport": transport,
}
"""The methods by name."""


def choose_rows(name: str, pool: Usable, targets: Sequence[Usable], size: int, seed: int) -> Indices:
    """``size`` usable rows of the pool by a method, in the order of taking; several targets take turns.

    Args:
        name: one of METHODS.
        pool: scores, and the rows to choose from.
        targets: examples of each target, at least one.
        size: rows to take, from 1 to the number of usable rows.
        seed: of what is drawn.

    Raises InputError for an unknown method, a size out of range, or scores that lack what the method needs.
    """
    require_choice("method", name, METHODS)
    if not 1 <= size <= len(pool.rows):
        reject("size", size, f"1 to {len(pool.rows)}, the usable rows")
    lists = [METHODS[name](pool, target, size, seed) for target in targets]
    return lists[0] if len(lists) == 1 else take_turns(lists, size)
