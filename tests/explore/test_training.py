"""The explorer's numbers over training time and on a pool are the theory's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from datadose import predict_curve, predict_error
from datadose.errors import InputError
from datadose.explore import answers, training
from datadose.explore.marks import palette
from datadose.explore.setting import FIRST, LAST, LEAST_WEIGHT, WEIGHTS, Setting
from datadose.explore.training_charts import pool_chart, prompts_chart, time_chart
from datadose.theory import Source, Stopping, WeightedTest, best_time, trained_on_shift
from datadose.theory.effective_weights import EffectiveSources
from datadose.theory.tuned_weights import tuned_weights

SETTINGS = [
    Setting(dimension=60, length=60, max_prompts=150, time=20.0),
    Setting(dimension=80, share=0.25, tilt=1.0, interference=0.0, length=50, max_prompts=300),
    Setting(dimension=60, share=1.0, tilt=0.5, rho=0.5, length=200, max_prompts=100, time=300.0),
]
AT_PEAK = Setting(dimension=60, max_prompts=60, length=60)


def _best(setting: Setting, B: float) -> float:
    """The theory's own error at the best time of B prompts."""
    shift, n = setting.shift(), setting.length
    source = Source(shift.data, n, B)
    return best_time(
        answers.error_model(setting).V0, shift.eta, [source], WeightedTest.of(shift.target, n)
    ).error


@pytest.mark.parametrize("setting", SETTINGS)
def test_errors_over_time_are_the_theorys(setting: Setting) -> None:
    run, shift, B, n = training.long_run(setting), setting.shift(), setting.max_prompts, setting.length
    assert len(run.times) > 15
    for place in (0, 10, -1):
        time = float(run.times[place])
        assert run.target[place] == pytest.approx(predict_error(shift, B, n, time=time), rel=1e-9)
        known = trained_on_shift(shift, B, n, Stopping(time=time)).error(shift.sigma0, n)
        assert run.known[place] == pytest.approx(known, rel=1e-9)
    assert run.converged is not None
    assert run.converged.target == pytest.approx(predict_error(shift, B, n), rel=1e-9)
    assert run.before.target == pytest.approx(predict_error(shift, 0, n), rel=1e-9)
    assert run.best.error == pytest.approx(_best(setting, B), rel=1e-4)
    best = Stopping(time=run.best.time)
    assert run.at_best.known == pytest.approx(trained_on_shift(shift, B, n, best).error(shift.sigma0, n))


@pytest.mark.parametrize("setting", SETTINGS)
def test_errors_over_prompts_are_the_theorys(setting: Setting) -> None:
    shift, n, stopped = setting.shift(), setting.length, training.at_best_times(setting)
    assert stopped.prompts[-1] == setting.max_prompts
    expected = [_best(setting, B) for B in stopped.prompts]
    np.testing.assert_allclose(stopped.errors, expected, rtol=1e-3)
    # As the prompts grow the best time's error falls to the ceiling.
    assert training.ceiling(setting) == pytest.approx(_best(setting, 1e8), rel=1e-3)
    timed = training.at_one_time(setting)
    if setting.time == LAST:
        assert timed is None
    else:
        assert timed is not None
        curve = predict_curve(shift, timed.prompts, n, time=setting.time)
        np.testing.assert_allclose(timed.errors, curve, rtol=1e-9)


def test_the_end_of_the_slider_is_convergence() -> None:
    setting = SETTINGS[1]
    shift, B, n = setting.shift(), setting.max_prompts, setting.length
    now = training.at_time(setting)
    assert now is not None
    assert now.target == pytest.approx(predict_error(shift, B, n), rel=1e-9)
    timed = training.at_time(setting.model_copy(update={"time": 7.0}))
    assert timed is not None
    assert timed.target == pytest.approx(predict_error(shift, B, n, time=7.0), rel=1e-9)
    assert training.at_time(AT_PEAK) is None
    assert training.long_run(AT_PEAK).converged is None


