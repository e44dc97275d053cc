"""The public names: docstrings whose examples run; results that show, draw and compare themselves."""

from __future__ import annotations

import copy
import doctest
import inspect
import pickle
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import datadose
from datadose import ErrorCurve, InputError, Shift, predict_curve, sft_error_curve, simulate_error

NAMES = [
    name
    for name in datadose.__all__
    if inspect.isroutine(getattr(datadose, name)) or inspect.isclass(getattr(datadose, name))
]
SHIFT = Shift.two_block(20, 10, 0.1, 0.2, 0.1)


@pytest.fixture(autouse=True)
def files_only() -> Iterator[None]:
    from matplotlib import pyplot

    mpl.use("agg")
    yield
    pyplot.close("all")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "reproduce")) for name in NAMES]
)
def test_a_public_name_is_documented_and_its_example_runs(name: str, tmp_path: Path) -> None:
    found = getattr(datadose, name)
    told = inspect.getdoc(found) or ""
    asked = [] if name in ("Plan", "TrainConfig") else [*inspect.signature(found).parameters]
    listed = told.partition("Args:")[2].partition("\n\n")[0]
    assert [field for field in asked if not re.search(rf"^ +[\w, ]*\b{field}\b[\w, ]*:", listed, re.M)] == []
    if inspect.isfunction(found):
        assert {"Returns:", "Raises:"} <= set(re.findall(r"^\w+:$", told, re.MULTILINE))
    tests = doctest.DocTestFinder().find(found, name, globs={"scratch": tmp_path / "out"})
    assert tests[0].examples
    runner = doctest.DocTestRunner(verbose=False)
    for test in tests:
        test.globs.setdefault("scratch", tmp_path / "out")
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Plan"])
def test_what_a_public_signature_names_is_public(name: str) -> None:
    found = getattr(datadose, name)
    hints = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found)

    def classes(hint: Any) -> Iterator[type]:
        if typing.get_origin(hint) is None and inspect.isclass(hint):
            yield hint
        for inner in typing.get_args(hint):
            yield from classes(inner)

    ours = {
        kind.__name__ for hint in hints.values() for kind in classes(hint) if "datadose" in kind.__module__
    }
    assert ours - set(datadose.__all__) == set()


def test_results_are_short_lines_tables_frames_and_pictures() -> None:
    wide = Shift.two_block(600, 300, 0.1, 0.2, 0.1)
    found = datadose.plan(SHIFT, length=20, max_prompts=30, stop="best")
    for result, columns in (
        (wide, ["sigma0", "delta", "target", "data"]),
        (Shift(np.eye(3), np.diag([1.0, 0, 0]), np.eye(3), 0.2), ["sigma0", "delta", "target", "data"]),
        (predict_curve(SHIFT, range(50), 20), ["prompts", "predicted"]),
        (sft_error_curve(SHIFT, 50, 20, seed=0), ["prompts", "simulated"]),
        (simulate_error(SHIFT, range(9), 20, seeds=2), ["prompts", "mean", "sem"]),
        (found, ["prompts", "predicted"]),
    ):
        assert len(repr(result)) < 350
        assert result._repr_html_().startswith("<table>")
        assert list(result.to_frame().columns) == columns
        axes = result.plot()
        assert axes.get_xlabel() != ""
        assert result.plot(axes) is axes
        drawn = [line for line in axes.lines if len(line.get_xdata()) > 2]
        assert drawn
    frame = found.to_frame()
    assert frame["predicted"][frame["prompts"] == 20].isna().all()


def test_html_shows_names_as_text() -> None:
    pool = datadose.PoolSource("<script>", datadose.Source(SHIFT.data, 20, 5), 5)
    assert "<script>" not in pool._repr_html_()


def test_a_curve_is_an_array_and_what_is_made_of_it_is_a_plain_one() -> None:
    curve = predict_curve(SHIFT, [0, 5, 20], 20)
    assert isinstance(curve, ErrorCurve)
    for other in (curve + 1, 2 * curve, curve[1:], curve[[0, 2]], np.isinf(curve), np.add(curve, curve)):
        assert type(other) is np.ndarray
    assert isinstance(curve[0], float)
    again = pickle.loads(pickle.dumps(curve))
    assert repr(copy.deepcopy(curve)) == repr(copy.copy(curve)) == repr(curve)
    assert repr(again) == repr(curve) == "ErrorCurve(prompts=[0, 5, 20], predicted=[1.933, 1.747, inf])"
    # A sorted copy no longer belongs to these prompts.
    with pytest.raises(InputError, match="made from a curve"):
        np.sort(curve).plot()
    # Equal up to rounding: products of other shapes are added up in another order.
    assert predict_curve(SHIFT, 5, 20).tolist() == pytest.approx([curve[1]], rel=1e-13)


def test_records_with_arrays_are_compared_by_value() -> None:
    def made(seeds: int) -> list[Any]:
        return [
            simulate_error(SHIFT, [0, 5], 20, seeds=seeds),
            Shift.two_block(20, 10, 0.1, 0.2, 0.1 * seeds),
            datadose.Source(SHIFT.data, 20, seeds),
            datadose.PoolSource("a", datadose.Source(SHIFT.data * seeds, 20, 1), 5),
            datadose.plan(SHIFT, length=20, max_prompts=4 * seeds),
        ]

    first, same, other = made(2), made(2), made(3)
    assert first == same
    assert [a == b for a, b in zip(first, other, strict=True)] == [False] * 5
    assert [hash(one) for one in first] == [hash(one) for one in same]
    assert first[0] != "something else"


def test_one_value_is_taken_where_several_are_meant() -> None:
    one = simulate_error(SHIFT, np.int64(5), 20, seeds=np.int64(2))
    assert one == simulate_error(SHIFT, [5], 20, seeds=[0, 1])
    with pytest.raises(InputError, match="target: got figure1"):
        datadose.reproduce("figure1")


@pytest.mark.parametrize(("config", "field"), [({}, "shift"), ({"shift": 3}, "shift"), ([], "config")])
def test_a_pipeline_names_what_is_wrong_with_its_configuration(
    config: Any, field: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"^{field}: "):
        datadose.run_pipeline(config, tmp_path / "run")


@pytest.mark.parametrize(
    "call",
    [
        lambda: datadose.predict_error({"eta": 1}, 100, 400),  # type: ignore[arg-type]
        lambda: predict_curve({"eta": 1}, [1], 400),  # type: ignore[arg-type]
        lambda: datadose.plan({"eta": 1}, length=400, max_prompts=9),  # type: ignore[arg-type]
        lambda: datadose.PoolSource("a", [1.0, 2.0], size=3),  # type: ignore[arg-type]
    ],
)
def test_another_kind_of_argument_is_named(call: Any) -> None:
    with pytest.raises(InputError, match=r"^(shift|source a): got a (dict|list); allowed: a S"):
        call()
