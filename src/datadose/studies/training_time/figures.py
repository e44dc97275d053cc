"""Pictures of the studies over random shifts: medians with the middle half of the shifts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.curves import level, log_y, plain_log_ticks
from datadose.drawing.style import LOOKS, Look, caption, draw_theory, new_grid
from datadose.studies.training_time.names import (
    CONVERGED,
    PENALTY,
    STOPPED,
    TIME,
    UNLIMITED,
    UNTOUCHED,
    Drawn,
    by_kind,
)

_CURVES = (
    (CONVERGED, LOOKS[1], "to convergence"),
    (PENALTY, LOOKS[2], "best penalty"),
    (STOPPED, LOOKS[0], "best time"),
)
_TICKS = (0.1, 0.3, 1, 3, 10, 30)


def draw_middle(axis: Axes, wide: pd.DataFrame, look: Look, label: str) -> None:
    """The median over shifts (rows) at each x (columns), and the middle half of them as a band."""
    low, middle, high = (wide.quantile(q) for q in (0.25, 0.5, 0.75))
    x = wide.columns.to_numpy(dtype=float)
    axis.fill_between(x, low.to_numpy(), high.to_numpy(), color=look.color, alpha=0.14, linewidth=0)
    draw_theory(axis, x, middle.to_numpy(), look, label, marker=look.marker, markersize=3.5)


def _without_limit(wide: pd.DataFrame) -> pd.DataFrame:
    return wide[[size for size in wide.columns if size < UNLIMITED]]


def draw_best_time(table: pd.DataFrame, config: Drawn) -> Figure:
    """Errors against rows in three ways of training, by kind of shift; best times against rows."""
    with new_grid(1, 4, width=15.0, height=4.0) as (figure, axes):
        base: dict[str, Any] = dict(by_kind(table, UNTOUCHED))
        for at, (column, look, name) in enumerate(_CURVES):
            for axis, (kind, wide) in zip(axes[0], by_kind(table, column), strict=False):
                draw_middle(axis, _without_limit(wide / base[kind]), look, name)
                if at == 0:
                    axis.set_title(kind)
        for axis in axes[0][:3]:
            level(axis, 1.0)
            axis.axvline(1.0, color="#c4c7cc", linewidth=6.0, zorder=0)
            log_y(axis)
            plain_log_ticks(axis, _TICKS)
            axis.set_xlabel("SFT prompts B / d")
        axes[0][0].set_ylabel("error / that of the untouched model")
        axes[0][0].legend(loc="best")
        for look, (kind, wide) in zip(LOOKS, by_kind(table, TIME), strict=False):
            moved = wide.where(wide > 0)
            draw_middle(axes[0][3], _without_limit(moved.div(moved[0.1], axis=0)), look, kind)
        _draw_epochs(axes[0][3])
        caption(
            figure,
            f"{config.seeds} random shifts of each kind, d = {config.dimension}, exact theory; lines: "
            "medians, bands: the "
            "middle half of the shifts; grey strip: the peak of converged training, B = d",
        )
    return figure


def _draw_epochs(axis: Axes) -> None:
    """The line of one number of epochs, and the panel's names."""
    x = np.array([0.1, 30.0])
    draw_theory(axis, x, x / 0.1, LOOKS[3], "equal epochs")
    level(axis, 1.0, "equal steps")
    log_y(axis)
    plain_log_ticks(axis, _TICKS)
    axis.set(xlabel="SFT prompts B / d", ylabel="best time / that of B = 0.1 d")
    axis.set_title("best number of steps")
    axis.legend(loc="best")
