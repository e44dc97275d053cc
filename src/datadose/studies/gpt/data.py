"""The nonlinear transformer beside the linear theory: which post-training data, and what the weights do.

For every stage and pretraining length: post-training on Delta, on Sigma0 + Delta, and on Delta with as many
prompts of Sigma0 (replay); the error on rare and common directions of the target, and on Sigma0 (forgetting).
The same stages train the linear transformer on the same prompts. Of both the first thought is regressed on
S w*, direction by direction: the slope is the model's effective operator there, which theory gives for the
linear one. Controls: w* itself as the regressor, and prompts of Sigma0 instead of the target. Exact
predictors stand beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, MaxNLocator, NullFormatter

from datadose.configs import STAGES
from datadose.drawing.style import GREY, LOOKS, caption, draw_points, name_ticks, new_grid
from datadose.models.baselines import baselines
from datadose.power import CONFIDENCE, mean_interval
from datadose.studies import tables
from datadose.studies.gpt.figure3 import Figure3
from datadose.studies.gpt.figure3_study import SETTING, TEST
from datadose.studies.gpt.runs import (
    COMMON,
    GPT,
    PHI,
    PRETRAINING,
    RARE,
    TARGET,
    VARIANT_NAMES,
    VARIANTS,
    GptPretraining,
    GptRun,
    GptTask,
    W,
    errors,
    of,
    pretrained_cells,
    pretraining_round,
    run_gpt,
    run_lsa,
    tests,
)
from datadose.studies.ledger import judge_settings
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import LSA, as_table
from datadose.studies.trends import SHORT_NAMES
from datadose.sweep import Cell, Round

NAME = "gpt_data"
UNTOUCHED = "untouched"
BASELINE = "baseline"
"""The model that is none: an exact predictor, whose name is the row's kind."""


class Column(tables.Column):
    """The columns of ``gpt_data.csv`` before those in ``SLOPES``; the error is that on the target."""

    KIND, VARIANT = "kind", "variant"
    PRETRAIN_STEPS, OPTIMISER_STEPS = "pretrain_steps", "optimiser_steps"
    RARE_ERROR, COMMON_ERROR = "target_rare_error", "target_common_error"
    PRETRAINING_ERROR = "pretraining_error"


GROUPS = (RARE, COMMON)
SLOPES = [
    of(test, group, what, regressor)
    for test in (TARGET, PRETRAINING)
    for what in ("slope", "fit")
    for group in GROUPS
    for regressor in (PHI, W)
]


def measure_baselines(task: GptTask) -> dict[str, dict[str, float]]:
    """Cell: errors of the exact predictors after ``test_steps`` thoughts, by name."""
    found: dict[str, dict[str, float]] = {}
    for name, predictor in baselines(task.sigma0, task.length).items():
        steps = 1 if name == "one gradient step" else task.test_steps
        found[name] = {}
        for test, batch in tests(task, task.length):
            with torch.no_grad():
                found[name] |= errors(task, test, predictor.rollout(batch, steps)[..., -1, :], batch)
    return found


