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
(one source in its own eigenbasis): then only the products with V0 and M cost more. A common scale of all
covariances is taken out first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import (
    RELATIVE_ZERO,
    identity_like,
    is_spectrum,
    plus,
    product,
    trace_between,
    trace_product,
    transpose,
)
from datadose.errors import InputError
from datadose.shapes import Array, Bool, Float, Operator, Spectrum
from datadose.theory.columns import ALL_SMALL, FINITE_MEAN, Columns, Features, Pair, unit_of
from datadose.theory.peaks import joint_basis, over_determined, rank_of
from datadose.theory.regimes import with_ridge, without_ridge
from datadose.theory.trained_operator import TrainedOperator


class PeakError(InputError):
    """The mean error that was asked for is infinite: there is no number to return.

    That is so at convergence where the prompts of some sources (nearly) equal the rank that they span, and
    for the shortest prompts (docs/derivations/hard_edge.md). It is an :class:`~datadose.InputError`.

    Args:
        field: what the value was given for.
        value: what was given.
        allowed: what is allowed in its place, in words.
        reason: where and why the mean is infinite, a sentence.

    Example:
        >>> from datadose import PeakError, Shift, predict_error
        >>> try:
        ...     predict_error(Shift.two_block(40, 20, 0.1, 0.2, 0.1), prompts=40, length=40)
        ... except PeakError as error:
        ...     print(error.reason)
        B within 1 of rank(A) = 40: the mean is infinite there
    """

    def __init__(
        self, field: str, value: object, allowed: str, reason: str = "the mean is infinite there"
    ) -> None:
        super().__init__(field, value, allowed)
        self.reason = reason
        """Where and why the mean is infinite, as a sentence for a result that has no number."""

    def __reduce__(self) -> tuple[type[PeakError], tuple[object, ...]]:
        return type(self), (self.field, self.value, self.allowed, self.reason)


