"""Insight 1 with hardness measured: SFT on the prompts that the pretrained model itself finds hard.

A pool mixes four kinds of prompts at random: they show the shift's directions, the directions that did not
move, the pretraining distribution, or the full target. The kinds are not marked: each candidate is
scored by the pretrained model's own one-step error on its demonstration, ||eta w* + V0 S w*||^2 / (eta^2 d),
and B are taken from the top (hard), the bottom (easy) or at random; `shift` takes prompts that show the shift
alone, which in practice is not possible. In the other pools a share of the demonstrations belongs to another
prompt.

SFT is the minimiser V* (Thm 4.1) and gradient descent for a fixed number of steps from V0 (Thm 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from datadose.covariance import Array
from datadose.drawing.curves import log_y
from datadose.drawing.style import caption, new_figure
from datadose.prompts import Moments, draw_moments
from datadose.studies import training
from datadose.studies.insights.kinds_of_data import kinds_of_data
from datadose.studies.ledger import PAIRED_SHARE, beats, by_seed, judge_settings, seeds_of
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import MINIMISER, TRAINED, Setting, SettingsExperiment, TwoBlock, as_table
from datadose.studies.training import BASE, SFT, draw_arms
from datadose.sweep import Cell
from datadose.theory.post_test import post_test_error
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.sft import GradientDescent, sft_minimiser

NAME = "insight1_selection"
SELECTIONS = HARD, EASY, RANDOM, SHIFT = ("hard", "easy", "random", "shift")
CLEAN = "clean"
"""The panel of the pool whose demonstrations are all right."""


class Column(training.Column):
    """The columns of this study; ``kind`` is the selection."""

    HARDNESS = "hardness"
    SHARE_SHIFT = "share_shift"
    SHARE_WRONG = "share_wrong"


@dataclass(frozen=True)
class Pool:
    """Candidates: moments (w*, S w*), kind of each (0 is the shift), whether its demonstration is wrong."""

    moments: Moments
    kind: Any
    wrong: Any


def draw_pool(block: TwoBlock, length: int, size: int, wrong: float, seed: int) -> Pool:
    """``size`` candidates in random order, a share ``wrong`` with another prompt's demonstration."""
    kinds = kinds_of_data(block)
    each = size // len(kinds)
    drawn = [draw_moments(block.eta * A, length, each, seed=(seed, i)) for i, A in enumerate(kinds)]
    rng = np.random.default_rng(np.random.SeedSequence((seed, 1), spawn_key=(100,)))
    order = rng.permutation(each * len(kinds))
    weights = np.hstack([m.weights for m in drawn])[:, order]
    phi = np.hstack([m.phi for m in drawn])[:, order]
    is_wrong = np.arange(len(order)) < round(wrong * len(order))
    weights[:, is_wrong] = np.roll(weights[:, is_wrong], 1, axis=1)
    return Pool(Moments(weights, phi), np.repeat(np.arange(len(kinds)), each)[order], is_wrong)


def measured_hardness(pool: Pool, V0: Array, eta: float) -> Array:
    """The model's one-step error on each demonstration, ||eta w* + V0 S w*||^2 / (eta^2 d), shape (N,)."""
    residual = eta * pool.moments.weights + V0[:, None] * pool.moments.phi
    return np.asarray((residual**2).mean(axis=0) / eta**2)


def choose(selection: str, hardness: Array, pool: Pool, prompts: int, seed: int) -> Any:
    """Indices of the B chosen candidates."""
    if selection == HARD:
        return np.argsort(-hardness)[:prompts]
    if selection == EASY:
        return np.argsort(hardness)[:prompts]
    rng = np.random.default_rng(np.random.SeedSequence((seed, 2), spawn_key=(100,)))
    order = rng.permutation(len(hardness))
    return (order if selection == RANDOM else order[pool.kind[order] == 0])[:prompts]


