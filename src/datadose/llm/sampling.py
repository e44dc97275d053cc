"""What a model answers by itself: K sampled completions of a row, the greedy one, and the pass rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from scipy.stats import binomtest

from datadose.errors import reject
from datadose.llm.cache import Record
from datadose.llm.engines import Engine, Request, confidences
from datadose.llm.language_model import LanguageModel
from datadose.llm.pool import Row, text_of
from datadose.llm.sample_store import OWN, Drawn, SampleStore
from datadose.llm.spoiled import spoiled_samples
from datadose.llm.verifiers import TIMEOUT, Verifier, is_unfinished, judge, judges_labels
from datadose.printing import note
from datadose.progress import Report

_TOGETHER = 64
"""Greedy completions of a server whose confidence is measured between two reads of the disk."""

_ENOUGH = 5
"""Prompts whose samples must all be equal before that is taken for a server without randomness."""


@dataclass(frozen=True)
class Texts:
    """A model's texts for a row: sampled completions, the greedy one, and its confidence."""

    samples: list[str]
    own: str | None = None
    confidence: float | None = None
    finish: list[str | None] = field(default_factory=list)
    """The end of each sample: ``stop``, ``length`` for one cut by the limit of tokens, None if unknown."""
    missing: int = 0
    """Samples that were requested and could not be drawn."""
    reason: str | None = None
    """Why the first of these could not."""

    @property
    def truncated(self) -> int | None:
        """The number of samples cut by the limit of tokens; None without samples or where it is unknown."""
        if not self.samples or None in self.finish or len(self.finish) != len(self.samples):
            return None
        return self.finish.count("length")

    @property
    def issue(self) -> str | None:
        """The issue of a row without all its samples; None if it has all."""
        if not self.missing:
            return None
        return f"samples missing: {self.missing} of {self.missing + len(self.samples)}: {self.reason}"


