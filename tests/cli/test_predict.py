"""`datadose predict` prints what the Python functions return, and refuses what they refuse."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from datadose import Shift, sft_error_curve, simulate_error
from datadose.cli import main
from datadose.simulation.training import simulate_training
from datadose.theory import (
    Source,
    Stopping,
    WeightedTest,
    best_time,
    predict_error,
    pretrained_operator,
    trained_on_shift,
)
from datadose.theory.effective_penalty import EffectivePenalty
from helpers.command import BLOCK, PREDICT, run_datadose, run_main, with_option


def _predict_json(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert main([*arguments, "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    rows: list[dict[str, Any]] = json.loads(shown.out)
    return rows


@pytest.mark.parametrize("form", ["exact", "first-order", "as-printed"])
def test_predict_json_is_the_theory(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    counts = [1, 10, 38, 42, 200]
    rows = _predict_json([*PREDICT[:-1], *map(str, counts), "--form", form], capsys)
    shift = Shift.two_block(40, 20, 0.1, 0.2, 0.1)
    assert [row["prompts"] for row in rows] == counts
    for row in rows:
        assert set(row) == {
            "prompts",
            "length",
            "form",
            "predicted",
            "simulated_mean",
            "simulated_sem",
            "seeds",
        }
        assert (row["length"], row["form"], row["seeds"]) == (40, form, 0)
        assert row["predicted"] == predict_error(shift, row["prompts"], 40, form=form)  # type: ignore[arg-type]
        assert row["simulated_mean"] is None
        assert row["simulated_sem"] is None


@pytest.mark.parametrize(
    ("interference", "form", "peak"),
    [
        ("0", "exact", 20),
        ("0", "first-order", 20),
        ("0.1", "exact", 40),
        ("0.1", "first-order", 40),
        ("0.1", "as-printed", 40),
    ],
)
def test_predict_at_the_peak_is_null_with_a_reason(
    interference: str, form: str, peak: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = with_option("--interference", interference)[:-1]
    counts = [str(peak + side) for side in (-2, -1, 0, 1, 2)]
    rows = _predict_json([*arguments, *counts, "--form", form], capsys)
    for row in rows[1:-1]:
        assert row["predicted"] is None
        assert f"within 1 of rank(A) = {peak}" in row["reason"]
    for row in (rows[0], rows[-1]):
        assert row["predicted"] > 0
        assert "reason" not in row


def test_no_prompts_leave_the_model_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = _predict_json(with_option("--prompts", "0"), capsys)
    assert row["predicted"] == predict_error(SHIFT, 0, 40)
    assert row["predicted"] == pytest.approx(sft_error_curve(SHIFT, 0, 40, seed=0)[0])


def test_predict_with_the_shortest_prompts_is_null_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """E ||phi||^{-2} is infinite for one or two examples: so is the mean where prompts are interpolated."""
    for length in ("1", "2", "3"):
        given = [*with_option("--length", length)[:-1], "1", "30", "42"]
        rows = _predict_json(given, capsys)
        assert [row["predicted"] is None for row in rows] == [length != "3", length != "3", False]
        if length != "3":
            assert "length <= 2 and 1 <= B <= rank(A) = 40" in rows[0]["reason"]


def test_predict_simulates_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    rows = _predict_json([*PREDICT, "40", "120", "--simulate", "4"], capsys)
    simulated = simulate_error(Shift.two_block(40, 20, 0.1, 0.2, 0.1), [5, 40, 120], 40, seeds=4)
    assert [row["simulated_mean"] for row in rows] == list(simulated.mean)
    assert [row["simulated_sem"] for row in rows] == list(simulated.sem)
    assert {row["seeds"] for row in rows} == {4}
    assert rows[1]["predicted"] is None


def test_one_simulated_seed_has_no_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    row = _predict_json([*PREDICT, "--simulate", "1"], capsys)[0]
    assert row["simulated_mean"] > 0
    assert row["simulated_sem"] is None
    assert row["seeds"] == 1


def test_predict_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PREDICT, "40"]) == 0
    shown = capsys.readouterr()
    expected = predict_error(Shift.two_block(40, 20, 0.1, 0.2, 0.1), 5, 40)
    assert f"{expected:.5g}" in shown.out
    assert shown.err == ""


def test_predict_json_in_a_real_process() -> None:
    done = run_datadose(*PREDICT, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["prompts"] == 5


def test_predict_with_the_finite_size_correction(capsys: pytest.CaptureFixture[str]) -> None:
    """d = 40, n = d, B = 20: 8.6 percent above the asymptotic form; refused within one prompt of the peak."""
    given = with_option("--prompts", "20", "41")
    plain = _predict_json(given, capsys)
    corrected = _predict_json([*given, "--finite-size"], capsys)
    assert 1.08 < corrected[0]["predicted"] / plain[0]["predicted"] < 1.09
    for rows in (plain, corrected):
        assert rows[1]["predicted"] is None
        assert "within 1 of rank(A) = 40" in rows[1]["reason"]
    assert run_main([*given, "--form", "first-order", "--finite-size"]) == 2
    assert "finite_size" in capsys.readouterr().err


# --- how long -------------------------------------------------------------------------------------------

SHIFT = Shift.two_block(40, 20, 0.1, 0.2, 0.1)
START = pretrained_operator(SHIFT.sigma0, 40)
TEST = WeightedTest.of(SHIFT.target, 40)
PLAIN = ("prompts", "length", "form", "predicted", "simulated_mean", "simulated_sem", "seeds")


def _rows(capsys: pytest.CaptureFixture[str], *options: object) -> list[dict[str, Any]]:
    return _predict_json([*PREDICT[:-1], *map(str, options)], capsys)


def test_a_row_for_each_number_of_prompts_and_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows(capsys, 5, 40, 120, "--time", 0, 3, 1e4)
    assert [(row["prompts"], row["time"]) for row in rows] == [
        (B, t) for B in (5, 40, 120) for t in (0, 3, 1e4)
    ]
    for row in rows:
        assert set(row) == {*PLAIN, "time", "predicted_pretraining"}
        B, t = row["prompts"], row["time"]
        assert row["predicted"] == pytest.approx(predict_error(SHIFT, B, 40, time=t), rel=1e-12)
        model = trained_on_shift(SHIFT, B, 40, Stopping(time=t))
        assert row["predicted_pretraining"] == pytest.approx(model.error(SHIFT.sigma0, 40), rel=1e-12)
    assert rows[0]["predicted"] == pytest.approx(predict_error(SHIFT, 0, 40), rel=1e-12)


@pytest.mark.parametrize("k", [0, 3])
def test_steps_run_on_the_clock_of_their_chains(k: int, capsys: pytest.CaptureFixture[str]) -> None:
    way = {"steps": 30, "learning_rate": 0.4}
    (row,) = _rows(capsys, 60, "--steps", 30, "--learning-rate", 0.4, "--chain-steps", k)
    assert set(row) == {*PLAIN, *way, "predicted_pretraining"}
    assert {name: row[name] for name in way} == way
    expected = predict_error(SHIFT, 60, 40, steps=30, learning_rate=0.4, chain_steps=k)
    assert row["predicted"] == pytest.approx(expected, rel=1e-12)
    if k == 0:
        assert _rows(capsys, 60, "--steps", 30, "--learning-rate", 0.4) == [row]


def test_a_penalty_has_its_variance_and_its_ceiling(capsys: pytest.CaptureFixture[str]) -> None:
    """Against the explicit form in the effective penalty, another computation than the command's."""
    explicit = EffectivePenalty.of(START, 0.2, Source(SHIFT.data, 40, 1), TEST)
    for row in _rows(capsys, 5, 40, 120, "--ridge", 2.5):
        assert set(row) == {*PLAIN, "ridge", "predicted_pretraining", "variance", "ceiling"}
        at = explicit.at(row["prompts"], row["ridge"])
        assert row["predicted"] == pytest.approx(at.error, rel=1e-9)
        assert row["variance"] == pytest.approx(at.variance, rel=1e-9)
        assert row["ceiling"] == explicit.ceiling.error
        other = trained_on_shift(SHIFT, row["prompts"], 40, Stopping(ridge=2.5)).error(SHIFT.sigma0, 40)
        assert row["predicted_pretraining"] == pytest.approx(other, rel=1e-12)


