"""Figure 4: post-training the LSA transformer by SFT, OS and (ours) RL, against B, n and chain length k.

The paper's protocol (section 8): Sigma0 = diag(0.1 on d/5 coordinates, 1 on the rest), Delta = 1 on those
d/5, post-training data with covariance A = Delta, test on Sigma0 + Delta with k = 1, dense weights started at
the pretrained operator -Gamma0^{-1}, 130 epochs of Adam at 1e-3. Not stated there, and chosen here: eta =
0.2, mini-batches of 32, the grids, and B, n and k where another axis moves (figure4_map varies some).

Controls (ours). Epochs tie the number of optimiser steps to B, so each curve over B has a twin with equal
steps ("steps"). With n tied across stages the pretrained model itself changes with n, so each curve over n
has a twin where only the post-training n moves ("fixed-lengths"). How far the shift is from the pretrained
model, rho(Gamma0^{-1} Delta), depends on n, which is not stated where k moves: each curve over k has a twin
at a shorter n, where the shift is nearer ("short-prompts"). n = 2d was chosen for the main curves after a
first run at n = d, where OS did not rise with k: that run is now the control. The untouched model has rows of
its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import Tensor

from datadose.configs import STAGES, Stage
from datadose.covariance import Array
from datadose.models import LinearAttention, PromptBatch, starting_operator
from datadose.stages import FixedData, Optimisation, held_out_prompts, post_test, stage_objective, train
from datadose.stages.checkpoint import Divergence
from datadose.studies import trends
from datadose.studies.study import Preset
from datadose.studies.tables import PRETRAINED, TRAINED, as_table
from datadose.studies.training import shift_covariances
from datadose.studies.trends import BASE_PANEL, MAIN, panel_letter
from datadose.sweep import Cell
from datadose.theory.pretraining import pretrained_operator

NAME = "fig4"


class Column(trends.Column):
    """The columns of ``fig4.csv``: of a run that diverged, also the step and what the radius was there."""

    DIVERGED_STEP = "diverged_step"
    DIVERGENCE_RADIUS = "divergence_radius"


CONTROLS = {Column.PROMPTS: "steps", Column.LENGTH: "fixed-lengths", Column.STEPS: "short-prompts"}
"""Axis -> the variant that is its control."""
ERRORS = "errors"
SIDE_BY_SIDE = 5


def data_covariance(dimension: int, eta: float, interference: float | None) -> Array:
    """A: Delta where ``interference`` is None, else the allocation eta(P Sigma0 P + Delta) + r (I - P)."""
    sigma0, delta = shift_covariances(dimension)
    if interference is None:
        return delta
    return np.where(delta > 0, eta * (sigma0 + delta), interference)


def post_trained_errors(
    *,
    stage: Stage,
    dimension: int,
    prompts: int,
    length: int,
    base_length: int,
    chain_steps: int,
    steps: int,
    batch: int | None,
    test_prompts: int,
    seeds: list[int],
    learning_rate: float = 1e-3,
    eta: float = 0.2,
    interference: float | None = None,
    advantage: Literal["grpo", "rloo", "reinforce"] = "grpo",
) -> dict[str, Any]:
    """Cell: error / d with one thinking step after post-training, one run a seed.

    Args:
        length: n of the post-training prompts; ``base_length`` is that of pretraining and test.
        interference: r of the allocated data, None for A = Delta.

    Returns:
        errors (None where diverged), diverged_step and divergence_radius (None where not).
    """
    found: dict[str, Any] = {ERRORS: [], Column.DIVERGED_STEP: [], Column.DIVERGENCE_RADIUS: []}
    sigma0, delta = shift_covariances(dimension)
    V0 = pretrained_operator(sigma0, base_length)
    A = data_covariance(dimension, eta, interference)
    optimisation = Optimisation(learning_rate=learning_rate, steps=steps, batch=batch)
    for first in range(0, len(seeds), SIDE_BY_SIDE):
        some = seeds[first : first + SIDE_BY_SIDE]
        model = LinearAttention(starting_operator(V0, len(some)))
        data = FixedData(PromptBatch.draw(A, length, prompts, seeds=some), size=batch)
        objective = stage_objective(stage, chain_steps, eta=eta, seeds=some, advantage=advantage)
        training = train(model, objective, data, optimisation)
        test = held_out_prompts(sigma0 + delta, base_length, test_prompts, runs=len(some))
        _collect(found, post_test(model, test, 1)[:, 0], training.diverged, training.steps)
    return found


def base_error(*, dimension: int, length: int, test_prompts: int) -> float:
    """Cell: error / d of the untouched pretrained model on the same test prompts."""
    sigma0, delta = shift_covariances(dimension)
    model = LinearAttention(starting_operator(pretrained_operator(sigma0, length), 1))
    return float(post_test(model, held_out_prompts(sigma0 + delta, length, test_prompts), 1)[0, 0])


def _collect(found: dict[str, Any], errors: Tensor, diverged: list[Divergence], steps: int) -> None:
    """Append one chunk of runs; an error that is not finite after training is a divergence too."""
    lost: dict[int, tuple[int, float | None]] = {d.run: (d.step, d.divergence_radius) for d in diverged}
    for run, error in enumerate(errors.tolist()):
        if not np.isfinite(error):
            lost.setdefault(run, (steps, None))
        step, radius = lost.get(run, (None, None))
        found[ERRORS].append(None if run in lost else error)
        found[Column.DIVERGED_STEP].append(step)
        found[Column.DIVERGENCE_RADIUS].append(radius)


@dataclass(frozen=True)
class Work:
    """What one cell trains, apart from the configuration's constants."""

    stage: Stage
    prompts: int
    length: int
    base_length: int
    chain_steps: int
    steps: int


