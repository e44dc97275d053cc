"""Training steps whose shapes repeat: their numbers in tensors that stay in place, batches drawn ahead.

On a GPU a step of a GPT is about a thousand small kernels, and launching them from Python takes longer than
the kernels do. A CUDA graph records them once for each shape of a batch and replays them all in one call.
That needs a step that is one function of tensors which keep their places, reads nothing back to the processor
and sends nothing from it: new batches are copied into these tensors, through page-locked memory, and are
drawn by threads meanwhile. On a CPU the same code runs without a recording.

The first step of a shape runs as it is, and counts: it is the warm-up that libraries, optimiser and autograd
need before a recording. All steps are on one side stream, since a gradient that autograd first used on the
default stream cannot be recorded. Graphs share one pool of memory: no two run at once, and nothing that one
leaves behind is read after another has run, but for results, which are copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor

from datadose.models import PromptBatch

Given: TypeAlias = tuple[PromptBatch, tuple[Tensor, ...]]
"""A batch, and the numbers that an objective draws beside it."""
Act: TypeAlias = Callable[[PromptBatch, tuple[Tensor, ...]], dict[str, Tensor]]
"""A step: from a batch and what is drawn beside it to its results."""
_AHEAD, _THREADS = 6, 2


def ahead(make: Callable[[int], Any], steps: Iterable[int]) -> Generator[Any, None, None]:
    """``make(step)`` for each of ``steps`` in their order, made by threads a few steps before it is due.

    ``make`` is a function of the step alone, so that threads change no number. What it raises is raised here,
    in its step's turn.
    """
    due = iter(steps)
    with ThreadPoolExecutor(_THREADS) as threads:
        waiting = deque(threads.submit(make, step) for step in islice(due, _AHEAD))
        try:
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(threads.submit(make, step) for step in islice(due, 1))
                yield made
        finally:
            threads.shutdown(cancel_futures=True)


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """What runs inside is on one and the same stream of ``device`` beside the default one; a CPU has none."""
    if device.type != "cuda":
        yield
        return
    stream, outside = _side_stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(outside)
    with torch.cuda.stream(stream):
        yield
    outside.wait_stream(stream)


@cache
def _side_stream(device: torch.device) -> Any:
    """One for each device: memory that a stream has used is used again by the same stream alone."""
    make: Any = torch.cuda.Stream
    return make(device)


@dataclass
class _Place:
    """The tensors of one shape, and once recorded the graph and the tensors that it leaves results in."""

    batch: PromptBatch
    drawn: tuple[Tensor, ...]
    met: bool = False
    graph: Any = None
    results: dict[str, Tensor] | None = None


class Repeated:
    """One function of a batch and of numbers beside it, on tensors that stay in place, shape by shape.

    Args:
        act: the function. It reads nothing else that changes, and what it keeps (parameters, moments) it
            changes in place. On a CUDA device it reads no number back and sends none.
        device: where ``act`` works; batches may come from the CPU.
    """

    def __init__(
        self, act: Callable[[PromptBatch, tuple[Tensor, ...]], dict[str, Tensor]], device: torch.device
    ):
        self._act, self._device = act, device
        self._places: dict[Any, _Place] = {}
        self._pool: Any = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def __call__(self, given: Given) -> dict[str, Tensor]:
        """The results of ``act``, in tensors of their own; inside :func:`side_stream`."""
        batch, drawn = given
        tensors = _tensors(given)
        key = (batch.length, batch.covariances is None, *((x.shape, x.dtype) for x in tensors))
        if key not in self._places:
            self._places[key] = _Place(
                batch.map(lambda x, _: self._empty(x)), tuple(self._empty(x) for x in drawn)
            )
        place = self._places[key]
        for kept, new in zip(_tensors((place.batch, place.drawn)), tensors, strict=True):
            # Only from page-locked memory does the processor not wait for a copy.
            pinned = new.pin_memory() if kept.is_cuda and not new.is_cuda else new
            kept.copy_(pinned, non_blocking=True)
        if self._pool is None or not place.met:
            place.met = True
            return self._act(place.batch, place.drawn)
        return self._replay(place)

    def _empty(self, like: Tensor) -> Tensor:
        return torch.empty(like.shape, dtype=like.dtype, device=self._device)

    def _replay(self, place: _Place) -> dict[str, Tensor]:
        if place.results is None:
            place.graph = torch.cuda.CUDAGraph()
            # The threads that draw batches do nothing on the device, and must not disturb the recording.
            with torch.cuda.graph(
                place.graph,
                pool=self._pool,
                stream=torch.cuda.current_stream(self._device),
                capture_error_mode="thread_local",
            ):
                place.results = self._act(place.batch, place.drawn)
        place.graph.replay()
        return {name: x.clone() for name, x in place.results.items()}


def _tensors(given: Given) -> list[Tensor]:
    batch, drawn = given
    held = (batch.weights, batch.covariances, batch.inputs, *drawn)
    return [x for x in held if x is not None]
