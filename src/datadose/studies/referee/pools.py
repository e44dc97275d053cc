"""Pools of the sea: forty families in equal parts, of which two are the target; scored, and chosen from.

Each family has a fortieth of the rows, so that the target's two families are 5 percent together: the middle
budget. Faults come in four sorts: wrong answers, mostly on the target; right answers in another format;
repetitions, the same question in another wording with the same answer; and all three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch

from datadose.files import whole_folder, write_jsonl
from datadose.llm.score import score
from datadose.llm.score_config import ScoreConfig
from datadose.llm.scores import Scores, read_scores
from datadose.printing import muted
from datadose.studies.referee.language import (
    FAMILIES,
    MARK,
    TARGETS,
    Pair,
    draw_family,
    reworded,
    role_in,
    verify,
)
from datadose.studies.token_study.language import TRAIN, VALIDATION, Example
from datadose.studies.token_study.pools import disordered

Contents: TypeAlias = Literal["clean", "wrong", "format", "duplicates", "mixed"]
CONTENTS: tuple[Contents, ...] = get_args(Contents)
_VERIFIER = f"{verify.__module__}:verify"
_POOL, _TARGET = "pool", "target"
_ORIGINALS = 40
"""Rows that are repeated, in place of others of the sea."""


@dataclass(frozen=True)
class Faults:
    """Shares of the target's rows that are wrong and in another format; of others, each; of repetitions."""

    wrong: float = 0.0
    format: float = 0.0
    other: float = 0.0
    repeated: float = 0.0


FAULTS: dict[Contents, Faults] = {
    "clean": Faults(),
    "wrong": Faults(wrong=0.4, other=0.1),
    "format": Faults(format=0.4, other=0.1),
    "duplicates": Faults(repeated=0.2),
    "mixed": Faults(wrong=0.25, format=0.25, other=0.1, repeated=0.2),
}
"""Of a pool; ``other`` is a share of the families that are not the target, of each sort that it has."""


class Fault:
    """What is wrong with a row: nothing, its answer, or the answer's format."""

    NONE, WRONG, FORMAT = "right", "wrong", "format"


@dataclass(frozen=True)
class PoolRow:
    """A row, its family's header, its fault, and whether it repeats another's question."""

    example: Example
    header: str
    fault: str = Fault.NONE
    repeats: bool = False


@dataclass(frozen=True)
class SeaPool:
    """A pool to score.

    Args:
        contents: which faults it has.
        pair: the target.
        rows: of the pool, a multiple of 40.
        target: rows of the target's sample for the selectors, half of each family.
        alone: whether each completion is scored without its prompt too, as the method ``ifd`` needs.
    """

    contents: Contents
    pair: Pair
    rows: int = 4000
    target: int = 64
    alone: bool = False


def pool_rows(pool: SeaPool, seed: int) -> list[PoolRow]:
    """The pool's rows in random order."""
    rng = np.random.default_rng([seed, 50])
    faults, rows = FAULTS[pool.contents], []
    for header in FAMILIES:
        family = draw_family([seed, 51], pool.rows // len(FAMILIES), header, TRAIN)
        on_target = header in TARGETS[pool.pair]
        sorts = {Fault.WRONG: faults.wrong, Fault.FORMAT: faults.format}
        counts = {
            sort: round(len(family) * (share if on_target else faults.other if share else 0.0))
            for sort, share in sorts.items()
        }
        kinds = [sort for sort, count in counts.items() for _ in range(count)]
        kinds += [Fault.NONE] * (len(family) - len(kinds))
        rows += [_spoiled(example, header, kind, rng) for example, kind in zip(family, kinds, strict=True)]
    return (
        [rows[i] for i in rng.permutation(len(rows))] if not faults.repeated else _repeated(rows, pool, rng)
    )


def _spoiled(example: Example, header: str, fault: str, rng: np.random.Generator) -> PoolRow:
    prompt, answer = example
    changed = {Fault.WRONG: lambda: disordered(rng, answer), Fault.FORMAT: lambda: MARK + answer}
    return PoolRow((prompt, changed[fault]() if fault in changed else answer), header, fault)


def _repeated(rows: list[PoolRow], pool: SeaPool, rng: np.random.Generator) -> list[PoolRow]:
    """The rows in random order, where repetitions of a few take the places of others of the sea."""
    order = rng.permutation(len(rows))
    originals = order[: max(1, _ORIGINALS * len(rows) // 4000)]
    replaced = [i for i in order[len(originals) :] if rows[i].header not in TARGETS[pool.pair]]
    found = list(rows)
    for place, i in enumerate(replaced[: round(FAULTS[pool.contents].repeated * len(rows))]):
        first = rows[originals[place % len(originals)]]
        prompt, answer = first.example
        found[i] = replace(first, example=(reworded(prompt, rng), answer), repeats=True)
    return [found[i] for i in order]


def target_rows(pool: SeaPool, seed: int) -> list[PoolRow]:
    """The target's sample: right rows of validation strings, both families alike, in random order."""
    rows = [
        PoolRow(example, header)
        for header in TARGETS[pool.pair]
        for example in draw_family([seed, 52], pool.target // 2, header, VALIDATION)
    ]
    # Target rows take turns: one family before the other would be all that a small budget reaches.
    return [rows[i] for i in np.random.default_rng([seed, 53]).permutation(len(rows))]


def make_scores(model: Path, pool: SeaPool, seed: int, *, file: Path) -> None:
    """Cell: the pool and the target's sample, scored, in a folder."""
    torch.set_num_threads(1)
    with whole_folder(file) as out, muted():
        for name, rows in ((_POOL, pool_rows(pool, seed)), (_TARGET, target_rows(pool, seed))):
            write_jsonl(out / f"{name}.jsonl", _entries(name, rows, pool.pair))
            # The verifier judges the rows' own answers; nothing is sampled.
            verifier = _VERIFIER if name == _POOL else None
            config = ScoreConfig(samples=0, seed=seed, alone=pool.alone)
            score(model, out / f"{name}.jsonl", out / name, config=config, verifier=verifier)


def _entries(name: str, rows: Iterable[PoolRow], pair: Pair) -> list[Mapping[str, Any]]:
    return [
        {
            "id": f"{name}-{i}",
            "prompt": row.example[0],
            "completion": row.example[1],
            "header": row.header,
            "role": role_in(row.header, pair),
            "fault": row.fault,
            "repeats": row.repeats,
        }
        for i, row in enumerate(rows)
    ]


def read_pool(folder: Path) -> tuple[Scores, Scores]:
    """The scores of the pool and of the target's sample that :func:`make_scores` has made."""
    return read_scores(folder / _POOL), read_scores(folder / _TARGET)
