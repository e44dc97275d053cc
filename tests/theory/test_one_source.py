"""The curve of one source against the general equivalent, which the Monte Carlo tests check."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datadose.covariance import wishart_second_moment
from datadose.errors import InputError
from datadose.shift import Shift
from datadose.theory.asymptotics import Source, predict_curve
from datadose.theory.equivalent import PeakError, deterministic_equivalent
from datadose.theory.one_source import OneSource


def psd(rng: np.random.Generator, d: int) -> np.ndarray:
    X = rng.standard_normal((d, d))
    return X @ X.T / d


def expected(one: OneSource, B: float) -> float:
    try:
        found = deterministic_equivalent(one.V0, one.eta, [replace(one.columns, count=B)])
    except PeakError:
        return np.inf
    return found.error(one.target, one.test_second_moment) if found.infinite_because is None else np.inf


@pytest.mark.parametrize("start", ["spectrum", "symmetric", "any"])
@pytest.mark.parametrize("target", ["spectrum", "dense"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_it_is_the_general_equivalent(start: str, target: str, noise: float) -> None:
    rng = np.random.default_rng([len(start), len(target), int(10 * noise)])
    for _ in range(6):
        d, n, eta = int(rng.integers(4, 120)), int(rng.integers(5, 400)), float(rng.uniform(0.05, 1.5))
        r = int(rng.integers(1, d + 1))
        V0 = {
            "spectrum": lambda d=d: -np.exp(rng.standard_normal(d)),
            "symmetric": lambda d=d: -psd(rng, d),
            "any": lambda d=d: rng.standard_normal((d, d)) / np.sqrt(d),
        }[start]()
        sigma = np.exp(rng.standard_normal(d)) if target == "spectrum" else psd(rng, d)
        data = np.append(np.exp(2 * rng.standard_normal(r)), np.zeros(d - r))
        columns = Source(data, n, 1, demonstration_noise=noise).columns(eta, 1)
        one = OneSource(V0, eta, columns, sigma, wishart_second_moment(sigma, n))
        near = [r - 2, r - 1.5, r - 1, r, r + 0.5, r + 1, r + 1.5, r + 2]
        counts = np.array([0, 0.5, 1, *near, *rng.integers(0, 3 * d, 8)], dtype=float)
        counts = counts[counts >= 0]
        np.testing.assert_allclose(one.errors(counts), [expected(one, B) for B in counts], rtol=1e-11)


def test_no_data_at_all_change_nothing() -> None:
    V0, sigma = -np.ones(6), np.full(6, 0.7)
    columns = Source(np.zeros(6), 10, 1).columns(0.2, 1)
    one = OneSource(V0, 0.2, columns, sigma, wishart_second_moment(sigma, 10))
    assert np.ptp(one.errors([0, 1, 5, 50])) == 0


def test_levels_far_apart_and_every_count_up_to_the_peak() -> None:
    d = 60
    data = np.geomspace(1e-5, 1, d)
    columns = Source(data, 200, 1).columns(0.2, 1)
    one = OneSource(-np.ones(d), 0.2, columns, np.ones(d), wishart_second_moment(np.ones(d), 200))
    counts = np.arange(0, 3 * d)
    np.testing.assert_allclose(one.errors(counts), [expected(one, B) for B in counts], rtol=1e-8)


def test_matrices_and_second_conditions_are_refused() -> None:
    ones = np.ones(5)
    for columns in (
        Source(np.eye(5), 10, 1).columns(0.2, 1),
        Source(ones, 10, 1, label_noise=0.5).columns(0.2, 1),
    ):
        with pytest.raises(InputError, match="columns"):
            OneSource(-ones, 0.2, columns, ones, ones)


@pytest.mark.parametrize("prompts", [[1, -1], [np.nan], [np.inf], [[3]], "many"])
def test_prompts_of_a_curve_are_checked(prompts: object) -> None:
    with pytest.raises(InputError, match="prompts"):
        predict_curve(Shift.two_block(10, 5, 0.1, 0.2), prompts, 40)  # type: ignore[arg-type]
