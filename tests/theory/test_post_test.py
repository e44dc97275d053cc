"""Prop 5.1 in all its forms, and hardness."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.theory import hardness, post_test_error, pretrained_operator
from helpers.literal import random_psd


def test_formula_of_proposition_5_1_word_for_word() -> None:
    rng = np.random.default_rng(0)
    V, Sigma, n = rng.standard_normal((5, 5)), random_psd(5, seed=1), 11
    bias = np.linalg.norm(np.eye(5) + V @ Sigma) ** 2
    extra = np.trace(V @ Sigma @ Sigma @ V.T) + np.trace(V @ Sigma @ V.T) * np.trace(Sigma)
    assert post_test_error(V, Sigma, n) == pytest.approx((bias + extra / n) / 5, rel=1e-12)


def test_spectrum_and_dense_agree() -> None:
    V, Sigma = -np.array([0.5, 1.5, 0.1]), np.array([1.0, 0.2, 2.0])
    values = {
        post_test_error(left, right, 6) for left in (V, np.diag(V)) for right in (Sigma, np.diag(Sigma))
    }
    np.testing.assert_allclose(list(values), post_test_error(V, Sigma, 6), rtol=1e-13)


def test_hardness_of_the_paper_and_exact() -> None:
    sigma0, A, n = np.array([0.1, 1.0, 1.0]), np.array([1.1, 0.0, 0.0]), 400
    V = pretrained_operator(sigma0, n)
    assert hardness(A, V) == pytest.approx(np.sum((1 + V * A) ** 2) / 3, rel=1e-13)
    assert hardness(A, V, n) == pytest.approx(post_test_error(V, A, n), rel=1e-13)
    # Data along the shift are harder than data from pretraining: the point of Insight 1.
    assert hardness(A, V) > hardness(sigma0, V)
