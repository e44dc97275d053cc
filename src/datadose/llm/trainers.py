"""TRL's trainers as ``posttrain`` sets them up: SFTTrainer and GRPOTrainer, watched and measured."""

from __future__ import annotations

import contextlib
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from datadose.errors import RunError
from datadose.llm import evaluation as measuring
from datadose.llm.checkpoints import seal
from datadose.llm.evaluation import Evaluation
from datadose.llm.language_model import LanguageModel
from datadose.llm.loading import quiet
from datadose.llm.mixing import WEIGHT
from datadose.llm.pool import Row, Text, no_bars
from datadose.llm.posttrain_config import PosttrainConfig
from datadose.llm.silent_groups import enough, find_silences, is_silent, sentence
from datadose.llm.verifiers import Verifier, is_unfinished, judge
from datadose.printing import note
from datadose.progress import Report


@dataclass
class Run:
    """A run while it goes on: what it is made of, and what the verifier could not judge."""

    config: PosttrainConfig
    rows: Sequence[Row]
    places: Sequence[int] | None
    """The rows in the order in which they are trained on; None: all rows, shuffled in each epoch."""
    factors: NDArray[Any] | None
    """The factor of each row in the loss, shape (rows,); None for the plain loss."""
    check: Verifier | None
    progress: Report
    evaluation: Evaluation | None = None
    sets: dict[str, list[Row]] = field(default_factory=dict)
    """The rows that ``evaluation`` measures, by name."""
    verifier_errors: Counter[str] = field(default_factory=Counter)
    silent: list[dict[str, Any]] = field(default_factory=list)
    """RL: the records of the latest steps, as long as none of their groups was mixed."""
    unfinished: int = 0
    """Completions that broke off inside a thought: no answer, no reward."""

    def step(self, step: int, logs: dict[str, Any]) -> None:
        """RunError at the first number that is not finite; a note when several RL steps have no gradient."""
        stage = self.config.stage
        for name in ("loss", "grad_norm", *(f"eval_{one}_loss" for one in self.sets)):
            if name in logs and not math.isfinite(float(logs[name])):
                msg = f"{stage}: {name} is {logs[name]} at step {step}; a smaller learning rate may help"
                raise RunError(msg)
        if "loss" in logs:
            self.silent = [*self.silent, {**logs, "step": step}] if is_silent(logs) else []
            # Once a stretch, when it is long enough; result.json has its final length.
            if len(self.silent) == enough(self.config.steps):
                note(f"warning: {sentence(find_silences(self.silent, self.config.steps)[0])}")
        self.progress(f"posttrain {stage} (steps)", step, self.config.steps)

    def rewards(self, completions: list[Any], place: list[int], **_: Any) -> list[float | None]:
        """The rewards of completions of the rows at ``place``: 1 where the verifier passes, else 0."""
        assert self.check is not None
        found: list[float | None] = []
        for completion, row in zip(completions, (self.rows[i] for i in place), strict=True):
            text = completion if isinstance(completion, str) else str(completion[0]["content"])
            columns = {**row.columns, "answer": row.answer}
            passed, trouble = judge(self.check, text, columns, timeout=self.config.verifier_timeout)
            self.unfinished += is_unfinished(text)
            if trouble is not None:
                self.verifier_errors[trouble] += 1
            found.append(float(passed is True))
        return found


def make_trainer(model: LanguageModel, out: Path, run: Run, *, fresh: bool) -> Any:
    """TRL's trainer of ``run``, whose checkpoints go to ``out/checkpoints``.

    Args:
        model: what is trained, in place.
        out: the run's folder.
        run: settings, rows and what watches them.
        fresh: whether it starts at step 0, where the untouched model is measured.
    """
    from datasets import Dataset  # noqa: PLC0415 - optional, and slow to import
    from trl.trainer.grpo_config import GRPOConfig  # noqa: PLC0415
    from trl.trainer.sft_config import SFTConfig  # noqa: PLC0415

    config = run.config
    common = _arguments(run, out, fresh=fresh, cuda=model.device.type == "cuda")
    shared: dict[str, Any] = {
        "model": model.model,
        "processing_class": model.tokenizer,
        "callbacks": [_callback(run)],
    }
    if config.lora_rank:
        shared["peft_config"] = lora_config(config)
    else:
        model.model.requires_grad_(True)
    if run.check is not None:
        args = GRPOConfig(
            **common,
            num_generations=config.samples,
            max_completion_length=config.max_tokens,
            temperature=config.temperature,
            shuffle_dataset=run.places is None,
        )
        # The verifier gets the row as it was read; datasets would cast its columns.
        prompts = [{"prompt": _shown(row.prompt), "place": place} for place, row in enumerate(run.rows)]
        data = _in_order(Dataset.from_list(prompts), run.places)
        trainer = _sampling_trainer(model, run.rows)
        return trainer(args=args, train_dataset=data, reward_funcs=run.rewards, **shared)
    if run.evaluation is not None:
        shared["eval_dataset"] = {
            name: Dataset.from_list(_examples(model, rows)) for name, rows in run.sets.items()
        }
        shared["callbacks"] += measuring.callbacks(run.evaluation, _curve_writer(run.evaluation, out))
    supervised = SFTConfig(
        **common,
        max_length=model.context_length,
        completion_only_loss=True,
        train_sampling_strategy="random" if run.places is None else "sequential",
        remove_unused_columns=run.factors is None,
    )
    examples = Dataset.from_list(_examples(model, run.rows))
    if run.factors is not None:
        examples = examples.add_column(WEIGHT, run.factors)
    trainer = _supervised_trainer()(args=supervised, train_dataset=_in_order(examples, run.places), **shared)
    trainer.data_collator = _with_weights(trainer.data_collator)
    return trainer


