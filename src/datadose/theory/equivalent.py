"""Deterministic equivalent of ridgeless regression from an arbitrary start on K sources of columns.

The general theorem behind every `exact` form (docs/derivations/exact_asymptotics.md). Source c contributes
B_c columns (w, phi) with E[phi phi^T] = C_c, E[w phi^T] = A_c, E[w w^T] = I. V* is the matrix nearest to V0
that best fits V phi = -eta w. In the proportional limit, with tr not divided by d:

- interpolating: q_c = B_c / tr(C_c R), R = (I + sum_c q_c C_c)^{-1}, Vbar = (V0 - eta sum_c q_c A_c) R
- over-determined: q_c = B_c / (1 + tr(C_c R)), R = (sum_c q_c C_c)^+, Vbar = -eta sum_c q_c A_c R (+ V0 off
  the range)
- mixed (a set T of sources has more prompts than the rank that it spans, the others do not): T is solved as
  over-determined on its range U_T, giving R_T and V_T; the others as interpolating on the rest, with moments
  P' C_c P', giving R'; Vbar = V_T + [V0 - sum_{c not in T} q_c (eta A_c + V_T C_c)] R'. The two cases above
  are T = all and T = none.
- E[V* M V*^T] = Vbar M Vbar^T + sum_c kappa_c(M) Res_c for symmetric M, where Res_c is the covariance of the
  residual V phi + eta w of source c at Vbar, and the leverages solve the K x K system
  kappa_c = (q_c^2/B_c) [t_c(M) + sum_e kappa_e t_c(C_e)], t_c(M) = tr(C_c L M L^T), where L is R (in the
  mixed case R' for c not in T, and R_T - R_T (sum_{c not in T} q_c C_c) R' for c in T).

Noisy answers add a multiple of I to Res_c. Noisy labels make a prompt impose a second condition V h = 0
(:class:`Pair`), which is one more feature with a q of its own; the two of a prompt share
G = (O^{-1} + diag(tr(C_a R)))^{-1}, q_a = B G_aa, where O weighs them (section 9 of the derivation).

With spectra all of it is elementwise: O(K d) a Newton step. Sources may be spectra while V0 and M are dense
(one source in its own eigenbasis): then only the products with V0 and M cost more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import (
    RELATIVE_ZERO,
    Array,
    dense,
    identity_like,
    is_spectrum,
    null_basis,
    plus,
    product,
    rank,
    trace,
    trace_product,
    transpose,
)
from datadose.errors import InputError
from datadose.theory.fixed_point import Features, Regime, solve_fixed_point

_RIDGE = 1e-8
"""The ridge that tells sources above their peak from those below, in mean eigenvalues of sum_c B_c C_c."""


class PeakError(InputError):
    """The mean error is infinite here: some sources' prompts equal the rank that they span."""


@dataclass(frozen=True)
class Pair:
    """The second condition V h = 0 that label noise makes each prompt of a source impose (k >= 1)."""

    second_moment: Array
    """C_h = E[h h^T]."""
    weights: NDArray[np.float64]
    """O (2, 2), positive definite, O_00 = 1: the loss is sum_ab O_ab <r_a, r_b>, r = (V phi + eta w, V h)."""


@dataclass(frozen=True)
class Columns:
    """One source of columns: their number B_c (real, >= 0) and second moments, all in one form."""

    count: float
    second_moment: Array
    """C_c = E[phi phi^T]."""
    cross: Array
    """A_c = E[w phi^T], symmetric."""
    noise: float = 0.0
    """Variance per dimension of the noise in the answers -eta w."""
    pair: Pair | None = None


