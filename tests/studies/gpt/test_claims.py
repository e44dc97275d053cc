"""Every judge of a Figure 3 claim can say *holds*, *mixed* and *fails*: shown on small hand-made tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.studies.gpt.data import GptData
from datadose.studies.gpt.figure3 import Figure3
from datadose.studies.index import study
from helpers.studies import entry, write_result


def judged(claim_id: str, table: pd.DataFrame, folder: Path, name: str) -> dict[str, Any]:
    return entry(study(name), claim_id, write_result(folder, study(name), table))


def figure(panel: str, axis: str, curves: dict[int, list[float]]) -> pd.DataFrame:
    """Errors at places 1, 2, 4, .. of one panel for each pretraining length; the untouched model at 1."""
    rows = []
    for T, errors in curves.items():
        rows.append({"panel": "base", "pretrain_steps": T, "length": 20, "error": 1.0, "variant": "base"})
        for i, error in enumerate(errors):
            for seed in range(3):
                row = {"panel": panel, "pretrain_steps": T, "length": 20, "seed": seed, axis: 2**i}
                rows.append({**row, "error": error * (1 + 0.001 * seed), "variant": "main"})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("claim_id", "panel", "axis", "good", "bad"),
    [
        ("fig-3a", "a", "prompts", [0.9, 0.5, 0.8], [0.9, 0.5, 0.4]),
        ("fig-3c", "c", "steps", [0.5, 0.5, 0.505], [0.5, 0.7, 0.9]),
        ("fig-3d", "d", "prompts", [0.9, 0.7, 0.5], [0.5, 0.7, 0.9]),
        ("fig-3f", "f", "steps", [0.5, 0.7, 0.9], [0.9, 0.7, 0.5]),
        ("fig-3a-epochs", "a-epochs", "prompts", [0.9, 0.5, 0.8], [0.9, 0.5, 0.4]),
        ("fig-3d-rl", "g", "prompts", [0.9, 0.7, 0.5], [0.5, 0.7, 0.9]),
    ],
)
def test_trends_are_judged_for_each_pretraining_length(
    claim_id: str, panel: str, axis: str, good: list[float], bad: list[float], tmp_path: Path
) -> None:
    both = judged(claim_id, figure(panel, axis, {100: good, 400: good}), tmp_path, "fig3")
    assert both["verdict"] == "holds"
    assert "tiny GPT, d=5" in both["note"]
    one = judged(claim_id, figure(panel, axis, {100: good, 400: bad}), tmp_path, "fig3")
    assert one["verdict"] == "mixed"
    assert one["value"] == 0.5
    none = judged(claim_id, figure(panel, axis, {100: bad, 400: bad}), tmp_path, "fig3")
    assert none["verdict"] == "fails"


def data(delta: float, replay: float) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "model": "gpt",
                "kind": stage,
                "variant": variant,
                "pretrain_steps": 100,
                "seed": seed,
                "pretraining_error": error * (1 + 0.01 * seed),
            }
            for stage in ("sft", "outcome", "rl")
            for variant, error in (("delta", delta), ("replay", replay))
            for seed in range(3)
        ]
    )


@pytest.mark.parametrize(
    ("delta", "replay", "verdict"), [(0.6, 0.3, "holds"), (0.3, 0.6, "fails"), (0.3, 0.3, "mixed")]
)
def test_replay_is_judged_per_stage(delta: float, replay: float, verdict: str, tmp_path: Path) -> None:
    assert judged("fig-3-replay", data(delta, replay), tmp_path, "gpt_data")["verdict"] == verdict


@pytest.mark.parametrize(
    ("rare", "common", "verdict"),
    [((0.9, 0.5), (0.8, 0.3), "holds"), ((0.9, 0.5), (0.3, 0.8), "mixed"), ((0.2, 0.9), (0.3, 0.8), "fails")],
)
def test_the_mechanism_is_judged_by_both_regressors(
    rare: tuple[float, float], common: tuple[float, float], verdict: str, tmp_path: Path
) -> None:
    row = {"model": "gpt", "kind": "untouched", "variant": np.nan, "pretrain_steps": 100}
    fits = {
        f"target_fit_{group}_{regressor}": value
        for group, values in (("rare", rare), ("common", common))
        for regressor, value in zip(("phi", "w"), values, strict=True)
    }
    found = judged("fig-3-mechanism", pd.DataFrame([{**row, **fits}]), tmp_path, "gpt_data")
    assert found["verdict"] == verdict


def test_figure_3_covers_every_panel_and_control_for_every_pretraining_length() -> None:
    config = Figure3.preset("smoke")
    points = list(config.points())
    seen = {(p.pretrain_steps, p.run.stage, p.axis, p.control) for p in points}
    # Three stages by B, n, k; B and n have a control each.
    assert len(seen) == len(config.pretrainings) * 3 * 5
    epochs = [p for p in points if p.axis == "prompts" and p.control and p.run.stage == "sft"]
    assert len({p.run.steps / p.run.prompts for p in epochs if p.run.prompts >= config.base_prompts}) == 1
    assert GptData.preset("smoke").task == config.task