@dataclass(frozen=True)
class Equivalent:
    """Vbar and the weights q of the theorem above; features are the columns, each pair's h after its phi."""

    mean: Operator
    weights: Float[Array, " F"]
    """q_a, shape (F,)."""
    columns: tuple[Columns, ...]
    eta: float
    features: Features = field(repr=False)
    above: Bool[NDArray[np.bool_], " F"]
    """Which features are over-determined (the set T), shape (F,)."""
    gain: Float[Array, "F F"] = field(repr=False)
    """G (F, F), block diagonal: one over one plus leverage, and the coupling within pairs."""
    resolvent: Operator = field(repr=False)
    """R; where counts are mixed, R' of the features below their peak."""
    reach: tuple[Array, ...] = field(repr=False)
    """L^T F_a of every feature, F_a F_a^T = C_a."""
    kept: Operator = field(repr=False)
    """K: Vbar = V0 K + terms without V0."""
    distance_to_peak: float = np.inf
    """The number of prompts by which the counts miss the nearest peak."""

    @property
    def is_mixed(self) -> bool:
        """Whether some sources are above their peak and others below."""
        return bool(self.above.any() and not self.above.all())

    @property
    def infinite_because(self) -> str | None:
        """Why the mean error over finite prompts is infinite; None where it is finite."""
        if self.distance_to_peak <= FINITE_MEAN:
            return "prompts, of all or of some sources, are within 1 of the rank that they span"
        above = self.above[self.features.first]
        if _all_small([c for c, over in zip(self.columns, above, strict=True) if over]):
            return "so few short prompts on one direction are small all together"
        short = _short(self.columns, above)
        if sum(c.count for c in short) < 1:
            return None
        return f"prompts of length {max(c.length for c in short):g} are interpolated"

    def require_finite(self) -> None:
        """Raise :class:`PeakError` where the mean error over finite prompts is infinite."""
        reason = self.infinite_because
        if reason is not None:
            at_peak = self.distance_to_peak <= FINITE_MEAN
            allowed = _away(self.columns) if at_peak else "longer prompts, or more of them than they span"
            total = sum(c.count for c in self.columns)
            reason = f"the mean is infinite, as {reason}"
            raise PeakError("prompts", f"{total:g}", f"{allowed}: {reason}", reason)

    def scaled(self, unit: float) -> Equivalent:
        """The model with covariances measured in ``unit``: A / unit, V unit."""
        factor = np.where(self.above, 1.0, unit**2)
        columns = tuple(c.scaled(unit) for c in self.columns)
        power = 2.0 if self.above.all() else 0.0
        return replace(
            self,
            mean=self.mean * unit,
            weights=self.weights * factor,
            columns=columns,
            features=Features.of(columns),
            gain=self.gain * factor,
            resolvent=self.resolvent * unit**power,
            reach=tuple(
                X * (unit if over else 1 / unit) for X, over in zip(self.reach, self.above, strict=True)
            ),
        )

    @cached_property
    def unit(self) -> float:
        """A power of two near the size of the covariances; 1 unless they are far from 1."""
        return unit_of(self.columns)

    @cached_property
    def measured(self) -> Equivalent:
        """The model in its own unit, in which nothing over- or underflows."""
        return self if self.unit == 1 else self.scaled(self.unit)

    def _residuals(self, rows: Array) -> Array:
        """tr of the clean residuals' second moments at Vbar, (F,), over some ``rows`` of the answer alone.

        ``rows`` is an orthonormal basis (d, m) or a 0/1 spectrum.
        """
        seen, m = product(transpose(rows), self.mean), rank_of(rows)
        found = np.array([trace_between(transpose(seen), C) for C in self.features.moments])
        for place, c in zip(self.features.first, self.columns, strict=True):
            if is_spectrum(rows):
                pull = trace_product(c.cross, seen)
            else:
                pull = float((product(rows.T, c.cross) * seen).sum())
            found[place] += 2 * self.eta * pull + self.eta**2 * m
        return found

    @cached_property
    def _noise(self) -> Array:
        """(G N G)_aa a prompt and dimension, (F,), where N is the covariance of noise in the answers.

        Noise of variance t^2 reaches the two conditions of a pair with covariance t^2 O^{-1}.
        """
        found = np.zeros(len(self.weights))
        for place, c in zip(self.features.first, self.columns, strict=True):
            own = slice(place, place + len(c.moments))
            G = self.gain[own, own]
            if c.pair is None or c.noise == 0:
                found[own] = c.noise * G.diagonal() ** 2
            elif self.above[place]:
                theta = [
                    float((F * X).sum())
                    for F, X in zip(self.features.roots[own], self.reach[own], strict=True)
                ]
                gained = self.features.pairs[int(place)].noise_gain(np.array(theta))
                found[own] = c.noise * c.weight * gained
            else:
                found[own] = c.noise * c.pair.inverse.diagonal() * G.diagonal() ** 2
        return found

    @cached_property
    def _scaled(self) -> Array:
        """B_a G_ab^2."""
        return self.features.counts[:, None] * self.gain**2

    @cached_property
    def overlap(self) -> Float[Array, "F F"]:
        """t_e(C_a) in row a, column e: what one prompt's residual does to the others'."""
        roots, reach = self.features.roots, self.reach
        if is_spectrum(roots[0]):
            return np.asarray(np.stack(roots) ** 2 @ (np.stack(reach) ** 2).T)
        return np.array([[float(((F.T @ X) ** 2).sum()) for X in reach] for F in roots])

    def _direct(self, M: Operator) -> Float[Array, " F"]:
        """t_a(M) = tr(C_a L M L^T), shape (F,)."""
        return np.array([trace_between(X, M) for X in self.reach])

    def leverages(self, M: Operator) -> Float[Array, " F"]:
        """kappa_a(M) for a symmetric M, shape (F,); not divided by d."""
        if not self.columns:
            return np.zeros(0)
        if self.unit != 1:
            return self.measured.leverages(M / self.unit**2)
        return self._looped(self.overlap.T, self._scaled @ self._direct(M))

    @cached_property
    def _spread(self) -> Array:
        """Z with E tr((V* - Vbar) M (V* - Vbar)^T) = sum_a t_a(M) Z_a."""
        return self._spread_of(np.ones(len(self.mean)))

    def _spread_of(self, rows: Array) -> Array:
        """The same over some ``rows`` of the answer alone."""
        own = self._scaled @ self._residuals(rows) + rank_of(rows) * self.features.counts * self._noise
        return self._looped(self.overlap, own)

    def _looped(self, overlap: Array, own: Array) -> Array:
        """x with x = own + B G^2 overlap x, in the units sqrt(B) G in which the matrix is nearly symmetric.

        Sources of very different sizes keep their digits there.
        """
        size = np.sqrt(self.features.counts) * self.gain.diagonal()
        loop = np.eye(len(own)) - (self._scaled @ overlap) * size / size[:, None]
        return np.asarray(size * np.linalg.solve(loop, own / size), dtype=np.float64)

    def variance(self, M: Operator, rows: Spectrum | Float[Array, "d m"] | None = None) -> float:
        """E tr((V* - Vbar) M (V* - Vbar)^T) for a symmetric M; not divided by d.

        With ``rows``, an orthonormal basis (d, m) or a 0/1 spectrum (d,), the trace is over these directions
        of the answer alone: fitting noise does not spread evenly over them.
        """
        if not self.columns:
            return 0.0
        if self.unit != 1:
            return self.measured.variance(M / self.unit**2, rows)
        return float(self._direct(M) @ (self._spread if rows is None else self._spread_of(rows)))

    def trained(self, start: TrainedOperator) -> TrainedOperator:
        """The moments of V* started at a random V0, whose mean is that of this equivalent.

        Vbar is V0 K + terms without V0, so a covariance of V0 adds tr(C_a K^T Cov K) to the residuals.
        """
        if not self.columns:
            return replace(start, scatter=np.zeros(len(self.mean)))
        if self.unit != 1:
            return self.measured.trained(start.scaled(self.unit)).scaled(1 / self.unit)
        loose = plus(start.second_moment, -product(transpose(start.mean), start.mean))
        carried = product(self.kept, loose, self.kept)
        own = np.array([trace_product(carried, C) for C in self.features.moments])
        added = self._looped(self.overlap, self._scaled @ own)
        scatter = reduce(
            plus,
            (z * product(X, transpose(X)) for z, X in zip(self._spread + added, self.reach, strict=True)),
        )
        settled = plus(product(transpose(self.mean), self.mean), carried)
        return TrainedOperator(self.mean, plus(settled, scatter), scatter)

    def quadratic(self, M: Operator) -> float:
        """The number (1/d) E tr(V* M V*^T) for a symmetric M, a spectrum (d,) or a matrix (d, d)."""
        direct = trace_product(product(self.mean, M), transpose(self.mean))
        return (direct + self.variance(M)) / len(M)

    def error(self, target: Operator, test_second_moment: Operator) -> float:
        """The error (1/d) E ||I + V* S||_F^2 on a test (Prop 5.1).

        ``target`` is E[S] and ``test_second_moment`` is E[S^2], each a spectrum (d,) or a matrix (d, d).
        """
        return 1 + 2 * trace_product(self.mean, target) / len(target) + self.quadratic(test_second_moment)


