"""The largest eigenvalue of sum_c w_c Phi_c Phi_c^T in the limit, which sets the largest stable step.

At a real penalty -x below minus all eigenvalues the fixed point of :mod:`datadose.theory.penalised` is real;
it ends where x reaches the edge of the limiting spectrum. Finite matrices exceed the edge by a relative
O(d^{-2/3}) where prompts and rows are many; short prompts (2.3 times at n = 2, d = 200) and a few rows on one
strong direction (1.4 times) exceed it by far more.
"""

from __future__ import annotations

import numpy as np
import scipy

from datadose.covariance import is_spectrum, trace
from datadose.shapes import Array
from datadose.theory.columns import Columns
from datadose.theory.penalised import Weighted

_STEPS = 200
_SOLVED = 1e-10
_ASIDE = 1e-9
"""So far the bracket reaches beyond its bounds, which may be the place itself."""


def largest_eigenvalue(sources: Weighted) -> float:
    """The upper edge of the limiting spectrum of sum_c w_c Phi_c Phi_c^T, not divided by B."""
    moments = np.stack(sources.moments)
    if len(moments) == 1:
        values = moments[0] if moments.ndim == 2 else np.linalg.eigvalsh(moments[0])
        return sources.columns[0].weight * _one_feature(values, float(sources.counts[0]))
    # The mean of sum_c w_c Phi_c O Phi_c^T, whose diagonal entries of O are 1 for lone features.
    strength = np.concatenate([c.weight * c.count * _copies(c) for c in sources.columns])
    total = np.tensordot(strength, moments, axes=1)
    mean = float(total.max() if is_spectrum(total) else np.linalg.eigvalsh(total)[-1])
    high = 2 * mean
    while not _is_outside(sources, moments, high):
        high *= 2
    low = mean / 2
    return float(
        scipy.optimize.bisect(
            lambda x: 1.0 if _is_outside(sources, moments, x) else -1.0, low, high, rtol=1e-9
        )
    )


def _one_feature(values: Array, count: float) -> float:
    """The least B / s + sum C / (1 - s C) over 0 < s < 1 / max C, where the real fixed point at -x ends."""
    top = float(values.max())
    share = values[values > 0] / top
    beside = 1 - share

    def slope(v: float) -> float:
        return float(((share * v / (1 + v * beside)) ** 2).sum()) - count

    # s = v / (1 + v) / top; only the largest eigenvalue, and all as large as it, bound the place.
    low, high = np.sqrt([count / len(share), count]) * [1 - _ASIDE, 1 + _ASIDE]
    v = scipy.optimize.brentq(slope, low, high, rtol=1e-12)
    return float(top * (1 + v) * (count / v + (share / (1 + v * beside)).sum()))


def _copies(columns: Columns) -> Array:
    """The diagonal of O."""
    return np.ones(1) if columns.pair is None else np.diagonal(columns.pair.weights)


def _is_outside(sources: Weighted, moments: Array, x: float) -> bool:
    """Whether the monotone iteration from no data ends, at the penalty -x."""
    node = np.array([-x + 0j])
    tau = np.array([[trace(C) for C in moments]])
    for _ in range(_STEPS):
        with np.errstate(divide="ignore", invalid="ignore"):
            H = sources.gains(node, tau + 0j)[0].real
        rho = sources.counts * H[0].diagonal()
        if not np.isfinite(rho).all():
            return False
        inner = (
            1 + rho @ moments
            if moments.ndim == 2
            else np.eye(moments.shape[1]) + np.tensordot(rho, moments, 1)
        )
        if not _is_positive(inner) or (rho > 0).any():
            return False
        R = 1 / inner if inner.ndim == 1 else np.linalg.inv(inner)
        seen = moments * R if inner.ndim == 1 else moments @ R
        mapped = seen.sum(axis=1) if inner.ndim == 1 else np.einsum("aii->a", seen)
        flat = seen if inner.ndim == 1 else seen.reshape(len(seen), -1)
        turned = seen if inner.ndim == 1 else seen.swapaxes(1, 2).reshape(len(seen), -1)
        slope = (flat @ turned.T) @ (sources.counts[:, None] * H[0] ** 2)
        gap = mapped - tau[0]
        if np.abs(np.linalg.eigvals(slope)).max() >= 1:
            return False
        step = np.linalg.solve(np.eye(len(gap)) - slope, gap)
        tau = tau + step
        if np.abs(step / tau).max() < _SOLVED:
            return True
    return False


def _is_positive(inner: Array) -> bool:
    if inner.ndim == 1:
        return bool((inner > 0).all())
    try:
        np.linalg.cholesky(inner)
    except np.linalg.LinAlgError:
        return False
    return True
