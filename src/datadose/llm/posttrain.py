"""Train a model on a selected set: a thin wrapper of TRL's SFTTrainer and GRPOTrainer for the common case.

LoRA on all linear layers, or all weights; completion-only loss for SFT; the verifier as the reward for RL.
The files that ``select`` writes also go through TRL's own trainers and its command line unchanged
(docs/llm_training.md). What is added here: checked input, files drawn in given shares and rows with weights,
losses on validation rows along the way with the best step kept, an error at the first loss that is not
finite, a run that continues after a kill, and a record of all settings beside the weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datadose.errors import InputError, reject, require_extra
from datadose.files import prepare_folder, write_json
from datadose.llm import evaluation as measuring
from datadose.llm.cache import content_digest
from datadose.llm.chat import Encoded
from datadose.llm.checkpoints import copy_weights, has_ended, last_checkpoint, state_file
from datadose.llm.evaluation import Evaluation
from datadose.llm.language_model import LanguageModel
from datadose.llm.mixing import (
    Shares,
    Source,
    all_rows,
    count_drawn,
    draw_places,
    loss_weights,
    read_sources,
)
from datadose.llm.pool import Row, is_blank
from datadose.llm.posttrain_config import PosttrainConfig, Stage
from datadose.llm.silent_groups import find_silences, sentence
from datadose.llm.trainers import Run, disk_errors, lora_config, make_trainer, silence
from datadose.llm.verifiers import Verifier, load_verifier, verifier_digest
from datadose.printing import note
from datadose.progress import Report, silent
from datadose.reading import read_json
from datadose.versions import versions

__all__ = ["Evaluation", "PosttrainConfig", "Stage", "earlier_result", "posttrain"]

_LOGGED = (
    *("loss", "grad_norm", "learning_rate", "mean_token_accuracy"),
    *("reward", "reward_std", "frac_reward_zero_std", "entropy"),
)


def posttrain(
    model: str | Path,
    data: Path | Shares,
    out: Path,
    *,
    config: PosttrainConfig,
    verifier: str | None = None,
    evaluation: Evaluation | None = None,
    columns: Mapping[str, str] | None = None,
    allow_pickle_weights: bool = False,
    progress: Report = silent,
    tell: Callable[[str], None] = note,
) -> dict[str, Any]:
    """Train ``model`` on ``data`` and write ``out/adapter`` (``out/model`` without LoRA) and ``result.json``;
    with ``evaluation`` also ``curve.csv`` and ``curve.png``: the losses along training.

    Args:
        model: folder or name of a Hugging Face causal language model.
        data: ``sft.jsonl`` or ``rl.jsonl`` as ``select`` writes them, or any pool; extra columns are passed
            to the verifier and otherwise ignored, but for ``weight``: the row's weight in the loss of SFT,
            relative to the others (0: left out), and ``sampling_weight``: how often the row is drawn,
            relative to the others of its file. Or several files, each with its share of a batch: every row of
            a batch is drawn from a file with the probability of its share.
        out: folder; a run with the same settings that was stopped continues there from its last checkpoint,
            and a finished one is returned.
        config: stage, steps, batch, rates.
        verifier: RL only, by name or ``module:function``: the reward is 1 where it passes, else 0. A
            completion on which it fails, in whatever way, is not rewarded and is counted.
        evaluation: SFT only: rows to measure on; the step of the lowest weighted loss is kept, not the last.
        columns: the column of a role that is not recognised by its name, as ``{"prompt": "question"}``.
        allow_pickle_weights: read weights from ``.bin`` files too, which can run code.
        progress, tell: called as ``progress(name, step, steps)``, and with how the files were read (printed).

    Returns what ``result.json`` holds: config, one record a step (loss, gradient norm; for RL mean reward),
    ``evaluations`` (one record each) and ``best_step`` (0: the untouched model), for files with shares
    ``mix`` (share, rows, rows left out and rows drawn of each), ``verifier_errors`` (reason -> count),
    ``unfinished`` (completions that broke off inside a thought), ``warnings`` (RL: stretches of steps in
    which every group passed or failed as a whole), row counts and versions.

    Raises InputError for bad input or another run's folder; RunError, with the step, for a loss not finite.

    Example::

        mix = [(Path("clean.jsonl"), 3), (Path("web.jsonl"), 1)]
        measured = Evaluation(Path("validation.jsonl"), keep=Path("known.jsonl"))
        posttrain("MODEL", mix, Path("out"), config=PosttrainConfig("sft"), evaluation=measured)
    """
    inputs = _read(model, data, config, verifier, evaluation, columns, pickles=allow_pickle_weights)
    prepare_folder("out", out)
    if (found := earlier_result(out, setting := _setting(inputs))) is not None:
        return found
    write_json(out / "setting.json", setting)
    tell("\n".join(inputs.said))
    run = _run(inputs, progress)
    with silence(), disk_errors(out):
        state = _train(inputs.model, out, run, allow_pickle_weights=allow_pickle_weights)
    result = {**setting, **_outcome(inputs, run, state, out)}
    write_json(out / "result.json", result)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return result


@dataclass(frozen=True)
class _Inputs:
    """The request, read and checked."""

    model: LanguageModel
    sources: list[Source]
    mixed: bool
    """Whether rows are drawn from the sources in their shares."""
    tokens: list[int]
    """Completion tokens of each row of the sources."""
    sets: dict[str, list[Row]]
    config: PosttrainConfig
    verifier: str | None
    check: Verifier | None
    evaluation: Evaluation | None
    said: list[str]
    """How the files were understood, in lines."""


def _read(
    model: str | Path,
    data: Path | Shares,
    config: PosttrainConfig,
    verifier: str | None,
    evaluation: Evaluation | None,
    columns: Mapping[str, str] | None,
    *,
    pickles: bool,
) -> _Inputs:
    require_extra("train", "trl", "peft", "accelerate", "datasets")
    check = _reward_verifier(config.stage, verifier)
    if evaluation is not None and config.stage != "sft":
        allowed = "none for stage rl: these losses are what sft trains (score samples of the result)"
        reject(measuring.VALIDATION, evaluation.validation, allowed)
    said: list[str] = []
    options: dict[str, Any] = {"columns": columns, "tell": said.append}
    sources = read_sources(data, weighted=config.stage == "sft", several=evaluation is not None, **options)
    sets = {} if evaluation is None else measuring.read_sets(evaluation, sources, **options)
    loaded = _load(model, allow_pickle_weights=pickles).with_chat(config.loss, config.template_date)
    mixed = not isinstance(data, Path)
    tokens = [n for source in sources for n in _check_source(source, loaded, config, mixed=mixed)]
    for name, rows in sets.items():
        _check_rows(rows, loaded, config, name)
    return _Inputs(loaded, sources, mixed, tokens, sets, config, verifier, check, evaluation, said)


def _load(model: str | Path, *, allow_pickle_weights: bool) -> LanguageModel:
    """The model to train: its weights in float32, in which small steps are not rounded away."""
    return LanguageModel.load(model, dtype="float32", allow_pickle_weights=allow_pickle_weights)


def _run(inputs: _Inputs, progress: Report) -> Run:
    """The run, with its rows drawn and weighted."""
    config, sources, places = inputs.config, inputs.sources, None
    if inputs.mixed or any(source.chances is not None for source in sources):
        places = draw_places(sources, config.steps * config.rows_per_step, config.seed)
    factors = None
    if config.stage == "sft":
        drawn = range(len(inputs.tokens)) if places is None else places
        factors = loss_weights(sources, inputs.tokens, drawn)
    rows = all_rows(sources)
    return Run(config, rows, places, factors, inputs.check, progress, inputs.evaluation, inputs.sets)


def _train(loaded: LanguageModel, out: Path, run: Run, *, allow_pickle_weights: bool) -> Any:
    """Train, or go on, and write the weights that are kept; returns the trainer's last state."""
    from transformers import TrainerState  # noqa: PLC0415 - slow to import

    folder, weights = out / "checkpoints", out / run.config.weights
    found = last_checkpoint(folder)
    trainer = make_trainer(loaded, out, run, fresh=found is None)
    if found is not None and has_ended(Path(found)):
        # The trainer would take one more step before it checked whether any are left.
        state = TrainerState.load_from_json(str(state_file(Path(found))))
        kept: Path | None = Path(found)
    else:
        trainer.train(resume_from_checkpoint=found)
        state, kept = trainer.state, None
    if run.evaluation is not None:
        best = state.best_global_step or 0
        kept = folder / f"checkpoint-{best}" if best else None
        if kept is None:
            trainer.model = _untouched(loaded, run.config, allow_pickle_weights=allow_pickle_weights)
    if kept is None:
        trainer.model.save_pretrained(weights)
        loaded.tokenizer.save_pretrained(weights)
    else:
        copy_weights(kept, weights)
    return state


