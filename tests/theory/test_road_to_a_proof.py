"""The steps of docs/derivations/road_to_a_proof.md: identities exactly, rates by simulation at a level."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.covariance import Array, wishart_second_moment
from datadose.prompts import draw_moments
from helpers.literal import random_psd

ETA = 0.3
SHAPES = ((0.4, 1.0), (0.9, 2.0))
"""B / d and n / d of two sources."""


def setting(d: int, seed: int = 0) -> tuple[Array, Array, list[Array]]:
    """V0, the contracted matrix M and two dense covariances that do not commute."""
    V0 = -0.4 * np.eye(d) + 0.2 * np.diag(np.sin(np.arange(d)))
    return V0, random_psd(d, seed + 7), [random_psd(d, seed), random_psd(d, seed + 1)]


def regulariser(M: Array, s: complex) -> Array:
    """Lambda_s + d I: (lambda I + s M) beside d I, lambda = d / 2."""
    d = len(M)
    padded = np.zeros((2 * d, 2 * d), dtype=np.result_type(M, type(s)))
    padded[:d, :d] = d / 2 * np.eye(d) + s * M
    padded[d:, d:] = d * np.eye(d)
    return padded


def log_det(X: Array) -> complex:
    sign, size = np.linalg.slogdet(X)
    return complex(size + np.log(sign + 0j))


def sampled(d: int, seed: int, s: complex, tau: complex) -> tuple[complex, Array, Array]:
    """log det(Lambda_s + d I + Z_tau Z_tau^T) / d of one draw, and its Phi and Omega."""
    V0, M, covariances = setting(d)
    drawn = [
        draw_moments(A, int(n * d), int(B * d), seed=[seed, c])
        for c, (A, (B, n)) in enumerate(zip(covariances, SHAPES, strict=True))
    ]
    phi, weights = (np.hstack([getattr(m, name) for m in drawn]) for name in ("phi", "weights"))
    Z = np.vstack([phi + 0j, np.sqrt(tau + 0j) * (V0 @ phi + ETA * weights)])
    return log_det(regulariser(M, s) + Z @ Z.T) / d, phi, weights


def equivalent(d: int, s: complex, tau: complex) -> complex:
    """Its deterministic equivalent: the minimum of the potential of the columns (phi, sqrt(tau) r)."""
    V0, M, covariances = setting(d)
    counts = np.array([int(B * d) for B, _ in SHAPES], dtype=np.float64)
    gammas = []
    for A, (_, n) in zip(covariances, SHAPES, strict=True):
        C = wishart_second_moment(A, int(n * d))
        cross = V0 @ C + ETA * A
        own = V0 @ C @ V0.T + ETA * (A @ V0.T + V0 @ A) + ETA**2 * np.eye(d)
        root = np.sqrt(tau + 0j)
        gammas.append(np.block([[C + 0j, root * cross.T], [root * cross, tau * own]]))
    q = counts + 0j
    for _ in range(200):
        R = np.linalg.inv(regulariser(M, s) + sum(x * g for x, g in zip(q, gammas, strict=True)))
        q = counts / (1 + np.array([np.sum(g * R.T) for g in gammas]))
    mixed = regulariser(M, s) + sum(x * g for x, g in zip(q, gammas, strict=True))
    return (log_det(mixed) + complex((q - counts * np.log(q) + counts * np.log(counts) - counts).sum())) / d


def mixed_derivative(function) -> float:  # type: ignore[no-untyped-def]
    """d^2/ds dtau at (0, 0): a complex step in tau, a central difference in s (error of order 1e-6)."""
    step, h = 1e-20, 1e-3
    return float((function(h, 1j * step).imag - function(-h, 1j * step).imag) / (2 * h * step))


def test_one_log_determinant_generates_the_second_moment() -> None:
    """d^2 log det / ds dtau = tr (V - V0) M (V - V0)^T / d: an identity for every draw."""
    d = 12
    V0, M, _ = setting(d)
    _, phi, weights = sampled(d, 0, 0.0, 0.0)
    V = (d / 2 * V0 - ETA * weights @ phi.T) @ np.linalg.inv(phi @ phi.T + d / 2 * np.eye(d))
    expected = np.trace((V - V0) @ M @ (V - V0).T) / d**2
    found = mixed_derivative(lambda s, tau: sampled(d, 0, s, tau)[0])
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_theorem_is_a_derivative_of_the_potential() -> None:
    """The same derivative of the equivalent is Vbar, kappa and Res of the ridge's fixed point, assembled."""
    d = 12
    V0, M, covariances = setting(d)
    counts = np.array([int(B * d) for B, _ in SHAPES], dtype=np.float64)
    C = [wishart_second_moment(A, int(n * d)) for A, (_, n) in zip(covariances, SHAPES, strict=True)]
    q = counts.copy()
    for _ in range(200):
        R = np.linalg.inv(d / 2 * np.eye(d) + sum(x * c for x, c in zip(q, C, strict=True)))
        q = counts / (1 + np.array([np.trace(c @ R) for c in C]))
    mean = (d / 2 * V0 - ETA * sum(x * A for x, A in zip(q, covariances, strict=True))) @ R
    scale = q**2 / counts
    T = scale[:, None] * np.array([[np.trace(a @ R @ b @ R) for b in C] for a in C])
    kappa = np.linalg.solve(np.eye(2) - T, scale * np.array([np.trace(c @ R @ M @ R) for c in C]))
    residuals = [
        np.trace(mean @ c @ mean.T) + 2 * ETA * np.trace(A @ mean) + ETA**2 * d
        for c, A in zip(C, covariances, strict=True)
    ]
    moved = mean - V0
    expected = (np.trace(moved @ M @ moved.T) + kappa @ residuals) / d**2
    assert mixed_derivative(lambda s, tau: equivalent(d, s, tau)) == pytest.approx(expected, rel=1e-5)


