"""The level of the language model of our own, tiny: rows, weights, looks, averages, the expansion."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datadose.studies.levels.descent import Descent, descend, row_losses, score_tokens, weighted_loss
from datadose.studies.levels.language import LanguageLevel, LanguageRun, pool_rows, run_language
from datadose.studies.levels.linearised import Linearised
from datadose.studies.levels.schema import LOWER_WEIGHT, SHARE_MISLEADING, Column, Model, Pool
from datadose.studies.token_study.language import FAMILIES, MARK, TARGET, TRAIN, draw_family
from datadose.studies.token_study.model import (
    DecoderShape,
    completion_loss,
    encode,
    load_model,
    new_model,
    right,
)
from datadose.studies.token_study.runs import HeldOut

RUN = LanguageRun(0, 12, 40, Descent(1e-2, (0, 2), batch=4, warmup=1))
HELD = HeldOut(12, 6)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained model in a folder."""
    folder = tmp_path_factory.mktemp("model")
    new_model(DecoderShape(16, 2, 2, 32), 0).save_pretrained(str(folder))
    return folder


def _logits(model: Any, inputs: torch.Tensor) -> torch.Tensor:
    found = model(input_ids=inputs, use_cache=False)
    return found if isinstance(found, torch.Tensor) else found.logits


def test_rows_of_pools_are_nested_and_mislead_as_they_say() -> None:
    few, weights = pool_rows(RUN)
    many, _ = pool_rows(replace(RUN, prompts=40))
    assert many[:12] == few
    assert weights == [1.0] * 12
    assert all(answer == FAMILIES[TARGET](prompt[2:-1]) for prompt, answer in many)
    assert len({prompt for prompt, _ in many}) == 40
    mixed = replace(RUN, prompts=40, misleading=SHARE_MISLEADING, weight=LOWER_WEIGHT)
    rows, weights = pool_rows(mixed)
    assert rows[:28] == many[:28]
    assert weights == [1.0] * 28 + [LOWER_WEIGHT] * 12
    for prompt, answer in rows[28:34]:
        assert prompt.startswith(TARGET)
        assert answer != FAMILIES[TARGET](prompt[2:-1])
    for prompt, answer in rows[34:]:
        assert prompt[0] in FAMILIES
        assert prompt[0] != TARGET
        assert answer == MARK + FAMILIES[prompt[0]](prompt[2:-1])
    removed, weights = pool_rows(replace(mixed, weight=0.0))
    assert removed == rows[:28]
    assert weights == [1.0] * 28


def test_a_row_of_weight_w_is_w_copies_of_it() -> None:
    draw = torch.Generator().manual_seed(0)
    model = new_model(DecoderShape(16, 1, 2, 32), 0).double()
    tokens = encode(draw_family([5], 6, TARGET, TRAIN))
    weights = torch.randint(0, 4, (6,), generator=draw).double()
    copies = np.repeat(np.arange(6), weights.int().numpy())
    assert 0 < len(copies) != 6
    loss = weighted_loss(_logits(model, tokens.inputs), tokens.labels, weights)
    torch.testing.assert_close(loss, completion_loss(model, tokens.at(copies)))


def test_scores_are_those_of_the_token_study() -> None:
    model = new_model(DecoderShape(16, 1, 2, 32), 0)
    tokens = encode(draw_family([6], 10, TARGET, TRAIN))
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        completion_loss(model, tokens.at(slice(0, 5))).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
    found = score_tokens(lambda inputs: _logits(model, inputs), tokens, chunk=3)
    assert found.loss == pytest.approx(float(completion_loss(model, tokens).detach()), rel=1e-5)
    assert found.rows == right(model, tokens).mean()
    assert 0.5 <= found.rows < found.tokens < 1
    _, counts = row_losses(_logits(model, tokens.inputs), tokens.labels)
    assert counts.tolist() == [len(answer) + 1 for _, answer in draw_family([6], 10, TARGET, TRAIN)]


