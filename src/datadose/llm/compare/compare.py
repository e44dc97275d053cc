"""Which selector works for this pool: small trainings of each, compared over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datadose.errors import reject
from datadose.files import prepare_folder, write_json, write_table
from datadose.llm.compare.arms import Arm, Comparison, select_all, train_all
from datadose.llm.compare.config import CompareConfig
from datadose.llm.compare.forecast import Forecast, forecast
from datadose.llm.compare.report import write_report
from datadose.llm.compare.result import Compared
from datadose.llm.compare.split import FEW, Split
from datadose.llm.compare.table import RUNS, UNTOUCHED, advice, table_of
from datadose.llm.evaluation import Evaluation
from datadose.llm.loading import model_digest
from datadose.llm.posttrain import earlier_result
from datadose.llm.represent import scores_of
from datadose.llm.scores import read_scores
from datadose.llm.selection.arrays import Indices, flags, numbers
from datadose.llm.whereabouts import find_model
from datadose.printing import note
from datadose.progress import Report, silent


def compare(
    scores: Path,
    target: Path,
    out: Path,
    *,
    config: CompareConfig,
    columns: Mapping[str, str] | None = None,
    allow_pickle_weights: bool = False,
    progress: Report = silent,
) -> Compared:
    """Train one small arm for each method, number of rows and seed, and compare their losses on the target.

    Each seed splits the target in three: half of its questions are the examples that the methods select by,
    a quarter chooses the step of least loss, a quarter is measured at that step. So no method is judged on
    what it has seen, and each at its own best stopping time. Everything else is the same for all methods.

    Args:
        scores: folder of a scored pool; its model is the one that is trained.
        target: a pool of target examples, or its scores folder, with no question of the pool.
        out: folder for ``table.csv``, ``runs.csv``, ``curves.csv``, ``manifest.json`` and ``report.html``,
            and for the arms. A comparison that was stopped continues there; with other methods, budgets or
            more seeds the arms that are there already are kept. Adapters are removed with each finished arm.
        config: methods, budgets, seeds, and how each arm is trained.
        columns: the column of a role of the target that is not recognised by its name.
        allow_pickle_weights: read weights from ``.bin`` files too, which can run code.
        progress: called as ``progress(name, done, total)``.

    Raises InputError for bad input, of which nothing is trained, and for a folder with other settings;
    RunError for a training that cannot go on.

    Example::

        config = CompareConfig(methods=["rds", "longest"], budgets=64)
        found = compare(Path("scores"), Path("target.jsonl"), Path("compared"), config=config)
        print(found.advice[0])
    """
    compared = _read(scores, target, out, config, columns, pickles=allow_pickle_weights)
    splits, setting = compared.splits(), _setting(compared)
    prepare_folder("out", out)
    earlier_result(out, setting)
    chosen = select_all(compared, splits, progress)
    write_json(out / "setting.json", setting)
    for sentence in _worth_saying(compared, splits):
        note(sentence)
    results = train_all(compared, splits, chosen, progress)
    curves, runs = _curves(results), _runs(compared, results, chosen)
    table = table_of(runs)
    found = Compared(
        table=table,
        runs=runs,
        curves=curves,
        forecasts=_forecasts(compared.config, runs),
        advice=advice(table, runs),
        unchecked=_unchecked(compared, splits, runs),
        setting=_described(compared, splits),
    )
    _write(found, out)
    return found


def _read(
    scores: Path,
    target: Path,
    out: Path,
    config: CompareConfig,
    columns: Mapping[str, str] | None,
    *,
    pickles: bool,
) -> Comparison:
    pool = read_scores(scores)
    assert pool.folder is not None
    model = find_model(pool.manifest, pool.folder)
    if model_digest(model) != pool.manifest["model_digest"]:
        reject("scores", f"{scores} of a model that has changed since", f"scores of {model} as it is now")
    found = scores_of(target, "target", pool, columns=columns, allow_pickle_weights=pickles)
    return Comparison(pool, found, model, config, out, pickles)


def _setting(compared: Comparison) -> dict[str, Any]:
    """What an arm depends on, but for its own method, budget and seed."""
    config, scores = compared.config, compared.pool.manifest
    training = asdict(config.training(0, loss=scores["loss"], template_date=scores["template_date"]))
    return {
        "comparison": {"learning_rate": config.training(0).rate, "every": _every(config)},
        "training": {
            name: value for name, value in training.items() if name not in ("seed", "learning_rate")
        },
        "model_digest": scores["model_digest"],
        "pool": scores["files"],
        "target": compared.target.manifest["files"],
    }


def _every(config: CompareConfig) -> int:
    return Evaluation(Path(), every=config.evaluate_every).interval(config.steps)


def _described(compared: Comparison, splits: Mapping[int, Split]) -> dict[str, Any]:
    """The comparison for a reader of the manifest and of the report."""
    config, first = compared.config, next(iter(splits.values()))
    parts = {name: len(getattr(first, name)) for name in ("seen", "validation", "test")}
    return {
        "model": compared.model,
        "pool": {"name": str(compared.pool.manifest["pool"]), "rows": len(compared.pool.table)},
        "target": {"name": str(compared.target.manifest["pool"]), **parts},
        **asdict(config),
        "methods": list(config.arms),
        "budgets": list(config.rows),
        "learning_rate": config.training(0).rate,
        "evaluate_every": _every(config),
    }


# --- results ------------------------------------------------------------------------------------------------


def _curves(results: Mapping[Arm, dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": arm.method,
            "budget": arm.budget,
            "seed": arm.seed,
            "step": record["step"],
            "test_loss": record["keep_loss"],
            "validation_loss": record["validation_loss"],
        }
        for arm, result in results.items()
        for record in result["evaluations"]
    )


def _runs(
    compared: Comparison, results: Mapping[Arm, dict[str, Any]], chosen: Mapping[Arm, Indices]
) -> pd.DataFrame:
    """One row an arm and seed, the untouched model first, then by budget, method and seed."""
    tokens = numbers(compared.pool.table, "tokens")
    rows, config = [], compared.config
    for seed in config.seed_numbers:
        start = results[Arm(config.arms[0], config.rows[0], seed)]["evaluations"][0]
        test = start["keep_loss"]
        rows.append((UNTOUCHED, 0, seed, 0, test, start["validation_loss"], 0, test))
    for arm in sorted(chosen, key=lambda one: (one.budget, config.arms.index(one.method), one.seed)):
        result, used = results[arm], int(tokens[chosen[arm]].sum())
        best = next(one for one in result["evaluations"] if one["step"] == result["best_step"])
        losses = (best["keep_loss"], best["validation_loss"], best["step"])
        rows.append((arm.method, arm.budget, arm.seed, used, *losses, result["evaluations"][-1]["keep_loss"]))
    return pd.DataFrame(rows, columns=list(RUNS))


def _forecasts(config: CompareConfig, runs: pd.DataFrame) -> dict[str, Forecast]:
    if len(config.rows) < 2:
        return {}
    found = {}
    for method in config.arms:
        losses = runs[runs["method"] == method].pivot_table(
            index="seed", columns="budget", values="test_loss"
        )
        found[method] = forecast(config.rows, losses.to_numpy(dtype=np.float64), seed=config.seed)
    return found


def _worth_saying(compared: Comparison, splits: Mapping[int, Split]) -> list[str]:
    said = []
    if compared.config.arms != compared.config.methods:
        said.append(f"{compared.config.arms[0]} is run too: the others are compared with it")
    if (count := min(len(split.test) for split in splits.values())) < FEW:
        said.append(f"the target has few rows: {count} are left to test on")
    return said


def _unchecked(compared: Comparison, splits: Mapping[int, Split], runs: pd.DataFrame) -> list[str]:
    config, trained = compared.config, runs[runs["method"] != UNTOUCHED]
    said = [
        "Other steps, rates, batches and sizes of adapter: all arms share those of this run.",
        "Answers: what is compared is the loss of the target's completions, no sampled answer was judged.",
        "Other targets, pools and models: the intervals are over seeds (split of the target, random rows, "
        "adapter, order of rows), not over these.",
        "Equal tokens: arms are equal in rows and steps; the column tokens has what each was trained on.",
    ]
    if len(config.rows) > 1:
        said.append(
            "The form of the curves over rows: their intervals are over seeds, as if the form were right; "
            "losses at four times the largest budget can lie outside (docs/referee.md has a trial)."
        )
    if len(config.arms) > 2:
        said.append(
            "Several comparisons at once: each interval is for one method. Of "
            f"{len(config.arms) - 1} that are no better than random, one or more is called better or worse "
            "in over 5 percent of such runs."
        )
    last = int((trained["best_step"] >= config.steps).sum())
    if last:
        said.append(
            f"More steps: {last} of {len(trained)} runs were best at their last step, so that their best "
            "time is not known."
        )
    first = int((trained["best_step"] == 0).sum())
    if first:
        said.append(
            f"Lower rates: {first} of {len(trained)} runs were best untouched, before their first step: what "
            "their rows are worth at a lower learning rate is not known."
        )
    passed, failed = flags(compared.pool.table, "label_passes")
    if not (passed | failed).any():
        said.append("Labels: the pool was scored without a verifier, wrong completions can be selected.")
    if (count := min(len(split.test) for split in splits.values())) < FEW:
        said.append(f"A target of this size: {count} test rows a seed are few.")
    return said


def _write(found: Compared, out: Path) -> None:
    for name in ("table", "runs", "curves"):
        write_table(out / f"{name}.csv", getattr(found, name))
    write_json(out / "manifest.json", found.to_json())
    write_report(found, out)