@dataclass(frozen=True)
class Point:
    """A place on a curve; curves that cross share the work."""

    axis: str
    control: bool
    work: Work


def panel(stage: Stage, axis: str, control: bool = False) -> str:
    """The letter of a panel; a control has its name appended."""
    letter = panel_letter(stage, axis)
    return f"{letter}-{CONTROLS[axis]}" if control else letter


@dataclass(frozen=True)
class Figure4:
    """Three stages (rows) by three axes (columns), each curve with its control.

    ``base_*`` are the values of B, n and k where another axis moves; ``equal_steps`` the optimiser steps of
    the control over B, ``short_length`` the n of the control over k.
    """

    dimension: int
    prompts: tuple[int, ...]
    lengths: tuple[int, ...]
    chains: tuple[int, ...]
    base_prompts: int
    base_length: int
    base_chain: int
    equal_steps: int
    short_length: int
    epochs: int
    test_prompts: int
    seeds: int
    eta: float = 0.2
    batch: int = 32
    learning_rate: float = 1e-3
    advantage: Literal["grpo", "rloo", "reinforce"] = "grpo"

    @classmethod
    def preset(cls, name: Preset) -> Figure4:
        """The configuration of a preset; quick is the same protocol at d = 40."""
        if name == "smoke":
            return cls(
                dimension=20,
                prompts=(16, 32, 64),
                lengths=(10, 40, 80),
                chains=(1, 2, 4),
                base_prompts=32,
                base_length=40,
                base_chain=1,
                equal_steps=20,
                short_length=20,
                epochs=20,
                test_prompts=256,
                seeds=2,
            )
        if name == "quick":
            return cls(
                dimension=40,
                prompts=(32, 64, 128, 256, 512),
                lengths=(10, 40, 80, 320),
                chains=(1, 2, 4),
                base_prompts=128,
                base_length=80,
                base_chain=1,
                equal_steps=520,
                short_length=40,
                epochs=130,
                test_prompts=2048,
                seeds=5,
            )
        return cls(
            dimension=100,
            prompts=(32, 64, 128, 256, 512, 1024),
            lengths=(25, 50, 100, 200, 400, 800),
            chains=(1, 2, 4, 8),
            base_prompts=128,
            base_length=200,
            base_chain=1,
            equal_steps=1040,
            short_length=100,
            epochs=130,
            test_prompts=2048,
            seeds=10,
        )

    def points(self) -> Iterator[Point]:
        """Every place, panel by panel, a control after its main curve."""
        B, n, k = self.base_prompts, self.base_length, self.base_chain
        for stage in STAGES:
            for control in (False, True):
                for x in self.prompts:
                    steps = self.equal_steps if control else self._epochs(x)
                    yield Point(Column.PROMPTS, control, Work(stage, x, n, n, k, steps))
            for control in (False, True):
                for x in self.lengths:
                    work = Work(stage, B, x, n if control else x, k, self._epochs(B))
                    yield Point(Column.LENGTH, control, work)
            for control in (False, True):
                for x in self.chains:
                    where = self.short_length if control else n
                    yield Point(Column.STEPS, control, Work(stage, B, where, where, x, self._epochs(B)))

    def _epochs(self, prompts: int) -> int:
        return self.epochs * -(-prompts // self.batch)

    def _base_lengths(self) -> list[int]:
        return sorted({*self.lengths, self.base_length, self.short_length})

    def _works(self) -> list[Work]:
        return list(dict.fromkeys(point.work for point in self.points()))

    def cells(self) -> list[Cell]:
        """The untouched model at each length, then one cell a setting with all seeds."""
        shared = {"dimension": self.dimension, "test_prompts": self.test_prompts}
        cells = [Cell(base_error, {**shared, "length": n}) for n in self._base_lengths()]
        return cells + [Cell(post_trained_errors, shared | self._arguments(work)) for work in self._works()]

    def _arguments(self, work: Work) -> dict[str, Any]:
        found = asdict(work) | {
            "batch": min(self.batch, work.prompts),
            "learning_rate": self.learning_rate,
            "seeds": list(range(self.seeds)),
        }
        if work.stage == "sft":
            found["eta"] = self.eta
        if work.stage == "rl":
            found["advantage"] = self.advantage
        return found

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a point and seed; before them the untouched model (stage sft, no prompts, no seed)."""
        lengths = self._base_lengths()
        rows = [
            _row(BASE_PANEL, BASE_PANEL, Work("sft", 0, n, n, 1, 0)) | {Column.ERROR: error}
            for n, error in zip(lengths, results[: len(lengths)], strict=True)
        ]
        by_work = dict(zip(self._works(), results[len(lengths) :], strict=True))
        for point in self.points():
            work, found = point.work, by_work[point.work]
            variant = CONTROLS[point.axis] if point.control else MAIN
            row = _row(panel(work.stage, point.axis, point.control), variant, work)
            rows += [
                row
                | {Column.AXIS: point.axis, Column.SEED: seed, Column.ERROR: error}
                | {name: found[name][seed] for name in (Column.DIVERGED_STEP, Column.DIVERGENCE_RADIUS)}
                for seed, error in enumerate(found[ERRORS])
            ]
        return as_table(rows, Column, (Column.OPTIMISER_STEPS, Column.DIVERGED_STEP))


def _row(name: str, variant: str, work: Work) -> dict[str, Any]:
    """The summary of the table over all seeds of a place."""
    return {
        Column.FIGURE: NAME,
        Column.PANEL: name,
        Column.STAGE: work.stage,
        Column.PROMPTS: work.prompts,
        Column.LENGTH: work.length,
        Column.STEPS: work.chain_steps,
        Column.INTERFERENCE: 0.0,
        Column.ESTIMATOR: TRAINED if work.prompts else PRETRAINED,
        Column.VARIANT: variant,
        Column.OPTIMISER_STEPS: work.steps,
    }
