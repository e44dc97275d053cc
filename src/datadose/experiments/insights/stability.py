"""Insight 3: gradient descent on outcome supervision, where it is stable and how it depends on the sample.

The map: loss after a fixed number of steps over (rho(Gamma0^{-1} Delta), chain length k, step size), one
panel a k. Sigma0 = I here (rho = 1), the data are those of the test, and prompts are long, so that
M = I + V0 Sigma is close to -Gamma0^{-1} Delta and rho(M) to the radius. The theory's line is 2 over the
largest curvature of the population loss at the pretrained model.

Sensitivity: post-test error over prompts B, training steps T and seeds, with prompts of moderate length.
`own step`: every radius has its own step size, a share of 2 over the largest curvature of the loss on a
reference sample (on short prompts the population's curvature says little). `one step`: all radii share that
of the radius nearest 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from datadose.experiments.common import Preset
from datadose.experiments.insights.setting import (
    Task,
    finite,
    insight_row,
    insight_table,
    pretrained,
)
from datadose.models import PromptBatch
from datadose.prompts import draw_wishart, random_stream
from datadose.stages import FixedData, Optimisation, Outcome, held_out_prompts, post_test, train
from datadose.sweep import Cell
from datadose.theory.outcome import largest_stable_step, population_curvature, rollout_radius

NAME = "insight3_stability"
EXTRA = (
    "kind",
    "spectral_radius",
    "rollout_radius",
    "learning_rate",
    "training_steps",
    "stable_step",
    "error_before",
    "outcome",
)
CAUTION = 0.3
"""The sensitivity runs use this share of a reference sample's stable step: other samples are sharper."""
PROTOCOLS = ("own step", "one step")
REFERENCE = 999_983
"""Seed of the reference sample."""


def stable_step(task: Task, radius: float, steps: int) -> float:
    """2 / the largest curvature of the population's L_OS at the pretrained model."""
    return 2 / population_curvature(task.operator, task.target(radius), steps)[1]


def cautious_step(task: Task, radius: float, steps: int, prompts: int) -> float:
    """A share of the stable step of gradient descent on a reference sample of this many prompts."""
    w = random_stream(REFERENCE, "weights").standard_normal((task.dimension, prompts))
    S = draw_wishart(task.target(radius), task.length, prompts, seed=REFERENCE)
    return CAUTION * largest_stable_step(np.diag(task.operator), w, S, steps)


def descend(
    task: Task,
    radii: list[float],
    steps: int,
    learning_rate: float | None,
    step_radius: float,
    prompts: int,
    descent: int,
    seeds: list[int],
) -> list[list[float | None]]:
    """Cell: [error before, after, step size] per radius and seed, side by side.

    Without ``learning_rate`` it is the cautious step at ``step_radius``.
    """
    torch.set_num_threads(1)
    if learning_rate is None:
        learning_rate = cautious_step(task, step_radius, steps, 8 * task.dimension)
    batches = [PromptBatch.draw(task.target(r), task.length, prompts, seeds=seeds) for r in radii]
    data = PromptBatch(torch.cat([b.weights for b in batches]), task.length, _stacked(batches))
    tests = [held_out_prompts(task.target(r), task.length, 256, runs=len(seeds)) for r in radii]
    test = PromptBatch(torch.cat([b.weights for b in tests]), task.length, _stacked(tests))
    model = pretrained(task.operator, len(radii) * len(seeds))
    before = post_test(model, test, steps)[:, 0]
    done = train(model, Outcome(steps), FixedData(data), Optimisation("gd", learning_rate, steps=descent))
    lost = {entry.run for entry in done.diverged}
    after = post_test(model, test, steps)[:, 0]
    return [
        [float(before[run]), None if run in lost else finite(after[run : run + 1])[0], learning_rate]
        for run in range(len(before))
    ]


def _stacked(batches: list[PromptBatch]) -> torch.Tensor:
    held = [b.covariances for b in batches if b.covariances is not None]
    return torch.cat(held)


