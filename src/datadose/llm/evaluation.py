"""What a run is measured on while it trains: losses on the target and on what must be kept; their curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from datadose.drawing.style import GREY, LOOKS, new_grid, save
from datadose.errors import reject, require_integer, require_number
from datadose.files import write_table
from datadose.llm.mixing import Source
from datadose.llm.pool import Row, read_pool
from datadose.printing import note

VALIDATION, KEEP, WEIGHTED = "validation", "keep", "weighted"
METRIC = f"eval_{WEIGHTED}_loss"
"""The trainer's name for what decides on the best checkpoint."""

_COLUMNS = ("step", "validation_loss", "keep_loss", "weighted_loss", "train_token_accuracy")
_DEFAULT_EVALUATIONS = 20


@dataclass(frozen=True)
class Evaluation:
    """What SFT is measured on while it trains, and what follows from it.

    A loss is the mean over the rows of a file of the mean NLL in nats per completion token: the mean of the
    column ``nll`` that ``score`` writes. The weights of the step with the lowest weighted loss
    (1 - w) validation + w keep are kept, the untouched ones (step 0) included.

    Args:
        validation: a pool of the target.
        keep: a pool of what must not be forgotten; None for none.
        keep_weight: w in [0, 1]. None: 0.5 with ``keep`` (a nat lost on either weighs the same), else 0.
        every: steps between evaluations. None: a twentieth of the run. A checkpoint is written at each.
        patience: training stops after so many evaluations in a row without a new lowest weighted loss. None:
            it goes on to its last step.

    Raises InputError for a value out of range.
    """

    validation: Path
    keep: Path | None = None
    keep_weight: float | None = None
    every: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.keep_weight is not None:
            if self.keep is None:
                reject("keep_weight", self.keep_weight, "none without a file to keep (--keep)")
            require_number("keep_weight", self.keep_weight, 0, 1)
        for name, value in (("evaluate_every", self.every), ("patience", self.patience)):
            if value is not None:
                require_integer(name, value, 1)

    @property
    def weight(self) -> float:
        """The weight w of the loss on ``keep``, with the default resolved."""
        if self.keep_weight is not None:
            return self.keep_weight
        return 0.0 if self.keep is None else 0.5

    @property
    def names(self) -> tuple[str, ...]:
        """The sets that are measured, in order."""
        return (VALIDATION,) if self.keep is None else (VALIDATION, KEEP)

    def interval(self, steps: int) -> int:
        """The number of steps between evaluations in a run of ``steps``."""
        return self.every or math.ceil(steps / _DEFAULT_EVALUATIONS)

    def weighted(self, validation: float, keep: float | None) -> float:
        """The weighted loss (1 - w) validation + w keep, in nats per completion token."""
        return validation if keep is None else (1 - self.weight) * validation + self.weight * keep


def read_sets(
    evaluation: Evaluation,
    training: Sequence[Source],
    columns: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = note,
) -> dict[str, list[Row]]:
    """The rows to measure on, by the name of their set.

    Args:
        evaluation: the files.
        training: the files that are trained on.
        columns: the column of a role, used where a file has it.
        tell: called with each line on how the files were read.

    Raises InputError for a bad row, and for one whose question is trained on.
    """
    files = {VALIDATION: evaluation.validation, KEEP: evaluation.keep}
    places = {row.question: f"{source.file}, {row.place}" for source in training for row in source.rows}
    found = {}
    for name, file in files.items():
        if file is None:
            continue
        found[name] = read_pool(file, name, columns=columns, several=True, tell=tell)
        shared = [row for row in found[name] if row.question in places]
        if shared:
            first = f"{file}, {shared[0].place}: the question of {places[shared[0].question]}"
            more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
            reject(name, f"{first}{more}", "questions that are not trained on")
    return found


def curve(log: Sequence[dict[str, Any]], evaluation: Evaluation) -> list[dict[str, Any]]:
    """One record an evaluation, from the trainer's log.

    ``train_token_accuracy`` is the share of the completion tokens that the model ranks first in the training
    batches since the evaluation before (mean over batches); None at step 0.
    """
    losses: dict[int, dict[str, float]] = {}
    accuracies: dict[int, float] = {}
    for entry in log:
        here = losses.setdefault(entry["step"], {})
        here |= {n: float(entry[f"eval_{n}_loss"]) for n in evaluation.names if f"eval_{n}_loss" in entry}
        if "loss" in entry and "mean_token_accuracy" in entry:
            accuracies[entry["step"]] = float(entry["mean_token_accuracy"])
    found, before = [], 0
    for step, here in sorted(losses.items()):
        if set(here) != set(evaluation.names):
            continue
        validation, keep = here[VALIDATION], here.get(KEEP)
        since = [value for at, value in accuracies.items() if before < at <= step]
        accuracy = float(np.mean(since)) if since else None
        values = (step, validation, keep, evaluation.weighted(validation, keep), accuracy)
        found.append(dict(zip(_COLUMNS, values, strict=True)))
        before = step
    return found


