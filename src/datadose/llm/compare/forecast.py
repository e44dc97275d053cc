"""How the best-stopped loss falls with the number of rows: its ceiling, and how many rows come near it.

Two forms of a curve L(B) over B rows are fitted by least squares, each with three numbers:

- ``scarcity``: L = c + G / (B - b) with c, G >= 0 and b below the smallest B, the theory's form of the least
  error over penalties (docs/derivations/effective_penalty.md): c is the ceiling that no number of rows
  passes, G the price of scarcity.
- ``power``: L = c + A B^-p with c, A >= 0 and p > 0.

Both are linear in c and the factor for a given b or p, so that one search over that number is left. What
this module computes is about the settings of the runs alone: their steps, their rate, their target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datadose.covariance import Array
from datadose.errors import reject, require_choice, require_integer, require_number
from datadose.power import mean_interval
from datadose.showing import Compact

NEAR = 0.1
"""The share of the ceiling within which rows are said to come near it."""
FORMS = ("scarcity", "power")
_ZOOMS, _COARSE, _FINE = 7, 100, 17
_FEWEST = 3

_Basis: TypeAlias = Callable[[Array, Array], Array]


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
    left_out: float | None
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
    _draws: dict[str, _Fitted] = field(default_factory=dict)

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

    def _curves(self, form: str | None) -> _Fitted:
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
            below = "" if ceiling.high is None else f" (it is below {ceiling.high:.3g})"
            return f"the loss still falls so steadily that no ceiling shows{below}; form: {self.form}"
        name = "price of scarcity" if self.form == "scarcity" else "factor of the power of rows"
        price = fit.price.reason if fit.price.value is None else f"{name} {_in_words(fit.price)}"
        return (
            f"more rows lower the loss to a ceiling of {_in_words(ceiling)}, within 10 percent of which it "
            f"is from {_in_words(rows)} rows; {price}; form: {self.form}"
        )

    def to_json(self) -> dict[str, Any]:
        """The forecast as a document; null where there is no number."""
        fits = {}
        for name, fit in self.fits.items():
            estimates = {key: vars(getattr(fit, key)) for key in _ESTIMATES}
            bend = {"b" if name == "scarcity" else "exponent": fit.bend}
            fits[name] = {**estimates, **bend, "error": fit.error, "left_out": fit.left_out}
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
        losses: shape (seeds, budgets), finite and >= 0, at least two seeds; entry (s, i) is the loss of seed
            s at ``budgets[i]``, and the seeds are the same ones at all budgets.
        seed: of the resamples.
        resamples: how many, >= 100.
        level: of the intervals, in (0, 1).

    Returns a :class:`Forecast`; one without a curve, with the reason, for losses that do not fall, or that
    rise again, beyond what the seeds differ by.

    Raises InputError for arguments out of range.
    """
    B, values = _checked(budgets, losses)
    require_integer("seed", seed, 0)
    require_integer("resamples", resamples, 100)
    require_number("level", level, 0, 1, open_ends=True)
    mean = values.mean(axis=0)
    known: dict[str, Any] = {"budgets": tuple(int(b) for b in B), "losses": tuple(mean.tolist())}
    if reason := _no_curve(B, values, level):
        return Forecast(**known, level=level, reason=reason)
    drawn = np.vstack([mean, _resampled(values, seed, resamples)])
    fitted = {form: _fit(form, B, drawn) for form in FORMS}
    missed = {form: _miss(form, B, drawn) for form in FORMS} if len(B) > _FEWEST else None
    fits = {}
    for form, one in fitted.items():
        left_out = None if missed is None else float(missed[form][0])
        fits[form] = _described(one, B, mean, left_out, level)
    return Forecast(**known, level=level, fits=fits, **_compared(missed), _draws=fitted)


def _checked(budgets: Sequence[int], losses: ArrayLike) -> tuple[Array, Array]:
    counts = [require_integer("budgets", one, 1) for one in budgets]
    if len(counts) < 2 or any(b <= a for a, b in pairwise(counts)):
        reject("budgets", counts, "at least two numbers of rows, ascending")
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(counts) or len(values) < 2:
        reject("losses", f"an array of shape {values.shape}", f"(seeds, {len(counts)}), at least two seeds")
    if not (np.isfinite(values) & (values >= 0)).all():
        reject("losses", "a number that is negative or not finite", "finite numbers >= 0")
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


