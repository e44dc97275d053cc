"""The mean of runs' weights: exact for adapters and for all weights, loaded like any run; what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
pytest.importorskip("peft")

import torch
from safetensors.torch import load_file, save_file

from datadose.errors import InputError
from datadose.llm import averaging
from datadose.llm.averaging import average
from datadose.llm.language_model import LanguageModel
from datadose.llm.pool import Row
from datadose.llm.posttrain import PosttrainConfig, posttrain
from helpers.tiny_llama import make_model

pytestmark = pytest.mark.usefixtures("one_thread")

Weights = dict[str, torch.Tensor]
RANKS = {"adapter": 2, "model": 0}


@pytest.fixture(scope="module")
def runs(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Three short runs of each kind on other rows, the adapters of other ranks."""
    folder = tmp_path_factory.mktemp("runs")
    found: dict[str, list[Path]] = {kind: [] for kind in RANKS}
    for kind, rank in RANKS.items():
        for index in range(3):
            rows = [{"prompt": f"{i}?", "completion": str(index) * 3} for i in range(4)]
            data = folder / f"{index}.jsonl"
            data.write_text("".join(json.dumps(row) + "\n" for row in rows))
            out, full = folder / f"{kind}-{index}", rank == 0
            config = PosttrainConfig(
                "sft", steps=2, batch=4, seed=index, checkpoint_every=0,
                learning_rate=1e-2 if full else 0.1, lora_rank=0 if full else rank + index,
            )  # fmt: skip
            posttrain(tiny_llama, data, out, config=config)
            found[kind].append(out)
    return found


def weights(folder: Path) -> Weights:
    """Of the model as it is loaded, an adapter merged."""
    model = LanguageModel.load(folder).model
    return {name: value.double() for name, value in model.state_dict().items()}


def mean(all_weights: list[Weights]) -> Weights:
    return {name: torch.stack([one[name] for one in all_weights]).mean(0) for name in all_weights[0]}


def nll(model: LanguageModel) -> list[float]:
    rows = [Row(str(i), f"{i} and {i}", ("012",), {}, i) for i in range(3)]
    return [float(value) for value in model.measure([model.encode(row) for row in rows]).nll]


@pytest.mark.parametrize("kind", list(RANKS))
def test_the_average_is_the_model_of_mean_weights(
    kind: str, runs: dict[str, list[Path]], tiny_llama: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mean"
    result = average(runs[kind], out)
    parts = [weights(run / kind) for run in runs[kind]]
    expected, found = mean(parts), weights(out / kind)
    assert set(found) == set(expected)
    assert max(float((found[n] - expected[n]).abs().max()) for n in expected) < 1e-6
    assert max(float((parts[0][n] - expected[n]).abs().max()) for n in expected) > 1e-3
    # Its outputs are those of a model with the mean weights.
    ours = LanguageModel.load(out / kind)
    assert ours.tokenizer_digest == LanguageModel.load(tiny_llama).tokenizer_digest
    other = LanguageModel.load(tiny_llama)
    other.model.load_state_dict({name: value.float() for name, value in expected.items()})
    assert nll(ours) == pytest.approx(nll(other), rel=1e-5)
    assert nll(ours) != pytest.approx(nll(LanguageModel.load(runs[kind][0] / kind)), rel=1e-2)
    assert json.loads((out / "result.json").read_text()) == result
    assert result["model"] == str(tiny_llama)
    if kind == "adapter":
        config = json.loads((out / kind / "adapter_config.json").read_text())
        assert config["r"] == 2 + 3 + 4


def test_an_average_is_kept_and_averaged_again(
    runs: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mean"
    result = average(runs["model"][:2], out)
    with monkeypatch.context() as patch:
        patch.setattr(averaging, "_mean_model", None)
        assert average(runs["model"][:2], out) == result
    with pytest.raises(InputError, match=r"out: .*\(differs in average\)"):
        average(runs["model"], out)
    # The mean of a mean of two and of a third, which counts as much as both.
    average([out, runs["model"][2]], tmp_path / "again")
    parts = [weights(run / "model") for run in runs["model"]]
    expected = mean([mean(parts[:2]), parts[2]])
    found = weights(tmp_path / "again" / "model")
    assert max(float((found[n] - expected[n]).abs().max()) for n in expected) < 1e-6


def test_an_adapter_loads_like_a_model_and_is_trained_on(
    runs: dict[str, list[Path]], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is loaded is PEFT's own model; a second adapter is built on the first."""
    from peft import PeftModel

    first = runs["adapter"][0] / "adapter"
    base = LanguageModel.load(tiny_llama)
    adapted = PeftModel.from_pretrained(base.model, str(first)).merge_and_unload()
    loaded = LanguageModel.load(first)
    assert nll(loaded) == nll(replace(base, model=adapted))
    assert loaded.digest != base.digest
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"prompt": "a", "completion": "b"}))
    config = PosttrainConfig("sft", steps=1, batch=1, learning_rate=1e-6, lora_rank=2, checkpoint_every=0)
    monkeypatch.chdir(first.parent)
    posttrain("adapter", data, tmp_path / "second", config=config)
    monkeypatch.chdir(tmp_path)
    assert nll(LanguageModel.load(tmp_path / "second" / "adapter")) == pytest.approx(nll(loaded), rel=1e-3)
    assert nll(loaded) != pytest.approx(nll(LanguageModel.load(tiny_llama)), rel=1e-2)