def test_the_generating_function_concentrates_and_its_bias_is_of_order_one_over_d() -> None:
    """Standard deviation and bias of the log determinant, times d, at d = 15 and 60, 600 draws each.

    A standard deviation of 600 draws is known to 3 percent, so their ratio is within 1/4 of the true one at 5
    standard errors; a rate of 1/sqrt(d) would double it. The bias times d (about -1 at d = 15) may change by
    5 standard errors and by 0.2 for the next order; a rate of 1/sqrt(d) would double it too.
    """
    spread, bias, error = [], [], []
    for d in (15, 60):
        draws = np.array([sampled(d, seed, 0.5, 0.5)[0].real for seed in range(600)])
        spread.append(d * draws.std(ddof=1))
        bias.append(d * (draws.mean() - equivalent(d, 0.5, 0.5).real))
        error.append(spread[-1] / 600**0.5)
    assert 0.75 < spread[1] / spread[0] < 1.33
    assert abs(bias[1] - bias[0]) < 5 * np.hypot(*error) + 0.2


def test_directions_of_the_tasks_have_a_bounded_norm() -> None:
    """B unit vectors A^{1/2} w / ||.|| in d dimensions: their norm stays bounded as d grows (condition 100).

    So for any direction at most a bounded number of columns lack most of their variance along it. The norm of
    a Gaussian matrix varies by a few percent at these sizes; growing like d^{1/4} would give 1.7.
    """
    norms = []
    for d in (50, 400):
        u = np.sqrt(np.geomspace(1, 100, d))[:, None] * np.random.default_rng(d).standard_normal((d, d))
        norms.append(np.linalg.norm(u / np.linalg.norm(u, axis=0), 2))
    assert norms[1] / norms[0] < 1.3


@pytest.mark.parametrize("share", [0.6, 1.6])
def test_with_a_margin_the_smallest_singular_value_stays_of_order_sqrt_d(share: float) -> None:
    """The least of s_min / sqrt(d) over 30 draws, B = 0.6 d and 1.6 d: at d = 120 no less than at d = 30.

    With a hard edge at zero it would halve at least (s_min of order 1/sqrt(d) at B = d).
    """
    least = []
    for d in (30, 120):
        A = np.linspace(0.3, 1.5, d)
        found = [
            np.linalg.svd(draw_moments(A, 2 * d, int(share * d), seed=[seed, d]).phi, compute_uv=False)[-1]
            for seed in range(30)
        ]
        least.append(min(found) / d**0.5)
    assert least[1] > 0.8 * least[0]
    assert least[0] > 0
