"""The stages of scoring, each kept batch by batch: losses, samples, verdicts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np

from datadose.errors import InputError
from datadose.llm.adaptive import AdaptiveRule, more_samples
from datadose.llm.cache import BatchCache, Record, content_digest
from datadose.llm.chat import Encoded
from datadose.llm.endpoint import Endpoint, EndpointEngine, ask
from datadose.llm.engines import Engine, ModelEngine
from datadose.llm.language_model import LanguageModel, Losses
from datadose.llm.measured import each_answer, targets
from datadose.llm.pool import Pool, Row
from datadose.llm.sample_store import SampleStore
from datadose.llm.sampling import Samples, Texts, verify
from datadose.llm.score_config import ScoreConfig
from datadose.llm.sketch import SKETCH_SEED, TensorSketch
from datadose.llm.verifiers import Verifier, threaded
from datadose.printing import note
from datadose.progress import Report

_VERIFY_ROWS = 64
"""Rows whose verdicts are kept together."""


class Stages:
    """The stages of scoring one pool: what has been measured, and why a row could not be."""

    def __init__(
        self, model: LanguageModel, rows: Pool, out: Path, config: ScoreConfig, progress: Report
    ) -> None:
        self.model, self.rows, self.out, self.config, self.progress = model, rows, out, config, progress
        self.issues: list[str | None] = []
        """Why a row could not be measured, noted stage by stage."""
        answers = []
        for row in rows:
            self.issues.append(row.issue)
            answers.append(len(row.completions))
        self.answers = np.array(answers, dtype=np.int64)
        """How many completions each row has."""
        self.starts = np.append(0, np.cumsum(np.maximum(self.answers, 1)))
        """Where each row's completions begin among those of all rows; a row without any has one place."""
        self.places: dict[str, list[int]] = defaultdict(list)
        """By key of a row with one completion, its places among all: those that can be scored."""
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
                found = [self._encode(one, tokens) for one in each_answer(row)]
            except InputError as error:
                if error.field != "messages":
                    raise
                self.issues[place] = f"messages: the chat template refuses them; allowed: {error.allowed}"
                continue
            issues = [issue for _, issue in found]
            self.issues[place] = None if None in issues else issues[0]
            for unit, (key, issue) in enumerate(found, start=int(self.starts[place])):
                if key is not None and issue is None:
                    self.places[key].append(unit)
        return tokens

    def _encode(self, row: Row, tokens: dict[str, Encoded]) -> tuple[str | None, str | None]:
        """Key of a row with one completion (None without), now in ``tokens``; why it cannot be measured."""
        if not row.has_completion:
            size, limit = len(self.model.prompt_ids(row)), self.model.context_length
            long = f"prompt too long: {size} tokens in a context of {limit}"
            return None, long if size >= limit else None
        key = row.key
        tokens[key] = tokens.get(key) or self.model.encode(row)
        return key, self._trouble(row, tokens[key])

    def _trouble(self, row: Row, found: Encoded) -> str | None:
        """Why a row with one completion cannot be scored, None if it can."""
        if found.issue is not None:
            return found.issue
        if not targets(row, found):
            return "empty completion"
        if found.length > (limit := self.model.context_length):
            sizes = f"{found.start} tokens and {found.length - found.start} of the completion"
            return f"prompt too long: {sizes} in a context of {limit}"
        return None

    def losses(self, tokens: dict[str, Encoded]) -> Losses:
        """NLL, mean hidden state and sketch of each completion; notes the rows without a finite loss."""
        keys = list(self.places)
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
                at = self.places[key]
                losses.nll[at] = record["nll"]
                losses.embeddings[at], losses.sketches[at] = record["embedding"], record["sketch"]

        batches = self.model.loss_batches(lengths, self.config.batch_tokens)
        BatchCache(self.out, "losses", {**self.setting, "sketch": [sketch.size, SKETCH_SEED]}).run(
            [[keys[i] for i in batch] for batch in batches],
            compute,
            keep,
            self._reporter("score (tokens)", dict(zip(keys, lengths, strict=True))),
        )
        known = np.logical_or.reduceat(np.isfinite(losses.nll), self.starts[:-1])
        for place in np.flatnonzero((self.answers > 0) & ~known).tolist():
            self.issues[place] = self.issues[place] or "non-finite loss"
        return losses

    def sampler(self, endpoint: Endpoint | None) -> Samples:
        """The samples of all rows that can be measured, as far as they are kept; none is drawn yet.

        InputError for a server that is needed and not there.
        """
        engine: Engine = (
            ModelEngine(self.model, self.config, self.config.batch_tokens, self.setting)
            if endpoint is None
            else EndpointEngine(endpoint, self.model, self.config)
        )
        usable = [issue is None for issue in self.issues]
        found = Samples(
            engine, self.model, self.rows, usable, SampleStore(self.out, engine.settings), self.progress
        )
        if endpoint is not None and found.requests(self._wanted()):
            ask(endpoint)
        return found

    def _wanted(self) -> list[int]:
        return [self.config.samples if issue is None else 0 for issue in self.issues]

    def draw(self, samples: Samples, check: Verifier | None) -> None:
        """Draw what is missing of the samples of each row that was measured."""
        if self.config.adaptive:
            self._draw_in_rounds(samples, check)
        else:
            samples.draw(self._wanted())

    def _draw_in_rounds(self, samples: Samples, check: Verifier | None) -> None:
        """Draw samples of each distinct prompt until its place in the RL set is decided."""
        places, rule = np.array(samples.places, dtype=np.int64), AdaptiveRule(samples=self.config.samples)
        drawn, passed, judged = np.zeros((3, len(places)), dtype=np.int64)
        wanted = np.zeros(len(self.rows), dtype=np.int64)

        def count(place: int) -> tuple[int, int]:
            found = self._verify(check, place, Texts(samples[place].samples))
            return found["pass_rate_passed"] or 0, found["pass_rate_total"] or 0

        while len(places) and (more := more_samples(drawn, passed, judged, rule)).any():
            drawn = drawn + more
            wanted[places] = drawn
            samples.draw(wanted.tolist())
            now = np.flatnonzero(more)
            counts = threaded(count, places[now].tolist(), self.config.verifier_processes)
            passed[now], judged[now] = np.array(counts, dtype=np.int64).T
        note(f"adaptive: {drawn.sum()} of {len(places) * rule.samples} samples were enough")

    def verdicts(self, texts: Sequence[Texts], check: Verifier | None, kept: BatchCache) -> list[Record]:
        """Verdicts by row; on a bad row there are none."""
        by_key: dict[str, int] = {}
        for place, row in enumerate(self.rows):
            content = [row.key, row.columns, asdict(texts[place]), self.issues[place] is not None]
            by_key[content_digest([row.id, row.line, content])] = place
        keys = list(by_key)

        def one(key: str) -> Record:
            return self._verify(check, by_key[key], texts[by_key[key]])

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

    def _verify(self, check: Verifier | None, place: int, texts: Texts) -> Record:
        """Verdicts on the row at ``place``."""
        row, scored = self.rows[place], self.issues[place] is None
        judge, timeout = check if row.issue is None else None, self.config.verifier_timeout
        return verify(judge, row, texts.samples, texts.own, scored=scored, timeout=timeout)

    def _reporter(self, name: str, sizes: dict[str, int]) -> Callable[[list[str]], None]:
        done, total = 0, sum(sizes.values())

        def report(keys: list[str]) -> None:
            nonlocal done
            done += sum(sizes[key] for key in keys)
            if total:
                self.progress(name, done, total)

        return report
