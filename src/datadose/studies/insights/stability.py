"""Insight 3: gradient descent on outcome supervision, where it is stable and how it depends on the sample.

The map: loss after a fixed number of steps over (rho(Gamma0^{-1} Delta), chain length k, step size), one
panel a k. Sigma0 = I here (rho = 1), the data are those of the test, and prompts are long, so that
M = I + V0 Sigma is close to -Gamma0^{-1} Delta and rho(M) to the radius. The theory's line is 2 over the
largest curvature of the population loss at the pretrained model.

Sensitivity: post-test error over prompts B, training steps T and seeds, with prompts of moderate length.
`own step`: every radius has its own step size, a share of 2 over the largest curvature of the loss on a
reference sample (on short prompts the population's curvature means little). `one step`: all radii share that
of the radius nearest 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from datadose.covariance import Array
from datadose.drawing.curves import cell_edges, draw_curve, log_y, plain_log_ticks
from datadose.drawing.hover import Cells, record_cells
from datadose.drawing.style import GREY, LOOKS, Look, caption, draw_lost, draw_theory, new_grid
from datadose.models import PromptBatch
from datadose.models.baselines import pretrained_lsa
from datadose.prompts import draw_wishart, random_stream
from datadose.stages import FixedData, Optimisation, Outcome, held_out_prompts, post_test, train
from datadose.studies import training
from datadose.studies.ledger import PAIRED_SHARE, is_more, judge_settings
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import Setting, SettingsExperiment
from datadose.studies.training import OUTCOME, ScaledShift, finite
from datadose.sweep import Cell
from datadose.theory.outcome import largest_stable_step, population_curvature, rollout_radius

NAME = "insight3_stability"


class Column(training.Column):
    """The columns of this study; ``kind`` is the map or one of PROTOCOLS."""

    SPECTRAL_RADIUS = "spectral_radius"
    ROLLOUT_RADIUS = "rollout_radius"
    LEARNING_RATE = "learning_rate"
    TRAINING_STEPS = "training_steps"
    STABLE_STEP = "stable_step"
    ERROR_BEFORE = "error_before"
    OUTCOME = "outcome"


CAUTION = 0.3
"""The sensitivity runs use this share of a reference sample's stable step: other samples are sharper."""
MAP = "map"
PROTOCOLS = OWN_STEP, ONE_STEP = ("own step", "one step")
OUTCOMES = STABLE, SLOW, DIVERGED = ("stable", "slow", "diverged")
REFERENCE = 999_983
"""Seed of the reference sample."""


@dataclass(frozen=True)
class Descent:
    """Gradient descent on OS at several radii and seeds, side by side; ``descent`` training steps.

    Without ``learning_rate`` it is CAUTION of the stable step on a reference sample at ``step_radius``.
    """

    task: ScaledShift
    radii: tuple[float, ...]
    chain_steps: int
    learning_rate: float | None
    step_radius: float
    prompts: int
    descent: int
    seeds: int


def descend(run: Descent) -> list[list[Any]]:
    """Cell: what is measured, for each of the runs."""
    torch.set_num_threads(1)
    task, k, rate = run.task, run.chain_steps, run.learning_rate
    if rate is None:
        w = random_stream(REFERENCE, "weights").standard_normal((task.dimension, 8 * task.dimension))
        S = draw_wishart(task.target(run.step_radius), task.length, w.shape[1], seed=REFERENCE)
        rate = CAUTION * largest_stable_step(np.diag(task.operator), w, S, k)
    targets, seeds = [task.target(r) for r in run.radii], range(run.seeds)
    data = PromptBatch.join(
        [PromptBatch.draw(Sigma, task.length, run.prompts, seeds=seeds) for Sigma in targets], dim=0
    )
    test = PromptBatch.join(
        [held_out_prompts(Sigma, task.length, 256, runs=run.seeds) for Sigma in targets], dim=0
    )
    model = pretrained_lsa(task.sigma0, task.length, len(targets) * run.seeds)
    before = post_test(model, test, k)[:, 0]
    done = train(model, Outcome(k), FixedData(data), Optimisation("gd", rate, steps=run.descent))
    lost = {entry.run for entry in done.diverged}
    after = post_test(model, test, k)[:, 0]
    rows = []
    for i, (radius, seed) in enumerate(product(run.radii, seeds)):
        target = task.target(radius)
        rolled = rollout_radius(task.operator, target)
        # 2 over the largest curvature of the population's L_OS at the pretrained model.
        stable = 2 / population_curvature(task.operator, target, k)[1]
        start, end = float(before[i]), None if i in lost else finite(after[i : i + 1])[0]
        outcome = DIVERGED if end is None else STABLE if end <= start / 2 else SLOW
        rows.append([radius, seed, rolled, rate, stable, start, outcome, end])
    return rows


