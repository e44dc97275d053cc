"""The stages of scoring, each kept batch by batch: losses, samples, verdicts.

What grows with the rows' texts, tokens and vectors lies on the disk (:mod:`datadose.llm.scratch`); memory
holds a few numbers and the keys of each row.
"""

from __future__ import annotations

import contextlib
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datadose.errors import InputError
from datadose.llm.adaptive import AdaptiveRule, more_samples
from datadose.llm.cache import BatchCache, Record, content_digest
from datadose.llm.chat import Encoded
from datadose.llm.endpoint import Endpoint, EndpointEngine, ask
from datadose.llm.engines import Engine, ModelEngine
from datadose.llm.language_model import LanguageModel
from datadose.llm.left_out import unread_columns
from datadose.llm.measured import each_answer
from datadose.llm.pool import Pool, Row, is_blank
from datadose.llm.sample_store import SampleStore
from datadose.llm.sampling import Samples, Tally, Texts, verify
from datadose.llm.score_config import ScoreConfig
from datadose.llm.scores import EMBEDDING, hash_question
from datadose.llm.scratch import RecordFile, TokenFile, VectorFile
from datadose.llm.shards import ModelSource, measure_batches
from datadose.llm.sketch import SKETCH_SEED
from datadose.llm.verifiers import Verifier, threaded
from datadose.printing import note
from datadose.progress import Report
from datadose.workers import Workers

_VERIFY_ROWS = 64
"""Rows whose verdicts are kept together."""


class Rows:
    """What one pass over every row of a pool shows, in a few numbers each."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.questions = array("q")
        """Hashes."""
        self.issues: list[str | None] = []
        """Why a row could not be measured, noted stage by stage."""
        self.answers = array("I")
        """How many completions each has."""
        self.starts = array("Q", [0])
        """Where each row's completions begin among those of all rows; a row without any has one place."""
        self.unread: Counter[str] = Counter()
        """Columns that trainers do not read, with the number of rows."""
        self.forms: Counter[bool] = Counter()
        """How many prompts of well-formed rows are strings, and how many messages."""

    def add(self, row: Row) -> None:
        """Note the next row."""
        self.ids.append(row.id)
        self.questions.append(hash_question(row.question))
        self.issues.append(row.issue)
        self.answers.append(len(row.completions))
        self.starts.append(self.starts[-1] + max(1, len(row.completions)))
        self.unread.update(unread_columns(row))
        if row.issue is None:
            self.forms[isinstance(row.prompt, str)] += 1


@dataclass(frozen=True)
class KeptLosses:
    """What forward passes found for the completions of all rows, U in all."""

    nll: NDArray[np.float64]
    """(U,), mean nats per scored token, NaN where nothing was measured."""
    alone: NDArray[np.float64]
    """(U,), the same without the prompts; NaN throughout where that is not requested."""
    embeddings: VectorFile
    """(U, H)."""
    sketches: VectorFile
    """(U, D)."""


