"""Models whose logits are scaled or capped, weights of other types, models that are spread over places."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datadose.errors import InputError
from datadose.llm.generation import Sampling, continuations
from datadose.llm.language_model import LanguageModel, weights_type
from datadose.llm.output import Output, find_output
from datadose.llm.pool import Row
from datadose.llm.sketch import TensorSketch
from helpers.tiny_llama import CONTEXT

SIZES: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
FAMILIES: dict[str, tuple[str, dict[str, Any], Output]] = {
    "gemma2": ("Gemma2", {"final_logit_softcapping": 3.0, "head_dim": 8}, Output(1.0, 3.0)),
    "cohere": ("Cohere", {"logit_scale": 0.25}, Output(0.25)),
    "cohere2": ("Cohere2", {"logit_scale": 0.25}, Output(0.25)),
    "granite": ("Granite", {"logits_scaling": 8.0}, Output(0.125)),
    "hyperclovax": ("HyperCLOVAX", {"logits_scaling": 0.5}, Output(0.5)),
    "llama": ("Llama", {}, Output()),
}


def make(folder: Path, tiny_llama: Path, family: str) -> Path:
    """A tiny random model of a family, with the tiny tokenizer."""
    import transformers

    name, numbers, _ = FAMILIES[family]
    shutil.copytree(tiny_llama, folder)
    (folder / "model.safetensors").unlink()
    config = getattr(transformers, f"{name}Config")(**SIZES, **numbers)
    torch.manual_seed(0)
    getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def own(family: str, tiny_llama: Path, tmp_path: Path) -> LanguageModel:
    return LanguageModel.load(make(tmp_path / family, tiny_llama, family))


ROWS = [
    Row("a", "what is 2+2? ", ("it is 4, as far as I know",), {}, 1),
    Row("b", "and what of ", ("that",), {}, 2),
]


def test_losses_are_those_of_the_models_own_logits(own: LanguageModel, family: str) -> None:
    assert own.output == FAMILIES[family][2]
    encoded = [own.encode(row) for row in ROWS]
    found = own.measure(encoded).nll
    for place, one in enumerate(encoded):
        ids = torch.tensor([one.ids.tolist()])
        with torch.no_grad():
            logits = own.model(ids).logits[0, one.start - 1 : -1].float()
            plain = own.head(own.model.base_model(ids).last_hidden_state)[0, one.start - 1 : -1]
        expected = float(torch.nn.functional.cross_entropy(logits, ids[0, one.start :]))
        assert found[place] == pytest.approx(expected, rel=1e-5)
        if family != "llama":
            # The family's number matters here.
            assert abs(float(torch.nn.functional.cross_entropy(plain, ids[0, one.start :])) - expected) > 0.05


def test_sketches_follow_the_chain_rule(own: LanguageModel) -> None:
    encoded = [own.encode(row) for row in ROWS]
    sketch = TensorSketch(own.hidden_size, own.vocabulary_size, 64)
    found = own.measure(encoded, sketch).sketches
    for place, one in enumerate(encoded):
        ids = torch.tensor([one.ids.tolist()])
        with torch.no_grad():
            states = own.model.base_model(ids).last_hidden_state[0, one.start - 1 : -1]
        # Through the model's own forward: its backbone gives these states, its output layer has a gradient.
        W = own.head.weight.detach().clone().requires_grad_(True)
        logits = own_logits(own, states, W)
        torch.nn.functional.cross_entropy(logits, ids[0, one.start :], reduction="sum").backward()
        assert W.grad is not None
        nowhere = torch.zeros(len(W), dtype=torch.long)
        spectra = sketch.spectrum(W.grad, torch.eye(len(W)) + torch.eye(len(W))[nowhere], nowhere)
        expected = sketch.total(spectra, nowhere, 1)[0].numpy()
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(found[place], expected, rtol=0, atol=1e-5 * scale)


def own_logits(own: LanguageModel, states: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
    """The model's own way from last states to logits, with W as the output layer's weights."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    class Backbone(torch.nn.Module):
        def forward(self, *_: Any, **__: Any) -> Any:
            return BaseModelOutputWithPast(last_hidden_state=states.unsqueeze(0))

    backbone, head = own.model.model, own.model.lm_head
    own.model.model = Backbone()
    own.model.lm_head = type("Head", (torch.nn.Module,), {"forward": lambda _, x: x @ W.T})()
    try:
        logits: torch.Tensor = own.model(torch.zeros(1, len(states), dtype=torch.long)).logits[0]
    finally:
        own.model.model, own.model.lm_head = backbone, head
    return logits


