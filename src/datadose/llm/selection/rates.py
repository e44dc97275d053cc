"""The pool's pass rates: their law, and what a count of passed samples shows of a prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, gammaln

from datadose.covariance import Array
from datadose.llm.pass_rates import Prior, chance_mixed, expected_signal
from datadose.llm.selection.arrays import numbers
from datadose.llm.selection.chosen import Selection

_ALIKE = 0.9
_LONGEST = 32
"""Samples of a prompt up to which the counts are listed."""


@dataclass(frozen=True)
class PassRates:
    """The posterior of the pass rates of a pool, by how many of K samples passed."""

    prior: Prior
    samples: int
    """K: the largest number of judged samples that at least one in ten sampled rows has."""
    rows: Array
    """How many rows have k of exactly K passed, k = 0 ... K, shape (K + 1,)."""
    expected: Array
    """The same by the prior alone, shape (K + 1,)."""
    alike: bool
    """Whether nearly all sampled rows have K samples: only then are ``rows`` to be compared with it."""
    signal: Array
    """E p (1 - p) after k of K, shape (K + 1,)."""
    chance: Array
    """The chance that a group is mixed after k of K, shape (K + 1,)."""
    group: int
    """G: samples of a group."""
    mixed: float
    """The chance from which a prompt is kept."""


def pass_rates_of(selection: Selection) -> PassRates | None:
    """The posterior of a selection's pool, from its table and manifests; None without judged samples."""
    record = selection.rl_record.get("prior") or selection.pool.manifest.get("pass_rates")
    table, config = selection.pool.table, selection.config
    judged, passed = numbers(table, "pass_rate_total"), numbers(table, "pass_rate_passed")
    if not record or not (judged > 0).any():
        return None
    prior = Prior.from_json(record)
    totals = np.bincount(judged[judged > 0].astype(np.int64))
    samples = int(np.flatnonzero(totals >= 0.1 * totals.sum())[-1])
    rows = np.bincount(passed[judged == samples].astype(np.int64), minlength=samples + 1).astype(float)
    k = np.arange(samples + 1)
    posterior = prior.posterior(k, np.full(samples + 1, samples))
    return PassRates(
        prior=prior,
        samples=samples,
        rows=rows,
        expected=rows.sum() * beta_binomial(prior, samples),
        alike=bool(rows.sum() >= _ALIKE * totals.sum()),
        signal=expected_signal(*posterior),
        chance=chance_mixed(*posterior, config.group),
        group=config.group,
        mixed=config.rl_mixed,
    )


def beta_binomial(prior: Prior, samples: int) -> Array:
    """The chance of k passed of n = ``samples`` where rates follow the prior, k = 0 ... n, shape (n + 1,).

    C(n, k) B(a + k, b + n - k) / B(a, b).
    """
    k = np.arange(samples + 1)
    ways = gammaln(samples + 1) - gammaln(k + 1) - gammaln(samples - k + 1)
    a, b = prior.a, prior.b
    return np.asarray(np.exp(ways + betaln(a + k, b + samples - k) - betaln(a, b)))


def table_of(rates: PassRates) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(header, rows) by how many samples passed; no rows where there would be more than a page shows."""
    columns = [
        (f"passed of {rates.samples}", [f"{k}" for k in range(rates.samples + 1)]),
        ("rows", [f"{rows:,.0f}" for rows in rates.rows]),
        ("expected by the law", [f"{rows:,.1f}" for rows in rates.expected]),
        ("expected p(1 - p)", [f"{signal:.3f}" for signal in rates.signal]),
        (f"chance that a group of {rates.group} is mixed", [f"{chance:.2f}" for chance in rates.chance]),
    ]
    if not rates.alike:
        # Who got so many samples was decided by the earlier ones.
        del columns[2]
    header = tuple(name for name, _ in columns)
    cells = zip(*(column for _, column in columns), strict=True)
    return header, [] if rates.samples > _LONGEST else list(cells)


def kept_counts(rates: PassRates) -> str:
    """Which counts of passed samples are kept for RL, in one sentence."""
    kept = np.flatnonzero(rates.chance >= rates.mixed)
    what = f"a group of {rates.group} is mixed with a chance of {rates.mixed:g} or more"
    if len(kept) == 0:
        return f"After {rates.samples} samples {what} for no count of passed ones"
    return f"After {rates.samples} samples {what} where {kept[0]} to {kept[-1]} of them passed"
