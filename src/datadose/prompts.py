"""Prompts of the task, three ways: drawn in full, through their exact moments, or as Wishart matrices.

A prompt (paper section 1) is n inputs x_i ~ N(0, A) with labels y_i = <w*, x_i> for its own weight
w* ~ N(0, I_d). The linear model uses a prompt only through phi = S w* (supervised fine-tuning), with noisy
labels h = (1/n) X eps beside it, or S = (1/n) sum_i x_i x_i^T (roll-outs); all can be drawn in distribution
without drawing x. Derivation: docs/derivations/sampling.md.

Each source of randomness has its own stream, folded from one seed, and streams are read prompt by prompt:
the first B prompts of a larger draw with the same seed are the draw of size B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np

from datadose.covariance import product, square_root, validate_covariance
from datadose.errors import require_integer, require_number
from datadose.shapes import Array, Float, Operator, PerPrompt, PerPromptMatrix

_STREAMS = {
    "weights": 0,
    "inputs": 1,
    "noise": 2,
    "chi_square": 3,
    "diagonal": 4,
    "triangle": 5,
    "order": 6,
    "policy": 7,
    "label_noise": 8,
    "label_noise_length": 9,
    "label_noise_direction": 10,
    "demonstration_noise": 11,
    "length": 12,
}


Seed: TypeAlias = int | Sequence[int]
"""A seed, or a seed with the step (or epoch) folded in: any batch can be recreated alone."""


def random_stream(seed: Seed, source: str) -> np.random.Generator:
    """The random stream of one ``source`` of randomness (a name) under ``seed``."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAMS[source],)))


@dataclass(frozen=True)
class Prompts:
    """B explicit prompts: weights w* (B, d), inputs (B, n, d), labels (B, n)."""

    weights: Float[Array, "B d"]
    inputs: Float[Array, "B n d"]
    labels: Float[Array, "B n"]

    @property
    def covariances(self) -> PerPromptMatrix:
        """Empirical covariances S, shape (B, d, d)."""
        outer = np.einsum("bni,bnj->bij", self.inputs, self.inputs, optimize=True)
        return np.asarray(outer / self.inputs.shape[1])

    @property
    def moments(self) -> Moments:
        """The sufficient statistics (w*, S w*) of supervised fine-tuning."""
        phi = np.einsum("bni,bn->bi", self.inputs, self.labels, optimize=True) / self.inputs.shape[1]
        return Moments(self.weights.T, phi.T)


@dataclass(frozen=True)
class Moments:
    """What SFT uses of B prompts: Omega = [w*_1 .. w*_B] and Phi = [S_1 w*_1 .. S_B w*_B], both (d, B)."""

    weights: PerPrompt
    phi: PerPrompt

    def first(self, prompts: int) -> Self:
        """The first ``prompts`` prompts of the same stream."""
        return type(self)(*(columns[:, :prompts] for columns in vars(self).values()))


@dataclass(frozen=True)
class NoisyMoments(Moments):
    """What SFT uses of B prompts with noisy labels y_i = <w*, x_i> + eps_i: Omega, Phi and the h's."""

    echo: PerPrompt
    """h = (1/n) X eps of every prompt, (d, B): the labels give phi + h in place of phi."""


def draw_prompts(covariance: Operator, length: int, prompts: int, *, seed: Seed) -> Prompts:
    """B = ``prompts`` explicit prompts: the literal definition of the task (section 1), the reference.

    Args:
        covariance: A of the inputs, a spectrum (d,) or a PSD matrix (d, d).
        length: examples n >= 1 in a prompt.
        prompts: B >= 1. The cost is O(B n d).
        seed: of all randomness.

    Raises InputError for a value out of range.
    """
    A, n, B = check_request(covariance, length, prompts)
    weights = random_stream(seed, "weights").standard_normal((B, len(A)))
    z = random_stream(seed, "inputs").standard_normal((B, n, len(A)))
    inputs = product(z, square_root(A))
    return Prompts(weights, inputs, np.einsum("bni,bi->bn", inputs, weights))


@dataclass(frozen=True)
class _Split:
    """What (w*, S w*) is made of: the inputs along and across u = A^{1/2} w* (a row a prompt)."""

    weights: Array
    root: Array
    """A^{1/2}."""
    direction: Array
    """u / ||u||."""
    chi_square: Array
    """c = ||g||^2 ~ chi^2_n, where g = Z^T u / ||u||."""
    across: Array
    """sum_j z_j g_j / sqrt(c) without its part along u: N(0, I) across u."""
    phi: Array
    """S w* = A^{1/2} (||u||/n) (c u/||u|| + sqrt(c) xi)."""

    @classmethod
    def draw(cls, A: Array, n: int, B: int, seed: Seed) -> _Split:
        root = square_root(A)
        w = random_stream(seed, "weights").standard_normal((B, len(A)))
        xi = random_stream(seed, "noise").standard_normal((B, len(A)))
        c = random_stream(seed, "chi_square").chisquare(n, size=B)
        u = product(w, root)
        norm = np.linalg.norm(u, axis=1)
        direction = np.divide(u, norm[:, None], out=np.zeros_like(u), where=norm[:, None] > 0)
        across = _across(xi, direction)
        summed = direction * c[:, None] + across * np.sqrt(c)[:, None]
        return cls(w, root, direction, c, across, product(summed * (norm / n)[:, None], root))


