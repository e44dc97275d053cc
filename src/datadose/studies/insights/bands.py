"""Finding 3: RL on prompts that the pretrained model finds too easy, medium or too hard, at equal B.

The shift's directions have graded sizes, rho(Gamma0^{-1} Delta) from easy to novel. A prompt of the pool
shows a random half of them and tests these alone (w* = 0 elsewhere), so a prompt is as hard as
its directions. The pretrained model samples each candidate 16 times; its pass rate sorts the candidates into
bands (too easy, medium, too hard) of which B are drawn at random; `hardest` takes the B with the largest
error of its own answer (16 samples cannot separate rarely from never), and `all` draws B unfiltered. RL is
GRPO with the verifiable 0/1 reward. The post-test is on unfiltered fresh prompts of the pool, and on the
target's.
A mild pool ends at a shift that the pretrained model nearly masters, a harsh pool far beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch.nn.functional import pad

from datadose.covariance import Array
from datadose.drawing.style import caption, new_figure
from datadose.models import PromptBatch
from datadose.models.baselines import lsa, pretrained_lsa
from datadose.stages import held_out_prompts, squared_gaps
from datadose.stages.evaluate import TEST_SEED
from datadose.studies import training
from datadose.studies.ledger import PAIRED_SHARE, beats, by_seed, judge_settings, seeds_of
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import Setting, SettingsExperiment
from datadose.studies.training import BASE, RL, Recipe, ScaledShift
from datadose.sweep import Cell
from datadose.theory.pretraining import gamma0

NAME = "rl_bands"
TOO_EASY, MEDIUM, TOO_HARD, HARDEST, ALL = "too easy", "medium", "too hard", "hardest", "all"
BANDS = {
    TOO_EASY: (0.9, 1.0),
    MEDIUM: (0.1, 0.9),
    TOO_HARD: (0.0, 0.1),
    HARDEST: (0.0, 0.0),
    ALL: (0.0, 1.0),
}
"""The pass rates of a band."""
SHOWN = {TOO_HARD: "rarely passed"}
"""What a reader sees instead of a table's name: RL learns the most from these prompts."""
SAMPLES = 16
POOLS = ((0.3, 2.0), (0.3, 4.0))


class Column(training.Column):
    """The columns of this study; ``kind`` is the band."""

    PASS_RATE = "pass_rate"
    PASS_RATE_BEFORE = "pass_rate_before"
    SHARE_OF_POOL = "share_of_pool"


def graded_target(task: ScaledShift, radii: tuple[float, float]) -> Array:
    """Sigma with radii from ``radii[0]`` to ``radii[1]`` over the shift's directions, evenly in log."""
    sizes = np.geomspace(*radii, task.shifted)
    target = task.sigma0.copy()
    target[: task.shifted] += sizes * gamma0(task.sigma0, task.length)[: task.shifted]
    return target


def draw_candidates(task: ScaledShift, target: Array, prompts: int, seeds: Sequence[int]) -> PromptBatch:
    """Prompts that show, and test, a random half of the shift's directions (at least one).

    They have the shift's m dimensions alone, see :func:`embed`.
    """
    whole = PromptBatch.draw(target[: task.shifted], task.length, prompts, seeds=seeds)
    shown = torch.zeros_like(whole.weights)
    for place, seed in enumerate(seeds):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(101,)))
        order = rng.random((prompts, task.shifted)).argsort(axis=1)
        count = rng.binomial(task.shifted - 1, 0.5, size=(prompts, 1)) + 1
        shown[place] = torch.from_numpy((order < count).astype(np.float32))
    # Prompts of length n >= m / 2 hold w* and S.
    pair = shown.unsqueeze(-1) * shown.unsqueeze(-2)
    return whole.map(lambda x, axis: x * (shown if axis == -2 else pair))


def embed(batch: PromptBatch, dimension: int) -> PromptBatch:
    """Prompts of the shift's m dimensions as prompts of d: nothing shown or tested elsewhere."""
    extra = dimension - batch.weights.shape[-1]
    # Behind the axis of the prompts, each axis is one of coordinates.
    return batch.map(lambda x, axis: pad(x, (0, extra) * (-axis - 1)))


def score(pool: PromptBatch, recipe: Recipe, task: ScaledShift) -> tuple[Array, Array]:
    """The pretrained model's pass probability and squared error on each prompt, both of shape (runs, N)."""
    model = lsa(task.operator[: task.shifted], len(pool.weights))
    gaps = squared_gaps(model, pool, recipe.chain_steps)
    passed = training.pass_probabilities(gaps, recipe, np.ones(task.shifted, dtype=bool))
    return passed.clamp(0, 1).numpy(), gaps.sum(-1).numpy()