@dataclass(frozen=True)
class Stability(SettingsExperiment):
    """The map (``radii`` x ``chain_steps`` x ``learning_rates``) and the sensitivity at ``probe_steps``."""

    figure, columns = NAME, Column
    measured = (
        Column.SPECTRAL_RADIUS,
        Column.SEED,
        Column.ROLLOUT_RADIUS,
        Column.LEARNING_RATE,
        Column.STABLE_STEP,
        Column.ERROR_BEFORE,
        Column.OUTCOME,
        Column.ERROR,
    )
    task: ScaledShift
    radii: tuple[float, ...]
    chain_steps: tuple[int, ...]
    learning_rates: tuple[float, ...]
    prompts: int
    descent: int
    probe: ScaledShift
    probe_radii: tuple[float, ...]
    probe_steps: int
    probes: tuple[tuple[int, int], ...]
    """(B, T) pairs of the sensitivity."""
    map_seeds: int
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> Stability:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(
                ScaledShift(8, 2, 800, rho=1.0), (0.5, 1.0, 2.0), (1, 2), (0.01, 0.3, 10.0), 32, 30,
                ScaledShift(8, 2, 32, rho=1.0), (0.5, 1.0, 2.0), 2, ((16, 30), (64, 8), (64, 30)), 2, 3,
            )  # fmt: skip
        radii = tuple(float(f"{r:.3g}") for r in np.geomspace(0.25, 4.0, 9))
        rates = tuple(float(f"{x:.3g}") for x in np.geomspace(1e-5, 10.0, 11))
        if name == "quick":
            return cls(
                ScaledShift(20, 4, 2000, rho=1.0), radii, (1, 2, 4), rates, 64, 100,
                ScaledShift(20, 4, 80, rho=1.0), radii, 2,
                ((32, 200), (512, 50), (512, 200)), 2, 8,
            )  # fmt: skip
        return cls(
            ScaledShift(100, 20, 10_000, rho=1.0), radii, (1, 2, 4, 8), rates, 256, 300,
            ScaledShift(100, 20, 400, rho=1.0), radii, 2,
            ((128, 300), (2048, 75), (2048, 300)), 3, 10,
        )  # fmt: skip

    def settings(self) -> Iterator[Setting]:
        """One cell a descent: a chain length and step size (all radii inside), or a radius and (B, T)."""
        middle = min(self.probe_radii, key=lambda r: abs(r - 1))
        runs = [
            (MAP, Descent(self.task, self.radii, k, rate, 1.0, self.prompts, self.descent, self.map_seeds))
            for k, rate in product(self.chain_steps, self.learning_rates)
        ]
        runs += [
            (kind, Descent(self.probe, (r,), self.probe_steps, None, own, B, T, self.seeds))
            for kind, r in product(PROTOCOLS, self.probe_radii)
            for own in [r if kind == OWN_STEP else middle]
            for B, T in self.probes
        ]
        for kind, run in runs:
            yield (
                Cell(descend, {"run": run}),
                {
                    Column.PANEL: f"k={run.chain_steps}",
                    Column.STAGE: OUTCOME,
                    Column.PROMPTS: run.prompts,
                    Column.LENGTH: run.task.length,
                    Column.STEPS: run.chain_steps,
                    Column.KIND: kind,
                    Column.TRAINING_STEPS: run.descent,
                },
            )


_MAP_LOOKS = {
    SLOW: ("#f1f3f4", "slow: error not halved"),
    STABLE: ("#8ab8d8", "learns"),
    DIVERGED: ("#a63603", "diverges (any seed)"),
}
_THEORY = "theory: 2 / curvature"


