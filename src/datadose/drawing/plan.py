"""The picture of a plan, from its JSON document."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.style import GREY, LOOKS, new_axes, new_grid
from datadose.planner.decision import Plan
from datadose.planner.judged import recommendation_notes
from datadose.planner.stage_choice import show_pass_rate
from datadose.printing import printable

_FEW = 40
_WORTH_SHOWING = 0.001
_WIDTH, _LETTERS = 4.0, 13.75
"""Of a further panel, in inches; of the sentence above, for an inch."""
_SAME = 1e-9
"""Objectives closer than this to the target's error are that error."""


def draw_plan(document: dict[str, Any]) -> Figure:
    """What the file requests beyond the plan to convergence; then that plan: dose, data, stages."""
    asked = [draw for name, draw in _ASKED.items() if name in document]
    panels = [(1.5, draw) for draw in [*asked, _draw_dose]]
    panels += [(1.0, _draw_sources if "sources" in document else _draw_allocation), (1.0, _draw_stages)]
    ratios, width = [ratio for ratio, _ in panels], 12.0 + _WIDTH * len(asked)
    with new_grid(1, len(panels), width=width, height=4.2, width_ratios=ratios) as (figure, axes):
        for axis, (_, draw) in zip(axes[0], panels, strict=True):
            draw(axis, document)
        told = "; ".join([document["recommendation"], *recommendation_notes(document)])
        sentence = "\n".join(textwrap.wrap(printable(told), int(_LETTERS * width)))
        figure.suptitle(sentence, fontsize=9.5, x=0.01, ha="left", parse_math=False)
    return figure


def draw_dose_of(found: Plan, ax: Axes | None = None) -> Axes:
    """The error of a plan over the numbers of prompts and its best, on ``ax`` or on a new figure's axes."""
    axis = new_axes() if ax is None else ax
    _draw_dose(axis, found.to_json())
    return axis


def _bars(
    axis: Axes, values: dict[str, float | None], words: Sequence[str], chosen: Sequence[bool], label: str
) -> None:
    """A bar for each of ``values`` with its word beside it; what is not known (None) has the word alone."""
    place, known = np.arange(len(values)), [value or 0.0 for value in values.values()]
    axis.barh(place, known, color=[LOOKS[1 if best else 0].color for best in chosen], height=0.6)
    for i, word in enumerate(words):
        axis.text(known[i], i, f" {word}", va="center", fontsize=8)
    # A name is no formula: "$" in it is a dollar.
    axis.set_yticks(place, [printable(name) for name in values], parse_math=False)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.25 * max([*known, 1e-12]))
    axis.set_xlabel(label)


def _draw_dose(axis: Axes, document: dict[str, Any]) -> None:
    points = [(point["prompts"], point["predicted"]) for point in document["curve"]]
    x = np.array([B for B, _ in points], dtype=float)
    y = np.array([np.nan if error is None else error for _, error in points])
    before, best = document["error_before"], document["predicted_error"]
    axis.axhline(before, color=GREY, linestyle=":", linewidth=1.2, label="no SFT")
    near = document["near_optimal"]
    if near is not None:
        axis.axvspan(
            near[0], near[1], color=LOOKS[2].color, alpha=0.15, lw=0, label="within 5 percent of the best"
        )
    axis.plot(x, y, color=LOOKS[0].color, marker="o" if x.max() <= _FEW else "", markersize=4)
    axis.plot(
        [document["prompts"]],
        [best],
        marker="*",
        markersize=13,
        color=LOOKS[1].color,
        linestyle="none",
        clip_on=False,
        zorder=5,
        label="the best",
    )
    if x.max() > _FEW:
        axis.set_xscale("symlog", linthresh=1)
    axis.set_yscale("log")
    axis.set_xlim(0, max(x.max(), 1))
    finite = y[np.isfinite(y)]
    axis.set_ylim(0.8 * finite.min(), 1.6 * max(3 * before, np.quantile(finite, 0.8)))
    axis.legend(loc="upper left")
    axis.set_xlabel("prompts B of SFT")
    axis.set_ylabel("predicted post-test error / d")
    axis.set_title(
        f"{'To convergence' if 'stopping' in document or 'penalty' in document else 'How much'}? "
        f"B* = {document['prompts']}: "
        f"{best:.3g} against {before:.3g} at B = 0",
        loc="left",
    )


