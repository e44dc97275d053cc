"""One test, or a weighted sum of tests: Prop 5.1 as a function of a model's mean and second moment.

Error / d = 1 + (2 tr(E[V] Sigma) + tr(E[V^T V] M)) / d is linear in Sigma = E[S] and M = E[S^2], so a sum of
tests whose weights sum to 1 is one test with the sums of both. Forgetting is such a sum: the shifted target
with one weight and Sigma0 with the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datadose.covariance import (
    Array,
    plus,
    product,
    rotated,
    trace_product,
    validate_covariance,
    wishart_second_moment,
)
from datadose.errors import reject, require_integer, require_number
from datadose.shapes import Operator
from datadose.theory.post_test import error_of_moments
from datadose.theory.trained_operator import TrainedOperator

_ROUNDING = 1e-9


@dataclass(frozen=True)
class WeightedTest:
    """A test form: Sigma, and M = E[S^2], both not divided by d."""

    target: Operator
    """Sigma, a spectrum (d,) or a matrix (d, d)."""
    second_moment: Operator
    """M = E[S^2], in either form."""

    @classmethod
    def of(cls, target: Operator, test_length: int) -> WeightedTest:
        """The test on prompts of one covariance.

        Args:
            target: covariance Sigma, a spectrum (d,) or a PSD matrix (d, d).
            test_length: length n >= 1 of the test prompts, in examples.

        Raises InputError for what is not a covariance, and for a length below 1.
        """
        Sigma = validate_covariance("target", target)
        return cls(Sigma, wishart_second_moment(Sigma, require_integer("test_length", test_length, 1)))

    @classmethod
    def weighted(cls, tests: Sequence[tuple[float, Operator, int]]) -> WeightedTest:
        """The sum of tests (weight >= 0, target, test length); the weights sum to 1.

        Raises InputError for weights that do not, for targets of different sizes and for values out of range.
        """
        if not tests:
            reject("tests", "none", "at least one (weight, target, test_length)")
        weights = [require_number("weight", weight, 0, float("inf")) for weight, _, _ in tests]
        if abs(sum(weights) - 1) > _ROUNDING:
            reject("weights", f"{weights} with sum {sum(weights):.6g}", "weights >= 0 that sum to 1")
        forms = [cls.of(target, length) for _, target, length in tests]
        sizes = [len(form.target) for form in forms]
        if len(set(sizes)) > 1:
            reject("targets", f"dimensions {sizes}", "one dimension")
        return cls.summed(list(zip(weights, forms, strict=True)))

    @classmethod
    def summed(cls, parts: Sequence[tuple[float, WeightedTest]]) -> WeightedTest:
        """The sum of (weight, test) ``parts`` of one dimension; nothing is checked."""
        return cls(
            plus(*(w * form.target for w, form in parts)),
            plus(*(w * form.second_moment for w, form in parts)),
        )

    def rotated(self, basis: Array) -> WeightedTest:
        """The test in the orthonormal ``basis``, (d, d), as matrices (d, d)."""
        return WeightedTest(rotated(self.target, basis), rotated(self.second_moment, basis))

    def error(self, model: TrainedOperator) -> float:
        """The error / d of ``model`` on this test (Prop 5.1).

        Raises InputError for a model of another size.
        """
        require_same_size(self, len(model.mean))
        return error_of_moments(model.mean, model.second_moment, self.target, self.second_moment)

    def sees(self, moment: Operator) -> bool:
        """Whether training on prompts with this second moment can change the :meth:`error`.

        It moves V along the directions of ``moment``, (d,) or (d, d), alone: nothing changes where the test
        has none of them, to rounding.
        """
        common, scale = product(moment, self.target), np.abs(moment).max() * np.abs(self.target).max()
        return bool(np.abs(common).max() > _ROUNDING * scale)

    def variance(self, model: TrainedOperator) -> float:
        """The part of :meth:`error` that the model's ``scatter`` makes. Raises InputError as there."""
        require_same_size(self, len(model.mean))
        return trace_product(model.scatter, self.second_moment) / len(self.target)


def require_same_size(test: WeightedTest, dimension: int) -> None:
    """InputError for a test of another dimension than the model's."""
    if len(test.target) != dimension:
        reject("test", f"dimension {len(test.target)}", f"dimension {dimension}, as in the model")
