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

from datadose.errors import InputError, close_match, reject, require_extra
from datadose.files import file_digest
from datadose.reading import exists, is_folder, read_json

_ADAPTER = "adapter_config.json"
"""The file that makes a folder that of an adapter."""

_MODEL = "a causal language model of Hugging Face's transformers ({})"

_IF_THERE: dict[str, Any] = {
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
}
"""For a file that a model may lack."""


def load(
    name: str, dtype: torch.dtype | str, *, device_map: Any = None, allow_pickle_weights: bool = False
) -> tuple[Any, Any, Path]:
    """Model, tokenizer, and the folder they came from (of the Hub's cache for a name).

    An adapter is merged into its base model. ``dtype`` "auto" is the checkpoint's own; ``device_map`` is
    accelerate's.

    Weights are read from safetensors. A ``.bin`` file is a pickle, which may run code when it is read, and
    custom model code is code: the first needs ``allow_pickle_weights``, the second is never run.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    from transformers.utils.hub import cached_file  # noqa: PLC0415

    _require_place(name)
    if (adapter := _adapter_folder(name)) is not None:
        pickles = allow_pickle_weights
        return _load_adapter(name, adapter, dtype, device_map=device_map, allow_pickle_weights=pickles)
    try:
        folder = Path(cast("str", cached_file(name, "config.json"))).parent
        if not allow_pickle_weights:
            _refuse_pickles(name)
        # transformers would have the Hub convert weights for it, which posts to the model's page.
        with patch.dict(os.environ, DISABLE_SAFETENSORS_CONVERSION="1"):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=dtype,
                device_map=device_map,
                output_loading_info=True,
                use_safetensors=None if allow_pickle_weights else True,
                trust_remote_code=False,
            )
        model, info = loaded
    except InputError:
        raise
    except Exception as error:
        # Anybody's configuration and files: a size of 0 divides by it, a text takes the place of a number.
        raise InputError("model", name, _MODEL.format(_reason(error))) from error
    if info["missing_keys"]:
        reject("model", f"{name} without weights {min(info['missing_keys'])}", "a model with all its weights")
    # What an adapter that is trained on it will name as its base: found from everywhere.
    model.name_or_path = place_of(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise InputError("model", name, f"a folder with a tokenizer ({_reason(error)})") from error
    return model, tokenizer, folder


def _adapter_folder(name: str) -> Path | None:
    """Where the adapter ``name`` is; None for what is a model of its own."""
    from transformers.utils.hub import cached_file  # noqa: PLC0415

    try:
        found = cached_file(name, _ADAPTER, **_IF_THERE)
    except Exception as error:
        # A name that is no path and that the Hub does not allow.
        raise InputError("model", name, _MODEL.format(_reason(error))) from error
    return None if found is None else Path(found).parent


def _adapter_base(folder: Path) -> str:
    """The model that an adapter was trained on."""
    config = read_json(folder / _ADAPTER, "model")
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(base, str) or not base:
        reject("model", f"{folder / _ADAPTER} without a base model", "an adapter that names its base model")
    return base


def _refuse_circles(name: str, folder: Path) -> None:
    """InputError for an adapter that is its own base, directly or by way of others."""
    seen = {place_of(name)}
    adapter: Path | None = folder
    while adapter is not None:
        place = _adapter_base(adapter)
        _require_place(place)
        if place_of(place) in seen:
            reject("model", name, "an adapter whose base model is not built on it")
        seen.add(place_of(place))
        adapter = _adapter_folder(place)


def _load_adapter(
    name: str, folder: Path, dtype: torch.dtype | str, *, device_map: Any, allow_pickle_weights: bool
) -> tuple[Any, Any, Path]:
    from transformers import AutoTokenizer  # noqa: PLC0415

    require_extra("train", "peft")
    from peft import PeftModel  # noqa: PLC0415 - optional

    if not allow_pickle_weights:
        _refuse_pickles(name)
    _refuse_circles(name, folder)
    pickles = allow_pickle_weights
    base, tokenizer, _ = load(
        _adapter_base(folder), dtype, device_map=device_map, allow_pickle_weights=pickles
    )
    try:
        model: Any = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
        if (folder / "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        allowed = f"an adapter that fits its base model ({_reason(error)})"
        raise InputError("model", name, allowed) from error
    model.name_or_path = place_of(name)
    return model, tokenizer, folder


def place_of(name: str | Path) -> str:
    """``name`` if it is the Hub's, else the model's folder as an absolute path, the same from everywhere."""
    return str(Path(name).resolve()) if exists(Path(name)) else str(name)


def _require_place(name: str) -> None:
    """InputError for a folder that is none; the Hub is not called for what can only be a path."""
    path = Path(name)
    if exists(path):
        if not any((path / file).is_file() for file in ("config.json", _ADAPTER)):
            reject("model", name, f"a folder with config.json (or {_ADAPTER}), weights and a tokenizer")
    elif path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
        reject("model", name, "the folder of a model, or its name (owner/name) on the Hugging Face Hub")
    elif "/" in name and is_folder(path.parent):
        # A folder misspelt, rather than a model of the Hub whose owner has the name of a folder here.
        beside = [str(one) for one in path.parent.iterdir() if (one / "config.json").is_file()]
        if close := close_match(name, beside):
            reject("model", name, "the folder of a model; there is none of that name", hint=close)


def _refuse_pickles(name: str) -> None:
    """InputError for weights that would be unpickled."""
    from transformers.utils.hub import cached_file  # noqa: PLC0415

    def has(*files: str) -> bool:
        return any(cached_file(name, file, **_IF_THERE) is not None for file in files)

    for kind, needed in (
        ("adapter_model", has(_ADAPTER)),
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
    """sha256 over names and contents of the configuration and the weights, an adapter's base included."""
    digest = hashlib.sha256()
    patterns = ("config.json", _ADAPTER, "*.safetensors", "pytorch_model*.bin")
    for path in sorted({p for pattern in patterns for p in folder.glob(pattern)}):
        digest.update(path.name.encode() + bytes.fromhex(file_digest(path)))
    if (folder / _ADAPTER).is_file():
        digest.update(bytes.fromhex(model_digest(_adapter_base(folder))))
    return digest.hexdigest()


def model_digest(name: str) -> str:
    """:func:`files_digest` of a model, an adapter or a name on the Hub, without loading it.

    Raises InputError where there is no such model.
    """
    from transformers.utils.hub import cached_file  # noqa: PLC0415

    _require_place(name)
    if (folder := _adapter_folder(name)) is None:
        try:
            folder = Path(cast("str", cached_file(name, "config.json"))).parent
        except OSError as error:
            raise InputError("model", name, _MODEL.format(_reason(error))) from error
    return files_digest(folder)


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
