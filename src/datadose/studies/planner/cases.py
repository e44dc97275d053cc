"""Random shifts that the planner is judged by, each a function of its index alone.

Those of the dose are a shift, a prompt length and the largest number of prompts. A case of the stages is also
the way that post-training is run on it: number of prompts, thinking steps, optimiser steps, and a dense or a
verifiable reward; its shift lies in the first ``rank`` coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import expm

from datadose.covariance import Array, rotated
from datadose.planner import ErrorModel, Plan, PostTraining, plan, stage_problem
from datadose.planner.dynamics import Reward
from datadose.planner.stage_choice import Forecast, Stage, forecast_stages
from datadose.shift import Shift
from datadose.theory.outcome import adaptation_radius
from datadose.theory.pretraining import gamma0, pretrained_operator
from datadose.theory.source import Source

COMBINATIONS = 16
"""Rewards (2) times thinking steps (1 to 4) times lengths (short, long) that the forecasts go through."""
_STREAM = 7001
"""The stream of the shifts of the dose: apart from those of prompts under the same seed."""
_DENSE_TURNS = (3, 4)
"""Of six turns through the combinations these two have dense covariances."""


@dataclass(frozen=True)
class DoseProblem:
    """A shift with the paper's allocation, the prompt length and the largest B."""

    shift: Shift
    length: int
    max_prompts: int
    interference: float
    is_dense: bool


def random_shift(index: int, dimensions: tuple[int, int] = (60, 120)) -> DoseProblem:
    """The random shift of this index, a pure function of it.

    Log-normal spectra of Sigma0 (rarer by a factor of .03 to .5 on the shift) and of Delta, which has rank
    .1 d to .6 d; every fourth shift is dense, with Delta turned against Sigma0 by a random rotation of
    random size.
    """
    rng = np.random.default_rng(np.random.SeedSequence(index, spawn_key=(_STREAM,)))

    d = int(rng.integers(dimensions[0], dimensions[1] + 1))
    inside = np.arange(d) < max(1, round(rng.uniform(0.1, 0.6) * d))
    sigma0 = _rarer(rng, inside, 0.5)
    delta: Array = np.where(inside, _log_uniform(rng, 0.3, 2.0) * np.exp(0.5 * rng.standard_normal(d)), 0.0)
    interference = 0.0 if rng.random() < 0.3 else _log_uniform(rng, 0.003, 0.3)
    eta, length = rng.uniform(0.1, 0.5), max(1, round(_log_uniform(rng, 0.5, 6.0) * d))
    is_dense = index % 4 == 3
    if is_dense:
        common = np.linalg.qr(rng.standard_normal((d, d)))[0]
        G = rng.standard_normal((d, d))
        turned = common @ expm(rng.uniform(0.1, 1.5) * (G - G.T) / np.linalg.norm(G - G.T, 2))
        sigma0, delta = _symmetric(sigma0, common), _symmetric(delta, turned)
    return DoseProblem(Shift.aligned(sigma0, delta, eta, interference), length, 4 * d, interference, is_dense)


@dataclass(frozen=True)
class Case:
    """A shift and how post-training is run on it."""

    shift: Shift
    rank: int
    length: int
    max_prompts: int
    training: PostTraining
    demonstrations: int | None = None
    """How many may be taken, where that is not as many as there are prompts for RL."""

    @property
    def inside(self) -> Any:
        """The directions that the shift moves, a mask (d,)."""
        return np.arange(self.shift.dimension) < self.rank

    def plan(self) -> Plan:
        """The planner's answer."""
        most, prompts = self.demonstrations or self.max_prompts, self.max_prompts
        return plan(
            self.shift, length=self.length, max_prompts=most, rl_prompts=prompts, training=self.training
        )

    def forecasts(self, demonstrations: int) -> dict[Stage, Forecast]:
        """The forecasts of the stages by the formulas, also where the plan withholds it."""
        shift = self.shift
        V0 = pretrained_operator(shift.sigma0, self.length)
        model = ErrorModel(V0, shift.eta, shift.target, self.length, self.training.chain_steps)
        columns = [model.columns(Source(shift.data, self.length, demonstrations))]
        ground, columns = stage_problem(shift, model, columns, self.training)
        return {found.stage: found for found in forecast_stages(ground, columns, self.max_prompts)}


