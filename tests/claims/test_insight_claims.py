"""Every judge of an insight's claim can say *holds* and *fails*: shown on small hand-made tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datadose.studies.insights.claims import INSIGHT_CLAIMS

from datadose.files import write_json, write_table
from datadose.studies.insights import balance, bands, overthinking, selection, stability
from datadose.studies.insights import sft_then_rl as synergy
from datadose.studies.ledger import Tables, beats, judge_all
from datadose.studies.training import insight_row, insight_table

SEEDS = 6
CLAIMS = {claim.id: claim for claim in INSIGHT_CLAIMS}


def verdict(claim_id: str, folder: Path) -> str:
    return str(judge_all([CLAIMS[claim_id]], Tables(folder))[0]["verdict"])


def noise(seed: int, *setting: object, scale: float = 0.01) -> float:
    """A factor near 1, the same for the same seed and setting."""
    rng = np.random.default_rng([seed, *str(setting).encode()])
    return float(np.exp(scale * rng.standard_normal()))


def write(
    folder: Path, name: str, rows: Sequence[dict[str, Any]], extra: Sequence[str], config: dict[str, Any]
) -> Path:
    write_table(folder / f"{name}.csv", insight_table(rows, extra))
    write_json(folder / f"{name}.json", {"config": config})
    return folder


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
        insight_row(
            selection.NAME,
            pool,
            prompts=B,
            seed=seed,
            estimator=estimator,
            kind=kind,
            error=errors[kind] * noise(seed, pool, kind, B),
            share_wrong=0.1,
        )
        for (pool, errors), kind, B, estimator, seed in seeded(
            (("clean", clean), ("10% wrong", wrong)), clean, (5, 80), selection.ESTIMATORS
        )
    ]
    return write(folder, selection.NAME, rows, selection.EXTRA, {})


def test_hard_selection_is_judged_per_pool(tmp_path: Path) -> None:
    good = {"hard": 1.0, "random": 2.0, "easy": 4.0, "shift": 1.0}
    bad = {"hard": 3.0, "random": 2.0, "easy": 2.5, "shift": 1.0}
    write_selection(tmp_path, good, bad)
    assert verdict("insight-1-measured", tmp_path) == "holds"
    assert verdict("insight-1-wrong-demonstrations", tmp_path) == "fails"
    write_selection(tmp_path, bad, good)
    assert verdict("insight-1-measured", tmp_path) == "fails"
    assert verdict("insight-1-wrong-demonstrations", tmp_path) == "holds"
    write_selection(tmp_path, {**bad, "easy": 9.0}, good)
    assert verdict("insight-1-measured", tmp_path) == "mixed"


def write_size(folder: Path, at_largest: Callable[[float], float]) -> Path:
    def error(r: float, B: int) -> float:
        return {0: 4.0, 10: 2.0, 18: 9.0, 100: at_largest(r)}[B]

    rows = [
        insight_row(
            "insight2_size", "s", prompts=B, interference=r, seed=seed, error=error(r, B) * noise(seed, r, B)
        )
        for r, B, seed in seeded((0.01, 0.1), (0, 10, 18, 100))
    ]
    rows += [
        insight_row("insight2_size", "t", model="theory", prompts=B, interference=r, predicted=error(r, B))
        for r, B in product((0.01, 0.1), (0, 10, 18, 100))
    ]
    return write(folder, "insight2_size", rows, (), {"block": {"dimension": 20}})


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
        insight_row(
            stability.NAME,
            f"k={k}",
            steps=k,
            seed=seed,
            kind="map",
            spectral_radius=r,
            learning_rate=rate,
            error=1.0 if rate <= safe(r) else None,
        )
        for k, r, rate, seed in seeded((1, 2), (0.5, 1.0, 2.0), (0.01, 0.1, 1.0))
    ]
    for kind, r, (B, T), seed in seeded(
        ("own step", "one step"), (0.5, 1.0, 2.0), ((32, 200), (512, 50), (512, 200))
    ):
        gain = 0.0 if (B, T) == (512, 200) else sensitivity(r)
        spread = gain * (seed - (SEEDS - 1) / 2) / 10
        rows.append(
            insight_row(
                stability.NAME,
                "k=2",
                steps=2,
                prompts=B,
                seed=seed,
                kind=kind,
                spectral_radius=r,
                training_steps=T,
                error=0.1 * float(np.exp(gain + spread)),
            )
        )
    config = {"probes": [[32, 200], [512, 50], [512, 200]], "seeds": SEEDS}
    return write(folder, stability.NAME, rows, stability.EXTRA, config)


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
            insight_row(
                balance.NAME,
                f"share={share:g}",
                seed=seed,
                error=measured,
                shift_error=measured,
                kind=arm,
                share=share,
                spectral_radius=RADII[share],
            )
        )
    return write(folder, balance.NAME, rows, balance.EXTRA, {"budget": {"shifted": 2, "dimension": 10}})


def test_incremental_and_novel_shifts_are_told_apart(tmp_path: Path) -> None:
    def as_the_paper_says(share: float, arm: str) -> float | None:
        if arm == "outcome-gd":
            return None if share < 0.1 else 0.1
        start = 10.0 if share < 0.1 else 1.0
        return start if arm == "base" else start / 5

    def the_reverse(share: float, arm: str) -> float | None:
        if arm == "outcome-gd":
            return 0.1 if share < 0.1 else None
        if arm == "base":
            return 1.0
        return 0.1 if share < 0.1 else 2.0

    assert verdict("insight-4", write_balance(tmp_path, as_the_paper_says)) == "holds"
    assert verdict("insight-4", write_balance(tmp_path, the_reverse)) == "fails"


def test_balance_is_judged_per_stage(tmp_path: Path) -> None:
    starved = {"sft": 0.5, "outcome": 3.0, "rl": 9.0}

    def as_the_paper_says(share: float, arm: str) -> float:
        return 0.1 if share == 0.2 else starved.get(arm, 10.0) if share < 0.1 else 0.4

    def the_reverse(share: float, arm: str) -> float:
        return 0.5 if share == 0.2 else 0.2 if arm == "sft" else 0.1

    def one_stage_gains(share: float, arm: str) -> float:
        return 0.05 if (share, arm) == (0.8, "rl") else as_the_paper_says(share, arm)

    assert verdict("sec-7", write_balance(tmp_path, as_the_paper_says)) == "holds"
    assert verdict("sec-7", write_balance(tmp_path, the_reverse)) == "fails"
    assert verdict("sec-7", write_balance(tmp_path, one_stage_gains)) == "mixed"


# --- RL, compositions, thinking -------------------------------------------------------------------------


def write_bands(folder: Path, missed: Callable[[str, int], float]) -> Path:
    rows = [
        insight_row(
            bands.NAME,
            "pool",
            prompts=B,
            seed=seed,
            kind=kind,
            error=1.0,
            pass_rate=1 - missed(kind, B) * noise(seed, kind, B),
        )
        for kind, B, seed in seeded(bands.BANDS, (16, 256))
    ]
    rows += [
        insight_row(bands.NAME, "pool", prompts=0, seed=seed, kind="base", error=1.0, pass_rate=0.2)
        for seed in range(SEEDS)
    ]
    return write(folder, bands.NAME, rows, bands.EXTRA, {})


def test_bands_are_judged_per_pool(tmp_path: Path) -> None:
    size = {16: 0.6, 256: 0.3}
    write_bands(tmp_path, lambda kind, B: 0.8 if kind in {"too hard", "hardest"} else size[B])
    assert verdict("finding-3-bands", tmp_path) == "holds"
    write_bands(tmp_path, lambda kind, B: 0.1 if kind in {"too hard", "hardest"} else 0.9 - size[B])
    assert verdict("finding-3-bands", tmp_path) == "fails"
    write_bands(tmp_path, lambda kind, B: 0.1 if kind == "too hard" else size[B] + (kind == "hardest") * 0.3)
    assert verdict("finding-3-bands", tmp_path) == "mixed"


def write_synergy(folder: Path, errors: Callable[[float, str], float]) -> Path:
    rows = [
        insight_row(
            synergy.NAME,
            f"radius={radius:g}",
            seed=seed,
            error=errors(radius, arm) * noise(seed, radius, arm),
            kind=arm,
            training_steps=100,
            demonstrations=16 if "sft" in synergy.ARMS[arm] else 0,
        )
        for radius, arm, seed in seeded((0.5, 3.0), [arm for arm in synergy.ARMS if arm != "base"])
    ]
    return write(folder, synergy.NAME, rows, synergy.EXTRA, {})


def test_composition_has_to_beat_both(tmp_path: Path) -> None:
    wins = {"sft": 1.0, "rl": 2.0, "sft then rl": 0.5, "rl then sft": 1.0}
    between = {**wins, "sft then rl": 1.5}
    assert verdict("sft-then-rl", write_synergy(tmp_path, lambda _, arm: wins[arm])) == "holds"
    assert verdict("sft-then-rl", write_synergy(tmp_path, lambda _, arm: between[arm])) == "fails"
    write_synergy(tmp_path, lambda radius, arm: (wins if radius > 1 else between)[arm])
    assert verdict("sft-then-rl", tmp_path) == "mixed"


def write_overthinking(folder: Path, factor: Callable[[str], float]) -> Path:
    rows = [
        insight_row(
            overthinking.NAME,
            "radius=1",
            steps=2,
            seed=seed,
            kind=arm,
            thinking_steps=k,
            error=factor(arm) ** k * noise(seed, arm, k),
            rollout_radius=1.0,
        )
        for arm, k, seed in seeded(overthinking.ARMS, (1, 2, 4, 8))
    ]
    return write(folder, overthinking.NAME, rows, overthinking.EXTRA, {})


def test_overthinking_is_judged_per_stage(tmp_path: Path) -> None:
    assert verdict("overthinking", write_overthinking(tmp_path, lambda _: 1.5)) == "holds"
    assert verdict("overthinking", write_overthinking(tmp_path, lambda _: 0.5)) == "fails"
    assert (
        verdict("overthinking", write_overthinking(tmp_path, lambda arm: 1.5 if arm == "rl" else 0.5))
        == "mixed"
    )


def test_every_claim_names_a_test_of_this_file() -> None:
    for claim in INSIGHT_CLAIMS:
        assert claim.test.split("::")[1] in globals(), claim.id
