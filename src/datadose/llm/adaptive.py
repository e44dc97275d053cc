"""Which prompts need more samples: a pilot of all, then only those whose place in the RL set is open.

A prompt is kept for RL if its chance of a mixed group is at least a threshold
(:mod:`datadose.llm.pass_rates`). After k of n samples have passed, the counts that all K samples would end
with follow a beta-binomial law, so the chance that the decision after K samples differs from today's is a
finite sum. While it is larger than a tolerance the prompt gets more samples. Mostly this saves samples of the
prompts that pass and fail by turns, which a few samples show to be mixed, and of those with extreme rates.

Nothing is drawn here, and nothing is random: counts in, numbers of samples out. The caller draws, judges and
calls again until no prompt requires any::

    rule = AdaptiveRule(samples=16)
    while (more := more_samples(drawn, passed, judged, rule)).any():
        ...  # draw more[i] samples of prompt i, add to its counts
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, gammaln

from datadose.errors import reject, require_integer, require_number
from datadose.llm.pass_rates import GROUP, MIXED, Prior, best_chance, chance_mixed, fit_prior
from datadose.shapes import Array

_LARGEST_GROUP = 4096
"""The chance of a mixed group takes time in proportion to its size."""


@dataclass(frozen=True)
class AdaptiveRule:
    """When a prompt has enough samples.

    Args:
        samples: samples of a prompt at most, K >= 1.
        pilot: samples of every prompt before anything is decided, and of an open one in each round, >= 1.
        group: samples G of a group in RL, from 2 to 4096.
        mixed: the chance of a mixed group from which a prompt is kept, in (0, 1 - 2^(1-G)].
        tolerance: a prompt is closed when the decision after K samples differs from today's with at most
            this chance, in [0, 1). With 0 only those are closed whose decision nothing can change.

    Raises InputError for a value out of range.
    """

    samples: int = 16
    pilot: int = 4
    group: int = GROUP
    mixed: float = MIXED
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        require_integer("samples", self.samples, 1)
        require_integer("pilot", self.pilot, 1)
        check_mixed("mixed", self.mixed, self.group)
        if require_number("tolerance", self.tolerance, 0, 1) == 1:
            reject("tolerance", self.tolerance, "a number in [0, 1)")


def check_mixed(field: str, chance: float, group: int) -> None:
    """InputError for a ``group`` out of range, or a ``chance`` of a mixed one that no pass rate gives."""
    require_integer("group", group, 2, _LARGEST_GROUP)
    best = best_chance(group)
    if not 0 < require_number(field, chance, 0, 1) <= best:
        allowed = f"a number in (0, {best:.4g}]: no pass rate gives a group of {group} a larger chance"
        reject(field, chance, allowed)


def more_samples(
    drawn: NDArray[Any], passed: NDArray[Any], judged: NDArray[Any], rule: AdaptiveRule
) -> NDArray[np.int64]:
    """How many samples each of N distinct prompts should get next, shape (N,); all 0 when there are enough.

    Prompts below the pilot are brought to it first, and nothing else is requested meanwhile: the prior is
    fitted to all prompts. The answer depends on the counts alone.

    Args:
        drawn: samples drawn so far, shape (N,), integers >= 0.
        passed: how many of them passed, shape (N,).
        judged: how many the verifier judged, shape (N,), at most ``drawn``. A prompt none of whose samples
            could be judged stays open.
        rule: see :class:`AdaptiveRule`.
    """
    drawn, passed, judged = (np.asarray(counts, dtype=np.int64) for counts in (drawn, passed, judged))
    pilot = np.clip(min(rule.pilot, rule.samples) - drawn, 0, None)
    if pilot.any() or not (judged > 0).any():
        return pilot if pilot.any() else _next(drawn, np.ones(len(drawn), dtype=bool), rule)
    prior = fit_prior(passed, judged)
    cases, place = np.unique(np.stack([drawn, passed, judged]), axis=1, return_inverse=True)
    still_open = np.array([_is_open(prior, *map(int, case), rule=rule) for case in cases.T])
    return _next(drawn, still_open[place.ravel()], rule)


def flip_chance(prior: Prior, passed: int, judged: int, further: int, rule: AdaptiveRule) -> float:
    """The chance in [0, 1] that further samples change whether a prompt is kept.

    Of the further ones j pass with the beta-binomial chance C(f, j) B(alpha + j, beta + f - j) /
    B(alpha, beta), from the posterior Beta(alpha, beta).

    Args:
        prior: the law of pass rates in the pool.
        passed: samples that passed.
        judged: samples that were judged, at least ``passed``.
        further: number f >= 0 of further judged samples.
        rule: the rule that decides.
    """
    j = np.arange(further + 1)
    alpha, beta = (float(values) for values in prior.posterior(np.array(passed), np.array(judged)))
    after = _kept(*prior.posterior(passed + j, np.full(further + 1, judged + further)), rule)
    now = _kept(np.array(alpha), np.array(beta), rule)
    ways = gammaln(further + 1) - gammaln(j + 1) - gammaln(further - j + 1)
    chances = np.exp(ways + betaln(alpha + j, beta + further - j) - betaln(alpha, beta))
    return float(min(1.0, chances[after != now].sum()))


def _kept(alpha: Array, beta: Array, rule: AdaptiveRule) -> NDArray[np.bool_]:
    return np.asarray(chance_mixed(alpha, beta, rule.group) >= rule.mixed)


def _is_open(prior: Prior, drawn: int, passed: int, judged: int, *, rule: AdaptiveRule) -> bool:
    further = rule.samples - drawn
    if further <= 0:
        return False
    return judged == 0 or flip_chance(prior, passed, judged, further, rule) > rule.tolerance


def _next(drawn: NDArray[np.int64], still_open: NDArray[np.bool_], rule: AdaptiveRule) -> NDArray[np.int64]:
    """One round: ``pilot`` samples more for each open prompt, as far as ``samples`` allows."""
    return np.where(still_open, np.clip(rule.samples - drawn, 0, rule.pilot), 0)
