"""Samples against transformers' own and the model's distribution; pass rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig

from datadose.errors import InputError
from datadose.llm.engines import ModelEngine, sample_batch
from datadose.llm.generation import Continuation, Sampling, continuations, prompt_batches
from datadose.llm.language_model import Encoded, LanguageModel
from datadose.llm.pool import Row, read_pool
from datadose.llm.sample_store import OWN, SampleStore
from datadose.llm.sampling import Samples, Texts, pass_rate, verify, wilson
from datadose.llm.verifiers import exact
from datadose.progress import silent

PROMPTS = ["1+1=", "what is the capital of this place? ", "what is your name?", "what is"]


def draw(model: LanguageModel, prompts: list[str], **changes: Any) -> list[list[Continuation]]:
    """Continuations of plain prompts."""
    batch_tokens = changes.pop("batch_tokens", 4096)
    ids = [model.encode_prompt(prompt) for prompt in prompts]
    return continuations(model, ids, Sampling(**{"samples": 3, "max_tokens": 12, **changes}), batch_tokens)


def ids_of(found: list[list[Continuation]]) -> list[list[list[int]]]:
    return [[one.ids for one in row] for row in found]


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[1:3]], ids=["nothing shared", "shared prefix"])
def test_greedy_continuations_are_transformers_own(model: LanguageModel, prompts: list[str]) -> None:
    found = draw(model, prompts, samples=1, temperature=0)
    config = GenerationConfig(do_sample=False, max_new_tokens=12, eos_token_id=2, pad_token_id=2)
    for prompt, (sample, greedy) in zip(prompts, found, strict=True):
        ids = torch.tensor([model.encode_prompt(prompt)])
        with torch.no_grad():
            expected = model.model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=config
            )[0, ids.shape[1] :].tolist()
        assert sample.ids == greedy.ids == expected


def test_samples_do_not_depend_on_batch_or_turns_but_on_seed_and_index(model: LanguageModel) -> None:
    together = ids_of(draw(model, PROMPTS))
    assert [ids_of(draw(model, [prompt]))[0] for prompt in PROMPTS] == together
    assert ids_of(draw(model, PROMPTS, batch_tokens=1)) == together
    assert ids_of(draw(model, PROMPTS[::-1])) == together[::-1]
    more = ids_of(draw(model, PROMPTS, samples=5))
    assert [row[:3] for row in more] == [row[:3] for row in together]
    assert ids_of(draw(model, PROMPTS, seed=1)) != together
    for row in together:
        assert len({tuple(ids) for ids in row}) == len(row)


def test_the_callers_random_stream_is_left_alone(model: LanguageModel) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draw(model, PROMPTS)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_first_tokens_follow_the_models_distribution(model: LanguageModel, temperature: float) -> None:
    count = 4000
    found = draw(model, PROMPTS[:1], samples=count, temperature=temperature, max_tokens=1, batch_tokens=10**6)
    drawn = np.bincount([one.ids[0] for one in found[0][:count]], minlength=model.vocabulary_size)
    with torch.no_grad():
        logits = model.model(torch.tensor([model.encode_prompt(PROMPTS[0])])).logits[0, -1]
    expected = torch.softmax(logits.double() / temperature, -1).numpy() * count
    common = expected >= 5
    observed = [*drawn[common], drawn[~common].sum()]
    # Level 1 in 1,000, with a fixed seed.
    assert chisquare(observed, [*expected[common], expected[~common].sum()]).pvalue > 1e-3


def test_continuations_stop_at_the_end_token_and_at_the_room(model: LanguageModel) -> None:
    found = draw(model, PROMPTS, samples=40, max_tokens=25)
    end = model.eos_ids[0]
    lengths = set()
    finishes = {one.finish for row in found for one in row}
    assert finishes == {"stop", "length"}
    for row in found:
        for one in row:
            lengths.add(len(one.ids))
            assert end not in one.ids[:-1]
            assert len(one.ids) == 25 or one.ids[-1] == end
            assert one.finish == ("stop" if one.ids[-1] == end else "length")
    assert 25 in lengths
    assert len(lengths) > 3
    long = "a" * (model.context_length - 2)
    assert {len(one.ids) for one in draw(model, [long], samples=20)[0]} <= {1, 2}
    batches = prompt_batches(model, [model.context_length - 2, 2], Sampling(2, max_tokens=12), 10**6)
    assert batches == [[1], [0]]


def test_log_probability_is_the_measured_nll(model: LanguageModel) -> None:
    for prompt, row in zip(PROMPTS, draw(model, PROMPTS, temperature=1.5), strict=True):
        ids = model.encode_prompt(prompt)
        for one in row:
            nll = model.measure([Encoded(np.array(ids + one.ids), len(ids))]).nll[0]
            assert one.log_probability == pytest.approx(-nll, rel=1e-4)


def test_records_hold_text_without_special_tokens(model: LanguageModel) -> None:
    prompts = [model.encode_prompt(prompt) for prompt in PROMPTS]
    found = sample_batch(model, prompts, Sampling(2, 1.0, 30, 0), 4096)
    greedy = draw(model, PROMPTS, max_tokens=30)
    for drawn, row in zip(found, greedy, strict=True):
        assert [one.index for one in drawn] == [0, 1, OWN]
        own = drawn[-1]
        assert own.text == model.decode(row[-1].ids)
        assert all(one.text is not None and "<|" not in one.text for one in drawn)
        assert own.confidence == pytest.approx(math.exp(row[-1].log_probability))
        assert own.confidence is not None
        assert 0 < own.confidence <= 1
        assert [one.confidence for one in drawn[:-1]] == [None, None]


def test_batches_of_strings_and_messages_do_not_change_the_texts(model: LanguageModel) -> None:
    prompts: list[Any] = [PROMPTS[0], [{"role": "user", "content": "2+3?"}], PROMPTS[2]]
    ids, sampling = [model.encode_prompt(prompt) for prompt in prompts], Sampling(2, max_tokens=8, seed=3)
    alone = [sample_batch(model, [one], sampling, 4096)[0] for one in ids]
    assert [len(drawn) for drawn in alone] == [3, 3, 3]
    batches = prompt_batches(model, list(map(len, ids)), sampling, 100)
    assert sorted(place for batch in batches for place in batch) == [0, 1, 2]
    assert len(batches) > 1
    for batch in batches:
        found = sample_batch(model, [ids[place] for place in batch], sampling, 100)
        texts = [[one.text for one in drawn] for drawn in found]
        assert texts == [[one.text for one in alone[place]] for place in batch]


def test_later_samples_are_those_of_a_call_for_all(model: LanguageModel) -> None:
    ids = [model.encode_prompt(prompt) for prompt in PROMPTS]
    for later in (0, 2):
        sampling = Sampling(5, max_tokens=12)
        part = continuations(model, ids, sampling, 4096, first=later, greedy=False)
        assert ids_of(part) == [row[later:5] for row in ids_of(draw(model, PROMPTS, samples=5))]


def test_broken_numbers_give_a_poor_sample_and_no_error(tiny_llama: Path) -> None:
    broken = LanguageModel.load(tiny_llama)
    broken.model.model.norm.weight.fill_(math.nan)
    for row in draw(broken, PROMPTS):
        assert all(0 <= token < broken.vocabulary_size for one in row for token in one.ids)


def test_samples_in_rounds_add_up_to_those_of_one(
    model: LanguageModel, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    """A pilot for all rows, more for some: what an adaptive scheme asks for."""
    names = ["1+1=", "1+2=", "1+1=", "1+3="]
    rows = read_pool(write_rows([{"prompt": prompt, "completion": "2"} for prompt in names]))

    def samples(folder: str) -> Samples:
        engine = ModelEngine(model, Sampling(max_tokens=12), 4096, {})
        store = SampleStore(tmp_path / folder, engine.settings)
        return Samples(engine, model, rows, [True, True, True, False], store, silent)

    rounds, once = samples("rounds"), samples("once")
    rounds.draw([2, 2, 2, 2])
    pilot = list(rounds)
    assert [len(texts.samples) for texts in pilot] == [2, 2, 2, 0]
    assert [(one.place, one.indices) for one in rounds.requests([2, 2, 5, 5])] == [(0, (2, 3, 4))]
    rounds.draw([2, 2, 5, 5])
    once.draw([5, 2, 5, 0])
    for one, other in zip(rounds, once, strict=True):
        assert one.samples == other.samples
        assert one.finish == other.finish
        assert one.own == other.own
    # A prompt's rows share what the most demanding of them has.
    assert [len(texts.samples) for texts in rounds] == [5, 2, 5, 0]
    assert rounds[0].samples[:2] == pilot[0].samples
    assert pilot[3] == Texts([])


@pytest.mark.parametrize(("passed", "total"), [(0, 8), (3, 8), (8, 8), (1, 1), (50, 200)])
def test_wilson_is_the_textbook_interval(passed: int, total: int) -> None:
    z, p = 1.959963984540054, passed / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    low, high = wilson(passed, total)
    assert low == pytest.approx(middle - half, abs=1e-12)
    assert high == pytest.approx(middle + half, abs=1e-12)


def test_pass_rates_of_nothing_are_null() -> None:
    assert pass_rate(0, 0, asked=False)["pass_rate_total"] is None
    judged = pass_rate(0, 0)
    assert (judged["pass_rate"], judged["pass_rate_total"], judged["pass_rate_low"]) == (None, 0, None)


def moody(text: str, columns: Mapping[str, Any]) -> float:
    """Passes the answer, fails other text, raises on "bad", returns NaN on "nan"."""
    if text == "bad":
        raise ValueError(text)
    return math.nan if text == "nan" else exact(text, columns)


def test_samples_that_cannot_be_judged_count_for_neither_side() -> None:
    row = Row("a", "q", (" 5",), {"answer": "5"}, 1)
    found = verify(moody, row, ["5", "6", "bad", "nan", "5"], "6")
    assert (found["pass_rate_passed"], found["pass_rate_total"]) == (2, 3)
    assert found["pass_rate"] == pytest.approx(2 / 3)
    assert found["passed"] == [True, False, None, None, True]
    assert found["issue"] == "verifier failed: ValueError: bad"
    assert (found["label_passes"], found["own_differs"]) == ([True], True)


@pytest.mark.parametrize(
    ("own", "verifier", "differs"),
    [
        ("5", exact, False),
        ("5 ", exact, False),
        ("6", exact, True),
        ("7", exact, False),  # passes, though the row says it otherwise
        ("bad", moody, None),
        ("6", None, True),
        ("5", None, False),
        (None, exact, None),
    ],
)
def test_own_differs(own: str | None, verifier: Any, differs: bool | None) -> None:
    row = Row("a", "q", ("5",), {"answer": "7"}, 1)
    found = verify(verifier, row, [], own)
    assert found["own_differs"] is differs
    assert found["label_passes"] == [None if verifier is None else False]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("samples", {"samples": -1}),
        ("samples", {"samples": 2, "temperature": 0}),
        ("temperature", {"temperature": -1.0}),
        ("temperature", {"temperature": math.nan}),
        ("max-tokens", {"max_tokens": 0}),
        ("seed", {"seed": -1}),
    ],
)
def test_bad_settings_are_refused(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{field}: got"):
        Sampling(**changes)
