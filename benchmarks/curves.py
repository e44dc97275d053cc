"""Figure 1's curves against the literal method, side by side in one run.

Literal: explicit prompts (n x d inputs each), then an SVD pseudo-inverse for every number of prompts. It is
timed at a random subset of Figure 1's points and multiplied by their number; ours computes every curve.
Also: the cost's exponents in d and n, the arithmetic and memory-traffic floors, and the peak memory.

    OMP_NUM_THREADS=1 python benchmarks/curves.py [--points 6] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from datadose import Shift, sft_error_curve
from datadose.prompts import draw_moments, draw_prompts
from datadose.theory import post_test_error, pretrained_operator
from timing import peak_gib, seconds

LENGTHS, INTERFERENCES, LARGEST = (400, 800, 1200), (0.0, 0.01, 0.1), 2000


def literal_point(shift: Shift, n: int, B: int, seed: int) -> float:
    """One point by the definition: draw the prompts, pseudo-invert Phi, evaluate Prop 5.1."""
    prompts = draw_prompts(shift.data, n, B, seed=seed)
    phi = np.stack([X.T @ y / n for X, y in zip(prompts.inputs, prompts.labels, strict=True)], axis=1)
    pinv = np.linalg.pinv(phi)
    V0 = np.diag(pretrained_operator(shift.sigma0, n))
    V = -shift.eta * prompts.weights.T @ pinv + V0 @ (np.eye(len(phi)) - phi @ pinv)
    return post_test_error(V, shift.target, n)


def fig1_shift(d: int, r: float) -> Shift:
    """Figure 1's shift at dimension d."""
    return Shift.two_block(d, d // 2, 0.1, 0.2, r)


def curve_seconds(d: int, r: float, largest: int, n: int, repeats: int) -> float:
    """Time of one whole curve."""
    return seconds(partial(sft_error_curve, fig1_shift(d, r), largest, n, seed=0), repeats)


def speed_up(points: int, repeats: int) -> None:
    """The headline ratio, peak memory and the distance to the machine's bounds."""
    ours = sum(curve_seconds(400, r, LARGEST, n, repeats) for r in INTERFERENCES for n in LENGTHS)
    memory = 1024 * peak_gib()
    rng = np.random.default_rng(0)
    costs, svd_costs = [], []
    for _ in range(points):
        r, n, B = rng.choice(INTERFERENCES), int(rng.choice(LENGTHS)), int(rng.integers(1, LARGEST + 1))
        costs.append(seconds(partial(literal_point, fig1_shift(400, r), n, B, 0)))
        phi = draw_moments(fig1_shift(400, r).data, n, B, seed=0).phi
        svd_costs.append(seconds(partial(np.linalg.pinv, phi)))
        print(f"  literal point r={r:g} n={n} B={B}: {costs[-1]:.2f} s, its SVD {svd_costs[-1]:.2f} s")
    number = LARGEST * len(LENGTHS) * len(INTERFERENCES)
    a_point = statistics.mean(costs)
    print(f"Figure 1, {number} points, one seed, one core")
    print(f"  literal: {a_point:.2f} s a point (mean of {points}), {a_point * number:.0f} s for all")
    print(f"  ours: {ours:.2f} s for all (median of {repeats})")
    svd_ratio = statistics.mean(svd_costs) * number / ours
    print(f"  RATIO to the SVDs alone, prompts given: {svd_ratio:.0f} times")
    print(f"  RATIO {a_point * number / ours:.0f} times; peak memory of ours {memory:.0f} MB")
    bounds(curve_seconds(400, 0.1, LARGEST, 800, repeats))


def bounds(one_curve: float) -> None:
    """Arithmetic and memory-traffic floor of one full-rank curve at d = 400 on this core, measured here."""
    d, B, b = 400, LARGEST, 128
    # Below the peak: QR and its Q (8/3 d^3), two triangular solves and four products (10 d^3). Above, a
    # prompt: QR update of R and of the right-hand side (6 d^2), V psi, V MP and two solves (6 d^2), and a
    # block's triangular solve (d^3 / b).
    flops = (8 / 3 + 10) * d**3 + (B - d) * (12 * d**2 + d**3 / b)
    X = np.random.default_rng(0).standard_normal((d, d))
    rate = 2 * d**3 / seconds(lambda: X @ X, 50)
    # A block reads and writes R, the right-hand side, V and MV once: 8 arrays of d^2 doubles.
    traffic = 8 * 8 * d**2 * (B - d) / b + 8 * 2 * d * B
    big = np.zeros(30_000_000)
    bandwidth = 2 * big.nbytes / seconds(lambda: np.add(big, 1.0, out=big), 5)
    floor, moved = flops / rate, traffic / bandwidth
    print(f"  one curve: {one_curve:.3f} s, {one_curve / floor:.1f} times its arithmetic floor {floor:.3f} s")
    print(
        f"  ({rate / 1e9:.0f} Gflop/s in a product; memory floor {moved:.3f} s at {bandwidth / 1e9:.0f} GB/s)"
    )


def exponents(repeats: int) -> None:
    """Cost per prompt against d (about 2) and against n (about 0)."""
    sizes, lengths = (200, 400, 800), (100, 1000, 10000)
    per_prompt = [curve_seconds(d, 0.1, 5 * d, 800, repeats) / (5 * d) for d in sizes]
    by_length = [curve_seconds(400, 0.1, LARGEST, n, repeats) for n in lengths]
    slope_d = np.polyfit(np.log(sizes), np.log(per_prompt), 1)[0]
    slope_n = np.polyfit(np.log(lengths), np.log(by_length), 1)[0]
    print(f"cost per prompt: exponent {slope_d:.2f} in d over {sizes}, {slope_n:.3f} in n over {lengths}")


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with threadpool_limits(1):
        speed_up(arguments.points, arguments.repeats)
        exponents(arguments.repeats)


if __name__ == "__main__":
    main()
