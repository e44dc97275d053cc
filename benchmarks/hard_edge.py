"""Mean and median test error of V* over more and more draws: the table of docs/derivations/hard_edge.md.

Where the mean is infinite the sample mean grows with the number of draws, in jumps, and the median stays.
"""

from __future__ import annotations

import numpy as np

from datadose.covariance import wishart_second_moment
from datadose.prompts import draw_moments
from datadose.theory.pretraining import pretrained_operator

D, ETA = 6, 0.2
DRAWS = (100, 1_000, 10_000, 100_000)
CASES = ((6, 12), (5, 12), (7, 12), (3, 12), (12, 12), (3, 1), (3, 2), (3, 3), (12, 1))
"""(B, n): at the rank, one prompt either side, and away from it; then short prompts."""


def errors(B: int, n: int, seed: int) -> np.ndarray:
    """Err(V*), divided by d, of the largest number of draws."""
    sigma0, data = np.linspace(0.2, 1.0, D), np.linspace(0.5, 1.5, D)
    target = wishart_second_moment(sigma0 + 0.5, 30)
    moments = draw_moments(data, n, B * DRAWS[-1], seed=seed)
    phi, weights = (x.T.reshape(-1, B, D).transpose(0, 2, 1) for x in (moments.phi, moments.weights))
    V0 = np.diag(pretrained_operator(sigma0, n))
    V = V0 - (V0 @ phi + ETA * weights) @ np.linalg.pinv(phi)
    linear = 2 * np.einsum("bii,i->b", V, sigma0 + 0.5)
    return np.asarray(1 + (linear + np.einsum("bij,j->b", V**2, target)) / D)


def main() -> None:
    """One line a case: mean and median after each number of draws."""
    print(f"d = {D}; mean (median) of the error over", *DRAWS, "draws")
    for B, n in CASES:
        found = errors(B, n, seed=0)
        cells = (f"{found[:N].mean():.3g} ({np.median(found[:N]):.3g})" for N in DRAWS)
        print(f"B = {B:2}, n = {n:2}: ", *(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
