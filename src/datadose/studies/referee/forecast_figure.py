"""Curves of the loss over rows, fitted to the smaller numbers and drawn on to the largest; a panel a pool."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.curves import log_y, plain_log_ticks
from datadose.drawing.style import LOOKS, Look, caption, draw_points, new_grid
from datadose.llm.compare.curves import FORMS
from datadose.power import mean_interval
from datadose.studies.referee.forecasting import Curve, curves_of, ends
from datadose.studies.referee.runs import Reference

_NAMES = {Reference.ORACLE: "right target rows"}
_DASHES = dict(zip(FORMS, ("-", (0, (3, 2))), strict=True))


def draw_forecasts(table: pd.DataFrame, config: Any) -> Figure:
    """Points of each arm with both fitted forms; the last point is not one that they were fitted to."""
    curves = curves_of(table)
    pools = list(dict.fromkeys((one.contents, one.pair) for one in curves))
    with new_grid(1, len(pools), width=5.6 * len(pools), height=4.9, sharey=True) as (figure, [axes]):
        for axis, pool in zip(axes, pools, strict=True):
            own = [one for one in curves if (one.contents, one.pair) == pool]
            for curve, look in zip(own, LOOKS, strict=False):
                _draw(axis, curve, look)
            plain_log_ticks(axis, own[0].rows)
            log_y(axis)
            axis.set_xlabel("rows trained on")
            axis.set_title(f"{pool[0]} pool, targets {pool[1]}", loc="left")
            axis.legend(loc="best")
        axes[0].set_ylabel("loss on the target, nats a token")
        caption(
            figure,
            "Filled: what the curves are fitted to; open: the loss that they are held against. Solid: "
            "c + G/(B - b), the theory's form; dashed: c + A/B^p. In the legend, what the form\nthat the "
            "filled points prefer foretells, over what was measured, with its 95 percent interval. Means "
            f"over {config.seeds} seeds with their intervals; best step on validation.",
        )
    return figure


def _draw(axis: Axes, curve: Curve, look: Look) -> None:
    mean, low, high = np.array([mean_interval(losses) for losses in curve.losses.T]).T
    label, ahead = _NAMES.get(curve.method, curve.method), curve.ahead
    if not ahead.reason:
        error = curve.error()
        start, end = ends(error)
        label = f"{label}: {error.value:+.0%} ({start:+.0%} to {end:+.0%})"
        B = np.geomspace(curve.rows[0], curve.rows[-1], 80)
        for form, dash in _DASHES.items():
            axis.plot(B, ahead.curve(B, form), color=look.color, linestyle=dash, linewidth=1.2)
    bars: dict[str, Any] = {"markersize": 5, "capsize": 2, "linestyle": ""}
    for part, face in ((slice(None, -1), look.color), (slice(-1, None), "white")):
        told = label if face != "white" else f"_{label}"
        yerr = [(mean - low)[part], (high - mean)[part]]
        draw_points(axis, curve.rows[part], mean[part], look, told, yerr=yerr, markerfacecolor=face, **bars)
