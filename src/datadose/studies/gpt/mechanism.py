"""What the weights do along post-training: the GPT's first thought beside the linear model's exact theory.

Stages, on prompts of Delta or of the target: SFT on chains of k steps, outcome supervision on one thought and
on k. At every look: errors on the target and on Sigma0, and what the first thought is made of
(:mod:`~datadose.studies.gpt.first_thought`). Errors are of what the stage trains: after SFT the first thought
beside eta w*, over eta^2; after outcome supervision of k thoughts the last beside w*. Three models:

- ``gpt``: Adam, mini-batches. Its steps have no counterpart in the theory.
- ``lsa``: the linear transformer (W~ = I) by gradient descent on the same prompts, at its own times.
- ``theory``: mean operator and errors of that model at these steps, exact for many dimensions. None covers
  outcome supervision of several thoughts.

Both linear ones start at -eta Gamma0^{-1}, to which infinitely many chains of step eta on Sigma0 lead, as the
GPT's pretraining does; the paper's -Gamma0^{-1} is its case eta = 1. SFT is homogeneous in the start and eta,
so that SFT here is outcome supervision of one thought from -Gamma0^{-1}, over eta.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from datadose.configs import Stage
from datadose.covariance import Array
from datadose.models import BlockLinearAttention, ChainModel, PromptBatch
from datadose.models.gpt import load_gpt
from datadose.models.linear_attention import starting_operator
from datadose.stages import FixedData, Optimisation, stage_objective
from datadose.studies import tables
from datadose.studies.gpt.first_thought import GROUPS, MEASURED, OWN, TESTS, Goal, Probe, named
from datadose.studies.gpt.map import Figure3Map
from datadose.studies.gpt.paths import GptPath, beginnings, looked_along, lost_by, post_trained
from datadose.studies.gpt.runs import (
    GPT,
    PHI,
    TARGET,
    GptPretraining,
    GptTask,
    Variant,
    W,
    draw_prompts,
    of,
    pretrained_cells,
    pretraining_round,
)
from datadose.studies.study import Preset
from datadose.studies.tables import LSA, THEORY, as_table
from datadose.sweep import Cell, Round
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.training_time import Request, largest_learning_rate

NAME = "fig3path"
VARIANTS: tuple[Variant, ...] = ("delta", "target")


class Column(tables.Column):
    """The columns of ``fig3path.csv`` before those in MEASURED; ``steps`` is k, the error that on the target.

    ``time`` is that of gradient flow, of the linear models alone.
    """

    VARIANT = "variant"
    PRETRAIN_STEPS, OPTIMISER_STEPS = "pretrain_steps", "optimiser_steps"
    TIME = "time"


@dataclass(frozen=True)
class Arm:
    """A stage and the k of its chains."""

    stage: Stage
    chain_steps: int

    def goal(self, eta: float) -> Goal:
        """The thought that the stage trains, and what it is to be."""
        return Goal(1, eta) if self.stage == "sft" else Goal(self.chain_steps, 1.0)

    @property
    def exact(self) -> bool:
        """Whether the theory covers it."""
        return self.stage == "sft" or self.chain_steps == 1

    @property
    def keeps_goal(self) -> bool:
        """Whether it trains for what pretraining did, so that errors on Sigma0 can only tell forgetting."""
        return self.stage == "sft" or self.chain_steps > 1


@dataclass(frozen=True)
class LinearPath:
    """Gradient descent of the linear transformer on B prompts: its path, rate and measured steps."""

    arm: Arm
    variant: Variant
    prompts: int
    length: int
    rate: float
    looks: tuple[int, ...]

    @classmethod
    def at(
        cls,
        task: GptTask,
        arm: Arm,
        variant: Variant,
        sizes: tuple[int, int],
        share: float,
        looks: tuple[int, ...],
    ) -> LinearPath:
        """With ``share`` of the largest stable rate; ``sizes`` are B and n.

        Of k thoughts the loss is up to k^2 times as curved as of one (k^2 rho^(2k-2) where rho(M) is near 1).
        """
        B, n = sizes
        eta, k = (task.eta, arm.chain_steps) if arm.stage == "sft" else (1.0, 0)
        source = Source(task.covariance(variant), n, B)
        rate = share * largest_learning_rate([source], eta, chain_steps=k)
        return cls(arm, variant, B, n, rate if arm.exact else rate / arm.chain_steps**2, looks)

    def time(self, task: GptTask, steps: int) -> float:
        """Of gradient flow on the loss of one step; of k thoughts there is no such clock but the rate's."""
        c = [(1 - task.eta) ** (2 * i) for i in range(self.arm.chain_steps + 1)]
        return steps * self.rate * (sum(c) if self.arm.stage == "sft" else 1.0)


