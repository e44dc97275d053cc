"""report.html in a browser: values on hover, tap and key; sorting and filters; widths; no script; print."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from datadose.studies.report import write_report
from helpers.small_results import FIGURES, make_small_results

CENTRE = """(element) => { const b = element.getBoundingClientRect();
    return [b.left + b.width / 2, b.top + b.height / 2]; }"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_results(tmp_path_factory.mktemp("results"))


@pytest.fixture
def page(results: Path, open_page: Any) -> Any:
    return open_page((results / "report.html").as_uri())


def _panel(results: Path, name: str, index: int) -> dict[str, Any]:
    panel: dict[str, Any] = json.loads((results / f"{name}.hover.json").read_text())["panels"][index]
    return panel


def _series(panel: dict[str, Any], label: str) -> dict[str, Any]:
    (series,) = [one for one in panel["series"] if one["label"] == label]
    return dict(series)


def _place(page: Any, name: str, at: list[float]) -> tuple[float, float]:
    """The window's coordinates of a fraction of the picture, which is scrolled into view."""
    plot = page.locator(f".plot[data-name={name}]")
    # The scroll event, which closes a tooltip, comes with the next frame.
    plot.evaluate(
        """async (plot) => { plot.scrollIntoView({ block: "center" });
        for (let k = 0; k < 3; k += 1) await new Promise(requestAnimationFrame); }"""
    )
    box = plot.locator("img").bounding_box()
    return box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"]


def _column(page: Any, column: int) -> list[str]:
    """The sort keys of the ledger's visible rows."""
    rows = page.locator("#ledger tbody tr:visible")
    cells: list[str] = rows.evaluate_all(
        "(rows, column) => rows.map((row) => row.cells[column].dataset.value ?? row.cells[column].innerText)",
        column,
    )
    return cells


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_nothing_is_wider_than_the_window(results: Path, open_page: Any, width: str, scheme: str) -> None:
    page = open_page((results / "report.html").as_uri(), width=width, scheme=scheme)
    page.evaluate("document.querySelectorAll('main details').forEach((one) => { one.open = true; })")
    page.wait_for_selector(".values table")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    contents = page.locator("nav:visible")
    assert contents.count() == 1
    assert contents.get_attribute("class") == {"desktop": "side", "phone": "top"}[width]


def test_hover_shows_the_value_under_the_pointer(results: Path, page: Any) -> None:
    panel = _panel(results, "fig5", 0)
    series = _series(panel, "simulated V*")
    index = len(series["x"]) - 1
    x, y = _place(page, "fig5", series["at"][2 * index : 2 * index + 2])
    page.mouse.move(x + 3, y - 2)
    ring, tip = page.locator(".ring"), page.locator(".tip")
    assert ring.evaluate(CENTRE) == pytest.approx([x, y], abs=1.0)
    text = tip.inner_text()
    low, high = series["ybar"][index]
    assert panel["title"] in text
    assert "simulated V*" in text
    assert f"SFT prompts B = {series['x'][index]}" in text
    assert f"post-test error / d = {series['y'][index]} (bar: {low} to {high})" in text
    page.mouse.move(5, 5)
    assert not tip.is_visible()
    assert ring.count() == 0


def test_empty_parts_of_a_picture_show_nothing(page: Any) -> None:
    page.mouse.move(*_place(page, "fig1", [0.002, 0.002]))
    assert not page.locator(".tip").is_visible()


def test_a_tap_shows_a_value_and_a_tap_elsewhere_hides_it(results: Path, open_page: Any) -> None:
    page = open_page((results / "report.html").as_uri(), width="phone")
    series = _series(_panel(results, "fig2", 0), "B = 2, simulated")
    page.touchscreen.tap(*_place(page, "fig2", series["at"][:2]))
    tip = page.locator(".tip")
    assert f"= {series['y'][0]}" in tip.inner_text()
    box = tip.bounding_box()
    assert 0 <= box["x"] <= box["x"] + box["width"] <= 390
    page.locator("#fig2 h3").tap()
    assert not tip.is_visible()


def test_the_keyboard_walks_the_points_and_they_are_announced(results: Path, page: Any) -> None:
    panel = _panel(results, "fig5", 0)
    page.locator("#fig2 summary").last.focus()
    # Past the files' links, if they are unfolded, to the next figure.
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.name") == "fig5":
            break
    else:
        pytest.fail("the figure cannot be reached by Tab")
    said = page.locator(".unseen")
    first = panel["series"][0]
    start = f"{panel['title']} \N{EM DASH} {first['label']}: {panel['x']} = {first['x'][0]}"
    assert said.inner_text().startswith(start)
    page.keyboard.press("ArrowRight")
    assert f"{panel['x']} = {first['x'][1]}, {panel['y']} = {first['y'][1]}" in said.inner_text()
    page.keyboard.press("End")
    assert f"{panel['x']} = {first['x'][-1]}," in said.inner_text()
    page.keyboard.press("ArrowDown")
    assert f"\N{EM DASH} {panel['series'][1]['label']}:" in said.inner_text()
    assert page.locator(".ring").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".ring").count() == 0


