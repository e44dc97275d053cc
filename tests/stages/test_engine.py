"""The training loop: theory's iterates, resume, interrupts, kills, divergence, clipping."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from datadose.errors import InputError
from datadose.models import BlockLinearAttention, ChainModel, LinearAttention, PromptBatch
from datadose.prompts import draw_prompts
from datadose.stages import (
    FixedData,
    Optimisation,
    Outcome,
    Sft,
    Training,
    train,
)
from datadose.stages.checkpoint import save_checkpoint, save_weights
from datadose.studies.theorems.sft_checks import random_shift
from datadose.theory import GradientDescent, pretrained_operator
from helpers.command import PATIENCE
from helpers.stage_examples import (
    CASES,
    RUNS,
    B,
    D,
    N,
    dense_model,
    interrupt_at,
    same,
    scaled_runs,
    start,
)


@pytest.mark.parametrize("k", [0, 3])
def test_gradient_descent_follows_theorem_4_2(k: int) -> None:
    """V~ after 1, 7 and 40 steps against the closed form, two runs with their own prompts; float64."""
    shift = random_shift(D, 0)
    V0 = pretrained_operator(shift.sigma0, N)
    prompts = [draw_prompts(shift.data, N, 6, seed=s) for s in range(RUNS)]
    batch = PromptBatch.from_inputs(
        torch.from_numpy(np.stack([p.inputs for p in prompts])),
        torch.from_numpy(np.stack([p.weights for p in prompts])),
    )
    descents = [GradientDescent.of(p.moments, shift.eta, V0, k) for p in prompts]
    step = 0.9 * min(descent.largest_step for descent in descents)
    for t in (1, 7, 40):
        model = BlockLinearAttention(torch.from_numpy(np.stack([V0] * RUNS)), train_attention=False)
        train(model, Sft(shift.eta, k), FixedData(batch), Optimisation("gd", step, steps=t))
        for V, descent in zip(model.V.detach().numpy(), descents, strict=True):
            np.testing.assert_allclose(V, descent.iterate(step, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_interrupted_and_resumed_is_uninterrupted(name: str, tmp_path: Path) -> None:
    """Ctrl-C after steps 5 and 7: parameters and history bit for bit those of 12 steps in a row."""
    objective, data, optimisation = CASES[name]
    whole, broken = dense_model(), dense_model()
    expected = train(whole, objective, data, optimisation, record_every=2)
    assert expected.steps == 12
    path = tmp_path / "state.safetensors"
    for stop in (5, 7):
        with pytest.raises(KeyboardInterrupt):
            train(
                broken,
                objective,
                data,
                optimisation,
                record_every=2,
                checkpoint=path,
                progress=interrupt_at(stop),
            )
        broken = dense_model()
    found = train(broken, objective, data, optimisation, record_every=2, checkpoint=path)
    assert found == expected
    assert same(broken, whole)
    calls: list[int] = []
    done = dense_model()
    again = train(
        done,
        objective,
        data,
        optimisation,
        record_every=2,
        checkpoint=path,
        progress=lambda step, total: calls.append(step),
    )
    assert again == expected  # a finished stage is loaded, not trained again
    assert same(done, whole)
    assert calls == []


def test_interrupt_within_a_step_resumes_alike(tmp_path: Path) -> None:
    """Ctrl-C arrives anywhere, here inside the backward pass of step 5."""
    objective, data, optimisation = CASES["adam"]
    whole, broken = dense_model(), dense_model()
    expected = train(whole, objective, data, optimisation, record_every=1)
    path, calls = tmp_path / "state.safetensors", [0]

    def interrupt(gradient: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == 6:
            raise KeyboardInterrupt
        return gradient

    broken.V.register_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(broken, objective, data, optimisation, record_every=1, checkpoint=path)
    resumed = dense_model()
    found = train(resumed, objective, data, optimisation, record_every=1, checkpoint=path)
    assert same(resumed, whole)
    assert [row["step"] for row in found.history] == list(range(12))
    assert found == expected


def test_interrupt_within_an_update_resumes_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the optimiser's update and the step counter: the update must not be made twice."""
    objective, data, optimisation = CASES["adam"]
    whole, broken = dense_model(), dense_model()
    expected = train(whole, objective, data, optimisation)
    path, calls = tmp_path / "state.safetensors", [0]
    update = torch.optim.Adam.step

    def interrupted(self: torch.optim.Adam, *arguments: object) -> object:
        calls[0] += 1
        result = update(self, *arguments)
        if calls[0] == 6:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(broken, objective, data, optimisation, checkpoint=path, checkpoint_every=1)
    resumed = dense_model()
    found = train(resumed, objective, data, optimisation, checkpoint=path)
    assert found == expected
    assert same(resumed, whole)


