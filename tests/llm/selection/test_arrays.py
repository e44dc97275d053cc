"""Sets of hashes: the fast forms are numpy's plain ones."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.llm.selection.arrays import among_these, first_of_each


@pytest.mark.parametrize("seed", range(3))
def test_members_are_those_that_numpy_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Hashes use all 64 bits, negative ones too.
    some = rng.integers(-(2**63), 2**63 - 1, 50)
    values, these = rng.choice(some, 200), rng.choice(some, 20)
    found = among_these(values, these)
    assert found.any()
    assert not found.all()
    np.testing.assert_array_equal(found, np.isin(values, these))
    assert not among_these(values, these[:0]).any()
    assert len(among_these(values[:0], these)) == 0


@pytest.mark.parametrize("ordered", [False, True])
def test_the_first_of_each_value_is_the_first_in_the_order(ordered: bool) -> None:
    rng = np.random.default_rng(0)
    values, among = rng.integers(-5, 5, 60), rng.random(60) < 0.7
    order = rng.permutation(60)
    found = first_of_each(values, among, order if ordered else None)
    places = [i for i in (order if ordered else range(60)) if among[i]]
    first = {values[i]: i for i in reversed(places)}
    assert sorted(first.values()) == np.flatnonzero(found).tolist()
