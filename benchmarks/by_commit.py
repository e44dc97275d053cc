"""The costs of the theory and the planner at several commits, side by side in one run: a loss is seen.

OMP_NUM_THREADS=1 python benchmarks/by_commit.py [COMMIT ...]

Each cost is a multiple of one eigendecomposition of a fixed matrix in the same process (start-up: of a bare
interpreter). The commits take turns, so that a noisy machine is noisy for all of them; the median of the
rounds goes into benchmarks/by_commit.csv, one row a commit. The working tree is the last row. The kept table
is of 7059ef4, which first stated a speed, and 2f24102.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import datadose
from timing import seconds

HOME = Path(__file__).resolve().parent
TABLE = HOME / "by_commit.csv"
ROUNDS = 3
MARKS = ("7059ef4", "74b4783", "be30e8b", "0bb87d9", "2f24102")
"""The first commit that stated a speed, and the last one of each large change since."""
POINTS = (60, 150, 300, 450, 590, 610, 900, 1800)
BLOCKS = {"dimension": 400, "shifted": 200, "rho": 0.1, "eta": 0.2, "interference": 0.1, "length": 400}


def two_blocks(dimension: int) -> datadose.Shift:
    """The paper's shift, half of the directions shifted."""
    return datadose.Shift.two_block(dimension, dimension // 2, 0.1, 0.2, 0.1)


def tasks() -> dict[str, Callable[[], object] | None]:
    """What is timed, by name; None where the source on the path does not have it yet."""
    random = np.random.default_rng(0)
    inside = np.arange(1000) < 333
    spread = np.exp(0.5 * random.standard_normal((2, 1000)))
    sigma0, delta = spread[0] * np.where(inside, 0.1, 1.0), np.where(inside, spread[1], 0.0)
    spectra = datadose.Shift.aligned(sigma0, delta, 0.2, 0.05)
    G = random.standard_normal((3, 200, 400))
    sigma0, delta, data = G @ G.transpose(0, 2, 1) / 400
    dense, large = datadose.Shift(sigma0, delta, data, 0.2), two_blocks(600)
    # Older commits have neither.
    curve: Callable[..., object] | None = getattr(datadose, "predict_curve", None)
    plan: Callable[..., object] | None = getattr(datadose, "plan", None)
    return {
        "8 predictions, two blocks, d=600": lambda: [datadose.predict_error(large, B, 1000) for B in POINTS],
        "prediction, dense, d=200": partial(datadose.predict_error, dense, 70, 400),
        "curve of 1,600 points, d=400": curve and partial(curve, two_blocks(400), np.arange(1600) + 0.5, 400),
        "plan, spectra, d=1,000": plan and partial(plan, spectra, 2000, 5000),
        "simulated curve, d=200": partial(datadose.sft_error_curve, two_blocks(200), 400, 400, seed=0),
    }


def measure() -> dict[str, float]:
    """Cost of each task in eigendecompositions of a 200 x 200 matrix, with the source on the path."""
    M, found = np.random.default_rng(1).standard_normal((200, 200)), {}
    for name, task in tasks().items():
        if task is not None:
            task()
            unit = seconds(partial(np.linalg.eigh, M + M.T), 5)
            found[name] = seconds(task, 3) / unit
    return found


def one_round(source: Path) -> dict[str, float]:
    """:func:`measure` in a process of its own, and the start-up of `datadose predict`."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    run = partial(subprocess.run, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, float] = json.loads(run([sys.executable, __file__, "--measure"]).stdout)
    predict = ["-m", "datadose.cli", "predict", "--prompts", "100"]
    predict += [word for name, value in BLOCKS.items() for word in (f"--{name}", str(value))]
    bare = seconds(partial(run, [sys.executable, "-c", "pass"]), 3)
    start = seconds(partial(run, [sys.executable, *predict]), 3)
    return {**found, "start-up of `predict`, bare interpreters": start / bare}


def source_of(commit: str, folder: Path) -> Path:
    """The package's source at ``commit``, unpacked under ``folder``."""
    place = folder / commit
    place.mkdir()
    run = partial(subprocess.run, check=True, cwd=HOME.parent)
    packed = run(["git", "archive", commit, "src"], capture_output=True).stdout
    run(["tar", "-x", "-C", str(place)], input=packed)
    return place / "src"


def main(commits: list[str]) -> None:
    """Measure the commits in turns, print the table and write it."""
    with tempfile.TemporaryDirectory() as folder:
        sources = {commit: source_of(commit, Path(folder)) for commit in commits}
        sources["working tree"] = HOME.parent / "src"
        rounds: dict[str, list[dict[str, float]]] = {commit: [] for commit in sources}
        for turn in range(1, ROUNDS + 1):
            for commit, source in sources.items():
                rounds[commit].append(one_round(source))
                print(f"{commit}: round {turn} of {ROUNDS}", file=sys.stderr)
    names = list(rounds["working tree"][0])
    with TABLE.open("w", newline="") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(["commit", *names])
        for commit, found in rounds.items():
            known = {name: statistics.median(one[name] for one in found) for name in found[0]}
            medians = [f"{known[name]:.3g}" if name in known else "" for name in names]
            table.writerow([commit, *medians])
            print(
                commit, *(f"{name}: {value}" for name, value in zip(names, medians, strict=True)), sep="\n  "
            )


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        print(json.dumps(measure()))
    else:
        main(sys.argv[1:] or list(MARKS))
