"""Every judge of the token study can say *holds*, *mixed* and *fails*: shown on small hand-made tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from datadose.studies.token_study.study import STUDY
from helpers.studies import entry, write_result

DEFAULTS = {"model": "rare", "pool": "clean", "prompts": 0, "share": 0.0, "rate": 1e-4}
SELECTORS = ("ours", "ours-unverified", "random", "easiest", "nll", "band", "all")


def rows(panel: str, arm: str, value: float, metric: str = "target", **where: Any) -> list[dict[str, Any]]:
    """Three seeds around ``value`` that move together, so that paired differences are nearly exact."""
    split = where.pop("split", "test")
    chosen = where.pop("chosen", True)
    return [
        {
            **DEFAULTS,
            **where,
            "panel": panel,
            "arm": arm,
            "seed": seed,
            "split": split,
            "metric": metric,
            "length": None,
            "value": value + 0.05 * seed + 0.001 * (seed == 1) * (value > 0.5),
            "chosen": chosen,
        }
        for seed in range(3)
    ]


def table(scale: float) -> pd.DataFrame:
    """A study in which every claim holds (scale 1) or every claim fails (-1)."""
    found: list[dict[str, Any]] = []
    for panel, arm, lift, metric, where in (*pretrained_runs(), *sft_runs(), *rl_runs()):
        found.extend(rows(panel, arm, 0.5 + scale * lift, metric, **where))
    return pd.DataFrame(found)


Runs = Iterator[tuple[str, str, float, str, dict[str, Any]]]
"""Panel, arm, lift over 0.5, metric, other columns."""


def pretrained_runs() -> Runs:
    for lift, model in ((-0.2, "absent"), (0.0, "rare"), (0.2, "balanced")):
        yield "pretraining", "base", lift, "target", {"model": model}
        for B in (4, 16):
            yield "activation", "symbol", lift, "target", {"model": model, "prompts": B}


def sft_runs() -> Runs:
    for arm in ("equal steps", "equal epochs"):
        for i, B in enumerate((8, 32, 128)):
            yield "sft size", arm, -0.1 + 0.1 * i, "target", {"prompts": B}
            for rate, lift in ((1e-4, 0.0), (1e-3, -0.3)):
                where = {"prompts": B, "rate": rate, "chosen": False}
                yield "sft size", arm, lift + 0.01 * i, "known", where
    for pool in ("clean", "contaminated"):
        for arm in SELECTORS:
            for metric in ("target", "known"):
                yield "selectors", arm, 0.2 * arm.startswith("ours"), metric, {"pool": pool}
        for share in (0.0, 0.5):
            yield "replay", "sft", share, "known", {"pool": pool, "share": share}


def rl_runs() -> Runs:
    for arm, lift, count in (
        ("easy", -0.1, 64),
        ("medium", 0.1, 64),
        ("hard", -0.1, 64),
        ("all", -0.2, 16),
        ("all", 0.05, 64),
        ("all", 0.15, 256),
    ):
        yield "rl", arm, lift, "target", {"prompts": count}
    for arm, lift, B in (("rl", 0.0, 0), ("sft", 0.0, 32), ("sft-rl", 0.1, 32)):
        yield "stages", arm, lift, "target", {"prompts": B}


def judged(claim_id: str, content: pd.DataFrame, folder: Path) -> dict[str, Any]:
    return entry(STUDY, claim_id, write_result(folder, STUDY, content))


COMPARISONS = [
    claim.id
    for claim in STUDY.claims
    if "contaminants" not in claim.id and claim.id not in ("token-rl-unfiltered", "token-forgetting")
]


@pytest.mark.parametrize("claim_id", COMPARISONS)
def test_comparisons_hold_fail_or_stay_mixed(claim_id: str, tmp_path: Path) -> None:
    good = judged(claim_id, table(1.0), tmp_path)
    assert (good["verdict"], good["seeds"]) == ("holds", 3), good["note"]
    assert judged(claim_id, table(-1.0), tmp_path)["verdict"] == "fails"
    noisy = table(1.0)
    # One seed against the others: no interval of three such seeds leaves zero out.
    noisy["value"] += noisy["seed"].eq(2) * (0.5 - noisy["value"]) * 4
    assert judged(claim_id, noisy, tmp_path)["verdict"] == "mixed"


def test_forgetting_is_judged_by_rate_against_size(tmp_path: Path) -> None:
    assert judged("token-forgetting", table(1.0), tmp_path)["verdict"] == "holds"
    by_size = table(1.0)
    known = by_size["metric"].eq("known") & by_size["panel"].eq("sft size")
    by_size.loc[known, "value"] = 1 - by_size.loc[known, "prompts"] / 200
    assert judged("token-forgetting", by_size, tmp_path)["verdict"] == "fails"


@pytest.mark.parametrize(
    ("arm", "shares", "verdict"),
    [
        ("nll", (0.95, 1.0), "holds"),
        ("nll", (0.5, 1.0), "fails"),
        ("ours", (0.0, 0.02), "holds"),
        ("ours", (0.0, 0.2), "fails"),
        ("ours-unverified", (0.1, 0.2), "holds"),
        ("ours-unverified", (0.1, 0.4), "fails"),
    ],
)
def test_contaminants_are_judged_by_the_worst_seed(
    arm: str, shares: tuple[float, float], verdict: str, tmp_path: Path
) -> None:
    found = rows("selectors", arm, 0.0, "contaminants", pool="contaminated", split="train")
    for row, share in zip(found, (*shares, shares[0]), strict=True):
        row["value"] = share
    assert judged(f"token-contaminants-{arm}", pd.DataFrame(found), tmp_path)["verdict"] == verdict


@pytest.mark.parametrize(("loss", "verdict"), [(0.0, "holds"), (0.1, "fails")])
def test_unfiltered_prompts_may_lose_a_little(loss: float, verdict: str, tmp_path: Path) -> None:
    content = pd.DataFrame(
        [*rows("rl", "medium", 0.4, prompts=64), *rows("rl", "all", 0.4 - loss, prompts=256)]
    )
    assert judged("token-rl-unfiltered", content, tmp_path)["verdict"] == verdict


def test_only_the_chosen_rate_counts(tmp_path: Path) -> None:
    good = table(1.0)
    others = table(-1.0).assign(chosen=False, rate=1e-2)
    assert judged("token-selection-clean", pd.concat([good, others]), tmp_path)["verdict"] == "holds"