def test_checkpoint_every_keeps_the_latest_multiple(tmp_path: Path) -> None:
    """What a killed process leaves: the state at the last multiple, not one of another step."""
    objective, data, optimisation = CASES["adam"]
    path, copies = tmp_path / "state.safetensors", {}

    def copy(step: int, total: int) -> None:
        copies[step] = path.read_bytes() if path.is_file() else None

    whole = dense_model()
    expected = train(whole, objective, data, optimisation, checkpoint=path, checkpoint_every=5, progress=copy)
    assert {step: copies[step] is not None for step in (1, 5, 6, 12)} == {
        1: False,
        5: False,
        6: True,
        12: True,
    }
    assert copies[6] == copies[10] != copies[11]
    for step in (6, 11):  # progress runs before the write of its own step
        path.write_bytes(copies[step])
        resumed = dense_model()
        assert train(resumed, objective, data, optimisation, checkpoint=path) == expected
        assert same(resumed, whole)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def saved(path: Path, model: ChainModel) -> None:
    _, data, optimisation = CASES["adam"]
    plan = {**asdict(optimisation), "total_steps": optimisation.total_steps(data.prompts)}
    save_checkpoint(path, model, optimisation.build(model), plan, Training())


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "not safetensors", "other shape", "other model", "weights"]
)
def test_bad_checkpoints_are_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    saved(path, dense_model())
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "not safetensors":
        path.write_text("{}" * 100)
    elif damage == "other shape":
        saved(path, LinearAttention(torch.eye(D + 1).expand(RUNS, D + 1, D + 1)))
    elif damage == "other model":
        saved(path, BlockLinearAttention(torch.eye(D).expand(RUNS, D, D)))
    else:
        save_weights(path, dense_model())
    objective, data, optimisation = CASES["adam"]
    before, model = path.read_bytes(), dense_model()
    with pytest.raises(InputError, match=r"state\.safetensors") as caught:
        train(model, objective, data, optimisation, checkpoint=path)
    assert caught.value.field == "checkpoint"
    assert path.read_bytes() == before
    assert same(model, dense_model())


def test_a_checkpoint_of_a_longer_stage_is_refused(tmp_path: Path) -> None:
    """As the docstring of ``train`` says: 12 steps done are not a stage of 4."""
    objective, data, _ = CASES["gd"]
    path = tmp_path / "state.safetensors"
    train(dense_model(), objective, data, Optimisation("gd", 0.01, steps=12), checkpoint=path)
    with pytest.raises(InputError, match=r"state\.safetensors"):
        train(dense_model(), objective, data, Optimisation("gd", 0.01, steps=4), checkpoint=path)


def test_a_checkpoint_of_another_optimiser_is_refused(tmp_path: Path) -> None:
    """Adam without its moments, at step 5, is no continuation of anything."""
    objective, data, _ = CASES["gd"]
    path = tmp_path / "state.safetensors"
    train(dense_model(), objective, data, Optimisation("gd", 0.01, steps=5), checkpoint=path)
    with pytest.raises(InputError, match=r"state\.safetensors"):
        train(dense_model(), objective, data, Optimisation("adam", 0.01, steps=10), checkpoint=path)


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np, torch, torch._dynamo
from datadose.models import LinearAttention, PromptBatch
from datadose.stages import FixedData, Optimisation, Outcome, train
from datadose.stages.checkpoint import load_weights, save_weights

