"""What scoring adds to a row, put together: of several answers, one represents the row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datadose.llm.cache import Record
from datadose.llm.pool import Row
from datadose.llm.sampling import Texts
from datadose.llm.scores import MEASURED


def each_answer(row: Row) -> list[Row]:
    """The row with each of its completions alone; itself, if it has one or none."""
    if len(row.completions) < 2:
        return [row]
    return [row.with_completion(index) for index in range(len(row.completions))]


def best_answers(
    starts: NDArray[np.int64], nll: NDArray[np.float64], verdicts: Sequence[Record]
) -> NDArray[np.int64]:
    """The number (from 0), by row, of the completion that represents the row.

    Among those with a loss it is, of those that pass, the one with the lowest loss; the first if none passes.

    Args:
        starts: where each row's completions begin in ``nll``, and its end; shape (rows + 1,).
        nll: of each completion, NaN where it has none.
        verdicts: by row, as :func:`~datadose.llm.sampling.verify` returns them.
    """
    best = np.zeros(len(verdicts), dtype=np.int64)
    for place in np.flatnonzero(np.diff(starts) > 1).tolist():
        losses = nll[starts[place] : starts[place + 1]].tolist()
        scored = [number for number, loss in enumerate(losses) if math.isfinite(loss)]
        passing = [number for number in scored if verdicts[place]["label_passes"][number]]
        best[place] = min(passing, key=losses.__getitem__, default=scored[0] if scored else 0)
    return best


def measured(
    row: Row,
    tokens: Callable[[Row], tuple[int, int] | None],
    nll: NDArray[np.float64],
    alone: NDArray[np.float64],
    best: int,
    texts: Texts,
    verdict: Record,
    signal: float,
    issue: str | None,
) -> dict[str, Any]:
    """The columns MEASURED of a row.

    Args:
        row: as it was read.
        tokens: how many tokens a row with one completion has before the first scored one, and how many are
            scored; None if it could not be encoded.
        nll: of its completions (one NaN for a row without any).
        alone: the same without the prompt.
        best: which of them represents the row.
        texts: the model's own texts.
        verdict: the verifier's.
        signal: E p (1 - p) of its pass rate, NaN without one.
        issue: why the row could not be measured.
    """
    labels, several = verdict["label_passes"], len(row.completions) > 1
    scored = [loss if issue is None and math.isfinite(loss) else None for loss in nll.tolist()]
    one = row.with_completion(best) if several else row
    counts = tokens(one) if row.has_completion else None
    before, size = counts or (None, None)
    found = {
        **verdict,
        "label_passes": labels[best] if labels else None,
        "best_completion": best if several else None,
        "completion_nlls": scored if several else None,
        "nll": scored[best],
        "nll_alone": float(alone[best]) if math.isfinite(alone[best]) else None,
        "tokens": size,
        "prompt_tokens": before,
        "own_completion": texts.own,
        "own_confidence": texts.confidence,
        "truncated": texts.truncated,
        "signal": signal if math.isfinite(signal) else None,
        "issue": issue,
        "incomplete": texts.issue or verdict["issue"],
    }
    # A row with a pass rate keeps its place: it is that of the samples that could be had and judged.
    if not found["pass_rate_total"]:
        found["issue"] = found["issue"] or found["incomplete"]
    if found["issue"] is not None:
        found["incomplete"] = None
    return {name: found[name] for name in MEASURED}
