"""All numerical checks of the paper's statements as one experiment: a cell is a check and a seed.

Each check draws its own instance from its seed and returns named numbers; the claims beside it turns them
into verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from datadose.studies.study import Preset
from datadose.studies.theorems import outcome_checks as outcome
from datadose.studies.theorems import sft_checks as sft
from datadose.sweep import Cell

CHECKS: dict[str, tuple[Callable[[int], dict[str, float]], int]] = {
    "interpolation": (sft.check_interpolation, 10),
    "overdetermined": (sft.check_overdetermined, 10),
    "gradient_descent": (sft.check_gradient_descent, 20),
    "chain_length": (sft.check_chain_length, 10),
    "chain_length_at_large_step": (sft.check_chain_length_at_large_step, 10),
    "population": (sft.check_population, 20),
    "post_test": (sft.check_post_test, 20),
    "allocation": (sft.check_allocation, 20),
    "rollout": (outcome.check_rollout, 20),
    "outcome_gradient": (outcome.check_outcome_gradient, 20),
    "curvature": (outcome.check_curvature, 20),
    "dynamics": (outcome.check_dynamics, 20),
}
"""Each check and its number of seeds outside the smoke preset."""


@dataclass(frozen=True)
class Theorems:
    """All checks on all their seeds."""

    seeds: int
    """An upper limit on the seeds of each check."""

    @classmethod
    def preset(cls, name: Preset) -> Theorems:
        """The configuration of a preset."""
        return cls(seeds={"smoke": 3, "quick": 20, "paper": 20}[name])

    def _runs(self) -> list[tuple[str, int]]:
        return [(name, seed) for name, (_, most) in CHECKS.items() for seed in range(min(most, self.seeds))]

    def cells(self) -> list[Cell]:
        """One cell a check and seed."""
        return [Cell(CHECKS[name][0], {"seed": seed}) for name, seed in self._runs()]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """Columns check, seed, statistic, value."""
        return pd.DataFrame(
            [
                {"check": name, "seed": seed, "statistic": statistic, "value": value}
                for (name, seed), result in zip(self._runs(), results, strict=True)
                for statistic, value in result.items()
            ]
        )
