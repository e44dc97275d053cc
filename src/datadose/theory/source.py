"""A source of post-training prompts, and the columns that it gives to the regression of SFT.

Notation: A_c the covariance of its inputs, n_c the length of its prompts, B_c their number, eta the step of
the chains of thought and k their steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datadose.covariance import spectral_basis, validate_covariance, wishart_second_moment
from datadose.equality import ByValue
from datadose.errors import require_integer, require_number
from datadose.shapes import Array, Float, Matrix, Operator, Spectrum
from datadose.showing import Compact
from datadose.theory.columns import Columns, Modes, Pair
from datadose.theory.sft import chain_weight


@dataclass(frozen=True, eq=False, repr=False)
class Source(ByValue, Compact):
    """A source is where post-training prompts come from: how they are distributed, and how many there are.

    The values are checked when the source is used. Two sources are equal if all their values are.

    Args:
        covariance: covariance A_c of the prompts' inputs, a spectrum (d,) or a PSD matrix (d, d).
        length: number n_c >= 1 of labelled examples in a prompt.
        prompts: number B_c >= 0 of prompts, a real number: the theory is smooth in it.
        label_noise: variance s^2 >= 0 of the noise in the labels of the prompts.
        demonstration_noise: variance t^2 >= 0, of each dimension, of the noise in the demonstrated thoughts.

    Example:
        >>> import numpy as np
        >>> from datadose import Source
        >>> Source(np.full(50, 0.2), length=10, prompts=9, label_noise=1)
        Source(covariance=50 values in [0.2, 0.2], length=10, prompts=9, label_noise=1, demonstration_noise=0)
    """

    covariance: Operator
    length: int
    prompts: float
    label_noise: float = 0.0
    """Variance s^2 of the noise in the prompts' labels y_i = <w*, x_i> + eps_i."""
    demonstration_noise: float = 0.0
    """Variance t^2 per dimension of the noise in the chain of thought's thoughts w_{i+1} + nu_i."""

    def columns(self, eta: float, chain_steps: int) -> Columns:
        """Second moments C_c = (1 + 1/n) A^2 + (tr A / n) A and A_c of a prompt, and the effect of noise.

        Demonstration noise leaves t^2/c_k in the answers. Label noise adds (s^2/n) A to C_c for a chain of
        one step (k = 0); for k >= 1 it makes a second feature h of that second moment (section 9 of
        docs/derivations/exact_asymptotics.md). Eigenvalues of A below 1e-10 of the largest count as zero.

        Args:
            eta: chain-of-thought step, in (0, 2).
            chain_steps: k >= 0.

        Raises InputError for a covariance, a length, a number of prompts, a noise or k out of range.
        """
        A = validate_covariance("covariance", self.covariance)
        require_number("prompts", self.prompts, 0, np.inf)
        n = require_integer("length", self.length, 1)
        label = require_number("label_noise", self.label_noise, 0, np.inf) / n
        demonstration = require_number("demonstration_noise", self.demonstration_noise, 0, np.inf)
        paired = label > 0 and chain_steps > 0
        values, vectors = spectral_basis(A)
        A = values if vectors is None else A
        # Label noise of a one-step chain adds to the second moment.
        second_moment, added = wishart_second_moment(A, n), 0.0 if paired else label
        weights = _pair_weights(eta, chain_steps) if paired else None
        return Columns(
            self.prompts,
            second_moment + added * A if added else second_moment,
            A,
            demonstration / chain_weight(eta, chain_steps),
            None if weights is None else Pair(label * A, *weights),
            n,
            None if vectors is None else _modes(values, vectors, n, added, label if paired else None),
        )


def _pair_weights(eta: float, chain_steps: int) -> tuple[Float[Array, "2 2"], float]:
    """O = [[c_k, s_k], [s_k, k + 1]] / c_k and its determinant, with s_k = sum_i (1 - eta)^i.

    c_k (k + 1) - s_k^2 = sum_{i < j} (rho^i - rho^j)^2 without cancellation.
    """
    powers = (1 - eta) ** np.arange(chain_steps + 1)
    weight, linear = chain_weight(eta, chain_steps), float(powers.sum())
    lags = np.arange(1, chain_steps + 1)
    # rho^i (1 - rho^lag), the second factor as eta times a sum of powers of rho.
    factors = eta * np.cumsum(powers)[:-1]
    squares = np.cumsum(powers**2)
    spread = float((factors**2 * squares[chain_steps - lags]).sum())
    return np.array([[weight, linear], [linear, chain_steps + 1]]) / weight, spread / weight**2


def _modes(values: Spectrum, vectors: Matrix, n: int, added: float, echo: float | None) -> Modes:
    inside = values > 0
    kept = values[inside]
    moment = (1 + 1 / n) * kept**2 + (values.sum() / n + added) * kept
    return Modes(vectors[:, inside], kept, (moment,) if echo is None else (moment, echo * kept))
