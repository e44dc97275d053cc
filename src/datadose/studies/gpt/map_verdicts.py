"""Verdicts of the map, read off its table: each claim of Figure 3 in each setting, at every number of steps.

The trends, their statistics and thresholds are those of :mod:`~datadose.studies.trends`. Beside them stands
whether post-training helps at all: the untouched model's error over that after training on the largest B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd

from datadose.configs import Stage
from datadose.covariance import Array
from datadose.studies.gpt.map import TINY
from datadose.studies.gpt.map_settings import CHOICES, Column
from datadose.studies.gpt.path_panels import PathPanels
from datadose.studies.ledger import by_seed, judge_share, paired_errors
from datadose.studies.study import Judgement, Verdict
from datadose.studies.trends import (
    AXES,
    FALLS,
    PAPER_CLAIMS,
    RISES,
    fill_diverged,
    judge_trend,
    other_seeds_choice,
    rise_from_best,
    threshold_of,
)

HELPS: dict[str, Stage] = {"sft-helps": "sft", "outcome-helps": "outcome", "rl-helps": "rl"}
"""The claims that a stage improves on the untouched model, and the stage."""
RL_CLAIM = "d-rl"
"""That RL's error falls with B, as outcome supervision's."""
SFT_CLAIMS = (*(letter for letter, stage, *_ in PAPER_CLAIMS if stage == "sft"), "sft-helps")
"""The claims in which the length of outcome supervision is not used."""
AFTER = "after"
"""In place of a choice: numbers of steps, which all settings have."""
HALF = 0.5
"""A claim holds if it does in more than this share of the settings."""


@dataclass(frozen=True)
class MapVerdict:
    """A claim (a letter of Figure 3, or one of HELPS) judged in a setting after some optimiser steps.

    ``test_tied``: where n moves, whether it does so in the test. ``own_steps``: whether the steps are those
    of the setting (of SFT the configuration's). ``untouched`` is the mean error before post-training on the
    test prompts of the last place, ``error`` that after it at the last place.
    """

    panel: str
    claim: str
    test_tied: bool
    optimiser_steps: int
    own_steps: bool
    seeds: int
    value: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    untouched: float
    error: float
    note: str


def untouched_errors(rows: pd.DataFrame, length: int) -> Array:
    """Errors (seeds,) of a setting's model before post-training, on test prompts of this length."""
    kept = rows[(rows[Column.OPTIMISER_STEPS] == 0) & (rows[Column.TEST_LENGTH] == length)]
    return by_seed(kept)


def errors_along(
    rows: pd.DataFrame, config: PathPanels, stage: Stage, axis: str, steps: int, *, tied: bool = False
) -> tuple[Array, Array]:
    """Places (X,) along an axis, and errors (seeds, X) there, of :func:`rows_along`.

    A lost run has ten times the worst error.
    """
    places, errors = paired_errors(rows_along(rows, config, stage, axis, steps, tied=tied), axis)
    return places, fill_diverged(errors)[0]


def rows_along(
    rows: pd.DataFrame, config: PathPanels, stage: Stage, axis: str, steps: int, *, tied: bool = False
) -> pd.DataFrame:
    """The rows of one setting along an axis after ``steps``; ``tied``: where n moves, so does the test's."""
    kept = _on_axis(rows, config, stage, axis)
    test = kept[Column.LENGTH] if tied and axis == Column.LENGTH else config.base_length
    return kept[(kept[Column.OPTIMISER_STEPS] == steps) & (kept[Column.TEST_LENGTH] == test)]


def _on_axis(rows: pd.DataFrame, config: PathPanels, stage: Stage, axis: str) -> pd.DataFrame:
    """The rows of a stage in which the other axes are at their base values."""
    base = dict(zip(AXES, (config.base_prompts, config.base_length, config.base_chain), strict=True))
    others = [rows[other] == base[other] for other in AXES if other != axis]
    return rows[np.logical_and.reduce([rows[Column.STAGE] == stage, *others])]


def looks_along(rows: pd.DataFrame, config: PathPanels, stage: Stage, axis: str) -> list[int]:
    """The numbers of steps at which a setting is known at all places of an axis, rising."""
    places = config.places(stage, axis)
    known = _on_axis(rows, config, stage, axis).groupby(Column.OPTIMISER_STEPS)[axis].nunique()
    return [int(str(steps)) for steps, number in known.items() if number == len(places)]


ALL: tuple[tuple[str, Stage, str, str], ...] = (
    *PAPER_CLAIMS,
    (RL_CLAIM, "rl", Column.PROMPTS, FALLS),
    *((name, stage, Column.PROMPTS, FALLS) for name, stage in HELPS.items()),
)
"""Each claim's name, stage, axis and trend."""


def verdicts(table: pd.DataFrame, config: PathPanels, only: str | None = None) -> pd.DataFrame:
    """One row a setting, claim (or ``only`` this), number of steps and, where n moves, version of the test.

    The columns are MapVerdict's fields, the setting's choices, and whether the row is the one that was drawn
    (``own``).
    """
    claims = [entry for entry in ALL if only in (None, entry[0]) and entry[1] in config.stages]
    found = []
    for _, rows in table.groupby(Column.PANEL, sort=True):
        choices = {column: rows[column].iloc[0] for column in CHOICES}
        found += [asdict(row) | choices for row in _of_setting(rows, config, claims)]
    made = pd.DataFrame(found, columns=[*(entry.name for entry in fields(MapVerdict)), *CHOICES])
    return made.assign(own=made["own_steps"] & (made["test_tied"] == made[Column.TIED].astype(bool)))


def _of_setting(
    rows: pd.DataFrame, config: PathPanels, claims: Sequence[tuple[str, Stage, str, str]]
) -> Iterator[MapVerdict]:
    tied_here, lasts = bool(rows[Column.TIED].iloc[0]), int(rows[Column.OS_STEPS].iloc[0])
    wanted = {"sft": config.judged_sft, "outcome": lasts}
    for claim, stage, axis, trend in claims:
        looks = looks_along(rows, config, stage, axis)
        own = max((s for s in looks if s <= wanted.get(stage, s)), default=None)
        for tied in (True, False) if axis == Column.LENGTH else (tied_here,):
            for steps in looks:
                x, errors = errors_along(rows, config, stage, axis, steps, tied=tied)
                length = int(x[-1]) if axis == Column.LENGTH and tied else config.base_length
                before = untouched_errors(rows, length)
                if claim in HELPS:
                    x, errors = np.array([0.0, x[-1]]), np.stack([before, errors[:, -1]], axis=1)
                start = before if axis == Column.PROMPTS and claim not in HELPS else None
                made = judge_trend(trend, x, errors, threshold_of(trend), start)
                low, high = made.interval or (None, None)
                yield MapVerdict(
                    panel=str(rows[Column.PANEL].iloc[0]),
                    claim=claim,
                    test_tied=tied,
                    optimiser_steps=steps,
                    own_steps=steps == own,
                    seeds=made.seeds,
                    value=made.value,
                    low=low,
                    high=high,
                    verdict=made.verdict,
                    untouched=float(before.mean()),
                    error=float(errors[:, -1].mean()),
                    note=made.note,
                )


# --- shares ---------------------------------------------------------------------------------------------


def share(rows: pd.DataFrame) -> Judgement:
    """The share of these verdicts that hold, with its exact interval."""
    return judge_share((rows["verdict"] == "holds").to_numpy(), HALF)


def shares_by_level(found: pd.DataFrame, claim: str) -> list[tuple[str, str, Judgement]]:
    """(choice, level, share) of a claim, over the settings that were drawn with a level of a choice.

    Of the tiny GPT alone, but for the choice of the size, so that levels differ in nothing else. All
    settings are reported by number of steps and, where n moves, by both versions of the test.
    """
    rows = found[found["claim"] == claim]
    first = of_main_size(rows)
    kept = dict.fromkeys(CHOICES, first[first["own"]])
    kept[Column.SIZE] = rows[rows["own"]]
    del kept[Column.TIED]
    if claim in SFT_CLAIMS:
        del kept[Column.OS_STEPS]
    shares = [
        (CHOICES[column], level_name(level), share(group))
        for column, those in kept.items()
        for level, group in those.groupby(column, sort=True)
    ]
    if first["test_tied"].groupby(first[Column.PANEL]).nunique().max() > 1:
        for level, group in first[first["own_steps"]].groupby("test_tied"):
            shares.append((CHOICES[Column.TIED], "tied" if level else "fixed", share(group)))
    for steps, group in first[first["test_tied"] == first[Column.TIED]].groupby(Column.OPTIMISER_STEPS):
        shares.append((AFTER, f"{int(str(steps)):,} steps", share(group)))
    return shares


def of_main_size(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the tiny GPT, or without one those of the size that comes first."""
    sizes = [*dict.fromkeys(rows[Column.SIZE])]
    return rows[rows[Column.SIZE] == (TINY if TINY in sizes else sizes[0])]


def level_name(level: object) -> str:
    """A level of a choice in words."""
    return f"{level:g}" if isinstance(level, (int, float, np.number)) else str(level)


# --- over training time ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class RiseWithPrompts:
    """Whether the error rises with B in a setting: after each number of steps, and at the best of each B."""

    panel: str
    after: dict[int, Verdict]
    at_best: Verdict
    best_steps: tuple[int, ...]
    """The best number of steps of each B, 0 for the untouched model."""

    @property
    def somewhere(self) -> bool:
        """Whether it rises after some number of steps."""
        return "holds" in self.after.values()


def rises_with_prompts(table: pd.DataFrame, config: PathPanels, stage: Stage) -> list[RiseWithPrompts]:
    """Each setting's; the best time of a B is chosen for every seed by the other seeds' mean error."""
    found = []
    for name, rows in table.groupby(Column.PANEL, sort=True):
        looks = looks_along(rows, config, stage, Column.PROMPTS)
        paths = [errors_along(rows, config, stage, Column.PROMPTS, steps) for steps in looks]
        places, limit = paths[0][0], threshold_of(RISES)
        after = {
            steps: rise_from_best(x, errors, limit).verdict
            for steps, (x, errors) in zip(looks, paths, strict=True)
        }
        before = untouched_errors(rows, config.base_length)
        # (seeds, steps, B), the untouched model first.
        whole = np.stack([np.repeat(before[:, None], len(places), axis=1), *(e for _, e in paths)], axis=1)
        best = np.stack([other_seeds_choice(whole[:, :, i]) for i in range(len(places))], axis=1)
        chosen = whole.mean(axis=0).argmin(axis=0)
        found.append(
            RiseWithPrompts(
                str(name),
                after,
                rise_from_best(places, best, limit).verdict,
                tuple([0, *looks][place] for place in chosen),
            )
        )
    return found


def relative_paths(
    table: pd.DataFrame, config: PathPanels, stage: Stage, panels: Sequence[str]
) -> dict[int, tuple[list[int], Array]]:
    """B -> (steps, error over the untouched model's): geometric means over seeds and these settings.

    The steps are those that all of the settings have, from 0.
    """
    groups = [table[table[Column.PANEL] == panel] for panel in panels]
    common = set.intersection(*({*looks_along(rows, config, stage, Column.PROMPTS)} for rows in groups))
    logs: list[Array] = []
    for rows in groups:
        before = untouched_errors(rows, config.base_length)[:, None]
        paths = [errors_along(rows, config, stage, Column.PROMPTS, s)[1] for s in sorted(common)]
        logs.append(np.stack([np.log(errors / before).mean(axis=0) for errors in paths]))
    means = np.exp(np.mean(logs, axis=0))
    steps = [0, *sorted(common)]
    return {
        B: (steps, np.array([1.0, *means[:, i]])) for i, B in enumerate(config.places(stage, Column.PROMPTS))
    }
