"""Score a pool under a base model: loss, representations, and pass rates, row by row, resumable.

Three stages, each kept batch by batch under OUT/.cache: losses (one forward pass gives the NLL, the mean
hidden state and the gradient's sketch), samples, and verdicts. Then the folder is written as
:mod:`datadose.llm.scores` describes. No row is dropped: what was not measured is null, with its ``issue``.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from datadose.errors import InputError, reject
from datadose.files import file_digest
from datadose.llm.cache import BatchCache, Record
from datadose.llm.completions import read_completions
from datadose.llm.endpoint import Endpoint
from datadose.llm.language_model import LanguageModel
from datadose.llm.left_out import unread_sentences
from datadose.llm.measured import best_answers, measured
from datadose.llm.pass_rates import fit_pool, pool_signals
from datadose.llm.pool import Pool, open_pool
from datadose.llm.sampling import Tally, Texts, sample_lines
from datadose.llm.score_config import ScoreConfig
from datadose.llm.score_stages import KeptLosses, Stages
from datadose.llm.scores import CHANCE, EMBEDDING, MEASURED, ROLE, Scores, read_scores, write_scores
from datadose.llm.shards import ModelSource, batch_workers
from datadose.llm.sketch import SKETCH_SEED
from datadose.llm.verifiers import Verifier, is_fixed, load_verifier, verifier_digest
from datadose.llm.whereabouts import place_of, refuse_other_scores
from datadose.printing import note
from datadose.progress import Report, silent
from datadose.shapes import Array
from datadose.versions import versions
from datadose.workers import Workers

_RESERVED = (*MEASURED, ROLE, CHANCE)
"""Columns of a pool that are kept under another name."""


def score(
    model: str | Path | LanguageModel,
    pool: Path | str,
    out: Path,
    *,
    columns: Mapping[str, str] | None = None,
    several: bool = False,
    field: str = "pool",
    config: ScoreConfig | None = None,
    verifier: str | None = None,
    completions: Path | None = None,
    endpoint: Endpoint | None = None,
    allow_pickle_weights: bool = False,
    workers: Workers | None = None,
    progress: Report = silent,
    **settings: Any,
) -> Scores:
    """Measure every row of ``pool`` under ``model`` and write the scores folder ``out``.

    ``model`` is a folder, a name, or a loaded model. With samples (see :class:`ScoreConfig`; the model draws
    them itself, or the server at ``endpoint``) or ``completions``, ``verifier`` decides what passes; with a
    verifier alone, only the rows' own completions are checked. Run again with the same settings, it continues
    where it stopped and ends with the same bytes; a finished folder is returned as it is if model, pool,
    completions, settings and libraries are those of its manifest and no file has changed (with a verifier of
    another module, everything is verified anew).

    ``workers`` sets where and how many batches of losses are computed at a time: in this process, or on a
    Dask or Ray cluster whose workers find the model under the same name (by default here, as many as torch
    has threads, on a GPU one). The bytes are the same for any.

    A bad row of the pool is kept and marked. A column of the pool that has the name of a measured one is kept
    as ``pool_NAME``. ``columns``, ``several`` and ``field`` are those of
    :func:`~datadose.llm.pool.open_pool`. Fields of the configuration as ``settings`` are deprecated.

    Raises InputError for bad input of any other kind, RunError if the disk is full or a worker dies.
    """
    config = _configured(config or ScoreConfig(), settings)
    check = _verifier(verifier, config, completions, endpoint)
    sampled = config.samples > 0 or completions is not None
    options: dict[str, Any] = {"columns": columns, "several": several, "prompts_alone": sampled}
    cache = out / ".cache"
    refuse_other_scores(out, pool, model if isinstance(model, (str, Path)) else model.name)
    with ExitStack() as files:
        rows = files.enter_context(open_pool(pool, cache, field, reserved=_RESERVED, **options))
        given = None
        if completions is not None:
            given = files.enter_context(read_completions(completions, rows, cache))
        loaded = _loaded(model, config, allow_pickle_weights=allow_pickle_weights)
        record = {
            **_conditions(loaded, config),
            **_sources(pool, rows, columns, completions, endpoint),
            "verifier": verifier,
            "verifier_digest": None if check is None else verifier_digest(check),
            "verifier_timeout": config.verifier_timeout,
        }
        if (check is None or is_fixed(check)) and (finished := _finished(out, record)) is not None:
            return finished
        source = ModelSource.of(loaded, config.device_map, allow_pickle_weights=allow_pickle_weights)
        run = Stages(loaded, rows, out, config, batch_workers(loaded, workers), progress)
        return _measure(files.enter_context(run), source, given, check, endpoint, record)


def _configured(config: ScoreConfig, settings: dict[str, Any]) -> ScoreConfig:
    """The configuration with fields that are given by their own names, as was once the way."""
    if not settings:
        return config
    message = f"score({', '.join(settings)}) is deprecated: score(config=ScoreConfig(...))"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    return replace(config, **settings)


def _loaded(
    model: str | Path | LanguageModel, config: ScoreConfig, *, allow_pickle_weights: bool
) -> LanguageModel:
    if not isinstance(model, LanguageModel):
        options: dict[str, Any] = {"dtype": config.dtype, "device_map": config.device_map}
        model = LanguageModel.load(model, allow_pickle_weights=allow_pickle_weights, **options)
    return model.with_chat(config.loss, config.template_date)


def _measure(
    run: Stages,
    source: ModelSource,
    given: Sequence[Texts] | None,
    check: Verifier | None,
    endpoint: Endpoint | None,
    record: dict[str, Any],
) -> Scores:
    """Go through the stages, and write the folder."""
    rows, config, seen = run.rows, run.config, run.seen
    run.encode()
    samples = run.sampler(endpoint) if config.samples else None
    # Not before all input is checked: what is wrong is one line.
    for line in rows.said:
        note(line)
    losses = run.losses(source)
    if samples is not None:
        run.draw(samples, check)
    texts: Sequence[Texts] = samples or given or [Texts([])] * len(rows)
    verifier = {name: value for name, value in record.items() if name.startswith("verifier")}
    kept = BatchCache(run.out, "verdicts", verifier)
    engine = "file" if given is not None else samples.engine.name if samples else None
    tally = Tally(engine)
    verdicts = run.verdicts(texts, check, kept, tally)
    tally.warn(config.max_tokens, config.temperature)
    prior = fit_pool(np.array(seen.questions, dtype=np.int64), run.passed, run.judged)
    record["pass_rates"] = None if prior is None else prior.to_json()
    record["sampling"] = tally.record()
    found = _write(run, losses, texts, verdicts, pool_signals(prior, run.passed, run.judged), record)
    # A finished run verifies anew when it is run again: a verifier may change in ways unseen here.
    kept.remove()
    return found


def _conditions(model: LanguageModel, config: ScoreConfig) -> dict[str, Any]:
    """What is measured with, for the manifest."""
    return {
        "model": model.name,
        "model_digest": model.digest,
        "tokenizer_digest": model.tokenizer_digest,
        "chat_template_digest": model.template_digest,
        "dtype": model.dtype,
        "device": model.device.type,
        "loss": config.loss,
        "template_date": config.template_date,
        "batch_tokens": config.batch_tokens,
        **config.sampling(),
        "adaptive": config.adaptive,
        "sketch": {"size": config.sketch_size, "seed": SKETCH_SEED},
        "embedding": EMBEDDING,
        "alone": config.alone,
        "versions": versions("transformers", "tokenizers", "safetensors"),
    }


def _sources(
    pool: Path | str,
    rows: Pool,
    columns: Mapping[str, str] | None,
    completions: Path | None,
    endpoint: Endpoint | None,
) -> dict[str, Any]:
    """What is measured, for the manifest."""
    return {
        "pool": str(pool),
        "pool_digest": rows.digest(),
        "columns": dict(columns or {}),
        "completions": None if completions is None else str(completions),
        "completions_digest": None if completions is None else file_digest(completions),
        **({"endpoint": None} if endpoint is None else endpoint.record()),
    }


def _finished(out: Path, settings: dict[str, Any]) -> Scores | None:
    """The scores in ``out`` if they are whole and of these settings."""
    if not (out / "manifest.json").is_file():
        return None
    try:
        found = read_scores(out)
    except InputError:
        # Whatever is wrong there, it is written again.
        return None
    same = all(found.manifest.get(name, "") == value for name, value in settings.items())
    # What a server has refused or failed to answer is requested again.
    asked = settings["endpoint"] is not None and found.manifest["sampling"]["missing"] > 0
    return found if same and not asked else None


def _reading(rows: Pool) -> dict[str, Any]:
    """How the pool was understood, for the manifest."""
    layout = dict(rows.layout)
    return {"renamed_columns": layout.pop("renamed"), "layout": layout}


def _template(forms: Counter[bool]) -> str:
    """Which rows went through the chat template."""
    return "chat, none for plain strings" if len(forms) == 2 else "none" if forms[True] else "chat"


def _write(
    run: Stages,
    losses: KeptLosses,
    texts: Sequence[Texts],
    verdicts: Sequence[Record],
    signals: Array,
    record: dict[str, Any],
) -> Scores:
    rows, seen = run.rows, run.seen
    unread = dict(sorted(seen.unread.items()))
    for sentence in unread_sentences(unread):
        note(sentence)
    starts = np.array(seen.starts, dtype=np.int64)
    best = best_answers(starts, losses.nll, verdicts)

    def lines() -> Iterator[dict[str, Any]]:
        each = run.each_row(losses.nll), run.each_row(losses.alone)
        parts = (rows, *each, best, texts, verdicts, signals, run.issues)
        for row, nll, alone, chosen, *rest in zip(*parts, strict=True):
            yield {**row.columns, **measured(row, run.token_counts, nll, alone, int(chosen), *rest)}

    return write_scores(
        run.out,
        lines(),
        seen.ids,
        seen.questions,
        losses.embeddings.at(starts[:-1] + best),
        losses.sketches.at(starts[:-1] + best),
        {
            **record,
            **place_of(str(record["model"]), run.out),
            **_reading(rows),
            "template": _template(seen.forms),
            "unread_columns": unread,
        },
        sample_lines(seen.ids, texts, verdicts),
    )


def _verifier(
    name: str | None, config: ScoreConfig, completions: Path | None, endpoint: Endpoint | None
) -> Verifier | None:
    """The verifier, once the requests fit together."""
    if endpoint is not None and not config.samples:
        reject("samples", 0, "at least 1 with an endpoint, which draws them")
    if completions is not None and config.samples:
        reject("samples", config.samples, "0 with completions made elsewhere: none are drawn then")
    if name is None and completions is None and not config.samples:
        return None
    return load_verifier(name, "with samples" if config.samples else "with completions")
