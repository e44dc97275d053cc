"""Overthinking: post-test error against the number of thinking steps, after each stage, with its theory.

At W~ = I the answer after k steps is off by (I + V S)^k w*. For long prompts the error is
||(I + V Sigma)^k||_F^2 / d, which falls with k if rho(I + V Sigma) < 1 and grows if not; on prompts of length
n S varies and its powers have heavy tails, so the exact expectation is estimated over Wishart draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pandas as pd
from matplotlib.figure import Figure

from datadose.drawing.curves import level, plain_log_ticks
from datadose.drawing.style import LOOKS, caption, draw_simulation, draw_theory, new_figure
from datadose.stages import held_out_prompts, post_test
from datadose.studies import training
from datadose.studies.ledger import PAIRED_SHARE, beats, by_seed, finite_mean, judge_settings, seeds_of
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import Setting, SettingsExperiment
from datadose.studies.training import ARMS, BASE, OUTCOME, RL, SFT, Recipe, ScaledShift
from datadose.sweep import Cell
from datadose.theory.outcome import rollout_error, rollout_radius

NAME = "overthinking"


class Column(training.Column):
    """The columns of this study; ``steps`` are those of training's chains, ``thinking_steps`` the test's."""

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
) -> list[list[float | None]]:
    """Cell: what is measured, per seed and number of thinking steps; a lost run has no numbers."""
    target = task.target(radius)
    model, lost = training.adapt(task, task.sigma0, target, ARMS[arm], recipe, eta=task.eta, seeds=seeds)
    tested = post_test(model, held_out_prompts(target, task.length, runs=len(seeds)), thinking)
    rows: list[list[float | None]] = []
    for run, errors in enumerate(map(training.finite, tested)):
        if run in lost or None in errors:
            rows += [[run, None, k, None, None, None] for k in thinking]
            continue
        V = model.V[run].detach().double().numpy()
        for k, error in zip(thinking, errors, strict=True):
            exact = rollout_error(V, target, k, task.length, draws=draws, seed=1).value
            rows.append([run, rollout_radius(V, target), k, error, exact, rollout_error(V, target, k).value])
    return rows


@dataclass(frozen=True)
class Overthinking(SettingsExperiment):
    """Radii (panels), stages, thinking steps."""

    figure, columns = NAME, Column
    measured = (
        Column.SEED,
        Column.ROLLOUT_RADIUS,
        Column.THINKING_STEPS,
        Column.ERROR,
        Column.PREDICTED,
        Column.PREDICTED_LONG,
    )

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

    def settings(self) -> Iterator[Setting]:
        """One cell a radius and stage, its seeds side by side; a row a seed and number of thinking steps."""
        shared = {
            "task": self.task,
            "recipe": self.recipe,
            "thinking": list(self.thinking),
            "draws": self.draws,
            "seeds": list(range(self.seeds)),
        }
        for radius, arm in product(self.radii, ARMS):
            yield (
                Cell(think, {**shared, "radius": radius, "arm": arm}),
                {
                    Column.PANEL: training.radius_panel(radius),
                    Column.STAGE: arm,
                    Column.PROMPTS: 0 if arm == BASE else self.recipe.prompts,
                    Column.LENGTH: self.task.length,
                    Column.STEPS: self.recipe.chain_steps,
                    Column.KIND: arm,
                    Column.SPECTRAL_RADIUS: radius,
                },
            )


def draw_overthinking(table: pd.DataFrame, config: Overthinking) -> Figure:
    """Overthinking: error against thinking steps, one panel a shift, one curve a stage, with its theory."""
    arms = ((BASE, "pretrained"), (SFT, "after SFT"), (OUTCOME, "after OS"), (RL, "after RL"))
    radii = config.radii
    with new_figure(len(radii), width=3.6 * len(radii) + 0.4) as (figure, axes):
        for axis, radius in zip(axes, radii, strict=True):
            rows = table[table[Column.PANEL] == training.radius_panel(radius)]
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
            axis.set(yscale="log", title=f"rho(inv(Gamma0) Delta) = {radius:g}")
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
