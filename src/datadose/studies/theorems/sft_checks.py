"""Numerical checks of the theorems and propositions on SFT, one function a check.

Each check draws its own instance from its seed, measures with a method independent of the formula under
test (minimisation, gradient descent, Monte Carlo), and returns named numbers, which the claims turn into
verdicts. Sizes are small because the statements are exact at any size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from scipy.optimize import least_squares, minimize

from datadose.covariance import Array
from datadose.prompts import draw_moments, draw_prompts, draw_wishart
from datadose.shift import Shift
from datadose.theory.post_test import post_test_error
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.sft import (
    GradientDescent,
    attention_gradient_at_minimiser,
    chain_residuals,
    population_minimiser,
    sft_gradient,
    sft_minimiser,
)

Statistic: TypeAlias = (
    Literal["extrapolated_gap", "gap", "gap_ratio"]
    | Literal["attention_gradient", "loss_decrease", "error_change"]
    | Literal["iterate_gap_balanced", "iterate_gap_large", "rate_excess_balanced", "rate_excess_large"]
    | Literal["simplified_rate_gap", "growth_past_largest_step"]
    | Literal["limit_gap", "speed_up", "speed_up_predicted", "slow_down", "slow_down_predicted"]
    | Literal["slope", "relative_gap", "ratio", "ratio_last_line", "excess_moderate", "excess_long"]
    | Literal["operator_gap", "loss_gap", "gradient_gap", "factor_gap", "moved", "zero_loss"]
    | Literal["scaled_printed_over_curvature", "scaled_printed_over_curvature_predicted"]
    | Literal["scaled_curvature_over_proven"]
    | Literal["zero_loss_printed_over_curvature", "zero_loss_curvature_over_proven"]
)
"""What the checks measure."""
Check: TypeAlias = Callable[[int], dict[Statistic, float]]
"""Measures what it is named for on the instance of a seed."""


def random_shift(dimension: int, seed: int, eta: float = 0.3) -> Shift:
    """A dense shift with no two covariances commuting: Wishart Sigma0 and A, Delta of rank d/3."""
    rng = np.random.default_rng([seed, 17])

    def psd(rank: int) -> Array:
        G = rng.standard_normal((dimension, rank))
        return np.asarray(G @ G.T / rank)

    return Shift(psd(2 * dimension), psd(max(1, dimension // 3)), psd(2 * dimension), eta)


def _joint_minimum(
    V0: Array, weights: Array, S: Array, eta: float, steps: int, pull: float, start: Array
) -> tuple[Array, Array, float]:
    """Minimise L_SFT + pull/2 (||V - V0||^2 + ||W - I||^2) over both; returns V, W, L_SFT."""
    d, B = weights.shape

    def residuals(x: Array) -> Array:
        V, W = x.reshape(2, d, d)
        fit = chain_residuals(V, W, weights, S, eta, steps).ravel() / np.sqrt(B)
        anchor = np.sqrt(pull) * np.concatenate([(V - V0).ravel(), (W - np.eye(d)).ravel()])
        return np.concatenate([fit, anchor])

    found = least_squares(residuals, start.ravel(), jac="cs", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    V, W = found.x.reshape(2, d, d)
    loss = float((chain_residuals(V, W, weights, S, eta, steps) ** 2).sum() / (2 * B))
    return V, W, loss


def check_interpolation(seed: int) -> dict[Statistic, float]:
    """Thm 4.1, B <= rank: distance of the regularised joint minimum from (V*, I) as the pull vanishes."""
    d, n, B, k = 6, 15, 4, 3
    shift = random_shift(d, seed)
    prompts = draw_prompts(shift.data, n, B, seed=seed)
    moments, S = prompts.moments, prompts.covariances
    V0 = pretrained_operator(shift.sigma0, n)
    V_star = sft_minimiser(moments, shift.eta, V0)
    travelled = np.linalg.norm(V_star - V0)
    limit = np.stack([V_star, np.eye(d)])
    start, found = np.stack([V0, np.eye(d)]), {}
    for pull in (1e-3, 1e-5, 1e-7, 1e-8, 1e-9):
        V, W, _ = _joint_minimum(V0, moments.weights, S, shift.eta, k, pull, start)
        found[pull] = start = np.stack([V, W])
    # The minimum is smooth in the pull, so one step of Richardson leaves an error of its square.
    extrapolated = (10 * found[1e-9] - found[1e-8]) / 9
    gap = {pull: float(np.linalg.norm(x - limit) / travelled) for pull, x in found.items()}
    return {
        "extrapolated_gap": float(np.linalg.norm(extrapolated - limit) / travelled),
        "gap": gap[1e-9],
        "gap_ratio": gap[1e-9] / gap[1e-8],
    }


def check_overdetermined(seed: int) -> dict[Statistic, float]:
    """Thm 4.1, B > rank: W~-gradient at (V*, I) and what joint minimisation gains there."""
    d, n, B, k = 6, 15, 24, 3
    shift = random_shift(d, seed)
    prompts = draw_prompts(shift.data, n, B, seed=seed)
    moments, S = prompts.moments, prompts.covariances
    V0 = pretrained_operator(shift.sigma0, n)
    V_star = sft_minimiser(moments, shift.eta, V0)
    start = np.stack([V_star, np.eye(d)])
    unmoved = chain_residuals(V_star, np.eye(d), moments.weights, S, shift.eta, k)
    before = float((unmoved**2).sum() / (2 * B))
    V, _, after = _joint_minimum(V0, moments.weights, S, shift.eta, k, 0.0, start)
    gradient = attention_gradient_at_minimiser(V_star, moments.weights, S, shift.eta, k)
    errors = [post_test_error(X, shift.target, n) for X in (V_star, V)]
    return {
        "attention_gradient": float(np.linalg.norm(gradient)),
        "loss_decrease": 1 - after / before,
        "error_change": errors[1] / errors[0] - 1,
    }


def check_gradient_descent(seed: int) -> dict[Statistic, float]:
    """Thm 4.2: plain gradient descent against the closed-form iterates, the rate and the largest step."""
    d, n, k = 12, 30, 4
    B = (8, 30)[seed % 2]
    shift = random_shift(d, seed)
    moments = draw_moments(shift.data, n, B, seed=seed)
    V0 = pretrained_operator(shift.sigma0, n)
    theory = GradientDescent.of(moments, shift.eta, V0, k)
    steps: tuple[tuple[Statistic, Statistic, float], ...] = (
        ("iterate_gap_balanced", "rate_excess_balanced", theory.balanced_step),
        ("iterate_gap_large", "rate_excess_large", 0.98 * theory.largest_step),
    )
    out: dict[Statistic, float] = {}
    for iterate_gap, rate_excess, step in steps:
        V, gap, worst = V0.copy(), [], 0.0
        for t in range(1, 301):
            V = V - step * sft_gradient(V, moments, shift.eta, k)
            gap.append(np.linalg.norm(V - theory.minimiser))
            if t in (1, 10, 300):
                exact = theory.iterate(step, t)
                worst = max(worst, float(np.linalg.norm(V - exact) / np.linalg.norm(exact)))
        out[iterate_gap] = worst
        # Ratios of gaps are rounding noise once the gap is.
        usable = np.array(gap)[np.array(gap) > 1e-9 * gap[0]]
        out[rate_excess] = float((usable[1:] / usable[:-1]).max() - theory.rate(step))
    gain = 1 - theory.eigenvalues.min() / theory.eigenvalues.max()
    out["simplified_rate_gap"] = abs(theory.rate(theory.balanced_step) - gain)
    V = V0.copy()
    for _ in range(2000):
        V = V - 1.05 * theory.largest_step * sft_gradient(V, moments, shift.eta, k)
    out["growth_past_largest_step"] = float(np.log10(np.linalg.norm(V) / np.linalg.norm(V0)))
    return out


def check_chain_length(seed: int) -> dict[Statistic, float]:
    """Remark 4.1: the limit for k = 0 and k = 8, and how many fewer iterations k = 8 needs at equal step.

    The step is that at which k = 8 is balanced; :func:`check_chain_length_at_large_step` has a larger one.
    """
    shift = random_shift(12, seed)
    moments = draw_moments(shift.data, 30, 8, seed=seed)
    V0 = pretrained_operator(shift.sigma0, 30)
    runs = [GradientDescent.of(moments, shift.eta, V0, k) for k in (0, 8)]
    step = runs[1].balanced_step
    limits, iterations = [], []
    for k, run in zip((0, 8), runs, strict=True):
        V, gap0, t = V0.copy(), np.linalg.norm(V0 - run.minimiser), 0
        while np.linalg.norm(V - run.minimiser) > 1e-6 * gap0:
            V, t = V - step * sft_gradient(V, moments, shift.eta, k), t + 1
        limits.append(V)
        iterations.append(t)
    return {
        "limit_gap": float(np.linalg.norm(limits[0] - limits[1]) / np.linalg.norm(limits[0] - V0)),
        "speed_up": iterations[0] / iterations[1],
        "speed_up_predicted": runs[1].eigenvalues.max() / runs[0].eigenvalues.max(),
    }


def check_chain_length_at_large_step(seed: int) -> dict[Statistic, float]:
    """Remark 4.1 near its own largest step: iterations of k = 8 over those of k = 0, and the rates' word.

    One prompt, so that M has one non-zero eigenvalue and no direction is slow for lack of data; the step is
    0.95 of the remark's bound 2 B (2 eta - eta^2) / lambda_max(M), which is below the largest step of any k.
    """
    shift = random_shift(12, seed)
    moments = draw_moments(shift.data, 30, 1, seed=seed)
    V0 = pretrained_operator(shift.sigma0, 30)
    runs = [GradientDescent.of(moments, shift.eta, V0, k) for k in (0, 8)]
    step = 0.95 * 2 * (2 * shift.eta - shift.eta**2) / float((moments.phi**2).sum())
    iterations = []
    for k, run in zip((0, 8), runs, strict=True):
        V, gap0, t = V0.copy(), np.linalg.norm(V0 - run.minimiser), 0
        while np.linalg.norm(V - run.minimiser) > 1e-6 * gap0:
            V, t = V - step * sft_gradient(V, moments, shift.eta, k), t + 1
        iterations.append(t)
    logs = [np.log(run.rate(step)) for run in runs]
    return {"slow_down": iterations[1] / iterations[0], "slow_down_predicted": float(logs[0] / logs[1])}


def check_population(seed: int) -> dict[Statistic, float]:
    """Prop 4.3: ||V*_B - V_inf|| against B; the slope of its logarithm should be -1/2."""
    shift = random_shift(10, seed)
    V0 = pretrained_operator(shift.sigma0, 20)
    limit = population_minimiser(shift.data, 20, shift.eta, V0)
    counts = np.array([1000, 8000, 64000])
    moments = draw_moments(shift.data, 20, int(counts[-1]), seed=seed)
    gaps = [np.linalg.norm(sft_minimiser(moments.first(int(B)), shift.eta, V0) - limit) for B in counts]
    slope = np.polyfit(np.log(counts), np.log(gaps), 1)[0]
    return {"slope": float(slope), "relative_gap": float(gaps[-1] / np.linalg.norm(limit - V0))}


def check_post_test(seed: int) -> dict[Statistic, float]:
    """Prop 5.1 against Monte Carlo over test prompts, and what the proof of Lemma A.1 ends with instead.

    Its last line doubles tr(A Sigma A^T) tr(Sigma) alone; the other half of the 1/n term stays as it is.
    """
    shift = random_shift(8, seed)
    n = 12
    V = population_minimiser(shift.data, n, shift.eta, pretrained_operator(shift.sigma0, n))
    S = draw_wishart(shift.target, n, 200_000, seed=seed)
    sample = ((np.eye(8) + V @ S) ** 2).sum(axis=(1, 2)) / 8
    exact = post_test_error(V, shift.target, n)
    last_line = exact + float(np.trace(V @ shift.target @ V.T) * np.trace(shift.target)) / (n * 8)
    return {"ratio": float(sample.mean() / exact), "ratio_last_line": float(sample.mean() / last_line)}


def check_allocation(seed: int) -> dict[Statistic, float]:
    """Section 5.1: excess error of A = eta (P Sigma0 P + Delta) over the best A on range(Delta), B infinite.

    A random spectrum on a random half of the directions; the best A is found by Nelder-Mead over a common
    scale and by L-BFGS over the spectrum, at n = 100 d and n = 10000 d.
    """
    rng = np.random.default_rng([seed, 51])
    d = 10
    sigma0 = rng.uniform(0.1, 1.0, d)
    delta = np.where(np.arange(d) < d // 2, rng.uniform(0.5, 2.0, d), 0.0)
    shift = Shift.aligned(sigma0, delta, 0.2)
    inside = shift.data > 0
    lengths: tuple[tuple[Statistic, int], ...] = (("excess_moderate", 10 * d), ("excess_long", 1000 * d))
    excess: dict[Statistic, float] = {}
    for name, n in lengths:
        V0 = pretrained_operator(sigma0, n)

        def error(log_scale: Array, n: int = n, V0: Array = V0) -> float:
            data = np.where(inside, shift.data, 0.0)
            data[inside] = data[inside] * np.exp(log_scale)
            return post_test_error(population_minimiser(data, n, shift.eta, V0), shift.target, n)

        start = np.zeros(inside.sum())
        best = minimize(error, start, method="L-BFGS-B", bounds=[(-3, 3)] * len(start))
        floor = post_test_error(np.where(inside, 0.0, V0), shift.target, n) - inside.sum() / d
        excess[name] = (error(start) - best.fun) / max(best.fun - floor, 1e-300)
    return excess
