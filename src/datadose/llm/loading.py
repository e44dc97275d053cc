"""Reading a causal language model and its tokenizer from a folder or the Hub, quietly and completely."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch

from datadose.errors import InputError, reject
from datadose.files import file_digest
from datadose.reading import exists


def load(name: str, dtype: torch.dtype, *, allow_pickle_weights: bool = False) -> tuple[Any, Any, Path]:
    """Model, tokenizer, and the folder they came from (of the Hub's cache for a name).

    Weights are read from safetensors. A ``.bin`` file is a pickle, which may run code when it is read, and
    custom model code is code: the first needs ``allow_pickle_weights``, the second is never run.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    from transformers.utils.hub import cached_file  # noqa: PLC0415

    _require_place(name)
    try:
        folder = Path(cast("str", cached_file(name, "config.json"))).parent
        if not allow_pickle_weights:
            _refuse_pickles(name)
        # transformers would have the Hub convert weights for it, which posts to the model's page.
        with patch.dict(os.environ, DISABLE_SAFETENSORS_CONVERSION="1"):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=dtype,
                output_loading_info=True,
                use_safetensors=None if allow_pickle_weights else True,
                trust_remote_code=False,
            )
        model, info = loaded
    except InputError:
        raise
    except Exception as error:
        # Anybody's configuration and files: a size of 0 divides by it, a text takes the place of a number.
        allowed = f"a causal language model of Hugging Face's transformers ({_reason(error)})"
        raise InputError("model", name, allowed) from error
    if info["missing_keys"]:
        reject("model", f"{name} without weights {min(info['missing_keys'])}", "a model with all its weights")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise InputError("model", name, f"a folder with a tokenizer ({_reason(error)})") from error
    return model, tokenizer, folder


def place_of(name: str | Path) -> str:
    """``name`` if it is the Hub's, else the model's folder as an absolute path, the same from everywhere."""
    return str(Path(name).resolve()) if exists(Path(name)) else str(name)


def _require_place(name: str) -> None:
    """InputError for a folder that is none; the Hub is not asked for what can only be a path."""
    path = Path(name)
    if exists(path):
        if not (path / "config.json").is_file():
            reject("model", name, "a folder with config.json, weights and a tokenizer")
    elif path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
        reject("model", name, "the folder of a model, or its name (owner/name) on the Hugging Face Hub")


def _refuse_pickles(name: str) -> None:
    """InputError for weights that would be unpickled."""
    from transformers.utils.hub import cached_file  # noqa: PLC0415

    def has(*files: str) -> bool:
        options: dict[str, Any] = {
            "_raise_exceptions_for_missing_entries": False,
            "_raise_exceptions_for_connection_errors": False,
        }
        return any(cached_file(name, file, **options) is not None for file in files)

    for kind, needed in (
        ("adapter_model", has("adapter_config.json")),
        ("pytorch_model", not has("model.safetensors", "model.safetensors.index.json")),
    ):
        safe = kind == "adapter_model" and has("adapter_model.safetensors")
        if needed and not safe and has(f"{kind}.bin", f"{kind}.bin.index.json"):
            allowed = "weights as .safetensors: a .bin file is a pickle, which can run code when it is read"
            reject("model", f"{name} with {kind}.bin", f"{allowed} (--allow-pickle-weights if you trust it)")


def _reason(error: Exception) -> str:
    text = str(error).strip().split("\n", maxsplit=1)[0]
    return text if isinstance(error, (OSError, ValueError)) and text else f"{type(error).__name__}: {text}"


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