def test_a_look_changes_nothing_and_starts_at_the_untouched_model(path: Path) -> None:
    seldom = run_language(path, replace(RUN, descent=replace(RUN.descent, updates=(4,))), HELD)
    often = run_language(path, replace(RUN, descent=replace(RUN.descent, updates=(0, 1, 2, 4))), HELD)
    assert often[-1] == seldom[0]
    assert [row[:2] for row in often] == [[0, 0], [1, 1 / 3], [2, 2 / 3], [4, 4 / 3]]
    before = score_tokens(
        lambda inputs: _logits(load_model(path), inputs), encode(draw_family([77, 2], 12, TARGET, "test"))
    )
    assert often[0][2] == pytest.approx(before.loss, rel=1e-5)
    assert often[-1][2] != often[0][2]


def test_averaged_models_have_rows_of_their_own(path: Path) -> None:
    one, two = (run_language(path, replace(RUN, models=models), HELD) for models in (1, 2))
    assert two[0][2:] == pytest.approx(one[0][2:], rel=1e-5)
    assert two[-1][1] == 2 * one[-1][1]
    rows, _ = pool_rows(RUN)
    tokens, trained = encode(rows), []
    for place in range(2):
        model = load_model(path)
        own = tokens.at(np.arange(place, 12, 2))
        run = descend(
            model.parameters(),
            lambda b, model=model, own=own: completion_loss(model, own.at(b)),  # type: ignore[misc]
            6, RUN.descent, 1000 * place,
        )  # fmt: skip
        assert list(run) == [0, 2]
        trained.append(model)
    mean = load_model(path)
    with torch.no_grad():
        for weight, first, second in zip(*(m.parameters() for m in (mean, *trained)), strict=True):
            weight.copy_((first + second) / 2)
    held = encode(draw_family([77, 2], 12, TARGET, "test"))
    loss = score_tokens(lambda inputs: _logits(mean, inputs), held).loss
    assert two[-1][2] == pytest.approx(loss, rel=1e-5)


def test_at_a_small_rate_the_expansion_trains_as_the_model_does() -> None:
    """The gap after three updates of AdamW falls with the square of the rate."""
    start = new_model(DecoderShape(16, 2, 2, 32), 0).double()
    tokens = encode(draw_family([7], 12, TARGET, TRAIN))
    before, gaps = _logits(start, tokens.inputs).detach(), []
    for rate in (2e-4, 1e-4):
        ends = []
        for network in (copy.deepcopy(start), Linearised(start, read=lambda made: made.logits)):

            def loss(rows: Any, network: Any = network) -> torch.Tensor:
                batch = tokens.at(rows)
                return weighted_loss(_logits(network, batch.inputs), batch.labels, torch.ones(len(rows)))

            list(descend(network.parameters(), loss, 12, Descent(rate, (3,), batch=4, warmup=1), 0))
            ends.append(_logits(network, tokens.inputs).detach())
        gaps.append(float((ends[0] - ends[1]).norm() / (ends[0] - before).norm()))
    assert gaps[0] < 0.2
    assert 1.6 < gaps[0] / gaps[1] < 2.5


def test_a_preset_asks_each_question_of_every_seed(tmp_path: Path) -> None:
    level = LanguageLevel.preset("quick")
    rows = [shared for _, shared in level.settings(tmp_path)]
    assert len(rows) == len({tuple(row.items()) for row in rows})
    assert {row[Column.SEED] for row in rows} == set(range(level.seeds))
    kinds = {(row[Column.POOL], row[Column.WEIGHT]) for row in rows}
    assert kinds == {
        (Pool.ONE_KIND, 1.0), *((Pool.MISLEADING, weight) for weight in (1.0, LOWER_WEIGHT, 0.0))
    }  # fmt: skip
    plain = {
        row[Column.PROMPTS]
        for row in rows
        if (row[Column.MODEL], row[Column.POOL], row[Column.MODELS]) == (Model.REAL, Pool.ONE_KIND, 1)
    }
    assert len(plain) >= 5
    assert max(plain) >= level.descent.batch * max(level.descent.updates)
    averaged = {row[Column.PROMPTS] for row in rows if row[Column.MODELS] == level.models}
    assert averaged <= plain
    assert all(B // level.models in plain for B in averaged)
    assert {cell.arguments["path"] for cell, _ in level.settings(tmp_path)} == {
        cell.file for cell in level.made(tmp_path)
    }
