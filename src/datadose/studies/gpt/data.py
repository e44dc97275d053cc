"""The nonlinear transformer beside the linear theory: which post-training data, and what the weights do.

For every stage and pretraining length: post-training on Delta, on Sigma0 + Delta, and on Delta with as many
prompts of Sigma0 (replay); the error on rare and common directions of the target, and on Sigma0 (forgetting).
The same stages train the linear transformer on the same prompts. Of both the first thought is regressed on
S w*, direction by direction: the slope is the model's effective operator there, which theory gives for the
linear one. Controls: w* itself as the regressor, and prompts of Sigma0 instead of the target. Exact
predictors stand beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from datadose.configs import STAGES
from datadose.models.baselines import baselines
from datadose.stages import held_out_prompts
from datadose.studies.gpt.figure3 import Figure3
from datadose.studies.gpt.runs import (
    VARIANTS,
    Pretraining,
    Task,
    Work,
    pretrain_all,
    pretrained_file,
    run_gpt,
    run_lsa,
)
from datadose.studies.study import Preset
from datadose.studies.tables import COLUMNS, as_table
from datadose.sweep import Cell, Workers
from datadose.theory.pretraining import pretrained_operator

GROUPS = ("rare", "common")
SLOPES = tuple(
    f"{test}_{kind}_{group}_{regressor}"
    for test in ("target", "pretraining")
    for kind in ("slope", "fit")
    for group in GROUPS
    for regressor in ("phi", "w")
)
ERRORS = ("target_rare", "target_common", "pretraining")
EXTRA = ("kind", "variant", "pretrain_steps", "optimiser_steps", *(f"{e}_error" for e in ERRORS), *SLOPES)
BASE = "untouched"


def measure_baselines(task: Task) -> dict[str, dict[str, float]]:
    """Cell: errors of the exact predictors after ``test_steps`` thoughts, by name."""
    rare = torch.from_numpy(task.delta > 0)
    target = held_out_prompts(task.sigma0 + task.delta, task.length, task.test_prompts, hold_inputs=True)
    before = held_out_prompts(task.sigma0, task.length, task.test_prompts, hold_inputs=True)
    found = {}
    for name, predictor in baselines(task.sigma0, task.length).items():
        steps = 1 if name == "one gradient step" else task.test_steps

        def gap(batch: Any, predictor: Any = predictor, steps: int = steps) -> Any:
            with torch.no_grad():
                answer = predictor.rollout(batch, steps)[..., -1, :]
            return (answer - batch.weights).double().square().flatten(0, -2).mean(0)

        on_target = gap(target)
        found[name] = {
            "target": float(on_target.mean()),
            "target_rare": float(on_target[rare].mean()),
            "target_common": float(on_target[~rare].mean()),
            "pretraining": float(gap(before).mean()),
        }
    return found


@dataclass(frozen=True)
class GptData:
    """The base point of Figure 3's stages, three kinds of data, GPT and LSA."""

    task: Task
    pretrainings: tuple[Pretraining, ...]
    prompts: int
    chain_steps: int
    stage_steps: tuple[int, int, int]
    learning_rate: float
    lsa_learning_rate: float
    seeds: int
    batch: int = 64

    @classmethod
    def preset(cls, name: Preset) -> GptData:
        """The base point of Figure 3's preset."""
        return cls.beside(Figure3.preset(name))

    @classmethod
    def beside(cls, figure: Figure3) -> GptData:
        """The base point of a Figure 3."""
        return cls(
            figure.task,
            figure.pretrainings,
            figure.base_prompts,
            figure.base_chain,
            figure.stage_steps,
            figure.learning_rate,
            1e-2,
            figure.seeds,
            figure.batch,
        )

    def _works(self) -> list[Work]:
        return [
            Work(
                stage,
                variant,
                self.prompts,
                self.task.length,
                self.chain_steps,
                steps,
                self.learning_rate,
                self.batch,
            )
            for stage, steps in zip(STAGES, self.stage_steps, strict=True)
            for variant in VARIANTS
        ]

    def _untouched(self) -> Work:
        return Work("sft", "delta", 0, self.task.length, 1, 0, self.learning_rate)

    def _lsa(self, work: Work) -> Work:
        """The linear model takes larger steps: its weights are of order one, not 0.02."""
        return Work(
            work.stage, work.variant, work.prompts, work.length, work.chain_steps, work.steps,
            self.lsa_learning_rate, work.batch,
        )  # fmt: skip

    def _runs(self) -> list[tuple[str, int, Work, int | None]]:
        """(model, pretraining steps, run, seed); the untouched models have no seed."""
        runs: list[tuple[str, int, Work, int | None]] = []
        for model, T in [*(("gpt", p.steps) for p in self.pretrainings), ("lsa", 0)]:
            runs.append((model, T, self._untouched(), None))
            for work in self._works():
                own = self._lsa(work) if model == "lsa" else work
                runs += [(model, T, own, seed) for seed in range(self.seeds)]
        return runs

    def prepare(self, folder: Path, workers: Workers) -> list[Cell]:
        """Pretrain what is missing in ``folder`` (Figure 3's own models) and return the cells."""
        folder = folder / "pretrained"
        pretrain_all(self.task, self.pretrainings, folder, workers)
        paths = {p.steps: str(pretrained_file(self.task, p, folder)) for p in self.pretrainings}
        cells = [Cell(measure_baselines, {"task": self.task})]
        for model, T, work, seed in self._runs():
            shared = {"task": self.task, "work": work, "seed": seed or 0, "length": self.task.length}
            cells.append(
                Cell(run_gpt, {"path": paths[T], **shared}) if model == "gpt" else Cell(run_lsa, shared)
            )
        return cells

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a model, pretraining length, stage, kind of data and seed; then the exact predictors."""
        rows = []
        for (model, T, work, seed), found in zip(self._runs(), results[1:], strict=True):
            row = self._row(model, found["target"])
            row.update(
                stage=work.stage,
                kind=BASE if work.prompts == 0 else work.stage,
                variant=None if work.prompts == 0 else work.variant,
                prompts=work.prompts,
                steps=work.chain_steps,
                seed=seed,
                optimiser_steps=work.steps,
                pretrain_steps=T if model == "gpt" else None,
                diverged=int(found["target"] is None),
                **{f"{name}_error": found[name] for name in ERRORS},
                **{name: found[name] for name in SLOPES},
            )
            rows.append(row)
        for name, found in results[0].items():
            row = self._row("baseline", found["target"])
            row.update(kind=name, **{f"{error}_error": found[error] for error in ERRORS})
            rows.append(row)
        table, extra = (
            as_table({name: row.get(name) for name in COLUMNS} for row in rows),
            pd.DataFrame(rows, columns=list(EXTRA)),
        )
        return pd.concat([table, extra], axis=1)

    def _row(self, model: str, error: float | None) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys([*COLUMNS, *EXTRA])
        row.update(figure="gpt_data", panel=model, model=model, length=self.task.length, error=error)
        row.update(interference=0.0, diverged=0, prompts=0)
        return row


def theory_slopes(task: Task) -> dict[str, float]:
    """-V0 of the linear theory on rare and common directions: the slope of its first thought on S w*."""
    V0 = pretrained_operator(task.sigma0, task.length)
    rare = task.delta > 0
    return {"rare": float(-V0[rare].mean()), "common": float(-V0[~rare].mean())}