def random_case(dimension: int, index: int) -> Case:
    """Case number ``index`` of those that the choice of stage is judged by."""
    rng = np.random.default_rng([20_260_301, index])
    d = dimension
    m = int(rng.integers(max(1, d // 10), d // 2))
    inside = np.arange(d) < m
    n, prompts = int(_log_uniform(rng, 2 * d, 20 * d)), int(_log_uniform(rng, d, 20 * d))
    sigma0 = _rarer(rng, inside, 0.3)
    radius = _log_uniform(rng, 0.3, 5.0)
    delta = np.where(inside, radius * gamma0(sigma0, n) * np.exp(rng.uniform(-0.5, 0.0, d)), 0.0)
    interference = float(rng.choice([0.0, 0.01, 0.03, 0.1]))
    k, steps = int(rng.choice([1, 1, 2, 3])), int(_log_uniform(rng, 50, 800))
    reward: Reward = "dense" if index % 2 == 0 else "verifiable"
    shift = Shift.aligned(sigma0, delta, 0.2, interference)
    return Case(shift, m, n, prompts, PostTraining(k, steps, reward))


def forecast_case(index: int) -> Case:
    """Case number ``index`` of those that the forecasts are judged by.

    The first 16 go through all combinations of reward (fastest), thinking steps 1 to 4, and short (d to 2d)
    or long (8d to 12d) prompts, and so on in turns; of six turns two have dense covariances that do not
    commute. The rest is random: d from 20 to 32, rank d/10 to d/2, radius .3 to 5, d to 10d prompts of RL, at
    most 3 to 10d demonstrations, 50 to 800 steps, tolerance .4 to 1.
    """
    rng = np.random.default_rng([20_260_303, index])
    place, turn = index % COMBINATIONS, index // COMBINATIONS
    reward: Reward = "dense" if place % 2 == 0 else "verifiable"
    d = int(rng.integers(20, 33))
    m = int(rng.integers(d // 10, d // 2))
    inside = np.arange(d) < m
    n = int(_log_uniform(rng, d, 2 * d) if place < COMBINATIONS // 2 else _log_uniform(rng, 8 * d, 12 * d))
    prompts, steps = int(_log_uniform(rng, d, 10 * d)), int(_log_uniform(rng, 50, 800))
    sigma0 = _rarer(rng, inside, 0.3)
    delta: Array = np.where(inside, np.exp(0.3 * rng.standard_normal(d)), 0.0)
    if turn % 6 in _DENSE_TURNS:
        sigma0, delta = _turned(rng, sigma0, 0.2, d), _turned(rng, delta, 1.0, m)
    delta = delta * (_log_uniform(rng, 0.3, 5.0) / adaptation_radius(sigma0, delta, n))
    shift = Shift.aligned(sigma0, delta, 0.2, float(rng.choice([0.0, 0.01, 0.03, 0.1])))
    training = PostTraining(place // 2 % 4 + 1, steps, reward, float(rng.uniform(0.4, 1.0)))
    return Case(shift, m, n, prompts, training, int(_log_uniform(rng, 3, 10 * d)))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _rarer(rng: np.random.Generator, inside: Any, spread: float) -> Array:
    """A log-normal spectrum of Sigma0, rarer on the directions ``inside`` by a factor of .03 to .5."""
    spectrum: Array = np.exp(spread * rng.standard_normal(len(inside)))
    return spectrum * np.where(inside, _log_uniform(rng, 0.03, 0.5), 1.0)


def _symmetric(spectrum: Array, basis: Array) -> Array:
    """The matrix with this spectrum in this basis, symmetric to the last digit."""
    matrix = (basis * spectrum) @ basis.T
    return np.asarray((matrix + matrix.T) / 2)


def _turned(rng: np.random.Generator, spectrum: Array, size: float, first: int) -> Array:
    """A matrix with this spectrum in a basis whose ``first`` vectors are turned at random, by ``size``."""
    basis = np.eye(len(spectrum))
    basis[:first, :first] = np.linalg.qr(np.eye(first) + size * rng.standard_normal((first, first)))[0]
    return rotated(spectrum, basis.T)
