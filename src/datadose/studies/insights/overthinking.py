"""Overthinking: post-test error against the number of thinking steps, after each stage, with its theory.

At W~ = I the answer after k steps is off by (I + V S)^k w*. For long prompts the error is
||(I + V Sigma)^k||_F^2 / d, which falls with k if rho(I + V Sigma) < 1 and grows if not; on prompts of length
n S varies and its powers have heavy tails, so the exact expectation is estimated over Wishart draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from datadose.configs import STAGES, Stage
from datadose.drawing.curves import level, plain_log_ticks
from datadose.drawing.style import LOOKS, caption, draw_simulation, draw_theory, new_figure
from datadose.models.baselines import pretrained_lsa
from datadose.stages import held_out_prompts, post_test
from datadose.studies import tables
from datadose.studies.ledger import (
    PAIRED_SHARE,
    beats,
    by_seed,
    finite_mean,
    judge_settings,
    seeds_of,
)
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import as_table
from datadose.studies.training import (
    BASE,
    OUTCOME,
    RL,
    SFT,
    Recipe,
    ScaledShift,
    finite,
    post_train,
    radius_panel,
    stage_prompts,
)
from datadose.sweep import Cell
from datadose.theory.outcome import rollout_error, rollout_radius

NAME = "overthinking"
ARMS = (BASE, *STAGES)


class Column(tables.Column):
    """The columns of this study; ``steps`` are those of training's chains, ``thinking_steps`` the test's."""

    KIND = "kind"
    SPECTRAL_RADIUS = "spectral_radius"
    ROLLOUT_RADIUS = "rollout_radius"
    THINKING_STEPS = "thinking_steps"
    PREDICTED_LONG = "predicted_long"


def think(
    task: ScaledShift,
    radius: float,
    arm: str,
    recipe: Recipe,
    thinking: list[int],
    draws: int,
    seeds: list[int],
) -> list[list[list[float | None]]]:
    """Cell: per seed [rho(I + V Sigma)] and errors / d at each step count: test, theory, long prompts."""
    torch.set_num_threads(1)
    target = task.target(radius)
    model = pretrained_lsa(task.sigma0, task.length, len(seeds))
    lost: set[int] = set()
    if arm != BASE:
        stage = cast("Stage", arm)
        data = np.where(task.inside, target, 0.0)
        prompts = stage_prompts(stage, data, task.length, task.eta, recipe.prompts, seeds)
        lost = post_train(model, stage, prompts, recipe, eta=task.eta, inside=task.inside, seeds=seeds)
    tested = post_test(model, held_out_prompts(target, task.length, runs=len(seeds)), thinking)
    found: list[list[list[float | None]]] = []
    for run in range(len(seeds)):
        if run in lost or not bool(torch.isfinite(tested[run]).all()):
            nothing: list[float | None] = [None] * len(thinking)
            found.append([[None], nothing, nothing, nothing])
            continue
        V = model.V[run].detach().double().numpy()
        exact = [rollout_error(V, target, k, task.length, draws=draws, seed=1).value for k in thinking]
        long = [rollout_error(V, target, k).value for k in thinking]
        found.append([[rollout_radius(V, target)], finite(tested[run]), [*exact], [*long]])
    return found


@dataclass(frozen=True)
class Overthinking:
    """Radii (panels), stages, thinking steps."""

    task: ScaledShift
    recipe: Recipe
    radii: tuple[float, ...]
    thinking: tuple[int, ...]
    draws: int
    """Wishart prompts behind each predicted error."""
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> Overthinking:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(ScaledShift(10, 2, 60), Recipe(32, 20, batch=16), (0.5, 2.0), (1, 2, 4, 8), 50, 2)
        thinking = (1, 2, 3, 4, 6, 8, 12, 16)
        if name == "quick":
            return cls(ScaledShift(20, 5, 120), Recipe(256, 300), (0.5, 1.2, 2.0), thinking, 400, 6)
        return cls(ScaledShift(100, 20, 600), Recipe(1024, 400), (0.5, 1.2, 2.0), thinking, 400, 10)

    def _settings(self) -> list[tuple[float, str]]:
        return [(radius, arm) for radius in self.radii for arm in ARMS]

    def cells(self) -> list[Cell]:
        """One cell a radius and stage, its seeds side by side."""
        shared = {
            "task": self.task,
            "recipe": self.recipe,
            "thinking": list(self.thinking),
            "draws": self.draws,
            "seeds": list(range(self.seeds)),
        }
        return [Cell(think, {**shared, "radius": radius, "arm": arm}) for radius, arm in self._settings()]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a radius (panel), stage, number of thinking steps and seed."""
        rows = []
        for (radius, arm), found in zip(self._settings(), results, strict=True):
            for seed, ((rolled,), tested, exact, long) in enumerate(found):
                rows += [
                    {
                        Column.FIGURE: NAME,
                        Column.PANEL: radius_panel(radius),
                        Column.STAGE: arm,
                        Column.PROMPTS: 0 if arm == BASE else self.recipe.prompts,
                        Column.LENGTH: self.task.length,
                        Column.STEPS: self.recipe.chain_steps,
                        Column.SEED: seed,
                        Column.ERROR: error,
                        Column.PREDICTED: predicted,
                        Column.KIND: arm,
                        Column.SPECTRAL_RADIUS: radius,
                        Column.ROLLOUT_RADIUS: rolled,
                        Column.THINKING_STEPS: k,
                        Column.PREDICTED_LONG: far,
                    }
                    for k, error, predicted, far in zip(self.thinking, tested, exact, long, strict=True)
                ]
        return as_table(rows, Column)


