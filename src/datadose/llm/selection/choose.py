"""From scores to index sets: the SFT set, the RL set, their random controls and the replayed rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from datadose.covariance import Array
from datadose.errors import reject
from datadose.llm.pool import Row
from datadose.llm.scores import Scores, join_scores
from datadose.llm.selection.arrays import (
    Indices,
    Mask,
    Usable,
    among_these,
    finite_rows,
    first_of_each,
    flags,
    numbers,
    stream,
)
from datadose.llm.selection.chosen import Selection
from datadose.llm.selection.config import FILTERS, Representation, SelectionConfig
from datadose.llm.selection.duplicates import Repeats, find_near_copies, find_overlaps
from datadose.llm.selection.filters import DUPLICATE, UNSCORED, Funnel
from datadose.llm.selection.geometry import estimate_geometry
from datadose.llm.selection.measures import Measures, measure
from datadose.llm.selection.ordered import take_in_order
from datadose.llm.selection.rl_set import RlSet, choose_rl, no_rl_set, wants_rl, why_no_rl_set
from datadose.llm.selection.sft_set import best_of_each, drop_wrong, filter_sft, take_rows
from datadose.llm.selection.size import Budget, sft_budget
from datadose.llm.selection.unchecked import not_checked

REFERENCE_ROWS = 4096
"""Rows of the pool that represent what must be kept where no reference is given."""
_NONE = np.zeros(0, dtype=np.int64)


def select(
    pool: Scores,
    target: Scores | Sequence[Scores] | None = None,
    *,
    reference: Scores | None = None,
    against: Mapping[str, Sequence[Row]] | None = None,
    config: SelectionConfig | None = None,
) -> Selection:
    """Choose an SFT set and an RL set for ``target`` from ``pool``, and equal-size random controls.

    Pure: no model and no files but the pool's own. The result depends on the arguments alone.
    A set whose size is ``auto`` may be empty if the other is not.

    Args:
        pool: scores of the rows to choose from.
        target: scores of examples of what the model should learn, not in the pool (at least 2; a shift is
            hardly ever found from fewer than FEW_ROWS). None only without an SFT set. Several targets take
            turns in an order of rows; the method ``filters`` takes them as one.
        reference: scores of what must be kept; without it, a random sample of the pool represents that. Not
            used without an SFT set.
        against: the rows of evaluation files by name (their prompts count): no row that repeats one of them
            is in any set. The pool needs its folder then, and for ``near_duplicates``.
        config: sizes, seed and thresholds.

    Raises InputError: no target for an SFT set, scores under another model, fewer than 2 scored rows in
    target or reference, a target given twice, a question of the target in the pool, nothing left for either
    set (with the counts of every filter), a size that cannot be had, no pass rates for the RL set, replay
    without a reference.
    """
    config = config or SelectionConfig()
    targets = [target] if isinstance(target, Scores) else list(target or ())
    if not targets and config.sft_size != 0:
        reject("target", "none", "examples of the target for the SFT set (only an sft-size of 0 needs none)")
    _require_one_model(pool, targets, reference)
    _require_each_once(targets)
    whole = join_scores(targets) if targets else None
    if whole is not None:
        _require_no_overlap(pool, whole)
    with_rl = wants_rl(pool, config)
    if config.replay and reference is None:
        reject("replay", config.replay, "0 without a reference (there is nothing to replay)")
    # One thread: sums then do not depend on the machine, and the work is bound by memory anyway.
    with threadpool_limits(1):
        repeats = _repeats(pool, against, config)
        if whole is None or config.sft_size == 0:
            return _select(pool, whole, None, _no_sft_set(pool, repeats), repeats, config, with_rl)
        # Orders by embeddings and by sketches are taken from the same rows.
        kind: Representation = config.representation if config.method == FILTERS else "embedding"
        usable, *examples = (
            _usable(scores, name, kind)
            for name, scores in (("scores", pool), *(("target", one) for one in targets))
        )
        kept = None if reference is None else _usable(reference, "reference", kind)
        sft = _choose_sft(usable, _usable(whole, "target", kind), examples, kept, repeats, config)
        return _select(pool, whole, kept, sft, repeats, config, with_rl)


def _repeats(pool: Scores, against: Mapping[str, Sequence[Row]] | None, config: SelectionConfig) -> Repeats:
    """The rows that repeat an evaluation file or, nearly, another row."""
    overlaps = copies = None
    record: dict[str, Any] = {}
    if against:
        overlaps, record["against"] = find_overlaps(pool, against, config.overlap)
    if config.near_duplicates is not None:
        among = pool.table["issue"].isna().to_numpy(dtype=bool)
        if overlaps is not None:
            among = among & ~overlaps
        among = best_of_each(pool, among)
        passes, fails = flags(pool.table, "label_passes")
        order = np.lexsort((fails, ~passes))
        found, record["near_duplicates"] = find_near_copies(pool, order[among[order]], config.near_duplicates)
        # A question that is a near copy is one whichever of its rows is compared.
        hashes = pool.table["question_hash"].to_numpy()
        copies = among_these(hashes, hashes[found])
    return Repeats(overlaps, copies, record)


@dataclass(frozen=True, eq=False)
class _SftSet:
    """The rows chosen for SFT, and why."""

    rows: Indices
    eligible: Mask
    """Per pool row: scored, the one of its question, and no repeat of what it should not be."""
    funnel: Funnel
    measures: Measures
    geometry: dict[str, Any]
    sizes: dict[str, int]
    """Of what it was chosen from."""
    planner: dict[str, Any]
    diversity: dict[str, Any] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    weights: Array | None = None
    """Sampling weights of the rows, if they are weighed."""


def _no_sft_set(pool: Scores, repeats: Repeats) -> _SftSet:
    rows, read = len(pool.table), int(pool.table["issue"].isna().sum())
    sizes = {"scored": read, "target": 0, "reference": 0, "hard_stratum": 0, "sft_tokens": 0}
    funnel, nothing = Funnel("sft", rows), Measures.nothing(rows)
    planner, said = {"note": "not asked: --sft-size 0"}, repeats.not_looked_for()
    return _SftSet(_NONE, funnel.alive & False, funnel, nothing, {}, sizes, planner, unchecked=said)


def _choose_sft(
    pool: Usable,
    target: Usable,
    examples: Sequence[Usable],
    reference: Usable | None,
    repeats: Repeats,
    config: SelectionConfig,
) -> _SftSet:
    kind = config.representation
    funnel = _distinct_funnel(pool, repeats)
    distinct = funnel.alive.copy()
    kept = reference or _some_of(pool, np.flatnonzero(distinct), config.seed)
    measures = measure(pool, target, kept, config)
    geometry = estimate_geometry(
        kept.array(kind), kept.rows, target.array(kind), target.rows, representation=kind, seed=config.seed
    )
    drop_wrong(funnel, pool.scores)
    if config.method == FILTERS:
        filter_sft(funnel, pool.scores, measures, config)
    rows, weights = _NONE, None
    planner: dict[str, Any] = {}
    diversity: dict[str, Any] = {}
    stratum, asked = funnel.left, config.sft_size != "auto" or config.sft_tokens is not None
    said = not_checked(pool, target, kept, funnel, repeats, config, given=reference is not None)
    if stratum == 0 and not asked and config.rl_size != 0:
        planner = {"note": f"nothing can be chosen: {funnel.story()}"}
    else:
        budget, planner = sft_budget(funnel, pool, geometry, config)
        if config.method == FILTERS:
            rows, diversity = take_rows(funnel, budget, pool, target, geometry, config)
        else:
            among = Usable(pool.scores, funnel.rows)
            rows, diversity, weights = take_in_order(among, examples, budget, config)
        funnel.take(rows)
    sizes = {
        "scored": len(pool.rows),
        "target": len(target.rows),
        "reference": len(kept.rows),
        "hard_stratum": stratum,
        "sft_tokens": int(pool.numbers("tokens")[rows].sum()),
    }
    return _SftSet(
        rows, distinct, funnel, measures, geometry.to_json(), sizes, planner, diversity, said, weights
    )


def _select(
    pool: Scores,
    target: Scores | None,
    reference: Usable | None,
    sft: _SftSet,
    repeats: Repeats,
    config: SelectionConfig,
    with_rl: bool,
) -> Selection:
    hashes = pool.table["question_hash"].to_numpy()
    rl = choose_rl(pool, sft.rows, config, repeats) if with_rl else no_rl_set(pool)
    if len(sft.rows) == len(rl.rows) == 0:
        also = f"; for SFT {sft.funnel.story()}" if sft.funnel.filters else ""
        reject("rl-size", config.rl_size, f"nothing can be chosen: {rl.funnel.story()}{also}")
    control_sft, control_rl = _controls(pool, sft, rl, config)
    replay = _NONE
    if reference is not None and target is not None and config.replay:
        chosen = np.concatenate([sft.rows, rl.rows, control_sft, control_rl])
        replay = _replay(reference, target, hashes[chosen], len(sft.rows), config)
    eligible = rl.eligible if config.sft_size == 0 else sft.eligible
    return Selection(
        sft=sft.rows,
        rl=rl.rows,
        control_sft=control_sft,
        control_rl=control_rl,
        replay=replay,
        filters=sft.funnel.filters + rl.funnel.filters,
        geometry=sft.geometry,
        sizes={
            "pool": len(hashes),
            **sft.sizes,
            "eligible": int(eligible.sum()),
            "sft": len(sft.rows),
            "replay": len(replay),
            "rl": len(rl.rows),
            "control_sft": len(control_sft),
            "control_rl": len(control_rl),
        },
        planner=sft.planner,
        diversity=sft.diversity,
        weights=sft.weights,
        rl_record=rl.record,
        repeats=repeats.record,
        unchecked=sft.unchecked + why_no_rl_set(with_rl, config),
        config=config,
        pool=pool,
        target=target,
        measures=sft.measures,
        eligible=eligible,
        sft_removed=sft.funnel.removed_by,
        rl_removed=rl.funnel.removed_by,
        sft_crossed=sft.funnel.crossed,
        rl_crossed=rl.funnel.crossed,
    )


def _some_of(pool: Usable, rows: Indices, seed: int) -> Usable:
    """A random sample of the ``rows``, where no reference is given."""
    count = min(REFERENCE_ROWS, len(rows))
    return Usable(pool.scores, np.sort(stream(seed, "reference").choice(rows, count, replace=False)))


def _require_one_model(pool: Scores, targets: Sequence[Scores], reference: Scores | None) -> None:
    for name, scores in (*(("target", one) for one in targets), ("reference", reference)):
        if scores is None:
            continue
        if scores.manifest.get("model_digest") != pool.manifest.get("model_digest"):
            allowed = f"scores under {pool.manifest.get('model')}, as the pool's"
            reject(name, scores.manifest.get("model"), allowed)
        kinds = (found.manifest.get("embedding") for found in (scores, pool))
        if len({*kinds}) > 1:
            reject(
                name, "embeddings of another kind", "scores by the version that scored the pool (score again)"
            )
        for kind in ("sketches", "embeddings"):
            ours, theirs = getattr(pool, kind).shape[1], getattr(scores, kind).shape[1]
            if ours != theirs:
                reject(name, f"{kind} of size {theirs}", f"size {ours}, as in the pool's scores")


def _require_each_once(targets: Sequence[Scores]) -> None:
    for first, second in combinations(targets, 2):
        if all(first.table[name].equals(second.table[name]) for name in ("id", "question_hash")):
            value = f"{second.manifest.get('pool')}, with the rows of another one"
            reject("target", value, "each target once")


def _require_no_overlap(pool: Scores, target: Scores) -> None:
    shared = among_these(pool.table["question_hash"].to_numpy(), target.table["question_hash"].to_numpy())
    if shared.any():
        first = ", ".join(str(id_) for id_ in pool.table["id"][shared].head(5))
        value = f"{int(shared.sum())} pool rows that ask a question of the target ({first})"
        reject("target", value, "questions that are not in the pool: a test on them would mean nothing")


def _usable(scores: Scores, name: str, representation: Representation) -> Usable:
    """Rows without an issue, with finite NLL and representation; InputError if there are none."""
    nll = numbers(scores.table, "nll")
    rows = finite_rows(
        scores.sketches, np.flatnonzero(scores.table["issue"].isna().to_numpy(dtype=bool) & np.isfinite(nll))
    )
    if representation == "embedding":
        rows = finite_rows(scores.embeddings, rows)
    if len(rows) == 0:
        issues = scores.table["issue"].dropna().value_counts().head(3)
        found = "; ".join(f"{count} marked: {issue}" for issue, count in issues.items())
        reject(name, f"{len(scores.table)} rows, none of them scored ({found or 'no loss'})", "scored rows")
    return Usable(scores, rows)


def _distinct_funnel(pool: Usable, repeats: Repeats) -> Funnel:
    """The funnel of an SFT set up to the rows that its control is drawn from too."""
    scored = np.zeros(len(pool.scores.table), dtype=bool)
    scored[pool.rows] = True
    funnel = Funnel("sft", len(scored))
    funnel.drop(UNSCORED, ~scored, "scoring marked it with an issue, or its loss is not finite")
    repeats.drop_overlaps(funnel)
    # Verified before one of each question is kept: a wrong answer must not stand in front of a right one.
    best = best_of_each(pool.scores, funnel.alive)
    funnel.drop(DUPLICATE, ~best, "another row answers the same question, better or before it")
    repeats.drop_copies(funnel)
    return funnel


def _controls(pool: Scores, sft: _SftSet, rl: RlSet, config: SelectionConfig) -> tuple[Indices, Indices]:
    """Two disjoint uniform samples of the rows that each set could be chosen from, of the sets' sizes.

    The second has no question of the SFT set: it may be trained after either. So many questions are left
    to it that it can have its size: those of the sets themselves are an example that both fit. Of a set of
    weighed rows, beside which there is no RL set, the control is the same rows, drawn equally often.
    """
    hashes = pool.table["question_hash"].to_numpy()
    rng = stream(config.seed, "control")
    if sft.weights is not None:
        return sft.rows, _NONE
    order = rng.permutation(np.flatnonzero(sft.eligible))
    for_rl = rl.eligible & ~among_these(hashes, hashes[sft.rows])
    shared = among_these(hashes[order], hashes[for_rl])
    spare = int(for_rl.sum()) - len(rl.rows)
    order = order[~shared | (shared.cumsum() <= spare)]
    same = Budget(rows=len(sft.rows))
    if config.sft_tokens is not None:
        same = Budget(tokens=sft.sizes["sft_tokens"])
    first = order[: same.count(numbers(pool.table, "tokens")[order])]
    rest = np.flatnonzero(for_rl & ~among_these(hashes, hashes[first]))
    return np.sort(first), np.sort(rng.choice(rest, len(rl.rows), replace=False))


def _replay(
    reference: Usable, target: Scores, used: NDArray[np.int64], sft: int, config: SelectionConfig
) -> Indices:
    """Reference rows so that ``config.replay`` of sft.jsonl is theirs; none has a question of another set."""
    count = round(sft * config.replay / (1 - config.replay))
    hashes = reference.scores.table["question_hash"].to_numpy()
    among = np.zeros(len(hashes), dtype=bool)
    among[reference.rows] = True
    among &= ~among_these(hashes, used) & ~among_these(hashes, target.table["question_hash"].to_numpy())
    rows = np.flatnonzero(first_of_each(hashes, among))
    if count > len(rows):
        largest = len(rows) / (len(rows) + sft)
        reject(
            "replay",
            config.replay,
            f"at most {largest:.3g} for {sft} SFT rows: the reference has {len(rows)} distinct questions "
            "that are neither the target's nor in another set",
        )
    return np.sort(stream(config.seed, "replay").choice(rows, count, replace=False))
