"""Which sources have more prompts than directions, and how far all counts are from a peak.

For a set S of sources let B(S) be the number of columns that they contribute (two a prompt where its labels
are noisy and k >= 1) and rank(S) the dimension of the span of their ranges. The over-determined set T is the
maximiser of the excess B(S) - rank(S), which is supermodular; a tie between sets that span different ranges
is a peak (docs/derivations/exact_asymptotics.md, section 6). Ranges are spanned by orthonormal bases, so
nothing here depends on the sources' scales.

Sources with one range act as one. Up to 12 different ranges (6 where a rank costs an eigendecomposition) all
sets are compared; beyond, the maximum is found by cutting planes on the Lovasz extension, whose minimum over
the unit cube is attained at a set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import RELATIVE_ZERO, is_spectrum
from datadose.shapes import Array, Bool, Float, Spectrum

_ALL_SETS, _ALL_SETS_OF_MATRICES = 12, 6
_ROUNDS = 500

Mask: TypeAlias = NDArray[np.bool_]
"""Which of K things belong to a set, shape (K,), or a row for each of several sets."""


Span: TypeAlias = Spectrum | Float[Array, "d _"]
"""A range: a 0/1 spectrum (d,), or an orthonormal basis (d, r)."""


@dataclass(frozen=True)
class OverDetermined:
    """T, by how many columns its excess leads, and the prompts and the rank of the nearest rival."""

    members: Bool[Mask, " K"]
    """Which sources belong to T, shape (K,)."""
    lead: float
    """B(T) - rank(T) minus the same of the best set that spans another range; >= 0."""


def over_determined(counts: Float[Array, " K"], spans: Sequence[Span]) -> OverDetermined:
    """T for ``counts`` columns a source, whose ranges are ``spans``: 0/1 spectra or orthonormal bases.

    Where not all sets are compared the lead is that over the sets that the search has found, T with one range
    more or less among them.
    """
    groups = _one_range_each(spans)
    totals = np.bincount(groups, weights=counts).astype(np.float64)
    chosen = [spans[int(np.flatnonzero(groups == g)[0])] for g in range(len(totals))]
    rank = _Ranks(chosen)
    if len(totals) > (_ALL_SETS if is_spectrum(spans[0]) else _ALL_SETS_OF_MATRICES):
        sets = _met_sets(totals, rank)
    else:
        sets = (np.arange(2 ** len(totals))[:, None] >> np.arange(len(totals)) & 1).astype(bool)
    ranks = rank.of(sets)
    excess = sets @ totals - ranks
    # Among sets of one range the largest: it leaves out no source that has prompts inside it.
    near = excess >= excess.max() - RELATIVE_ZERO * max(ranks.max(), 1)
    best = int(np.argmax(np.where(near, sets.sum(axis=1), -1)))
    others = ranks != ranks[best]
    lead = float((excess[best] - excess[others]).min()) if others.any() else np.inf
    return OverDetermined(sets[best][groups], max(lead, 0.0))


def _one_range_each(spans: Sequence[Span]) -> NDArray[np.int64]:
    """The number of its range for every source; matrices share one where they span everything."""
    seen: dict[bytes, int] = {}

    def key(span: Span) -> bytes:
        if is_spectrum(span):
            return np.packbits(span > 0).tobytes()
        return b"all" if span.shape[0] == span.shape[1] else span.tobytes()

    return np.array([seen.setdefault(key(span), len(seen)) for span in spans], dtype=np.int64)


class _Ranks:
    """rank(S), for many sets at a time and each computed once."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        self._known: dict[bytes, int] = {bytes(len(spans)): 0}
        if is_spectrum(spans[0]):
            # A set's rank is a sum over the patterns of sources that contain a direction.
            patterns, sizes = np.unique(np.stack(spans) > 0, axis=1, return_counts=True)
            self._patterns, self._sizes = patterns.astype(np.float64), sizes

    def of(self, sets: Mask) -> NDArray[np.int64]:
        """The rank of every row of ``sets`` (S, K), shape (S,)."""
        if is_spectrum(self._spans[0]):
            return np.asarray((sets.astype(np.float64) @ self._patterns > 0) @ self._sizes)
        return np.array([self._one(members) for members in sets])

    def _one(self, members: Mask) -> int:
        key = members.tobytes()
        if key not in self._known:
            taken = [span for span, member in zip(self._spans, members, strict=True) if member]
            self._known[key] = joint_basis(taken)[0].shape[1]
        return self._known[key]


def rank_of(basis: Span) -> int:
    """The dimension that a basis spans: a 0/1 spectrum, or (d, r)."""
    return int(basis.sum()) if is_spectrum(basis) else basis.shape[1]


def joint_basis(spans: Sequence[Span]) -> tuple[Span, Span]:
    """Orthonormal bases of what ``spans`` span together and of what they miss."""
    if is_spectrum(spans[0]):
        spanned = np.any([span > 0 for span in spans], axis=0)
        return spanned.astype(np.float64), (~spanned).astype(np.float64)
    d, largest = len(spans[0]), max(spans, key=lambda span: span.shape[1])
    if largest.shape[1] == d:
        return np.eye(d), np.zeros((d, 0))
    if len(spans) == 1:
        whole = np.linalg.qr(largest, mode="complete")[0]
        return largest, whole[:, largest.shape[1] :]
    values, vectors = np.linalg.eigh(sum(span @ span.T for span in spans))
    kept = values > RELATIVE_ZERO
    return vectors[:, kept], vectors[:, ~kept]


def _met_sets(totals: Array, rank: _Ranks) -> Mask:
    """A maximiser of the excess, and the other sets found while it was sought.

    The Lovasz extension f of rank - B is convex with the greedy vertices as subgradients: minimising the
    largest of them over the cube, one more at a time, ends at min f, and f is attained at a level set.
    """
    from scipy.optimize import linprog  # noqa: PLC0415  (a long import, for many sources only)

    K = len(totals)
    met: list[Mask] = [np.zeros(K, bool)]
    cuts: list[Array] = []
    z, lowest = np.full(K, 0.5), -np.inf
    for _ in range(_ROUNDS):
        order = np.argsort(-z, kind="stable")
        chain = np.zeros((K, K), bool)
        for place, source in enumerate(order):
            chain[place:, source] = True
        steps = np.diff(rank.of(chain) - chain @ totals, prepend=0.0)
        cut = np.empty(K)
        cut[order] = steps
        met.extend(chain)
        if cut @ z <= lowest + RELATIVE_ZERO * (1 + totals.sum()):
            break
        cuts.append(cut)
        # Variables (z, t): the least t above every cut.
        found = linprog(
            np.append(np.zeros(K), 1.0),
            A_ub=np.column_stack([cuts, -np.ones(len(cuts))]),
            b_ub=np.zeros(len(cuts)),
            bounds=[(0, 1)] * K + [(None, None)],
            method="highs",
        )
        z, lowest = found.x[:K], float(found.fun)
    sets = np.array(met)
    best = sets[np.argmax(sets @ totals - rank.of(sets))]
    return np.unique(np.vstack([sets, best ^ np.eye(K, dtype=bool)]), axis=0)
