"""The moments of a model after SFT or outcome supervision that is stopped, penalised or converged.

One law for any training time, penalty, number and weights of sources: the fit is a spectral filter, a filter
is a sum of penalised solutions, and two penalised solutions have an equivalent (docs/derivations/
training_time.md). The start may itself be the result of a stage, so stages compose. At eta = 1 with prompts
of the target the same statement is outcome supervision with one thinking step, and from V = 0 with prompts
of Sigma0 it is pretraining on finitely many prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from datadose.covariance import dense, is_spectrum, rotated, spectral_basis, trace
from datadose.errors import InternalError, reject, require_integer, require_kind, require_number
from datadose.shapes import Array, Matrix, Operator
from datadose.shift import Shift
from datadose.theory.columns import Columns, Features, unit_of
from datadose.theory.edge import largest_eigenvalue
from datadose.theory.equivalent import deterministic_equivalent
from datadose.theory.graded import APART, graded, order_of, sizes_of
from datadose.theory.node_frames import filtered
from datadose.theory.penalised import Weighted
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.regimes import ridge_weights
from datadose.theory.sft import chain_weight
from datadose.theory.source import Source
from datadose.theory.stopping import LEAST_PENALTY, Filter, Stopping
from datadose.theory.trained_operator import TrainedOperator

LARGEST_WEIGHT = 1e50
_NOTHING = 1e-100
"""A time that moves less than this share of the way moves nothing."""


def trained(
    start: TrainedOperator | Operator,
    eta: float,
    sources: Sequence[Source],
    stopping: Stopping,
    *,
    weights: Sequence[float] | Array | None = None,
    chain_steps: int = 0,
) -> TrainedOperator:
    """Mean and second moment of the operator after a stage of training.

    Exact in the limit of large d at fixed d / n and B / d. Prompts of a few examples leave that limit late in
    training: at n = d / 20 and d = 200 the mean error is up to 22 percent above it, with n = 1 or 2 without
    bound as the time grows (docs/limits.md). At converging learning rates of the limit, draws may diverge.

    Args:
        start: the model before the stage: its moments, or a known operator V0 (d,) or (d, d).
        eta: chain-of-thought step in (0, 2); 1 for outcome supervision at k = 1 and for pretraining.
        sources: K sources of prompts; covariances (d,) or (d, d), which need not commute.
        stopping: converged, stopped or penalised. B of its clock counts the prompts whose weight is not 0.
        weights: w_c >= 0 of a row of each source in the loss, shape (K,); 1 unless given.
        chain_steps: k of the chains of thought; it sets the clock of steps, and matters for noisy labels.

    Raises:
        PeakError: the stage converges and the mean error over finite prompts is infinite.
        InputError: a value out of range, a learning rate at or above the largest stable one, or sizes that
            differ.
    """
    return trained_path(start, eta, sources, [stopping], weights=weights, chain_steps=chain_steps)[0]


def trained_path(
    start: TrainedOperator | Operator,
    eta: float,
    sources: Sequence[Source],
    stoppings: Sequence[Stopping],
    *,
    weights: Sequence[float] | Array | None = None,
    chain_steps: int = 0,
) -> list[TrainedOperator]:
    """The results of :func:`trained` under each of several ``stoppings``, in their order.

    One call costs less than as many calls of :func:`trained`; the other arguments and errors are the same.
    """
    request = Request.of(eta, sources, weights, chain_steps)
    _require_kinds("stoppings", stoppings, Stopping, "Stopping(time=5.0)")
    return request.fit(start).ends(stoppings)


def trained_on_shift(
    shift: Shift,
    prompts: float,
    length: int,
    stopping: Stopping,
    *,
    pretrain_length: int | None = None,
    chain_steps: int = 0,
) -> TrainedOperator:
    """The model pretrained on Sigma0 and trained by SFT on ``prompts`` prompts of the shift's data.

    Its error on any test, Sigma0 included, and the part of it that more prompts would remove, follow from it.

    Args:
        shift: Sigma0, the data's covariance A and eta.
        prompts: B >= 0, may be fractional.
        length: length n of the post-training prompts.
        stopping: converged, stopped or penalised.
        pretrain_length: length of the pretraining prompts; ``length`` unless given.
        chain_steps: k of the chains of thought, which sets the clock of steps.

    Raises PeakError and InputError like :func:`trained`.

    Example:
        >>> from datadose import Shift
        >>> shift = Shift.two_block(400, 200, 0.1, 0.2, 0.01)
        >>> model = trained_on_shift(shift, 3000, 1200, Stopping(time=80.0))
        >>> round(model.error(shift.target, 1200), 2), round(model.error(shift.sigma0, 1200), 2)
        (0.35, 0.52)
    """
    n = length if pretrain_length is None else pretrain_length
    source = Source(shift.data, length, prompts)
    start = pretrained_operator(shift.sigma0, n)
    return trained(start, shift.eta, [source], stopping, chain_steps=chain_steps)


def _require_kinds(field: str, given: object, kind: type, example: str) -> None:
    """InputError where one is given for several, or another thing for either."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        reject(field, f"a {type(given).__name__}", f"a sequence, such as [{example}]")
    for one in given:
        require_kind(field, one, kind, example)


