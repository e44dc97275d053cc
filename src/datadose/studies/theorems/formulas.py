"""Prop B.2 and what Appendix B adds: statements on the first-order theory, judged from its formulas alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from datadose.shift import Shift
from datadose.studies.ledger import judge_settings, judge_worst
from datadose.studies.study import Claim, Judgement, Saved, Study, Verdict
from datadose.theory.asymptotics import Source, first_order_error, first_order_limits
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.printed import Blocks, printed_error

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


def _early_minimum(_: Saved[Any], threshold: float, *, interferences: tuple[float, ...]) -> Judgement:
    """Whether the best beta < 1 beats every beta > 1, i.e. F(infinity), at these interferences."""
    verdicts: dict[str, Verdict] = {}
    found = []
    for r in interferences:
        for n in (1000, 5000):
            shift = Shift.two_block(**_PROP_B2, interference=r)
            after = first_order_limits(shift, n)[1]
            best = min(_first_order(shift, B, n) for B in range(0, 600, 3))
            verdicts[f"r={r:g} n={n}"] = "holds" if best < after else "fails"
            found.append(f"r={r:g} n={n}: {best:.3g} against {after:.3g}")
    note = "min F(beta < 1) against F(infinity): " + "; ".join(found)
    return judge_settings(verdicts, threshold, len(found), note)


_B2_SETTING = "d=600, m=300, rho=0.1, eta=0.2, first-order theory; r=0.1, n=1000 unless stated"
_TESTS = "tests/theory/test_asymptotics.py"

CLAIMS = (
    Claim(
        id="prop-B.2-i",
        paper="Prop B.2 (i)",
        statement="F(beta) diverges at beta = 1, from both sides.",
        setting=_B2_SETTING + "; |beta - 1| = 1e-4 against 1e-2",
        statistic="smallest growth of F when the distance to 1 falls 100-fold",
        threshold=50.0,
        judge=_divergence,
        test=f"{_TESTS}::test_first_order_form_diverges_at_the_peak",
        shown_by=("fig5",),
    ),
    Claim(
        id="prop-B.2-i-decrease",
        paper="Prop B.2 (i)",
        statement="F decreases strictly for beta > 1, to the printed F(infinity).",
        setting=_B2_SETTING + "; 400 values of beta from 1.001 to 10001, then the limit",
        statistic="largest relative increase between neighbours (negative: a decrease)",
        threshold=-1e-12,
        judge=_decrease,
        test=f"{_TESTS}::test_first_order_form_decreases_past_the_peak",
        shown_by=("fig5",),
    ),
    Claim(
        id="prop-B.2-ii-gap",
        paper="Prop B.2 (ii)",
        statement="F(infinity) - F(0) ~ eta^2 mu2 (1 + gamma Sbar) / r^2 for small r.",
        setting=_B2_SETTING + "; r = 1e-3 and 1e-4",
        statistic="relative deviation from the leading term at r = 1e-4",
        threshold=0.01,
        judge=_small_interference,
        test=f"{_TESTS}::test_small_interference_limit",
        shown_by=("fig5",),
    ),
    Claim(
        id="prop-B.2-iii-slope",
        paper="Prop B.2 (iii)",
        statement="F'(0) < 0 for sufficiently small r and gamma when mu1 >= rho^2 / (1 + rho^2).",
        setting="d=100, eta=0.2, two points inside the condition, one on its boundary, two orders of r, "
        "gamma -> 0",
        statistic="share of points with a negative slope at beta = 0 in both orders",
        threshold=1.0,
        judge=_early_slope,
        test=f"{_TESTS}::test_early_slope",
        shown_by=("fig5",),
    ),
    Claim(
        id="prop-B.2-ii-minimum",
        paper="Prop B.2 (ii)",
        statement="For sufficiently small r > 0 the global minimum of F is at beta < 1.",
        setting="d=600, m=300, rho=0.1, eta=0.2, first-order theory, r in {0.0001, 0.001, 0.01}, n in "
        "{1000, 5000}",
        statistic="share of (r, n) where the best beta < 1 beats F(infinity)",
        threshold=1.0,
        judge=partial(_early_minimum, interferences=(1e-4, 1e-3, 0.01)),
        test=f"{_TESTS}::test_minimum_before_the_peak_needs_small_interference",
        shown_by=("fig5",),
    ),
    Claim(
        id="app-B-minimum",
        paper="App. B",
        statement="Under interference (no condition on r) the asymptotic error has its minimum at beta < 1.",
        setting="as prop-B.2-ii-minimum, with r in {0.01, 0.03, 0.1, 0.2}; Figure 5 has r = 0.1",
        statistic="share of (r, n) where the best beta < 1 beats F(infinity)",
        threshold=1.0,
        judge=partial(_early_minimum, interferences=(0.01, 0.03, 0.1, 0.2)),
        test=f"{_TESTS}::test_minimum_before_the_peak_needs_small_interference",
        shown_by=("fig5",),
    ),
)
STUDY: Study[Any] = Study(name="theory", claims=CLAIMS)
