"""Samples on disk: found again by index, after damage and kills."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, cast

import pytest

from datadose.errors import RunError
from datadose.llm.sample_store import OWN, Drawn, SampleStore

A, B = "0a" * 32, "0b" * 32
SETTINGS = {"seed": 0}


def sample(index: int, text: str | None = None) -> Drawn:
    return Drawn(index, f"text {index}" if text is None else text, "stop")


def log_of(folder: Path) -> Path:
    (found,) = (folder / ".cache").glob("samples-*/*.log")
    return found


def test_what_was_added_is_found_by_index_in_another_run(tmp_path: Path) -> None:
    store = SampleStore(tmp_path, SETTINGS)
    store.add({A: [sample(1), Drawn(OWN, "own", "length"), Drawn(0, None, "HTTP 400")]})
    store.add({B: [sample(0)]})
    store.add({A: [sample(3, "late")]})
    assert store.get(A)[3].text == "late"
    store.close()
    again = SampleStore(tmp_path, SETTINGS)
    assert again.missing(A, (0, 1, 2, 3, OWN)) == (0, 2)
    assert again.missing(B, (OWN, 0)) == (OWN,)
    assert again.get(A) == {1: sample(1), OWN: Drawn(OWN, "own", "length"), 3: sample(3, "late")}
    assert again.get("0c" * 32) == {}
    assert SampleStore(tmp_path, {"seed": 1}).missing(A, (1,)) == (1,)


def test_the_later_of_two_counts_and_makes_the_confidence_known(tmp_path: Path) -> None:
    store = SampleStore(tmp_path, SETTINGS)
    assert not store.unsure(A)
    store.add({A: [Drawn(OWN, "own", "stop")]})
    assert store.unsure(A)
    store.add({A: [Drawn(OWN, "own", "stop", 0.5)]})
    for one in (store, SampleStore(tmp_path, SETTINGS)):
        assert not one.unsure(A)
        assert one.get(A)[OWN].confidence == 0.5


@pytest.mark.parametrize("cut", [1, 20])
def test_a_line_that_a_kill_has_cut_is_as_if_it_were_not_there(
    cut: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = SampleStore(tmp_path, SETTINGS)
    store.add({A: [sample(0)]})
    store.add({B: [sample(0)]})
    path = log_of(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    again = SampleStore(tmp_path, SETTINGS)
    assert (again.missing(A, (0,)), again.missing(B, (0,))) == ((), (0,))
    again.add({B: [sample(0)]})
    assert SampleStore(tmp_path, SETTINGS).get(B) == {0: sample(0)}
    assert capsys.readouterr().err == ""


class _FullDisk:
    """A file that takes no more than some bytes of what is written."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, content: bytes) -> int:
        return int(self.file.write(content[: self.room]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_what_was_drawn_together_is_kept_together(tmp_path: Path) -> None:
    """A batch half of which was kept would be drawn in another one, which rounds otherwise."""
    store = SampleStore(tmp_path, SETTINGS)
    store.add({A: [sample(0)]})
    room = log_of(tmp_path).stat().st_size + 3
    real, store._writer = store._writer, cast("FileIO", _FullDisk(store._writer, room))
    with pytest.raises(RunError, match="No space left on device"):
        store.add({B: [sample(0)], A: [sample(1)]})
    assert store.missing(B, (0,)) == SampleStore(tmp_path, SETTINGS).missing(B, (0,)) == (0,)
    # There is room again.
    store._writer = real
    store.add({B: [sample(0)], A: [sample(1)]})
    again = SampleStore(tmp_path, SETTINGS)
    assert again.get(A) == {0: sample(0), 1: sample(1)} == store.get(A)
    assert again.get(B) == {0: sample(0)} == store.get(B)
    store.close()


def test_a_changed_line_is_noticed_once_and_the_others_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = SampleStore(tmp_path, SETTINGS)
    store.add({A: [sample(0)]})
    store.add({B: [sample(0)]})
    path = log_of(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"text 0", b"text 9", 1))
    with pytest.raises(RunError, match="changed while it was in use"):
        store.get(A)
    again = SampleStore(tmp_path, SETTINGS)
    assert (again.missing(A, (0,)), again.get(B)) == ((0,), {0: sample(0)})
    assert capsys.readouterr().err.startswith("1 damaged lines of kept samples in ")
    SampleStore(tmp_path, SETTINGS)
    assert capsys.readouterr().err == ""


def test_several_threads_read_at_once(tmp_path: Path) -> None:
    """Verifiers in several processes are fed by as many threads."""
    store = SampleStore(tmp_path, {})
    keys = [f"{place:064x}" for place in range(300)]
    for place, key in enumerate(keys):
        store.add({key: [Drawn(0, key * (place % 7), "stop")]})
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: store.get(keys[place])[0].text, list(range(300)) * 5))
    assert found == [key * (place % 7) for place, key in enumerate(keys)] * 5
    store.close()
