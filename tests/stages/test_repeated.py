"""Repeated steps: the engine's own numbers, batches drawn ahead, and work that a CUDA graph can record."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from datadose.errors import InputError
from datadose.models import ChainModel, PromptBatch, gpt
from datadose.models.gpt import GptConfig, GptModel
from datadose.models.gpt_runs import GptRuns
from datadose.stages import FixedData, FreshData, Optimisation, Outcome, PolicyGradient, Sft, Training, train
from datadose.stages.checkpoint import load_checkpoint, save_checkpoint
from datadose.stages.data import SideBySide
from datadose.stages.engine import SteadyObjective, _clip, _set_rate
from datadose.stages.muon import RecordedMuon
from datadose.stages.optimisation import autocast
from datadose.stages.pretrain import Curriculum, CurriculumData
from datadose.stages.repeated import Repeated, ahead
from helpers.stage_examples import dense_model, fixed, interrupt_at, same

D, RUNS = 3, 2
CONFIG = GptConfig(dimension=D, layers=2, heads=2, width=8, positions=20)
ADAM = Optimisation("adam", 1e-2, steps=40, clip=0.5, schedule="cosine", warmup=3)


def one() -> GptModel:
    return GptModel(CONFIG, seed=0)


def runs() -> GptRuns:
    return GptRuns(one(), RUNS)


def side_by_side(scale: float = 1.0) -> SideBySide:
    """Two runs with 8 and 16 prompts in batches of 4; ``scale`` is that of one of the second's weights."""
    batches = [
        PromptBatch.draw(np.ones(D), 4, B, seeds=[seed], hold_inputs=True) for seed, B in enumerate((8, 16))
    ]
    batches[1].weights[0, 0] *= scale
    return SideBySide(tuple(FixedData(batch, 4, seed=seed) for seed, batch in enumerate(batches)))


def growing() -> CurriculumData:
    """Lengths 2 to 5, in turns."""
    return CurriculumData(np.ones(D), Curriculum(D, 5, 2, 2, 1, 1, 5), 6, (0,), vary_length=True)


CASES: dict[str, tuple[Callable[[], ChainModel], SteadyObjective, Any]] = {
    "pretraining": (one, Sft(0.5, 3), growing()),
    "sft": (runs, Sft(0.5, 2), side_by_side()),
    "outcome": (runs, Outcome(3), side_by_side()),
    "rl": (runs, PolicyGradient(2, (3, 4), group=3), side_by_side()),
    "rl chain": (runs, PolicyGradient(2, (3, 4), group=3, every_step=True), side_by_side()),
}


def test_repeated_steps_with_muon_are_the_engines_own() -> None:
    made, objective, data = CASES["pretraining"]
    optimisation = Optimisation(**{**asdict(ADAM), "optimiser": "muon"})
    plain, repeated = made(), made()
    expected = train(plain, objective, data, optimisation)
    assert train(repeated, objective, data, optimisation, repeat=True) == expected
    assert same(plain, repeated)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_repeated_steps_are_the_engines_own_bit_for_bit(name: str, precision: Any) -> None:
    made, objective, data = CASES[name]
    optimisation = Optimisation(**{**asdict(ADAM), "precision": precision})
    plain, repeated = made(), made()
    expected = train(plain, objective, data, optimisation, record_every=3)
    found = train(repeated, objective, data, optimisation, record_every=3, repeat=True)
    assert found == expected
    assert len(found.history) == 14
    assert same(plain, repeated)


