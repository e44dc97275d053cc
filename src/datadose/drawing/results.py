"""Pictures of single results, on axes that are given or new: a shift, errors along the number of prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from datadose.drawing.curves import log_y
from datadose.drawing.style import LOOKS, draw_points, draw_theory, new_axes
from datadose.error_curve import ErrorCurve
from datadose.shift import Shift
from datadose.simulation.curves import SimulatedCurve


def draw_shift(shift: Shift, ax: Axes | None = None, **style: Any) -> Axes:
    """The variance of pretraining, target and data along each direction (matrices: sorted eigenvalues)."""
    axis, columns = new_axes() if ax is None else ax, shift.to_frame()
    place = np.arange(1, len(columns) + 1)
    names = {"sigma0": "pretraining, Sigma0", "target": "target, Sigma0 + Delta", "data": "data, A"}
    for look, (column, label) in zip(LOOKS, names.items(), strict=False):
        draw_theory(axis, place, columns[column].to_numpy(), look, label, **style)
    axis.set_xlabel("direction" if shift.is_spectral else "eigenvalue, largest first")
    axis.set_ylabel("variance")
    axis.set_ylim(bottom=0)
    axis.legend()
    return axis


def draw_error_curve(curve: ErrorCurve, ax: Axes | None = None, **style: Any) -> Axes:
    """A line through the errors; a gap where the error is infinite."""
    axis, columns = new_axes() if ax is None else ax, curve.to_frame()
    errors = columns[curve.kind].to_numpy()
    look, label = LOOKS[0 if curve.kind == "predicted" else 2], style.pop("label", curve.kind)
    finite = np.where(np.isfinite(errors), errors, np.nan)
    draw_theory(axis, columns["prompts"].to_numpy(), finite, look, label, **style)
    return _named(axis)


def draw_simulated(curve: SimulatedCurve, ax: Axes | None = None, **style: Any) -> Axes:
    """Means over seeds with their standard errors."""
    axis, columns = new_axes() if ax is None else ax, curve.to_frame()
    bars = np.nan_to_num(columns["sem"].to_numpy())
    label = style.pop("label", "simulated, mean over seeds")
    draw_points(axis, columns["prompts"], columns["mean"], LOOKS[1], label, yerr=bars, **style)
    return _named(axis)


def _named(axis: Axes) -> Axes:
    axis.set_xlabel("prompts B of SFT")
    axis.set_ylabel("post-test error / d")
    log_y(axis)
    axis.legend()
    return axis
