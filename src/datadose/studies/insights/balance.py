"""Insight 4 and section 7: how pretraining's balance decides what post-training can do.

Delta and the trace of Sigma0 stay fixed while mass moves between the shift's directions and the rest:
a share s of the trace lies on the shift's m directions, evenly. From each pretrained model SFT, outcome
supervision and RL (verifiable reward on the shift's directions) take equal steps on equal prompts with one
optimiser; outcome supervision also runs with plain gradient descent at one step size, set for the isotropic
Sigma0. The spectral radius rho(Gamma0^{-1} Delta) stands beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from datadose.configs import STAGES
from datadose.covariance import Array
from datadose.drawing.curves import FIFTH, draw_curve, log_y, plain_log_ticks
from datadose.drawing.style import GREY, LOOKS, caption, draw_lost, name_ticks, new_grid
from datadose.stages import held_out_prompts
from datadose.studies import training
from datadose.studies.insights.stability import ABOVE
from datadose.studies.ledger import (
    PAIRED_SHARE,
    beats,
    by_seed,
    finite_mean,
    is_more,
    judge_settings,
    seeds_of,
)
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import Setting, SettingsExperiment
from datadose.studies.training import BASE, OUTCOME, RL, SFT, Directions, Recipe, adapt, measure
from datadose.sweep import Cell
from datadose.theory.outcome import adaptation_radius, population_curvature
from datadose.theory.pretraining import pretrained_operator

NAME = "insight4_balance"
OUTCOME_GD = "outcome-gd"
"""Outcome supervision by plain gradient descent."""
ARMS = {**training.ARMS, OUTCOME_GD: (OUTCOME,)}


class Column(training.Column):
    """The columns of this study."""

    SHARE = "share"
    SPECTRAL_RADIUS = "spectral_radius"
    LEARNING_RATE = "learning_rate"
    SHIFT_ERROR = "shift_error"
    PASS_RATE = "pass_rate"


@dataclass(frozen=True)
class TraceBudget(Directions):
    """tr Sigma0 = d, of which a share lies on the first m directions; Delta = ``strength`` there."""

    strength: float = 1.0
    eta: float = 0.2

    @property
    def delta(self) -> Array:
        """Delta."""
        return np.where(self.inside, self.strength, 0.0)

    def sigma0(self, share: float) -> Array:
        """Sigma0 with this share of the trace on the shift's directions."""
        d, m = self.dimension, self.shifted
        return np.where(self.inside, share * d / m, (1 - share) * d / (d - m))

    def radius(self, share: float) -> float:
        """rho(Gamma0^{-1} Delta)."""
        return adaptation_radius(self.sigma0(share), self.delta, self.length)


def post_train_share(
    budget: TraceBudget, share: float, arm: str, recipe: Recipe, seeds: list[int]
) -> list[list[float | None]]:
    """Cell: what is measured, per seed after one arm."""
    sigma0 = budget.sigma0(share)
    target = sigma0 + budget.delta
    model, lost = adapt(budget, sigma0, target, ARMS[arm], recipe, eta=budget.eta, seeds=seeds)
    return measure(
        model, held_out_prompts(target, budget.length, runs=len(seeds)), recipe, budget.inside, lost
    )


