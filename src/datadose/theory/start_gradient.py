"""The error after post-training as a function of the pretrained operator V0, and its derivative by V0.

One source of prompts at an effective penalty mu (:mod:`datadose.theory.effective_penalty`): with
R = (C + mu)^{-1}, K = mu R, Vbar = V0 K - eta A R and the leverage kappa = tr(C R M R) / (B - df2(mu)), the
error is explicit and quadratic in V0,

    Err = 1 + [2 tr(Vbar Sigma) + tr(Vbar M Vbar^T) + kappa tr Res] / d,
    tr Res = tr(Vbar C Vbar^T) + 2 eta tr(A Vbar) + (eta^2 + noise) d,

so that at a fixed mu

    dErr/dV0 = (2 / d) [Sigma + Vbar M + kappa (Vbar C + eta A)] K.

mu stays fixed at convergence on B prompts (df1(mu) = B below the rank, mu = 0 above it) whatever V0 is. At
the best penalty mu moves with V0, but the error does not change with mu there (envelope theorem), or mu is
held at an end of its range: the derivative is the same. K = 1 where the model is left untouched (mu
infinite), and the projector off the data at mu = 0. Errors are divided by d, Sigma and M = E[S^2] belong to
the test, and the derivation is written out in docs/derivations/pretraining_shares.md.
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
    validate_operator,
)
from datadose.errors import require_number
from datadose.shapes import Matrix, Operator
from datadose.theory.columns import Columns
from datadose.theory.effective_penalty import EffectivePenalty, PenalisedError
from datadose.theory.effective_weights import explicit_columns
from datadose.theory.one_source import OneSource
from datadose.theory.source import Source
from datadose.theory.weighted_test import WeightedTest, require_same_size


@dataclass(frozen=True)
class StartSensitivity:
    """What post-training makes of one V0, and what a change of V0 changes."""

    trained: PenalisedError
    """The error / d, its two parts and the penalty."""
    gradient: Operator
    """dErr/dV0, a spectrum (d,) of derivatives by V0's diagonal where all is diagonal, else a matrix (d, d)
    of derivatives by its entries."""

    @property
    def error(self) -> float:
        """Err / d."""
        return self.trained.error


@dataclass(frozen=True, eq=False)
class ErrorFromStart:
    """Post-training on B prompts of one source, judged by one test, from any pretrained operator."""

    eta: float
    columns: Columns
    """Of the source, as spectra."""
    basis: Matrix | None
    """In which they are; None for spectra."""
    test: WeightedTest
    """In this basis."""
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

    def best(self, start: Operator) -> StartSensitivity:
        """The least error over all penalties from V0 = ``start``, (d,) or (d, d), and its derivative.

        Where two penalties are equally good the error has a kink, and the derivative is that of one of them.
        Raises InputError for a start of another size, PeakError where no penalty would be the best one and
        the mean error without one is infinite.
        """
        curve, V0 = self._from(start)
        return self._differentiated(curve.best(self.prompts), V0)

    def converged(self, start: Operator) -> StartSensitivity:
        """The error of training to convergence from V0 = ``start``, and its derivative.

        Raises InputError for a start of another size, PeakError where the mean error is infinite.
        """
        curve, V0 = self._from(start)
        return self._differentiated(curve.at(self.prompts, 0.0), V0)

    def at_penalty(self, start: Operator, penalty: float) -> StartSensitivity:
        """The error at the effective penalty mu = ``penalty`` in [0, infinity], and its derivative there.

        Raises as :meth:`converged`, and InputError for a penalty that B prompts do not reach.
        """
        curve, V0 = self._from(start)
        return self._differentiated(curve.at_penalty(self.prompts, penalty), V0)

    def _from(self, start: Operator) -> tuple[EffectivePenalty, Operator]:
        V0 = validate_operator("start", start, len(self.columns.cross))
        V0 = V0 if self.basis is None else rotated(V0, self.basis)
        model = OneSource(V0, self.eta, self.columns, self.test.target, self.test.second_moment)
        return EffectivePenalty(model), V0

    def _differentiated(self, trained: PenalisedError, V0: Operator) -> StartSensitivity:
        C, A, mu = self.columns.span * self.columns.second_moment, self.columns.cross, trained.penalty
        Sigma, M = self.test.target, self.test.second_moment
        pull = plus(Sigma, product(V0, M))
        kept: Operator = np.ones_like(C)
        if not np.isinf(mu):
            R = np.divide(1.0, C + mu, out=np.zeros_like(C), where=C > 0)
            kept = np.where(C > 0, mu * R, 1.0)
            mean = plus(product(V0, kept), -self.eta * A * R)
            freedom = self.prompts - float(((C * R) ** 2).sum())
            kappa = trace_product(C * R**2, M) / freedom
            pull = plus(Sigma, product(mean, M), kappa * plus(product(mean, C), self.eta * A))
        gradient = 2 / len(C) * product(pull, kept)
        if self.basis is not None:
            gradient = product(self.basis, gradient, transpose(self.basis))
        return StartSensitivity(trained, gradient)
