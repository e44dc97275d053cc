"""Does the paper's advice on post-training data hold for a real language model?

SmolLM2-135M-Instruct, untouched, on arithmetic from solved to hopeless. (1) Its profile. (2) SFT by LoRA on
equal numbers of rows and steps, from our selection and from its rivals, out of a clean pool and out of one
with faulty rows. (3) The number of SFT rows at equal steps. (4) GRPO on prompts of different pass rates.
Every run gives the gain on the target and what it cost elsewhere. The learning rates were chosen once, on
validation rows and a pool of its own (``grid``); the test rows were used afterwards only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pandas as pd

from datadose.errors import reject
from datadose.studies.llm_study.base_model import Base, make_base
from datadose.studies.llm_study.grid import GRID, GridPoint
from datadose.studies.llm_study.pools import Arm, Band, Contents, Split, score_seed
from datadose.studies.llm_study.runs import (
    KINDS,
    Column,
    LlmTraining,
    level_column,
    run_base,
    run_profile,
    run_rl,
    run_sft,
)
from datadose.studies.study import Preset
from datadose.studies.tables import names
from datadose.sweep import Cell, Round, file_cell

NAME = "llm_study"
Question: TypeAlias = Literal["arms", "sizes", "bands"]
PROFILE, BASE = "profile", "base"
"""In place of a question: the untouched model, level by level and on the study's tests."""

CONTENTS: tuple[Contents, ...] = ("contaminated", "clean")
CLEAN: tuple[Arm, ...] = ("ours", "random", "nll_top", "easiest", "nll_band", "all", "random_target")
CONTAMINATED: tuple[Arm, ...] = ("ours", "random", "nll_top", "easiest", "nll_band", "all", "ours_unverified")
BANDS: tuple[Band, ...] = ("ours", "medium", "easy", "hard")
"""And ``all`` after everything else."""


@dataclass(frozen=True)
class LlmRun:
    """One post-training run: the request, and for SFT the pool and arm, for RL the band (in ``arm``).

    Its fields are columns of the table.
    """

    question: Question
    contents: Contents
    arm: Arm | Band
    size: int
    seed: int


@dataclass(frozen=True)
class LlmStudy:
    """Sizes of everything, and how often."""

    base: Base
    split: Split
    sft: LlmTraining
    rl: LlmTraining
    size: int
    """SFT rows of every arm but ``all``."""
    sizes: tuple[int, ...]
    """Other SFT sizes, for random rows and for ours as far as its filters leave enough."""
    largest_ours: int
    rl_prompts: int
    profile_rows: int
    seeds: int
    clean: tuple[Arm, ...] = CLEAN
    contaminated: tuple[Arm, ...] = CONTAMINATED
    bands: tuple[Band, ...] = BANDS
    grid: tuple[GridPoint, ...] = GRID

    @classmethod
    def preset(cls, name: Preset) -> LlmStudy:
        """``quick`` is about an hour on one core; ``paper`` needs a GPU."""
        pool: tuple[tuple[str, int], ...]
        target, earlier = ("sum 3x1", "sum 2x2"), ("sum 2x1", "product 1", "gcd 12")
        if name == "smoke":
            pool = (("sum 3x1", 16), ("sum 2x2", 16), ("sum 2x1", 8), ("gcd 30", 8))
            split = Split(target, earlier, pool, 16, 8, 4, 4, 4, 4)
            return cls(
                "tiny", split, LlmTraining(2, 4, 1e-3), LlmTraining(2, 8, 1e-3), 4, (2,), 0, 4, 4, 2,
                ("ours", "random"), ("ours", "all"), (),
            )  # fmt: skip
        if name == "quick":
            pool = (
                ("sum 3x1", 48), ("sum 2x2", 48), ("sum 2x1", 40), ("sum 4x1", 16), ("sum 2x3", 24),
                ("product 2", 32), ("gcd 30", 32),
            )  # fmt: skip
            split = Split(target, earlier, pool, 120, 16, 16, 48, 24, 8)
            sft, rl = LlmTraining(20, 8, 1e-3), LlmTraining(16, 16, 1e-3)
            return cls("smollm2", split, sft, rl, 32, (8, 128), 8, 16, 48, 3)
        if name in ("small", "medium"):
            reject("preset", name, "smoke, quick or paper")
        pool = (
            ("sum 3x1", 600), ("sum 2x2", 600), ("sum 2x1", 60), ("sum 4x1", 300), ("sum 2x3", 300),
            ("product 2", 400), ("gcd 30", 300),
        )  # fmt: skip
        split = Split(target, earlier, pool, 1200, 64, 32, 500, 32, 64)
        return cls(
            "smollm2", split, LlmTraining(100, 32, 1e-3), LlmTraining(100, 64, 1e-3, samples=8),
            128, (8, 32, 512), 32, 128, 80, 10,
        )  # fmt: skip

    def rounds(self, folder: Path) -> Iterator[Round]:
        """The base model, the scored pools of all seeds, then every run."""
        folder = folder / "llm-study"
        base = file_cell(folder, f"base-{self.base}", "", make_base, base=self.base)
        yield "base model", [base]
        pools = [
            file_cell(folder, f"seed-{seed}", "", score_seed, base=base.file, split=self.split, seed=seed)
            for seed in range(self.seeds)
        ]
        yield "scoring pools", pools
        cells = [
            Cell(run_profile, {"base": base.file, "rows": self.profile_rows}),
            Cell(run_base, {"base": base.file, "split": self.split}),
        ]
        for run in self.runs():
            shared = {"base": base.file, "where": pools[run.seed].file, "split": self.split, "seed": run.seed}
            shared["size"] = run.size
            if run.question == "bands":
                cells.append(Cell(run_rl, {**shared, "band": run.arm, "training": self.rl}))
            else:
                own = {"contents": run.contents, "arm": run.arm, "training": self.sft}
                cells.append(Cell(run_sft, {**shared, **own}))
        yield "", cells

    def runs(self) -> Iterator[LlmRun]:
        """All runs, the most informative first and seed after seed, so that a stopped study has results."""
        seeds = range(self.seeds)
        for seed in seeds:
            for pair in zip_longest(self.contaminated, self.clean):
                for contents, arm in zip(CONTENTS, pair, strict=True):
                    if arm is not None:
                        yield LlmRun("arms", contents, arm, self.size, seed)
            yield from (LlmRun("bands", "clean", band, self.rl_prompts, seed) for band in self.bands)
        for seed in seeds:
            for size in self.sizes:
                yield LlmRun("sizes", "clean", "random", size, seed)
                if size <= self.largest_ours:
                    yield LlmRun("sizes", "clean", "ours", size, seed)
            yield LlmRun("arms", "clean", "ours_replay", self.size, seed)
            yield LlmRun("bands", "clean", "all", self.rl_prompts, seed)

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a level of the profile, one of the untouched model, one a run; None is left out."""
        profile, base, *runs = results
        rows: list[dict[str, Any]] = [{Column.QUESTION: PROFILE, **level} for level in profile or []]
        if base is not None:
            rows.append({Column.QUESTION: BASE, **base})
        for run, found in zip(self.runs(), runs, strict=True):
            if found is not None:
                steps = (self.rl if run.question == "bands" else self.sft).steps
                rows.append({**asdict(run), Column.STEPS: steps, **found})
        levels = (*self.split.target, *self.split.earlier)
        each = [level_column(level, kind) for level in levels for kind in KINDS]
        return pd.DataFrame(rows, columns=[*names(Column), *each])
