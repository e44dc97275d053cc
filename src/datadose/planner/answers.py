"""How far the answers of a thinking chain are from the truth: drawn exactly, in O(d) a number.

A chain of k steps needs a prompt's S only in the products S e_0, S e_1, .. with the gaps e_0 = w*,
e_{i+1} = e_i + V S e_i. Writing S = A^{1/2} Z Z^T A^{1/2} / n with Z standard normal, every product reveals
one direction q of Z's rows and one p of its columns, and what is not revealed stays standard normal: given
Z^T q_l and Z p_j so far, a new q _|_ (q_l) has Z^T q = sum_j <Z p_j, q> p_j + chi p with chi^2 of
n - i degrees of freedom and a new p, and Z p = chi q + a standard normal vector across all q. Nothing of size
n or d^2 is drawn. Derivation: docs/derivations/planner.md.
"""

from __future__ import annotations

import numpy as np

from datadose.covariance import Array, product, square_root, transpose

_PARALLEL = 1e-12
"""A vector with less than this share of it across the earlier ones adds no direction."""


def draw_gaps(
    V: Array, target: Array, length: int, steps: int, draws: int, *, seed: int, spread: float = 0.0
) -> Array:
    """Gaps (I + V S)^k w* of chains of k steps, drawn exactly, one prompt each; shape (draws, d).

    The law is exact for every n, also below d and below k. A draw costs O(k^2 d) with spectra and O(k d^2)
    with matrices.

    Args:
        V: any operator, (d,) or (d, d).
        target: covariance of the prompts, (d,) or (d, d).
        length: prompt length n >= 1.
        steps: number k >= 1 of thinking steps.
        draws: number of prompts.
        seed: of the draws.
        spread: variance >= 0 of the noise that the uncertainty of V adds to every direction of a step from a
            gap as long as a typical w*, in proportion for longer and shorter ones (an approximation).
    """
    rng = np.random.default_rng(seed)
    noise = np.random.default_rng([seed, 1])
    root = square_root(target)
    products = _Products(rng, length, root)
    gap = rng.standard_normal((draws, len(target)))
    for _ in range(steps):
        moved = gap + product(products.of(gap), transpose(V))
        if spread > 0:
            scale = np.linalg.norm(gap, axis=1, keepdims=True) * np.sqrt(spread / len(target))
            moved += scale * noise.standard_normal(gap.shape)
        gap = moved
    return gap


class _Products:
    """S e for one vector e after another, of one S a draw; rows are draws."""

    def __init__(self, rng: np.random.Generator, length: int, root: Array) -> None:
        self.rng, self.length, self.root = rng, length, root
        self.rows: list[Array] = []
        """The q, orthonormal."""
        self.images: list[Array] = []
        """Z p of every p."""
        self.scores: list[list[Array]] = []
        """<Z^T q_l, p_j> for j <= l."""

    def of(self, vectors: Array) -> Array:
        """S times ``vectors`` (draws, d)."""
        u = product(vectors, self.root)
        along = [np.einsum("bi,bi->b", u, q) for q in self.rows]
        along.append(self._reveal(u))
        total = np.zeros_like(u)
        for place, image in enumerate(self.images):
            weight = sum(a * s[place] for a, s in zip(along[place:], self.scores[place:], strict=True))
            total += np.asarray(weight)[:, None] * image
        return np.asarray(product(total, self.root) / self.length)

    def _reveal(self, u: Array) -> Array:
        """Add the direction of ``u`` across the known ones, and return its length."""
        across, known = u, len(self.rows)
        for _ in range(2):  # Twice is enough: once loses orthogonality when little is left.
            across = self._across(across)
        size = np.linalg.norm(across, axis=1)
        size[size <= _PARALLEL * np.linalg.norm(u, axis=1)] = 0.0
        q = np.divide(across, size[:, None], out=np.zeros_like(u), where=size[:, None] > 0)
        free = self.length - known
        chi = np.sqrt(self.rng.chisquare(free, len(u))) if free > 0 else np.zeros(len(u))
        self.scores.append([*(np.einsum("bi,bi->b", image, q) for image in self.images), chi])
        self.rows.append(q)
        fresh = self.rng.standard_normal(u.shape) if free > 0 else np.zeros_like(u)
        self.images.append(chi[:, None] * q + self._across(fresh))
        return np.asarray(size)

    def _across(self, vectors: Array) -> Array:
        """``vectors`` without their parts along the known directions."""
        for q in self.rows:
            vectors = vectors - np.einsum("bi,bi->b", vectors, q)[:, None] * q
        return vectors
