"""Score a pool under a base model: loss, representations, and pass rates, row by row, resumable.

Three stages, each kept batch by batch under OUT/.cache: losses (one forward pass gives the NLL, the mean
hidden state and the gradient's sketch), samples, and verdicts. Then the folder is written as
:mod:`datadose.llm.scores` says. No row is dropped: what could not be measured is null, ``issue`` says why.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datadose.errors import InputError, reject, require_integer
from datadose.files import file_digest
from datadose.llm.cache import BatchCache, Record, content_digest
from datadose.llm.generation import Sampling, prompt_batches
from datadose.llm.language_model import BATCH_TOKENS, Encoded, LanguageModel, Losses
from datadose.llm.measured import best_answers, counts, each_answer, measured, targets
from datadose.llm.pool import Pool, Row, open_pool
from datadose.llm.sampling import Texts, read_completions, sample_batch, verify
from datadose.llm.scores import MEASURED, ROLE, Scores, read_scores, write_scores
from datadose.llm.sketch import SKETCH_SEED, SKETCH_SIZE, TensorSketch
from datadose.llm.verifiers import Verifier, is_fixed, load_verifier, verifier_digest
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

    Raises InputError for a value out of range.
    """

    batch_tokens: int = BATCH_TOKENS
    sketch_size: int = SKETCH_SIZE
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("batch-tokens", self.batch_tokens, 1)
        require_integer("sketch-size", self.sketch_size, 2)

    def sampling(self) -> dict[str, Any]:
        """The settings that samples depend on."""
        return {field.name: getattr(self, field.name) for field in fields(Sampling)}


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
    as ``pool_NAME``. ``columns``, ``several`` and ``field`` are those of
    :func:`~datadose.llm.pool.open_pool`. Fields of the configuration as ``settings`` are deprecated.

    Raises InputError for bad input of any other kind, RunError if the disk is full.
    """
    config = config or ScoreConfig()
    if settings:
        message = f"score({', '.join(settings)}) is deprecated: score(config=ScoreConfig(...))"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        config = replace(config, **settings)
    check = _verifier(verifier, config, completions)
    sampled = config.samples > 0 or completions is not None
    options: dict[str, Any] = {"columns": columns, "several": several, "prompts_alone": sampled}
    with open_pool(pool, out / ".cache", field, reserved=(*MEASURED, ROLE), **options) as rows:
        given = None if completions is None else read_completions(completions, rows)
        if not isinstance(model, LanguageModel):
            model = LanguageModel.load(model, dtype=config.dtype, allow_pickle_weights=allow_pickle_weights)
        for line in rows.said:
            note(line)
        record = {
            **_conditions(model, config),
            "pool": str(pool),
            "pool_digest": rows.digest(),
            "columns": dict(columns or {}),
            "completions": None if completions is None else str(completions),
            "completions_digest": None if completions is None else file_digest(completions),
            "verifier": verifier,
            "verifier_digest": None if check is None else verifier_digest(check),
        }
        if (check is None or is_fixed(check)) and (finished := _finished(out, record)) is not None:
            return finished
        return _scored(_Run(model, rows, out, config, progress), given, check, record)


def _scored(
    run: _Run, given: Sequence[Texts] | None, check: Verifier | None, record: dict[str, Any]
) -> Scores:
    """Go through the stages and write the folder; ``record`` is what the manifest says besides."""
    tokens = run.encode()
    losses = run.losses(tokens)
    texts = given or run.samples()
    source = {"verifier": record["verifier"], "source": record["verifier_digest"]}
    kept = BatchCache(run.out, "verdicts", source)
    verdicts = run.verdicts(texts, check, kept)
    best = best_answers(run.starts, losses.nll, verdicts)
    one_each = losses if len(losses.nll) == len(run.rows) else losses.at(run.starts[:-1] + best)
    nll = (losses.nll[first:end] for first, end in pairwise(run.starts))
    parts = zip(run.rows, nll, best.tolist(), texts, verdicts, run.issues, strict=True)
    found = _write(run.out, run.rows, one_each, [measured(tokens, *values) for values in parts], record)
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


def _reading(rows: Pool) -> dict[str, Any]:
    """How the pool was understood, for the manifest."""
    layout = dict(rows.layout)
    return {"renamed_columns": layout.pop("renamed"), "layout": layout}


def _template(rows: Sequence[Row]) -> str:
    """Which rows went through the chat template."""
    forms = Counter(isinstance(row.prompt, str) for row in rows if row.issue is None)
    return "chat, none for plain strings" if len(forms) == 2 else "none" if forms[True] else "chat"


def _write(
    out: Path, rows: Pool, losses: Losses, numbers: list[dict[str, Any]], record: dict[str, Any]
) -> Scores:
    return write_scores(
        out,
        ({**row.columns, **found} for row, found in zip(rows, numbers, strict=True)),
        (row.id for row in rows),
        (row.question for row in rows),
        losses.embeddings,
        losses.sketches,
        {**record, **_reading(rows), "template": _template(rows), **counts(numbers)},
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
        self, model: LanguageModel, rows: Pool, out: Path, config: ScoreConfig, progress: Report
    ) -> None:
        self.model, self.rows, self.out, self.config, self.progress = model, rows, out, config, progress
        self.issues: list[str | None] = []
        """Why a row could not be measured, noted stage by stage."""
        answers = [0]
        for row in rows:
            self.issues.append(row.issue)
            answers.append(max(1, len(row.completions)))
        self.starts = np.cumsum(answers)
        """Where each row's completions begin among those of all rows; a row without any has one place."""
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
        """Token ids by key of a row with one completion; notes the rows that cannot be scored."""
        tokens: dict[str, Encoded] = {}
        for place, row in enumerate(self.rows):
            if self.issues[place] is not None:
                continue
            try:
                issues = [self._encode(one, tokens) for one in each_answer(row)]
            except InputError as error:
                if error.field != "messages":
                    raise
                issues = [f"messages: the chat template refuses them; allowed: {error.allowed}"]
            self.issues[place] = None if None in issues else issues[0]
        return tokens

    def _encode(self, row: Row, tokens: dict[str, Encoded]) -> str | None:
        """Note the tokens of a row with one completion; why it cannot be measured, None if it can."""
        if not row.has_completion:
            size, limit = len(self.model.encode_prompt(row.prompt)), self.model.context_length
            return f"prompt too long: {size} tokens in a context of {limit}" if size >= limit else None
        key = row.key
        tokens[key] = tokens.get(key) or self.model.encode(row)
        return self._trouble(row, tokens[key])

    def _trouble(self, row: Row, found: Encoded) -> str | None:
        """Why a row with one completion cannot be scored, None if it can."""
        if not targets(row, found):
            return "empty completion"
        if found.length > (limit := self.model.context_length):
            sizes = f"{found.start} tokens and {found.length - found.start} of the completion"
            return f"prompt too long: {sizes} in a context of {limit}"
        return None

    def losses(self, tokens: dict[str, Encoded]) -> Losses:
        """NLL, mean hidden state and sketch of each completion; notes the rows without a finite loss."""
        places: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(self.rows):
            if self.issues[place] is None and row.has_completion:
                for unit, one in enumerate(each_answer(row), start=int(self.starts[place])):
                    if self._trouble(one, tokens[one.key]) is None:
                        places[one.key].append(unit)
        keys = list(places)
        lengths = [tokens[key].length for key in keys]
        sketch = TensorSketch(self.model.hidden_size, self.model.vocabulary_size, self.config.sketch_size)
        sketch.to(self.model.device)
        losses = Losses.empty(int(self.starts[-1]), self.model.hidden_size, sketch.size)

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
        found = np.isfinite(losses.nll)
        for place, row in enumerate(self.rows):
            first, end = self.starts[place : place + 2]
            if self.issues[place] is None and row.has_completion and not found[first:end].any():
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

        def compute(batch: list[str]) -> list[Record]:
            found = []
            for place in map(by_key.__getitem__, batch):
                row, text = self.rows[place], texts[place]
                judge, scored = check if row.issue is None else None, self.issues[place] is None
                found.append(verify(judge, row, text.samples, text.own, scored=scored))
            return found

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
