"""What TRL's own trainers make of rows: their real preparation of a data set, on a tiny model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datadose.llm.chat import clock
from datadose.llm.trainers import silence

if TYPE_CHECKING:
    from datadose.llm.language_model import LanguageModel

TEMPLATES = Path(__import__("trl").__file__).parent / "chat_templates"
"""The chat templates of model families that TRL carries."""


def sft_tokens(
    model: LanguageModel, rows: Sequence[dict[str, Any]] | Any, out: Path, *, every_turn: bool = False
) -> list[tuple[list[int], list[int]]]:
    """Ids and labels of ``rows`` (records, or a data set) in the SFTTrainer's own training data."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    data = rows if isinstance(rows, Dataset) else Dataset.from_list(copy.deepcopy(list(rows)))
    settings = SFTConfig(
        output_dir=str(out),
        use_cpu=True,
        bf16=False,
        report_to="none",
        max_length=None,
        gradient_checkpointing=False,
        assistant_only_loss=every_turn,
        completion_only_loss=not every_turn,
    )
    forward = model.model.forward
    with silence(), clock(model.chat.date):
        trainer = SFTTrainer(model.model, args=settings, processing_class=model.tokenizer, train_dataset=data)
    model.model.forward = forward
    return [(one["input_ids"], one["labels"]) for one in trainer.train_dataset]


def grpo_tokens(model: LanguageModel, prompts: Sequence[Any], out: Path) -> list[list[int]]:
    """Ids of ``prompts`` as TRL's own GRPOTrainer samples from them."""
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    settings = GRPOConfig(
        output_dir=str(out),
        use_cpu=True,
        bf16=False,
        report_to="none",
        num_generations=2,
        per_device_train_batch_size=2,
        gradient_checkpointing=False,
    )
    forward = model.model.forward
    with silence(), clock(model.chat.date):
        trainer: Any = GRPOTrainer(
            model.model,
            args=settings,
            processing_class=model.tokenizer,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
        )
        found: list[list[int]] = trainer._tokenize_prompts(list(prompts))[0]
    model.model.forward = forward
    return found