def lora_config(config: PosttrainConfig) -> Any:
    """PEFT's configuration of a run's adapter."""
    from peft import LoraConfig  # noqa: PLC0415 - optional

    targets: dict[str, Any] = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, **targets)


def _examples(model: LanguageModel, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as SFTTrainer takes tokens: what is scored is trained.

    As columns, the keys of calls and tools would go through Arrow, which gives every row those of all rows.
    """
    encoded = map(model.encode, rows)
    return [{"input_ids": one.ids.tolist(), "labels": one.labels} for one in encoded]


def _shown(prompt: Text) -> Text:
    """A prompt for the trainer's records, in a form that Arrow holds; the tokens come from the row."""
    if isinstance(prompt, str):
        return prompt
    return [{"role": message["role"], "content": str(message.get("content"))} for message in prompt]


def _in_order(data: Any, places: Sequence[int] | None) -> Any:
    return data if places is None else data.select(places)


def _curve_writer(evaluation: Evaluation, out: Path) -> Callable[[Sequence[dict[str, Any]]], None]:
    return lambda log: measuring.write_curve(measuring.curve(log, evaluation), out)


def _supervised_trainer() -> Any:
    from trl.trainer import sft_trainer  # noqa: PLC0415 - optional, and slow to import

    parent: Any = sft_trainer.SFTTrainer

    class WeightedTrainer(parent):  # type: ignore[misc]
        """SFTTrainer with a weight by row in training, and the mean over rows in evaluation.

        TRL's own evaluation is a mean over batches of means over tokens, which depends on the batches.
        """

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            factors = inputs.pop(WEIGHT, None)
            training = self.model.training
            if training and factors is None:
                return super().compute_loss(model, inputs, *args, **options)

            def scaled(**given: Any) -> Any:
                outputs = model(**given)
                tokens = outputs.label_mask.sum(1).clamp(min=1)
                # The trainer divides the sum by all tokens: what is left is 1 / (rows x tokens of the row).
                factor = factors if training else tokens.sum() / (len(tokens) * tokens)
                outputs.log_probs = outputs.log_probs * factor.unsqueeze(1).to(outputs.log_probs.dtype)
                return outputs

            return super().compute_loss(scaled, inputs, *args, **options)

    return WeightedTrainer


def _sampling_trainer(model: LanguageModel, rows: Sequence[Row]) -> Any:
    from trl.trainer import grpo_trainer  # noqa: PLC0415 - optional, and slow to import

    parent: Any = grpo_trainer.GRPOTrainer

    class RowTrainer(parent):  # type: ignore[misc]
        """GRPOTrainer whose prompts have their row's tools and template options, which TRL's own leaves out.

        Without any, the tokens are the same.
        """

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
            self._prompted = [rows[one["place"]] for one in inputs]
            return super()._generate_and_score_completions(inputs)

        def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
            assert len(prompts) == len(self._prompted)
            rows = self._prompted
            ids = [model.prompt_ids(row) for row in rows]
            return ids, None, {}

    return RowTrainer


def _with_weights(collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> Any:
    """The collator, with the rows' weights where they have some."""

    def collated(examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(examples)
        if WEIGHT in examples[0]:
            batch[WEIGHT] = torch.tensor([example[WEIGHT] for example in examples], dtype=torch.float64)
        return batch

    return collated


def _arguments(run: Run, out: Path, *, fresh: bool, cuda: bool) -> dict[str, Any]:
    """What both trainers take."""
    config = run.config
    every = config.checkpoint_every
    measured: dict[str, Any] = {}
    if run.evaluation is not None:
        every = run.evaluation.interval(config.steps)
        measured = {
            "eval_strategy": "steps",
            "eval_steps": every,
            "eval_on_start": fresh,
            "per_device_eval_batch_size": config.batch,
            "metric_for_best_model": measuring.METRIC,
            "greater_is_better": False,
            "restore_callback_states_from_checkpoint": True,
        }
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
        "save_strategy": "steps" if every else "no",
        "save_steps": every or 1,
        "save_total_limit": 1,
        **measured,
    }


def _callback(run: Run) -> Any:
    from transformers import TrainerCallback  # noqa: PLC0415

    class Watch(TrainerCallback):
        """Looks at every step before the trainer can save it."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            run.step(state.global_step, logs or {})

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    return Watch()


_ARCHIVE = ("inline_container", "PytorchStreamWriter", "iostream error")
"""In the messages of torch's writer of archives."""


@contextlib.contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """RunError for what the writers of weights raise when writing fails."""
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
def silence() -> Iterator[None]:
    """No bars, warnings or printed records of the trainers: :class:`Run` reports."""
    with no_bars(), quiet(), contextlib.redirect_stdout(io.StringIO()):
        yield
