"""Overthinking: post-test error against the number of thinking steps, after each stage, with its theory.

At W~ = I the answer after k steps is off by (I + V S)^k w*. For long prompts the error is
||(I + V Sigma)^k||_F^2 / d, which falls with k if rho(I + V Sigma) < 1 and grows if not; on prompts of length
n S varies and its powers have heavy tails, so the exact expectation is estimated over Wishart draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from datadose.experiments.common import Preset
from datadose.experiments.insights.setting import (
    BASE,
    STAGES,
    Recipe,
    Stage,
    Task,
    finite,
    insight_row,
    insight_table,
    post_train,
    pretrained,
    stage_prompts,
)
from datadose.stages import held_out_prompts, post_test
from datadose.sweep import Cell
from datadose.theory.outcome import rollout_error, rollout_radius

NAME = "overthinking"
ARMS = (BASE, *STAGES)
EXTRA = ("kind", "spectral_radius", "rollout_radius", "thinking_steps", "predicted_long")
"""``steps`` is the chain length of training, ``thinking_steps`` that of the post-test."""


def think(
    task: Task, radius: float, arm: str, recipe: Recipe, thinking: list[int], draws: int, seeds: list[int]
) -> list[list[list[float | None]]]:
    """Cell: per seed [rho(I + V Sigma)] and errors / d at each step count: test, theory, long prompts."""
    torch.set_num_threads(1)
    target = task.target(radius)
    model = pretrained(task.operator, len(seeds))
    lost: set[int] = set()
    if arm != BASE:
        stage = cast("Stage", arm)
        data = np.where(task.inside, target, 0.0)
        prompts = stage_prompts(stage, data, task.length, task.eta, recipe.prompts, seeds)
        lost = post_train(model, stage, prompts, recipe, eta=task.eta, inside=task.inside, seeds=seeds)
    tested = post_test(model, held_out_prompts(target, task.length, runs=len(seeds)), thinking)
    found: list[list[list[float | None]]] = []
    for run in range(len(seeds)):
        if run in lost or not bool(torch.isfinite(tested[run]).all()):
            nothing: list[float | None] = [None] * len(thinking)
            found.append([[None], nothing, nothing, nothing])
            continue
        V = model.V[run].detach().double().numpy()
        exact = [rollout_error(V, target, k, task.length, draws=draws, seed=1).value for k in thinking]
        long = [rollout_error(V, target, k).value for k in thinking]
        found.append([[rollout_radius(V, target)], finite(tested[run]), [*exact], [*long]])
    return found


@dataclass(frozen=True)
class Overthinking:
    """Radii (panels), stages, thinking steps."""

    task: Task
    recipe: Recipe
    radii: tuple[float, ...]
    thinking: tuple[int, ...]
    draws: int
    """Wishart prompts behind each predicted error."""
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> Overthinking:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(Task(10, 2, 60), Recipe(32, 20, batch=16), (0.5, 2.0), (1, 2, 4, 8), 50, 2)
        thinking = (1, 2, 3, 4, 6, 8, 12, 16)
        if name == "quick":
            return cls(Task(20, 5, 120), Recipe(256, 300), (0.5, 1.2, 2.0), thinking, 400, 6)
        return cls(Task(100, 20, 600), Recipe(1024, 400), (0.5, 1.2, 2.0), thinking, 400, 10)

    def _settings(self) -> list[tuple[float, str]]:
        return [(radius, arm) for radius in self.radii for arm in ARMS]

    def cells(self) -> list[Cell]:
        """One cell a radius and stage, its seeds side by side."""
        shared = {
            "task": self.task,
            "recipe": self.recipe,
            "thinking": list(self.thinking),
            "draws": self.draws,
            "seeds": list(range(self.seeds)),
        }
        return [Cell(think, {**shared, "radius": radius, "arm": arm}) for radius, arm in self._settings()]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a radius (panel), stage, number of thinking steps and seed."""
        rows = []
        for (radius, arm), found in zip(self._settings(), results, strict=True):
            for seed, ((rolled,), tested, exact, long) in enumerate(found):
                rows += [
                    insight_row(
                        NAME,
                        f"radius={radius:g}",
                        stage=arm,
                        prompts=0 if arm == BASE else self.recipe.prompts,
                        length=self.task.length,
                        steps=self.recipe.chain_steps,
                        seed=seed,
                        error=error,
                        predicted=predicted,
                        kind=arm,
                        spectral_radius=radius,
                        rollout_radius=rolled,
                        thinking_steps=k,
                        predicted_long=far,
                    )
                    for k, error, predicted, far in zip(self.thinking, tested, exact, long, strict=True)
                ]
        return insight_table(rows, EXTRA)
