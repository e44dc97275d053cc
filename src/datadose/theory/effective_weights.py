"""Penalised training on K weighted sources in effective weights: nothing is solved but one K x K system.

The model minimises sum_c w_c ||V Phi_c + eta Omega_c||_F^2 + lambda ||V - V0||_F^2 (plain sums, no mean).
Written in rho_c = q_c / lambda >= 0, with q_c the weights of the deterministic equivalent
(:mod:`datadose.theory.equivalent`), everything is explicit:

- R = (I + sum_c rho_c C_c)^{-1}, H = sum_c rho_c A_c, Vbar = (E[V0] - eta H) R
- P = R (E[V0^T V0] - eta (E[V0]^T H + H E[V0]) + eta^2 H^2) R, which is Vbar^T Vbar for a known V0
- tau_c = tr(C_c R); lambda / w_c = B_c / rho_c - tau_c, so rho is feasible where rho_c tau_c <= B_c
- r_c = tr Res_c = tr(C_c P) + 2 eta tr(A_c Vbar) + (eta^2 + noise_c) d
- with D = diag(rho_c^2 / B_c), O_ce = tr(C_c R C_e R) and y = (I - O D)^{-1} r:
  E[V^T V] = P + R (sum_c y_c D_c C_c) R, the second term being the scatter.

The leverages kappa = D z, z = (I - O D)^{-1} m, m_c = tr(C_c R M R), enter derivatives alone. Where rho is
feasible I - O D is an M-matrix, so the scatter is positive and falls in every B_c. The start may be random
(E[V0], E[V0^T V0]), so stages compose. Derivatives are written out in :meth:`EffectiveModel.gradient`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datadose.covariance import (
    dense,
    diagonal,
    is_spectrum,
    plus,
    product,
    rotated,
    trace_product,
    transpose,
)
from datadose.errors import reject
from datadose.shapes import Array, Float, Matrix, Operator
from datadose.theory.columns import Columns, Features, unit_of
from datadose.theory.explicit_columns import as_start, explicit_columns
from datadose.theory.graded import graded, graded_inverse, order_of
from datadose.theory.post_test import error_of_moments
from datadose.theory.source import Source
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.weighted_test import WeightedTest, require_same_size

FEASIBLE = 1e-9
"""The relative slack in rho_c tau_c <= B_c that counts as rounding."""


@dataclass(frozen=True)
class Gradient:
    """Derivatives of an error / d by source, each of shape (K,)."""

    weights: Float[Array, " K"]
    """The derivative by the effective weight rho_c, at fixed numbers of prompts."""
    prompts: Float[Array, " K"]
    """The derivative by the number of prompts B_c at fixed weights: never positive, 0 where rho_c = 0."""


@dataclass(frozen=True, eq=False)
class EffectiveSources:
    """A start and K sources: all that does not depend on the weights, in the unit of :attr:`unit`."""

    mean: Operator
    """E[V0]."""
    second_moment: Operator
    """E[V0^T V0]."""
    eta: float
    columns: tuple[Columns, ...]
    unit: float
    basis: Matrix | None = field(default=None, repr=False)
    """The basis of all fields above, where they are matrices that :meth:`model` turned."""
    _forms: dict[int, tuple[WeightedTest, WeightedTest]] = field(default_factory=dict, repr=False)
    _turned: dict[tuple[int, ...], EffectiveSources] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        start: TrainedOperator | Operator,
        eta: float,
        sources: Sequence[Source],
        *,
        chain_steps: int = 0,
    ) -> EffectiveSources:
        """Training from ``start`` on ``sources``.

        Args:
            start: the model before training, or a known operator V0, (d,) or (d, d).
            eta: chain-of-thought step, in (0, 2).
            sources: K >= 1 sources of one dimension; spectra stay spectra if all are.
            chain_steps: k >= 0 of the chains of thought; it matters where prompts are noisy.

        Raises InputError for values out of range, another dimension, and label noise where k >= 1.
        """
        return cls.on(start, eta, explicit_columns(sources, eta, chain_steps))

    @classmethod
    def on(
        cls, start: TrainedOperator | Operator, eta: float, columns: tuple[Columns, ...]
    ) -> EffectiveSources:
        """Training on columns that :func:`explicit_columns` returned, which hold their counts."""
        model, unit = as_start(start, len(columns[0].cross)), unit_of(columns)
        mean, second = model.mean * unit, model.second_moment * unit**2
        scaled = tuple(c.scaled(unit) if unit != 1 else c for c in columns)
        if is_spectrum(columns[0].cross):
            return cls(mean, second, eta, scaled, unit)
        return cls(dense(mean), dense(second), eta, scaled, unit)

    def judged_by(self, test: WeightedTest) -> WeightedTest:
        """``test`` in the unit and the basis of the sources. Raises InputError for a test of another size."""
        require_same_size(test, self.dimension)
        known = self._forms.get(id(test))
        if known is not None and known[0] is test:
            return known[1]
        parts = [test.target / self.unit, test.second_moment / self.unit**2]
        if self.basis is not None:
            parts = [rotated(dense(X), self.basis) for X in parts]
        found = WeightedTest(*parts)
        self._forms[id(test)] = (test, found)
        return found

    @property
    def dimension(self) -> int:
        """The dimension d of the inputs."""
        return len(self.mean)

    @cached_property
    def counts(self) -> Float[Array, " K"]:
        """The numbers of prompts B_c, (K,)."""
        return np.array([c.count for c in self.columns], dtype=np.float64)

    @cached_property
    def features(self) -> Features:
        """One of each source, with weights as the columns hold them."""
        return Features.of(self.columns)

    @cached_property
    def moments(self) -> Array:
        """C_c, (K, d) or (K, d, d), without directions that count as none."""
        return np.stack([c.second_moment for c in self.columns])

    @cached_property
    def crosses(self) -> Array:
        """A_c, in the same form."""
        return np.stack([c.cross for c in self.columns])

    @cached_property
    def sizes(self) -> Float[Array, " K"]:
        """tr C_c, (K,), in the unit of the sources."""
        return np.array([diagonal(C).sum() for C in self.moments])

    def seen(self, X: Operator, Y: Operator) -> Operator:
        """The part of X Y that traces with the sources use: its diagonal if they are spectra."""
        if not is_spectrum(self.columns[0].cross):
            return product(X, Y)
        if is_spectrum(X) or is_spectrum(Y):
            return diagonal(X) * diagonal(Y)
        return np.asarray(np.einsum("ij,ji->i", X, Y))

    def traces(self, stacked: Array, X: Operator) -> Float[Array, " K"]:
        """tr(C_c X) of every source; ``stacked`` is :attr:`moments` or :attr:`crosses`."""
        if stacked.ndim == 2:
            return np.asarray(stacked @ diagonal(X))
        return np.asarray(stacked.reshape(len(stacked), -1) @ dense(X).T.ravel())

    def at(self, weights: ArrayLike) -> EffectiveModel:
        """The model at effective weights rho (K,) >= 0.

        Raises InputError for weights that are negative, not finite or of another number, and where they are
        not feasible: rho_c tau_c > B_c for some source.
        """
        model = self.model(self.require_weights(weights) * self.unit**2)
        if not model.is_feasible:
            at = int(np.argmax(model.fitted - self.counts))
            shown = f"{model.fitted[at]:.6g} degrees of freedom fitted to source {at}"
            reject("weights", shown, f"effective weights that fit at most its {self.counts[at]:g} prompts")
        return model

    def model(self, rho: Float[Array, " K"]) -> EffectiveModel:
        """The model at rho (K,) in the unit of the sources, feasible or not; matrices in a graded basis."""
        if is_spectrum(self.columns[0].cross):
            return EffectiveModel(self, rho)
        order = order_of(self.columns, rho)
        if order not in self._turned:
            columns, basis = graded(self.columns, order)
            mean, second = rotated(self.mean, basis), rotated(self.second_moment, basis)
            self._turned[order] = EffectiveSources(mean, second, self.eta, columns, self.unit, basis)
        return EffectiveModel(self._turned[order], rho)

    def require_weights(self, weights: ArrayLike, field: str = "weights") -> Float[Array, " K"]:
        """``weights`` as K finite numbers >= 0, else InputError."""
        allowed = f"{len(self.columns)} finite numbers >= 0"
        try:
            found = np.asarray(weights, dtype=np.float64)
        except (TypeError, ValueError):
            reject(field, weights, allowed)
        if found.shape != (len(self.columns),) or not (np.isfinite(found) & (found >= 0)).all():
            reject(field, weights, allowed)
        return found


@dataclass(frozen=True, eq=False)
class EffectiveModel:
    """The trained model at effective weights; feasible or not, in the unit of the sources."""

    sources: EffectiveSources
    rho: Float[Array, " K"]
    """rho_c in the unit of the sources, (K,)."""

    @cached_property
    def _resolvent(self) -> Operator:
        moments = self.sources.moments
        total = np.tensordot(self.rho, moments, axes=1)
        return 1 / (1 + total) if moments.ndim == 2 else graded_inverse(np.eye(len(total)) + total)

    @cached_property
    def _pull(self) -> Operator:
        """H."""
        return np.asarray(np.tensordot(self.rho, self.sources.crosses, axes=1))

    @cached_property
    def _mean(self) -> Operator:
        return product(plus(self.sources.mean, -self.sources.eta * self._pull), self._resolvent)

    @cached_property
    def _direct(self) -> Operator:
        """P."""
        s, H = self.sources, self._pull
        crossed = product(H, s.mean)
        S = plus(s.second_moment, -s.eta * (crossed + transpose(crossed)), s.eta**2 * product(H, H))
        return product(self._resolvent, S, self._resolvent)

    @cached_property
    def _reach(self) -> Array:
        """C_c R, (K, d) or (K, d, d)."""
        return np.asarray(
            self.sources.moments * self._resolvent
            if is_spectrum(self._resolvent)
            else self.sources.moments @ self._resolvent
        )

    @cached_property
    def _tau(self) -> Float[Array, " K"]:
        return self.sources.traces(self.sources.moments, self._resolvent)

    @cached_property
    def _overlap(self) -> Float[Array, "K K"]:
        """O."""
        flat = self._reach.reshape(len(self.rho), -1)
        turned = self._reach if self._reach.ndim == 2 else self._reach.transpose(0, 2, 1)
        return np.asarray(flat @ turned.reshape(len(self.rho), -1).T)

    @cached_property
    def fitted(self) -> Float[Array, " K"]:
        """rho_c tau_c (K,): the degrees of freedom that are fitted to each source, at most its prompts."""
        return self.rho * self._tau

    @cached_property
    def fitted_slopes(self) -> Float[Array, "K K"]:
        """d(rho_c tau_c) / d rho_e, row c, column e, in the unit of the sources."""
        return np.diag(self._tau) - self.rho[:, None] * self._overlap

    @property
    def is_feasible(self) -> bool:
        """Whether rho_c tau_c <= B_c for every source, up to rounding."""
        return bool((self.fitted <= self.sources.counts * (1 + FEASIBLE)).all())

    @cached_property
    def _per_prompt(self) -> Float[Array, " K"]:
        """D_c = rho_c^2 / B_c.

        Where rho is not feasible B_c is taken to be rho_c tau_c, so that a search that passes there finds
        finite numbers; no such point is returned.
        """
        counts = np.maximum(self.sources.counts, self.fitted)
        return np.divide(self.rho**2, counts, out=np.zeros_like(self.rho), where=counts > 0)

    @cached_property
    def _per_prompt_slopes(self) -> Float[Array, "K K"]:
        """d D_c / d rho_e, row c, column e: 2 rho_c / B_c on the diagonal where rho is feasible."""
        s, over = self.sources, self.fitted > self.sources.counts
        slopes = np.diag(np.divide(2 * self.rho, s.counts, out=np.zeros_like(self.rho), where=s.counts > 0))
        if over.any():
            # D_c = rho_c / tau_c there, and d tau_c / d rho_e = -O_ce.
            tau = self._tau[over, None]
            slopes[over] = np.eye(len(over))[over] / tau
            slopes[over] += self.rho[over, None] / tau**2 * self._overlap[over]
        return slopes

    def _solve(self, right: Array) -> Array:
        """(I - O D)^{-1} right, in the units in which the matrix is symmetric."""
        size = np.sqrt(self._per_prompt)
        used = size > 0
        x = right.astype(np.float64)
        if used.any():
            s, overlap = size[used], self._overlap[np.ix_(used, used)]
            x[used] = np.linalg.solve(np.eye(len(s)) - s[:, None] * overlap * s, s * right[used]) / s
            x[~used] += self._overlap[np.ix_(~used, used)] @ (self._per_prompt[used] * x[used])
        return x

    @cached_property
    def residuals(self) -> Float[Array, " K"]:
        """r_c = tr Res_c (K,) >= 0, not divided by d: what a prompt of each source still disagrees about."""
        s = self.sources
        noise = s.eta**2 + np.array([c.noise for c in s.columns])
        direct = s.traces(s.moments, self._direct) + 2 * s.eta * s.traces(s.crosses, self._mean)
        return direct + noise * s.dimension

    @cached_property
    def _spread(self) -> Float[Array, " K"]:
        """y."""
        return self._solve(self.residuals)

    @cached_property
    def _scatter(self) -> Operator:
        stacked = np.tensordot(self._spread * self._per_prompt, self.sources.moments, axes=1)
        return product(self._resolvent, stacked, self._resolvent)

    @property
    def trained(self) -> TrainedOperator:
        """The mean and the second moment of the trained operator, and its scatter."""
        unit = self.sources.unit
        scatter = self._scatter / unit**2
        second = plus(self._direct / unit**2, scatter)
        found, basis = TrainedOperator(self._mean / unit, second, scatter), self.sources.basis
        return found if basis is None else found.mapped(lambda X: rotated(dense(X), basis.T))

    def error(self, test: WeightedTest) -> float:
        """Error / d on ``test``. Raises InputError for a test of another size."""
        return self.limit(test) + self.variance(test)

    def limit(self, test: WeightedTest) -> float:
        """F: error / d without the scatter, that of unlimited prompts at the same effective weights."""
        return error_of_moments(self._mean, self._direct, *self._test(test))

    def variance(self, test: WeightedTest) -> float:
        """sum_c kappa_c(M) tr Res_c / d."""
        return trace_product(self._scatter, self._test(test)[1]) / self.sources.dimension

    def _test(self, test: WeightedTest) -> tuple[Operator, Operator]:
        form = self.sources.judged_by(test)
        return form.target, form.second_moment

    def shares(self, test: WeightedTest) -> Float[Array, " K"]:
        """m_c = tr(C_c R M R) (K,): the test form of what one source's prompts scatter."""
        s, M = self.sources, self._test(test)[1]
        return s.traces(s.moments, self._seen_between(M))

    def _seen_between(self, M: Operator) -> Operator:
        """The part of R M R that traces with the sources use."""
        R = self._resolvent
        return R * diagonal(M) * R if is_spectrum(R) else product(R, M, R)

    def gradient(self, test: WeightedTest) -> Gradient:
        """d(error / d) by rho_c and by B_c, of a feasible model.

        With X_y = sum_c y_c D_c C_c, X_z = sum_c z_c D_c C_c, N = M + X_z and L = Sigma + eta sum_c z_c D_c
        A_c, the derivative by rho_c times d is
        -2 tr(C_c R [N P + L Vbar + N R X_y R]) - 2 eta tr(A_c [Vbar N R + R L]) + 2 (rho_c/B_c) y_c z_c, and
        that by B_c is -(rho_c/B_c)^2 y_c z_c. Raises InputError for a test of another size.
        """
        s, R, (Sigma, M) = self.sources, self._resolvent, self._test(test)
        D, y = self._per_prompt, self._spread
        z = self._solve(s.traces(s.moments, self._seen_between(M)))
        N = plus(M, np.tensordot(z * D, s.moments, axes=1))
        L = plus(Sigma, s.eta * np.tensordot(z * D, s.crosses, axes=1))
        inner = s.seen(N, self._direct) + s.seen(L, self._mean) + s.seen(N, self._scatter)
        by_moment = s.traces(s.moments, product(R, inner))
        by_cross = s.traces(s.crosses, product(s.seen(self._mean, N), R) + s.seen(R, L))
        share = np.divide(self.rho, s.counts, out=np.zeros_like(self.rho), where=self.rho > 0)
        weights = -2 * by_moment - 2 * s.eta * by_cross + (y * z) @ self._per_prompt_slopes
        unit, d = s.unit, s.dimension
        return Gradient(weights * unit**2 / d, -(share**2) * y * z / d)

    @cached_property
    def penalties(self) -> Float[Array, " K"]:
        """lambda / w_c = B_c / rho_c - tau_c >= 0 (K,); infinite where rho_c = 0."""
        used = self.rho > 0
        found = np.divide(self.sources.counts, self.rho, out=np.full_like(self.rho, np.inf), where=used)
        return np.where(used, np.maximum(found - self._tau, 0.0) * self.sources.unit**2, np.inf)

    def is_active(self, slack: float = FEASIBLE) -> NDArray[np.bool_]:
        """Which sources are fitted to the last of their prompts, rho_c tau_c = B_c: penalty 0; (K,)."""
        return (self.rho > 0) & (self.fitted >= self.sources.counts * (1 - slack))