def draw_stability(table: pd.DataFrame, config: Stability) -> Figure:
    """Insight 3: where gradient descent on OS is stable, one panel a k; then its sensitivity."""
    chains = config.chain_steps
    maps = table[table[Column.KIND] == MAP]
    with new_grid(1, len(chains) + 1, width=3.3 * (len(chains) + 1) + 0.6, height=4.3) as (figure, grid):
        axes = grid[0]
        for axis, k in zip(axes, chains, strict=False):
            _draw_map(axis, maps[maps[Column.STEPS] == k], k)
            axis.sharey(axes[0])
        axes[0].set_ylabel("step size of gradient descent")
        handles: list[Any] = [
            Patch(facecolor=color, edgecolor=GREY, linewidth=0.5, label=name)
            for color, name in _MAP_LOOKS.values()
        ]
        handles.append(Line2D([], [], color="black", linewidth=1.8, label=_THEORY))
        axes[0].legend(handles=handles, loc="lower left", frameon=True, framealpha=0.9, fontsize=8)
        _draw_sensitivity(axes[-1], table[table[Column.KIND] != MAP], config)
        task, probe = config.task, config.probe
        caption(
            figure,
            f"maps: d = {task.dimension}, m = {task.shifted}, Sigma0 = I, n = {task.length}, B = "
            f"{config.prompts}, {config.descent} steps, {config.map_seeds} seeds; right: n = "
            f"{probe.length}, k = {config.probe_steps}, {config.seeds} seeds, bars: standard errors",
        )
    return figure


def _draw_map(axis: Axes, rows: pd.DataFrame, k: int) -> None:
    # A cell is as bad as its worst seed: diverged, else slow, else stable.
    badness = rows.assign(badness=rows[Column.OUTCOME].map(OUTCOMES.index))
    worst = badness.pivot_table(
        index=Column.LEARNING_RATE, columns=Column.SPECTRAL_RADIUS, values="badness", aggfunc="max"
    )
    x, y = worst.columns.to_numpy(dtype=float), worst.index.to_numpy(dtype=float)
    x_edges, y_edges = (np.exp(cell_edges(np.log(centres))) for centres in (x, y))
    cells = worst.to_numpy()
    colors, words = zip(*(_MAP_LOOKS[outcome] for outcome in OUTCOMES), strict=True)
    white: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.4}
    axis.pcolormesh(x_edges, y_edges, cells, cmap=ListedColormap(colors), vmin=0, vmax=2, **white)
    names = [[words[int(code)] for code in row] for row in cells]
    record_cells(axis, Cells(x_edges, y_edges, list(x), list(y), names, ""))
    line = rows.groupby(Column.SPECTRAL_RADIUS)[Column.STABLE_STEP].first()
    axis.plot(line.index, line.to_numpy(), color="white", linewidth=3.4)
    draw_theory(axis, line.index, line, Look("black", "-", ""), f"_{_THEORY}", linewidth=1.8)
    axis.set_yscale("log")
    axis.set_ylim(y_edges[0], y_edges[-1])
    plain_log_ticks(axis, (0.25, 0.5, 1, 2, 4) if len(x) > 4 else [float(v) for v in x])
    axis.set_xlim(x_edges[0], x_edges[-1])
    axis.grid(visible=False)
    axis.set(title=f"k = {k} thinking step{'s' if k > 1 else ''}", xlabel="rho(inv(Gamma0) Delta)")


def _draw_sensitivity(axis: Axes, rows: pd.DataFrame, config: Stability) -> None:
    few, many = (min(config.probes), max(config.probes))
    settings = [(kind, probe) for kind in PROTOCOLS for probe in (few, many)]
    for look, (kind, (B, T)) in zip(LOOKS, settings, strict=True):
        chosen = rows[
            (rows[Column.KIND] == kind) & (rows[Column.PROMPTS] == B) & (rows[Column.TRAINING_STEPS] == T)
        ]
        lost = chosen[chosen[Column.DIVERGED] == 1][Column.SPECTRAL_RADIUS].unique()
        # A mean over the remaining runs would be too good for a step size that loses runs.
        whole = chosen[~chosen[Column.SPECTRAL_RADIUS].isin(lost)]
        draw_curve(axis, whole, Column.SPECTRAL_RADIUS, Column.ERROR, look, f"{kind}, B = {B}")
        draw_lost(axis, lost, look, f"_{kind}, B = {B}: runs lost")
    plain_log_ticks(axis, (0.25, 0.5, 1, 2, 4))
    log_y(axis)
    axis.set(title="sample size (crosses: runs lost)", xlabel="rho(inv(Gamma0) Delta)")
    axis.set_ylabel("post-test error / d")
    low, high = rows[Column.ERROR].min(), rows[Column.ERROR].max()
    axis.set_ylim(0.85 * low, 2.2 * high)
    axis.legend(loc="upper left", bbox_to_anchor=(0, 0.94), fontsize=8)


BELOW, NEAR, ABOVE = (0.0, 0.6), (0.7, 1.5), (1.9, np.inf)
"""Radii that count as far below, near, and far above rho(M) = 1 (and novel)."""