# --- the two forms ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fitted:
    """A form fitted to R curves: L = c + factor x basis(B), the basis 1 at the smallest B."""

    form: str
    smallest: float
    ceiling: Array
    factor: Array
    place: Array
    """(R,): the smallest B minus b, or the exponent."""

    def losses(self, B: Array) -> Array:
        """(R, len(B))."""
        shape = _BASES[self.form](B / self.smallest, self.place[:, None])
        return np.asarray(self.ceiling[:, None] + self.factor[:, None] * shape)

    @property
    def straight(self) -> NDArray[np.bool_]:
        """(R,): whether the curve bends too little to be told from a line (in B, or in log B)."""
        low, high = _RANGES[self.form]
        return np.asarray(self.place > 0.99 * high if self.form == "scarcity" else self.place < 1.01 * low)

    @property
    def sudden(self) -> NDArray[np.bool_]:
        """(R,): whether the whole fall lies between the two smallest budgets."""
        low, high = _RANGES[self.form]
        return np.asarray(self.place < 1.01 * low if self.form == "scarcity" else self.place > 0.99 * high)

    @property
    def price(self) -> Array:
        """G or A; infinite for a straight curve."""
        scale = self.place * self.smallest if self.form == "scarcity" else self.smallest**self.place
        return np.where(self.straight, np.inf, self.factor * scale)

    @property
    def bend(self) -> float:
        """b or p, of the first curve."""
        place = float(self.place[0])
        return place if self.form == "power" else self.smallest * (1 - place)

    def rows_within(self, share: float) -> Array:
        """(R,) the least B >= the smallest with L(B) <= (1 + share) c; infinite where there is none."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = np.where(self.factor > 0, self.factor / (share * self.ceiling), 0.0)
            scarce = self.form == "scarcity"
            found = 1 + self.place * (ratio - 1) if scarce else ratio ** (1 / self.place)
        return np.asarray(self.smallest * np.maximum(found, 1.0))


def _scarce(x: Array, gap: Array) -> Array:
    """1 / (B - b) over its value at the smallest B; x and ``gap`` (smallest B - b) in units of that B."""
    return gap / (x - 1 + gap)


def _falling_power(x: Array, exponent: Array) -> Array:
    return np.asarray(x**-exponent)


_BASES: dict[str, _Basis] = {"scarcity": _scarce, "power": _falling_power}
_RANGES = {"scarcity": (1e-3, 1e5), "power": (1e-3, 20.0)}
"""Of the gap, in units of the smallest B, and of the exponent: beyond the ends the curve is straight (in B
and in log B), or a step right after the smallest B."""


def _fit(form: str, B: Array, curves: Array) -> _Fitted:
    """Least squares of each of the ``curves`` (R, n): a search over b or p that closes in on the best."""
    x, basis = B / B[0], _BASES[form]
    low, high = np.log(_RANGES[form])
    every, grid = np.arange(len(curves)), np.linspace(low, high, _COARSE)[None]
    for _ in range(_ZOOMS):
        ceiling, factor, error = _least_squares(basis(x, np.exp(grid)[:, :, None]), curves)
        best, grid = error.argmin(axis=1), np.broadcast_to(grid, error.shape)
        ends = grid[every, np.maximum(best - 1, 0)], grid[every, np.minimum(best + 1, grid.shape[1] - 1)]
        kept = ceiling[every, best], factor[every, best], np.exp(grid[every, best])
        grid = np.linspace(*ends, _FINE, axis=1)
    return _Fitted(form, float(B[0]), *kept)


def _least_squares(shape: Array, curves: Array) -> tuple[Array, Array, Array]:
    """c, factor >= 0 of L = c + factor x shape, and the squared error: all (R, places).

    Args:
        shape: (R or 1, places, n), the basis at each of the n budgets.
        curves: (R, n), losses >= 0.
    """
    y = curves[:, None, :]
    middle, mean = shape.mean(axis=2, keepdims=True), y.mean(axis=2, keepdims=True)
    spread = shape - middle
    factor = ((spread * (y - mean)).sum(axis=2) / (spread**2).sum(axis=2)).clip(min=0)
    ceiling = mean[:, :, 0] - factor * middle[:, :, 0]
    # Where the best ceiling is negative the best allowed one is 0: a convex function on a half plane.
    alone = (shape * y).sum(axis=2) / (shape**2).sum(axis=2)
    factor, ceiling = np.where(ceiling < 0, alone, factor), ceiling.clip(min=0)
    error = ((ceiling[:, :, None] + factor[:, :, None] * shape - y) ** 2).sum(axis=2)
    return ceiling, factor, error


# --- what is reported ---------------------------------------------------------------------------------------


def _miss(form: str, B: Array, curves: Array) -> Array:
    """(R,) the loss at the largest budget by the curve through the others, minus the one there."""
    return np.asarray(_fit(form, B[:-1], curves[:, :-1]).losses(B[-1:])[:, 0] - curves[:, -1])


def _compared(missed: dict[str, Array] | None) -> dict[str, Any]:
    if missed is None:
        return {"note": f"both forms pass through {_FEWEST} points: they were not compared"}
    scarcity, power = (np.abs(missed[form]) for form in FORMS)
    ahead = FORMS[0] if scarcity[0] <= power[0] else FORMS[1]
    wins = scarcity <= power if ahead == FORMS[0] else power < scarcity
    share = float(wins[1:].mean())
    note = (
        f"fitted to the smaller budgets, {ahead} foretold the loss at the largest better, "
        f"and in {share:.0%} of the resamples"
    )
    return {"preferred": ahead, "preferred_share": share, "note": note}


def _described(fitted: _Fitted, B: Array, mean: Array, left_out: float | None, level: float) -> CurveFit:
    error = float(np.sqrt(((fitted.losses(B)[0] - mean) ** 2).mean()))
    numbers = (fitted.ceiling, fitted.price, fitted.rows_within(NEAR))
    ceiling, price, rows = (_estimate(values, level) for values in numbers)
    if fitted.sudden[0]:
        why = "the whole fall lies between the two smallest budgets: how steep it is was not seen"
        price, rows = Estimate(None, None, None, why), Estimate(float(B[1]), float(B[0]), rows.high, why)
        return CurveFit(fitted.form, ceiling, price, fitted.bend, rows, error, left_out)
    if price.value is None:
        price = replace(price, reason="the losses lie on a straight line: no bend shows")
    if rows.value is None:
        why = "the ceiling of the fitted curve is 0: no number of rows comes within a tenth of it"
        rows = replace(rows, reason=why)
    elif rows.value <= B[0]:
        rows = replace(rows, reason="the smallest budget is within already; fewer rows were not tried")
    return CurveFit(fitted.form, ceiling, price, fitted.bend, rows, error, left_out)


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
