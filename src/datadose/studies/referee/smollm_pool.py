"""The pool of SmolLM2's sea: many families of short questions, two of them the target; scored once.

A seed's pool is two thirds of the rows, drawn at random, and its target sample a part of the scored one: what
differs between seeds is drawn from one scored pool. Test and validation rows are the same for all seeds, and
no question is in two of the splits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from datadose.files import whole_folder, write_jsonl
from datadose.llm.score import score
from datadose.llm.score_config import ScoreConfig
from datadose.llm.scores import Scores, read_scores
from datadose.printing import muted
from datadose.studies.llm_study.base_model import Base, make_base
from datadose.studies.referee.smollm_tasks import (
    Fault,
    Row,
    draw_families,
    draw_family,
    first_line,
    spoil,
)
from datadose.studies.referee.smollm_training import load_lines

_POOL, _TARGET = "pool", "target"
"""The scored folders."""
_TEST, _VALIDATION, _SAMPLE, _ROWS = 9001, 9002, 9003, 9004
"""Seeds of the draws."""
_VERIFIER: Final = f"{first_line.__module__}:{first_line.__name__}"


@dataclass(frozen=True)
class SmolSea:
    """What is drawn, in rows; those of the pool are before a seed leaves a third of them out.

    Args:
        target: the two families of the target.
        solved: families that the untouched model mostly solves; in the pool, and measured as earlier
            abilities.
        others: the other families of the pool.
        right: right rows of each target family in the pool.
        faulty: rows of each target family with a wrong answer, and as many with a right one in other words.
        each: rows of every other family in the pool.
        sample: scored right rows of each target family, of which a seed's target sample is drawn.
        own: of these, rows of each target family in a seed's sample.
        test: rows of each target family that give the result.
        validation: rows of each target family that give the best number of updates.
        earlier: test rows of each solved family.
    """

    target: tuple[str, str]
    solved: tuple[str, ...]
    others: tuple[str, ...]
    right: int = 60
    faulty: int = 20
    each: int = 60
    sample: int = 48
    own: int = 16
    test: int = 48
    validation: int = 24
    earlier: int = 24

    @property
    def rows(self) -> int:
        """Rows of the whole pool."""
        return len(self.target) * (self.right + 2 * self.faulty) + self.each * (
            len(self.solved) + len(self.others)
        )


@dataclass(frozen=True)
class Held:
    """Rows that only measure, and the target's rows that are scored for the seeds' samples."""

    test: list[Row]
    validation: list[Row]
    earlier: list[Row]
    sample: list[Row]

    @property
    def prompts(self) -> set[str]:
        """Their questions, which the pool does not have."""
        return {row["prompt"] for row in (*self.test, *self.validation, *self.earlier, *self.sample)}


@cache
def held_out(sea: SmolSea) -> Held:
    """The rows outside the pool."""
    taken: set[str] = set()
    found = []
    for seed, families, count in (
        (_TEST, sea.target, sea.test),
        (_VALIDATION, sea.target, sea.validation),
        (_TEST, sea.solved, sea.earlier),
        (_SAMPLE, sea.target, sea.sample),
    ):
        rows = draw_families(dict.fromkeys(families, count), seed, taken)
        taken |= {row["prompt"] for row in rows}
        found.append(rows)
    return Held(*found)


def pool_rows(sea: SmolSea) -> list[Row]:
    """The whole pool in random order: right rows of all families, and faulty rows of the target's."""
    taken = held_out(sea).prompts
    rng = np.random.default_rng([_ROWS, 1])
    rows = draw_families(dict.fromkeys((*sea.solved, *sea.others), sea.each), _ROWS, taken)
    for family in sea.target:
        drawn = draw_family(family, sea.right + 2 * sea.faulty, _ROWS, taken)
        faults = [Fault.WRONG] * sea.faulty + [Fault.FORMAT] * sea.faulty
        rows += drawn[: sea.right]
        rows += [spoil(row, fault, drawn, rng) for row, fault in zip(drawn[sea.right :], faults, strict=True)]
    return [rows[i] for i in rng.permutation(len(rows))]


def make_scores(base: Path, sea: SmolSea, *, file: Path) -> None:
    """Cell: the whole pool and the target's rows, scored, in a folder; products in bfloat16."""
    torch.set_num_threads(1)
    model = load_lines(base, dtype="bfloat16")
    with whole_folder(file) as out, muted():
        for name, rows in ((_POOL, pool_rows(sea)), (_TARGET, held_out(sea).sample)):
            write_jsonl(out / f"{name}.jsonl", rows)
            # The verifier judges the rows' own answers; nothing is sampled.
            config = ScoreConfig(samples=0, alone=True)
            score(model, out / f"{name}.jsonl", out / name, config=config, verifier=_VERIFIER)


def write_pool(folder: Path, sea: SmolSea, base: Base = "smollm2") -> Iterator[str]:
    """Write a model, the pool and target rows as a user has them, and yield a sentence for each.

    They are ``model``, ``pool.jsonl`` and ``target.jsonl`` in ``folder``; a model that is there is kept.
    """
    if not (folder / "model").is_dir():
        make_base(base, file=folder / "model")
    yield f"{folder / 'model'}: {base}"
    own = [
        row
        for family in sea.target
        for row in [one for one in held_out(sea).sample if one["family"] == family][: sea.own]
    ]
    for name, rows in ((_POOL, pool_rows(sea)), (_TARGET, own)):
        write_jsonl(folder / f"{name}.jsonl", rows)
        yield f"{folder / name}.jsonl: {len(rows)} rows"


@dataclass(frozen=True)
class Drawn:
    """A seed's pool and target sample, with the full rows of the pool."""

    pool: Scores
    target: Scores
    rows: list[Row]


def draw_seed(scores: Path, sea: SmolSea, seed: int) -> Drawn:
    """Two thirds of the scored pool, and ``sea.own`` rows of each target family."""
    pool, target = read_scores(scores / _POOL), read_scores(scores / _TARGET)
    rng = np.random.default_rng([seed, 70])
    kept = _some(range(len(pool.table)), round(len(pool.table) * 2 / 3), rng)
    families = [row["family"] for row in target.lines(range(len(target.table)))]
    own = [
        _some([i for i, family in enumerate(families) if family == wanted], sea.own, rng)
        for wanted in sea.target
    ]
    part = pool.part(kept)
    return Drawn(part, target.part(np.sort(np.concatenate(own))), part.lines(range(len(kept))))


def _some(places: Sequence[int], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``count`` of the ``places``, ascending."""
    return np.sort(rng.permutation(np.asarray(places))[:count]).astype(np.int64)
