"""What the browser tests of the explorer share: settings, waiting for whole answers, uploads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SMALL = "dimension=60&max_prompts=150&length=60"
"""A setting that a busy machine answers at once."""
TIMEOUT = 300_000
GOOD = "sigma0: sigma0.npy\ndelta: {blocks: [[1, 20], [0, 40]]}\nlength: 60\neta: 0.2\nmax_prompts: 120\n"


def settled(page: Any) -> None:
    """Wait until all answers of what was asked are there; what the page says then is about one setting."""
    page.wait_for_selector('#page[aria-busy="false"]', timeout=TIMEOUT)


def curve(page: Any, chart: str = "dose-chart") -> list[float | None]:
    """What the chart's first line shows."""
    settled(page)
    page.wait_for_function(
        f"document.querySelector('#{chart} .js-plotly-plot')?.data?.length", timeout=TIMEOUT
    )
    return page.evaluate(f"Array.from(document.querySelector('#{chart} .js-plotly-plot').data[0].y)")


def thumb(page: Any, name: str) -> Any:
    return page.locator(f".control:has(#label-{name}) [role=slider]")


def changed(page: Any, selector: str, before: str) -> str:
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector)?.innerText !== before",
        arg=[selector, before],
        timeout=TIMEOUT,
    )
    settled(page)
    return page.inner_text(selector)


def sentence(page: Any, selector: str = "#sentence") -> str:
    page.wait_for_function(f"document.querySelector('{selector}')?.innerText.length > 20", timeout=TIMEOUT)
    settled(page)
    return page.inner_text(selector)


def says(page: Any, expected: str) -> None:
    """Wait for the sentence of *How much?*."""
    page.wait_for_function(
        "said => document.querySelector('#sentence')?.innerText === said", arg=expected, timeout=TIMEOUT
    )


def choose(page: Any, *files: Path) -> None:
    """As a person does it: the button, then the dialog."""
    with page.expect_file_chooser() as dialog:
        page.click("#choose")
    dialog.value.set_files(list(files))
