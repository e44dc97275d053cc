"""Losses, states and sketches against transformers and autograd; batches against single rows; bad models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from datadose.errors import InputError
from datadose.files import write_json
from datadose.llm.engines import sample_batch
from datadose.llm.generation import Sampling
from datadose.llm.language_model import Encoded, LanguageModel, length_batches
from datadose.llm.pool import Message, Row, Text
from datadose.llm.sketch import TensorSketch
from datadose.llm.whereabouts import find_model, place_of, refuse_other_scores


def row(prompt: Text, completion: Text) -> Row:
    return Row("a", prompt, (completion,), {}, 1)


def chat(question: str, answer: str) -> Row:
    asked: list[Message] = [{"role": "user", "content": question}]
    return row(asked, [{"role": "assistant", "content": answer}])


ROWS = [
    row("1+1=", "2"),
    row("what is the capital of this place? ", "I do not know, but it may be large."),
    chat("what is 2+3?", "5"),
    chat("what is 2+30?", "thirty-two"),
    chat("what is new, and how are you today, if I may ask you so?", "!"),
]


def test_chat_templates_and_end_tokens(model: LanguageModel) -> None:
    encoded = model.encode(chat("2+3?", "5"))
    decode = model.tokenizer.decode
    assert decode(encoded.prompt_ids) == "<|im_start|>user\n2+3?<|im_end|>\n<|im_start|>assistant\n"
    assert decode(encoded.completion_ids) == "5<|im_end|>\n"
    assert encoded.prompt_ids == model.encode_prompt(chat("2+3?", "5").prompt)
    plain = model.encode(row("2+3=", "5"))
    assert (decode(plain.prompt_ids), decode(plain.completion_ids)) == ("2+3=", "5<|im_end|>")
    # One end token, also where the row has it already.
    ended = model.encode(row("2+3=", "5<|im_end|>"))
    assert (ended.ids.tolist(), ended.start) == (plain.ids.tolist(), plain.start)


def test_the_nll_is_that_of_completion_tokens_under_transformers(model: LanguageModel) -> None:
    encoded = [model.encode(r) for r in ROWS]
    found = model.measure(encoded)
    for place, one in enumerate(encoded):
        ids = torch.tensor([one.prompt_ids + one.completion_ids])
        labels = torch.tensor([[-100] * len(one.prompt_ids) + one.completion_ids])
        with torch.no_grad():
            loss = model.model(ids, labels=labels).loss
            states = model.model(ids, output_hidden_states=True).hidden_states[-1]
        assert found.nll[place] == pytest.approx(float(loss), rel=1e-5)
        places = torch.arange(1.0, len(states[0]) + 1)
        mean = (places @ states[0] / places.sum()).numpy()
        np.testing.assert_allclose(found.embeddings[place], mean, rtol=1e-4, atol=1e-5)
    assert found.sketches.shape == (len(encoded), 0)


def test_sketches_are_those_of_the_gradient_that_autograd_finds(model: LanguageModel) -> None:
    encoded = [model.encode(r) for r in ROWS]
    sketch = TensorSketch(model.hidden_size, model.vocabulary_size, 64)
    found = model.measure(encoded, sketch).sketches
    assert found is not None
    for place, one in enumerate(encoded):
        ids = torch.tensor([one.prompt_ids + one.completion_ids])
        # Untied: a copy of the output weights alone gets a gradient.
        W = model.head.weight.detach().clone().requires_grad_(True)
        with torch.no_grad():
            states = model.model.base_model(ids).last_hidden_state[0]
        first = len(one.prompt_ids)
        logits = states[first - 1 : -1] @ W.T
        torch.nn.functional.cross_entropy(logits, ids[0, first:], reduction="sum").backward()
        assert W.grad is not None
        # The gradient as a sum of V outer products, each row of it with its own unit vector.
        nowhere = torch.zeros(len(W), dtype=torch.long)
        spectra = sketch.spectrum(W.grad, torch.eye(len(W)) + torch.eye(len(W))[nowhere], nowhere)
        expected = sketch.total(spectra, nowhere, 1)[0].numpy()
        np.testing.assert_allclose(found[place], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rows", [ROWS, ROWS[2:]], ids=["nothing shared", "shared prefix"])
def test_a_batch_gives_what_its_rows_give_alone(model: LanguageModel, rows: list[Row]) -> None:
    encoded = [model.encode(r) for r in rows]
    shared = model.shared_prefix([one.prompt_ids for one in encoded])[0]
    # A token for the opening mark, then characters.
    assert shared == (0 if rows is ROWS else 1 + len("user\nwhat is "))
    sketch = TensorSketch(model.hidden_size, model.vocabulary_size, 64)
    together = model.measure(encoded, sketch)
    alone = [model.measure([one], sketch) for one in encoded]
    for name in ("nll", "embeddings", "sketches"):
        expected = np.concatenate([getattr(one, name) for one in alone])
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(getattr(together, name), expected, rtol=0, atol=1e-5 * scale)


def test_identical_prompts_keep_a_token_of_their_own(model: LanguageModel) -> None:
    encoded = [model.encode(chat("2+3?", answer)) for answer in ("5", "six")]
    assert model.shared_prefix([one.prompt_ids for one in encoded])[0] == len(encoded[0].prompt_ids) - 1
    together = model.measure(encoded)
    alone = [model.measure([one]).nll[0] for one in encoded]
    np.testing.assert_allclose(together.nll, alone, rtol=1e-5)


def test_a_completion_without_a_prompt_has_one_target_less(model: LanguageModel) -> None:
    ids = np.array(model.encode_prompt("abcd"))
    # Both losses are of the same tokens, and what is scored alone is no longer than the row.
    assert model.without_prompt(Encoded(ids, 0)).ids.tolist() == [model.eos_ids[0], *ids[1:].tolist()]
    assert Encoded(ids, 0).targets == Encoded(ids, 1).targets == 3
    found = model.measure([Encoded(ids, 0), Encoded(ids, 1)])
    assert found.nll[0] == pytest.approx(found.nll[1], rel=1e-6)


def test_slices_of_logits_do_not_matter(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = [model.encode(r) for r in ROWS]
    sketch = TensorSketch(model.hidden_size, model.vocabulary_size, 64)
    whole = model.measure(encoded, sketch)
    monkeypatch.setattr("datadose.llm.language_model._LOGITS", 3 * model.vocabulary_size)
    sliced = model.measure(encoded, sketch)
    np.testing.assert_allclose(sliced.nll, whole.nll, rtol=1e-6)
    np.testing.assert_allclose(sliced.sketches, whole.sketches, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [ROWS, ROWS[2:]], ids=["nothing shared", "shared prefix"])
def test_passes_of_a_batch_do_not_matter(
    model: LanguageModel, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The longest row first, then the shortest: passes go by length, results by row.
    encoded = sorted((model.encode(r) for r in rows), key=lambda one: one.length)
    encoded = [encoded[-1], *encoded[:-1]]
    sketch = TensorSketch(model.hidden_size, model.vocabulary_size, 64)
    passes: list[int] = []
    forward = LanguageModel.hidden

    def counted(self: LanguageModel, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        passes.append(len(ids))
        return forward(self, ids, *rest)

    monkeypatch.setattr(LanguageModel, "hidden", counted)
    monkeypatch.setattr("datadose.llm.language_model._CPU_TOKENS", 4096)
    whole, in_one = model.measure(encoded, sketch), len(passes)
    monkeypatch.setattr("datadose.llm.language_model._CPU_TOKENS", 1)
    apart = model.measure(encoded, sketch)
    assert len(passes) - in_one == in_one - 1 + len(rows)
    for name in ("nll", "embeddings", "sketches"):
        expected = getattr(whole, name)
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(getattr(apart, name), expected, rtol=0, atol=4e-6 * scale)


def test_bfloat16_is_near_float32(model: LanguageModel, tiny_llama: Path) -> None:
    low = LanguageModel.load(tiny_llama, dtype="bfloat16")
    assert (low.dtype, model.dtype) == ("bfloat16", "float32")
    encoded = [model.encode(r) for r in ROWS]
    found = low.measure(encoded)
    assert found.embeddings.dtype == np.float32
    np.testing.assert_allclose(found.nll, model.measure(encoded).nll, rtol=0.05)


def test_batches_fit_and_cover(model: LanguageModel) -> None:
    lengths = [3, 9, 1, 4, 4, 30, 2]
    batches = length_batches(lengths, 12)
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    assert batches[0] == [5]  # too long for any batch: alone
    for batch in batches[1:]:
        assert len(batch) * max(lengths[i] for i in batch) <= 12
    assert batches == length_batches(lengths, 12)


def test_loading_and_scoring_are_silent(tiny_llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = LanguageModel.load(tiny_llama)
    model.measure([model.encode(ROWS[0])])
    sample_batch(model, [model.encode_prompt(ROWS[0].prompt)], Sampling(1, max_tokens=3), 4096)
    assert capfd.readouterr() == ("", "")


def test_digests_follow_content(tiny_llama: Path, tmp_path: Path, model: LanguageModel) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "copy"))
    assert LanguageModel.load(folder).digest == model.digest
    weights = load_file(folder / "model.safetensors")
    save_file({n: w * 1.001 for n, w in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "helper"))
    other = LanguageModel.load(folder)
    assert other.digest != model.digest
    assert other.template_digest != model.template_digest
    assert other.tokenizer_digest != model.tokenizer_digest


def configured(**changes: Any) -> Callable[[Path], None]:
    """Damage: other values in the configuration."""

    def act(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return act


def pickled(folder: Path) -> None:
    """Damage: the same weights as a pickle."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def adapter_pickled(folder: Path) -> None:
    """Damage: an adapter beside the model, as a pickle."""
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    torch.save({}, folder / "adapter_model.bin")


