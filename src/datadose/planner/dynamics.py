"""What a stage does in T steps: states after SFT and after outcome supervision or RL.

Outcome supervision and RL take prompts of the target itself (no demonstrations are needed, only outcomes),
SFT takes the plan's data. Every stage is gradient descent for T steps at half of its largest stable step, or
at a given learning rate. With one thinking step (k = 1) the outcome loss is the SFT loss at eta = 1, so both
stages and their order have the exact theorem of :mod:`datadose.theory.training_time` behind them, at any
number and length of prompts. For k > 1 the long-prompt dynamics of section 6 take over (an approximation that
is stated in the result). A verifiable reward trains only where some answers pass: its pass rate comes from
the law of the answer's error. Derivation and validation: docs/derivations/planner.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from scipy.integrate import solve_ivp

from datadose.covariance import (
    Array,
    dense,
    identity_like,
    is_spectrum,
    plus,
    product,
    trace_product,
    transpose,
)
from datadose.errors import InputError, probability, require_choice, require_integer, require_number
from datadose.planner.answers import draw_gaps
from datadose.planner.error_model import ErrorModel
from datadose.theory.chi_square import weighted_chi_square
from datadose.theory.equivalent import Columns, Equivalent, PeakError, deterministic_equivalent
from datadose.theory.finite_size import finite_size_correction
from datadose.theory.outcome import error_factor_path, population_curvature
from datadose.theory.peaks import rank_of
from datadose.theory.sft import chain_weight
from datadose.theory.stopping import Stopping
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.training_time import Request
from datadose.theory.weighted_test import WeightedTest

Reward: TypeAlias = Literal["dense", "verifiable"]
REWARDS: tuple[Reward, ...] = ("dense", "verifiable")


@dataclass(frozen=True)
class PostTraining:
    """How post-training is run that :func:`~datadose.plan` forecasts: chains, steps and reward.

    Args:
        chain_steps: thinking steps k >= 1 of the chains in SFT, outcome supervision and RL.
        steps: optimiser steps T >= 1 of a stage (two stages share them).
        reward: ``dense`` (outcome supervision) or ``verifiable`` (0/1).
        tolerance: an answer passes if its root mean square error over the shift's directions is no larger;
            above 0.
        noise: scale sigma > 0 of the policy that RL samples from.
        samples: answers >= 1 that RL samples in a step (prompts times group size).
        learning_rate: step > 0 of gradient descent in every stage; half of the largest stable one of each
            stage unless given.

    Raises:
        InputError: a value out of range.

    Example:
        >>> from datadose import PostTraining
        >>> PostTraining(reward="verifiable", tolerance=0.3).steps
        1000
    """

    chain_steps: int = 1
    steps: int = 1000
    reward: Reward = "dense"
    tolerance: float = 0.5
    noise: float = 0.1
    samples: int = 256
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("chain_steps", "steps", "samples"):
            require_integer(name, getattr(self, name), 1)
        require_choice("reward", self.reward, REWARDS)
        for name in ("tolerance", "noise"):
            require_number(name, getattr(self, name), 0, np.inf, open_ends=True)
        if self.learning_rate is not None:
            require_number("learning_rate", self.learning_rate, 0, np.inf, open_ends=True)


@dataclass(frozen=True)
class State:
    """A model during training: the moments of its operator V, and the stage that led here."""

    model: TrainedOperator
    judged: TrainedOperator
    """The moments of P V, where P is the projector on the judged directions of the answer."""
    last: Equivalent | None = None
    """The last stage's equivalent at the penalty nearest to its steps (:meth:`Ground.correction`)."""

    @classmethod
    def fixed(cls, V: Array, judged: Array) -> State:
        """A model that is known; ``judged`` is P, (d,) or (d, d)."""
        return cls(TrainedOperator.fixed(V), TrainedOperator.fixed(product(judged, V)))

    def moved(self, V: Array, judged: Array) -> State:
        """The state with the same uncertainty around another mean ``V``."""
        return replace(self, model=_around(V, self.model), judged=_around(product(judged, V), self.judged))


