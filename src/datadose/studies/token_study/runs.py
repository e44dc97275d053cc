"""Cells of the study: one run each, from a pretrained model to rows of the table.

Every cell returns rows: what ran (:class:`Run`), and one measured value each, on validation and on test.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from datadose.studies.token_study.language import (
    FRESH,
    HARD_LENGTHS,
    KNOWN,
    LENGTHS,
    SPLITS,
    TARGET,
    Example,
    draw_family,
)
from datadose.studies.token_study.model import encode, load_model, right
from datadose.studies.token_study.pools import (
    CONTAMINANTS,
    choose,
    choose_prompts,
    chosen_rows,
    replay_examples,
)
from datadose.studies.token_study.training import Optimisation, fine_tune, grpo, train_symbol

Rows: TypeAlias = list[dict[str, Any]]
_COMPUTE = 16 / 3
"""SFT steps (32 completions, forward and backward: 3) worth one RL step (128, sampled too: 3 + 1)."""


@dataclass(frozen=True)
class Run:
    """What distinguishes a run. ``prompts`` is B, ``share`` the replayed part, ``steps`` of the optimiser."""

    panel: str
    arm: str
    seed: int
    model: str = "rare"
    pool: str = "clean"
    prompts: int = 0
    steps: int = 0
    share: float = 0.0
    rate: float = 0.0


@dataclass(frozen=True)
class HeldOut:
    """Held-out strings: of T, and of each known family."""

    target: int = 600
    known: int = 120


def measure(model: Any, run: Run, held_out: HeldOut, *, name: str = TARGET) -> Rows:
    """Accuracy on T, on its hard lengths, at each length, and the known families' mean, on both splits.

    ``name`` is the symbol that T is asked under.
    """
    rows = []
    for split in SPLITS[1:]:
        found = {f: right(model, encode(_held_out(f, split, held_out.known))) for f in KNOWN}
        examples = _held_out(TARGET, split, held_out.target, name)
        correct = right(model, encode(examples))
        lengths = np.array([len(answer) for _, answer in examples])
        values: dict[tuple[str, int | None], Any] = {
            ("target", None): correct.mean(),
            ("hard", None): correct[np.isin(lengths, HARD_LENGTHS)].mean(),
            ("known", None): np.mean([c.mean() for c in found.values()]),
            **{("target", n): correct[lengths == n].mean() for n in LENGTHS},
            **{(f"family {f}", None): c.mean() for f, c in found.items()},
        }
        rows += [_row(run, metric, value, split, n) for (metric, n), value in values.items()]
    return rows


@cache
def _held_out(family: str, split: Any, count: int, name: str = "") -> list[Example]:
    """The same for every run; sorted, so that padding is short."""
    examples = draw_family([77, SPLITS.index(split)], count, family, split, name=name or None)
    return sorted(examples, key=lambda e: len(e[0]))


def _row(
    run: Run, metric: str, value: float, split: str = "train", length: int | None = None
) -> dict[str, Any]:
    return {**asdict(run), "split": split, "metric": metric, "length": length, "value": float(value)}


def run_base(path: str, run: Run, held_out: HeldOut) -> Rows:
    """Cell: the pretrained model as it is."""
    return measure(load_model(path), run, held_out)


def run_activation(path: str, run: Run, held_out: HeldOut) -> Rows:
    """Cell: T under a fresh symbol whose embedding alone is trained on B examples (0: not trained)."""
    model = load_model(path)
    if run.prompts:
        examples = draw_family([run.seed, 10], run.prompts, TARGET, "train", name=FRESH)
        train_symbol(model, examples, Optimisation(run.steps, run.rate), run.seed)
    return measure(model, run, held_out, name=FRESH)


def run_sft(path: str, run: Run, held_out: HeldOut) -> Rows:
    """Cell: SFT on B fresh examples of T."""
    return _tuned(path, run, held_out, draw_family([run.seed, 11], run.prompts, TARGET, "train"))


def run_selected(path: str, pools: str, run: Run, held_out: HeldOut) -> Rows:
    """Cell: SFT on what the selector ``run.arm`` takes from ``run.pool``; also what kinds these are."""
    pool: Any = run.pool
    picked = chosen_rows(Path(pools), pool, choose(run.arm, Path(pools), pool, run.prompts, run.seed))
    kinds = [kind for kind, _ in picked]
    shares: dict[str, Any] = {
        "chosen": len(kinds),
        "contaminants": np.mean([kind in CONTAMINANTS for kind in kinds]),
        **{f"chosen {kind}": np.mean([k == kind for k in kinds]) for kind in ("target", *CONTAMINANTS)},
    }
    return _tuned(path, run, held_out, [e for _, e in picked]) + [_row(run, k, v) for k, v in shares.items()]


def run_replay(path: str, pools: str, target_share: float, run: Run, held_out: HeldOut) -> Rows:
    """Cell: SFT on B rows for T (a contaminated pool adds as many interfering ones), part of it replayed."""
    wanted = ("target", "interfering") if run.pool == "contaminated" else ("target",)
    rows = chosen_rows(Path(pools), run.pool, choose("all", Path(pools), run.pool, 0, run.seed))  # type: ignore[arg-type]
    by_kind = [[e for kind, e in rows if kind == k][: run.prompts] for k in wanted]
    replay = replay_examples(target_share, max(run.prompts, 1), run.seed)
    return _tuned(path, run, held_out, list(itertools.chain(*by_kind)), replay)


def _tuned(
    path: str, run: Run, held_out: HeldOut, examples: Sequence[Example], replay: Sequence[Example] = ()
) -> Rows:
    model = load_model(path)
    fine_tune(model, examples, Optimisation(run.steps, run.rate), run.seed, replay, run.share)
    return measure(model, run, held_out)


def run_rl(path: str, pools: str, run: Run, held_out: HeldOut, prompts_per_step: int = 16) -> Rows:
    """Cell: GRPO on at most B prompts of the band ``run.arm``."""
    examples, rate = choose_prompts(run.arm, Path(pools), run.prompts, run.seed)
    model = load_model(path)
    extra = {"chosen": float(len(examples)), "pass rate": rate}
    if examples:
        rewards = grpo(model, examples, Optimisation(run.steps, run.rate, prompts_per_step), run.seed)
        extra["reward"] = float(np.mean(rewards[-10:]))
    return measure(model, run, held_out) + [_row(run, name, value) for name, value in extra.items()]


def run_stages(
    path: str,
    pools: str,
    run: Run,
    held_out: HeldOut,
    rl_rate: float,
    rl_prompts: int,
    prompts_per_step: int = 16,
) -> Rows:
    """Cell: SFT on B demonstrations, RL, or half of each, all at the compute of ``run.steps`` RL steps.

    ``run.arm``: sft, rl or sft-rl; ``run.rate`` is that of SFT.
    """
    model = load_model(path)
    part = {"sft": 1.0, "sft-rl": 0.5, "rl": 0.0}[run.arm]
    if part > 0:
        examples = draw_family([run.seed, 11], run.prompts, TARGET, "train")
        steps = round(part * run.steps * _COMPUTE)
        fine_tune(model, examples, Optimisation(steps, run.rate), run.seed)
    if part < 1:
        asked, _ = choose_prompts("all", Path(pools), rl_prompts, run.seed)
        steps = round((1 - part) * run.steps)
        grpo(model, asked, Optimisation(steps, rl_rate, prompts_per_step), run.seed)
    return measure(model, run, held_out)