def _draw_time(axis: Axes, document: dict[str, Any]) -> None:
    """The errors over training time, the best time and the range around it, the ceiling."""
    found = document["stopping"]
    curve, (low, high) = found["curve"], found["near_optimal_time"]
    time = np.array([point["time"] for point in curve])
    axis.set_xscale("log")
    if len(time):
        target = np.array([point["predicted"] for point in curve])
        axis.axvspan(
            max(low, time[0]),
            time[-1] if high is None else high,
            color=LOOKS[2].color,
            alpha=0.15,
            lw=0,
            label="within 5 percent of the best",
        )
        for look, name, label in (
            (LOOKS[0], "predicted", "target"),
            (LOOKS[3], "predicted_pretraining", "Sigma0"),
        ):
            axis.plot(time, [p[name] for p in curve], color=look.color, linestyle=look.dash, label=label)
        objective = np.array([point["objective"] for point in curve])
        if not np.allclose(objective, target):
            axis.plot(time, objective, color=LOOKS[1].color, linestyle=":", label="both, weighted")
        axis.set_xlim(time[0], time[-1])
        least, most = min(found["ceiling"], target.min()), target.max()
        # Room for the legend above the curves.
        axis.set_ylim(0.85 * least, most * (most / least) ** 0.9)
    axis.axhline(found["ceiling"], color=GREY, linestyle="--", linewidth=1.2, label="ceiling: unlimited rows")
    if found["time"]:
        best = found["objective"]
        axis.plot(
            [found["time"]],
            [best],
            marker="*",
            markersize=13,
            color=LOOKS[1].color,
            linestyle="none",
            zorder=5,
            label="the best time",
        )
    axis.set_yscale("log")
    axis.legend(loc="upper left")
    axis.set_xlabel("training time t")
    axis.set_ylabel("predicted error / d")
    if found["time"]:
        steps = "" if found["steps"] is None else f" ({found['steps']} steps)"
        title = f"How long? t = {found['time']:.3g}{steps} on {found['prompts']} rows"
    else:
        title = "How long? no training" if found["time"] == 0 else "How long? to convergence"
    axis.set_title(title, loc="left")


def _draw_penalty(axis: Axes, document: dict[str, Any]) -> None:
    """The target's errors under the best penalty and without one, and the ceiling."""
    found = document["penalty"]
    values = {
        "no training": document["error_before"],
        "the plan": found["predicted_error"],
        "the same rows\nto convergence": found["error_if_converged"],
        "all rows alike,\nbest penalty": found["error_on_all_rows"],
        "all rows alike,\nto convergence": found["error_on_all_rows_if_converged"],
    }
    words = ["infinite mean" if value is None else f"{value:.3g}" for value in values.values()]
    _bars(axis, values, words, [name == "the plan" for name in values], "predicted error / d on the target")
    # The ceiling is one of the objective.
    if abs(found["objective"] - found["predicted_error"]) < _SAME:
        axis.axvline(
            found["ceiling"], color=GREY, linestyle="--", linewidth=1.2, label="ceiling: unlimited rows"
        )
        axis.legend(loc="lower right")
    named = (
        f"{found['value']:.3g} on {found['prompts']} rows" if found["value"] is not None else "no training"
    )
    axis.set_title(f"Which penalty? {named}", loc="left")


def _draw_schedule(axis: Axes, document: dict[str, Any]) -> None:
    """The error that the budget brings with each choice of stages."""
    bought = [stage["stage"] for stage in document["schedule"]]
    chosen = "none" if not bought else "both" if len(bought) > 1 else bought[0]
    names = {"none": "no stage", "sft": "SFT alone", "outcome": "outcome alone", "both": "both at most"}
    values = {names[name]: error for name, error in document["alternatives"].items()}
    words = [f"{value:.3g}" for value in values.values()]
    _bars(axis, values, words, [name == names[chosen] for name in values], "predicted post-test error / d")
    rows = ", ".join(f"{stage['stage']} {stage['prompts']} rows" for stage in document["schedule"])
    axis.set_title(f"What to buy? {rows or 'nothing'}", loc="left")


