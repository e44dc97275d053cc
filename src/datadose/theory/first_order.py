"""The error of the first-order approximation V~ of the minimiser V*: Thm B.1 corrected, for any PSD matrices.

V~ is close to V* only for long prompts. The theorem as it is printed: :mod:`datadose.theory.printed`.
Derivation: docs/derivations/first_order.md.
"""

from __future__ import annotations

import numpy as np

from datadose.covariance import (
    product,
    rotated,
    spectral_basis,
    trace,
    validate_covariance,
    validate_operator,
)
from datadose.errors import require_integer, require_number
from datadose.shapes import Array, Operator
from datadose.theory.columns import Columns
from datadose.theory.equivalent import deterministic_equivalent
from datadose.theory.source import Source


def first_order_error(V0: Operator, eta: float, source: Source, target: Operator, test_length: int) -> float:
    """The limit of Err(V~) / d for V~ = VS + VN of eq. (B.3): Thm B.1 corrected, for any PSD matrices.

    VS is V* on noise-free columns phi = A w, so it is the same theorem with C = A^2; VN adds the columns'
    noise, of covariance (tr A / n) A, to first order. With kappa the leverage and
    quad(M) = (1/d) E tr(VS M VS^T):
    (1/d) E||I + VS Sigma||^2 + (tr Sigma/n) quad(Sigma)
    + (tr A/n) quad(A) [kappa(Sigma^2) + (tr Sigma/n) kappa(Sigma)].
    Like the theorem it drops terms of order 1/n that carry no trace.

    Args:
        V0: operator before SFT, a spectrum (d,) or a matrix (d, d).
        eta: chain-of-thought step, in (0, 2).
        source: the prompts: covariance A, length n and their number B, without noise.
        target: test covariance Sigma, a spectrum (d,) or a PSD matrix (d, d).
        test_length: length >= 1 of the test prompts.

    Raises PeakError where ``source.prompts`` equals rank(A), InputError for a value out of range.
    """
    A = validate_covariance("covariance", source.covariance)
    target = validate_covariance("target", target, len(A))
    V0 = validate_operator("V0", V0, len(A))
    n = require_integer("test_length", test_length, 1)
    length = require_integer("length", source.length, 1)
    prompts = require_number("prompts", source.prompts, 0, np.inf)
    A, basis = spectral_basis(A)
    if basis is not None:
        V0, target = rotated(V0, basis), rotated(target, basis)
    clean = deterministic_equivalent(V0, eta, [Columns(prompts, A**2, A)])
    squared = product(target, target)
    noise = trace(A) / length * clean.quadratic(A)

    def kappa(M: Array) -> float:
        return float(clean.leverages(M).sum())

    return (
        clean.error(target, squared)
        + trace(target) / n * clean.quadratic(target)
        + noise * (kappa(squared) + trace(target) / n * kappa(target))
    )
