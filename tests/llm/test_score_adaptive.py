"""`score --adaptive`: the samples of the uniform scheme, as many of them as the rule asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.llm import engines
from datadose.llm.adaptive import AdaptiveRule, more_samples
from datadose.llm.language_model import LanguageModel
from datadose.llm.score import score
from datadose.llm.score_config import ScoreConfig
from helpers.scored_pool import KilledError, Write, bytes_of, killed_after

K = 12
UNIFORM = ScoreConfig(samples=K, max_tokens=5, batch_tokens=400)
ADAPTIVE = replace(UNIFORM, adaptive=True)
VERIFIER = f"{__name__}:moody"


def moody(completion: str, columns: Mapping[str, Any]) -> float:
    """Passes always, never, or as the number of characters is even, by the row's kind."""
    kind = columns["kind"]
    return float(kind == "easy" or (kind == "mixed" and len(completion) % 2 == 0))


def rows() -> list[dict[str, Any]]:
    kinds = ["easy"] * 8 + ["hard"] * 8 + ["mixed"] * 4
    found = [
        {"prompt": f"{i} and {i} is", "completion": f" {i}", "answer": str(i), "kind": kind}
        for i, kind in enumerate(kinds)
    ]
    # A second row of one prompt shares its samples.
    return [*found, {**found[0], "completion": " other"}]


def samples_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_a_prompt_gets_the_first_samples_as_many_as_the_rule_asks_for(
    model: LanguageModel, write_rows: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = write_rows(rows())
    score(model, pool, tmp_path / "uniform", config=UNIFORM, verifier=VERIFIER)
    scores = score(model, pool, tmp_path / "adaptive", config=ADAPTIVE, verifier=VERIFIER)
    uniform, adaptive = samples_of(tmp_path / "uniform"), samples_of(tmp_path / "adaptive")
    passed = np.array([line["passed"] for line in uniform[:-1]])
    drawn = np.zeros(len(passed), dtype=int)
    while (
        more := more_samples(
            drawn, np.array([p[:n].sum() for p, n in zip(passed, drawn, strict=True)]), drawn, AdaptiveRule(K)
        )
    ).any():
        drawn += more
    assert scores.table["pass_rate_total"].tolist() == [*drawn, drawn[0]]
    assert set(drawn) >= {4, K} or 4 <= drawn.min() < drawn.max() <= K
    for some, all_ in zip(adaptive, uniform, strict=True):
        assert some["completions"] == all_["completions"][: len(some["completions"])]
    assert f"adaptive: {drawn.sum()} of {K * len(drawn)} samples were enough" in capsys.readouterr().err
    assert scores.manifest["adaptive"] is True


def test_killed_between_rounds_it_ends_with_the_same_bytes(
    model: LanguageModel, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = write_rows(rows())
    score(model, pool, tmp_path / "whole", config=ADAPTIVE, verifier=VERIFIER)
    with monkeypatch.context() as patch:
        killed_after(engines, "sample_batch", 3, patch)
        with pytest.raises(KilledError):
            score(model, pool, tmp_path / "stopped", config=ADAPTIVE, verifier=VERIFIER)
    score(model, pool, tmp_path / "stopped", config=ADAPTIVE, verifier=VERIFIER)
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "whole")


def test_without_samples_nothing_can_be_adaptive() -> None:
    with pytest.raises(InputError, match="samples: got 0; allowed: at least 1 with adaptive"):
        ScoreConfig(adaptive=True)