def without(name: str) -> Callable[[Path], None]:
    """Damage: a file pattern removed."""

    def act(folder: Path) -> None:
        for path in folder.glob(name):
            path.unlink()

    return act


def weight_lost(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def no_language_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(model_type="nonsense")
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "allowed"),
    [
        (without("tokenizer*"), "a folder with a tokenizer"),
        (without("config.json"), "a folder with config.json"),
        (without("*.safetensors"), "a causal language model"),
        (configured(num_attention_heads=0), "a causal language model"),
        (configured(hidden_size="wide"), "a causal language model"),
        (configured(vocab_size=-1), "a causal language model"),
        (
            configured(auto_map={"AutoModelForCausalLM": "own.Model"}, model_type="own"),
            "a causal language model",
        ),
        (pickled, "weights as .safetensors: a .bin file is a pickle, which can run code when it is read"),
        (adapter_pickled, "--allow-pickle-weights"),
        (no_language_model, "a causal language model"),
        (weight_lost, "a model with all its weights"),
    ],
)
def test_bad_models_are_refused(
    damage: Callable[[Path], None], allowed: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    damage(folder)
    with pytest.raises(InputError, match="model: got") as refused:
        LanguageModel.load(folder)
    assert allowed in str(refused.value)
    assert "\n" not in str(refused.value)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_pickled_weights_are_read_only_if_they_are_allowed(
    tiny_llama: Path, tmp_path: Path, model: LanguageModel
) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    pickled(folder)
    with pytest.raises(InputError, match=r"pytorch_model\.bin"):
        LanguageModel.load(folder)
    allowed = LanguageModel.load(folder, allow_pickle_weights=True)
    assert allowed.measure([model.encode(ROWS[0])]).nll == model.measure([model.encode(ROWS[0])]).nll
    # With both, the safe one is read and the other is not touched.
    shutil.copy(tiny_llama / "model.safetensors", folder)
    torch.save(Trap(tmp_path / "sprung"), folder / "pytorch_model.bin")
    LanguageModel.load(folder)
    assert not (tmp_path / "sprung").exists()


def test_a_model_named_by_a_link_or_from_inside_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "model")
    write_json(tmp_path / "manifest.json", {"pool": "pool.jsonl", "model": "runs/model"})
    monkeypatch.chdir(tmp_path / "model")
    for same in (".", tmp_path / "latest", "elsewhere/model"):
        refuse_other_scores(tmp_path, "data/pool.jsonl", same)
    with pytest.raises(InputError, match=r"out: got .* with the scores of model runs/model"):
        refuse_other_scores(tmp_path, "data/pool.jsonl", tmp_path / "another")