def draw_overthinking(table: pd.DataFrame, config: Overthinking) -> Figure:
    """Overthinking: error against thinking steps, one panel a shift, one curve a stage, with its theory."""
    arms = ((BASE, "pretrained"), (SFT, "after SFT"), (OUTCOME, "after OS"), (RL, "after RL"))
    radii = config.radii
    with new_figure(len(radii), width=3.6 * len(radii) + 0.4) as (figure, axes):
        for axis, radius in zip(axes, radii, strict=True):
            rows = table[table[Column.PANEL] == radius_panel(radius)]
            for look, (arm, label) in zip(LOOKS, arms, strict=True):
                chosen = rows[rows[Column.KIND] == arm]
                theory = chosen.groupby(Column.THINKING_STEPS)[Column.PREDICTED].mean()
                draw_theory(axis, theory.index, theory.to_numpy(), look, label)
                far = chosen.groupby(Column.THINKING_STEPS)[Column.PREDICTED_LONG].mean()
                named = f"_{label}, theory of long prompts"
                draw_theory(axis, far.index, far.to_numpy(), look, named, linewidth=0.7, alpha=0.75)
                draw_simulation(axis, chosen, Column.THINKING_STEPS, look, f"_{label}, simulated")
            axis.axvline(config.recipe.chain_steps, color="#5f6368", linewidth=0.9, linestyle=":")
            level(axis, 1.0)
            plain_log_ticks(axis, config.thinking)
            axis.set_yscale("log")
            axis.set_title(f"rho(inv(Gamma0) Delta) = {radius:g}")
            axis.set_xlabel("thinking steps at the post-test")
        axes[0].set_ylim(2e-4, 3e3)
        axes[0].set_ylabel("post-test error / d")
        axes[0].legend(loc="upper left")
        task, recipe = config.task, config.recipe
        caption(
            figure,
            f"d = {task.dimension}, m = {task.shifted}, n = {task.length}; trained with k = "
            f"{recipe.chain_steps} (dotted), {recipe.steps} steps; lines: theory at this n, thin: long "
            f"prompts; markers: {config.seeds} seeds, standard errors; dashes: no answer",
        )
    return figure


def thinking_hurts(saved: Saved[Overthinking], threshold: float) -> Judgement:
    table = saved.table
    longest = table[Column.THINKING_STEPS].max()
    verdicts: dict[str, Verdict] = {}
    notes: list[str] = []
    for (panel, kind), rows in table.groupby([Column.PANEL, Column.KIND], sort=False):
        trained = by_seed(rows[rows[Column.THINKING_STEPS] == rows[Column.STEPS]])
        last = by_seed(rows[rows[Column.THINKING_STEPS] == longest])
        name = f"{panel} {kind}"
        verdicts[name] = beats(trained, last)
        means = rows.groupby(Column.THINKING_STEPS)[Column.ERROR].mean()
        notes.append(
            f"{name} (rho(I + V Sigma) {rows['rollout_radius'].mean():.2f}): {finite_mean(trained):.3g} -> "
            f"{finite_mean(last):.3g}, best at {means.idxmin():.0f}"
        )
    note = f"error at the trained length -> at {longest:.0f} steps: " + "; ".join(notes)
    return judge_settings(verdicts, threshold, seeds_of(table), note)


CLAIMS = (
    Claim(
        "overthinking",
        "ours (Insight 3)",
        "Thinking longer than the model was trained for raises the post-test error, before and after every "
        "stage.",
        "d=20, m=5, n=120, rho(Gamma0^{-1} Delta) in {0.5, 1.2, 2}, trained with k=2, tested with 16 (sizes "
        "of the preset)",
        PAIRED_SHARE,
        1.0,
        thinking_hurts,
        "tests/studies/insights/test_claims.py::test_overthinking_is_judged_per_stage",
    ),
)
STUDY = Study(
    name=NAME,
    title="How long should the model think?",
    story=(
        "On prompts of finite length, errors may explode with further thinking even where the long-prompt "
        "theory says they shrink. Near tasks gain from more thinking; after SFT the model bears more of it "
        "than after outcome supervision or RL."
    ),
    experiment=Overthinking,
    draw=draw_overthinking,
    claims=CLAIMS,
)