def start_of(task: GptTask, length: int) -> Array:
    """V of the linear model before post-training, a spectrum (d,)."""
    return np.asarray(task.eta * pretrained_operator(task.sigma0, length))


def follow_gpt(
    model: Path, task: GptTask, path: GptPath, probe: tuple[int, int], seeds: list[int], side_by_side: int
) -> list[list[Any]]:
    """Cell: rows (B, seed, steps, numbers named MEASURED or None) along ``path`` from the GPT in a file.

    ``probe``: how many inputs the first thought is probed at, and how many w* at each. At most
    ``side_by_side`` runs train at once.
    """
    torch.set_num_threads(1)
    start, goal = load_gpt(model), Arm(path.stage, path.chain_steps).goal(task.eta)
    runs = [(B, seed) for B in path.prompts for seed in seeds]
    rows: list[list[Any]] = []
    for first in range(0, len(runs), side_by_side):
        part = runs[first : first + side_by_side]
        shown = Probe.of(task, goal, path.length, *probe, [seed for _, seed in part])
        seen, lost = post_trained(start, task, path, part, shown.measure)
        rows += [
            [B, seed, step, _numbers(seen, lost, run, step)]
            for run, (B, seed) in enumerate(part)
            for step in path.looks
        ]
    return rows


def follow_lsa(task: GptTask, path: LinearPath, probe: tuple[int, int], seeds: list[int]) -> list[list[Any]]:
    """Cell: rows (seed, steps, numbers named MEASURED or None) of the linear transformer along ``path``.

    Errors of one thought are Prop 5.1 at each run's V rather than those on the probes.
    """
    torch.set_num_threads(1)
    n, arm = path.length, path.arm
    drawn = [beginnings(draw_prompts(task, path.variant, path.prompts, task.length, s), n) for s in seeds]
    whole = PromptBatch.join(drawn, dim=0)
    prompts = PromptBatch.from_inputs(whole.held_inputs(), whole.weights)
    model = BlockLinearAttention(starting_operator(start_of(task, n), len(seeds)), train_attention=False)
    probes = Probe.of(task, arm.goal(task.eta), n, *probe, seeds)

    def measure(trained: ChainModel) -> list[list[float]]:
        found = probes.measure(trained)
        if not arm.exact:
            return found
        exact = (exact_errors(task, path, V) for V in model.V.detach().double().numpy())
        return [list((named(values) | errors).values()) for values, errors in zip(found, exact, strict=True)]

    seen, lost = looked_along(
        model,
        stage_objective(arm.stage, arm.chain_steps, eta=task.eta, seeds=seeds),
        FixedData(prompts),
        Optimisation("gd", path.rate, steps=path.looks[-1]),
        path.looks,
        measure,
    )
    return [
        [seed, step, _numbers(seen, lost, run, step)] for run, seed in enumerate(seeds) for step in path.looks
    ]


def _numbers(
    seen: dict[int, list[list[float]]], lost: dict[int, int], run: int, step: int
) -> list[float] | None:
    if lost_by(lost, run, step) or not np.isfinite(seen[step][run]).all():
        return None
    return seen[step][run]


def _groups(task: GptTask) -> dict[str, Array]:
    """Name -> projector (d,) on all, on the rare and on the common directions."""
    rare = np.asarray(task.rare, dtype=np.float64)
    return dict(zip(("", *GROUPS), (np.ones(task.dimension), rare, 1 - rare), strict=True))


def _errors_of(task: GptTask, path: LinearPath, group: str, model: TrainedOperator) -> dict[str, float]:
    """By test the errors of one thought on the directions of ``group``, of which ``model`` holds P V."""
    c, share = path.arm.goal(task.eta).scale, _groups(task)[group].mean()
    tests = zip(TESTS, (task.sigma0 + task.delta, task.sigma0), strict=True)
    # The rows outside answer 0 there, which costs 1 a direction.
    return {
        of(test, group): float(1 - (1 - model.scaled(1 / c).error(Sigma, path.length)) / share)
        for test, Sigma in tests
    }


