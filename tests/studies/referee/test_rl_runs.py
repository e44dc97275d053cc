"""Prompts, selectors and runs of RL on the sea with tiny models: what is chosen, counted and measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datadose.studies.levels.descent import Descent, descend
from datadose.studies.referee.base import VOCABULARY, pretrain
from datadose.studies.referee.language import KNOWN, RARE, parsed, verify
from datadose.studies.referee.rl import SeaRlStudy
from datadose.studies.referee.rl_prompts import (
    LENGTHS,
    MOST,
    RlRun,
    Selector,
    choose_prompts,
    draw_pool,
    draw_prompts,
    pass_rates,
)
from datadose.studies.referee.rl_runs import Policy, RlHeldOut, run_rl
from datadose.studies.referee.stage_runs import (
    BOTH,
    NONE,
    RL,
    SFT,
    StageDescents,
    StageRows,
    StageRun,
    StageTarget,
    draw_target,
    run_numbers,
    run_stage,
)
from datadose.studies.token_study.model import (
    DecoderShape,
    TokenPretraining,
    answer_ids,
    completion_loss,
    encode,
    load_model,
    new_model,
)
from datadose.studies.token_study.training import sample

RATES = np.repeat([0.0, 0.03, 0.3, 0.5, 0.8, 1.0], 20)
TARGET = StageTarget("WXY", (3, 4), 0.5)


def chosen(selector: str, samples: int, prompts: int) -> Any:
    return choose_prompts(RATES, RlRun(selector, samples, prompts, 1))


def test_a_pool_has_every_family_and_length() -> None:
    pool = draw_pool([1, 70], 2, "train")
    asked = [parsed(prompt) for prompt, _ in pool]
    assert len({(family.header, text) for family, text in asked}) == len(pool)
    counts = Counter((family.header, len(text)) for family, text in asked)
    assert counts == {
        **{(h, n): 2 for h in KNOWN for n in LENGTHS},
        **{(h, n): 8 for h in RARE for n in LENGTHS},
    }
    assert all(verify(answer, {"prompt": prompt}) == 1 for prompt, answer in pool)
    assert max(len(answer_ids(answer, VOCABULARY)) for _, answer in pool) < MOST


def test_samples_pass_as_often_as_the_exact_rates_say() -> None:
    model = new_model(DecoderShape(16, 1, 2, 32), 0, VOCABULARY)
    examples = draw_prompts([3], {"WXY": 2, "NPR": 2}, "train", (3,))
    tokens = encode(examples, VOCABULARY)
    descent = Descent(1e-2, (40,), batch=4, warmup=1)
    for _ in descend(model.parameters(), lambda rows: completion_loss(model, tokens.at(rows)), 4, descent, 0):
        pass
    rates = pass_rates(model, examples)
    assert ((rates > 0.02) & (rates < 0.98)).any()
    torch.manual_seed(0)
    drawn = sample(model, [prompt for prompt, _ in examples] * 200, VOCABULARY, MOST)
    for place, (_, answer) in enumerate(examples):
        passed = np.mean([ids == answer_ids(answer, VOCABULARY) for ids in drawn[place :: len(examples)]])
        # Of K independent samples Binomial(K, p) pass.
        assert abs(passed - rates[place]) < 4 * (rates[place] * (1 - rates[place]) / 200) ** 0.5 + 1e-9


def test_what_selectors_take() -> None:
    assert chosen(Selector.UNFILTERED, 0, 0).tolist() == list(range(120))
    random, few = chosen(Selector.RANDOM, 0, 60), chosen(Selector.RANDOM, 0, 8)
    assert len({*RATES[random]}) == 6
    assert {*few} < {*random}
    assert {*RATES[chosen(Selector.MEDIUM, 512, 20)]} <= {0.3, 0.5, 0.8}
    assert {*RATES[chosen(Selector.HARDEST, 512, 15)]} == {0.0}
    passed = chosen(Selector.PASSED, 512, 15)
    assert {*RATES[passed]} == {0.03}
    assert len(passed) == 15
    assert {*RATES[chosen(Selector.DROP, 512, 0)]} == {0.3, 0.5, 0.8}
    assert {*RATES[chosen(Selector.SIGNAL, 512, 15)]} == {0.5}
    assert len(chosen(Selector.SIGNAL, 4, 30)) == 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pretrained model."""
    file = tmp_path_factory.mktemp("sea") / "model"
    pretrain(TokenPretraining(0.02, DecoderShape(16, 1, 2, 32), steps=2, batch=16, warmup=1), file=file)
    return file


