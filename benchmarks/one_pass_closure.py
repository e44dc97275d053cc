"""How wrong one pass of stochastic descent is with Gaussian fourth moments, by dimension and prompt length.

Rows phi = S w are no Gaussian vectors: the exact recursion (:mod:`datadose.theory.one_pass`) against the one
that Gaussian rows of the same second moments would have, at single rows and half of the exact largest step.
The table of docs/derivations/one_pass.md, section 7; no simulation, a few seconds.

    OMP_NUM_THREADS=1 python benchmarks/one_pass_closure.py
"""

from __future__ import annotations

import numpy as np

from datadose import Shift
from datadose.theory import Source, TrainedOperator, pretrained_operator
from datadose.theory.one_pass import OnePass

ETA = 0.2


def gaussian_errors(
    shift: Shift, n: int, V0: np.ndarray, descent: OnePass, step: float, last: int
) -> np.ndarray:
    """Errors / d after 0, 1, .., ``last`` updates of one row, if rows were Gaussian."""
    C, A, d = descent.rows.second, descent.rows.cross, len(V0)
    v, s, errors = V0.copy(), V0**2, []
    for _ in range(last + 1):
        errors.append(TrainedOperator(v, s, np.zeros(d)).error(shift.target, n))
        squared = C * C * s + 2 * ETA * C * A * v + ETA**2 * A * A
        residual = (s * C).sum() + 2 * ETA * (v * A).sum() + ETA**2 * d
        s, v = (
            s - 2 * step * (C * s + ETA * A * v) + step**2 * (2 * squared + C * residual),
            v - step * (v * C + ETA * A),
        )
    return np.array(errors)


def gaussian_largest_step(C: np.ndarray) -> float:
    """The largest step at which the mean error of Gaussian rows stays bounded."""
    root = np.sqrt(2 * C)
    noise = (np.diag(2 * C * C) + np.outer(C, C)) / root[:, None] / root
    return float(1 / np.linalg.eigvalsh(noise)[-1])


def main() -> None:
    """Print the table."""
    print(
        "   d     n  largest step, Gaussian / exact; gap after 1, 3, d/3, d, 3d updates; largest within 20 d"
    )
    for d in (30, 150, 600):
        for n in (d // 2, 3 * d):
            shift = Shift.two_block(d, d // 2, 0.1, ETA, 0.01)
            V0 = pretrained_operator(shift.sigma0, n)
            descent = OnePass.of([Source(shift.data, n, 1)], ETA)
            step, last = descent.largest_step / 2, 20 * d
            exact = np.asarray(descent.errors(V0, step, range(last + 1), shift.target, n))
            gap = 100 * (gaussian_errors(shift, n, V0, descent, step, last) / exact - 1)
            ratio = gaussian_largest_step(descent.rows.second) / descent.largest_step
            places = " ".join(f"{gap[T]:7.2f}%" for T in (1, 3, d // 3, d, 3 * d))
            print(f"{d:4d} {n:5d}  {ratio:.3f}  {places}  {gap[np.abs(gap).argmax()]:7.2f}%")


if __name__ == "__main__":
    main()