class Stages:
    """The stages of scoring one pool, as a context: it closes its files at the end."""

    def __init__(
        self,
        model: LanguageModel,
        rows: Pool,
        out: Path,
        config: ScoreConfig,
        workers: Workers,
        progress: Report,
    ) -> None:
        self.model, self.rows, self.out, self.config = model, rows, out, config
        self.workers, self.progress = workers, progress
        self.seen = Rows()
        self.issues = self.seen.issues
        self.passed, self.judged = np.zeros((2, len(rows)))
        """Of the samples of each row."""
        self._folder, self._files = out / ".cache", contextlib.ExitStack()
        self._tokens = self._files.enter_context(TokenFile(self._folder))
        self._owners = array("q")
        """By place among the completions of all rows, the number of its tokens; -1 if it is not scored."""
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

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def encode(self) -> None:
        """Look at each row and keep its token ids; notes the rows that cannot be scored."""
        issues, troubles = self.issues, dict[int, str | None]()
        for place, row in enumerate(self.rows):
            self.seen.add(row)
            self._owners.extend([-1] * (self.seen.starts[-1] - len(self._owners)))
            if issues[place] is not None:
                continue
            try:
                found = [self._encode(one, troubles) for one in each_answer(row)]
            except InputError as error:
                if error.field != "messages":
                    raise
                issues[place] = f"messages: the chat template refuses them; allowed: {error.allowed}"
                continue
            reasons = [issue for _, issue in found]
            issues[place] = None if None in reasons else reasons[0]
            for unit, (number, issue) in enumerate(found, start=self.seen.starts[place]):
                if issue is None and number is not None:
                    self._owners[unit] = number

    def _encode(self, row: Row, troubles: dict[int, str | None]) -> tuple[int | None, str | None]:
        """Number of the tokens of a row with one completion (None without); why it cannot be measured."""
        if not row.has_completion:
            size, limit = len(self.model.prompt_ids(row)), self.model.context_length
            long = f"prompt too long: {size} tokens in a context of {limit}"
            return None, long if size >= limit else None
        key = row.key
        number = self._tokens.numbers.get(key)
        if number is None:
            found = self.model.encode(row)
            targets = 0 if is_blank(row.completion) else found.targets
            number = self._tokens.add(key, found, targets)
            if (trouble := self._trouble(found, targets)) is not None:
                troubles[number] = trouble
        return number, troubles.get(number)

    def _trouble(self, found: Encoded, targets: int) -> str | None:
        """Why a row with one completion cannot be scored, None if it can."""
        if found.issue is not None:
            return found.issue
        if not targets:
            return "empty completion"
        if found.length > (limit := self.model.context_length):
            sizes = f"{found.start} tokens and {found.length - found.start} of the completion"
            return f"prompt too long: {sizes} in a context of {limit}"
        return None

    def token_counts(self, row: Row) -> tuple[int, int] | None:
        """How many tokens a row with one completion has before the first scored one, and how many are scored.

        None if it could not be encoded.
        """
        number = self._tokens.numbers.get(row.key)
        return None if number is None else (self._tokens.starts[number], self._tokens.targets[number])

    def losses(self, source: ModelSource) -> KeptLosses:
        """What forward passes find for each completion; notes the rows without a finite loss."""
        owners, numbers = np.array(self._owners, dtype=np.int64), self._tokens.numbers
        order = np.argsort(owners, kind="stable")
        bounds = np.searchsorted(owners[order], np.arange(len(numbers) + 1))
        lengths = {
            key: self._tokens.lengths[number]
            for key, number in numbers.items()
            if bounds[number] < bounds[number + 1]
        }
        losses, size = self._no_losses(len(owners)), self.config.sketch_size

        def places(key: str) -> NDArray[np.int64]:
            return order[bounds[numbers[key]] : bounds[numbers[key] + 1]]

        def keep(key: str, record: Record) -> None:
            if math.isfinite(record["nll"]):
                at = places(key)
                losses.nll[at] = record["nll"]
                losses.embeddings.put(at, record["embedding"])
                losses.sketches.put(at, record["sketch"])

        def keep_alone(key: str, record: Record) -> None:
            if math.isfinite(record["nll"]):
                losses.alone[places(key)] = record["nll"]

        setting = {"sketch": [size, SKETCH_SEED], "embedding": EMBEDDING}
        self._forward(source, "losses", setting, size, lengths, self._tokens.__getitem__, keep)
        if self.config.alone:
            lengths = {key: self._tokens.targets[numbers[key]] + 1 for key in lengths}
            self._forward(source, "alone", {}, 0, lengths, self._completion, keep_alone)
        self._note_without_loss(losses)
        return losses

    def _completion(self, number: int) -> Encoded:
        return self.model.without_prompt(self._tokens[number])

    def _forward(
        self,
        source: ModelSource,
        stage: str,
        setting: dict[str, Any],
        sketch_size: int,
        lengths: dict[str, int],
        row: Callable[[int], Encoded],
        keep: Callable[[str, Record], None],
    ) -> None:
        """Forward passes over what ``row`` gives for each key of ``lengths``, its number of tokens."""
        keys, numbers = list(lengths), self._tokens.numbers

        def compute(batches: Sequence[list[str]]) -> Iterator[tuple[int, list[Record]]]:
            wanted = [[numbers[key] for key in batch] for batch in batches]
            return measure_batches(self.model, source, wanted, row, sketch_size, self.workers)

        batches = self.model.loss_batches(list(lengths.values()), self.config.batch_tokens)
        BatchCache(self.out, stage, {**self.setting, "batch_threads": 1, **setting}).run(
            [[keys[i] for i in batch] for batch in batches],
            compute,
            keep,
            self._reporter("score (tokens)" if stage == "losses" else "without prompts (tokens)", lengths),
        )

    def _no_losses(self, places: int) -> KeptLosses:
        """Nothing measured yet."""
        sizes = (self.model.hidden_size, self.config.sketch_size)
        files = [self._files.enter_context(VectorFile(self._folder, places, size)) for size in sizes]
        return KeptLosses(np.full(places, np.nan), np.full(places, np.nan), *files)

    def _note_without_loss(self, losses: KeptLosses) -> None:
        starts = np.array(self.seen.starts, dtype=np.int64)
        known = np.logical_or.reduceat(np.isfinite(losses.nll), starts[:-1])
        for place in np.flatnonzero((np.array(self.seen.answers) > 0) & ~known).tolist():
            self.issues[place] = self.issues[place] or "non-finite loss"

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
        self._files.callback(found.store.close)
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

    def verdicts(
        self, texts: Sequence[Texts], check: Verifier | None, kept: BatchCache, tally: Tally
    ) -> RecordFile:
        """Verdicts by row; on a bad row there are none. The texts of all others are counted in ``tally``."""
        by_key: dict[str, int] = {}
        for place, (row, said) in enumerate(zip(self.rows, texts, strict=True)):
            if row.issue is None:
                tally.add(said)
            content = [row.key, row.columns, asdict(said), self.issues[place] is not None]
            by_key[content_digest([row.id, row.place, content])] = place
        keys = list(by_key)
        verdicts = self._files.enter_context(RecordFile(self._folder, len(self.rows)))

        def one(key: str) -> Record:
            return self._verify(check, by_key[key], texts[by_key[key]])

        def compute(batches: Sequence[list[str]]) -> Iterator[tuple[int, list[Record]]]:
            for place, batch in enumerate(batches):
                yield place, threaded(one, batch, self.config.verifier_processes)

        def keep(key: str, record: Record) -> None:
            place = by_key[key]
            self.passed[place] = record["pass_rate_passed"] or 0
            self.judged[place] = record["pass_rate_total"] or 0
            verdicts.add(place, record)

        kept.run(
            [keys[i : i + _VERIFY_ROWS] for i in range(0, len(keys), _VERIFY_ROWS)],
            compute,
            keep,
            self._reporter("verify (rows)", dict.fromkeys(keys, int(check is not None))),
        )
        return verdicts

    def _verify(self, check: Verifier | None, place: int, texts: Texts) -> Record:
        """Verdicts on the row at ``place``."""
        row, scored = self.rows[place], self.issues[place] is None
        judge, timeout = check if row.issue is None else None, self.config.verifier_timeout
        return verify(judge, row, texts.samples, texts.own, scored=scored, timeout=timeout)

    def each_row(self, losses: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
        """By row, the ``losses`` (U,) of its completions."""
        return (losses[first:end] for first, end in pairwise(self.seen.starts))

    def _reporter(self, name: str, sizes: dict[str, int]) -> Callable[[list[str]], None]:
        done, total = 0, sum(sizes.values())

        def report(keys: list[str]) -> None:
            nonlocal done
            done += sum(sizes[key] for key in keys)
            if total:
                self.progress(name, done, total)

        return report
