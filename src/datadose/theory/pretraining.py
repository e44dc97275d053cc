"""Pretraining in the population regime (paper eqs. 3.6 and 3.7).

Notation: Sigma0 pretraining covariance, n prompt length, d dimension. All functions take covariances as
spectra (d,) or dense matrices (d, d), see :mod:`datadose.covariance`, and return the same form, float64.
Source: Huang, Wang, Lee (arXiv 2502.21212) as used by Javanmard et al. (arXiv 2603.01293).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from datadose.covariance import (
    identity_like,
    inverse,
    is_spectrum,
    plus,
    product,
    same_form,
    trace,
    trace_product,
    transpose,
    validate_covariance,
    validate_operator,
    wishart_second_moment,
)
from datadose.errors import reject, require_integer, require_number
from datadose.shapes import Array, Float, Operator
from datadose.theory.trained_operator import TrainedOperator


def gamma0(sigma0: Operator, length: int) -> Operator:
    """The matrix Gamma0 = (1 + 1/n) Sigma0 + (tr Sigma0 / n) I of eq. (3.7). It is not divided by d.

    Args:
        sigma0: pretraining covariance Sigma0, a spectrum (d,) or a PSD matrix (d, d).
        length: length n >= 1 of the pretraining prompts, in examples.

    Returns:
        Gamma0 in the form of ``sigma0``.

    Raises:
        InputError: ``sigma0`` is not a covariance, or n < 1.
    """
    sigma0 = validate_covariance("sigma0", sigma0)
    n = require_integer("length", length, 1)
    return (1 + 1 / n) * sigma0 + (trace(sigma0) / n) * identity_like(sigma0)


def pretrained_operator(sigma0: Operator, length: int) -> Operator:
    """The operator V~ = -Gamma0^{-1} after pretraining on infinitely many prompts (W~ = I), eq. (3.6).

    One thinking step of the model is w <- w + V~ S (w - w*), where S is the prompt's empirical covariance.

    Args:
        sigma0: pretraining covariance Sigma0, a spectrum (d,) or a PSD matrix (d, d).
        length: length n >= 1 of the pretraining prompts, in examples.

    Returns:
        V~ in the form of ``sigma0``, not divided by d.

    Raises:
        InputError: ``sigma0`` is not a covariance or is zero (then Gamma0 is singular), or n < 1.
    """
    G = gamma0(sigma0, length)
    if trace(G) == 0:
        reject("sigma0", "a zero matrix", "a non-zero covariance")
    return -inverse(G)


@dataclass(frozen=True, eq=False)
class PretrainingMixture:
    """Pretraining on infinitely many prompts, each from one of J categories: V~ as a function of the shares.

    With N = sum_j s_j Sigma_j and D = sum_j s_j E[S_j^2], the minimiser of sum_j s_j E||I + V S_j||_F^2 that
    is nearest to 0 is V = -N D^+: in a direction that no category of positive share contains, the model stays
    where it starts, at 0. V depends on the ratios of the shares alone. Nothing is divided by d.
    """

    covariances: Array
    """Sigma_j, (J, d) or (J, d, d)."""
    second_moments: Array
    """E[S_j^2] for prompts of the length of pretraining, the same."""

    @classmethod
    def of(cls, covariances: Sequence[Operator], length: int) -> PretrainingMixture:
        """The categories with these covariances, and prompts of ``length`` n >= 1.

        Args:
            covariances: J >= 1 spectra (d,) or PSD matrices (d, d) of one dimension; if one is a matrix,
                all become matrices.
            length: prompt length n of all categories.

        Raises InputError for no category, for what is not a covariance, and for different dimensions.
        """
        n = require_integer("length", length, 1)
        if len(covariances) == 0:
            reject("categories", "none", "at least one covariance")
        dimension = len(covariances[0])
        checked = same_form(*(validate_covariance("categories", C, dimension) for C in covariances))
        return cls(np.stack(checked), np.stack([wishart_second_moment(C, n) for C in checked]))

    @property
    def size(self) -> int:
        """J, the number of categories."""
        return len(self.covariances)

    @property
    def dimension(self) -> int:
        """The dimension d of the inputs."""
        return int(self.covariances.shape[-1])

    def sees_everything(self, shares: ArrayLike) -> bool:
        """Whether the categories with a positive share together contain all directions."""
        _, missed = _inverse_on_range(self._mixed(self.second_moments, self.checked(shares)))
        return not missed

    def operator(self, shares: ArrayLike) -> Operator:
        """V~ at these shares, a spectrum (d,) or a matrix (d, d).

        Args:
            shares: s_j >= 0, shape (J,), in any unit; not all 0.

        Raises InputError for shares that are negative, not finite, all 0, or of another number.
        """
        s = self.checked(shares)
        inverted, _ = _inverse_on_range(self._mixed(self.second_moments, s))
        return -product(self._mixed(self.covariances, s), inverted)

    def start(self, shares: ArrayLike) -> TrainedOperator:
        """The model at these shares, which is known. Arguments and errors of :meth:`operator`."""
        return TrainedOperator.fixed(self.operator(shares))

    def slopes(self, shares: ArrayLike, mean: Operator, second_moment: Operator) -> Float[Array, " J"]:
        """Derivatives, shape (J,), by the shares of a number that is linear in E[V~] and E[V~^T V~].

        Args:
            shares: s_j >= 0, shape (J,), not all 0; the arguments of :meth:`operator`.
            mean: derivative of the number by E[V~], a spectrum (d,) or a matrix (d, d).
            second_moment: derivative by E[V~^T V~], symmetric, in either form.

        Raises InputError as :meth:`pull_back`, which computes the same from the derivative by V~.
        """
        V = self.operator(shares)
        return self.pull_back(shares, plus(mean, 2 * product(V, second_moment)))

    def pull_back(self, shares: ArrayLike, gradient: Operator) -> Float[Array, " J"]:
        """Derivatives by the shares (J,) of a number whose derivative by V~ is ``gradient``.

        dV/ds_j = -(Sigma_j + V E[S_j^2]) D^+: the pull of category j on the trained model, half the gradient
        of its loss, over the curvature of the whole loss. As V depends on ratios alone, sum_j s_j times these
        is 0: each is the effect of more of its category where all others shrink in proportion. Where a
        category of share 0 brings a new direction, V jumps, and the derivative leaves that direction out.

        Args:
            shares: as of :meth:`operator`.
            gradient: G with d(number) = sum_ab G_ab dV_ab, a spectrum (d,) or any matrix (d, d).

        Raises InputError as :meth:`operator`, and for a gradient of another size.
        """
        s, G = self.checked(shares), validate_operator("gradient", gradient, self.dimension)
        inverted, _ = _inverse_on_range(self._mixed(self.second_moments, s))
        V = -product(self._mixed(self.covariances, s), inverted)
        pulled = product(inverted, transpose(G))
        curved = product(pulled, V)
        slopes = [
            -trace_product(pulled, C) - trace_product(curved, E)
            for C, E in zip(self.covariances, self.second_moments, strict=True)
        ]
        return np.array(slopes)

    def checked(self, shares: ArrayLike) -> Float[Array, " J"]:
        """``shares`` as J finite numbers >= 0, not all 0, else InputError."""
        allowed = f"{self.size} finite numbers >= 0, not all 0"
        try:
            s = np.asarray(shares, dtype=np.float64)
        except (TypeError, ValueError):
            reject("shares", shares, allowed)
        if s.shape != (self.size,) or not (np.isfinite(s) & (s >= 0)).all() or not s.any():
            reject("shares", shares, allowed)
        return s

    def _mixed(self, stacked: Array, shares: Array) -> Operator:
        return np.asarray(np.tensordot(shares / shares.sum(), stacked, axes=1))


def _inverse_on_range(M: Operator) -> tuple[Operator, bool]:
    """M^+ of a PSD ``M``, and whether it misses a direction; rounding in a matrix counts as missing."""
    if is_spectrum(M):
        return np.divide(1.0, M, out=np.zeros_like(M), where=M > 0), bool((M <= 0).any())
    values, vectors = np.linalg.eigh(M)
    kept = values > len(M) * np.finfo(np.float64).eps * values[-1]
    basis = vectors[:, kept]
    return np.asarray((basis / values[kept]) @ basis.T), not kept.all()


def pretrained_on_mixture(categories: Sequence[tuple[float, Operator]], length: int) -> Operator:
    """V~ after pretraining on infinitely many prompts from a mixture of categories (ours).

    Each prompt comes from category c with probability p_c proportional to its weight; the minimiser of the
    one-step loss sum_c p_c E||I + V S_c||_F^2 is V = -(sum_c p_c Sigma_c)(sum_c p_c E[S_c^2])^{-1}, which is
    -Gamma0^{-1} for one category. Not divided by d; dense if any category is.
    :class:`PretrainingMixture` is the same as a function of the weights.

    Args:
        categories: (weight > 0, covariance) pairs, spectra (d,) or PSD matrices (d, d) of one dimension.
        length: prompt length n.

    Raises InputError for no category, a weight that is not positive, or categories that together miss a
    direction (the mixed second moment is singular).
    """
    require_integer("length", length, 1)
    if not categories:
        reject("categories", "none", "at least one (weight, covariance)")
    weights = [require_number("weight", p, 0, np.inf, open_ends=True) for p, _ in categories]
    mixture = PretrainingMixture.of([C for _, C in categories], length)
    if not mixture.sees_everything(weights):
        reject(
            "categories", "covariances that miss a direction", "categories that together span all directions"
        )
    return mixture.operator(weights)
