"""The rows that a plan may train on: where training starts, what there is of each source, what is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from datadose.covariance import is_spectrum
from datadose.planner.counts import PoolSource, require_costs, rounded
from datadose.planner.goal import Goal
from datadose.shapes import Array, Float, Operator
from datadose.theory.columns import Columns
from datadose.theory.effective_weights import EffectiveSources
from datadose.theory.equivalent import PeakError
from datadose.theory.explicit_columns import explicit_columns
from datadose.theory.sft import chain_weight
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.training_time import Request
from datadose.theory.unlimited import UnlimitedFlow


@dataclass(frozen=True, eq=False)
class Pool:
    """K sources with all the rows that there are of each, the model before training, and the goal."""

    start: Operator
    """V0, a spectrum (d,) or a matrix (d, d)."""
    eta: float
    sources: tuple[Source, ...]
    goal: Goal
    max_prompts: int
    """The most rows that may be taken in all."""
    chain_steps: int
    names: tuple[str, ...]
    costs: tuple[float | None, ...]
    """The cost of a row of each source; None where none is given."""
    known: tuple[Float[Array, " K"], ...] = ()
    """Rows that another search found, (K,) each, which are tried too: no plan is worse than with them."""

    @classmethod
    def of(
        cls,
        start: Operator,
        eta: float,
        sources: Sequence[PoolSource],
        goal: Goal,
        max_prompts: int,
        chain_steps: int,
        known: Sequence[ArrayLike] = (),
    ) -> Pool:
        """The pool of ``sources``, and what is decided on it.

        Args:
            start: V0 before training, (d,) or (d, d).
            eta: chain-of-thought step, in (0, 2).
            sources: K >= 1 sources, each with the number of its rows.
            goal: the tests of the plan.
            max_prompts: the most rows that may be taken in all, >= 1.
            chain_steps: k >= 0 of the chains of thought.
            known: rows of each source, (K,), that are tried as well.

        Raises InputError where some sources have a cost and others have none.
        """
        costs = require_costs(sources)
        rows = tuple(replace(entry.source, prompts=float(entry.size)) for entry in sources)
        names = tuple(entry.name for entry in sources)
        found = tuple(np.asarray(one, dtype=np.float64) for one in known if np.any(one))
        return cls(start, eta, rows, goal, max_prompts, chain_steps, names, costs, found)

    @cached_property
    def owned(self) -> Float[Array, " K"]:
        """The rows that there are of each source, (K,)."""
        return np.array([source.prompts for source in self.sources], dtype=np.float64)

    @cached_property
    def sizes(self) -> Float[Array, " K"]:
        """The rows of each source that may be taken, (K,): those owned, and no more than ``max_prompts``."""
        return np.minimum(self.owned, self.max_prompts)

    @property
    def is_limited(self) -> bool:
        """Whether there are more rows than may be taken."""
        return bool(self.sizes.sum() > self.max_prompts)

    @cached_property
    def shares(self) -> Float[Array, " K"]:
        """The share of each source among all rows that there are, (K,)."""
        return np.asarray(self.owned / self.owned.sum())

    @cached_property
    def all_alike(self) -> Float[Array, " K"]:
        """Rows of each source, whole numbers (K,), in the pool's proportions: all, or as many as allowed."""
        share = min(1.0, self.max_prompts / self.owned.sum())
        return np.asarray(rounded(self.owned * share), dtype=np.float64)

    @cached_property
    def columns(self) -> tuple[Columns, ...]:
        """The second moments of a row of each source."""
        return tuple(source.columns(self.eta, self.chain_steps) for source in self.sources)

    @property
    def has_pairs(self) -> bool:
        """Whether some prompt imposes two conditions: noisy labels in chains of several steps."""
        return any(c.pair is not None for c in self.columns)

    @cached_property
    def flow(self) -> UnlimitedFlow:
        """Gradient flow on unlimited rows of the sources."""
        return UnlimitedFlow.of(self.start, self.eta, self.sources, chain_steps=self.chain_steps)

    @cached_property
    def unlimited_pulls(self) -> tuple[float, Array]:
        """(error / d, pulls): the least objective of unlimited rows over times and weights, and its pulls."""
        return self.flow.best_pulls(self.goal.objective)

    @property
    def is_cheap(self) -> bool:
        """Whether an error at a time costs milliseconds: one source, or spectra."""
        return len(self.sources) == 1 or all(is_spectrum(c.cross) for c in self.columns)

    @cached_property
    def untouched(self) -> TrainedOperator:
        """The model before training."""
        return TrainedOperator.fixed(self.start)

    def left_untouched(self, reason: str) -> Decided:
        """The decision to take no row."""
        nothing, model = np.zeros(len(self.sources)), self.untouched
        return Decided(nothing, nothing, Stopping(time=0.0), model, self.goal.objective.error(model), reason)

    def taking(self, counts: ArrayLike) -> list[Source]:
        """The sources with ``counts`` (K,) rows."""
        numbers = np.asarray(counts, dtype=np.float64)
        return [replace(s, prompts=float(B)) for s, B in zip(self.sources, numbers, strict=True)]

    def effective(self, counts: ArrayLike) -> EffectiveSources:
        """Training on ``counts`` (K,) rows in effective weights.

        Raises InputError where a prompt imposes two conditions: label noise in chains of several steps.
        """
        counted = zip(self._explicit, np.asarray(counts, dtype=np.float64), strict=True)
        columns = tuple(replace(c, count=float(B)) for c, B in counted)
        return EffectiveSources.on(self.start, self.eta, columns)

    @cached_property
    def _explicit(self) -> tuple[Columns, ...]:
        return explicit_columns(self.sources, self.eta, self.chain_steps)

    def request(self, counts: ArrayLike, weights: ArrayLike | None = None) -> Request:
        """The fit to ``counts`` rows of each source with these weights, 1 unless given, (K,) each >= 0."""
        held = np.ones(len(self.sources)) if weights is None else np.asarray(weights, dtype=np.float64)
        columns = zip(self.columns, np.asarray(counts, dtype=np.float64), held, strict=True)
        chosen = [replace(c, count=float(B), weight=float(w)) for c, B, w in columns if w > 0]
        return Request.on(self.eta, chosen, chain_weight(self.eta, self.chain_steps))

    def trained(
        self, counts: ArrayLike, stopping: Stopping, weights: ArrayLike | None = None
    ) -> TrainedOperator:
        """The model after training on ``counts`` (K,) rows with these ``weights`` (K,) until ``stopping``.

        Raises PeakError where the training converges and the mean error is infinite.
        """
        return self.request(counts, weights).fit(self.start).ends([stopping])[0]

    def converged(
        self, counts: ArrayLike, weights: Sequence[float] | Array | None = None
    ) -> tuple[TrainedOperator | None, str | None]:
        """The model after training to convergence on ``counts`` (K,) rows with these ``weights`` (1 if None).

        It is None, with the reason, where its mean error is infinite.
        """
        try:
            return self.trained(counts, Stopping(), weights), None
        except PeakError as error:
            return None, error.reason

    @property
    def is_unseen(self) -> bool:
        """Whether no training changes the objective, on which no prompt shows anything."""
        return not any(self.goal.objective.sees(c.second_moment) for c in self.columns)


@dataclass(frozen=True)
class Decided:
    """What is decided about training on a pool, and the model that comes of it."""

    counts: Float[Array, " K"]
    """Rows of each source, whole numbers, (K,)."""
    weights: Float[Array, " K"]
    """w_c of a row of each source, the largest is 1; 0 where no row is taken, (K,)."""
    stopping: Stopping
    model: TrainedOperator = field(repr=False)
    objective: float
    """Error / d on the goal's objective."""
    reason: str | None = None
    """Why there is no end to training, or none to the penalty, or nothing is trained."""
    known_values: Float[Array, " K"] | None = None
    """The value of one more row of each source, (K,), where it is known in closed form."""
    reasons: tuple[str, ...] | None = None
    """Why a source has weight zero, "" for one that is used, K of them; None with equal weights."""

    @property
    def row_weights(self) -> Float[Array, " K"]:
        """The weight that a further row of each source would have, (K,): 1 if rows count alike."""
        return self.weights if self.reasons is not None else np.ones(len(self.weights))
