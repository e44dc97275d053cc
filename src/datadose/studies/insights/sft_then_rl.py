"""SFT, then RL, against either alone at the same number of optimiser steps, over the size of the shift.

Arms: SFT for T steps, RL for T steps, SFT for T/2 and then RL for T/2, and the reverse as a control. Each
stage starts its own optimiser. RL always has ``recipe.prompts`` prompts; demonstrations are as many, or few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import pandas as pd
from matplotlib.figure import Figure

from datadose.configs import Stage
from datadose.drawing.curves import log_y
from datadose.drawing.style import caption, new_grid
from datadose.stages import held_out_prompts
from datadose.studies import training
from datadose.studies.ledger import PAIRED_SHARE, beats, both, by_seed, finite_mean, judge_settings, seeds_of
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import Setting, SettingsExperiment
from datadose.studies.training import BASE, RL, SFT, Recipe, ScaledShift
from datadose.sweep import Cell

NAME = "sft_then_rl"
SFT_THEN_RL, RL_THEN_SFT = "sft then rl", "rl then sft"
ARMS: dict[str, tuple[Stage, ...]] = {
    BASE: (),
    SFT: (SFT,),
    RL: (RL,),
    SFT_THEN_RL: (SFT, RL),
    RL_THEN_SFT: (RL, SFT),
}


class Column(training.Column):
    """The columns of this study."""

    SPECTRAL_RADIUS = "spectral_radius"
    TRAINING_STEPS = "training_steps"
    DEMONSTRATIONS = "demonstrations"
    SHIFT_ERROR = "shift_error"
    PASS_RATE = "pass_rate"


def train_arm(
    task: ScaledShift, radius: float, arm: str, recipe: Recipe, demonstrations: int, seeds: list[int]
) -> list[list[float | None]]:
    """Cell: what is measured, per seed after all stages of an arm, each with the recipe's steps."""
    target, stages = task.target(radius), ARMS[arm]
    model, lost = training.adapt(
        task, task.sigma0, target, stages, recipe, eta=task.eta, seeds=seeds, demonstrations=demonstrations
    )
    return training.measure(
        model, held_out_prompts(target, task.length, runs=len(seeds)), recipe, task.inside, lost
    )


