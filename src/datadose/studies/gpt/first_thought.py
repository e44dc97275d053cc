"""What the first thought of a model is made of: how linear it is in w*, and whether one operator makes it.

A linear transformer's first thought is -V S w*. Of any model it is some f(X, w*). Prompts that share inputs X
and differ in w* separate two things that prompts of their own do not: whether f is linear in w* at fixed
inputs, f = M_X w*, and whether all M_X are -V S of one V. Shares of the mean square of f (R^2 through 0):

- ``own``: a map M_X of their own for all inputs, which is what any model that is linear in w* can reach. The
  fit has d numbers for J values, so a squared residual counts 1 / (1 - leverage) times (HC2), J / (J - d) on
  average; of a thought that is not linear it leaves a little too much (of w^2 - 1 .14 at J = 12, d = 5).
- ``phi``: one matrix on S w*, the linear mechanism; ``w``: one matrix on w* alone, whatever the inputs are.
- ``ridge``: c (S + lambda)^{-1} S w* with the best c and lambda, regression in context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datadose.models import ChainModel, PromptBatch
from datadose.stages.data import split
from datadose.studies.gpt.paths import lost_by
from datadose.studies.gpt.runs import COMMON, PHI, PRETRAINING, RARE, TARGET, GptTask, W, of

OWN, RIDGE = "own", "ridge"
"""Two more things that the first thought is explained by, beside S w* and w*."""
FITS = (OWN, PHI, W, RIDGE)
TESTS = (TARGET, PRETRAINING)
GROUPS = (RARE, COMMON)
_INPUTS, _WEIGHTS = 3, 4
"""The salts of a seed's probes; 0 to 2 are those of its other prompts."""
_AT_ONCE = 80
"""Prompts of a run that are thought about at once: more leave the processor's cache."""
_PENALTIES = np.geomspace(1e-4, 10, 61)

MEASURED = [
    *(of(test, group) for test in TESTS for group in ("", *GROUPS)),
    *(of(test, "", "fit", regressor) for test in TESTS for regressor in FITS),
    *(of(test, group, "slope", x) for test in TESTS for x in (PHI, W) for group in GROUPS),
    *(of(test, "", "penalty", RIDGE) for test in TESTS),
]
"""The names of what is measured; an error has the name of its test alone."""


@dataclass(frozen=True)
class Goal:
    """What the errors are of: thought number ``thought`` (from 1) beside ``scale`` w*, over scale^2 d."""

    thought: int
    scale: float


