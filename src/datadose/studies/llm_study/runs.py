"""Cells of the study: profile the base model, or post-train a copy on an arm's rows and measure it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datadose.files import write_jsonl
from datadose.llm.language_model import LanguageModel
from datadose.llm.loading import quiet
from datadose.llm.posttrain import PosttrainConfig, posttrain
from datadose.studies.llm_study.measure import pass_probabilities, text_nll
from datadose.studies.llm_study.pools import (
    MAX_TOKENS,
    VERIFIER,
    Arm,
    Band,
    Contents,
    Row,
    Split,
    choose_rl,
    choose_sft,
    held_out,
    profile_rows,
)


class Column:
    """The columns of ``llm_study.csv`` before those of each level; a group's are means over its levels."""

    QUESTION, CONTENTS, ARM, SIZE, SEED = "question", "contents", "arm", "size", "seed"
    LEVEL, ROWS, STEPS = "level", "rows", "steps"
    TARGET_PROBABILITY, TARGET_GREEDY = "target_probability", "target_greedy"
    EARLIER_PROBABILITY, EARLIER_GREEDY, TEXT_NLL = "earlier_probability", "earlier_greedy", "text_nll"
    ON_TARGET, WRONG, FORMAT = "on_target", "wrong", "format"
    REWARD_FIRST, REWARD_LAST = "reward_first", "reward_last"
    PROBABILITY, GREEDY, SOMETIMES = "probability", "greedy", "sometimes"


KINDS = (Column.PROBABILITY, Column.GREEDY)
"""What is measured of a level, by :func:`~datadose.studies.llm_study.measure.pass_probabilities`."""


def level_column(level: str, kind: str) -> str:
    """The column of one of KINDS of a level."""
    return f"{level} {kind}"


@dataclass(frozen=True)
class LlmTraining:
    """Steps, rows or completions per step, learning rate and rank of the adapter."""

    steps: int
    batch: int
    learning_rate: float
    lora_rank: int = 8
    samples: int = 4
    """RL only: completions per prompt."""

    def config(self, stage: Literal["sft", "rl"], seed: int) -> PosttrainConfig:
        """The settings of ``posttrain``; a cell is short, so it keeps no checkpoints."""
        return PosttrainConfig(
            stage=stage,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            lora_rank=self.lora_rank,
            samples=self.samples,
            seed=seed,
            max_tokens=MAX_TOKENS,
            checkpoint_every=0,
        )


def run_profile(base: Path, rows: int) -> list[dict[str, Any]]:
    """Cell: per level, the untouched model's mean pass probability, greedy accuracy and spread over rows."""
    model = LanguageModel.load(base)
    found = []
    for level, drawn in profile_rows(rows).items():
        probability, greedy = pass_probabilities(model, drawn)
        found.append(
            {
                Column.LEVEL: level,
                Column.PROBABILITY: float(probability.mean()),
                Column.GREEDY: float(greedy.mean()),
                Column.SOMETIMES: float(((probability > 0.05) & (probability < 0.9)).mean()),
                Column.ROWS: len(drawn),
            }
        )
    return found


def run_base(base: Path, split: Split) -> dict[str, Any]:
    """Cell: the untouched model on the study's tests."""
    return measure_all(LanguageModel.load(base), split)


def run_sft(
    base: Path,
    where: Path,
    split: Split,
    contents: Contents,
    arm: Arm,
    size: int,
    training: LlmTraining,
    seed: int,
) -> dict[str, Any]:
    """Cell: SFT on the rows that ``arm`` takes, measured; the kinds of the rows are recorded too."""
    rows = choose_sft(where, contents, arm, size, split, seed)
    return {**_trained(base, rows, training.config("sft", seed), split), **_composition(rows, split)}


def run_rl(
    base: Path, where: Path, split: Split, band: Band, size: int, training: LlmTraining, seed: int
) -> dict[str, Any]:
    """Cell: GRPO on the prompts of a band, measured."""
    rows = choose_rl(where, band, size, seed)
    return {**_trained(base, rows, training.config("rl", seed), split), **_composition(rows, split)}


def _trained(base: Path, rows: Sequence[Row], config: PosttrainConfig, split: Split) -> dict[str, Any]:
    from peft import PeftModel  # noqa: PLC0415 - optional

    with tempfile.TemporaryDirectory(prefix="llm-study-") as name:
        folder = Path(name)
        write_jsonl(folder / "rows.jsonl", rows)
        verifier = VERIFIER if config.stage == "rl" else None
        result = posttrain(base, folder / "rows.jsonl", folder, config=config, verifier=verifier)
        model = LanguageModel.load(base)
        with quiet():
            adapted = PeftModel.from_pretrained(model.model, folder / "adapter").merge_and_unload()
    found = measure_all(replace(model, model=adapted), split)
    rewards = [entry["reward"] for entry in result["history"] if "reward" in entry]
    found[Column.REWARD_FIRST] = float(np.mean(rewards[:4])) if rewards else None
    found[Column.REWARD_LAST] = float(np.mean(rewards[-4:])) if rewards else None
    return found


def measure_all(model: LanguageModel, split: Split) -> dict[str, Any]:
    """The model's abilities.

    Means over levels of target and earlier abilities (probability of passing, greedy accuracy), each level's
    own numbers, and the NLL of English text.
    """
    held, found = held_out(split), {}
    for level, rows in held.test.items():
        for kind, values in zip(KINDS, pass_probabilities(model, rows), strict=True):
            found[level_column(level, kind)] = float(values.mean())
    for column, levels, kind in (
        (Column.TARGET_PROBABILITY, split.target, Column.PROBABILITY),
        (Column.TARGET_GREEDY, split.target, Column.GREEDY),
        (Column.EARLIER_PROBABILITY, split.earlier, Column.PROBABILITY),
        (Column.EARLIER_GREEDY, split.earlier, Column.GREEDY),
    ):
        found[column] = float(np.mean([found[level_column(level, kind)] for level in levels]))
    found[Column.TEXT_NLL] = text_nll(model)
    return found


def _composition(rows: Sequence[Row], split: Split) -> dict[str, Any]:
    kinds = Counter(row["kind"] for row in rows)
    return {
        Column.ROWS: len(rows),
        Column.ON_TARGET: float(np.mean([row["level"] in split.target for row in rows])),
        Column.WRONG: kinds["wrong"] / len(rows),
        Column.FORMAT: kinds["format"] / len(rows),
    }
