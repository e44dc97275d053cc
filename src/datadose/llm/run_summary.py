"""A finished run in a few lines: what became of the loss, or of the reward and of the groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datadose.llm.silent_groups import is_silent


def summary(result: Mapping[str, Any]) -> list[str]:
    """The lines with which `datadose posttrain` ends.

    Args:
        result: what :func:`~datadose.llm.posttrain.posttrain` returns. The first and the last tenth of its
            steps are compared, each a mean; of SFT the loss, of RL the reward and the groups without signal,
            in which all completions passed or all failed. Of an average of runs nothing is said.
    """
    history = result.get("history") or []
    if not history:
        return []
    rl = "reward" in history[0]
    name, unit = ("reward", "") if rl else ("loss", ", nats a token")
    tenth = max(1, len(history) // 10)
    first, last = (_mean(part, name) for part in (history[:tenth], history[-tenth:]))
    over = "step" if tenth == 1 else f"{tenth} steps"
    lines = [f"{name}{unit}: {first:.3g} in the first {over}, {last:.3g} in the last"]
    if rl:
        dead = sum(map(is_silent, history))
        share = _mean(history, "frac_reward_zero_std")
        lines.append(
            f"groups without signal (all passed or all failed): {share:.0%}; {dead} of {len(history)} steps "
            "had no other, and taught nothing"
        )
    for reason, count in result.get("verifier_errors", {}).items():
        lines.append(f"verifier: {count} completions without a verdict, not rewarded: {reason}")
    if result.get("unfinished"):
        lines.append(f"{result['unfinished']} completions broke off inside a thought")
    for one in result.get("evaluations", [])[-1:]:
        shown = ", ".join(f"{key} {value:.4g}" for key, value in one.items() if isinstance(value, float))
        lines.append(f"last evaluation: {shown}")
    return lines


def _mean(history: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(float(entry.get(name, 0.0)) for entry in history) / len(history)
