"""A setting of the explorer: its address, its shift, its SHIFT.yaml."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datadose import InputError, Shift, plan
from datadose.explore.page import limits
from datadose.explore.setting import GROUPS, WEIGHTS, Setting, make_setting, read_query
from datadose.planner import plan_file
from datadose.theory import Stopping

SLIDERS = ("share", "rho", "tilt", "interference", "eta", "length", "max_prompts", "dimension", "chain_steps")
SLIDERS += ("time", *WEIGHTS)


@st.composite
def any_setting(draw: st.DrawFn) -> Setting:
    values: dict[str, float] = {}
    for name in SLIDERS:
        low, high = limits(name)
        whole = Setting.model_fields[name].annotation is int
        values[name] = draw(
            st.integers(int(low), int(high)) if whole else st.floats(low, high).map(lambda x: round(x, 4))
        )
    return make_setting(values)


@given(any_setting())
@settings(max_examples=50, deadline=None)
def test_an_address_holds_the_whole_setting(setting: Setting) -> None:
    assert read_query("?" + setting.query()) == (setting, "")


@given(any_setting())
@settings(max_examples=50, deadline=None)
def test_levels_average_to_the_papers_shift(setting: Setting) -> None:
    shift, m = setting.shift(), setting.shifted
    assert shift.delta[:m].mean() == pytest.approx(1.0)
    assert not shift.delta[m:].any()
    assert setting.group_sizes().sum() == m
    assert len(np.unique(shift.delta[:m])) <= GROUPS


def test_without_unevenness_it_is_the_papers_shift() -> None:
    setting = Setting(dimension=80, share=0.25, rho=0.3, eta=0.4, interference=0.05)
    ours, paper = setting.shift(), Shift.two_block(80, 20, 0.3, 0.4, 0.05)
    for name in ("sigma0", "delta", "data"):
        np.testing.assert_allclose(getattr(ours, name), getattr(paper, name), rtol=1e-15)


def test_levels_scale_the_data_they_name() -> None:
    setting = Setting(dimension=80, share=0.5, tilt=1.0, levels="1,0,0,0,0,0,0,-2,0.5")
    factor = setting.dragged_data() / setting.shift().data
    np.testing.assert_allclose(factor[:5], 2.0)
    np.testing.assert_allclose(factor[5:35], 1.0)
    np.testing.assert_allclose(factor[35:40], 0.25)
    np.testing.assert_allclose(factor[40:], 2**0.5)


@pytest.mark.parametrize(("share", "tilt"), [(0.3, 0.0), (0.5, 1.3), (1.0, 0.7)])
def test_its_yaml_plans_the_same(tmp_path: Path, share: float, tilt: float) -> None:
    setting = Setting(dimension=60, share=share, tilt=tilt, length=80, max_prompts=150, chain_steps=2)
    (tmp_path / "shift.yaml").write_text(setting.shift_yaml())
    found = plan_file(tmp_path / "shift.yaml")
    expected = plan(setting.shift(), length=80, max_prompts=150, training=setting.training())
    assert found.prompts == expected.prompts
    # Levels are written with six digits.
    assert found.predicted_error == pytest.approx(expected.predicted_error, rel=1e-4)
    assert found.recommendation == expected.recommendation


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?eta=7", "eta: got 7"),
        ("?rho=abc", "rho: got abc"),
        ("?nonsense=1", "nonsense: unknown key"),
        ("?reward=gold", "reward: got gold"),
        ("?levels=a,b", "levels: got a,b"),
        ("?levels=0,9", "levels: got 0,9; allowed: numbers in [-4, 2]"),
        ("?dimension=1e9", "dimension"),
        ("?time=0", "time: got 0"),
        ("?weight_even=2", "weight_even: got 2"),
    ],
)
def test_a_bad_address_names_its_fault_and_keeps_the_rest(query: str, names: str) -> None:
    setting, complaint = read_query(query + "&share=0.7")
    assert names in complaint
    assert setting == Setting(share=0.7)


def test_the_ends_of_time_and_weights_mean_convergence_and_nothing() -> None:
    assert Setting().stopping() == Stopping()
    assert Setting(time=50.0).stopping() == Stopping(time=50.0)
    assert Setting().weights() == [1.0, 1.0, 1.0]
    assert Setting(weight_replay=0.001, weight_even=0.002).weights() == [1.0, 0.0, 0.002]


def test_an_emptied_field_is_named() -> None:
    with pytest.raises(InputError, match="rho: got nothing"):
        make_setting({"rho": None})


def test_the_page_opens_on_the_memo_about_too_much_data() -> None:
    found = plan_file(Path(__file__).parents[2] / "configs" / "memos" / "too_much_sft.yaml")
    setting = Setting()
    opened = plan(
        setting.shift(), length=setting.length, max_prompts=setting.max_prompts, training=setting.training()
    )
    assert opened.to_json() == found.to_json()
