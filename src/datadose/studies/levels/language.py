"""The language model of our own: loss and forgetting along fine-tuning, by rows, pool, weight and averaging.

The pretrained models are the token study's: three Llamas of 0.6 million parameters trained on sorting, the
target, rarely, each with its own rows and order of batches (seed s sets all). A misleading pool has
clean rows of the target and two sorts of contaminants in equal parts: wrong answers on the target, and
prompts of the known families with the answer in another format.

``error`` and ``kept`` are losses (nats a completion token) on held-out strings of the target and of the known
families; ``train`` is the share of completion tokens that are right among the rows trained on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datadose.studies.levels.descent import Descent, Outputs, descend, score_tokens, weighted_loss
from datadose.studies.levels.linearised import Linearised
from datadose.studies.levels.schema import (
    SHARE_MISLEADING,
    WEIGHTS,
    Column,
    Level,
    Model,
    Pool,
    shared_columns,
)
from datadose.studies.study import Preset
from datadose.studies.tables import Setting
from datadose.studies.token_study.language import (
    KNOWN,
    MARK,
    TARGET,
    TEST,
    TRAIN,
    Example,
    draw_examples,
    draw_family,
    mixture,
)
from datadose.studies.token_study.model import (
    DecoderShape,
    TokenPretraining,
    Tokens,
    encode,
    load_model,
    pretrain,
)
from datadose.studies.token_study.pools import disordered
from datadose.studies.token_study.runs import HeldOut, held_out_examples
from datadose.sweep import Cell, file_cell

MEASURED = (
    *(Column.UPDATES, Column.EPOCHS, Column.ERROR, Column.KEPT),
    *(Column.TRAIN, Column.ACCURACY, Column.KEPT_ACCURACY),
)
_TRAINED_ROWS = 256
"""Rows trained on that are scored, evenly among all."""


@dataclass(frozen=True)
class LanguageRun:
    """A run of fine-tuning.

    Args:
        seed: of the pretrained model, the rows and the order of batches.
        prompts: rows B of the pool, the first of a list that all B of a seed share.
        most: length of that list.
        descent: rate, batches, and numbers of updates at which the model is measured.
        misleading: share of the rows that mislead.
        weight: of a misleading row in the loss; 0 leaves the misleading rows out of the batches.
        models: M models, each fine-tuned on B/M of the rows, no row on two; their weights are averaged.
        linearised: whether the model linearised at its pretrained weights is trained in its place.
    """

    seed: int
    prompts: int
    most: int
    descent: Descent
    misleading: float = 0.0
    weight: float = 1.0
    models: int = 1
    linearised: bool = False


def pool_rows(run: LanguageRun) -> tuple[list[Example], list[float]]:
    """The rows of the run's pool that are trained on, clean ones first, and their weights."""
    target = draw_family([run.seed, 40], run.most, TARGET, TRAIN)[: run.prompts]
    bad = round(run.misleading * run.prompts)
    clean, spoiled = target[: run.prompts - bad], target[run.prompts - bad :][: bad // 2]
    if run.weight == 0:
        return clean, [1.0] * len(clean)
    rng = np.random.default_rng([run.seed, 41])
    wrong = [(prompt, disordered(rng, answer)) for prompt, answer in spoiled]
    known = list(dict.fromkeys(draw_examples(rng, 2 * bad + 8, mixture(0.0))))[: bad - len(wrong)]
    interfering = [(prompt, MARK + answer) for prompt, answer in known]
    return [*clean, *wrong, *interfering], [1.0] * len(clean) + [run.weight] * bad


def run_language(path: Path, run: LanguageRun, held_out: HeldOut) -> list[list[float]]:
    """Cell: for each number of updates of the run, what MEASURED names."""
    examples, weights = pool_rows(run)
    tokens, each, model = encode(examples), torch.tensor(weights), load_model(path)
    parts = [np.arange(len(tokens))[place :: run.models] for place in range(run.models)]
    trainings = [
        _training(_network(model, run), tokens.at(part), each[part], run, place)
        for place, part in enumerate(parts)
    ]
    seen = tokens.at(np.unique(np.linspace(0, len(tokens) - 1, _TRAINED_ROWS).round().astype(int)))
    found = []
    for looks in zip(*trainings, strict=True):
        updates = looks[0][0]
        outputs = _logits(_average([network for _, network in looks]))
        epochs = run.descent.epochs(updates, len(parts[0]))
        found.append([updates, epochs, *_measured(outputs, seen, held_out)])
    return found


def _network(model: Any, run: LanguageRun) -> Any:
    """What is trained: a copy of the pretrained model, or its expansion."""
    if not run.linearised:
        return copy.deepcopy(model)
    # Written out, attention has a cheaper forward derivative.
    model.set_attn_implementation("eager")
    return Linearised(model, read=lambda made: made.logits)


def _logits(network: Any) -> Outputs:
    def outputs(inputs: Tensor) -> Tensor:
        made = network(input_ids=inputs, use_cache=False)
        return made if isinstance(made, Tensor) else cast("Tensor", made.logits)

    return outputs


def _training(
    network: Any, tokens: Tokens, weights: Tensor, run: LanguageRun, place: int
) -> Iterator[tuple[int, Any]]:
    """Fine-tune one of the run's models on its own rows: numbers of updates and the network then."""
    outputs = _logits(network)

    def loss(rows: NDArray[np.int64]) -> Tensor:
        batch = tokens.at(rows)
        return weighted_loss(outputs(batch.inputs), batch.labels, weights[rows])

    order = run.seed + 1000 * place
    for updates in descend(network.parameters(), loss, len(tokens), run.descent, order):
        yield updates, network


def _average(networks: Sequence[Any]) -> Any:
    """A network whose weights are the means of those of the networks; the only one as it is."""
    if len(networks) == 1:
        return networks[0]
    mean = copy.deepcopy(networks[0])
    with torch.no_grad():
        for weight, *others in zip(*(network.parameters() for network in (mean, *networks)), strict=True):
            weight.copy_(torch.stack(others).mean(dim=0))
    return mean


def _measured(outputs: Outputs, seen: Tokens, held_out: HeldOut) -> list[float]:
    target = score_tokens(outputs, _held_tokens((TARGET,), held_out.target))
    known = score_tokens(outputs, _held_tokens(KNOWN, held_out.known))
    return [target.loss, known.loss, score_tokens(outputs, seen).tokens, target.rows, known.rows]


@cache
def _held_tokens(families: tuple[str, ...], count: int) -> Tokens:
    """The test strings of families, ``count`` each; short ones first, so that padding is short."""
    rows = [row for family in families for row in held_out_examples(family, TEST, count)]
    return encode(sorted(rows, key=lambda row: len(row[0])))


@dataclass(frozen=True)
class LanguageLevel:
    """Sizes, rows, rate and training lengths of this level.

    Args:
        pretraining: of the model of seed 0.
        held_out: test strings of the target, and of each known family.
        descent: of every run that no other field names.
        prompts: rows B on a pool of one kind; the last at least so many as the runs of ``descent`` draw.
        long_prompts: those B of one kind that are trained for ``long_updates`` too.
        long_updates: numbers of updates after those of ``descent``.
        mixed_prompts: rows B of pools with a misleading source, at weight 1, at the lower one, and removed.
        averaged_prompts: rows B of one kind that ``models`` models share.
        models: M.
        linearised_prompts: rows B of one kind on which the linearised model is trained.
        linearised_mixed: rows B of misleading pools on which it is.
        linearised_updates: the numbers of updates of the linearised model.
        seeds: pretrained models.
    """

    pretraining: TokenPretraining
    held_out: HeldOut
    descent: Descent
    prompts: tuple[int, ...]
    long_prompts: tuple[int, ...]
    long_updates: tuple[int, ...]
    mixed_prompts: tuple[int, ...]
    averaged_prompts: tuple[int, ...]
    models: int
    linearised_prompts: tuple[int, ...]
    linearised_mixed: tuple[int, ...]
    linearised_updates: tuple[int, ...]
    seeds: int

    measured: ClassVar[tuple[str, ...]] = MEASURED

    @classmethod
    def preset(cls, name: Preset) -> LanguageLevel:
        """Smoke: seconds. Quick: about 35 minutes of one core. Paper: more seeds, longer, all B."""
        if name == "smoke":
            return cls(
                TokenPretraining(0.03, DecoderShape(16, 1, 2, 32), steps=4, batch=16, warmup=2),
                HeldOut(12, 6),
                Descent(1e-3, (0, 2), batch=4, warmup=1),
                (8, 16), (16,), (3,), (16,), (16,), 2, (8,), (16,), (0, 2), 2,
            )  # fmt: skip
        quick = cls(
            TokenPretraining(0.02, steps=500),
            HeldOut(300, 60),
            Descent(3e-4, (0, 3, 10, 30, 100, 300)),
            prompts=(32, 128, 512, 2048, 9600),
            long_prompts=(32, 512, 9600),
            long_updates=(1000,),
            mixed_prompts=(128, 512, 2048),
            averaged_prompts=(512, 2048),
            models=4,
            linearised_prompts=(32, 512, 2048),
            linearised_mixed=(2048,),
            linearised_updates=(0, 3, 10, 30, 100),
            seeds=3,
        )
        if name != "paper":
            return quick
        return replace(
            quick,
            held_out=HeldOut(1200, 240),
            long_prompts=quick.prompts,
            long_updates=(1000, 3000),
            mixed_prompts=quick.prompts,
            averaged_prompts=(128, 512, 2048, 9600),
            linearised_prompts=quick.prompts,
            linearised_mixed=quick.prompts,
            linearised_updates=quick.descent.updates,
            seeds=8,
        )

    def made(self, folder: Path) -> list[Cell]:
        """The cells that make the pretrained models in ``folder``, by seed: all before the others.

        They are those of the token study, which finds them where ``folder`` is that of its results.
        """
        share = self.pretraining.target_share
        return [
            file_cell(
                folder / "pretrained",
                f"token-{share:g}-{seed}",
                "",
                pretrain,
                pretraining=replace(self.pretraining, seed=seed),
            )
            for seed in range(self.seeds)
        ]

    def settings(self, folder: Path) -> Iterator[Setting]:
        """Every run's cell and the columns that its rows share; the seeds of a run one after the other."""
        models = self.made(folder)
        for run in self.runs():
            yield (
                Cell(run_language, {"path": models[run.seed].file, "run": run, "held_out": self.held_out}),
                shared_columns(
                    Level.LANGUAGE,
                    "adamw",
                    run.prompts,
                    pool=Pool.MISLEADING if run.misleading else Pool.ONE_KIND,
                    weight=run.weight,
                    models=run.models,
                    model=Model.LINEARISED if run.linearised else Model.REAL,
                    seed=run.seed,
                ),
            )

    def runs(self) -> Iterator[LanguageRun]:
        """Every run."""
        for run in self._runs_of_a_seed():
            yield from (replace(run, seed=seed) for seed in range(self.seeds))

    def _runs_of_a_seed(self) -> Iterator[LanguageRun]:
        longer = replace(self.descent, updates=self.descent.updates + self.long_updates)
        first = LanguageRun(0, 0, max(self.prompts), self.descent)
        for B in self.prompts:
            yield replace(first, prompts=B, descent=longer if B in self.long_prompts else self.descent)
        mixed = replace(first, misleading=SHARE_MISLEADING)
        for B in self.mixed_prompts:
            yield from (replace(mixed, prompts=B, weight=weight) for weight in WEIGHTS)
        expansion = replace(self.descent, updates=self.linearised_updates)
        for one, sizes in ((first, self.linearised_prompts), (mixed, self.linearised_mixed)):
            yield from (replace(one, prompts=B, descent=expansion, linearised=True) for B in sizes)
        for B in self.averaged_prompts:
            yield replace(first, prompts=B, models=self.models)
