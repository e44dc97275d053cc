"""Sizes, times and memory, the same way in every benchmark."""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable


def seconds(
    function: Callable[[], object], repeats: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Median time of ``repeats`` calls: wall time, unless ``clock`` is another one."""
    times = []
    for _ in range(repeats):
        start = clock()
        function()
        times.append(clock() - start)
    return statistics.median(times)


def asked_sizes(text: str | None, **defaults: int) -> argparse.Namespace:
    """The sizes that the command line gives, each ``--NAME NUMBER``; ``text`` is the help's."""
    parser = argparse.ArgumentParser(description=text)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def peak_gib() -> float:
    """The most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