def _draw_pretraining(axis: Axes, document: dict[str, Any]) -> None:
    """The shares of pretraining that serve the shifts that may come."""
    found = document["pretraining_error"]
    values = {one["name"]: one["share"] for one in document["pretraining"]}
    words = [f"{share:.1%}" for share in values.values()]
    _bars(axis, values, words, [False] * len(values), "share of pretraining")
    axis.set_title(f"What to pretrain on? {found['objective']} error {found['error']:.3g}", loc="left")


def _draw_allocation(axis: Axes, document: dict[str, Any]) -> None:
    entries = [("plan's data", document["allocation"], LOOKS[0])]
    better = document.get("better_allocation")
    if better and better["gain"] > _WORTH_SHOWING:
        entries.append((f"planner's ({better['gain']:.1%} better)", better["allocation"], LOOKS[1]))
    for label, allocation, look in entries:
        matrix = np.array(allocation)
        values = matrix if matrix.ndim == 1 else np.clip(np.linalg.eigvalsh(matrix), 0, None)
        place = np.arange(1, len(values) + 1)
        axis.plot(place, np.sort(values)[::-1], color=look.color, linestyle=look.dash, label=label)
    axis.set_xlabel("direction, largest first")
    axis.set_ylabel("variance of the data")
    axis.set_ylim(bottom=0)
    axis.set_title("Which?", loc="left")
    axis.legend()


def _draw_sources(axis: Axes, document: dict[str, Any]) -> None:
    """What is taken of each source: to convergence, or of the mixture that is trained well."""
    sources, mixture = document["sources"], document.get("mixture")
    weights = [""] * len(sources)
    if mixture is not None:
        sources = [{**s, "prompts": part["prompts"]} for s, part in zip(sources, mixture, strict=True)]
        weights = [f", weight {part['weight']:.2g}" if part["weight"] else "" for part in mixture]
    place = np.arange(len(sources))
    axis.barh(place, [source["size"] for source in sources], color="#e3e5e8")
    axis.barh(place, [source["prompts"] for source in sources], height=0.5, color=LOOKS[0].color)
    # A name is no formula: "$" in it is a dollar.
    labels = [
        f"{printable(s['name'])}\n{s['prompts']} of {s['size']}{weight}"
        for s, weight in zip(sources, weights, strict=True)
    ]
    axis.set_yticks(place, labels, parse_math=False)
    axis.invert_yaxis()
    axis.set_xlabel("prompts: taken (blue), available (grey)")
    axis.set_title("From where?", loc="left")


def _draw_stages(axis: Axes, document: dict[str, Any]) -> None:
    stages = document.get("stages")
    if stages is None:
        axis.set_axis_off()
        return
    outlooks, verifiable = stages["outlooks"], stages["reward"] == "verifiable"
    values, words = {}, []
    for outlook in outlooks:
        value = outlook["pass_rate" if verifiable else "error"]
        values["no stage" if outlook["stage"] == "none" else outlook["stage"]] = value
        # What is withheld has no bar, but a word.
        shown = "not forecast" if value is None else show_pass_rate(value) if verifiable else f"{value:.3g}"
        words.append(shown if outlook["has_signal"] else f"{shown}, no signal")
    label = "predicted pass rate" if verifiable else "predicted post-test error / d"
    if stages["judged_by"] == "tests" and not verifiable:
        label += " on tests"
    _bars(axis, values, words, [outlook["stage"] == stages["stage"] for outlook in outlooks], label)
    axis.set_title("Which stage?", loc="left")


_ASKED = {
    "stopping": _draw_time,
    "penalty": _draw_penalty,
    "schedule": _draw_schedule,
    "pretraining": _draw_pretraining,
}
"""Panels of what a file requests beyond the plan to convergence, which come first."""
