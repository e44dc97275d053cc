"""The pictures of a comparison: differences from random, losses along training, curves over rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from datadose.drawing.curves import FIFTH, plain_log_ticks
from datadose.drawing.style import GREY, LOOKS, Look, new_axes, new_grid
from datadose.llm.compare.config import BASELINE
from datadose.llm.compare.curves import FORMS
from datadose.llm.compare.forecast import Forecast
from datadose.llm.compare.result import Compared
from datadose.llm.compare.table import BETTER, UNTOUCHED, WORSE
from datadose.llm.selection.drawing import DASHED, Picture, inline

_COLORS = {BETTER: LOOKS[2].color, WORSE: LOOKS[1].color}
_LOOKS = (*LOOKS, FIFTH)
_FARTHER = 4
"""How much farther than the largest budget the fitted curves are drawn."""
_ACROSS = 3


def pictures(found: Compared) -> list[Picture]:
    """The report's pictures, in order; that of the curves only for several budgets."""
    drawn = [_differences(found)] if found.table["difference"].notna().any() else []
    drawn.append(_training(found))
    return drawn + ([_curves(found)] if found.forecasts else [])


def draw_differences(found: Compared, ax: Axes | None = None, **style: Any) -> Axes:
    """The difference of each arm's test loss from that of random with as many rows, with its interval.

    A grey bar behind it is the difference that the comparison would have detected, on either side of 0.
    """
    axis = new_axes() if ax is None else ax
    shown = found.table[found.table["difference"].notna()]
    several = len(found.setting["budgets"]) > 1
    names = []
    for place, (_, arm) in enumerate(shown.iterrows()):
        least, color = arm["detectable_difference"], _COLORS.get(arm["verdict"], GREY)
        axis.barh(place, 2 * least, left=-least, height=0.5, color="#e3e5e8", zorder=1)
        axis.plot([arm["difference_low"], arm["difference_high"]], [place, place], color=color, linewidth=2)
        axis.plot(arm["difference"], place, "o", **{"color": color, "markersize": 6, **style})
        names.append(f"{arm['method']}, {arm['budget']} rows" if several else arm["method"])
    axis.axvline(0, **DASHED)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel(f"test loss minus that of {BASELINE}, nats a token (left: better)")
    return axis


def _differences(found: Compared) -> Picture:
    count = int(found.table["difference"].notna().sum())
    with new_grid(1, 1, width=8.5, height=1.4 + 0.34 * count) as (figure, axes):
        draw_differences(found, axes[0][0])
        return Picture(
            "Differences from random",
            "Dots are means over seeds of paired differences: same split of the target, same number of rows, "
            "same seed of the training. Lines are their 95 percent intervals. The grey bar is the difference "
            "that would have been detected in four of five such comparisons.",
            inline(figure),
        )


def _training(found: Compared) -> Picture:
    budgets = found.setting["budgets"]
    across = min(len(budgets), _ACROSS)
    down = -(-len(budgets) // across)
    size: dict[str, Any] = {"width": 1.5 + 4.2 * across, "height": 3.6 * down}
    with new_grid(down, across, sharey=True, **size) as (figure, axes):
        panels = axes.ravel()
        for axis, budget in zip(panels, budgets, strict=False):
            _draw_training(axis, found.curves[found.curves["budget"] == budget])
            axis.set(title=f"{budget} rows", xlabel="step")
        for axis in panels[len(budgets) :]:
            axis.set_axis_off()
        axes[0][0].set_ylabel("test loss, nats a token")
        panels[0].legend(ncols=1 + len(found.setting["methods"]) // 7)
        return Picture(
            "Losses along training",
            "Means over seeds of the loss on the test part. What is compared is each run's own step of least "
            "loss on its validation part, so not the least of these lines.",
            inline(figure),
        )


def _draw_training(axis: Axes, curves: pd.DataFrame) -> None:
    for place, (method, arm) in enumerate(curves.groupby("method", sort=False)):
        mean = arm.groupby("step")["test_loss"].mean()
        look = Look(GREY, (0, (2, 2)), ".") if method == BASELINE else _LOOKS[place % len(_LOOKS)]
        # Beyond five methods a colour comes again, thinner.
        width = 1.7 if place < len(_LOOKS) else 0.9
        axis.plot(mean.index, mean, color=look.color, linestyle=look.dash, linewidth=width, label=method)


def _curves(found: Compared) -> Picture:
    methods = list(found.forecasts)
    across = min(len(methods), _ACROSS)
    down = -(-len(methods) // across)
    size: dict[str, Any] = {"width": 1.5 + 4.2 * across, "height": 3.4 * down}
    start = float(found.table[found.table["method"] == UNTOUCHED]["test_loss"].iloc[0])
    with new_grid(down, across, sharey=True, **size) as (figure, axes):
        panels = axes.ravel()
        for axis, method in zip(panels, methods, strict=False):
            _draw_curve(axis, found.forecasts[method], found.runs[found.runs["method"] == method])
            axis.axhline(start, **DASHED, label="untouched")
            axis.set_title(method)
            axis.legend()
        for axis in panels[len(methods) :]:
            axis.set_axis_off()
        panels[0].set_ylabel("test loss at the best step, nats a token")
        return Picture(
            "What more rows give",
            "Dots are means over seeds, thin lines the seeds. The curves are the theory's form, "
            "c + G/(B - b), and a power of the rows, c + A/B^p, drawn to four times the largest budget, with "
            "a dash at their ceilings c; none where the loss does not fall.",
            inline(figure),
            sentences=[f"{method}: {one.sentence()}" for method, one in found.forecasts.items()],
        )


def _draw_curve(axis: Axes, one: Forecast, runs: pd.DataFrame) -> None:
    for _, seed in runs.groupby("seed"):
        axis.plot(seed["budget"], seed["test_loss"], color="#b4bac1", linewidth=0.7)
    axis.plot(one.budgets, one.losses, "o", color=LOOKS[0].color, markersize=5, zorder=3)
    rows = np.geomspace(one.budgets[0], _FARTHER * one.budgets[-1], 60)
    for form, look in zip(FORMS, LOOKS[:2], strict=True):
        if not one.reason:
            axis.plot(rows, one.curve(rows, form), color=look.color, linestyle=look.dash, label=form)
            axis.plot(
                rows[-1] * 1.15,
                float(one.fits[form].ceiling.value or 0),
                "_",
                color=look.color,
                markersize=12,
            )
    plain_log_ticks(axis, one.budgets)
    axis.set_xlabel("rows")
