"""What the commands cost: seconds of the CPU and peak memory of each, by what makes it dearer.

    OMP_NUM_THREADS=1 python benchmarks/costs.py [--only score select ...]

Every line is a process of its own. Lines of one kind differ in one thing from an earlier one; the seconds
beyond the first line, which does next to nothing, leave out what it takes to start. The language model is
random: 8 layers of width 256 and a vocabulary of 8,192 (8 million weights, as in `benchmarks/score.py`), its
rows 96 tokens long, a third of them the completion. All of it takes about two minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from score import VOCABULARY, random_llama
from selection import make_scores

BLOCK = (
    "--dimension {d} --shifted {half} --rho 0.1 --eta 0.2 --interference 0.1 --length {d} --prompts {half}"
)
TOKENS, TARGETS = 96, 32
_LAUNCHER = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss]))
sys.exit(code)
"""
"""A small process between: a child's peak begins with that of the process that it was split off from."""


@dataclass(frozen=True)
class Line:
    """One command, and what is said of it."""

    said: str
    words: Sequence[str]
    """The command's words after ``datadose``."""


def measure(line: Line) -> tuple[float, float]:
    """(seconds of the CPU, peak in MB) of the command, children that it waited for included."""
    command = [sys.executable, "-c", _LAUNCHER, sys.executable, "-m", "datadose.cli", *line.words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"failed: datadose {' '.join(line.words)}\n{done.stderr}")
    spent, peak = json.loads(done.stdout)
    return spent, peak / 1000


def write_pool(path: Path, rows: int, seed: int) -> Path:
    """Rows of random whole numbers."""
    rng = np.random.default_rng(seed)
    with path.open("w") as handle:
        for place in range(rows):
            words = list(map(str, rng.integers(2, VOCABULARY, TOKENS)))
            prompt, completion = " ".join(words[:-TARGETS]), " ".join(words[-TARGETS:])
            row = {"id": f"{seed}-{place}", "prompt": prompt + " ", "completion": completion, "answer": "1"}
            handle.write(json.dumps(row) + "\n")
    return path


def plans(folder: Path) -> list[Line]:
    """``predict`` and ``plan``: spectra of growing size, a dense shift, several sources."""
    found = [Line("predict, one point, d = 400", ["predict", *BLOCK.format(d=400, half=200).split()])]
    for d in (400, 4000):
        text = (
            f"sigma0: {{blocks: [[0.1, {d // 2}], [1.0, {d // 2}]]}}\ndelta: {{blocks: [[1.0, {d // 2}], "
            f"[0.0, {d // 2}]]}}\nlength: {d}\neta: 0.2\ninterference: 0.01\nmax_prompts: {5 * d}\n"
        )
        (folder / f"plan{d}.yaml").write_text(text)
        found.append(Line(f"plan, blocks, d = {d}", ["plan", str(folder / f"plan{d}.yaml")]))
    rng = np.random.default_rng(0)
    for d in (100, 300):
        basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
        sigma0 = basis @ np.diag(np.geomspace(2, 0.1, d)) @ basis.T
        np.save(folder / f"sigma0_{d}.npy", (sigma0 + sigma0.T) / 2)
        np.save(folder / f"delta_{d}.npy", np.diag(np.where(np.arange(d) < d // 3, 1.0, 0.0)))
        text = (
            f"sigma0: sigma0_{d}.npy\ndelta: delta_{d}.npy\nlength: {2 * d}\neta: 0.2\n"
            f"interference: 0.05\nmax_prompts: {5 * d}\n"
        )
        (folder / f"dense{d}.yaml").write_text(text)
        found.append(Line(f"plan, dense matrices, d = {d}", ["plan", str(folder / f"dense{d}.yaml")]))
    return found


def scores(folder: Path) -> list[Line]:
    """``score``: rows, samples of a prompt, and their length."""
    model, out = random_llama(folder / "model"), iter(range(100))
    few, many = write_pool(folder / "few.jsonl", 1, 0), write_pool(folder / "many.jsonl", 32, 1)

    def line(said: str, pool: Path, *options: str) -> Line:
        common = [
            "--model",
            str(model),
            "--pool",
            str(pool),
            "--out",
            str(folder / f"s{next(out)}"),
            "--jobs",
            "1",
        ]
        return Line(f"score, {said}", ["score", *common, *options])

    sampled = ["--verifier", "exact", "--max-tokens"]
    return [
        line("1 row", few),
        line("32 rows", many),
        line("32 rows, 4 samples of 32 tokens", many, "--samples", "4", *sampled, "32"),
        line("32 rows, 8 samples of 32 tokens", many, "--samples", "8", *sampled, "32"),
        line("32 rows, 4 samples of 64 tokens", many, "--samples", "4", *sampled, "64"),
    ]


def selections(folder: Path) -> list[Line]:
    """``select``: rows of the pool (576-dimensional states, 512-dimensional sketches), then of the target."""
    make_scores(folder / "target", 200, "target", 1.0)
    make_scores(folder / "targets", 2000, "targets", 1.0)
    found = []
    for rows, target in ((300, "target"), (3000, "target"), (10_000, "target"), (10_000, "targets")):
        pool = folder / f"pool{rows}"
        if not pool.exists():
            make_scores(pool, rows, f"pool{rows}", 0.3)
        size = 200 if target == "target" else 2000
        words = [
            "--scores",
            str(pool),
            "--target",
            str(folder / target),
            "--out",
            str(folder / f"o{rows}{size}"),
        ]
        found.append(Line(f"select, {rows:,} rows, target of {size:,}", ["select", *words]))
    return found


def trainings(folder: Path) -> list[Line]:
    """``posttrain``: one step, then eleven, of SFT and of RL; batches of 8."""
    model, data = random_llama(folder / "model"), write_pool(folder / "sft.jsonl", 32, 2)

    def line(said: str, steps: int, *options: str) -> Line:
        out = str(folder / f"{options[1]}{steps}{len(options)}")
        common = ["--model", str(model), "--data", str(data), "--out", out, "--steps", str(steps)]
        return Line(f"posttrain, {said}", ["posttrain", *common, *options])

    rl = ["--stage", "rl", "--verifier", "exact", "--max-tokens", "32"]
    return [
        line("SFT, 1 step of 8 rows", 1, "--stage", "sft"),
        line("SFT, 6 steps", 6, "--stage", "sft"),
        line("SFT, 6 steps, all weights", 6, "--stage", "sft", "--lora-rank", "0"),
        line("RL, 1 step of 8 samples of 32 tokens", 1, *rl),
        line("RL, 6 steps", 6, *rl),
    ]


KINDS: dict[str, Callable[[Path], list[Line]]] = {
    "plan": plans,
    "score": scores,
    "select": selections,
    "posttrain": trainings,
}


def main() -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    for kind in parser.parse_args().only:
        with tempfile.TemporaryDirectory() as name:
            start = None
            for line in KINDS[kind](Path(name)):
                spent, peak = measure(line)
                start = spent if start is None else start
                print(
                    f"{line.said:<49} {spent:6.1f} s of the CPU, {spent - start:6.1f} s beyond the first; "
                    f"peak {peak:6,.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
