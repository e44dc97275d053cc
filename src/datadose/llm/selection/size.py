"""How many SFT rows: the planner's dose for the estimated shift. A heuristic, and recorded as one.

The theory is about a linear model on prompts of n Gaussian examples in d dimensions. To use it here, one row
represents one prompt, its completion tokens for the prompt's examples, and the whitened shift coordinates for
the d dimensions: Sigma0 = I and Delta = lambda - threshold on the shifted directions, 0 elsewhere (the
threshold is 1 plus what sampling noise alone would show, and tends to 1 with the number of rows). The result
depends on the number p of components that the geometry keeps. Nothing of this is proven for a transformer:
docs/llm_selection.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from datadose.covariance import Array
from datadose.errors import reject
from datadose.llm.selection.arrays import Usable
from datadose.llm.selection.config import SelectionConfig
from datadose.llm.selection.filters import Funnel
from datadose.llm.selection.geometry import ShiftGeometry
from datadose.planner import plan
from datadose.shift import Shift

ETA = 0.2
"""The paper's step of the chain of thought. It nearly cancels: the data's covariance scales with it."""
SMALLEST = 64
"""Rows that `auto` takes at least, if there are as many: the planner may advise none."""
_PLANNED_ROWS = 20_000


@dataclass(frozen=True)
class Budget:
    """What a set may hold: a number of rows, or a number of tokens."""

    rows: int | None = None
    tokens: int | None = None

    def count(self, tokens: Array) -> int:
        """The number of rows, from the first on, that fit if they have these ``tokens``."""
        if self.tokens is None:
            return min(self.rows or 0, len(tokens))
        return int(np.searchsorted(np.cumsum(tokens), self.tokens, side="right"))

    def without(self, tokens: Array) -> Budget | None:
        """The budget that is left after rows of these ``tokens``; None if they fill it."""
        if self.tokens is None:
            left = (self.rows or 0) - len(tokens)
            return Budget(rows=left) if left > 0 else None
        left = self.tokens - int(tokens.sum())
        return Budget(tokens=left) if left > 0 else None

    def refuse(self, first: float, which: str = "that is taken") -> NoReturn:
        """InputError for a budget of tokens below those of the ``first`` row (``which`` one that is)."""
        reject("sft-tokens", self.tokens, f"at least {first:.0f}, the tokens of the first row {which}")

    def spend(self, tokens: Callable[[int], float], most: int) -> int:
        """The number of rows, at most ``most``, where ``tokens`` gives the sum of a draw of that many."""
        if self.tokens is None:
            return min(self.rows or 0, most)
        return bisect_right(range(1, most + 1), float(self.tokens), key=tokens)


def interference(candidates: Array, geometry: ShiftGeometry) -> float:
    """r: the candidates' variance off the shift, in the units in which the theory's data have eta on it.

    With a_i the second moment of the whitened coordinate i of the ``candidates`` (n, p), the data are scaled
    so that their variance on the shifted directions is eta times the target's:
    r = eta * mean_{i off} a_i / (sum_{i on} a_i / sum_{i on} lambda_i). Zero if all directions are shifted.
    """
    m, a = geometry.shifted, (candidates**2).mean(axis=0)
    if m == len(a):
        return 0.0
    scale = float(a[:m].sum() / geometry.eigenvalues[:m].sum())
    return ETA * float(a[m:].mean()) / scale if scale > 0 else ETA


def plan_size(
    candidates: Array, geometry: ShiftGeometry, median_tokens: float, available: int
) -> tuple[int, dict[str, Any]]:
    """The number of rows of the SFT set by the planner, and its record for the manifest.

    Args:
        candidates: whitened coordinates of the hard stratum or of a sample of it, (n, p).
        geometry: the estimated shift.
        median_tokens: median number of completion tokens of the candidates, the length of a prompt.
        available: number >= 1 of candidates.
    """
    floor = min(SMALLEST, available)
    record: dict[str, Any] = {
        "note": "a heuristic: the theory of a linear model, applied to a transformer's shift",
        "dimensions": len(geometry.eigenvalues),
        "shifted_directions": geometry.shifted,
        "eta": ETA,
        "length": max(1, round(median_tokens)),
        "max_prompts": available,
        "smallest": floor,
    }
    if geometry.shifted == 0:
        found_none = {"prompts": None, "size": floor, "clipped": True}
        return floor, {**record, **found_none, "reason": "no shifted direction was found"}
    delta = np.zeros(len(geometry.eigenvalues))
    delta[: geometry.shifted] = geometry.eigenvalues[: geometry.shifted] - geometry.threshold
    r = interference(candidates, geometry)
    shift = Shift.aligned(np.ones(len(delta)), delta, ETA, r)
    found = plan(shift, length=record["length"], max_prompts=available)
    size = min(max(found.prompts, floor), available)
    record |= {
        "sigma0": "identity (whitened)",
        "delta": [round(float(value), 6) for value in delta[: geometry.shifted]],
        "interference": r,
        "prompts": found.prompts,
        "near_optimal": None if found.near_optimal is None else list(found.near_optimal),
        "predicted_error": found.predicted_error,
        "error_before": found.error_before,
        "spectral_radius": found.spectral_radius,
        "regime": found.regime,
        "curve": [{"prompts": B, "predicted": error} for B, error in found.curve],
        "size": size,
        "clipped": size != found.prompts,
    }
    return size, record


def sft_budget(
    funnel: Funnel, pool: Usable, geometry: ShiftGeometry, config: SelectionConfig
) -> tuple[Budget, dict[str, Any]]:
    """The budget of the SFT set, and the planner's record.

    Args:
        funnel: the rows that the filters left or set apart.
        pool: the scores and the rows in use.
        geometry: the estimated shift.
        config: the requested size.

    Raises InputError if there are fewer rows than requested.
    """
    tokens, asked = pool.numbers("tokens"), config.sft_size != "auto" or config.sft_tokens is not None
    usable = np.concatenate([funnel.rows, funnel.beyond()]) if asked else funnel.rows
    if len(usable) == 0:
        reject("sft-size", config.sft_size, f"nothing can be chosen: {funnel.story()}")
    if config.sft_tokens is not None:
        least, most = int(tokens[usable].min()), int(tokens[usable].sum())
        if not least <= config.sft_tokens <= most:
            allowed = f"{least} to {most}, the tokens of {len(usable)} usable rows: {funnel.story()}"
            reject("sft-tokens", config.sft_tokens, allowed)
        return Budget(tokens=config.sft_tokens), {"note": f"not asked: --sft-tokens {config.sft_tokens}"}
    if config.sft_size != "auto":
        if config.sft_size > len(usable):
            allowed = f"at most {len(usable)}, the usable rows, or auto: {funnel.story()}"
            reject("sft-size", config.sft_size, allowed)
        return Budget(rows=config.sft_size), {"note": f"not asked: --sft-size {config.sft_size}"}
    rows = some = funnel.rows
    if len(rows) > _PLANNED_ROWS:
        some = rows[np.linspace(0, len(rows) - 1, _PLANNED_ROWS).astype(np.int64)]
    coordinates = geometry.coordinates(pool.array(config.representation), some)
    size, record = plan_size(coordinates, geometry, float(np.median(tokens[rows])), len(rows))
    return Budget(rows=size), record
