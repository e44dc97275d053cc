"""What fits a budget: seconds forecast from measured steps, and rules that cut without looking at an error.

Figure 3 with the paper's model (:mod:`~datadose.studies.gpt.paper_model`, preset ``paper``) is run on one of
the ``RUNGS``, from most to least; everything here is arithmetic.

Estimate for one GPU with 990 TFLOP/s in bfloat16 and 4.8 TB/s, before any measurement. Pretraining: 64
prompts of 89 tokens are 6 x 9.5M x 5,696 = 0.33 TFLOP a step, 1.5 ms at a quarter of the peak; the floor is
the number of kernels, about 1,000 of 3 us each, so about 4 ms a step with Muon: 80 s for 20,000 steps.
Post-training side by side is bound by memory: about 95 kB a token and layer, times 12 layers and 64 x 64
tokens (n = 30), are 5 GB for a step of a run, 1.2 ms at 4 TB/s, and with its products (0.23 TFLOP) 2 to 3 ms.
A seed with 1,000 steps of OS and RL, 100 of SFT and 300 of OS where n or k moves has
2 (3,000 + 2,000 + 300 + 1,600) = 14,000 of them, 30 to 40 s: seven to ten seeds in the 330 s that are left
after recording 21 lengths and some 30 trainings, drawing prompts and measuring errors (60 to 90 s).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from datadose.studies.gpt.paper_model import PaperModel
from datadose.studies.gpt.paths import GptPath

MARGIN = 1.15
"""Forecasts are taken this many times: kernels of other shapes, and what was not measured."""
PRETRAINING_SHARE = 0.35
"""Of the budget, at most."""
MOST_AT_ONCE = 40
"""Runs that train side by side, about 1 GB each."""


@dataclass(frozen=True)
class Rung:
    """How much is trained: seeds, steps of OS and RL (0: not at all), and of OS where n or k moves."""

    seeds: int
    outcome_steps: int
    rl_steps: int
    moved_steps: int

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {self.outcome_steps:,} steps of OS, {self.rl_steps:,} of RL, "
            f"{self.moved_steps:,} of OS where n or k moves"
        )

    def of(self, config: PaperModel, pretrain_steps: int) -> PaperModel:
        """``config`` on this rung, its model pretrained for so many steps with a curriculum in proportion."""
        [size] = config.sizes
        first = size.given[0]
        given = tuple(
            replace(setting, os_steps=self.outcome_steps, pretrain_steps=pretrain_steps)
            for setting in size.given
        )
        cut = replace(
            size,
            given=given,
            every=max(1, round(size.every * pretrain_steps / first.pretrain_steps)),
            rl_looks=tuple(step for step in size.rl_looks if step <= self.rl_steps),
            most_steps=(size.most_steps[0], self.moved_steps),
            side_by_side=min(MOST_AT_ONCE, len(config.prompts) * self.seeds),
        )
        with_rl = config.rl_prompts if cut.rl_looks else ()
        return replace(config, sizes=(cut,), seeds=self.seeds, rl_prompts=with_rl)


RUNGS = (
    Rung(10, 3000, 1000, 1000),
    Rung(10, 3000, 1000, 300),
    Rung(10, 1000, 1000, 300),
    Rung(8, 1000, 1000, 300),
    Rung(6, 1000, 1000, 300),
    Rung(5, 1000, 1000, 300),
    Rung(4, 1000, 1000, 300),
    Rung(3, 1000, 1000, 300),
    Rung(3, 1000, 1000, 100),
    Rung(3, 1000, 300, 100),
    Rung(3, 1000, 0, 100),
    Rung(3, 300, 0, 100),
    Rung(3, 100, 0, 100),
)
"""From most to least: longer OS first of all goes, then seeds, then OS where n or k moves, RL, and OS."""
SMOKE = (Rung(2, 4, 2, 2), Rung(2, 2, 0, 2))
"""Those of preset ``smoke``."""


@dataclass(frozen=True)
class StepTimes:
    """Seconds on this machine, measured at the base n and k.

    Args:
        pretrain: a step of pretraining at full length.
        shape: recording a step of pretraining at a length that is new.
        fixed, per_run: by stage ("sft", "outcome"): a step of R runs takes fixed + R per_run.
        setup: of a training before its steps repeat.
        look: measuring one run at two kinds of prompts.
    """

    pretrain: float
    shape: float
    fixed: dict[str, float]
    per_run: dict[str, float]
    setup: float
    look: float


def path_seconds(config: PaperModel, times: StepTimes, path: GptPath, runs: int) -> float:
    """The forecast of ``runs`` side by side along ``path``."""
    stage = "sft" if path.stage == "sft" else "outcome"
    base = 2 * config.base_length + config.base_chain + 1
    share = (2 * path.length + path.chain_steps + 1) / base
    # A thought more is a pass of one token a prompt, short but not free.
    thoughts = 1.0 if stage == "sft" else max(1.0, (1 + path.chain_steps) / (1 + config.base_chain)) ** 0.5
    step = (times.fixed[stage] + runs * times.per_run[stage] * share) * thoughts
    looks = runs * times.look * len(path.looks) * (1 + len(path.test_lengths)) / 2
    return MARGIN * (times.setup + path.looks[-1] * step + looks)


def panels_seconds(config: PaperModel, times: StepTimes) -> float:
    """The forecast of all trainings after pretraining."""
    total = 0.0
    for size, setting in config.settings():
        for path in config.paths(size, setting):
            runs = len(path.prompts) * config.seeds
            for first in range(0, runs, size.side_by_side):
                total += path_seconds(config, times, path, min(size.side_by_side, runs - first))
    return total


def pretraining_seconds(config: PaperModel, times: StepTimes, steps: int) -> float:
    """The forecast of pretraining, every length a shape to record."""
    shapes = max(config.lengths) - min(config.lengths) + 1
    return MARGIN * (steps * times.pretrain + shapes * times.shape)


def pretraining_steps(config: PaperModel, times: StepTimes, seconds: float) -> int:
    """The most steps, up to the configuration's, within their share of ``seconds``; at least a tenth."""
    most = config.sizes[0].given[0].pretrain_steps
    spare = seconds * PRETRAINING_SHARE - pretraining_seconds(config, times, 0)
    return min(most, max(int(spare / (MARGIN * times.pretrain)), most // 10, 1))


def choose_rung(config: PaperModel, times: StepTimes, left: float, rungs: tuple[Rung, ...] = RUNGS) -> Rung:
    """The first rung whose forecast is not above the seconds ``left``; the last one if none fits."""
    steps = config.sizes[0].given[0].pretrain_steps
    for rung in rungs:
        if panels_seconds(rung.of(config, steps), times) <= left:
            return rung
    return rungs[-1]