class Samples(Sequence[Texts]):
    """The texts of every row: drawn by an engine, kept in ``store``, and read from it row by row.

    Rows of one prompt share them. ``draw`` may be called again for more samples of some rows, on the ground
    of what was read in between.
    """

    def __init__(
        self,
        engine: Engine,
        model: LanguageModel,
        rows: Sequence[Row],
        usable: Sequence[bool],
        store: SampleStore,
        report: Report,
    ) -> None:
        self.engine, self.model, self.rows, self.store, self.report = engine, model, rows, store, report
        self._keys: list[str | None] = [None] * len(rows)
        self._first: dict[str, tuple[int, int]] = {}
        """Of each prompt a row's place, and the prompt's length."""
        self._wanted: dict[str, int] = {}
        self._reasons: dict[str, dict[int, str]] = {}
        for place, row in enumerate(rows):
            if usable[place] and (found := engine.key(row)) is not None:
                self._keys[place] = found[0]
                self._first.setdefault(found[0], (place, found[1]))

    @property
    def places(self) -> list[int]:
        """The places of the first rows of all distinct prompts."""
        return [place for place, _ in self._first.values()]

    def requests(self, wanted: Sequence[int]) -> list[Request]:
        """The ``wanted`` samples of each row that are not in the store (0: none, and no greedy one either).

        Samples have indices 0, 1, ..., so that a larger number adds to what is there.
        """
        found = []
        for key, count in self._by_prompt(wanted).items():
            place, tokens = self._first[key]
            if indices := self.store.missing(key, (*range(count), OWN)):
                found.append(Request(key, tokens, place, indices))
        return found

    def _by_prompt(self, wanted: Sequence[int]) -> dict[str, int]:
        most: dict[str, int] = {}
        for key, count in zip(self._keys, wanted, strict=True):
            if key is not None and count:
                most[key] = max(most.get(key, 0), count)
        return most

    def draw(self, wanted: Sequence[int]) -> None:
        """Draw what :meth:`requests` finds missing; each prompt's are in the store as soon as it has them."""
        requests = self.requests(wanted)
        self._wanted.update(self._by_prompt(wanted))
        total = len(self._wanted)
        open_ = {one.key: set(one.indices) for one in requests}
        done = total - len(open_)
        if total:
            self.report("sample (prompts)", done, total)

        def keep(found: Mapping[str, Sequence[Drawn]]) -> None:
            nonlocal done
            self.store.add(found)
            for key, drawn in found.items():
                for one in drawn:
                    if one.text is None:
                        self._reasons.setdefault(key, {})[one.index] = one.finish
                left = open_.get(key, set())
                left.difference_update(one.index for one in drawn)
                if not left and open_.pop(key, None) is not None:
                    done += 1
                    self.report("sample (prompts)", done, total)

        if requests:
            self.engine.draw(requests, self.rows, keep)
            self._refuse_nothing()
        self._measure_confidence()

    def _refuse_nothing(self) -> None:
        if all(self.store.missing(key, [0]) for key in self._wanted):
            reasons = next(iter(self._reasons.values()), {})
            why = f" ({next(iter(reasons.values()))})" if reasons else ""
            reject("samples", f"none for all {len(self._wanted)} prompts", f"an engine that gives some{why}")

    def _measure_confidence(self) -> None:
        """Add the confidence to greedy completions that came without."""
        # Parts are of all keys, and kept whole: a run that was stopped goes on with the same batches.
        keys = list(self._wanted)
        for start in range(0, len(keys), _TOGETHER):
            part = [key for key in keys[start : start + _TOGETHER] if self.store.unsure(key)]
            if not part:
                continue
            sure: dict[str, list[Drawn]] = {}
            own = [self.store.get(key)[OWN] for key in part]
            prompts = [self.model.prompt_ids(self.rows[self._first[key][0]]) for key in part]
            lengths = [len(ids) + len(one.text or "") for ids, one in zip(prompts, own, strict=True)]
            for batch in self.model.loss_batches(lengths, max(lengths)):
                found = confidences(self.model, [prompts[i] for i in batch], [own[i] for i in batch])
                for i, confidence in zip(batch, found, strict=True):
                    if confidence is not None:
                        sure[part[i]] = [replace(own[i], confidence=confidence)]
            self.store.add(sure)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        key = self._keys[place]
        if key is None or key not in self._wanted:
            return Texts([])
        drawn = self.store.get(key)
        there = [drawn[index] for index in range(self._wanted[key]) if index in drawn]
        reasons = self._reasons.get(key, {})
        own = drawn.get(OWN)
        return Texts(
            samples=[one.text or "" for one in there],
            own=None if own is None else own.text,
            confidence=None if own is None else own.confidence,
            finish=[one.finish for one in there],
            missing=self._wanted[key] - len(there),
            reason=reasons[min(reasons)] if reasons else None,
        )

    def __iter__(self) -> Iterator[Texts]:
        return map(self.__getitem__, range(len(self)))


class Tally:
    """Counts over the texts of all rows, for the manifest and the warnings."""

    def __init__(self, engine: str | None) -> None:
        self.engine = engine
        self.samples = self.truncated = self.truncated_rows = self.missing = self.missing_rows = 0
        self.without = 0
        self.reasons: Counter[str] = Counter()
        self._repeated = self._varied = 0

    def add(self, texts: Texts) -> None:
        """Count the texts of one row."""
        self.samples += len(texts.samples)
        self.without += not texts.samples
        self.truncated += texts.truncated or 0
        self.truncated_rows += bool(texts.truncated)
        if texts.missing:
            self.missing += texts.missing
            self.missing_rows += 1
            self.reasons[str(texts.reason)] += texts.missing
        if len(texts.samples) > 1:
            self._varied += len(set(texts.samples)) > 1
            self._repeated += len(set(texts.samples)) == 1

    def record(self) -> dict[str, Any]:
        """The counts, as the manifest holds them."""
        return {
            "engine": self.engine,
            "samples": self.samples,
            "truncated": self.truncated,
            "truncated_rows": self.truncated_rows,
            "missing": self.missing,
            "missing_rows": self.missing_rows,
            "reasons": dict(self.reasons.most_common(10)),
            "rows_without": self.without,
        }

    def warn(self, max_tokens: int, temperature: float) -> None:
        """Print what spoils pass rates, and what to do about it."""
        for one in spoiled_samples(self.record(), max_tokens):
            note(one.text)
        if self.engine == "endpoint" and temperature > 0 and self._repeated >= _ENOUGH and not self._varied:
            note(
                "the samples of every prompt are all equal: the server does not sample at the temperature "
                f"{temperature:g} that it is given (see docs/llm_sampling.md)"
            )


