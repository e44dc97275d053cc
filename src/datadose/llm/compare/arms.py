"""The arms of a comparison: which rows each one selects, and its training, kept once it is finished.

An arm's folder holds ``sft.jsonl``, ``arm.json`` (which rows, by a digest) and ``run``, the folder of
:func:`~datadose.llm.posttrain.posttrain`: curve, result and, until it is finished, checkpoints and weights.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datadose.errors import InputError, reject
from datadose.files import prepare_folder, write_json
from datadose.llm.cache import content_digest
from datadose.llm.compare.config import BASELINE, CompareConfig
from datadose.llm.compare.split import Split, split_target
from datadose.llm.evaluation import Evaluation
from datadose.llm.posttrain import posttrain
from datadose.llm.scores import Scores
from datadose.llm.selection import SelectionConfig, select
from datadose.llm.selection.arrays import Indices
from datadose.llm.selection.writing import write_demonstrations
from datadose.progress import Report
from datadose.reading import read_json


@dataclass(frozen=True)
class Arm:
    """A method with a number of rows and a seed."""

    method: str
    budget: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.method}-{self.budget}-{self.seed}"


@dataclass(frozen=True)
class Comparison:
    """What is compared: read, measured and checked."""

    pool: Scores
    target: Scores
    model: str
    config: CompareConfig
    out: Path
    allow_pickle_weights: bool = False

    @property
    def arms(self) -> list[Arm]:
        """All arms, those of a seed together: what was finished when a run is stopped can be compared."""
        config = self.config
        return [
            Arm(method, budget, seed)
            for seed in config.seed_numbers
            for budget in config.rows
            for method in config.arms
        ]

    def splits(self) -> dict[int, Split]:
        """The target's parts of each seed."""
        return {seed: split_target(self.target, seed) for seed in self.config.seed_numbers}


def select_all(compared: Comparison, splits: dict[int, Split], progress: Report) -> dict[Arm, Indices]:
    """The rows of each arm, ascending: all selections are made before anything is trained.

    Raises InputError as :func:`~datadose.llm.selection.select` does: a budget larger than the usable rows,
    scores that lack what a method needs, and a question of the target, in whichever part, in the pool.
    """
    arms, chosen = compared.arms, {}
    # Validation and test must not be in the pool either.
    _select(compared.pool, compared.target, replace(arms[0], method=BASELINE))
    parts = {seed: compared.target.part(split.seen) for seed, split in splits.items()}
    for done, arm in enumerate(arms):
        progress("compare: selecting (sets)", done, len(arms))
        chosen[arm] = _select(compared.pool, parts[arm.seed], arm)
    progress("compare: selecting (sets)", len(arms), len(arms))
    return chosen


def _select(pool: Scores, target: Scores, arm: Arm) -> Indices:
    config = SelectionConfig(method=arm.method, sft_size=arm.budget, rl_size=0, seed=arm.seed)
    try:
        return select(pool, target, config=config).sft
    except InputError as error:
        if error.field != "sft-size":
            raise
        # The field of `select`: who compares has given a budget, and has no "auto".
        reject("budget", arm.budget, error.allowed.replace(", or auto", ""))


def train_all(
    compared: Comparison, splits: dict[int, Split], chosen: dict[Arm, Indices], progress: Report
) -> dict[Arm, dict[str, Any]]:
    """Train each arm, or read what is finished; returns its result, as ``posttrain`` does."""
    for seed, split in splits.items():
        folder = prepare_folder("out", _parts(compared, seed))
        for name, rows in (("validation", split.validation), ("test", split.test)):
            write_demonstrations(compared.target, rows, folder / f"{name}.jsonl")
    steps, found = compared.config.steps, {}
    total = len(chosen) * steps
    for place, (arm, rows) in enumerate(chosen.items()):

        def report(name: str, step: int, of: int, before: int = place * steps) -> None:
            progress("compare: training (steps)", before + step, total)

        found[arm] = _train(compared, arm, rows, report)
        report("", steps, steps)
    return found


def _parts(compared: Comparison, seed: int) -> Path:
    return compared.out / "target" / str(seed)


def _train(compared: Comparison, arm: Arm, rows: Indices, progress: Report) -> dict[str, Any]:
    config, folder = compared.config, compared.out / "arms" / arm.name
    run, wanted = folder / "run", {"rows": len(rows), "rows_digest": content_digest(rows.tolist())}
    prepare_folder("out", folder)
    if (folder / "arm.json").is_file() and read_json(folder / "arm.json") != wanted:
        reject("out", f"{folder} with other rows", "a folder of its own: this arm was run on other rows")
    if not (run / "result.json").is_file():
        write_demonstrations(compared.pool, rows, folder / "sft.jsonl")
        write_json(folder / "arm.json", wanted)
        parts, scores = _parts(compared, arm.seed), compared.pool.manifest
        posttrain(
            compared.model,
            folder / "sft.jsonl",
            run,
            config=config.training(arm.seed, loss=scores["loss"], template_date=scores["template_date"]),
            evaluation=Evaluation(
                parts / "validation.jsonl",
                keep=parts / "test.jsonl",
                # The test part is measured, and has no say.
                keep_weight=0.0,
                every=config.evaluate_every,
            ),
            allow_pickle_weights=compared.allow_pickle_weights,
            progress=progress,
            tell=lambda _: None,
        )
    for name in ("adapter", "model", "checkpoints"):
        shutil.rmtree(run / name, ignore_errors=True)
    result = read_json(run / "result.json")
    if not isinstance(result, dict) or not result.get("evaluations"):
        reject("out", str(run / "result.json"), "the record of an arm (remove its folder to train it again)")
    return result
