"""A prompt's pass rate from K samples: a Beta posterior, the learning signal, and mixed groups.

A prompt passes with a rate p of its own, k of its n judged samples passed, and over the pool p follows
Beta(a, b), a density proportional to p^(a-1) (1-p)^(b-1). So p given k and n follows Beta(a + k, b + n - k).
GRPO learns from a group of G samples only if it is mixed, neither all passed nor all failed: the advantages
of the others are zero. With p the gradient's size goes as p (1 - p), the variance of one reward.

The prior is fitted to the pool itself by maximum likelihood, so that four samples of a prompt count for much
where the pool's rates are alike and for little where they differ. The likelihood is that of the counts
whatever decided how many samples a prompt got, as long as only earlier verdicts did: it is right for adaptive
sampling too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import betainc

from datadose.shapes import Array

GROUP = 8
"""Samples of a prompt in a step of GRPO, the default of ``datadose posttrain`` too."""
MIXED = 0.5
"""The chance of a mixed group from which a prompt is used in RL: more of its groups are mixed than not.

In groups of 8 that are pass rates from 0.083 to 0.917, near the band from 0.1 to 0.9 in common use."""
_GRID = 65
"""Values of a + b among which the search for the best begins."""


@dataclass(frozen=True)
class Prior:
    """The law Beta(a, b) of the pass rates of a pool's prompts."""

    a: float
    b: float
    prompts: int
    """Prompts that it was fitted to: those with at least one judged sample."""
    samples: int
    """Their judged samples in all."""
    note: str | None = None
    """What was assumed where the likelihood has no maximum inside; None where it has one."""

    @property
    def mean(self) -> float:
        """The mean pass rate, a / (a + b)."""
        return self.a / (self.a + self.b)

    def shares(self, low: float, high: float) -> tuple[float, float]:
        """(share of prompts with a rate below ``low``, share with one above ``high``), by the incomplete Beta
        function; both ends in [0, 1]."""
        return float(betainc(self.a, self.b, low)), float(betainc(self.b, self.a, 1 - high))

    def posterior(self, passed: NDArray[Any], judged: NDArray[Any]) -> tuple[Array, Array]:
        """(alpha, beta), each of shape (N,): Beta(alpha, beta) is what is known of each prompt's pass rate.

        ``passed`` of ``judged`` samples passed, both of shape (N,); a prompt with none has the prior itself.
        """
        return np.asarray(self.a + passed), np.asarray(self.b + (judged - passed))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Prior:
        """The prior in a ``record`` that :meth:`to_json` returned."""
        return cls(*(record[name] for name in ("a", "b", "prompts", "samples", "note")))

    def to_json(self) -> dict[str, Any]:
        """The prior as the manifest holds it."""
        return {
            "a": self.a,
            "b": self.b,
            "mean": self.mean,
            "prompts": self.prompts,
            "samples": self.samples,
            "note": self.note,
        }


def expected_signal(alpha: Array, beta: Array) -> Array:
    """E p (1 - p) for p ~ Beta(alpha, beta), in (0, 1/4): alpha beta / ((alpha + beta)(alpha + beta + 1)).

    ``alpha`` and ``beta`` are positive and of one shape, which the result has.
    """
    total = alpha + beta
    return np.asarray(alpha / total * (beta / (total + 1)))


def chance_mixed(alpha: Array, beta: Array, group: int) -> Array:
    """The chance that a group of ``group`` = G >= 2 samples is mixed, 1 - E p^G - E (1-p)^G, in (0, 1).

    For p ~ Beta(alpha, beta), arrays of one shape, which the result has. E p^G = B(alpha + G, beta) /
    B(alpha, beta) is the product of (alpha + i) / (alpha + beta + i) over i < G; the sum of the factors'
    logarithms keeps the digits that a difference of log-Beta functions loses at large alpha.
    """
    total = alpha + beta
    all_pass, all_fail = np.zeros(np.shape(total)), np.zeros(np.shape(total))
    for i in range(group):
        all_pass += np.log1p(-beta / (total + i))
        all_fail += np.log1p(-alpha / (total + i))
    # The larger of the two is taken from 1 first: what is left may be tiny.
    larger, smaller = np.maximum(all_pass, all_fail), np.minimum(all_pass, all_fail)
    return np.asarray(np.maximum(0.0, -np.expm1(larger) - np.exp(smaller)))


def chance_mixed_at(rate: Array, group: int) -> Array:
    """The chance 1 - p^G - (1-p)^G of a mixed group at known pass rates p = ``rate``, in their shape."""
    return np.asarray(1 - rate**group - (1 - rate) ** group)


def best_chance(group: int) -> float:
    """The largest chance of a mixed group that any pass rate gives, that of p = 1/2: 1 - 2^(1-G)."""
    return float(1 - 2.0 ** (1 - group))


def mixed_band(group: int, chance: float) -> tuple[float, float]:
    """(low, high): the pass rates between which a group is mixed with at least ``chance``; low + high = 1.

    ``chance`` lies in [0, 1 - 2^(1-G)].
    """
    if chance <= 0:
        return 0.0, 1.0
    if chance >= best_chance(group):
        return 0.5, 0.5
    low = float(brentq(lambda p: chance_mixed_at(p, group) - chance, 0, 0.5, xtol=1e-15))
    return low, 1 - low


