"""Panels of Figure 3 along training: settings, their pretrained models, paths over B, n and k, one table.

The map (:mod:`~datadose.studies.gpt.map`) draws its settings, the paper's own model
(:mod:`~datadose.studies.gpt.paper_model`) has two that are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from datadose.configs import Stage
from datadose.studies.gpt.map_settings import STAGES, Column, MapSetting, MapSize, settings_of
from datadose.studies.gpt.paths import GptPath, follow_path, untouched_errors
from datadose.studies.gpt.runs import GptPretraining, GptTask, pretrained_cell, pretraining_round
from datadose.studies.tables import PRETRAINED, TRAINED, as_table
from datadose.sweep import Cell, Round


@dataclass(frozen=True)
class PathPanels:
    """The settings of all sizes, and what every one of them has in common.

    ``base_*`` are B, n and k where another axis moves; ``lengths`` includes the base n, ``chains`` the base
    k. ``judged_sft`` is the number of SFT steps (the paper's 100) at which a setting's verdicts count.
    ``rl_prompts`` are the B of RL, which moves nothing else; none: RL is left out.
    """

    figure: ClassVar[str]
    """The name in the table."""
    sizes: tuple[MapSize, ...]
    dimension: int
    prompts: tuple[int, ...]
    lengths: tuple[int, ...]
    chains: tuple[int, ...]
    base_prompts: int
    base_length: int
    base_chain: int
    judged_sft: int
    test_prompts: int
    seeds: int
    pretrain_chain: int
    batch: int = 16
    test_steps: int = 3
    draw: int = 23
    rl_prompts: tuple[int, ...] = ()

    def settings(self) -> list[tuple[MapSize, MapSetting]]:
        """Each setting with its size."""
        return [(size, setting) for size in self.sizes for setting in settings_of(size, self.draw)]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """SFT, outcome supervision, and RL where it has prompts."""
        return (*STAGES, "rl") if self.rl_prompts else STAGES

    def places(self, stage: Stage, axis: str) -> tuple[int, ...]:
        """The values of B, n or k along an axis of a stage; none where RL's n or k would move."""
        if stage == "rl":
            return self.rl_prompts if axis == Column.PROMPTS else ()
        return {Column.PROMPTS: self.prompts, Column.LENGTH: self.lengths, Column.STEPS: self.chains}[axis]

    def task(self, eta: float) -> GptTask:
        """The task of Figure 3; its n is the longest, which pretraining goes up to."""
        n, k = max(self.lengths), self.pretrain_chain
        return GptTask(self.dimension, n, k, self.test_steps, eta, self.test_prompts)

    def paths(self, size: MapSize, setting: MapSetting) -> Iterator[GptPath]:
        """Of each stage: all B at the base n and k, then every other n, then every other k."""
        n0, k0 = self.base_length, self.base_chain
        for stage in self.stages:
            moves = [(n, k0) for n in self.places(stage, Column.LENGTH)]
            moves += [(n0, k) for k in self.places(stage, Column.STEPS)]
            for n, k in dict.fromkeys([(n0, k0), *moves]):
                moved = (n, k) != (n0, k0)
                yield GptPath(
                    stage=stage,
                    variant=setting.variant,
                    prompts=(self.base_prompts,) if moved else self.places(stage, Column.PROMPTS),
                    length=n,
                    chain_steps=k,
                    looks=size.looks(stage, setting, moved),
                    test_lengths=tuple(dict.fromkeys((n, n0))),
                    learning_rate=setting.learning_rate,
                    batch=self.batch,
                    precision=size.precision,
                )

    def _runs(self, size: MapSize, path: GptPath) -> Iterator[list[list[int]]]:
        """The runs (B, seed) of a path, in the groups that train side by side."""
        runs = [[B, seed] for B, seed in product(path.prompts, range(self.seeds))]
        for first in range(0, len(runs), size.side_by_side):
            yield runs[first : first + size.side_by_side]

    def _models(self) -> dict[tuple[str, float, int], GptPretraining]:
        """(size, eta, steps) of each pretrained model that a setting starts from, and how it is made."""
        return {
            (size.preset, setting.eta, setting.pretrain_steps): self.pretraining(size, setting.pretrain_steps)
            for size, setting in self.settings()
        }

    def pretraining(self, size: MapSize, steps: int) -> GptPretraining:
        """How a GPT of this size is pretrained for so many steps."""
        return GptPretraining(
            size.preset,
            steps,
            size.batch,
            size.learning_rate,
            warmup=min(200, steps // 5),
            start_length=min(self.lengths),
            every=size.every,
            precision=size.precision,
            optimiser=size.optimiser,
        )

    def rounds(self, folder: Path) -> Iterator[Round]:
        """The pretrained models, then the untouched errors and every path of every setting."""
        models = {key: pretrained_cell(self.task(key[1]), how, folder) for key, how in self._models().items()}
        yield pretraining_round(models.values())
        seeds = list(range(self.seeds))
        cells = []
        for (_, eta, _), cell in models.items():
            start = {"model": cell.file, "task": self.task(eta)}
            # Sigma0 is measured at the last length: at the base n, as after every training.
            lengths = [*(n for n in self.lengths if n != self.base_length), self.base_length]
            cells.append(Cell(untouched_errors, {**start, "lengths": lengths, "seeds": seeds}))
        for size, setting in self.settings():
            start = {
                "model": models[setting.size, setting.eta, setting.pretrain_steps].file,
                "task": self.task(setting.eta),
            }
            for path in self.paths(size, setting):
                own = {**start, "path": path}
                cells += [Cell(follow_path, {**own, "runs": runs}) for runs in self._runs(size, path)]
        yield "", cells

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a setting, path, B, seed, number of steps and test length; the untouched at no steps."""
        found = iter(results)
        untouched = {key: next(found) for key in self._models()}
        rows = []
        for size, setting in self.settings():
            own = {Column.FIGURE: self.figure} | setting.columns
            for values in untouched[setting.size, setting.eta, setting.pretrain_steps]:
                seed, n, *errors = values
                place = {Column.PROMPTS: 0, Column.SEED: seed, Column.OPTIMISER_STEPS: 0}
                rows.append(own | place | {Column.ESTIMATOR: PRETRAINED} | _measured(n, errors))
            for path in self.paths(size, setting):
                way = {Column.STAGE: path.stage, Column.LENGTH: path.length, Column.STEPS: path.chain_steps}
                for B, seed, steps, n, *errors in (
                    row for _ in self._runs(size, path) for row in next(found)
                ):
                    place = {Column.PROMPTS: B, Column.SEED: seed, Column.OPTIMISER_STEPS: steps}
                    rows.append(own | way | place | {Column.ESTIMATOR: TRAINED} | _measured(n, errors))
        whole = (Column.SETTING, Column.PRETRAIN_STEPS, Column.OS_STEPS, Column.TEST_LENGTH, Column.TIED)
        return as_table(rows, Column, (*whole, Column.OPTIMISER_STEPS))


def _measured(length: int, errors: Sequence[float | None]) -> dict[str, Any]:
    """The columns of what ``HeldOut.measure`` returns."""
    names = (Column.ERROR, Column.RARE_ERROR, Column.COMMON_ERROR, Column.PRETRAINING_ERROR)
    lost = {Column.DIVERGED: int(errors[0] is None)}
    return {Column.TEST_LENGTH: length, **lost, **dict(zip(names, errors, strict=True))}
