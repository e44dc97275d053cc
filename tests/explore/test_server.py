"""The command: an address on this machine only, clear errors, and an end on Ctrl-C."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest

from datadose import plan, predict_error
from datadose.explore import create_app, create_server
from datadose.explore.server import create_local_server
from datadose.explore.setting import Setting
from datadose.explore.uploads import LARGEST_REQUEST
from helpers.command import PATIENCE, argv, environment, run_main


def test_it_serves_on_this_machine_until_interrupted() -> None:
    process = subprocess.Popen(
        argv("explore", "--port", 0),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert address
        page = urlopen(address.group(), timeout=PATIENCE).read().decode()
        assert "datadose explorer" in page
        # Nothing that the browser loads comes from elsewhere.
        assert re.findall(r"(?:src|href)=\"(https?:)?//", page) == []
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.strip() == "stopped"


def test_a_taken_or_impossible_port_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert run_main(["explore", "--port", str(taken)]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"datadose explore: error: port: got {taken}; allowed: .*free.*", said.strip())
    assert run_main(["explore", "--port", "70000"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "port: got 70000; allowed: an integer in [0, 65535]" in said


def ask(output: str, **values: Any) -> Any:
    """What a browser posts to have ``output`` answered at a setting, through the WSGI application."""
    app = create_app()
    key = next(key for key in app.callback_map if output in key.strip(".").split("..."))
    inputs = [{**part, "value": values.get(part["id"])} for part in app.callback_map[key]["inputs"]]
    ids = [one.rsplit(".", 1) for one in key.strip(".").split("...")]
    outputs = [{"id": name, "property": prop} for name, prop in ids]
    body = {
        "output": key,
        "outputs": outputs if key.startswith("..") else outputs[0],
        "inputs": inputs,
        "changedPropIds": ["setting.data"],
    }
    answer = app.server.test_client().post("/_dash-update-component", json=body)
    assert answer.status_code == 200, answer.data
    return answer.get_json()["response"]


def test_any_wsgi_host_answers_with_the_planners_numbers() -> None:
    setting = Setting(dimension=60, max_prompts=120, length=60, interference=0.02)
    expected = plan(setting.shift(), length=60, max_prompts=120)
    shown = {"setting": setting.model_dump(), "still": setting.model_dump(), "scheme": "dark"}
    said = ask("sentence.children", **shown)["sentence"]["children"]
    assert said.lower() == expected.recommendation.lower() + "."
    figure = ask("dose-chart.figure", **shown)["dose-chart"]["figure"]
    assert min(y for y in figure["data"][0]["y"] if y is not None) == pytest.approx(expected.predicted_error)
    planned = ask("planned.data", **shown)["planned"]["data"]
    sentence = ask("which-sentence.children", **shown, planned=planned)["which-sentence"]["children"]
    assert expected.better is not None
    assert f"{expected.better.predicted_error:.3g}" in sentence
    tiles = json.dumps(ask("stage-numbers.children", **shown))
    assert expected.stages is not None
    assert f'"{expected.stages.stable_step:.2g}"' in tiles
    assert len(ask("learning-chart.figure", **shown)["learning-chart"]["figure"]["data"]) >= 2


def test_how_long_and_the_pool_answer_with_the_theorys_numbers() -> None:
    setting = Setting(dimension=60, max_prompts=120, length=60, interference=0.02, time=30.0)
    shift, shown = setting.shift(), {"setting": setting.model_dump(), "still": setting.model_dump()}
    answer = ask("time-chart.figure", **shown)
    (best,) = (trace for trace in answer["time-chart"]["figure"]["data"] if trace["name"] == "best time")
    at_best = predict_error(shift, 120, 60, time=10 ** best["x"][0])
    assert best["y"][0] == pytest.approx(at_best, rel=1e-6)
    assert f"{at_best:.3g}" in answer["long-sentence"]["children"]
    assert f'"{predict_error(shift, 120, 60, time=30):.3g}"' in json.dumps(answer["long-numbers"])
    names = {
        trace["name"] for trace in ask("stopped-chart.figure", **shown)["stopped-chart"]["figure"]["data"]
    }
    assert {"to convergence", "at the best time", "at time 30", "ceiling"} <= names
    tuned = ask("tuned.data", **shown)["tuned"]["data"]
    drawn = ask("pool-chart.figure", **shown, tuned=tuned)["pool-chart"]["figure"]["data"]
    assert {"equal weights", "these weights", "tuned weights"} <= {trace["name"] for trace in drawn}
    # Weights tuned for another setting are not shown with this one.
    drawn = ask("pool-chart.figure", **shown, tuned="rho=0.9")["pool-chart"]["figure"]["data"]
    assert "tuned weights" not in {trace["name"] for trace in drawn}


def test_a_setting_that_cannot_be_is_named_and_nothing_is_drawn() -> None:
    bad = {**Setting().model_dump(), "rho": None}
    response = ask("query.data", setting=bad)
    assert "rho: got nothing" in response["complaint"]["children"]
    assert "query" not in response


@pytest.mark.parametrize("path", ["/", "/how-long", "/which", "/which-stage", "/your-spectra"])
def test_every_address_is_a_page(path: str) -> None:
    assert create_server().test_client().get(path).status_code == 200


def test_a_request_that_is_too_large_is_refused_unread() -> None:
    body = io.BytesIO(b"x" * (LARGEST_REQUEST + 1))
    answer = (
        create_server()
        .test_client()
        .post("/_dash-update-component", data=body, content_type="application/json")
    )
    assert answer.status_code == 413


@pytest.fixture
def local_server() -> Iterator[int]:
    """A server of a trivial page on 127.0.0.1, with little patience for slow requests; its port."""

    def page(_: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"here"]

    server = create_local_server(page, 0)
    server.adj.channel_timeout, server.adj.cleanup_interval = 1, 1
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield int(server.effective_port)
    # An interrupt ends a server; of one in a thread the sockets are closed.
    server.task_dispatcher.shutdown()
    server.close()


def _status(port: int, host: str | None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.putrequest("GET", "/", skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_only_the_names_of_this_machine_are_answered(local_server: int) -> None:
    """A page from elsewhere whose name leads here (DNS rebinding) sends its own name."""
    port = local_server
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LocalHost:{port}", f"[::1]:{port}"):
        assert _status(port, host) == 200
    for other in ("evil.example", f"evil.example:{port}", f"127.0.0.1:{port + 1}", "localhost", "", None):
        assert _status(port, other) in (400, 421), other
    assert _status(port, f"localhost.evil.example:{port}") == 421


def test_slow_connections_do_not_stop_it(local_server: int) -> None:
    """150 connections that never finish a request: others are answered meanwhile, and the slow ones closed.

    All send a byte now and then, which keeps no connection alive.
    """
    slow = [socket.create_connection(("127.0.0.1", local_server), timeout=PATIENCE) for _ in range(150)]
    try:
        for connection in slow[::2]:
            connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        assert _status(local_server, f"localhost:{local_server}") == 200
        open_ones = list(slow)
        until = time.monotonic() + PATIENCE
        while open_ones and time.monotonic() < until:
            open_ones = [one for one in open_ones if not _ended(one)]
            time.sleep(0.2)
        assert not open_ones
        assert _status(local_server, f"localhost:{local_server}") == 200
    finally:
        for connection in slow:
            connection.close()


def _ended(connection: socket.socket) -> bool:
    """Whether the other side has closed; sends it another byte first."""
    try:
        connection.sendall(b"x")
        connection.setblocking(False)
        return connection.recv(1000) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.setblocking(True)
