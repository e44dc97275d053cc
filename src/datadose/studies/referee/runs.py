"""Runs of the sea: rows chosen by a method, fine-tuning on them, and what is measured.

One run gives two results at equal steps of the optimiser: at its end, and at the step with the lowest loss
on validation rows of the target, the untouched model among them. ``loss`` (nats a token) and ``accuracy`` are
on test rows of the target's two families, in equal numbers; ``known`` is the loss on test rows of the
families that pretraining showed often.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datadose.llm.scores import Scores
from datadose.llm.selection import SelectionConfig, select
from datadose.llm.selection.nearest import draw_in_turns, unit_rows
from datadose.studies.levels.descent import Descent, Outputs, Score, descend, score_tokens
from datadose.studies.referee.base import VOCABULARY
from datadose.studies.referee.gradients import read_gradients
from datadose.studies.referee.language import KNOWN, TARGETS, Pair, held_out
from datadose.studies.referee.pools import Contents, Fault, read_pool
from datadose.studies.token_study.language import TEST, VALIDATION, Split
from datadose.studies.token_study.model import Tokens, completion_loss, encode, load_model

Rows: TypeAlias = list[dict[str, Any]]


class Column:
    """The columns of ``sea.csv``: the run, where it was stopped, what was chosen and what was measured."""

    FIGURE = "figure"
    CONTENTS, PAIR, METHOD, VERIFIED = "contents", "pair", "method", "verified"
    BUDGET, SEED = "budget", "seed"
    STOP, STEP = "stop", "step"
    VALIDATION, LOSS, ACCURACY = "validation", "loss", "accuracy"
    LOSS_FIRST, LOSS_SECOND = "loss_first", "loss_second"
    KNOWN, KNOWN_ACCURACY = "known", "known_accuracy"
    ROWS, TARGET, FIRST, RELATIVE, LOOK_ALIKE, FAULTY = (
        *("rows", "share_target", "share_first", "share_relative", "share_look_alike", "share_faulty"),
    )


class Stop:
    """Where a run is measured."""

    END, BEST = "end", "best"


class Reference:
    """Arms that are no method: the untouched model, right target rows alone, every row, and every usable row
    drawn with a weight by its place in the order of WEIGHED."""

    UNTOUCHED, ORACLE, FULL, WEIGHTED = "untouched", "oracle", "full", "weighted"


WEIGHED = "rds"
GRADIENT = "gradient"
"""The method of this study alone: nearest rows by gradients of all weights, target rows taking turns."""


@dataclass(frozen=True)
class SeaRun:
    """A run; its fields are columns of the table. ``budget`` is a share of the pool, and ``seed`` that of the
    pretrained model, the pool and the order of rows."""

    contents: Contents
    pair: Pair
    method: str
    budget: float
    seed: int
    verified: bool = True


@dataclass(frozen=True)
class HeldOut:
    """Rows of each target family for stopping and for the result, and test rows of each known family."""

    validation: int = 48
    test: int = 150
    known: int = 4


@dataclass(frozen=True)
class Chosen:
    """Rows of a pool, ascending, and the weights with which they are drawn (None: equal)."""

    rows: NDArray[np.int64]
    weights: NDArray[np.float64] | None = None


def choose(
    run: SeaRun, pool: Scores, target: Scores, lines: list[dict[str, Any]], gradients: Path | None = None
) -> Chosen:
    """The rows that the run is trained on; ``lines`` are the pool's, ``gradients`` for GRADIENT alone."""
    size = max(1, round(run.budget * len(lines)))
    if run.method == Reference.FULL:
        return Chosen(np.arange(len(lines)))
    if run.method == Reference.ORACLE:
        right = [
            i for i, line in enumerate(lines) if line["role"] == "target" and line["fault"] == Fault.NONE
        ]
        rng = np.random.default_rng([run.seed, 60])
        return Chosen(np.sort(rng.permutation(right)[:size]))
    if not run.verified:
        pool = pool.unjudged()
    if run.method == GRADIENT:
        if gradients is None:
            msg = f"the method {GRADIENT} without gradients"
            raise ValueError(msg)
        # Weights keep every usable row.
        every = SelectionConfig(method="random", weights=True, sft_size=size, rl_size=0, seed=run.seed)
        usable = np.asarray(select(pool, target, config=every).sft)
        ours, theirs = read_gradients(gradients)
        return Chosen(np.sort(draw_in_turns(ours, usable, unit_rows(theirs, np.arange(len(theirs))), size)))
    weighted = run.method == Reference.WEIGHTED
    method = WEIGHED if weighted else run.method
    config = SelectionConfig(method=method, weights=weighted, sft_size=size, rl_size=0, seed=run.seed)
    found = select(pool, target, config=config)
    return Chosen(np.asarray(found.sft), found.weights)


