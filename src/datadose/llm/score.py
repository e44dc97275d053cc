"""Score a pool under a base model: loss, representations, and pass rates, row by row, resumable.

Three stages, each kept batch by batch under OUT/.cache: losses (one forward pass gives the NLL, the mean
hidden state and the gradient's sketch), samples, and verdicts. Then the folder is written as
:mod:`datadose.llm.scores` says. No row is dropped: what could not be measured is null, ``issue`` says why.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from datadose.errors import InputError, reject
from datadose.files import file_digest
from datadose.llm.cache import BatchCache
from datadose.llm.completions import read_completions
from datadose.llm.endpoint import Endpoint
from datadose.llm.language_model import LanguageModel, Losses
from datadose.llm.left_out import unread_columns, unread_sentences
from datadose.llm.measured import best_answers, counts, measured
from datadose.llm.pass_rates import add_signals
from datadose.llm.pool import Pool, Row, open_pool
from datadose.llm.sampling import Tally, Texts, sample_lines
from datadose.llm.score_config import ScoreConfig
from datadose.llm.score_stages import Stages
from datadose.llm.scores import MEASURED, ROLE, Scores, hash_question, read_scores, write_scores
from datadose.llm.sketch import SKETCH_SEED
from datadose.llm.verifiers import Verifier, is_fixed, load_verifier, verifier_digest
from datadose.printing import note
from datadose.progress import Report, silent
from datadose.versions import versions


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

    A bad row of the pool is kept and marked. A column of the pool that has the name of a measured one is kept
    as ``pool_NAME``. ``columns``, ``several`` and ``field`` are those of
    :func:`~datadose.llm.pool.open_pool`. Fields of the configuration as ``settings`` are deprecated.

    Raises InputError for bad input of any other kind, RunError if the disk is full.
    """
    config = _configured(config or ScoreConfig(), settings)
    check = _verifier(verifier, config, completions, endpoint)
    sampled = config.samples > 0 or completions is not None
    options: dict[str, Any] = {"columns": columns, "several": several, "prompts_alone": sampled}
    with open_pool(pool, out / ".cache", field, reserved=(*MEASURED, ROLE), **options) as rows:
        given = None if completions is None else read_completions(completions, rows)
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
        return _measure(Stages(loaded, rows, out, config, progress), given, check, endpoint, record)


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
    given: Sequence[Texts] | None,
    check: Verifier | None,
    endpoint: Endpoint | None,
    record: dict[str, Any],
) -> Scores:
    """Go through the stages, and write the folder."""
    rows, out, config = run.rows, run.out, run.config
    tokens = run.encode()
    samples = run.sampler(endpoint) if config.samples else None
    # Not before all input is checked: what is wrong is one line.
    for line in rows.said:
        note(line)
    losses = run.losses(tokens)
    if samples is not None:
        run.draw(samples, check)
    texts: Sequence[Texts] = samples or given or [Texts([])] * len(rows)
    kept = BatchCache(out, "verdicts", {name: x for name, x in record.items() if name.startswith("verifier")})
    verdicts = run.verdicts(texts, check, kept)
    tally = Tally.of("file" if given else samples.engine.name if samples else None, rows, texts)
    tally.warn(config.max_tokens, config.temperature)
    best = best_answers(run.starts, losses.nll, verdicts)
    one_each = losses if len(losses.nll) == len(run.rows) else losses.at(run.starts[:-1] + best)
    nll = (losses.nll[first:end] for first, end in pairwise(run.starts))
    parts = zip(rows, nll, best.tolist(), texts, verdicts, run.issues, strict=True)
    numbers = [measured(tokens, *values) for values in parts]
    record["pass_rates"] = add_signals([hash_question(row.question) for row in rows], numbers)
    record["sampling"] = tally.record()
    found = _write(out, rows, one_each, numbers, sample_lines(rows, texts, verdicts), record)
    if samples is not None:
        samples.store.close()
    # A finished run verifies anew when asked again: a verifier may change in ways unseen here.
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
    # What a server has refused or failed to answer is asked for again.
    asked = settings["endpoint"] is not None and found.manifest["sampling"]["missing"] > 0
    return found if same and not asked else None


def _reading(rows: Pool) -> dict[str, Any]:
    """How the pool was understood, for the manifest."""
    layout = dict(rows.layout)
    return {"renamed_columns": layout.pop("renamed"), "layout": layout}


def _template(rows: Sequence[Row]) -> str:
    """Which rows went through the chat template."""
    forms = Counter(isinstance(row.prompt, str) for row in rows if row.issue is None)
    return "chat, none for plain strings" if len(forms) == 2 else "none" if forms[True] else "chat"


def _write(
    out: Path,
    rows: Pool,
    losses: Losses,
    numbers: list[dict[str, Any]],
    samples: Iterable[dict[str, Any]],
    record: dict[str, Any],
) -> Scores:
    unread = unread_columns(rows)
    for sentence in unread_sentences(unread):
        note(sentence)
    read = {**_reading(rows), "template": _template(rows), "unread_columns": unread}
    return write_scores(
        out,
        ({**row.columns, **found} for row, found in zip(rows, numbers, strict=True)),
        (row.id for row in rows),
        (row.question for row in rows),
        losses.embeddings,
        losses.sketches,
        {**record, **read, **counts(numbers)},
        samples,
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