@dataclass(frozen=True)
class Equivalent:
    """Vbar and the weights q of the theorem above; features are the columns, each pair's h after its phi."""

    mean: Array
    weights: Array
    """q_a, shape (F,)."""
    columns: tuple[Columns, ...]
    eta: float
    features: Features = field(repr=False)
    above: NDArray[np.bool_]
    """Which features are over-determined (the set T), shape (F,)."""
    filters: tuple[Array, Array] = field(repr=False)
    """L of the features below their peak and of those above; both are R unless the two are mixed."""
    distance_to_peak: float = np.inf
    """By how many prompts the counts miss the nearest peak."""

    @property
    def is_mixed(self) -> bool:
        """Whether some sources are above their peak and others below."""
        return bool(self.above.any() and not self.above.all())

    @property
    def resolvent(self) -> Array:
        """R; there is no single one in the mixed case (see ``filters``)."""
        return self.filters[int(self.above.any())]

    @cached_property
    def residual_traces(self) -> Array:
        """tr of the residuals' second moments at Vbar, (F, F): zero between prompts; not divided by d."""
        return self._residuals(None)

    def _residuals(self, rows: Array | None) -> Array:
        """The same with the trace over some rows of the answer: a basis (d, m) or a 0/1 spectrum."""
        if rows is None or is_spectrum(rows):
            inside = np.ones(len(self.mean)) if rows is None else rows
            seen, m = product(inside, self.mean), float(inside.sum())
        else:
            seen, m = rows.T @ dense(self.mean), rows.shape[1]
        found, place = np.zeros((len(self.weights),) * 2), 0
        for c in self.columns:
            fitted = trace_product(product(seen, c.second_moment), transpose(seen))
            if rows is None or is_spectrum(rows):
                pull = trace_product(c.cross, seen)
            else:
                pull = float((product(rows.T, c.cross) * seen).sum())
            found[place, place] = fitted + 2 * self.eta * pull + (self.eta**2 + c.noise) * m
            if c.pair is not None:
                # Noise nu_i in the answers reaches the two conditions with covariance t^2 O^{-1}.
                own = slice(place, place + 2)
                inverse = np.linalg.inv(c.pair.weights)
                echoed = trace_product(product(seen, c.pair.second_moment), transpose(seen))
                found[own, own] = c.noise * m * inverse
                found[place, place] += fitted + 2 * self.eta * pull + self.eta**2 * m
                found[place + 1, place + 1] += echoed
            place += 1 if c.pair is None else 2
        return found

    @cached_property
    def _gain(self) -> Array:
        """G (F, F), block diagonal: one over one plus leverage, and the coupling within pairs."""
        return self.features.gain(self.weights, self.above)

    @cached_property
    def _scaled(self) -> Array:
        """B_a G_ab^2."""
        return self.features.counts[:, None] * self._gain**2

    @cached_property
    def _overlap(self) -> Array:
        """t_e(C_a) in row a, column e: what one prompt's residual does to the others'."""
        return np.array([self._direct(C) for C in self.features.moments])

    def _direct(self, M: Array) -> Array:
        """t_a(M) = tr(C_a L M L^T), shape (F,)."""
        below, above = (product(L, M, transpose(L)) for L in self.filters)
        seen = [above if over else below for over in self.above]
        return np.array([trace_product(C, X) for C, X in zip(self.features.moments, seen, strict=True)])

    def leverages(self, M: Array) -> Array:
        """kappa_a(M) for a symmetric M, shape (F,); not divided by d."""
        if not self.columns:
            return np.zeros(0)
        loop = np.eye(len(self.weights)) - self._scaled @ self._overlap.T
        return np.asarray(np.linalg.solve(loop, self._scaled @ self._direct(M)), dtype=np.float64)

    @cached_property
    def _spread(self) -> Array:
        """Z with E tr((V* - Vbar) M (V* - Vbar)^T) = sum_a t_a(M) Z_a."""
        return self._spread_of(self.residual_traces)

    def _spread_of(self, residuals: Array) -> Array:
        own = self.features.counts * (self._gain @ residuals @ self._gain).diagonal()
        loop = np.eye(len(own)) - self._scaled @ self._overlap
        return np.asarray(np.linalg.solve(loop, own), dtype=np.float64)

    def variance(self, M: Array, rows: Array | None = None) -> float:
        """E tr((V* - Vbar) M (V* - Vbar)^T) for a symmetric M; not divided by d.

        With ``rows``, an orthonormal basis (d, m) or a 0/1 spectrum (d,), the trace is over these directions
        of the answer alone: fitting noise does not spread evenly over them.
        """
        if not self.columns:
            return 0.0
        spread = self._spread if rows is None else self._spread_of(self._residuals(rows))
        return float(self._direct(M) @ spread)

    def quadratic(self, M: Array) -> float:
        """(1/d) E tr(V* M V*^T) for a symmetric M."""
        direct = trace_product(product(self.mean, M), transpose(self.mean))
        return (direct + self.variance(M)) / len(M)

    def error(self, target: Array, test_second_moment: Array) -> float:
        """(1/d) E ||I + V* S||_F^2 with E[S] = ``target``, E[S^2] = ``test_second_moment`` (Prop 5.1)."""
        return 1 + 2 * trace_product(self.mean, target) / len(target) + self.quadratic(test_second_moment)


