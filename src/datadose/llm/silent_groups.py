"""Steps of GRPO in which nothing was learned: in every group all completions passed, or all failed.

The advantage of a completion is its reward less its group's mean, so a group of equal rewards has no
gradient. A step of one group or two may well be silent; several in a row mean that the prompts are too easy,
too hard, or that the verifier cannot read what the model writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

SILENT_STEPS = 5
"""Silent steps in a row that lead to a warning; in a shorter run, all of its steps."""


class Silence(TypedDict):
    """Consecutive steps without a mixed group."""

    first: int
    last: int
    reward: float
    """The mean reward over these steps, in [0, 1]: 0 where all completions failed, 1 where all passed."""


def is_silent(entry: Mapping[str, Any]) -> bool:
    """Whether a step's record shows that no group was mixed: ``frac_reward_zero_std`` is 1."""
    return float(entry.get("frac_reward_zero_std", 0.0)) >= 1


def enough(steps: int) -> int:
    """Silent steps in a row that lead to a warning in a run of ``steps`` steps."""
    return min(SILENT_STEPS, steps)


def find_silences(history: Iterable[Mapping[str, Any]], steps: int) -> list[Silence]:
    """The stretches of at least :func:`enough` silent steps in a run's ``history``, in order.

    Args:
        history: a record of each step, in order, with ``step``, ``reward`` and ``frac_reward_zero_std``.
        steps: steps of the whole run.
    """
    found: list[Silence] = []
    stretch: list[Mapping[str, Any]] = []
    for entry in [*history, {}]:
        if is_silent(entry):
            stretch.append(entry)
            continue
        if len(stretch) >= enough(steps):
            found.append(_silence(stretch))
        stretch = []
    return found


def _silence(stretch: Sequence[Mapping[str, Any]]) -> Silence:
    reward = sum(float(entry["reward"]) for entry in stretch) / len(stretch)
    return {"first": int(stretch[0]["step"]), "last": int(stretch[-1]["step"]), "reward": reward}


def sentence(silence: Silence) -> str:
    """The warning on one silence: its steps, its kind, and what to check."""
    which = f"steps {silence['first']} to {silence['last']}"
    if silence["first"] == silence["last"]:
        which = f"step {silence['first']}"
    reward = silence["reward"]
    if reward == 0:
        what = "every completion failed: the prompts are too hard, or the verifier does not find the answers"
    elif reward == 1:
        what = "every completion passed: the prompts are too easy, or the verifier passes anything"
    else:
        what = "every group passed or failed as a whole: the prompts are too easy or too hard"
    return f"rl: {which}: nothing was learned, {what} (`datadose select` keeps prompts with mixed groups)"