def fit_prior(passed: NDArray[Any], judged: NDArray[Any]) -> Prior:
    """Beta(a, b) by maximum likelihood of ``passed`` of ``judged`` samples a prompt, both of shape (N,).

    With m = a / (a + b), r = 1 / (a + b) and c_i, d_i, e_i the numbers of prompts with more than i passed,
    failed and judged samples, the log-likelihood is sum_i c_i log(m + i r) + d_i log(1 - m + i r)
    - e_i log(1 + i r). It is concave in m, which is found for each a + b on a grid; then a + b is refined.

    Where it has no maximum inside, ``note`` of the prior states it:

    - no prompt has two samples: their spread is not defined. a + b = 2, as in the uniform law, and the mean
      is (passed + 1) / (judged + 2);
    - every prompt's samples all passed or all failed: the best law has rates 0 and 1 only, and would call
      every prompt sure after one sample. One prompt more is made up, with one of two samples passed;
    - the rates differ no more than chance makes them: the best law is one common rate. a + b is held at the
      number of judged samples, which is as surely as such a rate is known.

    Raises ValueError without any judged sample.
    """
    known = np.asarray(judged) > 0
    k, n = np.asarray(passed)[known].astype(np.int64), np.asarray(judged)[known].astype(np.int64)
    prompts, samples = len(n), int(n.sum())
    if prompts == 0:
        msg = "no judged samples: there is nothing to fit a prior to"
        raise ValueError(msg)
    if n.max() == 1:
        mean = (int(k.sum()) + 1) / (samples + 2)
        unknown = (
            "no prompt has two samples, so how much pass rates differ is not known: a + b = 2 is assumed"
        )
        return Prior(2 * mean, 2 * (1 - mean), prompts, samples, unknown)
    notes = []
    c, d, e = (_more_than(values, int(n.max())) for values in (k, n - k, n))
    if ((k == 0) | (k == n)).all():
        notes.append(
            "no prompt has both passed and failed samples: one with 1 of 2 passed is added for the fit"
        )
        c[0], d[0], e[:2] = c[0] + 1, d[0] + 1, e[:2] + 1
    strength, mean = _maximise(c, d, e, lowest=0.01 / (prompts + 1), highest=float(samples))
    if strength == samples:
        notes.append(
            "the prompts look alike, their pass rates differing no more than by chance: a + b is held at the "
            "number of samples"
        )
    return Prior(strength * mean, strength * (1 - mean), prompts, samples, "; ".join(notes) or None)


def fit_pool(questions: NDArray[np.int64], passed: NDArray[Any], judged: NDArray[Any]) -> Prior | None:
    """The prior of a pool whose rows may have the same question: the first row with samples counts.

    Args:
        questions: a hash of each row's question, shape (N,).
        passed: passed samples of each row, NaN or anything where none was judged, shape (N,).
        judged: judged samples of each row, 0 or NaN for none, shape (N,).

    Returns None if no row has a judged sample.
    """
    rows = np.flatnonzero(judged > 0)
    if len(rows) == 0:
        return None
    rows = rows[~pd.Series(questions[rows]).duplicated().to_numpy()]
    return fit_prior(passed[rows], judged[rows])


def pool_signals(prior: Prior | None, passed: NDArray[Any], judged: NDArray[Any]) -> Array:
    """E p (1 - p) of each row of a pool, (N,); NaN where no sample was judged. Arguments as fit_pool has."""
    found = np.full(len(judged), np.nan)
    rows = np.flatnonzero(judged > 0)
    if prior is not None:
        found[rows] = expected_signal(*prior.posterior(passed[rows], judged[rows]))
    return found


def _more_than(values: NDArray[np.int64], most: int) -> Array:
    """How many of the ``values`` exceed i, for i = 0 ... most - 1."""
    at_least = np.bincount(values, minlength=most + 1)[::-1].cumsum()[::-1]
    return np.asarray(at_least[1:], dtype=np.float64)


def _maximise(c: Array, d: Array, e: Array, *, lowest: float, highest: float) -> tuple[float, float]:
    """(a + b, mean) of the largest likelihood with ``lowest`` <= a + b <= ``highest``, the counts as above.

    c_0 and d_0 are positive, so the best mean lies inside (0, 1) whatever a + b is.
    """
    i = np.arange(len(e))

    def best_mean(r: float) -> float:
        def slope(m: float) -> float:
            return float((c / (m + i * r)).sum() - (d / (1 - m + i * r)).sum())

        return float(brentq(slope, 1e-300, 1 - 2.0**-53, xtol=1e-300, rtol=1e-14))

    def loss(logarithm: float) -> float:
        r = float(np.exp(-logarithm))
        m = best_mean(r)
        gains = c @ np.log(m + i * r) + d @ np.log(1 - m + i * r)
        return float(e @ np.log1p(i * r) - gains)

    grid = np.linspace(np.log(lowest), np.log(highest), _GRID)
    values = [loss(x) for x in grid]
    best = int(np.argmin(values))
    around = (grid[max(0, best - 1)], grid[min(_GRID - 1, best + 1)])
    refined = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-9})
    # The refinement never reaches an end of its bounds.
    if best == _GRID - 1 and values[-1] <= refined.fun:
        return highest, best_mean(1 / highest)
    strength = float(np.exp(refined.x))
    return strength, best_mean(1 / strength)