@dataclass(frozen=True)
class GptData:
    """The base point of Figure 3's stages, three kinds of data, GPT and LSA."""

    task: GptTask
    pretrainings: tuple[GptPretraining, ...]
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
        f = Figure3.preset(name)
        sizes = f.base_prompts, f.base_chain, f.stage_steps
        return cls(f.task, f.pretrainings, *sizes, f.learning_rate, 1e-2, f.seeds, f.batch)

    def _settings(self) -> Iterator[tuple[str, int, GptRun]]:
        """(model, pretraining steps, run): the untouched model first, then each stage and kind of data."""
        n, k = self.task.length, self.chain_steps
        for model, T in [*((GPT, p.steps) for p in self.pretrainings), (LSA, 0)]:
            # The linear model takes larger steps: its weights are of order one, not 0.02.
            rate = self.learning_rate if model == GPT else self.lsa_learning_rate
            yield model, T, GptRun("sft", "delta", 0, n, 1, 0, rate)
            for stage, steps in zip(STAGES, self.stage_steps, strict=True):
                for variant in VARIANTS:
                    yield model, T, GptRun(stage, variant, self.prompts, n, k, steps, rate, self.batch)

    def _runs(self) -> list[tuple[str, int, GptRun, int | None]]:
        """Every setting at every seed; the untouched models have none."""
        return [
            (model, T, run, seed)
            for model, T, run in self._settings()
            for seed in (range(self.seeds) if run.prompts else [None])
        ]

    def rounds(self, folder: Path) -> Iterator[Round]:
        """The pretrained models (Figure 3's own), then every run."""
        models = pretrained_cells(self.task, self.pretrainings, folder)
        yield pretraining_round(models.values())
        cells = [Cell(measure_baselines, {"task": self.task})]
        for model, T, run, seed in self._runs():
            shared = {"task": self.task, "run": run, "seed": seed or 0, "length": self.task.length}
            start = {"model": models[T].file} if model == GPT else {}
            cells.append(Cell(run_gpt if start else run_lsa, {**shared, **start}))
        yield "", cells

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a model, pretraining length, stage, kind of data and seed; then the exact predictors."""
        rows = []
        for (model, T, run, seed), found in zip(self._runs(), results[1:], strict=True):
            row = {
                Column.STAGE: run.stage,
                Column.KIND: run.stage if run.prompts else UNTOUCHED,
                Column.VARIANT: run.variant if run.prompts else None,
                Column.PROMPTS: run.prompts,
                Column.STEPS: run.chain_steps,
                Column.SEED: seed,
                Column.OPTIMISER_STEPS: run.steps,
                Column.PRETRAIN_STEPS: T if model == GPT else None,
                Column.DIVERGED: int(found[TARGET] is None),
                **{name: found[name] for name in SLOPES},
            }
            rows.append({**self._row(model, found), **row})
        rows += [{**self._row(BASELINE, found), Column.KIND: name} for name, found in results[0].items()]
        return as_table(rows, Column, more=SLOPES)

    def _row(self, model: str, found: dict[str, float | None]) -> dict[str, Any]:
        return {
            Column.FIGURE: NAME,
            Column.PANEL: model,
            Column.MODEL: model,
            Column.PROMPTS: 0,
            Column.LENGTH: self.task.length,
            Column.INTERFERENCE: 0.0,
            Column.ERROR: found[TARGET],
            Column.DIVERGED: 0,
            Column.RARE_ERROR: found[of(TARGET, RARE)],
            Column.COMMON_ERROR: found[of(TARGET, COMMON)],
            Column.PRETRAINING_ERROR: found[PRETRAINING],
        }


_ERRORS = (
    (Column.RARE_ERROR, "target, rare"),
    (Column.COMMON_ERROR, "target, common"),
    (Column.PRETRAINING_ERROR, "Sigma0"),
)


def draw_gpt_data(table: pd.DataFrame, config: GptData) -> Figure:
    """Top: errors by stage and data; bottom: slopes of the first thought on S w*, GPT against LSA."""
    gpt = table[table[Column.MODEL] == GPT]
    pretrained = sorted(gpt[Column.PRETRAIN_STEPS].dropna().unique())
    columns = len(pretrained) + 1
    with new_grid(2, columns, width=1.6 + 3.1 * columns, height=7.6, sharey=True) as (figure, axes):
        for axis, T in zip(axes[0], pretrained, strict=False):
            _draw_errors(axis, gpt[gpt[Column.PRETRAIN_STEPS] == T], f"GPT pretrained {int(T):,} steps")
        _draw_errors(axes[0][-1], table[table[Column.MODEL] == LSA], "LSA, infinitely many prompts")
        for axis, T in zip(axes[1], pretrained, strict=False):
            _draw_slopes(axis, gpt[gpt[Column.PRETRAIN_STEPS] == T])
        _draw_slopes(axes[1][-1], table[table[Column.MODEL] == LSA])
        # The slopes' rare and common directions have the colours of the errors'.
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), fontsize=8)
        names = table[table[Column.MODEL] == BASELINE]
        exact = ", ".join(f"{row[Column.KIND]} {row[Column.ERROR]:.3g}" for _, row in names.iterrows())
        caption(
            figure,
            f"Exact predictors on the target: {exact}. Numbers beside the slopes: R2 on S w* (R2 on w*), "
            f"rare directions.\nMeans of {config.seeds} seeds; d = {config.task.dimension}, "
            f"B = {config.prompts}, k = {config.chain_steps}.",
        )
    return figure


def _groups(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The untouched model, then stage by stage the three kinds of data."""
    found = [(UNTOUCHED, rows[rows[Column.KIND] == UNTOUCHED])]
    for stage, name in SHORT_NAMES.items():
        for variant, label in VARIANT_NAMES.items():
            own = rows[(rows[Column.KIND] == stage) & (rows[Column.VARIANT] == variant)]
            found.append((f"{name}: {label}", own))
    return found


def _draw_errors(axis: Axes, rows: pd.DataFrame, title: str) -> None:
    groups = _groups(rows)
    for (column, label), look in zip(_ERRORS, LOOKS, strict=False):
        values = [group[column].astype(float).mean() for _, group in groups]
        draw_points(axis, values, range(len(groups)), look, label, markersize=5)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    wide = [tick for p in range(-16, 17) for m in (1, 2, 5) if low <= (tick := float(f"{m}e{p}")) <= high]
    axis.xaxis.set_major_locator(FixedLocator(wide) if len(wide) > 1 else MaxNLocator(3))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set(xlabel="error / d after post-training")
    _name_groups(axis, groups)
    axis.set_title(title, loc="left")