def largest_learning_rate(
    sources: Sequence[Source],
    eta: float,
    *,
    weights: Sequence[float] | Array | None = None,
    chain_steps: int = 0,
) -> float:
    """The learning rate below which gradient descent on these sources does not diverge, in the limit.

    It is 2 B / (c_k x), x the largest eigenvalue of sum_c w_c Phi_c Phi_c^T as d grows. It is infinite where
    there is nothing to fit. Finite prompts may have a larger eigenvalue, short prompts and few rows a much
    larger one (:mod:`datadose.theory.edge`), so use a rate well below this one.

    The arguments and errors are those of :func:`trained`.
    """
    return Request.of(eta, sources, weights, chain_steps).largest_rate


def _weights(weights: Sequence[float] | Array | None, sources: int) -> list[float]:
    if weights is None:
        return [1.0] * sources
    given = np.asarray(weights, dtype=object).ravel().tolist()
    if np.ndim(weights) != 1 or len(given) != sources:
        count = f"{len(given)} of them" if np.ndim(weights) == 1 else weights
        reject("weights", count, f"{sources}, one a source")
    found = [require_number("weights", w, 0, LARGEST_WEIGHT) for w in given]
    if any(0 < w < 1 / LARGEST_WEIGHT for w in found):
        reject("weights", found, f"0, or between {1 / LARGEST_WEIGHT:g} and {LARGEST_WEIGHT:g}")
    if found and not any(found):
        reject("weights", found, "at least one above 0")
    return found


