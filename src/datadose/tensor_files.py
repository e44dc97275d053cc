"""Files of named tensors (safetensors) with text beside them: written whole, and noticed when they changed.

The format runs no code when it is read. It has no checksum, and its writer puts several metadata into any
order; so there is one, a JSON document of the texts and of the sha256 of everything else in the file. Equal
contents have equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from datadose.errors import InputError
from datadose.files import write_atomic

_KEY = "datadose"


def write_tensors(path: Path, tensors: dict[str, Tensor], texts: dict[str, str] | None = None) -> None:
    """Write ``tensors``, from any device, and ``texts`` to ``path``. RunError if it cannot be written."""
    local = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    record = {"sha256": _digest(local, texts or {}), "texts": texts or {}}
    write_atomic(path, save(local, {_KEY: json.dumps(record, sort_keys=True)}))


def read_tensors(path: Path, field: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and texts that :func:`write_tensors` wrote to ``path``.

    Raises InputError, which names ``field``, if the file is missing, cut, or changed since.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
    except FileNotFoundError as error:
        raise InputError(field, str(path), "an existing safetensors file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(field, str(path), f"a whole safetensors file ({error})") from error
    if _KEY not in metadata:
        raise InputError(field, str(path), "a safetensors file that this package wrote")
    try:
        record: dict[str, Any] = json.loads(metadata[_KEY])
        wanted, texts = record["sha256"], record["texts"]
        found = _digest(tensors, texts)
    except (ValueError, TypeError, KeyError, RecursionError):
        wanted, found, texts = "", "unreadable", {}
    if found != wanted:
        raise InputError(field, str(path), "the file as it was written (its sha256 is another one)")
    return tensors, texts


def _digest(tensors: dict[str, Tensor], texts: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
