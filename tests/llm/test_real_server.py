"""Samples from `transformers serve`, which this test starts on loopback with the tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datadose.llm.endpoint import Endpoint
from datadose.llm.language_model import LanguageModel
from datadose.llm.score import score
from datadose.llm.score_config import ScoreConfig
from datadose.llm.scores import SAMPLES, Scores
from helpers.command import environment
from helpers.loopback_server import free_port, wait_for
from helpers.scored_pool import ROWS, Write
from helpers.tiny_llama import make_model

pytestmark = pytest.mark.long

CONFIG = ScoreConfig(samples=4, max_tokens=12)
STRINGS = [{"prompt": f"what is {i}+1? ", "completion": str(i + 1)} for i in range(6)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One model twice: with generation settings that sample, as those of chat models do, and without."""
    greedy, sampling = (tmp_path_factory.mktemp(name) for name in ("greedy", "sampling"))
    for folder in (greedy, sampling):
        make_model(folder)
    path = sampling / "generation_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "do_sample": True, "top_k": 0}))
    return greedy, sampling


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server without a model of its own."""
    log, port = tmp_path_factory.mktemp("server") / "log", free_port()
    offline = {**environment(), "HF_HUB_OFFLINE": "1", "HF_HOME": str(log.parent)}
    command = [Path(sys.executable).with_name("transformers"), "serve", "--device", "cpu"]
    with log.open("wb") as said:
        server = subprocess.Popen(
            [*map(str, command), "--host", "127.0.0.1", "--port", str(port)],
            stdout=said,
            stderr=said,
            env=offline,
        )
    address = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_for(ready)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def sampled(
    model: LanguageModel, folder: Path, pool: Path, out: Path, url: str, **changes: Any
) -> tuple[Scores, list[dict[str, Any]]]:
    """Scores of ``pool`` with samples from the server's model in ``folder``, and the samples."""
    endpoint = Endpoint(url, str(folder), concurrency=changes.pop("concurrency", 4))
    config = replace(CONFIG, **changes)
    found = score(model, pool, out, config=config, verifier="exact", endpoint=endpoint)
    return found, [json.loads(line) for line in (out / SAMPLES).read_text().splitlines()]


@pytest.mark.parametrize("rows", [ROWS[:6], STRINGS], ids=["messages", "strings"])
def test_the_server_is_asked_what_the_model_is(
    rows: list[dict[str, Any]],
    model: LanguageModel,
    folders: tuple[Path, Path],
    url: str,
    write_rows: Write,
    tmp_path: Path,
) -> None:
    """Greedy completions and confidences are the model's own: the template, the end and the limit too."""
    pool = write_rows(rows)
    own = score(model, pool, tmp_path / "own", config=CONFIG, verifier="exact")
    served, samples = sampled(model, folders[1], pool, tmp_path / "served", url)
    expected, found = own.lines(range(6)), served.lines(range(6))
    names = ("own_completion", "own_differs", "tokens", "pass_rate_total", "issue")
    assert [[line[name] for name in names] for line in found] == [
        [line[name] for name in names] for line in expected
    ]
    confidences = [line["own_confidence"] for line in found]
    assert confidences == pytest.approx([line["own_confidence"] for line in expected], rel=1e-4)
    finishes = [finish for line in samples for finish in line["finish"]]
    assert set(finishes) == {"stop", "length"}
    assert max(len(text) for line in samples for text in line["completions"]) == CONFIG.max_tokens
    assert finishes.count("length") == served.table["truncated"].sum() > 0
    # Requests of this server share one stream of random numbers: what is drawn depends on the clock, and
    # two may end at once, empty. Long ones are alike only if nothing is drawn.
    long = [text for line in samples for text in line["completions"] if len(text) == CONFIG.max_tokens]
    assert len(set(long)) == len(long) > 1


def test_seeds_decide_and_more_samples_are_added(
    model: LanguageModel, folders: tuple[Path, Path], url: str, write_rows: Write, tmp_path: Path
) -> None:
    """One request at a time: this server's seeds are of the process, not of the request."""
    pool, folder = write_rows(ROWS[:3]), folders[1]
    _, first = sampled(model, folder, pool, tmp_path / "a", url, samples=2, concurrency=1)
    _, again = sampled(model, folder, pool, tmp_path / "b", url, samples=2, concurrency=1)
    _, other = sampled(model, folder, pool, tmp_path / "c", url, samples=2, concurrency=1, seed=1)
    _, more = sampled(model, folder, pool, tmp_path / "a", url, samples=4, concurrency=1)
    assert first == again != other
    assert [line["completions"][:2] for line in more] == [line["completions"] for line in first]
    assert {len(line["completions"]) for line in more} == {4}


def test_a_model_that_is_served_greedily_is_said(
    model: LanguageModel,
    folders: tuple[Path, Path],
    url: str,
    write_rows: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sampled(model, folders[0], write_rows(ROWS[:6]), tmp_path / "out", url, samples=2)
    assert "the samples of every prompt are all equal" in capsys.readouterr().err
