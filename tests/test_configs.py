"""Configuration files: what is accepted, and one clear error for what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from datadose.configs import Blocks, load_config, read_covariance, validate_config
from datadose.errors import InputError, number_hint
from datadose.planner.config import PlanConfig
from datadose.stages.config import TrainConfig

SAMPLES = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))


def document(**changes: Any) -> dict[str, Any]:
    """A small valid configuration, with top-level changes."""
    stage = {"stage": "sft", "length": 10, "prompts": 8, "steps": 3}
    base: dict[str, Any] = {
        "shift": {"sigma0": [0.1, 1.0, 1.0], "delta": [1.0, 0.0, 0.0]},
        "pretrain": {"length": 10},
        "stages": [stage],
        "test": {"length": 10, "prompts": 16},
    }
    return {**base, **changes}


def with_stage(**changes: Any) -> dict[str, Any]:
    stage = {"stage": "sft", "length": 10, "prompts": 8, "steps": 3, **changes}
    return document(stages=[{k: v for k, v in stage.items() if v is not None}])


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_sample_configurations_are_valid(path: Path) -> None:
    if "max_prompts" in path.read_text():
        assert load_config(path, PlanConfig).max_prompts > 0
    else:
        assert load_config(path, TrainConfig).stages


@pytest.mark.parametrize(
    ("field", "value", "given"),
    [
        ("sede", "unknown key", document(sede=3)),
        ("stages.0.chain_step", "unknown key", with_stage(chain_step=3)),
        ("shift.sigma1", "unknown key", document(shift={"sigma0": [1.0], "delta": [1.0], "sigma1": [1.0]})),
        ("seeds", "0", document(seeds=0)),
        ("seeds", "2.5", document(seeds=2.5)),
        ("stages.0.eta", "2", with_stage(eta=2)),
        ("stages.0.eta", "0", with_stage(eta=0)),
        ("stages.0.chain_steps", "-1", with_stage(chain_steps=-1)),
        ("stages.0", "chain_steps >= 1", with_stage(stage="outcome", chain_steps=0)),
        ("stages.0.stage", "ppo", with_stage(stage="ppo")),
        ("stages.0.learning_rate", "0", with_stage(learning_rate=0)),
        ("stages.0.learning_rate", "inf", with_stage(learning_rate=float("inf"))),
        ("stages.0.length", "0", with_stage(length=0)),
        ("stages.0.length", "is missing", with_stage(length=None)),
        ("stages.0", "got 9; allowed: at most prompts, 8", with_stage(batch=9)),
        ("stages.0", "epochs and steps: both are given", with_stage(epochs=3)),
        ("stages.0", "fresh where batch and steps are given", with_stage(prompts="fresh")),
        ("stages.0", "theorem", with_stage(learning_rate="theorem")),
        ("stages.0", "interference with data: aligned only", with_stage(interference=0.1)),
        ("stages.0.group", "1", with_stage(stage="rl", group=1)),
        ("test.prompts", "0", document(test={"length": 10, "prompts": 0})),
    ],
)
def test_bad_values_are_named(field: str, value: str, given: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        validate_config(given, TrainConfig)
    message = str(caught.value)
    assert caught.value.field.startswith(field)
    assert value in message
    assert "\n" not in message


def test_unknown_keys_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"keys .*chain_steps"):
        validate_config(with_stage(chain_step=3), TrainConfig)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [1, 2", "line"),
        ("- 1\n- 2", "list"),
        ("", "is empty; required: keys shift, pretrain, stages, test"),
        ("# only a comment\n", "is empty"),
        ("a: 1\nb: {", "line 2"),
    ],
)
def test_files_that_are_no_configuration(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(InputError, match=words):
        load_config(tmp_path / "c.yaml", TrainConfig)


def test_missing_files(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError, match="config"):
            load_config(path, TrainConfig)


def test_covariances_by_blocks_list_and_file(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.eye(3))
    np.testing.assert_allclose(
        read_covariance("f", Blocks(blocks=[(0.5, 2), (1.0, 1)]), tmp_path), [0.5, 0.5, 1]
    )
    np.testing.assert_allclose(read_covariance("f", [0.5, 1.0], tmp_path), [0.5, 1.0])
    np.testing.assert_allclose(read_covariance("f", "c.npy", tmp_path), np.eye(3))
    (tmp_path / "text.npy").write_text("not numbers")
    np.save(tmp_path / "bad.npy", -np.eye(3))
    for name, words in (("none.npy", "existing"), ("text.npy", "readable"), ("bad.npy", "eigenvalue")):
        with pytest.raises(InputError, match=words) as caught:
            read_covariance("shift.delta", name, tmp_path)
        assert caught.value.field == "shift.delta"


def test_the_old_name_of_thinking_steps_is_read_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """``test.steps`` had the name of the optimiser's steps."""
    old = validate_config(document(test={"length": 10, "steps": [1, 3]}), TrainConfig)
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert old == validate_config(document(test={"length": 10, "thinking_steps": [1, 3]}), TrainConfig)
    assert capsys.readouterr().err == ""
    both = {"length": 10, "steps": [1], "thinking_steps": [1]}
    with pytest.raises(InputError, match=r"test\.steps: unknown key"):
        validate_config(document(test=both), TrainConfig)


def test_dumped_configurations_load_again() -> None:
    config = validate_config(with_stage(stage="rl", reward="verifiable"), TrainConfig)
    again = validate_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))), TrainConfig)
    assert again == config


@pytest.mark.parametrize(
    ("value", "high", "whole", "hint"),
    [
        ("20%", 1.0, False, "write 0.2"),
        ("0,05", 1.0, False, "write 0.05"),
        ("1,000", 1e9, False, "write 1000"),
        ("1,000,000", 1e9, True, "write 1000000"),
        ("100", 1e9, True, "a text; write the number without quotes"),
        (50, 1.0, False, "a share: write 0.5 for 50 percent"),
        # What the hint would be is not allowed either, or is a guess.
        ("20%", 1e9, True, ""),
        ("150%", 1.0, False, ""),
        ("9" * 400 + "%", 1.0, False, ""),
        ("5,5", 9, True, ""),
        ("\u0661,\u0662", 9, False, ""),
    ],
)
def test_a_number_in_another_writing_is_named(value: object, high: float, whole: bool, hint: str) -> None:
    assert number_hint(value, high, whole=whole) == hint
