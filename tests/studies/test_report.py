"""The report stands alone, its links lead somewhere, and figures come from the saved files only."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from datadose.drawing.formulas import typeset
from datadose.studies.index import CLAIMS, LANGUAGE_MODELS, LEDGER, NAMES, PARTS, study
from datadose.studies.report import write_report
from datadose.studies.reproduce import draw_saved
from helpers.small_results import FIGURES, make_small_results

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny figures 1, 2 and 5 and the ledger judged from them."""
    return make_small_results(tmp_path_factory.mktemp("results"))


@pytest.fixture
def folder(results: Path, tmp_path: Path) -> Path:
    """A copy of the results to take apart."""
    return Path(shutil.copytree(results, tmp_path / "copy", ignore=shutil.ignore_patterns(".cache")))


class _Page(HTMLParser):
    """Tags, ids, links and chips of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.rows: list[str] = []
        self.links: list[str] = []
        self.files: list[str] = []
        self.policies: list[str] = []
        self.chips: list[str] = []
        self.images: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.links += [values[name] for name in ("href", "src", "srcset", "action", "data") if name in values]
        self.files += [values["href"]] if tag == "a" and not values.get("href", "#").startswith("#") else []
        self.policies += [values["content"]] if "http-equiv" in values else []
        self.ids += [values["id"]] if "id" in values else []
        self.rows += [values["id"]] if tag == "tr" and "id" in values else []
        self.images += [values["src"]] if tag == "img" else []
        self.chips += [values["href"]] if tag == "a" and values.get("class") == "chip" else []


def _page(out: Path) -> _Page:
    return _Page((out / "report.html").read_text())


def test_report_needs_no_network(results: Path) -> None:
    text = (results / "report.html").read_text()
    page = _Page(text)
    # Nothing is loaded; a reader may follow a link to a table beside the page.
    assert not [link for link in page.links if not link.startswith(("data:", "#")) and link not in page.files]
    assert page.files
    assert not [name for name in page.files if not (results / name).is_file()]
    assert ["default-src 'none'" in policy for policy in page.policies] == [True]
    assert not re.findall(r"url\(\s*['\"]?(?!data:|#)[^)]*\)", text)
    assert "@import" not in text
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not re.findall(r"<script[^>]*src=|fetch\(|XMLHttpRequest|sendBeacon|WebSocket|import\(", text)


def test_the_report_runs_its_own_script_and_no_other(results: Path) -> None:
    """The policy names the digest of the one script that is there; nothing inline is allowed otherwise."""
    text = (results / "report.html").read_text()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"script-src ([^;]*)", unescape(_page(results).policies[0])) == [
        f"'sha256-{digests[0]}'"
    ]
    assert len(scripts) == 1
    assert not re.findall(r"<[a-z]+ [^>]*\bon[a-z]+=", text)


def test_embedded_images_need_no_network(results: Path) -> None:
    page = _page(results)
    assert len(page.images) == len(FIGURES)
    for name, source in zip(FIGURES, page.images, strict=True):
        kind, _, data = source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        svg = base64.b64decode(data)
        # The caption stands under the picture as text, which wraps on a phone.
        saved = (results / f"{name}.svg").read_bytes()
        assert svg == saved.replace(b'<g id="caption">', b'<g display="none">') != saved
        text = svg.decode()
        assert not [
            link for link in re.findall(r"(?:href|src)=\"([^\"]*)\"", text) if not link.startswith("#")
        ]
        assert not re.findall(r"url\(\s*['\"]?(?!data:|#)[^)]*\)", text)


def test_every_chip_leads_to_a_row(results: Path) -> None:
    page = _page(results)
    assert page.rows == [
        claim.id for name in LEDGER if name not in LANGUAGE_MODELS for claim in study(name).claims
    ]
    assert page.chips
    assert not [chip for chip in page.chips if chip.removeprefix("#") not in page.rows]
    assert len(set(page.ids)) == len(page.ids)
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert not set(anchors) - set(page.ids)


def test_a_figure_carries_its_own_claims_only(results: Path) -> None:
    """`fig-1` is not a prefix of a claim on another figure, and so on."""
    sections = (results / "report.html").read_text().split("<section ")
    found = [(name, part) for part in sections if (name := re.match(r'id="fig(\d+)"', part))]
    assert len(found) == len(FIGURES)
    for name, section in found:
        numbers = {int(n) for n in re.findall(r'href="#fig-(\d+)', section)}
        assert numbers <= {int(name[1])}


def _rows(out: Path) -> dict[str, str]:
    """The ledger's rows by claim."""
    parts = (out / "report.html").read_text().split('<tr id="')[1:]
    return {part.partition('"')[0]: unescape(part.partition("</tr>")[0]) for part in parts}


def test_every_claim_leads_to_its_figure_setting_command_and_test(results: Path) -> None:
    rows = _rows(results)
    saved = {name: json.loads((results / f"{name}.json").read_text())["command"] for name in FIGURES}
    for claim in json.loads((results / "claims.json").read_text()):
        row = rows[claim["id"]]
        assert unescape(typeset(claim["setting"])) in row
        assert unescape(typeset(claim["statistic"])) in row
        assert f"python -m pytest {claim['test']}" in row
        table = claim["experiment"]
        [told] = [one for one in study(table).claims if one.id == claim["id"]]
        assert set(re.findall(r'href="#(\w+)"', row)) == {table, *told.shown_by} & {*FIGURES}
        if table in saved:
            assert f"<code>{saved[table]}</code>" in row
            assert f'href="{table}.csv"' in row
        elif table not in CLAIMS:
            assert f"<code>datadose reproduce {table} --preset quick</code>" in row
        else:
            assert "<code>datadose reproduce claims --preset quick</code>" in row


