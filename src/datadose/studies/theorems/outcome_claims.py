"""Claims on outcome supervision: Prop 6.1, the gradient, App. E and the large-n dynamics."""

from __future__ import annotations

from typing import Any

import numpy as np

from datadose.studies.ledger import judge_worst
from datadose.studies.study import Claim, Judgement, Saved
from datadose.studies.theorems.claims import values_of, worst_of


def _printed_bound(saved: Saved[Any], threshold: float) -> Judgement:
    scaled = values_of(saved, "curvature", "scaled_printed_over_curvature")
    predicted = values_of(saved, "curvature", "scaled_printed_over_curvature_predicted")
    flat = values_of(saved, "curvature", "zero_loss_printed_over_curvature")
    flat = np.where(flat < 1e-12, 0.0, flat)  # rho(M) is zero, but for the rounding of its eigenvalues.
    off = np.abs(scaled / predicted - 1).max()
    note = (
        f"at zero loss, M = a y x', rho(M) = 0: at most {flat.max():.1g}; at M = u I, S = s I it is "
        f"1/((2 - 1/k) s), down to {scaled.min():.2g} (largest deviation {off:.1g}): the norm of M belongs "
        "in place of its spectral radius, ||S|| to the power 2, and the residual's term is not negligible"
    )
    return judge_worst(np.minimum(scaled, flat), threshold, below=False, note=note)


_TESTS = "tests/theory/test_outcome.py"

OUTCOME_CLAIMS = [
    Claim(
        "prop-6.1",
        "Prop 6.1",
        "w* - what_k = (I + sum_{i<k} (V S W + I)^i V S) w*, and (I + V S)^k w* if W = I.",
        "dense matrices, random W~, d=6, n=15, B=8, k=4, against the transformer's own chain",
        "largest relative gap of answers and loss",
        1e-9,
        worst_of("rollout", "operator_gap", "loss_gap"),
        "tests/experiments/test_checks.py::test_outcome_checks_measure_what_they_say",
    ),
    Claim(
        "sec-6.1-gradient",
        "Sec 6.1",
        "The OS gradient is (1/B) sum_tau sum_{j<k} (M')^j M^k w w' (M')^{k-1-j} S'.",
        "dense matrices, d=6, n=15, B=8, k=1..4, against autograd through the chain",
        "largest relative gap",
        1e-9,
        worst_of("outcome_gradient", "gradient_gap"),
        "tests/experiments/test_checks.py::test_outcome_checks_measure_what_they_say",
    ),
    Claim(
        "app-E",
        "App. E",
        "||Hessian of L_OS|| <= k^2 rho(M)^{2k-2} ||w||^2 ||S|| near the global minimum.",
        "d=4, one prompt, S = s I, s in (0.5, 3); at a minimum of zero loss, M = a y x' with w along x, k=2, "
        "a in (0.3, 0.95); and at M = u I, u in (0.3, 0.95), k in {2, 3, 4}",
        "smallest ratio of the printed bound to the largest curvature",
        1.0,
        _printed_bound,
        "tests/experiments/test_checks.py::test_outcome_checks_measure_what_they_say",
        shown_by=("insight3_stability",),
    ),
    Claim(
        "app-E-corrected",
        "App. E (ours)",
        "||Hessian of L_OS|| <= k (2k-1) mean ||M||^{2k-2} ||w||^2 ||S||^2 everywhere.",
        "as app-E",
        "largest curvature over the corrected bound",
        1.0 + 1e-9,
        worst_of("curvature", "scaled_curvature_over_proven", "zero_loss_curvature_over_proven"),
        "tests/experiments/test_checks.py::test_outcome_checks_measure_what_they_say",
        shown_by=("insight3_stability",),
    ),
    Claim(
        "os-dynamics",
        "ours (sec 4)",
        "On long prompts each direction follows u0 exp(-s^2 t) for k = 1 and a power law for k > 1.",
        "d=5, k=1..4, gradient descent with step 2e-4 to time 2 on the population loss",
        "largest relative deviation of the error factors",
        2e-3,
        worst_of("dynamics", "factor_gap"),
        "tests/experiments/test_checks.py::test_outcome_checks_measure_what_they_say",
    ),
]
