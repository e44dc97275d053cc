"""The plan: its document, determinism, every form of a shift, bad input; in Python and from a shell."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose import sft_error_curve
from datadose.cli import main
from datadose.errors import InputError
from datadose.planner import ErrorModel, PoolSource, plan, plan_file
from datadose.shift import Shift
from datadose.theory import predict_error, pretrained_operator
from datadose.theory.source import Source
from helpers.command import run_datadose, run_main
from helpers.plans import BASE, POOL, SHIFT, document_of, sourced, write


def test_the_fields_that_are_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document_of(write(tmp_path, BASE), capsys)
    errors = [predict_error(SHIFT, B, 40) if abs(B - 16) > 1 else np.inf for B in range(61)]
    # The planner takes the neighbours of the peak for the peak.
    errors[15] = errors[17] = np.inf
    assert found["prompts"] == int(np.argmin(errors))
    assert found["predicted_error"] == pytest.approx(min(errors))
    assert found["error_before"] == pytest.approx(errors[0])
    assert found["error_at_max_prompts"] == pytest.approx(errors[60])
    np.testing.assert_allclose(found["allocation"], SHIFT.data)
    assert found["regime"] in ("incremental", "novel")
    assert (found["spectral_radius"] < 1) == (found["regime"] == "incremental")
    assert len(found["recommendation"]) > 20
    for point in found["curve"]:
        assert point.keys() == {"prompts", "predicted"}
        B = point["prompts"]
        assert point["predicted"] == (None if np.isinf(errors[B]) else pytest.approx(errors[B]))
    assert "sources" not in found
    assert found["better_allocation"]["gain"] >= 0


def test_the_sources_that_are_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document_of(write(tmp_path, sourced()), capsys)
    assert [s["name"] for s in found["sources"]] == ["experts", "crowd"]
    for source in found["sources"]:
        assert {"name", "prompts", "marginal_value", "marginal_value_at_all"} <= source.keys()
    assert found["prompts"] == sum(s["prompts"] for s in found["sources"]) <= 60
    assert found["predicted_error"] <= found["error_before"]
    assert found["near_optimal"] is None


def test_the_document_is_the_plan_and_the_same_every_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for document in (BASE, sourced(), {**BASE, "chain_steps": 2}):
        path = write(tmp_path, document)
        first = document_of(path, capsys)
        assert json.loads(json.dumps(plan_file(path).to_json(), allow_nan=False)) == first


def test_no_eta_of_the_grid_is_better_than_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = document_of(write(tmp_path, {**BASE, "choose_eta": True}), capsys)["best_eta"]
    for eta in np.geomspace(0.05, 1.0, 9)[::4]:
        other = Shift.aligned(SHIFT.sigma0, SHIFT.delta, float(eta), 0.05)
        assert best["predicted_error"] <= plan(other, length=40, max_prompts=60).predicted_error * (1 + 1e-9)


@pytest.mark.parametrize("kind", ["trace", "energy"])
def test_a_budget(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, {**BASE, "budget": {"kind": kind, "cap": 1.5}})
    better = document_of(path, capsys)["better_allocation"]
    a = np.array(better["allocation"])
    assert (better["kind"], better["budget"]) == (kind, 1.5)
    if better["gain"] > 0:
        assert (a.sum() if kind == "trace" else (a**2).sum()) <= 1.5 * (1 + 1e-9)


# --- forms of a shift -----------------------------------------------------------------------------------


def rotation(d: int) -> Any:
    return np.linalg.qr(np.random.default_rng(8).standard_normal((d, d)))[0]


def in_basis(spectrum: Any, basis: Any) -> Any:
    matrix = (basis * np.asarray(spectrum)) @ basis.T
    return (matrix + matrix.T) / 2


def assert_same(dense: dict[str, Any], flat: dict[str, Any]) -> None:
    assert dense["prompts"] == flat["prompts"]
    assert dense["near_optimal"] == flat["near_optimal"]
    for name in ("predicted_error", "error_before", "error_at_max_prompts", "spectral_radius"):
        assert dense[name] == pytest.approx(flat[name], rel=1e-6), name
    assert [x["prompts"] for x in dense["by_length"]] == [x["prompts"] for x in flat["by_length"]]
    for a, b in zip(dense["stages"]["outlooks"], flat["stages"]["outlooks"], strict=True):
        assert a["stage"] == b["stage"]
        assert a["error"] == pytest.approx(b["error"], rel=1e-5)
        assert a["pass_rate"] == pytest.approx(b["pass_rate"], rel=1e-4)
    assert dense["stages"]["stage"] == flat["stages"]["stage"]


@pytest.mark.parametrize("interference", [0.0, 0.05])
def test_dense_and_rotated_shifts_give_the_same_plan(
    interference: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sigma0 = np.repeat([0.1, 1.0], [6, 10]) * np.geomspace(0.7, 1.4, 16)
    delta = np.repeat([1.0, 0.0], [6, 10]) * np.geomspace(0.8, 1.5, 16)
    common = {**BASE, "interference": interference}
    flat = document_of(
        write(tmp_path, {**common, "sigma0": sigma0.tolist(), "delta": delta.tolist()}), capsys
    )
    for basis in (np.eye(16), rotation(16))[0 if interference else 1 :]:
        np.save(tmp_path / "sigma0.npy", in_basis(sigma0, basis))
        np.save(tmp_path / "delta.npy", in_basis(delta, basis))
        path = write(tmp_path, {**common, "sigma0": "sigma0.npy", "delta": "delta.npy"})
        dense = document_of(path, capsys)
        assert_same(dense, flat)
        np.testing.assert_allclose(dense["allocation"], in_basis(flat["allocation"], basis), atol=1e-8)
        gains = [found["better_allocation"]["predicted_error"] for found in (dense, flat)]
        assert gains[0] == pytest.approx(gains[1], rel=2e-3)


def test_dense_sources_give_the_same_plan() -> None:
    basis = rotation(16)

    def pool(turn: bool) -> list[PoolSource]:
        spectra = {
            "experts": (np.repeat([0.22, 0.0], [6, 10]), 20),
            "web": (np.repeat([0.1, 0.05], [6, 10]), 90),
        }
        return [
            PoolSource(name, Source(in_basis(A, basis) if turn else A, 40, 0), size)
            for name, (A, size) in spectra.items()
        ]

    flat = plan(SHIFT, length=40, max_prompts=80, sources=pool(False))
    rotated = Shift(
        *(in_basis(np.asarray(C), basis) for C in (SHIFT.sigma0, SHIFT.delta, SHIFT.data)), SHIFT.eta
    )
    dense = plan(rotated, length=40, max_prompts=80, sources=pool(True))
    assert dense.predicted_error == pytest.approx(flat.predicted_error, rel=1e-6)
    assert dense.prompts == flat.prompts


def test_a_rank_deficient_sigma0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Directions that pretraining never saw: V0 is zero there, and the plan agrees with simulation.

    One seed's error at B* is within 50 percent of the prediction: 8 seeds' standard deviation is 10.
    """
    sigma0 = np.repeat([0.0, 1.0], [6, 10])
    found = document_of(write(tmp_path, {**BASE, "sigma0": sigma0.tolist()}), capsys)
    shift = Shift.aligned(sigma0, np.repeat([1.0, 0.0], [6, 10]), 0.2, 0.05)
    curves = [sft_error_curve(shift, 60, 40, seed=seed)[found["prompts"]] for seed in range(8)]
    assert found["predicted_error"] == pytest.approx(float(np.mean(curves)), rel=0.5)


