"""Score a pool under a base model: loss, representations, and pass rates, row by row, resumable.

Three stages, each kept batch by batch under OUT/.cache: losses (one forward pass gives the NLL, the mean
hidden state and the gradient's sketch), samples, and verdicts. Then the folder is written as
:mod:`datadose.llm.scores` says. No row is dropped: what could not be measured is null, ``issue`` says why.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datadose.errors import InputError, reject, require_integer
from datadose.files import file_digest, prepare_folder
from datadose.llm.cache import BatchCache, Record, content_digest
from datadose.llm.generation import Sampling, prompt_batches
from datadose.llm.language_model import BATCH_TOKENS, Encoded, LanguageModel, Losses
from datadose.llm.pool import Row, read_pool
from datadose.llm.sampling import Texts, read_completions, sample_batch, verify
from datadose.llm.scores import MEASURED, ROLE, Scores, read_scores, write_scores
from datadose.llm.sketch import SKETCH_SEED, SKETCH_SIZE, TensorSketch
from datadose.llm.verifiers import (
    TIMEOUT,
    Verifier,
    is_fixed,
    load_verifier,
    require_timeout,
    threaded,
    verifier_digest,
)
from datadose.printing import note
from datadose.progress import Report, silent
from datadose.versions import versions

_VERIFY_ROWS = 64
"""Rows whose verdicts are kept together."""


@dataclass(frozen=True)
class ScoreConfig(Sampling):
    """How to score.

    Args:
        samples: completions drawn of each prompt; 0 for none, and then no greedy one either.
        temperature: of the samples; 0 is greedy.
        max_tokens: tokens of a sample at most.
        seed: of the samples.
        batch_tokens: padded tokens of a batch. Nothing depends on it beyond rounding.
        sketch_size: numbers D of a gradient's sketch.
        dtype: ``float32`` or ``bfloat16``; a loaded model keeps its own.
        verifier_timeout: seconds that the verifier may take for one completion, above 0.
        verifier_processes: processes that the verifier runs in. Verdicts do not depend on it.

    Raises InputError for a value out of range.
    """

    batch_tokens: int = BATCH_TOKENS
    sketch_size: int = SKETCH_SIZE
    dtype: str = "float32"
    verifier_timeout: float = TIMEOUT
    verifier_processes: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("batch-tokens", self.batch_tokens, 1)
        require_integer("sketch-size", self.sketch_size, 2)
        require_timeout(self.verifier_timeout)
        require_integer("verifier-processes", self.verifier_processes, 1, 1024)

    def sampling(self) -> dict[str, Any]:
        """The settings that samples depend on."""
        return {field.name: getattr(self, field.name) for field in fields(Sampling)}


def score(
    model: str | Path | LanguageModel,
    pool: Path,
    out: Path,
    *,
    config: ScoreConfig | None = None,
    verifier: str | None = None,
    completions: Path | None = None,
    allow_pickle_weights: bool = False,
    progress: Report = silent,
    **settings: Any,
) -> Scores:
    """Measure every row of ``pool`` under ``model`` and write the scores folder ``out``.

    ``model`` is a folder, a name, or a loaded model. With samples (see :class:`ScoreConfig`) or
    ``completions``, ``verifier`` decides what passes; with a verifier alone, only the rows' own completions
    are checked. Run again with the same settings, it continues where it stopped and ends with the same bytes;
    a finished folder is returned as it is if model, pool, completions, settings and libraries are those of
    its manifest and no file has changed (with a verifier of another module, everything is verified anew).

    A bad row of the pool is kept and marked. A column of the pool that has the name of a measured one is kept
    as ``pool_NAME``. Fields of the configuration as ``settings`` are deprecated.

    Raises InputError for bad input of any other kind, RunError if the disk is full.
    """
    config = config or ScoreConfig()
    if settings:
        message = f"score({', '.join(settings)}) is deprecated: score(config=ScoreConfig(...))"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        config = replace(config, **settings)
    check = _verifier(verifier, config, completions)
    rows = read_pool(pool, mark=True)
    given = None if completions is None else read_completions(completions, rows)
    if not isinstance(model, LanguageModel):
        model = LanguageModel.load(model, dtype=config.dtype, allow_pickle_weights=allow_pickle_weights)
    prepare_folder("out", out)
    record = {
        **_conditions(model, config),
        "pool": str(pool),
        "pool_digest": file_digest(pool),
        "completions": None if completions is None else str(completions),
        "completions_digest": None if completions is None else file_digest(completions),
        "verifier": verifier,
        "verifier_digest": None if check is None else verifier_digest(check),
        "verifier_timeout": config.verifier_timeout,
    }
    if (check is None or is_fixed(check)) and (finished := _finished(out, record)) is not None:
        return finished
    run = _Run(model, rows, out, config, progress)
    tokens = run.encode()
    losses = run.losses(tokens)
    texts = given or run.samples()
    kept = BatchCache(out, "verdicts", {name: x for name, x in record.items() if name.startswith("verifier")})
    verdicts = run.verdicts(texts, check, kept)
    targets = (_targets(row, tokens.get(row.key)) for row in rows)
    columns = zip(losses.nll.tolist(), targets, texts, verdicts, run.issues, strict=True)
    found = _write(out, rows, losses, [_measured(*values) for values in columns], record)
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
        "batch_tokens": config.batch_tokens,
        **config.sampling(),
        "sketch": {"size": config.sketch_size, "seed": SKETCH_SEED},
        "versions": versions("transformers", "tokenizers", "safetensors"),
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
    return found if same else None


def _renamed(rows: Sequence[Row]) -> dict[str, str]:
    """New names of the pool's columns that are called like ours."""
    columns = {name for row in rows for name in row.columns}
    names = {}
    for name in (*MEASURED, ROLE):
        if name in columns:
            free = f"pool_{name}"
            while free in columns:
                free = f"pool_{free}"
            names[name] = free
            columns.add(free)
    if names:
        what = ", ".join(f"{name} (kept as {free})" for name, free in names.items())
        note(f"the pool has columns with names of measured ones: {what}")
    return names


