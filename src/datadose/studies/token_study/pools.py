"""Pools for the study's selectors: written as files, scored by ``datadose.llm``, chosen from.

A clean pool holds T and the known families in equal parts. In a contaminated one a quarter of the rows is
replaced: wrong answers on T (the right letters in another order), and interfering rows (prompts of the known
families with the answer in another format). All prompts are distinct and of the training split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from datadose.files import whole_folder, write_jsonl
from datadose.llm.score import score
from datadose.llm.score_config import ScoreConfig
from datadose.llm.scores import Scores, read_scores
from datadose.llm.selection import SelectionConfig, select
from datadose.llm.selection.config import FILTERS
from datadose.printing import muted
from datadose.studies.tables import names
from datadose.studies.token_study.language import (
    MARK,
    TARGET,
    TRAIN,
    VALIDATION,
    Example,
    draw_examples,
    draw_family,
    mixture,
)

PoolName: TypeAlias = Literal["clean", "contaminated"]
POOLS: tuple[PoolName, ...] = get_args(PoolName)
CLEAN, CONTAMINATED = POOLS


class Selector:
    """Ways to choose rows for SFT; OURS_UNVERIFIED compares samples with each row's own completion."""

    OURS, OURS_UNVERIFIED = "ours", "ours-unverified"
    RANDOM, EASIEST, NLL, MIDDLE, ALL = "random", "easiest", "nll", "band", "all"


class Band:
    """Pass rates of RL prompts."""

    ALL, EASY, MEDIUM, HARD, NOT_EXTREME = "all", "easy", "medium", "hard", "not-extreme"


class Kind:
    """What a row of a pool is."""

    TARGET, KNOWN, WRONG, INTERFERING = "target", "known", "wrong", "interfering"


SELECTORS, BANDS = names(Selector), names(Band)
CONTAMINANTS = (Kind.WRONG, Kind.INTERFERING)
_PROMPTS, _TARGET, _REFERENCE = "prompts", "target", "reference"
"""Files beside the pools: of the RL prompts, of T, of the pretraining mixture."""
_VERIFIER = f"{draw_family.__module__}:verify"
_TOKENS = 10
"""Eight letters, a mark and the end: the longest completion."""


@dataclass(frozen=True)
class PoolSizes:
    """Rows of a pool, of the RL prompts, of the target's sample and the reference's, samples a prompt."""

    pool: int = 2048
    prompts: int = 2048
    target: int = 128
    reference: int = 256
    samples: int = 8


def pool_examples(name: PoolName, size: int, seed: int) -> list[tuple[str, Example]]:
    """(kind, example) in random order; kinds: target, known, wrong, interfering."""
    eighth = size // 8
    target, known = (4 * eighth, 4 * eighth) if name == CLEAN else (3 * eighth, 3 * eighth)
    rng = np.random.default_rng([seed, 20])
    wanted = 4 * eighth
    of_target = draw_family([seed, 21], wanted, TARGET, TRAIN)
    of_known = list(dict.fromkeys(draw_examples(rng, 2 * wanted, mixture(0.0))))[:wanted]
    rows = [(Kind.TARGET, e) for e in of_target[:target]] + [(Kind.KNOWN, e) for e in of_known[:known]]
    rows += [(Kind.WRONG, (prompt, disordered(rng, answer))) for prompt, answer in of_target[target:]]
    rows += [(Kind.INTERFERING, (prompt, MARK + answer)) for prompt, answer in of_known[known:]]
    return [rows[i] for i in rng.permutation(len(rows))]


def disordered(rng: np.random.Generator, answer: str) -> str:
    """The letters in another order than ``answer``'s; of one letter repeated, the next letter once."""
    if len(set(answer)) == 1:
        return answer[1:] + ("a" if answer[0] != "a" else "b")
    while True:
        other = "".join(rng.permutation(list(answer)))
        if other != answer:
            return other


