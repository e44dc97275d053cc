"""A completion's loss without its prompt, in a pass of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datadose.errors import InputError
from datadose.llm.language_model import LanguageModel
from datadose.llm.pool import read_pool
from datadose.llm.score import score
from datadose.llm.score_config import ScoreConfig
from helpers.scored_pool import ROWS, Write


def test_each_completion_is_scored_without_its_prompt_too(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool = write_rows([*ROWS[:4], {"id": "none", "prompt": "2+2=", "completion": ""}])
    scores = score(model, pool, tmp_path / "out", config=ScoreConfig(alone=True, sketch_size=16))
    for place, row in enumerate(read_pool(pool)[:4]):
        encoded = model.encode(row)
        ids = [model.eos_ids[0], *encoded.completion_ids]
        with torch.no_grad():
            loss = model.model(torch.tensor([ids]), labels=torch.tensor([[-100, *ids[1:]]])).loss
        assert scores.table["nll_alone"][place] == pytest.approx(float(loss), rel=1e-5)
        assert scores.table["prompt_tokens"][place] == len(encoded.prompt_ids)
    assert scores.table["nll_alone"].isna().tolist() == [False] * 4 + [True]
    with pytest.raises(InputError, match="alone: got True; allowed: false with loss all"):
        ScoreConfig(alone=True, loss="all")
