"""The settings of a comparison of selectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from datadose.errors import listed, reject, require_choice, require_integer
from datadose.llm.chat import TEMPLATE_DATE
from datadose.llm.posttrain_config import PosttrainConfig
from datadose.llm.selection.config import METHOD_NAMES

BASELINE = "random"
"""The method that every other one is compared with."""


@dataclass(frozen=True)
class CompareConfig:
    """Which selectors are compared, at which numbers of rows, over which seeds, and how each arm is trained.

    Args:
        methods: names of selection methods (METHOD_NAMES), at least one, none twice. ``random`` is put in
            front where it is not named.
        budgets: numbers of rows that each method selects, ascending, each >= 1; or one number.
        seeds: how many seeds, at least 2: seed s has its own split of the target, random rows, adapter and
            order of rows, and the same for all methods.
        steps: optimiser steps of an arm, the same at every budget.
        batch: rows per step.
        learning_rate: of AdamW, its peak. None: 2e-4 with LoRA, 2e-5 without.
        lora_rank: rank of the adapter; 0 trains all weights.
        seed: the first seed; the others follow it.
        evaluate_every: steps between evaluations. None: a twentieth of the run.

    Raises InputError for a value out of range.
    """

    methods: Sequence[str]
    budgets: Sequence[int] | int
    seeds: int = 5
    steps: int = 100
    batch: int = 8
    learning_rate: float | None = None
    lora_rank: int = 16
    seed: int = 0
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        methods = listed(self.methods)
        if not methods:
            reject("methods", "none", f"at least one of {', '.join(METHOD_NAMES)}")
        for place, name in enumerate(methods):
            require_choice("methods", name, METHOD_NAMES)
            if name in methods[:place]:
                reject("methods", f"{name} twice", "each method once")
        object.__setattr__(self, "methods", tuple(methods))
        budgets = [require_integer("budgets", one, 1) for one in listed(self.budgets)]
        if not budgets or any(b <= a for a, b in pairwise(budgets)):
            reject("budgets", budgets, "numbers of rows, ascending")
        object.__setattr__(self, "budgets", tuple(budgets))
        require_integer("seeds", self.seeds, 2, 1000)
        require_integer("seed", self.seed, 0)
        if self.evaluate_every is not None:
            require_integer("evaluate_every", self.evaluate_every, 1)
        self.training(self.seed)

    @property
    def arms(self) -> tuple[str, ...]:
        """The methods that are run: the baseline first, where it was not named, then the others in order."""
        methods = tuple(self.methods)
        return methods if BASELINE in methods else (BASELINE, *methods)

    @property
    def rows(self) -> tuple[int, ...]:
        """The budgets, ascending."""
        return tuple(listed(self.budgets))

    @property
    def seed_numbers(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)

    def training(
        self, seed: int, *, loss: str = "last", template_date: str = TEMPLATE_DATE
    ) -> PosttrainConfig:
        """How an arm of one seed is trained; ``loss`` and ``template_date`` are those of the scores."""
        return PosttrainConfig(
            "sft",
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            lora_rank=self.lora_rank,
            seed=seed,
            loss=loss,
            checkpoint_every=0,
            template_date=template_date,
        )
