"""Checkpoints: one safetensors file of weights, optimiser state and progress, written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from datadose.errors import InputError
from datadose.files import write_atomic

if TYPE_CHECKING:
    from datadose.stages.engine import Divergence, Training


def save_weights(path: Path, model: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """The parameters of ``model`` as ``path`` (safetensors)."""
    write_atomic(path, save(_weights(model), metadata))


def load_weights(path: Path, model: nn.Module) -> None:
    """Load :func:`save_weights` into ``model``; InputError if truncated, missing or of another shape."""
    tensors, _ = _read(path)
    _fill(path, model, tensors)


def save_checkpoint(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, plan: dict[str, Any], state: Training
) -> None:
    """Weights, optimiser state, progress and the plan of the stage as ``path``; from any device, for any."""
    tensors = {f"model.{name}": tensor for name, tensor in _weights(model).items()}
    for index, entries in optimiser.state_dict()["state"].items():
        for name, value in entries.items():
            tensors[f"optimiser.{index}.{name}"] = torch.as_tensor(value).cpu().contiguous()
    write_atomic(path, save(tensors, {"plan": json.dumps(plan), "training": json.dumps(asdict(state))}))


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    plan: dict[str, Any],
    training: type[Training],
    divergence: type[Divergence],
) -> Training:
    """Restore :func:`save_checkpoint` into ``model`` and ``optimiser`` and return the progress.

    Raises InputError if the file is truncated, or of another model or another ``plan`` (optimiser, length).
    """
    tensors, metadata = _read(path)
    if "training" not in metadata:
        raise InputError("checkpoint", str(path), "a checkpoint of a stage (this file holds weights only)")
    saved_plan: dict[str, Any] = json.loads(metadata.get("plan", "{}"))
    # Through JSON as well: it has no tuples.
    for name, wanted in json.loads(json.dumps(plan)).items():
        if saved_plan.get(name) != wanted:
            raise InputError("checkpoint", f"{path} with {name} {saved_plan.get(name)}", f"{name} {wanted}")
    _fill(path, model, {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, field = name.split(".", 2)
            entries.setdefault(int(index), {})[field] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})
    saved: dict[str, Any] = json.loads(metadata["training"])
    saved["diverged"] = [divergence(**entry) for entry in saved["diverged"]]
    return training(**saved)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError("checkpoint", str(path), "an existing safetensors file") from error
    except (SafetensorError, OSError) as error:
        raise InputError("checkpoint", str(path), f"a whole safetensors file ({error})") from error


def _fill(path: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    wanted = {name: (tuple(x.shape), x.dtype) for name, x in model.state_dict().items()}
    found = {name: (tuple(x.shape), x.dtype) for name, x in tensors.items()}
    if wanted != found:
        name = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))[0]
        shown = [_describe(entry) for entry in (found.get(name), wanted.get(name))]
        raise InputError("checkpoint", f"{path} with {name} {shown[0]}", f"{name} {shown[1]}")
    model.load_state_dict(tensors)


def _describe(entry: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "missing" if entry is None else f"of shape {entry[0]}, {entry[1]}"