def exact_errors(task: GptTask, path: LinearPath, V: Array) -> dict[str, float]:
    """Prop 5.1 at V (d, d) on all, rare and common directions of both tests."""
    found: dict[str, float] = {}
    for group, inside in _groups(task).items():
        found |= _errors_of(task, path, group, TrainedOperator.fixed(inside[:, None] * V))
    return found


def theory_along(task: GptTask, path: LinearPath) -> list[dict[str, float]]:
    """The exact errors and slopes along ``path``, one dict a look; the model is linear in S w*.

    Errors of some directions follow from the rows of V that answer them, which are trained apart.
    """
    eta, k = (task.eta, path.arm.chain_steps) if path.arm.stage == "sft" else (1.0, 0)
    request = Request.of(eta, [Source(task.covariance(path.variant), path.length, path.prompts)], None, k)
    stops = [Stopping(steps=steps, learning_rate=path.rate) for steps in path.looks]
    start, tests = start_of(task, path.length), (task.sigma0 + task.delta, task.sigma0)
    linear = {of(test, "", "fit", regressor): 1.0 for test in TESTS for regressor in (OWN, PHI)}
    found: list[dict[str, float]] = [{**linear} for _ in stops]
    for group, inside in _groups(task).items():
        ends = request.fit(inside * start, answers=inside).ends(stops)
        for row, model in zip(found, ends, strict=True):
            row.update(_errors_of(task, path, group, model))
            for test, Sigma in zip(TESTS, tests, strict=True) if group else ():
                for regressor, gains in ((PHI, model.mean), (W, model.mean * Sigma)):
                    row[of(test, group, "slope", regressor)] = -float(gains[inside > 0].mean())
    return found


