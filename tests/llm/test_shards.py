"""Batches of losses in threads or on clusters: the same bytes, one load a worker, clear refusals."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datadose.errors import InputError, RunError
from datadose.llm import shards
from datadose.llm.chat import Encoded
from datadose.llm.language_model import LanguageModel
from datadose.llm.score import score
from datadose.llm.score_config import ScoreConfig
from datadose.llm.shards import ModelSource, batch_workers, measure_batches, measure_there
from datadose.workers import Workers, in_threads
from helpers.scored_pool import bytes_of

CONFIG = ScoreConfig(batch_tokens=200)
"""So small that 40 rows are a dozen batches."""


@pytest.fixture
def pool(write_rows: Callable[..., Path]) -> Path:
    """Rows of many lengths, some twice, one too long, one empty."""
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    rows = [
        {"prompt": f"{' '.join(words[: i % 7 + 1])} {i % 19}?", "completion": " ".join(words[i % 5 :])}
        for i in range(40)
    ]
    return write_rows([*rows, {"prompt": "x" * 300, "completion": "y"}, {"prompt": "x", "completion": ""}])


def test_the_bytes_do_not_depend_on_the_number_of_jobs(
    model: LanguageModel, pool: Path, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    found = {}
    for name, workers in {"default": None, "1": Workers(1), "3": Workers(3)}.items():
        score(model, pool, tmp_path / name, config=CONFIG, workers=workers)
        found[name] = bytes_of(tmp_path / name)
    assert found["default"] == found["1"] == found["3"]
    # This process goes on with as many threads as before.
    assert torch.get_num_threads() == before


@pytest.mark.long
@pytest.mark.slow
def test_a_dask_cluster_gives_the_bytes_of_this_process(tiny_llama: Path, pool: Path, tmp_path: Path) -> None:
    """A cluster that runs already, at its address, and one that is started here, interrupted before."""
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    score(tiny_llama, pool, tmp_path / "here", config=CONFIG)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster:
        workers = Workers(backend="dask", address=cluster.scheduler_address)
        score(tiny_llama, pool, tmp_path / "there", config=CONFIG, workers=workers)
        with distributed.Client(cluster) as client:
            loads = client.run(_loads)
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")
    # Each worker that got a batch loaded the model once.
    assert {info.misses for info in loads.values()} <= {0, 1}
    assert sum(info.hits + info.misses for info in loads.values()) > len(loads)


def _loads() -> Any:
    """How often a worker loaded a model, and used it again."""
    return shards._loaded.cache_info()


@pytest.mark.slow
def test_a_ray_cluster_gives_the_bytes_of_this_process(tiny_llama: Path, pool: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    score(tiny_llama, pool, tmp_path / "here", config=CONFIG)
    score(tiny_llama, pool, tmp_path / "there", config=CONFIG, workers=Workers(2, "ray"))
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")


def test_a_run_that_stopped_on_a_cluster_is_continued_here(
    tiny_llama: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What workers have finished is kept; the cluster is played by calls in this process."""
    score(tiny_llama, pool, tmp_path / "whole", config=CONFIG)
    computed = []

    def calls(calls: Any, workers: Workers, last: int = 3) -> Any:
        assert workers.backend == "dask"
        for place in range(last):
            function, arguments = calls[place]
            computed.append(len(arguments["rows"]))
            yield place, function(**arguments)
        msg = "a worker process was killed (out of memory?)"
        raise RunError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "finished_calls", calls)
        with pytest.raises(RunError, match="killed"):
            score(tiny_llama, pool, tmp_path / "out", config=CONFIG, workers=Workers(2, "dask"))
    rest = []
    original = LanguageModel.measure

    def count(self: LanguageModel, batch: Any, sketch: Any = None) -> Any:
        rest.append(len(batch))
        return original(self, batch, sketch)

    monkeypatch.setattr(LanguageModel, "measure", count)
    score(tiny_llama, pool, tmp_path / "out", config=CONFIG)
    # Two of the 40 rows of one content are computed once.
    assert sum(computed) + sum(rest) == len(set(pool.read_text().splitlines()[:40]))
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_a_worker_with_another_model_or_device_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    source = ModelSource.of(LanguageModel.load(tiny_llama))
    row = Encoded(np.array([5, 6, 7], dtype=np.int32), 1)
    assert np.isfinite(measure_there(source, 16, [row])[0]["nll"])
    for change, message in (
        ({"digest": "0" * 64}, "the model of a worker is another one than here"),
        ({"device": "cuda"}, "the device of a worker is another one than here: cpu, not cuda"),
        ({"name": str(tmp_path / "gone")}, "a worker cannot load the model"),
    ):
        with pytest.raises(RunError, match=message):
            measure_there(replace(source, **change), 16, [row])


def test_threads_have_modules_of_their_own_around_the_same_weights(model: LanguageModel) -> None:
    own = shards._replica(model)
    assert own.model is not model.model
    assert own.model.base_model.rotary_emb is not model.model.base_model.rotary_emb
    assert all(a is b for a, b in zip(own.model.parameters(), model.model.parameters(), strict=True))


def test_how_many_batches_at_a_time(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch_workers(model, None) == Workers(torch.get_num_threads())
    assert batch_workers(model, Workers(5)) == Workers(5)
    monkeypatch.setattr(model.model, "hf_device_map", {"": "cpu"}, raising=False)
    assert batch_workers(model, None) == Workers(1)
    assert batch_workers(model, Workers(4, "dask")) == Workers(4, "dask")
    with pytest.raises(InputError, match=r"^jobs: got 2; allowed: 1 with a model that is spread"):
        batch_workers(model, Workers(2))


def test_what_finishes_beside_a_failure_is_given_first() -> None:
    """All that ran, in any order; then the failure, and nothing that was still to come."""
    begun = []

    def work(x: int) -> int:
        begun.append(x)
        if x == 2:
            raise KeyError(x)
        return x * x

    found: dict[int, int] = {}
    with pytest.raises(KeyError):
        # An update goes as far as there are results.
        found.update(in_threads(work, range(10_000), 4))
    assert found == {x: x * x for x in begun if x != 2}
    # Far more than finish before a thread that has lost its turn raises.
    assert len(begun) < 10_000


def test_rows_are_read_when_their_batch_is_due(model: LanguageModel) -> None:
    """Token ids do not wait in memory: of 30 batches few are read when the first one is there."""
    read = []

    def row(number: int) -> Encoded:
        read.append(number)
        return Encoded(np.array([5, 6, number], dtype=np.int32), 1)

    batches = [[number] for number in range(30)]
    source = ModelSource.of(model)
    found = measure_batches(model, source, batches, row, 16, Workers(2))
    next(found)
    assert len(read) <= 4
    assert len(list(found)) == 29
    assert sorted(read) == list(range(30))


def test_calls_of_a_cluster_are_made_up_one_by_one(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calls(calls: Any, workers: Workers) -> Any:
        assert len(calls) == 2
        for place, (function, arguments) in enumerate(calls):
            yield place, (function.__name__, os.getpid(), [one.ids.tolist() for one in arguments["rows"]])

    monkeypatch.setattr(shards, "finished_calls", calls)

    def row(number: int) -> Encoded:
        return Encoded(np.array([number], dtype=np.int32), 0)

    source = ModelSource.of(model)
    found = list(measure_batches(model, source, [[3, 1], [2]], row, 16, Workers(backend="ray")))
    assert [result[2] for _, result in found] == [[[3], [1]], [[2]]]