def test_nothing_to_adapt_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for document in (BASE, sourced()):
        found = document_of(write(tmp_path, {**document, "delta": [0.0] * 16}), capsys)
        assert found["prompts"] == 0
        assert found["predicted_error"] == found["error_before"]
        assert "nothing to adapt to" in found["recommendation"]


def test_without_a_shift_every_number_is_still_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a first prompt of each source and all would do, against differences; and the dose's curve."""
    still = Shift(np.repeat([0.1, 1.0], [6, 10]), np.zeros(16), np.full(16, 0.05), 0.2)
    found = document_of(write(tmp_path, sourced(delta=[0.0] * 16)), capsys)
    model = ErrorModel(pretrained_operator(still.sigma0, 40), 0.2, still.target, 40)
    kinds = [
        Source(np.repeat([0.22, 0.0], [6, 10]), n, 1, 0.0, noise) for n, noise in ((40, 0.0), (80, 0.05))
    ]
    columns, start, few = [model.columns(kind) for kind in kinds], model.error([], []), 1e-5
    assert [(source["name"], source["prompts"]) for source in found["sources"]] == [
        ("experts", 0),
        ("crowd", 0),
    ]
    for place, source in enumerate(found["sources"]):
        first, more = np.eye(2)[place] * few, np.array([20.0, 50.0]) + np.eye(2)[place] * few
        assert source["marginal_value"] < 0
        slope = (start - model.error(columns, first)) / few
        assert source["marginal_value"] == pytest.approx(slope, rel=1e-3)
        slope = (model.error(columns, [20, 50]) - model.error(columns, more)) / few
        assert source["marginal_value_at_all"] == pytest.approx(slope, rel=1e-3)
    alone = document_of(write(tmp_path, {**BASE, "delta": [0.0] * 16}), capsys)
    still = replace(still, data=np.array(alone["allocation"]))
    assert alone["error_at_max_prompts"] == pytest.approx(predict_error(still, 60, 40))
    assert alone["curve"][-1] == {"prompts": 60, "predicted": alone["error_at_max_prompts"]}


