"""What data exists: pretraining covariance, distribution shift and post-training data, validated once.

Notation (paper section 1): Sigma0 is the pretraining covariance, Delta the shift, Sigma = Sigma0 + Delta
the test covariance, A the covariance of the post-training prompts, eta the step of the ground-truth chain
of thought w_{i+1} = w_i + eta (w* - w_i), r the interference: the part of A outside range(Delta).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from datadose.covariance import (
    LARGEST_DIMENSION,
    identity_like,
    is_spectrum,
    product,
    range_projector,
    rank,
    same_form,
    validate_covariance,
)
from datadose.errors import reject, require_integer, require_number
from datadose.shapes import Operator


@dataclass(frozen=True, eq=False)
class Shift:
    """A pretraining covariance, a shift and the post-training data, in one form (spectra or dense).

    Args:
        sigma0: pretraining covariance Sigma0, a spectrum (d,) or a PSD matrix (d, d).
        delta: shift Delta, the same; test prompts have covariance Sigma0 + Delta.
        data: covariance A of the post-training prompts, the same.
        eta: chain-of-thought step, in (0, 2).

    Spectra are understood in one shared eigenbasis; if any of the three is dense, all become dense and no
    commutation is assumed. Raises :class:`~datadose.errors.InputError` for a covariance that is not PSD,
    not symmetric, not finite or of another size, and for ``eta`` outside (0, 2).
    """

    sigma0: Operator
    delta: Operator
    data: Operator
    eta: float

    def __post_init__(self) -> None:
        sigma0 = validate_covariance("sigma0", self.sigma0)
        delta = validate_covariance("delta", self.delta, len(sigma0))
        data = validate_covariance("data", self.data, len(sigma0))
        eta = require_number("eta", self.eta, 0, 2, open_ends=True)
        for name, matrix in zip(("sigma0", "delta", "data"), same_form(sigma0, delta, data), strict=True):
            object.__setattr__(self, name, matrix)
        object.__setattr__(self, "eta", eta)

    @classmethod
    def two_block(
        cls, dimension: int, shifted: int, rho: float, eta: float, interference: float = 0.0
    ) -> Shift:
        """The paper's shift: Sigma0 = diag(rho 1_m, 1_{d-m}), Delta = diag(1_m, 0), A by section 5.1.

        ``shifted`` is m <= ``dimension`` = d; A = diag(eta (rho + 1) 1_m, r 1_{d-m}) with
        r = ``interference`` (figures 1, 2 and 5); for the paper a smaller r > 0 is the stronger interference.
        Section 5.2 prints Sigma0 = diag(rho 1_m, 0_{n-m}) once, a misprint (docs/errata.md).
        """
        dimension = require_integer("dimension", dimension, 1, LARGEST_DIMENSION)
        shifted = require_integer("shifted", shifted, 0, dimension)
        require_number("rho", rho, 0, np.inf)
        in_shift = np.arange(dimension) < shifted
        return cls.aligned(np.where(in_shift, rho, 1.0), np.where(in_shift, 1.0, 0.0), eta, interference)

    @classmethod
    def aligned(cls, sigma0: Any, delta: Any, eta: float, interference: float = 0.0) -> Shift:
        """A shift whose data follow the paper's allocation A = eta (P Sigma0 P + Delta) + r (I - P).

        P projects onto range(Delta) and r = ``interference`` >= 0 (section 5.1 and 5.2).
        """
        require_number("eta", eta, 0, 2, open_ends=True)
        interference = require_number("interference", interference, 0, np.inf)
        sigma0 = validate_covariance("sigma0", sigma0)
        delta = validate_covariance("delta", delta, len(sigma0))
        sigma0, delta = same_form(sigma0, delta)
        P = range_projector(delta)
        A = eta * (product(P, sigma0, P) + delta) + interference * (identity_like(P) - P)
        if not A.any():
            reject("delta", "a zero matrix", "a non-zero shift, or interference > 0 (the data is empty)")
        return cls(sigma0, delta, (A + A.T) / 2, eta)

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.sigma0)

    @property
    def target(self) -> Operator:
        """Sigma = Sigma0 + Delta, the covariance of the test prompts."""
        return self.sigma0 + self.delta

    @property
    def is_spectral(self) -> bool:
        """Whether all covariances are spectra in one shared basis."""
        return is_spectrum(self.data)

    @property
    def data_rank(self) -> int:
        """rank(A): the number of prompts at which V* interpolates and the error peaks."""
        return rank(self.data)
