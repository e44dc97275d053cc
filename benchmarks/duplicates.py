"""Seconds and peak memory of looking for near duplicates and for rows of evaluation files.

    OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1 python benchmarks/duplicates.py [--rows 100000]

The pool is synthetic: prompts of 20 to 120 random words (from 20,000, by Zipf's law) behind one instruction,
completions of as many; one row in twenty is a near copy of another, one in a thousand holds one of 2,000
evaluation questions. Both searches go over the rows once: times are in proportion to the rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datadose.llm.pool import Row
from datadose.llm.scores import Scores
from datadose.llm.selection.duplicates import find_near_copies, find_overlaps
from timing import peak_gib

WORDS, QUESTIONS = 20_000, 2_000
FRAME = "Solve the following problem step by step and put the final answer in a box."


def _text(rng: np.random.Generator) -> list[str]:
    return [f"w{i}" for i in rng.zipf(1.3, rng.integers(20, 120)) % WORDS]


def make_pool(folder: Path, rows: int) -> tuple[Scores, list[Row]]:
    """Scores that have texts and nothing else, and the evaluation questions."""
    rng = np.random.default_rng(0)
    questions = [_text(rng) for _ in range(QUESTIONS)]
    offsets, earlier = [], [_text(rng)]
    with (folder / "rows.jsonl").open("wb") as handle:
        for row in range(rows):
            text = _text(rng)
            if row % 20 == 0:
                text = [*earlier[rng.integers(len(earlier))], "again"]
            elif row % 1000 == 1:
                text = questions[rng.integers(QUESTIONS)]
            elif row % 97 == 0:
                earlier.append(text)
            offsets.append(handle.tell())
            columns = {"prompt": f"{FRAME} {' '.join(text)}", "completion": " ".join(_text(rng))}
            handle.write(json.dumps(columns).encode() + b"\n")
    table = pd.DataFrame({"id": [str(row) for row in range(rows)], "offset": offsets})
    nothing = np.zeros((rows, 1), dtype=np.float32)
    asked = [Row(str(i), f"{FRAME} {' '.join(q)}", (), {}, i) for i, q in enumerate(questions)]
    return Scores(table, nothing, nothing, {}, folder), asked


def main() -> None:
    """Make the pool and go over it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as temporary:
        pool, asked = make_pool(Path(temporary), rows)
        searches: dict[str, Callable[[], Any]] = {
            f"against {QUESTIONS} questions": lambda: find_overlaps(pool, {"test": asked}, 0.5),
            "for near duplicates": lambda: find_near_copies(pool, np.arange(rows), 0.8),
        }
        for name, search in searches.items():
            before, start = peak_gib(), time.perf_counter()
            found, _ = search()
            spent = time.perf_counter() - start
            print(f"{rows} rows {name}: {spent:.1f} s, +{peak_gib() - before:.2f} GiB, {found.sum()} found")


if __name__ == "__main__":
    main()
