"""Weighted sums of chi-squares, in both tails, along the path of steepest descent.

For Q = sum_i lambda_i z_i^2, z ~ N(0, I), let K(s) = s x - log|s| - (1/2) sum_i log(1 + 2 lambda_i s). Both
tails are integrals of e^K along a line parallel to the imaginary axis: P(Q <= x) right of the pole at 0, and
P(Q > x) between the pole and the nearest branch point, -1/(2 max lambda). Either interval holds one saddle
point c. All zeros of K' are real, so the line may be bent into the path Im K = 0 through c, which ends at
Re s = -infinity. Two facts make this path easy to follow:

- at every height y = Im s > 0, Im K increases with Re s, so that Newton's method in a bracket finds the path;
- K is real on it, and so is dy, so that the tail is (1/pi) int e^{K(s(y))} dy over y > 0: a positive, smooth
  integrand that falls at least like a Gaussian and does not oscillate.

The trapezoidal rule converges geometrically there, relative to the tail itself, however small that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datadose.errors import InternalError, probability, reject
from datadose.shapes import Array, Float

_INTERVALS = 24
_AGREEMENT = 1e-9
"""Halving the step about squares the error: where two rules agree this well the finer is exact."""
_HALVINGS = 10
_FALL = 40.0
"""What lies below e^{-40} of the integrand's top adds nothing to a double."""
_VANISHED = 800.0
"""e^{-800} is zero in doubles, also times what stands before the exponential."""
_LAST_STEP = 1e-8
"""Newton's last step on the path, relative to how far that is from the saddle. It doubles the digits."""
_STEPS = 200
_FAR = 100.0
"""Where the path is left of its saddle by this many (1 + sum of powers) / x, e^{K} is far below e^{-40}."""
_LOG_LARGEST = 230.0
"""Where log r is larger, log(1 + 2 r s) is log r + log 2s to rounding for s of order one."""


