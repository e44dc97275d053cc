"""SmolLM2: loss and forgetting along fine-tuning by LoRA, on a pool with wrong answers, by rows and weight.

The model is the one of the study of SmolLM2 on arithmetic, its target and earlier abilities too: sums that
it rarely solves, and sums, products and gcd that it mostly solves. The misleading rows are questions of the
target with a number near the answer. A seed has its own rows, order of batches and adapter.

``error`` and ``kept`` are losses (nats a completion token) on held-out questions of the target and of the
earlier abilities; ``train`` is the share of completion tokens that are right among the rows trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datadose.errors import require_extra
from datadose.llm.language_model import LanguageModel
from datadose.llm.loading import quiet
from datadose.studies.levels.descent import Descent, descend, score_tokens, weighted_loss
from datadose.studies.levels.language import MEASURED
from datadose.studies.levels.schema import (
    LOWER_WEIGHT,
    SHARE_MISLEADING,
    Level,
    Pool,
    shared_columns,
)
from datadose.studies.llm_study.base_model import Base, make_base
from datadose.studies.llm_study.measure import encode_rows
from datadose.studies.llm_study.tasks import draw_mixture, spoil
from datadose.studies.study import Preset
from datadose.studies.tables import Setting
from datadose.studies.token_study.model import Tokens, pad_rows
from datadose.sweep import Cell, file_cell

Row = dict[str, Any]
_TEST, _POOL = 9001, 2000
"""Seeds of the draws: of held-out questions, and of pools (plus the run's seed)."""
_CHUNK = 32
"""Rows that are scored at once: with a logit for each of 49,000 tokens, they fill memory."""
_TRAINED_ROWS = 32


@dataclass(frozen=True)
class Questions:
    """Levels of the target and of earlier abilities, and held-out questions of each level."""

    target: tuple[str, ...] = ("sum 3x1", "sum 2x2")
    earlier: tuple[str, ...] = ("sum 2x1", "product 1", "gcd 12")
    target_rows: int = 32
    earlier_rows: int = 16


@dataclass(frozen=True)
class SmolRun:
    """A run of fine-tuning.

    Args:
        seed: of the rows, the adapter and the order of batches.
        prompts: rows B of the pool, the first of a list that all B of a seed share.
        most: length of that list.
        descent: rate, batches, and numbers of updates at which the model is measured.
        misleading: share of the rows that mislead.
        weight: of a misleading row in the loss; 0 leaves the misleading rows out of the batches.
        rank: of the adapter on all linear layers, alpha twice as large.
    """

    seed: int
    prompts: int
    most: int
    descent: Descent
    misleading: float
    weight: float = 1.0
    rank: int = 8


def smol_rows(run: SmolRun, questions: Questions) -> tuple[list[Row], list[float]]:
    """The rows of the run's pool that are trained on, clean ones first, and their weights."""
    taken = {row["prompt"] for row in _held_out(questions.target, questions.target_rows)}
    each = -(-run.most // len(questions.target))
    drawn = draw_mixture(dict.fromkeys(questions.target, each), _POOL + run.seed, taken)
    in_turn = [row for place in range(each) for row in drawn[place::each]][: run.prompts]
    bad = round(run.misleading * run.prompts)
    clean, spoiled = in_turn[: run.prompts - bad], in_turn[run.prompts - bad :]
    if run.weight == 0:
        return clean, [1.0] * len(clean)
    return [*clean, *spoil(spoiled, ("wrong",), run.seed)], [1.0] * len(clean) + [run.weight] * bad


def _held_out(levels: Sequence[str], count: int) -> list[Row]:
    return draw_mixture(dict.fromkeys(levels, count), _TEST)


def run_smol(base: Path, run: SmolRun, questions: Questions) -> list[list[float]]:
    """Cell: for each number of updates of the run, the measurements of the language model of our own."""
    torch.set_num_threads(1)
    model = LanguageModel.load(base)
    rows, weights = smol_rows(run, questions)
    tokens, each = _encode(model, rows), torch.tensor(weights)
    target = _encode(model, _held_out(questions.target, questions.target_rows))
    known = _encode(model, _held_out(questions.earlier, questions.earlier_rows))
    seen = tokens.at(np.unique(np.linspace(0, len(tokens) - 1, _TRAINED_ROWS).round().astype(int)))

    def outputs(inputs: Tensor) -> Tensor:
        return cast("Tensor", model.model(input_ids=inputs, use_cache=False).logits)

    def loss(chosen: NDArray[np.int64]) -> Tensor:
        batch = tokens.at(chosen)
        return weighted_loss(outputs(batch.inputs), batch.labels, each[chosen])

    found = []
    adapter = add_adapter(model.model, run.rank, run.seed)
    for updates in descend(adapter, loss, len(tokens), run.descent, run.seed):
        scores = [score_tokens(outputs, part, _CHUNK) for part in (target, known, seen)]
        losses, hits = [score.loss for score in scores[:2]], [score.rows for score in scores[:2]]
        epochs = run.descent.epochs(updates, len(tokens))
        found.append([updates, epochs, *losses, scores[2].tokens, *hits])
    return found


def _encode(model: LanguageModel, rows: Sequence[Row]) -> Tokens:
    # Padding is at the end, where causal attention never looks from a real token: any token will do.
    return pad_rows([(row.prompt_ids, row.completion_ids) for row in encode_rows(model, rows)])


def add_adapter(model: Any, rank: int, seed: int) -> list[Tensor]:
    """Put an adapter on all linear layers of ``model``, untrained, so that outputs are the same; its weights.

    Alpha is twice the ``rank``; ``seed`` is that of the first values.
    """
    require_extra("llm", "peft")
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - optional

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        get_peft_model(model, config)
    return [weight for weight in model.parameters() if weight.requires_grad]


@dataclass(frozen=True)
class SmolLevel:
    """Sizes, rows, rate and training lengths of this level.

    Args:
        base: SmolLM2 from its wheel, or a tiny random model.
        questions: target and earlier abilities.
        descent: of every run.
        prompts: rows B of a pool with misleading rows, all alike.
        weighted_prompts: the B at which they also have the lower weight, or are removed.
        seeds: draws of rows, adapter and order.
    """

    base: Base
    questions: Questions
    descent: Descent
    prompts: tuple[int, ...]
    weighted_prompts: tuple[int, ...]
    seeds: int

    measured: ClassVar[tuple[str, ...]] = MEASURED

    @classmethod
    def preset(cls, name: Preset) -> SmolLevel:
        """Smoke: a tiny model, seconds. Else SmolLM2, about 20 minutes of one core."""
        if name == "smoke":
            few = Questions(target_rows=4, earlier_rows=4)
            return cls("tiny", few, Descent(1e-3, (0, 2), batch=4, warmup=1), (4, 8), (8,), 2)
        descent = Descent(1e-3, (0, 3, 10, 30), batch=8, warmup=3)
        return cls("smollm2", Questions(), descent, (16, 64, 256), (64,), 2)

    def made(self, folder: Path) -> list[Cell]:
        """The cell that makes the pretrained model in ``folder``: before the others.

        Where the wheel is not installed it raises InputError with the command that installs it. It is the
        cell of the study of SmolLM2.
        """
        return [file_cell(folder / "llm-study", f"base-{self.base}", "", make_base, base=self.base)]

    def settings(self, folder: Path) -> Iterator[Setting]:
        """Every run's cell and the columns that its rows share; the seeds of a run one after the other."""
        (model,) = self.made(folder)
        for run in self.runs():
            yield (
                Cell(run_smol, {"base": model.file, "run": run, "questions": self.questions}),
                shared_columns(
                    Level.SMOLLM,
                    "adamw",
                    run.prompts,
                    pool=Pool.MISLEADING,
                    weight=run.weight,
                    seed=run.seed,
                ),
            )

    def runs(self) -> Iterator[SmolRun]:
        """Every run."""
        arms = [(B, 1.0) for B in self.prompts]
        arms += [(B, weight) for B in self.weighted_prompts for weight in (LOWER_WEIGHT, 0.0)]
        first = SmolRun(0, 0, max(self.prompts), self.descent, SHARE_MISLEADING)
        for B, weight in arms:
            for seed in range(self.seeds):
                yield replace(first, seed=seed, prompts=B, weight=weight)
