"""What the insight experiments share: a shift of chosen size, one post-training recipe, what is measured.

The shift is the paper's two blocks: Sigma0 = diag(rho 1_m, 1_{d-m}), Delta = delta (1_m, 0), with delta set
so that rho(Gamma0^{-1} Delta) is the required radius. Post-training data show the shift's directions:
covariance P Sigma P for outcome supervision and RL, eta P Sigma P for SFT (section 5.1), so that for long
prompts all three stages have the same optimum, V = -Sigma^{-1} there. Only V~ is trained (W~ = I).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from datadose.configs import STAGES, Stage
from datadose.covariance import Array
from datadose.drawing.curves import FIFTH, draw_curve, level, plain_log_ticks
from datadose.drawing.style import LOOKS
from datadose.models import BlockLinearAttention, PromptBatch
from datadose.models.baselines import pretrained_lsa
from datadose.stages import (
    FixedData,
    Optimisation,
    squared_gaps,
    stage_objective,
    train,
    within_tolerance,
)
from datadose.stages.optimisation import Optimiser
from datadose.studies import tables
from datadose.theory.outcome import pass_probability
from datadose.theory.pretraining import gamma0, pretrained_operator

BASE = "base"
"""The stage of the untouched pretrained model in a table."""
SFT, OUTCOME, RL = STAGES
ARMS: dict[str, tuple[Stage, ...]] = {BASE: (), **{stage: (stage,) for stage in STAGES}}
"""The stages of an arm: none, or one."""


class Column(tables.Column):
    """What tables of arms have besides; ``kind`` is the arm."""

    KIND = "kind"


@dataclass(frozen=True)
class Directions:
    """Directions of which a shift moves the first ``shifted``; the prompt length that all stages share."""

    dimension: int
    shifted: int
    length: int

    @property
    def inside(self) -> Any:
        """Which directions the shift moves, shape (d,)."""
        return np.arange(self.dimension) < self.shifted


@dataclass(frozen=True)
class ScaledShift(Directions):
    """The two-block shift without its size."""

    rho: float = 0.1
    eta: float = 0.2

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


def adapt(
    task: Directions,
    sigma0: Array,
    target: Array,
    stages: Sequence[Stage],
    recipe: Recipe,
    *,
    eta: float,
    seeds: Sequence[int],
    demonstrations: int | None = None,
) -> tuple[BlockLinearAttention, set[int]]:
    """The pretrained model after ``stages`` on prompts that show P Sigma P, and the runs that diverged.

    SFT's prompts are scaled by eta; ``demonstrations`` None: as many as the recipe's prompts.
    """
    torch.set_num_threads(1)
    model = pretrained_lsa(sigma0, task.length, len(seeds))
    data = np.where(task.inside, target, 0.0)
    lost: set[int] = set()
    for stage in stages:
        A, B = (eta * data, demonstrations or recipe.prompts) if stage == SFT else (data, recipe.prompts)
        prompts = PromptBatch.draw(A, task.length, B, seeds=seeds)
        lost |= post_train(model, stage, prompts, recipe, eta=eta, inside=task.inside, seeds=seeds)
    return model, lost


def post_train(
    model: BlockLinearAttention,
    stage: Stage,
    prompts: PromptBatch,
    recipe: Recipe,
    *,
    eta: float,
    inside: Any,
    seeds: Sequence[int],
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
    batch = None if recipe.optimiser == "gd" else recipe.batch
    size = None if batch is None else min(batch, prompts.prompts)
    how = Optimisation(recipe.optimiser, recipe.learning_rate, steps=recipe.steps)
    done = train(model, objective, FixedData(prompts, size), how)
    return {entry.run for entry in done.diverged}


def measure(
    model: BlockLinearAttention, batch: PromptBatch, recipe: Recipe, inside: Any, lost: set[int]
) -> list[list[float | None]]:
    """Per run: its number, error / d, error / m on the shift's directions and pass rate; None if lost."""
    torch.set_num_threads(1)
    gaps = squared_gaps(model, batch, recipe.chain_steps)
    on_shift = gaps[..., torch.from_numpy(np.asarray(inside))].mean((-1, -2))
    passed = pass_probabilities(gaps, recipe, inside).mean(-1)
    values = torch.stack([gaps.mean((-1, -2)), on_shift, passed], dim=-1)
    return [[run, *([None] * 3 if run in lost else finite(entry))] for run, entry in enumerate(values)]


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


def draw_arms(axis: Axes, rows: pd.DataFrame, x: str, y: str, arms: Mapping[str, str], before: str) -> None:
    """Curves of ``arms`` (arm to label) over log ``x``, and the base model's level, labelled ``before``."""
    for look, (arm, label) in zip((*LOOKS, FIFTH), arms.items(), strict=False):
        draw_curve(axis, rows[rows[Column.KIND] == arm], x, y, look, label)
    level(axis, float(rows.loc[rows[Column.KIND] == BASE, y].mean()), before)
    plain_log_ticks(axis, sorted({*rows[x]} - {0}))


def shift_covariances(dimension: int) -> tuple[Array, Array]:
    """Spectra of Sigma0 and Delta (section 8)."""
    rare = np.arange(dimension) < dimension // 5
    return np.where(rare, 0.1, 1.0), np.where(rare, 1.0, 0.0)