def sensitive_near_one(saved: Saved[Stability], threshold: float) -> Judgement:
    table, config = saved.table, saved.config
    few, many = min(config.probes), max(config.probes)
    short = min((B, T) for B, T in config.probes if B == many[0])
    verdicts = _curvature_grows(table[table[Column.KIND] == MAP])
    notes: list[str] = []
    for kind in PROTOCOLS:
        rows = table[table[Column.KIND] == kind]
        for name, measured in _sensitivities(rows, few, many, short).items():
            near, below, above = (_group(measured, *ends) for ends in (NEAR, BELOW, ABOVE))
            for where, other in (("below", below), ("above", above)):
                label = f"{kind}: {name} than {where}"
                verdicts[label] = "fails" if np.isnan(other).any() else is_more(near - other)
            notes.append(f"{kind} {name} {below.mean():.3f} / {near.mean():.3f} / {above.mean():.3f}")
        lost = rows[rows[Column.SPECTRAL_RADIUS] >= ABOVE[0]][Column.DIVERGED].mean()
        notes.append(f"{kind} diverged above {lost:.0%}")
    note = "below / near / above rho(M) = 1: " + "; ".join(notes)
    return judge_settings(verdicts, threshold, config.seeds, note)


def _curvature_grows(rows: pd.DataFrame) -> dict[str, Verdict]:
    """Per k > 1: the largest step size that no seed lost falls from far below to near, and again to above."""
    verdicts: dict[str, Verdict] = {}
    for k, part in rows.groupby(Column.STEPS):
        worst = part.groupby([Column.LEARNING_RATE, Column.SPECTRAL_RADIUS])[Column.DIVERGED].max().unstack()
        largest = {r: max(lost.index[lost == 0], default=0.0) for r, lost in worst.items()}
        groups = [
            [rate for r, rate in largest.items() if low <= r <= high] for low, high in (BELOW, NEAR, ABOVE)
        ]
        if k > 1 and all(groups):
            falls = max(groups[0]) > max(groups[1]) > max(groups[2])
            verdicts[f"largest safe step falls, k={k}"] = "holds" if falls else "fails"
    return verdicts


def _sensitivities(
    rows: pd.DataFrame, few: tuple[int, int], many: tuple[int, int], short: tuple[int, int]
) -> dict[str, pd.DataFrame]:
    """(seed x radius) tables: spread of log error at few prompts, gain from data, gain from steps."""

    def log_error(setting: tuple[int, int]) -> pd.DataFrame:
        chosen = rows[(rows[Column.PROMPTS] == setting[0]) & (rows[Column.TRAINING_STEPS] == setting[1])]
        wide = chosen.pivot(index=Column.SEED, columns=Column.SPECTRAL_RADIUS, values=Column.ERROR)
        return np.log(wide)

    low, high = log_error(few), log_error(many)
    return {
        "more variation": (low - low.mean()).abs(),
        "more gain from data": low - high,
        "more gain from steps": log_error(short) - high,
    }


def _group(measured: pd.DataFrame, low: float, high: float) -> Array:
    """Per seed, the mean over the radii of a group; NaN if a run of the group was lost."""
    chosen = measured.loc[:, (measured.columns >= low) & (measured.columns <= high)]
    return np.asarray(chosen.mean(axis=1, skipna=False), dtype=np.float64)


CLAIMS = (
    Claim(
        "insight-3",
        "Insight 3",
        "OS is sensitive to sample variation near rho(M) = 1 (sharp curvature): more than away from it, its "
        "result varies with the sample and gains from more data and more steps.",
        "gradient descent on OS, d=20, m=4, Sigma0=I; map: n=2000, k in {1, 2, 4}; sensitivity: k=2, n=80, "
        "B 32 against 512, 50 against 200 steps, every radius at its own step size and all at one (sizes of "
        "the preset)",
        PAIRED_SHARE,
        1.0,
        sensitive_near_one,
        "tests/studies/insights/test_claims.py::test_sensitivity_is_judged_against_both_sides",
    ),
)
STUDY = Study(
    name=NAME,
    title="When is outcome supervision stable? (Insight 3)",
    story=(
        "The step size that gradient descent bears falls steeply with the size of the shift and with the "
        "number of thinking steps, about where the curvature theory puts it. With a step size of its own, a "
        "shift near rho(M) = 1 is not more sensitive to its sample than others; one step size for all is "
        "what breaks larger shifts."
    ),
    experiment=Stability,
    draw=draw_stability,
    claims=CLAIMS,
)
