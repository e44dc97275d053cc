"""The SFT set: aligned, hard but learnable, not pulling against what must be kept, and diverse."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq

from datadose.covariance import Array
from datadose.llm.scores import Scores
from datadose.llm.selection.arrays import Indices, Mask, Usable, first_of_each, flags, numbers, stream
from datadose.llm.selection.config import SelectionConfig
from datadose.llm.selection.filters import (
    CONFLICT,
    INTERFERING,
    KNOWN,
    NOT_ALIGNED,
    TOO_EASY,
    TOO_HARD,
    WRONG,
    Funnel,
)
from datadose.llm.selection.geometry import ShiftGeometry
from datadose.llm.selection.measures import Measures, shares_within
from datadose.llm.selection.size import Budget

CLUSTERS = 32
"""Clusters at most; each has at least 20 candidates on average."""
_WRONG = "the row's own completion does not pass: it is wrong"
_UNJUDGED = "not checked: no verifier has judged the rows' own completions"
_FIT_ROWS = 20_000
_COORDINATES = 16


def best_of_each(pool: Scores, among: Mask) -> Mask:
    """Which of the rows in ``among`` is the one of its question: the whole prompt, system message included.

    A row whose completion passes the verifier comes before one that was not judged, and that before one that
    fails. Of several that pass the one with the lowest loss stays, as among several completions of a row: a
    question is then hard only if its easiest right answer is; a higher loss is mostly another wording.
    Of others the first stays: a low loss is no sign of being right.
    """
    passes, fails = flags(pool.table, "label_passes")
    order = None
    if (passes | fails).any():
        loss = np.where(passes, numbers(pool.table, "nll"), 0.0)
        order = np.lexsort((loss, fails, ~passes))
    return first_of_each(pool.table["question_hash"].to_numpy(), among, order)


def drop_wrong(funnel: Funnel, pool: Scores) -> None:
    """Remove the rows whose own completion fails the verifier, where one has judged."""
    passes, fails = flags(pool.table, "label_passes")
    funnel.drop(WRONG, fails, _WRONG if (passes | fails).any() else _UNJUDGED)


def filter_sft(funnel: Funnel, pool: Scores, measures: Measures, config: SelectionConfig) -> None:
    """Apply the filters of judgement to a funnel of scored, distinct questions, none of them wrong."""
    table, stratum = pool.table, measures.stratum
    label_passes, _ = flags(table, "label_passes")
    funnel.drop(
        CONFLICT,
        _conflict(pool, config.conflict) & ~label_passes,
        f"the model gives its own, different answer with confidence {config.conflict:g} or more and finds it "
        "likelier than the label, which no verifier has confirmed",
        numbers(table, "own_confidence") - config.conflict,
        [config.conflict],
    )
    low = numbers(table, "pass_rate_low")
    funnel.drop(
        KNOWN,
        low > config.sft_solved,
        f"the pass rate is surely above {config.sft_solved:g}: nothing to learn from a demonstration",
        low - config.sft_solved,
        [config.sft_solved],
    )
    nll = numbers(table, "nll")
    shares = shares_within(nll, stratum, funnel.alive)
    out = shares > 1 - config.extreme
    funnel.drop(
        TOO_HARD,
        out,
        f"NLL in the top {100 * config.extreme:g} percent of its length: such tails are mostly noise",
        shares - (1 - config.extreme),
        _cuts(nll, measures, out, np.min),
    )
    shortfall = _shortfall(measures)
    funnel.drop(
        NOT_ALIGNED,
        (shortfall > 0) | (measures.alignment <= 0),
        f"less aligned with the target's mean than {100 * (1 - config.unaligned):g} percent of the target's "
        "own rows (of that length, where there are enough), or against it",
        shortfall,
        measures.needed.tolist(),
    )
    shares = shares_within(measures.interference, stratum, funnel.alive)
    out = (shares < config.interfering) & (measures.interference < 0)
    funnel.drop(
        INTERFERING,
        out,
        "a step on it raises the reference's loss, and it is in the worst "
        f"{100 * config.interfering:g} percent of its length",
        -measures.interference,
        _cuts(measures.interference, measures, out, np.max),
    )
    shares = shares_within(measures.hardness, stratum, funnel.alive)
    out = shares < 1 - config.hard
    funnel.drop(
        TOO_EASY,
        out,
        f"not among the hardest {100 * config.hard:g} percent of the rows of its length that are left",
        1 - config.hard - shares,
        _cuts(measures.hardness, measures, out, np.max),
    )


def _cuts(
    values: Array, measures: Measures, out: Mask, nearest: Callable[[Array], np.float64]
) -> list[float | None]:
    """Per length stratum the value of the removed row (``out``) that is nearest to the ones that stay.

    The filters rank rows within a stratum, so its rows at this value and beyond it are those that are out.
    """
    found = [values[out & (measures.stratum == place)] for place in range(len(measures.edges))]
    return [float(nearest(here)) if len(here) else None for here in found]


def _conflict(pool: Scores, confidence: float) -> Mask:
    """Whether the model's own answer differs, is confident, and is likelier per token than the label."""
    differs, _ = flags(pool.table, "own_differs")
    own, label = numbers(pool.table, "own_confidence"), np.exp(-numbers(pool.table, "nll"))
    return np.asarray(differs & (own >= confidence) & (own > label))


