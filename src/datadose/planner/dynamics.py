"""What a stage does in T steps, in closed form: states after SFT and after outcome supervision or RL.

Outcome supervision and RL take prompts of the target itself (no demonstrations are needed, only outcomes),
SFT takes the plan's data. Every stage is gradient descent from the pretrained model for T steps at half of
its largest stable step. With one thinking step (k = 1) the outcome loss is the SFT loss at eta = 1, and
descent for a time t is, nearly, a ridge of 1/t: both stages then have the exact theorem behind them, at any
number and length of prompts. For k > 1 the long-prompt dynamics of section 6 take over (an approximation that
is stated in the result). A verifiable reward teaches only where it is paid: its pass rate comes from the law
of the answer's error. Derivation and validation: docs/derivations/planner.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    trace,
    transpose,
)
from datadose.errors import InputError, probability, reject, require_integer, require_number
from datadose.planner.answers import draw_gaps
from datadose.planner.error_model import ErrorModel
from datadose.theory.chi_square import weighted_chi_square
from datadose.theory.equivalent import Columns, Equivalent, PeakError, deterministic_equivalent
from datadose.theory.finite_size import finite_size_correction
from datadose.theory.outcome import error_factor_path, population_curvature
from datadose.theory.peaks import rank_of
from datadose.theory.post_test import quadratic_error

Reward: TypeAlias = Literal["dense", "verifiable"]
REWARDS: tuple[Reward, ...] = ("dense", "verifiable")


@dataclass(frozen=True)
class PostTraining:
    """How post-training is run.

    Args:
        chain_steps: thinking steps k of outcome supervision and RL.
        steps: optimiser steps T of a stage (two stages share them).
        reward: ``dense`` (outcome supervision) or ``verifiable`` (0/1).
        tolerance: an answer passes if its root mean square error over the shift's directions is no larger.
        noise: the policy's scale sigma.
        samples: answers that RL samples in a step (prompts times group size).
    """

    chain_steps: int = 1
    steps: int = 1000
    reward: Reward = "dense"
    tolerance: float = 0.5
    noise: float = 0.1
    samples: int = 256

    def __post_init__(self) -> None:
        for name in ("chain_steps", "steps", "samples"):
            require_integer(name, getattr(self, name), 1)
        if self.reward not in REWARDS:
            reject("reward", self.reward, " or ".join(REWARDS))
        for name in ("tolerance", "noise"):
            require_number(name, getattr(self, name), 0, np.inf, open_ends=True)


@dataclass(frozen=True)
class State:
    """A model on its way: the mean operator and what prompts left uncertain about it."""

    operator: Array
    spread: Equivalent | None = None
    """The equivalent of the stage that led here, for the variance around the mean."""
    before: State | None = None
    """Where that stage started, if that was uncertain too."""
    ridge: float = 0.0
    """The ridge of that stage: ridge V0 R is what it keeps of its start V0."""

    def variance(self, M: Array, rows: Array | None = None) -> float:
        """E tr((V - Vbar) M (V - Vbar)^T), not divided by d; over the answer's ``rows`` if given.

        The stage's own, and what is left of its start's,
        ridge^2 tr[D(R M R) + sum_c kappa_c(M) D(R C_c R)].
        """
        if self.spread is None:
            return 0.0
        total = self.spread.variance(M, rows)
        if self.before is not None and self.before.spread is not None:
            R = self.spread.resolvent
            kept = self.before.variance(product(R, M, R), rows)
            for kappa, C in zip(self.spread.leverages(M), self.spread.features.moments, strict=True):
                kept += kappa * self.before.variance(product(R, C, R), rows)
            total += float(self.ridge**2 * kept)
        return total


def descent_ridge(columns: Sequence[Columns], steps: int) -> float:
    """The ridge that T steps of gradient descent at half of the largest stable step amount to.

    Descent on ||V Phi + eta Omega||^2 / 2 at step 1/lambda_max(Phi Phi^T) keeps e^{-x} of an eigenvalue mu,
    x = T mu / lambda_max; a ridge keeps 1 / (1 + mu / ridge). The two agree at x = 0, 1 and infinity for
    ridge = lambda_max / ((e - 1) T), with lambda_max of :func:`sample_edge`.
    """
    return sample_edge(columns) / ((math.e - 1) * steps)


def sample_edge(columns: Sequence[Columns]) -> float:
    """lambda_max(Phi Phi^T) for B columns of mean second moment C.

    B lambda_1(C) (1 + sqrt(tr C / (lambda_1(C) B)))^2: exact for white C in the proportional limit.
    """
    B = sum(c.count for c in columns)
    C = plus(*(c.count / B * c.second_moment for c in columns))
    largest = float(C.max() if is_spectrum(C) else np.linalg.eigvalsh(C)[-1])
    return float(B * largest * (1 + np.sqrt(trace(C) / (largest * B))) ** 2)


@dataclass(frozen=True)
class Ground:
    """What all stages share: the error model (V0, Sigma, E[S^2]), Delta's directions, the recipe."""

    model: ErrorModel
    judged: Array
    """Directions that a verifiable reward judges: an orthonormal basis (d, m), or a 0/1 spectrum (d,)."""
    training: PostTraining

    def within(self, M: Array) -> Array:
        """A matrix restricted to the judged directions: (m,) or (m, m)."""
        if is_spectrum(self.judged):
            inside = self.judged > 0
            return M[inside] if is_spectrum(M) else M[np.ix_(inside, inside)]
        return self.judged.T @ dense(M) @ self.judged

    def error(self, state: State) -> float:
        """One-step post-test error / d of a state (Prop 5.1)."""
        M, target = self.model.test_second_moment, self.model.target
        return quadratic_error(state.operator, target, M) + state.variance(M) / len(target)

    def correction(self, state: State) -> float:
        """The O(1/d) correction to :meth:`error`, over it: how far finite sizes are from the asymptotics.

        Zero where nothing is uncertain, and where the correction is not known (noisy prompts, sources on both
        sides of their peaks); infinite where peaks are on all sides.
        """
        found, n = state.spread, self.model.test_length
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
            return correction.total / self.error(state)
        return np.inf

    def pass_rate(self, state: State) -> float:
        """The share of answers that a verifiable reward accepts, on the target's prompts.

        For one thinking step the answer's error is taken as Gaussian with its exact covariance over prompts
        and weights. Powers of S have tails: for more steps the rate is the mean over drawn prompts (a fixed
        seed, the same prompts for every state), with a standard error of at most .016.
        """
        k, limit = self.training.chain_steps, self.training.tolerance**2 * rank_of(self.judged)
        if k == 1:
            V, M = state.operator, self.model.test_second_moment
            moved = product(V, self.model.target)
            # E[(I + V S) (I + V S)^T], the covariance over prompts of the gap w* - what.
            gap = plus(identity_like(V), moved, transpose(moved), product(V, M, transpose(V)))
            inside = self.within(gap)
            values = inside if is_spectrum(inside) else np.linalg.eigvalsh(inside)
            uncertain = self._uncertain(state) + self.training.noise**2
            return weighted_chi_square(np.maximum(values, 0) + uncertain, limit)
        sigma, n = self.model.target, self.model.test_length
        draws = int(np.clip(_DRAWN_NUMBERS / len(sigma), *_DRAWS))
        gaps = draw_gaps(state.operator, sigma, n, k, draws, seed=0, spread=self._uncertain(state))
        inside = gaps[:, self.judged > 0] if is_spectrum(self.judged) else gaps @ self.judged
        inside = inside + self.training.noise * np.random.default_rng(0).standard_normal(inside.shape)
        return probability("a pass rate", float(((inside**2).sum(axis=1) <= limit).mean()))

    def _uncertain(self, state: State) -> float:
        """The variance that the state's uncertainty adds to each judged direction in one step, on average."""
        return state.variance(self.model.test_second_moment, self.judged) / rank_of(self.judged)


