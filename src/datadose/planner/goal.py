"""What a plan minimises: the error on one target or on several tests, and that on what was known before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from datadose.covariance import validate_covariance
from datadose.errors import reject, require_choice, require_number
from datadose.shapes import Operator
from datadose.theory.weighted_test import WeightedTest

Weights: TypeAlias = Literal["equal", "tuned"]
Stop: TypeAlias = Literal["converged", "best", "penalty"]
"""How training ends: at convergence, at its best time, or held back by its best penalty."""
STOPS: tuple[Stop, ...] = ("converged", "best", "penalty")
WEIGHTS: tuple[Weights, ...] = ("equal", "tuned")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Goal:
    """The tests of a plan; every error is that of Prop 5.1, divided by d."""

    target: WeightedTest
    """The target, or the weighted sum of the tests in its place."""
    pretraining: WeightedTest
    """The test on Sigma0: what was known before."""
    objective: WeightedTest
    """(1 - keep) times the target plus keep times Sigma0: what is minimised."""

    @classmethod
    def of(cls, target: WeightedTest | Operator, sigma0: Operator, length: int, keep: float = 0.0) -> Goal:
        """The goal of post-training.

        Args:
            target: covariance of the test prompts, (d,) or (d, d), or a weighted sum of tests.
            sigma0: covariance of the pretraining prompts, (d,) or (d, d).
            length: length n >= 1 of the test prompts.
            keep: the weight of the error on Sigma0, in [0, 1].

        Raises InputError for a value out of range.
        """
        w = require_number("keep", keep, 0, 1)
        aim = target if isinstance(target, WeightedTest) else WeightedTest.of(target, length)
        known = WeightedTest.of(sigma0, length)
        if w == 0:
            return cls(aim, known, aim)
        parts = ((1 - w, aim), (w, known))
        return cls(aim, known, WeightedTest.summed(parts))


def tests_of(tests: Sequence[tuple[Operator, float]], length: int, dimension: int) -> WeightedTest:
    """The weighted sum of several tests.

    Args:
        tests: pairs (covariance, weight >= 0) whose weights sum to 1.
        length: length n >= 1 of the test prompts.
        dimension: d.

    Raises InputError for no test, weights that do not sum to 1, and covariances of another dimension.
    """
    if not tests:
        reject("tests", "none", "at least one (covariance, weight)")
    weights = [require_number("weight of a test", weight, 0, 1) for _, weight in tests]
    if abs(sum(weights) - 1) > _ROUNDING:
        reject("tests", f"weights with sum {sum(weights):.6g}", "weights >= 0 that sum to 1")
    checked = [
        validate_covariance(f"covariance of test {at}", covariance, dimension)
        for at, (covariance, _) in enumerate(tests)
    ]
    return WeightedTest.weighted([(w, Sigma, length) for w, Sigma in zip(weights, checked, strict=True)])


def require_choices(stop: Stop, keep: float, weights: Weights, tests: object) -> None:
    """InputError for choices that do not exist, or that mean nothing beside each other."""
    require_choice("training", stop, STOPS)
    require_choice("weights", weights, WEIGHTS)
    require_number("keep", keep, 0, 1)
    if stop == "converged":
        well = "training: best or penalty beside it"
        if keep != 0:
            reject("keep", f"{keep:g} with training: converged", well)
        if weights != "equal":
            reject("weights", f"{weights} with training: converged", well)
        if tests is not None:
            reject("tests", "some with training: converged", well)
