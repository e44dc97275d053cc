"""Checkpoints: one safetensors file of weights, optimiser state and progress, written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from datadose.errors import InputError
from datadose.tensor_files import read_tensors, write_tensors

if TYPE_CHECKING:
    from datadose.stages.engine import Training


def save_weights(path: Path, model: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """The parameters of ``model`` as ``path`` (safetensors)."""
    write_tensors(path, model.state_dict(), metadata)


def load_weights(path: Path, model: nn.Module) -> None:
    """Load :func:`save_weights` into ``model``; InputError if damaged, missing or of another shape."""
    tensors, _ = read_tensors(path, "checkpoint")
    _fill(path, model, tensors)


def save_checkpoint(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, plan: dict[str, Any], state: Training
) -> None:
    """Weights, optimiser state, progress and the plan of the stage as ``path``; from any device, for any."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, entries in optimiser.state_dict()["state"].items():
        for name, value in entries.items():
            tensors[f"optimiser.{index}.{name}"] = torch.as_tensor(value)
    write_tensors(path, tensors, {"plan": json.dumps(plan), "training": json.dumps(asdict(state))})


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    plan: dict[str, Any],
    training: type[Training],
) -> Training:
    """Restore :func:`save_checkpoint` into ``model`` and ``optimiser`` and return the progress.

    Raises InputError if the file is damaged, or of another model or another ``plan`` (optimiser, length).
    """
    tensors, metadata = read_tensors(path, "checkpoint")
    if "training" not in metadata:
        raise InputError("checkpoint", str(path), "a checkpoint of a stage (this file holds weights only)")
    saved_plan = _decoded(path, metadata, "plan", dict)
    # Through JSON as well: it has no tuples.
    for name, wanted in json.loads(json.dumps(plan)).items():
        if saved_plan.get(name) != wanted:
            raise InputError("checkpoint", f"{path} with {name} {saved_plan.get(name)}", f"{name} {wanted}")
    state: Training = _decoded(path, metadata, "training", training)
    state.require_within(f"checkpoint {path}", int(plan["total_steps"]))
    _fill(path, model, {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    _restore(path, optimiser, tensors)
    return state


def _decoded(path: Path, metadata: dict[str, str], name: str, kind: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_json(metadata.get(name, "null"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (name, *first["loc"])))
        raise InputError("checkpoint", f"{path} with {place}", first["msg"]) from error


def _restore(path: Path, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    entries: dict[int, dict[str, Tensor]] = {}
    try:
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, index, field = name.split(".", 2)
                entries.setdefault(int(index), {})[field] = tensor
        optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})
    except (ValueError, KeyError, RuntimeError) as error:
        raise InputError("checkpoint", f"{path} with another optimiser's state", "an intact one") from error


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