def test_stages_are_judged_on_the_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A test that is the target changes no number; another is that of the table to convergence too."""
    tests: list[Any] = [{"covariance": {"blocks": [[1.1, 6], [1.0, 10]]}, "weight": 1.0}]
    plain, same = (
        document_of(write(tmp_path, {**BASE, "training": "penalty", **changes}), capsys)["stages"]
        for changes in ({}, {"tests": tests})
    )
    assert (plain["judged_by"], same["judged_by"]) == ("target", "tests")
    for one, other in zip(plain["outlooks"], same["outlooks"], strict=True):
        assert other["error"] == (one["error"] if one["error"] is None else pytest.approx(one["error"]))
    assert plain["order_right"] is not None
    assert same["order_right"] is None
    for basis in (np.linalg.qr(np.random.default_rng(2).standard_normal((16, 16)))[0],):
        known = (basis * np.repeat([0.1, 1.0], [6, 10])) @ basis.T
        np.save(tmp_path / "known.npy", (known + known.T) / 2)
        added = (basis * np.repeat([1.0, 0.0], [6, 10])) @ basis.T
        np.save(tmp_path / "added.npy", (added + added.T) / 2)
        changed = {"sigma0": "known.npy", "delta": "added.npy", "training": "best", "steps": 10**6}
        changed["tests"] = [
            {"covariance": "known.npy", "weight": 0.5},
            {"covariance": "added.npy", "weight": 0.5},
        ]
        found = document_of(write(tmp_path, {**BASE, **changed}), capsys)
        told = {outlook["stage"]: outlook["error"] for outlook in found["stages"]["outlooks"]}
        assert told["none"] == pytest.approx(found["error_before"])
        assert told["sft"] is None or told["sft"] == pytest.approx(found["predicted_error"], rel=1e-3)
        assert main(["plan", str(tmp_path / "shift.yaml")]) == 0
        assert "errors are those on `tests`" in capsys.readouterr().out


# --- the command ----------------------------------------------------------------------------------------


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for document, words in ((BASE, ["best number"]), (sourced(), ["experts", "crowd"])):
        assert main(["plan", str(write(tmp_path, document))]) == 0
        shown = capsys.readouterr()
        assert shown.err == ""
        assert shown.out.startswith("recommendation: ")
        assert all(word in shown.out for word in words)


@pytest.mark.parametrize(
    "document", [BASE, sourced(), {**BASE, "delta": [0.0] * 16}], ids=["dose", "pool", "none"]
)
def test_the_picture(document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "new" / "plan.png"
    assert main(["plan", str(write(tmp_path, document)), "--json", "--plot", str(picture)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    json.loads(shown.out)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def _saved(folder: Path, matrix: Any) -> str:
    np.save(folder / "matrix.npy", matrix)
    return "matrix.npy"


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "zero sigma0": ({**BASE, "sigma0": [0.0] * 16}, "sigma0", "zero"),
    "no prompts": ({**BASE, "max_prompts": 0}, "max_prompts", "0"),
    "fractional prompts": ({**BASE, "max_prompts": 2.5}, "max_prompts", "2.5"),
    "size 0": (sourced(sources=[{**POOL[0], "size": 0}]), "size", "0"),
    "equal names": (sourced(sources=[POOL[0], POOL[0]]), "sources", "experts"),
    "no sources": (sourced(sources=[]), "sources", "[]"),
    "missing file": ({**BASE, "sigma0": "missing.npy"}, "sigma0", "missing.npy"),
    "missing file of a source": (
        sourced(sources=[{**POOL[0], "covariance": "gone.npy"}]),
        "experts",
        "gone.npy",
    ),
    "NaN": ({**BASE, "delta": [float("nan")] * 16}, "delta", "nan"),
    "negative": ({**BASE, "delta": [-1.0] * 16}, "delta", "-1"),
    "unknown key": ({**BASE, "lenght": 3}, "lenght", "unknown"),
    "unknown key of a source": (sourced(sources=[{**POOL[0], "noise": 1}]), "noise", "unknown"),
    "both": ({**BASE, "sources": POOL}, "interference and sources", "both are given"),
    "neither": (
        {k: v for k, v in BASE.items() if k != "interference"},
        "interference and sources",
        "neither is given",
    ),
    "eta": ({**BASE, "eta": 2}, "eta", "2"),
    "dimension": ({**BASE, "delta": [1.0] * 15}, "delta", "15"),
    "dimension of a source": (sourced(sources=[{**POOL[0], "covariance": [1.0] * 3}]), "experts", "3"),
    "missing field": ({k: v for k, v in BASE.items() if k != "length"}, "length", "is missing"),
    "reward": ({**BASE, "reward": "sparse"}, "reward", "sparse"),
    "budget below the floor": ({**BASE, "budget": {"cap": 0.1}}, "budget", "0.1"),
    "interference": ({**BASE, "interference": -0.1}, "interference", "-0.1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_names_the_field_and_the_value(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, field, value = BAD[name]
    path = write(tmp_path, document)
    with pytest.raises(InputError) as caught:
        plan_file(path)
    for message in (str(caught.value), _complaint(["plan", str(path), "--json"], capsys)):
        assert field in message
        assert value in message
        # What is right: allowed values, what a missing key requires, or which of two keys to keep or give.
        assert re.search("allowed: |required: |keep one|give one", message)


def _complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run_main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err
    return shown.err


@pytest.mark.parametrize(
    ("matrix", "word"),
    [
        (np.diag([1.0, -0.5]), "-0.5"),
        (np.array([[1.0, 0.3], [0.0, 1.0]]), "asymmetric"),
        (np.full((2, 2), np.nan), "nan"),
        (np.ones((2, 3)), "(2, 3)"),
        (np.array(["a", "b"]), "str"),
    ],
    ids=["not PSD", "asymmetric", "NaN", "not square", "text"],
)
def test_bad_matrices(matrix: Any, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {**BASE, "sigma0": _saved(tmp_path, matrix), "delta": [1.0, 0.0]}
    message = _complaint(["plan", str(write(tmp_path, document))], capsys)
    assert "sigma0" in message
    assert word in message or word == "str"


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = str(write(tmp_path, BASE))
    assert "plot: got" in _complaint(["plan", good, "--plot", "plan.pdf"], capsys)
    assert "config: got" in _complaint(["plan", str(tmp_path / "gone.yaml")], capsys)
    (tmp_path / "broken.yaml").write_text("sigma0: [1,\n")
    assert "line 2" in _complaint(["plan", str(tmp_path / "broken.yaml")], capsys)
    taken = _complaint(["plan", good, "--plot", str(Path(good) / "plan.png")], capsys)
    assert "plot: got" in taken


def test_bad_values_in_python() -> None:
    with pytest.raises(InputError, match="max_prompts: got 0"):
        plan(SHIFT, length=40, max_prompts=0)
    with pytest.raises(InputError, match="length: got 0"):
        plan(SHIFT, length=0, max_prompts=10)
    with pytest.raises(InputError, match="budget: got -1"):
        plan(SHIFT, length=40, max_prompts=10, budget=("trace", -1.0))


def test_from_a_shell(tmp_path: Path) -> None:
    """Through a real process: one document, and one line for bad input."""
    done = run_datadose("plan", write(tmp_path, BASE), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["prompts"] >= 0
    done = run_datadose("plan", write(tmp_path, {**BASE, "eta": 2}), "--json")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