def choose(rates: Array, squared: Array, band: str, prompts: int, seed: int) -> Any:
    """B random candidates of a band, filled up with those whose pass rate is next to it."""
    if band == HARDEST:
        return np.argsort(-squared)[:prompts]
    low, high = BANDS[band]
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(102,)))
    outside = np.maximum(low - rates, 0) + np.maximum(rates - high, 0)
    return np.lexsort((rng.random(len(rates)), outside))[:prompts]


def train_on_band(
    task: ScaledShift,
    radii: tuple[float, float],
    candidates: int,
    band: str,
    prompts: int,
    recipe: Recipe,
    seeds: list[int],
) -> list[list[float | None]]:
    """Cell: what is measured, per seed: pass rates on fresh prompts of the pool, and of the chosen before."""
    torch.set_num_threads(1)
    target = graded_target(task, radii)
    model = pretrained_lsa(task.sigma0, task.length, len(seeds))
    lost: set[int] = set()
    chosen: list[Any] = []
    about: list[list[float | None]] = [[None, None] for _ in seeds]
    if band != BASE:
        pool = draw_candidates(task, target, candidates, seeds)
        true, squared = score(pool, recipe, task)
        for place, seed in enumerate(seeds):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(103,)))
            rates = rng.binomial(SAMPLES, true[place]) / SAMPLES
            low, high = BANDS[band]
            chosen.append(choose(rates, squared[place], band, prompts, seed))
            share = ((rates >= low) & (rates <= high)).mean()
            about[place] = [float(rates[chosen[-1]].mean()), float(share)]
        index = torch.from_numpy(np.stack(chosen))
        rows = torch.arange(len(seeds)).unsqueeze(-1)
        picked = embed(pool.map(lambda x, _: x[rows, index]), task.dimension)
        lost = training.post_train(model, RL, picked, recipe, eta=task.eta, inside=task.inside, seeds=seeds)
    fresh = embed(draw_candidates(task, target, 512, [TEST_SEED]), task.dimension).expand(len(seeds))
    on_pool = training.measure(model, fresh, recipe, task.inside, lost)
    on_target = training.measure(
        model, held_out_prompts(target, task.length, runs=len(seeds)), recipe, task.inside, lost
    )
    return [
        [run, error, passed, *known]
        for (run, error, *_), (*_, passed), known in zip(on_target, on_pool, about, strict=True)
    ]


