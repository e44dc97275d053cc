"""The explorer's numbers are the planner's and the theory's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from datadose import plan, predict_error, simulate_error
from datadose.errors import InputError
from datadose.explore import answers, simulations
from datadose.explore.charts import (
    curves_chart,
    dose_chart,
    learning_chart,
    map_chart,
    outlook_chart,
)
from datadose.explore.marks import counts_axis, error_axis, palette
from datadose.explore.setting import Setting
from datadose.explore.simulations import SEEDS, Simulation, Simulations, simulated_counts
from datadose.explore.views.which import (
    allocation_chart,
    allocations,
    dragged_levels,
    hardness_chart,
    spectra_chart,
)
from datadose.theory.outcome import adaptation_radius, population_curvature
from datadose.theory.post_test import hardness
from datadose.theory.pretraining import pretrained_operator

SETTINGS = [
    Setting(dimension=60, length=60, max_prompts=150),
    Setting(dimension=80, share=0.25, tilt=1.0, interference=0.0, length=50, max_prompts=300, chain_steps=3),
    Setting(dimension=60, share=1.0, tilt=0.5, rho=0.5, length=200, max_prompts=100, reward="verifiable"),
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_plan_is_the_planners(setting: Setting) -> None:
    expected = plan(
        setting.shift(), length=setting.length, max_prompts=setting.max_prompts, training=setting.training()
    )
    found = answers.dose(setting)
    assert found == expected.dose
    assert answers.stages(setting).reason == expected.recommendation
    assert expected.better is not None
    assert answers.better(setting).predicted_error == pytest.approx(expected.better.predicted_error, rel=1e-3)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_curve_is_the_exact_theory(setting: Setting) -> None:
    shift = setting.shift()
    for B, error in answers.dose(setting).curve:
        if error is not None:
            assert error == pytest.approx(predict_error(shift, B, setting.length), rel=1e-12)


@pytest.mark.parametrize("setting", SETTINGS)
def test_hardness_by_level_adds_up_to_the_datas(setting: Setting) -> None:
    shift = setting.shift()
    sizes = [int(size) for size in (*setting.group_sizes(), setting.dimension - setting.shifted) if size]
    V0 = pretrained_operator(shift.sigma0, setting.length)
    for covariance in (shift.data, shift.target, setting.dragged_data()):
        found = answers.hardness_by_level(setting, covariance)
        assert found @ np.array(sizes) / setting.dimension == pytest.approx(hardness(covariance, V0))


@pytest.mark.parametrize("setting", SETTINGS)
def test_one_direction_a_level_gives_the_curvature_of_all(setting: Setting) -> None:
    found, shift = answers.stability_map(setting), setting.shift()
    V0 = pretrained_operator(shift.sigma0, setting.length)
    radius = adaptation_radius(shift.sigma0, shift.delta, setting.length)
    for column in (0, 20, 40):
        target = shift.sigma0 + found.radii[column] / radius * shift.delta
        for k in (1, 4):
            whole = 2 / population_curvature(V0, target, k)[1]
            assert found.stable_step[k - 1, column] == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("setting", SETTINGS)
def test_learning_curves_end_where_the_stages_do(setting: Setting) -> None:
    dense = setting.model_copy(update={"reward": "dense", "chain_steps": 1})
    curves, choice = answers.learning_curves(setting), answers.stages(dense)
    rl = next(curve for curve in curves if curve.label == "RL, k = 1")
    assert rl.steps[-1] == setting.steps
    assert rl.errors[-1] == pytest.approx(choice.of("rl").error, rel=1e-9)
    if answers.dose(setting).prompts and choice.of("sft").error is not None:
        assert curves[0].errors[-1] == pytest.approx(choice.of("sft").error, rel=1e-9)


def test_what_a_function_ignores_does_not_make_it_work_again(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = SETTINGS[0]
    first = answers.dose(setting)
    monkeypatch.setattr(answers, "dose_of", None)
    assert answers.dose(setting.model_copy(update={"tolerance": 0.9, "levels": "1", "steps": 10})) is first
    with pytest.raises(TypeError):
        answers.dose(setting.model_copy(update={"rho": 0.77}))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_are_finite_json(setting: Setting, scheme: str) -> None:
    colors, choice, dose = palette(scheme), answers.stages(setting), answers.dose(setting)
    entries = allocations(setting, colors, planner=True)
    simulated = {"prompts": [1, 5], "mean": [1.0, 2.0], "sem": [None, 0.1], "seeds": 2}
    charts: list[dict[str, Any]] = [
        dose_chart(dose, setting.shift().data_rank, colors, simulated),
        curves_chart([("one", dose, colors.blue, "solid")], colors),
        allocation_chart(setting, entries, colors),
        spectra_chart(setting, colors),
        hardness_chart(setting, entries, colors),
        map_chart(answers.stability_map(setting), setting.chain_steps, colors),
        outlook_chart(choice, "error", colors),
        outlook_chart(choice, "pass_rate", colors),
        learning_chart(answers.learning_curves(setting), choice.of("none").error, setting.steps, colors),
    ]
    for chart in charts:
        json.dumps(chart, allow_nan=False)


@pytest.mark.parametrize("seeds", [2, 10])
def test_bars_of_simulated_points_are_95_percent_intervals(seeds: int) -> None:
    """Student's t of a few seeds: 2,000 normal samples are covered with a frequency within 0.02 of 0.95.

    The frequency's standard deviation is 0.005: right bars fail once in 10^4. 1.96 sem covers 0.70 and 0.92.
    """
    setting = SETTINGS[0]
    values = np.random.default_rng(0).standard_normal((seeds, 2000))
    sem = (values.std(axis=0, ddof=1) / np.sqrt(seeds)).tolist()
    points = {"prompts": list(range(2000)), "mean": values.mean(axis=0).tolist(), "sem": sem, "seeds": seeds}
    chart = dose_chart(answers.dose(setting), 10, palette("light"), points)
    bars = next(trace for trace in chart["data"] if trace["name"].startswith("simulated"))["error_y"]["array"]
    covered = np.abs(values.mean(axis=0)) <= np.array(bars)
    assert abs(covered.mean() - 0.95) < 0.02


@pytest.mark.parametrize(("low", "high"), [(0.08, 3.0), (0.4, 0.9), (1e-4, 20.0)])
def test_a_tick_of_a_logarithmic_axis_is_labelled_with_its_value(low: float, high: float) -> None:
    axis = error_axis(low, high)
    assert [float(text) for text in axis["ticktext"]] == axis["tickvals"]
    assert 3 <= len(axis["tickvals"]) <= 7


def test_a_count_beside_the_peak_does_not_set_the_range_of_errors() -> None:
    setting = Setting(
        dimension=60, share=0.3, rho=0.5, tilt=1, eta=1, interference=0.001, length=2000, max_prompts=50
    )
    dose = answers.dose(setting)
    beside = replace(dose, error_at_max=1e5)
    chart = dose_chart(beside, 50, palette("light"))
    assert chart["layout"]["yaxis"]["range"][1] < np.log10(20 * dose.error_before)


def test_the_axis_of_counts_reaches_the_largest_upload() -> None:
    assert counts_axis(1_000_000)["ticktext"][-1] == "1,000,000"


def test_a_dragged_handle_becomes_a_level() -> None:
    setting = SETTINGS[0]
    shift, levels = setting.shift(), [0.0] * 9
    moved = {"shapes[2].y0": 2 * shift.data[0], "shapes[2].y1": 2 * shift.data[0], "shapes[2].x0": 3.0}
    found = dragged_levels(moved, setting, levels)
    assert found is not None
    assert found == pytest.approx([0, 0, 1, 0, 0, 0, 0, 0, 0])
    assert dragged_levels({"shapes[8].y0": -1.0, "shapes[8].y1": -1.0}, setting, levels) == pytest.approx(
        [0] * 8 + [-4]
    )
    assert dragged_levels({"xaxis.range[0]": 1}, setting, levels) is None


def test_a_simulation_is_simulate_error() -> None:
    setting = SETTINGS[0]
    own = Simulation(setting, simulated_counts(setting))
    own.run()
    expected = simulate_error(setting.shift(), own.prompts, setting.length, seeds=SEEDS)
    points = own.points()
    assert points["seeds"] == SEEDS
    np.testing.assert_array_equal(points["mean"], expected.mean)
    np.testing.assert_array_equal(points["sem"], expected.sem)
    peak = setting.shift().data_rank
    assert all(abs(B - peak) > 2 for B in own.prompts)


def test_simulations_run_once_stop_and_say_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    setting, running = SETTINGS[0], Simulations()
    first = running.start(setting)
    assert running.start(setting.model_copy(update={"tolerance": 0.2})) is first
    assert running.find(setting) is first
    running.close()
    assert first.stopped.is_set()

    unseen = Simulation(setting, [1, 2], seen=-1e9)
    unseen.run()
    assert (unseen.curves, unseen.stopped.is_set()) == ([], True)

    stopped = Simulation(setting, [1, 2])
    stopped.stopped.set()
    stopped.run()
    assert stopped.finished
    assert stopped.curves == []

    def broken(*_: Any, **__: Any) -> None:
        msg = "no memory"
        raise MemoryError(msg)

    monkeypatch.setattr(simulations, "sft_error_curve", broken)
    failed = Simulation(setting, [1, 2])
    failed.run()
    assert failed.failure == "the simulation failed: no memory"


def test_too_many_waiting_simulations_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Simulations()
    monkeypatch.setattr(running._pool, "submit", lambda _: None)  # they all wait
    for rho in range(1, 6):
        running.start(SETTINGS[0].model_copy(update={"rho": rho / 10}))
    with pytest.raises(InputError, match="simulate: got one more simulation"):
        running.start(SETTINGS[0].model_copy(update={"rho": 0.9}))


def test_levels_ignore_what_is_not_there() -> None:
    # A shift of two directions has two levels: the other sliders do nothing.
    tiny = Setting(dimension=40, share=0.05, levels="1,1,1,1,0,0,0,0,-2")
    assert tiny.level_count == 2
    factor = tiny.dragged_data() / tiny.shift().data
    np.testing.assert_allclose(factor, np.repeat([2.0, 2.0, 0.25], [1, 1, 38]))
    assert len(answers.level_places(tiny)) == 3
    assert answers.dragged_dose(tiny).error > 0
    # Its third handle is the interference's, whose slider is the last one.
    moved = {"shapes[2].y0": 2 * tiny.interference, "shapes[2].y1": 2 * tiny.interference}
    assert dragged_levels(moved, tiny, [0.0] * 9) == pytest.approx([0] * 8 + [1])
