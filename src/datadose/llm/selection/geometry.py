"""The shift between reference and target in a representation: which directions the target uses more.

Rows x of the reference have second moment Sigma0 about their mean mu0, rows of the target C about the same
mu0 (a moved mean is part of the shift, as it is of E[x x^T] in the theory). Generalised eigenvalues
C v = lambda Sigma0 v with v^T Sigma0 v = 1 give how much more the target varies along v than the reference:
lambda = 1 where nothing changed, lambda > 1 on the range of the shift Delta = C - Sigma0.

Rows of sketches are scaled to length one first: how large a gradient is, is the row's hardness and is judged
apart; the geometry concerns its direction. All of it happens on the leading p principal components of
both sets together, from at most ROWS rows of each.

A direction counts as *shifted* if its lambda exceeds the threshold: the (1 - LEVEL) quantile of the largest
lambda under random relabelling of the rows as reference or target. The components ignore the labels, so
where both sets come from one law the chance of finding any shifted direction is at most LEVEL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh

from datadose.covariance import Array
from datadose.errors import reject
from datadose.llm.selection.arrays import Floats, Indices, blocks, stream
from datadose.llm.selection.config import Representation

DIMENSIONS = 64
"""Principal components p at most; fewer for few rows (a quarter of both sets together)."""
ROWS = 4096
"""Rows of either set at most. The reference gives no more than the target, or 256 for a smaller target."""
LEVEL = 0.05
PERMUTATIONS = 199
_RIDGE = 1e-8


@dataclass(frozen=True)
class ShiftGeometry:
    """The estimated shift, in p dimensions."""

    centre: Array
    """Mean of the reference, (D,)."""
    directions: Array
    """(D, p): (x - centre) @ directions has second moment I on the reference, up to shrinkage, and
    diag(eigenvalues) on the target."""
    eigenvalues: Array
    """Generalised eigenvalues lambda, (p,), descending."""
    threshold: float
    """What lambda must exceed to count as shifted; at least 1."""
    unit_rows: bool
    """Whether rows are scaled to length one first (sketches)."""
    rows: tuple[int, int]
    """How many rows of the reference and of the target were used."""
    shrinkage: float
    """Ledoit-Wolf weight on the identity in Sigma0."""

    @property
    def shifted(self) -> int:
        """The number of shifted directions, which come first."""
        return int((self.eigenvalues > self.threshold).sum())

    def coordinates(self, array: Floats, rows: Indices) -> Array:
        """Whitened coordinates of ``rows`` (ascending) of ``array``, (n, p) float64."""
        found = np.empty((len(rows), len(self.eigenvalues)))
        for where, block in blocks(array, rows):
            x = _unit(block) if self.unit_rows else block
            found[where] = (x - self.centre) @ self.directions
        return found

    def to_json(self) -> dict[str, Any]:
        """The geometry as the manifest holds it."""
        return {
            "dimensions": len(self.eigenvalues),
            "shifted_directions": self.shifted,
            "eigenvalues": [round(float(value), 6) for value in self.eigenvalues],
            "threshold": round(self.threshold, 6),
            "level": LEVEL,
            "permutations": PERMUTATIONS,
            "reference_rows": self.rows[0],
            "target_rows": self.rows[1],
            "shrinkage": round(self.shrinkage, 6),
        }


def estimate_geometry(
    reference: Floats,
    reference_rows: Indices,
    target: Floats,
    target_rows: Indices,
    *,
    representation: Representation,
    seed: int,
) -> ShiftGeometry:
    """The estimated shift: Sigma0, C, their generalised eigenvectors and the threshold.

    Args:
        reference: representations of the reference, (N, D).
        reference_rows: the rows of it that are used, ascending.
        target: representations of the target, (M, D).
        target_rows: the rows of it that are used, ascending.
        representation: ``sketch`` scales rows to length one first.
        seed: of the random choices among many rows and of the relabelling.

    Raises InputError for fewer than 2 rows in either set, or rows that do not vary.
    """
    for field, rows in (("reference", reference_rows), ("target", target_rows)):
        if len(rows) < 2:
            reject(field, f"{len(rows)} scored rows", "at least 2, for a covariance")
    rng, unit = stream(seed, "geometry"), representation == "sketch"
    target_part = _some(target_rows, ROWS, rng)
    reference_part = _some(reference_rows, min(ROWS, max(len(target_part), 256)), rng)
    first, second = _read(reference, reference_part, unit=unit), _read(target, target_part, unit=unit)
    both = np.concatenate([first, second])
    middle = both.mean(axis=0)
    p = min(DIMENSIONS, both.shape[1], len(both) // 4)
    basis = _components(both - middle, p)
    if basis.shape[1] == 0:
        reject("target", "rows that are all the same in this representation", "rows that differ")
    z = (both - middle) @ basis
    sigma0, C, centre, shrinkage = _moments(z[: len(first)], z[len(first) :])
    values, vectors = eigh(C, sigma0)
    return ShiftGeometry(
        middle + basis @ centre,
        basis @ vectors[:, ::-1],
        values[::-1],
        _threshold(z, len(first), seed),
        unit,
        (len(first), len(second)),
        shrinkage,
    )


def shrunk_moment(z: Array) -> tuple[Array, float]:
    """(second moment of the rows of ``z`` about zero, shrunk to a multiple of the identity; its weight).

    Ledoit and Wolf (2004): (1 - a) S + a (tr S / p) I with a = min(b, d) / d, d = ||S - (tr S / p) I||_F^2
    and b = (1/n^2) sum_k ||z_k z_k^T - S||_F^2, which minimises the expected squared error for large n and p.
    """
    n, p = z.shape
    S = z.T @ z / n
    mean = float(np.trace(S)) / p
    distance = float(((S - mean * np.eye(p)) ** 2).sum())
    noise = (float((np.einsum("ij,ij->i", z, z) ** 2).sum()) / n - float((S**2).sum())) / n
    weight = 1.0 if distance <= 0 else min(max(noise, 0.0), distance) / distance
    return (1 - weight) * S + weight * mean * np.eye(p), weight


def _moments(reference: Array, target: Array) -> tuple[Array, Array, Array, float]:
    """(Sigma0 shrunk, C, reference's mean, shrinkage weight) in component space.

    C is not shrunk: its weight would depend on the shift itself, and the threshold covers its noise.
    """
    centre = reference.mean(axis=0)
    sigma0, weight = shrunk_moment(reference - centre)
    sigma0 = sigma0 + _RIDGE * np.trace(sigma0) / len(sigma0) * np.eye(len(sigma0))
    moved = target - centre
    return sigma0, moved.T @ moved / len(moved), centre, weight


def _threshold(z: Array, first: int, seed: int) -> float:
    """The (1 - LEVEL) quantile of the largest lambda when the labels of the rows ``z`` are shuffled."""
    rng, last = stream(seed, "permutation"), z.shape[1] - 1
    largest = []
    for _ in range(PERMUTATIONS):
        order = rng.permutation(len(z))
        sigma0, C, _, _ = _moments(z[order[:first]], z[order[first:]])
        largest.append(eigh(C, sigma0, eigvals_only=True, subset_by_index=[last, last])[0])
    # Of R + 1 exchangeable values the true one exceeds the k-th largest with chance at most k / (R + 1).
    place = int(np.floor(LEVEL * (PERMUTATIONS + 1)))
    return max(1.0, float(np.sort(largest)[-place]))


def _components(centred: Array, p: int) -> Array:
    """The leading principal components, (D, at most p); none of negligible variance."""
    values, vectors = eigh(centred.T @ centred / len(centred))
    order = np.argsort(values)[::-1][:p]
    order = order[values[order] > 1e-10 * max(values.max(), 0.0)]
    chosen = vectors[:, order]
    # An eigenvector's sign is arbitrary; fix it for equal results everywhere.
    signs = np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(chosen.shape[1])])
    return np.asarray(chosen * signs)


def _some(rows: Indices, count: int, rng: np.random.Generator) -> Indices:
    return rows if len(rows) <= count else np.sort(rng.choice(rows, count, replace=False))


def _read(array: Floats, rows: Indices, *, unit: bool) -> Array:
    parts = [_unit(block) if unit else block for _, block in blocks(array, rows)]
    return np.concatenate(parts)


def _unit(rows: Array) -> Array:
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, size, out=np.zeros_like(rows), where=size > 0))
