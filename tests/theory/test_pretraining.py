"""The pretraining solution: formula, stationarity of the population loss, errors."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.covariance import wishart_second_moment
from datadose.errors import InputError
from datadose.theory import gamma0, post_test_error, pretrained_operator
from datadose.theory.pretraining import pretrained_on_mixture
from helpers.literal import random_psd


@pytest.mark.parametrize("sigma0", [np.array([0.1, 1.0, 2.0]), random_psd(3, seed=0)])
def test_pretrained_operator_minimises_the_population_error(sigma0: np.ndarray) -> None:
    """-Gamma0^{-1} is the stationary point of V -> E||I + V S||_F^2: Sigma0 + V E[S^2] = 0."""
    V = pretrained_operator(sigma0, 7)
    dense_V, dense_S0 = (np.diag(X) if X.ndim == 1 else X for X in (V, sigma0))
    second = wishart_second_moment(dense_S0, 7)
    np.testing.assert_allclose(dense_S0 + dense_V @ second, 0, atol=1e-12)
    best = post_test_error(V, sigma0, 7)
    for seed in range(5):
        moved = dense_V + 1e-3 * np.random.default_rng(seed).standard_normal((3, 3))
        assert post_test_error(moved, sigma0, 7) > best


def test_gamma0_by_hand() -> None:
    np.testing.assert_allclose(gamma0(np.array([0.5, 1.5]), 4), [1.25 * 0.5 + 0.5, 1.25 * 1.5 + 0.5])


def test_errors_are_named() -> None:
    with pytest.raises(InputError, match="length: got 0"):
        gamma0(np.ones(2), 0)
    with pytest.raises(InputError, match="sigma0: got a zero matrix"):
        pretrained_operator(np.zeros(2), 5)


def test_mixture_is_stationary_and_reduces_to_one_category() -> None:
    """sum_c p_c (Sigma_c + V E[S_c^2]) = 0, for spectra and dense; one category gives -Gamma0^{-1}."""
    sigma0 = np.array([0.1, 1.0, 2.0])
    np.testing.assert_allclose(
        pretrained_on_mixture([(3.0, sigma0)], 7), pretrained_operator(sigma0, 7), rtol=1e-12
    )
    categories = [(1.0, random_psd(4, seed=1)), (3.0, random_psd(4, seed=2, rank=2))]
    V = pretrained_on_mixture(categories, 9)
    gradient = sum(p * (C + V @ wishart_second_moment(C, 9)) for p, C in categories)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("field", "categories"),
    [
        ("categories", []),
        ("weight", [(0.0, np.ones(2))]),
        ("categories", [(1.0, np.array([1.0, 0.0]))]),
        ("categories", [(1.0, np.ones(2)), (1.0, np.ones(3))]),
    ],
)
def test_bad_mixtures_are_named(field: str, categories: list) -> None:
    with pytest.raises(InputError) as caught:
        pretrained_on_mixture(categories, 5)
    assert caught.value.field == field


def test_matrices_that_miss_a_direction_together_are_refused() -> None:
    """Rounding leaves an eigenvalue of either sign there, not zero."""
    for seed in range(10):
        turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((8, 8)))[0][:, :7]
        with pytest.raises(InputError, match="miss a direction"):
            pretrained_on_mixture([(1.0, turn @ turn.T), (2.0, (turn * np.arange(1, 8)) @ turn.T)], 20)
