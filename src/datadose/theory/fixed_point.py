"""The fixed point of the deterministic equivalent: theta_a = tr(C_a R) of every feature.

Features are independent columns phi of one source, or the two of a prompt with noisy labels (a pair). Given
theta the weights are explicit, q_a = B_a G_aa(theta), and given q so is R = (ridge I + sum_a q_a C_a)^{-1}:

- loose (above the peak, or with a ridge): G = (O^{-1} + diag(theta))^{-1}, for a lone feature 1 / (1 + theta)
- interpolating (below the peak): G = 1 / theta, ridge = 1

The map I: theta -> tr(C_a R(q(theta))) is a standard interference function (Yates 1995): positive, monotone,
and I(s theta) < s I(theta) for s > 1. So its fixed point is unique, plain iteration ends there from anywhere,
and max_a |log I_a(theta) / theta_a| never rises on the way. Newton's method on log theta is tried first at
every step and taken where it lowers that residual; plain iteration is what is left otherwise.
Derivation: docs/derivations/exact_asymptotics.md, section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.linalg import cho_factor, cho_solve, qr, solve_triangular

from datadose.errors import InputError
from datadose.shapes import Array, Float, Operator
from datadose.theory.columns import Features

_STEPS = 2_000
_EXACT = 1e-14
_ROUNDING = 1e-8
"""Residuals in log theta: no digits are left below the first; above the second nothing is returned."""
_SIGN = 0.01
"""Where one feature's residual is below this share of another's its sign does not count."""
_LONGEST = 8.0
"""The longest step in log theta."""
_FAR = 7.0
"""A frame of matrices is made anew once a weight has moved by more than e^7 from where it was made."""


class NoFixedPointError(InputError):
    """The counts belong to another regime, or the matrices leave no digits."""


@dataclass(frozen=True)
class Regime:
    """Which equations hold: ``ridge`` on the diagonal, loose or interpolating."""

    ridge: float
    loose: bool

    def gain(self, features: Features, theta: Float[Array, " F"]) -> Float[Array, "F F"]:
        """G (F, F), block diagonal."""
        return features.gain(theta) if self.loose else np.diag(1 / theta)


@dataclass(frozen=True)
class Solved:
    """The fixed point: weights, G, and R between the roots of the moments."""

    weights: Float[Array, " F"]
    """q_a, shape (F,)."""
    gain: Float[Array, "F F"]
    """G, (F, F)."""
    resolvent: Operator
    """R: a spectrum (d,) or a matrix (d, d)."""
    reach: tuple[Array, ...]
    """R F_a of every feature."""


class SpectralFrame:
    """Spectra: everything is elementwise."""

    def __init__(self, roots: Array, ridge: float) -> None:
        self._roots, self._ridge = roots, ridge
        self.moments = roots**2
        """C_a, shape (F, d)."""

    def _resolvent(self, q: Array) -> Array:
        total = self._ridge + q @ self.moments
        return np.asarray(np.divide(1.0, total, out=np.zeros_like(total), where=total > 0))

    def traces(self, q: Array) -> tuple[Array, Array]:
        """tr(C_a R) (F,) and tr(C_a R C_b R) (F, F) at weights q."""
        R = self._resolvent(q)
        seen = self.moments * R
        # A product with seen.T itself has other last digits.
        return seen.sum(axis=1), seen @ (self.moments * R).T

    def resolved(self, q: Array) -> tuple[Array, tuple[Array, ...]]:
        """The pair of R and all R F_a at weights ``q``."""
        R = self._resolvent(q)
        return R, tuple(R * self._roots)


class MatrixFrame:
    """Matrices, in the coordinates x = S y in which ridge I + sum_a q_a C_a is the identity at weights q0.

    S comes from a QR factorisation of the stacked rows sqrt(q0_a) F_a^T and sqrt(ridge) I, sorted by size and
    with pivoted columns, which keeps the digits of small rows beside large ones (Cox and Higham, 1998). So
    sources may be many orders of magnitude apart, and nearly singular. Without a ridge the roots must span
    the whole space.
    """

    def __init__(self, roots: tuple[Array, ...], ridge: float) -> None:
        self._roots, self._ridge = roots, ridge
        self._at: Array | None = None

    def _move(self, q: Array) -> None:
        if self._at is not None and np.abs(np.log(q / self._at)).max() <= _FAR:
            return
        d, sizes = len(self._roots[0]), [F.shape[1] for F in self._roots]
        rows = np.vstack([np.sqrt(qa) * F.T for qa, F in zip(q, self._roots, strict=True)])
        if self._ridge > 0:
            rows = np.vstack([rows, np.sqrt(self._ridge) * np.eye(d)])
        order = np.argsort(-np.abs(rows).max(axis=1), kind="stable")
        Q, T, pivots = qr(rows[order], mode="economic", pivoting=True, check_finite=False)
        if np.abs(T.diagonal()).min() == 0:
            raise NoFixedPointError("covariances", "matrices without digits left", "better conditioned ones")
        placed = np.empty_like(Q)
        placed[order] = Q
        *self._parts, floor = np.split(placed, np.cumsum(sizes))
        self._triangle, self._pivots, self._at = T, pivots, q
        self._grams = np.array([X.T @ X for X in self._parts])
        self._floor = floor.T @ floor

    def _inner(self, q: Array) -> tuple[Array, Array]:
        """w = q / q0 and the inverse of the floor plus sum_a w_a Q_a^T Q_a."""
        self._move(q)
        assert self._at is not None
        w = q / self._at
        total = self._floor + np.tensordot(w, self._grams, axes=1)
        inner = cho_solve(cho_factor(total, check_finite=False), np.eye(len(total)), check_finite=False)
        return w, (inner + inner.T) / 2

    def traces(self, q: Array) -> tuple[Array, Array]:
        """tr(C_a R) and tr(C_a R C_b R)."""
        w, inner = self._inner(q)
        scale = w / q
        seen = np.matmul(self._grams, inner)
        flat = seen.reshape(len(q), -1)
        crossed = flat @ seen.transpose(0, 2, 1).reshape(len(q), -1).T
        return scale * seen.trace(axis1=1, axis2=2), scale[:, None] * crossed * scale

    def resolved(self, q: Array) -> tuple[Array, tuple[Array, ...]]:
        """The pair of R and all R F_a at weights ``q``."""
        w, inner = self._inner(q)
        found = [self._back(inner @ part.T) for part in self._parts]
        reach = tuple(X * np.sqrt(wa / qa) for X, wa, qa in zip(found, w, q, strict=True))
        R = self._back(self._back(inner).T)
        return (R + R.T) / 2, reach

    def _back(self, columns: Array) -> Array:
        """S @ columns."""
        found = np.empty_like(columns)
        found[self._pivots] = solve_triangular(self._triangle, columns, check_finite=False)
        return found


Frame: TypeAlias = SpectralFrame | MatrixFrame
"""The moments in coordinates in which traces with R keep their digits."""


@dataclass(frozen=True)
class _State:
    """An iterate x = log theta, with what follows from it."""

    x: Array
    q: Array
    gap: Array
    """log I(theta) - x."""
    step: Array
    """Newton's."""

    @property
    def residual(self) -> float:
        return float(np.abs(self.gap).max())

    @property
    def side(self) -> int:
        """1 where I(theta) >= theta in all features, nearly, -1 where it is <=, else 0."""
        slack = _SIGN * self.residual
        return int((self.gap >= -slack).all()) - int((self.gap <= slack).all())


