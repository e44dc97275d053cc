"""How training on the available rows is to end, and in what mixture: the second half of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from datadose.errors import reject, require_number
from datadose.planner.counts import PoolSource
from datadose.planner.error_model import ErrorModel
from datadose.planner.goal import Goal, Stop, Weights, require_choices, tests_of
from datadose.planner.judged import Judged
from datadose.planner.mixture import MixtureShare, mixture_of
from datadose.planner.penalty import Penalised, choose_penalty
from datadose.planner.pool import Pool
from datadose.planner.rows_worth import Purchase, next_purchase
from datadose.planner.stopping import Stopped, choose_stopping
from datadose.shapes import Operator
from datadose.shift import Shift
from datadose.theory.source import Source


@dataclass(frozen=True, kw_only=True)
class TrainingChoice:
    """One of the two ways in which training may end, and with sources the mixture that it is for."""

    stopping: Stopped | None = None
    penalty: Penalised | None = None
    mixture: tuple[MixtureShare, ...] | None = None
    """The mixture of the sources; None for data of one kind."""
    next_purchase: tuple[Purchase, ...] | None = None
    """What to buy next of each source; None where they have no costs, and where nothing is trained."""
    purchase_budget: float | None = None
    """The budget of that purchase: a tenth of the planned rows' cost."""

    def in_short(self) -> dict[str, object]:
        """The best time or penalty, with the number of prompts and the error / d there."""
        told: dict[str, object] = {}
        if self.stopping is not None:
            told["training.stopping"] = _told("time", self.stopping.time, self.stopping)
        if self.penalty is not None:
            told["training.penalty"] = _told("value", self.penalty.value, self.penalty)
        return told

    def to_json(self) -> dict[str, Any]:
        """The sections of the document that `datadose plan --json` prints."""
        document: dict[str, Any] = {}
        if self.stopping is not None:
            document["stopping"] = self.stopping.to_json()
        if self.penalty is not None:
            document["penalty"] = self.penalty.to_json()
        if self.mixture is not None:
            document["mixture"] = [asdict(part) for part in self.mixture]
        if self.next_purchase is not None:
            document["next_purchase"] = [asdict(part) for part in self.next_purchase]
            document["purchase_budget"] = self.purchase_budget
        return document


def _told(name: str, end: float | None, judged: Judged) -> dict[str, float | None]:
    return {name: end, "prompts": judged.prompts, "predicted_error": judged.predicted_error}


@dataclass(frozen=True)
class TrainingGoal:
    """What is to be decided about training, and what it is judged by."""

    goal: Goal
    stop: Stop
    weights: Weights
    learning_rate: float | None

    @classmethod
    def of(
        cls,
        shift: Shift,
        length: int,
        stop: Stop,
        keep: float,
        weights: Weights,
        tests: Sequence[tuple[Operator, float]] | None,
        learning_rate: float | None,
    ) -> TrainingGoal:
        """The goal; arguments and errors as in :func:`datadose.planner.plan.plan`."""
        require_choices(stop, keep, weights, tests)
        if learning_rate is not None:
            require_number("learning_rate", learning_rate, 0, np.inf, open_ends=True)
        target = shift.target if tests is None else tests_of(tests, length, shift.dimension)
        return cls(Goal.of(target, shift.sigma0, length, keep), stop, weights, learning_rate)

    def decide(
        self,
        model: ErrorModel,
        data: Operator,
        sources: Sequence[PoolSource] | None,
        max_prompts: int,
        known: Sequence[int] = (),
    ) -> TrainingChoice | None:
        """The best end of training on ``max_prompts`` rows of ``data``, or on ``sources``.

        None for training to convergence. ``model`` holds the start, eta and the chain length; ``known`` are
        rows of each source that are tried as well.
        """
        if self.stop == "converged":
            return None
        if self.weights == "tuned" and sources is None:
            reject("weights", "tuned without sources", "sources beside it")
        one = PoolSource("data", Source(data, model.test_length, 0), max_prompts)
        kinds = [one] if sources is None else sources
        pool = Pool.of(model.V0, model.eta, kinds, self.goal, max_prompts, model.chain_steps, [known])
        tuned, stopping, penalty = self.weights == "tuned", None, None
        if self.stop == "best":
            stopping, decided = choose_stopping(pool, tuned=tuned, learning_rate=self.learning_rate)
        else:
            penalty, decided = choose_penalty(pool, tuned=tuned)
        if sources is None:
            return TrainingChoice(stopping=stopping, penalty=penalty)
        budget, bought = next_purchase(pool, decided) or (None, None)
        return TrainingChoice(
            stopping=stopping,
            penalty=penalty,
            mixture=mixture_of(pool, decided),
            next_purchase=bought,
            purchase_budget=budget,
        )
