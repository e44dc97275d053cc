"""The charts of *How long?* and of the pool: errors over training time, and at the best time over prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from datadose.explore.marks import (
    NAMED_ERROR,
    Chart,
    Palette,
    chart,
    counts_axis,
    error_axis,
    line,
    place,
    points,
    star,
    unchanged,
    vertical,
)
from datadose.explore.setting import FIRST, LAST
from datadose.explore.training import Errors, LongRun, StoppedCurve, Weighed
from datadose.planner import Dose
from datadose.theory.time_search import BestTime

_END = float(np.log10(LAST)) + 0.45
"""Where convergence stands on the axis of times."""
_SHOWN = {0.1: "0.1", 1: "1", 10: "10", 100: "100", 1000: "1k", 10_000: "10k"}
_SEEN = 10.0
"""Errors above so many times the untouched model's do not set the range."""


def _at(time: float | None) -> float:
    """Where a time stands: log10, and convergence beyond the last."""
    return _END if time is None or time >= LAST else float(np.log10(max(time, FIRST)))


def _time_axis() -> dict[str, Any]:
    return {
        "tickvals": [*np.log10(list(_SHOWN)).tolist(), _END],
        "ticktext": [*_SHOWN.values(), "∞"],
        "range": [float(np.log10(FIRST)) - 0.06, _END + 0.25],
    }


def _over_time(name: str, times: Any, errors: Any, color: str, dash: str) -> dict[str, Any]:
    hover = f"time %{{customdata:.3g}}<br>{NAMED_ERROR}"
    curve = line(
        name, np.log10(times).tolist(), list(errors), hover, color, dash, shape="spline", smoothing=1.0
    )
    return {**curve, "customdata": list(times)}


def _best(found: BestTime, color: str, colors: Palette, name: str = "best time") -> dict[str, Any]:
    when = "to convergence" if found.time is None else f"time {found.time:.3g}"
    return points(
        name,
        [_at(found.time)],
        [found.error],
        star(color, colors, 15),
        customdata=[when],
        cliponaxis=False,
        hovertemplate="%{customdata}<br>" + NAMED_ERROR,
    )


def _ends(errors: Errors | None, where: float, name: str, colors: Palette) -> list[dict[str, Any]]:
    """The errors of one model on both tests."""
    if errors is None:
        return []
    pairs = (("target", errors.target, colors.blue), ("pretraining", errors.known, colors.purple))
    return [
        points(
            f"{test}, {name}",
            [where],
            [error],
            {"size": 8, "color": colors.paper, "line": {"color": color, "width": 2}},
            showlegend=False,
            cliponaxis=False,
            hovertemplate=f"{name}<br>{NAMED_ERROR}",
        )
        for test, error, color in pairs
    ]


def time_chart(run: LongRun, ceiling: float, time: float, now: Errors | None, colors: Palette) -> Chart:
    """Errors over training time on the target and on Sigma0, with the best time, its range and the ceiling.

    ``now`` is the model at ``time``, None where its mean error is infinite.
    """
    target, known = run.target.tolist(), run.known.tolist()
    limit = _SEEN * max(run.before.target, run.before.known)
    highest = min(max(*target, *known), limit)
    ends = [_at(FIRST), _END]
    chosen = _ends(now, _at(time), "at the time of the slider", colors)
    for mark in chosen:
        mark["marker"] = {"size": 11, "color": mark["marker"]["line"]["color"]}
    traces = [
        _over_time("target", run.times, target, colors.blue, "solid"),
        _over_time("pretraining", run.times, known, colors.purple, "dash"),
        _best(run.best, colors.orange, colors),
        unchanged("no SFT", ends, run.before.target, colors),
        _ceiling(ends, ceiling, colors),
        *_ends(run.converged, _END, "to convergence", colors),
        *chosen,
    ]
    low, high = (_at(max(t, FIRST)) for t in run.near)
    shapes = [_band(low, high, colors), vertical(_at(time), colors.ink, layer="below")]
    return chart(
        colors,
        traces,
        "training time t",
        "post-test error / d",
        xaxis=_time_axis(),
        yaxis=error_axis(min(*target, *known, ceiling), highest),
        shapes=shapes,
    )


def _ceiling(ends: list[float], ceiling: float, colors: Palette) -> dict[str, Any]:
    hover = "best time, unlimited prompts: error %{y:.3g}<extra></extra>"
    return line("ceiling", ends, [ceiling, ceiling], hover, colors.green, "dashdot", width=1.6)


def _band(low: float, high: float, colors: Palette) -> dict[str, Any]:
    return {
        "type": "rect", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1,
        "fillcolor": colors.band, "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def _along(name: str, curve: StoppedCurve, color: str, dash: str) -> dict[str, Any]:
    hover = f"B = %{{customdata:,}}<br>{NAMED_ERROR}"
    x = place(curve.prompts).tolist()
    found = line(name, x, list(curve.errors), hover, color, dash, shape="spline", smoothing=0.5)
    return {**found, "customdata": list(curve.prompts)}


def prompts_chart(
    converged: Dose,
    stopped: StoppedCurve,
    timed: StoppedCurve | None,
    ceiling: float,
    time: float,
    colors: Palette,
) -> Chart:
    """Errors against the number of prompts: to convergence, at the best time of each, and at one time."""
    counts, errors = zip(*converged.curve, strict=True)
    hover = f"B = %{{customdata:,}}<br>{NAMED_ERROR}"
    curve = line("to convergence", place(counts).tolist(), errors, hover, colors.blue, "dot", shape="spline")
    ends = [0.0, float(place(counts[-1]))]
    before = converged.error_before
    begun = StoppedCurve((0, *stopped.prompts), (before, *stopped.errors))
    traces = [
        {**curve, "customdata": counts},
        _along("at the best time", begun, colors.orange, "solid"),
        unchanged("no SFT", ends, before, colors),
        _ceiling(ends, ceiling, colors),
    ]
    if timed is not None:
        begun = StoppedCurve((0, *timed.prompts), (before, *timed.errors))
        traces.append(_along(f"at time {time:.3g}", begun, colors.ink, "dash"))
    known = [e for e in errors if e is not None]
    highest = max(3 * before, min(converged.error_at_max or 0.0, _SEEN * before))
    return chart(
        colors,
        traces,
        "prompts of SFT, B",
        "post-test error / d",
        xaxis=counts_axis(counts[-1]),
        yaxis=error_axis(min(ceiling, *stopped.errors, *known), highest),
    )


def pool_chart(entries: Sequence[tuple[str, Weighed, str, str]], before: float, colors: Palette) -> Chart:
    """Errors over training time for choices of weights: (name, fit, colour, dash) each, with its best."""
    traces: list[dict[str, Any]] = []
    lowest, ends = before, [_at(FIRST), _END]
    for name, found, color, dash in entries:
        seen = (found.best.grid >= FIRST) & (found.best.grid <= LAST)
        traces.append(_over_time(name, found.best.grid[seen], found.best.errors[seen], color, dash))
        traces.append({**_best(found.best, color, colors, name), "showlegend": False})
        lowest = min(lowest, found.best.error)
    highest = max(max(trace["y"]) for trace in traces)
    return chart(
        colors,
        [*traces, unchanged("no SFT", ends, before, colors)],
        "training time t",
        "post-test error / d",
        xaxis=_time_axis(),
        yaxis=error_axis(lowest, min(max(highest, before), 3 * before)),
    )
