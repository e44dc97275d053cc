"""The shift geometry: generalised eigenvalues, the level of the threshold, and planted shifts."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.llm.selection import geometry as module
from datadose.llm.selection.geometry import ShiftGeometry, estimate_geometry, shrunk_moment
from datadose.llm.selection.size import interference, plan_size


def _estimate(
    reference: np.ndarray, target: np.ndarray, seed: int = 0, kind: str = "embedding"
) -> ShiftGeometry:
    return estimate_geometry(
        reference,
        np.arange(len(reference)),
        target,
        np.arange(len(target)),
        representation=kind,
        seed=seed,
    )


def _rows(rng: np.random.Generator, n: int, scales: np.ndarray) -> np.ndarray:
    """Heavier tails than the normal law: representations have them."""
    return rng.standard_t(6, (n, len(scales))) * scales


def test_no_shift_is_found_at_the_stated_rate():
    """Level 5 percent: in 100 pairs from one law, 13 or more finds have probability 0.0015."""
    rng = np.random.default_rng(1)
    scales = np.geomspace(3, 0.3, 6)
    finds = sum(
        _estimate(_rows(rng, 60, scales), _rows(rng, 40, scales), seed).shifted > 0 for seed in range(100)
    )
    assert finds <= 12


@pytest.mark.parametrize("kind", ["variance", "mean"])
def test_a_planted_shift_is_found_and_only_that(kind):
    rng = np.random.default_rng(2)
    scales = np.geomspace(3, 0.3, 12)
    direction = np.linalg.qr(rng.standard_normal((12, 12)))[0][:, 0]
    reference, target = _rows(rng, 600, scales), _rows(rng, 500, scales)
    along = 5 * rng.standard_normal((500, 1)) if kind == "variance" else 5.0
    found = _estimate(reference, target + along * direction)
    assert found.shifted == 1
    # Sigma0 v is along the shift: v is its whitened dual.
    sigma0 = np.cov(reference.T)
    image = sigma0 @ found.directions[:, 0]
    assert abs(image @ direction) / np.linalg.norm(image) > 0.95


def test_eigenvalues_are_those_of_the_pencil():
    """Many rows, few dimensions: lambda and the whitened moments are those of C v = lambda Sigma0 v."""
    rng = np.random.default_rng(3)
    root = 0.3 * rng.standard_normal((3, 3)) + np.eye(3)
    reference = rng.standard_normal((4000, 3)) @ root.T + 5
    target = rng.standard_normal((4000, 3)) * np.sqrt([6.0, 1, 1]) @ root.T + 5
    found = _estimate(reference, target)
    assert np.allclose(found.eigenvalues, [6, 1, 1], rtol=0.12)
    assert found.shifted == 1
    everything = np.arange(4000)
    white, moved = found.coordinates(reference, everything), found.coordinates(target, everything)
    assert np.allclose(white.T @ white / 4000, np.eye(3), atol=0.02)
    assert np.allclose(moved.T @ moved / 4000, np.diag(found.eigenvalues), atol=0.02)


def test_sketches_count_by_direction_only():
    rng = np.random.default_rng(4)
    reference, target = rng.standard_normal((300, 8)), rng.standard_normal((300, 8))
    longer = target * np.exp(rng.standard_normal((300, 1)))
    plain, scaled = _estimate(reference, target, kind="sketch"), _estimate(reference, longer, kind="sketch")
    assert np.allclose(plain.eigenvalues, scaled.eigenvalues)


def test_shrinkage_comes_closer_than_the_sample():
    """Ledoit and Wolf: the error falls for few rows; with many the weight goes to zero."""
    rng = np.random.default_rng(5)
    scales = np.linspace(0.7, 1.3, 20)
    truth = np.diag(scales**2)
    few = rng.standard_normal((30, 20)) * scales
    shrunk, weight = shrunk_moment(few)
    assert 0.3 < weight < 1
    assert ((shrunk - truth) ** 2).sum() < 0.5 * ((few.T @ few / 30 - truth) ** 2).sum()
    assert shrunk_moment(rng.standard_normal((20000, 20)) * scales)[1] < 0.05


def test_too_few_or_constant_rows_are_refused():
    rows = np.random.default_rng(0).standard_normal((20, 3))
    with pytest.raises(InputError, match="target: got 1 scored rows"):
        _estimate(rows, rows[:1])
    with pytest.raises(InputError, match="rows that differ"):
        _estimate(np.ones((20, 3)), np.ones((20, 3)))


def test_interference_is_read_off_the_candidates(monkeypatch):
    """Candidates with moments (4, 4) on a shift of lambda = 8 and 2 off it: r = eta * 2 / (8 / 16)."""
    found = ShiftGeometry(np.zeros(5), np.eye(5), np.array([8.0, 8, 1, 1, 1]), 2.0, False, (99, 99), 0.0)
    signs = np.array([[1, 1, 1, 1, 1], [-1, 1, -1, 1, -1]])
    candidates = signs * np.sqrt([4.0, 4, 2, 2, 2])
    assert interference(candidates, found) == pytest.approx(0.2 * 2 / 0.5)
    size, record = plan_size(candidates, found, 40, 500)
    assert record["delta"] == [6, 6]
    assert record["interference"] == pytest.approx(0.8)
    assert 64 <= size <= 500
    assert record["clipped"] == (record["prompts"] != size)
    nothing = ShiftGeometry(np.zeros(5), np.eye(5), np.ones(5), 2.0, False, (99, 99), 0.0)
    assert plan_size(candidates, nothing, 40, 500)[0] == 64
    assert plan_size(candidates, nothing, 40, 10)[0] == 10


def test_the_dose_is_the_planners():
    """With little interference and short rows the planner advises few rows; clipping says so."""
    found = ShiftGeometry(np.zeros(30), np.eye(30), np.append(5.0, np.ones(29)), 1.5, False, (99, 99), 0.0)
    candidates = np.random.default_rng(0).standard_normal((400, 30)) * np.append(np.sqrt(5), np.full(29, 0.3))
    size, record = plan_size(candidates, found, 12, 2000)
    assert record["prompts"] < 64
    assert size == 64
    assert record["clipped"]


def test_constants_are_what_the_documentation_says():
    assert (module.DIMENSIONS, module.ROWS, module.LEVEL, module.PERMUTATIONS) == (64, 4096, 0.05, 199)