def test_a_move_of_the_time_computes_no_curve_again(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = SETTINGS[0]
    first, stopped = training.long_run(setting), training.at_best_times(setting)
    for name in ("best_time", "best_time_curve"):
        monkeypatch.setattr(training, name, None)
    later = setting.model_copy(update={"time": 3.0, "weight_even": 0.5})
    assert training.long_run(later) is first
    assert training.at_best_times(later) is stopped
    assert answers.dose(later) is answers.dose(setting)
    assert training.at_time(later) != training.at_time(setting)


@pytest.mark.parametrize("levels", ["", "1,0,-1"])
def test_the_pool_is_weighed_as_its_sliders_say(levels: str) -> None:
    setting = Setting(dimension=60, length=60, max_prompts=150, levels=levels)
    sources, V0 = training.pool(setting), answers.error_model(setting).V0
    assert [source.prompts for source in sources] == [37, 150, 150]
    np.testing.assert_array_equal(sources[0].covariance, setting.dragged_data())
    test = WeightedTest.of(setting.shift().target, 60)
    moved = setting.model_copy(update={"weight_replay": 0.2, "weight_even": LEAST_WEIGHT})
    found = training.weighed(moved)
    assert found.weights == (1.0, 0.2, 0.0)
    assert found.shares == pytest.approx([37 / 67, 30 / 67, 0])
    best = best_time(V0, setting.eta, sources, test, weights=[1.0, 0.2, 0.0])
    assert found.best.error == pytest.approx(best.error, rel=1e-4)
    equal = training.equally_weighed(moved)
    assert equal.weights == (1.0, 1.0, 1.0)
    assert equal.best.error == pytest.approx(best_time(V0, setting.eta, sources, test).error, rel=1e-4)
    tuned = training.tuned(moved)
    assert tuned is not None
    expected = tuned_weights(EffectiveSources.of(V0, setting.eta, sources), test)
    assert tuned.weights == pytest.approx(expected.weights)


def test_a_pool_without_sources_is_refused_and_one_that_only_harms_has_no_weights() -> None:
    with pytest.raises(InputError, match="weights: got"):
        training.weighed(SETTINGS[0].model_copy(update=dict.fromkeys(WEIGHTS, LEAST_WEIGHT)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("setting", [*SETTINGS, AT_PEAK])
def test_charts_show_the_best_time_the_slider_and_the_ceiling(setting: Setting, scheme: str) -> None:
    colors, run, ceiling = palette(scheme), training.long_run(setting), training.ceiling(setting)
    over_time = time_chart(run, ceiling, setting.time, training.at_time(setting), colors)
    over_prompts = prompts_chart(
        answers.dose(setting),
        training.at_best_times(setting),
        training.at_one_time(setting),
        ceiling,
        setting.time,
        colors,
    )
    entries = [("equal", training.equally_weighed(setting), colors.blue, "dash")]
    of_pool = pool_chart(entries, run.before.target, colors)
    for chart in (over_time, over_prompts, of_pool):
        json.dumps(chart, allow_nan=False)
        for name in ("xaxis", "yaxis"):
            low, high = chart["layout"][name]["range"]
            assert low < high
    traces = {trace["name"]: trace for trace in over_time["data"]}
    best = traces["best time"]
    assert best["y"] == [run.best.error]
    end = over_time["layout"]["xaxis"]["tickvals"][-1]
    if run.best.time is not None and FIRST < run.best.time < LAST:
        assert 10 ** best["x"][0] == pytest.approx(run.best.time)
    line = over_time["layout"]["shapes"][-1]
    assert line["x0"] == pytest.approx(end if setting.time == LAST else np.log10(setting.time))
    for chart in (over_time, over_prompts):
        assert _line(chart, "ceiling")["y"] == [ceiling, ceiling]
    assert _line(over_prompts, "at the best time")["y"][-1] == training.at_best_times(setting).errors[-1]


def _line(chart: dict[str, Any], name: str) -> dict[str, Any]:
    return next(trace for trace in chart["data"] if trace["name"] == name)
