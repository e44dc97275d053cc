"""Nearest rows, round robin: against the definition, on integers, where ties are common."""

import numpy as np
import pytest

from datadose.llm.selection import nearest


def _ranked(pool: np.ndarray, target: np.ndarray) -> list[int]:
    """All rows by the cosine with one target row, ties to the earlier row."""
    sizes = np.linalg.norm(pool, axis=1)
    cosines = np.round(pool @ target / np.where(sizes > 0, sizes, 1) / np.linalg.norm(target), 5)
    return sorted(range(len(pool)), key=lambda row: (-cosines[row], row))


def _in_turns(lists: list[list[int]], size: int) -> list[int]:
    taken: list[int] = []
    while len(taken) < size:
        for own in lists:
            free = [row for row in own if row not in taken]
            if free and len(taken) < size:
                taken.append(free[0])
    return taken


def _case(seed: int, rows: int = 90, targets: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    there = rng.integers(-2, 3, (targets, 3)).astype(float)
    there[~there.any(axis=1)] = 1.0
    return rng.integers(-2, 3, (rows, 3)).astype(float), there


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 5, 90, 200])
def test_nearest_rows_are_the_first_of_the_ranking(
    seed: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "_ROWS", 16)
    pool, targets = _case(seed)
    rows = np.arange(0, 90, 2)
    found = nearest.nearest_rows(pool, rows, nearest.unit_rows(targets, np.arange(7)), count)
    for own, target in zip(found, targets, strict=True):
        assert own.tolist() == [int(rows[i]) for i in _ranked(pool[rows], target)][:count]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1, 10, 60, 90])
def test_the_draw_is_the_round_robin_of_the_rankings(
    seed: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "_FIRST_LISTS", 2)
    pool, targets = _case(seed)
    units = nearest.unit_rows(targets, np.arange(len(targets)))
    found = nearest.draw_in_turns(pool, np.arange(90), units, size)
    assert found.tolist() == _in_turns([_ranked(pool, target) for target in targets], size)


def test_a_draw_begins_with_the_smaller_draw() -> None:
    pool, targets = _case(9)
    units = nearest.unit_rows(targets, np.arange(len(targets)))
    draws = [nearest.draw_in_turns(pool, np.arange(90), units, size) for size in (20, 50)]
    assert draws[1][:20].tolist() == draws[0].tolist()


def test_lists_that_end_leave_the_others_their_turns() -> None:
    assert nearest.take_turns([[3, 1], [3, 2, 0, 4], [1]], 9).tolist() == [3, 2, 1, 0, 4]
