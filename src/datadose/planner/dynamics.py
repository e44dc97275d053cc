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

from collections.abc import Sequence
from dataclasses import dataclass
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
    trace_product,
    transpose,
)
from datadose.errors import reject, require_integer, require_number
from datadose.planner.error_model import ErrorModel
from datadose.theory.equivalent import Columns, Equivalent, deterministic_equivalent
from datadose.theory.outcome import error_factor_path, population_curvature, weighted_chi_square

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
    """

    chain_steps: int = 1
    steps: int = 1000
    reward: Reward = "dense"
    tolerance: float = 0.5
    noise: float = 0.1

    def __post_init__(self) -> None:
        require_integer("chain_steps", self.chain_steps, 1)
        require_integer("steps", self.steps, 1)
        if self.reward not in REWARDS:
            reject("reward", self.reward, " or ".join(REWARDS))
        require_number("tolerance", self.tolerance, 0, np.inf, open_ends=True)
        require_number("noise", self.noise, 0, np.inf, open_ends=True)


@dataclass(frozen=True)
class State:
    """A model on its way: the mean operator and what prompts left uncertain about it."""

    operator: Array
    spread: Equivalent | None = None
    """The equivalent of the stage that led here, for the variance around the mean."""

    def variance(self, M: Array) -> float:
        """E tr((V - Vbar) M (V - Vbar)^T), not divided by d."""
        return 0.0 if self.spread is None else self.spread.variance(M)


def descent_ridge(columns: Sequence[Columns], steps: int) -> float:
    """The ridge that T steps of gradient descent at half of the largest stable step amount to.

    Descent on ||V Phi + eta Omega||^2 at step 1/lambda_max(Phi Phi^T) for T steps: lambda_max / T, with
    lambda_max = B lambda_1(C) (1 + sqrt(tr C / (lambda_1(C) B)))^2, the edge of a sample of B columns of mean
    second moment C.
    """
    B = sum(c.count for c in columns)
    C = plus(*(c.count / B * c.second_moment for c in columns))
    largest = float(C.max() if is_spectrum(C) else np.linalg.eigvalsh(C)[-1])
    return float(B * largest * (1 + np.sqrt(trace(C) / (largest * B))) ** 2 / steps)


@dataclass(frozen=True)
class Ground:
    """What all stages share: the error model (V0, Sigma, E[S^2]), Delta's directions, the recipe."""

    model: ErrorModel
    judged: Array
    """Directions that a verifiable reward judges: an orthonormal basis (d, m), or a 0/1 spectrum (d,)."""
    training: PostTraining

    @property
    def count(self) -> int:
        """m, how many directions are judged."""
        return int(self.judged.sum()) if is_spectrum(self.judged) else self.judged.shape[1]

    def within(self, M: Array) -> Array:
        """A matrix restricted to the judged directions: (m,) or (m, m)."""
        if is_spectrum(self.judged):
            inside = self.judged > 0
            return M[inside] if is_spectrum(M) else M[np.ix_(inside, inside)]
        return self.judged.T @ dense(M) @ self.judged

    def error(self, state: State) -> float:
        """One-step post-test error / d of a state (Prop 5.1)."""
        M, V, d = self.model.test_second_moment, state.operator, len(self.model.target)
        quadratic = trace_product(product(V, M), transpose(V)) + state.variance(M)
        return 1 + (2 * trace_product(V, self.model.target) + quadratic) / d

    def pass_rate(self, state: State) -> float:
        """The share of answers that a verifiable reward accepts, on the target's prompts.

        The answer's error is taken as Gaussian with its covariance over prompts and weights: exact for one
        thinking step, to order 1/n for more.
        """
        covariance = _answer_covariance(state.operator, self.model, self.training.chain_steps)
        inside = self.within(covariance)
        values = inside if is_spectrum(inside) else np.linalg.eigvalsh(inside)
        spread = state.variance(self.model.test_second_moment) / len(self.model.target)
        values = np.maximum(values, 0) + spread + self.training.noise**2
        return weighted_chi_square(values, self.training.tolerance**2 * self.count)


def _answer_covariance(V: Array, model: ErrorModel, k: int) -> Array:
    """E[M^k (M^k)^T], M = I + V S: the covariance of w* - what_k over prompts.

    With M0 = I + V Sigma and X = S - Sigma, M^k = M0^k + sum_i M0^i V X M0^{k-1-i} + ..., and
    E[X A X] = (E[S A S] - Sigma A Sigma) = (Sigma A^T Sigma + tr(A Sigma) Sigma) / n.
    """
    sigma, step = model.target, plus(identity_like(V), product(V, model.target))
    # (Sigma^2 + tr(Sigma) Sigma) / n, so that n need not be known.
    excess = plus(model.test_second_moment, -product(sigma, sigma))
    per_length = trace(excess) / (trace(product(sigma, sigma)) + trace(sigma) ** 2)
    powers = [identity_like(V)]
    for _ in range(k):
        powers.append(product(powers[-1], step))
    total = product(powers[k], transpose(powers[k]))
    for i in range(k):
        for j in range(k):
            A = product(powers[k - 1 - i], transpose(powers[k - 1 - j]))
            moved = plus(product(sigma, transpose(A), sigma), trace_product(A, sigma) * sigma)
            left, right = product(powers[i], V), product(powers[j], V)
            total = plus(total, per_length * product(left, moved, transpose(right)))
    return total


