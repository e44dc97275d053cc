"""Files of named tensors (safetensors) with text beside them: written whole, and noticed when they changed.

The format runs no code when it is read. It has no checksum of its own, so the metadata hold the sha256 of
everything else in the file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from datadose.errors import InputError
from datadose.files import write_atomic

_DIGEST = "sha256"


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """``tensors``, from any device, and ``metadata`` as ``path``; RunError if the disk refuses it."""
    local = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = dict(metadata or {})
    write_atomic(path, save(local, {**described, _DIGEST: _digest(local, described)}))


def read_tensors(path: Path, field: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What :func:`write_tensors` wrote; InputError naming ``field`` if missing, cut, or changed since."""
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = dict(opened.metadata() or {})
    except FileNotFoundError as error:
        raise InputError(field, str(path), "an existing safetensors file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(field, str(path), f"a whole safetensors file ({error})") from error
    digest = metadata.pop(_DIGEST, None)
    if digest is None:
        raise InputError(field, str(path), "a file of this package, with the sha256 of its content")
    if digest != _digest(tensors, metadata):
        raise InputError(field, str(path), "the file as it was written (its sha256 is another one)")
    return tensors, metadata


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
