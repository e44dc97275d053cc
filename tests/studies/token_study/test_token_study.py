"""The token study's language, model, losses and pools; and one whole run at the smallest size."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from datadose.studies.token_study import language
from datadose.studies.token_study.experiment import mark_chosen
from datadose.studies.token_study.language import (
    FAMILIES,
    FRESH,
    KNOWN,
    LENGTHS,
    LETTERS,
    MARK,
    SPLITS,
    TARGET,
    draw_examples,
    draw_family,
    draw_strings,
    mixture,
    verify,
)
from datadose.studies.token_study.model import (
    END,
    IGNORED,
    VOCABULARY,
    DecoderShape,
    TokenPretraining,
    answer_ids,
    completion_loss,
    encode,
    load_model,
    new_model,
    new_tokenizer,
    pretrain,
    right,
    token_ids,
)
from datadose.studies.token_study.pools import pool_examples
from datadose.studies.token_study.training import (
    GROUP,
    TokenOptimisation,
    fine_tune,
    grpo,
    grpo_loss,
    sample,
    train_symbol,
)

SIZE = DecoderShape(16, 1, 2, 32)


def split_of(text: str) -> str:
    """The split that the letters of ``text``, in any order, belong to: 80, 10 and 10 percent."""
    bucket = int(language._buckets(np.array([[LETTERS.index(c) for c in text]]))[0])
    return SPLITS[max(0, bucket - 7)]


def test_families_answer_and_the_verifier_agrees() -> None:
    answers = {symbol: family("dcab") for symbol, family in FAMILIES.items()}
    assert answers == {"C": "dcab", "R": "bacd", "L": "cabd", "N": "edbc", "P": "cdba", "S": "abcd"}
    assert FAMILIES["P"]("abc") == "bac"
    assert FAMILIES["N"]("z") == "a"
    assert verify("abcd", {"prompt": "S:dcab="}) == 1
    assert verify(MARK + "abcd", {"prompt": "S:dcab="}) == 0
    assert verify("dcab", {"prompt": "S:dcab="}) == 0


def test_the_split_is_by_letter_multiset() -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        drawn = draw_strings(rng, 50, split, 5)
        assert {split_of("".join(rng.permutation(list(text)))) for text in drawn} == {split}
    shares = Counter(split_of("".join(rng.choice(list("abcdefghij"), 6))) for _ in range(2000))
    # Three binomial standard errors of 0.1 at 2000 draws are 0.02.
    assert abs(shares["test"] / 2000 - 0.1) < 0.03
    assert abs(shares["validation"] / 2000 - 0.1) < 0.03


def test_mixtures_have_their_shares_and_draws_repeat() -> None:
    assert TARGET not in mixture(0.0)
    assert sum(mixture(0.02).values()) == pytest.approx(1)
    drawn = draw_examples(np.random.default_rng(1), 2000, mixture(0.2))
    share = np.mean([prompt[0] == TARGET for prompt, _ in drawn])
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / 2000) ** 0.5
    assert drawn == draw_examples(np.random.default_rng(1), 2000, mixture(0.2))
    family = draw_family([3], 60, TARGET, "train", name=FRESH)
    assert len(set(family)) == 60
    assert {prompt[:2] for prompt, _ in family} == {f"{FRESH}:"}
    assert Counter(len(answer) for _, answer in family) == dict.fromkeys(LENGTHS, 10)


def test_the_tokenizer_is_the_studys_own_encoding(tmp_path: Path) -> None:
    tokenizer = new_tokenizer()
    for prompt, completion in [("S:dcab=", "abcd"), ("@:zz=", MARK + "a")]:
        assert tokenizer(prompt)["input_ids"] == token_ids(prompt)
        assert tokenizer.decode(token_ids(completion)) == completion
        assert tokenizer.decode(answer_ids(completion), skip_special_tokens=True) == completion
    assert tokenizer.chat_template is None


def test_pretraining_repeats_lowers_the_loss_and_is_saved_whole(tmp_path: Path) -> None:
    made = TokenPretraining(1 / 6, SIZE, steps=12, batch=32, warmup=2)
    first, second, third = (tmp_path / name for name in ("a", "b", "c"))
    pretrain(made, file=first)
    pretrain(made, file=second)
    weights = [load_model(path).state_dict() for path in (first, second)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    tokens = encode(draw_examples(np.random.default_rng(5), 100, mixture(1 / 6)))
    assert completion_loss(load_model(first), tokens) < completion_loss(new_model(SIZE, 0), tokens) - 0.1
    pretrain(replace(made, seed=1), file=third)
    other = load_model(third).state_dict()
    assert not all(torch.equal(weights[0][name], other[name]) for name in other)


def memorised() -> tuple[Any, list[tuple[str, str]]]:
    """A model that knows four answers, and the examples."""
    model = new_model(SIZE, 0)
    examples = draw_family([1], 4, TARGET, "train")
    fine_tune(model, examples, TokenOptimisation(150, 1e-2), 0)
    return model, examples


def test_fine_tuning_teaches_and_right_is_greedy_decoding() -> None:
    model, examples = memorised()
    asked = [*examples, *draw_family([2], 12, TARGET, "train")]
    found = right(model, encode(asked))
    assert found[:4].all()
    assert not found.all()
    for (prompt, answer), correct in zip(asked, found, strict=True):
        ids = torch.tensor([token_ids(prompt)])
        made = model.generate(input_ids=ids, max_new_tokens=10, do_sample=False)[0, ids.shape[1] :].tolist()
        assert (made[: len(answer) + 1] == answer_ids(answer)) == bool(correct)


def test_replay_fills_its_share_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from datadose.studies.token_study import training

    own, other = draw_family([1], 6, TARGET, "train"), draw_family([1], 6, "C", "train")
    seen = []

    def loss(model: Any, tokens: Any) -> Any:
        seen.append(int((tokens.inputs[:, 0] == token_ids("C")[0]).sum()) / len(tokens))
        return completion_loss(model, tokens)

    monkeypatch.setattr(training, "completion_loss", loss)
    fine_tune(new_model(SIZE, 0), own, TokenOptimisation(3, 1e-3, batch=8), 0, other, 0.25)
    assert seen == [0.25] * 3


def test_only_the_fresh_symbols_embedding_is_trained() -> None:
    model, examples = new_model(SIZE, 0), draw_family([1], 4, TARGET, "train", name=FRESH)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_symbol(model, examples, TokenOptimisation(5, 0.1), 0)
    after = model.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["model.embed_tokens.weight"]
    moved = (before[changed[0]] != after[changed[0]]).any(dim=1).nonzero().flatten().tolist()
    assert moved == token_ids(FRESH)


def test_the_grpo_loss_is_the_formula_token_by_token() -> None:
    model = new_model(SIZE, 0)
    prompts = [p for p, _ in draw_family([1], 2, TARGET, "train") for _ in range(GROUP)]
    torch.manual_seed(0)
    sampled = sample(model, prompts)
    # Equal completions of a group pass through the model once, and count each.
    sampled[2] = sampled[1]
    rewards = torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0] + [0.0] * GROUP)
    loss = grpo_loss(model, prompts, sampled, rewards)
    assert loss is not None
    total = 0.0
    for start in (0, GROUP):
        group = rewards[start : start + GROUP]
        for i in range(start, start + GROUP):
            advantage = (rewards[i] - group.mean()) / (group.std() + 1e-4)
            ids = torch.tensor([token_ids(prompts[i]) + sampled[i]])
            logs = model(input_ids=ids).logits[0].detach().log_softmax(dim=-1)
            first = len(prompts[i])
            total -= float(advantage) * sum(float(logs[t - 1, ids[0, t]]) for t in range(first, ids.shape[1]))
    assert loss.item() == pytest.approx(total / sum(len(s) for s in sampled), rel=1e-4)
    assert grpo_loss(model, prompts, sampled, torch.ones(2 * GROUP)) is None


def test_grpo_raises_the_reward_and_repeats() -> None:
    rewards = []
    for _ in range(2):
        model, examples = memorised()
        # Half-forgotten: rewards are neither all 0 nor all 1.
        with torch.no_grad():
            model.lm_head.weight.mul_(0.6)
        rewards.append(grpo(model, examples, TokenOptimisation(30, 1e-2, batch=4), 0))
    assert rewards[0] == rewards[1]
    assert np.mean(rewards[0][-5:]) > np.mean(rewards[0][:5]) + 0.1


def test_samples_have_the_model_s_law() -> None:
    model, (first, second, *_) = memorised()
    with torch.no_grad():
        model.lm_head.weight.mul_(0.7)
    torch.manual_seed(0)
    prompts = [first[0], second[0]] * 1000
    drawn = sample(model, prompts)
    for place, example in enumerate((first, second)):
        tokens = encode([example])
        answer = tokens.labels[0][tokens.labels[0] != IGNORED].tolist()
        with torch.no_grad():
            logs = -completion_loss(model, tokens) * len(answer)
        found = np.mean([ids == answer for ids in drawn[place::2]])
        chance = float(logs.exp())
        assert 0.05 < chance < 0.95
        assert found == pytest.approx(chance, abs=4 * (chance * (1 - chance) / 1000) ** 0.5)
    assert all(ids[-1] == VOCABULARY[END] or len(ids) == 10 for ids in drawn)
    assert all(VOCABULARY[END] not in ids[:-1] for ids in drawn)


def test_pools_hold_what_they_say() -> None:
    for name, kinds in (
        ("clean", {"target": 32, "known": 32}),
        ("contaminated", {"target": 24, "known": 24, "wrong": 8, "interfering": 8}),
    ):
        rows = pool_examples(name, 64, 0)  # type: ignore[arg-type]
        assert Counter(kind for kind, _ in rows) == kinds
        assert len({prompt for _, (prompt, _) in rows}) == 64
        for kind, (prompt, completion) in rows:
            assert verify(completion, {"prompt": prompt}) == (kind in ("target", "known"))
            assert split_of(prompt[2:-1]) == "train"
            assert (prompt[0] in KNOWN) == (kind in ("known", "interfering"))


def test_the_rate_is_chosen_on_validation_alone() -> None:
    rows = [
        {"panel": "p", "arm": "a", "model": "m", "pool": "c", "prompts": 8, "share": 0.0, "rate": rate}
        | {"seed": seed, "split": split, "metric": metric, "length": None, "value": value}
        for rate, validation, test in ((1e-4, 0.6, 0.1), (1e-3, 0.5, 0.9))
        for seed in range(2)
        for split, value in (("validation", validation), ("test", test))
        for metric in ("target", "known")
    ]
    table = mark_chosen(pd.DataFrame(rows))
    assert set(table.loc[table["chosen"], "rate"]) == {1e-4}
    assert len(table) == len(rows)


def test_padding_has_no_loss() -> None:
    tokens = encode([("C:ab=", "ab"), ("S:dcab=", "abcd")])
    assert (tokens.labels[0, :5] == IGNORED).all()
    assert tokens.labels[0, 5:8].tolist() == answer_ids("ab")
    assert (tokens.labels[0, 8:] == IGNORED).all()
    assert tokens.at(np.array([0])).inputs.shape == (1, 8)
