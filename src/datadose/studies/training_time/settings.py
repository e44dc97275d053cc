"""Random settings for the studies of stages, drawn by seed, and the paper's own; shares of them as verdicts.

Ranges and thresholds were set on seeds from 10,000 on; the studies judge seeds from 0 on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from datadose.shapes import Array
from datadose.studies import tables
from datadose.studies.training_time.two_stages import Setup

KINDS = ("blocks", "power", "scattered")
_RANGES: Sequence[tuple[float, float]] = ((0.02, 1.0), (0.1, 0.8), (0.003, 0.3))
"""Of rho, eta and r."""
DRAWN = (
    "random settings of three kinds (the paper's blocks, power laws, scattered spectra), d=120, rho "
    ".02 to 1, "
    "eta .1 to .8, r .003 to .3, n d to 8d"
)
POWER = "a share is known to .07 with 200 settings and to .1 with 100; one so near to the threshold is mixed"


class Column(tables.Column):
    """The columns that these studies add."""

    KIND = "kind"
    RULE = "rule"
    """How a stage is stopped, or what is compared."""
    BUDGET = "budget"
    """Rows over d, of all stages together."""
    SHARE = "share"
    """Of the budget on SFT."""
    COST = "cost"
    """Of a demonstration, in prompts."""
    BALANCE = "balance"
    """rho."""


def random_setting(seed: int, dimension: int = 120) -> Setup:
    """A setting of one of three kinds, in turn, with its parameters drawn log-uniformly from ``seed``.

    ``blocks`` is the paper's two-block shift with m of .1 to .7 d; ``power`` has Sigma0_i = i^-a, a of .3 to
    1.2, with the shift on directions chosen by chance; in ``scattered`` Sigma0 and the shift have values of a
    gamma law; both are averaged in four groups. SFT's data follow the paper's allocation.
    """
    rng = np.random.default_rng([20, seed])
    kind, d = KINDS[seed % 3], dimension
    rho, eta, r = (float(np.exp(rng.uniform(np.log(a), np.log(b)))) for a, b in _RANGES)
    n = round(d * float(np.exp(rng.uniform(0, np.log(8)))))
    inside = rng.permutation(d) < round(d * rng.uniform(0.1, 0.7))
    if kind == "blocks":
        base, moved = np.ones(d), np.ones(d)
    elif kind == "power":
        base, moved = _levelled(np.arange(1, d + 1.0) ** -rng.uniform(0.3, 1.2) * d**0.3), np.ones(d)
    else:
        base, moved = (_levelled(rng.gamma(2, 0.5, d) + 0.05) for _ in range(2))
    sigma0 = np.where(inside, rho * base, base)
    target = sigma0 + np.where(inside, moved, 0.0)
    return Setup(kind, sigma0, target, np.where(inside, eta * target, r), eta, n)


def counts_of(seed: int, dimension: int, stages: int = 2) -> list[float]:
    """Numbers of rows of ``stages`` stages, .3 d to 8 d log-uniformly, drawn from ``seed``."""
    rng = np.random.default_rng([7, seed])
    return [float(np.round(dimension * np.exp(rng.uniform(np.log(0.3), np.log(8))))) for _ in range(stages)]


def _levelled(spectrum: Array, levels: int = 4) -> Array:
    """``spectrum`` with each of ``levels`` groups of neighbours at its mean."""
    found = np.empty_like(spectrum)
    for part in np.array_split(np.argsort(spectrum), levels):
        found[part] = spectrum[part].mean()
    return found


def paper_setting(
    dimension: int = 120, rho: float = 0.1, eta: float = 0.2, interference: float = 0.01
) -> Setup:
    """The paper's two-block shift, m = d / 2 and n = 3 d, with its allocation of SFT data."""
    inside = np.arange(dimension) < dimension // 2
    sigma0 = np.where(inside, rho, 1.0)
    target = sigma0 + inside
    data = np.where(inside, eta * target, interference)
    return Setup("blocks", sigma0, target, data, eta, 3 * dimension)


def spread(values: Array | pd.Series) -> str:
    """Median and the range from the 5th to the 95th of 100, for a note."""
    if len(values) == 0:
        return "none"
    low, middle, high = np.quantile(np.asarray(values, np.float64), (0.05, 0.5, 0.95))
    return f"median {middle:.3g} (.05 to .95: {low:.3g} to {high:.3g})"
