"""Pretraining on finitely many prompts of a mixture: its mean and second moment as functions of the shares.

Pretraining is SFT with eta = 1 from V = 0: the minimiser of sum_j ||V Phi_j + Omega_j||_F^2 on B_j = s_j P
prompts of category j. Its deterministic equivalent has Vbar = -(sum_j q_j A_j)(sum_j q_j C_j)^{-1} above the
rank, with q_j = B_j / (1 + tr(C_j R)), R = (sum_j q_j C_j)^{-1}: the operator of unlimited prompts at shares
in proportion to q_j, which counts a scarce category for less than its share, and a scatter that unlimited
prompts do not have. Both make a small share more costly than
:class:`~datadose.theory.pretraining.PretrainingMixture` makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from datadose.errors import require_number
from datadose.shapes import Array, Float, Operator
from datadose.theory.columns import Columns
from datadose.theory.equivalent import Equivalent, deterministic_equivalent
from datadose.theory.pretraining import PretrainingMixture
from datadose.theory.sensitivity import sensitivity
from datadose.theory.source import Source
from datadose.theory.trained_operator import TrainedOperator

_LEAST = 1e-9
"""A smaller share counts as this one: the limit of few prompts, in which the derivative exists."""
_STEP = 1e-5


@dataclass(frozen=True, eq=False)
class FinitePretraining:
    """Pretraining to convergence on P prompts, split over J categories by their shares."""

    mixture: PretrainingMixture
    """The pretraining on the same categories with unlimited prompts."""
    length: int
    prompts: float
    """P."""
    _last: dict[bytes, Equivalent] = field(default_factory=dict, repr=False)
    """At the shares of the last calls: several numbers are differentiated there."""

    @classmethod
    def of(cls, covariances: Sequence[Operator], length: int, prompts: float) -> FinitePretraining:
        """Pretraining on ``prompts`` prompts of the categories with these covariances.

        Args:
            covariances: J >= 1 spectra (d,) or PSD matrices (d, d) of one dimension.
            length: prompt length n >= 1 of all categories, in examples.
            prompts: total number P > 0 of prompts, which may be fractional.

        Raises InputError for values out of range, for no category and for different dimensions.
        """
        mixture = PretrainingMixture.of(covariances, length)
        return cls(mixture, length, require_number("prompts", prompts, 0, np.inf, open_ends=True))

    @property
    def size(self) -> int:
        """J, the number of categories."""
        return self.mixture.size

    def sees_everything(self, shares: ArrayLike) -> bool:
        """Whether the categories with a positive share together contain all directions."""
        return self.mixture.sees_everything(shares)

    def start(self, shares: ArrayLike) -> TrainedOperator:
        """E[V~] and E[V~^T V~] at shares s_j >= 0, shape (J,), in any unit.

        Raises InputError for shares that are negative, all 0 or of another number, PeakError where the mean
        error over prompts is infinite (about as many prompts as directions that they span).
        """
        found = self._equivalent(self._shares(shares))
        found.require_finite()
        return found.trained(TrainedOperator.fixed(self._zero))

    def slopes(self, shares: ArrayLike, mean: Operator, second_moment: Operator) -> Float[Array, " J"]:
        """Derivatives by the shares (J,) of a number that is linear in both moments; P stays fixed.

        Each is the effect of more of its category where all others shrink in proportion: with the shares
        as factors they sum to 0. By differences where some categories are above their peak and others below.

        Args:
            shares: as of :meth:`start`, whose errors are raised.
            mean: derivative by E[V~], a spectrum (d,) or a matrix (d, d).
            second_moment: derivative by E[V~^T V~], symmetric, in either form.
        """
        s = self._shares(shares)
        found = self._equivalent(s)
        if found.is_mixed:
            by_count = self._differences(s, mean, second_moment)
        else:
            # The number is error - 1 for a test with these moments.
            d = self.mixture.dimension
            by_count = self.prompts * sensitivity(found, d / 2 * mean, d * second_moment).counts
        return np.asarray(by_count - s @ by_count, dtype=np.float64)

    def _differences(self, s: Array, mean: Operator, second_moment: Operator) -> Float[Array, " J"]:
        d, slopes = self.mixture.dimension, np.zeros(len(s))
        for j in range(len(s)):
            h = _STEP * s[j]
            ends = [
                self._equivalent(s + sign * h * np.eye(len(s))[j]).error(d / 2 * mean, d * second_moment)
                for sign in (1, -1)
            ]
            slopes[j] = (ends[0] - ends[1]) / (2 * h)
        return slopes

    def _shares(self, shares: ArrayLike) -> Float[Array, " J"]:
        s = self.mixture.checked(shares)
        return np.asarray(np.maximum(s / s.sum(), _LEAST), dtype=np.float64)

    @cached_property
    def _columns(self) -> list[Columns]:
        """The moments of a prompt of each category."""
        return [Source(C, self.length, 1.0).columns(1.0, 0) for C in self.mixture.covariances]

    @property
    def _zero(self) -> Operator:
        return np.zeros(self.mixture.covariances.shape[1:], dtype=np.float64)

    def _equivalent(self, s: Array) -> Equivalent:
        key = s.tobytes()
        if key not in self._last:
            counts = (s * self.prompts).tolist()
            columns = [replace(c, count=B) for c, B in zip(self._columns, counts, strict=True)]
            self._last.clear()
            self._last[key] = deterministic_equivalent(self._zero, 1.0, columns)
        return self._last[key]
