"""A server that fails, or is asked for what cannot be: tried again, missing with a reason, or refused."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path
from typing import Any

import pytest

from datadose.errors import InputError, RunError
from datadose.llm.endpoint import Endpoint
from datadose.llm.language_model import LanguageModel
from datadose.llm.score import score
from datadose.llm.score_config import ScoreConfig
from datadose.llm.scores import SAMPLES
from helpers.command import run_main
from helpers.endpoint_samples import lines_of, question, sampled
from helpers.loopback_server import Reply, free_port, loopback, prompt_of, text_of, wait_for
from helpers.processes import end, start
from helpers.scored_pool import ROWS, Write

pytestmark = pytest.mark.usefixtures("hasty")

TRANSIENT = {
    "busy": Reply(429, {"error": {"message": "slow down"}}, headers={"Retry-After": "0.01"}),
    "error": Reply(500, {"detail": "oops"}),
    "unavailable": Reply(503),
    "hang up": Reply(hang_up=True),
    "no choices": Reply(body={"choices": []}),
    "no object": Reply(body=[1]),
    "stall": Reply(delay=60),
}


@pytest.mark.parametrize("trouble", TRANSIENT)
def test_what_passes_is_tried_again(
    trouble: str, model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool = write_rows(ROWS[:4])

    def act(request: dict[str, Any], time: int) -> Reply:
        odd = int(text_of(request)) % 2 == 1
        return TRANSIENT[trouble] if odd and time == 1 else Reply()

    with loopback(act) as server:
        # Answers that a busy machine gives late would be asked for again too.
        seconds = 4 if trouble == "stall" else 60
        scores = sampled(model, pool, tmp_path / "out", server.url, timeout=seconds)
    odd = sum(int(text_of(body)) % 2 for body in server.bodies)
    assert len(server.bodies) == 16 + odd // 2
    assert odd > 2
    assert scores.manifest["sampling"]["missing"] == 0
    assert scores.table["pass_rate_total"].tolist() == [3] * 4


LASTING = {
    "refused": (
        Reply(400, {"error": {"message": "the prompt is too long"}}),
        "HTTP 400: the prompt is too long",
    ),
    "unprocessable": (Reply(422, {"detail": "no such role"}), "HTTP 422: no such role"),
    "error": (Reply(500, {"message": "assert\n failed"}), "HTTP 500: assert failed"),
    "no completion": (Reply(body={}), "an answer without a completion"),
    "stall": (Reply(delay=60), "no answer in 0.5 s"),
}


@pytest.mark.parametrize("trouble", LASTING)
def test_what_lasts_is_a_missing_sample_with_its_reason(
    trouble: str, model: LanguageModel, write_rows: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, (reply, reason) = write_rows(ROWS[:4]), LASTING[trouble]
    bad = question(ROWS[1])

    def act(request: dict[str, Any], _: int) -> Reply:
        return reply if prompt_of(request) == bad else Reply()

    with loopback(act) as server:
        scores = sampled(model, pool, tmp_path / "out", server.url, timeout=0.5 if trouble == "stall" else 60)
        assert scores.table["pass_rate_total"].fillna(-1).tolist() == [3, -1, 3, 3]
        assert scores.table["pass_rate"].isna().tolist() == [False, True, False, False]
        assert scores.table["nll"].notna().all()
        assert scores.lines([1])[0]["issue"] == f"samples missing: 3 of 3: {reason}"
        assert scores.lines([1])[0]["own_completion"] is None
        counts = {"missing": 3, "missing_rows": 1, "reasons": {reason: 3}, "samples": 9}
        assert counts.items() <= scores.manifest["sampling"].items()
        assert scores.manifest["issues"] == {"samples missing": 1}
        assert f"3 samples of 1 rows are missing, most for: {reason};" in capsys.readouterr().err
        assert [line["id"] for line in lines_of(tmp_path / "out")] == ["row-1", "row-3", "row-4"]
        # Asked again, only they are tried again.
        before = len(server.requests)
        sampled(model, pool, tmp_path / "out", server.url, timeout=0.5 if trouble == "stall" else 60)
        assert {prompt_of(body) for body in server.bodies[before:]} == {bad}
    with loopback() as server:
        scores = sampled(model, pool, tmp_path / "out", server.url)
        assert len(server.requests) == 4
        assert scores.table["pass_rate_total"].tolist() == [3] * 4
        sampled(model, pool, tmp_path / "out", server.url)
        assert len(server.requests) == 4


def test_a_part_of_a_prompts_samples_is_missing(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    failing: list[int] = []

    def act(request: dict[str, Any], _: int) -> Reply:
        if request["temperature"] and prompt_of(request) == question(ROWS[1]):
            failing.append(request["seed"])
            return Reply(500) if request["seed"] == failing[0] else Reply()
        return Reply()

    with loopback(act) as server:
        scores = sampled(model, write_rows(ROWS[:2]), tmp_path / "out", server.url)
    assert scores.table["pass_rate_total"].tolist() == [3, 2]
    # The two that were had give a pass rate.
    line = scores.lines([1])[0]
    assert (line["issue"], line["incomplete"]) == (None, "samples missing: 1 of 3: HTTP 500: null")


def test_a_server_that_goes_away_ends_the_run_and_the_next_one_continues(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool, asked = write_rows(ROWS), itertools.count(1)

    def act(request: dict[str, Any], _: int) -> Reply:
        # One step: two requests at a time would both count the other one.
        return Reply(hang_up=next(asked) > 22)

    with loopback(act) as server, pytest.raises(RunError, match=r"endpoint http://127.*, 8 times"):
        sampled(model, pool, tmp_path / "out", server.url, concurrency=2)
    with loopback() as server:
        sampled(model, pool, tmp_path / "out", server.url, concurrency=2)
        assert len(server.requests) == 48 - 22
        sampled(model, pool, tmp_path / "whole", server.url)
    assert (tmp_path / "out" / SAMPLES).read_bytes() == (tmp_path / "whole" / SAMPLES).read_bytes()


def test_a_server_that_fails_on_everything_ends_the_run(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    failing = loopback(lambda request, _: Reply(500, {"message": "out of memory"}))
    refused = pytest.raises(RunError, match="HTTP 500: out of memory; 21 samples in a row failed")
    with failing as server, refused:
        sampled(model, write_rows(ROWS), tmp_path / "out", server.url, concurrency=2)


@pytest.mark.parametrize(
    ("act", "models", "changes", "message"),
    [
        (Reply(), ("a", "b"), {}, "endpoint-model: got none; allowed: a model of the server: a, b"),
        (Reply(), 401, {}, r"accepts the key in OPENAI_API_KEY \(HTTP 401"),
        (Reply(401, {"error": "who?"}), ("a",), {}, r"accepts the key in OPENAI_API_KEY \(HTTP 401: who\?"),
        (
            Reply(404, {"error": "no model x"}),
            ("a",),
            {"model": "x"},
            r"--endpoint-model \(HTTP 404: no model x",
        ),
        (
            Reply(400, {"error": "no template"}),
            ("a",),
            {},
            "samples: got none for all 2 prompts.*no template",
        ),
    ],
)
def test_what_no_prompt_changes_is_one_error(
    act: Reply,
    models: Any,
    changes: dict[str, Any],
    message: str,
    model: LanguageModel,
    write_rows: Write,
    tmp_path: Path,
) -> None:
    with loopback(lambda request, _: act, models) as server, pytest.raises(InputError, match=message):
        sampled(model, write_rows(ROWS[:2]), tmp_path / "out", server.url, **changes)


@pytest.mark.parametrize(
    ("url", "changes", "message"),
    [
        ("localhost:8000", {}, "endpoint: got localhost:8000; allowed: the URL of a server"),
        ("ftp://x/v1", {}, "endpoint: got ftp"),
        ("http://", {}, "endpoint: got"),
        ("http://x:99999", {}, "endpoint: got"),
        ("http://x/v1?key=1", {}, "endpoint: got"),
        ("http://x", {"concurrency": 0}, "concurrency: got 0"),
        ("http://x", {"timeout": 0}, "endpoint-timeout: got 0"),
        ("http://x", {"options": [1]}, "endpoint-options: got"),
    ],
)
def test_bad_settings_are_refused(url: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Endpoint(url, **changes)


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match="OPENAI_API_KEY") as refused:
        Endpoint("http://me:hunter2@localhost/v1")
    assert "hunter2" not in str(refused.value)


def test_an_endpoint_without_samples_is_refused(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="samples: got 0; allowed: at least 1 with an endpoint"):
        sampled(model, write_rows(ROWS[:2]), tmp_path / "out", "http://localhost:1", samples=0)


def command(tiny_llama: Path, pool: Path, out: Path, url: str, *more: object) -> list[object]:
    options = ["--verifier", "exact", "--samples", 3, "--max-tokens", 6, "--endpoint", url, *more]
    return ["score", "--model", tiny_llama, "--pool", pool, "--out", out, *options]


@pytest.mark.long
def test_no_server_is_one_error_with_exit_code_2(
    tiny_llama: Path, write_rows: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    pool = write_rows(ROWS[:2])
    refused = f"error: endpoint: got {url}; allowed: the URL of a running server"
    for more, said in (
        ((), refused),
        (("--endpoint-model", "m"), refused),
        (("--endpoint-options", "{"), "error: endpoint-options: "),
        (("--endpoint-options", "[1]"), "error: endpoint-options: "),
    ):
        arguments = command(tiny_llama, pool, tmp_path / "out", url, *more)
        assert run_main([str(part) for part in arguments]) == 2
        shown = capsys.readouterr().err
        assert said in shown
        assert shown.count("\n") == 1


@pytest.mark.long
def test_a_killed_run_asks_for_the_rest_only(
    tiny_llama: Path, write_rows: Write, tmp_path: Path, model: LanguageModel
) -> None:
    """SIGKILL loses what is under way; SIGTERM not even that."""
    pool, out, log = write_rows(ROWS), tmp_path / "out", tmp_path / "log"
    limits, asked = [14], itertools.count(1)

    def act(request: dict[str, Any], _: int) -> Reply:
        # Not the length of server.requests: of two at a time both would be held at the limit's last one.
        return Reply(delay=600 if next(asked) > limits[-1] else 0)

    with loopback(act) as server:
        for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
            process = start(*command(tiny_llama, pool, out, server.url, "--concurrency", 2), log=log)
            wait_for(lambda: len(server.requests) >= limits[-1] + 2)
            process.send_signal(number)
            assert end(process) == code, log.read_text()
            limits.append(len(server.requests) + 14)
    # Of 48 samples 28 were had. Two workers: three samples of each of two prompts were under way at the kill.
    settings: dict[str, Any] = {"config": ScoreConfig(samples=3, max_tokens=6), "verifier": "exact"}
    for folder, fewest, most in ((out, 20, 26), (tmp_path / "whole", 48, 48)):
        with loopback() as server:
            score(model, pool, folder, endpoint=Endpoint(server.url), **settings)
            assert fewest <= len(server.requests) <= most
    assert (out / SAMPLES).read_bytes() == (tmp_path / "whole" / SAMPLES).read_bytes()
