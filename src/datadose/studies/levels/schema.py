"""What the cells of all levels return, so that one picture and one set of judges fit them.

A cell runs post-training once, from a pretrained model on one pool, and returns a row for each number of
updates at which the model was measured. B counts all rows of the pool; in a pool with a misleading source
``SHARE_MISLEADING`` of them mislead. A weight of 0 removes the misleading rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

from datadose.studies import tables
from datadose.studies.tables import Setting
from datadose.sweep import Cell


class Column(tables.Column):
    """The columns of a table of levels; ``error``, ``kept`` and ``train`` are measured at ``updates``."""

    LEVEL = "level"
    OPTIMISER = "optimiser"
    POOL = "pool"
    WEIGHT = "weight"
    UPDATES = "updates"
    MODELS = "models"
    KEPT = "kept"
    TRAIN = "train"
    EPOCHS = "epochs"
    ACCURACY = "accuracy"
    KEPT_ACCURACY = "kept_accuracy"
    """Of language models: shares of held-out rows of the target, and of what was known, that are right."""


MEASURED = (Column.UPDATES, Column.EPOCHS, Column.SEED, Column.ERROR, Column.KEPT, Column.TRAIN)
"""The values in a row that a cell returns, unless its level names others; None for what is not finite."""


class Level:
    """Kinds of model, from the theory's own to a pretrained language model."""

    LINEAR, GPT, LANGUAGE, SMOLLM = "linear", "gpt", "language model", "smollm2"


LEVELS = (Level.LINEAR, Level.GPT, Level.LANGUAGE, Level.SMOLLM)


class Pool:
    """What a pool holds: data of the target's kind alone, or with a misleading source among them."""

    ONE_KIND, MISLEADING = "one kind", "misleading"


class Model:
    """Values of ``model``: the real one, the one linearised at its pretrained weights, exact theory."""

    REAL, LINEARISED, THEORY = "real", "linearised", "theory"


SHARE_MISLEADING = 0.3
LOWER_WEIGHT = 0.2
"""Of a misleading row in the loss, where it is neither 1 nor 0."""
WEIGHTS = (1.0, LOWER_WEIGHT, 0.0)
AVERAGED = 4
"""Models of disjoint shares of the rows, whose weights are averaged."""


class LevelConfig(Protocol):
    """The configuration of a level: a frozen dataclass."""

    measured: ClassVar[tuple[str, ...]]
    """The columns of the values in a cell's rows."""

    @property
    def seeds(self) -> int:
        """Independent repetitions of every setting."""

    def made(self, folder: Path) -> list[Cell]:
        """The cells that make pretrained models below ``folder``: all before the others; often none."""

    def settings(self, folder: Path) -> Iterator[Setting]:
        """Every cell, with the columns that all of its rows share."""


def shared_columns(
    level: str,
    optimiser: str,
    prompts: int,
    *,
    pool: str = Pool.ONE_KIND,
    weight: float = 1.0,
    models: int = 1,
    model: str = Model.REAL,
    seed: int | None = None,
) -> dict[str, Any]:
    """The columns that the rows of a cell share.

    Args:
        level: one of ``LEVELS``.
        optimiser: "gd", "adam" or "adamw".
        prompts: B, all rows of the pool, misleading ones and those of all averaged models included.
        pool: one of :class:`Pool`.
        weight: of a misleading row in the loss; 1 in a pool of one kind.
        models: how many models of disjoint shares of the rows were averaged; 1 for one model of all rows.
        model: one of :class:`Model`.
        seed: of all rows, where a cell has one alone.
    """
    own = {} if seed is None else {Column.SEED: seed}
    return {
        Column.LEVEL: level,
        Column.OPTIMISER: optimiser,
        Column.PROMPTS: prompts,
        Column.POOL: pool,
        Column.WEIGHT: weight,
        Column.MODELS: models,
        Column.MODEL: model,
        **own,
    }


def misleading_rows(prompts: int) -> int:
    """How many of B rows mislead in a pool with a misleading source."""
    return round(SHARE_MISLEADING * prompts)
