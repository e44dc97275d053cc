"""The moments of a model after SFT or outcome supervision that is stopped, penalised or converged.

One law for any training time, penalty, number and weights of sources: the fit is a spectral filter, a filter
is a sum of penalised solutions, and two penalised solutions have an equivalent (docs/derivations/
training_time.md). The start may itself be the result of a stage, so stages compose. At eta = 1 with prompts
of the target the same statement is outcome supervision with one thinking step, and from V = 0 with prompts
of Sigma0 it is pretraining on finitely many prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from datadose.covariance import dense, is_spectrum, rotated, spectral_basis
from datadose.errors import reject, require_integer, require_number
from datadose.shapes import Array, Matrix, Operator
from datadose.shift import Shift
from datadose.theory.columns import Columns, unit_of
from datadose.theory.edge import largest_eigenvalue
from datadose.theory.equivalent import deterministic_equivalent
from datadose.theory.node_frames import filtered
from datadose.theory.penalised import Weighted
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.sft import chain_weight
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.trained_operator import TrainedOperator


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

    Exact in the limit of large d at fixed d / n and B / d.

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
    """:func:`trained` under each of several ``stoppings``, which costs less than as many single calls."""
    require_number("eta", eta, 0, 2, open_ends=True)
    copies = chain_weight(eta, require_integer("chain_steps", chain_steps, 0))
    state = start if isinstance(start, TrainedOperator) else TrainedOperator.fixed(start)
    columns = [source.columns(eta, chain_steps) for source in sources]
    for c in columns:
        if len(c.cross) != len(state.mean):
            reject("sources", f"dimension {len(c.cross)}", f"dimension {len(state.mean)}, as at the start")
    chosen = zip(columns, _weights(weights, len(columns)), strict=True)
    kept = [(replace(c, weight=w), w) for c, w in chosen if w > 0 and c.count > 0]
    prompts = sum(c.count for c, _ in kept)
    fit = _Fit.of(state, eta, [c for c, _ in kept if c.second_moment.any()], prompts, copies)
    return fit.ends(stoppings)


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


def _weights(weights: Sequence[float] | Array | None, sources: int) -> list[float]:
    if weights is None:
        return [1.0] * sources
    if len(weights) != sources:
        reject("weights", f"{len(weights)} of them", f"{sources}, one a source")
    return [require_number("weights", w, 0, np.inf) for w in weights]


@dataclass(frozen=True)
class _Fit:
    """A stage up to its end, in one form: one source in its own eigenbasis, or all as they are."""

    start: TrainedOperator
    eta: float
    columns: tuple[Columns, ...]
    """Of sources with prompts, data and a weight above zero."""
    prompts: float
    copies: float
    """c_k."""
    basis: Matrix | None
    """In which the columns are spectra, where the start is given in another."""

    @classmethod
    def of(
        cls, start: TrainedOperator, eta: float, columns: Sequence[Columns], prompts: float, copies: float
    ) -> _Fit:
        if all(is_spectrum(c.cross) for c in columns):
            return cls(start, eta, tuple(columns), prompts, copies, None)
        dense_columns = tuple(c.dense() for c in columns)
        if len(columns) > 1:
            return cls(start.mapped(dense), eta, dense_columns, prompts, copies, None)
        _, basis = spectral_basis(dense_columns[0].cross)
        assert basis is not None
        own = dense_columns[0].rotated(basis).changed(np.diagonal, np.diagonal, None)
        turned = start.mapped(lambda M: rotated(dense(M), basis))
        return cls(turned, eta, (own,), prompts, copies, basis)

    def ends(self, stoppings: Sequence[Stopping]) -> list[TrainedOperator]:
        """The model after the stage, for each of ``stoppings``."""
        untrained = replace(self.start, scatter=np.zeros(len(self.start.mean)))
        found = [untrained] * len(stoppings)
        moving = [] if not self.columns else [i for i, s in enumerate(stoppings) if not s.is_untrained]
        for i in (i for i in moving if stoppings[i].is_converged):
            found[i] = self._converged()
        filtering = [i for i in moving if not stoppings[i].is_converged]
        if filtering:
            for i, state in zip(filtering, self._filtered([stoppings[i] for i in filtering]), strict=True):
                found[i] = state
        back = self.basis
        return found if back is None else [s.mapped(lambda M: rotated(dense(M), back.T)) for s in found]

    def _converged(self) -> TrainedOperator:
        equivalent = deterministic_equivalent(self.start.mean, self.eta, self.columns)
        equivalent.require_finite()
        return equivalent.trained(self.start)

    def _filtered(self, stoppings: Sequence[Stopping]) -> list[TrainedOperator]:
        unit = unit_of(self.columns)
        sources = Weighted.of([c.scaled(unit) for c in self.columns] if unit != 1 else self.columns)
        steps = any(s.steps is not None for s in stoppings)
        edge = unit**2 * largest_eigenvalue(sources) if steps else 0.0
        rules = [s.filter(self.prompts, self.copies, edge) for s in stoppings]
        rules = [replace(rule, nodes=rule.nodes / unit**2) for rule in rules]
        return [s.scaled(1 / unit) for s in filtered(self.start.scaled(unit), self.eta, sources, rules)]