def run_arm(
    model: Path, scores: Path, run: SeaRun, descent: Descent, held: HeldOut, gradients: Path | None = None
) -> Rows:
    """Cell: fine-tune on what the run's method takes; a row of the table for each of its two stops."""
    pool, target = read_pool(scores)
    lines = pool.lines(range(len(pool.table)))
    chosen = choose(run, pool, target, lines, gradients)
    picked = [lines[i] for i in chosen.rows]
    tokens = encode([(line["prompt"], line["completion"]) for line in picked], VOCABULARY)
    network = load_model(model)
    last: tuple[float, int] = (np.inf, 0)
    best, state = last, {}

    def loss(rows: NDArray[np.int64]) -> Tensor:
        return completion_loss(network, tokens.at(rows))

    looks = descend(network.parameters(), loss, len(tokens), descent, run.seed, chosen.weights)
    for step in looks:
        last = (_validation(network, run.pair, held), step)
        if last[0] < best[0]:
            best, state = last, copy.deepcopy(network.state_dict())
    measured = {Stop.END: measure(network, run.pair, held)}
    if best != last:
        network.load_state_dict(state)
    measured[Stop.BEST] = measured[Stop.END] if best == last else measure(network, run.pair, held)
    composition = _composition(picked, TARGETS[run.pair], chosen.weights)
    return [
        {**asdict(run), **_stop(stop, where), **measured[stop], **composition}
        for stop, where in ((Stop.END, last), (Stop.BEST, best))
    ]


def _stop(name: str, where: tuple[float, int]) -> dict[str, Any]:
    """Where a run was stopped, by column: ``where`` is (validation loss, step)."""
    return {Column.STOP: name, Column.VALIDATION: where[0], Column.STEP: where[1]}


def _validation(network: Any, pair: Pair, held: HeldOut) -> float:
    return score_tokens(_logits(network), _held(TARGETS[pair], VALIDATION, held.validation)).loss


def run_untouched(model: Path, run: SeaRun, held: HeldOut) -> Rows:
    """Cell: the pretrained model as it is; one row for both stops."""
    network = load_model(model)
    where, measured = (_validation(network, run.pair, held), 0), measure(network, run.pair, held)
    return [{**asdict(run), **_stop(stop, where), **measured} for stop in (Stop.END, Stop.BEST)]


def measure(network: Any, pair: Pair, held: HeldOut) -> dict[str, float]:
    """Loss and accuracy on test rows, by column."""
    each = [score_tokens(_logits(network), _held((family,), TEST, held.test)) for family in TARGETS[pair]]
    known = score_tokens(_logits(network), _held(KNOWN, TEST, held.known))
    return {
        Column.LOSS: _mean(each, "loss"),
        Column.ACCURACY: _mean(each, "rows"),
        Column.LOSS_FIRST: each[0].loss,
        Column.LOSS_SECOND: each[1].loss,
        Column.KNOWN: known.loss,
        Column.KNOWN_ACCURACY: known.rows,
    }


def _mean(scores: list[Score], name: str) -> float:
    return float(np.mean([getattr(score, name) for score in scores]))


def _composition(
    picked: list[dict[str, Any]], targets: tuple[str, str], weights: NDArray[np.float64] | None
) -> dict[str, float]:
    """Shares of the chosen rows, or of what is drawn by weight, by column; faulty target rows count too."""

    def share(**wanted: str) -> float:
        fits = [all(line[key] == value for key, value in wanted.items()) for line in picked]
        return float(np.average(fits, weights=weights))

    return {
        Column.ROWS: len(picked),
        Column.TARGET: share(role="target"),
        Column.FIRST: share(header=targets[0]),
        Column.RELATIVE: share(role="relative"),
        Column.LOOK_ALIKE: share(role="look-alike"),
        Column.FAULTY: 1 - share(fault=Fault.NONE),
    }


def _logits(network: Any) -> Outputs:
    def outputs(inputs: Tensor) -> Tensor:
        made: Tensor = network(input_ids=inputs, use_cache=False).logits
        return made

    return outputs


@cache
def _held(headers: tuple[str, ...], split: Split, count: int) -> Tokens:
    return encode(held_out(headers, count, split), VOCABULARY)