def test_adapters_without_a_base_are_refused(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(runs["adapter"][0] / "adapter", folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    for base, said in (
        (None, "without a base model; allowed: an adapter that names its base model"),
        (str(folder), "an adapter whose base model is not built on it"),
        (str(tmp_path / "gone"), "the folder of a model"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
        with pytest.raises(InputError, match=said):
            LanguageModel.load(folder)


def test_runs_that_do_not_go_together_are_refused(
    runs: dict[str, list[Path]], tiny_llama: Path, tmp_path: Path
) -> None:
    first, second, _ = runs["model"]
    other = tmp_path / "other"
    base = make_model(tmp_path / "base", seed=1)
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}))
    config = PosttrainConfig("sft", steps=1, batch=1, lora_rank=0, checkpoint_every=0)
    posttrain(base, tmp_path / "data.jsonl", other, config=config)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(second, unfinished)
    (unfinished / "result.json").unlink()
    foreign = tmp_path / "foreign"
    shutil.copytree(second, foreign)
    (foreign / "result.json").write_text('{"weights": "model"}')
    bare = tmp_path / "bare"
    shutil.copytree(second, bare)
    (bare / "model" / "model.safetensors").unlink()
    finished = "the folder of a run that `datadose posttrain` has finished"
    for chosen, said in (
        ([first], "average: got .*model-0; allowed: at least two runs"),
        ([first, first.parent / "." / first.name], "model-0; allowed: each run once"),
        ([first, runs["adapter"][0]], "adapter-0 with adapter weights; allowed: runs of one kind"),
        ([first, other], "other, trained from .*; allowed: runs of one base model"),
        ([first, unfinished], f"unfinished; allowed: {finished}"),
        ([first, tmp_path / "none"], f"none; allowed: {finished}"),
        ([first, foreign], f"foreign/result.json; allowed: {finished}"),
        ([first, bare], f"bare/model without weights; allowed: {finished}"),
    ):
        with pytest.raises(InputError, match=said):
            average(chosen, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # A base model that was replaced since: its adapters would be another model's.
    copied = tmp_path / "copied"
    shutil.copytree(tiny_llama, copied)
    adapters = [shutil.copytree(run, tmp_path / run.name) for run in runs["adapter"][:2]]
    for run in adapters:
        result = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps({**result, "model": str(base)}))
    with pytest.raises(InputError, match="which has changed"):
        average(adapters, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {**t, "extra": torch.zeros(1)}, "the tensors of"),
        (lambda t: {n: v.half() for n, v in t.items()}, "of several shapes or types"),
        (lambda t: {n: v[:1].clone() for n, v in t.items()}, "of several shapes or types"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    change: Callable[[Weights], Weights], said: str, runs: dict[str, list[Path]], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(runs["model"][1], broken)
    file = broken / "model" / "model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(InputError, match=said):
        average([runs["model"][0], broken], tmp_path / "out")


def test_whole_numbers_are_not_averaged() -> None:
    same: Any = [torch.tensor([1, 2]), torch.tensor([1, 2])]
    assert torch.equal(averaging._mean(same, "places"), same[0])
    with pytest.raises(InputError, match="tensors places of whole numbers that differ"):
        averaging._mean([same[0], same[0] + 1], "places")
    halves = [torch.tensor([1.0, 3.0], dtype=torch.bfloat16), torch.tensor([2.0, 3.0], dtype=torch.bfloat16)]
    found = averaging._mean(halves, "weights")
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [1.5, 3.0]