@dataclass(frozen=True)
class Stability:
    """The map (``radii`` x ``chain_steps`` x ``learning_rates``) and the sensitivity at ``probe_steps``."""

    task: Task
    radii: tuple[float, ...]
    chain_steps: tuple[int, ...]
    learning_rates: tuple[float, ...]
    prompts: int
    descent: int
    probe: Task
    probe_radii: tuple[float, ...]
    probe_steps: int
    probes: tuple[tuple[int, int], ...]
    """(B, T) pairs of the sensitivity."""
    map_seeds: int
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> Stability:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(
                Task(8, 2, 800, rho=1.0), (0.5, 1.0, 2.0), (1, 2), (0.01, 0.3, 10.0), 32, 30,
                Task(8, 2, 32, rho=1.0), (0.5, 1.0, 2.0), 2, ((16, 30), (64, 8), (64, 30)), 2, 3,
            )  # fmt: skip
        radii = tuple(float(f"{r:.3g}") for r in np.geomspace(0.25, 4.0, 9))
        rates = tuple(float(f"{x:.3g}") for x in np.geomspace(1e-5, 10.0, 11))
        if name == "quick":
            return cls(
                Task(20, 4, 2000, rho=1.0), radii, (1, 2, 4), rates, 64, 100,
                Task(20, 4, 80, rho=1.0), radii, 2,
                ((32, 200), (512, 50), (512, 200)), 2, 8,
            )  # fmt: skip
        return cls(
            Task(100, 20, 10_000, rho=1.0), radii, (1, 2, 4, 8), rates, 256, 300,
            Task(100, 20, 400, rho=1.0), radii, 2,
            ((128, 300), (2048, 75), (2048, 300)), 3, 10,
        )  # fmt: skip

    def _maps(self) -> list[tuple[int, float]]:
        return [(k, rate) for k in self.chain_steps for rate in self.learning_rates]

    def _probes(self) -> list[tuple[str, float, int, int]]:
        return [(p, r, B, T) for p in PROTOCOLS for r in self.probe_radii for B, T in self.probes]

    def _middle(self) -> float:
        return min(self.probe_radii, key=lambda r: abs(r - 1))

    def cells(self) -> list[Cell]:
        """A cell a chain length and step size (all radii inside), then one a radius and (B, T)."""
        maps: list[dict[str, Any]] = [
            {"task": self.task, "radii": list(self.radii), "steps": k, "learning_rate": rate,
             "step_radius": 1.0, "prompts": self.prompts, "descent": self.descent,
             "seeds": list(range(self.map_seeds))}
            for k, rate in self._maps()
        ]  # fmt: skip
        probes: list[dict[str, Any]] = [
            {"task": self.probe, "radii": [r], "steps": self.probe_steps, "learning_rate": None,
             "step_radius": r if protocol == "own step" else self._middle(),
             "prompts": B, "descent": T, "seeds": list(range(self.seeds))}
            for protocol, r, B, T in self._probes()
        ]  # fmt: skip
        return [Cell(descend, arguments) for arguments in (*maps, *probes)]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """Rows of kind `map` (panel k), `own step`, `one step`; ``outcome`` is stable, slow or diverged."""
        maps = self._maps()
        rows: list[dict[str, Any]] = []
        for (k, _), found in zip(maps, results[: len(maps)], strict=True):
            runs = [(r, seed) for r in self.radii for seed in range(self.map_seeds)]
            for (r, seed), errors in zip(runs, found, strict=True):
                rows.append(_row("map", self.task, r, k, self.prompts, self.descent, seed, errors))
        for (protocol, r, B, T), found in zip(self._probes(), results[len(maps) :], strict=True):
            rows += [
                _row(protocol, self.probe, r, self.probe_steps, B, T, seed, errors)
                for seed, errors in enumerate(found)
            ]
        return insight_table(rows, EXTRA)


def _row(
    kind: str,
    task: Task,
    radius: float,
    steps: int,
    prompts: int,
    descent: int,
    seed: int,
    errors: list[Any],
) -> dict[str, Any]:
    before, after, rate = errors
    return insight_row(
        NAME,
        f"k={steps}",
        stage="outcome",
        prompts=prompts,
        length=task.length,
        steps=steps,
        seed=seed,
        error=after,
        kind=kind,
        spectral_radius=radius,
        rollout_radius=rollout_radius(task.operator, task.target(radius)),
        learning_rate=rate,
        training_steps=descent,
        stable_step=stable_step(task, radius, steps),
        error_before=before,
        outcome="diverged" if after is None else "stable" if after <= before / 2 else "slow",
    )