_DRAWN_NUMBERS = 2**20
"""Entries of the drawn gaps of a pass rate, which set how many are drawn."""
_DRAWS = (1000, 4000)


def after_sft(ground: Ground, columns: Sequence[Columns], steps: int) -> State:
    """The state after ``steps`` steps of SFT on ``columns``, which hold their counts."""
    if not sum(c.count for c in columns):
        return State(ground.model.V0)
    ridge = descent_ridge(columns, steps)
    found = deterministic_equivalent(ground.model.V0, ground.model.eta, columns, ridge=ridge)
    return State(found.mean, found)


def after_outcome(ground: Ground, start: State, prompts: int, steps: int) -> tuple[State, float]:
    """The state after ``steps`` steps of outcome supervision on target prompts, and its predicted error / d.

    What ``start`` is uncertain about decays as its mean does (for one thinking step; for more it is left
    out).
    """
    model = ground.model
    columns = Columns(prompts, model.test_second_moment, model.target)
    ridge = descent_ridge([columns], steps)
    found = deterministic_equivalent(start.operator, 1.0, [columns], ridge=ridge)
    state = State(found.mean, found, start, ridge)
    error = ground.error(state)
    if ground.training.chain_steps > 1:
        moved = long_prompt_operator(ground, start.operator, steps)
        many = Columns(1e9 * prompts, columns.second_moment, columns.cross)
        unlimited = deterministic_equivalent(start.operator, 1.0, [many], ridge=1e9 * ridge)
        error += ground.error(State(moved)) - ground.error(State(unlimited.mean))
        state = State(moved, found)
    return state, error


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
    """V after ``steps`` steps of descent on the k-step outcome loss, B, n -> infinity.

    Gradient flow for the time steps / :func:`start_curvature`: in closed form with spectra, otherwise
    dV/dt = -sum_j (M^T)^j M^k (M^T)^{k-1-j} Sigma is integrated.
    """
    sigma, k = ground.model.target, ground.training.chain_steps
    time = steps / start_curvature(V0, sigma, k)
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
