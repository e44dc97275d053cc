"""The statements that numerical checks decide, as one study: a cell is a check and a seed.

Each check (:mod:`~datadose.studies.theorems.sft_checks`, :mod:`~datadose.studies.theorems.outcome_checks`)
draws its own instance from its seed and returns named numbers; the claims turn them into verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.studies.ledger import judge_mean, judge_worst
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study
from datadose.studies.theorems import outcome_checks as outcome
from datadose.studies.theorems import sft_checks as sft
from datadose.studies.theorems.sft_checks import Check, Statistic
from datadose.sweep import Cell

NAME = "theorems"


class Column:
    """The columns of ``theorems.csv``."""

    CHECK = "check"
    SEED = "seed"
    STATISTIC = "statistic"
    VALUE = "value"


CHECKS: dict[Check, int] = {
    sft.check_interpolation: 10,
    sft.check_overdetermined: 10,
    sft.check_gradient_descent: 20,
    sft.check_chain_length: 10,
    sft.check_chain_length_at_large_step: 10,
    sft.check_population: 20,
    sft.check_post_test: 20,
    sft.check_allocation: 20,
    outcome.check_rollout: 20,
    outcome.check_outcome_gradient: 20,
    outcome.check_curvature: 20,
    outcome.check_dynamics: 20,
}
"""Each check and its number of seeds outside the smoke preset."""


def name_of(check: Check) -> str:
    """What the table calls a check."""
    return check.__name__.removeprefix("check_")


@dataclass(frozen=True)
class Theorems:
    """All checks on all their seeds."""

    seeds: int
    """An upper limit on the seeds of each check."""

    @classmethod
    def preset(cls, name: Preset) -> Theorems:
        """The configuration of a preset."""
        return cls(seeds=3 if name == "smoke" else 20)

    def _runs(self) -> list[tuple[Check, int]]:
        return [(check, seed) for check, most in CHECKS.items() for seed in range(min(most, self.seeds))]

    def cells(self) -> list[Cell]:
        """One cell a check and seed."""
        return [Cell(check, {"seed": seed}) for check, seed in self._runs()]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a check, seed and statistic."""
        return pd.DataFrame(
            [
                {
                    Column.CHECK: name_of(check),
                    Column.SEED: seed,
                    Column.STATISTIC: statistic,
                    Column.VALUE: value,
                }
                for (check, seed), result in zip(self._runs(), results, strict=True)
                for statistic, value in result.items()
            ]
        )


def values_of(saved: Saved[Theorems], check: Check, statistic: Statistic) -> Array:
    """The values of one statistic of one check, one per seed."""
    table = saved.table
    chosen = table[(table[Column.CHECK] == name_of(check)) & (table[Column.STATISTIC] == statistic)]
    return np.asarray(chosen[Column.VALUE], dtype=np.float64)


def _worst(
    saved: Saved[Theorems], threshold: float, *, check: Check, statistics: Sequence[Statistic]
) -> Judgement:
    """Judge identities: the largest of several statistics of a check, over all seeds."""
    return judge_worst(np.max([values_of(saved, check, name) for name in statistics], axis=0), threshold)


def _overdetermined(saved: Saved[Theorems], threshold: float) -> Judgement:
    gain = values_of(saved, sft.check_overdetermined, "loss_decrease")
    gradient = values_of(saved, sft.check_overdetermined, "attention_gradient")
    change = values_of(saved, sft.check_overdetermined, "error_change")
    note = (
        f"the W~-gradient at (V*, I) has norm {gradient.min():.2g} to {gradient.max():.2g}; joint "
        f"minimisation changes the test error by {change.min():+.1%} to {change.max():+.1%}"
    )
    return judge_mean(gain, threshold, note=note)


def _remark_41(saved: Saved[Theorems], threshold: float) -> Judgement:
    gained = values_of(saved, sft.check_chain_length, "speed_up")
    predicted = values_of(saved, sft.check_chain_length, "speed_up_predicted")
    values = np.maximum(
        values_of(saved, sft.check_chain_length, "limit_gap"), np.abs(gained / predicted - 1) / 100
    )
    note = (
        f"k = 8 needs {gained.mean():.3f} times fewer iterations than k = 0; c_8/c_0 = {predicted.mean():.3f}"
    )
    return judge_worst(values, threshold, note=note)


