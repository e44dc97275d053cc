"""The command: an address on this machine only, clear errors, and an end on Ctrl-C."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from urllib.request import urlopen

import pytest
from tests.command import argv, environment, run_datadose

from datadose.explore import create_server


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
        page = urlopen(address.group(), timeout=30).read().decode()
        assert "datadose explorer" in page
        # Nothing that the browser loads comes from elsewhere.
        assert re.findall(r"(?:src|href)=\"(https?:)?//", page) == []
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.strip() == "stopped"


def test_a_taken_or_impossible_port_is_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        found = run_datadose("explore", "--port", taken)
    assert found.returncode == 2
    assert re.fullmatch(
        rf"datadose explore: error: port: got {taken}; allowed: .*free.*", found.stderr.strip()
    )
    found = run_datadose("explore", "--port", 70000)
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "port: got 70000; allowed: an integer in [0, 65535]" in found.stderr


@pytest.mark.parametrize("path", ["/", "/which", "/which-stage", "/your-spectra", "/_dash-layout"])
def test_a_public_host_can_serve_the_same_application(path: str) -> None:
    assert create_server().test_client().get(path).status_code == 200
