"""What the configuration files of `train` and `plan` share: reading, and how a covariance is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, ValidationError

from datadose.covariance import LARGEST_DIMENSION, Array, require_size, validate_covariance
from datadose.deprecation import renamed
from datadose.errors import LARGEST_COUNT, reject
from datadose.reading import open_array
from datadose.strict import Config, Strict, first_fault, read_yaml

Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above 0."""
Size: TypeAlias = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
"""A whole number from 1 to a billion."""
Stage: TypeAlias = Literal["sft", "outcome", "rl"]
"""A way to post-train: supervised fine-tuning, outcome supervision, policy-gradient RL."""
STAGES: tuple[Stage, ...] = ("sft", "outcome", "rl")
"""Those that the studies compare."""


class Blocks(Strict):
    """A spectrum by blocks: [[value, size], ...]."""

    blocks: list[tuple[float, Annotated[int, Field(ge=1, le=LARGEST_DIMENSION)]]]


CovarianceSpec: TypeAlias = list[float] | Blocks | str
"""A spectrum, blocks, or the path of a .npy file with a spectrum (d,) or a matrix (d, d)."""


def read_covariance(field: str, spec: CovarianceSpec, folder: Path, dimension: int | None = None) -> Array:
    """The covariance that ``spec`` describes; paths are relative to ``folder`` (the config's).

    Raises InputError naming ``field`` for a missing or unreadable file, for what is no covariance, and for a
    dimension above :data:`~datadose.covariance.LARGEST_DIMENSION` (a matrix: LARGEST_MATRIX).
    """
    if isinstance(spec, str):
        array = open_array(field, folder / spec)
        require_size(field, array.shape)
        return validate_covariance(field, array, dimension)
    require_size(field, shape_of(spec))
    if isinstance(spec, Blocks):
        values = np.array([value for value, _ in spec.blocks], dtype=np.float64)
        sizes = np.array([size for _, size in spec.blocks], dtype=np.int64)
        return validate_covariance(field, np.repeat(values, sizes), dimension)
    return validate_covariance(field, spec, dimension)


def shape_of(spec: list[float] | Blocks) -> tuple[int]:
    """(d,) of a spectrum that is a list or blocks, without making it."""
    return (sum(size for _, size in spec.blocks) if isinstance(spec, Blocks) else len(spec),)


def load_config(path: Path, kind: type[Config]) -> Config:
    """The YAML file ``path`` as a ``kind``. Raises InputError, which names the line or the field."""
    document = read_yaml("config", path)
    required = ", ".join(name for name, field in kind.model_fields.items() if field.is_required())
    if not isinstance(document, dict):
        what = "is empty" if document is None else f"holds a {type(document).__name__}, not keys with values"
        reject("config", path, f"keys {required}", said=f"{path} {what}; required: keys {required}")
    own, other = sorted(_TELLING, key=lambda key: key not in kind.model_fields)
    if other in document and own not in document:
        command = _TELLING[other]
        said = f"{path} looks like a file of `datadose {command}`: run `datadose {command} {path}`"
        reject("config", path, f"a file of `datadose {_TELLING[own]}`", said=said)
    return validate_config(document, kind)


_TELLING = {"max_prompts": "plan", "pretrain": "train"}
"""Per command that reads a file, a key that every file of it has and none of the other's."""


def validate_config(document: dict[str, Any], kind: type[Config]) -> Config:
    """The ``document`` as an object of ``kind``. Raises InputError for its first fault."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise first_fault(error, kind) from error


if not TYPE_CHECKING:  # A type checker takes a module that has __getattr__ to have every name.
    _PLANS = ("BudgetConfig", "PlanConfig", "SourceConfig")
    _PIPELINES = ("Category", "CurriculumConfig", "ModelConfig", "PretrainConfig", "ShiftConfig")
    _PIPELINES += ("StageConfig", "TestConfig", "TrainConfig")
    _MOVED = {name: f"datadose.planner.config.{name}" for name in _PLANS}
    _MOVED |= {name: f"datadose.stages.config.{name}" for name in _PIPELINES}
    __getattr__ = renamed(__name__, _MOVED)
