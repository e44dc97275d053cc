"""What data exists: pretraining covariance, distribution shift and post-training data, validated once.

Notation (paper section 1): Sigma0 is the pretraining covariance, Delta the shift, Sigma = Sigma0 + Delta
the test covariance, A the covariance of the post-training prompts, eta the step of the ground-truth chain
of thought w_{i+1} = w_i + eta (w* - w_i), r the interference: the part of A outside range(Delta).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from datadose.covariance import (
    LARGEST_DIMENSION,
    identity_like,
    is_spectrum,
    product,
    range_projector,
    rank,
    same_form,
    spectral_basis,
    validate_covariance,
)
from datadose.equality import ByValue
from datadose.errors import reject, require_integer, require_number
from datadose.shapes import Operator
from datadose.showing import Tabular


@dataclass(frozen=True, eq=False, repr=False)
class Shift(ByValue, Tabular):
    """A shift is a pretraining covariance, what changes at the test, and the data of post-training.

    The setting is that of section 1 of the paper (arXiv 2603.01293). Spectra are understood in one shared
    eigenbasis; if one of the three covariances is a matrix, all become matrices and need not commute.
    :meth:`two_block` and :meth:`aligned` make the paper's shifts. Two shifts are equal if their covariances
    and eta are. ``to_frame`` has a row for each direction with columns ``sigma0``, ``delta``, ``target`` and
    ``data``: variances along the directions of the shared basis, or for matrices the eigenvalues of each,
    largest first (a row is then no single direction); ``plot`` draws the same.

    Args:
        sigma0: covariance Sigma0 of the pretraining prompts, a spectrum (d,) or a PSD matrix (d, d).
        delta: the shift Delta, in either form; test prompts have the covariance Sigma = Sigma0 + Delta.
        data: covariance A of the post-training prompts, in either form.
        eta: step of the ground-truth chain of thought, in (0, 2).

    Raises:
        InputError: a covariance that is not PSD, not symmetric, not finite or of another size, or ``eta``
            outside (0, 2).

    Example:
        >>> import numpy as np
        >>> from datadose import Shift
        >>> shift = Shift(sigma0=np.ones(4), delta=np.array([1.0, 1, 0, 0]), data=np.full(4, 0.2), eta=0.2)
        >>> shift
        Shift(sigma0=[1, 1, 1, 1], delta=[1, 1, 0, 0], data=[0.2, 0.2, 0.2, 0.2], eta=0.2)
        >>> shift.target.tolist()
        [2.0, 2.0, 1.0, 1.0]
        >>> shift == Shift(shift.sigma0, shift.delta, shift.data, eta=0.2)
        True
    """

    _picture: ClassVar[str] = "datadose.drawing.results.draw_shift"

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
        """Return the paper's shift: Sigma0 = diag(rho 1_m, 1_{d-m}), Delta = diag(1_m, 0), A by section 5.1.

        A = diag(eta (rho + 1) 1_m, r 1_{d-m}) is the data of figures 1, 2 and 5. Section 5.2 prints
        Sigma0 = diag(rho 1_m, 0_{n-m}) once, a misprint (docs/errata.md).

        Args:
            dimension: d >= 1, the number of directions.
            shifted: m in [0, d], how many of them the shift adds variance to.
            rho: variance >= 0 of these directions in pretraining; the others have 1.
            eta: step of the ground-truth chain of thought, in (0, 2).
            interference: r >= 0, variance of the data outside the shift; for the paper a smaller r > 0 is the
                stronger interference.

        Raises:
            InputError: a value out of range, or ``shifted`` = 0 without interference (the data is empty).

        Example:
            >>> from datadose import Shift
            >>> shift = Shift.two_block(dimension=4, shifted=2, rho=0.5, eta=0.2, interference=0.1)
            >>> shift.data.round(3).tolist()
            [0.3, 0.3, 0.1, 0.1]
        """
        dimension = require_integer("dimension", dimension, 1, LARGEST_DIMENSION)
        shifted = require_integer("shifted", shifted, 0, dimension)
        require_number("rho", rho, 0, np.inf)
        in_shift = np.arange(dimension) < shifted
        return cls.aligned(np.where(in_shift, rho, 1.0), np.where(in_shift, 1.0, 0.0), eta, interference)

    @classmethod
    def aligned(cls, sigma0: Any, delta: Any, eta: float, interference: float = 0.0) -> Shift:
        """Return a shift whose data follow the paper's allocation A = eta (P Sigma0 P + Delta) + r (I - P).

        P projects onto range(Delta) (sections 5.1 and 5.2).

        Args:
            sigma0: covariance Sigma0 of the pretraining prompts, a spectrum (d,) or a PSD matrix (d, d).
            delta: the shift Delta, in either form.
            eta: step of the ground-truth chain of thought, in (0, 2).
            interference: r >= 0, variance of the data outside range(Delta).

        Raises:
            InputError: a value out of range, or a zero Delta without interference (the data is empty).

        Example:
            >>> from datadose import Shift
            >>> Shift.aligned([1, 1, 1], [2, 0, 0], eta=0.5, interference=0.1).data.tolist()
            [1.5, 0.1, 0.1]
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

    def _columns(self) -> dict[str, Any]:
        covariances = {"sigma0": self.sigma0, "delta": self.delta, "target": self.target, "data": self.data}
        if self.is_spectral:
            return covariances
        return {name: np.sort(spectral_basis(matrix)[0])[::-1] for name, matrix in covariances.items()}

    @property
    def dimension(self) -> int:
        """The number of directions d."""
        return len(self.sigma0)

    @property
    def target(self) -> Operator:
        """The covariance Sigma = Sigma0 + Delta of the test prompts, (d,) or (d, d)."""
        return self.sigma0 + self.delta

    @property
    def is_spectral(self) -> bool:
        """Whether all covariances are spectra in one shared basis."""
        return is_spectrum(self.data)

    @property
    def data_rank(self) -> int:
        """rank(A): the number of prompts at which V* interpolates and the error peaks."""
        return rank(self.data)
