"""The over-determined set: all sets by brute force, scales, cutting planes; all deterministic."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.theory import peaks
from datadose.theory.peaks import over_determined


def random_spans(rng: np.random.Generator, sources: int, d: int) -> list[np.ndarray]:
    """Ranges of few directions, some of them equal."""
    spans = [np.where(rng.random(d) < rng.uniform(0.1, 0.7), 1.0, 0.0) for _ in range(sources)]
    for span in spans:
        span[rng.integers(d)] = 1.0
    return [spans[int(rng.integers(sources))] if rng.random() < 0.2 else span for span in spans]


def brute_force(counts: np.ndarray, spans: list[np.ndarray]) -> tuple[float, float]:
    """The largest excess, and its lead over the best set of another rank."""
    found = []
    for code in range(2 ** len(spans)):
        members = [c for c in range(len(spans)) if code >> c & 1]
        rank = int(np.any([spans[c] > 0 for c in members], axis=0).sum()) if members else 0
        found.append((float(sum(counts[c] for c in members)) - rank, len(members), rank))
    best = max(found)
    return best[0], best[0] - max(excess for excess, _, rank in found if rank != best[2])


@pytest.mark.parametrize("form", ["spectra", "bases", "cutting planes"])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_best_of_all_sets(form: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "cutting planes":
        monkeypatch.setattr(peaks, "_ALL_SETS", 0)
    rng = np.random.default_rng([5, seed])
    for _ in range(10):
        d, K = int(rng.integers(4, 16)), int(rng.integers(1, 6))
        spans = random_spans(rng, K, d)
        counts = rng.integers(0, 2 * d, K) * rng.choice([0.5, 1.0]) + 0.25
        turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
        given = [turn[:, span > 0] for span in spans] if form == "bases" else spans
        found = over_determined(counts, given)
        excess, lead = brute_force(counts, spans)
        members = [span for span, member in zip(spans, found.members, strict=True) if member]
        rank = int(np.any([span > 0 for span in members], axis=0).sum()) if members else 0
        assert counts[found.members].sum() - rank == pytest.approx(excess, abs=1e-9)
        if form == "cutting planes":
            assert found.lead >= lead - 1e-9
        else:
            assert found.lead == pytest.approx(lead, abs=1e-9)


def test_twenty_ranges_are_searched_by_cutting_planes() -> None:
    """Twenty sources on blocks of three directions: T holds those with more than three columns."""
    spans = [np.where(np.arange(60) // 3 == c, 1.0, 0.0) for c in range(20)]
    counts = np.linspace(0.4, 7.6, 20)
    found = over_determined(counts, spans)
    np.testing.assert_array_equal(found.members, counts > 3)
    assert found.lead == pytest.approx(np.abs(counts - 3).min())


def test_sources_of_one_range_are_over_determined_together() -> None:
    span = np.ones(6)
    found = over_determined(np.array([3.0, 0.1, 4.0]), [span, span.copy(), span])
    assert found.members.all()
    assert found.lead == pytest.approx(1.1)