def make_pools(model: Path, sizes: PoolSizes, target_share: float, seed: int, *, file: Path) -> None:
    """Cell: all files of one pretrained model, scored, in a folder; continues where it stopped."""
    torch.set_num_threads(1)
    files: dict[str, list[tuple[str, Example]]] = {
        name: pool_examples(name, sizes.pool, seed) for name in POOLS
    }
    files[_PROMPTS] = [(Kind.TARGET, e) for e in draw_family([seed, 22], sizes.prompts, TARGET, TRAIN)]
    files[_TARGET] = [(Kind.TARGET, e) for e in draw_family([seed, 23], sizes.target, TARGET, VALIDATION)]
    rng = np.random.default_rng([seed, 24])
    files[_REFERENCE] = [("mixture", e) for e in draw_examples(rng, sizes.reference, mixture(target_share))]
    # (folder, pool, verifier); without a verifier, "exact" compares samples with the rows' completions.
    scorings: list[tuple[str, str, str | None]] = [
        *((name, name, _VERIFIER) for name in (*POOLS, _PROMPTS)),
        *((_unverified(name), name, "exact") for name in POOLS),
        (_TARGET, _TARGET, None),
        (_REFERENCE, _REFERENCE, None),
    ]
    with whole_folder(file) as out, muted():
        for name, rows in files.items():
            entries = [
                {"id": f"{name}-{i}", "prompt": prompt, "completion": completion, "kind": kind}
                for i, (kind, (prompt, completion)) in enumerate(rows)
            ]
            write_jsonl(out / f"{name}.jsonl", entries)
        for name, pool, verifier in scorings:
            config = ScoreConfig(samples=sizes.samples if verifier else 0, max_tokens=_TOKENS, seed=seed)
            score(model, out / f"{pool}.jsonl", out / name, config=config, verifier=verifier)


def _unverified(pool: str) -> str:
    return f"{pool}-unverified"


def choose(selector: str, folder: Path, pool: PoolName, size: int, seed: int) -> NDArray[np.int64]:
    """The rows that a selector takes, at most ``size`` (``all`` takes every row)."""
    scores = read_scores(folder / pool)
    if selector in (Selector.OURS, Selector.OURS_UNVERIFIED):
        own = read_scores(folder / _unverified(pool)) if selector == Selector.OURS_UNVERIFIED else scores
        return _select(own, folder, size, seed)
    nll = scores.table["nll"].to_numpy(dtype=float)
    order = np.argsort(nll, kind="stable")
    rng = np.random.default_rng([seed, 30])
    candidates = {
        Selector.ALL: order,
        Selector.RANDOM: rng.permutation(len(order))[:size],
        Selector.EASIEST: order[:size],
        Selector.NLL: order[::-1][:size],
        Selector.MIDDLE: rng.permutation(order[len(order) // 4 : -len(order) // 4])[:size],
    }
    return np.sort(candidates[selector])


def _select(scores: Scores, folder: Path, size: int, seed: int) -> NDArray[np.int64]:
    target, reference = read_scores(folder / _TARGET), read_scores(folder / _REFERENCE)
    config = SelectionConfig(method=FILTERS, sft_size="auto", rl_size=0, seed=seed)
    left = select(scores, target, reference=reference, config=config).sizes["hard_stratum"]
    config = replace(config, sft_size=min(size, left))
    return np.asarray(select(scores, target, reference=reference, config=config).sft)


def chosen_rows(
    folder: Path, pool: str, rows: Sequence[int] | NDArray[np.int64]
) -> list[tuple[str, Example]]:
    """(kind, example) of rows of a scored pool."""
    lines = read_scores(folder / pool).lines(rows)
    return [(line["kind"], (line["prompt"], line["completion"])) for line in lines]


def choose_prompts(band: str, folder: Path, count: int, seed: int) -> tuple[list[Example], float]:
    """At most ``count`` RL prompts of a band of sampled pass rates, at random, and their mean pass rate.

    Bands: easy from 3/4, medium from 1/4 to below 3/4, hard below 1/4; ``not-extreme`` leaves out only
    prompts that were always or never passed.
    """
    rates = read_scores(folder / _PROMPTS).table["pass_rate"].to_numpy(dtype=float)
    inside = {
        Band.ALL: rates >= 0,
        Band.EASY: rates >= 0.75,
        Band.MEDIUM: (rates >= 0.25) & (rates < 0.75),
        Band.HARD: rates < 0.25,
        Band.NOT_EXTREME: (rates > 0) & (rates < 1),
    }[band]
    order = np.random.default_rng([seed, 31]).permutation(len(rates))
    rows = order[inside[order]][:count]
    mean = float(rates[rows].mean()) if len(rows) else 0.0
    return [e for _, e in chosen_rows(folder, _PROMPTS, rows)], mean


def replay_examples(target_share: float, count: int, seed: int) -> list[Example]:
    """A fresh sample of the pretraining mixture, to replay."""
    return draw_examples(np.random.default_rng([seed, 25]), count, mixture(target_share))
