"""Runs of SmolLM2's sea: rows chosen by a method, fine-tuning on them, and what is measured on the way.

``loss`` (nats a token) and ``probability`` (of the whole answer) are on test rows of the target's two
families; ``validation`` decides where a run is best stopped; ``earlier`` is the loss on test rows of the
families that the untouched model solves.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datadose.llm.chat import Encoded
from datadose.llm.language_model import LanguageModel
from datadose.llm.selection import SelectionConfig, select
from datadose.studies.levels.descent import Descent, follow
from datadose.studies.levels.smollm import add_adapter
from datadose.studies.llm_study.measure import encode_rows
from datadose.studies.referee.smollm_pool import Drawn, SmolSea, draw_seed, held_out
from datadose.studies.referee.smollm_tasks import Fault, Row
from datadose.studies.referee.smollm_training import (
    Losses,
    Training,
    load_lines,
    mean_loss,
    measure,
    token_batches,
)

Rows: TypeAlias = list[dict[str, Any]]
UNTOUCHED, ORACLE = "untouched", "oracle"
"""Arms that are no method: the model before training, and right target rows alone."""


class Column:
    """The columns of ``sea_smollm.csv``: the run, the update, what was measured and what was chosen."""

    METHOD, VERIFIED, SEED = "method", "verified", "seed"
    STEP, TOKENS = "step", "tokens"
    VALIDATION, LOSS, PROBABILITY = "validation", "loss", "probability"
    LOSS_FIRST, LOSS_SECOND = "loss_first", "loss_second"
    EARLIER, EARLIER_PROBABILITY = "earlier", "earlier_probability"
    ROWS, TARGET, FIRST, FAULTY, FAMILIES = "rows", "share_target", "share_first", "share_faulty", "families"


@dataclass(frozen=True)
class SmolArm:
    """A run; its fields are columns of the table. ``verified``: whether the method sees the verdicts."""

    method: str
    seed: int
    verified: bool = True


def choose(arm: SmolArm, drawn: Drawn, sea: SmolSea, size: int) -> list[Row]:
    """The ``size`` rows that the arm is trained on."""
    if arm.method == ORACLE:
        right = [
            i for i, row in enumerate(drawn.rows) if row["family"] in sea.target and row["kind"] == Fault.NONE
        ]
        order = np.random.default_rng([arm.seed, 71]).permutation(right)[:size]
        return [drawn.rows[i] for i in np.sort(order)]
    pool = drawn.pool
    if not arm.verified:
        pool = pool.unjudged()
    config = SelectionConfig(method=arm.method, sft_size=size, rl_size=0, seed=arm.seed)
    return [drawn.rows[i] for i in select(pool, drawn.target, config=config).sft]


def run_arm(base: Path, scores: Path, sea: SmolSea, training: Training, size: int, arm: SmolArm) -> Rows:
    """Cell: fine-tune on what the arm takes; a row of the table for each update that is measured."""
    torch.set_num_threads(1)
    chosen = choose(arm, draw_seed(scores, sea, arm.seed), sea, size)
    model = load_lines(base)
    rows = encode_rows(model, chosen)
    held = _Measured(model, sea, training)

    def loss(places: NDArray[np.int64]) -> Tensor:
        return mean_loss(model, [rows[i] for i in places], bfloat16=training.bfloat16)

    adapter = add_adapter(model.model, training.rank, arm.seed)
    batches = token_batches([row.length for row in rows], training.tokens, arm.seed)
    descent = Descent(training.rate, training.updates, warmup=training.warmup)
    found = []
    for step in follow(adapter, loss, batches, descent):
        where = {Column.STEP: step, Column.TOKENS: step * training.tokens}
        found.append({**asdict(arm), **where, **held.measure(), **_composition(chosen, sea)})
    return found


def run_untouched(base: Path, sea: SmolSea, training: Training) -> Rows:
    """Cell: the model as it is."""
    torch.set_num_threads(1)
    found = _Measured(load_lines(base), sea, training).measure()
    return [{Column.METHOD: UNTOUCHED, Column.VERIFIED: True, Column.STEP: 0, Column.TOKENS: 0, **found}]


class _Measured:
    """The held-out rows of a study as tokens of a model, which may be trained in between."""

    def __init__(self, model: LanguageModel, sea: SmolSea, training: Training) -> None:
        held = held_out(sea)
        self._model, self._bfloat16 = model, training.bfloat16
        self._validation, self._test = (
            [encode_rows(model, [row for row in rows if row["family"] == family]) for family in sea.target]
            for rows in (held.validation, held.test)
        )
        self._earlier = encode_rows(model, held.earlier)

    def measure(self) -> dict[str, float]:
        """Losses and probabilities by column; both families of the target count alike."""
        validation, test = ([self._of(rows) for rows in each] for each in (self._validation, self._test))
        earlier = self._of(self._earlier)
        return {
            Column.VALIDATION: float(np.mean([each.loss for each in validation])),
            Column.LOSS: float(np.mean([each.loss for each in test])),
            Column.PROBABILITY: float(np.mean([each.probability for each in test])),
            Column.LOSS_FIRST: test[0].loss,
            Column.LOSS_SECOND: test[1].loss,
            Column.EARLIER: earlier.loss,
            Column.EARLIER_PROBABILITY: earlier.probability,
        }

    def _of(self, rows: list[Encoded]) -> Losses:
        return measure(self._model, rows, bfloat16=self._bfloat16)


def _composition(chosen: list[Row], sea: SmolSea) -> dict[str, float]:
    """Of the chosen rows: how many there are, shares of the target's (faulty ones too), of faulty ones, and
    the number of families."""

    def share(found: list[bool]) -> float:
        return float(np.mean(found))

    return {
        Column.ROWS: len(chosen),
        Column.TARGET: share([row["family"] in sea.target for row in chosen]),
        Column.FIRST: share([row["family"] == sea.target[0] for row in chosen]),
        Column.FAULTY: share([row["kind"] != Fault.NONE for row in chosen]),
        Column.FAMILIES: len({row["family"] for row in chosen}),
    }