@dataclass(frozen=True)
class Request:
    """What a stage fits, checked: the columns that count, of how many prompts, on which clock."""

    eta: float
    columns: tuple[Columns, ...]
    """The columns of the sources with prompts, data and a weight above zero."""
    prompts: float
    """The number B of prompts of the sources whose weight is above zero, those without data too."""
    copies: float
    """c_k."""
    dimensions: tuple[int, ...]
    """The dimensions of all sources that were given."""

    @classmethod
    def of(
        cls,
        eta: float,
        sources: Sequence[Source],
        weights: Sequence[float] | Array | None,
        chain_steps: int,
    ) -> Request:
        """The request; arguments and errors as in :func:`trained`."""
        require_number("eta", eta, 0, 2, open_ends=True)
        copies = chain_weight(eta, require_integer("chain_steps", chain_steps, 0))
        _require_kinds("sources", sources, Source, "Source(A, length, prompts)")
        columns = [source.columns(eta, chain_steps) for source in sources]
        chosen = zip(columns, _weights(weights, len(columns)), strict=True)
        found = cls.on(eta, [replace(c, weight=w) for c, w in chosen if w > 0], copies)
        return replace(found, dimensions=tuple(len(c.cross) for c in columns))

    @classmethod
    def on(cls, eta: float, columns: Sequence[Columns], copies: float) -> Request:
        """The request to fit ``columns``, which hold their counts and weights, for c_k = ``copies``."""
        kept = [c for c in columns if c.count > 0]
        moving = tuple(c for c in kept if c.second_moment.any())
        return cls(eta, moving, sum(c.count for c in kept), copies, tuple(len(c.cross) for c in columns))

    @cached_property
    def edge(self) -> float:
        """The largest eigenvalue of sum_c w_c Phi_c Phi_c^T in the limit, 0 where there is nothing to fit."""
        if not self.columns:
            return 0.0
        unit = unit_of(self.columns)
        scaled = [c.scaled(unit) for c in self.columns]
        if not all(is_spectrum(c.cross) for c in scaled):
            scaled = [c.dense() for c in scaled]
        return unit**2 * largest_eigenvalue(Weighted.of(scaled))

    @property
    def largest_rate(self) -> float:
        """The largest stable learning rate, infinite where there is nothing to fit."""
        return 2 * self.prompts / (self.copies * self.edge) if self.columns else float("inf")

    def fit(self, start: TrainedOperator | Operator, answers: Operator | None = None) -> Fit:
        """The fit from ``start``. Raises InputError for a start of another size.

        With a projector ``answers`` = P, (d,) or (d, d), the fit is that of the directions of the answer that
        P keeps: ``start`` holds the moments of P V0, and the results are those of P V. Each row of V is
        fitted by itself to the same prompts, so nothing else changes.
        """
        state = start if isinstance(start, TrainedOperator) else TrainedOperator.fixed(start)
        for size in self.dimensions:
            if size != len(state.mean):
                reject("sources", f"dimension {size}", f"dimension {len(state.mean)}, as at the start")
        return Fit.of(state, self, answers)


