"""Reports from practice on SFT and RL one after the other, each judged in the exact model of both stages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from datadose.drawing.style import LOOKS, caption, draw_points, name_ticks, new_grid
from datadose.studies.ledger import judge_share
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study
from datadose.studies.tables import THEORY, Setting, SettingsExperiment
from datadose.studies.training_time.practice_cells import SEVERE, STABLE, Column, measure
from datadose.studies.training_time.settings import DRAWN, POWER, spread
from datadose.sweep import Cell

NAME = "practice"


@dataclass(frozen=True)
class Practice(SettingsExperiment):
    """Random settings; a row for each quantity of each."""

    figure, columns = NAME, Column
    measured = (Column.PANEL, Column.VALUE)

    dimension: int
    seeds: int
    times: int
    first_seed: int = 0

    @classmethod
    def preset(cls, name: Preset) -> Practice:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(24, 6, 16)
        return cls(120, 200, 40) if name == "quick" else cls(120, 2000, 80)

    def settings(self) -> Iterator[Setting]:
        """One cell a setting."""
        for seed in range(self.first_seed, self.first_seed + self.seeds):
            arguments = {"seed": seed, "dimension": self.dimension, "times": self.times}
            yield Cell(measure, arguments), {Column.SEED: seed, Column.MODEL: THEORY}


def quantities(table: pd.DataFrame) -> pd.DataFrame:
    """A row a setting, a column a quantity."""
    return table.pivot_table(index=Column.SEED, columns=Column.PANEL, values=Column.VALUE)


def when_to_switch(saved: Saved[Practice], threshold: float) -> Judgement:
    q = quantities(saved.table)
    over, later = q["switch loss over least"], q["switch after least loss"] > 0
    held = (over <= STABLE) | (later & (over < SEVERE))
    note = (
        f"best switch: stable {(over <= STABLE).mean():.2f}, mild overfitting "
        f"{(later & (over > STABLE) & (over < SEVERE)).mean():.2f}, severe "
        f"{(later & (over >= SEVERE)).mean():.2f}, before stable "
        f"{(~later & (over > STABLE)).mean():.2f}; error when "
        f"switching at the least loss over the best: {spread(q['switch cost of least loss'])}"
    )
    return judge_share(held.to_numpy(), threshold, note=note)


def scale_decides(saved: Saved[Practice], threshold: float) -> Judgement:
    q = quantities(saved.table)
    names = [name for name in q if name.startswith("scale ")]
    scales = sorted({float(name.split()[1]) for name in names})
    ends = np.stack([q[f"scale {s:g} end"] for s in scales], axis=1)
    gains = np.stack([q[f"scale {s:g} gain of RL"] for s in scales], axis=1)
    monotone = (np.diff(ends, axis=1) <= 1e-9).all(axis=1)
    note = (
        f"median error after RL {', '.join(f'{v:.3g}' for v in np.median(ends, axis=0))} at "
        f"{', '.join(f'{s:g}' for s in scales)} (/ d) rows of SFT; never rises in between in "
        f"{monotone.mean():.2f}; "
        f"what RL adds grows with the rows in {(gains[:, -1] > gains[:, 0]).mean():.2f} (the report: "
        "it grows)"
    )
    return judge_share(ends[:, -1] < ends[:, 0], threshold, note=note)


def difficulty_helps(saved: Saved[Practice], threshold: float) -> Judgement:
    q = quantities(saved.table)
    few, many = q["hardness with end, few rows"], q["hardness with end, many rows"]
    note = (
        f"correlation of log hardness with log error after RL, {spread(few)} at d/2 rows and "
        f"{spread(many)} at 4d; "
        f"negative in {(few < 0).mean():.2f} and {(many < 0).mean():.2f}"
    )
    return judge_share((few < 0).to_numpy(), threshold, note=note)


def loss_predicts(saved: Saved[Practice], threshold: float) -> Judgement:
    q = quantities(saved.table)
    on_target, on_pool = q["target validation with end"], q["pool validation with end"]
    note = (
        "correlation of the least validation loss with the error after RL, of logarithms: validation "
        "on SFT's "
        f"allocated prompts {spread(on_pool)}, on the target's {spread(on_target)}; above .9 in "
        f"{(on_pool > 0.9).mean():.2f} and {(on_target > 0.9).mean():.2f}, below 0 in "
        f"{(on_pool < 0).mean():.2f} and "
        f"{(on_target < 0).mean():.2f}"
    )
    return judge_share((on_pool > 0.5).to_numpy(), threshold, note=note)


def reward_raises_loss(saved: Saved[Practice], threshold: float) -> Judgement:
    q = quantities(saved.table)
    ratio, limit = q["SFT loss after RL over before"], q["SFT loss after RL over before, unlimited SFT"]
    note = (
        "SFT at its least validation loss, RL at its best penalty: loss after over before "
        f"{spread(ratio)}; from the "
        f"optimum of unlimited SFT, where a rise is an identity, it rises in {(limit > 1).mean():.2f}, "
        f"{spread(limit)}"
    )
    return judge_share((ratio > 1).to_numpy(), threshold, note=note)


def tuning_lowers_reward(saved: Saved[Practice], threshold: float) -> Judgement:
    ratio = quantities(saved.table)["error after SFT over before, after RL"]
    note = (
        "RL at its best penalty, SFT at its least validation loss: error after over before "
        f"{spread(ratio)}; above "
        f"1.5 in {(ratio > 1.5).mean():.2f}"
    )
    return judge_share((ratio > 1).to_numpy(), threshold, note=note)


def stronger_first(saved: Saved[Practice], threshold: float) -> Judgement:
    q = quantities(saved.table)
    ratio, cost = q["penalty before RL over own"], q["cost of own penalty"]
    note = (
        f"penalty best before RL over that of the least held-out loss {spread(ratio)}; weaker in "
        f"{(ratio < 1).mean():.2f}; error with the latter over the best {spread(cost)}"
    )
    return judge_share((ratio > 1).to_numpy(), threshold, note=note)


def value_alone_keeps(saved: Saved[Practice], threshold: float) -> Judgement:
    ratio = quantities(saved.table)["error on the old task over before"]
    note = (
        "SFT of V alone at the penalty best for the target: error on Sigma0 over before "
        f"{spread(ratio)}; that more "
        "examples in a prompt never hurt at fixed V is an identity (error = a + b/n, b >= 0) and no claim"
    )
    return judge_share((ratio <= 1).to_numpy(), threshold, note=note)


_TEST = "tests/studies/training_time/test_practice.py::"
_SETTING = (
    f"exact theory, RL is outcome supervision at k = 1 at its best penalty; {DRAWN}; .3d to 8d rows a stage; "
    f"{POWER}"
)
_MOST = "share of settings where it holds"


def _claim(
    name: str, paper: str, statement: str, judge: object, test: str, beyond: str, statistic: str = _MOST
) -> Claim:
    setting = f"{_SETTING}; not in the model: {beyond}"
    return Claim(f"practice-{name}", paper, statement, setting, statistic, 0.5, judge, _TEST + test)  # type: ignore[arg-type]


_DING = "arXiv 2512.11470"
CLAIMS = (
    _claim(
        "switch",
        f"{_DING}, (a)",
        "Going from SFT to RL is best where SFT's validation loss is within 2 percent of its least, "
        "or, later, within "
        "10 percent.",
        when_to_switch,
        "test_a_switch_before_or_long_after_the_least_loss_fails",
        "a ceiling extrapolated in RL compute",
    ),
    _claim(
        "scale",
        f"{_DING}, (b)",
        "More rows of SFT, stopped at its least validation loss, lower the error after RL (16d against "
        "d/4): less is "
        "not more.",
        scale_decides,
        "test_scale_is_the_largest_against_the_smallest",
        "pass rates",
    ),
    _claim(
        "difficulty",
        f"{_DING}, (c)",
        "At equal rows, prompts of SFT that are harder for the pretrained model give a lower error after RL.",
        difficulty_helps,
        "test_difficulty_is_a_negative_correlation",
        "difficulty as a pass rate",
        "share of settings where hardness and error correlate negatively over 8 pools of d/2 rows",
    ),
    _claim(
        "validation-loss",
        f"{_DING}, (d)",
        "SFT's least validation loss predicts the error after RL.",
        loss_predicts,
        "test_the_loss_predicts_by_its_correlation",
        "losses of different base models",
        "share of settings with a correlation above .5 over 8 pools of 4d rows, one validation set",
    ),
    _claim(
        "rl-raises-loss",
        "arXiv 2601.07389, (1)",
        "RL after SFT raises SFT's validation loss, SFT having stopped at its least on finitely many rows.",
        reward_raises_loss,
        "test_coupling_is_a_ratio_above_one",
        "cross entropy and the KL term",
    ),
    _claim(
        "sft-lowers-reward",
        "arXiv 2601.07389, (2)",
        "SFT after RL, stopped at its least validation loss, lowers the reward.",
        tuning_lowers_reward,
        "test_coupling_is_a_ratio_above_one",
        "cross entropy and the KL term",
    ),
    _claim(
        "stronger-penalty",
        "arXiv 2511.08401, (i)",
        "The penalty of SFT that is best before RL is stronger than the one best for SFT's own "
        "held-out loss.",
        stronger_first,
        "test_coupling_is_a_ratio_above_one",
        "one scalar response a row (theirs)",
    ),
    _claim(
        "value-only",
        "arXiv 2602.23197",
        "Tuning the value matrix alone for the target does not raise the error on the old task.",
        value_alone_keeps,
        "test_coupling_is_a_ratio_above_one",
        "prompts without examples, one fixed task, and tuning of all weights",
    ),
)


def draw_practice(table: pd.DataFrame, config: Practice) -> Figure:
    """Left: where the best switch lies. Right: what each stage does to the other's objective."""
    q = quantities(table)
    with new_grid(1, 2, width=10.5, height=4.2, width_ratios=[1, 1.25]) as (figure, axes):
        left, right = axes[0]
        later = q["switch after least loss"] > 0
        for look, (rows, label) in zip(
            LOOKS, ((q[~later], "before the least loss"), (q[later], "after it")), strict=False
        ):
            x = (rows["switch loss over least"] - 1).clip(lower=1e-4)
            y = rows["switch cost of least loss"]
            draw_points(left, x, y, look, label, markersize=3.4, alpha=0.7)
        for bound in (STABLE, SEVERE):
            left.axvline(bound - 1, color="#5f6368", linewidth=0.8, linestyle=(0, (2, 2)))
        left.set(xscale="log", yscale="log", xlabel="validation loss at the best switch / least, minus 1")
        left.set(ylabel="error, switching at the least loss / best", title="when to go from SFT to RL")
        left.legend(loc="upper left", title="best switch", fontsize=7, title_fontsize=7.5)
        names = {
            "SFT loss after RL over before": "SFT's loss,\nafter RL",
            "error after SFT over before, after RL": "error,\nSFT after RL",
            "penalty before RL over own": "penalty of SFT,\nbefore RL / own",
            "cost of own penalty": "error, own\npenalty / best",
            "error on the old task over before": "old task,\nafter SFT",
        }
        jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(q))
        for place, name in enumerate(names):
            draw_points(
                right,
                place + jitter,
                q[name],
                LOOKS[place % len(LOOKS)],
                f"_{name}",
                markersize=2.6,
                alpha=0.6,
            )
        right.axhline(1, color="#5f6368", linewidth=0.8)
        right.set(yscale="log", ylabel="ratio, after over before unless said", title="each setting a point")
        name_ticks(right.xaxis, list(names.values()), fontsize=7.5)
        caption(
            figure,
            f"exact theory, {config.seeds} random settings, d = {config.dimension}; RL: outcome "
            "supervision at k = 1 "
            "and its best penalty; dashes: the report's bounds of 2 and 10 percent",
        )
    return figure


STUDY = Study(
    name=NAME,
    title="Reports from practice on SFT and RL, in the exact model",
    story=(
        "RL profits from SFT that stops earlier than its own validation loss says, and hard prompts "
        "help; that RL "
        "undoes SFT, or SFT undoes RL, is no law where rows are few. Each report is judged over random "
        "settings."
    ),
    experiment=Practice,
    draw=draw_practice,
    claims=CLAIMS,
)
