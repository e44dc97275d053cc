"""Batches of rows of like length: little padding, and the same batches for the same rows."""

from __future__ import annotations

from collections.abc import Sequence


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices into ``lengths``, grouped so that a batch padded to its longest row fits ``batch_tokens``.

    Longest rows first: a batch too large for the memory fails at the start, and the time left is not
    underestimated. A row longer than ``batch_tokens`` is a batch of its own. Equal lengths keep their order.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > batch_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches
