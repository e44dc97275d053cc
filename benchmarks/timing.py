"""Time of a call, the same way in every benchmark."""

from __future__ import annotations

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
