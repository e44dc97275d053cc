"""The theorem in 120-digit arithmetic, for spectra, by one formula for every regime.

V* is the limit of the minimiser of ||V Phi + eta Omega||^2 + ridge ||V - V0||^2 for ridge -> 0. With a ridge
there is one fixed point, whatever the counts: q_a = B_a G_aa, G = (O^{-1} + diag(tr C_a R))^{-1} and
R = (ridge + sum_a q_a C_a)^{-1}. With 120 digits the ridge can be 1e-40 of the smallest eigenvalue, so that
no rank has to be decided, nothing is extrapolated, and rounding plays no part.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np

from helpers.problems import Problem

_DIGITS = 120
_ROUGH, _EXACT = Decimal("1e-3"), Decimal("1e-30")


def exact_error(problem: Problem) -> float:
    """(1/d) E ||I + V* S||^2 to all digits of a float, in the proportional limit's formula."""
    with localcontext() as context:
        context.prec = _DIGITS
        return float(_Features(problem).error())


def _decimals(values: Any) -> Any:
    return np.array([Decimal(float(x)) for x in np.ravel(values)], dtype=object).reshape(np.shape(values))


def _solve(matrix: Any, right: Any) -> Any:
    """Gauss-Jordan elimination with pivoting."""
    M = np.hstack([matrix, right[:, None]])
    for i in range(len(M)):
        pivot = i + max(range(len(M) - i), key=lambda k: abs(M[i + k, i]))
        M[[i, pivot]] = M[[pivot, i]]
        M[i] = M[i] / M[i, i]
        for k in range(len(M)):
            if k != i:
                M[k] = M[k] - M[k, i] * M[i]
    return M[:, -1]


