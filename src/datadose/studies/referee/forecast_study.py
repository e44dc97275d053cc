"""Claims on forecasts of the loss at four times as many rows, from sea_forecast.csv.

An error is the foretold loss over the measured one, minus 1, with the interval that the forecast gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from datadose.llm.compare.curves import FORMS
from datadose.power import CONFIDENCE
from datadose.studies.ledger import judge_settings
from datadose.studies.referee.forecast_figure import draw_forecasts
from datadose.studies.referee.forecasting import NAME, Curve, ForecastStudy, curves_of, ends
from datadose.studies.referee.judging import detects
from datadose.studies.referee.runs import Stop
from datadose.studies.study import Claim, Judgement, Saved, Study, Verdict

JudgeCurve: TypeAlias = Callable[[Curve], tuple[Verdict, str]]
_NEAR = 0.1
_DECIDED = (1 + CONFIDENCE) / 2
_TEST = "tests/studies/referee/test_forecasting.py"


def _judge(judge: JudgeCurve) -> Callable[[Saved[ForecastStudy], float], Judgement]:
    """The share of the curves in which it is so; curves that the forecast refuses are named."""

    def judged(saved: Saved[ForecastStudy], threshold: float) -> Judgement:
        curves = curves_of(saved.table)
        refused = [f"{one.name}: {one.ahead.reason}" for one in curves if one.ahead.reason]
        found = {one.name: judge(one) for one in curves if not one.ahead.reason}
        if not found:
            return Judgement(None, None, 0, "not run", "; ".join(refused) or "no finished curve")
        told = [f"{name} {said}" for name, (_, said) in found.items()]
        told += [f"refused: {one}" for one in refused]
        verdicts = {name: verdict for name, (verdict, _) in found.items()}
        seeds = min(len(one.losses) for one in curves)
        errors = {one.name: one.losses[:, -1] for one in curves}
        pilots = {one.name: saved.config.pilot(one.contents, Stop.BEST) for one in curves}
        return judge_settings(verdicts, threshold, seeds, "; ".join([detects(errors, pilots), *told]))

    return judged


def _near(curve: Curve) -> tuple[Verdict, str]:
    """Whether the loss is foretold within a tenth, by the whole interval."""
    low, high = ends(curve.error())
    inside, outside = -_NEAR <= low and high <= _NEAR, low > _NEAR or high < -_NEAR
    return "holds" if inside else "fails" if outside else "mixed", _told(curve)


def _covered(curve: Curve) -> tuple[Verdict, str]:
    """Whether the interval of the error has zero in it."""
    low, high = ends(curve.error())
    return "holds" if low <= 0 <= high else "fails", _told(curve)


def _told(curve: Curve) -> str:
    error = curve.error()
    low, high = ends(error)
    return f"{error.value:+.3f} [{low:+.3f}, {high:+.3f}] by {curve.ahead.form}"


def _theory(curve: Curve) -> tuple[Verdict, str]:
    """Whether the theory's form is nearer than the power in nearly all resamples."""
    trial = curve.trial
    share = trial.share if trial.ahead == FORMS[0] else 1 - trial.share
    verdict: Verdict = "holds" if share >= _DECIDED else "fails" if share <= 1 - _DECIDED else "mixed"
    errors = ", ".join(f"{form} {curve.error(form).value:+.3f}" for form in FORMS)
    return verdict, f"{errors}: the first nearer in {share:.0%} of the resamples"


_SETTING = (
    "0.3M-parameter character Llama; right target rows alone, and what bm25 and rds take of a pool of which "
    "5 percent are the target, clean (targets A) and with faults (targets B); curves of test losses at the "
    "best stop over 8, 16, 32 and 64 rows (preset quick), held against the loss at 256"
)


def _claim(name: str, statement: str, statistic: str, judge: JudgeCurve, threshold: float) -> Claim:
    return Claim(
        f"sea-forecast-{name}",
        "ours (language models)",
        statement,
        _SETTING,
        statistic,
        threshold,
        _judge(judge),
        f"{_TEST}::test_a_forecast_that_is_right_is_told_from_one_that_is_not",
    )


_INTERVAL = f"{CONFIDENCE:.0%} interval of foretold over measured loss, minus 1"
CLAIMS = [
    _claim(
        "near",
        "Forecasts over rows: the loss at four times as many rows is foretold within a tenth.",
        f"share of curves whose {_INTERVAL}, lies within a tenth",
        _near,
        1.0,
    ),
    _claim(
        "covered",
        "Forecasts over rows: the loss at four times as many rows is within the interval of the forecast.",
        f"share of curves whose {_INTERVAL}, has zero in it; five of six and more are what 95 percent mean",
        _covered,
        5 / 6,
    ),
    _claim(
        "theory",
        "Forecasts over rows: the theory's form, c + G/(B - b), foretells better than a free power of B.",
        f"share of curves in which it is nearer in {_DECIDED:.1%} of the resamples",
        _theory,
        1.0,
    ),
]

STUDY = Study(
    name=NAME,
    title="How much more would more rows give? Forecasts held against four times as many",
    story=(
        "A small language model is trained on a few rows of a target, and on more. Curves are fitted to the "
        "losses at the smaller numbers of rows (filled points); the open point, at four times as many, was "
        "not shown to them. Bars are 95 percent intervals over pretrained models."
    ),
    experiment=ForecastStudy,
    draw=draw_forecasts,
    claims=CLAIMS,
)
