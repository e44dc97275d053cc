"""What scoring keeps on disk: what was written is read, and what was not is NaN or empty."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from datadose.errors import RunError
from datadose.llm import scratch
from datadose.llm.chat import Encoded
from datadose.llm.scratch import RecordFile, TokenFile, VectorFile


def test_tokens_with_and_without_a_mask(tmp_path: Path) -> None:
    rows = [
        Encoded(np.array([7, 8, 9], dtype=np.int32), 1),
        Encoded(np.array([1, 2, 3, 4], dtype=np.int32), 1, np.array([False, True, False, True])),
        Encoded(np.array([5], dtype=np.int32), 0),
    ]
    with TokenFile(tmp_path) as file:
        numbers = [file.add(str(place), row, row.targets) for place, row in enumerate(rows)]
        assert numbers == [0, 1, 2] == list(file.numbers.values())
        assert list(file.lengths) == [3, 4, 1]
        assert list(file.targets) == [2, 2, 0]
        for number in (2, 0, 1):
            found, row = file[number], rows[number]
            assert (found.start, found.ids.tolist()) == (row.start, row.ids.tolist())
            assert found.places.tolist() == row.places.tolist()
    assert list(tmp_path.iterdir()) == []


def test_vectors_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((9000, 3), dtype=np.float32)
    monkeypatch.setattr(scratch, "_CHUNK", 1000)
    with VectorFile(tmp_path, 9000, 3) as file:
        for place in np.random.default_rng(1).permutation(9000)[1:].tolist():
            file.put(np.array([place]), values[place])
        left = int(np.random.default_rng(1).permutation(9000)[0])
        wanted = np.random.default_rng(2).integers(0, 9000, 5000)
        found = file.at(wanted)
        assert found.shape == (5000, 3)
        chunks = list(found.chunks)
    assert max(map(len, chunks)) == 333
    values[left] = np.nan
    np.testing.assert_array_equal(np.concatenate(chunks), values[wanted])


def test_one_vector_in_several_places(tmp_path: Path) -> None:
    with VectorFile(tmp_path, 4, 2) as file:
        file.put(np.array([3, 0]), np.array([1, 2], dtype=np.float32))
        (chunk,) = file.at(np.arange(4)).chunks
    np.testing.assert_array_equal(chunk, [[1, 2], [np.nan] * 2, [np.nan] * 2, [1, 2]])


def test_records_of_a_row_add_up(tmp_path: Path) -> None:
    with RecordFile(tmp_path, 3) as file:
        for place, value in ((2, "ä"), (0, "b"), (2, "c"), (2, "d")):
            file.add(place, {"value": value})
        assert [one["value"] for one in file.all(2)] == ["ä", "c", "d"]
        assert file[2] == {"value": "d"}
        assert (file[1], file.all(1)) == ({}, [])
        assert file[-3:] == [{"value": "b"}, {}, {"value": "d"}]
        assert len(file) == 3


def test_several_threads_read_at_once(tmp_path: Path) -> None:
    with RecordFile(tmp_path, 500) as file, ThreadPoolExecutor(8) as pool:
        for place in range(500):
            file.add(place, {"value": "x" * place})
        assert all(pool.map(lambda place: len(file[place]["value"]) == place, list(range(500)) * 4))


def test_a_folder_that_is_gone_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"could not be written \(No such file"):
        TokenFile(tmp_path / "gone")
