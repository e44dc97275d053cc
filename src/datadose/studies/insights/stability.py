"""Insight 3: gradient descent on outcome supervision, where it is stable and how it depends on the sample.

The map: loss after a fixed number of steps over (rho(Gamma0^{-1} Delta), chain length k, step size), one
panel a k. Sigma0 = I here (rho = 1), the data are those of the test, and prompts are long, so that
M = I + V0 Sigma is close to -Gamma0^{-1} Delta and rho(M) to the radius. The theory's line is 2 over the
largest curvature of the population loss at the pretrained model.

Sensitivity: post-test error over prompts B, training steps T and seeds, with prompts of moderate length.
`own step`: every radius has its own step size, a share of 2 over the largest curvature of the loss on a
reference sample (on short prompts the population's curvature says little). `one step`: all radii share that
of the radius nearest 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from datadose.drawing.curves import draw_curve, log_y, plain_log_ticks
from datadose.drawing.hover import Cells, record_cells
from datadose.drawing.style import (
    GREY,
    LOOKS,
    Look,
    caption,
    draw_lost,
    draw_theory,
    new_grid,
)
from datadose.models import PromptBatch
from datadose.prompts import draw_wishart, random_stream
from datadose.stages import FixedData, Optimisation, Outcome, held_out_prompts, post_test, train
from datadose.studies.ledger import PAIRED_SHARE, is_more, judge_settings
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.training import (
    Task,
    finite,
    insight_row,
    insight_table,
    pretrained,
)
from datadose.sweep import Cell
from datadose.theory.outcome import largest_stable_step, population_curvature, rollout_radius

NAME = "insight3_stability"
EXTRA = (
    "kind",
    "spectral_radius",
    "rollout_radius",
    "learning_rate",
    "training_steps",
    "stable_step",
    "error_before",
    "outcome",
)
CAUTION = 0.3
"""The sensitivity runs use this share of a reference sample's stable step: other samples are sharper."""
PROTOCOLS = ("own step", "one step")
REFERENCE = 999_983
"""Seed of the reference sample."""


def stable_step(task: Task, radius: float, steps: int) -> float:
    """2 / the largest curvature of the population's L_OS at the pretrained model."""
    return 2 / population_curvature(task.operator, task.target(radius), steps)[1]


def cautious_step(task: Task, radius: float, steps: int, prompts: int) -> float:
    """A share of the stable step of gradient descent on a reference sample of this many prompts."""
    w = random_stream(REFERENCE, "weights").standard_normal((task.dimension, prompts))
    S = draw_wishart(task.target(radius), task.length, prompts, seed=REFERENCE)
    return CAUTION * largest_stable_step(np.diag(task.operator), w, S, steps)


def descend(
    task: Task,
    radii: list[float],
    steps: int,
    learning_rate: float | None,
    step_radius: float,
    prompts: int,
    descent: int,
    seeds: list[int],
) -> list[list[float | None]]:
    """Cell: [error before, after, step size] per radius and seed, side by side.

    Without ``learning_rate`` it is the cautious step at ``step_radius``.
    """
    torch.set_num_threads(1)
    if learning_rate is None:
        learning_rate = cautious_step(task, step_radius, steps, 8 * task.dimension)
    batches = [PromptBatch.draw(task.target(r), task.length, prompts, seeds=seeds) for r in radii]
    data = PromptBatch(torch.cat([b.weights for b in batches]), task.length, _stacked(batches))
    tests = [held_out_prompts(task.target(r), task.length, 256, runs=len(seeds)) for r in radii]
    test = PromptBatch(torch.cat([b.weights for b in tests]), task.length, _stacked(tests))
    model = pretrained(task.operator, len(radii) * len(seeds))
    before = post_test(model, test, steps)[:, 0]
    done = train(model, Outcome(steps), FixedData(data), Optimisation("gd", learning_rate, steps=descent))
    lost = {entry.run for entry in done.diverged}
    after = post_test(model, test, steps)[:, 0]
    return [
        [float(before[run]), None if run in lost else finite(after[run : run + 1])[0], learning_rate]
        for run in range(len(before))
    ]


def _stacked(batches: list[PromptBatch]) -> torch.Tensor:
    held = [b.covariances for b in batches if b.covariances is not None]
    return torch.cat(held)


