"""What the weights do along post-training: the GPT's first thought beside the linear model's exact theory.

Stages, on prompts of Delta or of the target: SFT on chains of k steps, outcome supervision on one thought and
on k. At every look: errors on the target and on Sigma0, and what the first thought is made of
(:mod:`~datadose.studies.gpt.first_thought`). Errors are of what the stage trains: after SFT the first thought
beside eta w*, over eta^2; after outcome supervision of k thoughts the last beside w*. Three models:

- ``gpt``: Adam, mini-batches. Its steps have no counterpart in the theory.
- ``lsa``: the linear transformer (W~ = I) by gradient descent on the same prompts, at its own times
  (:mod:`~datadose.studies.gpt.linear_paths`).
- ``theory``: mean operator and errors of that model at these steps, exact for many dimensions. None covers
  outcome supervision of several thoughts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from datadose.models.gpt import load_gpt
from datadose.studies import tables
from datadose.studies.gpt.first_thought import MEASURED, Probe, named, numbers_of
from datadose.studies.gpt.linear_paths import Arm, LinearPath, follow_lsa, theory_along
from datadose.studies.gpt.map import Figure3Map
from datadose.studies.gpt.paths import GptPath, post_trained
from datadose.studies.gpt.runs import (
    GPT,
    TARGET,
    GptPretraining,
    GptTask,
    Variant,
    pretrained_cell,
    pretraining_round,
)
from datadose.studies.study import Preset
from datadose.studies.tables import LSA, THEORY, as_table
from datadose.sweep import Cell, Round

NAME = "fig3path"
VARIANTS: tuple[Variant, ...] = ("delta", "target")


class Column(tables.Column):
    """The columns of ``fig3path.csv`` before those in MEASURED; ``steps`` is k, the error that on the target.

    ``time`` is that of gradient flow, of the linear models alone.
    """

    VARIANT = "variant"
    PRETRAIN_STEPS, OPTIMISER_STEPS = "pretrain_steps", "optimiser_steps"
    TIME = "time"


def follow_gpt(
    model: Path, task: GptTask, path: GptPath, probe: tuple[int, int], seed: int
) -> list[list[Any]]:
    """Cell: rows (B, steps, numbers named MEASURED or None) along ``path`` from the GPT in a file.

    ``probe``: how many inputs the first thought is probed at, and how many w* at each. All B train side by
    side.
    """
    torch.set_num_threads(1)
    start, goal = load_gpt(model), Arm(path.stage, path.chain_steps).goal(task.eta)
    runs = [(B, seed) for B in path.prompts]
    shown = Probe.of(task, goal, path.length, *probe, [seed] * len(runs))
    seen, lost = post_trained(start, task, path, runs, shown.measure)
    return [
        [B, step, numbers_of(seen, lost, run, step)] for run, (B, _) in enumerate(runs) for step in path.looks
    ]


@dataclass(frozen=True)
class Mechanism:
    """The arms, kinds of data and numbers of prompts B, at which steps all is measured, and how finely.

    Args:
        looks: optimiser steps of the GPT at which it is measured, from 0.
        lsa_looks: the same of the linear transformer, which takes ``lsa_share`` of its largest stable rate.
        seeds: of the GPT's pretraining and post-training alike, so that intervals cover both; the linear
            transformer has ``lsa_seeds``, the first of which are these.
        inputs, weights: X by seed, and w* by X, at which the first thought is probed.
    """

    task: GptTask
    pretrainings: tuple[GptPretraining, ...]
    arms: tuple[Arm, ...]
    prompts: tuple[int, ...]
    length: int
    looks: tuple[int, ...]
    lsa_looks: tuple[int, ...]
    learning_rate: float
    seeds: int
    lsa_seeds: int
    inputs: int
    weights: int
    lsa_share: float = 0.2
    batch: int = 16

    @classmethod
    def preset(cls, name: Preset) -> Mechanism:
        """The configuration of a preset; every seed has a pretrained model of its own.

        A pilot (seeds 1000 to 1003, ``quick``) gives the spread over seeds of log ratios of errors after and
        before: with B = 1,024 at most .12 on the target, .29 on its rare and .11 on its common directions,
        .12 on Sigma0; with B = 16 .34, .50, .33 and .38. Four seeds detect 2.1 spreads with power .8, which
        are ratios of 1.3 and 1.8 (rare) with many and of 2 and 3 (rare) with few prompts; the six of
        ``paper`` detect 1.4 spreads.
        Of the R2 of a map for each X it is .01 and .06 at most: .02 and .12 below the threshold are detected.

        Of the linear transformer 16 and 32 runs left the claim on the theory open, 64 do not.

        Cost: about 9 core-minutes for ``quick``, of which pretraining takes 5; perhaps 35 for ``paper``.
        """
        if name == "smoke":
            task = GptTask(5, 8, 3, 2, eta=0.5, test_prompts=32)
            arms = Arm("sft", 2), Arm("outcome", 1), Arm("outcome", 2)
            short = GptPretraining("tiny", 5, 8, warmup=1, start_length=4, every=2)
            return cls(task, (short,), arms, (8, 16), 6, (0, 1, 3), (0, 1, 4), 1e-4, 2, 3, 4, 7, batch=8)
        shared = Figure3Map.preset("paper")
        task = shared.task(0.5)
        size = replace(shared.sizes[0], optimiser="muon", learning_rate=1e-2)
        long = tuple(
            shared.pretraining(size, steps) for steps in ((2000,) if name == "quick" else (1000, 3000))
        )
        quick = cls(
            task,
            long,
            (Arm("sft", 3), Arm("outcome", 1), Arm("outcome", 3)),
            prompts=(16, 1024),
            length=shared.base_length,
            looks=(0, 1, 3, 10, 30, 100),
            lsa_looks=(0, 1, 2, 4, 8, 16, 32, 64, 128),
            learning_rate=1e-4,
            seeds=4,
            lsa_seeds=64,
            inputs=24,
            weights=12,
        )
        if name == "quick":
            return quick
        return replace(quick, looks=(0, 1, 3, 10, 30, 100, 300), seeds=6, inputs=32)

    def gpt_paths(self) -> Iterator[GptPath]:
        """One for each arm and kind of data, with all B."""
        for arm in self.arms:
            for variant in VARIANTS:
                yield GptPath(
                    arm.stage,
                    variant,
                    self.prompts,
                    self.length,
                    arm.chain_steps,
                    self.looks,
                    (self.length,),
                    self.learning_rate,
                    self.batch,
                )

    def linear_paths(self) -> Iterator[LinearPath]:
        """One for each arm, kind of data and B."""
        for arm in self.arms:
            for variant in VARIANTS:
                for B in self.prompts:
                    yield LinearPath.at(
                        self.task, arm, variant, (B, self.length), self.lsa_share, self.lsa_looks
                    )

    def _models(self) -> list[GptPretraining]:
        """How the pretrained models are made, by length and seed."""
        return [replace(p, seed=seed) for p in self.pretrainings for seed in range(self.seeds)]

    def rounds(self, folder: Path) -> Iterator[Round]:
        """The pretrained models, then every path of the GPTs and of the linear transformer."""
        models = [(p, pretrained_cell(self.task, p, folder)) for p in self._models()]
        yield pretraining_round(cell for _, cell in models)
        own: dict[str, Any] = {"task": self.task, "probe": (self.inputs, self.weights)}
        cells = []
        for p, model in models:
            start = {**own, "model": model.file, "seed": p.seed}
            cells += [Cell(follow_gpt, {**start, "path": path}) for path in self.gpt_paths()]
        seeds = list(range(self.lsa_seeds))
        cells += [Cell(follow_lsa, {**own, "path": path, "seeds": seeds}) for path in self.linear_paths()]
        yield "", cells

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a model, pretraining, arm, kind of data, B, seed and number of steps; then the theory."""
        found, rows = iter(results), []
        for p in self._models():
            for path in self.gpt_paths():
                place = self._place(GPT, Arm(path.stage, path.chain_steps), path.variant)
                place |= {Column.PRETRAIN_STEPS: p.steps}
                for B, steps, values in next(found):
                    at = {Column.PROMPTS: B, Column.SEED: p.seed, Column.OPTIMISER_STEPS: steps}
                    rows.append(place | at | _measured(named(values)))
        for line in self.linear_paths():
            for seed, steps, values in next(found):
                rows.append(self._linear(LSA, line, steps) | {Column.SEED: seed} | _measured(named(values)))
            if line.arm.exact:
                exact = zip(line.looks, theory_along(self.task, line), strict=True)
                rows += [self._linear(THEORY, line, steps) | _measured(values) for steps, values in exact]
        return as_table(rows, Column, (Column.PRETRAIN_STEPS, Column.OPTIMISER_STEPS), MEASURED)

    def _place(self, model: str, arm: Arm, variant: str) -> dict[str, Any]:
        return {
            Column.FIGURE: NAME,
            Column.PANEL: f"{arm.stage}-{arm.chain_steps}-{variant}",
            Column.MODEL: model,
            Column.STAGE: arm.stage,
            Column.STEPS: arm.chain_steps,
            Column.VARIANT: variant,
            Column.LENGTH: self.length,
            Column.INTERFERENCE: 0.0,
        }

    def _linear(self, model: str, path: LinearPath, steps: int) -> dict[str, Any]:
        at = {Column.PROMPTS: path.prompts, Column.OPTIMISER_STEPS: steps}
        return self._place(model, path.arm, path.variant) | at | {Column.TIME: path.time(self.task, steps)}


def _measured(values: dict[str, Any]) -> dict[str, Any]:
    """The columns of what was measured; the error is that on the target."""
    error = values[TARGET]
    return {**values, Column.ERROR: error, Column.DIVERGED: int(error is None)}