@dataclass(frozen=True)
class SftThenRl(SettingsExperiment):
    """Radii (panels), arms (kind), numbers of demonstrations and total steps."""

    figure, columns = NAME, Column
    measured = (Column.SEED, Column.ERROR, Column.SHIFT_ERROR, Column.PASS_RATE)

    task: ScaledShift
    recipe: Recipe
    radii: tuple[float, ...]
    demonstrations: tuple[int, ...]
    training_steps: tuple[int, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> SftThenRl:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(ScaledShift(10, 2, 100), Recipe(32, 0, batch=16), (0.5, 3.0), (8, 32), (10, 20), 3)
        if name == "quick":
            return cls(
                ScaledShift(20, 5, 200), Recipe(256, 0), (0.7, 1.5, 3.0), (16, 256), (100, 300, 900), 6
            )
        return cls(
            ScaledShift(100, 20, 1000), Recipe(1024, 0), (0.7, 1.5, 3.0), (64, 1024), (200, 600, 1800), 10
        )

    def settings(self) -> Iterator[Setting]:
        """One cell a radius, arm and number of steps, its seeds side by side, and a row a seed.

        Arms without SFT have no demonstrations.
        """
        for radius, (arm, stages) in product(self.radii, ARMS.items()):
            counts = self.demonstrations if SFT in stages else (0,)
            for count, steps in product(counts, self.training_steps if stages else (0,)):
                arguments = {
                    "task": self.task,
                    "radius": radius,
                    "arm": arm,
                    "recipe": replace(self.recipe, steps=steps // max(len(stages), 1)),
                    "demonstrations": count,
                    "seeds": list(range(self.seeds)),
                }
                yield (
                    Cell(train_arm, arguments),
                    {
                        Column.PANEL: training.radius_panel(radius),
                        Column.STAGE: arm,
                        Column.PROMPTS: self.recipe.prompts if RL in stages else 0,
                        Column.DEMONSTRATIONS: count,
                        Column.LENGTH: self.task.length,
                        Column.STEPS: self.recipe.chain_steps,
                        Column.KIND: arm,
                        Column.SPECTRAL_RADIUS: radius,
                        Column.TRAINING_STEPS: steps,
                    },
                )


def draw_sft_then_rl(table: pd.DataFrame, config: SftThenRl) -> Figure:
    """SFT then RL: error against the total steps; columns are shifts, rows numbers of demonstrations."""
    arms = {RL: "RL alone", SFT: "SFT alone", SFT_THEN_RL: "SFT, then RL", RL_THEN_SFT: "RL, then SFT"}
    radii, counts = config.radii, config.demonstrations
    size = {"width": 3.5 * len(radii) + 0.6, "height": 2.7 * len(counts) + 0.5}
    with new_grid(len(counts), len(radii), **size, sharex=True, sharey="col") as (figure, grid):
        for axes, count in zip(grid, counts, strict=True):
            for axis, radius in zip(axes, radii, strict=True):
                rows = table[table[Column.PANEL] == training.radius_panel(radius)]
                rows = rows[rows[Column.DEMONSTRATIONS].isin([0, count])]
                training.draw_arms(axis, rows, Column.TRAINING_STEPS, Column.ERROR, arms, "before")
                log_y(axis)
            axes[0].set_ylabel(f"{count} demonstrations\npost-test error / d")
        for axis, radius in zip(grid[0], radii, strict=True):
            axis.set_title(f"rho(inv(Gamma0) Delta) = {radius:g}")
        for axis in grid[-1]:
            axis.set_xlabel("optimiser steps in all")
        grid[-1][-1].legend(loc="lower left", fontsize=8)
        task, recipe = config.task, config.recipe
        caption(
            figure,
            f"d = {task.dimension}, m = {task.shifted}, n = {task.length}, eta = {task.eta:g}; "
            f"RL: GRPO on {recipe.prompts} prompts, 0/1 reward; Adam {recipe.learning_rate:g}, k = "
            f"{recipe.chain_steps}; {config.seeds} seeds, standard errors",
        )
    return figure


def sft_then_rl_wins(saved: Saved[SftThenRl], threshold: float) -> Judgement:
    table = saved.table
    verdicts: dict[str, Verdict] = {}
    notes: list[str] = []
    for (panel, steps), rows in table[table[Column.TRAINING_STEPS] > 0].groupby(
        [Column.PANEL, Column.TRAINING_STEPS]
    ):
        alone = by_seed(rows[rows[Column.KIND] == RL])
        for count in sorted(set(rows[Column.DEMONSTRATIONS]) - {0}):
            part = rows[rows[Column.DEMONSTRATIONS] == count]
            errors = {str(kind): by_seed(arm) for kind, arm in part.groupby(Column.KIND)}
            joint = errors[SFT_THEN_RL]
            name = f"{panel} T={steps} demonstrations={count:.0f}"
            verdicts[name] = both(beats(joint, alone), beats(joint, errors[SFT]))
            notes.append(
                f"{name}: rl {finite_mean(alone):.3g}, sft {finite_mean(errors[SFT]):.3g}, "
                f"both {finite_mean(joint):.3g}, reversed {finite_mean(errors[RL_THEN_SFT]):.3g}"
            )
    return judge_settings(verdicts, threshold, seeds_of(table), "; ".join(notes))


CLAIMS = (
    Claim(
        "sft-then-rl",
        "ours",
        "SFT and then RL beats either alone at the same number of optimiser steps.",
        "d=20, m=5, n=200, rho(Gamma0^{-1} Delta) in {0.7, 1.5, 3}, 16 or 256 demonstrations, RL on 256 "
        "prompts with 0/1 reward, 100 to 900 steps (sizes of the preset)",
        PAIRED_SHARE,
        1.0,
        sft_then_rl_wins,
        "tests/studies/insights/test_claims.py::test_composition_has_to_beat_both",
    ),
)
STUDY = Study(
    name=NAME,
    title="SFT, then RL?",
    story=(
        "At the same number of optimiser steps, SFT followed by RL almost never beats the better of the two "
        "alone. RL alone is best when demonstrations are few and the task is within reach; beyond its reach "
        "only SFT moves the model."
    ),
    experiment=SftThenRl,
    draw=draw_sft_then_rl,
    claims=CLAIMS,
)
