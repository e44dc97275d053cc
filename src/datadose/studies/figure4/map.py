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
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.configs import Stage
from datadose.drawing.hover import Cells, record_cells
from datadose.drawing.style import caption, new_figure
from datadose.studies.figure4.experiment import ERRORS, Work, base_error, post_trained_errors
from datadose.studies.study import Preset, Study, Verdict
from datadose.studies.trends import AXES, PAPER_CLAIMS, Column, fill_diverged, judge_trend, threshold_of
from datadose.sweep import Cell

NAME = "fig4map"
DELTA, ALLOCATION = "delta", "allocation"
"""What the post-training data are: A = Delta, or the allocation."""
EPOCHS, STEPS = "epochs", "steps"
"""Schedules."""
FULL = "full"
"""The batch of all prompts, in the table."""


@dataclass(frozen=True)
class MapRow:
    """A row of ``fig4map.csv``: a claim judged in a setting; the fields are the columns."""

    figure: str
    claim: str
    stage: Stage
    axis: str
    trend: str
    eta: float
    data: str
    interference: float
    batch: str
    schedule: str
    seeds: int
    diverged: int
    threshold: float
    value: float | None
    low: float | None
    high: float | None
    verdict: Verdict

    @property
    def setting(self) -> str:
        """The setting in words."""
        A = "A = Delta" if self.data == DELTA else f"allocated, r = {self.interference:g}"
        size = "full batch" if self.batch == FULL else f"batch {self.batch}"
        length = "epochs" if self.schedule == EPOCHS else "equal steps"
        return f"{A}, eta = {self.eta:g}, {size}, {length}"


@dataclass(frozen=True)
class MapSetting:
    """One choice of what is unstated; ``interference`` None is A = Delta, ``batch`` None the full batch."""

    eta: float = 0.2
    interference: float | None = None
    batch: int | None = 32
    schedule: str = EPOCHS


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
            "schedules": (EPOCHS, STEPS),
        }
        if name == "smoke":
            return cls(
                dimension=10,
                etas=(0.2, 0.5),
                interferences=(None, 0.1),
                batches=(32, None),
                schedules=(EPOCHS, STEPS),
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
        places = dict(zip(AXES, (self.prompts, self.lengths, self.chains), strict=True))[axis]
        for x in places:
            B = x if axis == Column.PROMPTS else self.base_prompts
            n = x if axis == Column.LENGTH else self.base_length
            k = x if axis == Column.STEPS else 1
            batch = None if setting.batch is None else min(setting.batch, B)
            steps = self.equal_steps
            if setting.schedule == EPOCHS:
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
                places, works = zip(*self._curve(setting, stage, axis), strict=True)
                columns = [by_work[work][ERRORS] for work in works]
                errors, lost = fill_diverged(np.array(columns, dtype=np.float64).T)
                x, threshold = np.array(places, dtype=np.float64), threshold_of(trend)
                start = base if axis == Column.PROMPTS else None
                found = judge_trend(trend, x, errors, threshold, start)
                low, high = found.interval or (None, None)
                rows.append(
                    MapRow(
                        figure=NAME,
                        claim=f"fig-4{letter}",
                        stage=stage,
                        axis=axis,
                        trend=trend,
                        eta=setting.eta,
                        data=DELTA if setting.interference is None else ALLOCATION,
                        interference=setting.interference or 0.0,
                        batch=FULL if setting.batch is None else str(setting.batch),
                        schedule=setting.schedule,
                        seeds=found.seeds,
                        diverged=lost,
                        threshold=threshold,
                        value=found.value,
                        low=low,
                        high=high,
                        verdict=found.verdict,
                    )
                )
        return pd.DataFrame(rows)


_SHADES = {"holds": "#7fb2d6", "mixed": "#dbe7f0", "fails": "#ffffff"}
_SYMBOLS = {"holds": "+", "mixed": "~", "fails": "\N{MINUS SIGN}"}


def draw(table: pd.DataFrame, config: Figure4Map) -> Figure:
    """One row a setting, one column a claim: + holds, ~ mixed, - fails, with the statistic."""
    rows = [MapRow(**values) for values in table.astype({"batch": "string"}).to_dict("records")]
    claims = list(dict.fromkeys(row.claim for row in rows))
    settings = [row.setting for row in rows[:: len(claims)]]
    titles = [_claim_title(claim) for claim in claims]
    with new_figure(1, width=7.6, height=1.7 + 0.27 * len(settings)) as (figure, (axis,)):
        for number, row in enumerate(rows):
            y, x = divmod(number, len(claims))
            _draw_tile(axis, x, y, row)
        axis.set_xlim(0, len(claims))
        axis.set_ylim(len(settings), 0)
        axis.set_xticks(np.arange(len(claims)) + 0.5, titles)
        axis.set_yticks(np.arange(len(settings)) + 0.5, settings)
        told = [f"{row.verdict}, statistic {row.value:.4g}" for row in rows]
        values = [told[k : k + len(claims)] for k in range(0, len(told), len(claims))]
        edges = range(len(claims) + 1), range(len(settings) + 1)
        record_cells(
            axis, Cells(*edges, [title.replace("\n", " ") for title in titles], settings, values, "")
        )
        axis.tick_params(length=0, labelsize=8, labeltop=True, labelbottom=False)
        axis.grid(visible=False)
        for spine in axis.spines.values():
            spine.set_visible(False)
        caption(figure, _caption(config))
    return figure


def _draw_tile(axis: Axes, x: int, y: int, row: MapRow) -> None:
    axis.fill_between(
        [x, x + 1],
        y,
        y + 1,
        facecolor=_SHADES[row.verdict],
        edgecolor="#c4c8cc",
        linewidth=0.7,
        clip_on=False,
    )
    text: dict[str, Any] = {"ha": "center", "va": "center", "color": "#202124"}
    axis.text(x + 0.27, y + 0.5, _SYMBOLS[row.verdict], fontsize=11, fontweight="bold", **text)
    axis.text(x + 0.64, y + 0.5, f"{row.value:.2f}", fontsize=7.5, **text)


def _claim_title(claim: str) -> str:
    titles = {
        "a": "SFT falls,\nrises with B",
        "b": "SFT falls,\nrises with n",
        "c": "SFT flat\nin k",
        "d": "OS falls\nwith B",
        "e": "OS falls\nwith n",
        "f": "OS rises\nwith k",
    }
    letter = claim[-1]
    return f"({letter}) {titles[letter]}"


def _caption(config: Figure4Map) -> str:
    return (
        f"+ holds, ~ mixed, \N{MINUS SIGN} fails at 95 percent; number: the claim's statistic, a ratio of "
        f"errors (c: largest log change).\nLSA, d = {config.dimension}, B {_range(config.prompts)}, "
        f"n {_range(config.lengths)} (tied), k {_range(config.chains)}; {config.seeds} seeds; "
        f"{config.epochs} epochs or {config.equal_steps} steps of Adam {config.learning_rate:g}."
    )


def _range(values: Sequence[int]) -> str:
    return f"{min(values)} to {max(values)}"


STUDY = Study(
    name=NAME,
    title="Where do Figure 4's claims hold?",
    story=(
        "Each row changes one choice that the paper leaves open, each column is one of its six claims. The "
        "claims about SFT and B hang on the schedule, and those about outcome supervision on the data being "
        "the shift's own."
    ),
    experiment=Figure4Map,
    draw=draw,
)
