"""Every judge of a Figure 4 claim can say *holds* and *fails*: shown on small hand-made tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.configs import Stage
from datadose.studies.figure4.experiment import CONTROLS, Column, panel
from datadose.studies.figure4.study import STUDY
from datadose.studies.study import Saved
from datadose.studies.trends import BASE_PANEL, MAIN, curve, falls_then_rises, fill_diverged
from helpers.studies import entry, write_result

PLACES = (1, 2, 4, 8)
SEEDS = 6
CLAIMS = {claim.id: claim for claim in STUDY.claims}
WHERE: dict[str, tuple[Stage, str, bool]] = {
    "fig-4a": ("sft", Column.PROMPTS, False),
    "fig-4b": ("sft", Column.LENGTH, False),
    "fig-4c": ("sft", Column.STEPS, False),
    "fig-4d": ("outcome", Column.PROMPTS, False),
    "fig-4e": ("outcome", Column.LENGTH, False),
    "fig-4f": ("outcome", Column.STEPS, False),
    "fig-4a-equal-steps": ("sft", Column.PROMPTS, True),
    "fig-4d-equal-steps": ("outcome", Column.PROMPTS, True),
    "fig-4b-fixed-lengths": ("sft", Column.LENGTH, True),
    "fig-4e-fixed-lengths": ("outcome", Column.LENGTH, True),
    "fig-4f-short-prompts": ("outcome", Column.STEPS, True),
    "fig-4d-rl": ("rl", Column.PROMPTS, False),
    "fig-4e-rl": ("rl", Column.LENGTH, False),
    "fig-4f-rl": ("rl", Column.STEPS, False),
}

U_SHAPE = (0.9, 0.5, 0.6, 0.8)
FALL = (0.9, 0.7, 0.6, 0.5)
RISE = (0.5, 0.6, 0.7, 0.9)
FLAT = (0.5, 0.5, 0.5, 0.5)


def _errors(means: Sequence[float], scale: float = 0.005) -> Any:
    noise = np.random.default_rng(0).standard_normal((SEEDS, len(means)))
    return np.array(means) * np.exp(scale * noise)


def _judge(
    claim_id: str,
    means: Sequence[float],
    folder: Path,
    *,
    base: float = 1.0,
    scale: float = 0.005,
    lost: Sequence[tuple[int, int]] = (),
) -> dict[str, Any]:
    """Judge a claim on a table whose panel has these mean errors; ``lost`` lists diverged (seed, place)."""
    stage, axis, control = WHERE[claim_id]
    errors = _errors(means, scale)
    for seed, place in lost:
        errors[seed, place] = np.nan
    other = {Column.PROMPTS: 128, Column.LENGTH: 20, Column.STEPS: 1}
    rows: list[dict[str, Any]] = [
        {
            Column.PANEL: panel(stage, axis, control),
            Column.STAGE: stage,
            **{**other, axis: x},
            Column.SEED: seed,
            Column.ERROR: errors[seed, j],
            Column.AXIS: axis,
            Column.VARIANT: CONTROLS[axis] if control else MAIN,
        }
        for seed in range(SEEDS)
        for j, x in enumerate(PLACES)
    ]
    untouched = {Column.PANEL: BASE_PANEL, Column.STAGE: "sft", Column.VARIANT: BASE_PANEL}
    rows.append({**untouched, **other, Column.PROMPTS: 0, Column.ERROR: base})
    return entry(STUDY, claim_id, write_result(folder, STUDY, pd.DataFrame(rows)))


def _with(*words: str) -> list[str]:
    return [i for i, claim in CLAIMS.items() if any(word in claim.statement for word in words)]


def test_every_claim_is_tried_here_and_names_its_test() -> None:
    assert set(CLAIMS) == set(WHERE)
    tried = [*_with("falls, then"), *_with("falls with"), *_with("rises with"), *_with("insensitive")]
    assert set(tried) == set(CLAIMS)
    for claim in STUDY.claims:
        file, name = claim.test.split("::")
        assert Path(__file__).match(file)
        assert name in globals()


@pytest.mark.parametrize("claim_id", ["fig-4a", "fig-4b", "fig-4a-equal-steps", "fig-4b-fixed-lengths"])
def test_falls_then_rises(claim_id: str, tmp_path: Path) -> None:
    assert _judge(claim_id, U_SHAPE, tmp_path)["verdict"] == "holds"
    # A monotone fall has no rise, and a tie is not one.
    assert _judge(claim_id, FALL, tmp_path)["verdict"] == "fails"
    assert _judge(claim_id, (0.9, 0.5, 0.5, 0.5), tmp_path, scale=0.001)["verdict"] == "fails"
    # Nor is a rise of one percent, however significant.
    assert _judge(claim_id, (0.9, 0.5, 0.505, 0.505), tmp_path, scale=0.0001)["verdict"] == "fails"
    assert _judge(claim_id, U_SHAPE, tmp_path, scale=1.5)["verdict"] == "mixed"


def test_falls_then_rises_starts_at_the_untouched_model_for_prompts_only(tmp_path: Path) -> None:
    assert _judge("fig-4a", RISE, tmp_path, base=1.0)["verdict"] == "holds"
    assert _judge("fig-4a", RISE, tmp_path, base=0.4)["verdict"] == "fails"
    assert _judge("fig-4b", RISE, tmp_path, base=1.0)["verdict"] == "fails"


def test_best_place_chosen_by_other_seeds_does_not_flatter() -> None:
    """On pure noise the seeds' own minimum would look like a fall; 400 tables, wrong 5 percent at most."""
    rng = np.random.default_rng(1)
    x = np.arange(6.0)
    held = sum(
        falls_then_rises(x, np.exp(0.3 * rng.standard_normal((8, 6))), 1.0).verdict == "holds"
        for _ in range(400)
    )
    assert held <= 20


