"""A study: one question with its experiment, its picture, what is said about it and the claims it decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, Self, TypeAlias, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from datadose.errors import reject
from datadose.files import read_table
from datadose.reading import read_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


Preset: TypeAlias = Literal["smoke", "quick", "small", "medium", "paper"]
PRESETS: tuple[Preset, ...] = ("smoke", "quick", "small", "medium", "paper")
"""``small`` and ``medium`` are for the nonlinear transformer: hours on a CPU, where ``paper`` takes a GPU."""
FULL: Final = "full"
"""What ``quick`` is for one study; of ``all`` it runs those too that ``quick`` leaves to it."""
Verdict: TypeAlias = Literal["holds", "fails", "mixed", "no difference", "not run"]


class Experiment(Protocol):
    """A resolved configuration, a frozen dataclass, that knows its cells and how results become a table.

    It has ``cells() -> list[Cell]``; or, if cells start from files or results of others,
    ``rounds(folder) -> Iterator[Round]``, each of which is finished in ``folder`` before the next is taken.
    The table is that of the last one's results.
    """

    @property
    def seeds(self) -> int:
        """Independent repetitions of every setting."""

    @classmethod
    def preset(cls, name: Preset) -> Self:
        """The configuration of a preset."""

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """The tidy table of ``results``, one per cell in their order."""


E = TypeVar("E", bound=Experiment)


@dataclass(frozen=True)
class Judgement:
    """The measured side of a claim."""

    value: float | None
    interval: tuple[float, float] | None
    seeds: int
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger: what the paper says, where it is tested and the function that judges it."""

    id: str
    paper: str
    statement: str
    setting: str
    statistic: str
    threshold: float
    judge: Callable[[Saved[Any], float], Judgement]
    test: str
    """The test that guards the same statement."""
    shown_by: tuple[str, ...] = ()
    """Other studies whose figure shows it too."""


@dataclass(frozen=True)
class Study(Generic[E]):
    """A question, and all that answers it.

    ``name`` is that of the target of `datadose reproduce`, of the files NAME.csv, .json, .png, .svg and of
    the ``experiment`` in ``claims.json``. ``title`` and ``story`` (two sentences for a practitioner) stand
    over the picture. An ``experiment`` of None needs no table: its claims are judged from theory alone.
    """

    name: str
    title: str = ""
    story: str = ""
    experiment: type[E] | None = None
    draw: Callable[[pd.DataFrame, E], Figure] | None = None
    claims: Sequence[Claim] = ()


@dataclass(frozen=True)
class Saved(Generic[E]):
    """The table of a study in a results folder, and the configuration that made it; read on first use."""

    study: Study[E]
    folder: Path

    @property
    def exists(self) -> bool:
        """Whether the table is there."""
        return (self.folder / f"{self.study.name}.csv").is_file()

    @cached_property
    def table(self) -> pd.DataFrame:
        """The table; InputError if it is missing, malformed or not the one that its record names."""
        return read_table(self.folder / f"{self.study.name}.csv")

    @cached_property
    def config(self) -> E:
        """The configuration; InputError if it is not one of this version's."""
        path, experiment = self.folder / f"{self.study.name}.json", cast("Any", self.study.experiment)
        kind: TypeAdapter[E] = TypeAdapter(experiment)
        record = read_json(path)
        saved = record.get("config") if isinstance(record, dict) else None
        try:
            found = kind.validate_python(saved)
            # What is unknown, or left out where the field has a default, is seen only on the way back.
            fault = "" if kind.dump_python(found, mode="json") == saved else "config"
        except ValidationError as error:
            fault = ".".join(str(part) for part in error.errors()[0]["loc"]) or "config"
        if fault:
            allowed = f"one that `datadose reproduce {self.study.name}` of this version wrote"
            reject(f"{path}, {fault}", "another configuration", allowed)
        return found
