"""The RL set: the distinct prompts whose groups of samples will be mixed, the largest expected signal first.

Neither losses nor representations decide here, and rows without a completion can be in it: RL relies on the
answers that the verifier is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datadose.errors import reject
from datadose.llm.pass_rates import Prior, chance_mixed, fit_pool, mixed_band, pool_signals
from datadose.llm.scores import Scores
from datadose.llm.selection.arrays import Indices, Mask, among_these, first_of_each, numbers, stream
from datadose.llm.selection.config import SelectionConfig
from datadose.llm.selection.duplicates import NO_REPEATS, Repeats
from datadose.llm.selection.filters import (
    DUPLICATE,
    HOPELESS,
    IN_SFT,
    NO_RATE,
    SOLVED,
    UNSCORED,
    Funnel,
    find_filter,
)
from datadose.shapes import Array

_SMALL = 0.001
NO_RATES = "RL: there are no pass rates, so no RL set (score with --samples and a verifier)."
ALL_WEIGHED = "RL: no RL set beside weights, since the SFT set has every usable row (--sft-size 0 gives one)."


@dataclass(frozen=True, eq=False)
class RlSet:
    """The prompts chosen for RL, and why."""

    rows: Indices
    """Positions in the pool, ascending."""
    eligible: Mask
    """Per pool row: read and sampled without an issue, and the first such row with its question."""
    funnel: Funnel
    record: dict[str, Any] = field(default_factory=dict)
    """The part of the manifest: the prior, the threshold, and remarks on the pool and on the set."""


def no_rl_set(pool: Scores) -> RlSet:
    """The record of a selection without an RL set. Its control still requires which rows could be drawn."""
    nothing = np.zeros(0, dtype=np.int64)
    return RlSet(nothing, np.zeros(len(pool.table), dtype=bool), Funnel("rl", len(pool.table)))


def wants_rl(pool: Scores, config: SelectionConfig) -> bool:
    """Whether the selection has an RL set. Without pass rates ``auto`` gives none beside an SFT set.

    Raises InputError where prompts are requested, or an RL set alone, and no row has a pass rate.
    """
    if config.weights:
        return False
    if config.rl_size == 0 or np.isfinite(numbers(pool.table, "pass_rate")).any():
        return config.rl_size != 0
    if config.rl_size != "auto" or config.sft_size == 0:
        allowed = "pass rates (score the pool with --samples K and a --verifier), or an rl-size of 0"
        reject("rl-size", "scores without pass rates", allowed)
    return False


def why_no_rl_set(wanted: bool, config: SelectionConfig) -> list[str]:
    """A sentence on why there is no RL set where it was not declined; [] where it is ``wanted``."""
    if wanted or config.rl_size == 0:
        return []
    return [ALL_WEIGHED if config.weights else NO_RATES]


def choose_rl(pool: Scores, sft: Indices, config: SelectionConfig, repeats: Repeats = NO_REPEATS) -> RlSet:
    """The RL set of ``config.rl_size`` prompts, or all that are kept.

    A prompt is kept if the chance that a group of ``config.group`` of its samples is mixed is at least
    ``config.rl_mixed``, under the posterior of its pass rate with the prior fitted to the pool. Prompts are
    ranked by the expected signal E p (1 - p), ties at random by the seed. A requested number is given
    whenever there are as many distinct prompts with pass rates, the kept ones first: the record has how many
    lie beyond the threshold.

    Args:
        pool: scores with pass rates.
        sft: rows of the SFT set; no prompt has one of their questions.
        config: size, group, threshold, seed.
        repeats: rows that repeat an evaluation file or, nearly, another row.

    Raises InputError for a size that cannot be had.
    """
    table, hashes = pool.table, pool.table["question_hash"].to_numpy()
    passed, judged = numbers(table, "pass_rate_passed"), numbers(table, "pass_rate_total")
    prior = fit_pool(hashes, passed, judged)
    assert prior is not None, "select() requires pass rates"
    signal = pool_signals(prior, passed, judged)
    chance, solved = _chances(prior, passed, judged, config.group)
    funnel, eligible = _distinct(
        hashes, table["issue"].isna().to_numpy(dtype=bool), np.isfinite(signal), repeats
    )
    funnel.drop(IN_SFT, among_these(hashes, hashes[sft]), "a prompt is used in one stage only")
    usable = funnel.alive.copy()
    group, mixed = config.group, config.rl_mixed
    why = f"a group of {group} samples is mixed with a chance below {mixed:g}, its pass rate being near"
    seldom = chance < mixed
    funnel.drop(SOLVED, seldom & solved, f"{why} 1: little left to learn", mixed - chance, [mixed])
    funnel.drop(HOPELESS, seldom & ~solved, f"{why} 0: hardly anything to reinforce", mixed - chance, [mixed])
    rows = _best(funnel, usable, signal, config)
    band = mixed_band(group, mixed)
    below, above = prior.shares(*band)
    taken = np.zeros(len(hashes), dtype=bool)
    taken[rows] = True
    record = {
        "group": group,
        "mixed": mixed,
        "prior": prior.to_json(),
        "band": list(band),
        "share_hopeless": below,
        "share_solved": above,
        "kept": funnel.left,
        "beyond_threshold": int((taken & ~funnel.alive).sum()),
        "chance_mixed": _mean(chance[rows]),
        "chance_mixed_pool": _mean(chance[eligible]),
    }
    # What was taken in spite of the threshold was not removed after all.
    funnel.take(rows)
    return RlSet(rows, eligible, funnel, record)


def _chances(prior: Prior, passed: Array, judged: Array, group: int) -> tuple[Array, Mask]:
    """(chance of a mixed group, whether the pass rate is nearer to 1) of each row, NaN and no where unknown.

    A million rows have as few different posteriors as there are pairs of counts.
    """
    chance, solved = np.full(len(judged), np.nan), np.zeros(len(judged), dtype=bool)
    rows = np.flatnonzero(judged > 0)
    k, n = passed[rows].astype(np.int64), judged[rows].astype(np.int64)
    base = int(n.max()) + 1
    cases, place = np.unique(n * base + k, return_inverse=True)
    alpha, beta = prior.posterior(cases % base, cases // base)
    chance[rows] = chance_mixed(alpha, beta, group)[place]
    solved[rows] = (alpha > beta)[place]
    return chance, solved


def _distinct(hashes: NDArray[np.int64], read: Mask, sampled: Mask, repeats: Repeats) -> tuple[Funnel, Mask]:
    """(the funnel of distinct prompts with pass rates, those of them that count for the control too)."""
    funnel = Funnel("rl", len(hashes))
    funnel.drop(UNSCORED, ~read, "reading or scoring marked it with an issue")
    funnel.drop(NO_RATE, ~sampled, "no completions of it were judged")
    repeats.drop_overlaps(funnel)
    distinct = first_of_each(hashes, funnel.alive)
    funnel.drop(DUPLICATE, ~distinct, "an earlier row asks the same")
    repeats.drop_copies(funnel)
    return funnel, funnel.alive.copy()


def _best(funnel: Funnel, usable: Mask, signal: Array, config: SelectionConfig) -> Indices:
    """The best-ranked rows, ascending: kept ones first, others only for a number that needs them."""
    if config.rl_size == "auto":
        return funnel.rows
    rows = np.flatnonzero(usable)
    if config.rl_size > len(rows):
        in_sft = find_filter(funnel.filters, IN_SFT)
        others = ", those of the SFT set left out," if in_sft is not None and in_sft["removed"] else ""
        story = f"{len(rows)} distinct prompts with pass rates{others} are left for RL of {len(usable)} rows"
        reject("rl-size", config.rl_size, f"at most {len(rows)}, or auto: {story}")
    chance_order = stream(config.seed, "rl").random(len(rows))
    order = np.lexsort((chance_order, -signal[rows], ~funnel.alive[rows]))
    return np.sort(rows[order[: config.rl_size]])


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None


def describe_prior(prior: Mapping[str, Any]) -> str:
    """The fitted law of a pool's pass rates in one sentence, from :meth:`Prior.to_json`."""
    return (
        f"Pass rates of the pool: Beta({prior['a']:.3g}, {prior['b']:.3g}), mean {prior['mean']:.3g}, "
        f"fitted to {prior['samples']} samples of {prior['prompts']} prompts"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} percent" if share == 0 or share >= _SMALL else "under 0.1 percent"


def describe_rl(record: dict[str, Any], size: int) -> list[str]:
    """Sentences on the ``record`` of an RL set of ``size`` prompts; [] without one."""
    if not record:
        return []
    prior, (low, high) = record["prior"], record["band"]
    group, mixed = record["group"], record["mixed"]
    said = [
        describe_prior(prior),
        f"By that law {_percent(record['share_solved'])} of the prompts pass more often than "
        f"{high:.3f} and {_percent(record['share_hopeless'])} less often than {low:.3f}: there a "
        f"group of {group} is mixed with a chance below {mixed:g}",
    ]
    if prior["note"]:
        said.append(f"Of that law: {prior['note']}")
    if size == 0:
        said.append(f"No prompt's group of {group} is mixed with a chance of {mixed:g} or more: no RL set")
    else:
        said.append(
            f"A group is mixed with a chance of {record['chance_mixed']:.2f} on average over the RL set, "
            f"{record['chance_mixed_pool']:.2f} over all prompts"
        )
    if beyond := record["beyond_threshold"]:
        said.append(
            f"{beyond} of the {size} prompts lie beyond the threshold, {record['kept']} are within it"
        )
    return said
