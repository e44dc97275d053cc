"""What to do first with a selection, and what would change that. Advice: the control is the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datadose.llm.selection.chosen import Selection
from datadose.llm.selection.config import FILTERS
from datadose.llm.selection.filters import WRONG, find_filter
from datadose.llm.selection.sources import Sampling
from datadose.llm.selection.unchecked import FEW_ROWS

_MANY = 0.5
"""The share of the rows a set could be drawn from at which a random set is much the same set."""


NO_SHIFT = (
    "No direction is shifted: by these rows the target cannot be told from what must be kept, so that "
    "alignment says little, though rows are removed for it (not with --unaligned 0). Give more rows of the "
    "target (hundreds), name what must be kept with --reference rather than the pool, try --representation "
    "embedding, and take a beginning that all answers share out of the completions. If the pool is like the "
    "target already, a random part of it serves as well."
)
"""Of a selection whose geometry has no shifted direction: what it means and what to do."""


@dataclass(frozen=True)
class Decision:
    """What a reader should do."""

    first: str
    """One or two sentences."""
    unless: list[str]
    """What would change it, a sentence each."""


def decide(selection: Selection, sampling: Sampling | None) -> Decision:
    """What to do first, from what was chosen and from what spoils the measurements."""
    first = _plan(selection)
    if sampling is not None and sampling.alarms:
        first = (
            "Draw the samples again, and select again: too many of them say nothing, and the RL set and what "
            "counts as solved rest on them."
        )
    return Decision(first, [*_about_sets(selection), *_about_sft(selection), *_about_rl(selection)])


def describe_size(selection: Selection) -> str:
    """The source of the number of SFT rows, and how reliable it is."""
    planner = selection.planner
    if not selection.sizes["sft"]:
        return f"SFT rows: none; {planner['note']}."
    if (tokens := selection.config.sft_tokens) is not None:
        had = selection.sizes["sft_tokens"]
        return f"SFT rows: {selection.sizes['sft']} with {had} completion tokens, of {tokens} asked for."
    if selection.weights is not None:
        return f"SFT rows: {selection.diversity['note']}."
    if selection.config.method == FILTERS:
        return _planned(planner)
    return f"{_planned(planner)} They are {selection.diversity['note']}."


def _planned(planner: dict[str, Any]) -> str:
    if "prompts" not in planner:
        return "SFT rows: as many as were asked for."
    said = f"SFT rows by the planner, a heuristic (the theory of a linear model): {planner['size']}"
    if planner["prompts"] is None:
        return f"{said}, the smallest number that is taken: {planner['reason']}, so it has nothing to go on."
    if planner["clipped"]:
        said += f", its own advice of {planner['prompts']} being outside what is allowed"
    if not (near := planner.get("near_optimal")):
        return f"{said}."
    return f"{said}. An error within 5 percent of the smallest is predicted from {near[0]} to {near[1]} rows."


def _plan(selection: Selection) -> str:
    sizes = selection.sizes
    sft = f"SFT on the {_count(sizes['sft'] + sizes['replay'], 'row')} of sft.jsonl"
    rl = f"RL on the {_count(sizes['rl'], 'prompt')} of rl.jsonl"
    if sizes["sft"] and sizes["rl"]:
        steps = f"Train {sft}, then {rl} from the weights that come out"
    else:
        steps = f"Train {sft if sizes['sft'] else rl}"
    controls = "the random controls"
    if selection.weights is not None:
        controls = "the control, which draws the same rows equally often,"
    return (
        f"{steps}. Train {controls} with the same settings, and keep a selected set only where it "
        "is better than its control on rows that neither was trained on."
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _about_sets(selection: Selection) -> list[str]:
    found = []
    eligible = selection.sizes["eligible"]
    for name, what, rows in (("sft", "SFT set", selection.sft), ("rl", "RL set", selection.rl)):
        filters = selection.filters_of(name)
        # What could be drawn for RL is what the filters of facts leave.
        among = eligible if name == "sft" else _usable(selection, eligible)
        if len(rows) and not selection.has_control(name):
            found.append(f"The {what} is all that could be drawn: there is no control to compare it with.")
        elif name == "sft" and selection.weights is not None:
            continue
        elif len(rows) and filters and len(rows) >= _MANY * max(1, among):
            share = 100 * min(1.0, len(rows) / max(1, among))
            found.append(
                f"The {what} is {share:.0f} percent of the rows that could be drawn: its control is much the "
                "same set, and the comparison will show little."
            )
    return found


def _usable(selection: Selection, eligible: int) -> int:
    left = [f["left"] for f in selection.filters_of("rl") if not f["judgement"]]
    return left[-1] if left else eligible


def _about_sft(selection: Selection) -> list[str]:
    sizes = selection.sizes
    if not sizes["sft"]:
        return _about_labels(selection)
    found: list[str] = []
    if "prompts" in selection.planner:
        found.append(
            "The number of SFT rows is a heuristic: train on half and on twice as many too, and choose by "
            "the loss on validation rows."
        )
    beyond = sum(f["taken"] for f in selection.filters_of("sft"))
    if beyond:
        found.append(
            f"{_count(beyond, 'SFT row')} of {sizes['sft']} lie beyond a threshold: with --sft-size "
            f"{sizes['sft'] - beyond} none would."
            if beyond < sizes["sft"]
            else "All SFT rows lie beyond a threshold: the pool holds nothing that is asked for."
        )
    if not selection.pool.table["label_passes"].notna().any():
        found.append(
            f"No verifier has judged the labels, and {_why_wrong(selection)}: expect more of them than in "
            "the control. Score with --verifier, or read some SFT rows before you train on them."
        )
    found += _about_labels(selection)
    if selection.config.method == FILTERS and not selection.geometry["shifted_directions"]:
        found.append(NO_SHIFT)
    if 0 < sizes["target"] < FEW_ROWS:
        found.append(f"The target has {_count(sizes['target'], 'row')}: with more of them others are chosen.")
    return found


def _why_wrong(selection: Selection) -> str:
    """Why wrong labels gather in the SFT set."""
    if selection.config.method in (FILTERS, "hardest"):
        return "wrong ones have a high loss, as the hard rows have that are chosen here"
    return "wrong answers to the target's kind of question are chosen for the question"


def _about_labels(selection: Selection) -> list[str]:
    """A remark on labels if most fail; without an SFT set they may be why."""
    wrong = find_filter(selection.filters_of("sft"), WRONG)
    if wrong is None or wrong["removed"] <= _MANY * (wrong["removed"] + wrong["left"]):
        return []
    share = 100 * wrong["removed"] / (wrong["removed"] + wrong["left"])
    return [f"{share:.0f} percent of the labels fail the verifier: mend the labels, or the verifier, first."]


def _about_rl(selection: Selection) -> list[str]:
    sizes, record = selection.sizes, selection.rl_record
    if not record:
        return []
    if not sizes["rl"]:
        return [
            f"No prompt's groups of {record['group']} would be mixed often enough for RL: after SFT, score "
            "the pool again under the new weights."
        ]
    found = []
    if sizes["sft"]:
        found.append(
            "Pass rates were measured before SFT, which moves them: if most groups of the first RL steps "
            "pass or fail as a whole, score the pool again under the new weights and select for RL alone "
            "(--sft-size 0)."
        )
    if record["beyond_threshold"]:
        said = f"{_count(record['beyond_threshold'], 'RL prompt')} will seldom have a mixed group"
        found.append(
            f"{said}: with --rl-size {record['kept']} or auto they are left out."
            if record["kept"]
            else f"{said}, and no other prompt of the pool is left: there is little to learn by RL."
        )
    return found
