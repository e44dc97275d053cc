"""Pretraining in the population regime (paper eqs. 3.6 and 3.7).

Notation: Sigma0 pretraining covariance, n prompt length, d dimension. All functions take covariances as
spectra (d,) or dense matrices (d, d), see :mod:`datadose.covariance`, and return the same form, float64.
Source: Huang, Wang, Lee (arXiv 2502.21212) as used by Javanmard et al. (arXiv 2603.01293).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datadose.covariance import (
    identity_like,
    inverse,
    product,
    same_form,
    trace,
    validate_covariance,
    wishart_second_moment,
)
from datadose.errors import reject, require_integer, require_number
from datadose.shapes import Operator


def gamma0(sigma0: Operator, length: int) -> Operator:
    """Gamma0 = (1 + 1/n) Sigma0 + (tr Sigma0 / n) I, eq. (3.7). Not divided by d.

    Raises :class:`~datadose.errors.InputError` if Sigma0 is not a covariance or n < 1.
    """
    sigma0 = validate_covariance("sigma0", sigma0)
    n = require_integer("length", length, 1)
    return (1 + 1 / n) * sigma0 + (trace(sigma0) / n) * identity_like(sigma0)


def pretrained_operator(sigma0: Operator, length: int) -> Operator:
    """V~ = -Gamma0^{-1} after pretraining on infinitely many prompts of length n (W~ = I), eq. (3.6).

    One thinking step of the model is w <- w + V~ S (w - w*). Raises
    :class:`~datadose.errors.InputError` if Sigma0 is zero: nothing was seen, and Gamma0 is singular.
    """
    G = gamma0(sigma0, length)
    if trace(G) == 0:
        reject("sigma0", "a zero matrix", "a non-zero covariance")
    return -inverse(G)


def pretrained_on_mixture(categories: Sequence[tuple[float, Operator]], length: int) -> Operator:
    """V~ after pretraining on infinitely many prompts from a mixture of categories (ours).

    Each prompt comes from category c with probability p_c proportional to its weight; the minimiser of the
    one-step loss sum_c p_c E||I + V S_c||_F^2 is V = -(sum_c p_c Sigma_c)(sum_c p_c E[S_c^2])^{-1}, which is
    -Gamma0^{-1} for one category. Not divided by d; dense if any category is.

    Args:
        categories: (weight > 0, covariance) pairs, spectra (d,) or PSD matrices (d, d) of one dimension.
        length: prompt length n.

    Raises InputError for no category, a weight that is not positive, or categories that together miss a
    direction (the mixed second moment is singular).
    """
    n = require_integer("length", length, 1)
    if not categories:
        reject("categories", "none", "at least one (weight, covariance)")
    weights = np.array([require_number("weight", p, 0, np.inf, open_ends=True) for p, _ in categories])
    dimension = len(categories[0][1])
    covariances = same_form(*(validate_covariance("categories", C, dimension) for _, C in categories))
    shares = weights / weights.sum()
    mean = sum((p * C for p, C in zip(shares, covariances, strict=True)), np.zeros_like(covariances[0]))
    second = sum(
        (p * wishart_second_moment(C, n) for p, C in zip(shares, covariances, strict=True)),
        np.zeros_like(mean),
    )
    values = second if second.ndim == 1 else np.linalg.eigvalsh(second)
    # A matrix shows a missing direction as an eigenvalue at rounding, of either sign.
    rounding = 0.0 if second.ndim == 1 else dimension * np.finfo(np.float64).eps
    if values.min() <= rounding * values.max():
        reject(
            "categories", "covariances that miss a direction", "categories that together span all directions"
        )
    return -product(mean, inverse(second))
