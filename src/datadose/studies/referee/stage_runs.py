"""One family as the target: SFT on a few demonstrations, RL on prompts without answers, or half of each.

All three have the same compute, in completions that pass through the model. Each stage ends at its best look
on validation prompts, the model that it started from among them; the target's numbers are those that
``datadose score`` measures on the demonstrations before any training.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from datadose.files import write_jsonl
from datadose.llm.score import score
from datadose.llm.score_config import ScoreConfig
from datadose.printing import muted
from datadose.studies.levels.descent import Descent, descend
from datadose.studies.referee.base import VOCABULARY
from datadose.studies.referee.language import KNOWN, verify
from datadose.studies.referee.language import LENGTHS as SEEN
from datadose.studies.referee.rl_prompts import MOST, draw_prompts, pass_rates
from datadose.studies.referee.rl_runs import Column, reinforce
from datadose.studies.token_study.language import TEST, TRAIN, VALIDATION, Example, Split
from datadose.studies.token_study.model import completion_loss, encode, load_model
from datadose.studies.token_study.runs import COMPUTE
from datadose.studies.token_study.training import GROUP

Stage: TypeAlias = Literal["none", "sft", "rl", "both"]
NONE: Final = "none"
SFT: Final = "sft"
RL: Final = "rl"
BOTH: Final = "both"
STAGES: tuple[Stage, ...] = (SFT, RL, BOTH)


class Number:
    """What ``datadose score`` measures on the demonstrations: means over rows of the loss a token, the pass
    rate of GROUP samples, whether these are mixed, and the expected p (1 - p)."""

    NLL, RATE, MIXED, SIGNAL = "nll", "pass_rate", "share_mixed", "signal"


@dataclass(frozen=True)
class StageTarget:
    """A family on strings of some lengths. ``rate`` is the pass rate of the pilot's model, by which targets
    are in order; every second one is for development."""

    header: str
    lengths: tuple[int, ...]
    rate: float

    @property
    def name(self) -> str:
        """The target in the table."""
        return f"{self.header} {self.lengths[0]}-{self.lengths[-1]}"


@dataclass(frozen=True)
class StageRows:
    """Rows of a target: demonstrations, prompts for RL, validation prompts and test prompts."""

    demonstrations: int = 32
    prompts: int = 192
    validation: int = 48
    test: int = 120


@dataclass(frozen=True)
class StageDescents:
    """SFT and RL of the whole compute; with both stages each has half of its steps.

    Args:
        sft_rate: learning rate.
        rl_rate: learning rate.
        rl_steps: steps of RL; SFT has COMPUTE times as many.
        looks: looks at a stage of whole length.
        sft_batch: rows.
        rl_batch: prompts.
    """

    sft_rate: float
    rl_rate: float
    rl_steps: int
    looks: int = 8
    sft_batch: int = 32
    rl_batch: int = 16

    def sft(self, share: float) -> Descent:
        """SFT of a share of the compute."""
        return Descent(self.sft_rate, self._updates(share * self.rl_steps * COMPUTE, share), self.sft_batch)

    def rl(self, share: float) -> Descent:
        """RL of a share of the compute."""
        return Descent(self.rl_rate, self._updates(share * self.rl_steps, share), self.rl_batch)

    def _updates(self, steps: float, share: float) -> tuple[int, ...]:
        looks = max(1, round(self.looks * share))
        return tuple(dict.fromkeys(round(steps * i / looks) for i in range(looks + 1)))


@dataclass(frozen=True)
class StageRun:
    """A run; ``seed`` is that of the pretrained model, the rows and their order."""

    target: StageTarget
    stage: Stage
    seed: int


def draw_target(target: StageTarget, count: int, seed: int, split: Split) -> list[Example]:
    """At least ``count`` examples of a target, its lengths in equal parts."""
    each = -(-count // len(target.lengths))
    return draw_prompts([seed, 80], {target.header: each}, split, target.lengths)


def run_numbers(model: Path, target: StageTarget, seed: int, rows: StageRows) -> dict[str, float]:
    """Cell: what scoring the demonstrations measures, by the names of Number."""
    examples = _demonstrations(target, seed, rows)
    with TemporaryDirectory() as folder, muted():
        pool = Path(folder) / "target.jsonl"
        write_jsonl(pool, [{"prompt": prompt, "completion": answer} for prompt, answer in examples])
        config = ScoreConfig(samples=GROUP, max_tokens=MOST, seed=seed)
        verifier = f"{verify.__module__}:{verify.__name__}"
        table = score(model, pool, Path(folder) / "scores", config=config, verifier=verifier).table
    rate = table["pass_rate"].to_numpy(dtype=np.float64)
    return {
        Number.NLL: float(table["nll"].mean()),
        Number.RATE: float(rate.mean()),
        Number.MIXED: float(((rate > 0) & (rate < 1)).mean()),
        Number.SIGNAL: float(table["signal"].mean()),
    }


def _demonstrations(target: StageTarget, seed: int, rows: StageRows) -> list[Example]:
    """A fixed draw of the training rows, in random order; RL's prompts are the others."""
    return _training(target, seed, rows)[: rows.demonstrations]


def _training(target: StageTarget, seed: int, rows: StageRows) -> list[Example]:
    drawn = draw_target(target, rows.demonstrations + rows.prompts, seed, TRAIN)
    order = np.random.default_rng([seed, 81]).permutation(len(drawn))
    return [drawn[i] for i in order]


def run_stage(model: Path, run: StageRun, rows: StageRows, descents: StageDescents) -> dict[str, float]:
    """Cell: mean pass probability after the run's stages on validation and test prompts, by column."""
    network = load_model(model)
    training = _training(run.target, run.seed, rows)
    checked = draw_target(run.target, rows.validation, 0, VALIDATION)
    share = 0.5 if run.stage == BOTH else 1.0
    if run.stage in (SFT, BOTH):
        examples = training[: rows.demonstrations]
        tokens = encode(examples, VOCABULARY)
        best = _Best(network, checked)
        steps = descend(
            network.parameters(), lambda chosen: completion_loss(network, tokens.at(chosen)), len(tokens),
            descents.sft(share), run.seed,
        )  # fmt: skip
        best.follow(steps)
    if run.stage in (RL, BOTH):
        best = _Best(network, checked)
        reinforce(
            network, training[rows.demonstrations :], descents.rl(share), run.seed,
            lambda step, seen: best.look(),
        )  # fmt: skip
        best.restore()
    tested = draw_target(run.target, rows.test, 0, TEST)
    known = draw_prompts([79], dict.fromkeys(KNOWN, 1), TEST, SEEN)
    return {
        Column.VALIDATION: float(pass_rates(network, checked).mean()),
        Column.ON_TARGET: float(pass_rates(network, tested).mean()),
        Column.KNOWN: float(pass_rates(network, known).mean()),
    }


class _Best:
    """The weights with the highest mean pass probability on some prompts."""

    def __init__(self, network: Any, checked: list[Example]) -> None:
        self.network, self.checked = network, checked
        self.rate, self.state = -1.0, network.state_dict()

    def look(self) -> None:
        rate = float(pass_rates(self.network, self.checked).mean())
        if rate > self.rate:
            self.rate, self.state = rate, copy.deepcopy(self.network.state_dict())

    def restore(self) -> None:
        self.network.load_state_dict(self.state)

    def follow(self, steps: Iterator[int]) -> None:
        for _ in steps:
            self.look()
        self.restore()