def weighted_chi_square(weights: Float[Array, " m"], x: float, *, upper: bool = False) -> float:
    """P(sum_i lambda_i z_i^2 <= x), or with ``upper`` P(sum_i lambda_i z_i^2 > x), for z ~ N(0, I).

    The tail on whose side of the mean x lies (the lower one for x <= sum_i lambda_i) has a relative error of
    about 1e-11 however small it is; the other one is 1 minus it.

    Args:
        weights: lambda_i, shape (m,), finite and >= 0, at any scale and over any number of decades.
        x: any number; infinity counts as larger than every sum.

    Raises InputError for weights or x out of range.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 1 or not (np.isfinite(weights) & (weights >= 0)).all():
        reject("weights", weights, "finite numbers >= 0, shape (m,)")
    if np.isnan(x):
        reject("x", x, "a number")
    values, found = np.unique(weights[weights > 0], return_counts=True)
    counts = found.astype(np.float64)
    if x <= 0 or x == np.inf or len(values) == 0:
        inside = x == np.inf or (x >= 0 and len(values) == 0)
        return float(inside != upper)
    log_ratios = np.log(values) - np.log(x)
    in_lower = float(counts @ np.exp(np.minimum(log_ratios, 1.0))) >= 1
    tail = _lower_tail(log_ratios, counts) if in_lower else _upper_tail(log_ratios, counts)
    return probability("a tail of a weighted chi-square", tail if in_lower != upper else 1 - tail)


def _lower_tail(log_ratios: Float[Array, " m"], counts: Float[Array, " m"]) -> float:
    """P(Q <= x) for x up to the mean, from log(lambda_i / x) and how often each occurs; s in units of 1/x."""
    lost = np.maximum(log_ratios - _LOG_LARGEST, 0.0)
    r = np.exp(log_ratios - lost)
    from scipy.optimize import brentq  # noqa: PLC0415  (a long import, for pass rates only)

    c = brentq(lambda s: s - 1 - s * (counts @ (r / (1 + 2 * r * s))), 0.5, 2 + counts.sum() / 2)
    path = _Path(
        1.0, np.append(2 * r, 1.0), np.append(np.ones_like(r), 0.0), np.append(counts / 2, 1.0), c, c
    )
    return path.integral(-float(counts @ lost) / 2)


def _upper_tail(log_ratios: Float[Array, " m"], counts: Float[Array, " m"]) -> float:
    """P(Q > x) for x above the mean; s = t - 1/2 in units of 1/max lambda, t > 0 from the branch point on."""
    from scipy.optimize import brentq  # noqa: PLC0415  (a long import, for pass rates only)

    r, x = np.exp(log_ratios - log_ratios.max()), np.exp(min(-log_ratios.max(), _LOG_LARGEST))
    m = counts.sum()
    # Chernoff's bound with every weight as large as the largest: far below the smallest double.
    if x > m and x - m - m * np.log(x / m) > 2 * _VANISHED:
        return 0.0

    def slope(log_t: float) -> float:
        t = np.exp(log_t)
        return float(counts @ (r / (1 - r + 2 * r * t)) - 1 / (0.5 - t) - x)

    # The slope is positive at the first end, 1/(2t) > x + 4, and negative where 2 mean/(1 - 2e) < 1/e^2.
    ends = np.log([0.5 / (x + 4), 0.5 - 0.5 / (1 + float(counts @ r) ** 0.5)])
    c = float(np.exp(brentq(slope, *ends, xtol=1e-14)))
    path = _Path(x, np.append(2 * r, -1.0), np.append(1 - r, 0.5), np.append(counts / 2, 1.0), c, 0.5)
    return path.integral(-x / 2)


@dataclass(frozen=True, eq=False)
class _Path:
    """The path of steepest descent of x t - sum_j power_j log(offset_j + slope_j t) from its saddle."""

    x: float
    slope: Float[Array, " m"]
    offset: Float[Array, " m"]
    power: Float[Array, " m"]
    saddle: float
    highest: float
    """No point of the path has a larger real part."""

    @cached_property
    def width(self) -> float:
        """1 / sqrt(K'') at the saddle: the integrand's width there."""
        return float((self.power @ (self.slope / (self.offset + self.slope * self.saddle)) ** 2) ** -0.5)

    @cached_property
    def ceiling(self) -> float:
        """The path stays below this height: there it is at Re t = -infinity."""
        return float(np.pi * self.power[self.slope > 0].sum() / self.x)

    def integral(self, log_factor: float) -> float:
        """e^log_factor / pi times the integral of e^K over the heights of the path.

        Heights are bound * arctan(sinh(v) width / bound), bound = 2 ceiling / pi: even steps in v are even
        near the top, and the end, where the integrand vanishes, is moved to infinity.
        """
        top = self.log_integrand(np.zeros(1))[0]
        if top + log_factor < -_VANISHED:
            return 0.0
        bound = 2 * self.ceiling / np.pi
        last = min(self.width, 0.99 * self.ceiling)
        while last < 0.99 * self.ceiling and self.log_integrand(np.array([last]))[0] > top - _FALL:
            last = min(2 * last, 0.99 * self.ceiling)

        def pieces(v: NDArray[np.floating[Any]]) -> float:
            tangent = self.width / bound * np.sinh(v)
            logs = self.log_integrand(bound * np.arctan(tangent)) + log_factor
            return float((np.exp(logs) * np.cosh(v) / (1 + tangent**2)).sum())

        end = float(np.arcsinh(np.tan(last / bound) * bound / self.width))
        step = end / _INTERVALS
        total = pieces(step * np.arange(1, _INTERVALS + 1)) + np.exp(top + log_factor) / 2
        found = step * total
        for _ in range(_HALVINGS):
            total += pieces(step * np.arange(0.5, end / step))
            step /= 2
            found, before = step * total, found
            if abs(found - before) <= _AGREEMENT * found:
                return float(found * self.width / np.pi)
        raise InternalError(f"the tail at {self.x} does not settle: please report this")

    def log_integrand(self, heights: Float[Array, " P"]) -> Float[Array, " P"]:
        """K on the path at these heights, shape (P,)."""
        real = self.real_parts(heights)
        size = np.hypot(self.offset + self.slope * real[:, None], self.slope * heights[:, None])
        return np.asarray(self.x * real - np.log(size) @ self.power)

    def real_parts(self, heights: Float[Array, " P"]) -> Float[Array, " P"]:
        """Where Im K = 0 at these heights, shape (P,); -infinity where the integrand has long vanished."""
        imaginary, angle = self.slope * heights[:, None], self.x * heights

        def phase(real: Array) -> Array:
            return angle - np.arctan2(imaginary, self.offset + self.slope * real[:, None]) @ self.power

        floor = np.full_like(heights, self.saddle - _FAR * (1 + self.power.sum()) / self.x)
        gone = phase(floor) > 0
        high, away = np.full_like(heights, self.highest), np.maximum(self.width, heights)
        low = np.maximum(self.saddle - away, floor)
        while ((beyond := phase(low) > 0) & ~gone).any():
            high, away = np.where(beyond, low, high), np.where(beyond, 2 * away, away)
            low = np.maximum(self.saddle - away, floor)
        found, last = np.clip(self.saddle, low, high), np.full_like(heights, np.inf)
        for _ in range(_STEPS):
            size = np.hypot(self.offset + self.slope * found[:, None], imaginary)
            miss, growth = phase(found), heights * ((self.slope / size) ** 2 @ self.power)
            high, low = np.where(miss > 0, found, high), np.where(miss < 0, found, low)
            step = -np.divide(miss, growth, out=np.zeros_like(found), where=growth > 0)
            near = np.abs(step) <= _LAST_STEP * (self.width + np.abs(found - self.saddle))
            inside = (found + step > low) & (found + step < high) & (np.abs(step) < np.abs(last) / 2)
            last = np.where(near | inside, step, (low + high) / 2 - found)
            found = found + last
            if (near | gone).all():
                return np.where(gone, -np.inf, found)
        raise InternalError(f"no path of steepest descent at the heights {heights}: please report this")