def test_muon_in_a_recorded_step_is_torchs() -> None:
    """Matrices of one shape together, three steps at different rates; equal up to bfloat16's rounding."""
    shapes = [(8, 24), (24, 8), (8, 24), (8, 8)]
    start = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)]
    rate = torch.tensor(0.0)
    ours, theirs = ([torch.nn.Parameter(x.clone()) for x in start] for _ in range(2))
    recorded = RecordedMuon(ours, rate, 0.1)
    expected = torch.optim.Muon(theirs, 0.0, 0.1, adjust_lr_fn="match_rms_adamw")
    for step, value in enumerate((0.1, 0.2, 0.05)):
        rate.fill_(value)
        expected.param_groups[0]["lr"] = value
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 + step))
            q.grad = p.grad.clone()
        with Recordable():
            recorded.step()
        expected.step()
    for p, q, x in zip(ours, theirs, start, strict=True):
        assert float((p - x).detach().norm()) > 0.1
        torch.testing.assert_close(p - x, q - x, rtol=0, atol=0.01 * float((q - x).detach().abs().max()))
    state = recorded.state_dict()["state"]
    torch.testing.assert_close(state, expected.state_dict()["state"])


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_a_recorded_optimiser_goes_on_from_a_checkpoint(optimiser: Any, tmp_path: Path) -> None:
    """Parameters, moments, and the numbers of steps, which are tensors; rates are set anew at every step."""
    optimisation = Optimisation(**{**asdict(ADAM), "optimiser": optimiser})
    batch, path = growing().batch(7), tmp_path / "state.safetensors"

    def steps(model: GptModel, made: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            made.zero_grad()
            torch.autograd.backward(Sft(0.5, 2)(model, batch, 0).loss.sum())
            made.step()

    whole, resumed = one(), one()
    first, second = (optimisation.build(model, recorded=True) for model in (whole, resumed))
    steps(whole, first, 2)
    state = Training(2, [], [], [1.0])
    save_checkpoint(path, whole, first, {"total_steps": 4}, state)
    assert load_checkpoint(path, resumed, second, {"total_steps": 4}) == state
    steps(whole, first, 2)
    steps(resumed, second, 2)
    assert same(whole, resumed)
    assert all(isinstance(group["lr"], Tensor) for group in second.param_groups)


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "muon"])
def test_the_recorded_optimiser_is_the_plain_one(optimiser: Any) -> None:
    """Its rate and its steps are tensors; on a CPU they work alike, up to rounding (of bfloat16 for muon).

    In float64: gradients of key biases are zero but for rounding, which Adam makes as large as all others.
    """
    optimisation = Optimisation(**{**asdict(ADAM), "optimiser": optimiser})
    batch = growing().batch(7).map(lambda x, _: x.double())
    models, moved = [one().double(), one().double()], []
    for model, recorded in zip(models, (False, True), strict=True):
        optimiser_ = optimisation.build(model, recorded=recorded)
        for step in range(4):
            for group in optimiser_.param_groups:
                assert isinstance(group["lr"], Tensor) == recorded
                _set_rate(group, optimisation.rate(step, 4))
            optimiser_.zero_grad()
            torch.autograd.backward(Sft(0.5, 2)(model, batch, step).loss.sum())
            optimiser_.step()
        before = one().double().parameters()
        moved.append([p.detach() - q.detach() for p, q in zip(model.parameters(), before, strict=True)])
    tolerance = 2e-2 if optimiser == "muon" else 1e-6
    for found, expected in zip(moved[1], moved[0], strict=True):
        size = float(expected.abs().max())
        assert size > 1e-3
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * size)


def test_a_lost_run_is_noted_at_its_step() -> None:
    """A prompt that overflows is met after the first step, and read with the steps that follow."""
    data = side_by_side(1e30)
    met = [step for step in range(4) if data.batch(step).weights.abs().max() > 1e20]
    expected = train(runs(), Sft(0.5, 2), data, ADAM)
    found = train(runs(), Sft(0.5, 2), data, ADAM, repeat=True)
    assert [(lost.run, lost.step) for lost in found.diverged] == [(1, met[0])]
    assert met[0] > 0
    assert found == expected


def test_it_stops_where_all_runs_are_lost(tmp_path: Path) -> None:
    """What is noted ends at the step that lost the last run, though a few more were made."""
    rate = Optimisation("adam", 1e30, steps=40)
    path = tmp_path / "state.safetensors"
    expected = train(runs(), Outcome(2), side_by_side(), rate, record_every=1)
    found = train(runs(), Outcome(2), side_by_side(), rate, record_every=1, repeat=True, checkpoint=path)
    assert found == expected
    assert found.steps < 5
    assert train(runs(), Outcome(2), side_by_side(), rate, repeat=True, checkpoint=path) == found


def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path) -> None:
    """Also a checkpoint of plain steps goes on with repeated ones."""
    made, objective, data = CASES["outcome"]
    whole, broken = made(), made()
    expected = train(whole, objective, data, ADAM, record_every=2)
    path = tmp_path / "state.safetensors"
    for stop, repeat in ((5, True), (9, False)):
        with pytest.raises(KeyboardInterrupt):
            train(
                broken, objective, data, ADAM,
                record_every=2, checkpoint=path, progress=interrupt_at(stop), repeat=repeat,
            )  # fmt: skip
        broken = made()
    assert train(broken, objective, data, ADAM, record_every=2, checkpoint=path, repeat=True) == expected
    assert same(broken, whole)


def test_steps_that_cannot_be_repeated_are_refused() -> None:
    with pytest.raises(InputError, match="repeat"):
        train(dense_model(), Sft(0.3, 2), fixed(), Optimisation("adam", 0.01, steps=2), repeat=True)
    with pytest.raises(InputError, match="repeat"):
        train(runs(), Sft(0.3, 2), side_by_side(), Optimisation("sgd", 0.01, steps=2), repeat=True)
    objective = Sft(0.3, 2)
    with pytest.raises(InputError, match="repeat"):
        train(runs(), objective.__call__, side_by_side(), ADAM, repeat=True)