@pytest.mark.parametrize("claim_id", ["fig-4d", "fig-4e", "fig-4d-equal-steps", "fig-4e-fixed-lengths"])
def test_falls(claim_id: str, tmp_path: Path) -> None:
    assert _judge(claim_id, FALL, tmp_path)["verdict"] == "holds"
    assert _judge(claim_id, RISE, tmp_path)["verdict"] == "fails"
    assert _judge(claim_id, FLAT, tmp_path)["verdict"] == "fails"
    turned = _judge(claim_id, U_SHAPE, tmp_path)
    assert turned["verdict"] == "mixed"
    assert "turns at 2" in turned["note"]


@pytest.mark.parametrize("claim_id", ["fig-4d-rl", "fig-4e-rl"])
def test_falls_for_rl(claim_id: str, tmp_path: Path) -> None:
    test_falls(claim_id, tmp_path)


@pytest.mark.parametrize("claim_id", ["fig-4f", "fig-4f-rl", "fig-4f-short-prompts"])
def test_rises(claim_id: str, tmp_path: Path) -> None:
    assert _judge(claim_id, RISE, tmp_path)["verdict"] == "holds"
    assert _judge(claim_id, FALL, tmp_path)["verdict"] == "fails"
    assert _judge(claim_id, FLAT, tmp_path)["verdict"] == "fails"
    assert _judge(claim_id, (0.5, 0.9, 0.7, 0.6), tmp_path)["verdict"] == "mixed"


def test_insensitive(tmp_path: Path) -> None:
    assert _judge("fig-4c", FLAT, tmp_path)["verdict"] == "holds"
    assert _judge("fig-4c", RISE, tmp_path)["verdict"] == "fails"
    # The extremes may lie inside.
    assert _judge("fig-4c", (0.5, 0.4, 0.6, 0.5), tmp_path)["verdict"] == "fails"
    assert _judge("fig-4c", FLAT, tmp_path, scale=0.2)["verdict"] == "mixed"


def test_diverged_runs_count_as_large_errors(tmp_path: Path) -> None:
    filled, lost = fill_diverged(np.array([[1.0, np.nan], [2.0, np.inf]]))
    assert lost == 2
    np.testing.assert_array_equal(filled[:, 1], [20.0, 20.0])
    all_lost = [(seed, 3) for seed in range(SEEDS)]
    found = _judge("fig-4f", FLAT, tmp_path, lost=all_lost)
    assert found["verdict"] == "holds"
    assert f"{SEEDS} of {SEEDS * len(PLACES)} runs diverged" in found["note"]
    assert _judge("fig-4d", FALL, tmp_path, lost=all_lost)["verdict"] == "fails"


def test_a_curve_keeps_places_where_every_run_diverged(tmp_path: Path) -> None:
    _judge("fig-4f", FLAT, tmp_path, lost=[(seed, 0) for seed in range(SEEDS)])
    x, errors, lost = curve(Saved(STUDY, tmp_path).table, "f", Column.STEPS)
    assert list(x) == list(PLACES)
    assert errors.shape == (SEEDS, len(PLACES))
    assert lost == SEEDS
