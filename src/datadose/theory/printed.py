"""Thm B.1 as printed in arXiv v1: two blocks, with the T12 coefficient that is wrong for B < d.

Kept apart so that nothing else can use it by accident. Notation of appendix B: block fractions mu, spectra
a (data), Sigma (target), pretrained g = -1/Gamma0, alpha = 1 + g Sigma, dt = -g - eta/a, delta = dt Sigma,
s = (mu.a) a, Sbar = mu.Sigma, gamma = d/n, beta = B/d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from datadose.errors import InputError, reject
from datadose.shapes import Array, Float
from datadose.shift import Shift
from datadose.theory.equivalent import PeakError


@dataclass(frozen=True)
class Blocks:
    """The theorem's block scalars, each of shape (2,); gamma and dimension beside them."""

    mu: Float[Array, "2"]
    a: Float[Array, "2"]
    sigma: Float[Array, "2"]
    g: Float[Array, "2"]
    eta: float
    gamma: float
    dimension: int

    @classmethod
    def of(cls, shift: Shift, length: int) -> Blocks:
        """The two blocks of ``shift``; raises InputError if there are not two, or A is singular."""
        allowed = "a shift of two blocks, as spectra, with data of full rank (r > 0)"
        if not shift.is_spectral:
            reject("form as-printed", "dense covariances", allowed)
        if shift.data.min() <= 0:
            raise InputError("interference", 0, f"form as-printed wants {allowed}")
        levels, inverse_index, counts = np.unique(
            np.stack([shift.data, shift.target, shift.sigma0]),
            axis=1,
            return_inverse=True,
            return_counts=True,
        )
        if len(counts) != 2:
            reject("form as-printed", f"{len(counts)} blocks", allowed)
        order = np.argsort([np.flatnonzero(inverse_index.ravel() == block)[0] for block in range(2)])
        a, target, sigma0 = levels[:, order]
        mu = counts[order] / shift.dimension
        gamma = shift.dimension / length
        # The theorem's kappa is the trace term alone: it drops the 1 + 1/n of Gamma0.
        g = -1 / (sigma0 + gamma * float(mu @ sigma0))
        return cls(mu, a, target, g, shift.eta, gamma, shift.dimension)


def printed_error(shift: Shift, prompts: float, length: int, *, corrected: bool = False) -> float:
    """The error of Thm B.1 for a two-block shift as the paper prints it, divided by d.

    Args:
        shift: a two-block shift with A of full rank.
        prompts: B >= 0.
        length: prompt length n >= 1 of all stages.
        corrected: replace the two T12 coefficients by (dt_1^2 - dt_2^2)(s_1 - s_2) and
            (dt_1^2 - dt_2^2)(Sigma_1 - Sigma_2). The result is then an independent scalar check of the
            general first-order form.
    """
    b = Blocks.of(shift, length)
    beta = prompts / b.dimension
    if abs(beta - 1) < 1e-12:
        raise PeakError("prompts", f"{prompts:g}", f"any number but rank(A) = {b.dimension}")
    return _theorem(b, beta, corrected)


def _theorem(b: Blocks, beta: float, corrected: bool) -> float:
    mu, a, sigma, g = b.mu, b.a, b.sigma, b.g
    alpha, dt = 1 + g * sigma, -g - b.eta / a
    delta, s, sbar = dt * sigma, float(mu @ a) * a, float(mu @ sigma)
    w, t12, inverse_gram = _weights(mu, a, beta)
    bias = mu @ (alpha**2 * (1 - w) + (alpha + delta) ** 2 * w)
    bias += t12 * (dt[1] ** 2 - dt[0] ** 2) * (sigma[0] ** 2 - sigma[1] ** 2)

    def variance(x: Array) -> float:
        main = mu @ (x * (g**2 * (1 - w) + (g + dt) ** 2 * w))
        if corrected:
            return float(main - t12 * (dt[0] ** 2 - dt[1] ** 2) * (x[0] - x[1]))
        return float(main - t12 * (dt[0] - dt[1]) * (dt[0] * x[0] - dt[1] * x[1]))

    noise = variance(s)
    return float(
        bias
        + b.gamma * inverse_gram(sigma**2) * noise
        + b.gamma * sbar * variance(sigma)
        + b.gamma**2 * sbar * inverse_gram(sigma) * noise
    )


def _weights(mu: Array, a: Array, beta: float) -> tuple[Array, float, Callable[[Array], float]]:
    """w_k, T12 and the map x -> Tinv with Sigma^2 replaced by x."""
    if beta > 1:
        return np.ones(2), 0.0, lambda x: float(mu @ (x / a**2)) / (beta - 1)
    if beta == 0:
        return np.zeros(2), 0.0, lambda _: 0.0
    # Imported here: only this form needs scipy.optimize, a third of a prediction's start.
    from scipy.optimize import brentq  # noqa: PLC0415

    log_q = brentq(lambda x: float(mu @ expit(x + 2 * np.log(a))) - beta, -500, 500, xtol=1e-14, rtol=1e-14)
    q = float(np.exp(log_q))
    w = a**2 * q / (1 + a**2 * q)
    v = w * (1 - w)
    t12 = float(mu[0] * mu[1] * v[0] * v[1] / (mu @ v))
    return w, t12, lambda x: q * float(mu @ (x * w**2 / a**2)) / float(mu @ (w**2 / a**2))
