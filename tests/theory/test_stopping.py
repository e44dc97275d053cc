"""A filter's nodes against the function that they approximate, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.theory.stopping import Stopping

PLACES = np.concatenate([[0.0], np.geomspace(1e-9, 1.0, 300)])
"""Eigenvalues x up to the largest, 1."""
ACCURACY = 1e-10


@pytest.mark.parametrize("time", [1e-6, 0.3, 20.0, 1e5])
def test_nodes_of_gradient_flow(time: float) -> None:
    rule = Stopping(time=time).filter(prompts=7.0, chain_weight=3.0, edge=1.0)
    np.testing.assert_allclose(rule.at(PLACES), np.exp(-time * PLACES / 7), rtol=0, atol=ACCURACY)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.6, 0.95, 0.999])
@pytest.mark.parametrize("steps", [1, 2, 7, 12, 13, 20, 21, 300, 10_000])
def test_nodes_of_gradient_descent_up_to_the_largest_stable_step(steps: int, share: float) -> None:
    prompts, weight = 5.0, 1.64
    rate = share * 2 * prompts / weight
    rule = Stopping(steps=steps, learning_rate=rate).filter(prompts, weight, edge=1.0)
    exact = (1 - 2 * share * PLACES) ** steps
    np.testing.assert_allclose(rule.at(PLACES), exact, rtol=0, atol=ACCURACY)


def test_a_penalty_is_one_node() -> None:
    rule = Stopping(ridge=0.4).filter(prompts=5.0, chain_weight=2.0, edge=1.0)
    np.testing.assert_allclose(rule.at(PLACES), 0.4 / (0.4 + PLACES), rtol=1e-15)
    assert len(rule.nodes) == 1


def test_the_largest_stable_learning_rate_is_named() -> None:
    with pytest.raises(InputError, match=r"learning_rate: got 5; allowed: a number below 4, the largest"):
        Stopping(steps=3, learning_rate=5.0).filter(prompts=4.0, chain_weight=2.0, edge=1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"time": -1.0}, r"time: got -1.0; allowed: a number in \[0, inf\)"),
        ({"time": float("inf")}, "time: got inf"),
        ({"time": float("nan")}, "time: got nan"),
        ({"ridge": -0.1}, "ridge: got -0.1"),
        ({"steps": 3}, "learning_rate: got none"),
        ({"learning_rate": 0.1}, "steps: got none"),
        ({"steps": 2.5, "learning_rate": 0.1}, "steps: got 2.5"),
        ({"steps": 3, "learning_rate": 0.0}, r"learning_rate: got 0.0; allowed: a number in \(0, inf\)"),
        ({"time": 1.0, "ridge": 1.0}, "ridge: got 1 beside time: 1; allowed: one of time"),
    ],
)
def test_bad_input_is_one_clear_line(given: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Stopping(**given)  # type: ignore[arg-type]


def test_what_counts_as_converged_and_as_untrained() -> None:
    assert Stopping().is_converged
    assert Stopping(ridge=0.0).is_converged
    assert not Stopping(time=0.0).is_converged
    assert Stopping(time=0.0).is_untrained
    assert Stopping(steps=0, learning_rate=1.0).is_untrained