def _name_groups(axis: Axes, groups: Sequence[tuple[str, pd.DataFrame]]) -> None:
    """The names of the groups beside the left panel of a row, from top to bottom."""
    name_ticks(axis.yaxis, [name for name, _ in groups])
    axis.set_ylim(len(groups) - 0.5, -0.5)


def _draw_slopes(axis: Axes, rows: pd.DataFrame) -> None:
    groups = _groups(rows)
    for group, look in zip(GROUPS, LOOKS, strict=False):
        values = [found[of(TARGET, group, "slope", PHI)].astype(float).mean() for _, found in groups]
        draw_points(axis, values, range(len(groups)), look, f"{group} directions", markersize=5)
    fits = [[found[of(TARGET, RARE, "fit", x)].astype(float).mean() for x in (PHI, W)] for _, found in groups]
    for place, (phi, w) in enumerate(fits):
        beside: dict[str, Any] = {
            "xycoords": ("axes fraction", "data"),
            "textcoords": "offset points",
            "va": "center",
        }
        axis.annotate(f"{phi:.2f} ({w:.2f})", (1, place), xytext=(3, 0), fontsize=8, color=GREY, **beside)
    _name_groups(axis, groups)
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.set(xlabel="slope of the first thought on S w*")
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.set_xlim(min(0, axis.get_xlim()[0]), max(1.1 * float(np.nanmax(axis.get_xlim())), 0.1))


def _better_with_replay(saved: Saved[GptData], threshold: float) -> Judgement:
    """Per stage and pretraining: does replay lower the error on Sigma0 after post-training on Delta?"""
    table = saved.table
    rows = table[(table[Column.MODEL] == GPT) & table[Column.VARIANT].notna()]
    verdicts: dict[str, Verdict] = {}
    notes, seeds = [], 0
    for (T, stage), group in rows.groupby([Column.PRETRAIN_STEPS, Column.KIND]):
        wide = group.pivot(index=Column.SEED, columns=Column.VARIANT, values=Column.PRETRAINING_ERROR)
        wide = wide.astype(np.float64)
        seeds = len(wide)
        mean, low, high = np.exp(mean_interval(np.log((wide["delta"] / wide["replay"]).to_numpy())))
        verdict: Verdict = "holds" if low > threshold else "fails" if high < 1 else "mixed"
        verdicts[f"{stage} after {int(T):,}"] = verdict
        notes.append(f"{stage} after {int(T):,}: {mean:.3g} times")
    return judge_settings(
        verdicts, 1.0, seeds, "forgetting with Delta alone over with replay: " + "; ".join(notes)
    )


def _first_thought(saved: Saved[GptData], threshold: float) -> Judgement:
    """Per untouched GPT and group of directions: is S w* a better regressor of the first thought than w*?"""
    table = saved.table
    rows = table[(table[Column.MODEL] == GPT) & (table[Column.KIND] == UNTOUCHED)]
    verdicts: dict[str, Verdict] = {}
    notes = []
    for _, row in rows.iterrows():
        for group in GROUPS:
            phi, w = (float(row[of(TARGET, group, "fit", regressor)]) for regressor in (PHI, W))
            name = f"{group} after {int(row[Column.PRETRAIN_STEPS]):,}"
            verdicts[name] = "holds" if phi >= w + threshold else "fails"
            notes.append(f"{name}: R2 {phi:.2f} on S w*, {w:.2f} on w*")
    return judge_settings(verdicts, 1.0, 1, "; ".join(notes))


CLAIMS = [
    Claim(
        "fig-3-replay",
        "Fig 3 (ours)",
        "GPT-2: replaying Sigma0 prompts in post-training lowers the error on Sigma0 afterwards.",
        f"{SETTING}; half of the post-training prompts from Sigma0, or none",
        f"share of stages and pretraining lengths with a ratio above 1 at {CONFIDENCE:.0%} confidence",
        1.0,
        _better_with_replay,
        f"{TEST}::test_replay_is_judged_per_stage",
        shown_by=("fig3",),
    ),
    Claim(
        "fig-3-mechanism",
        "Fig 3 (ours)",
        "GPT-2: the first thought is a linear function of S w*, as in the linear theory, rather than of w*.",
        f"{SETTING}; the untouched models on the target's prompts, rare and common directions apart",
        "share of models and groups of directions where R2 on S w* is not below that on w*",
        0.0,
        _first_thought,
        f"{TEST}::test_the_mechanism_is_judged_by_both_regressors",
        shown_by=("fig3",),
    ),
]

STUDY = Study(
    name=NAME,
    title="Which data for a real transformer, and what do its weights do?",
    story=(
        "Top: rare and common directions of the target, and the old distribution (forgetting), after each "
        "stage on three kinds of data. Bottom: the slope of the first thought on S w*, which for the linear "
        "model is its operator. For the GPT read it as a summary: how well S w* and w* itself explain the "
        "thought stands below."
    ),
    experiment=GptData,
    draw=draw_gpt_data,
    claims=CLAIMS,
)
