"""Runs of RL on prompts that a selector took, measured on the way, so that one run gives all its lengths.

The rate is constant after its warm-up. Every step draws a group of completions of each prompt of its batch;
a run's ``samples`` are those and the selector's own, so that the same run is read at equal steps of the
optimiser and, later for arms that scored less, at equal samples in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datadose.studies.levels.descent import Descent, descend
from datadose.studies.referee.base import VOCABULARY
from datadose.studies.referee.language import KNOWN, RARE
from datadose.studies.referee.language import LENGTHS as SEEN
from datadose.studies.referee.rl_prompts import (
    MOST,
    RlRun,
    choose_prompts,
    draw_pool,
    draw_prompts,
    pass_rates,
)
from datadose.studies.referee.runs import Rows
from datadose.studies.token_study.language import SPLITS, TEST, TRAIN, VALIDATION, Example, Split
from datadose.studies.token_study.model import load_model
from datadose.studies.token_study.training import GROUP, sampled_loss


class Kind:
    """Test rows: as the pool; the four rare families and the known ones, on lengths of pretraining."""

    ALL, RARE, KNOWN = "all", "rare", "known"


class Column:
    """The columns of ``sea_rl.csv`` but for the numbers that ``score`` measures: panel and arm (a selector or
    a stage), the run, its looks, and mean pass probabilities."""

    FIGURE, PANEL, ARM, SEED = "figure", "panel", "arm", "seed"
    SAMPLES, PROMPTS, TARGET, ROLE = "samples", "prompts", "target", "role"
    CHOSEN, BEFORE = "chosen", "before"
    STEP, TOTAL, REWARD, MIXED = "step", "total", "reward", "mixed"
    ALL, RARE, KNOWN = Kind.ALL, Kind.RARE, Kind.KNOWN
    VALIDATION, ON_TARGET = "validation", "on_target"


@dataclass(frozen=True)
class RlHeldOut:
    """Test rows of each family and length: of all (four times as many of a rare one), of the rare ones, and
    of the known ones."""

    all: int = 1
    rare: int = 12
    known: int = 1


@dataclass
class Policy:
    """The policy loss of ``model`` on ``examples``, as :func:`~datadose.studies.levels.descent.descend` takes
    it, and what its steps have seen."""

    model: Any
    examples: Sequence[Example]
    seen: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """The loss of a step on the prompts ``rows``; 0 where no group is mixed."""
        loss, rewards = sampled_loss(self.model, [self.examples[i] for i in rows], VOCABULARY, MOST)
        groups = rewards.view(-1, GROUP).mean(dim=1)
        mixed = ((groups > 0) & (groups < 1)).double().mean()
        self.seen.append((float(groups.mean()), float(mixed)))
        if loss is None:
            # As TRL does: gradients of zero, so that the optimiser's momentum goes on.
            return torch.stack([weight.sum() for weight in self.model.parameters()]).sum() * 0.0
        return loss

    def lately(self) -> dict[str, float | None]:
        """Mean reward and share of mixed groups since the last call, by column."""
        found = np.mean(self.seen, axis=0).tolist() if self.seen else (None, None)
        self.seen.clear()
        return dict(zip((Column.REWARD, Column.MIXED), found, strict=True))


def reinforce(
    model: Any,
    examples: Sequence[Example],
    descent: Descent,
    seed: int,
    look: Callable[[int, dict[str, float | None]], None],
) -> None:
    """Train ``model`` in place by GRPO; ``descent.batch`` counts prompts.

    ``look`` is called at each of ``descent.updates`` with the number of steps and what was seen since.
    """
    policy = Policy(model, examples)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in descend(model.parameters(), policy, len(examples), descent, seed):
            look(step, policy.lately())


def run_rl(
    model: Path, run: RlRun, each: int, descent: Descent, held: RlHeldOut, *, validated: bool = False
) -> Rows:
    """Cell: GRPO on what the run's selector takes of the pool of its seed; a row for each look.

    Args:
        model: the pretrained model.
        run: the arm.
        each: prompts of the pool, of each family and length.
        descent: steps, rate and looks.
        held: test rows.
        validated: whether strings of the validation split take the place of test rows, for pilots.
    """
    network = load_model(model)
    pool = draw_pool([run.seed, 70], each, TRAIN)
    rates = pass_rates(network, pool)
    picked = choose_prompts(rates, run)
    shared = {
        **asdict(run),
        Column.CHOSEN: len(picked),
        Column.BEFORE: float(rates[picked].mean()),
    }
    rows: Rows = []

    def look(step: int, seen: dict[str, float | None]) -> None:
        total = run.samples * len(pool) + step * min(descent.batch, len(picked)) * GROUP
        measured = measure(network, held, VALIDATION if validated else TEST)
        rows.append({**shared, Column.STEP: step, Column.TOTAL: total, **seen, **measured})

    reinforce(network, [pool[i] for i in picked], descent, run.seed, look)
    return rows


def measure(network: Any, held: RlHeldOut, split: Split) -> dict[str, float]:
    """Mean exact pass probability by kind of test row."""
    return {
        kind: float(pass_rates(network, _held_out(kind, count, split)).mean())
        for kind, count in ((Kind.ALL, held.all), (Kind.RARE, held.rare), (Kind.KNOWN, held.known))
    }


@cache
def _held_out(kind: str, count: int, split: Split) -> list[Example]:
    """The same for every run."""
    seed = [79, SPLITS.index(split)]
    if kind == Kind.ALL:
        return draw_pool(seed, count, split)
    return draw_prompts(seed, dict.fromkeys(RARE if kind == Kind.RARE else KNOWN, count), split, SEEN)
