"""A real Chromium, driven by Playwright. Without one these tests are skipped, and say so."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from helpers.explorer_page import TIMEOUT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
OpenPage = Callable[..., Any]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install Debian's package chromium to run the browser tests")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # A sandbox needs rights that a container's root has not; only pages of our own are opened.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=TIMEOUT)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def explorer(chromium: Any) -> Iterator[str]:
    """Where the explorer is served."""
    import waitress

    from datadose.explore import create_server

    server = waitress.create_server(create_server(), host="127.0.0.1", port=0, threads=6)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[OpenPage]:
    """``open_page(address, width="desktop" | "phone", scheme="light" | "dark")`` gives a loaded page.

    Whatever a page writes to the console as an error (but for lines with a part of ``forgive``), or requests
    from another host, fails the test.
    """
    contexts: list[Any] = []
    complaints: list[str] = []

    def request_seen(request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1", "file:", "data:", "blob:")):
            complaints.append(f"request to {request.url}")

    def console_said(said: Any, forgive: tuple[str, ...]) -> None:
        if said.type == "error" and not any(part in said.text for part in forgive):
            complaints.append(said.text)

    def open_one(
        address: str, *, width: str = "desktop", scheme: str = "light", forgive: tuple[str, ...] = ()
    ) -> Any:
        across, down = WIDTHS[width]
        context = chromium.new_context(
            viewport={"width": across, "height": down},
            color_scheme=scheme,
            has_touch=width == "phone",
            accept_downloads=True,
        )
        # Playwright's own patience, 30 s, is too little where several browsers and servers share two cores.
        context.set_default_timeout(TIMEOUT)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: console_said(said, forgive))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", request_seen)
        page.goto(address)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []
