"""What the cells of all levels return, so that one picture and one set of judges serve them.

A cell runs post-training once, from a pretrained model on one pool, and returns a row for each number of
updates at which the model was looked at. B counts all rows of the pool; in a pool with a misleading source
``SHARE_MISLEADING`` of them mislead. A weight of 0 removes the misleading rows.
"""

from __future__ import annotations

from datadose.studies import tables


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


class Level:
    """Kinds of model, from the theory's own to a pretrained language model."""

    LINEAR, GPT, LANGUAGE, SMOLLM = "linear", "gpt", "language model", "smollm2"


class Pool:
    """What a pool holds: data of the target's kind alone, or with a misleading source among them."""

    ONE_KIND, MISLEADING = "one kind", "misleading"


class Model:
    """Values of ``model``: the real one, the one linearised at its pretrained weights, exact theory."""

    REAL, LINEARISED, THEORY = "real", "linearised", "theory"


SHARE_MISLEADING = 0.3
LOWER_WEIGHT = 0.2
"""Of a misleading row in the loss, where it is neither 1 nor 0."""
