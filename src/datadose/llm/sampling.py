"""What a model answers by itself: K sampled completions of a row, the greedy one, and the pass rate."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from datadose.errors import reject
from datadose.llm.cache import Record
from datadose.llm.generation import Sampling, continuations
from datadose.llm.language_model import LanguageModel
from datadose.llm.pool import Row, Text, read_jsonl
from datadose.llm.verifiers import TIMEOUT, Verifier, is_unfinished, judge, judges_labels
from datadose.reading import check_file


@dataclass(frozen=True)
class Texts:
    """What a model said to a row: sampled completions, the greedy one, and its confidence."""

    samples: list[str]
    own: str | None = None
    confidence: float | None = None


def sample_batch(
    model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling, batch_tokens: int
) -> list[Record]:
    """Per prompt (token ids): ``samples`` texts, the greedy text ``own``, and its ``confidence``.

    Confidence is the geometric mean of the probabilities that the model gives the greedy tokens (with the end
    token, if it ends), in (0, 1].
    """
    return [
        {
            "samples": [model.decode(one.ids) for one in samples],
            "own": model.decode(own.ids),
            "confidence": math.exp(own.log_probability),
        }
        for *samples, own in continuations(model, prompts, sampling, batch_tokens)
    ]


def read_completions(path: Path, rows: Sequence[Row]) -> list[Texts]:
    """Completions made elsewhere, by row: JSONL of {"id" or "prompt", "completions": [text, ...]}.

    A prompt stands for all rows that have it. Raises InputError with the line: malformed JSON, another form,
    an id or prompt that the pool does not have, completions given twice; and for a row of the pool without
    (one with an issue needs none).
    """
    ids = {row.id for row in rows}
    prompts: dict[str, list[str]] = {}
    for row in rows:
        if row.issue is None:
            prompts.setdefault(_prompt_key(row.prompt), []).append(row.id)
    check_file("completions", path, "a JSONL file")
    found: dict[str, list[str]] = {}
    for line, entry in read_jsonl(path, "completions"):
        where = f"{path}, line {line}"
        texts = entry.get("completions")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            reject("completions", f"{where}: completions", "a list of at least one string")
        if entry.get("id") is not None:
            named = [str(entry["id"])]
            known = named[0] in ids
        elif entry.get("prompt") is not None:
            named = prompts.get(_prompt_key(entry["prompt"]), [])
            known = bool(named)
        else:
            reject("completions", f"{where}: no id and no prompt", "an id or a prompt of the pool")
        if not known:
            name = "id" if entry.get("id") is not None else "prompt"
            reject("completions", f"{where}: {name} {entry[name]}", f"the {name} of a row of the pool")
        for id_ in named:
            if id_ in found:
                reject("completions", f"{where}: row {id_} again", "one line for each row of the pool")
            found[id_] = texts
    missing = [row for row in rows if row.issue is None and row.id not in found]
    if missing:
        row = missing[0]
        what = f"{path} without row {row.id} of line {row.line} of the pool ({len(missing)} rows in all)"
        reject("completions", what, "completions for each row of the pool")
    return [Texts(found[row.id] if row.issue is None else []) for row in rows]


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
    nor as failed. ``issue`` is the first thing that the verifier did wrong. ``unfinished`` counts the samples
    that break off inside a thought: they have no answer and do not pass. ``label_passes`` is None for a row
    that was not ``scored``, and where the verifier would compare the label with itself.
    """
    columns = {**row.columns, "answer": row.answer}
    issues: list[str] = []

    def verdict(text: str) -> bool | None:
        if verifier is None:
            return None
        passes, issue = judge(verifier, text, columns, timeout=timeout)
        if issue is not None:
            issues.append(issue)
        return passes

    judged = verifier is not None and judges_labels(verifier, row.columns)
    verdicts = [passes for passes in map(verdict, samples) if passes is not None]
    differs = None if own is None else own.strip() != row.completion_text.strip()
    if own is not None and differs and verifier is not None:
        passes = verdict(own)
        differs = None if passes is None else not passes
    return {
        **pass_rate(sum(verdicts), len(verdicts), asked=bool(samples)),
        "unfinished": sum(map(is_unfinished, samples)) if samples else None,
        "label_passes": verdict(row.completion_text) if scored and judged else None,
        "own_differs": differs,
        "issue": issues[0] if issues else None,
    }


def pass_rate(passed: int, total: int, *, asked: bool = True) -> Record:
    """The pass rate's columns, with the Wilson interval at 95 percent.

    Rate and interval are None where no sample could be judged; the counts too if none was ``asked`` for.
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


def _prompt_key(prompt: Text | Any) -> str:
    return json.dumps(prompt, sort_keys=True)
