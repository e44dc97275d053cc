"""What the figures of training time draw alike: curves of one way to stop, legends, scales and caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from datadose.drawing.curves import log_y
from datadose.drawing.style import GREY, LOOKS, Look, draw_simulation, draw_theory
from datadose.studies.sft_curves.curves import away_from_peak
from datadose.studies.tables import LSA, THEORY
from datadose.studies.training_time.time_curves import (
    BEST_PENALTY,
    BEST_TIME,
    CONVERGED,
    Column,
    TimeCurves,
)

_DOTS: Any = (0, (1.2, 1.2))
_RULES: tuple[tuple[str, Any, str], ...] = ((BEST_TIME, "-", "o"), (BEST_PENALTY, _DOTS, "s"))
_FADED = 0.45


def draw_rule(
    axis: Axes,
    rows: pd.DataFrame,
    rule: str,
    x: str,
    look: Look,
    label: str,
    config: TimeCurves,
    **style: Any,
) -> None:
    """One way to stop: theory as a line, simulation as markers, x = B / d or n / d.

    Convergence has no markers near its peak, where a sample mean means nothing.
    """
    own = rows[rows[Column.RULE] == rule]
    own = own.assign(place=own[x].astype(float) / config.block.dimension)
    theory = own[own[Column.MODEL] == THEORY].sort_values("place")
    draw_theory(axis, theory["place"], theory[Column.PREDICTED], look, label, **style)
    simulated = own[own[Column.MODEL] == LSA]
    if rule == CONVERGED:
        simulated = away_from_peak(simulated, config.block)
    if look.marker and not simulated.empty:
        draw_simulation(axis, simulated, "place", look, f"_{label.lstrip('_')}, simulated")


def draw_tuned(axis: Axes, curves: list[tuple[str, pd.DataFrame]], x: str, config: TimeCurves) -> None:
    """Each curve at the best time, at the best penalty and, faded, at convergence; one colour a curve."""
    for base, (name, rows) in zip(LOOKS, curves, strict=False):
        ended = Look(base.color, "-", "")
        draw_rule(axis, rows, CONVERGED, x, ended, f"_{name}, converged", config, linewidth=1.1, alpha=_FADED)
        for rule, dash, marker in _RULES:
            draw_rule(axis, rows, rule, x, Look(base.color, dash, marker), f"_{name}, {rule}", config)


def legends_of_tuned(colours: Axes, lines: Axes, names: list[str]) -> None:
    """What the colours mean on one panel, what the lines mean on another."""
    handles = [Line2D([], [], color=look.color) for look in LOOKS[: len(names)]]
    colours.legend(handles, names, loc="lower left")
    kinds = [
        Line2D([], [], color=GREY, linestyle=dash, marker=marker, markersize=4, markerfacecolor="white")
        for _, dash, marker in _RULES
    ]
    kinds.append(Line2D([], [], color=GREY, linewidth=1.1, alpha=0.6))
    lines.legend(kinds, [*(rule for rule, _, _ in _RULES), CONVERGED], loc="lower left")


def share_limits(
    axes: Any, table: pd.DataFrame, rules: Sequence[str], low: float = 0.8, high: float = 1.6
) -> None:
    """A log error axis from ``low`` times the least error of ``rules`` to ``high`` times their largest."""
    theory = table[(table[Column.MODEL] == THEORY) & table[Column.RULE].isin(rules)]
    ends = low * float(theory[Column.PREDICTED].min()), high * float(theory[Column.PREDICTED].max())
    for axis in np.ravel(axes):
        log_y(axis)
        axis.set_ylim(*ends)


def setting(config: TimeCurves) -> str:
    """The caption under a figure."""
    block = config.block
    return (
        f"d = {block.dimension}, m = {block.shifted}, rho = {block.rho:g}, eta = {block.eta:g}; lines: "
        f"theory; markers: simulated, mean of {config.seeds} seeds with standard errors; best time and "
        f"penalty are the theory's"
    )
