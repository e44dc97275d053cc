"""Uploaded files: planned like those of the command line, and nothing else of the machine is read."""

from __future__ import annotations

import base64
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from datadose import InputError, Shift, plan
from datadose.explore import uploads
from datadose.explore.marks import palette
from datadose.explore.setting import Setting
from datadose.explore.uploads import plan_uploads
from datadose.explore.views.your_spectra import plan_page

REST = "length: 40\neta: 0.2\nmax_prompts: 60\ninterference: 0.01\n"
BLOCKS = "sigma0: {blocks: [[0.1, 20], [1, 20]]}\n"
BOMB = "a: &a [" + "1," * 100 + "]\n"
BOMB += "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 20)}]\n" for old, new in ("ab", "bc", "cd", "de"))
"""Each line has twenty times the values of the one before it."""


def encoded(content: bytes) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(content).decode()


def array(values: object) -> str:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return encoded(buffer.getvalue())


def text(content: str) -> str:
    return encoded(content.encode())


def test_a_yaml_with_its_arrays() -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))[0]
    shift = Shift.two_block(40, 20, 0.1, 0.2, 0.01)
    dense = [rotation @ np.diag(part) @ rotation.T for part in (shift.sigma0, shift.delta)]
    names = ["shift.yaml", "a.npy", "b.npy"]
    contents = [text("sigma0: a.npy\ndelta: b.npy\n" + REST), *map(array, dense)]
    found = plan_uploads(names, contents, Setting())
    assert found.predicted_error == pytest.approx(
        plan(shift, length=40, max_prompts=60).predicted_error, rel=1e-6
    )