def write_curve(records: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write ``records`` to ``folder/curve.csv``: one row an evaluation, empty where nothing is measured."""
    write_table(folder / "curve.csv", pd.DataFrame(records, columns=list(_COLUMNS)))


def draw_curve(records: Sequence[dict[str, Any]], kept: int, folder: Path) -> None:
    """``folder/curve.png``: the losses along training and, with a kept loss, one against the other.

    Args:
        records: as :func:`curve` returns them.
        kept: the step whose weights are kept, which is marked.
        folder: where to write.
    """
    table = pd.DataFrame(records, columns=list(_COLUMNS)).astype(float)
    both = bool(table["keep_loss"].notna().any())
    panels = 2 if both else 1
    with new_grid(1, panels, width=5.4 * panels, height=3.9) as (figure, axes):
        _draw_losses(axes[0][0], table, kept, both=both)
        if both:
            _draw_exchange(axes[0][1], table, kept)
        save(figure, folder, "curve", ("png",))


def _draw_losses(axis: Axes, table: pd.DataFrame, kept: int, *, both: bool) -> None:
    shown = [("validation_loss", "target (validation)", LOOKS[0])]
    if both:
        shown += [("keep_loss", "kept", LOOKS[1]), ("weighted_loss", "weighted", LOOKS[2])]
    for column, label, look in shown:
        style: dict[str, Any] = {"color": look.color, "linestyle": look.dash, "marker": look.marker}
        axis.plot(table["step"], table[column], label=label, markersize=3.4, **style)
    axis.axvline(kept, color=GREY, linewidth=1, linestyle=(0, (2, 2)))
    side = "right" if kept > table["step"].iloc[-1] / 2 else "left"
    place = axis.get_xaxis_transform()
    axis.text(kept, 1.0, f" best: step {kept} ", transform=place, color=GREY, va="bottom", ha=side)
    axis.set(xlabel="step", ylabel="NLL, nats per completion token")
    axis.legend()


def _draw_exchange(axis: Axes, table: pd.DataFrame, kept: int) -> None:
    """What a gain on the target costs in what must be kept: the run's way from the untouched model."""
    target, keep = table["validation_loss"], table["keep_loss"]
    axis.plot(target, keep, color=LOOKS[0].color, marker="o", markersize=3.4)
    here = table["step"] == kept
    axis.plot(target[here], keep[here], "*", color=LOOKS[1].color, markersize=13, label=f"best: step {kept}")
    if table["step"].iloc[0] == 0:
        hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": GREY, "markersize": 7}
        axis.plot(target.iloc[0], keep.iloc[0], "s", label="untouched", zorder=3, **hollow)
    last = int(table["step"].iloc[-1])
    if last != kept:
        axis.annotate(
            f"step {last}", (target.iloc[-1], keep.iloc[-1]), (4, 4), textcoords="offset points", color=GREY
        )
    axis.set(xlabel="target (validation), nats per token", ylabel="kept, nats per token")
    axis.legend()


def callbacks(evaluation: Evaluation, evaluated: Callable[[Sequence[dict[str, Any]]], None]) -> list[Any]:
    """The trainer's callbacks: the weighted loss as its metric, and early stopping.

    Args:
        evaluation: what is measured.
        evaluated: called with the trainer's log after every evaluation.
    """
    from transformers import EarlyStoppingCallback, TrainerCallback  # noqa: PLC0415 - slow to import

    class Weigh(TrainerCallback):
        """The trainer measures one set after the other; with the last one the weighted loss is known."""

        def __init__(self) -> None:
            self.losses: dict[str, float] = {}
            self.untouched: float | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # The folder may have moved since; of a path that is gone the trainer would lose the best.
            if state.best_global_step:
                best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
                state.best_model_checkpoint = str(best)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # Not at the evaluation itself, where early stopping would count step 0 as no better than itself.
            if state.best_metric is None and self.untouched is not None:
                state.best_metric = self.untouched

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            for name in evaluation.names:
                if (key := f"eval_{name}_loss") in metrics:
                    self.losses[name] = float(metrics[key])
            if len(self.losses) < len(evaluation.names):
                return
            metrics[METRIC] = evaluation.weighted(self.losses[VALIDATION], self.losses.get(KEEP))
            self.losses.clear()
            if state.global_step == 0:
                self.untouched = metrics[METRIC]
            evaluated(state.log_history)

    found: list[Any] = [Weigh()]
    if evaluation.patience is not None:
        found.append(EarlyStoppingCallback(early_stopping_patience=evaluation.patience))
    return found
