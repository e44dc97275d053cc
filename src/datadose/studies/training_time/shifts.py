"""Random shifts of three kinds, drawn by seed: those over which the claims about training time are judged.

Ranges are wide on purpose, and were set before any claim was judged. One length n serves pretraining,
post-training and the test, as in the paper's figures.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from datadose.shapes import Array
from datadose.shift import Shift

Kind: TypeAlias = Literal["two blocks", "power laws", "mixed alignment"]
KINDS: tuple[Kind, ...] = ("two blocks", "power laws", "mixed alignment")
"""The paper's two blocks; spectra with the paper's allocation; dense data that are partly the target."""


def random_shift(kind: Kind, dimension: int, seed: int) -> tuple[Shift, int]:
    """A shift of this kind and the length n of its prompts, the same for the same arguments.

    Args:
        kind: "two blocks", the paper's with rho from .02 to .5, r from .001 to .3 and m / d from .2 to .8.
            "power laws": Sigma0 with eigenvalues i^-a, a up to 1.5, in random order, of mean 1; Delta
            exponential on .1 to .6 of the directions with a mean size of .3 to 3; data by the paper's
            allocation with r from .001 to .3 off the shift. "mixed alignment": the same Sigma0 and Delta,
            with dense data eta (a Sigma + (1 - a) Q D Q^T), Q a random rotation, D a power law with the trace
            of Sigma, and a from 0 to 1; in every fourth shift a = 1, which is data from the target itself.
        dimension: d >= 10.
        seed: of the draw.

    In all kinds eta lies between .1 and .9, and n / d between .5 and 5 (log-uniform).
    """
    rng = np.random.default_rng([KINDS.index(kind), dimension, seed])
    d, eta = dimension, float(rng.uniform(0.1, 0.9))
    length, interference = round(d * between(rng, 0.5, 5)), between(rng, 1e-3, 0.3)
    if kind == "two blocks":
        shifted = round(d * rng.uniform(0.2, 0.8))
        return Shift.two_block(d, shifted, between(rng, 0.02, 0.5), eta, interference), length
    sigma0, delta = power_law(rng, d), random_delta(rng, d)
    if kind == "power laws":
        return Shift.aligned(sigma0, delta, eta, interference), length
    target = sigma0 + delta
    share = 1.0 if seed % 4 == 0 else float(rng.uniform(0, 1))
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    other = (Q * (power_law(rng, d) * target.mean())) @ Q.T
    data = eta * (share * np.diag(target) + (1 - share) * (other + other.T) / 2)
    return Shift(np.diag(sigma0), np.diag(delta), data, eta), length


def power_law(rng: np.random.Generator, dimension: int) -> Array:
    """Eigenvalues i^-a with a uniform on (0, 1.5), in random order and of mean 1, shape (d,)."""
    values = np.arange(1, dimension + 1) ** -rng.uniform(0, 1.5)
    return rng.permutation(values / values.mean())


def random_delta(rng: np.random.Generator, dimension: int) -> Array:
    """Exponential eigenvalues of mean size .3 to 3 on .1 to .6 of the directions, at least one, (d,)."""
    chosen = rng.permutation(dimension) < max(1, round(dimension * rng.uniform(0.1, 0.6)))
    return np.where(chosen, rng.exponential(between(rng, 0.3, 3), dimension), 0.0)


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A log-uniform number between ``low`` and ``high``."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
