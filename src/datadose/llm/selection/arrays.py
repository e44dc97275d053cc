"""Passes over the rows of a large array, in blocks: nothing is held as float64 but one block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datadose.covariance import Array
from datadose.llm.scores import Scores
from datadose.llm.selection.config import Representation

Floats: TypeAlias = NDArray[Any]
"""An array of floating-point numbers, in the precision that it was stored in."""
Indices: TypeAlias = NDArray[np.int64]
"""Positions of rows."""
Mask: TypeAlias = NDArray[np.bool_]
"""One truth value a row."""

BLOCK = 8192
"""Rows per block."""

_STREAMS = (
    "reference",
    "geometry",
    "permutation",
    "clusters",
    "sft",
    "rl",
    "control",
    "replay",
    "order",
    "method",
    "turns",
)


@dataclass(frozen=True)
class Usable:
    """Scores, and the positions (ascending) of the rows that are used of them."""

    scores: Scores
    rows: Indices

    def array(self, representation: Representation) -> Floats:
        """The representations of all rows of the scores."""
        return self.scores.sketches if representation == "sketch" else self.scores.embeddings

    def numbers(self, column: str) -> Array:
        """A column of all rows as float64, NaN where it is null."""
        return numbers(self.scores.table, column)


def stream(seed: int, source: str) -> np.random.Generator:
    """The random stream of one ``source`` (a name) under ``seed``; draws from it leave others as they are."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAMS.index(source),)))


def blocks(rows: Floats, indices: Indices) -> Iterator[tuple[slice, Array]]:
    """(positions in ``indices``, those rows as float64), block by block; ``indices`` ascend."""
    for where, found in _stored_blocks(rows, indices):
        yield where, np.asarray(found, dtype=np.float64)


def _stored_blocks(rows: Floats, indices: Indices) -> Iterator[tuple[slice, Floats]]:
    for start in range(0, len(indices), BLOCK):
        part = indices[start : start + BLOCK]
        first, last = int(part[0]), int(part[-1]) + 1
        # Slices of a memory map are read in one go; only gaps need the slower lookup.
        found = rows[first:last] if last - first == len(part) else rows[part]
        yield slice(start, start + len(part)), found


def finite_rows(rows: Floats, indices: Indices) -> Indices:
    """The ``indices`` (ascending) whose rows are all finite."""
    keep = [indices[where][np.isfinite(block).all(axis=1)] for where, block in _stored_blocks(rows, indices)]
    return np.concatenate(keep) if keep else indices


def numbers(table: pd.DataFrame, column: str) -> Array:
    """The ``column`` of a ``table`` as float64, NaN where it is null."""
    return np.asarray(pd.to_numeric(table[column]).to_numpy(dtype=np.float64, na_value=np.nan))


def flags(table: pd.DataFrame, column: str) -> tuple[Mask, Mask]:
    """Two masks of a nullable boolean ``column`` of a ``table``: where it is true, and where it is false."""
    values = table[column].astype("boolean")
    is_true = np.asarray(values.fillna(value=False).to_numpy(dtype=bool))
    is_false = np.asarray((~values).fillna(value=False).to_numpy(dtype=bool))
    return is_true, is_false


def first_of_each(values: NDArray[np.int64], among: Mask, order: Indices | None = None) -> Mask:
    """Which of the rows in ``among`` are the first with their value in ``values``, in the given ``order``.

    ``order`` lists all rows; None is that of the array.
    """
    places = np.flatnonzero(among) if order is None else order[among[order]]
    found = np.zeros(len(values), dtype=bool)
    found[places[~pd.Series(values[places]).duplicated().to_numpy()]] = True
    return found


def among_these(values: NDArray[np.int64], these: NDArray[np.int64]) -> Mask:
    """Which of the ``values`` (hashes of questions) are in ``these``.

    By a hash table: numpy's ``isin`` sorts, which takes ten times as long among a million questions.
    """
    return np.asarray(pd.Series(values).isin(these), dtype=bool)