def test_a_run_counts_its_samples(model: Path) -> None:
    descent, held = Descent(1e-3, (0, 1, 2), batch=2, warmup=1), RlHeldOut(1, 1, 1)
    run = RlRun(Selector.SIGNAL, 4, 3, 1)
    rows = run_rl(model, run, 1, descent, held)
    pool = len(draw_pool([1], 1, "train"))
    assert [row["total"] for row in rows] == [4 * pool, 4 * pool + 16, 4 * pool + 32]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert rows[0]["chosen"] == 3
    whole = run_rl(model, replace(run, selector=Selector.UNFILTERED, samples=0, prompts=0), 1, descent, held)
    assert [row["total"] for row in whole] == [0, 16, 32]
    assert [whole[0][kind] for kind in ("all", "rare", "known")] == [
        rows[0][kind] for kind in ("all", "rare", "known")
    ]


def test_a_step_without_a_mixed_group_has_no_gradient() -> None:
    network = new_model(DecoderShape(16, 1, 2, 32), 0, VOCABULARY)
    policy = Policy(network, draw_prompts([3], {"NRU": 2}, "train", (8,)))
    loss = policy(np.arange(2))
    assert policy.lately() == {"reward": 0.0, "mixed": 0.0}
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None and not weight.grad.any() for weight in network.parameters())


def test_a_stage_ends_at_its_best_look(model: Path) -> None:
    rows = StageRows(4, 4, 6, 6)
    # A rate of 1 spoils the model: the best look is the untouched one.
    spoils = StageDescents(1.0, 1.0, 3, 2, 4, 2)
    before = run_stage(model, StageRun(TARGET, NONE, 1), rows, spoils)
    after = run_stage(model, StageRun(TARGET, BOTH, 1), rows, spoils)
    assert after["validation"] >= before["validation"]
    teaches = StageDescents(3e-2, 1e-3, 9, 2, 4, 2)
    assert run_stage(model, StageRun(TARGET, SFT, 1), rows, teaches)["validation"] > before["validation"]
    assert run_stage(model, StageRun(TARGET, RL, 1), rows, teaches)["known"] >= 0


def test_stages_have_the_same_compute() -> None:
    descents = SeaRlStudy.preset("quick").stages.descents
    whole, half = descents.rl(1.0).updates[-1], descents.rl(0.5).updates[-1]
    assert (whole, half) == (descents.rl_steps, descents.rl_steps // 2)
    # A step of RL draws 128 completions and trains on them, one of SFT trains on 32: forward 1, both 3.
    assert descents.sft(1.0).updates[-1] * 32 * 3 == pytest.approx(whole * 128 * 4, rel=0.01)
    assert descents.sft(0.5).updates[-1] == pytest.approx(descents.sft(1.0).updates[-1] / 2, abs=1)


@pytest.mark.slow
def test_numbers_are_those_that_score_measures(model: Path) -> None:
    rows = StageRows(8, 4, 4, 4)
    found = run_numbers(model, TARGET, 1, rows)
    assert 0 <= found["share_mixed"] <= 1
    assert 0 <= found["pass_rate"] <= 1
    assert 0 < found["signal"] < 0.25
    assert 2 < found["nll"] < 5
    assert len(draw_target(TARGET, 5, 1, "train")) == 6
    assert pass_rates(load_model(model), draw_target(TARGET, 5, 1, "train")).shape == (6,)
