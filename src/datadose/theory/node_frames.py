"""The resolvents of a filter's nodes: elementwise for spectra, matrices otherwise.

Both give what :mod:`datadose.theory.penalised` needs: traces for the fixed points, the mean of the filtered
solution, and the part of E[V^T V] that the chance of the prompts makes. Directions that share the eigenvalues
of all sources are counted together, so a shift of two blocks costs what two directions cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import dense, diagonal, identity_like, plus, product, trace, transpose
from datadose.shapes import Array, Complex, Operator
from datadose.theory.graded import graded_inverse
from datadose.theory.penalised import Weighted, both_halves, pair_weights, solve
from datadose.theory.stopping import Filter
from datadose.theory.trained_operator import TrainedOperator

_TOGETHER = 32
"""Filters whose nodes are solved at once."""
_HELD = 2**15
"""Nodes times levels whose pairs are summed at once."""


def filtered(
    start: TrainedOperator,
    eta: float,
    sources: Weighted,
    rules: Sequence[Filter],
    answers: Operator | None = None,
) -> list[TrainedOperator]:
    """The model after the fit under each of several filters: moments of sum_i m_i w_i V_{lambda_i}.

    Args:
        start: the model before, in either form.
        eta: chain-of-thought step.
        sources: all spectra, or all matrices.
        rules: the filters; with spectra the nodes of many are solved together, which is quicker.
        answers: a projector P, (d,) or (d, d), on directions of the answer: the moments are then those of
            P V, and ``start`` holds those of P V0. All directions unless given.
    """
    P = identity_like(sources.columns[0].cross) if answers is None else answers
    if sources.columns[0].cross.ndim > 1:
        whole = _Matrices.of(start, eta, sources, dense(P))
        return [_under(rule, start, sources, whole, *_solved(sources, [rule], whole)) for rule in rules]
    levels, found = _Levels.of(start, eta, sources, P), []
    ends = np.cumsum([len(rule.nodes) for rule in rules])
    for low in range(0, len(rules), _TOGETHER):
        part = rules[low : low + _TOGETHER]
        solved = _solved(sources, part, levels)
        base = ends[low] - len(part[0].nodes)
        for rule, end in zip(part, ends[low:], strict=False):
            own = slice(end - base - len(rule.nodes), end - base)
            frame = replace(levels, R=levels.R[own])
            found.append(_under(rule, start, sources, frame, *(X[own] for X in solved)))
    return found


def _solved(
    sources: Weighted, rules: Sequence[Filter], frame: _Levels | _Matrices
) -> tuple[Complex, Complex, Complex]:
    return solve(sources, np.concatenate([rule.nodes for rule in rules]), frame)


def _under(
    rule: Filter,
    start: TrainedOperator,
    sources: Weighted,
    frame: _Levels | _Matrices,
    rho: Complex,
    H: Complex,
    J: Complex,
) -> TrainedOperator:
    """The moments under one filter, whose nodes' resolvents ``frame`` holds."""
    pulled = rho[:, sources.first]
    twice = np.where(rule.nodes.imag > 0, 2.0, 1.0) * rule.weights
    kept, fitted = frame.mean_parts(twice, pulled)
    mean = plus(product(start.mean, kept), fitted)
    turned = product(kept, transpose(start.mean), fitted)
    settled = plus(
        product(kept, start.second_moment, kept),
        turned,
        transpose(turned),
        product(transpose(fitted), fitted),
    )
    overlap, residuals = frame.pairs(rule.nodes, pulled)
    u = pair_weights(sources, rule.nodes, (H, J), overlap, residuals, frame.size)
    shares = twice[:, None] * both_halves(rule.weights, rule.nodes)[None, :]
    scatter = frame.spread(shares[..., None] * u, rule.nodes)
    return TrainedOperator(mean, plus(settled, scatter), scatter)


