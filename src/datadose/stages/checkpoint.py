"""Checkpoints: one safetensors file of weights, optimiser state and progress, written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AliasChoices, Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from datadose.errors import InputError, reject, require_integer
from datadose.tensor_files import read_tensors, write_tensors


@dataclass(frozen=True)
class Divergence:
    """The loss of a run: its index, the step, and the radius rho(I + V Sigma_data) there.

    The radius is None if it is not finite any more, or if the model has no operator V.
    """

    run: int
    step: int
    divergence_radius: Annotated[
        float | None, Field(validation_alias=AliasChoices("divergence_radius", "spectral_radius"))
    ]
    """Checkpoints of version 0.1 call it ``spectral_radius``, and are read."""


@dataclass
class Training:
    """The outcome of a stage: steps done, recorded history and the runs that diverged."""

    steps: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    diverged: list[Divergence] = field(default_factory=list)
    first_loss: list[float] = field(default_factory=list)

    def require_within(self, field_: str, total: int) -> None:
        """InputError naming ``field_`` unless this can be the state of a stage of ``total`` steps."""
        require_integer(f"{field_}, steps", self.steps, 0, total)
        runs = len(self.first_loss)
        if (runs == 0) != (self.steps == 0) or not all(0 <= lost.run < runs for lost in self.diverged):
            reject(f"{field_}, first_loss", f"{runs} runs after {self.steps} steps", "every run's loss")
        steps = [row.get("step") for row in self.history]
        if steps != sorted({step for step in steps if isinstance(step, int) and 0 <= step < self.steps}):
            reject(f"{field_}, history", f"rows of the steps {steps}", f"rising steps below {self.steps}")
        per_run = [values for row in self.history for name, values in row.items() if name != "step"]
        if not all("loss" in row for row in self.history) or not all(
            isinstance(values, list) and len(values) == runs for values in per_run
        ):
            reject(f"{field_}, history", "other rows", f"the loss and each metric of {runs} runs a row")


def save_weights(path: Path, model: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """Write the parameters of ``model`` to ``path`` (safetensors), with ``metadata`` as text."""
    write_tensors(path, model.state_dict(), metadata)


def load_weights(path: Path, model: nn.Module) -> None:
    """Read the file that :func:`save_weights` wrote into ``model``.

    Raises InputError if the file is damaged, missing or of another shape.
    """
    tensors, _ = read_tensors(path, "checkpoint")
    _fill(path, model, tensors)


def save_checkpoint(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, plan: dict[str, Any], state: Training
) -> None:
    """Write weights, optimiser state, progress and the plan of the stage to ``path``.

    It can be written from any device and read for any other.

    Args:
        path: the file.
        model: whose parameters are written.
        optimiser: whose state is written.
        plan: what identifies the stage, such as its optimiser and length.
        state: the progress.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, entries in optimiser.state_dict()["state"].items():
        for name, value in entries.items():
            tensors[f"optimiser.{index}.{name}"] = torch.as_tensor(value)
    write_tensors(path, tensors, {"plan": json.dumps(plan), "training": json.dumps(asdict(state))})


def load_checkpoint(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, plan: dict[str, Any]
) -> Training:
    """Read a file of :func:`save_checkpoint` into ``model`` and ``optimiser``, and return the progress.

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
    state: Training = _decoded(path, metadata, "training", Training)
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
