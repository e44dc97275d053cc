"""SFT, then RL, against either alone at the same number of optimiser steps, over the size of the shift.

Arms: SFT for T steps, RL for T steps, SFT for T/2 and then RL for T/2, and the reverse as a control. Each
stage starts its own optimiser. RL always has ``recipe.prompts`` prompts; demonstrations are as many, or few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from datadose.experiments.common import Preset
from datadose.experiments.insights.setting import (
    BASE,
    Recipe,
    Stage,
    Task,
    insight_row,
    insight_table,
    measure,
    post_train,
    pretrained,
    stage_prompts,
)
from datadose.stages import held_out_prompts
from datadose.sweep import Cell

NAME = "sft_then_rl"
ARMS: dict[str, tuple[Stage, ...]] = {
    BASE: (),
    "sft": ("sft",),
    "rl": ("rl",),
    "sft then rl": ("sft", "rl"),
    "rl then sft": ("rl", "sft"),
}
EXTRA = ("kind", "spectral_radius", "training_steps", "demonstrations", "shift_error", "pass_rate")


def train_arm(
    task: Task, radius: float, arm: str, recipe: Recipe, demonstrations: int, steps: int, seeds: list[int]
) -> list[list[float | None]]:
    """Cell: [error / d, error on the shift / m, pass rate] per seed after ``steps`` steps in all."""
    target = task.target(radius)
    data = np.where(task.inside, target, 0.0)
    model = pretrained(task.operator, len(seeds))
    lost: set[int] = set()
    for stage in ARMS[arm]:
        B = demonstrations if stage == "sft" else recipe.prompts
        prompts = stage_prompts(stage, data, task.length, task.eta, B, seeds)
        lost |= post_train(
            model,
            stage,
            prompts,
            recipe,
            eta=task.eta,
            inside=task.inside,
            seeds=seeds,
            steps=steps // len(ARMS[arm]),
        )
    return measure(model, held_out_prompts(target, task.length, runs=len(seeds)), recipe, task.inside, lost)


@dataclass(frozen=True)
class SftThenRl:
    """Radii (panels), arms (kind), numbers of demonstrations and total steps."""

    task: Task
    recipe: Recipe
    radii: tuple[float, ...]
    demonstrations: tuple[int, ...]
    training_steps: tuple[int, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> SftThenRl:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(Task(10, 2, 100), Recipe(32, 0, batch=16), (0.5, 3.0), (8, 32), (10, 20), 3)
        if name == "quick":
            return cls(Task(20, 5, 200), Recipe(256, 0), (0.7, 1.5, 3.0), (16, 256), (100, 300, 900), 6)
        return cls(Task(100, 20, 1000), Recipe(1024, 0), (0.7, 1.5, 3.0), (64, 1024), (200, 600, 1800), 10)

    def _settings(self) -> list[tuple[float, str, int, int]]:
        """(radius, arm, demonstrations, steps); arms without SFT have no demonstrations."""
        return [
            (radius, arm, count, steps)
            for radius in self.radii
            for arm, stages in ARMS.items()
            for count in (self.demonstrations if "sft" in stages else (0,))
            for steps in (self.training_steps if stages else (0,))
        ]

    def cells(self) -> list[Cell]:
        """One cell a radius, arm and number of steps, its seeds side by side."""
        shared = {"task": self.task, "recipe": self.recipe, "seeds": list(range(self.seeds))}
        return [
            Cell(train_arm, {**shared, "radius": radius, "arm": arm, "demonstrations": count, "steps": steps})
            for radius, arm, count, steps in self._settings()
        ]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a radius (panel), arm, number of steps and seed."""
        rows = [
            insight_row(
                NAME,
                f"radius={radius:g}",
                stage=arm,
                prompts=self.recipe.prompts if "rl" in ARMS[arm] else 0,
                demonstrations=count,
                length=self.task.length,
                steps=self.recipe.chain_steps,
                seed=seed,
                error=error,
                kind=arm,
                spectral_radius=radius,
                training_steps=steps,
                shift_error=on_shift,
                pass_rate=passed,
            )
            for (radius, arm, count, steps), found in zip(self._settings(), results, strict=True)
            for seed, (error, on_shift, passed) in enumerate(found)
        ]
        return insight_table(rows, EXTRA)