def _template(rows: Sequence[Row]) -> str:
    """Which rows went through the chat template."""
    good = [row for row in rows if row.issue is None]
    plain = sum(isinstance(row.prompt, str) for row in good)
    return "chat" if plain == 0 else "none" if plain == len(good) else "chat, none for plain strings"


def _write(
    out: Path, rows: Sequence[Row], losses: Losses, measured: list[dict[str, Any]], record: dict[str, Any]
) -> Scores:
    names = _renamed(rows)
    return write_scores(
        out,
        (
            {**{names.get(name, name): value for name, value in row.columns.items()}, **numbers}
            for row, numbers in zip(rows, measured, strict=True)
        ),
        [row.id for row in rows],
        [row.question for row in rows],
        losses.embeddings,
        losses.sketches,
        {**record, "template": _template(rows), "renamed_columns": names, **_counts(measured)},
    )


def _verifier(name: str | None, sampling: Sampling, completions: Path | None) -> Verifier | None:
    """The verifier, once the requests fit together."""
    if completions is not None and sampling.samples:
        reject("samples", sampling.samples, "0 with completions made elsewhere: none are drawn then")
    if name is None and completions is None and not sampling.samples:
        return None
    return load_verifier(name, "with samples" if sampling.samples else "with completions")


class _Run:
    """The stages of one call."""

    def __init__(
        self, model: LanguageModel, rows: Sequence[Row], out: Path, config: ScoreConfig, progress: Report
    ) -> None:
        self.model, self.rows, self.out, self.config, self.progress = model, rows, out, config, progress
        self.issues = [row.issue for row in rows]
        """Why a row could not be measured, noted stage by stage."""
        # What every number depends on. Rounding differs between batch sizes, devices and libraries, and a
        # sample with it; a folder holds the results of one setting.
        self.setting = {
            "model": model.digest,
            "tokenizer": model.tokenizer_digest,
            "dtype": model.dtype,
            "device": model.device.type,
            "batch_tokens": config.batch_tokens,
            **{name: metadata.version(name) for name in ("torch", "transformers")},
        }

    def encode(self) -> dict[str, Encoded]:
        """Token ids by key; notes the rows that cannot be scored."""
        tokens: dict[str, Encoded] = {}
        limit = self.model.context_length
        for place, row in enumerate(self.rows):
            if self.issues[place] is not None:
                continue
            key = row.key
            try:
                found = tokens[key] = tokens.get(key) or self.model.encode(row)
            except InputError as error:
                if error.field != "messages":
                    raise
                self.issues[place] = f"messages: the chat template refuses them; allowed: {error.allowed}"
                continue
            if not _targets(row, found):
                self.issues[place] = "empty completion"
            elif found.length > limit:
                sizes = f"{found.start} tokens and {found.length - found.start} of the completion"
                self.issues[place] = f"prompt too long: {sizes} in a context of {limit}"
        return tokens

    def losses(self, tokens: dict[str, Encoded]) -> Losses:
        """NLL, mean hidden state and sketch of each row; notes those without a finite loss."""
        places: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(self.rows):
            if self.issues[place] is None:
                places[row.key].append(place)
        keys = list(places)
        lengths = [tokens[key].length for key in keys]
        sketch = TensorSketch(self.model.hidden_size, self.model.vocabulary_size, self.config.sketch_size)
        sketch.to(self.model.device)
        losses = Losses.empty(len(self.rows), self.model.hidden_size, sketch.size)

        def compute(batch: list[str]) -> list[Record]:
            found = self.model.measure([tokens[key] for key in batch], sketch)
            columns = zip(found.nll.tolist(), found.embeddings, found.sketches, strict=True)
            return [{"nll": nll, "embedding": mean, "sketch": s} for nll, mean, s in columns]

        def keep(key: str, record: Record) -> None:
            if math.isfinite(record["nll"]):
                at = places[key]
                losses.nll[at] = record["nll"]
                losses.embeddings[at], losses.sketches[at] = record["embedding"], record["sketch"]

        batches = self.model.loss_batches(lengths, self.config.batch_tokens)
        BatchCache(self.out, "losses", {**self.setting, "sketch": [sketch.size, SKETCH_SEED]}).run(
            [[keys[i] for i in batch] for batch in batches],
            compute,
            keep,
            self._reporter("score (tokens)", dict(zip(keys, lengths, strict=True))),
        )
        for place, nll in enumerate(losses.nll.tolist()):
            if self.issues[place] is None and math.isnan(nll):
                self.issues[place] = "non-finite loss"
        return losses

    def samples(self) -> list[Texts]:
        """Samples and greedy completions by row, shared by rows of one prompt; none if not wanted."""
        none = Texts([])
        if not self.config.samples:
            return [none] * len(self.rows)
        prompts: dict[str, NDArray[np.int32]] = {}
        owners: dict[int, str] = {}
        for place, row in enumerate(self.rows):
            if self.issues[place] is not None:
                continue
            ids = self.model.encode_prompt(row.prompt)
            if len(ids) < self.model.context_length:
                owners[place] = content_digest(ids)
                prompts[owners[place]] = np.array(ids, dtype=np.int32)
        keys, tokens = list(prompts), self.config.batch_tokens
        lengths = [len(ids) for ids in prompts.values()]

        def compute(batch: list[str]) -> list[Record]:
            return sample_batch(self.model, [prompts[key].tolist() for key in batch], self.config, tokens)

        found: dict[str, Texts] = {}
        BatchCache(self.out, "samples", {**self.setting, **self.config.sampling()}).run(
            [[keys[i] for i in batch] for batch in prompt_batches(self.model, lengths, self.config, tokens)],
            compute,
            lambda key, record: found.__setitem__(key, Texts(**record)),
            self._reporter("sample (prompts)", dict.fromkeys(keys, 1)),
        )
        return [found[owners[place]] if place in owners else none for place in range(len(self.rows))]

    def verdicts(self, texts: Sequence[Texts], check: Verifier | None, kept: BatchCache) -> list[Record]:
        """Verdicts by row; on a bad row there are none."""
        by_key: dict[str, int] = {}
        for place, row in enumerate(self.rows):
            content = [row.key, row.columns, asdict(texts[place]), self.issues[place] is not None]
            by_key[content_digest([row.id, row.line, content])] = place
        keys = list(by_key)

        def one(key: str) -> Record:
            place = by_key[key]
            row, text = self.rows[place], texts[place]
            judge, scored = check if row.issue is None else None, self.issues[place] is None
            timeout = self.config.verifier_timeout
            return verify(judge, row, text.samples, text.own, scored=scored, timeout=timeout)

        def compute(batch: list[str]) -> list[Record]:
            return threaded(one, batch, self.config.verifier_processes)

        verdicts: list[Record] = [{} for _ in self.rows]
        kept.run(
            [keys[i : i + _VERIFY_ROWS] for i in range(0, len(keys), _VERIFY_ROWS)],
            compute,
            lambda key, record: verdicts.__setitem__(by_key[key], record),
            self._reporter("verify (rows)", dict.fromkeys(keys, int(check is not None))),
        )
        return verdicts

    def _reporter(self, name: str, sizes: dict[str, int]) -> Callable[[list[str]], None]:
        done, total = 0, sum(sizes.values())

        def report(keys: list[str]) -> None:
            nonlocal done
            done += sum(sizes[key] for key in keys)
            if total:
                self.progress(name, done, total)

        return report


def _targets(row: Row, tokens: Encoded | None) -> int | None:
    """Scored tokens of the row, None if it could not be encoded."""
    return None if tokens is None else tokens.targets if row.completion_text.strip() else 0


def _measured(
    nll: float, targets: int | None, texts: Texts, verdict: Record, issue: str | None
) -> dict[str, Any]:
    """The columns MEASURED of a row."""
    found = {
        **verdict,
        "nll": float(nll) if issue is None else None,
        "tokens": targets,
        "own_completion": texts.own,
        "own_confidence": texts.confidence,
        "issue": issue or verdict["issue"],
    }
    return {name: found[name] for name in MEASURED}


def _counts(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many rows, scored rows, samples that broke off in a thought, and rows with each kind of issue."""
    issues = Counter(row["issue"].split(":")[0] for row in measured if row["issue"] is not None)
    return {
        "rows": len(measured),
        "scored": sum(row["nll"] is not None for row in measured),
        "unfinished": sum(row["unfinished"] or 0 for row in measured),
        "issues": dict(sorted(issues.items())),
    }