def _around(V: Array, model: TrainedOperator) -> TrainedOperator:
    return TrainedOperator(V, plus(product(transpose(V), V), model.covariance), model.scatter)


@dataclass(frozen=True)
class Ground:
    """What all stages share: the error model (V0, Sigma, E[S^2]), Delta's directions, the recipe."""

    model: ErrorModel
    judged: Array
    """Directions that a verifiable reward judges: an orthonormal basis (d, m), or a 0/1 spectrum (d,)."""
    training: PostTraining
    tests: WeightedTest | None = None
    """The test of the errors in place of the target, in the same basis; RL's prompts stay the target's."""

    def within(self, M: Array) -> Array:
        """A matrix restricted to the judged directions: (m,) or (m, m)."""
        if is_spectrum(self.judged):
            inside = self.judged > 0
            return M[inside] if is_spectrum(M) else M[np.ix_(inside, inside)]
        return self.judged.T @ dense(M) @ self.judged

    @cached_property
    def projector(self) -> Array:
        """P on the judged directions, (d,) or (d, d)."""
        return self.judged if is_spectrum(self.judged) else self.judged @ self.judged.T

    @property
    def start(self) -> State:
        """The state of the pretrained model."""
        return State.fixed(self.model.V0, self.projector)

    @cached_property
    def test(self) -> WeightedTest:
        """The post-test: one prompt of the target, or of the tests in its place, one step."""
        return self.tests or WeightedTest(self.model.target, self.model.test_second_moment)

    def error(self, state: State) -> float:
        """One-step post-test error / d of a state (Prop 5.1)."""
        return self.test.error(state.model)

    def correction(self, found: Equivalent | None) -> float:
        """The O(1/d) correction to an equivalent's error, over it: how far finite sizes are from the limit.

        It is that of the target, also beside tests: it is known for one test. Zero where nothing is
        uncertain, and where the correction is not known (noisy prompts, sources on both sides of their
        peaks); infinite where peaks are on all sides.
        """
        n = self.model.test_length
        if found is None or not found.columns:
            return 0.0
        total = sum(c.count for c in found.columns)
        # Finite steps have no peak, but the correction refuses by the counts alone: then a few prompts off.
        for more in (0, 3):
            columns = tuple(replace(c, count=c.count * (1 + more / total)) for c in found.columns)
            beside = replace(found, columns=columns)
            lengths = [round(c.length) if np.isfinite(c.length) else n for c in columns]
            try:
                correction = finite_size_correction(beside, found.eta, lengths, self.model.target, n)
            except PeakError:
                continue
            except InputError:
                return 0.0
            return correction.total / found.error(self.model.target, self.model.test_second_moment)
        return np.inf

    def pass_rate(self, state: State) -> float:
        """The share of answers that a verifiable reward accepts, on the target's prompts.

        For one thinking step the answer's error is taken as Gaussian with its exact covariance over prompts
        and weights. Powers of S have tails: for more steps the rate is the mean over drawn prompts (a fixed
        seed, the same prompts for every state), with a standard error of at most .016.
        """
        k, limit = self.training.chain_steps, self.training.tolerance**2 * rank_of(self.judged)
        if k == 1:
            V, M = state.model.mean, self.model.test_second_moment
            moved = product(V, self.model.target)
            # E[(I + V S) (I + V S)^T], the covariance over prompts of the gap w* - what.
            gap = plus(identity_like(V), moved, transpose(moved), product(V, M, transpose(V)))
            inside = self.within(gap)
            values = inside if is_spectrum(inside) else np.linalg.eigvalsh(inside)
            uncertain = self._uncertain(state) + self.training.noise**2
            return weighted_chi_square(np.maximum(values, 0) + uncertain, limit)
        sigma, n = self.model.target, self.model.test_length
        draws = int(np.clip(_DRAWN_NUMBERS / len(sigma), *_DRAWS))
        gaps = draw_gaps(state.model.mean, sigma, n, k, draws, seed=0, spread=self._uncertain(state))
        inside = gaps[:, self.judged > 0] if is_spectrum(self.judged) else gaps @ self.judged
        inside = inside + self.training.noise * np.random.default_rng(0).standard_normal(inside.shape)
        return probability("a pass rate", float(((inside**2).sum(axis=1) <= limit).mean()))

    def _uncertain(self, state: State) -> float:
        """The variance that the state's uncertainty adds to each judged direction in one step, on average."""
        found = trace_product(state.judged.covariance, self.model.test_second_moment) / rank_of(self.judged)
        return max(found, 0.0)


