"""One setting of the explorer: the values of its sliders, its address, and the shift that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import groupby
from typing import Annotated, Any, Self
from urllib.parse import parse_qsl, urlencode

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from datadose.configs import validate_config
from datadose.covariance import Array
from datadose.errors import InputError, reject
from datadose.planner import PostTraining
from datadose.planner.dynamics import Reward
from datadose.shift import Shift
from datadose.strict import Strict
from datadose.theory.stopping import Stopping

GROUPS = 8
"""Levels of the shift's directions: each may shift by its own amount, and its data can be dragged."""

WEIGHTS = ("weight_yours", "weight_replay", "weight_even")
FIRST, LAST = 0.1, 1e5
"""The ends of the times; the last is convergence."""
LEAST_WEIGHT = 1e-3
"""The end of the weights; it leaves a source out."""


class Setting(Strict):
    """The paper's shift with an uneven Delta, the data, and how post-training is run.

    Errors of the field are those of :func:`datadose.configs.validate_config`.
    """

    dimension: Annotated[int, Field(ge=40, le=1000)] = 400
    share: Annotated[float, Field(ge=0.05, le=1)] = 0.5
    """rank(Delta) / d."""
    rho: Annotated[float, Field(ge=0.01, le=1)] = 0.1
    """Pretraining variance of the shift's directions; that of the others is 1."""
    tilt: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Delta's levels fall like level^-tilt, mean 1; 0 is the paper's shift."""
    eta: Annotated[float, Field(ge=0.05, le=1)] = 0.2
    interference: Annotated[float, Field(ge=0, le=0.2)] = 0.01
    length: Annotated[int, Field(ge=20, le=2000)] = 400
    max_prompts: Annotated[int, Field(ge=50, le=5000)] = 2000
    chain_steps: Annotated[int, Field(ge=1, le=8)] = 1
    steps: Annotated[int, Field(ge=10, le=10000)] = 1000
    reward: Reward = "dense"
    tolerance: Annotated[float, Field(ge=0.05, le=1)] = 0.5
    levels: Annotated[str, Field(pattern=r"^(-?\d+(\.\d+)?(,-?\d+(\.\d+)?){0,8})?$")] = ""
    """log2 of the dragged data over the paper's, by level, then that of the interference; empty: all zero."""
    time: Annotated[float, Field(ge=FIRST, le=LAST)] = LAST
    """Training time of gradient flow; the largest one stands for convergence."""
    weight_yours: Annotated[float, Field(ge=LEAST_WEIGHT, le=1)] = 1.0
    """Weight of a row of each of the pool's sources; the smallest one leaves a source out."""
    weight_replay: Annotated[float, Field(ge=LEAST_WEIGHT, le=1)] = 1.0
    weight_even: Annotated[float, Field(ge=LEAST_WEIGHT, le=1)] = 1.0

    @model_validator(mode="after")
    def _levels_in_range(self) -> Self:
        low, high = EXPONENTS
        if not all(low <= float(part) <= high for part in self.levels.split(",") if part):
            reject("levels", self.levels, f"numbers in [{low:g}, {high:g}] with commas between them")
        return self

    @property
    def shifted(self) -> int:
        """m, the number of directions that the shift moves."""
        return max(1, round(self.share * self.dimension))

    def group_sizes(self) -> NDArray[np.int64]:
        """How many directions each level of the shift has; shape (levels,), sum m."""
        parts = np.array_split(np.arange(self.shifted), self.level_count)
        return np.array([len(part) for part in parts], dtype=np.int64)

    def level_edges(self) -> list[int]:
        """Where levels of directions begin, and d: the shift's, then those outside if there are any."""
        edges = [int(edge) for edge in np.cumsum([0, *self.group_sizes()])]
        return edges if self.shifted == self.dimension else [*edges, self.dimension]

    @property
    def level_count(self) -> int:
        """The number of levels: GROUPS, or m where the shift has fewer directions."""
        return min(GROUPS, self.shifted)

    def shift(self) -> Shift:
        """The shift, with the paper's allocation and the interference as its data."""
        return _shift(self)

    def exponents(self) -> Array:
        """``levels`` as numbers, shape (GROUPS + 1,): the last one is the interference's."""
        found = np.zeros(GROUPS + 1)
        given = [float(part) for part in self.levels.split(",") if part][: len(found)]
        found[: len(given)] = given
        return found

    def dragged_data(self) -> Array:
        """The data after dragging: the paper's times 2^exponent by level; a spectrum (d,)."""
        sizes = np.append(self.group_sizes(), self.dimension - self.shifted)
        # A shift of fewer directions than GROUPS has fewer levels; the interference keeps its place.
        exponents = np.append(self.exponents()[: self.level_count], self.exponents()[GROUPS])
        return np.asarray(self.shift().data * np.repeat(2.0**exponents, sizes))

    def stopping(self) -> Stopping:
        """How long the model is trained."""
        return Stopping() if self.time >= LAST else Stopping(time=self.time)

    def weights(self) -> list[float]:
        """The weights of the pool's sources, in the order of :data:`WEIGHTS`."""
        given: list[float] = [getattr(self, name) for name in WEIGHTS]
        return [0.0 if weight <= LEAST_WEIGHT else weight for weight in given]

    def training(self) -> PostTraining:
        """How post-training is run; a pass is judged at ``tolerance``."""
        return PostTraining(self.chain_steps, self.steps, self.reward, self.tolerance)

    def without(self, *names: str) -> Setting:
        """The setting with the fields ``names`` at their defaults."""
        return self.model_copy(update={name: Setting.model_fields[name].default for name in names})

    def planned(self) -> dict[str, Any]:
        """What a SHIFT.yaml says besides its covariances."""
        names = (
            "length", "eta", "interference", "max_prompts", "chain_steps", "steps", "reward", "tolerance",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def query(self) -> str:
        """The part of an address after the question mark: what differs from the defaults."""
        return urlencode({k: v for k, v in self.model_dump(exclude_defaults=True).items() if v != ""})

    def shift_yaml(self) -> str:
        """The SHIFT.yaml of ``datadose plan`` for this setting."""
        shift, sizes = self.shift(), [int(size) for size in self.group_sizes()]
        starts = np.cumsum([0, *sizes[:-1]])
        rest = self.dimension - self.shifted
        moved = [[float(f"{shift.delta[i]:.6g}"), size] for i, size in zip(starts, sizes, strict=True)]
        blocks = {"sigma0": [[self.rho, self.shifted], [1.0, rest]], "delta": [*_merged(moved), [0.0, rest]]}
        lines = ["# From the explorer. datadose plan shift.yaml"]
        for key, value in blocks.items():
            lines.append(f"{key}: {{blocks: {[pair for pair in value if pair[1]]}}}")
        lines += [f"{name}: {value}" for name, value in self.planned().items()]
        return "\n".join(lines) + "\n"


@lru_cache(maxsize=64)
def _shift(setting: Setting) -> Shift:
    """The shift of a setting, remembered: one answer asks for it a dozen times."""
    sizes = setting.group_sizes()
    levels = np.arange(1, len(sizes) + 1, dtype=np.float64) ** -setting.tilt
    delta = np.repeat(levels / (levels @ sizes / sizes.sum()), sizes)
    rest = setting.dimension - setting.shifted
    sigma0 = np.concatenate([np.full(setting.shifted, setting.rho), np.ones(rest)])
    return Shift.aligned(sigma0, np.append(delta, np.zeros(rest)), setting.eta, setting.interference)


EXPONENTS = (-4.0, 2.0)
"""Dragged data lie between a sixteenth and four times the paper's."""


def _merged(blocks: list[list[Any]]) -> list[list[Any]]:
    """Neighbouring blocks of one value as one block."""
    return [[value, sum(size for _, size in same)] for value, same in groupby(blocks, lambda block: block[0])]


def make_setting(values: Mapping[str, Any]) -> Setting:
    """A setting from slider values; None (an emptied field) is an error that names the field."""
    for name, value in values.items():
        if value is None:
            reject(name, "nothing", "a number")
    return validate_config(dict(values), Setting)


@lru_cache(maxsize=256)
def read_query(query: str) -> tuple[Setting, str]:
    """(setting, complaint) of an address's query: what is wrong is named and left at its default."""
    values, complaints = {}, []
    for name, text in parse_qsl(query.removeprefix("?"), keep_blank_values=True):
        try:
            validate_config({name: text}, Setting)
        except InputError as error:
            complaints.append(str(error))
        else:
            values[name] = text
    return validate_config(values, Setting), "; ".join(complaints)
