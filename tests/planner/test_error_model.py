"""The planner's error as a function of counts: equal to the theory in every form, infinite next to peaks."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.covariance import rotated, spectral_basis
from datadose.errors import InputError
from datadose.planner import ErrorModel
from datadose.theory.asymptotics import Source, mixture_error
from datadose.theory.pretraining import pretrained_operator


def psd(d: int, seed: int, rank: int | None = None) -> np.ndarray:
    X = np.random.default_rng(seed).standard_normal((d, 2 * d if rank is None else rank))
    return X @ X.T / X.shape[1]


@pytest.mark.parametrize("B", [0, 3, 7, 14, 30])
@pytest.mark.parametrize("rank", [None, 10])
def test_data_in_their_own_eigenbasis_give_the_same_error(B: int, rank: int | None) -> None:
    """The O(d^2) path (spectra for the data, dense elsewhere) against all matrices dense."""
    d, n = 12, 30
    V0, target, data = pretrained_operator(psd(d, 0), n), psd(d, 1), psd(d, 2, rank)
    expected = mixture_error(V0, 0.3, [Source(data, n, B)], target, n, chain_steps=1)
    spectrum, basis = spectral_basis(data)
    assert basis is not None
    if rank is not None:
        spectrum = np.where(spectrum > 1e-10 * spectrum.max(), spectrum, 0.0)
    model = ErrorModel(V0, 0.3, target, n).rotated(basis)
    column = model.columns(Source(spectrum, n, 1))
    assert model.along(column).errors([B]).tolist() == pytest.approx([expected], rel=1e-9)
    assert model.error([column], [B]) == pytest.approx(expected, rel=1e-9)


def test_rotation_changes_no_error() -> None:
    d, n = 8, 20
    V0, target = pretrained_operator(psd(d, 3), n), psd(d, 4)
    model = ErrorModel(V0, 0.2, target, n)
    column = model.columns(Source(psd(d, 5), n, 1, label_noise=0.5))
    basis = np.linalg.qr(np.random.default_rng(6).standard_normal((d, d)))[0]
    turned = model.rotated(basis).error([column.rotated(basis)], [3])
    assert turned == pytest.approx(model.error([column], [3]), rel=1e-9)
    np.testing.assert_allclose(rotated(target, basis), basis.T @ target @ basis, atol=1e-12)


def test_errors_are_infinite_within_one_prompt_of_a_peak() -> None:
    model = ErrorModel(-np.ones(10), 0.2, np.ones(10), 20)
    column = model.columns(Source(np.full(10, 0.2), 20, 1))
    errors = [model.error([column], [B]) for B in range(8, 13)]
    assert np.isfinite(errors).tolist() == [True, False, False, False, True]


def test_gradient_in_counts_equals_differences_also_in_mixed_counts() -> None:
    d, n = 20, 40
    inside = np.arange(d) < 8
    model = ErrorModel(-np.full(d, 0.6), 0.3, np.linspace(0.5, 1.5, d), n)
    columns = [
        model.columns(Source(np.where(inside, 0.4, 0.0), n, 1)),
        model.columns(Source(np.full(d, 0.2), n, 1)),
    ]
    for counts in ([3.0, 5.0], [14.0, 5.0], [14.0, 30.0]):
        gradient = model.count_gradient(columns, counts)
        for place in range(2):
            step = np.zeros(2)
            step[place] = 1e-3
            ends = [model.error(columns, np.array(counts) + sign * step) for sign in (1, -1)]
            assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=1e-4, abs=1e-9)


def test_bad_counts_are_refused() -> None:
    model = ErrorModel(-np.ones(4), 0.2, np.ones(4), 20)
    with pytest.raises(InputError, match="length"):
        model.columns(Source(np.ones(4), 0, 1))


def test_a_source_without_prompts_changes_no_other_derivative() -> None:
    """One whose first prompts move V by one over its small scale: the limit is taken for it alone."""
    d, n, scale = 20, 40, 1e-4
    model = ErrorModel(-np.full(d, 0.6), 0.3, np.linspace(0.5, 1.5, d), n)
    first, small = (model.columns(Source(np.full(d, a), n, 1)) for a in (0.4, scale))
    for B in (0.25, 5.0, 40.0):
        alone = model.count_gradient([first], [B])[0]
        both = model.count_gradient([first, small], [B, 0.0])
        assert both[0] == alone
        # To the second order in the step; shorter ones lose the digits of a small slope.
        h = 1e-4
        e0, e1, e2 = (model.error([first, small], [B, k * h]) for k in (0, 1, 2))
        assert both[1] == pytest.approx((4 * e1 - e2 - 3 * e0) / (2 * h), rel=1e-3)
