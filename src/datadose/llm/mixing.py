"""What a run is trained on: one file, or several in given shares of a batch; weights of rows in the loss."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from datadose.errors import reject
from datadose.llm.pool import Row, kind_of, read_pool
from datadose.printing import note

WEIGHT = "weight"
"""The column of a row's weight in the loss of SFT."""

_SHARE = "FILE=SHARE with a share above 0, such as clean.jsonl=3"

Shares: TypeAlias = Sequence[tuple[Path, float]]
"""Files, each with its share of a batch relative to the others."""


@dataclass(frozen=True)
class Source:
    """One file of training rows."""

    file: Path
    share: float
    """Expected share of a batch, in (0, 1]; the shares of a run's sources sum to 1."""
    rows: list[Row]
    """The rows with a weight above 0."""
    weights: list[float] | None
    """The weights of ``rows``; None if the file has no column ``weight``."""
    left_out: int
    """Rows of weight 0, which are not trained on."""


def parse_shares(texts: Sequence[str]) -> list[tuple[Path, float]]:
    """Files and shares of texts such as ``clean.jsonl=3``; the last ``=`` separates, so names may hold one.

    Raises InputError for a text without a file or without a finite share above 0.
    """
    found = []
    for text in texts:
        file, _, share = text.rpartition("=")
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not file or not 0 < value < math.inf:
            reject("mix", text, _SHARE)
        found.append((Path(file), value))
    return found


def read_sources(
    data: Path | Shares,
    *,
    weighted: bool,
    columns: Mapping[str, str] | None = None,
    several: bool = False,
    tell: Callable[[str], None] = note,
) -> list[Source]:
    """The files to train on, read and checked.

    Args:
        data: a pool, or several with their shares.
        weighted: whether the loss takes a weight by row (SFT's does; RL needs no completions either).
        columns: the column of a role.
        several: whether ``columns`` are those of other files too.
        tell: called with each line on how the files were read.

    Raises InputError for a bad file, row, share or weight, for one file given twice, and for a column
    ``weight`` where the loss takes none.
    """
    options: dict[str, Any] = {"weighted": weighted, "columns": columns, "several": True, "tell": tell}
    if isinstance(data, Path):
        options["several"] = several
        return [_read(data, "data", 1.0, **options)]
    if not data:
        reject("mix", "no file", _SHARE)
    seen: dict[Path, Path] = {}
    for file, share in data:
        if not 0 < share < math.inf:
            reject("mix", f"{file}={share}", _SHARE)
        if (other := seen.get(file.resolve())) is not None:
            reject("mix", f"{other} and {file}", "each file once")
        seen[file.resolve()] = file
    # The largest one first: a sum of finite shares may not be finite.
    largest = max(share for _, share in data)
    total = math.fsum(share / largest for _, share in data)
    return [_read(file, "mix", share / largest / total, **options) for file, share in data]


def _read(
    file: Path,
    field: str,
    share: float,
    *,
    weighted: bool,
    columns: Mapping[str, str] | None,
    several: bool,
    tell: Callable[[str], None],
) -> Source:
    options: dict[str, Any] = {"columns": columns, "several": several, "tell": tell}
    rows = read_pool(file, field, prompts_alone=not weighted, used=(WEIGHT,), **options)
    if all(WEIGHT not in row.columns for row in rows):
        return Source(file, share, rows, None, 0)
    if not weighted:
        allowed = f"rows without a column {WEIGHT}: only the loss of stage sft takes a weight by row"
        reject(field, f"{file} with a column {WEIGHT}", allowed)
    weights = [_weight(row, field, file) for row in rows]
    kept = [(row, weight) for row, weight in zip(rows, weights, strict=True) if weight > 0]
    if not kept:
        reject(field, f"{file}: {WEIGHT} is 0 in every row", f"a {WEIGHT} above 0 in some row")
    return Source(file, share, [row for row, _ in kept], [w for _, w in kept], len(rows) - len(kept))


def _weight(row: Row, field: str, file: Path) -> float:
    value: Any = row.columns.get(WEIGHT)
    if kind_of(value) != "number" or not 0 <= value < math.inf:
        shown = f"no {WEIGHT}" if value is None else f"{WEIGHT} {value}"
        reject(field, f"{file}, {row.place}: {shown}", f"a number >= 0 as the {WEIGHT} of each row")
    return float(value)


def all_rows(sources: Sequence[Source]) -> list[Row]:
    """The rows of all sources, one source after the other."""
    return [row for source in sources for row in source.rows]


def draw_places(sources: Sequence[Source], count: int, seed: int) -> list[int]:
    """The places in :func:`all_rows` of the ``count`` rows to train on, in order.

    Each draw is from a source with the probability of its share. Within a source every row is drawn once, in
    random order by ``seed``, before any is drawn again.
    """
    from datasets import Dataset, interleave_datasets  # noqa: PLC0415 - optional, and slow to import

    streams = []
    for index, start in enumerate(_starts(sources)):
        size = len(sources[index].rows)
        rng = np.random.default_rng([seed, index])
        # As many rounds as even a source that is drawn every time needs: none is exhausted early.
        rounds = [rng.permutation(size) for _ in range(math.ceil(count / size))]
        streams.append(Dataset.from_dict({"place": start + np.concatenate(rounds)[:count]}))
    mixed: Any = interleave_datasets(
        streams,
        probabilities=[source.share for source in sources],
        seed=seed,
        stopping_strategy="first_exhausted",
    )
    return [int(place) for place in mixed["place"][:count]]


def count_drawn(sources: Sequence[Source], places: Sequence[int]) -> list[int]:
    """How many of ``places`` (as :func:`draw_places` gives them) are rows of each source."""
    ends = [start + len(source.rows) for start, source in zip(_starts(sources), sources, strict=True)]
    owners = Counter(np.searchsorted(ends, places, side="right").tolist())
    return [owners[index] for index in range(len(sources))]


def _starts(sources: Sequence[Source]) -> Iterator[int]:
    return accumulate((len(source.rows) for source in sources[:-1]), initial=0)


def loss_weights(
    sources: Sequence[Source], tokens: Sequence[int], places: Sequence[int]
) -> NDArray[np.float64] | None:
    """The factor of each row in the loss, shape (rows,): its weight over the mean weight.

    The mean is over the completion tokens of the rows that are drawn, so that weights count only relative to
    each other, and a row of weight 2 acts in a batch of all rows as two copies would. Rows of a file without
    the column have weight 1. None if no file has it.

    Args:
        sources: the files.
        tokens: completion tokens of every row.
        places: the rows that are drawn.
    """
    if all(source.weights is None for source in sources):
        return None
    parts = [np.ones(len(s.rows)) if s.weights is None else np.array(s.weights) for s in sources]
    weights = np.concatenate(parts)
    weights /= weights.max()
    drawn = np.bincount(places, minlength=len(weights)) * np.asarray(tokens)
    factors: NDArray[np.float64] = weights * (drawn.sum() / (drawn @ weights))
    return factors