def deterministic_equivalent(
    V0: Operator, eta: float, sources: Sequence[Columns], *, ridge: float = 0.0
) -> Equivalent:
    """The deterministic equivalent of V*, the fit that is nearest to ``V0``, on K sources of columns.

    Args:
        V0: start, a spectrum (d,) or a matrix (d, d); it may be dense while the moments are spectra.
        eta: chain-of-thought step, in (0, 2).
        sources: columns whose moments have one form. Those without prompts or data are ignored.
        ridge: lambda >= 0. Above 0 the equivalent is that of the minimiser of
            ||V Phi + eta Omega||^2 + ridge ||V - V0||^2, which has no peak. Gradient descent from V0 is
            nearly there after a time 1 / ridge.

    Raises :class:`PeakError` at a peak. Next to one, and for prompts of one or two examples, the equivalent
    is finite while the mean over finite prompts is not: see :attr:`Equivalent.infinite_because`.
    """
    sources = tuple(source for source in sources if source.count > 0 and source.second_moment.any())
    if not sources:
        nothing, none = identity_like(V0), np.zeros(0)
        features = Features(none, (), (), np.zeros(0, np.int64), {}, none)
        no_gain = np.zeros((0, 0))
        return Equivalent(V0, none, (), eta, features, np.zeros(0, bool), no_gain, nothing, (), nothing)
    unit = unit_of(sources)
    if unit != 1:
        measured = tuple(c.scaled(unit) for c in sources)
        found = _equivalent(V0 * unit, eta, measured, ridge / unit**2).scaled(1 / unit)
        return replace(found, columns=sources, features=Features.of(sources))
    return _equivalent(V0, eta, sources, ridge)


