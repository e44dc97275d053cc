"""Claims on the theorems of SFT: judged from the numerical checks and from the theory itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from datadose.covariance import Array
from datadose.shift import Shift
from datadose.studies.ledger import judge_mean, judge_settings, judge_worst
from datadose.studies.study import Claim, Judgement, Saved, Verdict
from datadose.theory.asymptotics import Source, first_order_error, first_order_limits
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.printed import Blocks, printed_error


def values_of(saved: Saved[Any], check: str, statistic: str) -> Array:
    """The values of one statistic of one check, one per seed."""
    table = saved.table
    chosen = table[(table["check"] == check) & (table["statistic"] == statistic)]
    return np.asarray(chosen["value"], dtype=np.float64)


def worst_of(check: str, *statistics: str) -> Callable[[Saved[Any], float], Judgement]:
    """A judge of identities: the largest of several statistics of a check, over all seeds."""

    def judge(saved: Saved[Any], threshold: float) -> Judgement:
        values = np.max([values_of(saved, check, name) for name in statistics], axis=0)
        return judge_worst(values, threshold)

    return judge


def _overdetermined(saved: Saved[Any], threshold: float) -> Judgement:
    gain = values_of(saved, "overdetermined", "loss_decrease")
    gradient = values_of(saved, "overdetermined", "attention_gradient")
    change = values_of(saved, "overdetermined", "error_change")
    note = (
        f"the W~-gradient at (V*, I) has norm {gradient.min():.2g} to {gradient.max():.2g}; joint "
        f"minimisation changes the test error by {change.min():+.1%} to {change.max():+.1%}"
    )
    return judge_mean(gain, threshold, note=note)


def _remark_41(saved: Saved[Any], threshold: float) -> Judgement:
    gained = values_of(saved, "chain_length", "speed_up")
    predicted = values_of(saved, "chain_length", "speed_up_predicted")
    values = np.maximum(values_of(saved, "chain_length", "limit_gap"), np.abs(gained / predicted - 1) / 100)
    note = (
        f"k = 8 needs {gained.mean():.3f} times fewer iterations than k = 0; c_8/c_0 = {predicted.mean():.3f}"
    )
    return judge_worst(values, threshold, note=note)


def _large_step(saved: Saved[Any], threshold: float) -> Judgement:
    slower = values_of(saved, "chain_length_at_large_step", "slow_down")
    predicted = values_of(saved, "chain_length_at_large_step", "slow_down_predicted")
    note = (
        f"k = 8 needs {slower.min():.0f} to {slower.max():.0f} times the iterations of k = 0 (Thm 4.2's own "
        f"rates: {predicted.min():.0f} to {predicted.max():.0f} times); the remark needs a step at which no "
        "direction overshoots"
    )
    return judge_worst(slower, threshold, note=note)


def _population_slope(saved: Saved[Any], threshold: float) -> Judgement:
    gap = values_of(saved, "population", "relative_gap")
    note = f"relative distance at B = 64000: {gap.mean():.2g}"
    slope = values_of(saved, "population", "slope")
    return judge_mean(np.abs(slope + 0.5), threshold, note=note)


def _post_test(statistic: str):  # type: ignore[no-untyped-def]
    def judge(saved: Saved[Any], threshold: float) -> Judgement:
        return judge_mean(np.abs(values_of(saved, "post_test", statistic) - 1), threshold)

    return judge


def _allocation(saved: Saved[Any], threshold: float) -> Judgement:
    moderate = values_of(saved, "allocation", "excess_moderate")
    note = (
        f"at n = 10 d it is {moderate.mean():.2g} above the best allocation: optimal in the limit of long "
        "prompts only"
    )
    return judge_worst(values_of(saved, "allocation", "excess_long"), threshold, note=note)


_PROP_B2: dict[str, Any] = {"dimension": 600, "shifted": 300, "rho": 0.1, "eta": 0.2}


def _first_order(shift: Shift, B: float, n: int = 1000) -> float:
    """F(beta) of Prop B.2, the limit formula, which is finite next to the peak too."""
    V0 = pretrained_operator(shift.sigma0, n)
    return first_order_error(V0, shift.eta, Source(shift.data, n, B), shift.target, n)


def _divergence(_: Saved[Any], threshold: float) -> Judgement:
    shift = Shift.two_block(**_PROP_B2, interference=0.1)
    near = [_first_order(shift, 600 * (1 + gap)) for gap in (1e-4, -1e-4)]
    far = [_first_order(shift, 600 * (1 + gap)) for gap in (1e-2, -1e-2)]
    growth = np.array(near) / np.array(far)
    note = (
        f"growth by {growth[0]:.1f} (above) and {growth[1]:.1f} (below) when the distance to 1 falls 100-fold"
    )
    return judge_worst(growth, threshold, below=False, note=note)


def _decrease(_: Saved[Any], threshold: float) -> Judgement:
    """The curve past the peak, and as its last point the limit that the proposition prints."""
    shift = Shift.two_block(**_PROP_B2, interference=0.1)
    grid = 600 * (1 + np.geomspace(1e-3, 1e4, 400))
    curve = np.array([_first_order(shift, B) for B in grid])
    b = Blocks.of(shift, 1000)
    bias = b.mu @ (1 - b.eta * b.sigma / b.a) ** 2
    limit = float(bias + b.gamma * (b.mu @ b.sigma) * (b.mu @ (b.sigma * (b.eta / b.a) ** 2)))
    steps = np.append(np.diff(curve), limit - curve[-1])
    off = curve[-1] / limit - 1
    note = f"F(infinity) as printed = {limit:.4f}; F at beta = 10001 is {off:.1g} above it"
    return judge_worst(steps / curve, threshold, note=note)


def _small_interference(_: Saved[Any], threshold: float) -> Judgement:
    deviations = []
    for r in (1e-3, 1e-4):
        shift = Shift.two_block(**_PROP_B2, interference=r)
        b = Blocks.of(shift, 1000)
        before, after = first_order_limits(shift, 1000)
        leading = b.eta**2 * b.mu[1] * (1 + b.gamma * float(b.mu @ b.sigma)) / r**2
        deviations.append(abs((after - before) / leading - 1))
    note = f"relative deviation {deviations[0]:.2g} at r = 1e-3, {deviations[1]:.2g} at r = 1e-4"
    return judge_worst(np.array(deviations[-1:]), threshold, note=note)


def _early_slope(_: Saved[Any], threshold: float) -> Judgement:
    """dF/dbeta at 0 inside the condition and at its boundary, from both kinds of limit."""
    cases = {
        "rho=0.1 mu1=0.5": (0.1, 50),
        "rho=0.5 mu1=0.3": (0.5, 30),
        "rho=1 mu1=0.5 (boundary)": (1.0, 50),
    }
    verdicts: dict[str, Verdict] = {}
    slopes = []
    for name, (rho, shifted) in cases.items():
        found = []
        for r, gamma in ((1e-6, 1e-3), (1e-3, 1e-6)):
            shift = Shift.two_block(100, shifted, rho, 0.2, r)
            n = round(100 / gamma)
            start = printed_error(shift, 0, n, corrected=True)
            found.append((printed_error(shift, 1e-5, n, corrected=True) - start) / 1e-7)
        verdicts[name] = "holds" if max(found) < 0 else "fails"
        slopes.append(f"{name}: {found[0]:.3g} and {found[1]:.3g}")
    note = "slopes for (r, gamma) = (1e-6, 1e-3) and (1e-3, 1e-6): " + "; ".join(slopes)
    return judge_settings(verdicts, threshold, len(cases), note)


def _early_minimum(*interferences: float) -> Callable[[Saved[Any], float], Judgement]:
    """Whether the best beta < 1 beats every beta > 1, i.e. F(infinity), at these interferences."""

    def judge(_saved: Saved[Any], threshold: float) -> Judgement:
        verdicts: dict[str, Verdict] = {}
        found = []
        for r in interferences:
            for n in (1000, 5000):
                shift = Shift.two_block(**_PROP_B2, interference=r)
                _, after = first_order_limits(shift, n)
                best = min(_first_order(shift, B, n) for B in range(0, 600, 3))
                verdicts[f"r={r:g} n={n}"] = "holds" if best < after else "fails"
                found.append(f"r={r:g} n={n}: {best:.3g} against {after:.3g}")
        note = "min F(beta < 1) against F(infinity): " + "; ".join(found)
        return judge_settings(verdicts, threshold, len(found), note)

    return judge


_TESTS = "tests/theory_vs_simulation/test_sft_theorems.py"
_B2_SETTING = "d=600, m=300, rho=0.1, eta=0.2, first-order theory; r=0.1, n=1000 unless stated"

SFT_CLAIMS = (
    Claim(
        "thm-4.1-interpolating",
        "Thm 4.1",
        "For B <= rank, (V*, W~ = I) is the minimiser of L_SFT nearest to the initialisation.",
        "dense non-commuting matrices, d=6, n=15, B=4, k=3; joint minimisation of L_SFT + pull/2 times the "
        "squared distance, pull 1e-8 and 1e-9 extrapolated to 0",
        "largest relative distance of the extrapolated minimum from (V*, I)",
        1e-5,
        worst_of("interpolation", "extrapolated_gap"),
        f"{_TESTS}::test_minimiser_is_the_limit_of_regularised_joint_minimisation",
    ),
    Claim(
        "thm-4.1-overdetermined",
        "Thm 4.1",
        "For B > rank too, (V*, W~ = I) minimises L_SFT over both matrices.",
        "dense non-commuting matrices, d=6, n=15, B=24, k=3; joint minimisation started at (V*, I)",
        "relative decrease of the loss (0 if the claim were true)",
        1e-6,
        _overdetermined,
        f"{_TESTS}::test_attention_gradient_matches_autograd_of_the_literal_model",
    ),
    Claim(
        "thm-4.2-iterates",
        "Thm 4.2",
        "Gradient descent on L_SFT follows V_t = V* + (V0 - V*)(I - gamma c_k M/B)^t.",
        "dense matrices, d=12, n=30, B in {8, 30}, k=4, 300 iterations, two step sizes",
        "largest relative distance of plain gradient descent from the formula",
        1e-9,
        worst_of("gradient_descent", "iterate_gap_balanced", "iterate_gap_large"),
        f"{_TESTS}::test_gradient_descent_of_the_literal_model_follows_theorem_4_2",
    ),
    Claim(
        "thm-4.2-rate",
        "Thm 4.2",
        "Every step contracts ||V - V*|| at least by max |1 - gamma c_k lambda/B|.",
        "as thm-4.2-iterates",
        "largest measured contraction factor minus the rate",
        1e-9,
        worst_of("gradient_descent", "rate_excess_balanced", "rate_excess_large"),
        f"{_TESTS}::test_gradient_descent_diverges_past_the_largest_step",
    ),
    Claim(
        "thm-4.2-simplified-rate",
        "Thm 4.2",
        "At gamma = B/(c_k lambda_max) the rate is 1 - lambda_min+/lambda_max.",
        "as thm-4.2-iterates",
        "largest difference of the two rates",
        1e-12,
        worst_of("gradient_descent", "simplified_rate_gap"),
        f"{_TESTS}::test_gradient_descent_of_the_literal_model_follows_theorem_4_2",
    ),
    Claim(
        "remark-4.1",
        "Remark 4.1",
        "Longer chains speed up SFT through c_k but do not change its limit.",
        "dense matrices, d=12, n=30, B=8, k=0 against k=8 at one step size, B/(c_8 lambda_max)",
        "larger of the relative distance of the limits and 1/100 of |speed-up/(c_8/c_0) - 1|",
        1e-4,
        _remark_41,
        f"{_TESTS}::test_chain_length_changes_the_speed_but_not_the_limit",
    ),
    Claim(
        "remark-4.1-any-step",
        "Remark 4.1",
        "At any fixed step gamma < 2B (2 eta - eta^2)/lambda_max(M), larger k means faster convergence.",
        "dense matrices, d=12, n=30, B=1, k=0 against k=8 at 0.95 of that bound",
        "largest ratio of the iterations of k = 8 to those of k = 0",
        1.0,
        _large_step,
        f"{_TESTS}::test_a_longer_chain_is_slower_where_the_step_overshoots",
    ),
    Claim(
        "prop-4.3",
        "Prop 4.3",
        "V* converges to V_inf as B grows.",
        "dense matrices, d=10, n=20, B = 1000, 8000, 64000; the sampling error of V* decays like B^(-1/2)",
        "mean |slope of log ||V*_B - V_inf|| in log B + 1/2|",
        0.1,
        _population_slope,
        f"{_TESTS}::test_population_minimiser_is_the_limit_of_many_prompts",
    ),
    Claim(
        "prop-5.1",
        "Prop 5.1",
        "The one-step test error is ||I + V Sigma||^2 + (1/n)(tr V Sigma^2 V' + tr(V Sigma V') tr Sigma).",
        "dense matrices, d=8, n=12, 200,000 test prompts a seed",
        "mean |Monte Carlo / formula - 1| over seeds",
        0.002,
        _post_test("ratio"),
        f"{_TESTS}::test_post_test_error_matches_monte_carlo",
    ),
    Claim(
        "lemma-A.1-last-line",
        "Lemma A.1",
        "As the proof ends: ||I + A Sigma||^2 + (1/n)(tr A Sigma^2 A' + 2 tr(A Sigma A') tr Sigma).",
        "as prop-5.1, with tr(V Sigma V') tr Sigma doubled",
        "mean |Monte Carlo / formula - 1| over seeds",
        0.002,
        _post_test("ratio_last_line"),
        f"{_TESTS}::test_post_test_error_matches_monte_carlo",
    ),
    Claim(
        "sec-5.1-allocation",
        "Sec 5.1",
        "A = eta (P Sigma0 P + Delta) is the best allocation on range(Delta).",
        "random spectra, d=10, B infinite, no interference, n = 1000 d",
        "largest excess over the numerically best allocation, relative to the error left on range(Delta)",
        1e-3,
        _allocation,
        f"{_TESTS}::test_paper_allocation_is_optimal_only_for_long_prompts",
    ),
)
THEORY_CLAIMS = (
    Claim(
        "prop-B.2-i",
        "Prop B.2 (i)",
        "F(beta) diverges at beta = 1, from both sides.",
        _B2_SETTING + "; |beta - 1| = 1e-4 against 1e-2",
        "smallest growth of F when the distance to 1 falls 100-fold",
        50.0,
        _divergence,
        "tests/theory/test_asymptotics.py::test_first_order_form_diverges_at_the_peak",
        shown_by=("fig5",),
    ),
    Claim(
        "prop-B.2-i-decrease",
        "Prop B.2 (i)",
        "F decreases strictly for beta > 1, to the printed F(infinity).",
        _B2_SETTING + "; 400 values of beta from 1.001 to 10001, then the limit",
        "largest relative increase between neighbours (negative: a decrease)",
        -1e-12,
        _decrease,
        "tests/theory/test_asymptotics.py::test_first_order_form_decreases_past_the_peak",
        shown_by=("fig5",),
    ),
    Claim(
        "prop-B.2-ii-gap",
        "Prop B.2 (ii)",
        "F(infinity) - F(0) ~ eta^2 mu2 (1 + gamma Sbar) / r^2 for small r.",
        _B2_SETTING + "; r = 1e-3 and 1e-4",
        "relative deviation from the leading term at r = 1e-4",
        0.01,
        _small_interference,
        "tests/theory/test_asymptotics.py::test_small_interference_limit",
        shown_by=("fig5",),
    ),
    Claim(
        "prop-B.2-iii-slope",
        "Prop B.2 (iii)",
        "F'(0) < 0 for sufficiently small r and gamma when mu1 >= rho^2 / (1 + rho^2).",
        "d=100, eta=0.2, two points inside the condition, one on its boundary, two orders of r, gamma -> 0",
        "share of points with a negative slope at beta = 0 in both orders",
        1.0,
        _early_slope,
        "tests/theory/test_asymptotics.py::test_early_slope",
        shown_by=("fig5",),
    ),
    Claim(
        "prop-B.2-ii-minimum",
        "Prop B.2 (ii)",
        "For sufficiently small r > 0 the global minimum of F is at beta < 1.",
        "d=600, m=300, rho=0.1, eta=0.2, first-order theory, r in {0.0001, 0.001, 0.01}, n in {1000, 5000}",
        "share of (r, n) where the best beta < 1 beats F(infinity)",
        1.0,
        _early_minimum(1e-4, 1e-3, 0.01),
        "tests/theory/test_asymptotics.py::test_minimum_before_the_peak_needs_small_interference",
        shown_by=("fig5",),
    ),
    Claim(
        "app-B-minimum",
        "App. B",
        "Under interference (no condition on r) the asymptotic error has its minimum at beta < 1.",
        "as prop-B.2-ii-minimum, with r in {0.01, 0.03, 0.1, 0.2}; Figure 5 has r = 0.1",
        "share of (r, n) where the best beta < 1 beats F(infinity)",
        1.0,
        _early_minimum(0.01, 0.03, 0.1, 0.2),
        "tests/theory/test_asymptotics.py::test_minimum_before_the_peak_needs_small_interference",
        shown_by=("fig5",),
    ),
)
