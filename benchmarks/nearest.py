"""Seconds and peak memory of drawing rows nearest to each target row, beside the products that it needs.

    OMP_NUM_THREADS=2 python benchmarks/nearest.py [--rows 1000000] [--targets 500] [--width 576] [--size N]

The pool is a memory-mapped file of random numbers in a temporary folder (2.3 GB by default). The ratio is of
the whole draw to reading the file and multiplying it with the targets, block by block, in the same run.

At the defaults, two cores of a busy machine: 16.2 s, 1.80 times reading and multiplying, peak 2.6 GiB.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from datadose.llm.selection.nearest import draw_in_turns, unit_rows

BLOCK = 32_768


def main() -> None:
    """Make the pool, multiply, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("rows", 1_000_000), ("targets", 500), ("width", 576), ("size", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
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
        start_time = time.perf_counter()
        for start in range(0, asked.rows, BLOCK):
            targets @ np.array(pool[start : start + BLOCK]).T
        product = time.perf_counter() - start_time
        start_time = time.perf_counter()
        found = draw_in_turns(pool, np.arange(asked.rows), targets, asked.size)
        draw = time.perf_counter() - start_time
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{asked.rows} rows x {asked.targets} targets x {asked.width} numbers, {len(found)} drawn: "
        f"{draw:.1f} s, {draw / product:.2f} times reading and multiplying; peak {memory:.1f} GiB"
    )


if __name__ == "__main__":
    main()
