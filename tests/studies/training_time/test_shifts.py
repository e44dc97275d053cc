"""The random shifts: fixed by their arguments, of the kinds that they say; the search for best times."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.studies.training_time.shifts import KINDS, Kind, random_shift
from datadose.theory import Source, WeightedTest, best_time, pretrained_operator


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_is_fixed_by_its_kind_dimension_and_seed(kind: Kind) -> None:
    (one, n), (again, m), (other, _) = (random_shift(kind, 16, seed) for seed in (3, 3, 4))
    assert n == m
    assert np.array_equal(one.data, again.data)
    assert not np.array_equal(one.data, other.data)
    assert 8 <= n <= 80
    assert 0.1 <= one.eta <= 0.9
    assert (one.data.ndim == 2) == (kind == "mixed alignment")


def test_every_fourth_dense_shift_has_data_from_the_target_itself() -> None:
    for seed in range(8):
        shift, _ = random_shift("mixed alignment", 12, seed)
        aligned = np.allclose(shift.data, shift.eta * shift.target)
        assert aligned == (seed % 4 == 0)


@pytest.mark.parametrize("kind", KINDS)
def test_three_times_a_decade_find_the_minimum_that_six_find(kind: Kind) -> None:
    for seed in range(3):
        shift, n = random_shift(kind, 16, seed)
        start, test = pretrained_operator(shift.sigma0, n), WeightedTest.of(shift.target, n)
        for prompts in (3.0, 40.0):
            coarse, fine = (
                best_time(start, shift.eta, [Source(shift.data, n, prompts)], test, per_decade=p).error
                for p in (3, 6)
            )
            assert coarse == pytest.approx(fine, rel=1e-6)


def test_a_search_without_times_is_refused() -> None:
    test = WeightedTest.of(np.ones(4), 8)
    with pytest.raises(InputError, match="per_decade"):
        best_time(-np.ones(4), 0.5, [Source(np.ones(4), 8, 4.0)], test, per_decade=0)