def _equivalent(V0: Array, eta: float, sources: tuple[Columns, ...], ridge: float) -> Equivalent:
    features, lead = Features.of(sources), np.inf
    if ridge > 0:
        mean, kept, solved = with_ridge(V0, eta, sources, features, ridge)
        above = np.full(len(features.counts), True)
    else:
        directions = np.array([c.count * c.directions for c in sources], dtype=np.float64)
        top = over_determined(directions, [c.span for c in sources])
        above, lead = np.repeat(top.members, [len(c.moments) for c in sources]), top.lead
        # A noisy chain on one example spans one direction only: where it interpolates, the equations for two
        # independent features are no approximation.
        parallel = [c for c in _short(sources, top.members) if c.directions < len(c.moments)]
        unsound = parallel and (lead <= FINITE_MEAN or sum(c.count for c in parallel) >= 1)
        if unsound or lead < RELATIVE_ZERO * len(V0):
            total = sum(c.count for c in sources)
            raise PeakError("prompts", f"{total:g}", f"{_away(sources)}: the mean is infinite here")
        mean, kept, solved = without_ridge(V0, eta, sources, features, above)
    found = Equivalent(
        mean, columns=sources, eta=eta, features=features, above=above, kept=kept, **vars(solved)
    )
    return replace(found, distance_to_peak=lead)


def _short(columns: Sequence[Columns], above: NDArray[np.bool_]) -> list[Columns]:
    """The sources of short prompts that are interpolated."""
    return [c for c, over in zip(columns, above, strict=True) if not over and c.is_short]


def _all_small(columns: Sequence[Columns]) -> bool:
    """Whether over-determined prompts on a direction that only sources of rank 1 span have an infinite mean.

    Such a prompt is a chi-square of n degrees times a vector, so all of them are below x with a probability
    of order x^{n B / 2}, and V* is of order 1 / x there: the second moment needs sum n B > 4.
    """
    lone = [c for c in columns if rank_of(c.span) == 1]
    for c in lone:
        beside = [e for e in columns if np.abs(product(transpose(e.span), c.span)).max() > RELATIVE_ZERO]
        if all(rank_of(e.span) == 1 for e in beside) and sum(e.length * e.count for e in beside) <= ALL_SMALL:
            return True
    return False


def _away(columns: Sequence[Columns]) -> str:
    """Which counts are allowed: a peak is the total's, or one of some sources beside what others span."""
    rank = rank_of(joint_basis([c.span for c in columns])[0])
    near = abs(sum(c.count for c in columns) - rank) <= FINITE_MEAN
    return f"any number more than 1 away from rank(A) = {rank}" if near else "other counts of some sources"


__all__ = ["Columns", "Equivalent", "Pair", "PeakError", "deterministic_equivalent"]
