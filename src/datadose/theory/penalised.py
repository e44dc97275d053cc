"""Penalised solutions at complex penalties: their fixed points, and the second moments of pairs of them.

V_lambda minimises sum_c w_c ||V Phi_c - Y_c||^2 + lambda ||V - V0||^2. Effective weights are rho = q / lambda
and the features a those of :mod:`datadose.theory.columns` (a lone one has O = 1); tr is not divided by d:

- tau_a = tr(C_a R), R = (I + sum_a rho_a C_a)^{-1}, rho_a = B_a H_aa, where
  H = (lambda O^{-1} / w + diag(tau))^{-1}
- Vbar = (V0 - eta sum_c rho_c A_c) R
- two penalties 1, 2: E V_1^T V_2 = E Vbar_1^T Vbar_2 + sum_a u_a R_1 C_a R_2 (traced with a symmetric M),
  u = (I - L X)^{-T} g, L_ab = tr(C_a R_1 C_b R_2), X_ba = B_a H^1_ba H^2_ab, and
  g_a = sum_b X_ba r_b + B_a s d (H^2 O^{-1} H^1)_aa, r_b = tr of feature b's residual covariance at the two
  means, s the variance of noise in the answers.

tau / lambda has a negative imaginary part where Im lambda > 0, and the fixed point is the only one that does
(docs/derivations/training_time.md). All nodes of a filter are solved at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import trace
from datadose.errors import InternalError
from datadose.shapes import Array, Complex
from datadose.theory.columns import Columns

_STEPS = 120
_PLAIN, _PERIOD = 3, 20
"""Plain iterations, averaged with the iterate, before Newton's method, and at times between its steps."""
_LONGEST, _SHARES = 2.0, (0.03, 0.125, 0.5, 1.0)
"""The longest of Newton's steps in log tau, and the shares of it of which the largest proper one is taken."""
_RAY = 10.0 ** np.arange(12, -0.1, -0.5)
"""Multiples of a penalty on the way to it, where the direct search fails."""
_EXACT, _STALLED, _ROUNDING = 1e-14, 1e-11, 1e-9
"""Residuals in log tau: solved; solved if it falls no further; and above the last nothing is returned."""


@dataclass(frozen=True)
class Weighted:
    """Features of sources with their weights w_c > 0 in the loss; F of them, of K sources."""

    columns: tuple[Columns, ...]
    first: NDArray[np.int64]
    """The place of each source's phi among the features, (K,)."""
    counts: Array
    """B_a of each feature, (F,)."""

    @classmethod
    def of(cls, columns: Sequence[Columns]) -> Weighted:
        """The features of sources, with the weights that their columns hold."""
        sizes = [len(c.moments) for c in columns]
        first = np.cumsum([0, *sizes])[:-1].astype(np.int64)
        return cls(tuple(columns), first, np.repeat([float(c.count) for c in columns], sizes))

    @property
    def moments(self) -> tuple[Array, ...]:
        """The second moments C_a of all features."""
        return tuple(C for c in self.columns for C in c.moments)

    def gains(self, nodes: Complex, tau: Complex) -> tuple[Complex, Complex]:
        """H, and J = (lambda / w + O diag(tau))^{-1} with H = J O and H O^{-1} = J; both (N, F, F)."""
        N, F = tau.shape
        J = np.zeros((N, F, F), np.complex128)
        H = np.zeros_like(J)
        for at, c in zip(self.first, self.columns, strict=True):
            scaled, u = nodes / c.weight, tau[:, at]
            if c.pair is None:
                H[:, at, at] = J[:, at, at] = 1 / (scaled + u)
                continue
            (a, b), (_, e), det, v = *c.pair.weights, c.pair.determinant, tau[:, at + 1]
            over = scaled**2 + scaled * (a * u + e * v) + det * u * v
            J[:, at, at], J[:, at + 1, at + 1] = (scaled + e * v) / over, (scaled + a * u) / over
            J[:, at, at + 1], J[:, at + 1, at] = -b * v / over, -b * u / over
            H[:, at, at], H[:, at + 1, at + 1] = (a * scaled + det * v) / over, (e * scaled + det * u) / over
            H[:, at, at + 1] = H[:, at + 1, at] = b * scaled / over
        return H, J


class Resolvents(Protocol):
    """R of every node in the form of the sources, with the traces that the equations take."""

    def traces(self, rho: Complex) -> tuple[Complex, Complex]:
        """tr(C_a R), (N, F), and tr(C_a R C_b R), (N, F, F)."""

    def fix(self, rho: Complex) -> None:
        """Take these effective weights (N, F) for what follows."""


