"""How the error after post-training changes with the pretrained operator, and with a mixture's shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from datadose.covariance import dense, wishart_second_moment
from datadose.errors import InputError
from datadose.shapes import Array
from datadose.theory import Source, WeightedTest
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.pretraining import PretrainingMixture
from datadose.theory.start_gradient import ErrorFromStart, StartSensitivity

ETA, LENGTH = 0.3, 17
KINDS = ("spectra", "dense", "dense start", "rank deficient")
WAYS = ("best", "converged", "penalised")
D = 9


def covariance(rng: np.random.Generator, kind: str, *, rank: int = D) -> Array:
    values = np.where(np.arange(D) < rank, np.exp(rng.uniform(-2, 1, D)), 0.0)
    if kind == "spectra":
        return values
    Q = np.linalg.qr(rng.standard_normal((D, D)))[0]
    found = (Q * values) @ Q.T
    return np.asarray((found + found.T) / 2)


def problem(seed: int, kind: str, prompts: float) -> tuple[ErrorFromStart, Array, Source, WeightedTest]:
    rng = np.random.default_rng([31, seed])
    form = {"dense start": "spectra", "rank deficient": "dense"}.get(kind, kind)
    rank = 5 if kind == "rank deficient" else D
    source = Source(covariance(rng, form, rank=rank), LENGTH, prompts, demonstration_noise=0.1)
    test = WeightedTest.of(covariance(rng, form), 11)
    start = -covariance(rng, "spectra" if kind == "spectra" else "dense")
    if kind != "spectra":
        start = start + 0.2 * rng.standard_normal((D, D))
    return ErrorFromStart.of(ETA, source, test), start, source, test


def solved(way: str) -> Callable[[ErrorFromStart, Array], StartSensitivity]:
    if way == "penalised":
        return lambda model, V0: model.at_penalty(V0, 4.0)
    return ErrorFromStart.best if way == "best" else ErrorFromStart.converged


@pytest.mark.parametrize("prompts", [0.35 * D, 4.0 * D])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_derivative_is_that_of_the_error(kind: str, way: str, prompts: float) -> None:
    """Central differences in random directions, at the best penalty, at convergence and at one penalty."""
    for seed in range(2):
        model, V0, source, test = problem(seed, kind, prompts)
        run = solved(way)
        found = run(model, V0)
        rng = np.random.default_rng(seed)
        for _ in range(3):
            step = rng.standard_normal(V0.shape)
            h = 1e-5
            ends = [run(model, V0 + sign * h * step).error for sign in (1, -1)]
            expected = (ends[0] - ends[1]) / (2 * h)
            assert (found.by_operator(V0) * step).sum() == pytest.approx(expected, rel=2e-6, abs=1e-8)
        if way == "best":
            untouched = EffectivePenalty.of(V0, ETA, source, test)
            assert found.error == pytest.approx(untouched.best(prompts).error, rel=1e-12)


@pytest.mark.parametrize("penalty", [0.03, 0.4, 5.0])
def test_autograd_gives_the_same_derivative(penalty: float) -> None:
    """The error written out in torch, from the data's covariance to Prop 5.1, dense matrices."""
    model, V0, source, test = problem(3, "dense", 30.0)
    found = model.at_penalty(V0, penalty)
    A, Sigma = (torch.tensor(dense(X)) for X in (source.covariance, test.target))
    M = torch.tensor(dense(test.second_moment))
    C = (1 + 1 / LENGTH) * A @ A + torch.trace(A) / LENGTH * A
    start = torch.tensor(V0, requires_grad=True)
    R = torch.linalg.inv(C + penalty * torch.eye(D, dtype=torch.float64))
    V = (penalty * start - ETA * A) @ R
    kappa = torch.trace(C @ R @ M @ R) / (30.0 - torch.trace(C @ R @ C @ R))
    noise = source.demonstration_noise
    residual = torch.trace(V @ C @ V.T) + 2 * ETA * torch.trace(A @ V) + (ETA**2 + noise) * D
    error = 1 + (2 * torch.trace(V @ Sigma) + torch.trace(V @ M @ V.T) + kappa * residual) / D
    error.backward()  # type: ignore[no-untyped-call]
    assert start.grad is not None
    assert found.error == pytest.approx(error.item(), rel=1e-12)
    np.testing.assert_allclose(found.by_operator(V0), start.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_an_untouched_model_has_the_derivative_of_its_own_error() -> None:
    """Without prompts, and on data of covariance zero, post-training changes nothing."""
    model, V0, _, test = problem(0, "dense", 0.0)
    idle = ErrorFromStart.of(ETA, Source(np.zeros((D, D)), LENGTH, 50.0), test)
    expected = 2 / D * (test.target + V0 @ test.second_moment)
    for found in (model.best(V0), idle.best(V0)):
        assert np.isinf(found.trained.penalty)
        np.testing.assert_allclose(found.by_operator(V0), expected, rtol=1e-12, atol=1e-14)


def test_what_does_not_fit_is_named() -> None:
    model, V0, source, test = problem(0, "spectra", 30.0)
    with pytest.raises(InputError, match="start: got dimension 8; allowed: dimension 9"):
        model.best(V0[:-1])
    with pytest.raises(InputError, match="test: got dimension 9; allowed: dimension 8"):
        ErrorFromStart.of(ETA, replace(source, covariance=np.ones(D - 1)), test)


# --- the mixture ---------------------------------------------------------------------------------------


def mixture(kind: str, *, seed: int = 0) -> PretrainingMixture:
    rng = np.random.default_rng([32, seed])
    return PretrainingMixture.of([covariance(rng, kind, rank=r) for r in (D, 4, 6)], LENGTH)


@pytest.mark.parametrize("kind", ["spectra", "dense"])
def test_shares_pull_back_a_derivative(kind: str) -> None:
    """Against central differences; V0 depends on the ratios of the shares alone."""
    found, shares = mixture(kind), np.array([0.2, 0.5, 0.3])
    V0 = found.operator(shares)
    G = np.random.default_rng(0).standard_normal(V0.shape)
    slopes = found.pull_back(shares, G)
    for j in range(3):
        step = 1e-6 * np.eye(3)[j]
        change = found.operator(shares + step) - found.operator(shares - step)
        assert slopes[j] == pytest.approx((G * change).sum() / 2e-6, rel=1e-6)
    assert shares @ slopes == pytest.approx(0, abs=1e-12 * np.abs(slopes).max())
    np.testing.assert_allclose(found.operator(7 * shares), V0, rtol=1e-12)


@pytest.mark.parametrize("kind", ["spectra", "dense"])
def test_autograd_differentiates_the_mixture_alike(kind: str) -> None:
    """From the shares through least squares on the population to a number."""
    found, shares = mixture(kind, seed=4), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    shares.requires_grad_()
    covariances = torch.tensor(np.stack([dense(C) for C in found.covariances]))
    moments = torch.tensor(np.stack([dense(C) for C in found.second_moments]))
    N, H = ((shares[:, None, None] * X).sum(0) for X in (covariances, moments))
    V = -torch.linalg.solve(H, N, left=False)
    G = np.random.default_rng(1).standard_normal(found.covariances.shape[1:])
    (V * torch.tensor(dense(G))).sum().backward()
    assert shares.grad is not None
    np.testing.assert_allclose(
        found.pull_back(shares.detach().numpy(), G), shares.grad.numpy(), rtol=1e-8, atol=1e-11
    )


def test_unseen_directions_stay_where_pretraining_starts() -> None:
    """V0 is 0 there, the limit of gradient descent from 0; spectra and matrices agree, derivatives too."""
    spectra = [np.array([1.0, 2.0, 0.0, 0.0]), np.array([0.0, 1.0, 3.0, 0.0]), np.ones(4)]
    Q = np.linalg.qr(np.random.default_rng(2).standard_normal((4, 4)))[0]
    flat = PretrainingMixture.of(spectra, LENGTH)
    turned = PretrainingMixture.of([(Q * values) @ Q.T for values in spectra], LENGTH)
    shares = np.array([0.4, 0.6, 0.0])
    V0 = flat.operator(shares)
    assert V0[3] == 0
    assert (V0[:3] < 0).all()
    assert not flat.sees_everything(shares)
    assert not turned.sees_everything(shares)
    assert turned.sees_everything([0.4, 0.6, 1e-6])
    np.testing.assert_allclose(turned.operator(shares), (Q * V0) @ Q.T, atol=1e-12)
    G = np.arange(1.0, 5.0)
    np.testing.assert_allclose(turned.pull_back(shares, (Q * G) @ Q.T), flat.pull_back(shares, G), rtol=1e-10)
    # Descent on the population loss from 0 ends there.
    N, H = (sum(s * C for s, C in zip(shares, X, strict=True)) for X in (spectra, flat.second_moments))
    V = np.zeros(4)
    for _ in range(4000):
        V = V - 0.05 * (N + V * H)
    np.testing.assert_allclose(V, V0, atol=1e-9)


@pytest.mark.parametrize("shares", [[0.5, 0.5], [-0.1, 0.6, 0.5], [0, 0, 0], [np.nan, 1, 1], "some"])
def test_bad_shares_are_named(shares: Any) -> None:
    with pytest.raises(InputError, match="shares: got"):
        mixture("spectra").operator(shares)


def test_the_operator_is_that_of_simulated_pretraining() -> None:
    """Least squares on 40,000 prompts of a mixture of two categories, each entry within 5 of its standard
    errors (level 1e-4 over the 16 entries by a union bound) and near the population's."""
    rng = np.random.default_rng(7)
    d, n, blocks, size = 4, 6, 40, 1000
    C = [np.diag([1.0, 0.5, 0.2, 0.1]), np.full((d, d), 0.2) + np.diag([0.1, 0.2, 0.6, 0.9])]
    shares = np.array([0.3, 0.7])
    expected = PretrainingMixture.of(C, n).operator(shares)
    fits = []
    for _ in range(blocks):
        which = rng.random(size) < shares[0]
        S = np.empty((size, d, d))
        for kind, chosen in ((0, which), (1, ~which)):
            x = rng.standard_normal((chosen.sum(), n, d)) @ np.linalg.cholesky(C[kind]).T
            S[chosen] = np.einsum("bni,bnj->bij", x, x) / n
        # The loss of a whole prompt, w* integrated out: ||I + V S||^2 summed over prompts.
        fits.append((S.mean(0), np.einsum("bij,bjk->ik", S, S) / size))
    means, squares = (np.array([fit[i] for fit in fits]) for i in (0, 1))
    # The estimating equation N + V D = 0 has mean zero at the population's V.
    equations = means + expected @ squares
    error = equations.std(axis=0, ddof=1) / np.sqrt(blocks)
    assert (np.abs(equations.mean(axis=0)) < 5 * error).all()
    found = -means.mean(axis=0) @ np.linalg.inv(squares.mean(axis=0))
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.05)
    np.testing.assert_allclose(wishart_second_moment(C[0], n), PretrainingMixture.of(C, n).second_moments[0])