def select_and_tune(
    block: TwoBlock, length: int, size: int, wrong: float, counts: list[int], descent: int, seed: int
) -> list[list[Any]]:
    """Cell: what is measured, per selection, B and estimator."""
    pool = draw_pool(block, length, size, wrong, seed)
    shift = block.shift(0.0)
    V0 = pretrained_operator(shift.sigma0, length)
    hardness = measured_hardness(pool, V0, block.eta)
    rows: list[list[Any]] = []
    for selection, B in product(SELECTIONS, counts):
        chosen = choose(selection, hardness, pool, B, seed)
        moments = Moments(pool.moments.weights[:, chosen], pool.moments.phi[:, chosen])
        dynamics = GradientDescent.of(moments, block.eta, V0, 0)
        fitted = {
            MINIMISER: sft_minimiser(moments, block.eta, V0),
            TRAINED: dynamics.iterate(dynamics.balanced_step, descent),
        }
        about = [(x[chosen]).mean() for x in (hardness, pool.kind == 0, pool.wrong)]
        rows += [
            [selection, B, name, post_test_error(V, shift.target, length), *map(float, about)]
            for name, V in fitted.items()
        ]
    return rows


@dataclass(frozen=True)
class HardnessSelection(SettingsExperiment):
    """Pools (panels), four selections, error against B."""

    figure, columns = NAME, Column
    measured = (
        Column.KIND,
        Column.PROMPTS,
        Column.ESTIMATOR,
        Column.ERROR,
        Column.HARDNESS,
        Column.SHARE_SHIFT,
        Column.SHARE_WRONG,
    )

    block: TwoBlock
    length: int
    pool: int
    wrong: tuple[float, ...]
    """Shares of wrong demonstrations, one pool each."""
    prompts: tuple[int, ...]
    descent: int
    """Gradient steps of the trained estimator."""
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> HardnessSelection:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(TwoBlock(20, 10), 40, 240, (0.0, 0.3), (3, 5, 40), 100, 3)
        if name == "quick":
            return cls(TwoBlock(40, 20), 80, 1600, (0.0, 0.1, 0.3), (5, 10, 15, 80, 160, 320), 100, 20)
        return cls(TwoBlock(100, 50), 200, 4000, (0.0, 0.1, 0.3), (12, 25, 37, 200, 400, 800), 100, 10)

    def settings(self) -> Iterator[Setting]:
        """One cell a pool and seed; a row a selection, B and estimator."""
        shared = {
            "block": self.block,
            "length": self.length,
            "size": self.pool,
            "counts": list(self.prompts),
            "descent": self.descent,
        }
        for wrong, seed in product(self.wrong, range(self.seeds)):
            yield (
                Cell(select_and_tune, {**shared, "wrong": wrong, "seed": seed}),
                {
                    Column.PANEL: CLEAN if wrong == 0 else f"{wrong:.0%} wrong",
                    Column.STAGE: SFT,
                    Column.LENGTH: self.length,
                    Column.INTERFERENCE: 0.0,
                    Column.SEED: seed,
                },
            )

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a pool (panel), seed, selection (kind), B and estimator, behind the untouched model's."""
        shift = self.block.shift(0.0)
        base = post_test_error(pretrained_operator(shift.sigma0, self.length), shift.target, self.length)
        untouched = {
            Column.FIGURE: NAME,
            Column.STAGE: BASE,
            Column.KIND: BASE,
            Column.PROMPTS: 0,
            Column.ERROR: base,
            Column.INTERFERENCE: None,
        }
        rows = [{**shared, **untouched} for _, shared in self.settings()]
        return as_table([*rows, *self.rows(results)], Column)


