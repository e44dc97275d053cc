"""The shift object: the paper's block shift, arbitrary covariances, and its errors."""

from __future__ import annotations

import numpy as np
import pytest

from datadose import Shift
from datadose.errors import InputError
from helpers.literal import random_psd


def test_two_block_is_the_shift_of_figures_1_2_and_5() -> None:
    shift = Shift.two_block(5, 2, rho=0.1, eta=0.2, interference=0.01)
    np.testing.assert_allclose(shift.sigma0, [0.1, 0.1, 1, 1, 1])
    np.testing.assert_allclose(shift.delta, [1, 1, 0, 0, 0])
    np.testing.assert_allclose(shift.target, [1.1, 1.1, 1, 1, 1])
    np.testing.assert_allclose(shift.data, [0.22, 0.22, 0.01, 0.01, 0.01])
    assert (shift.dimension, shift.data_rank, shift.is_spectral) == (5, 5, True)
    assert Shift.two_block(5, 2, 0.1, 0.2).data_rank == 2


def test_aligned_rotates_with_its_inputs() -> None:
    """The allocation of section 5.1 commutes with a change of basis."""
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    sigma0, delta = np.linspace(0.1, 1, 6), np.array([1.0, 2, 0, 0, 0, 0])
    spectral = Shift.aligned(sigma0, delta, 0.2, 0.05)
    dense = Shift.aligned(rotation * sigma0 @ rotation.T, rotation * delta @ rotation.T, 0.2, 0.05)
    assert not dense.is_spectral
    np.testing.assert_allclose(dense.data, rotation * spectral.data @ rotation.T, atol=1e-12)


def test_one_dense_matrix_makes_all_dense() -> None:
    shift = Shift(np.ones(4), np.zeros(4), random_psd(4, seed=0), 0.3)
    assert shift.sigma0.shape == shift.delta.shape == (4, 4)


def test_validated_arrays_cannot_be_changed() -> None:
    shift = Shift.two_block(4, 2, 0.1, 0.2, 0.1)
    with pytest.raises(ValueError, match="read-only"):
        shift.sigma0[0] = 2


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("dimension", (0, 0, 0.1, 0.2, 0.1)),
        ("dimension", (2.5, 1, 0.1, 0.2, 0.1)),
        ("shifted", (4, 5, 0.1, 0.2, 0.1)),
        ("shifted", (4, -1, 0.1, 0.2, 0.1)),
        ("rho", (4, 2, -0.1, 0.2, 0.1)),
        ("rho", (4, 2, float("nan"), 0.2, 0.1)),
        ("eta", (4, 2, 0.1, 0.0, 0.1)),
        ("eta", (4, 2, 0.1, 2.0, 0.1)),
        ("eta", (4, 2, 0.1, "x", 0.1)),
        ("interference", (4, 2, 0.1, 0.2, -0.1)),
        ("interference", (4, 2, 0.1, 0.2, float("inf"))),
        ("delta", (4, 0, 0.1, 0.2, 0.0)),
    ],
)
def test_bad_values_are_named(field: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(InputError) as caught:
        Shift.two_block(*arguments)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("any_shape")
def test_mismatched_sizes_are_named() -> None:
    with pytest.raises(InputError, match=r"data: got shape \(3,\)"):
        Shift(np.ones(4), np.zeros(4), np.ones(3), 0.2)