folder, d, steps = Path(sys.argv[1]), 30, 120
path = folder / "state.safetensors"

def run(checkpoint):
    model = LinearAttention(-0.3 * torch.eye(d))
    data = FixedData(PromptBatch.draw(np.ones(d), 40, 8, seeds=[0]), 4)
    train(model, Outcome(2), data, Optimisation("adam", 1e-3, steps=steps, batch=4),
          checkpoint=checkpoint, checkpoint_every=1)
    return model

random.seed(1)
kills = 0
for _ in range(6):
    child = os.fork()
    if child == 0:
        try:
            run(path)
            os._exit(0)
        except BaseException as error:
            print("FAILED", repr(error), flush=True)
            os._exit(1)
    begin = time.monotonic()
    stamp = path.stat().st_mtime_ns if path.is_file() else None
    while time.monotonic() < begin + 100 and os.waitpid(child, os.WNOHANG) == (0, 0):
        if path.is_file() and path.stat().st_mtime_ns != stamp:
            time.sleep(random.uniform(0, 0.01))
            try:
                os.kill(child, signal.SIGKILL)
                kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
            except (ProcessLookupError, ChildProcessError):
                pass
            break
        time.sleep(0.0005)
resumed, whole = run(path), run(None)
same = all(torch.equal(p, q) for p, q in zip(resumed.parameters(), whole.parameters()))
print("kills", kills, "same", same)
"""


def test_killed_while_writing_checkpoints_still_completes(tmp_path: Path) -> None:
    """A process that checkpoints at every step is sent SIGKILL at random moments, up to 6 times over; each
    successor must load what it finds, and the end must be that of an undisturbed run.
    """
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False
    )
    assert "FAILED" not in done.stdout, done.stdout
    match = re.search(r"kills (\d+) same (\w+)", done.stdout)
    assert match, done.stderr
    assert int(match[1]) >= 3
    assert match[2] == "True"


@pytest.mark.parametrize("optimiser", ["gd", "adam"])
def test_a_diverged_run_is_reported_and_harms_no_other(optimiser: str, tmp_path: Path) -> None:
    """Run 1 sees S 40 times larger. Losses that are not finite are null in the history and in the file."""
    objective = Outcome(4)
    optimisation = Optimisation(optimiser, {"gd": 1e-3, "adam": 1e-2}[optimiser], steps=150)
    scales = (1.0, 40.0, 0.5) if optimiser == "gd" else (1.0, 1e30, 0.5)
    data, model = scaled_runs(scales), start(3)
    if optimiser == "adam":
        # Bounded steps: the run is lost because its roll-out overflows from the first step on.
        with torch.no_grad():
            model.V[1] *= 1e80
    found = train(
        model, objective, data, optimisation, record_every=1, checkpoint=tmp_path / "state.safetensors"
    )
    assert found.steps == 150
    assert [lost.run for lost in found.diverged] == [1]
    lost = found.diverged[0]
    assert lost.step < 150
    if optimiser == "gd":
        # The radius is that of the weights at the step's start: retrain to there and recompute.
        before = start(3)
        train(before, objective, data, Optimisation(optimiser, 1e-3, steps=lost.step))
        M = torch.eye(D).double() + before.V[1].detach() @ data.whole.covariances[1].mean(0)
        assert lost.divergence_radius == pytest.approx(float(torch.linalg.eigvals(M).abs().max()), rel=1e-9)
        assert lost.divergence_radius > 1
        limit = 1e6 * (1 + found.first_loss[1])
        values = [row["loss"][1] for row in found.history]
        assert all(v is not None and v <= limit for v in values[: lost.step])
        assert values[lost.step] is None or values[lost.step] > limit
        assert values[-1] is None
    numbers = [x for row in found.history for x in row["loss"] if x is not None]
    assert np.isfinite(numbers).all()
    for run in (0, 2):
        whole, alone = data.whole, start(1)
        own = PromptBatch(
            whole.weights[run : run + 1], N, covariances=whole.covariances[run : run + 1].contiguous()
        )
        expected = train(alone, objective, FixedData(own), optimisation, record_every=1)
        torch.testing.assert_close(model.V[run], alone.V[0], rtol=1e-11, atol=1e-13)
        losses = [row["loss"][0] for row in expected.history]
        np.testing.assert_allclose([row["loss"][run] for row in found.history], losses, rtol=1e-10)


def test_stops_when_every_run_is_lost(tmp_path: Path) -> None:
    data, optimisation = scaled_runs((40.0, 60.0)), Optimisation("gd", 0.1, steps=500)
    path = tmp_path / "state.safetensors"
    found = train(start(2), Outcome(4), data, optimisation, record_every=1, checkpoint=path)
    assert sorted(lost.run for lost in found.diverged) == [0, 1]
    assert found.steps < 50
    assert train(start(2), Outcome(4), data, optimisation, record_every=1, checkpoint=path) == found


def test_divergence_is_reported_when_runs_share_their_prompts() -> None:
    """A batch without leading dimensions serves all runs of the model."""
    batch = PromptBatch.draw(np.ones(D), N, B, seeds=[0], dtype=torch.float64)
    shared = PromptBatch(batch.weights[0], N, covariances=40 * batch.covariances[0])
    found = train(start(2), Outcome(4), FixedData(shared), Optimisation("gd", 0.1, steps=50))
    assert sorted(lost.run for lost in found.diverged) == [0, 1]


def update_norms(model: ChainModel, start_model: ChainModel) -> Tensor:
    """Length of each run's move."""
    pairs = zip(model.parameters(), start_model.parameters(), strict=True)
    return torch.stack([(p - q).detach().square().flatten(1).sum(1) for p, q in pairs]).sum(0).sqrt()


