"""Cells of the study: one run each, from a pretrained model to rows of the table.

Every cell returns rows: what ran (:class:`TokenRun`), and one measured value each, on validation and on test.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from datadose.studies.tables import names
from datadose.studies.token_study.language import (
    FRESH,
    HARD_LENGTHS,
    KNOWN,
    LENGTHS,
    SPLITS,
    TARGET,
    TEST,
    TRAIN,
    VALIDATION,
    Example,
    Split,
    draw_family,
)
from datadose.studies.token_study.model import encode, load_model, right
from datadose.studies.token_study.pools import (
    CLEAN,
    CONTAMINANTS,
    CONTAMINATED,
    Band,
    Kind,
    PoolName,
    Selector,
    choose,
    choose_prompts,
    chosen_rows,
    replay_examples,
)
from datadose.studies.token_study.training import TokenOptimisation, fine_tune, grpo, train_symbol

Rows: TypeAlias = list[dict[str, Any]]


class Column:
    """The columns of ``token_study.csv``: the fields of :class:`TokenRun` and what was measured."""

    FIGURE, PANEL, ARM, SEED, MODEL, POOL = "figure", "panel", "arm", "seed", "model", "pool"
    PROMPTS, STEPS, SHARE, RATE = "prompts", "steps", "share", "rate"
    SPLIT, METRIC, LENGTH, VALUE, CHOSEN = "split", "metric", "length", "value", "chosen"


class Panel:
    """The questions of the study."""

    PRETRAINING, ACTIVATION = "pretraining", "activation"
    SIZE, SELECTORS, REPLAY = "sft size", "selectors", "replay"
    RL, STAGES = "rl", "stages"


class Metric:
    """Accuracies: on T, on its hard lengths, on the known families; and a share of the chosen rows."""

    TARGET, HARD, KNOWN, CONTAMINANTS = "target", "hard", "known", "contaminants"


class Mixture:
    """How often pretraining showed T."""

    ABSENT, RARE, BALANCED = "absent", "rare", "balanced"


class Arm:
    """Arms that are no selector and no band."""

    BASE, SYMBOL = "base", "symbol"
    EQUAL_STEPS, EQUAL_EPOCHS = "equal steps", "equal epochs"
    SFT, RL, SFT_RL = "sft", "rl", "sft-rl"


MIXTURES = names(Mixture)
ARM_COLUMNS = [Column.PANEL, Column.ARM, Column.MODEL, Column.POOL, Column.PROMPTS, Column.SHARE]
"""Columns that name an arm; its runs differ by learning rate and seed."""
COMPUTE = 16 / 3
"""SFT steps (32 completions, forward and backward: 3) worth one RL step (128, sampled too: 3 + 1)."""


@dataclass(frozen=True)
class TokenRun:
    """What distinguishes a run. ``prompts`` is B, ``share`` the replayed part, ``steps`` of the optimiser."""

    panel: str
    arm: str
    seed: int
    model: str = Mixture.RARE
    pool: PoolName = CLEAN
    prompts: int = 0
    steps: int = 0
    share: float = 0.0
    rate: float = 0.0


def runs_of(
    table: pd.DataFrame,
    panel: str | None = None,
    *,
    model: str | None = None,
    arm: str | None = None,
    pool: str | None = None,
    prompts: float | None = None,
    share: float | None = None,
    rate: float | None = None,
) -> pd.DataFrame:
    """The rows of the runs with these values (None: any)."""
    columns = [*ARM_COLUMNS, Column.RATE]
    for column, value in zip(columns, (panel, arm, model, pool, prompts, share, rate), strict=True):
        if value is not None:
            table = table[table[column] == value]
    return table


def chosen_metric(kind: str) -> str:
    """The share of a kind among the chosen rows."""
    return f"chosen {kind}"


@dataclass(frozen=True)
class HeldOut:
    """Held-out strings: of T, and of each known family."""

    target: int = 600
    known: int = 120


def measure(model: Any, run: TokenRun, held_out: HeldOut, *, name: str = TARGET) -> Rows:
    """Accuracy on T, on its hard lengths, at each length, and the known families' mean, on both splits.

    ``name`` is the symbol of T in the prompts.
    """
    rows = []
    for split in (VALIDATION, TEST):
        found = {f: right(model, encode(held_out_examples(f, split, held_out.known))) for f in KNOWN}
        examples = held_out_examples(TARGET, split, held_out.target, name)
        correct = right(model, encode(examples))
        lengths = np.array([len(answer) for _, answer in examples])
        values: dict[tuple[str, int | None], Any] = {
            (Metric.TARGET, None): correct.mean(),
            (Metric.HARD, None): correct[np.isin(lengths, HARD_LENGTHS)].mean(),
            (Metric.KNOWN, None): np.mean([c.mean() for c in found.values()]),
            **{(Metric.TARGET, n): correct[lengths == n].mean() for n in LENGTHS},
            **{(f"family {f}", None): c.mean() for f, c in found.items()},
        }
        rows += [_row(run, metric, value, split, n) for (metric, n), value in values.items()]
    return rows


@cache
def held_out_examples(family: str, split: Split, count: int, name: str = "") -> list[Example]:
    """The same for every run; sorted, so that padding is short."""
    examples = draw_family([77, SPLITS.index(split)], count, family, split, name=name or None)
    return sorted(examples, key=lambda e: len(e[0]))


def _row(
    run: TokenRun, metric: str, value: float, split: Split = TRAIN, length: int | None = None
) -> dict[str, Any]:
    measured = {Column.SPLIT: split, Column.METRIC: metric, Column.LENGTH: length, Column.VALUE: float(value)}
    return {**asdict(run), **measured}


def run_base(path: Path, run: TokenRun, held_out: HeldOut) -> Rows:
    """Cell: the pretrained model as it is."""
    return measure(load_model(path), run, held_out)


def run_activation(path: Path, run: TokenRun, held_out: HeldOut) -> Rows:
    """Cell: T under a fresh symbol whose embedding alone is trained on B examples (0: not trained)."""
    model = load_model(path)
    if run.prompts:
        examples = draw_family([run.seed, 10], run.prompts, TARGET, TRAIN, name=FRESH)
        train_symbol(model, examples, TokenOptimisation(run.steps, run.rate), run.seed)
    return measure(model, run, held_out, name=FRESH)


def run_sft(path: Path, run: TokenRun, held_out: HeldOut) -> Rows:
    """Cell: SFT on B fresh examples of T."""
    return _tuned(path, run, held_out, draw_family([run.seed, 11], run.prompts, TARGET, TRAIN))


def run_selected(path: Path, pools: Path, run: TokenRun, held_out: HeldOut) -> Rows:
    """Cell: SFT on what the selector ``run.arm`` takes from ``run.pool``; also what kinds these are."""
    picked = chosen_rows(pools, run.pool, choose(run.arm, pools, run.pool, run.prompts, run.seed))
    kinds = [kind for kind, _ in picked]
    shares: dict[str, Any] = {
        "chosen": len(kinds),
        Metric.CONTAMINANTS: np.mean([kind in CONTAMINANTS for kind in kinds]),
        **{chosen_metric(kind): np.mean([k == kind for k in kinds]) for kind in (Kind.TARGET, *CONTAMINANTS)},
    }
    return _tuned(path, run, held_out, [e for _, e in picked]) + [_row(run, k, v) for k, v in shares.items()]


def run_replay(path: Path, pools: Path, target_share: float, run: TokenRun, held_out: HeldOut) -> Rows:
    """Cell: SFT on B rows for T (a contaminated pool adds as many interfering ones), part of it replayed."""
    wanted = (Kind.TARGET, Kind.INTERFERING) if run.pool == CONTAMINATED else (Kind.TARGET,)
    rows = chosen_rows(pools, run.pool, choose(Selector.ALL, pools, run.pool, 0, run.seed))
    by_kind = [[e for kind, e in rows if kind == k][: run.prompts] for k in wanted]
    replay = replay_examples(target_share, max(run.prompts, 1), run.seed)
    return _tuned(path, run, held_out, list(itertools.chain(*by_kind)), replay)


def _tuned(
    path: Path, run: TokenRun, held_out: HeldOut, examples: Sequence[Example], replay: Sequence[Example] = ()
) -> Rows:
    model = load_model(path)
    fine_tune(model, examples, TokenOptimisation(run.steps, run.rate), run.seed, replay, run.share)
    return measure(model, run, held_out)


def run_rl(path: Path, pools: Path, run: TokenRun, held_out: HeldOut, prompts_per_step: int = 16) -> Rows:
    """Cell: GRPO on at most B prompts of the band ``run.arm``."""
    examples, rate = choose_prompts(run.arm, pools, run.prompts, run.seed)
    model = load_model(path)
    extra = {"chosen": float(len(examples)), "pass rate": rate}
    if examples:
        rewards = grpo(model, examples, TokenOptimisation(run.steps, run.rate, prompts_per_step), run.seed)
        extra["reward"] = float(np.mean(rewards[-10:]))
    return measure(model, run, held_out) + [_row(run, name, value) for name, value in extra.items()]


def run_stages(
    path: Path,
    pools: Path,
    run: TokenRun,
    held_out: HeldOut,
    rl_rate: float,
    rl_prompts: int,
    prompts_per_step: int = 16,
) -> Rows:
    """Cell: SFT on B demonstrations, RL, or half of each, all at the compute of ``run.steps`` RL steps.

    ``run.arm``: one of Arm.SFT, RL and SFT_RL; ``run.rate`` is that of SFT.
    """
    model = load_model(path)
    part = {Arm.SFT: 1.0, Arm.SFT_RL: 0.5, Arm.RL: 0.0}[run.arm]
    if part > 0:
        examples = draw_family([run.seed, 11], run.prompts, TARGET, TRAIN)
        steps = round(part * run.steps * COMPUTE)
        fine_tune(model, examples, TokenOptimisation(steps, run.rate), run.seed)
    if part < 1:
        asked, _ = choose_prompts(Band.ALL, pools, rl_prompts, run.seed)
        steps = round((1 - part) * run.steps)
        grpo(model, asked, TokenOptimisation(steps, rl_rate, prompts_per_step), run.seed)
    return measure(model, run, held_out)
