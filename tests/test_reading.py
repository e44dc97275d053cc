"""What is read from outside: what is accepted; what is refused stands in faults/corpus.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose import InputError, Shift
from datadose.configs import load_config, read_covariance
from datadose.errors import require_integer, require_number
from datadose.planner.config import PlanConfig
from datadose.reading import is_folder, open_array, parse_json, read_bytes, read_text

PLAN = "sigma0: &s [0.1, 1.0]\ndelta: *s\nlength: 20\neta: 0.2\nmax_prompts: 9\ninterference: 0.1\n"


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_a_reference_and_a_byte_order_mark_are_no_faults(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(start + PLAN.encode())
    config = load_config(path, PlanConfig)
    assert config.sigma0 == config.delta == [0.1, 1.0]


def test_a_key_of_another_section_and_a_merged_one_may_come_again(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(
        PLAN.replace("interference: 0.1\n", "")
        + "sources:\n- &a {name: a, covariance: [1, 1], size: 3, length: 5}\n- {<<: *a, name: b}\n"
    )
    config = load_config(path, PlanConfig)
    assert config.sources is not None
    assert [(source.name, source.size) for source in config.sources] == [("a", 3), ("b", 3)]


def test_a_file_that_grows_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(b"x" * 100)
    assert read_text("field", path, most=100) == "x" * 100
    with pytest.raises(
        InputError, match=r"field: got .*large.txt of 100 bytes; allowed: .* at most 99 bytes"
    ):
        read_bytes("field", path, most=99)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ("[1e999]", "JSON numbers"),
        ("[-Infinity]", "JSON numbers"),
        ('["\\ud800"]', "half a character"),
        ("[" * 10**5, "nested too deep"),
        ("9" * 5000, "too many digits"),
        ("[1,\n2", "line 2"),
    ],
)
def test_json_is_read_strictly(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_json("field", "a.json", text)


@pytest.mark.parametrize(
    "document", ['{"a": {"b": 1}, "b": [1.5e300, -2, "\\ud83d\\ude00", null]}', "[]", '"\\\\ud800"']
)
def test_good_json_is_read(document: str) -> None:
    import json

    assert parse_json("field", "a.json", document) == json.loads(document)


@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8", "i4", "u1", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_real_numbers_are_read(dtype: str, order: Any, tmp_path: Path) -> None:
    array = np.array([[2, 1], [1, 3]], dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(open_array("field", tmp_path / "a.npy"), array)
    np.testing.assert_array_equal(read_covariance("field", "a.npy", tmp_path), array)


def test_paths_that_cannot_be_are_no_folders(tmp_path: Path) -> None:
    assert is_folder(tmp_path)
    assert not any(is_folder(Path(name)) for name in ("a\0b", "n" * 300, "none"))


def test_numbers_beyond_what_a_float_holds_exactly_are_refused() -> None:
    assert require_integer("field", 2**53, 1) == 2**53
    for large in (2**53 + 1, 10**5000):
        with pytest.raises(InputError, match="2\\^53"):
            require_integer("field", large, 1)
        with pytest.raises(InputError, match="got an integer of"):
            require_number("field", 10**400, 0, 1e9)
    with pytest.raises(InputError, match="dimension: got 1000001; allowed: an integer in"):
        Shift.two_block(1_000_001, 1, 0.1, 0.2)


def test_an_endless_interval_is_shown_open() -> None:
    """Infinity itself is refused, so the allowed interval must not seem to contain it."""
    with pytest.raises(InputError, match=r"got inf; allowed: a number in \[0, inf\)"):
        require_number("field", np.inf, 0, np.inf)
