"""Two CPU processes against one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from datadose.errors import RunError
from datadose.models import BlockLinearAttention, ChainModel
from datadose.stages import FixedData, Optimisation, Outcome, Sft, Training, engine, train
from datadose.stages.checkpoint import load_weights, save_checkpoint, save_weights
from datadose.stages.distributed import Processes, joined
from datadose.stages.engine import Objective
from helpers.loopback_server import free_port
from helpers.stage_examples import D, TinyChain, tiny_gpt, with_inputs

STEPS = 5
PLAIN = Optimisation("sgd", 0.01, steps=STEPS)
FULL = Optimisation(
    "adamw", 0.02, steps=STEPS, clip=0.5, weight_decay=0.1, warmup=2, schedule="cosine", accumulate=2
)


def cases() -> dict[str, tuple[ChainModel, Objective, Optimisation]]:
    """Two linear runs and a GPT by SGD, whose moves show a gradient's scale, and a small network by all else.

    Not the GPT by AdamW: a key's bias has no gradient but rounding, which Adam would blow up.
    """
    V = -0.3 * torch.eye(D).expand(2, D, D)
    linear = BlockLinearAttention(V)
    return {
        "linear": (linear, Outcome(3), PLAIN),
        "gpt": (tiny_gpt(), Sft(0.3, 2), PLAIN),
        "network": (TinyChain(), Sft(0.3, 2), FULL),
    }


def run(folder: Path) -> dict[str, tuple[ChainModel, Training]]:
    """Train every case on 7 prompts, which two processes cannot share equally."""
    trained = {}
    for name, (model, objective, plan) in cases().items():
        data, path = FixedData(with_inputs(7)), folder / f"{name}.checkpoint"
        training = train(model, objective, data, plan, record_every=1, checkpoint=path, checkpoint_every=2)
        trained[name] = model, training
    return trained


def worker(rank: int, folder: Path, port: int) -> None:
    """One of two processes, with the environment that torchrun gives them."""
    torch.set_num_threads(1)
    place = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    with joined(torch.device("cpu")) as processes:
        assert processes == Processes(rank, 2)
        work(rank, folder)
    # A thread of the group that outlives it may abort the process while the interpreter shuts down.
    left = [p.read_text().strip() for p in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in left if "gloo" in name], left


def work(rank: int, folder: Path) -> None:
    """Train, resume a finished stage, and meet a checkpoint that the other process lacks."""
    own = folder / f"rank{rank}"
    own.mkdir()
    writes: list[Path] = []

    def save(path: Path, *state: Any) -> None:
        writes.append(path)
        save_checkpoint(path, *state)

    engine.save_checkpoint = save
    for name, (model, training) in run(folder).items():
        save_weights(own / f"{name}.weights", model)
        (own / f"{name}.json").write_text(json.dumps([training.history, training.diverged]))
    (own / "writes").write_text(str(len(writes)))
    distributed.barrier()
    again = run(folder)
    (own / "again").write_text(str([training.steps for _, training in again.values()]))
    try:
        # As if each machine had a disk of its own: only process 0 finds the checkpoint.
        model, objective, plan = cases()["network"]
        train(model, objective, FixedData(with_inputs(7)), plan, checkpoint=folder / f"network.{rank}")
    except RunError as error:
        (own / "refused").write_text(str(error))


def test_two_processes_train_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters to 1e-5 and losses of every step to 1e-5; files are written by the first process alone."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    single = tmp_path / "single"
    single.mkdir()
    expected = run(single)
    (single / "network.checkpoint").rename(tmp_path / "network.0")
    multiprocessing.spawn(worker, args=(tmp_path, free_port()), nprocs=2)
    for name, (model, training) in expected.items():
        for rank in (0, 1):
            found = cases()[name][0]
            load_weights(tmp_path / f"rank{rank}" / f"{name}.weights", found)
            for p, q in zip(found.parameters(), model.parameters(), strict=True):
                torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5)
            history, diverged = json.loads((tmp_path / f"rank{rank}" / f"{name}.json").read_text())
            assert diverged == []
            assert [row["step"] for row in history] == list(range(STEPS))
            for row, other in zip(history, training.history, strict=True):
                assert row["loss"] == pytest.approx(other["loss"], rel=1e-5)
    for rank in (0, 1):
        assert (tmp_path / f"rank{rank}" / "again").read_text() == str([STEPS] * 3)
        assert "0 to 5" in (tmp_path / f"rank{rank}" / "refused").read_text()
    # Each case at steps 2 and 4 and at its end.
    assert [(tmp_path / f"rank{rank}" / "writes").read_text() for rank in (0, 1)] == ["9", "0"]
    assert not (tmp_path / "network.1").exists()
    # One process resumes what two have trained.
    assert run(tmp_path)["linear"][1].steps == STEPS


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(torch.device("cpu")) as processes:
        assert processes == Processes()
        assert processes.first
    assert not distributed.is_initialized()
    assert os.environ.get("WORLD_SIZE") is None