def _shortfall(measures: Measures) -> Array:
    """How much less aligned each row is than its stratum needs; NaN where that is not known."""
    found = np.full(len(measures.alignment), np.nan)
    known = measures.stratum >= 0
    found[known] = measures.needed[measures.stratum[known]] - measures.alignment[known]
    return found


def take_rows(
    funnel: Funnel,
    budget: Budget,
    pool: Usable,
    target: Usable,
    geometry: ShiftGeometry,
    config: SelectionConfig,
) -> tuple[Indices, dict[str, Any]]:
    """The rows of the SFT set, ascending, and how they were drawn: within all thresholds, if these suffice.

    Else all of those, and of the rows beyond a threshold of judgement the first that :meth:`Funnel.beyond`
    gives. ``budget`` must be one that the two together can fill.
    """
    within = funnel.rows
    tokens = pool.numbers("tokens")
    spare = budget.without(tokens[within])
    if spare is None:
        return draw_diverse(within, budget, pool, target, geometry, config)
    beyond = funnel.beyond()
    more = beyond[: spare.count(tokens[beyond])]
    if len(within) == len(more) == 0:
        budget.refuse(tokens[beyond[0]])
    return np.sort(np.concatenate([within, more])), {
        "note": "all rows within the thresholds, and some beyond"
    }


def draw_diverse(
    candidates: Indices,
    budget: Budget,
    pool: Usable,
    target: Usable,
    geometry: ShiftGeometry,
    config: SelectionConfig,
) -> tuple[Indices, dict[str, Any]]:
    """Of the ``candidates`` (ascending) what the ``budget`` holds, spread over clusters as the target is.

    Clusters are k-means of the candidates' whitened coordinates along the shifted directions (the leading 16
    coordinates where fewer than two are). Cluster c gets a share (t_c + 1) / (t + k) of the draw, t_c of the
    t target rows being nearest to it, as far as it has rows; within a cluster the draw is uniform. So the set
    follows the target over the shift, and a cluster without target rows stays small.
    Returns the rows and what was done.
    """
    tokens = pool.numbers("tokens")[candidates]
    used = min(geometry.shifted, _COORDINATES) if geometry.shifted >= 2 else _COORDINATES
    points = geometry.coordinates(pool.array(config.representation), candidates)[:, :used]
    expected = budget.spend(lambda size: size * float(tokens.mean()), len(candidates))
    k = max(1, min(CLUSTERS, len(candidates) // 20, expected))
    centroids = _centroids(points, k, config.seed)
    there = geometry.coordinates(target.array(config.representation), target.rows)[:, :used]
    own, wanted = vq(points, centroids)[0], vq(there, centroids)[0]
    available = np.bincount(own, minlength=len(centroids))
    visits = np.bincount(wanted, minlength=len(centroids)) + 1.0
    rng = stream(config.seed, "sft")
    # Every cluster in random order: a draw is the front of each.
    orders = [rng.permutation(np.flatnonzero(own == c)) for c in range(len(centroids))]
    sums = [np.concatenate([[0], np.cumsum(tokens[order])]) for order in orders]

    def tokens_of(size: int) -> float:
        quota = allot(size, visits, available)
        return float(sum(total[count] for total, count in zip(sums, quota, strict=True)))

    size = budget.spend(tokens_of, len(candidates))
    if size == 0:
        budget.refuse(tokens_of(1))
    quota = allot(size, visits, available)
    chosen = [candidates[order[:count]] for order, count in zip(orders, quota, strict=True)]
    record = {"clusters": len(centroids), "coordinates": int(points.shape[1]), "quota": quota.tolist()}
    return np.sort(np.concatenate(chosen)), record


def _centroids(points: Array, k: int, seed: int) -> Array:
    """k-means++ and Lloyd on at most 20,000 points; empty clusters are left out."""
    rng = stream(seed, "clusters")
    if len(points) > _FIT_ROWS:
        points = points[np.sort(rng.choice(len(points), _FIT_ROWS, replace=False))]
    if k == 1:
        return np.asarray(points.mean(axis=0, keepdims=True))
    with warnings.catch_warnings():
        # Candidates may have fewer distinct points than k.
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        centroids, labels = kmeans2(points, k, minit="++", seed=rng)
    return np.asarray(centroids[np.unique(labels)])


def allot(size: int, weights: NDArray[Any], available: NDArray[np.int64]) -> NDArray[np.int64]:
    """``size`` split by ``weights``, never more than ``available``; what a full place cannot take goes on.

    Largest remainders, ties to the first. ``size`` is at most the sum of ``available``.
    """
    quota = np.zeros(len(weights), dtype=np.int64)
    while (rest := size - int(quota.sum())) > 0:
        room = available - quota
        shares = np.where(room > 0, weights, 0.0)
        exact = rest * shares / shares.sum()
        full = (room > 0) & (exact >= room)
        if full.any():
            quota[full] = available[full]
            continue
        step = np.floor(exact).astype(np.int64)
        order = np.argsort(step - exact, kind="stable")
        step[order[: rest - int(step.sum())]] += 1
        quota += step
    return quota
