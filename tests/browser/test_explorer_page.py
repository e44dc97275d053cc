"""The explorer in a real browser: sliders, sentence, simulation, uploads, addresses, widths, schemes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from browser.conftest import WIDTHS, OpenPage
from datadose import Shift, plan, predict_error
from datadose.explore import training
from datadose.explore.page import as_sentence
from datadose.explore.setting import Setting, read_query
from datadose.explore.views import how_much
from helpers.explorer_page import (
    SMALL,
    TIMEOUT,
    changed,
    curve,
    says,
    sentence,
    settled,
    thumb,
)

POOL = "document.querySelector('#pool-chart .js-plotly-plot')"
# Who begins to wait after the click may come when the page is no longer busy.
NOTE_BUSY = """() => new MutationObserver(() => {
    window.wasBusy ||= document.querySelector('#page[aria-busy="true"]') !== null;
}).observe(document, { attributes: true, childList: true, subtree: true })"""


def test_the_page_shows_the_planners_own_numbers(explorer: str, open_page: OpenPage) -> None:
    page = open_page(f"{explorer}/?{SMALL}&share=0.5&interference=0.02")
    said, shown = sentence(page), curve(page)
    shift = Shift.two_block(60, 30, 0.1, 0.2, 0.02)
    expected = plan(shift, length=60, max_prompts=150)
    assert said.startswith(f"Train on {expected.prompts:,} ")
    assert f"the error is {expected.predicted_error:.3g}" in said
    assert page.inner_text("#dose-numbers li:first-child b") == f"{expected.prompts:,}"
    counts = page.evaluate("document.querySelector('#dose-chart .js-plotly-plot').data[0].customdata")
    place = counts.index(0)
    assert shown[place] == pytest.approx(predict_error(shift, 0, 60), rel=1e-12)
    last = len(counts) - 1
    assert shown[last] == pytest.approx(predict_error(shift, counts[last], 60), rel=1e-12)


def test_a_slider_moves_the_curve_the_sentence_and_the_address(explorer: str, open_page: OpenPage) -> None:
    page = open_page(f"{explorer}/how-much?{SMALL}")
    said, shown = sentence(page), curve(page)
    # With the keyboard alone: the thumb takes the focus and the arrow keys.
    thumb(page, "share").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert changed(page, "#sentence", said) != said
    page.wait_for_function("location.search.includes('share=0.7')", timeout=TIMEOUT)
    now = how_much.sentence(Setting(share=0.7, dimension=60, max_prompts=150, length=60))
    says(page, now)
    assert curve(page) != shown
    # The address alone brings the same page back, in another browser.
    again = open_page(page.url)
    says(again, now)
    assert curve(again) == curve(page)


def test_views_share_the_setting_and_the_back_button_works(explorer: str, open_page: OpenPage) -> None:
    page = open_page(f"{explorer}/how-much?{SMALL}&tilt=1")
    sentence(page)
    page.get_by_role("link", name="Which stage?").click()
    page.wait_for_selector("#view-which-stage")
    assert "tilt=1" in page.url
    assert "dimension=60" in page.url
    assert page.get_attribute("nav a[href^='/which-stage']", "aria-current") == "page"
    assert sentence(page, "#stage-sentence")
    assert len(curve(page, "learning-chart")) > 5
    page.go_back()
    page.wait_for_selector("#view-how-much")
    assert sentence(page)


@pytest.mark.parametrize("view", ["how-much", "which-stage"])
def test_a_view_opens_busy_and_asks_for_each_answer_once(
    explorer: str, open_page: OpenPage, view: str
) -> None:
    page = open_page(f"{explorer}/nowhere", scheme="dark")
    settled(page)
    asked: list[str] = []
    page.on(
        "request",
        lambda r: asked.append(r.post_data_json["output"]) if "_dash-update-component" in r.url else None,
    )
    page.evaluate(NOTE_BUSY)
    page.get_by_role("link", name={"how-much": "How much?", "which-stage": "Which stage?"}[view]).click()
    page.wait_for_function("window.wasBusy", timeout=TIMEOUT)
    sentence(page, {"how-much": "#sentence", "which-stage": "#stage-sentence"}[view])
    assert any(".figure" in output for output in asked)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    ("control", "key", "presses"),
    [
        ("reward", "", 0),
        ("chain_steps", "ArrowRight", 2),
        pytest.param("steps", "ArrowLeft", 90, marks=pytest.mark.slow),
        pytest.param("tolerance", "ArrowRight", 3, marks=pytest.mark.slow),
        pytest.param("rho", "ArrowRight", 20, marks=pytest.mark.slow),
    ],
)
def test_every_stage_control_answers(
    explorer: str, open_page: OpenPage, control: str, key: str, presses: int
) -> None:
    """The page says what the planner says of the setting that the address names."""
    page = open_page(f"{explorer}/which-stage?{SMALL}")
    sentence(page, "#stage-sentence")
    if control == "reward":
        page.get_by_text("verifiable: 1 for a pass").click()
    else:
        thumb(page, control).focus()
        for _ in range(presses):
            page.keyboard.press(key)
    page.wait_for_function(f"location.search.includes('{control}=')", timeout=TIMEOUT)
    settled(page)
    setting, complaint = read_query(page.evaluate("location.search"))
    assert complaint == ""
    assert getattr(setting, control) != getattr(Setting(), control)
    expected = plan(setting.shift(), length=60, max_prompts=150, training=setting.training()).stages
    assert expected is not None
    bars = "document.querySelector('#{} .js-plotly-plot').data[0].x"
    for chart, name in (("error-bars", "error"), ("pass-bars", "pass_rate")):
        shown = page.evaluate(bars.format(chart))
        # What is withheld has a word and no bar.
        known = [getattr(outlook, name) or 0.0 for outlook in expected.outlooks]
        assert shown == pytest.approx(known, rel=1e-12)
    assert page.inner_text("#stage-sentence") == as_sentence(expected.reason)
    step = "not known" if expected.stable_step is None else f"{expected.stable_step:.2g}"
    assert page.inner_text("#stage-numbers li:nth-child(2) b") == step


def test_dragging_the_allocation_changes_its_error(explorer: str, open_page: OpenPage) -> None:
    page = open_page(f"{explorer}/which?{SMALL}&tilt=1")
    said = sentence(page, "#which-sentence")
    curve(page, "allocation-chart")
    handle = page.locator("#allocation-chart .shapelayer path").first.bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 30, steps=5)
    page.mouse.up()
    page.wait_for_function("location.search.includes('levels=-')", timeout=TIMEOUT)
    dragged = sentence(page, "#which-sentence")
    # Less variance in the first level: the same paper's and planner's, another sentence for one's own.
    assert dragged.partition(" Yours:")[0] == said.partition(" Yours:")[0]
    assert "Yours:" in dragged
    assert dragged != said
    # By number, with the keyboard: the same thing.
    page.get_by_text("Your data by number").click()
    page.get_by_role("button", name="Back to the paper's").click()
    page.wait_for_function("!location.search.includes('levels')", timeout=TIMEOUT)
    assert sentence(page, "#which-sentence") == said


@pytest.mark.parametrize(
    ("name", "typed", "expected", "said"),
    [
        ("interference", "0.003", 0.003, ""),
        ("interference", "0.5", 0.2, "0.5 is above 0.2, the largest: set to 0.2."),
        ("share", "60%", 0.5, '"60%" is not a number; write 0.6. 0.5 is kept.'),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("interference", "0,05", 0.02, '"0,05" is not a number; write 0.05. 0.02 is kept.'),
                ("dimension", "41", 41, ""),
                ("max_prompts", "1,000", 150, '"1,000" is not a number; write 1000. 150 is kept.'),
                ("length", "1", 20, "1 is below 20, the smallest: set to 20."),
                ("length", "", 60, "Nothing was typed: 60 is kept."),
                ("length", "60.4", 60, "Only whole numbers: set to 60."),
            )
        ),
    ],
)
def test_a_typed_number_its_slider_the_address_and_the_curve_agree(
    explorer: str, open_page: OpenPage, name: str, typed: str, expected: float, said: str
) -> None:
    page = open_page(f"{explorer}/how-much?{SMALL}&interference=0.02")
    sentence(page)
    field = page.locator(f".control:has(#label-{name}) input")
    field.click()
    field.fill("")
    field.press_sequentially(typed, delay=40)
    page.keyboard.press("Tab")
    page.wait_for_function(
        "([name, said]) => document.querySelector(`.control:has(#label-${name}) .said`).innerText === said",
        arg=[name, said],
        timeout=TIMEOUT,
    )
    values = {"dimension": 60, "max_prompts": 150, "length": 60, "interference": 0.02, name: expected}
    setting = Setting(**values)
    page.wait_for_function("query => location.search === '?' + query", arg=setting.query(), timeout=TIMEOUT)
    group = f"document.querySelector('.control:has(#label-{name})')"
    page.wait_for_function(
        "expected => ((near) => near({group}.querySelector('input').value || NaN) &&"
        " near({group}.querySelector('[role=slider]').ariaValueNow))"
        "((value) => Math.abs(Number(value) - expected) < 1e-9)".replace("{group}", group),
        arg=expected,
        timeout=TIMEOUT,
    )
    shown = (
        f"{plan(setting.shift(), length=setting.length, max_prompts=setting.max_prompts).predicted_error:.3g}"
    )
    page.wait_for_function(
        "shown => document.querySelector('#dose-numbers li:nth-child(2) b')?.innerText === shown",
        arg=shown,
        timeout=TIMEOUT,
    )
    assert page.inner_text("#complaint") == ""


def test_the_time_goes_by_its_logarithm_and_its_number_is_the_time(
    explorer: str, open_page: OpenPage
) -> None:
    page = open_page(f"{explorer}/how-long?{SMALL}&interference=0.02")
    said = sentence(page, "#long-sentence")
    field = page.locator(".control:has(#label-time) input")
    assert field.input_value() == "100000"
    for typed, value in (("83.25", 83.25), ("0.01", 0.1), ("", 0.1)):
        field.click()
        field.fill("")
        field.press_sequentially(typed, delay=40)
        page.keyboard.press("Tab")
        setting = Setting(dimension=60, max_prompts=150, length=60, interference=0.02, time=value)
        page.wait_for_function(
            "query => location.search === '?' + query", arg=setting.query(), timeout=TIMEOUT
        )
        settled(page)
        assert float(field.input_value()) == value
        assert float(thumb(page, "time").get_attribute("aria-valuenow")) == pytest.approx(np.log10(value))
        shown = predict_error(setting.shift(), 150, 60, time=value)
        assert page.inner_text("#long-numbers li:nth-child(3) b") == f"{shown:.3g}"
    # The best time does not depend on the slider; the right end is convergence, which an address leaves out.
    assert sentence(page, "#long-sentence") == said
    thumb(page, "time").focus()
    page.keyboard.press("End")
    page.wait_for_function("!location.search.includes('time')", timeout=TIMEOUT)
    settled(page)
    assert "error to convergence" in page.inner_text("#long-numbers")


def test_a_weight_moves_the_pool_and_is_kept_by_the_address(explorer: str, open_page: OpenPage) -> None:
    page = open_page(f"{explorer}/which?{SMALL}")
    before = curve(page, "pool-chart")
    thumb(page, "weight_even").focus()
    page.keyboard.press("Home")
    page.wait_for_function("location.search.includes('weight_even=0.001')", timeout=TIMEOUT)
    page.wait_for_function(f"{POOL}.data.length > 5", timeout=TIMEOUT)
    settled(page)
    setting, complaint = read_query(page.evaluate("location.search"))
    assert complaint == ""
    assert setting.weights() == [1.0, 1.0, 0.0]
    # The first line is that of equal weights.
    assert curve(page, "pool-chart") == before
    shown = page.inner_text("#pool-numbers li:first-child b")
    assert shown == f"{training.weighed(setting).best.error:.3g}"


@pytest.mark.parametrize("view", ["how-much", "how-long", "which", "which-stage"])
def test_everything_that_can_be_moved_has_a_name(explorer: str, open_page: OpenPage, view: str) -> None:
    page = open_page(f"{explorer}/{view}?{SMALL}")
    page.wait_for_selector("[role=slider]")
    for role in ("slider", "textbox"):
        every, named = page.get_by_role(role), page.get_by_role(role, name=re.compile(r"\w"))
        assert every.count() >= 8
        assert named.count() == every.count()


def test_which_opens_where_there_is_something_to_choose_and_its_address_says_so(
    explorer: str, open_page: OpenPage
) -> None:
    page = open_page(f"{explorer}/which")
    page.wait_for_function(
        "/better\\.$/.test(document.querySelector('#which-sentence')?.innerText)", timeout=TIMEOUT
    )
    assert page.evaluate("location.search") == "?tilt=1.5"
    field = page.locator(".control:has(#label-tilt) input")
    field.fill("0")
    page.keyboard.press("Tab")
    page.wait_for_function("location.search === '?tilt=0'", timeout=TIMEOUT)
    even = "document.querySelector('#which-sentence')?.innerText.includes('nothing better')"
    page.wait_for_function(even, timeout=TIMEOUT)
    # The address alone brings the even shift back.
    open_page(page.url).wait_for_function(even, timeout=TIMEOUT)


def test_the_last_place_of_a_fast_drag_is_what_is_shown(explorer: str, open_page: OpenPage) -> None:
    page = open_page(f"{explorer}/which?tilt=1&dimension=200&length=200&max_prompts=600")
    sentence(page, "#which-sentence")
    curve(page, "allocation-error")
    place = thumb(page, "rho").bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(60):
        page.mouse.move(x + step, y)
    page.mouse.up()
    rho = float(page.locator(".control:has(#label-rho) input").input_value())
    assert rho > 0.15
    setting = Setting(tilt=1, dimension=200, length=200, max_prompts=600, rho=rho)
    expected = plan(setting.shift(), length=200, max_prompts=600)
    assert expected.better is not None
    said = f"The paper's allocation reaches {expected.predicted_error:.3g}"
    page.wait_for_function(
        "said => document.querySelector('#which-sentence').innerText.startsWith(said)",
        arg=said,
        timeout=TIMEOUT,
    )
    page.wait_for_function(
        "/planner's|finds nothing/.test(document.querySelector('#which-sentence').innerText)"
    )
    page.wait_for_function("query => location.search === '?' + query", arg=setting.query(), timeout=TIMEOUT)


def test_a_bad_address_is_explained(explorer: str, open_page: OpenPage) -> None:
    page = open_page(f"{explorer}/how-much?{SMALL}&eta=9&nonsense=1")
    assert sentence(page)
    said = page.inner_text("#page > .complaint")
    assert "eta: got 9" in said
    assert "nonsense" in said
    page = open_page(f"{explorer}/nowhere")
    page.wait_for_selector(".complaint:not(:empty)")
    assert "/how-much" in page.inner_text("#page .complaint")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        ("phone", "light"),
        ("desktop", "dark"),
        pytest.param("phone", "dark", marks=pytest.mark.slow),
        pytest.param("desktop", "light", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("view", ["how-much", "how-long", "which", "which-stage", "your-spectra"])
def test_nothing_runs_off_the_page(
    explorer: str, open_page: OpenPage, view: str, width: str, scheme: str
) -> None:
    page = open_page(f"{explorer}/{view}?{SMALL}", width=width, scheme=scheme)
    page.wait_for_selector(f"#view-{view}")
    if view != "your-spectra":
        page.wait_for_selector(".js-plotly-plot .main-svg", timeout=TIMEOUT)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]
    # The charts follow the scheme: their text is light on dark and dark on light.
    if view != "your-spectra":
        # Drawn once before the browser has said its scheme, perhaps.
        page.wait_for_function(
            "dark => { const c = getComputedStyle(document.querySelector('.js-plotly-plot text')).fill;"
            " const light = c.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 3;"
            " return (light > 128) === dark; }",
            arg=scheme == "dark",
            timeout=TIMEOUT,
        )
