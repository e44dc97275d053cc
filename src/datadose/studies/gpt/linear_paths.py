"""The linear model beside the GPT: the linear transformer on the same prompts, and its exact theory.

It starts at -eta Gamma0^{-1}, to which infinitely many chains of step eta on Sigma0 lead, as the GPT's
pretraining does; the paper's -Gamma0^{-1} is its case eta = 1. SFT is homogeneous in the start and eta, so
that SFT here is outcome supervision of one thought from -Gamma0^{-1}, over eta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from datadose.configs import Stage
from datadose.covariance import Array
from datadose.errors import RunError
from datadose.models import BlockLinearAttention, ChainModel, PromptBatch
from datadose.models.linear_attention import starting_operator
from datadose.stages import FixedData, Optimisation, stage_objective
from datadose.studies.gpt.first_thought import GROUPS, OWN, TESTS, Goal, Probe, named, numbers_of
from datadose.studies.gpt.paths import beginnings, looked_along
from datadose.studies.gpt.runs import PHI, GptTask, Variant, W, draw_prompts, of
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.training_time import Request, largest_learning_rate


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
        """Whether it trains for what pretraining did, so that errors on Sigma0 can only show forgetting."""
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


def follow_lsa(task: GptTask, path: LinearPath, probe: tuple[int, int], seeds: list[int]) -> list[list[Any]]:
    """Cell: rows (seed, steps, numbers named MEASURED) of the linear transformer along ``path``.

    Errors of one thought are Prop 5.1 at each run's V rather than those on the probes. Raises RunError if a
    run diverges: ``path`` is then too fast, and a mean over the other runs would be another path's.
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
    if lost:
        msg = (
            f"the linear transformer diverged on {path}; a smaller share of the largest stable rate is needed"
        )
        raise RunError(msg)
    return [
        [seed, step, numbers_of(seen, lost, run, step)]
        for run, seed in enumerate(seeds)
        for step in path.looks
    ]


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