@dataclass(frozen=True)
class Stability:
    """The map (``radii`` x ``chain_steps`` x ``learning_rates``) and the sensitivity at ``probe_steps``."""

    task: Task
    radii: tuple[float, ...]
    chain_steps: tuple[int, ...]
    learning_rates: tuple[float, ...]
    prompts: int
    descent: int
    probe: Task
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
                Task(8, 2, 800, rho=1.0), (0.5, 1.0, 2.0), (1, 2), (0.01, 0.3, 10.0), 32, 30,
                Task(8, 2, 32, rho=1.0), (0.5, 1.0, 2.0), 2, ((16, 30), (64, 8), (64, 30)), 2, 3,
            )  # fmt: skip
        radii = tuple(float(f"{r:.3g}") for r in np.geomspace(0.25, 4.0, 9))
        rates = tuple(float(f"{x:.3g}") for x in np.geomspace(1e-5, 10.0, 11))
        if name == "quick":
            return cls(
                Task(20, 4, 2000, rho=1.0), radii, (1, 2, 4), rates, 64, 100,
                Task(20, 4, 80, rho=1.0), radii, 2,
                ((32, 200), (512, 50), (512, 200)), 2, 8,
            )  # fmt: skip
        return cls(
            Task(100, 20, 10_000, rho=1.0), radii, (1, 2, 4, 8), rates, 256, 300,
            Task(100, 20, 400, rho=1.0), radii, 2,
            ((128, 300), (2048, 75), (2048, 300)), 3, 10,
        )  # fmt: skip

    def _maps(self) -> list[tuple[int, float]]:
        return [(k, rate) for k in self.chain_steps for rate in self.learning_rates]

    def _probes(self) -> list[tuple[str, float, int, int]]:
        return [(p, r, B, T) for p in PROTOCOLS for r in self.probe_radii for B, T in self.probes]

    def _middle(self) -> float:
        return min(self.probe_radii, key=lambda r: abs(r - 1))

    def cells(self) -> list[Cell]:
        """A cell a chain length and step size (all radii inside), then one a radius and (B, T)."""
        maps: list[dict[str, Any]] = [
            {"task": self.task, "radii": list(self.radii), "steps": k, "learning_rate": rate,
             "step_radius": 1.0, "prompts": self.prompts, "descent": self.descent,
             "seeds": list(range(self.map_seeds))}
            for k, rate in self._maps()
        ]  # fmt: skip
        probes: list[dict[str, Any]] = [
            {"task": self.probe, "radii": [r], "steps": self.probe_steps, "learning_rate": None,
             "step_radius": r if protocol == "own step" else self._middle(),
             "prompts": B, "descent": T, "seeds": list(range(self.seeds))}
            for protocol, r, B, T in self._probes()
        ]  # fmt: skip
        return [Cell(descend, arguments) for arguments in (*maps, *probes)]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """Rows of kind `map` (panel k), `own step`, `one step`; ``outcome`` is stable, slow or diverged."""
        maps = self._maps()
        rows: list[dict[str, Any]] = []
        for (k, _), found in zip(maps, results[: len(maps)], strict=True):
            runs = [(r, seed) for r in self.radii for seed in range(self.map_seeds)]
            for (r, seed), errors in zip(runs, found, strict=True):
                rows.append(_row("map", self.task, r, k, self.prompts, self.descent, seed, errors))
        for (protocol, r, B, T), found in zip(self._probes(), results[len(maps) :], strict=True):
            rows += [
                _row(protocol, self.probe, r, self.probe_steps, B, T, seed, errors)
                for seed, errors in enumerate(found)
            ]
        return insight_table(rows, EXTRA)


def _row(
    kind: str,
    task: Task,
    radius: float,
    steps: int,
    prompts: int,
    descent: int,
    seed: int,
    errors: list[Any],
) -> dict[str, Any]:
    before, after, rate = errors
    return insight_row(
        NAME,
        f"k={steps}",
        stage="outcome",
        prompts=prompts,
        length=task.length,
        steps=steps,
        seed=seed,
        error=after,
        kind=kind,
        spectral_radius=radius,
        rollout_radius=rollout_radius(task.operator, task.target(radius)),
        learning_rate=rate,
        training_steps=descent,
        stable_step=stable_step(task, radius, steps),
        error_before=before,
        outcome="diverged" if after is None else "stable" if after <= before / 2 else "slow",
    )