def _large_step(saved: Saved[Theorems], threshold: float) -> Judgement:
    slower = values_of(saved, sft.check_chain_length_at_large_step, "slow_down")
    predicted = values_of(saved, sft.check_chain_length_at_large_step, "slow_down_predicted")
    note = (
        f"k = 8 needs {slower.min():.0f} to {slower.max():.0f} times the iterations of k = 0 (Thm 4.2's own "
        f"rates: {predicted.min():.0f} to {predicted.max():.0f} times); the remark needs a step at which no "
        "direction overshoots"
    )
    return judge_worst(slower, threshold, note=note)


def _population_slope(saved: Saved[Theorems], threshold: float) -> Judgement:
    gap = values_of(saved, sft.check_population, "relative_gap")
    note = f"relative distance at B = 64000: {gap.mean():.2g}"
    slope = values_of(saved, sft.check_population, "slope")
    return judge_mean(np.abs(slope + 0.5), threshold, note=note)


def _post_test(saved: Saved[Theorems], threshold: float, *, statistic: Statistic) -> Judgement:
    return judge_mean(np.abs(values_of(saved, sft.check_post_test, statistic) - 1), threshold)


def _allocation(saved: Saved[Theorems], threshold: float) -> Judgement:
    moderate = values_of(saved, sft.check_allocation, "excess_moderate")
    note = (
        f"at n = 10 d it is {moderate.mean():.2g} above the best allocation: optimal in the limit of long "
        "prompts only"
    )
    return judge_worst(values_of(saved, sft.check_allocation, "excess_long"), threshold, note=note)


def _printed_bound(saved: Saved[Theorems], threshold: float) -> Judgement:
    scaled = values_of(saved, outcome.check_curvature, "scaled_printed_over_curvature")
    predicted = values_of(saved, outcome.check_curvature, "scaled_printed_over_curvature_predicted")
    flat = values_of(saved, outcome.check_curvature, "zero_loss_printed_over_curvature")
    flat = np.where(flat < 1e-12, 0.0, flat)  # rho(M) is zero, but for the rounding of its eigenvalues.
    off = np.abs(scaled / predicted - 1).max()
    note = (
        f"at zero loss, M = a y x', rho(M) = 0: at most {flat.max():.1g}; at M = u I, S = s I it is "
        f"1/((2 - 1/k) s), down to {scaled.min():.2g} (largest deviation {off:.1g}): the norm of M belongs "
        "in place of its spectral radius, ||S|| to the power 2, and the residual's term is not negligible"
    )
    return judge_worst(np.minimum(scaled, flat), threshold, below=False, note=note)


_TESTS = "tests/theory_vs_simulation/test_sft_theorems.py"
_OUTCOME_TEST = "tests/studies/theorems/test_checks.py::test_outcome_checks_measure_what_they_say"

