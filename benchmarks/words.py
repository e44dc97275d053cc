"""Seconds and peak memory of the default method, shared words (bm25), beside finding the rows' words.

    OMP_NUM_THREADS=1 python benchmarks/words.py [--rows 1000000] [--targets 500] [--words 60] [--size N]

The pool is a file of random words, by Zipf's law from 50,000, in a temporary folder (0.5 GB by default).
The ratio is of the whole choice to reading every row and finding its words and pairs of words, in one run.

At the defaults, one thread of a busy machine: 363 s, 14 times reading and finding words, peak 4.0 GiB.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from datadose.llm.selection.arrays import Indices, Usable
from datadose.llm.selection.methods import METHODS, read_grams
from timing import asked_sizes, peak_gib, seconds

VOCABULARY, BLOCK = 50_000, 10_000


class Lines:
    """The rows of a file, as scores give them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def raw_lines(self, rows: Indices) -> Iterator[bytes]:
        """All lines, which is what the benchmark asks for."""
        with self.path.open("rb") as file:
            yield from file


def write_rows(path: Path, rows: int, words: int, seed: int) -> Usable:
    """A file of ``rows`` rows with ``words`` words each, half of them in the completion."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"w{i}" for i in range(VOCABULARY)])
    share = 1 / np.arange(1, VOCABULARY + 1)
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, rows, BLOCK):
            drawn = rng.choice(VOCABULARY, p=share / share.sum(), size=(min(BLOCK, rows - start), words))
            for row in vocabulary[drawn]:
                prompt, completion = " ".join(row[: words // 2]), " ".join(row[words // 2 :])
                file.write(json.dumps({"prompt": prompt, "completion": completion}) + "\n")
    return Usable(cast("Any", Lines(path)), np.arange(rows))


def main() -> None:
    """Make the pool, read it, choose."""
    asked = asked_sizes(__doc__, rows=1_000_000, targets=500, words=60, size=10_000)
    found: list[Indices] = []
    with tempfile.TemporaryDirectory() as folder:
        pool = write_rows(Path(folder) / "pool.jsonl", asked.rows, asked.words, 0)
        target = write_rows(Path(folder) / "target.jsonl", asked.targets, asked.words, 1)
        reading = seconds(lambda: [None for line in pool.scores.raw_lines(pool.rows) if not read_grams(line)])
        choice = seconds(lambda: found.append(METHODS["bm25"](pool, target, asked.size, 0)))
    print(
        f"{asked.rows} rows x {asked.targets} targets x {asked.words} words, {len(found[0])} taken: "
        f"{choice:.1f} s, {choice / reading:.2f} times reading and finding words; peak {peak_gib():.1f} GiB"
    )


if __name__ == "__main__":
    main()