@dataclass(frozen=True)
class Bands(SettingsExperiment):
    """Pools (panels), bands (kind) at several B, and the untouched model."""

    figure, columns = NAME, Column
    measured = (Column.SEED, Column.ERROR, Column.PASS_RATE, Column.PASS_RATE_BEFORE, Column.SHARE_OF_POOL)

    task: ScaledShift
    pools: tuple[tuple[float, float], ...]
    """Smallest and largest rho(Gamma0^{-1} Delta) of each pool's directions."""
    candidates: int
    recipe: Recipe
    prompts: tuple[int, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> Bands:
        """The configuration of a preset."""
        recipe = Recipe(0, 300, noise=0.3, tolerance=0.7)
        if name == "smoke":
            return cls(ScaledShift(10, 4, 200), POOLS, 256, replace(recipe, steps=20, batch=16), (16, 32), 3)
        if name == "quick":
            return cls(ScaledShift(20, 8, 400), POOLS, 4096, recipe, (16, 64, 256), 8)
        return cls(ScaledShift(100, 20, 2000), POOLS, 4096, replace(recipe, steps=600), (32, 128, 512), 10)

    def settings(self) -> Iterator[Setting]:
        """One cell a pool, band and B, its seeds side by side; a row a seed."""
        arms = [(BASE, 0), *product(BANDS, self.prompts)]
        shared = {
            "task": self.task,
            "candidates": self.candidates,
            "recipe": self.recipe,
            "seeds": list(range(self.seeds)),
        }
        for radii, (band, B) in product(self.pools, arms):
            yield (
                Cell(train_on_band, {**shared, "radii": radii, "band": band, "prompts": B}),
                {
                    Column.PANEL: f"radius {radii[0]:g} to {radii[1]:g}",
                    Column.STAGE: BASE if band == BASE else RL,
                    Column.PROMPTS: B,
                    Column.LENGTH: self.task.length,
                    Column.STEPS: self.recipe.chain_steps,
                    Column.KIND: band,
                },
            )


def draw_bands(table: pd.DataFrame, config: Bands) -> Figure:
    """Finding 3: pass rate after RL against B, one panel a pool, one curve a band."""
    bands = {
        MEDIUM: "medium",
        TOO_HARD: f"{SHOWN[TOO_HARD]} (at most 10%)",
        TOO_EASY: "too easy (at least 90%)",
        ALL: "all, unfiltered",
        HARDEST: "hardest (largest error)",
    }
    panels = list(dict.fromkeys(table[Column.PANEL]))
    with new_figure(len(panels), width=4.3 * len(panels) + 0.6) as (figure, axes):
        for axis, panel in zip(axes, panels, strict=True):
            rows = table[table[Column.PANEL] == panel]
            training.draw_arms(axis, rows, Column.PROMPTS, Column.PASS_RATE, bands, "before RL")
            shares = rows.groupby(Column.KIND)[Column.SHARE_OF_POOL].mean()
            axis.set_title(
                f"shift directions of {panel}\n(too easy {shares[TOO_EASY]:.0%}, medium "
                f"{shares[MEDIUM]:.0%}, {SHOWN[TOO_HARD]} {shares[TOO_HARD]:.0%} of the pool)"
            )
            axis.set_xlabel("RL prompts B, equal steps")
        axes[0].set_ylabel("pass rate on fresh prompts of the pool")
        axes[0].set_ylim(0, 1.02)
        axes[-1].legend(loc="upper left")
        task, recipe = config.task, config.recipe
        caption(
            figure,
            f"d = {task.dimension}, m = {task.shifted}, n = {task.length}; GRPO, "
            f"{recipe.steps} steps of {recipe.batch} prompts, {recipe.group} samples, 0/1 reward; "
            f"bands by {SAMPLES} samples of the pretrained model; {config.seeds} seeds, standard errors",
        )
    return figure


def not_too_hard(saved: Saved[Bands], threshold: float) -> Judgement:
    table = saved.table
    verdicts: dict[str, Verdict] = {}
    notes: list[str] = []
    for pool, rows in table[table[Column.PROMPTS] > 0].groupby(Column.PANEL):
        missed = {
            (str(kind), float(B)): np.maximum(1 - by_seed(part, Column.PASS_RATE), 1e-9)
            for (kind, B), part in rows.groupby([Column.KIND, Column.PROMPTS])
        }
        counts = sorted({B for _, B in missed})
        for B in counts:
            for other in (TOO_HARD, HARDEST):
                verdicts[f"{pool}: medium beats {SHOWN.get(other, other)}, B={B:.0f}"] = beats(
                    missed[MEDIUM, B], missed[other, B]
                )
        for band in (MEDIUM, ALL):
            verdicts[f"{pool}: {band}, large B beats small"] = beats(
                missed[band, counts[-1]], missed[band, counts[0]]
            )
        kinds = dict.fromkeys(kind for kind, _ in missed)
        base = table[(table[Column.PANEL] == pool) & (table[Column.PROMPTS] == 0)][Column.PASS_RATE].mean()
        rates = ", ".join(
            f"{SHOWN.get(kind, kind)} {1 - missed[kind, counts[-1]].mean():.3f}" for kind in kinds
        )
        notes.append(f"{pool}: pass rate before {base:.3f}, at B={counts[-1]:.0f} {rates}")
    return judge_settings(verdicts, threshold, seeds_of(table), "; ".join(notes))


CLAIMS = (
    Claim(
        "finding-3-bands",
        "Finding 3",
        "RL needs prompts that are not overly difficult for the pretrained model, and many of them: medium "
        "pass rates beat too hard ones at equal B, and a large set beats a small one.",
        "d=20, m=8, n=400; GRPO, 0/1 reward, bands at pass rates 0.1 and 0.9, B from 16 to 256, a mild and a "
        "harsh pool (sizes of the preset)",
        PAIRED_SHARE,
        1.0,
        not_too_hard,
        "tests/studies/insights/test_claims.py::test_bands_are_judged_per_pool",
    ),
)
STUDY = Study(
    name=NAME,
    title="Which prompts for RL? (Finding 3)",
    story=(
        "Prompts that the model passes rarely, but not never, teach more than medium ones once there are "
        "enough of them; prompts far beyond it teach nothing, and wherever there is signal more prompts "
        "help. An unfiltered set of the same size comes close to the best band."
    ),
    experiment=Bands,
    draw=draw_bands,
    claims=CLAIMS,
)
