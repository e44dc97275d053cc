"""How a fit ends: converged, after a time or a number of steps, or held back by a penalty; as a filter.

All multiply what separates V from V* by h(x) on the eigenvalues x >= 0 of sum_c w_c Phi_c Phi_c^T, h(0) = 1:
0 for x > 0 when converged, e^{-t x / B} after a time t of gradient flow, (1 - gamma c_k x / B)^T after T
steps of size gamma, ridge / (x + ridge) with a penalty. A filter h(x) = sum_i c_i / (x + lambda_i) is the sum
of penalised solutions, V = sum_i (c_i / lambda_i) V_{lambda_i} at complex penalties (docs/derivations/
training_time.md), which :class:`Filter` holds. Loss: (1/(2B)) sum_c w_c ||V Phi_c + eta Omega_c||^2, times
c_k for chains of k + 1 steps; B counts the prompts whose weight is above zero; time is without c_k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datadose.errors import reject, require_integer, require_number
from datadose.shapes import Array, Complex

_NODES = 24
"""Of a parabolic contour: its error is below 1e-10 (Weideman and Trefethen, 2007)."""
_FEW_STEPS = 12
"""Up to so many steps a circle around all of [-1, 1] is used instead, which is exact up to rounding."""
MOST_STEPS = 10**12
"""More steps than anyone takes; their rounding would show in the filter."""
LEAST_PENALTY = 1e-22
"""Penalties below this share of sum_c w_c B_c tr C_c / d leave no digits: use convergence instead."""
_RADIUS, _DIGITS = 2.5, 25.0
"""The circle's radius is e^(2.5 / T), so its weights stay below e^2.5; its error is e^-25."""


@dataclass(frozen=True)
class Stopping:
    """How long a model is trained, or how strong its penalty is; without arguments, to convergence.

    Give one of ``time``, ``steps`` with ``learning_rate``, and ``ridge``. Raises InputError for more than
    one, for steps without a learning rate or the reverse, and for a value that is negative or not finite.

    T steps of size gamma are nearly the time gamma c_k T, and a penalty lambda is nearly the time B / lambda.

    Example:
        >>> Stopping(steps=100, learning_rate=0.5)
        Stopping(time=None, steps=100, learning_rate=0.5, ridge=None)
    """

    time: float | None = None
    """Time t >= 0 of gradient flow on the loss without its factor c_k."""
    steps: int | None = None
    """Number T >= 0 of steps of gradient descent on the loss."""
    learning_rate: float | None = None
    """Step size gamma > 0."""
    ridge: float | None = None
    """Penalty lambda >= 0: lambda ||V - V0||_F^2 is added to sum_c w_c ||V Phi_c + eta Omega_c||_F^2."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.learning_rate is None:
            reject("learning_rate", "none", "a number > 0, as `steps` is given")
        if self.learning_rate is not None and self.steps is None:
            reject("steps", "none", "an integer >= 0, as `learning_rate` is given")
        given = [name for name in ("time", "steps", "ridge") if getattr(self, name) is not None]
        if len(given) > 1:
            first, second = (f"{getattr(self, name):g}" for name in given[:2])
            beside = f"{second} beside {given[0]}: {first}"
            reject(given[1], beside, "one of time, steps (with learning_rate) and ridge")
        if self.time is not None:
            require_number("time", self.time, 0, np.inf)
        if self.steps is not None:
            require_integer("steps", self.steps, 0, MOST_STEPS)
            require_number("learning_rate", self.learning_rate, 0, np.inf, open_ends=True)
        if self.ridge is not None:
            require_number("ridge", self.ridge, 0, np.inf)

    @property
    def is_converged(self) -> bool:
        """Whether the fit runs to convergence; a penalty of zero is convergence."""
        return (self.time is None and self.steps is None and self.ridge is None) or self.ridge == 0

    @property
    def is_untrained(self) -> bool:
        """Whether the model is not trained at all: a time or a number of steps of zero."""
        return self.time == 0 or self.steps == 0

    def filter(self, prompts: float, chain_weight: float, edge: float) -> Filter:
        """The nodes of this filter.

        Args:
            prompts: B > 0, the number of prompts whose weight is above zero.
            chain_weight: c_k > 0 (:func:`datadose.theory.sft.chain_weight`).
            edge: the largest eigenvalue x that occurs, which sets the largest stable step; it matters for
                ``steps`` alone.

        Raises InputError for a learning rate above the stable one.
        """
        if self.ridge is not None:
            return Filter(np.array([self.ridge], np.complex128), np.ones(1, np.complex128))
        if self.time is not None:
            return _flow(self.time / prompts)
        assert self.steps is not None
        assert self.learning_rate is not None
        step = self.learning_rate * chain_weight / prompts
        if step * edge >= 2:
            largest = 2 * prompts / (chain_weight * edge)
            reject(
                "learning_rate",
                f"{self.learning_rate:g}",
                f"a number below {largest:.6g}, the largest stable one",
            )
        if self.steps <= _FEW_STEPS:
            return _few_steps(self.steps, step)
        return _descent(self.steps, step, both=step * edge > 1)


@dataclass(frozen=True)
class Filter:
    """h(x) = Re sum_i m_i w_i lambda_i / (x + lambda_i), m_i = 2 where Im lambda_i > 0, 1 where it is 0."""

    nodes: Complex
    """lambda_i with Im >= 0, shape (N,)."""
    weights: Complex
    """w_i, shape (N,)."""

    def at(self, x: Array) -> Array:
        """The filter's values h(x) at eigenvalues ``x`` >= 0, in the shape of ``x``."""
        twice = np.where(self.nodes.imag > 0, 2.0, 1.0) * self.weights * self.nodes
        return np.asarray((twice / (np.asarray(x)[..., None] + self.nodes)).real.sum(axis=-1))


def _parabola() -> tuple[Complex, Complex]:
    """z and (dz/dtheta) / (i N) on the upper half of the contour."""
    theta = np.pi * np.arange(1, _NODES, 2) / _NODES
    z = np.asarray(_NODES * (0.1309 - 0.1194 * theta**2 + 0.2500j * theta), np.complex128)
    return z, np.asarray(0.2500 + 0.2388j * theta, np.complex128)


def _flow(time: float) -> Filter:
    z, slope = _parabola()
    return Filter(z / time, np.exp(z) * slope / z)


def _descent(steps: int, step: float, *, both: bool) -> Filter:
    """y^T dy / (y - (1 - step x)) with y = e^{z/T} around [0, 1], and y = -e^{z/T} around [-1, 0]."""
    z, slope = _parabola()
    root, past = np.exp(z / steps), np.expm1(z / steps)
    change = np.exp(z) * slope * root / steps
    nodes, weights = [past / step], [change / past]
    if both:
        # The conjugates, so that the nodes lie above the axis.
        root, change = root.conj(), change.conj() * (-1) ** steps
        nodes.append(-(root + 1) / step)
        weights.append(-change / -(root + 1))
    return Filter(np.concatenate(nodes), np.concatenate(weights))


def _few_steps(steps: int, step: float) -> Filter:
    """The same on a circle of radius above 1, whose error is that of a geometric series."""
    count = 2 * int(np.ceil(_DIGITS * steps / _RADIUS / 2)) + 8
    angles = np.pi * np.arange(1, count, 2) / count
    y = np.exp(_RADIUS / steps + 1j * angles)
    return Filter((y - 1) / step, y ** (steps + 1) / count / (y - 1))
