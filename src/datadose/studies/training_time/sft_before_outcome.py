"""How long SFT should last when outcome supervision follows, against how long it should last alone.

For random settings and numbers of rows: SFT at every penalty and at many times, each followed by outcome
supervision at k = 1 at its own best penalty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from datadose.drawing.curves import level
from datadose.drawing.style import LOOKS, caption, draw_points, new_grid
from datadose.studies.ledger import judge_share
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study
from datadose.studies.tables import THEORY, Setting, SettingsExperiment
from datadose.studies.training_time import settings
from datadose.studies.training_time.settings import (
    DRAWN,
    POWER,
    counts_of,
    random_setting,
    spread,
)
from datadose.studies.training_time.two_stages import (
    Path,
    Setup,
    State,
    after_best_penalty,
    penalty_path,
    time_path,
)
from datadose.sweep import Cell

NAME = "sft_before_outcome"
PENALTY, TIME = "penalty", "time"
_CHEAP, _RUINOUS = 1.01, 1.5
_STRONG = 0.1
"""Interference is called strong where r is at most so much of eta."""


class Column(settings.Column):
    """Of a setting: rows, and the errors / d at the end of both stages, by how SFT was stopped."""

    OUTCOME_PROMPTS = "outcome_prompts"
    RATIO = "ratio"
    """Penalty, or time, of SFT that is best before outcome supervision over that best alone."""
    BEST = "best"
    """Error with SFT stopped as is best before outcome supervision."""
    ALONE = "alone"
    """Error with SFT stopped as is best for SFT alone."""
    CONVERGED = "converged"
    NONE = "none"
    """Error without SFT."""
    STRENGTH = "strength"
    """r / eta."""


def measure(seed: int, dimension: int, times: int) -> list[list[float | str]]:
    """Cell: one setting, SFT held back by a penalty and by its time."""
    setup, (B1, B2) = random_setting(seed, dimension), counts_of(seed, dimension)
    start = State(setup.start.mean[None], setup.start.second[None])
    none = float(after_best_penalty(start, setup.outcome, B2, setup.test)[0])
    inside = setup.target > setup.sigma0
    strength = float(setup.data[~inside].max()) / setup.eta
    paths = ((PENALTY, penalty_path(setup, setup.sft, B1)), (TIME, time_path(setup, B1, times)))
    return [[rule, B1, B2, *_ends(setup, path, B2, rule), none, strength] for rule, path in paths]


def _ends(setup: Setup, path: Path, B2: float, rule: str) -> list[float]:
    alone = setup.test.error(path.states)
    after = after_best_penalty(path.states, setup.outcome, B2, setup.test)
    a, b, last = alone.argmin(), after.argmin(), (0 if rule == PENALTY else -1)
    return [float(v) for v in (path.places[b] / path.places[a], after[b], after[a], after[last])]


@dataclass(frozen=True)
class SftBeforeOutcome(SettingsExperiment):
    """Random settings; a row for the penalty and one for the time of SFT."""

    figure, columns = NAME, Column
    measured = (
        Column.RULE,
        Column.PROMPTS,
        Column.OUTCOME_PROMPTS,
        Column.RATIO,
        Column.BEST,
        Column.ALONE,
        Column.CONVERGED,
        Column.NONE,
        Column.STRENGTH,
    )

    dimension: int
    seeds: int
    times: int
    first_seed: int = 0

    @classmethod
    def preset(cls, name: Preset) -> SftBeforeOutcome:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(24, 6, 12)
        return cls(120, 240, 48) if name == "quick" else cls(120, 2000, 96)

    def settings(self) -> Iterator[Setting]:
        """One cell a setting."""
        for seed in range(self.first_seed, self.first_seed + self.seeds):
            arguments = {"seed": seed, "dimension": self.dimension, "times": self.times}
            yield Cell(measure, arguments), {Column.SEED: seed, Column.MODEL: THEORY}


def draw_sft_before_outcome(table: pd.DataFrame, config: SftBeforeOutcome) -> Figure:
    """Left: how much longer or shorter, and what not knowing costs. Right: convergence before outcome."""
    with new_grid(1, 2, width=10.0, height=4.1) as (figure, axes):
        left, right = axes[0]
        for look, rule in zip(LOOKS, (PENALTY, TIME), strict=False):
            rows = table[table[Column.RULE] == rule]
            cost = 100 * (rows[Column.ALONE] / rows[Column.BEST] - 1).clip(lower=1e-3)
            draw_points(left, rows[Column.RATIO], cost, look, f"{rule} of SFT", markersize=3.2, alpha=0.7)
        left.axvline(1, color="#5f6368", linewidth=0.8)
        level(left, 1.0)
        left.set(xscale="log", yscale="log", xlabel="best before outcome supervision / best for SFT alone")
        left.set(ylabel="cost of stopping as for SFT alone, percent", title="SFT before outcome supervision")
        left.legend(loc="lower right")
        rows = table[table[Column.RULE] == PENALTY]
        for look, (column, label) in zip(
            LOOKS, ((Column.CONVERGED, "SFT converged"), (Column.BEST, "SFT stopped well")), strict=False
        ):
            y = rows[column] / rows[Column.NONE]
            draw_points(right, rows[Column.STRENGTH], y, look, label, markersize=3.2, alpha=0.7)
        level(right, 1.0, "without SFT")
        right.set(xscale="log", yscale="log", xlabel="interference r / eta (small: strong)")
        right.set(ylabel="error after outcome supervision / without SFT", title="convergence before it")
        right.legend(loc="upper right")
        caption(
            figure,
            f"exact theory, {config.seeds} random settings, d = {config.dimension}, .3 d to 8 d rows a "
            "stage; "
            "outcome supervision at its best penalty; costs below .1 percent are drawn there",
        )
    return figure


def cost_of_not_knowing(saved: Saved[SftBeforeOutcome], threshold: float) -> Judgement:
    parts, held = [], np.zeros(0, dtype=bool)
    for rule in (PENALTY, TIME):
        rows = saved.table[saved.table[Column.RULE] == rule]
        cost, ratio = rows[Column.ALONE] / rows[Column.BEST], rows[Column.RATIO]
        up, down = (ratio > 1.1).mean(), (ratio < 0.9).mean()
        parts.append(
            f"{rule}: cost {100 * (cost.median() - 1):.2f} percent in the median, "
            f"{100 * (cost.quantile(0.95) - 1):.1f} "
            f"at .95, {100 * (cost.max() - 1):.1f} at most; ratio {spread(ratio)}, above 1.1 in "
            f"{up:.2f}, below .9 in "
            f"{down:.2f}"
        )
        held = (cost <= _CHEAP).to_numpy() if rule == PENALTY else held
    return judge_share(held, threshold, note="; ".join(parts))


def ruinous(saved: Saved[SftBeforeOutcome], threshold: float) -> Judgement:
    rows = saved.table[saved.table[Column.RULE] == PENALTY]
    over, against = rows[Column.CONVERGED] / rows[Column.BEST], rows[Column.CONVERGED] / rows[Column.NONE]
    strong = rows[Column.STRENGTH] <= _STRONG
    note = (
        f"error over that of well-stopped SFT, r <= eta/10: {spread(over[strong])}, else "
        f"{spread(over[~strong])}; "
        f"over that without SFT: {spread(against[strong])}, else {spread(against[~strong])}; worse "
        "than without SFT "
        f"in {(against[strong] > 1).mean():.2f} and {(against[~strong] > 1).mean():.2f}, "
        f"{_RUINOUS:g} times the well-stopped error or more in {(over[strong] >= _RUINOUS).mean():.2f} and "
        f"{(over[~strong] >= _RUINOUS).mean():.2f}"
    )
    return judge_share((against[strong] > 1).to_numpy(), threshold, note=note)


_TEST = "tests/studies/training_time/test_before_outcome.py::"
_SETTING = f"exact theory, {DRAWN}; .3d to 8d rows a stage; {POWER}"
CLAIMS = (
    Claim(
        "sft-before-outcome",
        "ours (with arXiv 2511.08401)",
        "How long SFT lasts need not know that outcome supervision follows: the penalty that is best "
        "for SFT alone "
        "costs at most 1 percent after it.",
        _SETTING,
        "share of settings where it does",
        0.75,
        cost_of_not_knowing,
        _TEST + "test_not_knowing_is_judged_by_its_cost",
    ),
    Claim(
        "sft-converged-before-outcome",
        "ours",
        "Under strong interference (r <= eta/10) SFT to convergence before outcome supervision is "
        "worse than no SFT.",
        _SETTING,
        "share of settings with r <= eta/10 where it is",
        0.5,
        ruinous,
        _TEST + "test_ruin_counts_strong_interference_alone",
    ),
)
STUDY = Study(
    name=NAME,
    title="How long should SFT last when outcome supervision follows?",
    story=(
        "About as long as it should last alone: stopping it as if nothing followed costs next to nothing. "
        "Training it to convergence first is another matter where the data interfere."
    ),
    experiment=SftBeforeOutcome,
    draw=draw_sft_before_outcome,
    claims=CLAIMS,
)
