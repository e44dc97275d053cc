"""Claims on Insights 1 to 4, section 7 and the contrast of SFT with RL, from the insight tables."""

from __future__ import annotations

from datadose.studies.insights.balance import balance_helps, incremental_or_novel
from datadose.studies.insights.bands import not_too_hard
from datadose.studies.insights.overthinking import thinking_hurts
from datadose.studies.insights.selection import hard_wins
from datadose.studies.insights.sft_then_rl import both_beat_either
from datadose.studies.insights.size import small_sets
from datadose.studies.insights.stability import sensitive_near_one
from datadose.studies.ledger import CONFIDENCE, Claim

_JUDGES = "tests/claims/test_insight_claims.py"
_SHARE = f"share of settings where it holds, each at {CONFIDENCE:.0%} confidence over paired seeds"

INSIGHT_CLAIMS = [
    Claim(
        "insight-1-measured",
        "Insight 1",
        "For SFT, the prompts of a mixed pool that the pretrained model itself finds hardest beat random and "
        "easiest prompts at equal B.",
        "d=40, m=20, n=80, pool of 1600 of four kinds, all demonstrations right; V* and 100 steps of "
        "gradient descent; B from 5 to 320 (sizes of the preset)",
        _SHARE,
        1.0,
        "insight1_selection",
        hard_wins(clean=True),
        f"{_JUDGES}::test_hard_selection_is_judged_per_pool",
    ),
    Claim(
        "insight-1-wrong-demonstrations",
        "ours",
        "Choosing the hardest prompts beats random choice even if 10 or 30 percent of demonstrations are "
        "wrong.",
        "the same pool with demonstrations that belong to another prompt (sizes of the preset)",
        _SHARE,
        1.0,
        "insight1_selection",
        hard_wins(clean=False),
        f"{_JUDGES}::test_hard_selection_is_judged_per_pool",
    ),
    Claim(
        "insight-2-size",
        "Insight 2",
        "Under interference keep SFT data small: the best B below the peak beats the largest B, whatever r.",
        "d=100, m=50, n=200, r from 0.001 to 1, largest B = 5d; exact theory and simulated V* (sizes of the "
        "preset)",
        f"share of r where it holds, each at {CONFIDENCE:.0%} confidence over paired seeds",
        1.0,
        "insight2_size",
        small_sets,
        f"{_JUDGES}::test_size_is_judged_per_interference",
    ),
    Claim(
        "insight-3",
        "Insight 3",
        "OS is sensitive to sample variation near rho(M) = 1 (sharp curvature): more than away from it, its "
        "result varies with the sample and gains from more data and more steps.",
        "gradient descent on OS, d=20, m=4, Sigma0=I; map: n=2000, k in {1, 2, 4}; sensitivity: k=2, n=80, "
        "B 32 against 512, 50 against 200 steps, every radius at its own step size and all at one (sizes of "
        "the preset)",
        _SHARE,
        1.0,
        "insight3_stability",
        sensitive_near_one,
        f"{_JUDGES}::test_sensitivity_is_judged_against_both_sides",
    ),
    Claim(
        "insight-4",
        "Insight 4",
        "OS improves what pretraining partly taught (rho(Gamma0^{-1} Delta) < 1, stable); a novel task "
        "(about 2 or more) starts unstable and learns slowly.",
        "d=30, m=6, n=120, tr Sigma0 = d fixed, Delta fixed; OS with Adam at equal steps, and plain gradient "
        "descent at one step size (sizes of the preset)",
        _SHARE,
        1.0,
        "insight4_balance",
        incremental_or_novel,
        f"{_JUDGES}::test_incremental_and_novel_shifts_are_told_apart",
    ),
    Claim(
        "sec-7",
        "Sec 7",
        "Balanced pretraining keeps post-training in the stable regime: it beats starved and concentrated "
        "pretraining after SFT, OS and RL, and OS and RL suffer more from starvation than SFT.",
        "d=30, m=6, n=120, tr Sigma0 = d fixed, Delta fixed; equal prompts, steps and optimiser (sizes of "
        "the preset)",
        _SHARE,
        1.0,
        "insight4_balance",
        balance_helps,
        f"{_JUDGES}::test_balance_is_judged_per_stage",
    ),
    Claim(
        "finding-3-bands",
        "Finding 3",
        "RL needs prompts that are not overly difficult for the pretrained model, and many of them: medium "
        "pass rates beat too hard ones at equal B, and a large set beats a small one.",
        "d=20, m=8, n=400; GRPO, 0/1 reward, bands at pass rates 0.1 and 0.9, B from 16 to 256, a mild and a "
        "harsh pool (sizes of the preset)",
        _SHARE,
        1.0,
        "rl_bands",
        not_too_hard,
        f"{_JUDGES}::test_bands_are_judged_per_pool",
    ),
    Claim(
        "sft-then-rl",
        "ours",
        "SFT and then RL beats either alone at the same number of optimiser steps.",
        "d=20, m=5, n=200, rho(Gamma0^{-1} Delta) in {0.7, 1.5, 3}, 16 or 256 demonstrations, RL on 256 "
        "prompts with 0/1 reward, 100 to 900 steps (sizes of the preset)",
        _SHARE,
        1.0,
        "sft_then_rl",
        both_beat_either,
        f"{_JUDGES}::test_composition_has_to_beat_both",
    ),
    Claim(
        "overthinking",
        "ours (Insight 3)",
        "Thinking longer than the model was trained for raises the post-test error, before and after every "
        "stage.",
        "d=20, m=5, n=120, rho(Gamma0^{-1} Delta) in {0.5, 1.2, 2}, trained with k=2, tested with 16 (sizes "
        "of the preset)",
        _SHARE,
        1.0,
        "overthinking",
        thinking_hurts,
        f"{_JUDGES}::test_overthinking_is_judged_per_stage",
    ),
]
