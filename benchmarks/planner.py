"""Seconds of a plan, and of finding the same dose by simulation.

Side by side on one core, processor seconds against the code before judged directions were spectra and
descents ended when settled: d = 1,000 .34 against .77 (2.3 times), d = 4,000 1.1 against 5.2 (4.9 times;
127 against 328 MB in all). d = 20,000 takes 4 s and 189 MB.

OMP_NUM_THREADS=1 python benchmarks/planner.py
"""

from __future__ import annotations

from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from datadose import Shift, sft_error_curve
from datadose.covariance import Array
from datadose.planner import PoolSource, plan
from datadose.planner.goal import STOPS, Stop, Weights
from datadose.theory.source import Source
from timing import seconds

SEEDS = 10
"""Simulated streams that a dose by simulation averages over."""


def random_shift(dimension: int, *, dense: bool) -> Shift:
    """Log-normal spectra; the shift moves a third of the directions, which pretraining saw rarely."""
    rng = np.random.default_rng(0)
    inside = np.arange(dimension) < dimension // 3
    sigma0: Array = np.exp(0.5 * rng.standard_normal(dimension)) * np.where(inside, 0.1, 1.0)
    delta: Array = np.where(inside, np.exp(0.5 * rng.standard_normal(dimension)), 0.0)
    if dense:
        basis = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
        sigma0, delta = (basis * sigma0) @ basis.T, np.diag(delta)
        sigma0 = (sigma0 + sigma0.T) / 2
    return Shift.aligned(sigma0, delta, 0.2, 0.05)


def pool(shift: Shift, count: int) -> list[PoolSource]:
    """``count`` sources: noisier and more diluted ones have more prompts."""
    d, found = shift.dimension, []
    for place in range(count):
        rest = place * 0.02 * (np.ones(d) if shift.is_spectral else np.eye(d))
        data = Source(shift.data / (1 + place / 2) + rest, 2 * d, 0, demonstration_noise=0.02 * (place % 2))
        found.append(PoolSource(f"source {place}", data, d * (place + 1) // 2))
    return found


def main() -> None:
    """Print the times and the ratio."""
    shift, B = random_shift(1000, dense=False), 5000
    planned = seconds(partial(plan, shift, length=2000, max_prompts=B), 3)
    print(f"plan, d = 1000, spectra, B up to {B}: {planned:.2f} s (aim: below 1 s)")
    large_spectra = random_shift(20_000, dense=False)
    long = seconds(partial(plan, large_spectra, length=40_000, max_prompts=100_000))
    print(
        f"plan, d = 20000, spectra, B up to 100000: {long:.1f} s; RATIO {long / planned:.0f} (aim: below 40)"
    )
    one = seconds(partial(sft_error_curve, shift, B, 2000, seed=0))
    print(f"the error at every B up to {B} by simulation, {SEEDS} seeds: {SEEDS * one:.0f} s (from one seed)")
    print(f"  RATIO {SEEDS * one / planned:.0f} times the plan")
    spectra = seconds(partial(plan, shift, length=2000, max_prompts=B, sources=pool(shift, 5)))
    print(f"plan, d = 1000, spectra, 5 sources: {spectra:.2f} s")
    decided(shift, B, planned)
    small = random_shift(100, dense=True)
    mixed = seconds(partial(plan, small, length=200, max_prompts=500, sources=pool(small, 5)))
    print(f"plan, d = 100, dense, 5 sources: {mixed:.2f} s")
    large = seconds(partial(plan, random_shift(500, dense=True), length=1000, max_prompts=2500))
    print(f"plan, d = 500, dense, B up to 2500: {large:.1f} s (aim: below 10 s)")


def decided(shift: Shift, B: int, planned: float) -> None:
    """Print the times of plans that decide how training ends, and their ratios to ``planned`` without."""
    one = {
        stop: seconds(partial(plan, shift, length=2000, max_prompts=B, stop=stop), 3) for stop in STOPS[1:]
    }
    for stop, took in one.items():
        print(
            f"plan, d = 1000, spectra, training: {stop}: {took:.2f} s; RATIO {took / planned:.1f} to without"
        )
    three = pool(shift, 3)
    ways: tuple[tuple[Stop, Weights, int], ...] = (
        ("best", "equal", 2),
        ("best", "tuned", 2),
        ("penalty", "equal", 1),
        ("penalty", "tuned", 1),
    )
    for stop, weights, aim in ways:
        call = partial(plan, shift, length=2000, max_prompts=B, sources=three, stop=stop, weights=weights)
        took = seconds(call, 3)
        print(
            f"  3 sources, training: {stop}, weights: {weights}: {took:.2f} s (aim: below {aim} s); RATIO "
            f"{took / planned:.1f}"
        )
    for stop, weights, aim in ways[1::2]:
        call = partial(plan, shift, length=2000, max_prompts=1500, sources=three, stop=stop, weights=weights)
        took = seconds(call, 3)
        print(
            f"  the same, no more than 1500 of 3000 rows, training: {stop}, weights: {weights}: {took:.2f} s "
            f"(aim: below {aim} s); RATIO {took / planned:.1f}"
        )


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