CLAIMS = (
    Claim(
        id="thm-4.1-interpolating",
        paper="Thm 4.1",
        statement="For B <= rank, (V*, W~ = I) is the minimiser of L_SFT nearest to the initialisation.",
        setting="dense non-commuting matrices, d=6, n=15, B=4, k=3; joint minimisation of L_SFT + pull/2 "
        "times the squared distance, pull 1e-8 and 1e-9 extrapolated to 0",
        statistic="largest relative distance of the extrapolated minimum from (V*, I)",
        threshold=1e-5,
        judge=partial(_worst, check=sft.check_interpolation, statistics=["extrapolated_gap"]),
        test=f"{_TESTS}::test_minimiser_is_the_limit_of_regularised_joint_minimisation",
    ),
    Claim(
        id="thm-4.1-overdetermined",
        paper="Thm 4.1",
        statement="For B > rank too, (V*, W~ = I) minimises L_SFT over both matrices.",
        setting="dense non-commuting matrices, d=6, n=15, B=24, k=3; joint minimisation started at (V*, I)",
        statistic="relative decrease of the loss (0 if the claim were true)",
        threshold=1e-6,
        judge=_overdetermined,
        test=f"{_TESTS}::test_attention_gradient_matches_autograd_of_the_literal_model",
    ),
    Claim(
        id="thm-4.2-iterates",
        paper="Thm 4.2",
        statement="Gradient descent on L_SFT follows V_t = V* + (V0 - V*)(I - gamma c_k M/B)^t.",
        setting="dense matrices, d=12, n=30, B in {8, 30}, k=4, 300 iterations, two step sizes",
        statistic="largest relative distance of plain gradient descent from the formula",
        threshold=1e-9,
        judge=partial(
            _worst, check=sft.check_gradient_descent, statistics=["iterate_gap_balanced", "iterate_gap_large"]
        ),
        test=f"{_TESTS}::test_gradient_descent_of_the_literal_model_follows_theorem_4_2",
    ),
    Claim(
        id="thm-4.2-rate",
        paper="Thm 4.2",
        statement="Every step contracts ||V - V*|| at least by max |1 - gamma c_k lambda/B|.",
        setting="as thm-4.2-iterates",
        statistic="largest measured contraction factor minus the rate",
        threshold=1e-9,
        judge=partial(
            _worst, check=sft.check_gradient_descent, statistics=["rate_excess_balanced", "rate_excess_large"]
        ),
        test=f"{_TESTS}::test_gradient_descent_diverges_past_the_largest_step",
    ),
    Claim(
        id="thm-4.2-simplified-rate",
        paper="Thm 4.2",
        statement="At gamma = B/(c_k lambda_max) the rate is 1 - lambda_min+/lambda_max.",
        setting="as thm-4.2-iterates",
        statistic="largest difference of the two rates",
        threshold=1e-12,
        judge=partial(_worst, check=sft.check_gradient_descent, statistics=["simplified_rate_gap"]),
        test=f"{_TESTS}::test_gradient_descent_of_the_literal_model_follows_theorem_4_2",
    ),
    Claim(
        id="remark-4.1",
        paper="Remark 4.1",
        statement="Longer chains speed up SFT through c_k but do not change its limit.",
        setting="dense matrices, d=12, n=30, B=8, k=0 against k=8 at one step size, B/(c_8 lambda_max)",
        statistic="larger of the relative distance of the limits and 1/100 of |speed-up/(c_8/c_0) - 1|",
        threshold=1e-4,
        judge=_remark_41,
        test=f"{_TESTS}::test_chain_length_changes_the_speed_but_not_the_limit",
    ),
    Claim(
        id="remark-4.1-any-step",
        paper="Remark 4.1",
        statement="At any fixed step gamma < 2B (2 eta - eta^2)/lambda_max(M), larger k means faster "
        "convergence.",
        setting="dense matrices, d=12, n=30, B=1, k=0 against k=8 at 0.95 of that bound",
        statistic="largest ratio of the iterations of k = 8 to those of k = 0",
        threshold=1.0,
        judge=_large_step,
        test=f"{_TESTS}::test_a_longer_chain_is_slower_where_the_step_overshoots",
    ),
    Claim(
        id="prop-4.3",
        paper="Prop 4.3",
        statement="V* converges to V_inf as B grows.",
        setting="dense matrices, d=10, n=20, B = 1000, 8000, 64000; the sampling error of V* decays like "
        "B^(-1/2)",
        statistic="mean |slope of log ||V*_B - V_inf|| in log B + 1/2|",
        threshold=0.1,
        judge=_population_slope,
        test=f"{_TESTS}::test_population_minimiser_is_the_limit_of_many_prompts",
    ),
    Claim(
        id="prop-5.1",
        paper="Prop 5.1",
        statement="The one-step test error is ||I + V Sigma||^2 + (1/n)(tr V Sigma^2 V' + tr(V Sigma V') "
        "tr Sigma).",
        setting="dense matrices, d=8, n=12, 200,000 test prompts a seed",
        statistic="mean |Monte Carlo / formula - 1| over seeds",
        threshold=0.002,
        judge=partial(_post_test, statistic="ratio"),
        test=f"{_TESTS}::test_post_test_error_matches_monte_carlo",
    ),
    Claim(
        id="lemma-A.1-last-line",
        paper="Lemma A.1",
        statement="As the proof ends: ||I + A Sigma||^2 + (1/n)(tr A Sigma^2 A' + 2 tr(A Sigma A') tr "
        "Sigma).",
        setting="as prop-5.1, with tr(V Sigma V') tr Sigma doubled",
        statistic="mean |Monte Carlo / formula - 1| over seeds",
        threshold=0.002,
        judge=partial(_post_test, statistic="ratio_last_line"),
        test=f"{_TESTS}::test_post_test_error_matches_monte_carlo",
    ),
    Claim(
        id="sec-5.1-allocation",
        paper="Sec 5.1",
        statement="A = eta (P Sigma0 P + Delta) is the best allocation on range(Delta).",
        setting="random spectra, d=10, B infinite, no interference, n = 1000 d",
        statistic="largest excess over the numerically best allocation, relative to the error left on "
        "range(Delta)",
        threshold=1e-3,
        judge=_allocation,
        test=f"{_TESTS}::test_paper_allocation_is_optimal_only_for_long_prompts",
    ),
    Claim(
        id="prop-6.1",
        paper="Prop 6.1",
        statement="w* - what_k = (I + sum_{i<k} (V S W + I)^i V S) w*, and (I + V S)^k w* if W = I.",
        setting="dense matrices, random W~, d=6, n=15, B=8, k=4, against the transformer's own chain",
        statistic="largest relative gap of answers and loss",
        threshold=1e-9,
        judge=partial(_worst, check=outcome.check_rollout, statistics=["operator_gap", "loss_gap"]),
        test=_OUTCOME_TEST,
    ),
    Claim(
        id="sec-6.1-gradient",
        paper="Sec 6.1",
        statement="The OS gradient is (1/B) sum_tau sum_{j<k} (M')^j M^k w w' (M')^{k-1-j} S'.",
        setting="dense matrices, d=6, n=15, B=8, k=1..4, against autograd through the chain",
        statistic="largest relative gap",
        threshold=1e-9,
        judge=partial(_worst, check=outcome.check_outcome_gradient, statistics=["gradient_gap"]),
        test=_OUTCOME_TEST,
    ),
    Claim(
        id="app-E",
        paper="App. E",
        statement="||Hessian of L_OS|| <= k^2 rho(M)^{2k-2} ||w||^2 ||S|| near the global minimum.",
        setting="d=4, one prompt, S = s I, s in (0.5, 3); at a minimum of zero loss, M = a y x' with w "
        "along x, k=2, a in (0.3, 0.95); and at M = u I, u in (0.3, 0.95), k in {2, 3, 4}",
        statistic="smallest ratio of the printed bound to the largest curvature",
        threshold=1.0,
        judge=_printed_bound,
        test=_OUTCOME_TEST,
        shown_by=("insight3_stability",),
    ),
    Claim(
        id="app-E-corrected",
        paper="App. E (ours)",
        statement="||Hessian of L_OS|| <= k (2k-1) mean ||M||^{2k-2} ||w||^2 ||S||^2 everywhere.",
        setting="as app-E",
        statistic="largest curvature over the corrected bound",
        threshold=1.0 + 1e-9,
        judge=partial(
            _worst,
            check=outcome.check_curvature,
            statistics=["scaled_curvature_over_proven", "zero_loss_curvature_over_proven"],
        ),
        test=_OUTCOME_TEST,
        shown_by=("insight3_stability",),
    ),
    Claim(
        id="os-dynamics",
        paper="ours (sec 4)",
        statement="On long prompts each direction follows u0 exp(-s^2 t) for k = 1 and a power law for k > "
        "1.",
        setting="d=5, k=1..4, gradient descent with step 2e-4 to time 2 on the population loss",
        statistic="largest relative deviation of the error factors",
        threshold=2e-3,
        judge=partial(_worst, check=outcome.check_dynamics, statistics=["factor_gap"]),
        test=_OUTCOME_TEST,
    ),
)
STUDY = Study(name=NAME, experiment=Theorems, claims=CLAIMS)
