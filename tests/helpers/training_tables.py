"""Hand-made tables of errors along training, for the judges of the map and of the paper's own model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from datadose.studies.gpt.map_settings import Column
from datadose.studies.gpt.path_panels import PathPanels
from datadose.studies.trends import AXES

Curve = Callable[[str, str, int], float]
"""Stage, axis and place (0, 1, 2) -> error."""


def flat(stage: str, axis: str, place: int) -> float:
    del stage, axis, place
    return 0.8


def as_in_the_paper(stage: str, axis: str, place: int) -> float:
    """RL as outcome supervision."""
    if axis == "steps":
        return 0.8 if stage == "sft" else (0.6, 0.8, 0.9)[place]
    return ((0.9, 0.8, 0.9) if stage == "sft" else (0.9, 0.8, 0.6))[place]


def against_the_paper(stage: str, axis: str, place: int) -> float:
    if axis == "steps":
        return (0.6, 0.8, 1.2)[place] if stage == "sft" else (0.9, 0.8, 0.7)[place]
    return (0.7, 0.8, 0.95)[place] if stage != "sft" else (0.9, 0.8, 0.7)[place]


def along_training(
    config: PathPanels,
    curve: Curve,
    *,
    before: float = 1.0,
    late: Curve | None = None,
    settings: int | None = None,
) -> pd.DataFrame:
    """Errors by ``curve`` after 2 steps and by ``late`` (default: the same) after 4, 3 seeds, small noise."""
    rows: list[dict[str, Any]] = []
    for _, setting in config.settings()[:settings]:
        own = setting.columns
        for seed in range(3):
            noise = 1 + 0.001 * seed
            start = {"prompts": 0, "seed": seed, "optimiser_steps": 0}
            rows += [{**own, **start, "test_length": n, "error": before * noise} for n in config.lengths]
            rows += _places(config, own, seed, curve, 2)
            rows += _places(config, own, seed, late or curve, 4)
    return pd.DataFrame(rows)


def _places(
    config: PathPanels, own: dict[str, Any], seed: int, curve: Curve, steps: int
) -> list[dict[str, Any]]:
    rows = []
    base = dict(zip(AXES, (config.base_prompts, config.base_length, config.base_chain), strict=True))
    for stage in config.stages:
        if stage == "outcome" and steps > own[Column.OS_STEPS]:
            continue
        for axis in AXES:
            for place, x in enumerate(config.places(stage, axis)):
                here = {**base, axis: x}
                if here == base and axis != Column.PROMPTS:
                    continue
                error = curve(stage, axis, place) * (1 + 0.001 * seed * (-1) ** place)
                row = {**own, **here, "stage": stage, "seed": seed, "optimiser_steps": steps, "error": error}
                tests = {x if axis == Column.LENGTH else config.base_length, config.base_length}
                rows += [{**row, "test_length": n} for n in tests]
    return rows
