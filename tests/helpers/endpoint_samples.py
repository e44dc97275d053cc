"""A pool scored with samples from a server of the tests, and what became of each sample."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from datadose.llm.endpoint import Endpoint
from datadose.llm.language_model import LanguageModel
from datadose.llm.score import score
from datadose.llm.scores import SAMPLES, Scores
from helpers.scored_pool import SETTINGS


def sampled(
    scored: LanguageModel, pool: Path, out: Path, url: str, samples: int = 3, **changes: Any
) -> Scores:
    """Scores of ``pool`` with samples from ``url``."""
    config = replace(SETTINGS, samples=samples)
    return score(scored, pool, out, config=config, verifier="exact", endpoint=Endpoint(url, **changes))


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / SAMPLES).read_text().splitlines()]


def question(row: dict[str, Any]) -> str:
    return str(row["prompt"][-1]["content"])
