"""How the best-stopped loss falls with the number of rows: its ceiling, and how many rows come near it.

Two forms of a curve L(B) over B rows are fitted, each with three numbers
(:mod:`~datadose.llm.compare.curves`). What this module computes is about the settings of the runs alone:
their steps, their rate, their target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datadose.covariance import Array
from datadose.errors import reject, require_choice, require_integer, require_number
from datadose.llm.compare.curves import FORMS, Fitted, fit_curves
from datadose.power import mean_interval
from datadose.showing import Compact

NEAR = 0.1
"""The share of the ceiling within which rows are said to come near it."""
_FEWEST = 3
_Draws: TypeAlias = dict[str, Fitted]
_LARGEST = 1e100
"""Of a loss: squares of larger ones, which a fit is made of, may not be finite."""


@dataclass(frozen=True, repr=False)
class Estimate(Compact):
    """A number and the interval that covers it, at the level of the forecast."""

    value: float | None
    """None where there is none; ``reason`` says why."""
    low: float | None
    high: float | None
    """None: without end."""
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Trial(Compact):
    """How each form, fitted to the smaller budgets, foretells the loss at the largest one."""

    errors: dict[str, Estimate]
    """The loss foretold minus the measured one, by form."""
    ahead: str
    """The form whose error is smaller."""
    share: float
    """The share of resamples in which it is."""


@dataclass(frozen=True, repr=False)
class CurveFit(Compact):
    """One form, fitted to the mean losses."""

    form: str
    """``scarcity`` or ``power``."""
    ceiling: Estimate
    """c, in the unit of the losses."""
    price: Estimate
    """G in losses times rows, or A in losses times rows^p."""
    bend: float
    """b in rows, or the exponent p."""
    rows_within_10_percent: Estimate
    """The least B, not below the smallest one that was run, with L(B) <= 1.1 c."""
    error: float
    """Root of the mean squared difference from the mean losses."""
    left_out: Estimate | None
    """The loss at the largest B by the curve through the others, minus the measured one; None: too few."""


@dataclass(frozen=True, repr=False)
class Forecast(Compact):
    """What the losses at several numbers of rows say of other numbers of rows."""

    budgets: tuple[int, ...]
    losses: tuple[float, ...]
    """The mean over seeds at each."""
    level: float
    reason: str = ""
    """Why there is no curve; "" where there is one."""
    fits: dict[str, CurveFit] = field(default_factory=dict)
    """By form; empty without a curve."""
    preferred: str | None = None
    """The form that foretold the loss at the largest budget better; None where that could not be tried."""
    preferred_share: float | None = None
    """The share of resamples in which it did."""
    note: str = ""
    """How the forms were compared."""
    _draws: _Draws = field(default_factory=dict)

    @property
    def form(self) -> str:
        """The form whose numbers are reported: the preferred one, else the theory's."""
        return self.preferred or FORMS[0]

    def loss_at(self, rows: float, form: str | None = None) -> Estimate:
        """The loss at ``rows`` >= the smallest budget by one form (that of the report unless given).

        Raises InputError for fewer rows, for another form, and where there is no curve.
        """
        B = require_number("rows", rows, self.budgets[0], np.inf)
        return _estimate(self._curves(form).losses(np.array([B]))[:, 0], self.level)

    def curve(self, rows: Array, form: str | None = None) -> Array:
        """:meth:`loss_at` of each of ``rows`` (N,), without intervals."""
        return np.asarray(self._curves(form).losses(rows)[0])

    def _curves(self, form: str | None) -> Fitted:
        if self.reason:
            reject("budgets", list(self.budgets), f"losses that make a curve ({self.reason})")
        require_choice("form", chosen := self.form if form is None else form, FORMS)
        return self._draws[chosen]

    def sentence(self) -> str:
        """The curve, or why there is none, in a sentence."""
        if self.reason:
            return f"no curve over rows: {self.reason}"
        fit = self.fits[self.form]
        rows, ceiling = fit.rows_within_10_percent, fit.ceiling
        if ceiling.value == 0:
            # No loss is below 0: an interval that ends there has nothing to say.
            below = f" (it is below {ceiling.high:.3g})" if ceiling.high else ""
            steady = f"the loss still falls so steadily that no ceiling shows{below}"
            return f"{steady if self.losses[-1] else 'the loss falls to 0'}; {self._tried}"
        name = "price of scarcity" if self.form == "scarcity" else "factor of the power of rows"
        price = fit.price.reason if fit.price.value is None else f"{name} {_in_words(fit.price)}"
        return (
            f"more rows lower the loss to a ceiling of {_in_words(ceiling)}, within 10 percent of which it "
            f"is from {_in_words(rows)} rows; {price}; {self._tried}"
        )

    @property
    def _tried(self) -> str:
        """The form, and how well it foretold the last loss from the others."""
        missed = self.fits[self.form].left_out
        said = "" if missed is None else f", which from the others foretold the last loss {_off(missed)}"
        return f"form: {self.form}{said}"

    def to_json(self) -> dict[str, Any]:
        """The forecast as a document; null where there is no number."""
        fits = {}
        for name, fit in self.fits.items():
            estimates = {key: vars(getattr(fit, key)) for key in _ESTIMATES}
            bend = {"b" if name == "scarcity" else "exponent": fit.bend}
            missed = None if fit.left_out is None else vars(fit.left_out)
            fits[name] = {**estimates, **bend, "error": fit.error, "left_out": missed}
        return {
            "budgets": list(self.budgets),
            "losses": list(self.losses),
            "level": self.level,
            "reason": self.reason or None,
            "form": self.form if fits else None,
            "preferred": self.preferred,
            "preferred_share": self.preferred_share,
            "note": self.note,
            **fits,
        }


