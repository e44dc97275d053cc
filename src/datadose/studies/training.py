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
import torch
from torch import Tensor

from datadose.configs import STAGES, Stage
from datadose.covariance import Array
from datadose.models import BlockLinearAttention, PromptBatch
from datadose.stages import (
    FixedData,
    Optimisation,
    squared_gaps,
    stage_objective,
    train,
    within_tolerance,
)
from datadose.stages.optimisation import Optimiser
from datadose.theory.outcome import pass_probability
from datadose.theory.pretraining import gamma0, pretrained_operator

BASE = "base"
"""The stage of the untouched pretrained model in a table."""
SFT, OUTCOME, RL = STAGES


@dataclass(frozen=True)
class ScaledShift:
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
    batch: int | None = 32
    """Prompts of a step (at most all), None for all; ``gd`` takes all."""
    chain_steps: int = 2
    optimiser: Optimiser = "adam"
    group: int = 8
    noise: float = 0.1
    tolerance: float = 0.5
    """RL's answer passes if its root mean square error over the judged directions is at most this."""

    def radius(self, directions: int) -> float:
        """The largest error norm over ``directions`` directions that passes."""
        return float(self.tolerance * directions**0.5)


def stage_prompts(
    stage: Stage, data: Array, length: int, eta: float, prompts: int, seeds: Sequence[int]
) -> PromptBatch:
    """Training prompts of ``stage``: covariance ``data``, scaled by eta for SFT."""
    return PromptBatch.draw(eta * data if stage == SFT else data, length, prompts, seeds=seeds)


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
    """Train ``model`` in place, ``steps`` None: for the recipe's, and return the runs that diverged."""
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
    batch = None if recipe.optimiser == "gd" else recipe.batch
    size = None if batch is None else min(batch, prompts.prompts)
    how = Optimisation(recipe.optimiser, recipe.learning_rate, steps=recipe.steps if steps is None else steps)
    done = train(model, objective, FixedData(prompts, size), how)
    return {entry.run for entry in done.diverged}


def measure(
    model: BlockLinearAttention,
    batch: PromptBatch,
    recipe: Recipe,
    inside: Any,
    lost: set[int],
) -> list[list[float | None]]:
    """Per run: error / d, error / m on the shift's directions, and pass rate there; None for a lost run."""
    torch.set_num_threads(1)
    gaps = squared_gaps(model, batch, recipe.chain_steps)
    on_shift = gaps[..., torch.from_numpy(np.asarray(inside))].mean((-1, -2))
    passed = pass_probabilities(gaps, recipe, inside).mean(-1)
    values = torch.stack([gaps.mean((-1, -2)), on_shift, passed], dim=-1)
    return [[None] * 3 if run in lost else finite(entry) for run, entry in enumerate(values)]


def pass_probabilities(gaps: Tensor, recipe: Recipe, inside: Any) -> Tensor:
    """The exact pass rate of the noisy policy on each prompt, judged on the directions ``inside``.

    ``gaps``: squared gaps between the policy's mean and w*, shape (..., d); the result has shape (...).
    """
    m = int(np.sum(inside))
    distance = gaps[..., torch.from_numpy(np.asarray(inside))].sum(-1).double().sqrt()
    distance = distance.nan_to_num(1e6, posinf=1e6).clamp_max(1e6)
    limit = recipe.radius(m)
    # Far out the chi-square is zero, and its series slow.
    close = torch.minimum(distance, torch.tensor(limit + 40 * recipe.noise, dtype=torch.float64))
    return torch.from_numpy(pass_probability(close.numpy(), recipe.noise, limit, m))


def finite(values: Tensor) -> list[float | None]:
    """The values as a list, or all None if one is not finite: a lost run has no numbers."""
    if not bool(torch.isfinite(values).all()):
        return [None] * len(values)
    return [float(v) for v in values]


def radius_panel(radius: float) -> str:
    """The panel of a shift with this rho(Gamma0^{-1} Delta)."""
    return f"radius={radius:g}"


def shift_covariances(dimension: int) -> tuple[Array, Array]:
    """Spectra of Sigma0 and Delta (section 8)."""
    rare = np.arange(dimension) < dimension // 5
    return np.where(rare, 0.1, 1.0), np.where(rare, 1.0, 0.0)
