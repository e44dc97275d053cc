"""Sketched gradients of all weights: their inner products are those of the gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from datadose.studies.referee.base import VOCABULARY, pretrain
from datadose.studies.referee.gradients import make_gradients, read_gradients
from datadose.studies.referee.pools import SeaPool, make_scores, read_pool
from datadose.studies.token_study.model import (
    DecoderShape,
    TokenPretraining,
    completion_loss,
    encode,
    load_model,
)


def test_inner_products_of_sketches_are_those_of_gradients(tmp_path: Path) -> None:
    model, scores, out = (tmp_path / name for name in ("model", "scores", "gradients"))
    pretrain(TokenPretraining(0.02, DecoderShape(8, 1, 2, 16), steps=2, batch=8, warmup=1), file=model)
    make_scores(model, SeaPool("clean", "A", 40, 4), 1, file=scores)
    make_gradients(model, scores, file=out)
    sketches, _ = read_gradients(out)
    network, (pool, _) = load_model(model), read_pool(scores)
    exact = []
    for line in pool.lines(range(len(pool.table))):
        loss = completion_loss(network, encode([(line["prompt"], line["completion"])], VOCABULARY))
        each = torch.autograd.grad(loss, list(network.parameters()))
        exact.append(torch.cat([gradient.flatten() for gradient in each]).numpy())
    true = np.array(exact) @ np.array(exact).T
    found = sketches @ sketches.T
    assert np.corrcoef(true.ravel(), found.ravel())[0, 1] > 0.99
    assert abs(float((found / true.max() - true / true.max()).mean())) < 0.01
