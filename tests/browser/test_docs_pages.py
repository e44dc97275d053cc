"""The documentation in a real browser: no page is too wide, formulas are drawn, nothing is fetched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from browser.conftest import WIDTHS, OpenPage

pytest.importorskip("sphinx", reason="needs the extra datadose[docs]")
# First of all fixtures: where there is no browser nothing is built.
pytestmark = pytest.mark.usefixtures("chromium")

ROOT = Path(__file__).parents[2]
DRAWN = """() => window.MathJax && MathJax.startup && MathJax.startup.promise
    ? MathJax.startup.promise.then(() => true) : true"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served: from a file a browser lets the search read nothing."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_pages_fit_every_screen_and_formulas_are_drawn(site: Path, open_page: OpenPage, every: int) -> None:
    pages = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts][::every]
    assert len(pages) > 50 / every
    page = open_page(pages[0].as_uri())
    wide, wrong, formulas = [], [], 0
    for path in pages:
        page.goto(path.as_uri())
        page.evaluate(DRAWN)
        name = str(path.relative_to(site))
        for width, (across, down) in WIDTHS.items():
            page.set_viewport_size({"width": across, "height": down})
            if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                wide.append((name, width))
        if page.evaluate("document.querySelector('mjx-merror, .math:not(:has(mjx-container))') !== null"):
            wrong.append(name)
        formulas += page.evaluate("document.querySelectorAll('mjx-container').length")
    assert (wide, wrong) == ([], [])
    assert formulas > 1000 / every**2


def test_long_formulas_and_tables_scroll_by_themselves(site: Path, open_page: OpenPage) -> None:
    page = open_page((site / "derivations" / "exact_asymptotics.html").as_uri(), width="phone")
    page.evaluate(DRAWN)
    overflowing = "[...document.querySelectorAll('div.math')].filter(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{overflowing}.length") > 10
    assert page.evaluate(f"{overflowing}.every(e => getComputedStyle(e).overflowX === 'auto')")
    assert page.evaluate("[...document.querySelectorAll('table')].every(e => e.closest('.table-wrapper'))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_site_has_the_report_s_colours(site: Path, open_page: OpenPage, scheme: str) -> None:
    page = open_page((site / "index.html").as_uri(), scheme=scheme)
    sheet = (ROOT / "src" / "datadose" / "templates" / "look.css").read_text()
    part = sheet.split("prefers-color-scheme: dark")[scheme == "dark"]
    paper = part.split("--paper:")[1].split(";")[0]
    drawn = page.evaluate(
        """colour => { const probe = document.createElement('i'); probe.style.color = colour;
        document.body.append(probe); return getComputedStyle(probe).color ===
        getComputedStyle(document.body).backgroundColor }""",
        paper,
    )
    assert drawn


def test_search_finds_a_function_without_a_network(address: str, open_page: OpenPage) -> None:
    page = open_page(f"{address}/search.html?q=sft_minimiser")
    # Results come one by one.
    page.wait_for_selector("#search-results li:has-text('sft_minimiser')")