@dataclass(frozen=True)
class Probe:
    """Prompts of several runs, of the target and of Sigma0: each input with several w*.

    Of one run both have the same w* and inputs from the same normal numbers.
    """

    task: GptTask
    goal: Goal
    weights: int
    prompts: dict[str, PromptBatch]

    @classmethod
    def of(
        cls, task: GptTask, goal: Goal, length: int, inputs: int, weights: int, seeds: Sequence[int]
    ) -> Probe:
        """``inputs`` X of ``length`` examples for each seed, each with ``weights`` > d vectors w*."""
        w = [(seed, _WEIGHTS) for seed in seeds]
        drawn = PromptBatch.draw(task.sigma0, 1, inputs * weights, seeds=w).weights
        prompts = {}
        for test, covariance in ((TARGET, task.sigma0 + task.delta), (PRETRAINING, task.sigma0)):
            x = [(seed, _INPUTS) for seed in seeds]
            batch = PromptBatch.draw(covariance, length, inputs, seeds=x, hold_inputs=True)
            prompts[test] = replace(batch.repeat(weights), weights=drawn)
        return cls(task, goal, weights, prompts)

    @torch.no_grad()
    def measure(self, model: ChainModel) -> list[list[float]]:
        """Of every run the numbers named ``MEASURED``."""
        found: dict[str, Tensor] = {}
        for test, batch in self.prompts.items():
            pieces = split(batch, -(-batch.prompts // _AT_ONCE))
            thoughts = torch.cat([model.rollout(piece, self.goal.thought) for piece, _ in pieces], dim=1)
            found |= self._errors(test, thoughts[..., -1, :], batch) | self._fits(
                test, thoughts[..., 0, :], batch
            )
        return torch.stack([found[name] for name in MEASURED], dim=-1).tolist()

    def _errors(self, test: str, thought: Tensor, batch: PromptBatch) -> dict[str, Tensor]:
        c, rare = self.goal.scale, torch.from_numpy(self.task.rare)
        gap = (thought / c - batch.weights).double().square().mean(-2)
        parts = {"": gap, RARE: gap[:, rare], COMMON: gap[:, ~rare]}
        return {of(test, group): values.mean(-1) for group, values in parts.items()}

    def _fits(self, test: str, thought: Tensor, batch: PromptBatch) -> dict[str, Tensor]:
        """Shares explained, and the mean diagonal entries of the matrices on S w* and on w*."""
        f, w = thought.double(), batch.weights.double()
        X = batch.held_inputs().double()
        S = X.transpose(-1, -2) @ X / batch.length
        total, d, J = f.square().sum((-1, -2)), w.shape[-1], self.weights
        own = _unbiased_residual(f.view(len(f), -1, J, d), w.view(len(w), -1, J, d)).sum(-1)
        found = {of(test, "", "fit", OWN): 1 - own / total}
        rare = torch.from_numpy(self.task.rare)
        for name, x in ((PHI, (S @ w.unsqueeze(-1)).squeeze(-1)), (W, w)):
            diagonal = _fitted(f, x).diagonal(dim1=-2, dim2=-1)
            for group, inside in ((RARE, rare), (COMMON, ~rare)):
                found[of(test, group, "slope", name)] = diagonal[:, inside].mean(-1)
            found[of(test, "", "fit", name)] = 1 - _residual(f, x) / total
        share, penalty = _best_ridge(f, w, S)
        return found | {of(test, "", "fit", RIDGE): share, of(test, "", "penalty", RIDGE): penalty}


def _fitted(f: Tensor, x: Tensor) -> Tensor:
    """The matrices M (..., d, d) of the least squares f = M x, both (..., rows, d), x of full rank."""
    # The bits of the default driver depend on where in memory its arguments are.
    found: Tensor = torch.linalg.lstsq(x, f, driver="gels").solution
    return found.transpose(-1, -2)


def _residual(f: Tensor, x: Tensor) -> Tensor:
    return (f - x @ _fitted(f, x).transpose(-1, -2)).square().sum((-1, -2))


def _unbiased_residual(f: Tensor, x: Tensor) -> Tensor:
    """The same for fits with few rows, each residual in square over 1 - leverage."""
    Q = torch.linalg.qr(x).Q
    gap = f - Q @ (Q.transpose(-1, -2) @ f)
    found: Tensor = gap.square().sum(-1) / (1 - Q.square().sum(-1))
    return found.sum(-1)


def _best_ridge(f: Tensor, w: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """Of every run the largest share that c (S + lambda)^{-1} S w* explains, and its lambda on a grid."""
    values, basis = torch.linalg.eigh(S)
    turned = (basis.transpose(-1, -2) @ w.unsqueeze(-1)).squeeze(-1)
    goal = (basis.transpose(-1, -2) @ f.unsqueeze(-1)).squeeze(-1)
    values = values.clamp_min(0)
    shares = []
    for penalty in _PENALTIES:
        x = turned * values / (values + penalty)
        c = (goal * x).sum((-1, -2)) ** 2 / x.square().sum((-1, -2))
        shares.append(c / goal.square().sum((-1, -2)))
    best = torch.stack(shares).max(0)
    return best.values, torch.from_numpy(_PENALTIES)[best.indices]


def named(values: Sequence[float] | None) -> dict[str, Any]:
    """The columns of one run's numbers, missing where the run was lost."""
    return dict(zip(MEASURED, values if values is not None else [None] * len(MEASURED), strict=True))


def numbers_of(
    seen: dict[int, list[list[float]]], lost: dict[int, int], run: int, step: int
) -> list[float] | None:
    """One run's numbers after ``step`` of what ``looked_along`` returns; None once it is lost."""
    if lost_by(lost, run, step) or not np.isfinite(seen[step][run]).all():
        return None
    return seen[step][run]