def _untouched(loaded: LanguageModel, config: PosttrainConfig, *, allow_pickle_weights: bool) -> Any:
    """The model as it was, with an adapter that changes nothing if there is to be one."""
    from peft import get_peft_model  # noqa: PLC0415 - optional
    from transformers import set_seed  # noqa: PLC0415

    fresh = _load(loaded.name, allow_pickle_weights=allow_pickle_weights).model
    set_seed(config.seed)
    return get_peft_model(fresh, lora_config(config)) if config.lora_rank else fresh


def _outcome(inputs: _Inputs, run: Run, state: Any, out: Path) -> dict[str, Any]:
    """What ``result.json`` holds besides the setting."""
    config, sources = inputs.config, inputs.sources
    history = _history(state.log_history)
    return {
        "model": inputs.model.name,
        "data": None if inputs.mixed else str(sources[0].file),
        "rows": len(run.rows),
        "weights": config.weights,
        "history": history,
        "warnings": [{**one, "warning": sentence(one)} for one in find_silences(history, config.steps)],
        **_measured(state, out, inputs.evaluation),
        "mix": _mix(sources, run.places, state.global_step * config.rows_per_step),
        "verifier_errors": dict(sorted(run.verifier_errors.items())),
        "unfinished": run.unfinished,
        "versions": versions("transformers", "trl", "peft"),
    }