class _Features:
    """Features a (a source's phi; with noisy labels and k >= 1 its h too), their counts and moments."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.d = problem, problem.dimension
        self.eta = Decimal(problem.eta)
        powers = [(1 - self.eta) ** i for i in range(problem.chain_steps + 1)]
        self.weight, linear, steps = sum(x * x for x in powers), sum(powers), len(powers)
        # O^{-1} = c_k [[c_k, s_k], [s_k, k + 1]]^{-1}.
        determinant = self.weight * steps - linear**2
        self.sources = [s for s in problem.sources if s.prompts > 0 and s.covariance.any()]
        counts, moments, blocks, self.first = [], [], [], []
        for s in self.sources:
            A, n, noise = _decimals(s.covariance), Decimal(s.length), Decimal(s.label_noise)
            C = (1 + 1 / n) * A * A + A.sum() / n * A
            paired = s.label_noise > 0 and problem.chain_steps > 0
            self.first.append(len(counts))
            if paired:
                moments += [C, noise / n * A]
                scale = self.weight / determinant
                blocks.append([[scale * steps, -scale * linear], [-scale * linear, scale * self.weight]])
            else:
                moments.append(C + noise / n * A)
                blocks.append([[Decimal(1)]])
            counts += [Decimal(s.prompts)] * len(blocks[-1])
        self.B, self.C = np.array(counts, dtype=object), np.array(moments, dtype=object)
        self.blocks = [np.array(block, dtype=object) for block in blocks]

    def _block_diagonal(self, blocks: list[Any]) -> Any:
        whole = np.full((len(self.B),) * 2, Decimal(0), dtype=object)
        for at, block in zip(self.first, blocks, strict=True):
            whole[at : at + len(block), at : at + len(block)] = block
        return whole

    def _gain(self, tau: Any) -> Any:
        found = []
        for at, block in zip(self.first, self.blocks, strict=True):
            if len(block) == 1:
                found.append(np.array([[1 / (1 + tau[at])]], dtype=object))
                continue
            a, b, c = block[0, 0] + tau[at], block[0, 1], block[1, 1] + tau[at + 1]
            found.append(np.array([[c, -b], [-b, a]], dtype=object) / (a * c - b * b))
        return self._block_diagonal(found)

    def _newton(self, ridge: Decimal, x: Any, tolerance: Decimal) -> tuple[Any, int] | None:
        """log q and how many steps it took, or None if it does not settle."""
        eye = self._block_diagonal([np.array(np.eye(len(b)), dtype=int).astype(object) for b in self.blocks])
        for count in range(1, 30):
            q = np.array([value.exp() for value in x], dtype=object)
            CR = self.C / (ridge + q @ self.C)
            G = self._gain(CR.sum(axis=1))
            gap = np.array([(B * g).ln() for B, g in zip(self.B, G.diagonal(), strict=True)]) - x
            T = (CR @ CR.T) * q
            step = _solve(eye - (G * G @ T) / G.diagonal()[:, None], gap)
            largest = max(abs(s) for s in step)
            x = x + step * min(Decimal(1), 8 / largest) if largest > 0 else x
            if largest < tolerance:
                return x, count
        return None

    def _fixed_point(self) -> tuple[Decimal, Any]:
        """The ridge and q, along a path of ridges that ends 1e-40 below everything."""
        positive = self.C[self.C > 0]
        ridge = (self.B @ self.C).max()
        last = Decimal("1e-40") * positive.min() * min(Decimal(1), self.B.min())
        x = np.array([(B / 2).ln() for B in self.B], dtype=object)
        x, _ = self._settled(self._newton(ridge, x, _ROUGH))
        slope, stride = np.full(len(x), Decimal(0), dtype=object), Decimal(2)
        while ridge > last:
            following = max(ridge * (-stride).exp(), last)
            moved = (following / ridge).ln()
            settled = self._newton(following, x + slope * moved, _ROUGH)
            if settled is None:
                stride /= 4
                assert stride > Decimal("1e-3"), "the path of ridges ends"
                continue
            found, steps = settled
            slope, x, ridge = (found - x) / moved, found, following
            stride = min(stride * 2, Decimal(40)) if steps <= 5 else stride / 2
        x, _ = self._settled(self._newton(ridge, x, _EXACT))
        return ridge, np.array([value.exp() for value in x], dtype=object)

    @staticmethod
    def _settled(found: tuple[Any, int] | None) -> tuple[Any, int]:
        assert found is not None, "no fixed point"
        return found

    def error(self) -> Decimal:
        V0, target = _decimals(self.problem.V0), _decimals(self.problem.target)
        n = Decimal(self.problem.test_length)
        M = (1 + 1 / n) * target * target + target.sum() / n * target
        if not self.sources:
            return 1 + (2 * (V0 * target).sum() + (V0 * V0 * M).sum()) / self.d
        ridge, q = self._fixed_point()
        crosses = [_decimals(s.covariance) for s in self.sources]
        R = 1 / (ridge + q @ self.C)
        pulled = sum(q[at] * A for at, A in zip(self.first, crosses, strict=True))
        V = (ridge * V0 - self.eta * pulled) * R
        residuals = []
        for at, block, s, A in zip(self.first, self.blocks, self.sources, crosses, strict=True):
            own = Decimal(s.demonstration_noise) / self.weight * self.d * block
            for k in range(len(block)):
                own[k, k] += (V * V * self.C[at + k]).sum()
            own[0, 0] += 2 * self.eta * (A * V).sum() + self.eta**2 * self.d
            residuals.append(own)
        # E D M D^T = sum_b t_b(M) z_b; z also counts the residuals' own fluctuation E D C_a D^T.
        CR = self.C * R
        G = self._gain(CR.sum(axis=1))
        overlap = CR @ CR.T
        own = self.B * (G @ self._block_diagonal(residuals) @ G).diagonal()
        eye = self._block_diagonal([np.array(np.eye(len(b)), dtype=int).astype(object) for b in self.blocks])
        z = _solve(eye - self.B[:, None] * (G * G) @ overlap, own)
        spread = (CR * R * M).sum(axis=1) @ z
        return 1 + (2 * (V * target).sum() + (V * V * M).sum() + spread) / self.d