def after_sft(ground: Ground, columns: Sequence[Columns], steps: int) -> State:
    """The state after ``steps`` steps of SFT on ``columns``, which hold their counts."""
    if not sum(c.count for c in columns):
        return State(ground.model.V0)
    ridge = descent_ridge(columns, steps)
    found = deterministic_equivalent(ground.model.V0, ground.model.eta, columns, ridge=ridge)
    return State(found.mean, found)


def after_outcome(
    ground: Ground, start: State, prompts: int, steps: int, curvature: float | None = None
) -> tuple[State, float]:
    """The state after ``steps`` steps of outcome supervision on target prompts, and its predicted error / d.

    What ``start`` is uncertain about decays as its mean does (for one thinking step; for more it is left
    out). ``curvature`` is :func:`start_curvature` of the start, if it is known.
    """
    model = ground.model
    columns = Columns(prompts, model.test_second_moment, model.target)
    ridge = descent_ridge([columns], steps)
    found = deterministic_equivalent(start.operator, 1.0, [columns], ridge=ridge)
    state = State(found.mean, found)
    error = ground.error(state)
    error += _inherited(start, found, ridge, model.test_second_moment) / len(model.target)
    if ground.training.chain_steps > 1:
        if curvature is None:
            curvature = start_curvature(ground, start.operator)
        moved = _long_prompt_path(ground, start.operator, steps / curvature)
        many = Columns(1e9 * prompts, columns.second_moment, columns.cross)
        unlimited = deterministic_equivalent(start.operator, 1.0, [many], ridge=1e9 * ridge)
        error += ground.error(State(moved)) - ground.error(State(unlimited.mean))
        state = State(moved, found)
    return state, error


def start_curvature(ground: Ground, V0: Array) -> float:
    """The largest curvature of L_OS at V0 for long prompts: exact with spectra, else App. E's bound."""
    sigma, k = ground.model.target, ground.training.chain_steps
    if is_spectrum(V0) and is_spectrum(sigma):
        return float(max(population_curvature(V0, sigma, k)[1], 1e-300))
    norm = float(np.linalg.norm(dense(plus(identity_like(V0), product(V0, sigma))), 2))
    largest = float(sigma.max() if is_spectrum(sigma) else np.linalg.eigvalsh(sigma)[-1])
    return float(k * (2 * k - 1) * max(norm, 1e-3) ** (2 * k - 2) * largest**2)


def _inherited(start: State, found: Equivalent, ridge: float, M: Array) -> float:
    """What the start's uncertainty adds: the part of the ridge error that is quadratic in V0."""
    if start.spread is None:
        return 0.0
    R = found.resolvent
    kept = start.variance(product(R, M, R))
    for kappa, C in zip(found.leverages(M), found.features.moments, strict=True):
        kept += kappa * start.variance(product(R, C, R))
    return float(ridge**2 * kept)


def _long_prompt_path(ground: Ground, V0: Array, time: float) -> Array:
    """V after gradient flow on the k-step outcome loss for B, n -> infinity.

    With spectra in closed form, otherwise dV/dt = -sum_j (M^T)^j M^k (M^T)^{k-1-j} Sigma is integrated.
    """
    sigma, k = ground.model.target, ground.training.chain_steps
    if is_spectrum(V0) and is_spectrum(sigma):
        u0 = 1 + V0 * sigma
        change = error_factor_path(u0, sigma, k, time) - u0
        return V0 + np.divide(change, sigma, out=np.zeros_like(change), where=sigma > 0)
    V0 = dense(V0)
    d, eye = len(V0), np.eye(len(V0))

    def flow(_: float, flat: Array) -> Array:
        M = eye + product(flat.reshape(d, d), sigma)
        powers = [eye]
        for _step in range(k):
            powers.append(powers[-1] @ M)
        pulls = (powers[j].T @ powers[k] @ powers[k - 1 - j].T for j in range(k))
        return -product(sum(pulls, np.zeros((d, d))), sigma).ravel()

    found = solve_ivp(flow, (0, time), V0.ravel(), method="RK23", rtol=1e-2, atol=1e-3)
    return np.asarray(found.y[:, -1].reshape(d, d))
