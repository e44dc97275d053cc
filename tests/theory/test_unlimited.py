"""Training on unlimited rows: the limit of the exact law in the number of rows, and its ceiling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy

from datadose.covariance import dense, rotated
from datadose.errors import InputError
from datadose.shapes import Array
from datadose.shift import Shift
from datadose.theory import Source, Stopping, WeightedTest, best_time, pretrained_operator, trained
from datadose.theory.unlimited import UnlimitedFlow
from helpers.pools import D, orthogonal, pool, spectrum, turned

ETA = 0.3
START = pretrained_operator(spectrum(7), 40)
TEST = WeightedTest.of(2 * spectrum(8), 40)
WEIGHTS = [1.0, 0.4, 0.05]


def many(sources: list[Source], times: float) -> list[Source]:
    return [replace(s, prompts=times * s.prompts) for s in sources]


@pytest.mark.parametrize("label", [0.0, 0.5])
@pytest.mark.parametrize("time", [0.3, 10.0])
def test_the_gap_to_many_rows_falls_as_their_number_grows(time: float, label: float) -> None:
    sources = pool(label=label, demonstration=0.2)
    B = sum(s.prompts for s in sources)
    pulls = [time * w * s.prompts / B for w, s in zip(WEIGHTS, sources, strict=True)]
    limit = TEST.error(UnlimitedFlow.of(START, ETA, sources, chain_steps=2).trained(pulls))

    def gap(times: float) -> float:
        model = trained(START, ETA, many(sources, times), Stopping(time=time), weights=WEIGHTS, chain_steps=2)
        return abs(TEST.error(model) - limit)

    assert gap(1e4) < 0.02 * limit
    assert gap(1e6) == pytest.approx(gap(1e4) / 100, rel=0.05)


def test_it_is_gradient_flow() -> None:
    """Against the differential equation V' = -(V C + eta A), dense and not commuting."""
    sources = [turned(s, orthogonal(at)) for at, s in enumerate(pool())]
    flow, pulls = UnlimitedFlow.of(START, ETA, sources), np.array([0.7, 0.2, 1.5])
    C, A = (np.tensordot(pulls, X, axes=1) for X in (flow.moments, flow.crosses))

    def slope(_: float, V: Array) -> Array:
        return np.asarray(-(V.reshape(D, D) @ C + ETA * A).ravel())

    found = scipy.integrate.solve_ivp(slope, (0, 1), dense(START).ravel(), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(flow.trained(pulls).mean, found.y[:, -1].reshape(D, D), atol=1e-8)


def test_spectra_and_matrices_agree() -> None:
    basis, sources = orthogonal(4), pool()
    dense_start, dense_test = (
        rotated(dense(START), basis),
        WeightedTest.of(rotated(dense(2 * spectrum(8)), basis), 40),
    )
    flat = UnlimitedFlow.of(START, ETA, sources)
    full = UnlimitedFlow.of(dense_start, ETA, [turned(s, basis) for s in sources])
    shares = np.array([0.5, 0.3, 0.2])
    assert full.ceiling(dense_test, shares) == pytest.approx(flat.ceiling(TEST, shares), rel=1e-5)


def test_the_ceiling_is_the_best_time_on_very_many_rows() -> None:
    shift = Shift.two_block(D, D // 2, 0.1, 0.2, 0.01)
    sources = [Source(shift.data, 72, 3.0), Source(0.1 * spectrum(1), 72, 1.0)]
    start, test = pretrained_operator(shift.sigma0, 72), WeightedTest.of(shift.target, 72)
    error, time = UnlimitedFlow.of(start, 0.2, sources).ceiling(test, [0.75, 0.25])
    best = best_time(start, 0.2, many(sources, 1e8), test)
    assert best.reason is None
    assert error == pytest.approx(best.error, rel=1e-6)
    assert best.time == pytest.approx(time, rel=0.01)


def test_a_ceiling_where_training_only_hurts_and_where_it_never_ends() -> None:
    away = WeightedTest.of(spectrum(7), 40)
    flow = UnlimitedFlow.of(START, ETA, [Source(spectrum(9), 40, 1.0)])
    error, time = flow.ceiling(away, [1.0])
    assert (error, time) == (away.error(flow.trained([0.0])), 0.0)
    nothing = UnlimitedFlow.of(START, ETA, [Source(np.zeros(D), 40, 1.0)])
    assert nothing.ceiling(away, [1.0])[1] == 0.0
    right = UnlimitedFlow.of(START, 1.0, [Source(np.ones(D), 40, 1.0)])
    assert np.isinf(right.ceiling(WeightedTest.of(np.ones(D), 40), [1.0])[1])


def test_bad_input() -> None:
    with pytest.raises(InputError, match="sources: got dimensions"):
        UnlimitedFlow.of(START, ETA, [Source(np.ones(3), 40, 1.0)])
    with pytest.raises(InputError, match="eta"):
        UnlimitedFlow.of(START, 2.0, pool())
