"""Gradients of all weights for each row, sketched: the representation of LESS, in the study only.

Each row's gradient of its mean loss is added up in a few thousand counters, every weight in one of them with
a sign (a count sketch): inner products of sketches are those of gradients on average. LESS (Xia et al.,
2402.04333) projects the gradients of a LoRA, scaled as Adam would; here are all weights, and no scaling.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datadose.files import whole_folder
from datadose.llm.scores import Scores
from datadose.studies.referee.base import VOCABULARY
from datadose.studies.referee.pools import read_pool
from datadose.studies.token_study.model import completion_loss, encode, load_model

COUNTERS = 2048
_SEED = 20_261_130
_NAMES = ("pool", "target")


def row_gradients(model: Any, scores: Scores, counters: int = COUNTERS) -> NDArray[np.float32]:
    """The sketched gradient of each row of a scored file, (N, ``counters``)."""
    weights = list(model.parameters())
    total = sum(weight.numel() for weight in weights)
    draw = torch.Generator().manual_seed(_SEED)
    places = torch.randint(counters, (total,), generator=draw)
    signs = torch.randint(2, (total,), generator=draw).float() * 2 - 1
    found = np.empty((len(scores.table), counters), dtype=np.float32)
    for place, line in enumerate(scores.lines(range(len(found)))):
        loss = completion_loss(model, encode([(line["prompt"], line["completion"])], VOCABULARY))
        each = torch.autograd.grad(loss, weights)
        flat = torch.cat([gradient.flatten() for gradient in each]) * signs
        found[place] = torch.zeros(counters).index_add_(0, places, flat).numpy()
    return found


def make_gradients(model: Path, scores: Path, *, file: Path) -> None:
    """Cell: the gradients of the rows of a scored pool and of its target, in a folder."""
    network = load_model(model)
    with whole_folder(file) as out:
        for name, each in zip(_NAMES, read_pool(scores), strict=True):
            np.save(out / f"{name}.npy", row_gradients(network, each))


def read_gradients(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The gradients of the pool and of the target."""
    pool, target = (np.load(folder / f"{name}.npy") for name in _NAMES)
    return pool, target