def draw_selection(table: pd.DataFrame, config: HardnessSelection) -> Figure:
    """Insight 1: error against B per pool, one curve a selection (gradient descent)."""
    block = config.block
    kinds = {
        HARD: "hardest for the model",
        RANDOM: "random",
        EASY: "easiest for the model",
        SHIFT: "shift only (needs labels)",
    }
    panels = list(dict.fromkeys(table[Column.PANEL]))
    with new_figure(len(panels), width=3.6 * len(panels) + 0.4) as (figure, axes):
        for axis, panel in zip(axes, panels, strict=True):
            rows = table[(table[Column.PANEL] == panel) & (table[Column.ESTIMATOR] != MINIMISER)]
            draw_arms(axis, rows, Column.PROMPTS, Column.ERROR, kinds, "before SFT")
            log_y(axis)
            share = "all" if panel == CLEAN else f"{panel.split()[0]} of"
            axis.set_title(f"{share} demonstrations {'right' if panel == CLEAN else 'wrong'}")
            axis.set_xlabel("SFT prompts B taken from the pool")
        axes[0].set_ylabel("post-test error / d")
        axes[0].legend(loc="lower left")
        caption(
            figure,
            f"d = {block.dimension}, m = {block.shifted}, rho = {block.rho:g}, eta = "
            f"{block.eta:g}, n = {config.length}; pool of {config.pool}; {config.descent} steps "
            f"of gradient descent; means of {config.seeds} seeds with standard errors",
        )
    return figure


def hard_wins(clean: bool) -> Callable[[Saved[HardnessSelection], float], Judgement]:
    """Hardest against random (and, on the clean pool, easiest) at every B and for both estimators."""

    def judge(saved: Saved[HardnessSelection], threshold: float) -> Judgement:
        table = saved.table
        table = table[((table[Column.PANEL] == CLEAN) == clean) & (table[Column.PROMPTS] > 0)]
        verdicts: dict[str, Verdict] = {}
        notes: list[str] = []
        for (pool, estimator, B), rows in table.groupby([Column.PANEL, Column.ESTIMATOR, Column.PROMPTS]):
            kinds = {str(kind): by_seed(part) for kind, part in rows.groupby(Column.KIND)}
            for other in (RANDOM, EASY) if clean else (RANDOM,):
                verdicts[f"{pool} {estimator} B={B:.0f} {other}"] = beats(kinds[HARD], kinds[other])
            if estimator == TRAINED:
                wrong = rows[rows[Column.KIND] == HARD][Column.SHARE_WRONG].mean()
                notes.append(
                    f"{pool} B={B:.0f}: hard/random {kinds[HARD].mean() / kinds[RANDOM].mean():.2f}, "
                    f"hard/shift {kinds[HARD].mean() / kinds[SHIFT].mean():.2f}, "
                    f"wrong among hard {wrong:.0%}"
                )
        return judge_settings(verdicts, threshold, seeds_of(table), "; ".join(notes))

    return judge


CLAIMS = (
    Claim(
        "insight-1-measured",
        "Insight 1",
        "For SFT, the prompts of a mixed pool that the pretrained model itself finds hardest beat random and "
        "easiest prompts at equal B.",
        "d=40, m=20, n=80, pool of 1600 of four kinds, all demonstrations right; V* and 100 steps of "
        "gradient descent; B from 5 to 320 (sizes of the preset)",
        PAIRED_SHARE,
        1.0,
        hard_wins(clean=True),
        "tests/studies/insights/test_claims.py::test_hard_selection_is_judged_per_pool",
    ),
    Claim(
        "insight-1-wrong-demonstrations",
        "ours",
        "Choosing the hardest prompts beats random choice even if 10 or 30 percent of demonstrations are "
        "wrong.",
        "the same pool with demonstrations that belong to another prompt (sizes of the preset)",
        PAIRED_SHARE,
        1.0,
        hard_wins(clean=False),
        "tests/studies/insights/test_claims.py::test_hard_selection_is_judged_per_pool",
    ),
)
STUDY = Study(
    name=NAME,
    title="Which SFT examples? (Insight 1)",
    story=(
        "Scoring candidates by the model's own error and training on the hardest beats random and easy "
        "choice at every size when the demonstrations are right. The same ranking collects wrong "
        "demonstrations first, so with 30 percent of them wrong it loses to random choice for large sets: "
        "verify answers before you rank by loss."
    ),
    experiment=HardnessSelection,
    draw=draw_selection,
    claims=CLAIMS,
)
