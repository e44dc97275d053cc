"""Peak memory of ``score`` and of ``select`` on pools of growing size, and what each further row adds.

    OMP_NUM_THREADS=1 python benchmarks/score_memory.py [--rows 5000 10000 20000 40000] [--completions 4]

Rows of 1,000 tokens, of which a third is the completion; each with completions of 100 tokens made elsewhere,
which an exact verifier judges. Each size runs in a process of its own. The forward pass is replaced by random
vectors of a model of 8 billion parameters (hidden states of 4,096 numbers, sketches of 512): what it takes
depends on the model and the batch, not on the pool. Everything else is what the commands do: reading,
encoding, keeping, verifying, writing, selecting. The slope is that of the least squares through the sizes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datadose.llm.chat import Encoded
from datadose.llm.language_model import LanguageModel, Losses
from datadose.llm.loading import quiet
from datadose.llm.score import score
from datadose.llm.selection import select, write_selection
from score import VOCABULARY, random_llama
from timing import peak_gib

HIDDEN, TOKENS, TARGETS = 4096, 1000, 333


class Unrun(LanguageModel):
    """A model whose forward pass is not run."""

    hidden_size = HIDDEN

    def measure(self, batch: Sequence[Encoded], sketch: Any = None) -> Losses:
        """Random numbers, different for each row."""
        rng = np.random.default_rng(int(batch[0].ids.sum()))
        vectors = [
            rng.standard_normal((len(batch), size), dtype=np.float32) for size in (HIDDEN, sketch.size)
        ]
        return Losses(rng.random(len(batch)), *vectors)


def write_pool(folder: Path, rows: int, completions: int, name: str) -> tuple[Path, Path]:
    """The pool's file and that of its completions."""
    rng = np.random.default_rng(len(name))

    def text(tokens: int) -> str:
        return " ".join(map(str, rng.integers(2, VOCABULARY, tokens)))

    pool, given = folder / f"{name}.jsonl", folder / f"{name}_completions.jsonl"
    with pool.open("w") as handle, given.open("w") as texts:
        for place in range(rows):
            row = {"id": f"{name}-{place}", "prompt": text(TOKENS - TARGETS), "completion": text(TARGETS)}
            handle.write(json.dumps(row) + "\n")
            said = [
                row["completion"] if rng.random() < place / rows else text(100) for _ in range(completions)
            ]
            texts.write(json.dumps({"id": row["id"], "completions": said}) + "\n")
    return pool, given


def one(rows: int, completions: int) -> None:
    """Score, then select, and print the peaks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with quiet():
            loaded = LanguageModel.load(random_llama(folder / "model", hidden=64, layers=1))
        model = Unrun(**vars(loaded))
        found = []
        for size, part in ((200, "target"), (rows, "pool")):
            pool, given = write_pool(folder, size, completions, part)
            options: dict[str, Any] = {"completions": given, "verifier": "exact"} if completions else {}
            found.append(score(model, pool, folder / f"scored_{part}", **options))
        scored = 2**30 * peak_gib()
        write_selection(select(found[1], found[0]), found[1], None, folder / "selected")
        print(json.dumps([scored, 2**30 * peak_gib()]))


def main() -> None:
    """One process for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 10000, 20000, 40000])
    parser.add_argument("--completions", type=int, default=4)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.rows[0], arguments.completions)
        return
    peaks = []
    for rows in arguments.rows:
        options = ["--rows", str(rows), "--completions", str(arguments.completions), "--one"]
        done = subprocess.run(
            [sys.executable, __file__, *options], capture_output=True, text=True, check=True
        )
        peaks.append(json.loads(done.stdout.splitlines()[-1]))
        scored, selected = (value / 1e6 for value in peaks[-1])
        print(f"{rows:7,} rows: {scored:7,.0f} MB after score, {selected:7,.0f} MB after select", flush=True)
    for name, values in zip(("score", "score and select"), zip(*peaks, strict=True), strict=True):
        slope, start = np.polyfit(arguments.rows, values, 1)
        million = (start + 1e6 * slope) / 1e9
        print(f"{name}: {slope / 1000:.2f} kB a row; by that {million:.1f} GB at 1,000,000 rows")


if __name__ == "__main__":
    main()
