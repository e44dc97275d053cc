"""Scores of synthetic pools whose every row is known to be good or a contaminant: no model is run.

A row's sketch is tokens * (what it would teach) + noise. ``target`` rows point along e0, ``old`` rows along
e1, ``interfering`` ones (an old question in another format) along e0 - e1, ``wrong`` ones (a target's
question with a wrong label) along e0, weakly. NLL falls with length, rises with difficulty and is highest for
contaminants; the model is confident in its own answer where the row is a contaminant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datadose.llm.pass_rates import fit_pool, pool_signals
from datadose.llm.scores import MEASURED, TABLE, Scores, hash_question, write_scores

KINDS = ("target", "old", "wrong", "interfering")
SKETCH, HIDDEN = 64, 24
Z2 = 1.959963984540054**2


def question_hashes(rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """Hashes of the rows' prompts, as scores hold them."""
    return [hash_question(str(row["prompt"])) for row in rows]


@dataclass(frozen=True)
class Pool:
    """Rows with what was measured on them, and the truth: the kind of each."""

    rows: list[dict[str, Any]]
    kinds: np.ndarray
    difficulty: np.ndarray
    embeddings: np.ndarray
    sketches: np.ndarray

    @property
    def scores(self) -> Scores:
        """In memory, as selection sees them."""
        measured = {name: [row[name] for row in self.rows] for name in MEASURED if name in TABLE}
        hashes = question_hashes(self.rows)
        table = pd.DataFrame(
            {"id": [row["id"] for row in self.rows], "question_hash": hashes, **measured, "offset": 0}
        ).astype(TABLE)
        return Scores(table, self.embeddings, self.sketches, dict(MANIFEST))

    def saved(self, folder: Path) -> Scores:
        """In a folder, as ``score`` writes them."""
        ids, questions = [row["id"] for row in self.rows], question_hashes(self.rows)
        return write_scores(folder, self.rows, ids, questions, self.embeddings, self.sketches, dict(MANIFEST))


MANIFEST = {"model": "synthetic", "model_digest": "0", "chat_template_digest": None}


def wilson(passed: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """The 95 percent interval."""
    middle = (passed + Z2 / 2) / (total + Z2)
    half = np.sqrt(Z2 * (passed * (total - passed) / total + Z2 / 4)) / (total + Z2)
    return middle - half, middle + half


def make(
    rows: int,
    seed: int,
    shares: Sequence[float] = (1.0, 0.0, 0.0, 0.0),
    *,
    samples: int = 16,
    verified: bool = True,
    name: str = "pool",
) -> Pool:
    """A pool with the given ``shares`` of KINDS; ``name`` makes its questions differ from another's."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(KINDS, rows, p=shares)
    tokens = np.maximum(2, rng.lognormal(3.0, 0.7, rows)).astype(int)
    difficulty = rng.random(rows)
    bad = np.isin(kinds, ("wrong", "interfering"))
    nll = 0.4 + difficulty + 8 / tokens + 0.15 * rng.standard_normal(rows) ** 2 + 1.5 * bad
    teaches = np.zeros((rows, SKETCH))
    teaches[kinds == "target", 0] = teaches[kinds == "old", 1] = 1.0
    teaches[kinds == "wrong", 0] = 0.5
    teaches[kinds == "interfering", :2] = (1.0, -1.0)
    noise = rng.standard_normal((rows, SKETCH)) * 0.15
    sketches = (tokens * nll)[:, None] * (teaches + noise)
    embeddings = rng.standard_normal((rows, HIDDEN))
    embeddings[np.isin(kinds, ("target", "wrong")), 0] += 4
    passed = rng.binomial(max(1, samples), np.where(bad, 0.7, 1 - difficulty))
    judged = np.full(rows, max(1, samples))
    signal = pool_signals(fit_pool(np.arange(rows), passed, judged), passed, judged)
    low, high = wilson(passed, max(1, samples))
    confidence = np.where(bad, 0.9, 0.35 + 0.3 * rng.random(rows))
    differs = bad | (rng.random(rows) < difficulty)
    made = []
    for i, kind in enumerate(kinds):
        row = {"id": f"{name}-{i}", "prompt": f"{name} {kind} question {i}", "completion": f"answer {i}"}
        row |= {"answer": str(i), "nll": float(nll[i]), "tokens": int(tokens[i])}
        known = samples > 0
        row |= {
            "pass_rate": float(passed[i] / samples) if known else None,
            "pass_rate_total": samples if known else None,
            "pass_rate_passed": int(passed[i]) if known else None,
            "pass_rate_low": float(low[i]) if known else None,
            "pass_rate_high": float(high[i]) if known else None,
            "signal": float(signal[i]) if known else None,
            "truncated": 0 if known else None,
            "label_passes": bool(not bad[i]) if verified else None,
            "unfinished": 0 if known else None,
            "own_completion": f"own {i}" if known else None,
            "own_confidence": float(confidence[i]) if known else None,
            "own_differs": bool(differs[i]) if known else None,
            "issue": None,
        }
        made.append(row | {name: None for name in MEASURED if name not in row})
    return Pool(made, kinds, difficulty, embeddings.astype(np.float32), sketches.astype(np.float32))
