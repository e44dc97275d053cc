"""Score a pool under a base model: loss, representations, and pass rates, row by row, resumable.

Three stages, each kept batch by batch under OUT/.cache: losses (one forward pass gives the NLL, the mean
hidden state and the gradient's sketch), samples, and verdicts. Then the folder is written as
:mod:`datadose.llm.scores` says. No row is dropped: what could not be measured is null, ``issue`` says why.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from datadose.errors import reject, require_integer
from datadose.files import file_digest
from datadose.llm.cache import BatchCache, Record, content_digest
from datadose.llm.language_model import BATCH_TOKENS, Encoded, LanguageModel
from datadose.llm.pool import Row, read_pool
from datadose.llm.sampling import Sampling, read_completions, sample_batch, verify
from datadose.llm.scores import MEASURED, Scores, write_scores
from datadose.llm.sketch import SKETCH_SEED, SKETCH_SIZE, TensorSketch
from datadose.llm.verifiers import Verifier, load_verifier, verifier_digest
from datadose.versions import versions

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

_VERIFY_ROWS = 64
"""Rows whose verdicts are kept together."""


def score(
    model: str | Path | LanguageModel,
    pool: Path,
    out: Path,
    *,
    samples: int = 0,
    verifier: str | None = None,
    completions: Path | None = None,
    temperature: float = 1.0,
    max_tokens: int = 256,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    sketch_size: int = SKETCH_SIZE,
    dtype: str = "float32",
    progress: Progress | None = None,
) -> Scores:
    """Measure every row of ``pool`` under ``model`` and write the scores folder ``out``.

    ``model`` is a folder, a name, or a loaded model (whose own type then counts, not ``dtype``). With
    ``samples`` or ``completions``, ``verifier`` decides what passes; with a verifier alone, only the rows'
    own completions are checked. Nothing depends on ``batch_tokens`` beyond rounding. Run again with the same
    settings, it continues where it stopped and ends with the same bytes.

    Raises InputError for bad input of any kind, RunError if the disk is full.
    """
    sampling = Sampling(samples, temperature, max_tokens, seed)
    require_integer("batch-tokens", batch_tokens, 1)
    require_integer("sketch-size", sketch_size, 2)
    check = _verifier(verifier, sampling, completions)
    rows = read_pool(pool)
    given = None if completions is None else read_completions(completions, rows)
    if not isinstance(model, LanguageModel):
        model = LanguageModel.load(model, dtype=dtype)
    run = _Run(model, out, batch_tokens, progress or (lambda name, done, total: None))
    encoded, issues = run.encode(rows)
    sketch = TensorSketch(model.hidden_size, model.vocabulary_size, sketch_size).to(model.device)
    losses = run.losses(rows, encoded, issues, sketch)
    for row in rows:
        if row.id not in issues and not math.isfinite(losses[row.key]["nll"]):
            issues[row.id] = "non-finite loss"
    drawn = run.samples(rows, issues, sampling)
    texts = _texts(rows, drawn, given)
    verdicts = run.verdicts(rows, texts, issues, check, verifier)
    measured = [
        _measured(row, encoded[row.key], losses, texts[row.id], verdicts[row.id], issues) for row in rows
    ]
    vectors = {
        name: np.full((len(rows), size), np.nan, dtype=np.float32)
        for name, size in (("embedding", model.hidden_size), ("sketch", sketch_size))
    }
    for place, row in enumerate(rows):
        if measured[place]["nll"] is not None:
            for name, array in vectors.items():
                array[place] = losses[row.key][name]
    sources = {
        "pool": str(pool),
        "pool_digest": file_digest(pool),
        "completions": None if completions is None else str(completions),
        "completions_digest": None if completions is None else file_digest(completions),
        "verifier": verifier,
    }
    found = write_scores(
        out,
        [{**row.columns, **numbers} for row, numbers in zip(rows, measured, strict=True)],
        [row.id for row in rows],
        [row.question for row in rows],
        vectors["embedding"],
        vectors["sketch"],
        {**run.manifest(rows, sampling, sketch_size), **sources, **_counts(measured)},
    )
    run.forget_verdicts()
    return found


def _verifier(name: str | None, sampling: Sampling, completions: Path | None) -> Verifier | None:
    """The verifier, once the requests fit together."""
    if completions is not None and sampling.samples:
        reject("samples", sampling.samples, "0 with completions made elsewhere: none are drawn then")
    if name is None and (sampling.samples or completions is not None):
        what = "samples" if sampling.samples else "completions"
        allowed = f"a verifier with {what}: exact, last-number, reasoning-gym or module:function"
        reject("verifier", "none", allowed)
    return None if name is None else load_verifier(name)


@dataclass(frozen=True)
class _Texts:
    """What a model said to a row: sampled completions, the greedy one, and its confidence."""

    samples: list[str]
    own: str | None = None
    confidence: float | None = None


class _Run:
    """The stages of one call."""

    def __init__(self, model: LanguageModel, out: Path, batch_tokens: int, progress: Progress) -> None:
        self.model, self.out, self.batch_tokens, self.progress = model, out, batch_tokens, progress
        # What every number depends on. Rounding differs between batch sizes, devices and libraries, and a
        # sample with it; a folder holds the results of one setting.
        self.setting = {
            "model": model.digest,
            "tokenizer": model.tokenizer_digest,
            "dtype": model.dtype,
            "device": model.device.type,
            "batch_tokens": batch_tokens,
            **{name: metadata.version(name) for name in ("torch", "transformers")},
        }
        self._verdicts: BatchCache | None = None

    def encode(self, rows: Sequence[Row]) -> tuple[dict[str, Encoded], dict[str, str]]:
        """Token ids by row key, and issues by row id of rows that cannot be scored."""
        encoded: dict[str, Encoded] = {}
        issues: dict[str, str] = {}
        limit = self.model.context_length
        for row in rows:
            found = encoded.setdefault(row.key, self.model.encode(row))
            if not row.completion_text.strip() or found.targets < 1:
                issues[row.id] = "empty completion"
            elif found.length > limit:
                sizes = f"{len(found.prompt_ids)} tokens and {len(found.completion_ids)} of the completion"
                issues[row.id] = f"prompt too long: {sizes} in a context of {limit}"
        return encoded, issues

    def losses(
        self,
        rows: Sequence[Row],
        encoded: dict[str, Encoded],
        issues: dict[str, str],
        sketch: TensorSketch,
    ) -> dict[str, Record]:
        """NLL, mean hidden state and sketch by row key."""
        keys = _keys(row for row in rows if row.id not in issues)
        lengths = [encoded[key].length for key in keys]

        def compute(batch: list[str]) -> list[Record]:
            found = self.model.measure([encoded[key] for key in batch], sketch)
            if found.sketches is None:
                raise AssertionError
            columns = zip(found.nll.tolist(), found.embeddings, found.sketches, strict=True)
            return [{"nll": nll, "embedding": mean, "sketch": s} for nll, mean, s in columns]

        settings = {**self.setting, "sketch": [sketch.size, SKETCH_SEED]}
        return BatchCache(self.out, "losses", settings).run(
            [[keys[i] for i in batch] for batch in self.model.loss_batches(lengths, self.batch_tokens)],
            compute,
            self._reporter("score (tokens)", dict(zip(keys, lengths, strict=True))),
        )

    def samples(
        self,
        rows: Sequence[Row],
        issues: dict[str, str],
        sampling: Sampling,
    ) -> dict[str, Record]:
        """Samples and greedy completions by row id, shared by rows of one prompt; empty if not wanted."""
        if not sampling.samples:
            return {}
        prompts: dict[str, list[int]] = {}
        owners: dict[str, str] = {}
        for row in rows:
            ids = self.model.encode_prompt(row.prompt)
            if row.id not in issues and len(ids) < self.model.context_length:
                owners[row.id] = content_digest(ids)
                prompts[owners[row.id]] = ids
        keys = list(prompts)
        batches = self.model.generation_batches(
            list(prompts.values()), sampling.samples, sampling.max_tokens, self.batch_tokens
        )

        def compute(batch: list[str]) -> list[Record]:
            return sample_batch(self.model, [prompts[key] for key in batch], sampling, self.batch_tokens)

        found = BatchCache(self.out, "samples", {**self.setting, **asdict(sampling)}).run(
            [[keys[i] for i in batch] for batch in batches],
            compute,
            self._reporter("sample (prompts)", dict.fromkeys(keys, 1)),
        )
        return {id_: found[key] for id_, key in owners.items()}

    def verdicts(
        self,
        rows: Sequence[Row],
        texts: dict[str, _Texts],
        issues: dict[str, str],
        check: Verifier | None,
        name: str | None,
    ) -> dict[str, Record]:
        """Verdicts by row id."""
        by_key: dict[str, Row] = {}
        for row in rows:
            content = [row.key, row.columns, asdict(texts[row.id]), row.id in issues]
            by_key[content_digest([row.id, content])] = row
        keys = list(by_key)

        def compute(batch: list[str]) -> list[Record]:
            found = []
            for row in map(by_key.__getitem__, batch):
                text = texts[row.id]
                found.append(verify(check, row, text.samples, text.own, scored=row.id not in issues))
            return found

        digest = None if check is None else verifier_digest(check)
        self._verdicts = BatchCache(self.out, "verdicts", {"verifier": name, "source": digest})
        found = self._verdicts.run(
            [keys[i : i + _VERIFY_ROWS] for i in range(0, len(keys), _VERIFY_ROWS)],
            compute,
            self._reporter("verify (rows)", dict.fromkeys(keys, int(check is not None))),
        )
        return {by_key[key].id: record for key, record in found.items()}

    def forget_verdicts(self) -> None:
        """A finished run verifies anew when asked again: a verifier may change in ways unseen here."""
        if self._verdicts is not None:
            self._verdicts.remove()

    def manifest(self, rows: Sequence[Row], sampling: Sampling, sketch_size: int) -> dict[str, Any]:
        """The settings behind the scores."""
        plain = sum(isinstance(row.prompt, str) for row in rows)
        template = "chat" if plain == 0 else "none" if plain == len(rows) else "chat, none for plain strings"
        libraries = ("transformers", "tokenizers", "safetensors")
        return {
            "model": self.model.name,
            "model_digest": self.model.digest,
            "tokenizer_digest": self.model.tokenizer_digest,
            "chat_template_digest": self.model.template_digest,
            "template": template,
            "dtype": self.model.dtype,
            "device": self.model.device.type,
            "batch_tokens": self.batch_tokens,
            **asdict(sampling),
            "sketch": {"size": sketch_size, "seed": SKETCH_SEED},
            "versions": {**versions(), **{name: metadata.version(name) for name in libraries}},
        }

    def _reporter(self, name: str, sizes: dict[str, int]) -> Callable[[list[str]], None]:
        done, total = 0, sum(sizes.values())

        def report(keys: list[str]) -> None:
            nonlocal done
            done += sum(sizes[key] for key in keys)
            if total:
                self.progress(name, done, total)

        return report


def _keys(rows: Any) -> list[str]:
    """Keys of rows, each once, in order."""
    return list(dict.fromkeys(row.key for row in rows))


def _texts(
    rows: Sequence[Row], drawn: dict[str, Record], given: dict[str, list[str]] | None
) -> dict[str, _Texts]:
    """Completions by row id, from this run or from elsewhere."""
    if given is not None:
        return {row.id: _Texts(given[row.id]) for row in rows}
    none: Record = {"samples": [], "own": None, "confidence": None}
    return {row.id: _Texts(**drawn.get(row.id, none)) for row in rows}


def _measured(
    row: Row,
    encoded: Encoded,
    losses: dict[str, Record],
    texts: _Texts,
    verdict: Record,
    issues: dict[str, str],
) -> dict[str, Any]:
    """The columns MEASURED of a row."""
    issue = issues.get(row.id)
    found = {
        **verdict,
        "nll": losses[row.key]["nll"] if issue is None else None,
        "tokens": encoded.targets if row.completion_text.strip() else 0,
        "own_completion": texts.own,
        "own_confidence": texts.confidence,
        "issue": issue or verdict["issue"],
    }
    return {name: found[name] for name in MEASURED}


def _counts(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many rows, scored rows, and rows with each kind of issue."""
    issues = Counter(row["issue"].split(":")[0] for row in measured if row["issue"] is not None)
    return {
        "rows": len(measured),
        "scored": sum(row["nll"] is not None for row in measured),
        "issues": dict(sorted(issues.items())),
    }
