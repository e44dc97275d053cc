"""Which stage: the gate of a verifiable reward, what is offered, and the sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datadose.planner import ErrorModel, Outlook, Plan, PostTraining, plan, stage_problem
from datadose.planner.stage_choice import Forecast, forecast_stages, show_pass_rate
from datadose.prompts import draw_moments
from datadose.shift import Shift
from datadose.theory.post_test import quadratic_error
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source

STAGES = ("none", "sft", "rl", "sft then rl")
NEAR = Shift.aligned(np.repeat([0.6, 1.0], [10, 20]), np.repeat([0.5, 0.0], [10, 20]), 0.3)
FAR = Shift.aligned(np.repeat([0.05, 1.0], [10, 20]), np.repeat([1.0, 0.0], [10, 20]), 0.3)


def planned(shift: Shift, **training: object) -> Plan:
    return plan(shift, length=240, max_prompts=150, training=PostTraining(**training))  # type: ignore[arg-type]


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
    assert all(o.pass_rate is None or 0 <= o.pass_rate <= 1 for o in stages.outlooks)
    assert stages.stage in STAGES
    assert found.recommendation == stages.reason
    assert stages.regime == ("incremental" if stages.spectral_radius < 1 else "novel")
    assert stages.is_exact
    assert stages.stable_step is not None
    assert stages.stable_step > 0


def test_the_radius_tells_the_regime() -> None:
    assert (planned(NEAR).regime, planned(FAR).regime) == ("incremental", "novel")


def test_a_reward_that_is_never_paid_teaches_nothing() -> None:
    """Far away and strict: RL has no signal and hardly moves; SFT first is what is recommended."""
    stages = planned(FAR, reward="verifiable", tolerance=0.4).stages
    assert stages is not None
    rl, none = stages.of("rl"), stages.of("none")
    assert none.pass_rate is not None
    assert none.pass_rate < 1e-3
    assert not rl.has_signal
    assert rl.error == pytest.approx(none.error, rel=0.06)
    assert stages.stage in ("sft", "sft then rl")
    assert "no signal" in stages.reason or "lacks" in stages.reason


def forecasts(shift: Shift, **training: object) -> dict[str, Forecast]:
    """What the formulas say, whether the plan tells it or not; 20 demonstrations, 150 prompts."""
    recipe = PostTraining(**training)  # type: ignore[arg-type]
    model = ErrorModel(
        pretrained_operator(shift.sigma0, 240), shift.eta, shift.target, 240, recipe.chain_steps
    )
    ground, columns = stage_problem(shift, model, [model.columns(Source(shift.data, 240, 20))], recipe)
    return {found.stage: found for found in forecast_stages(ground, columns, 150)}


def test_a_reward_that_is_paid_teaches() -> None:
    """The same shift judged leniently, or a dense reward: RL moves."""
    for training in ({"reward": "verifiable", "tolerance": 40.0}, {"reward": "dense"}):
        found = forecasts(FAR, **training)
        assert found["rl"].has_signal
        assert found["rl"].error < found["none"].error


BOTH = {"error", "pass_rate"}


@pytest.mark.parametrize(
    ("shift", "training", "withheld"),
    [
        (NEAR, {"reward": "dense"}, set()),
        (FAR, {"reward": "verifiable", "tolerance": 0.4}, set()),
        (NEAR, {"reward": "verifiable", "tolerance": 1.5}, BOTH),
        (NEAR, {"reward": "verifiable", "tolerance": 1.5, "chain_steps": 3}, BOTH),
        (NEAR, {"reward": "dense", "chain_steps": 2}, BOTH),
        (FAR, {"reward": "dense", "chain_steps": 2}, BOTH),
    ],
    ids=["theorem", "no signal", "paid", "paid, k = 3", "k = 2, near", "k = 2, far"],
)
def test_what_no_theorem_covers_is_withheld_and_not_quoted(
    shift: Shift, training: dict[str, object], withheld: set[str]
) -> None:
    """RL with longer chains, and RL that a verifiable reward moves; the untouched model is always told."""
    found = planned(shift, **training)
    assert found.stages is not None
    rl = found.stages.of("rl")
    assert {name for name in BOTH if getattr(rl, name) is None} == withheld
    assert (rl.note is None) == (not withheld)
    for stage in ("none", "sft"):
        assert {name for name in BOTH if getattr(found.stages.of(stage), name) is None} == set()
    if withheld:
        assert found.stages.of("sft then rl").error is None
        assert "is not forecast" in found.recommendation
        for quoted in ("it promises", "the two promise", "prompts promises"):
            assert quoted not in found.recommendation
    document = found.to_json()["stages"]
    assert [o["note"] for o in document["outlooks"]] == [o.note for o in found.stages.outlooks]
    assert found.stages.steps_needed is None or training.get("chain_steps", 1) == 1


def test_an_error_far_from_its_limit_is_withheld() -> None:
    """Eight demonstrations over five directions: descent on 200 samples comes to 1.4 times the asymptotics.

    The standard error of that mean is .05 of it, so 1.2 is 4 of them away (probability below 1e-4).
    """
    shift = Shift.aligned(np.repeat([0.1, 1.0], [5, 35]), np.repeat([1.0, 0.0], [5, 35]), 0.2)
    n, B, T = 400, 8, 250
    model = ErrorModel(pretrained_operator(shift.sigma0, n), 0.2, shift.target, n)
    columns = [model.columns(Source(shift.data, n, B))]
    ground, columns = stage_problem(shift, model, columns, PostTraining(steps=T))
    forecast = forecast_stages(ground, columns, 2000)[1]
    errors = []
    for seed in range(200):
        drawn = draw_moments(shift.data, n, B, seed=seed)
        values, vectors = np.linalg.eigh(drawn.phi @ drawn.phi.T)
        kept = (1 - np.clip(values, 0, None) / values[-1]) ** T
        gone = np.where(values > 1e-9 * values[-1], (1 - kept) / np.maximum(values, 1e-300), T / values[-1])
        start = np.diag(model.V0) @ (vectors * kept)
        V = (start - 0.2 * drawn.weights @ drawn.phi.T @ (vectors * gone)) @ vectors.T
        errors.append(quadratic_error(V, shift.target, model.test_second_moment))
    assert float(np.mean(errors)) > 1.2 * forecast.error
    told = Outlook.of(forecast, ground.training)
    assert told.error is None
    assert told.pass_rate == forecast.pass_rate
    assert told.note is not None
    many = replace(forecast, correction=0.05)
    assert Outlook.of(many, ground.training).error == forecast.error


def test_tiny_pass_rates_are_said_in_words() -> None:
    assert [show_pass_rate(rate) for rate in (4.0934e-73, 0.0, 0.00123, 0.95, 1.0)] == [
        "< 0.001", "< 0.001", "0.00123", "0.95", "1",
    ]  # fmt: skip


def test_an_error_must_fall_by_two_percent() -> None:
    """A shift of a thousandth: nothing is worth a stage."""
    shift = Shift.aligned(np.ones(30), np.repeat([1e-3, 0.0], [10, 20]), 0.3)
    found = plan(shift, length=100_000, max_prompts=5)
    assert found.stages is not None
    assert found.stages.stage == "none"
    assert "no stage" in found.recommendation


def test_longer_chains_are_followed_on_long_prompts() -> None:
    stages = planned(NEAR, chain_steps=3).stages
    assert stages is not None
    assert not stages.is_exact
    known = forecasts(NEAR, chain_steps=3)
    assert known["rl"].error < known["none"].error
    assert (stages.stable_step, stages.steps_needed) == (None, None)
    # How far such advice is to be trusted is said.
    one = planned(NEAR).stages
    assert stages.order_right is not None
    assert one is not None
    assert one.order_right is not None
    assert stages.order_right < one.order_right < 1
    assert f"right in {stages.order_right:.0%} of test cases" in stages.reason
    assert "test cases" not in one.reason


def test_what_rl_of_longer_chains_does_on_short_prompts_is_not_told() -> None:
    """No stage is recommended: at d = 20, n = 60, B = 40, k = 3 the forecast had the wrong sign."""
    shift = Shift.aligned(np.repeat([0.3, 1.0], [8, 12]), np.repeat([1.0, 0.0], [8, 12]), 0.2, 0.02)
    found = plan(shift, length=60, max_prompts=40, training=PostTraining(3, 300))
    stages = found.stages
    assert stages is not None
    assert (stages.stage, stages.order_right) == (None, None)
    assert {stages.of(stage).error for stage in ("rl", "sft then rl")} == {None}  # type: ignore[arg-type]
    sft = stages.of("sft").error
    assert sft is not None
    assert "is not known" in found.recommendation
    for known in (found.error_before, sft):
        assert f"error {known:.3g}" in found.recommendation
    # What is not paid does not move, and long prompts are followed.
    unpaid = PostTraining(3, 300, "verifiable", tolerance=0.01)
    for length, training in ((60, unpaid), (80, PostTraining(3, 300))):
        told = plan(shift, length=length, max_prompts=40, training=training).stages
        assert told is not None
        assert told.stage is not None


def test_a_stage_that_diverges_is_not_offered() -> None:
    """The rate is stable for SFT, whose data are smaller, and far from it for outcome supervision."""
    stages = planned(NEAR).stages
    assert stages is not None
    assert stages.stable_step is not None
    told = planned(NEAR, learning_rate=2 * stages.stable_step).stages
    assert told is not None
    for stage in ("rl", "sft then rl"):
        outlook = told.of(stage)  # type: ignore[arg-type]
        assert (outlook.error, outlook.pass_rate) == (None, None)
        assert outlook.note is not None
        assert "diverges" in outlook.note
    assert told.stage in ("none", "sft")
    assert told.of("sft").error is not None
    assert (told.stable_step, told.steps_needed) == (stages.stable_step, None)