def test_the_best_time_and_penalty_beat_every_other(capsys: pytest.CaptureFixture[str]) -> None:
    """On a grid of 60; and they are those of the Python functions."""
    for row in _rows(capsys, 5, 60, "--best-time", "--best-ridge"):
        B, grid = row["prompts"], np.geomspace(1e-2, 1e4, 60)
        keys = {"best_time", "best_time_error", "best_ridge", "best_ridge_error", "ceiling"}
        simulated = {f"best_{way}_simulated_{name}" for way in ("time", "ridge") for name in ("mean", "sem")}
        assert set(row) == {*PLAIN, *keys, *simulated, "predicted_pretraining"}
        assert row["predicted"] == pytest.approx(predict_error(SHIFT, B, 40), rel=1e-12)
        for way, best in (
            ("time", best_time(START, 0.2, [Source(SHIFT.data, 40, B)], TEST).time),
            ("ridge", EffectivePenalty.of(START, 0.2, Source(SHIFT.data, 40, 1), TEST).best(B).ridge),
        ):
            assert row[f"best_{way}"] == best
            at = predict_error(SHIFT, B, 40, **{way: best})  # type: ignore[arg-type]
            assert row[f"best_{way}_error"] == pytest.approx(at, rel=1e-9)
            others = [predict_error(SHIFT, B, 40, **{way: float(x)}) for x in grid]  # type: ignore[arg-type]
            assert row[f"best_{way}_error"] <= min(others) * (1 + 1e-6)


