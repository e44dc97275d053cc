"""Small pools of sources for tests of the law of training time, and when two models agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datadose.covariance import dense, rotated
from datadose.shapes import Array
from datadose.theory import Source, TrainedOperator

D = 24
EXACT = 1e-10


def spectrum(seed: int, d: int = D) -> Array:
    return np.random.default_rng(seed).uniform(0.1, 1.0, d)


def orthogonal(seed: int, d: int = D) -> Array:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0])


def pool(*, label: float = 0.0, demonstration: float = 0.0) -> list[Source]:
    """Three sources, more prompts than directions in all."""
    return [
        Source(spectrum(1), 40, 9.0, label, demonstration),
        Source(0.5 * spectrum(2), 25, 12.5, 0.0, demonstration),
        Source(spectrum(3), 60, 21.0, 2 * label, 0.0),
    ]


def agree(first: TrainedOperator, second: TrainedOperator, tolerance: float = EXACT) -> None:
    for one, two in zip(vars(first).values(), vars(second).values(), strict=True):
        scale = np.abs(dense(two)).max()
        np.testing.assert_allclose(dense(one), dense(two), rtol=0, atol=tolerance * max(scale, 1e-300))


def turned(source: Source, basis: Array) -> Source:
    return replace(source, covariance=rotated(dense(np.asarray(source.covariance)), basis))
