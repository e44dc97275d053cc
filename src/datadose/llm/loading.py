"""Reading a causal language model and its tokenizer from a folder or the Hub, quietly and completely."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch

from datadose.errors import InputError, reject
from datadose.files import file_digest


def load(name: str, dtype: torch.dtype) -> tuple[Any, Any, Path]:
    """Model, tokenizer, and the folder they came from (of the Hub's cache for a name)."""
    from safetensors import SafetensorError  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    from transformers.utils.hub import cached_file  # noqa: PLC0415

    if Path(name).exists() and not (Path(name) / "config.json").is_file():
        reject("model", name, "a folder with config.json, weights and a tokenizer")
    try:
        folder = Path(cast("str", cached_file(name, "config.json"))).parent
        loaded: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, output_loading_info=True)
        model, info = loaded
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        allowed = f"a causal language model of Hugging Face's transformers ({_first_line(error)})"
        raise InputError("model", name, allowed) from error
    if info["missing_keys"]:
        reject("model", f"{name} without weights {min(info['missing_keys'])}", "a model with all its weights")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise InputError("model", name, f"a folder with a tokenizer ({_first_line(error)})") from error
    return model, tokenizer, folder


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]


def files_digest(folder: Path) -> str:
    """sha256 over names and contents of the configuration and the weights."""
    digest = hashlib.sha256()
    patterns = ("config.json", "adapter_config.json", "*.safetensors", "pytorch_model*.bin")
    for path in sorted({p for pattern in patterns for p in folder.glob(pattern)}):
        digest.update(path.name.encode() + bytes.fromhex(file_digest(path)))
    return digest.hexdigest()


def context_length(model: Any) -> int:
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else 2**31


def ends(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """End tokens of the model's generation settings and of the tokenizer."""
    named = model.generation_config.eos_token_id
    found = {*(named if isinstance(named, (list, tuple)) else [named]), tokenizer.eos_token_id}
    return tuple(sorted(int(end) for end in found if end is not None))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, log lines or warnings of transformers inside."""
    from huggingface_hub import utils  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    hub: Any = utils
    own: Any = logging
    level, bars = own.get_verbosity(), own.is_progress_bar_enabled()
    hub_bars = not hub.are_progress_bars_disabled()
    own.set_verbosity_error()
    own.disable_progress_bar()
    hub.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        own.set_verbosity(level)
        if bars:
            own.enable_progress_bar()
        if hub_bars:
            hub.enable_progress_bars()
