"""The record of a search: how often an optimiser stopped, did not move or reached a point without a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from datadose.covariance import Array
from datadose.theory.equivalent import PeakError
from datadose.theory.fixed_point import NoFixedPointError

Unsolved = (NoFixedPointError, np.linalg.LinAlgError, FloatingPointError)
"""A point whose error could not be computed: it does not end a search, and it is counted."""


@dataclass(frozen=True)
class SearchRecord:
    """The record of a search; all counts but ``descents`` are zero where everything went well."""

    descents: int = 0
    """Runs of a local optimiser."""
    unmoved: int = 0
    """The descents that found nothing better than their start (which may be a minimum)."""
    stopped: int = 0
    """The descents that ended at a peak, or that the optimiser reports as a failure."""
    refused: int = 0
    """Better predictions that were not taken, for the asymptotics do not hold there."""
    unsolved: int = 0
    """Points whose error could not be computed, and that were left out."""

    @property
    def remark(self) -> str | None:
        """A sentence where no descent found anything better, or points were unsolved; None elsewhere."""
        said = []
        if self.descents and self.unmoved == self.descents:
            said.append(f"none of {self.descents} descents found anything better than its start")
        if self.unsolved:
            said.append(f"{self.unsolved} points could not be worked out and were passed over")
        return "; ".join(said) or None

    def __add__(self, other: SearchRecord) -> SearchRecord:
        return SearchRecord(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Best:
    """The best point that an objective had, kept where its optimiser fails."""

    def __init__(self) -> None:
        self.value, self.first = np.inf, np.nan
        self.place: Array = np.zeros(0)

    def see(self, value: float, place: Array) -> None:
        """Remember ``place`` if it is the first or the best."""
        if np.isnan(self.first):
            self.first = value
        if value < self.value:
            self.value, self.place = value, place.copy()

    @property
    def moved(self) -> bool:
        """Whether some point beat the first one by more than rounding."""
        return bool(self.value < self.first * (1 - _ROUNDING))


_ROUNDING = 1e-12


def run_search(optimiser: Callable[[], Any]) -> SearchRecord:
    """One descent of a scipy ``optimiser`` and how it ended: a peak or an unsolved point ends it alone."""
    try:
        found = optimiser()
    except PeakError:
        return SearchRecord(descents=1, stopped=1)
    except Unsolved:
        return SearchRecord(descents=1, stopped=1, unsolved=1)
    ended = found.success or "LIMIT" in str(found.message).upper()
    return SearchRecord(descents=1, stopped=int(not ended))
