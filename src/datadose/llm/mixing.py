"""What a run is trained on: one file, or several in given shares of a batch; weights of rows in the loss."""

from __future__ import annotations

import math
import sys
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
from datadose.llm.scores import CHANCE
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
    """The rows whose weights are above 0."""
    weights: list[float] | None
    """The weights of ``rows`` in the loss; None if the file has no column ``weight``."""
    chances: list[float] | None
    """The sampling weights of ``rows``; None if the file has no column ``sampling_weight``."""
    left_out: int
    """Rows with a weight of 0, which are not trained on."""


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
    rows = read_pool(file, field, prompts_alone=not weighted, used=(WEIGHT, CHANCE), **options)
    if not weighted and any(WEIGHT in row.columns for row in rows):
        allowed = f"rows without a column {WEIGHT}: only the loss of stage sft takes a weight by row"
        reject(field, f"{file} with a column {WEIGHT}", allowed)
    both = [_weights(rows, name, field, file) for name in (WEIGHT, CHANCE)]
    known = [values for values in both if values is not None]
    kept = [place for place in range(len(rows)) if all(values[place] > 0 for values in known)]
    if not kept:
        reject(field, f"{file}: no row has both {WEIGHT} and {CHANCE} above 0", "such rows")
    for name, values, use in ((WEIGHT, both[0], "count in the loss"), (CHANCE, both[1], "are drawn")):
        if values is not None:
            tell(f"{field}: rows {use} by their column {name}, {len(kept)} of {len(rows)} with one above 0")
    weights, chances = (values and [values[place] for place in kept] for values in both)
    return Source(file, share, [rows[place] for place in kept], weights, chances, len(rows) - len(kept))


def _weights(rows: Sequence[Row], name: str, field: str, file: Path) -> list[float] | None:
    """A column of weights, None if no row has it."""
    if all(name not in row.columns for row in rows):
        return None
    found = [_weight(row, name, field, file) for row in rows]
    if not any(found):
        reject(field, f"{file}: {name} is 0 in every row", f"a {name} above 0 in some row")
    return found


def _weight(row: Row, name: str, field: str, file: Path) -> float:
    value: Any = row.columns.get(name)
    if kind_of(value) != "number" or not 0 <= value <= sys.float_info.max:
        shown = f"no {name}" if value is None else f"{name} {value}"
        allowed = f"a number >= 0 as the {name} of each row"
        if isinstance(value, str):
            # In a CSV file a good number would look refused for no reason.
            shown, allowed = f"{shown} as text", f"{allowed} (a CSV file holds text alone: write JSON lines)"
        reject(field, f"{file}, {row.place}: {shown}", allowed)
    return float(value)


def all_rows(sources: Sequence[Source]) -> list[Row]:
    """The rows of all sources, one source after the other."""
    return [row for source in sources for row in source.rows]


def draw_places(sources: Sequence[Source], count: int, seed: int) -> list[int]:
    """The places in :func:`all_rows` of the ``count`` rows to train on, in order.

    Each draw is from a source with the probability of its share. Within a source every row is drawn once, in
    random order by ``seed``, before any is drawn again; where rows have sampling weights, each draw is a row
    with the probability of its weight.
    """
    from datasets import Dataset, interleave_datasets  # noqa: PLC0415 - optional, and slow to import

    streams = []
    for index, start in enumerate(_starts(sources)):
        size = len(sources[index].rows)
        rng = np.random.default_rng([seed, index])
        if (chances := sources[index].chances) is not None:
            scaled = np.array(chances) / max(chances)
            drawn = rng.choice(size, count, p=scaled / scaled.sum())
        else:
            # As many rounds as even a source that is drawn every time needs: none is exhausted early.
            drawn = np.concatenate([rng.permutation(size) for _ in range(math.ceil(count / size))])[:count]
        streams.append(Dataset.from_dict({"place": start + drawn}))
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
