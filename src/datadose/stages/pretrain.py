"""Pretraining of models without a population solution: fresh prompts whose dimension and length grow.

The paper pretrains its GPT-2 on the SFT loss with chain length k = 8 (section 8) under the curriculum of Garg
et al. (2022): the objective is :class:`~datadose.stages.sft.Sft`, the data are here. Garg's prompts of
dimension d_t have the inputs' coordinates beyond d_t set to zero, and both d_t and the length n_t grow at
regular intervals.

The paper leaves open: the start, step and interval of the curriculum (the defaults of :class:`Curriculum` are
Garg's), d and n themselves, eta, optimiser, learning rate and number of steps (Garg: Adam, 1e-4, 500,000).
Two decisions are ours. Garg's model predicts labels, which never contain the coordinates of w* beyond d_t; a
chain of thought states w* itself, and a model cannot learn what no input reveals, so these coordinates of w*
are zero too. And Garg's loss covers every prefix of a prompt, so all shorter lengths are trained, while a
chain follows the whole prompt: here a length is used only while the curriculum is at it, unless
``vary_length`` draws shorter ones too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from datadose.errors import reject, require_integer
from datadose.models import ChainModel, PromptBatch
from datadose.prompts import random_stream
from datadose.shapes import Operator
from datadose.stages.checkpoint import Training
from datadose.stages.config import PretrainConfig
from datadose.stages.data import FreshData
from datadose.stages.engine import train
from datadose.stages.optimisation import Optimisation
from datadose.stages.sft import Sft


@dataclass(frozen=True)
class Curriculum:
    """Dimension and length at every optimiser step: start + increment * (step // every), up to the end.

    Raises InputError for an end below its start.
    """

    end_dimension: int
    end_length: int
    start_dimension: int = 5
    start_length: int = 11
    dimension_increment: int = 1
    length_increment: int = 2
    every: int = 2000

    def __post_init__(self) -> None:
        for name in ("dimension", "length"):
            start = require_integer(f"start_{name}", getattr(self, f"start_{name}"), 1)
            if require_integer(f"end_{name}", getattr(self, f"end_{name}"), 1) < start:
                reject(f"end_{name}", getattr(self, f"end_{name}"), f"at least the start, {start}")
            require_integer(f"{name}_increment", getattr(self, f"{name}_increment"), 1)
        require_integer("every", self.every, 1)

    @classmethod
    def constant(cls, dimension: int, length: int) -> Curriculum:
        """No curriculum: the full dimension and length from the first step."""
        return cls(dimension, length, dimension, length)

    def dimension(self, step: int) -> int:
        """The dimension d_t of the inputs at optimiser step ``step`` (from 0)."""
        return min(self.end_dimension, self.start_dimension + self.dimension_increment * (step // self.every))

    def length(self, step: int) -> int:
        """The prompt length n_t at optimiser step ``step`` (from 0)."""
        return min(self.end_length, self.start_length + self.length_increment * (step // self.every))


@dataclass(frozen=True)
class CurriculumData:
    """Fresh prompts at every step, of the step's dimension d_t and length n_t.

    Batches hold weights and inputs of all d coordinates, zero beyond d_t.

    ``covariance`` is one covariance or a mixture of (weight, covariance), as in
    :class:`~datadose.stages.data.FreshData`. The order of Sigma0's coordinates decides which
    directions occur early; a dense Sigma0 is cut by coordinates, not by eigenvectors.

    Raises InputError unless the curriculum ends at the covariance's dimension.
    """

    covariance: Operator | tuple[tuple[float, Operator], ...]
    curriculum: Curriculum
    size: int
    seeds: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    vary_length: bool = False
    """Draw each batch's length evenly from the start's to the curriculum's: shorter prompts stay known."""
    prompts: ClassVar[None] = None

    def __post_init__(self) -> None:
        require_integer("batch", self.size, 1)
        covariances = (
            [c for _, c in self.covariance] if isinstance(self.covariance, tuple) else [self.covariance]
        )
        for covariance in covariances:
            if len(covariance) != self.curriculum.end_dimension:
                reject("end_dimension", self.curriculum.end_dimension, f"the dimension, {len(covariance)}")

    def batch(self, step: int) -> PromptBatch:
        """See :class:`~datadose.stages.data.Data`."""
        length, kept = self.curriculum.length(step), self.curriculum.dimension(step)
        if self.vary_length:
            chosen = random_stream([*self.seeds, step], "length")
            length = int(chosen.integers(self.curriculum.start_length, length + 1))
        drawn = FreshData(self.covariance, length, self.size, self.seeds, self.dtype, hold_inputs=True)
        batch = drawn.batch(step)
        hidden = self.curriculum.end_dimension - kept
        return batch.map(lambda x, _: functional.pad(x[..., :kept], (0, hidden))) if hidden else batch


def pretrain_on_chains(
    model: ChainModel,
    covariance: Operator | tuple[tuple[float, Operator], ...],
    config: PretrainConfig,
    *,
    seed: int,
    vary_length: bool = False,
    **keeping: Any,
) -> Training:
    """Pretrain a GPT in place on teacher-forced chains (section 8).

    Gradients are clipped at 1; the learning rate has a warm-up and a cosine decay.

    Args:
        model: the GPT.
        covariance: one covariance, (d,) or (d, d), or a mixture, as in :class:`CurriculumData`.
        config: chains, batch, optimiser, learning rate, number of steps and curriculum.
        seed: of the prompts.
        vary_length: as in :class:`CurriculumData`.
        keeping: checkpoint and progress, as in :func:`~datadose.stages.engine.train`.

    Raises InputError for a value out of its range.
    """
    d = len(covariance[0][1] if isinstance(covariance, tuple) else covariance)
    curriculum = Curriculum.constant(d, config.length)
    if config.curriculum is not None:
        growth = config.curriculum
        starts = min(growth.start_dimension, d), min(growth.start_length, config.length)
        curriculum = Curriculum(d, config.length, *starts, growth.dimension, growth.length, growth.every)
    dtype = next(model.parameters()).dtype
    data = CurriculumData(covariance, curriculum, config.batch, (seed,), dtype, vary_length)
    optimisation = Optimisation(
        config.optimiser,
        config.learning_rate,
        steps=config.steps,
        clip=1.0,
        warmup=config.warmup,
        schedule="cosine",
        accumulate=config.accumulate,
        precision=config.precision,
    )
    return train(model, Sft(config.eta, config.chain_steps), data, optimisation, **keeping)