_OUTCOMES = ("slow", "stable", "diverged")


_MAP_COLORS = ("#f1f3f4", "#8ab8d8", "#a63603")


_MAP_NAMES = ("slow: error not halved", "learns", "diverges (any seed)")
_THEORY = "theory: 2 / curvature"


def draw_stability(table: pd.DataFrame, config: Stability) -> Figure:
    """Insight 3: where gradient descent on OS is stable, one panel a k; then its sensitivity."""
    chains = config.chain_steps
    maps = table[table["kind"] == "map"]
    with new_grid(1, len(chains) + 1, width=3.3 * (len(chains) + 1) + 0.6, height=4.3) as (figure, grid):
        axes = grid[0]
        for axis, k in zip(axes, chains, strict=False):
            _draw_map(axis, maps[maps["steps"] == k], k)
            axis.sharey(axes[0])
        axes[0].set_ylabel("step size of gradient descent")
        handles: list[Any] = [
            Patch(facecolor=color, edgecolor=GREY, linewidth=0.5, label=name)
            for color, name in zip(_MAP_COLORS, _MAP_NAMES, strict=True)
        ]
        handles.append(Line2D([], [], color="black", linewidth=1.8, label=_THEORY))
        axes[0].legend(handles=handles, loc="lower left", frameon=True, framealpha=0.9, fontsize=8)
        _draw_sensitivity(axes[-1], table[table["kind"] != "map"], config)
        task, probe = config.task, config.probe
        caption(
            figure,
            f"maps: d = {task.dimension}, m = {task.shifted}, Sigma0 = I, n = {task.length}, B = "
            f"{config.prompts}, {config.descent} steps, {config.map_seeds} seeds; right: n = "
            f"{probe.length}, k = {config.probe_steps}, {config.seeds} seeds, bars: standard errors",
        )
    return figure


def _draw_map(axis: Axes, rows: pd.DataFrame, k: int) -> None:
    codes = rows["outcome"].map({name: code for code, name in enumerate(_OUTCOMES)})
    # A cell is as bad as its worst seed: diverged, else slow, else stable.
    badness = rows.assign(code=codes.map({0: 1, 1: 0, 2: 2}))
    worst = badness.pivot_table(
        index="learning_rate", columns="spectral_radius", values="code", aggfunc="max"
    )
    picture = worst.replace({0: 1, 1: 0, 2: 2}).to_numpy()
    x, y = worst.columns.to_numpy(dtype=float), worst.index.to_numpy(dtype=float)
    axis.pcolormesh(
        _edges(x),
        _edges(y),
        picture,
        cmap=ListedColormap(_MAP_COLORS),
        vmin=0,
        vmax=2,
        edgecolor="white",
        linewidth=0.4,
    )
    names = [[_MAP_NAMES[int(code)] for code in row] for row in picture]
    record_cells(axis, Cells(_edges(x), _edges(y), list(x), list(y), names, ""))
    line = rows.groupby("spectral_radius")["stable_step"].first()
    axis.plot(line.index, line.to_numpy(), color="white", linewidth=3.4)
    draw_theory(axis, line.index, line, Look("black", "-", ""), f"_{_THEORY}", linewidth=1.8)
    axis.set_yscale("log")
    axis.set_ylim(_edges(y)[0], _edges(y)[-1])
    plain_log_ticks(axis, (0.25, 0.5, 1, 2, 4) if len(x) > 4 else [float(v) for v in x])
    axis.set_xlim(_edges(x)[0], _edges(x)[-1])
    axis.grid(visible=False)
    axis.set_title(f"k = {k} thinking step{'s' if k > 1 else ''}")
    axis.set_xlabel("rho(inv(Gamma0) Delta)")


def _edges(centres: Any) -> Any:
    logs = np.log(centres)
    middle = (logs[1:] + logs[:-1]) / 2
    return np.exp([logs[0] - (middle[0] - logs[0]), *middle, logs[-1] + (logs[-1] - middle[-1])])