def test_samples_have_the_probabilities_of_the_models_own_logits(own: LanguageModel) -> None:
    prompt = own.encode_prompt("what is 2+2? ")
    (*_, greedy) = continuations(own, [prompt], Sampling(1, max_tokens=5), 4096)[0]
    ids = torch.tensor([prompt + greedy.ids])
    with torch.no_grad():
        log_p = torch.log_softmax(own.model(ids).logits[0, len(prompt) - 1 : -1].float(), -1)
    expected = float(log_p.gather(1, ids[0, len(prompt) :].unsqueeze(1)).mean())
    assert greedy.log_probability == pytest.approx(expected, rel=1e-5)


def test_logits_made_in_another_way_are_refused(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "granite", tiny_llama, "granite")
    monkeypatch.setattr("datadose.llm.output._SCALES", ("logit_scale",))
    with pytest.raises(InputError, match="its output layer at the last hidden state, scaled or capped"):
        LanguageModel.load(folder)


def test_small_logits_do_not_hide_a_scale() -> None:
    x = torch.linspace(-1e-3, 1e-3, 9)
    config = type("Config", (), {"logits_scaling": 8.0})()
    assert find_output(config, x, x / 8) == Output(0.125)
    assert find_output(config, x, x) == Output()
    assert find_output(config, x, x / 5) is None


def test_types_of_weights(tiny_llama: Path, tmp_path: Path) -> None:
    assert weights_type("auto", "cpu") == torch.float32
    assert weights_type("auto", "cuda:0") == "auto"
    assert weights_type("bfloat16", "cuda") == torch.bfloat16
    with pytest.raises(InputError, match="dtype: got int8; allowed: auto, float32, bfloat16, float16"):
        weights_type("int8", "cpu")
    # A checkpoint in bfloat16, as most are: float32 on a CPU, its own type where it is asked for.
    folder = tmp_path / "low"
    LanguageModel.load(tiny_llama, dtype="bfloat16").model.save_pretrained(folder)
    for file in tiny_llama.glob("*token*"):
        shutil.copy(file, folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert LanguageModel.load(folder).dtype == "float32"
    from datadose.llm.loading import load

    assert load(str(folder), "auto")[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    "device_map",
    [
        "auto",
        {
            **dict.fromkeys(["model.embed_tokens", "model.rotary_emb", "model.layers.0"], "cpu"),
            **{"model.layers.1": "disk", "model.norm": "cpu", "lm_head": "cpu"},
        },
        {
            **dict.fromkeys(["model.rotary_emb", "model.layers", "model.norm"], "cpu"),
            **{"model.embed_tokens": "disk", "lm_head": "disk"},
        },
    ],
    ids=["auto", "a layer on disk", "the first one on disk"],
)
def test_a_model_in_several_places_gives_the_same(
    device_map: Any, tiny_llama: Path, model: LanguageModel, tmp_path: Path
) -> None:
    spread = LanguageModel.load(tiny_llama, device_map=device_map)
    encoded = [model.encode(row) for row in ROWS]
    sketch = TensorSketch(model.hidden_size, model.vocabulary_size, 64)
    one, other = model.measure(encoded, sketch), spread.measure(encoded, sketch)
    np.testing.assert_allclose(other.nll, one.nll, rtol=1e-6)
    np.testing.assert_allclose(other.sketches, one.sketches, rtol=1e-4, atol=1e-5)
    prompts = [model.encode_prompt(row.prompt) for row in ROWS]
    sampling = Sampling(2, max_tokens=4)
    drawn = [continuations(m, prompts, sampling, 4096) for m in (model, spread)]
    assert [[c.ids for c in one] for one in drawn[0]] == [[c.ids for c in one] for one in drawn[1]]
    assert (spread.device.type, spread.digest) == ("cpu", model.digest)
