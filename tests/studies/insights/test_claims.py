"""Every judge of an insight's claim can say *holds* and *fails*: shown on small hand-made tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.studies.insights import (
    balance,
    bands,
    overthinking,
    selection,
    sft_then_rl,
    size,
    stability,
)
from datadose.studies.insights.balance import OUTCOME_GD, Balance, TraceBudget
from datadose.studies.insights.bands import HARDEST, TOO_HARD
from datadose.studies.insights.selection import CLEAN, EASY, HARD, RANDOM, SHIFT
from datadose.studies.insights.sft_then_rl import RL_THEN_SFT, SFT_THEN_RL
from datadose.studies.insights.size import SetSize
from datadose.studies.insights.stability import MAP, PROTOCOLS, Stability
from datadose.studies.ledger import beats
from datadose.studies.tables import MINIMISER, THEORY, TRAINED, Column, TwoBlock, as_table
from datadose.studies.training import BASE, OUTCOME, RL, SFT
from helpers.studies import entry, write_result

SEEDS = 6
HOMES = {
    claim.id: module.STUDY
    for module in (selection, size, stability, balance, bands, sft_then_rl, overthinking)
    for claim in module.STUDY.claims
}


def verdict(claim_id: str, folder: Path) -> str:
    return str(entry(HOMES[claim_id], claim_id, folder)["verdict"])


def noise(seed: int, *setting: object, scale: float = 0.01) -> float:
    """A factor near 1, the same for the same seed and setting."""
    rng = np.random.default_rng([seed, *str(setting).encode()])
    return float(np.exp(scale * rng.standard_normal()))


def write(folder: Path, module: Any, rows: Sequence[dict[str, Any]], config: Any = None) -> Path:
    """Write the rows as the table of the study in ``module``, in its columns."""
    table = as_table([{module.Column.FIGURE: module.NAME, **row} for row in rows], module.Column)
    return write_result(folder, module.STUDY, table, config)


def seeded(*values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    return product(*values, range(SEEDS))


# --- comparisons ----------------------------------------------------------------------------------------


def test_a_diverged_run_loses_its_comparison() -> None:
    low, high, lost = np.linspace(1, 1.1, 6), np.linspace(2, 2.3, 6), np.full(6, np.nan)
    some = np.array([np.nan, *high[1:]])
    assert beats(low, high) == "holds"
    assert beats(high, low) == "fails"
    assert beats(low, lost) == "holds"
    assert beats(lost, high) == "fails"
    assert beats(np.array([np.nan, *low[1:]]), high) == "mixed"
    assert beats(low, some) == "holds"
    assert beats(np.array([1.0, *[np.nan] * 5]), high) == "mixed"


# --- Insights 1 and 2 -----------------------------------------------------------------------------------


def write_selection(folder: Path, clean: dict[str, float], wrong: dict[str, float]) -> Path:
    rows = [
        {
            selection.Column.PANEL: pool,
            selection.Column.PROMPTS: B,
            selection.Column.SEED: seed,
            selection.Column.ESTIMATOR: estimator,
            selection.Column.KIND: kind,
            selection.Column.ERROR: errors[kind] * noise(seed, pool, kind, B),
            selection.Column.SHARE_WRONG: 0.1,
        }
        for (pool, errors), kind, B, estimator, seed in seeded(
            ((CLEAN, clean), ("10% wrong", wrong)), clean, (5, 80), (MINIMISER, TRAINED)
        )
    ]
    return write(folder, selection, rows)


def test_hard_selection_is_judged_per_pool(tmp_path: Path) -> None:
    good = {HARD: 1.0, RANDOM: 2.0, EASY: 4.0, SHIFT: 1.0}
    bad = {HARD: 3.0, RANDOM: 2.0, EASY: 2.5, SHIFT: 1.0}
    write_selection(tmp_path, good, bad)
    assert verdict("insight-1-measured", tmp_path) == "holds"
    assert verdict("insight-1-wrong-demonstrations", tmp_path) == "fails"
    write_selection(tmp_path, bad, good)
    assert verdict("insight-1-measured", tmp_path) == "fails"
    assert verdict("insight-1-wrong-demonstrations", tmp_path) == "holds"
    write_selection(tmp_path, {**bad, EASY: 9.0}, good)
    assert verdict("insight-1-measured", tmp_path) == "mixed"


def write_size(folder: Path, at_largest: Callable[[float], float]) -> Path:
    def error(r: float, B: int) -> float:
        return {0: 4.0, 10: 2.0, 18: 9.0, 100: at_largest(r)}[B]

    rows: list[dict[str, Any]] = [
        {
            Column.PANEL: "s",
            Column.PROMPTS: B,
            Column.INTERFERENCE: r,
            Column.SEED: seed,
            Column.ERROR: error(r, B) * noise(seed, r, B),
        }
        for r, B, seed in seeded((0.01, 0.1), (0, 10, 18, 100))
    ]
    rows += [
        {
            Column.PANEL: "t",
            Column.MODEL: THEORY,
            Column.PROMPTS: B,
            Column.INTERFERENCE: r,
            Column.PREDICTED: error(r, B),
        }
        for r, B in product((0.01, 0.1), (0, 10, 18, 100))
    ]
    return write(folder, size, rows, replace(SetSize.preset("smoke"), block=TwoBlock(20, 10)))


@pytest.mark.parametrize(
    ("at_largest", "expected"),
    [(lambda r: 3.0, "holds"), (lambda r: 1.0, "fails"), (lambda r: 3.0 if r < 0.05 else 1.0, "mixed")],
)
def test_size_is_judged_per_interference(
    tmp_path: Path, at_largest: Callable[[float], float], expected: str
) -> None:
    assert verdict("insight-2-size", write_size(tmp_path, at_largest)) == expected


# --- Insight 3 ------------------------------------------------------------------------------------------


def write_stability(
    folder: Path, sensitivity: Callable[[float], float], safe: Callable[[float], float]
) -> Path:
    """Error 0.1 at many prompts and steps; spread and gains in proportion to ``sensitivity``."""
    rows = [
        {
            stability.Column.PANEL: f"k={k}",
            stability.Column.STEPS: k,
            stability.Column.SEED: seed,
            stability.Column.KIND: MAP,
            stability.Column.SPECTRAL_RADIUS: r,
            stability.Column.LEARNING_RATE: rate,
            stability.Column.ERROR: 1.0 if rate <= safe(r) else None,
        }
        for k, r, rate, seed in seeded((1, 2), (0.5, 1.0, 2.0), (0.01, 0.1, 1.0))
    ]
    for kind, r, (B, T), seed in seeded(PROTOCOLS, (0.5, 1.0, 2.0), ((32, 200), (512, 50), (512, 200))):
        gain = 0.0 if (B, T) == (512, 200) else sensitivity(r)
        spread = gain * (seed - (SEEDS - 1) / 2) / 10
        rows.append(
            {
                stability.Column.PANEL: "k=2",
                stability.Column.STEPS: 2,
                stability.Column.PROMPTS: B,
                stability.Column.SEED: seed,
                stability.Column.KIND: kind,
                stability.Column.SPECTRAL_RADIUS: r,
                stability.Column.TRAINING_STEPS: T,
                stability.Column.ERROR: 0.1 * float(np.exp(gain + spread)),
            }
        )
    probes = ((32, 200), (512, 50), (512, 200))
    return write(folder, stability, rows, replace(Stability.preset("smoke"), probes=probes, seeds=SEEDS))


def test_sensitivity_is_judged_against_both_sides(tmp_path: Path) -> None:
    def falls(r: float) -> float:
        return {0.5: 1.0, 1.0: 0.1, 2.0: 0.01}[r]

    write_stability(tmp_path, lambda r: 1.0 if r == 1 else 0.1, falls)
    assert verdict("insight-3", tmp_path) == "holds"
    write_stability(tmp_path, lambda r: 0.1 if r == 1 else 1.0, lambda r: 0.1)
    assert verdict("insight-3", tmp_path) == "fails"
    write_stability(tmp_path, lambda r: r, falls)
    assert verdict("insight-3", tmp_path) == "mixed"


# --- Insight 4 and section 7 ----------------------------------------------------------------------------

RADII = {0.01: 3.0, 0.2: 0.8, 0.8: 0.2}
Errors = Callable[[float, str], float | None]


def write_balance(folder: Path, error: Errors) -> Path:
    rows = []
    for share, arm, seed in seeded(RADII, balance.ARMS):
        value = error(share, arm)
        measured = None if value is None else value * noise(seed, share, arm)
        rows.append(
            {
                balance.Column.PANEL: f"share={share:g}",
                balance.Column.SEED: seed,
                balance.Column.ERROR: measured,
                balance.Column.SHIFT_ERROR: measured,
                balance.Column.KIND: arm,
                balance.Column.SHARE: share,
                balance.Column.SPECTRAL_RADIUS: RADII[share],
            }
        )
    return write(folder, balance, rows, replace(Balance.preset("smoke"), budget=TraceBudget(10, 2, 40)))


def test_incremental_and_novel_shifts_are_told_apart(tmp_path: Path) -> None:
    def as_the_paper_says(share: float, arm: str) -> float | None:
        if arm == OUTCOME_GD:
            return None if share < 0.1 else 0.1
        start = 10.0 if share < 0.1 else 1.0
        return start if arm == BASE else start / 5

    def the_reverse(share: float, arm: str) -> float | None:
        if arm == OUTCOME_GD:
            return 0.1 if share < 0.1 else None
        if arm == BASE:
            return 1.0
        return 0.1 if share < 0.1 else 2.0

    assert verdict("insight-4", write_balance(tmp_path, as_the_paper_says)) == "holds"
    assert verdict("insight-4", write_balance(tmp_path, the_reverse)) == "fails"


def test_balance_is_judged_per_stage(tmp_path: Path) -> None:
    starved = {SFT: 0.5, OUTCOME: 3.0, RL: 9.0}

    def as_the_paper_says(share: float, arm: str) -> float:
        return 0.1 if share == 0.2 else starved.get(arm, 10.0) if share < 0.1 else 0.4

    def the_reverse(share: float, arm: str) -> float:
        return 0.5 if share == 0.2 else 0.2 if arm == SFT else 0.1

    def one_stage_gains(share: float, arm: str) -> float:
        return 0.05 if (share, arm) == (0.8, RL) else as_the_paper_says(share, arm)

    assert verdict("sec-7", write_balance(tmp_path, as_the_paper_says)) == "holds"
    assert verdict("sec-7", write_balance(tmp_path, the_reverse)) == "fails"
    assert verdict("sec-7", write_balance(tmp_path, one_stage_gains)) == "mixed"


# --- RL, compositions, thinking -------------------------------------------------------------------------


def write_bands(folder: Path, missed: Callable[[str, int], float]) -> Path:
    rows = [
        {
            bands.Column.PANEL: "pool",
            bands.Column.PROMPTS: B,
            bands.Column.SEED: seed,
            bands.Column.KIND: kind,
            bands.Column.ERROR: 1.0,
            bands.Column.PASS_RATE: 1 - missed(kind, B) * noise(seed, kind, B),
        }
        for kind, B, seed in seeded(bands.BANDS, (16, 256))
    ]
    rows += [
        {
            bands.Column.PANEL: "pool",
            bands.Column.PROMPTS: 0,
            bands.Column.SEED: seed,
            bands.Column.KIND: BASE,
            bands.Column.ERROR: 1.0,
            bands.Column.PASS_RATE: 0.2,
        }
        for seed in range(SEEDS)
    ]
    return write(folder, bands, rows)


def test_bands_are_judged_per_pool(tmp_path: Path) -> None:
    size = {16: 0.6, 256: 0.3}
    write_bands(tmp_path, lambda kind, B: 0.8 if kind in {TOO_HARD, HARDEST} else size[B])
    assert verdict("finding-3-bands", tmp_path) == "holds"
    write_bands(tmp_path, lambda kind, B: 0.1 if kind in {TOO_HARD, HARDEST} else 0.9 - size[B])
    assert verdict("finding-3-bands", tmp_path) == "fails"
    write_bands(tmp_path, lambda kind, B: 0.1 if kind == TOO_HARD else size[B] + (kind == HARDEST) * 0.3)
    assert verdict("finding-3-bands", tmp_path) == "mixed"


def write_sft_then_rl(folder: Path, errors: Callable[[float, str], float]) -> Path:
    rows = [
        {
            sft_then_rl.Column.PANEL: f"radius={radius:g}",
            sft_then_rl.Column.SEED: seed,
            sft_then_rl.Column.ERROR: errors(radius, arm) * noise(seed, radius, arm),
            sft_then_rl.Column.KIND: arm,
            sft_then_rl.Column.TRAINING_STEPS: 100,
            sft_then_rl.Column.DEMONSTRATIONS: 16 if SFT in sft_then_rl.ARMS[arm] else 0,
        }
        for radius, arm, seed in seeded((0.5, 3.0), [arm for arm in sft_then_rl.ARMS if arm != BASE])
    ]
    return write(folder, sft_then_rl, rows)


def test_composition_has_to_beat_both(tmp_path: Path) -> None:
    wins = {SFT: 1.0, RL: 2.0, SFT_THEN_RL: 0.5, RL_THEN_SFT: 1.0}
    between = {**wins, SFT_THEN_RL: 1.5}
    assert verdict("sft-then-rl", write_sft_then_rl(tmp_path, lambda _, arm: wins[arm])) == "holds"
    assert verdict("sft-then-rl", write_sft_then_rl(tmp_path, lambda _, arm: between[arm])) == "fails"
    write_sft_then_rl(tmp_path, lambda radius, arm: (wins if radius > 1 else between)[arm])
    assert verdict("sft-then-rl", tmp_path) == "mixed"


def write_overthinking(folder: Path, factor: Callable[[str], float]) -> Path:
    rows = [
        {
            overthinking.Column.PANEL: "radius=1",
            overthinking.Column.STEPS: 2,
            overthinking.Column.SEED: seed,
            overthinking.Column.KIND: arm,
            overthinking.Column.THINKING_STEPS: k,
            overthinking.Column.ERROR: factor(arm) ** k * noise(seed, arm, k),
            overthinking.Column.ROLLOUT_RADIUS: 1.0,
        }
        for arm, k, seed in seeded(overthinking.ARMS, (1, 2, 4, 8))
    ]
    return write(folder, overthinking, rows)


def test_overthinking_is_judged_per_stage(tmp_path: Path) -> None:
    assert verdict("overthinking", write_overthinking(tmp_path, lambda _: 1.5)) == "holds"
    assert verdict("overthinking", write_overthinking(tmp_path, lambda _: 0.5)) == "fails"
    assert (
        verdict("overthinking", write_overthinking(tmp_path, lambda arm: 1.5 if arm == RL else 0.5))
        == "mixed"
    )


def test_every_claim_names_a_test_of_this_file() -> None:
    for study in HOMES.values():
        for claim in study.claims:
            assert claim.test.split("::")[1] in globals(), claim.id
