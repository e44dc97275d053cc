"""A trained model in the theory: the mean and second moment of its operator V.

A stage of training maps the (E[V], E[V^T V]) of the model it starts from to those of the model it ends with;
the test error of Prop 5.1 is linear in both, so no more of the law of V is needed, whatever the test, and
stages compose (docs/derivations/stages.md). The random part is the prompts that the stages drew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from datadose.covariance import (
    plus,
    product,
    trace_product,
    transpose,
    validate_covariance,
    validate_operator,
    wishart_second_moment,
)
from datadose.errors import require_integer
from datadose.shapes import Array, Operator
from datadose.theory.post_test import error_of_moments


@dataclass(frozen=True)
class TrainedOperator:
    """Mean and second moment of the operator V of a model, over the prompts that trained it."""

    mean: Operator
    """E[V], a spectrum (d,) or a matrix (d, d)."""
    second_moment: Operator
    """E[V^T V], symmetric, in either form."""
    scatter: Operator
    """The part of E[V^T V] that comes from the chance of the last stage's prompts; more of them remove it."""

    @classmethod
    def fixed(cls, V: Operator) -> TrainedOperator:
        """A model with a fixed V, (d,) or (d, d), such as one pretrained on infinitely many prompts.

        Raises InputError for a ``V`` that is not a finite operator.
        """
        V = validate_operator("V", V)
        return cls(V, product(transpose(V), V), np.zeros(len(V)))

    @property
    def covariance(self) -> Operator:
        """E[V^T V] - E[V]^T E[V], the random part of V. It is positive semidefinite up to O(1/d)."""
        return plus(self.second_moment, -product(transpose(self.mean), self.mean))

    def error(self, target: Operator, test_length: int) -> float:
        """Prop 5.1 / d: E ||what - w*||^2 / d after one step on a prompt of covariance ``target``.

        Args:
            target: test covariance Sigma, a spectrum (d,) or a PSD matrix (d, d).
            test_length: length n >= 1 of the test prompt.

        Raises InputError for a target of another size and for a length below 1.
        """
        Sigma, M = self._test(target, test_length)
        return error_of_moments(self.mean, self.second_moment, Sigma, M)

    def variance(self, target: Operator, test_length: int) -> float:
        """The part of :meth:`error` that ``scatter`` makes. Arguments and errors as there."""
        Sigma, M = self._test(target, test_length)
        return trace_product(self.scatter, M) / len(Sigma)

    def averaged(self, models: int) -> TrainedOperator:
        """The mean of the weights of ``models`` >= 1 models, each trained on prompts of its own.

        All start from the same model, whose own scatter stays. Raises InputError for fewer than one.
        """
        share = 1 / require_integer("models", models, 1)
        second = plus(self.second_moment, (share - 1) * self.scatter)
        return replace(self, second_moment=second, scatter=share * self.scatter)

    def mapped(self, change: Callable[[Array], Array]) -> TrainedOperator:
        """The model with ``change`` applied to all three fields, for another form or basis."""
        return TrainedOperator(change(self.mean), change(self.second_moment), change(self.scatter))

    def scaled(self, unit: float) -> TrainedOperator:
        """The model with covariances measured in ``unit``: its operator is V unit."""
        return TrainedOperator(unit * self.mean, unit**2 * self.second_moment, unit**2 * self.scatter)

    def _test(self, target: Operator, test_length: int) -> tuple[Operator, Operator]:
        Sigma = validate_covariance("target", target, len(self.mean))
        return Sigma, wishart_second_moment(Sigma, require_integer("test_length", test_length, 1))