def test_the_report_of_an_older_folder_has_no_values_but_is_whole(folder: Path) -> None:
    with_records = _page(folder)
    assert [f"hover-{name}" for name in FIGURES] == [i for i in with_records.ids if i.startswith("hover-")]
    for name in FIGURES:
        (folder / f"{name}.hover.json").unlink()
    write_report(folder)
    page = _page(folder)
    assert not [i for i in page.ids if i.startswith("hover-")]
    # Without a record the caption is where it was drawn.
    for name, image in zip(FIGURES, page.images, strict=True):
        assert base64.b64decode(image.partition(",")[2]) == (folder / f"{name}.svg").read_bytes()
    assert page.rows == with_records.rows


def test_the_record_in_the_page_is_the_saved_one(results: Path) -> None:
    text = (results / "report.html").read_text()
    for name in FIGURES:
        found = re.search(rf'id="hover-{name}">(.*?)</script>', text)
        assert found is not None
        assert json.loads(found[1]) == json.loads((results / f"{name}.hover.json").read_text())


def test_the_command_is_escaped(results: Path) -> None:
    text = (results / "report.html").read_text()
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text


def test_the_summary_comes_first_and_counts_the_ledger(results: Path) -> None:
    text = (results / "report.html").read_text()
    order = [text.index(f'id="{name}"') for name in ("summary", "terms", "fig1", "claims")]
    assert order == sorted(order)
    claims = json.loads((results / "claims.json").read_text())
    judged = [claim for claim in claims if claim["verdict"] != "not run"]
    summary = re.sub(r"<[^>]+>", "", text[order[0] : order[1]])
    assert f"3 at preset smoke); {len(judged)} of {len(claims)} claims could be judged" in summary
    told = [
        int(number) for number in re.findall(r"(\d+) (?:hold|fail|are mixed|show no difference)", summary)
    ]
    assert sum(told) == len(judged)
    paper = [claim for claim in judged if claim["verdict"] == "fails" and "ours" not in claim["paper"]]
    assert paper
    assert all(f'<a href="#{claim["id"]}">{claim["paper"]}</a>: ' in text for claim in paper)


def test_every_study_with_a_picture_has_its_part_and_decisions_come_first() -> None:
    shown = [name for names in PARTS.values() for name in names]
    assert sorted(shown) == sorted(set(NAMES) - set(CLAIMS))
    assert shown.index("planner") < shown.index("insight1_selection") < shown.index("fig1")


def test_terms_are_defined_and_no_formula_is_left_in_ascii(results: Path) -> None:
    text = (results / "report.html").read_text()
    terms = text[text.index('id="terms"') : text.index('id="fig1"')]
    for term in ("LSA", "OS", "RL", str(typeset("V~")), str(typeset("V*"))):
        assert f"<dt>{term}</dt>" in terms
    body = re.sub(r"<(script|style|code)\b.*?</\1>|<[^>]+>", " ", text, flags=re.DOTALL)
    assert not re.findall(r"\b(?:V~|Sigma0|Gamma0|L_SFT|lambda_max)|\^\{|<=|&lt;=", body)


def test_a_picture_is_not_shrunk_until_its_letters_cannot_be_read(results: Path) -> None:
    text = (results / "report.html").read_text()
    for name in FIGURES:
        width = re.search(rb'width="([\d.]+)pt"', (results / f"{name}.svg").read_bytes())
        shown = re.search(rf'data-name="{name}" style="min-width:(\d+)px"', text)
        assert width is not None
        assert shown is not None
        # Letters of 8 points are then 9.6 pixels high.
        assert int(shown[1]) == round(0.9 * float(width[1]) * 4 / 3)
    assert text.count('class="small sideways"') == len(FIGURES)


def test_verdict_counts_add_up(results: Path) -> None:
    text = (results / "report.html").read_text()
    counts = re.findall(
        r'<li><a class="chip count"[^>]*><span class="verdict [\w-]+">([\w ]+)</span> (\d+)</a></li>', text
    )
    claims = json.loads((results / "claims.json").read_text())
    assert sum(int(count) for _, count in counts) == len(claims)
    for verdict, count in counts:
        assert int(count) == sum(claim["verdict"] == verdict for claim in claims)


@pytest.mark.parametrize("kept", [(), ("fig1",), ("fig2", "fig5")], ids=["none", "one", "two"])
@pytest.mark.parametrize("with_claims", [True, False], ids=["claims", "no claims"])
def test_report_with_some_figures_only(folder: Path, kept: tuple[str, ...], with_claims: bool) -> None:
    for name in set(FIGURES) - set(kept):
        for kind in ("csv", "json", "svg", "png"):
            (folder / f"{name}.{kind}").unlink()
    if not with_claims:
        (folder / "claims.json").unlink()
    write_report(folder)
    page = _page(folder)
    assert [id_ for id_ in page.ids if id_ in FIGURES] == list(kept)
    assert len(page.images) == len(kept)
    assert bool(page.rows) == with_claims
    assert bool(page.chips) == (with_claims and bool(kept))
    assert not {link[1:] for link in page.links if link.startswith("#")} - set(page.ids)


def test_report_is_the_same_when_written_again(folder: Path) -> None:
    before = (folder / "report.html").read_bytes()
    write_report(folder)
    assert (folder / "report.html").read_bytes() == before


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_redrawn_from_table_and_configuration_alone(
    name: str, results: Path, tmp_path: Path
) -> None:
    """The same PNG and SVG bytes, with nothing else in the folder."""
    for kind in ("csv", "json"):
        shutil.copy(results / f"{name}.{kind}", tmp_path)
    draw_saved(name, tmp_path)
    for kind in ("png", "svg", "hover.json"):
        assert (tmp_path / f"{name}.{kind}").read_bytes() == (results / f"{name}.{kind}").read_bytes()