def test_clipping_bounds_each_runs_own_update() -> None:
    """Run 1's gradient is large: its move is rate * clip along the gradient; run 0's is untouched."""
    data, rate = scaled_runs((0.1, 30.0)), 0.01
    free, clipped = start(2), start(2)
    train(free, Sft(0.3, 2), data, Optimisation("gd", rate, steps=1))
    moves = update_norms(free, start(2))
    clip = float(2 * moves[0] / rate)
    assert moves[1] > 10 * rate * clip
    train(clipped, Sft(0.3, 2), data, Optimisation("gd", rate, steps=1, clip=clip))
    found = update_norms(clipped, start(2))
    torch.testing.assert_close(clipped.V[0], free.V[0], rtol=1e-14, atol=0)
    assert float(found[1]) == pytest.approx(rate * clip, rel=1e-9)
    V0 = start(2).V.detach()
    cosine = torch.cosine_similarity(
        (clipped.V - V0)[1].detach().flatten(), (free.V - V0)[1].detach().flatten(), 0
    )
    assert float(cosine) == pytest.approx(1, abs=1e-12)


def test_clipping_a_model_without_run_dimension() -> None:
    """One model (d, d) on data of one seed (1, B, ...): the whole gradient is scaled, not its rows."""
    data, rate, clip = scaled_runs((30.0,)), 0.01, 0.5
    V0 = start(1).V[0].detach().clone()
    single = BlockLinearAttention(V0, train_attention=False)
    train(single, Sft(0.3, 2), data, Optimisation("gd", rate, steps=1, clip=clip))
    assert float((single.V - V0).detach().norm()) == pytest.approx(rate * clip, rel=1e-9)
