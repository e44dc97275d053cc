"""Spectrum and dense forms of the same covariance give the same numbers; bad covariances are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datadose import covariance as cov
from datadose.errors import InputError
from helpers.literal import random_psd

spectra = arrays(
    np.float64, st.integers(1, 8), elements=st.floats(0, 10).map(lambda x: 0.0 if x < 1e-3 else x)
)


@settings(max_examples=50, deadline=None)
@given(spectra)
def test_spectrum_and_diagonal_matrix_agree(values: np.ndarray) -> None:
    matrix = np.diag(values)
    for unary in (cov.square_root, cov.range_projector):
        if not values.any() and unary is not cov.square_root:
            continue
        np.testing.assert_allclose(np.diag(unary(values)), unary(matrix), atol=1e-9)
    for scalar in (cov.trace, cov.frobenius_squared, cov.rank):
        assert scalar(values) == pytest.approx(scalar(matrix), rel=1e-12)
    np.testing.assert_allclose(
        np.diag(cov.wishart_second_moment(values, 7)), cov.wishart_second_moment(matrix, 7), rtol=1e-12
    )
    assert cov.trace_product(values, values) == pytest.approx(cov.trace_product(matrix, matrix), rel=1e-12)


def test_wishart_second_moment_is_the_mean_of_squares() -> None:
    """Monte Carlo twin, 40,000 draws: every entry within 5 standard errors (25 entries, failure < 2e-5)."""
    A, n = random_psd(5, seed=1), 6
    X = np.random.default_rng(0).standard_normal((40_000, n, 5)) @ cov.square_root(A)
    S = np.einsum("bni,bnj->bij", X, X) / n
    squares = S @ S
    sem = squares.std(axis=0) / np.sqrt(len(squares))
    assert (np.abs(squares.mean(axis=0) - cov.wishart_second_moment(A, n)) < 5 * sem).all()


def test_square_root_keeps_the_null_space_empty() -> None:
    A = random_psd(8, seed=2, rank=3)
    root = cov.square_root(A)
    np.testing.assert_allclose(root @ root, A, atol=1e-12)
    assert cov.rank(A) == 3
    assert cov.range_basis(A).shape == (8, 3)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1.0, -0.5], "smallest eigenvalue -0.5"),
        ([[1.0, 2.0], [2.0, 1.0]], "smallest eigenvalue -1"),
        ([[1.0, 0.5], [0.0, 1.0]], "asymmetric"),
        ([1.0, np.nan], "nan at index (1,)"),
        ([[1.0, np.inf], [np.inf, 1.0]], "inf at index (0, 1)"),
        ([], "shape (0,)"),
        ([[1.0, 0.0]], "shape (1, 2)"),
        (np.ones((2, 2, 2)), "shape (2, 2, 2)"),
        ("abc", "got str"),
    ],
)
def test_bad_covariances_are_named(value: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        cov.validate_covariance("sigma0", value)
    assert str(caught.value).startswith("sigma0: got")
    assert words in str(caught.value)
    assert "allowed:" in str(caught.value)


def test_sizes_must_match() -> None:
    with pytest.raises(InputError, match="dimension 3"):
        cov.validate_covariance("delta", [1.0, 2.0], 3)


def test_rounding_noise_is_not_an_error() -> None:
    matrix = random_psd(30, seed=3, rank=4)
    assert np.linalg.eigvalsh(matrix)[0] < 1e-12
    cov.validate_covariance("data", matrix * (1 + 1e-14))


@pytest.mark.parametrize("form", ["matrix", "spectrum"])
def test_few_digits_leave_the_rank_as_it_is(form: str) -> None:
    """In float32 eigenvalues are known to 1e-7 of the largest: what lies below 1e-5 is removed."""
    A = random_psd(30, seed=5, rank=7)
    given = A.astype(np.float32) if form == "matrix" else np.linalg.eigvalsh(A.astype(np.float32))
    assert given.dtype == np.float32
    known = cov.validate_covariance("data", given)
    assert known.dtype == np.float64
    assert cov.rank(known) == 7


def test_a_matrix_of_few_digits_is_refused_with_the_remedy() -> None:
    A = random_psd(30, seed=5, rank=7)
    printed = np.array([[float(f"{x:.6g}") for x in row] for row in A])
    with pytest.raises(InputError, match="keep the eigenvalues above the rounding"):
        cov.validate_covariance("data", printed)
    values, vectors = np.linalg.eigh(printed)
    keep = values > 1e-5 * values[-1]
    mended = cov.validate_covariance("data", (vectors[:, keep] * values[keep]) @ vectors[:, keep].T)
    assert cov.rank(mended) == 7


def test_complex_numbers_are_no_covariance() -> None:
    with pytest.raises(InputError, match="complex"):
        cov.validate_covariance("data", np.eye(3) * (1 + 1j))