@dataclass
class _Levels:
    """Spectra; L levels of directions."""

    eta: float
    answers: Operator
    """P, in either form."""
    size: float
    """Directions of the answer that P keeps."""
    first: NDArray[np.int64]
    index: NDArray[np.int64]
    """The level of each direction, (d,)."""
    moments: Array
    """C_a at the levels, (F, L)."""
    crosses: Array
    """A_c at the levels, (K, L)."""
    counted: Array
    """Directions of each level, (L,)."""
    answered: Array
    """Of them those that P keeps, (L,)."""
    own: Array
    """Sums of V0's diagonal over each level."""
    norms: Array
    """The same of the diagonal of E[V0^T V0]."""
    R: Complex

    @classmethod
    def of(cls, start: TrainedOperator, eta: float, sources: Weighted, P: Operator) -> _Levels:
        crosses = np.stack([c.cross for c in sources.columns])
        stacked = np.concatenate([np.stack(sources.moments), crosses])
        levels, index = _unique_columns(stacked)
        F, size = len(sources.counts), levels.shape[1]
        counted, answered, own, norms = (
            np.bincount(index, weights=x, minlength=size).astype(np.float64)
            for x in (np.ones(len(index)), *map(diagonal, (P, start.mean, start.second_moment)))
        )
        at = (sources.first, index, levels[:F], levels[F:], counted, answered, own, norms)
        return cls(eta, P, trace(P), *at, np.zeros((0, size), np.complex128))

    def traces(self, rho: Complex) -> tuple[Complex, Complex]:
        R = 1 / (1 + rho @ self.moments)
        counted = self.moments * self.counted
        F, squares = len(counted), R * R
        crossed = (counted[:, None] * self.moments).reshape(F * F, -1)
        return R @ counted.T, (squares @ crossed.T).reshape(-1, F, F)

    def fix(self, rho: Complex) -> None:
        self.R = 1 / (1 + rho @ self.moments)

    def mean_parts(self, twice: Complex, pulled: Complex) -> tuple[Operator, Operator]:
        """The real operators K and F of the mean V0 K + F."""
        Y = (pulled @ self.crosses) * self.R
        fitted = -self.eta * (twice @ Y).real[self.index]
        return (twice @ self.R).real[self.index], product(self.answers, fitted)

    def pairs(self, nodes: Complex, pulled: Complex) -> tuple[Complex, Complex]:
        N, F = len(nodes), len(self.moments)
        whole = 2 * N - int((nodes.imag == 0).sum())
        overlap = np.zeros((N, whole, F, F), np.complex128)
        found = np.zeros((N, whole, F), np.complex128)
        for cut in self._parts(N):
            self._add_pairs(cut, nodes, pulled, overlap, found)
        # tr(A_c Vbar_i), (K, N).
        seen = (self.crosses * self.own) @ self.R.T
        for cut in self._parts(N):
            Y = (pulled @ self.crosses[:, cut]) * self.R[:, cut]
            seen -= self.eta * (self.crosses * self.answered)[:, cut] @ Y.T
        for place, row in zip(self.first, seen, strict=True):
            both = row[:, None] + both_halves(row, nodes)[None, :]
            found[:, :, place] += self.eta * both + self.eta**2 * self.size
        return overlap, found

    def _parts(self, nodes: int) -> list[slice]:
        """Slices of the levels, so that what is held for many nodes at once stays small."""
        size = max(1, _HELD // nodes)
        return [slice(low, low + size) for low in range(0, len(self.counted), size)]

    def _add_pairs(
        self, cut: slice, nodes: Complex, pulled: Complex, overlap: Complex, found: Complex
    ) -> None:
        """Add what the levels in ``cut`` contribute to the traces of all pairs of nodes."""
        R, moments, own = self.R[:, cut], self.moments[:, cut], self.own[cut]
        Y = (pulled @ self.crosses[:, cut]) * R
        R_all, Y_all = both_halves(R, nodes).T, both_halves(Y, nodes).T
        for a, C in enumerate(moments):
            for b in range(a + 1):
                part = (R * (self.counted[cut] * C * moments[b])) @ R_all
                overlap[:, :, a, b] += part
                if a != b:
                    overlap[:, :, b, a] += part
            found[:, :, a] += (R * (C * self.norms[cut]) - self.eta * Y * (C * own)) @ R_all
            answered = self.eta**2 * Y * (C * self.answered[cut])
            found[:, :, a] += (answered - self.eta * R * (C * own)) @ Y_all

    def spread(self, u: Complex, nodes: Complex) -> Operator:
        """sum_a sum_ij u_ija R_i C_a R_j."""
        found = np.zeros(len(self.counted))
        for cut in self._parts(len(nodes)):
            R, R_all = self.R[:, cut], both_halves(self.R[:, cut], nodes)
            for a, C in enumerate(self.moments[:, cut]):
                found[cut] += C * (R * (u[:, :, a] @ R_all)).sum(axis=0).real
        return found[self.index]


def _unique_columns(stacked: Array) -> tuple[Array, NDArray[np.int64]]:
    """The different columns of a matrix, and where each of its columns stands among them.

    What numpy.unique returns along axis 1, from a sort of numbers instead of a sort of records.
    """
    order = np.lexsort(stacked[::-1])
    ordered = stacked[:, order]
    new = np.r_[True, (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)]
    index = np.empty(len(order), np.int64)
    index[order] = np.cumsum(new) - 1
    return ordered[:, new], index


@dataclass
class _Matrices:
    """Matrices: one inverse a node."""

    eta: float
    size: float
    """Directions of the answer that P keeps."""
    first: NDArray[np.int64]
    moments: Sequence[Array]
    crosses: Sequence[Array]
    """P A_c."""
    start: Array
    loose: Array
    """The covariance E[V0^T V0] - E[V0]^T E[V0] of a random start."""
    R: Complex

    @classmethod
    def of(cls, start: TrainedOperator, eta: float, sources: Weighted, P: Array) -> _Matrices:
        mean = dense(start.mean)
        crosses, d = [P @ c.cross for c in sources.columns], len(mean)
        nothing = np.zeros((0, d, d), np.complex128)
        loose = dense(start.second_moment) - mean.T @ mean
        return cls(eta, trace(P), sources.first, sources.moments, crosses, mean, loose, nothing)

    def _resolvents(self, rho: Complex) -> Complex:
        inner = np.eye(len(self.start)) + np.tensordot(rho, np.stack(self.moments), axes=1)
        return np.asarray(graded_inverse(inner), np.complex128)

    def traces(self, rho: Complex) -> tuple[Complex, Complex]:
        R = self._resolvents(rho)
        seen = np.stack([C @ R for C in self.moments], axis=1)
        flat = (len(rho), len(self.moments), -1)
        crossed = seen.reshape(flat) @ seen.swapaxes(-1, -2).reshape(flat).swapaxes(1, 2)
        return np.einsum("naii->na", seen), crossed

    def fix(self, rho: Complex) -> None:
        self.R = self._resolvents(rho)

    def _pulled(self, pulled: Complex) -> Complex:
        return np.asarray(np.tensordot(pulled, np.stack(self.crosses), axes=1) @ self.R)

    def mean_parts(self, twice: Complex, pulled: Complex) -> tuple[Operator, Operator]:
        """The real operators K and F of the mean V0 K + F."""
        fitted = np.tensordot(twice, self._pulled(pulled), axes=1).real
        return np.tensordot(twice, self.R, axes=1).real, -self.eta * fitted

    def pairs(self, nodes: Complex, pulled: Complex) -> tuple[Complex, Complex]:
        R, N, F, d = self.R, len(nodes), len(self.moments), len(self.start)
        means = self.start @ R - self.eta * self._pulled(pulled)
        seen = np.stack([C @ R for C in self.moments], axis=1).reshape(N * F, -1)
        flipped = seen.reshape(N, F, d, d).swapaxes(-1, -2).reshape(N, F, -1)
        turned = both_halves(flipped, nodes).reshape(-1, seen.shape[1])
        overlap = (seen @ turned.T).reshape(N, F, -1, F).swapaxes(1, 2)
        held = np.stack([means @ C for C in self.moments], axis=1).reshape(N * F, -1)
        others = both_halves(means, nodes).reshape(-1, held.shape[1])
        crossed = held @ others.T
        if self.loose.any():
            left = (seen.reshape(-1, d) @ self.loose).reshape(N * F, -1)
            others = both_halves(R.swapaxes(-1, -2), nodes).reshape(-1, held.shape[1])
            crossed += left @ others.T
        found = np.ascontiguousarray(crossed.reshape(N, F, -1).swapaxes(1, 2))
        for place, A in zip(self.first, self.crosses, strict=True):
            row = np.einsum("ij,nij->n", A, means)
            both = row[:, None] + both_halves(row, nodes)[None, :]
            found[:, :, place] += self.eta * both + self.eta**2 * self.size
        return overlap, found

    def spread(self, u: Complex, nodes: Complex) -> Operator:
        """sum_a sum_ij u_ija R_i C_a R_j."""
        d = len(self.start)
        R_all = both_halves(self.R, nodes).reshape(-1, d * d)
        found = np.zeros((d, d))
        for a, C in enumerate(self.moments):
            summed = (u[:, :, a] @ R_all).reshape(-1, d, d)
            found += np.einsum("nij,njk->ik", self.R @ C, summed, optimize=True).real
        return (found + found.T) / 2