def _across(xi: Array, direction: Array) -> Array:
    """The rows of ``xi`` without their parts along the unit rows of ``direction``."""
    return np.asarray(xi - direction * np.einsum("bi,bi->b", xi, direction)[:, None])


def draw_moments(covariance: Operator, length: int, prompts: int, *, seed: Seed) -> Moments:
    """The pairs (w*, S w*) of B prompts, exact in distribution, at a cost that does not depend on n.

    With u = A^{1/2} w*, S w* = A^{1/2} (1/n) sum_j z_j <z_j, u> for z_j ~ N(0, I). Along u the sum is
    ||u|| c with c ~ chi^2_n; across u it is ||u|| sqrt(c) times a standard normal vector. O(d) a prompt for
    a spectrum, O(d^2) for a dense covariance. The arguments and errors are those of :func:`draw_prompts`.
    """
    A, n, B = check_request(covariance, length, prompts)
    drawn = _Split.draw(A, n, B, seed)
    return Moments(np.ascontiguousarray(drawn.weights.T), np.ascontiguousarray(drawn.phi.T))


def draw_noisy_moments(
    covariance: Operator, length: int, prompts: int, label_noise: float, *, seed: Seed
) -> NoisyMoments:
    """The triples (w*, S w*, h = (1/n) X eps) of B prompts with noisy labels, exact in law.

    The same w* and S w* as :func:`draw_moments` under this seed, at the same cost. Along g/||g|| (g as
    above) eps has e_1 ~ N(0, s^2), the rest of it has length e_2 = s chi_{n-1}:
    h = A^{1/2} (1/n) (sqrt(c) e_1 u/||u|| + e_1 xi + e_2 xi') with xi' another standard normal across u.

    ``label_noise`` is the variance s^2 >= 0 of the noise eps; the other arguments are those of
    :func:`draw_prompts`.
    """
    A, n, B = check_request(covariance, length, prompts)
    s = np.sqrt(require_number("label_noise", label_noise, 0, np.inf))
    drawn = _Split.draw(A, n, B, seed)
    along = s * random_stream(seed, "label_noise").standard_normal(B)[:, None]
    # chi^2_{n-1} as a gamma variate, which may have no degree of freedom (n = 1).
    rest = s * np.sqrt(2 * random_stream(seed, "label_noise_length").standard_gamma((n - 1) / 2, size=B))
    other = random_stream(seed, "label_noise_direction").standard_normal((B, len(A)))
    summed = along * (drawn.direction * np.sqrt(drawn.chi_square)[:, None] + drawn.across)
    summed += rest[:, None] * _across(other, drawn.direction)
    h = product(summed / n, drawn.root)
    return NoisyMoments(*(np.ascontiguousarray(rows.T) for rows in (drawn.weights, drawn.phi, h)))


def draw_wishart(covariance: Operator, length: int, prompts: int, *, seed: Seed) -> PerPromptMatrix:
    """The empirical covariances S of B prompts, shape (B, d, d), without drawing the inputs when n >= d.

    Bartlett: for n >= d, sum_j z_j z_j^T = L L^T with L lower triangular, L_ii^2 ~ chi^2_{n-i} (i from 0)
    and standard normals below: O(d^2) normals a prompt. For n < d the inputs are fewer, and are drawn. The
    arguments and errors are those of :func:`draw_prompts`.
    """
    A, n, B = check_request(covariance, length, prompts)
    d = len(A)
    if n < d:
        factor = random_stream(seed, "inputs").standard_normal((B, n, d)).transpose(0, 2, 1)
    else:
        factor = np.zeros((B, d, d))
        rows, columns = np.tril_indices(d, -1)
        factor[:, rows, columns] = random_stream(seed, "triangle").standard_normal((B, len(rows)))
        degrees = n - np.arange(d)
        factor[:, np.arange(d), np.arange(d)] = np.sqrt(
            random_stream(seed, "diagonal").chisquare(degrees, size=(B, d))
        )
    factor = product(square_root(A), factor)
    return np.asarray(factor @ factor.transpose(0, 2, 1)) / n


def check_request(covariance: Operator, length: int, prompts: int) -> tuple[Operator, int, int]:
    """A validated covariance, length n >= 1 and number of prompts B >= 1, or InputError."""
    return (
        validate_covariance("covariance", covariance),
        require_integer("length", length, 1),
        require_integer("prompts", prompts, 1),
    )
