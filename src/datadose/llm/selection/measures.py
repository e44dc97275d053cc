"""What selection measures of a row: size of its gradient, effect of a step on the target and on the rest.

Notation: g_i = sum over completion tokens of (p_t - y_t) h_t^T, the gradient of row i's summed loss in the
last layer, with softmax p_t, one-hot target y_t and hidden state h_t; its sketch s_i (D numbers) keeps inner
products, <s_i, s_j> = <g_i, g_j> on average. A gradient step on row i, W -> W - gamma g_i, changes the loss
of a set T, the mean over its rows j of L_j / n_j (n_j tokens), by -gamma <g_i, g_T> to first order, with
g_T = mean_j g_j / n_j. So **positive is good** for both measures below:

- alignment > 0: a step on the row lowers the target's loss;
- interference is the same product with the reference's g_R; **negative** means that a step on the row raises
  the reference's loss: it pulls against what must be kept.

Both are cosines, so that neither long nor hard rows win by size alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import Array
from datadose.llm.selection.arrays import Floats, Indices, Mask, Usable, blocks
from datadose.llm.selection.config import SelectionConfig

STRATA = 20
"""Length strata, where the rows and their lengths allow it."""
STRATUM_ROWS = 50
"""A stratum with fewer rows joins its shorter neighbour."""


@dataclass(frozen=True)
class Measures:
    """One number per pool row in each array; NaN where not scored."""

    stratum: NDArray[np.int64]
    """Length stratum, -1 where not scored; from short to long."""
    edges: tuple[int, ...]
    """The fewest tokens of each stratum."""
    hardness: Array
    """NLL (nats per token) or sketch size per token: comparable within a stratum only."""
    alignment: Array
    """Cosine with the target's mean, in [-1, 1]."""
    interference: Array
    """Cosine with the reference's mean sketch, in [-1, 1]; negative pulls against it."""
    needed: Array
    """Per stratum: the alignment that the chosen quantile of the target's own rows have, never below 0."""
    target_alignment: Array
    """The cosine of each of the target's rows with the mean of the others."""

    @classmethod
    def nothing(cls, rows: int) -> Measures:
        """The measures of a pool of ``rows`` rows on which nothing is measured; an RL set needs none."""
        unknown, none = np.full(rows, np.nan), np.zeros(0)
        return cls(np.full(rows, -1), (), unknown, unknown, unknown, none, none)


def length_strata(tokens: Array, among: Mask) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """The length stratum of each row, and the fewest tokens of each stratum.

    Strata are quantile bins of ``tokens`` over the rows ``among``; small ones are merged.
    """
    known = tokens[among]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, STRATA + 1)[:-1], method="lower"))
    while len(edges) > 1:
        counts = np.bincount(np.searchsorted(edges, known, side="right") - 1, minlength=len(edges))
        smallest = int(counts.argmin())
        if counts[smallest] >= STRATUM_ROWS:
            break
        edges = np.delete(edges, max(1, smallest))
    stratum = np.full(len(tokens), -1)
    stratum[among] = np.searchsorted(edges, known, side="right") - 1
    return stratum, tuple(int(edge) for edge in edges)


def shares_within(values: Array, stratum: NDArray[np.int64], among: Mask) -> Array:
    """The place of each row of ``among`` in its stratum: (rank - 1/2) / count, in (0, 1); NaN elsewhere.

    Ties go in the order of the rows, so that a share of the stratum is a share of its rows.
    """
    rows = np.flatnonzero(among)
    order = rows[np.lexsort((rows, values[rows], stratum[rows]))]
    counts = np.bincount(stratum[order]) if len(order) else np.zeros(0, dtype=int)
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    shares = np.full(len(values), np.nan)
    own = stratum[order]
    shares[order] = (np.arange(len(order)) - starts[own] + 0.5) / counts[own]
    return shares


def mean_row(array: Floats, scale: Array, rows: Indices) -> Array:
    """The mean of the ``rows`` of ``array``, each divided by its ``scale``.

    g of a set is that of its sketches and tokens, (D,).
    """
    total = np.zeros(array.shape[1])
    for where, block in blocks(array, rows):
        total += (block / scale[rows[where], None]).sum(axis=0)
    return np.asarray(total / len(rows))