@dataclass(frozen=True)
class Fit:
    """A stage up to its end, in one form: one source in its own eigenbasis, or all as they are."""

    start: TrainedOperator
    request: Request
    columns: tuple[Columns, ...]
    """The columns of the request, in this form."""
    basis: Matrix | None
    """The basis in which the columns are spectra, where the start is given in another."""
    answers: Operator | None = None
    """P of :meth:`Request.fit`, in that basis."""
    _turned: dict[tuple[int, ...], tuple[Weighted, Matrix, TrainedOperator, Operator | None]] = field(
        default_factory=dict, init=False, repr=False
    )
    """Sources, basis, start and answers of matrices by the order that they are graded in."""

    @classmethod
    def of(cls, start: TrainedOperator, request: Request, answers: Operator | None = None) -> Fit:
        columns = request.columns
        if all(is_spectrum(c.cross) for c in columns):
            return cls(start, request, columns, None, answers)
        dense_columns = tuple(c.dense() for c in columns)
        if len(columns) > 1:
            return cls(start.mapped(dense), request, dense_columns, None, answers)
        values, basis = spectral_basis(dense_columns[0].cross)
        assert basis is not None

        def spectrum(M: Array) -> Array:
            # Rounding beside the data would be magnified by long training.
            return np.where(values > 0, np.diagonal(M), 0.0)

        own = dense_columns[0].rotated(basis).changed(spectrum, spectrum, None)
        turned = start.mapped(lambda M: rotated(dense(M), basis))
        return cls(turned, request, (own,), basis, _turned(answers, basis))

    def ends(self, stoppings: Sequence[Stopping]) -> list[TrainedOperator]:
        """The model after the stage, for each of ``stoppings``."""
        untrained = replace(self.start, scatter=np.zeros(len(self.start.mean)))
        found = [untrained] * len(stoppings)
        moving = [] if not self.columns else [i for i, s in enumerate(stoppings) if not self._leaves(s)]
        for i in (i for i in moving if stoppings[i].is_converged):
            found[i] = self._converged()
        filtering = [i for i in moving if not stoppings[i].is_converged]
        if filtering:
            for i, state in zip(filtering, self._filtered([stoppings[i] for i in filtering]), strict=True):
                found[i] = state
        back = self.basis
        return found if back is None else [s.mapped(lambda M: rotated(dense(M), back.T)) for s in found]

    def _leaves(self, stopping: Stopping) -> bool:
        """Whether the model stays as it is, to far below rounding."""
        time = stopping.time
        if stopping.steps is not None and stopping.learning_rate is not None:
            time = stopping.steps * stopping.learning_rate * self.request.copies
        return time is not None and time / self.request.prompts * _size(self.columns) < _NOTHING

    def _converged(self) -> TrainedOperator:
        if self.answers is not None:
            raise InternalError("a fit of some directions of the answer is followed to a finite time alone")
        # A common weight cancels.
        heaviest = max(c.weight for c in self.columns)
        columns = [replace(c, weight=c.weight / heaviest) for c in self.columns]
        equivalent = deterministic_equivalent(self.start.mean, self.request.eta, columns)
        equivalent.require_finite()
        return equivalent.trained(self.start)

    def _require_digits(
        self, sources: Weighted, stoppings: Sequence[Stopping], rules: Sequence[Filter]
    ) -> None:
        size = _size(sources.columns)
        for stopping, rule in zip(stoppings, rules, strict=True):
            if np.abs(rule.nodes).min() < LEAST_PENALTY * size / len(self.start.mean):
                name = next(n for n in ("ridge", "time", "steps") if getattr(stopping, n) is not None)
                allowed = "one that leaves digits; for longer training, convergence"
                reject(name, getattr(stopping, name), allowed)

    def _filtered(self, stoppings: Sequence[Stopping]) -> list[TrainedOperator]:
        unit, request = unit_of(self.columns), self.request
        sources = Weighted.of([c.scaled(unit) for c in self.columns] if unit != 1 else self.columns)
        edge = request.edge if any(s.steps is not None for s in stoppings) else 0.0
        rules = [s.filter(request.prompts, request.copies, edge) for s in stoppings]
        rules = [replace(rule, nodes=rule.nodes / unit**2) for rule in rules]
        self._require_digits(sources, stoppings, rules)
        start = self.start.scaled(unit)
        if is_spectrum(self.columns[0].cross):
            found = filtered(start, request.eta, sources, rules, self.answers)
        else:
            found = [self._graded(start, sources, rule) for rule in rules]
        return [s.scaled(1 / unit) for s in found]

    def _graded(self, start: TrainedOperator, sources: Weighted, rule: Filter) -> TrainedOperator:
        """The model under one filter, from matrices in the basis in which each source keeps its digits."""
        order = self._order(sources, float(np.abs(rule.nodes).min()))
        if order not in self._turned:
            columns, basis = graded(sources.columns, order)
            turned = start.mapped(lambda M: rotated(dense(M), basis))
            answers = None if self.answers is None else rotated(dense(self.answers), basis)
            self._turned[order] = Weighted.of(columns), basis, turned, answers
        clean, basis, turned, answers = self._turned[order]
        (found,) = filtered(turned, self.request.eta, clean, [rule], answers)
        return found.mapped(lambda M: rotated(dense(M), basis.T))

    @staticmethod
    def _order(sources: Weighted, ridge: float) -> tuple[int, ...]:
        """The sources from the largest effective weight on, at the penalty ``ridge`` > 0."""
        at_most = np.array([c.weight * c.count / ridge for c in sources.columns])
        if sizes_of(sources.columns, at_most).max() <= APART:
            return order_of(sources.columns, at_most)
        weights = ridge_weights(Features.of(sources.columns), ridge)
        return order_of(sources.columns, weights[sources.first] / ridge)


def _turned(M: Operator | None, basis: Matrix) -> Operator | None:
    return None if M is None else rotated(dense(M), basis)


def _size(columns: Sequence[Columns]) -> float:
    """sum_c w_c B_c tr C_c: the mean sum of the eigenvalues that are filtered."""
    return sum(c.weight * c.count * trace(C) for c in columns for C in c.moments)
