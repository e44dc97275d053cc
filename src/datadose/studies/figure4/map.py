"""Where Figure 4's six claims hold: a search over what the paper leaves unstated.

Moves eta, the post-training data (A = Delta, or the allocation eta(P Sigma0 P + Delta) with interference
r (I - P)), the batch (32 or full) and the schedule (130 epochs, or equal optimiser steps for every B), at a
small d and few seeds, and judges each claim with the statistics of :mod:`~datadose.studies.trends`. n is tied
across stages, as in the paper. On a full batch, 130 epochs are 130 steps whatever B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from datadose.configs import Stage
from datadose.studies.figure4.experiment import Work, base_error, post_trained_errors
from datadose.studies.study import Preset
from datadose.studies.trends import PAPER_CLAIMS, fill_diverged, judge_trend, threshold_of
from datadose.sweep import Cell

MAP_COLUMNS = [
    "figure",
    "claim",
    "stage",
    "axis",
    "trend",
    "eta",
    "data",
    "interference",
    "batch",
    "schedule",
    "seeds",
    "diverged",
    "threshold",
    "value",
    "low",
    "high",
    "verdict",
]


@dataclass(frozen=True)
class MapSetting:
    """One choice of what is unstated; ``interference`` None is A = Delta, ``batch`` None the full batch."""

    eta: float = 0.2
    interference: float | None = None
    batch: int | None = 32
    schedule: str = "epochs"


@dataclass(frozen=True)
class MapWork:
    """What one cell trains, apart from the configuration's constants."""

    work: Work
    eta: float
    interference: float | None
    batch: int | None


@dataclass(frozen=True)
class Figure4Map:
    """Settings (all combinations, or with ``one_at_a_time`` only those next to the paper's) by six claims."""

    dimension: int
    etas: tuple[float, ...]
    interferences: tuple[float | None, ...]
    batches: tuple[int | None, ...]
    schedules: tuple[str, ...]
    one_at_a_time: bool
    prompts: tuple[int, ...]
    lengths: tuple[int, ...]
    chains: tuple[int, ...]
    base_prompts: int
    base_length: int
    epochs: int
    equal_steps: int
    test_prompts: int
    seeds: int
    learning_rate: float = 1e-3

    @classmethod
    def preset(cls, name: Preset) -> Figure4Map:
        """The configuration of a preset; ``quick`` moves one choice at a time."""
        choices: dict[str, Any] = {
            "etas": (0.05, 0.2, 0.5),
            "interferences": (None, 0.01, 0.1),
            "batches": (32, None),
            "schedules": ("epochs", "steps"),
        }
        if name == "smoke":
            return cls(
                dimension=10,
                etas=(0.2, 0.5),
                interferences=(None, 0.1),
                batches=(32, None),
                schedules=("epochs", "steps"),
                one_at_a_time=True,
                prompts=(16, 32, 64),
                lengths=(10, 20, 40),
                chains=(1, 2),
                base_prompts=32,
                base_length=20,
                epochs=10,
                equal_steps=10,
                test_prompts=128,
                seeds=2,
            )
        sizes: dict[str, Any] = {"dimension": 20, "base_prompts": 128, "base_length": 40, "epochs": 130}
        sizes |= {"equal_steps": 520, "test_prompts": 2048, "one_at_a_time": name == "quick"}
        if name == "quick":
            return cls(
                **choices, **sizes, prompts=(32, 128, 384), lengths=(10, 40, 160), chains=(1, 4), seeds=4
            )
        return cls(
            **choices, **sizes, prompts=(32, 128, 512), lengths=(5, 10, 40, 160), chains=(1, 2, 4), seeds=5
        )

    def settings(self) -> list[MapSetting]:
        """All combinations, or Figure 4's own setting and those that differ from it in one choice."""
        if not self.one_at_a_time:
            grid = product(self.etas, self.interferences, self.batches, self.schedules)
            return [MapSetting(*choice) for choice in grid]
        centre = MapSetting()
        moved = [
            *(MapSetting(eta=eta) for eta in self.etas),
            *(MapSetting(interference=r) for r in self.interferences),
            *(MapSetting(batch=batch) for batch in self.batches),
            *(MapSetting(schedule=schedule) for schedule in self.schedules),
        ]
        return list(dict.fromkeys([centre, *moved]))

    def _curve(self, setting: MapSetting, stage: Stage, axis: str) -> Iterator[tuple[int, MapWork]]:
        """(place, work) along one axis."""
        places = {"prompts": self.prompts, "length": self.lengths, "steps": self.chains}[axis]
        for x in places:
            B = x if axis == "prompts" else self.base_prompts
            n = x if axis == "length" else self.base_length
            k = x if axis == "steps" else 1
            batch = None if setting.batch is None else min(setting.batch, B)
            steps = self.equal_steps
            if setting.schedule == "epochs":
                steps = self.epochs * -(-B // (batch or B))
            work = Work(stage, B, n, n, k, steps)
            # eta reaches outcome supervision through the data alone: its settings share this work.
            used = stage == "sft" or setting.interference is not None
            yield x, MapWork(work, setting.eta if used else 0.2, setting.interference, batch)

    def _works(self) -> list[MapWork]:
        curves = ((s, stage, axis) for s in self.settings() for _, stage, axis, _ in PAPER_CLAIMS)
        return list(dict.fromkeys(work for curve in curves for _, work in self._curve(*curve)))

    def cells(self) -> list[Cell]:
        """The untouched model, then one cell a distinct training with all seeds."""
        shared = {"dimension": self.dimension, "test_prompts": self.test_prompts}
        trained = {**shared, "learning_rate": self.learning_rate, "seeds": list(range(self.seeds))}
        cells = [Cell(base_error, {**shared, "length": self.base_length})]
        for item in self._works():
            moved = {"eta": item.eta, "interference": item.interference, "batch": item.batch}
            cells.append(Cell(post_trained_errors, trained | asdict(item.work) | moved))
        return cells

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a setting and claim."""
        base = np.full(self.seeds, float(results[0]))
        by_work = dict(zip(self._works(), results[1:], strict=True))
        rows = []
        for setting in self.settings():
            for letter, stage, axis, trend in PAPER_CLAIMS:
                curve = list(self._curve(setting, stage, axis))
                columns = [by_work[work]["errors"] for _, work in curve]
                errors, lost = fill_diverged(np.array(columns, dtype=np.float64).T)
                x = np.array([place for place, _ in curve], dtype=np.float64)
                found = judge_trend(
                    trend, x, errors, threshold_of(trend), base if axis == "prompts" else None
                )
                low, high = found.interval or (None, None)
                row: dict[str, Any] = {
                    "figure": "fig4map",
                    "claim": f"fig-4{letter}",
                    "stage": stage,
                    "axis": axis,
                }
                row |= {"trend": trend, "seeds": found.seeds, "diverged": lost}
                row |= {"threshold": threshold_of(trend), "value": found.value, "low": low, "high": high}
                rows.append(row | _described(setting) | {"verdict": found.verdict})
        return pd.DataFrame(rows, columns=MAP_COLUMNS)


def _described(setting: MapSetting) -> dict[str, Any]:
    return {
        "eta": setting.eta,
        "data": "delta" if setting.interference is None else "allocation",
        "interference": setting.interference or 0.0,
        "batch": "full" if setting.batch is None else str(setting.batch),
        "schedule": setting.schedule,
    }