def deterministic_equivalent(
    V0: Array, eta: float, sources: Sequence[Columns], *, ridge: float = 0.0
) -> Equivalent:
    """The equivalent of V* started at ``V0`` on ``sources`` (zero-count sources are ignored).

    With ``ridge`` > 0 that of the minimiser of ||V Phi + eta Omega||^2 + ridge ||V - V0||^2 instead, which is
    where gradient descent from V0 is after a time 1 / ridge, nearly; it has no peak.

    All moments have one form, spectra or dense; ``V0`` may be dense while they are spectra. Raises
    :class:`PeakError` where the mean error is infinite.
    """
    sources = tuple(source for source in sources if source.count > 0)
    features = Features.of(
        [
            (c.count, c.second_moment, None if c.pair is None else (c.pair.second_moment, c.pair.weights))
            for c in sources
        ]
    )
    if not sources:
        nothing = identity_like(V0)
        return Equivalent(V0, np.zeros(0), (), eta, features, np.zeros(0, bool), (nothing, nothing))
    identity = identity_like(sources[0].second_moment)
    if ridge > 0:
        return _ridge_equivalent(V0, eta, sources, features, ridge)
    above, lead = _above_peak(features, identity)
    q = np.zeros(len(above))
    over, basis = np.zeros_like(identity), None
    if above.any():
        top = features.subset(above)
        basis = null_basis(top.mixed())
        q[above], over = solve_fixed_point(top, Regime(0.0, True, _rank_beside(basis)), identity)
    under = identity if basis is None else _embedded(basis, None)
    if not above.all():
        rest = features.subset(~above, basis)
        regime = Regime(1.0, False, rank(rest.mixed()))
        inner = identity if basis is None else identity_like(rest.moments[0])
        q[~above], found = solve_fixed_point(rest, regime, inner)
        under = found if basis is None else _embedded(basis, found)
    mean = _mean(V0, eta, sources, features, above, q, (under, over))
    pulled = _weighted(np.where(above, 0.0, q), features.moments)
    crossed = plus(over, -product(over, pulled, under)) if above.any() and not above.all() else over
    return Equivalent(mean, q, sources, eta, features, above, (under, crossed), lead)


def _ridge_equivalent(
    V0: Array, eta: float, sources: tuple[Columns, ...], features: Features, ridge: float
) -> Equivalent:
    """q = B / (1 + tr(C R)), R = (ridge I + sum q C)^{-1}, Vbar = (ridge V0 - eta sum q A) R."""
    regime = Regime(ridge, loose=True, rank=len(V0))
    q, R = solve_fixed_point(features, regime, identity_like(features.moments[0]))
    pulled = eta * _weighted(q[features.first], [source.cross for source in sources])
    mean = product(plus(ridge * V0, -pulled), R)
    return Equivalent(mean, q, sources, eta, features, np.full(len(q), fill_value=True), (R, R))


