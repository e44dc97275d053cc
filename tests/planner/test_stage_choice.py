"""Which stage: the gate of a verifiable reward, what is offered, and the sentence."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.planner import Plan, PostTraining, plan
from datadose.shift import Shift

STAGES = ("none", "sft", "rl", "sft then rl")
NEAR = Shift.aligned(np.repeat([0.6, 1.0], [10, 20]), np.repeat([0.5, 0.0], [10, 20]), 0.3)
FAR = Shift.aligned(np.repeat([0.05, 1.0], [10, 20]), np.repeat([1.0, 0.0], [10, 20]), 0.3)


def planned(shift: Shift, **training: object) -> Plan:
    return plan(shift, 240, 150, training=PostTraining(**training))  # type: ignore[arg-type]


@pytest.mark.parametrize("shift", [NEAR, FAR], ids=["near", "far"])
@pytest.mark.parametrize("reward", ["dense", "verifiable"])
def test_the_four_outlooks(shift: Shift, reward: str) -> None:
    found = planned(shift, reward=reward, tolerance=0.5)
    stages = found.stages
    assert stages is not None
    assert tuple(outlook.stage for outlook in stages.outlooks) == STAGES
    assert stages.of("none").error == pytest.approx(found.error_before)
    assert stages.of("sft").demonstrations == found.prompts
    assert stages.of("rl").demonstrations == 0
    assert stages.of("rl").outcome_prompts == 150
    assert all(0 <= outlook.pass_rate <= 1 for outlook in stages.outlooks)
    assert stages.stage in STAGES
    assert found.recommendation == stages.reason
    assert stages.regime == ("incremental" if stages.spectral_radius < 1 else "novel")
    assert stages.is_exact
    assert stages.stable_step > 0


def test_the_radius_tells_the_regime() -> None:
    assert (planned(NEAR).regime, planned(FAR).regime) == ("incremental", "novel")


def test_a_reward_that_is_never_paid_teaches_nothing() -> None:
    """Far away and strict: RL has no signal and hardly moves; SFT first is what is recommended."""
    stages = planned(FAR, reward="verifiable", tolerance=0.4).stages
    assert stages is not None
    rl, none = stages.of("rl"), stages.of("none")
    assert none.pass_rate < 1e-3
    assert not rl.has_signal
    assert rl.error == pytest.approx(none.error, rel=0.06)
    assert stages.stage in ("sft", "sft then rl")
    assert "no signal" in stages.reason or "lacks" in stages.reason


def test_a_reward_that_is_paid_teaches() -> None:
    """The same shift judged leniently, or a dense reward: RL moves."""
    for training in ({"reward": "verifiable", "tolerance": 40.0}, {"reward": "dense"}):
        stages = planned(FAR, **training).stages
        assert stages is not None
        assert stages.of("rl").has_signal
        assert stages.of("rl").error < stages.of("none").error


def test_an_error_must_fall_by_two_percent() -> None:
    """A shift of a thousandth: nothing is worth a stage."""
    shift = Shift.aligned(np.ones(30), np.repeat([1e-3, 0.0], [10, 20]), 0.3)
    found = plan(shift, 100_000, 5)
    assert found.stages is not None
    assert found.stages.stage == "none"
    assert "no stage" in found.recommendation


def test_longer_chains_are_told_for_long_prompts() -> None:
    stages = planned(NEAR, chain_steps=3).stages
    assert stages is not None
    assert not stages.is_exact
    assert stages.of("rl").error < stages.of("none").error
    steps = [planned(FAR, chain_steps=k).stages for k in (1, 2)]
    assert steps[0] is not None
    assert steps[1] is not None
    assert steps[1].stable_step < steps[0].stable_step
