"""Tasks that are not alike: weights w* ~ N(0, Lambda) in place of N(0, I), in pretraining, SFT and test.

The inputs of a prompt have covariance A, its tasks the covariance Lambda, and phi = S w*. What changes:

- C = E[phi phi^T] = E[S Lambda S] = A Lambda A + (A Lambda A + tr(A Lambda) A) / n
- E[w* phi^T] = Lambda A, which is not symmetric where the two do not commute
- the error of V is E||(I + V S) w*||^2 = tr Lambda + 2 tr(V Sigma Lambda) + tr(V E[S Lambda S] V^T)

With R = (C + mu)^{-1} at the effective penalty mu (:mod:`datadose.theory.effective_penalty`), which a penalty
lambda = mu (B - df1(mu)) beside the plain sum reaches:

- Vbar = (mu V0 - eta Lambda A) R, kappa = tr(C R M R) / (B - df2(mu)), M = E[S Lambda S] of the test
- tr Res = tr(Vbar C Vbar^T) + 2 eta tr(Vbar A Lambda) + eta^2 tr Lambda, error of Vbar plus kappa tr Res.

All is a limit in d, and with Lambda = I it agrees with the other modules. Spectra (d,) and matrices (d, d)
may be mixed. Errors are divided by tr Lambda of the test, the error of a model that answers 0, which is d
where Lambda = I.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datadose.covariance import (
    identity_like,
    inverse,
    is_spectrum,
    plus,
    product,
    trace,
    trace_product,
    transpose,
    validate_covariance,
    validate_operator,
)
from datadose.errors import reject, require_integer, require_number
from datadose.shapes import Operator
from datadose.theory.effective_penalty import PenalisedError


@dataclass(frozen=True, eq=False)
class TaskPrompts:
    """Prompts of length n whose inputs have one covariance and whose tasks have another.

    Raises InputError for what is no covariance, for different dimensions, for tasks of covariance zero, and
    for a length below 1.

    Example:
        >>> TaskPrompts(np.ones(4), np.array([1.0, 1.0, 0.0, 0.0]), 10).second_moment
        array([1.3, 1.3, 0.2, 0.2])
    """

    inputs: Operator
    """A, a spectrum (d,) or a matrix (d, d)."""
    tasks: Operator
    """Lambda, in either form."""
    length: int
    """n >= 1."""

    def __post_init__(self) -> None:
        A = validate_covariance("inputs", self.inputs)
        Lambda = validate_covariance("tasks", self.tasks, len(A))
        if not Lambda.any():
            reject("tasks", "a zero matrix", "a non-zero covariance")
        require_integer("length", self.length, 1)
        object.__setattr__(self, "inputs", A)
        object.__setattr__(self, "tasks", Lambda)

    @property
    def second_moment(self) -> Operator:
        """E[S Lambda S], not divided by d."""
        inner = product(self.inputs, self.tasks, self.inputs)
        spread = trace_product(self.inputs, self.tasks) / self.length * self.inputs
        return plus((1 + 1 / self.length) * inner, spread)

    @property
    def cross(self) -> Operator:
        """E[w* phi^T] = Lambda A, not divided by d."""
        return product(self.tasks, self.inputs)

    def error(self, V: Operator) -> float:
        """Error of the operator ``V``, (d,) or (d, d), on these prompts, over tr Lambda.

        Raises InputError for a ``V`` that is not a finite operator of this size.
        """
        V = validate_operator("V", V, len(self.inputs))
        quadratic = trace_product(product(V, self.second_moment), transpose(V))
        return 1 + (2 * trace_product(V, transpose(self.cross)) + quadratic) / trace(self.tasks)


def pretrained_on_tasks(prompts: TaskPrompts) -> Operator:
    """V~ = -Lambda A E[S Lambda S]^{-1} after pretraining on infinitely many prompts.

    Raises InputError for inputs that miss a direction, where V~ is not determined.
    """
    C = prompts.second_moment
    values = C if is_spectrum(C) else np.linalg.eigvalsh(C)
    if values.min() <= len(C) * np.finfo(np.float64).eps * values.max():
        reject("inputs", "a covariance that misses a direction", "a positive definite covariance")
    return -product(prompts.cross, inverse(C))


def penalised_on_tasks(
    start: Operator, eta: float, data: TaskPrompts, prompts: float, penalty: float, test: TaskPrompts
) -> PenalisedError:
    """The error after SFT at the effective penalty mu, over tr Lambda of the test, in its two parts.

    Args:
        start: operator V0 before training, (d,) or (d, d).
        eta: chain-of-thought step, in (0, 2); 1 is outcome supervision with one thinking step.
        data: the training prompts.
        prompts: their number B > df1(mu), which may be fractional.
        penalty: mu > 0.
        test: the test prompts.

    Raises InputError for values out of range, for a start or a test of another size, and where B is too
    small for mu: no penalty >= 0 reaches it.
    """
    require_number("eta", eta, 0, 2, open_ends=True)
    B = require_number("prompts", prompts, 0, np.inf, open_ends=True)
    mu = require_number("penalty", penalty, 0, np.inf, open_ends=True)
    V0 = validate_operator("start", start, len(data.inputs))
    if len(test.inputs) != len(data.inputs):
        reject("test", f"dimension {len(test.inputs)}", f"dimension {len(data.inputs)}, as in the data")
    C, cross = data.second_moment, data.cross
    R = inverse(plus(C, mu * identity_like(C)))
    fitted = product(C, R)
    df1, df2 = trace(fitted), trace_product(fitted, fitted)
    if df1 > B:
        reject("prompts", f"{B:g} at penalty {mu:g}", f"at least df1 = {df1:.6g}")
    V = product(plus(mu * V0, -eta * cross), R)
    residual = trace_product(product(V, C), transpose(V)) + eta**2 * trace(data.tasks)
    residual += 2 * eta * trace_product(V, transpose(cross))
    leverage = trace_product(product(fitted, test.second_moment), R) / (B - df2)
    limit, variance = test.error(V), leverage * residual / trace(test.tasks)
    return PenalisedError(limit + variance, limit, variance, mu, mu * (B - df1))
