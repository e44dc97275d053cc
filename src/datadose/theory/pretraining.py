"""Pretraining in the population regime (paper eqs. 3.6 and 3.7).

Notation: Sigma0 pretraining covariance, n prompt length, d dimension. All functions take covariances as
spectra (d,) or dense matrices (d, d), see :mod:`datadose.covariance`, and return the same form, float64.
Source: Huang, Wang, Lee (arXiv 2502.21212) as used by Javanmard et al. (arXiv 2603.01293).
"""

from __future__ import annotations

from datadose.covariance import Array, identity_like, inverse, trace, validate_covariance
from datadose.errors import reject, require_integer


def gamma0(sigma0: Array, length: int) -> Array:
    """Gamma0 = (1 + 1/n) Sigma0 + (tr Sigma0 / n) I, eq. (3.7). Not divided by d.

    Raises :class:`~datadose.errors.InputError` if Sigma0 is not a covariance or n < 1.
    """
    sigma0 = validate_covariance("sigma0", sigma0)
    n = require_integer("length", length, 1)
    return (1 + 1 / n) * sigma0 + (trace(sigma0) / n) * identity_like(sigma0)


def pretrained_operator(sigma0: Array, length: int) -> Array:
    """V~ = -Gamma0^{-1} after pretraining on infinitely many prompts of length n (W~ = I), eq. (3.6).

    One thinking step of the model is w <- w + V~ S (w - w*). Raises
    :class:`~datadose.errors.InputError` if Sigma0 is zero: nothing was seen, and Gamma0 is singular.
    """
    G = gamma0(sigma0, length)
    if trace(G) == 0:
        reject("sigma0", "a zero matrix", "a non-zero covariance")
    return -inverse(G)