def sizes_and_cosines(
    array: Floats, rows: Indices, directions: Array, centre: Array | None = None
) -> tuple[Array, Array]:
    """The norms (n,) of rows and their cosines (n, k) with directions.

    Args:
        array: representations, (N, D).
        rows: which n of its rows, ascending.
        directions: (D, k). A row or a direction of size zero has cosine zero.
        centre: subtracted from the rows, (D,); nothing if None.
    """
    lengths = np.linalg.norm(directions, axis=0)
    units = np.divide(directions, lengths, out=np.zeros_like(directions), where=lengths > 0)
    norms, cosines = np.empty(len(rows)), np.empty((len(rows), directions.shape[1]))
    for where, block in blocks(array, rows):
        x = block if centre is None else block - centre
        size = np.sqrt(np.einsum("ij,ij->i", x, x))
        norms[where] = size
        cosines[where] = np.divide(
            x @ units, size[:, None], out=np.zeros((len(x), units.shape[1])), where=size[:, None] > 0
        )
    # Sums in another order differ in the last digits; ranks must not.
    return norms, np.round(cosines, 9)


def alignment_of_the_target(
    array: Floats, rows: Indices, scale: Array, mean: Array, centre: Array | None = None
) -> Array:
    """The cosine of each of the target's own ``rows`` with the mean of the others, (n,).

    Args:
        array: representations, (N, D).
        rows: which n of its rows; a single one has cosine zero.
        scale: the number that each row is divided by in ``mean``, (n,): n_j for sketches, 1 for embeddings.
        mean: the mean of the rows, (D,).
        centre: subtracted from the rows, (D,); nothing if None.
    """
    n = len(rows)
    found = np.zeros(n)
    if n == 1:
        return found
    for where, block in blocks(array, rows):
        x = block if centre is None else block - centre
        others = (n * mean - x / scale[where, None]) / (n - 1)
        size = np.sqrt(np.einsum("ij,ij->i", x, x) * np.einsum("ij,ij->i", others, others))
        np.divide(np.einsum("ij,ij->i", x, others), size, out=found[where], where=size > 0)
    return found


def measure(pool: Usable, target: Usable, reference: Usable, config: SelectionConfig) -> Measures:
    """All measures of the pool's rows against the target's and the reference's rows.

    Each argument but ``config`` holds scores and the positions of the rows that are used of them.
    """
    rows, tokens, target_tokens = pool.rows, pool.numbers("tokens"), target.numbers("tokens")
    among = np.zeros(len(tokens), dtype=bool)
    among[rows] = True
    stratum, edges = length_strata(tokens, among)
    towards = mean_row(target.scores.sketches, target_tokens, target.rows)
    keep = mean_row(reference.scores.sketches, reference.numbers("tokens"), reference.rows)
    norms, cosines = sizes_and_cosines(pool.scores.sketches, rows, np.stack([towards, keep], axis=1))
    target_tokens = target_tokens[target.rows]
    if config.representation == "sketch":
        alignment = cosines[:, 0]
        own = alignment_of_the_target(target.scores.sketches, target.rows, target_tokens, towards)
    else:
        kept, wanted = reference.scores.embeddings, target.scores.embeddings
        centre = mean_row(kept, np.ones(len(kept)), reference.rows)
        towards = mean_row(wanted, np.ones(len(wanted)), target.rows) - centre
        alignment = sizes_and_cosines(pool.scores.embeddings, rows, towards[:, None], centre)[1][:, 0]
        ones = np.ones(len(target.rows))
        own = alignment_of_the_target(wanted, target.rows, ones, towards, centre)
    spread = np.full((3, len(tokens)), np.nan)
    spread[0, rows] = pool.numbers("nll")[rows] if config.hardness == "nll" else norms / tokens[rows]
    spread[1, rows], spread[2, rows] = alignment, cosines[:, 1]
    needed = _needed(own, target_tokens, edges, config.unaligned)
    return Measures(stratum, edges, spread[0], spread[1], spread[2], needed, own)


def _needed(own: Array, tokens: Array, edges: tuple[int, ...], quantile: float) -> Array:
    """Per stratum: the quantile of the target rows of that length, of all of them where those are few."""
    place = np.clip(np.searchsorted(edges, tokens, side="right") - 1, 0, None)
    levels = []
    for stratum in range(len(edges)):
        here = own[place == stratum]
        levels.append(np.quantile(here if len(here) >= STRATUM_ROWS else own, quantile))
    return np.asarray(np.maximum(levels, 0.0))