@dataclass(frozen=True)
class Balance(SettingsExperiment):
    """Shares of the trace budget, five arms: base, SFT, OS, RL, and OS by plain gradient descent."""

    figure, columns = NAME, Column
    measured = (Column.SEED, Column.ERROR, Column.SHIFT_ERROR, Column.PASS_RATE)

    budget: TraceBudget
    recipe: Recipe
    shares: tuple[float, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> Balance:
        """The configuration of a preset; the share m/d is the isotropic Sigma0."""
        if name == "smoke":
            return cls(TraceBudget(10, 2, 40), Recipe(32, 20, batch=16), (0.02, 0.2, 0.7), 3)
        shares = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
        if name == "quick":
            return cls(TraceBudget(30, 6, 120), Recipe(256, 500, learning_rate=5e-3), shares, 8)
        return cls(TraceBudget(100, 20, 400), Recipe(1024, 1000, learning_rate=5e-3), shares, 10)

    def _gd(self) -> Recipe:
        even = self.budget.sigma0(self.budget.shifted / self.budget.dimension)
        data = np.where(self.budget.inside, even + self.budget.delta, 0.0)
        V0 = pretrained_operator(even, self.budget.length)
        rate = 1 / population_curvature(V0, data, self.recipe.chain_steps)[1]
        return replace(self.recipe, optimiser="gd", learning_rate=float(rate))

    def settings(self) -> Iterator[Setting]:
        """One cell a share and arm, its seeds side by side; a row a seed."""
        for share, arm in product(self.shares, ARMS):
            recipe = self._gd() if arm == OUTCOME_GD else self.recipe
            arguments = {"budget": self.budget, "share": share, "arm": arm, "recipe": recipe}
            yield (
                Cell(post_train_share, {**arguments, "seeds": list(range(self.seeds))}),
                {
                    Column.PANEL: f"share={share:g}",
                    Column.STAGE: OUTCOME if arm == OUTCOME_GD else arm,
                    Column.PROMPTS: 0 if arm == BASE else recipe.prompts,
                    Column.LENGTH: self.budget.length,
                    Column.STEPS: recipe.chain_steps,
                    Column.KIND: arm,
                    Column.SHARE: share,
                    Column.SPECTRAL_RADIUS: self.budget.radius(share),
                    Column.LEARNING_RATE: None if arm == BASE else recipe.learning_rate,
                },
            )


def draw_balance(table: pd.DataFrame, config: Balance) -> Figure:
    """Insight 4 and section 7: error and pass rate after each stage against the share of the shift."""
    budget, recipe = config.budget, config.recipe
    arms = ((SFT, "SFT"), (OUTCOME, "OS"), (RL, "RL, 0/1 reward"), (OUTCOME_GD, "OS, plain descent"))
    radius = table.groupby(Column.SHARE)[Column.SPECTRAL_RADIUS].first()
    panels = ((Column.ERROR, "post-test error / d"), (Column.PASS_RATE, "pass rate on the shift"))
    with new_grid(1, 2, width=10.5, height=4.5) as (figure, grid):
        axes = grid[0]
        for axis, (column, label) in zip(axes, panels, strict=True):
            base = table[table[Column.KIND] == BASE]
            draw_curve(axis, base, Column.SHARE, column, FIFTH, "pretrained model")
            for look, (kind, name) in zip(LOOKS, arms, strict=True):
                rows = table[table[Column.KIND] == kind]
                draw_curve(axis, rows, Column.SHARE, column, look, name)
                if column == Column.ERROR:
                    lost = rows.groupby(Column.SHARE)[Column.DIVERGED].mean()
                    draw_lost(axis, lost[lost > 0.5].index, look, f"_{name}: most runs diverged")
            plain_log_ticks(axis, radius.index)
            shares = [f"{s:g}\n({r:.2g})" for s, r in radius.items()]
            title = "share of tr Sigma0 on the shift's directions (rho(inv(Gamma0) Delta))"
            name_ticks(axis.xaxis, shares, radius.index, title)
            axis.axvline(budget.shifted / budget.dimension, color=GREY, linewidth=0.9, linestyle=":")
            axis.set_ylabel(label)
        log_y(axes[0])
        axes[0].set_title("crosses: most runs diverged; dotted: Sigma0 = I")
        axes[0].legend(loc="upper center")
        axes[1].set_title("what the shift asks for")
        caption(
            figure,
            f"d = {budget.dimension}, m = {budget.shifted}, n = {budget.length}, Delta = "
            f"{budget.strength:g}; B = {recipe.prompts}, {recipe.steps} steps of Adam "
            f"({recipe.learning_rate:g}), k = {recipe.chain_steps}; {config.seeds} seeds, "
            "standard errors, over the runs that survived",
        )
    return figure


_CONCENTRATED = 0.7
"""From this share of the trace on the shift's directions, pretraining starves the rest."""


def _arms(table: pd.DataFrame) -> dict[tuple[float, str], pd.DataFrame]:
    return {(float(s), str(kind)): rows for (s, kind), rows in table.groupby([Column.SHARE, Column.KIND])}


def _balanced(saved: Saved[Balance], table: pd.DataFrame) -> float:
    """The share nearest to the isotropic Sigma0."""
    budget = saved.config.budget
    shares = table[Column.SHARE].unique()
    return float(shares[np.abs(shares - budget.shifted / budget.dimension).argmin()])


def _all_or_none(share: float) -> Verdict:
    return "holds" if share == 1 else "fails" if share == 0 else "mixed"


def incremental_or_novel(saved: Saved[Balance], threshold: float) -> Judgement:
    table = saved.table
    arms, even = _arms(table), _balanced(saved, table)
    verdicts: dict[str, Verdict] = {}
    notes: list[str] = []
    for share, radius in table.groupby(Column.SHARE)[Column.SPECTRAL_RADIUS].first().items():
        where = f"radius {radius:.2g}"
        after = by_seed(arms[share, OUTCOME], Column.SHIFT_ERROR)
        before = by_seed(arms[share, BASE], Column.SHIFT_ERROR)
        lost = float(arms[share, OUTCOME_GD][Column.DIVERGED].mean())
        if radius < 1:
            verdicts[f"{where}: OS improves"] = beats(after, before)
            verdicts[f"{where}: descent is stable"] = _all_or_none(1 - lost)
        elif radius >= ABOVE[0]:
            verdicts[f"{where}: descent is unstable"] = _all_or_none(lost)
            balanced = by_seed(arms[even, OUTCOME], Column.SHIFT_ERROR)
            verdicts[f"{where}: OS learns slowly"] = beats(balanced, after)
        notes.append(
            f"{where}: {finite_mean(before):.3g} -> {finite_mean(after):.3g}, descent lost {lost:.0%}"
        )
    note = "error on the shift before -> after OS: " + "; ".join(notes)
    return judge_settings(verdicts, threshold, seeds_of(table), note)


def balance_helps(saved: Saved[Balance], threshold: float) -> Judgement:
    table = saved.table
    arms, even = _arms(table), _balanced(saved, table)
    radius = table.groupby(Column.SHARE)[Column.SPECTRAL_RADIUS].first()
    starved = [s for s in radius.index if radius[s] >= ABOVE[0]]
    verdicts: dict[str, Verdict] = {}
    notes: list[str] = []
    for arm in STAGES:
        balanced = by_seed(arms[even, arm])
        for share in [*starved, *(s for s in radius.index if s >= _CONCENTRATED)]:
            verdicts[f"{arm}, share {share:g}"] = beats(balanced, by_seed(arms[share, arm]))
        errors = ", ".join(f"{s:g} {finite_mean(by_seed(arms[s, arm])):.3g}" for s in radius.index)
        notes.append(f"{arm} by share: {errors}")
    for share in starved:
        for arm in (OUTCOME, RL):
            penalty = [np.log(by_seed(arms[share, a]) / by_seed(arms[even, a])) for a in (arm, SFT)]
            verdicts[f"share {share:g}: {arm} suffers more than sft"] = is_more(penalty[0] - penalty[1])
    return judge_settings(verdicts, threshold, seeds_of(table), "; ".join(notes))


CLAIMS = (
    Claim(
        "insight-4",
        "Insight 4",
        "OS improves what pretraining partly taught (rho(Gamma0^{-1} Delta) < 1, stable); a novel task "
        "(about 2 or more) starts unstable and learns slowly.",
        "d=30, m=6, n=120, tr Sigma0 = d fixed, Delta fixed; OS with Adam at equal steps, and plain gradient "
        "descent at one step size (sizes of the preset)",
        PAIRED_SHARE,
        1.0,
        incremental_or_novel,
        "tests/studies/insights/test_claims.py::test_incremental_and_novel_shifts_are_told_apart",
    ),
    Claim(
        "sec-7",
        "Sec 7",
        "Balanced pretraining keeps post-training in the stable regime: it beats starved and concentrated "
        "pretraining after SFT, OS and RL, and OS and RL suffer more from starvation than SFT.",
        "d=30, m=6, n=120, tr Sigma0 = d fixed, Delta fixed; equal prompts, steps and optimiser (sizes of "
        "the preset)",
        PAIRED_SHARE,
        1.0,
        balance_helps,
        "tests/studies/insights/test_claims.py::test_balance_is_judged_per_stage",
    ),
)
STUDY = Study(
    name=NAME,
    title="What should pretraining hold? (Insight 4, section 7)",
    story=(
        "With a fixed budget, pretraining that gives the shift's directions their share makes every stage "
        "work, while starved pretraining leaves outcome supervision far behind SFT, and RL without any "
        "signal. SFT repairs starvation best; too much mass on the shift costs the rest."
    ),
    experiment=Balance,
    draw=draw_balance,
    claims=CLAIMS,
)