def solve(sources: Weighted, nodes: Complex, frame: Resolvents) -> tuple[Complex, Complex, Complex]:
    """rho (N, F), H and J (N, F, F) at the fixed points of all nodes, and ``frame`` fixed there.

    Raises InternalError where a node's equations were not solved.
    """
    # Without data tau is tr C, which lies on the right side.
    total = np.array([trace(C) for C in sources.moments]) + 0j
    tau, residual = _iterate(sources, nodes, frame, np.tile(total, (len(nodes), 1)))
    failed = residual > _ROUNDING
    if failed.any():
        # From a penalty at which the data hardly count, along a ray to the one that is required.
        hard, moved = nodes[failed], np.tile(total, (int(failed.sum()), 1))
        for further in _RAY:
            moved, residual[failed] = _iterate(sources, further * hard, frame, moved)
        tau[failed] = moved
    worst = float(residual.max())
    if not worst <= _ROUNDING or not _proper(nodes, tau).all():
        raise InternalError(f"the fixed point at a complex penalty was not found (residual {worst:.3g})")
    H, J = sources.gains(nodes, tau)
    rho = sources.counts * np.einsum("naa->na", H)
    frame.fix(rho)
    return rho, H, J


def _iterate(sources: Weighted, nodes: Complex, frame: Resolvents, tau: Complex) -> tuple[Complex, Array]:
    """tau after Newton's method on its logarithm, mixed with plain iteration, and each node's residual."""
    tau, residual = tau.copy(), np.full(len(nodes), np.inf)
    active = np.arange(len(nodes))
    for step in range(_STEPS):
        found, gap, newton = _direction(sources, nodes[active], frame, tau[active])
        solved = (found <= _EXACT) | ((found <= _STALLED) & (found > residual[active] / 2))
        residual[active] = found
        active, gap, newton = active[~solved], gap[~solved], newton[~solved]
        if not len(active):
            break
        moved = 0.5 * gap
        for share in _SHARES if step >= _PLAIN and step % _PERIOD else ():
            good = _proper(nodes[active], tau[active] * np.exp(share * newton))
            moved[good] = share * newton[good]
        tau[active] *= np.exp(moved)
    return tau, residual


def _direction(
    sources: Weighted, nodes: Complex, frame: Resolvents, tau: Complex
) -> tuple[Array, Complex, Complex]:
    """Residuals (N,), the step of plain iteration in log tau, and Newton's, no longer than the longest."""
    H, _ = sources.gains(nodes, tau)
    mapped, overlap = frame.traces(sources.counts * np.einsum("naa->na", H))
    gap = np.log(mapped / tau)
    slope = overlap @ (sources.counts[:, None] * H**2) * tau[:, None, :] / mapped[:, :, None]
    newton = _solved(np.eye(tau.shape[1]) - slope, gap)
    newton *= np.minimum(1, _LONGEST / np.abs(newton).max(axis=1, initial=_LONGEST))[:, None]
    return np.asarray(np.abs(gap).max(axis=1), np.float64), np.asarray(gap), np.asarray(newton)


def _proper(nodes: Complex, tau: Complex) -> NDArray[np.bool_]:
    """Whether tau / lambda lies where the solution does: below the axis, or on its positive half."""
    theta = tau / nodes[:, None]
    real = nodes.imag == 0
    return np.where(real, (theta.real >= 0).all(axis=1), (theta.imag <= 0).all(axis=1))


def both_halves(values: Complex, nodes: Complex) -> Complex:
    """Values (N, ..) of the nodes and, after them, of the conjugates of those off the real axis."""
    return np.concatenate([values, values[nodes.imag > 0].conj()])


def pair_weights(
    sources: Weighted,
    nodes: Complex,
    gains: tuple[Complex, Complex],
    overlap: Complex,
    residuals: Complex,
    size: float,
) -> Complex:
    """The weights u of the module docstring for each node with each node and conjugate, (N, N', F).

    Args:
        sources: K sources with their features, F of them.
        nodes: penalties lambda, (N,).
        gains: H and J at the nodes, (N, F, F) each.
        overlap: L, (N, N', F, F).
        residuals: r, (N, N', F).
        size: dimension d, by which the noise in the answers is multiplied.
    """
    H, J = gains
    H_all, J_all = both_halves(H, nodes), both_halves(J, nodes)
    X = sources.counts[:, None] * H[:, None] * H_all[None, :]
    own = np.einsum("ijab,ijb->ija", X, residuals)
    noise = np.array([c.noise for c in sources.columns for _ in c.moments])
    if noise.any():
        own = own + sources.counts * noise * size * np.einsum("jab,iba->ija", J_all, H)
    loop = np.eye(len(noise)) - overlap @ X
    return _solved(loop.swapaxes(-1, -2), own)


def _solved(matrices: Complex, right: Complex) -> Complex:
    """x with M x = b for many M (.., F, F) and b (.., F); with one feature it is a division."""
    if matrices.shape[-1] == 1:
        return np.asarray(right / matrices[..., 0])
    return np.asarray(np.linalg.solve(matrices, right[..., None])[..., 0])