def _mean(
    V0: Array,
    eta: float,
    sources: Sequence[Columns],
    features: Features,
    above: NDArray[np.bool_],
    q: Array,
    resolvents: tuple[Array, Array],
) -> Array:
    """V_T + [V0 - sum_{c not in T} q_c (eta A_c + V_T C_c)] R'."""
    under, over = resolvents
    on_top, own = above[features.first], q[features.first]
    crosses = [source.cross for source in sources]
    fitted = -eta * product(_weighted(np.where(on_top, own, 0.0), crosses), over)
    pulled = eta * _weighted(np.where(on_top, 0.0, own), crosses)
    if above.any() and not above.all():
        pulled = pulled + product(fitted, _weighted(np.where(above, 0.0, q), features.moments))
    return plus(fitted, product(plus(V0, -pulled), under))


def _rank_beside(basis: Array) -> int:
    """The rank of a matrix whose null space is ``basis``."""
    return int(len(basis) - basis.sum()) if is_spectrum(basis) else len(basis) - basis.shape[1]


def _embedded(basis: Array, inner: Array | None) -> Array:
    """The matrix ``inner`` (None: the identity) on the span of ``basis``, as a matrix on the whole space."""
    if is_spectrum(basis):
        return basis if inner is None else basis * inner
    return basis @ basis.T if inner is None else basis @ inner @ basis.T


def _above_peak(features: Features, identity: Array) -> tuple[NDArray[np.bool_], float]:
    """The set T that maximises B(T) - rank(T), and by how many prompts it is ahead of other sets.

    T holds the features with more prompts than directions. Where all sources span the same range it is all or
    none. Otherwise a small ridge tells: q_a / B_a is then of the order of the ridge below the peak, of order
    one above, and of the order of its root where sides tie. So T holds the features of largest q_a / B_a, and
    so does each set that ties with it; beside these, sets that differ from T by one feature are compared.
    Raises PeakError at a tie.
    """
    everything = np.full(len(features.counts), fill_value=True)
    total, dimensions = float(features.counts.sum()), rank(features.mixed())

    @cache
    def spanned(members: bytes) -> int:
        chosen = np.frombuffer(members, dtype=bool)
        return rank(features.subset(chosen).mixed()) if chosen.any() else 0

    def excess(chosen: NDArray[np.bool_]) -> float:
        return float(features.counts[chosen].sum()) - spanned(chosen.tobytes())

    if len(features.counts) == 1 or all(rank(C) == dimensions for C in features.moments):
        above, rivals = everything & (total > dimensions), [everything, ~everything]
    else:
        mean = sum(B * trace(C) for B, C in zip(features.counts, features.moments, strict=True))
        regime = Regime(_RIDGE * mean / len(identity), loose=True, rank=dimensions)
        q, _ = solve_fixed_point(features, regime, identity, tolerance=1e-2)
        place = np.argsort(np.argsort(-q / features.counts))
        chain = [place < size for size in range(len(place) + 1)]
        # Sources of next to no prompts inside T's range belong to T: among equals the larger set.
        above = max(chain, key=lambda chosen: (excess(chosen), int(chosen.sum())))
        rivals = [*chain, *(above ^ one for one in np.eye(len(above), dtype=bool))]
    # A set of the same rank ties only where it differs by sources without prompts, which is no peak.
    others = [rival for rival in rivals if spanned(rival.tobytes()) != spanned(above.tobytes())]
    lead = min((excess(above) - excess(rival) for rival in others), default=np.inf)
    _refuse_peak(lead, total, dimensions)
    return above, abs(lead)


def _refuse_peak(lead: float, total: float, dimensions: int) -> None:
    if abs(lead) < RELATIVE_ZERO * dimensions:
        allowed = (
            f"any number but rank(A) = {dimensions}: the mean is infinite where prompts, of all or of some "
            "sources, equal the rank that they span"
        )
        raise PeakError("prompts", f"{total:g}", allowed)


def _weighted(q: Array, matrices: Sequence[Array]) -> Array:
    return sum((qc * M for qc, M in zip(q, matrices, strict=True)), np.zeros_like(matrices[0]))