def test_two_arrays_alone_take_the_rest_from_the_sliders() -> None:
    setting = Setting(length=50, max_prompts=80, interference=0.03, eta=0.3, chain_steps=2)
    shift = Shift.two_block(40, 10, 0.2, 0.3, 0.03)
    found = plan_uploads(["delta.npy", "sigma0.npy"], [array(shift.delta), array(shift.sigma0)], setting)
    expected = plan(shift, length=50, max_prompts=80, training=setting.training())
    assert (found.prompts, found.recommendation) == (expected.prompts, expected.recommendation)


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../secret.npy", "folder/secret.npy", "missing.npy", ".", ""]
)
def test_only_uploaded_files_are_read(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(np, "load", lambda path, **_: opened.append(str(path)))
    content = text(f"sigma0: {path!r}\ndelta: [1, 0]\n{REST}")
    with pytest.raises(
        InputError, match=r"sigma0: got .*; allowed: the name of a \.npy file of the same upload"
    ):
        plan_uploads(["shift.yaml"], [content], Setting())
    assert opened == []


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    target = tmp_path / "escaped.yaml"
    plan_uploads(
        [f"../../../../{target}"], [text(BLOCKS + "delta: {blocks: [[1, 20], [0, 20]]}\n" + REST)], Setting()
    )
    assert not target.exists()


@pytest.mark.parametrize(
    ("names", "contents", "message"),
    [
        (
            ["a.yaml", "b.yaml"],
            [text(REST), text(REST)],
            "files: got a.yaml, b.yaml; allowed: one SHIFT.yaml",
        ),
        (["delta.npy"], [array([1.0])], "files: got delta.npy; allowed: one SHIFT.yaml"),
        ([], [], "files: got no file"),
        (["shift.yaml"], ["data:;base64,%%%"], "file: got shift.yaml; allowed: a whole file"),
        (["shift.yaml"], [text("")], "file: got shift.yaml, 0 bytes"),
        (["shift.png"], [text("x")], "file: got shift.png"),
        (
            ["shift.yaml"],
            [text("sigma0: {blocks: [[1, 1000000000]]}\ndelta: [1]\n" + REST)],
            r"sigma0.blocks.0.1: got 1000000000; allowed: an integer in \[1, 1e\+06\]",
        ),
        (
            ["shift.yaml", "big.npy"],
            [text("sigma0: big.npy\ndelta: big.npy\n" + REST), array(np.zeros((401, 401)))],
            r"sigma0: got shape \(401, 401\); allowed: dimension at most 400",
        ),
        (
            ["shift.yaml", "bad.npy"],
            [text("sigma0: bad.npy\ndelta: [1]\n" + REST), text("not numpy")],
            "file: got bad.npy; allowed: an array as numpy.save writes it",
        ),
        (
            ["shift.yaml", "nan.npy"],
            [text("sigma0: nan.npy\ndelta: [1, 0]\n" + REST), array([1.0, np.nan])],
            "sigma0: ",
        ),
        (["shift.yaml"], [text(BLOCKS + "delta: [1\n")], r"config: got shift.yaml, line \d+"),
    ],
)
def test_bad_uploads_are_named(names: list[str], contents: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_uploads(names, contents, Setting())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, r"config: got shift.yaml, line 5; allowed: well-formed YAML \(more than 2,000,000 values\)"),
        ("a: &a [*a]\n", r"line 1; allowed: well-formed YAML \(a reference to what it stands in"),
        ("[" * 13 + "]" * 13, r"nested more than 12 deep"),
        ("[" * 5000, r"nested more than 12 deep"),
        (
            BLOCKS + "delta: [1]\n" + REST.replace("60", "9" * 20),
            r"max_prompts: got .*; allowed: an integer in \[1, 1e\+09\]",
        ),
        (
            BLOCKS + "delta: [1]\n" + REST.replace("60", "9" * 8),
            "max_prompts: got .*; allowed: at most 1,000,000",
        ),
        (BLOCKS + "delta: [1]\nchain_steps: 99\n" + REST, "chain_steps: got 99; allowed: at most 8"),
    ],
)
def test_a_small_file_cannot_exhaust_the_machine(content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_uploads(["shift.yaml"], [text(content)], Setting())


@pytest.mark.parametrize(
    ("dimension", "count", "message"),
    [
        (20, 9, "sources: got 9 of them; allowed: at most 8 here"),
        (20, 5, "sources: got 5 of them; allowed: at most 4 with matrices here"),
        (101, 2, r"sigma0: got shape \(101,\); allowed: dimension at most 100 here"),
    ],
)
def test_sources_take_long_and_are_few(dimension: int, count: int, message: str) -> None:
    sources = "".join(f"- {{name: s{i}, covariance: dense.npy, size: 5}}\n" for i in range(count))
    spectra = f"sigma0: {{blocks: [[1, {dimension}]]}}\ndelta: {{blocks: [[1, {dimension}]]}}\n"
    content = spectra + "length: 60\neta: 0.2\nmax_prompts: 50\nsources:\n" + sources
    with pytest.raises(InputError, match=message):
        plan_uploads(["shift.yaml", "dense.npy"], [text(content), array(np.eye(dimension))], Setting())


def test_a_plan_with_nothing_to_adapt_to_claims_no_infinite_error() -> None:
    content = BLOCKS + "delta: {blocks: [[0, 40]]}\n" + REST
    found = plan_uploads(["shift.yaml"], [text(content)], Setting())
    page = plan_page(found, ["shift.yaml"], palette("light"))
    said = json.dumps([part.to_plotly_json() for part in page], default=lambda part: part.to_plotly_json())
    assert "nothing to adapt to" in said
    assert "infinite" not in said


@pytest.mark.parametrize(
    "values", [np.array([1.0 + 2.0j]), np.array(["x"]), np.array(["2020-01-01"], "M8[D]")]
)
def test_only_real_numbers_are_covariances(values: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"sigma0: got a.npy, an array of .*; allowed: real numbers"):
        plan_uploads(
            ["shift.yaml", "a.npy"], [text("sigma0: a.npy\ndelta: [1]\n" + REST), array(values)], Setting()
        )


@pytest.mark.parametrize("name", ["x" * 300 + ".yaml", "a\0b.yaml"])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="at most 100 printable characters"):
        plan_uploads([name], [text(REST)], Setting())


def test_two_plans_at_once_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_AT_ONCE", threading.Semaphore(0))
    with pytest.raises(InputError, match="upload: got one more plan"):
        plan_uploads(["shift.yaml"], [text(REST)], Setting())


def test_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "LARGEST_UPLOAD", 100)
    with pytest.raises(InputError, match="bytes in all"):
        plan_uploads(["shift.yaml", "a.npy"], [text(REST), array(np.zeros(50))], Setting())


def test_messages_do_not_show_where_uploads_were_kept() -> None:
    with pytest.raises(InputError) as caught:
        plan_uploads(["shift.yaml"], [text("- 1\n")], Setting())
    assert "datadose-" not in str(caught.value)
