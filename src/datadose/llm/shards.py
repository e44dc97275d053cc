"""Losses, representations and sketches of many batches: in threads of this process, or on a cluster.

Each batch is computed with one thread, wherever that is: its bits depend neither on how many batches are
computed at a time nor on the backend, on machines of one kind. In this process the threads share one copy of
the weights. On Dask and Ray, token ids travel, the same on all machines; a worker loads the model with the
first batch that it gets, and keeps it.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, overload

import torch

from datadose.errors import InputError, RunError, reject
from datadose.llm.cache import Record
from datadose.llm.chat import Encoded
from datadose.llm.language_model import LanguageModel
from datadose.llm.sketch import TensorSketch
from datadose.workers import Call, Workers, finished_calls, in_threads

_LOADING = threading.Lock()
"""A worker with several threads loads the model once."""


@dataclass(frozen=True)
class ModelSource:
    """The model that a worker loads, and what must be the same there as in this process."""

    name: str
    dtype: str
    device: str
    """``cpu`` or ``cuda``."""
    digest: str
    device_map: str | None = None
    allow_pickle_weights: bool = False

    @classmethod
    def of(
        cls, model: LanguageModel, device_map: str | None = None, *, allow_pickle_weights: bool = False
    ) -> ModelSource:
        """Where ``model`` comes from; the options are those that it was loaded with."""
        device = model.device.type
        return cls(model.name, model.dtype, device, model.digest, device_map, allow_pickle_weights)

    def load(self) -> LanguageModel:
        """The model; RunError if it cannot be had here, or is another one."""
        try:
            found = LanguageModel.load(
                self.name,
                dtype=self.dtype,
                device_map=self.device_map,
                allow_pickle_weights=self.allow_pickle_weights,
            )
        except InputError as error:
            msg = f"a worker cannot load the model ({error})"
            raise RunError(msg) from error
        for what, here, wanted in (
            ("the model", found.digest, self.digest),
            ("the device", found.device.type, self.device),
        ):
            if here != wanted:
                msg = f"{what} of a worker is another one than here: {here}, not {wanted}"
                raise RunError(msg)
        return found


def batch_workers(model: LanguageModel, workers: Workers | None) -> Workers:
    """``workers``, or by default as many batches at a time as torch has threads, on a GPU one.

    Raises InputError for several batches at a time in this process with a model that is spread over devices:
    its layers are fetched for one batch at a time.
    """
    spread = getattr(model.model, "hf_device_map", None) is not None
    if workers is None:
        alone = spread or model.device.type != "cpu"
        return Workers(1 if alone else torch.get_num_threads())
    if spread and workers.backend == "loky" and workers.jobs > 1:
        reject("jobs", workers.jobs, "1 with a model that is spread over devices (device-map)")
    if workers.backend == "ray" and model.device.type == "cuda":
        return replace(workers, gpus=1)
    return workers


def measure_batches(
    model: LanguageModel,
    source: ModelSource,
    batches: Sequence[Sequence[int]],
    row: Callable[[int], Encoded],
    sketch_size: int,
    workers: Workers,
) -> Iterator[tuple[int, list[Record]]]:
    """(place of the batch, a record for each of its rows), as batches finish.

    A record has ``nll`` (nats per scored token), ``embedding`` (H,) and ``sketch`` (D,), as
    :class:`~datadose.llm.language_model.Losses` defines them.

    Args:
        model: the model as it is loaded here.
        source: the same for workers elsewhere.
        batches: numbers of the rows that are computed together.
        row: the tokens of the row of that number; called when its batch is about to be computed.
        sketch_size: numbers D of a gradient's sketch; 0 for the losses alone, without vectors.
        workers: as :func:`batch_workers` gives them.

    Raises RunError if a worker dies or has another model, InputError for a cluster that cannot be reached.
    """
    if workers.backend != "loky":
        calls = _Calls(source, batches, row, sketch_size)
        yield from finished_calls(calls, workers)
        return
    sketch = sketch_of(model, sketch_size)
    free: SimpleQueue[LanguageModel] = SimpleQueue()
    for _ in range(workers.jobs):
        free.put(model if workers.jobs == 1 else _replica(model))

    def compute(batch: Sequence[int]) -> list[Record]:
        own = free.get()
        try:
            return _records(own, [row(number) for number in batch], sketch)
        finally:
            free.put(own)

    yield from in_threads(compute, batches, workers.jobs)


def sketch_of(model: LanguageModel, size: int) -> TensorSketch | None:
    """The sketch of the model's last layer, on the model's device; None for a size of 0."""
    if not size:
        return None
    return TensorSketch(model.hidden_size, model.vocabulary_size, size).to(model.device)


def measure_there(source: ModelSource, sketch_size: int, rows: Sequence[Encoded]) -> list[Record]:
    """The records of a batch, in a worker's process."""
    with _LOADING:
        model, sketch = _loaded(source, sketch_size)
    return _records(model, rows, sketch)


@lru_cache(maxsize=1)
def _loaded(source: ModelSource, sketch_size: int) -> tuple[LanguageModel, TensorSketch | None]:
    model = source.load()
    return model, sketch_of(model, sketch_size)


def _records(model: LanguageModel, rows: Sequence[Encoded], sketch: TensorSketch | None) -> list[Record]:
    found = model.measure(rows, sketch)
    if sketch is None:
        return [{"nll": nll} for nll in found.nll.tolist()]
    columns = zip(found.nll.tolist(), found.embeddings, found.sketches, strict=True)
    return [{"nll": nll, "embedding": mean, "sketch": s} for nll, mean, s in columns]


def _replica(model: LanguageModel) -> LanguageModel:
    """The same model with modules of its own around the same weights.

    Some modules keep what they worked out last (rotary embeddings that follow the length), which another
    thread must not share.
    """
    shared = [*model.model.parameters(), *model.model.buffers()]
    return replace(model, model=copy.deepcopy(model.model, {id(tensor): tensor for tensor in shared}))


class _Calls(Sequence[Call]):
    """The calls of all batches, each made up when it is requested: token ids stay on the disk until then."""

    def __init__(
        self,
        source: ModelSource,
        batches: Sequence[Sequence[int]],
        row: Callable[[int], Encoded],
        sketch_size: int,
    ) -> None:
        self._source, self._batches, self._row, self._size = source, batches, row, sketch_size

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> Call: ...
    @overload
    def __getitem__(self, index: slice) -> list[Call]: ...
    def __getitem__(self, index: int | slice) -> Call | list[Call]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        rows = [self._row(number) for number in self._batches[index]]
        arguments: dict[str, Any] = {"source": self._source, "sketch_size": self._size, "rows": rows}
        return measure_there, arguments
