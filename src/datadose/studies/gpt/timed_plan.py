"""Figure 3 at the paper's size on one GPU in some minutes: what is run, what it takes, what is left out.

The time of a step is measured first (:mod:`~datadose.studies.gpt.timed`); from it follow how long the GPT is
pretrained and which of the ``RUNGS`` fits, by rules that look at no error. Everything here is arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from datadose.configs import STAGES, Stage
from datadose.stages.optimisation import Precision
from datadose.studies.gpt.map import Figure3Map, MapSetting, MapSize
from datadose.studies.gpt.paths import GptPath
from datadose.studies.gpt.runs import GptPretraining, GptTask, Variant

MARGIN = 1.15
"""Forecasts are taken this many times: kernels of other shapes, and what was not measured."""


@dataclass(frozen=True)
class Rung:
    """How much is trained: seeds, steps of OS and RL (0: not at all), and of both where n or k moves."""

    seeds: int
    outcome_steps: int
    rl_steps: int
    moved_steps: int

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {self.outcome_steps:,} steps of OS, {self.rl_steps:,} of RL, "
            f"at most {self.moved_steps:,} where n or k moves"
        )


RUNGS = (
    Rung(10, 3000, 3000, 1000),
    Rung(10, 1000, 1000, 1000),
    Rung(6, 1000, 1000, 1000),
    Rung(4, 1000, 1000, 1000),
    Rung(3, 1000, 1000, 1000),
    Rung(3, 1000, 1000, 300),
    Rung(3, 1000, 1000, 100),
    Rung(3, 1000, 300, 100),
    Rung(3, 1000, 0, 100),
    Rung(3, 300, 0, 100),
    Rung(3, 100, 0, 100),
)
"""From most to least: fewer seeds first, then shorter trainings where n or k moves, then RL, then OS."""


@dataclass(frozen=True)
class TimedFigure3:
    """What is trained at most, and in how many seconds.

    Args:
        grid: the task, the places of B, n and k, and test sizes; its seeds are replaced by the rung's.
        pretraining: of the one GPT; its steps are the most.
        variants: the data of post-training, a setting each.
        looks: steps at which errors are measured along OS and RL; ``sft_looks`` along SFT.
        rungs: what is tried, from most to least.
        learning_rate: of post-training.
        side_by_side: most runs that train at once, as a matter of memory.
        seconds: wall-clock time for everything.
        pretraining_share: of the seconds, at most.
    """

    grid: Figure3Map
    pretraining: GptPretraining
    variants: tuple[Variant, ...]
    sft_looks: tuple[int, ...]
    looks: tuple[int, ...]
    rungs: tuple[Rung, ...]
    eta: float
    learning_rate: float
    precision: Precision
    side_by_side: int
    seconds: float
    pretraining_share: float = 0.35

    @classmethod
    def preset(cls, *, smoke: bool = False, seconds: float = 540.0) -> TimedFigure3:
        """The paper's model (12 layers, 8 heads, 256 wide), d = 20, n up to 40, k up to 8; or a tiny one.

        Estimate for one GPU with 990 TFLOP/s in bfloat16 and 4.8 TB/s, before any measurement. Pretraining:
        64 prompts of 89 tokens are 6 x 9.5M x 5,696 = 0.33 TFLOP a step, 1.5 ms at a quarter of the peak; the
        floor is the number of kernels, about 1,000 of 3 us each, so about 4 ms a step with Muon: 80 s for
        20,000 steps. Post-training side by side is bound by memory: about 95 kB a token and layer, times 12
        and 5,376 tokens, are 6 GB for a step of a run, 1.5 ms at 4 TB/s, and with its products (0.32 TFLOP)
        about 3 ms. Three seeds with 1,000 steps of OS and of RL, 100 of SFT and 300 where n or k moves are
        2 (3 x 4 x 2,000 + 3 x 4 x 600 + 3 x 8 x 100) = 67,000 such steps, 200 s. Recording 21 lengths and 30
        trainings, drawing prompts and measuring errors take another 60 to 90 s.
        """
        if smoke:
            return cls._smoke(seconds)
        grid = Figure3Map(
            (),
            dimension=20,
            prompts=(64, 256, 1024, 4096),
            lengths=(20, 30, 40),
            chains=(1, 3, 8),
            base_prompts=1024,
            base_length=40,
            base_chain=3,
            judged_sft=100,
            test_prompts=256,
            seeds=3,
            batch=64,
        )
        pretraining = GptPretraining(
            "paper", 20_000, 64, 1e-3, 500, 5, 20, 400, precision="bf16", optimiser="muon"
        )
        return cls(
            grid,
            pretraining,
            ("delta", "target"),
            (10, 30, 100),
            (30, 100, 300, 1000, 3000),
            RUNGS,
            0.5,
            1e-4,
            "bf16",
            40,
            seconds,
        )

    @classmethod
    def _smoke(cls, seconds: float) -> TimedFigure3:
        grid = Figure3Map((), 5, (8, 16, 32), (4, 6, 8), (1, 2, 3), 16, 8, 2, 2, 16, 2, batch=8, test_steps=2)
        pretraining = GptPretraining("tiny", 12, 8, 1e-3, 3, 2, 4, 3, precision="fp32", optimiser="muon")
        rungs = (Rung(3, 4, 4, 4), Rung(2, 4, 4, 2), Rung(2, 2, 0, 2))
        looks = ((1, 2), (2, 4))
        return cls(grid, pretraining, ("delta", "target"), *looks, rungs, 0.5, 1e-3, "fp32", 6, seconds)

    @property
    def task(self) -> GptTask:
        """Of pretraining and all trainings."""
        return self.grid.task(self.eta)

    def settings(self, rung: Rung, pretrain_steps: int) -> list[MapSetting]:
        """One for each kind of data."""
        return [
            MapSetting(
                number,
                self.pretraining.preset,
                self.learning_rate,
                variant,
                pretrain_steps,
                self.eta,
                rung.outcome_steps,
                tied=True,
            )
            for number, variant in enumerate(self.variants)
        ]

    def paths(self, rung: Rung, pretrain_steps: int) -> Iterator[tuple[MapSetting, GptPath]]:
        """Every training in the order in which they are run: SFT, OS, RL; in each B first, then n and k."""
        settings = self.settings(rung, pretrain_steps)
        for stage in STAGES:
            last = {"sft": self.sft_looks[-1], "outcome": rung.outcome_steps, "rl": rung.rl_steps}[stage]
            if last == 0:
                continue
            own = [list(self._of_stage(rung, stage, last, setting)) for setting in settings]
            for places in zip(*own, strict=True):
                yield from zip(settings, places, strict=True)

    def _of_stage(self, rung: Rung, stage: Stage, last: int, setting: MapSetting) -> Iterator[GptPath]:
        """The map's paths of SFT, or those of OS as this stage's, up to its ``last`` step."""
        size = MapSize(
            setting.size,
            settings=1,
            rates=(),
            pretrain_steps=(),
            etas=(),
            os_steps=(),
            sft_looks=self.sft_looks,
            outcome_looks=self.looks,
            most_steps=(self.sft_looks[-1], rung.moved_steps),
            side_by_side=self.side_by_side,
            batch=0,
            learning_rate=0.0,
        )
        for path in self.grid.paths(size, replace(setting, os_steps=last)):
            if path.stage == ("sft" if stage == "sft" else "outcome"):
                yield replace(path, stage=stage, precision=self.precision)


@dataclass(frozen=True)
class StepTimes:
    """Seconds on this machine, measured at the base n and k.

    Args:
        pretrain: a step of pretraining at full length.
        fixed, per_run: by stage ("sft", "outcome"): a step of R runs takes fixed + R per_run.
        shape: recording a step of pretraining at a length that is new.
        setup: of a training before its steps repeat.
        look: measuring one run at two kinds of prompts.
    """

    pretrain: float
    shape: float
    fixed: dict[str, float]
    per_run: dict[str, float]
    setup: float
    look: float


def path_seconds(config: TimedFigure3, times: StepTimes, path: GptPath, seeds: int) -> float:
    """The forecast of a training of every B and seed of ``path``, chunk by chunk."""
    stage = "sft" if path.stage == "sft" else "outcome"
    grid = config.grid
    base = 2 * grid.base_length + grid.base_chain + 1
    share = (2 * path.length + path.chain_steps + 1) / base
    # A thought more is a pass of a few tokens more, short but not free.
    thoughts = 1.0 if stage == "sft" else max(1.0, (1 + path.chain_steps) / (1 + grid.base_chain)) ** 0.5
    runs, total = len(path.prompts) * seeds, 0.0
    for first in range(0, runs, config.side_by_side):
        R = min(config.side_by_side, runs - first)
        step = (times.fixed[stage] + R * times.per_run[stage] * share) * thoughts
        looks = R * times.look * len(path.looks) * (1 + len(path.test_lengths)) / 2
        total += times.setup + path.looks[-1] * step + looks
    return MARGIN * total


def pretraining_seconds(config: TimedFigure3, times: StepTimes, steps: int) -> float:
    """The forecast of pretraining, every length a shape to record."""
    shapes = config.grid.base_length - config.pretraining.start_length + 1
    return MARGIN * (steps * times.pretrain + shapes * times.shape)


def pretraining_steps(config: TimedFigure3, times: StepTimes) -> int:
    """The most steps, up to the configuration's, that fit its share of the seconds; at least a tenth."""
    most = config.pretraining.steps
    spare = config.seconds * config.pretraining_share - pretraining_seconds(config, times, 0)
    fits = int(spare / (MARGIN * times.pretrain))
    return min(most, max(fits, most // 10))


def rung_seconds(config: TimedFigure3, times: StepTimes, rung: Rung) -> float:
    """The forecast of all trainings of a rung."""
    return sum(path_seconds(config, times, path, rung.seeds) for _, path in config.paths(rung, 0))


def choose_rung(config: TimedFigure3, times: StepTimes, left: float) -> Rung:
    """The first rung whose forecast is not above the seconds ``left``; the last one if none fits."""
    for rung in config.rungs:
        if rung_seconds(config, times, rung) <= left:
            return rung
    return config.rungs[-1]