def _measured(state: Any, out: Path, evaluation: Evaluation | None) -> dict[str, Any]:
    """The evaluations and the kept step, which are drawn too."""
    if evaluation is None:
        return {"evaluations": [], "best_step": None}
    records = measuring.curve(state.log_history, evaluation)
    best = state.best_global_step or 0
    measuring.write_curve(records, out)
    measuring.draw_curve(records, best, out)
    return {"evaluations": records, "best_step": best}


def _mix(sources: Sequence[Source], places: Sequence[int] | None, drawn: int) -> list[dict[str, Any]] | None:
    """Of each file its share, its rows, and how many of the first ``drawn`` rows were its own."""
    if places is None:
        return None
    counts = count_drawn(sources, places[:drawn])
    return [
        {
            "file": str(source.file),
            "share": source.share,
            "rows": len(source.rows),
            "left_out": source.left_out,
            "drawn": count,
        }
        for source, count in zip(sources, counts, strict=True)
    ]


def _setting(inputs: _Inputs) -> dict[str, Any]:
    """What a run depends on."""
    config, check, evaluation = inputs.config, inputs.check, inputs.evaluation
    columns = [[row.columns for row in source.rows] for source in inputs.sources]
    measured = None
    if evaluation is not None:
        digests = {name: content_digest([row.columns for row in rows]) for name, rows in inputs.sets.items()}
        measured = {
            **{f"{name}_digest": digest for name, digest in digests.items()},
            "keep_weight": evaluation.weight,
            "every": evaluation.interval(config.steps),
            "patience": evaluation.patience,
        }
    return {
        "model_digest": inputs.model.digest,
        "rows_digest": content_digest(columns if inputs.mixed else columns[0]),
        "verifier": inputs.verifier,
        "verifier_digest": None if check is None else verifier_digest(check),
        "config": {**asdict(config), "learning_rate": config.rate},
        "shares": [source.share for source in inputs.sources] if inputs.mixed else None,
        "evaluation": measured,
    }


def _reward_verifier(stage: Stage, name: str | None) -> Verifier | None:
    if stage == "rl":
        return load_verifier(name, "for stage rl")
    if name is not None:
        reject("verifier", name, "none for stage sft")
    return None


def _check_source(source: Source, model: LanguageModel, config: PosttrainConfig, *, mixed: bool) -> list[int]:
    """:func:`_check_rows` of a file to train on."""
    field, where = ("mix", f"{source.file}, ") if mixed else ("data", "")
    found = _check_rows(source.rows, model, config, field, where)
    if config.stage == "rl" and not mixed and len(source.rows) < config.rows_per_step:
        allowed = f"at least {config.rows_per_step} prompts, as many as a batch has"
        reject(field, f"{len(source.rows)} rows", allowed)
    return found


def _check_rows(
    rows: Sequence[Row], model: LanguageModel, config: PosttrainConfig, field: str, where: str = ""
) -> list[int]:
    """Scored tokens of each row for SFT. TRL cuts or drops rows without a word; here they are named."""
    limit, targets, dropped = model.context_length, [], []
    for row in rows:
        try:
            encoded = _encoded(row, model, config)
        except InputError as error:
            if error.field != "messages":
                raise
            raise InputError(field, f"{where}{row.place}: {error.value}", error.allowed) from error
        length = encoded.length
        if config.stage == "rl":
            length += config.max_tokens
        elif is_blank(row.completion):
            reject(field, f"{where}{row.place}: empty completion", "completions with text")
        if length > limit:
            allowed = f"rows within the model's context of {limit} tokens (with max_tokens for rl)"
            reject(field, f"{where}{row.place}: {length} tokens", allowed)
        targets.append(encoded.targets)
        if encoded.issue is not None:
            dropped.append(f"{row.place}: {encoded.issue}")
    if dropped:
        note(f"{field}: {where}{dropped[0]}" + (f" (and {len(dropped) - 1} more)" if dropped[1:] else ""))
    return targets


def _encoded(row: Row, model: LanguageModel, config: PosttrainConfig) -> Encoded:
    """What a row is trained on; for RL its prompt, without targets."""
    if config.stage == "sft":
        return model.encode(row)
    ids = model.prompt_ids(row)
    return Encoded(np.array(ids, dtype=np.int32), len(ids))


def earlier_result(out: Path, setting: dict[str, Any]) -> dict[str, Any] | None:
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


def _history(log: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """One record a step of the numbers in _LOGGED."""
    return [
        {"step": entry["step"], **{name: float(entry[name]) for name in _LOGGED if name in entry}}
        for entry in log
        if "loss" in entry
    ]
