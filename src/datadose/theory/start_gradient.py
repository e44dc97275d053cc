"""The error after post-training as a function of the pretrained model, and its derivatives by that model.

One source of prompts at an effective penalty mu (:mod:`datadose.theory.effective_penalty`): with
R = (C + mu)^{-1}, K = mu R, Vbar = V0 K - eta A R and the leverage kappa = tr(C R M R) / (B - df2(mu)), the
error is explicit and, in V0, quadratic:

    Err = 1 + [2 tr(Vbar Sigma) + tr(Vbar M Vbar^T) + kappa tr Res] / d,
    tr Res = tr(Vbar C Vbar^T) + 2 eta tr(A Vbar) + (eta^2 + noise) d.

So it is linear in E[V0] and E[V0^T V0] of a random start, and at a fixed mu

    dErr/dE[V0] = (2 / d) [Sigma - eta A R M + kappa (eta A - eta A R C)] K,
    dErr/dE[V0^T V0] = (1 / d) K (M + kappa C) K,

of which a known V0 has the first plus 2 V0 times the second. mu stays fixed at convergence on B prompts
(df1(mu) = B below the rank, mu = 0 above it) whatever V0 is. At the best penalty mu moves with V0, but the
error does not change with mu there (envelope theorem), or mu is held at an end of its range: the derivatives
are the same. K = 1 where the model is left untouched (mu infinite), and the projector off the data at mu = 0.
Errors are divided by d; Sigma and M = E[S^2] belong to the test. Derivation:
docs/derivations/pretraining_shares.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datadose.covariance import (
    plus,
    product,
    rotated,
    trace_product,
    transpose,
)
from datadose.errors import require_number
from datadose.shapes import Matrix, Operator
from datadose.theory.columns import Columns
from datadose.theory.effective_penalty import EffectivePenalty, PenalisedError
from datadose.theory.explicit_columns import as_start, explicit_columns
from datadose.theory.one_source import OneSource
from datadose.theory.source import Source
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.weighted_test import WeightedTest, require_same_size


@dataclass(frozen=True)
class StartSensitivity:
    """What post-training makes of one start, and what a change of the start changes."""

    trained: PenalisedError
    """The error / d, its two parts and the penalty."""
    mean: Operator
    """dErr/dE[V0] at a fixed second moment: a spectrum (d,) of derivatives by the diagonal where all is
    diagonal, else a matrix (d, d) of derivatives by the entries."""
    second_moment: Operator
    """dErr/dE[V0^T V0], symmetric, in either form."""

    @property
    def error(self) -> float:
        """The error / d after post-training."""
        return self.trained.error

    def by_operator(self, V0: Operator) -> Operator:
        """dErr/dV0 of a known start V0, (d,) or (d, d): mean + 2 V0 second_moment."""
        return plus(self.mean, 2 * product(V0, self.second_moment))


@dataclass(frozen=True, eq=False)
class ErrorFromStart:
    """Post-training on B prompts of one source, judged by one test, from any pretrained operator."""

    eta: float
    columns: Columns
    """The second moments of the source, as spectra."""
    basis: Matrix | None
    """The basis of these spectra, (d, d); None where the inputs are spectra."""
    test: WeightedTest
    """The test in this basis."""
    prompts: float

    @classmethod
    def of(cls, eta: float, source: Source, test: WeightedTest, *, chain_steps: int = 0) -> ErrorFromStart:
        """Training on ``source`` and its own number of prompts B >= 0.

        Args:
            eta: chain-of-thought step, in (0, 2); 1 is outcome supervision with one thinking step.
            source: covariance (d,) or (d, d), length, number of prompts and noise; its covariance may be
                zero, which leaves the model untouched.
            test: the test, or a weighted sum of tests.
            chain_steps: k >= 0 of the chains of thought; it matters where demonstrations are noisy.

        Raises InputError for values out of range, a test of another dimension, and label noise where k >= 1.
        """
        (columns,) = explicit_columns([source], eta, chain_steps)
        require_same_size(test, len(columns.cross))
        B = require_number("prompts", source.prompts, 0, np.inf)
        columns, basis = columns.in_own_basis()
        if basis is not None:
            test = WeightedTest(rotated(test.target, basis), rotated(test.second_moment, basis))
        return cls(eta, columns, basis, test, B)

    def best(self, start: TrainedOperator | Operator) -> StartSensitivity:
        """The least error over all penalties from ``start``, and its derivatives.

        ``start`` is a pretrained model, or a known operator V0, (d,) or (d, d).

        Where two penalties are equally good the error has a kink, and the derivative is that of one of them.
        Raises InputError for a start of another size, PeakError where no penalty would be the best one and
        the mean error without one is infinite.
        """
        curve = self._from(start)
        return self._differentiated(curve.best(self.prompts))

    def converged(self, start: TrainedOperator | Operator) -> StartSensitivity:
        """The error of training to convergence from ``start``, and its derivatives.

        Raises InputError for a start of another size, PeakError where the mean error is infinite.
        """
        curve = self._from(start)
        return self._differentiated(curve.at(self.prompts, 0.0))

    def at_penalty(self, start: TrainedOperator | Operator, penalty: float) -> StartSensitivity:
        """The error at the effective penalty mu = ``penalty`` in [0, infinity], and its derivatives there.

        Raises as :meth:`converged`, and InputError for a penalty that B prompts do not reach.
        """
        curve = self._from(start)
        return self._differentiated(curve.at_penalty(self.prompts, penalty))

    def _from(self, start: TrainedOperator | Operator) -> EffectivePenalty:
        model = as_start(start, len(self.columns.cross))
        V0, second = model.mean, model.second_moment
        if self.basis is not None:
            V0, second = rotated(V0, self.basis), rotated(second, self.basis)
        test = self.test
        return EffectivePenalty(
            OneSource(V0, self.eta, self.columns, test.target, test.second_moment, second)
        )

    def _differentiated(self, trained: PenalisedError) -> StartSensitivity:
        C, A = self.columns.span * self.columns.second_moment, self.columns.cross
        pull, curved, mu = self.test.target, self.test.second_moment, trained.penalty
        kept: Operator = np.ones_like(C)
        if not np.isinf(mu):
            R = np.divide(1.0, C + mu, out=np.zeros_like(C), where=C > 0)
            kept = np.where(C > 0, mu * R, 1.0)
            freedom = self.prompts - float(((C * R) ** 2).sum())
            kappa = trace_product(C * R**2, curved) / freedom
            fitted = -self.eta * A * R
            curved = plus(curved, kappa * C)
            pull = plus(pull, product(fitted, curved), kappa * self.eta * A)
        mean = 2 / len(C) * product(pull, kept)
        second = product(kept, curved, kept) / len(C)
        if self.basis is not None:
            mean, second = (product(self.basis, X, transpose(self.basis)) for X in (mean, second))
        return StartSensitivity(trained, mean, second)
