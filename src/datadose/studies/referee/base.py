"""The pretrained models of the sea: one a seed, which saw all forty families, the four targets rarely."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from datadose.studies.referee.language import CAPITALS, LETTERS, MARK, draw_examples, mixture
from datadose.studies.token_study.language import Example
from datadose.studies.token_study.model import (
    DecoderShape,
    TokenPretraining,
    train_new,
    vocabulary_of,
)

VOCABULARY = vocabulary_of([*LETTERS, *CAPITALS, MARK, ".", ":", "="])
PRETRAINING = TokenPretraining(0.003, DecoderShape(96, 3, 4, 256), steps=1500)
"""Of seed 0; the share is each target's."""


def pretrain(pretraining: TokenPretraining, *, file: Path) -> None:
    """Cell: the model of ``pretraining.seed`` with its tokenizer, in a folder."""

    def batch(step: int) -> list[Example]:
        rng = np.random.default_rng([pretraining.seed, 1, step])
        return draw_examples(rng, pretraining.batch, mixture(pretraining.target_share))

    train_new(pretraining, batch, VOCABULARY, file)


def pretraining_of(seed: int, how: TokenPretraining = PRETRAINING) -> TokenPretraining:
    """How the model of a seed is made."""
    return replace(how, seed=seed)
