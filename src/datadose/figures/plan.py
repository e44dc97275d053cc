"""The picture of a plan, from its JSON document."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.figures.style import GREY, LOOKS, new_grid


def draw_plan(document: dict[str, Any]) -> Figure:
    """Error against the number of prompts; the allocation, or the sources; the stages' promises."""
    with new_grid(1, 3, width=12.0, height=4.2, width_ratios=(1.5, 1.0, 1.0)) as (figure, axes):
        _draw_dose(axes[0][0], document)
        if "sources" in document:
            _draw_sources(axes[0][1], document["sources"])
        else:
            _draw_allocation(axes[0][1], document)
        _draw_stages(axes[0][2], document)
        sentence = "\n".join(textwrap.wrap(document["recommendation"], 165))
        figure.suptitle(sentence, fontsize=9.5, x=0.01, ha="left")
    return figure


def _draw_dose(axis: Axes, document: dict[str, Any]) -> None:
    points = [(point["prompts"], point["predicted"]) for point in document["curve"]]
    x = np.array([B for B, _ in points], dtype=float)
    y = np.array([np.nan if error is None else error for _, error in points])
    before, best = document["error_before"], document["predicted_error"]
    axis.plot(x, y, color=LOOKS[0].color)
    axis.axhline(before, color=GREY, linestyle=":", linewidth=1.2, label="no SFT")
    near = document["near_optimal"]
    if near is not None:
        axis.axvspan(
            near[0],
            near[1],
            color=LOOKS[2].color,
            alpha=0.15,
            linewidth=0,
            label="within 5 percent of the best",
        )
    axis.plot(
        [document["prompts"]], [best], marker="*", markersize=13, color=LOOKS[1].color, linestyle="none"
    )
    axis.set_xscale("symlog", linthresh=1)
    axis.set_yscale("log")
    axis.set_xlim(0, max(x.max(), 1))
    finite = y[np.isfinite(y)]
    axis.set_ylim(0.8 * finite.min(), 1.25 * max(3 * before, np.quantile(finite, 0.8)))
    axis.set_xlabel("prompts B of SFT")
    axis.set_ylabel("predicted post-test error / d")
    axis.set_title(
        f"How much? B* = {document['prompts']}: {best:.3g} against {before:.3g} at B = 0", loc="left"
    )


def _draw_allocation(axis: Axes, document: dict[str, Any]) -> None:
    entries = [("plan's data", document["allocation"], LOOKS[0])]
    better = document.get("better_allocation")
    if better and better["gain"] > 0:
        entries.append((f"planner's ({better['gain']:.1%} better)", better["allocation"], LOOKS[1]))
    for label, allocation, look in entries:
        matrix = np.array(allocation)
        values = matrix if matrix.ndim == 1 else np.clip(np.linalg.eigvalsh(matrix), 0, None)
        axis.plot(
            np.arange(1, len(values) + 1),
            np.sort(values)[::-1],
            color=look.color,
            linestyle=look.dash,
            label=label,
        )
    axis.set_xlabel("direction, largest first")
    axis.set_ylabel("variance of the data")
    axis.set_ylim(bottom=0)
    axis.set_title("Which?", loc="left")
    axis.legend()


def _draw_sources(axis: Axes, sources: list[dict[str, Any]]) -> None:
    names = [source["name"] for source in sources]
    place = np.arange(len(names))
    sizes = np.array([source["size"] for source in sources], dtype=float)
    taken = np.array([source["prompts"] for source in sources], dtype=float)
    axis.barh(place, sizes, color="#e3e5e8", label="size")
    axis.barh(place, taken, height=0.5, color=LOOKS[0].color, label="taken")
    axis.set_yticks(
        place, [f"{name}\n{int(B)} of {int(size)}" for name, B, size in zip(names, taken, sizes, strict=True)]
    )
    axis.invert_yaxis()
    axis.set_xlabel("prompts")
    axis.set_title("From where?", loc="left")
    axis.legend(loc="lower right")


def _draw_stages(axis: Axes, document: dict[str, Any]) -> None:
    stages = document.get("stages")
    if stages is None:
        axis.set_axis_off()
        return
    outlooks = stages["outlooks"]
    place = np.arange(len(outlooks))
    values = [outlook["error"] for outlook in outlooks]
    verifiable = stages["reward"] == "verifiable"
    chosen = [outlook["stage"] == stages["stage"] for outlook in outlooks]
    colors = [LOOKS[1].color if best else LOOKS[0].color for best in chosen]
    axis.barh(place, values, color=colors, height=0.6)
    for i, outlook in enumerate(outlooks):
        signal = "" if outlook["has_signal"] else ", no signal"
        axis.text(
            values[i],
            i,
            f" {values[i]:.3g} (pass {outlook['pass_rate']:.2g}{signal})",
            va="center",
            fontsize=8,
        )
    axis.set_yticks(place, [outlook["stage"] for outlook in outlooks])
    axis.invert_yaxis()
    axis.set_xlim(0, (1.75 if verifiable else 1.25) * max(values))
    axis.set_xlabel("predicted error / d" + (" (pass rate)" if verifiable else ""))
    axis.set_title("Which stage?", loc="left")