@dataclass(frozen=True)
class Mechanism:
    """The arms, kinds of data and numbers of prompts B, at which steps all is measured, and how finely.

    Args:
        looks: optimiser steps of the GPT at which it is measured, from 0.
        lsa_looks: the same of the linear transformer, which takes ``lsa_share`` of its largest stable rate.
        seeds: of the GPT; the linear transformer has ``lsa_seeds``, the first of which are these.
        inputs, weights: X by seed, and w* by X, at which the first thought is probed.
    """

    task: GptTask
    pretrainings: tuple[GptPretraining, ...]
    arms: tuple[Arm, ...]
    prompts: tuple[int, ...]
    length: int
    looks: tuple[int, ...]
    lsa_looks: tuple[int, ...]
    learning_rate: float
    seeds: int
    lsa_seeds: int
    inputs: int
    weights: int
    lsa_share: float = 0.2
    batch: int = 16
    side_by_side: int = 8

    @classmethod
    def preset(cls, name: Preset) -> Mechanism:
        """The configuration of a preset; the pretrained models are ``fig3map``'s where both have them.

        A pilot (seeds 1000 to 1003, ``quick``) gives the spread over seeds of log ratios of errors after and
        before: with B = 1,024 at most .12 on the target, .29 on its rare and .11 on its common directions,
        .12 on Sigma0; with B = 16 .34, .50, .33 and .38. Four seeds see 2.1 spreads with power .8, ratios of
        1.3 and 1.8 (rare) with many and of 2 and 3 (rare) with few prompts; the six of ``paper`` 1.4 spreads.
        Of the R2 of a map for each X it is .01 and .06 at most: .02 and .12 below the threshold are seen.

        Of the linear transformer 16 and 32 runs left the claim on the theory open, 64 do not.

        Cost: about 5 core-minutes for ``quick`` and 15 for ``paper`` on a busy machine, of which pretraining
        takes 3 and 5.
        """
        if name == "smoke":
            task = GptTask(5, 8, 3, 2, eta=0.5, test_prompts=32)
            arms = Arm("sft", 2), Arm("outcome", 1), Arm("outcome", 2)
            short = GptPretraining("tiny", 5, 8, warmup=1, start_length=4, every=2)
            return cls(task, (short,), arms, (8, 16), 6, (0, 1, 3), (0, 1, 4), 1e-4, 2, 3, 4, 7, batch=8)
        shared = Figure3Map.preset("paper")
        size = shared.sizes[0]
        task = shared.task(0.5)
        long = tuple(
            shared.pretraining(size, steps) for steps in ((6000,) if name == "quick" else (4000, 6000))
        )
        quick = cls(
            task,
            long,
            (Arm("sft", 3), Arm("outcome", 1), Arm("outcome", 3)),
            prompts=(16, 1024),
            length=shared.base_length,
            looks=(0, 1, 3, 10, 30, 100),
            lsa_looks=(0, 1, 2, 4, 8, 16, 32, 64, 128),
            learning_rate=1e-4,
            seeds=4,
            lsa_seeds=64,
            inputs=24,
            weights=12,
        )
        if name == "quick":
            return quick
        return replace(quick, looks=(0, 1, 3, 10, 30, 100, 300), seeds=6, inputs=32)

    def gpt_paths(self) -> Iterator[GptPath]:
        """One for each arm and kind of data, with all B."""
        for arm in self.arms:
            for variant in VARIANTS:
                yield GptPath(
                    arm.stage,
                    variant,
                    self.prompts,
                    self.length,
                    arm.chain_steps,
                    self.looks,
                    (self.length,),
                    self.learning_rate,
                    self.batch,
                )

    def linear_paths(self) -> Iterator[LinearPath]:
        """One for each arm, kind of data and B."""
        for arm in self.arms:
            for variant in VARIANTS:
                for B in self.prompts:
                    yield LinearPath.at(
                        self.task, arm, variant, (B, self.length), self.lsa_share, self.lsa_looks
                    )

    def rounds(self, folder: Path) -> Iterator[Round]:
        """The pretrained models, then every path of the GPTs and of the linear transformer."""
        models = pretrained_cells(self.task, self.pretrainings, folder)
        yield pretraining_round(models)
        own: dict[str, Any] = {"task": self.task, "probe": (self.inputs, self.weights)}
        cells = []
        for p in self.pretrainings:
            start: dict[str, Any] = {"model": models[p.steps].file, "side_by_side": self.side_by_side}
            start |= {**own, "seeds": list(range(self.seeds))}
            cells += [Cell(follow_gpt, {**start, "path": path}) for path in self.gpt_paths()]
        seeds = list(range(self.lsa_seeds))
        cells += [Cell(follow_lsa, {**own, "path": path, "seeds": seeds}) for path in self.linear_paths()]
        yield "", cells

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a model, pretraining, arm, kind of data, B, seed and number of steps; then the theory."""
        found, rows = iter(results), []
        for p in self.pretrainings:
            for path in self.gpt_paths():
                place = self._place(GPT, Arm(path.stage, path.chain_steps), path.variant)
                place |= {Column.PRETRAIN_STEPS: p.steps}
                for B, seed, steps, values in next(found):
                    at = {Column.PROMPTS: B, Column.SEED: seed, Column.OPTIMISER_STEPS: steps}
                    rows.append(place | at | _measured(named(values)))
        for line in self.linear_paths():
            for seed, steps, values in next(found):
                rows.append(self._linear(LSA, line, steps) | {Column.SEED: seed} | _measured(named(values)))
            if line.arm.exact:
                exact = zip(line.looks, theory_along(self.task, line), strict=True)
                rows += [self._linear(THEORY, line, steps) | _measured(values) for steps, values in exact]
        return as_table(rows, Column, (Column.PRETRAIN_STEPS, Column.OPTIMISER_STEPS), MEASURED)

    def _place(self, model: str, arm: Arm, variant: str) -> dict[str, Any]:
        return {
            Column.FIGURE: NAME,
            Column.PANEL: f"{arm.stage}-{arm.chain_steps}-{variant}",
            Column.MODEL: model,
            Column.STAGE: arm.stage,
            Column.STEPS: arm.chain_steps,
            Column.VARIANT: variant,
            Column.LENGTH: self.length,
            Column.INTERFERENCE: 0.0,
        }

    def _linear(self, model: str, path: LinearPath, steps: int) -> dict[str, Any]:
        at = {Column.PROMPTS: path.prompts, Column.OPTIMISER_STEPS: steps}
        return self._place(model, path.arm, path.variant) | at | {Column.TIME: path.time(self.task, steps)}


def _measured(values: dict[str, Any]) -> dict[str, Any]:
    """The columns of what was measured; the error is that on the target."""
    error = values[TARGET]
    return {**values, Column.ERROR: error, Column.DIVERGED: int(error is None)}