def solve_fixed_point(features: Features, regime: Regime, frame: Frame) -> Solved:
    """The fixed point theta_a = tr(C_a R) of all features, sought from where the map is far from flat.

    That is theta = tr(C_a), the largest, when interpolating, and theta next to 0 otherwise.

    Args:
        features: the features with their counts, in one form.
        regime: whether the equations are those below the peak, above it, or with a ridge.
        frame: the traces and the resolvent in the form of the features.

    Raises NoFixedPointError if there is no fixed point: the counts are not of this regime.
    """
    if regime.loose:
        largest = features.counts * features.gain(np.zeros(len(features.counts))).diagonal()
        theta = frame.traces(largest)[0]
    else:
        theta = np.array([float((F**2).sum()) for F in features.roots])
    state = _state(np.log(theta), features, regime, frame)
    for step in range(_STEPS):
        if state.residual <= _EXACT:
            break
        # Plain iteration alone would end too; it has the second half to itself.
        moved = _newton(state, features, regime, frame) if step < _STEPS / 2 else None
        if moved is None and state.residual <= _ROUNDING:
            break
        state = moved or _state(state.x + state.gap, features, regime, frame)
    if not state.residual <= _ROUNDING:
        raise NoFixedPointError("prompts", features.counts, "numbers of prompts away from the peaks")
    return Solved(state.q, regime.gain(features, np.exp(state.x)), *frame.resolved(state.q))


def _newton(state: _State, features: Features, regime: Regime, frame: Frame) -> _State | None:
    """A step along Newton's direction that plain iteration could not do better; None if none of three is.

    It lowers the residual, or it moves on past plain iteration's step and stays on its side of the fixed
    point, where I(theta) is above (below) theta in every feature.
    """
    largest = float(np.abs(state.step).max())
    reach = min(1.0, _LONGEST / largest) if largest > 0 else 1.0
    for size in (reach, reach / 4, reach / 16):
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            try:
                moved = _state(state.x + size * state.step, features, regime, frame)
            except (np.linalg.LinAlgError, InputError):
                continue
        past = bool((size * np.abs(state.step) >= np.abs(state.gap) - _SIGN * state.residual).all())
        if moved.residual <= (1 - size / 2) * state.residual or (past and state.side * moved.side > 0):
            return moved
    return None


def _state(x: Array, features: Features, regime: Regime, frame: Frame) -> _State:
    """The map's value at x and its derivative, which is a matrix >= 0 with row sums below 1."""
    theta = np.exp(x)
    G = regime.gain(features, theta)
    q = features.counts * G.diagonal()
    mapped, overlap = frame.traces(q)
    slope = overlap @ (features.counts[:, None] * G**2) * theta / mapped[:, None]
    gap = np.log(mapped) - x
    try:
        step = np.asarray(np.linalg.solve(np.eye(len(x)) - slope, gap), dtype=np.float64)
    except np.linalg.LinAlgError:
        step = gap
    return _State(x, q, gap, step)
