"""The explorer where answers take time: simulations, a slow line, a server that is gone, a hurried hand."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from browser.conftest import OpenPage
from datadose.explore import simulations, uploads
from datadose.explore.setting import read_query
from helpers.explorer_page import GOOD, SMALL, TIMEOUT, choose, sentence, settled, thumb

POINTS = "document.querySelector('#dose-chart .js-plotly-plot').data"


def slow_down(page: Any, milliseconds: int) -> None:
    """Every answer takes this much longer."""
    line = page.context.new_cdp_session(page)
    line.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": milliseconds, "downloadThroughput": -1, "uploadThroughput": -1},
    )


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Each seed of a simulation waits for one release."""
    released, original = threading.Semaphore(0), simulations.sft_error_curve

    def wait(*values: Any, **options: Any) -> Any:
        released.acquire(timeout=TIMEOUT / 1000)
        return original(*values, **options)

    monkeypatch.setattr(simulations, "sft_error_curve", wait)
    return released


def said(page: Any, start: str) -> None:
    shown = "document.querySelector('#simulated').innerText"
    page.wait_for_function(f"start => {shown}.startsWith(start)", arg=start, timeout=TIMEOUT)


def test_simulation_shows_progress_then_points_with_bars(
    explorer: str, open_page: OpenPage, seeds: threading.Semaphore
) -> None:
    page = open_page(f"{explorer}/how-much?{SMALL}&rho=0.21")
    sentence(page)
    page.click("#simulate")
    seeds.release(3)
    said(page, "3 of 10 seeds")
    assert page.is_visible("#progress")
    assert page.get_attribute("#progress", "value") == "3"
    seeds.release(7)
    said(page, "10 seeds, 95 percent intervals")
    page.wait_for_function(f"{POINTS}.some(trace => trace.name === 'simulated, 10 seeds')", timeout=TIMEOUT)
    found = page.evaluate(f"{POINTS}.find(trace => trace.name.startsWith('simulated'))")
    assert len(found["y"]) > 10
    assert max(found["error_y"]["array"]) > 0
    assert not page.is_visible("#progress")
    # Another setting: its curve has no points yet.
    thumb(page, "rho").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"!{POINTS}.some(trace => trace.name.startsWith('simulated'))", timeout=TIMEOUT)


def test_a_slow_line_slows_a_simulation_and_does_not_starve_it(explorer: str, open_page: OpenPage) -> None:
    page = open_page(f"{explorer}/how-much?{SMALL}&rho=0.22")
    sentence(page)
    slow_down(page, 700)
    page.click("#simulate")
    said(page, "10 seeds")
    settled(page)
    assert page.evaluate(f"{POINTS}.some(trace => trace.name === 'simulated, 10 seeds')")


def test_stop_stops_though_a_look_is_on_its_way(
    explorer: str, open_page: OpenPage, seeds: threading.Semaphore
) -> None:
    page = open_page(f"{explorer}/how-much?{SMALL}&rho=0.23")
    sentence(page)
    page.click("#simulate")
    seeds.release(2)
    said(page, "2 of 10 seeds")
    slow_down(page, 500)
    # In the middle of a look: one takes 500 ms of every 800.
    page.wait_for_timeout(600)
    page.click("#stop")
    said(page, "stopped after")
    page.wait_for_timeout(2000)
    assert page.inner_text("#simulated").startswith("stopped after")
    assert not page.is_visible("#progress")
    seeds.release(10)


def test_a_server_that_is_gone_is_noticed_and_one_that_is_back_too(
    explorer: str, open_page: OpenPage
) -> None:
    page = open_page(
        f"{explorer}/how-much?{SMALL}", forgive=("ERR_INTERNET_DISCONNECTED", "the server did not respond")
    )
    sentence(page)
    page.context.set_offline(offline=True)
    thumb(page, "rho").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "document.querySelector('#complaint').innerText.includes('the server does not answer')",
        timeout=TIMEOUT,
    )
    page.context.set_offline(offline=False)
    page.keyboard.press("ArrowRight")
    page.wait_for_function("location.search.includes('rho=0.12')", timeout=TIMEOUT)
    settled(page)
    assert page.inner_text("#complaint") == ""


def test_a_view_opened_before_the_answer_has_the_last_move(explorer: str, open_page: OpenPage) -> None:
    page = open_page(f"{explorer}/how-much?{SMALL}")
    sentence(page)
    slow_down(page, 1000)
    thumb(page, "rho").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("link", name="Which stage?").click()
    page.wait_for_selector("#view-which-stage", timeout=TIMEOUT)
    assert read_query(page.evaluate("location.search"))[0].rho == 0.11
    assert float(page.locator(".control:has(#label-rho) input").input_value()) == 0.11


def test_the_skip_link_leads_to_the_answers_and_builds_nothing_anew(
    explorer: str, open_page: OpenPage
) -> None:
    page = open_page(f"{explorer}/how-much?{SMALL}")
    sentence(page)
    thumb(page, "rho").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("location.search.includes('rho=0.11')", timeout=TIMEOUT)
    settled(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.post_data or ""))
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "answers"
    page.wait_for_timeout(500)
    assert [body for body in asked if '"output":"page.children"' in body] == []
    assert "rho=0.11" in page.url


def test_the_same_file_chosen_again_is_read_again(
    explorer: str, open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(f"{explorer}/your-spectra?{SMALL}")
    (tmp_path / "shift.yaml").write_text(
        GOOD.replace("sigma0.npy", "{blocks: [[0.1, 20], [1, 40]]}") + "interference: 0.02\n"
    )
    with monkeypatch.context() as busy:
        busy.setattr(uploads, "_AT_ONCE", threading.Semaphore(0))
        choose(page, tmp_path / "shift.yaml")
        page.wait_for_selector("#upload-complaint:has-text('one more plan')", timeout=TIMEOUT)
    choose(page, tmp_path / "shift.yaml")
    page.wait_for_selector("#upload-plan .sentence", timeout=TIMEOUT)
    assert page.inner_text("#upload-complaint") == ""