def _draw_sensitivity(axis: Axes, rows: pd.DataFrame, config: Stability) -> None:
    few, many = (min(config.probes), max(config.probes))
    settings = [("own step", few), ("own step", many), ("one step", few), ("one step", many)]
    for look, (kind, (B, T)) in zip(LOOKS, settings, strict=True):
        chosen = rows[(rows["kind"] == kind) & (rows["prompts"] == B) & (rows["training_steps"] == T)]
        lost = chosen[chosen["diverged"] == 1]["spectral_radius"].unique()
        # A mean over the survivors would flatter a step size that loses runs.
        whole = chosen[~chosen["spectral_radius"].isin(lost)]
        draw_curve(axis, whole, "spectral_radius", "error", look, f"{kind}, B = {B}")
        draw_lost(axis, lost, look, f"_{kind}, B = {B}: runs lost")
    plain_log_ticks(axis, (0.25, 0.5, 1, 2, 4))
    log_y(axis)
    axis.set_title("sample size (crosses: runs lost)")
    axis.set_xlabel("rho(inv(Gamma0) Delta)")
    axis.set_ylabel("post-test error / d")
    low, high = rows["error"].min(), rows["error"].max()
    axis.set_ylim(0.85 * low, 2.2 * high)
    axis.legend(loc="upper left", bbox_to_anchor=(0, 0.94), fontsize=8)


NEAR = (0.7, 1.5)
"""Radii that count as near rho(M) = 1; below 0.6 is far below, from 1.9 on far above (and novel)."""


BELOW, ABOVE = 0.6, 1.9


def sensitive_near_one(saved: Saved[Stability], threshold: float) -> Judgement:
    table = saved.table
    config = saved.config
    few, many = min(config.probes), max(config.probes)
    short = min((B, T) for B, T in config.probes if B == many[0])
    verdicts = _curvature_grows(table[table["kind"] == "map"])
    notes: list[str] = []
    for kind in ("own step", "one step"):
        rows = table[table["kind"] == kind]
        for name, measured in _sensitivities(rows, few, many, short).items():
            near, below, above = (_group(measured, *ends) for ends in (NEAR, (0, BELOW), (ABOVE, np.inf)))
            for where, other in (("below", below), ("above", above)):
                label = f"{kind}: {name} than {where}"
                verdicts[label] = "fails" if np.isnan(other).any() else is_more(near - other)
            notes.append(f"{kind} {name} {below.mean():.3f} / {near.mean():.3f} / {above.mean():.3f}")
        lost = rows[rows["spectral_radius"] >= ABOVE]["diverged"].mean()
        notes.append(f"{kind} diverged above {lost:.0%}")
    note = "below / near / above rho(M) = 1: " + "; ".join(notes)
    return judge_settings(verdicts, threshold, int(config.seeds), note)


def _curvature_grows(rows: pd.DataFrame) -> dict[str, Verdict]:
    """Per k > 1: the largest step size that no seed lost falls from far below to near, and again to above."""
    verdicts: dict[str, Verdict] = {}
    for k, part in rows.groupby("steps"):
        safe = part.groupby(["spectral_radius", "learning_rate"])["diverged"].max().reset_index()
        largest = safe[safe["diverged"] == 0].groupby("spectral_radius")["learning_rate"].max()
        largest = largest.reindex(safe["spectral_radius"].unique()).fillna(0.0)
        ends = [largest[(largest.index >= low) & (largest.index <= high)] for low, high in
                ((0, BELOW), NEAR, (ABOVE, np.inf))]  # fmt: skip
        if k > 1 and all(len(e) for e in ends):
            falls = ends[0].max() > ends[1].max() > ends[2].max()
            verdicts[f"largest safe step falls, k={k}"] = "holds" if falls else "fails"
    return verdicts


def _sensitivities(
    rows: pd.DataFrame, few: tuple[int, int], many: tuple[int, int], short: tuple[int, int]
) -> dict[str, pd.DataFrame]:
    """(seed x radius) tables: spread of log error at few prompts, gain from data, gain from steps."""

    def log_error(setting: tuple[int, int]) -> pd.DataFrame:
        chosen = rows[(rows["prompts"] == setting[0]) & (rows["training_steps"] == setting[1])]
        wide = chosen.pivot(index="seed", columns="spectral_radius", values="error")
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
        "tests/claims/test_insight_claims.py::test_sensitivity_is_judged_against_both_sides",
    ),
)
STUDY = Study(
    name="insight3_stability",
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
