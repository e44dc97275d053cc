"""What the insight experiments share: a shift of chosen size, one post-training recipe, what is measured.

The shift is the paper's two blocks: Sigma0 = diag(rho 1_m, 1_{d-m}), Delta = delta (1_m, 0), with delta set
so that rho(Gamma0^{-1} Delta) is the wanted radius. Post-training data show the shift's directions:
covariance P Sigma P for outcome supervision and RL, eta P Sigma P for SFT (section 5.1), so that for long
prompts all three stages have the same optimum, V = -Sigma^{-1} there. Only V~ is trained (W~ = I).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datadose.configs import Stage
from datadose.covariance import Array, dense
from datadose.models import BlockLinearAttention, PromptBatch
from datadose.stages import FixedData, Optimisation, stage_objective, train, within_tolerance
from datadose.stages.optimisation import Optimiser
from datadose.studies.tables import COLUMNS, as_table
from datadose.theory.outcome import pass_probability
from datadose.theory.pretraining import gamma0, pretrained_operator

BASE = "base"
"""The stage column of the untouched pretrained model."""


@dataclass(frozen=True)
class Task:
    """The two-block shift without its size, and the prompt length that all stages share."""

    dimension: int
    shifted: int
    length: int
    rho: float = 0.1
    eta: float = 0.2

    @property
    def inside(self) -> Any:
        """Which directions the shift moves, shape (d,)."""
        return np.arange(self.dimension) < self.shifted

    @property
    def sigma0(self) -> Array:
        """The pretraining covariance."""
        return np.where(self.inside, self.rho, 1.0)

    @property
    def operator(self) -> Array:
        """V0 of the pretrained model, a spectrum."""
        return pretrained_operator(self.sigma0, self.length)

    def delta(self, radius: float) -> Array:
        """Delta with rho(Gamma0^{-1} Delta) = radius."""
        return np.where(self.inside, radius * gamma0(self.sigma0, self.length), 0.0)

    def target(self, radius: float) -> Array:
        """Sigma = Sigma0 + Delta."""
        return self.sigma0 + self.delta(radius)


@dataclass(frozen=True)
class Recipe:
    """How every stage is trained: equal prompts, steps, batch and optimiser; the reward of RL."""

    prompts: int
    steps: int
    learning_rate: float = 1e-2
    batch: int = 32
    chain_steps: int = 2
    optimiser: Optimiser = "adam"
    group: int = 8
    noise: float = 0.1
    tolerance: float = 0.5
    """RL's answer passes if its root mean square error over the judged directions is at most this."""

    def radius(self, directions: int) -> float:
        """The largest error norm over ``directions`` directions that passes."""
        return float(self.tolerance * directions**0.5)

    def optimisation(self, steps: int | None = None) -> Optimisation:
        """The optimiser for ``steps`` steps (the recipe's own if None)."""
        batch = None if self.optimiser == "gd" else self.batch
        return Optimisation(
            self.optimiser, self.learning_rate, steps=self.steps if steps is None else steps, batch=batch
        )


def pretrained(operator: Array, runs: int) -> BlockLinearAttention:
    """``runs`` copies of the pretrained model, of which V~ trains."""
    V0 = torch.from_numpy(dense(operator).copy()).float()
    return BlockLinearAttention(V0.expand(runs, -1, -1).clone(), train_attention=False)


def stage_prompts(
    stage: Stage, data: Array, length: int, eta: float, prompts: int, seeds: Sequence[int]
) -> PromptBatch:
    """Training prompts of ``stage``: covariance ``data``, scaled by eta for SFT."""
    return PromptBatch.draw(eta * data if stage == "sft" else data, length, prompts, seeds=seeds)


def post_train(
    model: BlockLinearAttention,
    stage: Stage,
    prompts: PromptBatch,
    recipe: Recipe,
    *,
    eta: float,
    inside: Any,
    seeds: Sequence[int],
    steps: int | None = None,
) -> set[int]:
    """Train ``model`` in place and return the runs that diverged."""
    torch.set_num_threads(1)
    mask = torch.from_numpy(np.asarray(inside, dtype=np.float32))
    objective = stage_objective(
        stage,
        recipe.chain_steps,
        eta=eta,
        seeds=seeds,
        reward=within_tolerance(recipe.radius(int(mask.sum())), mask),
        group=recipe.group,
        noise=recipe.noise,
    )
    size = None if recipe.optimiser == "gd" else min(recipe.batch, prompts.prompts)
    done = train(model, objective, FixedData(prompts, size), recipe.optimisation(steps))
    return {entry.run for entry in done.diverged}


@torch.no_grad()
def measure(
    model: BlockLinearAttention,
    batch: PromptBatch,
    recipe: Recipe,
    inside: Any,
    lost: set[int],
) -> list[list[float | None]]:
    """Per run: error / d, error / m on the shift's directions, and pass rate there; None for a lost run."""
    torch.set_num_threads(1)
    gap = (model.rollout(batch, recipe.chain_steps)[..., -1, :] - batch.weights).double().square()
    chosen = torch.from_numpy(np.asarray(inside))
    on_shift = gap[..., chosen]
    passed = passing(on_shift.sum(-1), recipe, int(chosen.sum()))
    values = torch.stack([gap.mean((-1, -2)), on_shift.mean((-1, -2)), passed.mean(-1)], dim=-1)
    return [[None] * 3 if run in lost else finite(entry) for run, entry in enumerate(values)]


def passing(squared_distance: Tensor, recipe: Recipe, directions: int) -> Tensor:
    """The exact pass rate of the noisy policy given the squared distance of its mean from w*."""
    distance = squared_distance.double().sqrt().nan_to_num(1e6, posinf=1e6).clamp_max(1e6)
    limit = recipe.radius(directions)
    # Far out the chi-square is zero, and its series slow.
    close = torch.minimum(distance, torch.tensor(limit + 40 * recipe.noise, dtype=torch.float64))
    return torch.from_numpy(pass_probability(close.numpy(), recipe.noise, limit, directions))


def finite(values: Tensor) -> list[float | None]:
    """The values as a list, or all None if one is not finite: a lost run has no numbers."""
    if not bool(torch.isfinite(values).all()):
        return [None] * len(values)
    return [float(v) for v in values]


def insight_row(figure: str, panel: str, **values: Any) -> dict[str, Any]:
    """A row of an insight's table; a lost run (no error) is marked as diverged."""
    row = {
        **dict.fromkeys(COLUMNS),
        "figure": figure,
        "panel": panel,
        "model": "lsa",
        "diverged": 0,
        **values,
    }
    if row["model"] == "lsa" and row["error"] is None:
        row["diverged"] = 1
    return row


def insight_table(rows: Sequence[dict[str, Any]], extra: Sequence[str]) -> pd.DataFrame:
    """The columns that all tables share, then ``extra``; refuses a column that is in neither."""
    unknown = {key for row in rows for key in row} - {*COLUMNS, *extra}
    if unknown:
        msg = f"not a column: {sorted(unknown)}"
        raise KeyError(msg)
    table = as_table(rows)
    for column in extra:
        table[column] = [row.get(column) for row in rows]
    return table


def shift_covariances(dimension: int) -> tuple[Array, Array]:
    """Spectra of Sigma0 and Delta (section 8)."""
    rare = np.arange(dimension) < dimension // 5
    return np.where(rare, 0.1, 1.0), np.where(rare, 1.0, 0.0)
