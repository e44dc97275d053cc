"""Seconds and peak memory of drawing rows nearest to each target row, beside the products that it needs.

    OMP_NUM_THREADS=2 python benchmarks/nearest.py [--rows 1000000] [--targets 500] [--width 576] [--size N]

The pool is a memory-mapped file of random numbers in a temporary folder (2.3 GB by default). The ratio is of
the whole draw to reading the file and multiplying it with the targets, block by block, in the same run.

At the defaults, two cores of a busy machine: 16.2 s, 1.80 times reading and multiplying, peak 2.6 GiB.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from datadose.llm.selection.arrays import Floats, Indices
from datadose.llm.selection.nearest import draw_in_turns, unit_rows
from timing import asked_sizes, peak_gib, seconds

BLOCK = 32_768


def multiply(targets: Floats, pool: Floats) -> None:
    """Read the pool block by block and multiply it with the targets: what every draw has to do."""
    for start in range(0, len(pool), BLOCK):
        targets @ np.array(pool[start : start + BLOCK]).T


def main() -> None:
    """Make the pool, multiply, draw."""
    asked = asked_sizes(__doc__, rows=1_000_000, targets=500, width=576, size=10_000)
    found: list[Indices] = []
    rng = np.random.default_rng(0)
    targets = unit_rows(rng.standard_normal((asked.targets, asked.width)), np.arange(asked.targets))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.npy"
        shape = (asked.rows, asked.width)
        pool = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, asked.rows, BLOCK):
            pool[start : start + BLOCK] = rng.standard_normal(
                (min(BLOCK, asked.rows - start), asked.width), dtype=np.float32
            )
        del pool
        pool = np.load(path, mmap_mode="r")
        product = seconds(lambda: multiply(targets, pool))
        draw = seconds(lambda: found.append(draw_in_turns(pool, np.arange(asked.rows), targets, asked.size)))
    print(
        f"{asked.rows} rows x {asked.targets} targets x {asked.width} numbers, {len(found[0])} drawn: "
        f"{draw:.1f} s, {draw / product:.2f} times reading and multiplying; peak {peak_gib():.1f} GiB"
    )


if __name__ == "__main__":
    main()
