"""Cost of one exact prediction at d = 600 against simulating it, and the start-up time of the command.

OMP_NUM_THREADS=1 python benchmarks/predict.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from datadose import Shift, predict_error, sft_error_curve
from timing import seconds

POINTS = (60, 150, 300, 450, 590, 610, 900, 1800)


def per_point(shift: Shift, *, finite_size: bool) -> float:
    """Median time of a prediction over POINTS, printed with the worst."""
    times = [seconds(partial(predict_error, shift, B, 1000, finite_size=finite_size), 3) for B in POINTS]
    label = "exact with finite-size correction" if finite_size else "exact"
    middle = statistics.median(times)
    print(f"{label}, d = 600, spectra: {1e3 * middle:.2f} ms a point (worst {1e3 * max(times):.2f} ms)")
    return middle


def main() -> None:
    """Print the times and their ratios."""
    shift = Shift.two_block(600, 300, 0.1, 0.2, 0.1)
    theory = per_point(shift, finite_size=False)
    per_point(shift, finite_size=True)
    simulated = seconds(partial(sft_error_curve, shift, max(POINTS), 1000, seed=0), 3)
    print(f"one simulated seed, all B up to {max(POINTS)}: {simulated:.2f} s")
    print(f"  RATIO {simulated / theory:.0f} times one prediction")
    G = np.random.default_rng(0).standard_normal((3, 300, 600))
    sigma0, delta, data = G @ G.transpose(0, 2, 1) / 600
    dense = Shift(sigma0, delta, data, 0.2)
    print(f"exact, dense non-commuting d = 300: {seconds(partial(predict_error, dense, 100, 1000), 3):.2f} s")
    run = partial(subprocess.run, check=True, capture_output=True)
    python = seconds(partial(run, [sys.executable, "-c", "pass"]), 7)
    shown = seconds(partial(run, [sys.executable, "-m", "datadose.cli", "--help"]), 7)
    print(f"`datadose --help`: {shown:.3f} s, RATIO {shown / python:.1f} times a bare interpreter")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