_DRAWN_NUMBERS = 2**20
"""Entries of the drawn gaps of a pass rate, which set how many are drawn."""
_DRAWS = (1000, 4000)


_TOGETHER = 4
"""Numbers of steps that are computed at once: more are quicker, and take more memory."""


@dataclass(frozen=True)
class Descent:
    """A stage of gradient descent on all of its prompts at every step, from one of the planner's states."""

    ground: Ground
    start: State
    request: Request
    rate: float
    """The learning rate."""

    @classmethod
    def of(cls, ground: Ground, start: State, request: Request) -> Descent:
        """The stage at the plan's learning rate, or at half of its own largest stable one."""
        given = ground.training.learning_rate
        half = request.largest_rate / 2
        return cls(ground, start, request, half if given is None else given)

    @property
    def is_stable(self) -> bool:
        """Whether the learning rate is below the largest stable one, or there is nothing to fit."""
        return not self.request.columns or self.rate < self.request.largest_rate

    def after(self, steps: int) -> State:
        """The state after so many steps. Raises InputError for a learning rate that is not stable."""
        if not self.request.columns:
            return self.start
        stopping, P = Stopping(steps=steps, learning_rate=self.rate), self.ground.projector
        (model,) = self.request.fit(self.start.model).ends([stopping])
        (judged,) = self.request.fit(self.start.judged, P).ends([stopping])
        return State(model, judged, self._equivalent(steps))

    def errors(self, steps: Sequence[int]) -> list[float]:
        """The error / d after each number of steps. Raises as :meth:`after`."""
        if not self.request.columns:
            return [self.ground.error(self.start)] * len(steps)
        stoppings = [Stopping(steps=T, learning_rate=self.rate) for T in steps]
        fit, test = self.request.fit(self.start.model), self.ground.test
        parts = [stoppings[i : i + _TOGETHER] for i in range(0, len(stoppings), _TOGETHER)]
        return [test.error(model) for part in parts for model in fit.ends(part)]

    def _equivalent(self, steps: int) -> Equivalent:
        """Of a penalty that keeps what descent keeps of what moves in no, in one, and in all of the time t.

        Descent keeps e^{-x t / B} along an eigenvalue x, the penalty ridge / (x + ridge).
        """
        time = self.rate * self.request.copies * steps
        ridge = self.request.prompts / ((math.e - 1) * time)
        mean, request = self.start.model.mean, self.request
        return deterministic_equivalent(mean, request.eta, request.columns, ridge=ridge)


def sft(ground: Ground, columns: Sequence[Columns]) -> Descent:
    """The stage of SFT from the pretrained model on ``columns``, which hold their counts."""
    model = ground.model
    request = Request.on(model.eta, columns, chain_weight(model.eta, model.chain_steps))
    return Descent.of(ground, ground.start, request)


def outcome_request(model: ErrorModel, prompts: float) -> Request:
    """The fit of outcome supervision with one thinking step on ``prompts`` target prompts.

    It is that of the SFT loss at eta = 1.
    """
    columns = Columns(prompts, model.test_second_moment, model.target, length=model.test_length)
    return Request.on(1.0, [columns], 1.0)