def test_a_mean_is_infinite_at_convergence_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--ridge", 0], ["--best-time"]):
        (row,) = _rows(capsys, 40, *options)
        assert row["predicted"] is row["predicted_pretraining"] is row.get("variance") is None
        assert row["reason"] == "B within 1 of rank(A) = 40: the mean is infinite there"
    for options in (["--time", 1e6], ["--ridge", 1e-6]):
        (row,) = _rows(capsys, 40, *options)
        assert row["predicted"] > 50
        assert "reason" not in row


@pytest.mark.parametrize(
    ("values", "field", "best", "reason"),
    [
        (("0.1", "0", "400", "200"), "best_time", None, "falls for as long as training lasts"),
        (("3", "0.01", "5", "3"), "best_time", 0.0, "raises the error from the start"),
        (("30", "0", "1", "3"), "best_ridge", None, "the stronger the penalty the better"),
    ],
)
def test_a_best_that_has_no_number_has_a_reason(
    values: tuple[str, ...], field: str, best: float | None, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (rho, interference, length, B), option = values, f"--{field.replace('_', '-')}"
    given = ["predict", *BLOCK[:4], "--rho", rho, "--eta", "0.2", "--interference", interference]
    (row,) = _predict_json([*given, "--length", length, "--prompts", B, option], capsys)
    assert row[field] == best
    assert f"{field}: " in row["reason"]
    assert reason in row["reason"]
    shift = Shift.two_block(40, 20, float(rho), 0.2, float(interference))
    # The error of the model that is meant: converged, or left as it is.
    end = int(B) if "as long as" in reason else 0
    assert row[f"{field}_error"] == pytest.approx(predict_error(shift, end, int(length)), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("--time 3 --ridge 2", ("ridge: got 2 beside time: 3; allowed: one of time, steps",)),
        ("--time 3 --steps 2 --learning-rate 0.1", ("steps: got 2 beside time: 3; allowed: one of time",)),
        ("--steps 3 --learning-rate 0.1 --ridge 1", ("ridge: got 1 beside steps: 3; allowed: one of time",)),
        ("--chain-steps 3", ("chain_steps: got 3 without steps; allowed: steps and learning_rate",)),
        ("--chain-steps 0 --time 3", ("chain_steps: got 0 without steps; allowed: steps",)),
        ("--chain-steps 2 --ridge 1 --best-time", ("chain_steps: got 2 without steps",)),
        ("--steps 3", ("learning_rate: got none", "`steps` is given")),
        ("--learning-rate 3", ("steps: got none", "`learning_rate` is given")),
        ("--steps 3 --learning-rate 40", ("learning_rate: got 40", "the largest stable one")),
        ("--steps 3 --learning-rate 0", ("learning_rate: got 0",)),
        ("--steps -1 --learning-rate 0.1", ("steps: got -1",)),
        ("--steps 1.5 --learning-rate 0.1", ("--steps: got '1.5'",)),
        ("--steps 3 --learning-rate 0.1 --chain-steps -1", ("chain_steps: got -1",)),
        ("--time 3 -1", ("time: got -1",)),
        ("--time nan", ("--time: got 'nan'",)),
        ("--time 1e40", ("time: got 1e+40", "convergence")),
        ("--ridge -1", ("ridge: got -1",)),
        ("--ridge inf", ("--ridge: got 'inf'",)),
        ("--time 3 --form first-order", ("form: got first-order; allowed: exact",)),
        ("--best-ridge --form as-printed", ("form: got as-printed; allowed: exact",)),
        ("--time 3 --finite-size", ("finite_size: got True; allowed: False",)),
        ("--best-time --finite-size", ("finite_size: got True; allowed: False",)),
    ],
)
def test_what_cannot_be_is_one_line(
    options: str, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main([*PREDICT, *options.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert [name for name in names if name not in shown.err] == []


def test_what_is_simulated_is_that_stopping_and_the_best_one(capsys: pytest.CaptureFixture[str]) -> None:
    """On one growing set of prompts a seed, whatever the order of the rows."""
    rows = _rows(capsys, 60, 5, "--time", 3, 50, "--best-time", "--best-ridge", "--simulate", 3)
    ways = [Stopping(time=3.0), Stopping(time=50.0)]
    ways += [Stopping(**{way: row[f"best_{way}"]}) for row in rows[::2] for way in ("time", "ridge")]
    request = (START, 0.2, [Source(SHIFT.data, 40, 0)], [SHIFT.target], 40, ways)
    found = simulate_training(*request, counts=[5, 60], seeds=3)
    for place, row in enumerate(rows):
        B, best = (1, 2) if place < 2 else (0, 4)
        for name, way in (("", place % 2), ("best_time_", best), ("best_ridge_", best + 1)):
            assert row[f"{name}simulated_mean"] == pytest.approx(found.mean[B, way, 0], rel=1e-9)
            assert row[f"{name}simulated_sem"] == pytest.approx(found.sem[B, way, 0], rel=1e-6)
        assert row["seeds"] == 3
    (one,) = _rows(capsys, 60, "--time", 3, "--simulate", 1)
    assert (one["simulated_sem"], one["seeds"]) == (None, 1)
    (converged,) = _rows(capsys, 60, "--ridge", 0, "--simulate", 2)
    assert converged["simulated_mean"] == simulate_error(SHIFT, [60], 40, seeds=2).mean[0]


def test_predictions_lie_where_the_simulation_does(capsys: pytest.CaptureFixture[str]) -> None:
    """Within 3/d, the size of what a limit in d leaves out, and 5 standard errors of 20 seeds.

    Of 10 comparisons with right predictions one fails with probability 1e-3 (Student's law).
    """
    given = ["predict", "--dimension", "80", "--shifted", "40", *BLOCK[4:], "--interference", "0.05"]
    given += ["--length", "160", "--prompts", "40", "240", "--simulate", "20"]
    timed = _predict_json([*given, "--time", "4", "60", "--best-time"], capsys)
    penalised = _predict_json([*given, "--ridge", "0.5", "--best-ridge"], capsys)
    pairs = [(row, "predicted", "simulated") for row in (*timed, *penalised)]
    pairs += [(row, "best_time_error", "best_time_simulated") for row in timed[::2]]
    pairs += [(row, "best_ridge_error", "best_ridge_simulated") for row in penalised]
    assert len(pairs) == 10
    for row, predicted, simulated in pairs:
        gap = abs(row[predicted] - row[f"{simulated}_mean"])
        assert gap < 3 / 80 * row[predicted] + 5 * row[f"{simulated}_sem"], row


def test_the_table_shows_what_was_asked_for_and_why_a_number_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*PREDICT[:-1], "5", "40", "--best-time"]) == 0
    shown = capsys.readouterr().out
    head = next(line for line in shown.splitlines() if "prompts" in line)
    assert [cell.strip() for cell in head.strip("┃").split("┃")] == [
        "prompts",
        "predicted",
        "on Sigma0",
        "best time",
        "at best time",
    ]
    assert "note on 40 prompts: B within 1 of rank(A) = 40" in shown
    assert main([*PREDICT, "--steps", "30", "--learning-rate", "0.4"]) == 0
    assert "after 30 steps of 0.4" in capsys.readouterr().out
    assert main([*PREDICT, "--ridge", "2", "--best-ridge", "--simulate", "2"]) == 0
    shown = capsys.readouterr().out
    assert "ridge 2" in shown
    assert f"{predict_error(SHIFT, 5, 40, ridge=2):.5g}" in shown