# --- tensors that stay in place -------------------------------------------------------------------------


def test_a_shape_keeps_its_tensors_and_another_has_its_own() -> None:
    places: dict[int, set[tuple[int, int]]] = {}

    def act(batch: PromptBatch, drawn: tuple[Tensor, ...]) -> dict[str, Tensor]:
        X = batch.held_inputs()
        places.setdefault(batch.length, set()).add((X.data_ptr(), drawn[0].data_ptr()))
        return {"sum": X.sum() + drawn[0].sum()}

    repeated, data = Repeated(act, torch.device("cpu")), growing()
    for step in range(20):
        batch, drawn = data.batch(step), (torch.full((2,), float(step)),)
        expected = batch.held_inputs().sum() + 2 * step
        assert repeated((batch, drawn))["sum"] == expected
    assert len(places) > 2
    assert all(len(found) == 1 for found in places.values())


# --- batches drawn ahead --------------------------------------------------------------------------------


def test_batches_drawn_ahead_are_those_drawn_in_turn() -> None:
    data = FreshData(np.ones(D), 4, 6, (0, 1), hold_inputs=True)

    def slowly(step: int) -> Tensor:
        time.sleep(0.01 * (step % 3))
        return data.batch(step).held_inputs()

    found = list(ahead(slowly, range(4, 30)))
    assert len(found) == 26
    assert all(torch.equal(x, data.batch(step).held_inputs()) for step, x in enumerate(found, 4))


def test_what_drawing_raises_is_raised_in_its_turn() -> None:
    def make(step: int) -> int:
        if step == 3:
            raise InputError("step", step, "another")
        return step

    drawn = ahead(make, range(10))
    assert [next(drawn) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="step: got 3"):
        next(drawn)


def test_no_more_is_drawn_than_a_few_steps_ahead() -> None:
    made: list[int] = []
    drawn = ahead(made.append, range(1000))
    next(drawn)
    time.sleep(0.05)
    assert max(made) < 10
    drawn.close()


# --- what a CUDA graph can record -----------------------------------------------------------------------

READS = ("_local_scalar_dense", "is_nonzero", "equal", "item", "nonzero", "masked_select", "unique")
SENDS = ("lift_fresh", "lift")


class Recordable(TorchDispatchMode):
    """Fails on what cannot be recorded: numbers read back, and tensors made from numbers of the processor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in READS, f"{func} reads a number back"
        assert name not in SENDS, f"{func} sends numbers to the device"
        masks = (
            [x for x in args[1] if x is not None and x.dtype == torch.bool]
            if name in ("index", "index_put_")
            else []
        )
        assert not masks, f"{func} reads a number back: how many entries the mask has"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*CASES, "rl with a reference"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_can_be_recorded(name: str, precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward pass; the optimiser's part on a CUDA device is torch's own."""
    # On a CUDA device GELU is torch's.
    monkeypatch.setattr(gpt, "tanh_gelu", partial(functional.gelu, approximate="tanh"))
    reference = PolicyGradient(2, (3, 4), group=3, kl=0.1, reference=runs())
    made, objective, data = CASES.get(name, (runs, reference, side_by_side()))
    model, batch = made(), data.batch(3)
    drawn = objective.draws(batch.weights.shape, 3)
    with Recordable():
        with autocast(precision, torch.device("cpu"), keep_casts=False):
            found = objective.loss(model, batch, *drawn)
        torch.autograd.backward(found.loss.sum())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", CASES)
def test_steps_work_on_a_device_that_shows_no_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's meta device goes the ways of a GPU, refuses to be read and to meet a tensor of the CPU."""
    # It has no autocast; switching that off inside a pass is all that is left out here.
    monkeypatch.setattr(torch, "autocast", lambda *given, **named: nullcontext())
    made, objective, data = CASES[name]
    model, batch = made().to("meta"), data.batch(3)
    drawn = objective.draws(batch.weights.shape, 3)
    found = objective.loss(model, batch.to(torch.device("meta")), *(x.to("meta") for x in drawn))
    torch.autograd.backward(found.loss.sum())
    _clip(model, 0.5)
    assert found.loss.is_meta
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: x * float(x.sum()),
        lambda x: x[x > 0],
        lambda x: x if x.sum() > 0 else -x,
    ],
)
def test_the_check_sees_what_cannot_be_recorded(act: Callable[[Tensor], Tensor]) -> None:
    x = torch.ones(2)
    with pytest.raises(AssertionError, match=r"reads a number back|sends numbers"), Recordable():
        act(x)
