"""How training on the rows at hand is to end, and in what mixture: the second half of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datadose.planner.goal import Stop, Weights
from datadose.planner.penalty import Penalised, penalise_one_kind
from datadose.planner.pool import Pool


@dataclass(frozen=True, kw_only=True)
class TrainingChoice:
    """One of the two ways in which training may end, and with sources the mixture that it is for."""

    penalty: Penalised | None = None

    def to_json(self) -> dict[str, Any]:
        """The sections of the document that `datadose plan --json` prints."""
        document: dict[str, Any] = {}
        if self.penalty is not None:
            document["penalty"] = self.penalty.to_json()
        return document


def choose_training(
    pool: Pool, stop: Stop, weights: Weights, learning_rate: float | None, *, named: bool
) -> TrainingChoice:
    """The best end of training on ``pool``."""
    return TrainingChoice(penalty=penalise_one_kind(pool))