def sample_lines(
    ids: Iterable[str], texts: Sequence[Texts], verdicts: Sequence[Record]
) -> Iterator[dict[str, Any]]:
    """The lines of ``samples.jsonl``: the samples of each row that has any, and which of them ``passed``."""
    for id_, text, verdict in zip(ids, texts, verdicts, strict=True):
        if text.samples:
            yield {
                "id": id_,
                "completions": text.samples,
                "finish": text.finish,
                "passed": verdict["passed"],
            }


def verify(
    verifier: Verifier | None,
    row: Row,
    samples: Sequence[str],
    own: str | None,
    *,
    scored: bool = True,
    timeout: float = TIMEOUT,
) -> Record:
    """Verdicts on a row: its pass rate over ``samples``, its own label, and its greedy completion ``own``.

    A sample on which the verifier itself fails, within ``timeout`` seconds or not, counts neither as passed
    nor as failed; ``passed`` has the verdict on each (None for such a one). ``issue`` is the first thing that
    the verifier did wrong. ``unfinished`` counts the samples that break off inside a thought: they have no
    answer and do not pass. ``label_passes`` has a verdict for each of the row's completions: None for a row
    that was not ``scored``, and where the verifier would compare the label with itself or with an answer that
    was taken from it.
    """
    columns = {**row.columns, "answer": row.answer}
    issues: list[str] = []

    labels = [text_of(one) for one in row.completions]
    compares = verifier is not None and not judges_labels(verifier, answered=False)
    nothing = compares and not labels and row.columns.get("answer") is None

    def verdict(text: str) -> bool | None:
        if verifier is None:
            return None
        if nothing:
            issues.append("no answer: the row has none to compare with")
            return None
        passes, issue = judge(verifier, text, columns, timeout=timeout)
        if issue is not None:
            issues.append(issue)
        return passes

    answered = row.columns.get("answer") is not None and not row.answer_derived
    judged = scored and verifier is not None and judges_labels(verifier, answered=answered)
    passed = [verdict(text) for text in samples]
    verdicts = [passes for passes in passed if passes is not None]
    # Without a label only a verifier can decide.
    differs = None if own is None else own.strip() not in {label.strip() for label in labels}
    if own is not None and verifier is None and not labels:
        differs = None
    if own is not None and differs and verifier is not None:
        passes = verdict(own)
        differs = None if passes is None else not passes
    return {
        **pass_rate(sum(verdicts), len(verdicts), asked=bool(samples)),
        "unfinished": sum(map(is_unfinished, samples)) if samples else None,
        "label_passes": [verdict(label) if judged else None for label in labels],
        "own_differs": differs,
        "issue": issues[0] if issues else None,
        "passed": passed,
    }


def pass_rate(passed: int, total: int, *, asked: bool = True) -> Record:
    """The columns of the pass rate of a row, with the Wilson interval at 95 percent.

    ``passed`` of ``total`` judged samples passed. Rate and interval are None where no sample could be judged;
    the counts are None too if no samples were requested (``asked`` False).
    """
    low, high = wilson(passed, total) if total else (None, None)
    return {
        "pass_rate": passed / total if total else None,
        "pass_rate_total": total if asked else None,
        "pass_rate_passed": passed if asked else None,
        "pass_rate_low": low,
        "pass_rate_high": high,
    }


@cache
def wilson(passed: int, total: int) -> tuple[float, float]:
    """Wilson's score interval at 95 percent for a rate of ``passed`` in ``total`` >= 1 (scipy)."""
    interval = binomtest(passed, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
