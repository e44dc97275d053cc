"""Old names work for one release and say what the new name is."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import datadose.stages
from datadose.models.baselines import pretrained_lsa


@pytest.mark.parametrize("module", ["datadose.stages", "datadose.stages.rl"])
def test_old_names_serve_the_new_things_with_a_warning(module: str) -> None:
    old = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=rf"{module}\.Rl is now .*PolicyGradient") as caught:
        assert old.Rl is datadose.stages.PolicyGradient
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("module", "name", "home"),
    [
        ("datadose.configs", "PlanConfig", "datadose.planner.config"),
        ("datadose.configs", "TrainConfig", "datadose.stages.config"),
        ("datadose.stages.engine", "FixedData", "datadose.stages.data"),
        ("datadose.stages.engine", "Optimiser", "datadose.stages.optimisation"),
    ],
)
def test_names_that_moved_are_served_where_they_were(module: str, name: str, home: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{name} is now {home}.{name}"):
        old = getattr(importlib.import_module(module), name)
    assert old is getattr(importlib.import_module(home), name)


def test_the_post_test_still_takes_its_steps_by_their_old_name() -> None:
    model = pretrained_lsa(np.ones(4), 10)
    batch = datadose.stages.held_out_prompts(np.ones(4), 10, 8)
    with pytest.warns(DeprecationWarning, match="thinking_steps now"):
        old = datadose.stages.post_test(model, batch, steps=[1, 2])
    assert torch.equal(old, datadose.stages.post_test(model, batch, [1, 2]))


@pytest.mark.parametrize("module", ["datadose", "datadose.simulation.curves"])
def test_a_simulated_curve_is_found_under_its_old_name(module: str) -> None:
    with pytest.warns(DeprecationWarning, match=r"SimulatedError is now .*SimulatedCurve") as caught:
        assert importlib.import_module(module).SimulatedError is datadose.SimulatedCurve
    assert caught[0].filename == __file__


def test_other_names_are_missing_as_ever() -> None:
    with pytest.raises(AttributeError, match=r"module 'datadose\.stages' has no attribute 'Ppo'"):
        _ = datadose.stages.Ppo


def test_a_module_that_moved_is_found_under_its_old_name() -> None:
    new = importlib.import_module("datadose.simulation.curves")
    sys.modules.pop("datadose.curves", None)
    with pytest.warns(
        DeprecationWarning, match=r"datadose\.curves is now datadose\.simulation\.curves"
    ) as caught:
        old = importlib.import_module("datadose.curves")
    assert old is new
    assert new.__spec__ is not None
    assert new.__spec__.name == new.__name__
    assert all(Path(one.filename).name != "deprecation.py" for one in caught)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("datadose.figures")
