"""The RL set: as many distinct prompts as possible, without the surely solved and the surely hopeless."""

from __future__ import annotations

import numpy as np

from datadose.errors import reject
from datadose.llm.scores import Scores
from datadose.llm.selection.arrays import Indices, numbers
from datadose.llm.selection.config import SelectionConfig
from datadose.llm.selection.filters import Funnel

_Z2 = 1.959963984540054**2
"""Squared 97.5 percent point of the normal law, as in the intervals of `score`."""


def require_pass_rates(pool: Scores) -> None:
    """InputError if no row has a pass rate."""
    if not np.isfinite(numbers(pool.table, "pass_rate")).any():
        allowed = "pass rates (score the pool with --samples K and a --verifier), or an rl-size of 0"
        reject("rl-size", "scores without pass rates", allowed)


def filter_rl(funnel: Funnel, pool: Scores, sft: Indices, config: SelectionConfig) -> None:
    """Apply the filters of the RL set to a funnel that holds scored, distinct questions."""
    taken = np.zeros(len(funnel.alive), dtype=bool)
    taken[sft] = True
    low, high = numbers(pool.table, "pass_rate_low"), numbers(pool.table, "pass_rate_high")
    funnel.drop("in the SFT set", taken, "a prompt is used in one stage only")
    funnel.drop("no pass rate", np.isnan(low) | np.isnan(high), "no completions of it were judged")
    funnel.drop(
        "surely solved",
        low > config.rl_solved,
        f"the interval of its pass rate lies above {config.rl_solved:g}: nothing left to learn",
    )
    funnel.drop(
        "surely hopeless",
        high < config.rl_hopeless,
        f"the interval of its pass rate lies below {config.rl_hopeless:g}: almost no group of "
        "samples holds an answer that passes",
    )


def samples_needed(config: SelectionConfig) -> tuple[int, int]:
    """Samples per prompt from which K of K passes is surely solved, and 0 of K surely hopeless.

    The Wilson interval of K passes of K starts at K / (K + z^2), that of 0 ends at z^2 / (K + z^2).
    """
    solved = _Z2 * config.rl_solved / (1 - config.rl_solved) if config.rl_solved < 1 else np.inf
    hopeless = _Z2 * (1 - config.rl_hopeless) / config.rl_hopeless if config.rl_hopeless > 0 else np.inf
    never = np.iinfo(np.int64).max
    return tuple(int(K) + 1 if np.isfinite(K) else never for K in (solved, hopeless))  # type: ignore[return-value]