def outcome(ground: Ground, start: State, request: Request) -> Descent:
    """The stage of outcome supervision from ``start`` on the prompts of :func:`outcome_request`.

    It is exact for one thinking step. For more it represents the cost of few prompts; a given learning rate
    is then that of the longer chain, so half of the stable one of one step is taken.
    """
    if ground.training.chain_steps > 1:
        return Descent(ground, start, request, request.largest_rate / 2)
    return Descent.of(ground, start, request)


def after_outcome(ground: Ground, stage: Descent, steps: int) -> tuple[State, float]:
    """The state after ``steps`` steps of the stage of :func:`outcome`, and its predicted error / d.

    For more than one thinking step the mean is that of long prompts, and the effect of few prompts is taken
    from one thinking step.
    """
    state, start, P = stage.after(steps), stage.start.model.mean, ground.projector
    error = ground.error(state)
    if ground.training.chain_steps > 1:
        moved = long_prompt_operator(ground, start, steps)
        many = outcome_request(ground.model, _MANY * stage.request.prompts)
        unlimited = Descent(ground, State.fixed(start, P), many, stage.rate)
        error += ground.error(State.fixed(moved, P)) - unlimited.errors([steps])[0]
        state = state.moved(moved, P)
    return state, error


_MANY = 1e9
"""This multiple of the prompts represents unlimited ones."""


def start_curvature(V0: Array, sigma: Array, k: int) -> float:
    """The largest curvature of the k-step L_OS at V0 for many long prompts of the target covariance sigma.

    Exact with spectra, else App. E's bound.
    """
    if is_spectrum(V0) and is_spectrum(sigma):
        return float(max(population_curvature(V0, sigma, k)[1], 1e-300))
    norm = float(np.linalg.norm(dense(plus(identity_like(V0), product(V0, sigma))), 2))
    largest = float(sigma.max() if is_spectrum(sigma) else np.linalg.eigvalsh(sigma)[-1])
    return float(k * (2 * k - 1) * max(norm, 1e-3) ** (2 * k - 2) * largest**2)


def long_prompt_operator(ground: Ground, V0: Array, steps: int) -> Array:
    """The operator V after ``steps`` steps of descent on the k-step outcome loss, for B, n -> infinity.

    It is that of gradient flow from ``V0`` for the time steps / :func:`start_curvature`. With spectra it has
    a closed form; otherwise dV/dt = -sum_j (M^T)^j M^k (M^T)^{k-1-j} Sigma is integrated.
    """
    sigma, k = ground.model.target, ground.training.chain_steps
    given = ground.training.learning_rate
    time = steps / start_curvature(V0, sigma, k) if given is None else steps * given
    if is_spectrum(V0) and is_spectrum(sigma):
        u0 = 1 + V0 * sigma
        change = error_factor_path(u0, sigma, k, time) - u0
        return V0 + np.divide(change, sigma, out=np.zeros_like(change), where=sigma > 0)
    V0 = dense(V0)
    d, eye = len(V0), np.eye(len(V0))

    def flow(_: float, flat: Array) -> Array:
        M = eye + product(flat.reshape(d, d), sigma)
        top = np.linalg.matrix_power(M, k)
        # sum_j (M^T)^j M^k (M^T)^{k-1-j} by Horner's rule from both sides.
        total, right = top, top
        for _step in range(k - 1):
            right = right @ M.T
            total = M.T @ total + right
        return -product(total, sigma).ravel()

    # A trial step that is too long overflows; the solver then takes a shorter one.
    with np.errstate(over="ignore", invalid="ignore"):
        found = solve_ivp(flow, (0, time), V0.ravel(), "RK23", t_eval=[time], rtol=1e-2, atol=1e-3)
    return np.asarray(found.y.reshape(d, d))