def test_columns_sort_up_down_and_back(results: Path, page: Any) -> None:
    printed = _column(page, 0)
    head = page.locator("#ledger th").nth(2)
    button = head.get_by_role("button", name="Value")
    claims = json.loads((results / "claims.json").read_text())
    values = sorted(claim["value"] for claim in claims if claim["value"] is not None)
    assert len(values) < len(claims)
    empty = [""] * (len(claims) - len(values))

    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    up = _column(page, 2)
    assert [float(one) for one in up[: len(values)]] == values
    assert up[len(values) :] == empty
    button.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    down = _column(page, 2)
    assert [float(one) for one in down[: len(values)]] == values[::-1]
    assert down[len(values) :] == empty
    button.click()
    assert head.get_attribute("aria-sort") is None
    assert _column(page, 0) == printed


def test_sorting_by_another_column_keeps_equal_rows_in_their_order(results: Path, page: Any) -> None:
    claims = json.loads((results / "claims.json").read_text())
    order = ["holds", "mixed", "no difference", "fails", "not run"]
    page.locator("#ledger th").nth(0).get_by_role("button").click()
    page.locator("#ledger th").nth(3).get_by_role("button").click()
    assert page.locator("#ledger th[aria-sort]").count() == 1
    found = page.locator("#ledger tbody tr").evaluate_all("(rows) => rows.map((row) => row.id)")
    wanted = sorted(claims, key=lambda claim: order.index(claim["verdict"]))
    assert found == [claim["id"] for claim in wanted]


def test_text_and_verdict_filters_work_together(results: Path, page: Any) -> None:
    claims = json.loads((results / "claims.json").read_text())
    page.locator("a.count[data-verdict='not run']").click()
    lost = [claim["id"] for claim in claims if claim["verdict"] == "not run"]
    shown = page.locator("#ledger tbody tr:visible")
    assert shown.evaluate_all("(rows) => rows.map((row) => row.id)") == lost
    assert page.locator("#filters [aria-live]").inner_text() == f"{len(lost)} of {len(claims)} claims"
    page.get_by_role("searchbox").fill("FIG-4  steps")
    texts = dict(
        page.locator("#ledger tbody tr").evaluate_all("(rows) => rows.map((r) => [r.id, r.textContent])")
    )
    both = [name for name in lost if all(word in texts[name].lower() for word in ("fig-4", "steps"))]
    assert 0 < len(both) < len(lost)
    assert shown.evaluate_all("(rows) => rows.map((row) => row.id)") == both
    page.get_by_role("searchbox").fill("no claim says this")
    assert shown.count() == 0
    page.get_by_role("searchbox").fill("")
    pressed = page.locator("#filters button[aria-pressed=true]")
    assert pressed.count() == 1
    pressed.click()
    assert shown.count() == len(claims)


def test_a_figures_chip_leads_to_its_row_even_if_filtered_away(page: Any) -> None:
    page.get_by_role("searchbox").fill("no claim says this")
    chip = page.locator("#fig5 a.chip").first
    chip.click()
    row = page.locator(f"#ledger tr[id='{chip.get_attribute('href')[1:]}']")
    row.wait_for(state="visible")
    assert row.get_by_text("python -m pytest").is_visible()
    row.locator("a[href='#fig5']").click()
    assert page.evaluate("location.hash") == "#fig5"


def test_the_values_are_a_table_as_well(results: Path, page: Any) -> None:
    panels = json.loads((results / "fig1.hover.json").read_text())["panels"]
    details = page.locator("details[data-values=fig1]")
    details.locator("summary").click()
    details.locator("table").wait_for()
    rows = details.locator("tbody tr")
    assert rows.count() == sum(len(series["x"]) for series in panels[0]["series"])
    details.locator("select").select_option("2")
    assert rows.count() == sum(len(series["x"]) for series in panels[2]["series"])
    details.locator("th").nth(1).get_by_role("button").click()
    places = [float(text) for text in rows.locator("td:nth-child(2)").all_inner_texts()]
    assert places == sorted(x for series in panels[2]["series"] for x in series["x"])


def test_without_records_the_page_is_whole_and_quiet(results: Path, tmp_path: Path, open_page: Any) -> None:
    folder = Path(
        shutil.copytree(results, tmp_path / "old", ignore=shutil.ignore_patterns("*.hover.json", ".cache"))
    )
    write_report(folder)
    page = open_page((folder / "report.html").as_uri())
    assert page.locator(".plot img").count() == len(FIGURES)
    assert page.locator(".plot[tabindex]").count() == 0
    assert not page.locator("#hint").is_visible()
    assert page.locator("details.data").count() == 0
    page.locator("#ledger th").nth(2).get_by_role("button").click()
    assert page.locator("#ledger th[aria-sort=ascending]").count() == 1


def test_everything_can_be_read_without_script(results: Path, chromium: Any) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((results / "report.html").as_uri())
    assert page.locator("#ledger tbody tr:visible").count() == len(
        json.loads((results / "claims.json").read_text())
    )
    assert not page.locator("#filters").is_visible()
    assert page.locator("#ledger th button").count() == 0
    assert page.locator("details[data-values]:visible").count() == 0
    first = page.locator("#ledger details").first
    first.locator("summary").click()
    assert first.get_by_text("python -m pytest").is_visible()
    context.close()


def test_on_paper_nothing_is_folded_and_nothing_to_press(page: Any) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#ledger details:not([open])").count() == 0
    assert page.locator("nav:visible, #filters:visible, #hint:visible").count() == 0
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("#ledger details[open]").count() == 0
