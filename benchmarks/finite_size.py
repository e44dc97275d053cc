"""The asymptotic error of V* and its O(1/d) correction against simulation (docs/derivations/finite_size.md).

Two-block shift of the paper (m = d/2, rho = 0.1, eta = 0.2), all prompt lengths n equal. Prints a Markdown
table. All percentages are of the asymptotic error: the two parts of the correction, the gap of the simulated
mean to the asymptotic error before and after the correction, and the standard error of that mean.

    python benchmarks/finite_size.py --dimensions 20 40 80 --ratios 0.5 2 --seeds 4000
"""

from __future__ import annotations

import argparse

import numpy as np

from datadose.covariance import Array, wishart_second_moment
from datadose.prompts import draw_moments
from datadose.shift import Shift
from datadose.simulation.curves import error_curve
from datadose.theory import Source, mixture_equivalent, pretrained_operator
from datadose.theory.finite_size import finite_size_correction


def simulate(shift: Shift, prompts: int, length: int, seeds: range) -> Array:
    """Err(V*) / d at B = ``prompts`` for each seed, shape (len(seeds),)."""
    V0 = pretrained_operator(shift.sigma0, length)
    return np.array(
        [
            error_curve(
                draw_moments(shift.data, length, prompts, seed=seed),
                eta=shift.eta,
                V0=V0,
                data=shift.data,
                target=shift.target,
                test_length=length,
            )[-1]
            for seed in seeds
        ]
    )


def row(shift: Shift, prompts: int, length: int, seeds: range) -> str:
    """One row of the table."""
    V0 = pretrained_operator(shift.sigma0, length)
    equivalent = mixture_equivalent(V0, shift.eta, [Source(shift.data, length, prompts)])
    asymptotic = equivalent.error(shift.target, wishart_second_moment(shift.target, length))
    correction = finite_size_correction(equivalent, shift.eta, [length], shift.target, length)
    values = simulate(shift, prompts, length, seeds)
    mean = float(values.mean())
    sem = float(values.std(ddof=1)) / len(values) ** 0.5
    cells = [f"{shift.dimension}", f"{length}", f"{prompts}", f"{asymptotic:.4f}"]
    percent = [correction.gaussian / asymptotic, correction.law / asymptotic, mean / asymptotic - 1]
    percent += [(mean - correction.total) / asymptotic - 1, sem / asymptotic]
    return "| " + " | ".join(cells + [f"{100 * value:.2f}" for value in percent]) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[20, 40, 80], help="d")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.2, 0.5, 0.8, 1.25, 2.0], help="B / d")
    parser.add_argument("--length-ratio", type=float, default=1.0, help="n / d")
    parser.add_argument("--interference", type=float, default=0.1, help="r")
    parser.add_argument("--seeds", type=int, default=4000, help="seeds per row")
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    print("| d | n | B | asymptotic | Gaussian % | law % | gap % | gap after % | standard error % |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for ratio in options.ratios:
        for d in options.dimensions:
            shift = Shift.two_block(d, d // 2, 0.1, 0.2, options.interference)
            seeds = range(options.first_seed, options.first_seed + options.seeds)
            print(row(shift, round(ratio * d), round(options.length_ratio * d), seeds), flush=True)


if __name__ == "__main__":
    main()
