"""Train a model on a selected set: a thin wrapper of TRL's SFTTrainer and GRPOTrainer for the common case.

LoRA on all linear layers, or all weights; completion-only loss for SFT; the verifier as the reward for RL.
The files that ``select`` writes also go through TRL's own trainers and its command line unchanged
(docs/llm_training.md). What is added here: checked input, an error at the first loss that is not finite, a
run that continues after a kill, and a record of all settings beside the weights.
"""

from __future__ import annotations

import contextlib
import io
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch

from datadose.errors import RunError, reject, require_extra, require_integer, require_number
from datadose.files import prepare_folder, write_json
from datadose.llm.cache import content_digest
from datadose.llm.checkpoints import last_checkpoint, seal
from datadose.llm.language_model import LanguageModel
from datadose.llm.loading import quiet
from datadose.llm.pool import Row, read_pool
from datadose.llm.verifiers import Verifier, judge, load_verifier, verifier_digest
from datadose.progress import Report, silent
from datadose.reading import read_json
from datadose.versions import versions

Stage: TypeAlias = Literal["sft", "rl"]

_LOGGED = ("loss", "grad_norm", "learning_rate", "reward", "reward_std", "frac_reward_zero_std", "entropy")


@dataclass(frozen=True)
class PosttrainConfig:
    """How to train.

    Args:
        stage: ``sft`` (cross entropy of the completion's tokens) or ``rl`` (GRPO).
        steps: optimiser steps.
        batch: rows per step for SFT; completions per step for RL, a multiple of ``samples``.
        learning_rate: of AdamW, its peak; linear decay to 0. None: 2e-4 with LoRA, 2e-5 without.
        lora_rank: rank of the adapter on all linear layers (alpha is twice the rank); 0 trains all weights.
        seed: of the adapter, the order of rows and the sampled completions.
        samples: RL only: completions per prompt (G of GRPO).
        temperature: RL only: of the sampling.
        max_tokens: RL only: tokens of a completion at most.
        checkpoint_every: steps between checkpoints; 0 for none.

    Raises InputError for a value out of range.
    """

    stage: Stage
    steps: int = 100
    batch: int = 8
    learning_rate: float | None = None
    lora_rank: int = 16
    seed: int = 0
    samples: int = 8
    temperature: float = 1.0
    max_tokens: int = 256
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        if self.stage not in get_args(Stage):
            reject("stage", self.stage, " or ".join(get_args(Stage)))
        least = {"steps": 1, "batch": 1, "lora_rank": 0, "seed": 0, "samples": 2, "max_tokens": 1}
        for name, minimum in {**least, "checkpoint_every": 0}.items():
            require_integer(name, getattr(self, name), minimum)
        if self.learning_rate is not None:
            require_number("learning_rate", self.learning_rate, 0, 1, open_ends=True)
        require_number("temperature", self.temperature, 0, 100, open_ends=True)
        if self.stage == "rl" and self.batch % self.samples:
            reject("batch", self.batch, f"a multiple of samples = {self.samples} for stage rl")

    @property
    def rate(self) -> float:
        """The learning rate, the default resolved."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-4 if self.lora_rank else 2e-5


def posttrain(
    model: str | Path,
    data: Path,
    out: Path,
    *,
    config: PosttrainConfig,
    verifier: str | None = None,
    allow_pickle_weights: bool = False,
    progress: Report = silent,
) -> dict[str, Any]:
    """Train ``model`` on ``data`` and write ``out/adapter`` (``out/model`` without LoRA) and ``result.json``.

    Args:
        model: folder or name of a Hugging Face causal language model.
        data: ``sft.jsonl`` or ``rl.jsonl`` as ``select`` writes them, or any pool; extra columns are passed
            to the verifier and otherwise ignored.
        out: folder; a run with the same settings that was stopped continues there from its last checkpoint,
            and a finished one is returned.
        config: stage, steps, batch, rates.
        verifier: RL only, by name or ``module:function``: the reward is 1 where it passes, else 0. A
            completion on which it raises, or returns no score, is not rewarded and is counted.
        allow_pickle_weights: read weights from ``.bin`` files too, which can run code.
        progress: called as ``progress(name, step, steps)``.

    Returns what ``result.json`` holds: config, one record a step (loss, gradient norm; for RL mean reward),
    ``verifier_errors`` (reason -> count), row counts and versions.

    Raises InputError for bad data, settings, or a folder that holds another run; RunError, with the step, for
    a loss or gradient that is not finite.
    """
    require_extra("train", "trl", "peft", "accelerate", "datasets")
    check = _reward_verifier(config.stage, verifier)
    rows = read_pool(data, "data")
    loaded = LanguageModel.load(model, allow_pickle_weights=allow_pickle_weights)
    _check_rows(rows, loaded, config)
    setting = _setting(loaded, rows, verifier, check, config)
    prepare_folder("out", out)
    if (found := _earlier_result(out, setting)) is not None:
        return found
    write_json(out / "setting.json", setting)
    record = _Record(config, rows, check, progress)
    kind = "adapter" if config.lora_rank else "model"
    with _silence(), _disk_errors(out):
        trainer = _trainer(loaded, out, record)
        trainer.train(resume_from_checkpoint=last_checkpoint(out / "checkpoints"))
        trainer.model.save_pretrained(out / kind)
        loaded.tokenizer.save_pretrained(out / kind)
    result = {
        **setting,
        "model": loaded.name,
        "data": str(data),
        "rows": len(rows),
        "weights": kind,
        "history": _history(trainer.state.log_history),
        "verifier_errors": dict(sorted(record.verifier_errors.items())),
        "versions": versions("transformers", "trl", "peft"),
    }
    write_json(out / "result.json", result)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return result


def _setting(
    model: LanguageModel,
    rows: Sequence[Row],
    verifier: str | None,
    check: Verifier | None,
    config: PosttrainConfig,
) -> dict[str, Any]:
    """What a run depends on."""
    return {
        "model_digest": model.digest,
        "rows_digest": content_digest([row.columns for row in rows]),
        "verifier": verifier,
        "verifier_digest": None if check is None else verifier_digest(check),
        "config": {**asdict(config), "learning_rate": config.rate},
    }


def _reward_verifier(stage: Stage, name: str | None) -> Verifier | None:
    if stage == "rl":
        return load_verifier(name, "for stage rl")
    if name is not None:
        reject("verifier", name, "none for stage sft")
    return None


def _check_rows(rows: Sequence[Row], model: LanguageModel, config: PosttrainConfig) -> None:
    """TRL would cut or drop rows without a word; here they are named."""
    limit = model.context_length
    for row in rows:
        if config.stage == "sft":
            if not row.completion_text.strip():
                reject("data", f"line {row.line}: empty completion", "completions with text")
            length = model.encode(row).length
        else:
            length = len(model.encode_prompt(row.prompt)) + config.max_tokens
        if length > limit:
            allowed = f"rows within the model's context of {limit} tokens (with max_tokens for rl)"
            reject("data", f"line {row.line}: {length} tokens", allowed)
    if config.stage == "rl" and len(rows) < config.batch // config.samples:
        allowed = f"at least {config.batch // config.samples} prompts, as many as a batch has"
        reject("data", f"{len(rows)} rows", allowed)


def _earlier_result(out: Path, setting: dict[str, Any]) -> dict[str, Any] | None:
    """The finished result in ``out``, None if there is none; InputError if another run lives there."""
    for name in ("setting.json", "result.json"):
        if (out / name).is_file():
            found = read_json(out / name)
            if not isinstance(found, dict):
                reject("out", str(out / name), "a record that `datadose posttrain` has written")
            differs = sorted(key for key, value in setting.items() if found.get(key) != value)
            if differs:
                allowed = "a folder of its own: another run is there"
                reject("out", f"{out} (differs in {', '.join(differs)})", allowed)
            if name == "result.json":
                return found
    return None


@dataclass
class _Record:
    """A run while it goes on: what it is made of, and what the verifier could not judge."""

    config: PosttrainConfig
    rows: Sequence[Row]
    check: Verifier | None
    progress: Report
    verifier_errors: Counter[str] = field(default_factory=Counter)

    def step(self, step: int, logs: dict[str, Any]) -> None:
        """RunError at the first number that is not finite."""
        stage = self.config.stage
        for name in ("loss", "grad_norm"):
            if name in logs and not math.isfinite(float(logs[name])):
                msg = f"{stage}: {name} is {logs[name]} at step {step}; a smaller learning rate may help"
                raise RunError(msg)
        self.progress(f"posttrain {stage} (steps)", step, self.config.steps)

    def rewards(self, completions: list[Any], place: list[int], **_: Any) -> list[float | None]:
        """1 for each completion of the row at ``place`` that passes."""
        assert self.check is not None
        found: list[float | None] = []
        for completion, row in zip(completions, (self.rows[i] for i in place), strict=True):
            text = completion if isinstance(completion, str) else str(completion[0]["content"])
            passed, trouble = judge(self.check, text, {**row.columns, "answer": row.answer})
            if trouble is not None:
                self.verifier_errors[trouble] += 1
            found.append(float(passed is True))
        return found


def _trainer(model: LanguageModel, out: Path, record: _Record) -> Any:
    from datasets import Dataset  # noqa: PLC0415 - optional, and slow to import
    from peft import LoraConfig  # noqa: PLC0415
    from trl.trainer.grpo_config import GRPOConfig  # noqa: PLC0415
    from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: PLC0415
    from trl.trainer.sft_config import SFTConfig  # noqa: PLC0415
    from trl.trainer.sft_trainer import SFTTrainer  # noqa: PLC0415

    config, rows = record.config, record.rows
    common = _arguments(config, out, cuda=model.device.type == "cuda")
    shared: dict[str, Any] = {
        "model": model.model,
        "processing_class": model.tokenizer,
        "callbacks": [_callback(record)],
    }
    if rank := config.lora_rank:
        targets: dict[str, Any] = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
        shared["peft_config"] = LoraConfig(r=rank, lora_alpha=2 * rank, **targets)
    else:
        model.model.requires_grad_(True)
    if record.check is None:
        pairs = [{"prompt": row.prompt, "completion": row.completion} for row in rows]
        supervised = SFTConfig(**common, max_length=model.context_length, completion_only_loss=True)
        return SFTTrainer(args=supervised, train_dataset=Dataset.from_list(pairs), **shared)
    args = GRPOConfig(
        **common,
        num_generations=config.samples,
        max_completion_length=config.max_tokens,
        temperature=config.temperature,
    )
    # The verifier gets the row as it was read; datasets would cast its columns.
    prompts = Dataset.from_list([{"prompt": row.prompt, "place": place} for place, row in enumerate(rows)])
    return GRPOTrainer(args=args, train_dataset=prompts, reward_funcs=record.rewards, **shared)


def _arguments(config: PosttrainConfig, out: Path, *, cuda: bool) -> dict[str, Any]:
    """What both trainers take."""
    return {
        "output_dir": str(out / "checkpoints"),
        "max_steps": config.steps,
        "per_device_train_batch_size": config.batch,
        "learning_rate": config.rate,
        "lr_scheduler_type": "linear",
        "seed": config.seed,
        "use_cpu": not cuda,
        "bf16": cuda and torch.cuda.is_bf16_supported(),
        # Its memory is what a GPU lacks; on a CPU it would only cost time.
        "gradient_checkpointing": cuda,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "steps" if config.checkpoint_every else "no",
        "save_steps": config.checkpoint_every or 1,
        "save_total_limit": 1,
    }


def _callback(record: _Record) -> Any:
    from transformers import TrainerCallback  # noqa: PLC0415

    class Watch(TrainerCallback):
        """Looks at every step before the trainer can save it."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            record.step(state.global_step, logs or {})

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    return Watch()


def _history(log: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """One record a step of the numbers in _LOGGED."""
    return [
        {"step": entry["step"], **{name: float(entry[name]) for name in _LOGGED if name in entry}}
        for entry in log
        if "loss" in entry
    ]


_ARCHIVE = ("inline_container", "PytorchStreamWriter", "iostream error")
"""In the messages of torch's writer of archives."""


@contextlib.contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    """RunError for what the writers of weights raise when the disk refuses."""
    from safetensors import SafetensorError  # noqa: PLC0415

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        text = " ".join(str(error).split())
        # torch.save raises a bare RuntimeError of its archive's writer.
        if isinstance(error, RuntimeError) and not any(name in text for name in _ARCHIVE):
            raise
        msg = f"{out}: could not be read or written ({getattr(error, 'strerror', None) or text})"
        raise RunError(msg) from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No bars, warnings or printed records of the trainers: :class:`_Record` reports."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar  # noqa: PLC0415
    from datasets.utils.logging import is_progress_bar_enabled as bars_enabled  # noqa: PLC0415

    bars = bars_enabled()
    disable_progress_bar()
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        if bars:
            enable_progress_bar()