_ESTIMATES = ("ceiling", "price", "rows_within_10_percent")


def forecast(
    budgets: Sequence[int],
    losses: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Forecast:
    """Fit both forms to the losses at several numbers of rows.

    Intervals are of a bootstrap over seeds: the curve of each seed is kept whole, the seeds' deviations from
    the mean curve get random normal weights, and each draw is widened as Student's t asks of so few seeds, so
    that the interval of a mean is Student's own. Where the fit is at c = 0, and for the nearly straight, an
    interval is wide, as it should be.

    Args:
        budgets: numbers of rows B, ascending, at least two; a curve needs three.
        losses: shape (seeds, budgets), in [0, 1e100], at least two seeds; entry (s, i) is the loss of seed
            s at ``budgets[i]``, and the seeds are the same ones at all budgets.
        seed: of the resamples.
        resamples: how many, >= 100.
        level: of the intervals, in (0, 1).

    Returns a :class:`Forecast`; one without a curve, with the reason, for losses that do not fall, or that
    rise again, beyond what the seeds differ by.

    Raises InputError for arguments out of range.
    """
    B, values, drawn = _curves_of(budgets, losses, seed, resamples, level)
    mean = drawn[0]
    known: dict[str, Any] = {"budgets": tuple(int(b) for b in B), "losses": tuple(mean.tolist())}
    if reason := _no_curve(B, values, level):
        return Forecast(**known, level=level, reason=reason)
    fitted = {form: fit_curves(form, B, drawn) for form in FORMS}
    trial = _try(B, drawn, level) if len(B) > _FEWEST else None
    fits = {}
    for form, one in fitted.items():
        left_out = None if trial is None else trial.errors[form]
        fits[form] = _described(one, B, mean, left_out, level)
    return Forecast(**known, level=level, fits=fits, **_compared(trial), _draws=fitted)


def try_forms(
    budgets: Sequence[int],
    losses: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Trial:
    """Fit both forms to all budgets but the largest, and hold them against the loss there.

    The arguments are those of :func:`forecast`, with at least four budgets; whether the losses fall is not
    looked at. The resampled curves have all budgets, so that the intervals know what is measured at the
    largest as well as what the smaller ones say of it.

    Raises InputError for arguments out of range.
    """
    if len(budgets) <= _FEWEST:
        reject("budgets", list(budgets), f"at least {_FEWEST + 1} numbers of rows: {_FEWEST} and one to try")
    B, _, drawn = _curves_of(budgets, losses, seed, resamples, level)
    return _try(B, drawn, level)


def _curves_of(
    budgets: Sequence[int], losses: ArrayLike, seed: int, resamples: int, level: float
) -> tuple[Array, Array, Array]:
    """The budgets, the losses by seed, and the mean curve with as many others as ``resamples`` below it."""
    B, values = _checked(budgets, losses)
    require_integer("seed", seed, 0)
    require_integer("resamples", resamples, 100)
    require_number("level", level, 0, 1, open_ends=True)
    return B, values, np.vstack([values.mean(axis=0), _resampled(values, seed, resamples)])


def _checked(budgets: Sequence[int], losses: ArrayLike) -> tuple[Array, Array]:
    counts = [require_integer("budgets", one, 1) for one in budgets]
    if len(counts) < 2 or any(b <= a for a, b in pairwise(counts)):
        reject("budgets", counts, "at least two numbers of rows, ascending")
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(counts) or len(values) < 2:
        reject("losses", f"an array of shape {values.shape}", f"(seeds, {len(counts)}), at least two seeds")
    if not ((values >= 0) & (values <= _LARGEST)).all():
        reject(
            "losses", "a number that is negative, too large or not finite", f"numbers in [0, {_LARGEST:g}]"
        )
    return np.array(counts, dtype=np.float64), values


def _no_curve(B: Array, values: Array, level: float) -> str:
    """Why the losses (seeds, budgets) are not a falling curve; "" where they are one."""
    if len(B) < _FEWEST:
        return f"{len(B)} budgets: a curve with a ceiling needs at least {_FEWEST}"
    mean = values.mean(axis=0)
    change, low, high = mean_interval(values[:, -1] - values[:, 0], confidence=level)
    if high >= 0:
        how = "does not fall" if change >= 0 else "does not fall by more than the seeds differ"
        return (
            f"the loss {how}: {mean[0]:.4g} at {B[0]:.0f} rows, {mean[-1]:.4g} at {B[-1]:.0f} "
            f"(a change of {low:+.2g} to {high:+.2g})"
        )
    best = int(mean.argmin())
    if best < len(B) - 1:
        rise, low, _ = mean_interval(values[:, -1] - values[:, best], confidence=level)
        if low > 0:
            return (
                f"the loss rises again: {mean[best]:.4g} at {B[best]:.0f} rows, {mean[-1]:.4g} at "
                f"{B[-1]:.0f} (a rise of {rise:.2g}): the rows that come last do harm"
            )
    return ""


def _resampled(values: Array, seed: int, resamples: int) -> Array:
    """Mean curves (resamples, budgets) as other seeds could have given them, none below 0."""
    rng, count = np.random.default_rng(seed), len(values)
    mean = values.mean(axis=0)
    weights = rng.standard_normal((resamples, count)) / np.sqrt(count * (count - 1))
    widened = np.sqrt((count - 1) / rng.chisquare(count - 1, size=(resamples, 1)))
    return np.asarray(np.maximum(mean + widened * (weights @ (values - mean)), 0.0))


# --- what is reported ---------------------------------------------------------------------------------------


def _try(B: Array, drawn: Array, level: float) -> Trial:
    missed = {
        form: fit_curves(form, B[:-1], drawn[:, :-1]).losses(B[-1:])[:, 0] - drawn[:, -1] for form in FORMS
    }
    scarcity, power = (np.abs(missed[form]) for form in FORMS)
    ahead = FORMS[0] if scarcity[0] <= power[0] else FORMS[1]
    wins = scarcity <= power if ahead == FORMS[0] else power < scarcity
    errors = {form: _estimate(values, level) for form, values in missed.items()}
    return Trial(errors, ahead, float(wins[1:].mean()))


def _compared(trial: Trial | None) -> dict[str, Any]:
    if trial is None:
        return {"note": f"both forms pass through {_FEWEST} points: they were not compared"}
    note = (
        f"fitted to the smaller budgets, {trial.ahead} foretold the loss at the largest better, "
        f"and in {trial.share:.0%} of the resamples"
    )
    return {"preferred": trial.ahead, "preferred_share": trial.share, "note": note}


def _described(fitted: Fitted, B: Array, mean: Array, left_out: Estimate | None, level: float) -> CurveFit:
    error = float(np.sqrt(((fitted.losses(B)[0] - mean) ** 2).mean()))
    numbers = (fitted.ceiling, fitted.price, fitted.rows_within(NEAR))
    ceiling, price, rows = (_estimate(values, level) for values in numbers)
    if fitted.sudden[0]:
        why = "the whole fall lies between the two smallest budgets: how steep it is was not seen"
        # Where the form crosses between the two is no more than its own guess.
        high = None if rows.high is None else max(rows.high, float(B[1]))
        price, rows = Estimate(None, None, None, why), Estimate(float(B[1]), float(B[0]), high, why)
        return CurveFit(fitted.form, ceiling, price, fitted.bend, rows, error, left_out)
    if price.value is None:
        price = replace(price, reason="the losses lie on a straight line: no bend shows")
    if rows.value is None:
        why = "the ceiling of the fitted curve is 0: no number of rows comes within a tenth of it"
        rows = replace(rows, reason=why)
    elif rows.value <= B[0]:
        rows = replace(rows, reason="the smallest budget is within already; fewer rows were not tried")
    return CurveFit(fitted.form, ceiling, price, fitted.bend, rows, error, left_out)


def _off(missed: Estimate) -> str:
    return f"with an error of {missed.value:+.2g} ({missed.low:+.2g} to {missed.high:+.2g})"


def _in_words(one: Estimate) -> str:
    low, high = ("any number" if end is None else f"{end:.3g}" for end in (one.low, one.high))
    return f"{one.value:.3g} ({low} to {high})"


def _estimate(values: NDArray[Any], level: float) -> Estimate:
    """The first of the ``values`` with the quantiles of the others; None for what is infinite."""
    tail = (1 - level) / 2
    others = np.sort(values[1:])
    places = (round(tail * (len(others) - 1)), round((1 - tail) * (len(others) - 1)))
    value, low, high = (
        float(one) if np.isfinite(one) else None for one in (values[0], others[places[0]], others[places[1]])
    )
    return Estimate(value, low, high)
