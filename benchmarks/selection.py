"""Seconds and peak memory of a selection from a million scored rows, reading and writing included.

    OMP_NUM_THREADS=1 python benchmarks/selection.py [--rows 1000000] [--folder DIR]

Makes a scores folder of random numbers first (embeddings of 576, sketches of 512 numbers; about 5 GB at a
million rows), in blocks, in a temporary folder unless one is named, and selects from it in a process of its
own for either representation. Seconds of the CPU are printed beside those of the clock: a busy machine
distorts them less. The peak counts pages of the memory-mapped arrays that the system keeps for it.

At 1,000,000 rows (one thread of a busy machine, sketches, an RL set of 100,000) a selection takes 16.2 s of
the CPU; it took 14.8 s at afcd6fb, before priors were fitted to pass rates and verified rows went first. The
peak is 3.3 GiB at both, 0.65 GiB of it not mapped from files; by embeddings it is 5.5 GiB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datadose.files import write_json
from datadose.llm.pass_rates import fit_pool, pool_signals
from datadose.llm.scores import TABLE, file_digests, hash_question, read_scores
from datadose.llm.selection import SelectionConfig, select, write_selection
from datadose.llm.selection.config import FILTERS
from timing import peak_gib

HIDDEN, SKETCH, SAMPLES, BLOCK = 576, 512, 16, 20_000
Z2 = 1.959963984540054**2


def make_scores(folder: Path, rows: int, name: str, target_share: float) -> None:
    """A scores folder whose rows point along one of two directions, with losses, lengths and pass rates."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(name))
    is_target = rng.random(rows) < target_share
    tokens = np.maximum(2, rng.lognormal(4, 0.8, rows)).astype(np.int64)
    nll = 0.5 + rng.random(rows) + 8 / tokens
    for kind, size in (("embeddings", HIDDEN), ("sketches", SKETCH)):
        shape = (rows, size)
        array = np.lib.format.open_memmap(folder / f"{kind}.npy", mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, rows, BLOCK):
            block = rng.standard_normal((min(BLOCK, rows - start), size), dtype=np.float32)
            here = is_target[start : start + len(block)]
            block[here, 0] += 8
            block[~here, 1] += 8
            array[start : start + len(block)] = block * tokens[start : start + len(block), None]
        del array
    passed, judged = rng.binomial(SAMPLES, rng.random(rows)), np.full(rows, SAMPLES)
    middle = (passed + Z2 / 2) / (SAMPLES + Z2)
    half = np.sqrt(Z2 * (passed * (SAMPLES - passed) / SAMPLES + Z2 / 4)) / (SAMPLES + Z2)
    ids = [f"{name}-{i}" for i in range(rows)]
    table = pd.DataFrame(
        {
            "id": ids,
            "question_hash": [hash_question(id_) for id_ in ids],
            "nll": nll,
            "nll_alone": np.nan,
            "tokens": tokens,
            "prompt_tokens": 60,
            "pass_rate": passed / SAMPLES,
            "pass_rate_total": SAMPLES,
            "pass_rate_passed": passed,
            "pass_rate_low": middle - half,
            "pass_rate_high": middle + half,
            "signal": pool_signals(fit_pool(np.arange(rows), passed, judged), passed, judged),
            "truncated": 0,
            "label_passes": rng.random(rows) < 0.95,
            "best_completion": None,
            "unfinished": 0,
            "own_confidence": rng.random(rows),
            "own_differs": rng.random(rows) < 0.5,
            "issue": None,
            "incomplete": None,
        }
    )
    table["offset"] = _write_rows(folder / "rows.jsonl", table)
    table.astype(TABLE).to_parquet(folder / "table.parquet", index=False)
    write_json(
        folder / "manifest.json",
        {"model": "random numbers", "model_digest": "0", "files": file_digests(folder)},
    )


def _write_rows(path: Path, table: pd.DataFrame) -> NDArray[np.int64]:
    """Rows of about 800 bytes; their byte offsets."""
    text = "What is the sum of the numbers that follow, step by step? " * 4
    columns = [name for name in table.columns if name not in ("id", "question_hash")]
    offsets, position = np.empty(len(table), dtype=np.int64), 0
    with path.open("wb") as handle:
        for place, (id_, *values) in enumerate(table[["id", *columns]].itertuples(index=False)):
            row = {"id": id_, "prompt": f"{text}{place}", "completion": text[:120], "answer": str(place)}
            row |= {**dict(zip(columns, values, strict=True)), "own_completion": text[:60]}
            line = json.dumps(row).encode() + b"\n"
            offsets[place] = position
            position += handle.write(line)
    return offsets


def run(folder: Path, representation: str, rl_size: str) -> None:
    """One selection, as the command does it; prints its times and the peak of memory."""
    size = int(rl_size) if rl_size != "auto" else "auto"
    config = SelectionConfig(method=FILTERS, representation=representation, rl_size=size)  # type: ignore[arg-type]
    start, cpu = time.perf_counter(), time.process_time()
    pool, target, reference = (read_scores(folder / name) for name in ("pool", "target", "reference"))
    read = time.perf_counter()
    selection = select(pool, target, reference=reference, config=config)
    selected = time.perf_counter()
    write_selection(selection, pool, reference, folder / "out")
    written = time.perf_counter()
    sizes = f"SFT {len(selection.sft)}, RL {len(selection.rl)}"
    print(
        f"{representation}, {len(pool.table)} rows ({sizes}): {written - start:.1f} s, "
        f"{time.process_time() - cpu:.1f} s of the CPU "
        f"(read {read - start:.1f}, select {selected - read:.1f}, write {written - selected:.1f}), "
        f"peak {peak_gib():.1f} GiB",
        flush=True,
    )


def main() -> None:
    """Make the folder, then select in fresh processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="keep the scores here, and reuse them")
    parser.add_argument("--run", nargs=2, metavar=("REPRESENTATION", "RL_SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.folder, *arguments.run)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        for name, rows, share in (
            ("pool", arguments.rows, 0.3),
            ("target", 1000, 1.0),
            ("reference", 4000, 0.0),
        ):
            if not (folder / name / "manifest.json").is_file():
                make_scores(folder / name, rows, name, share)
        for case in (("sketch", "auto"), ("embedding", "auto"), ("sketch", str(arguments.rows // 10))):
            command = [sys.executable, __file__, "--folder", str(folder), "--run", *case]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