@pytest.mark.parametrize("name", ["/no/such/folder", "./models/none", "../none", "~/none", "a/b/c"])
def test_the_hub_is_not_asked_for_a_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("transformers.utils.hub.cached_file", asked)
    with pytest.raises(InputError, match=f"model: got {name}; allowed: the folder of a model"):
        LanguageModel.load(name)


def test_a_misspelt_folder_beside_a_model_is_no_name_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"runs/modle \(did you mean runs/model\?\); allowed: the folder"):
        LanguageModel.load("runs/modle")


def test_the_model_of_scores_is_the_one_beside_them_where_folders_were_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for project in ("a", "c"):
        (tmp_path / project / "model").mkdir(parents=True)
        (tmp_path / project / "scores").mkdir()
    name = str(tmp_path / "a" / "model")
    manifest = {"model": name, **place_of(name, tmp_path / "a" / "scores")}
    assert Path(find_model(manifest, tmp_path / "c" / "scores")).samefile(tmp_path / "c" / "model")
    shutil.rmtree(tmp_path / "c" / "model")
    assert find_model(manifest, tmp_path / "c" / "scores") == name
    shutil.rmtree(tmp_path / "a" / "model")
    with pytest.raises(InputError, match=r"model: got .* in its folder"):
        find_model(manifest, tmp_path / "c" / "scores")


def test_bad_requests_are_refused(tiny_llama: Path, tmp_path: Path, model: LanguageModel) -> None:
    bad: list[tuple[str, dict[str, Any]]] = [("dtype", {"dtype": "int8"}), ("device", {"device": "nonsense"})]
    for field, options in bad:
        with pytest.raises(InputError, match=field):
            LanguageModel.load(tiny_llama, **options)
    with pytest.raises(InputError, match="model: got"):
        LanguageModel.load(tmp_path / "nothing")
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    without("chat_template*")(folder)
    with pytest.raises(InputError, match="a tokenizer with a chat template"):
        LanguageModel.load(folder).encode(ROWS[2])
