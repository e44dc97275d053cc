"""The report stands alone, its links lead somewhere, and figures come from the saved files only."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn

import pytest

import datadose.curves
import datadose.experiments.common
import datadose.experiments.figure5
import datadose.experiments.insight1
from datadose.claims import CLAIMS, Tables, judge_all
from datadose.experiments.common import TwoBlock, grid
from datadose.experiments.figure5 import Figure5
from datadose.experiments.sft_curves import Figure1, Figure2
from datadose.figures.sft import draw_figure1, draw_figure2, draw_figure5
from datadose.files import write_json
from datadose.report import STORIES, write_report
from datadose.reproduction import Target, draw_saved, reproduce

FIGURES = ("fig1", "fig2", "fig5")
_RS = (0.0, 0.01, 0.1)
_SMALL = {
    "fig1": Figure1(
        TwoBlock(10, 5), _RS, (10, 20, 30), grid(range(0, 30, 2)), (10, 20, 30), grid(range(30)), 2
    ),
    "fig2": Figure2(
        TwoBlock(10, 5), _RS, (4, 10, 25), (2, 4, 8, 14), grid(range(2, 26, 4)), (2, 4, 8, 14), 2
    ),
    "fig5": Figure5(TwoBlock(10, 5), 0.1, (20, 100), grid([2, 5, 15, 30]), grid(range(31)), 2),
}
_DRAW = {"fig1": draw_figure1, "fig2": draw_figure2, "fig5": draw_figure5}


@dataclass(frozen=True)
class _Small:
    """A stand-in for an experiment class: every preset is the same tiny configuration."""

    config: Any

    def preset(self, _: str) -> Any:
        return self.config


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny figures 1, 2 and 5 and the ledger judged from them."""
    out = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        targets = {name: Target({name: _Small(_SMALL[name])}, _DRAW[name]) for name in FIGURES}
        patch.setattr("datadose.reproduction.TARGETS", targets)
        reproduce(["all"], preset="smoke", out=out, command="datadose reproduce --out '<b>&'")
    write_json(out / "claims.json", judge_all(CLAIMS, Tables(out)))
    write_report(out)
    return out


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
        self.chips: list[str] = []
        self.images: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.links += [values[name] for name in ("href", "src", "srcset", "action", "data") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        self.rows += [values["id"]] if tag == "tr" and "id" in values else []
        self.images += [values["src"]] if tag == "img" else []
        self.chips += [values["href"]] if values.get("class") == "chip" else []


def _page(out: Path) -> _Page:
    return _Page((out / "report.html").read_text())


def test_report_needs_no_network(results: Path) -> None:
    text = (results / "report.html").read_text()
    page = _Page(text)
    assert not [link for link in page.links if not link.startswith(("data:", "#"))]
    assert not re.findall(r"url\(\s*['\"]?(?!data:|#)[^)]*\)", text)
    assert "@import" not in text
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)


def test_embedded_images_need_no_network(results: Path) -> None:
    page = _page(results)
    assert len(page.images) == len(FIGURES)
    for name, source in zip(FIGURES, page.images, strict=True):
        kind, _, data = source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        svg = base64.b64decode(data)
        assert svg == (results / f"{name}.svg").read_bytes()
        text = svg.decode()
        assert not [
            link for link in re.findall(r"(?:href|src)=\"([^\"]*)\"", text) if not link.startswith("#")
        ]
        assert not re.findall(r"url\(\s*['\"]?(?!data:|#)[^)]*\)", text)


def test_every_chip_leads_to_a_row(results: Path) -> None:
    page = _page(results)
    assert page.rows == [claim.id for claim in CLAIMS]
    assert page.chips
    assert not [chip for chip in page.chips if chip.removeprefix("#") not in page.rows]
    assert len(set(page.ids)) == len(page.ids)
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert not set(anchors) - set(page.ids)


@pytest.mark.parametrize("name", FIGURES)
def test_every_story_names_claims_that_exist(name: str) -> None:
    """A prefix that matches nothing would silently drop a chip."""
    unused = [
        prefix
        for prefix in STORIES[name].claims
        if not any(claim.id == prefix or claim.id.startswith(prefix) for claim in CLAIMS)
    ]
    assert not unused


def test_a_figure_carries_its_own_claims_only(results: Path) -> None:
    """`fig-1` is not a prefix of a claim on another figure, and so on."""
    sections = (results / "report.html").read_text().split("<section ")
    for section in sections[1 : len(FIGURES) + 1]:
        name = re.match(r'id="fig(\d+)"', section)
        assert name is not None
        numbers = {int(n) for n in re.findall(r'href="#fig-(\d+)', section)}
        assert numbers <= {int(name[1])}


def test_the_command_is_escaped(results: Path) -> None:
    text = (results / "report.html").read_text()
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text


def test_verdict_counts_add_up(results: Path) -> None:
    text = (results / "report.html").read_text()
    counts = re.findall(r'<li><span class="verdict [\w-]+">([\w ]+)</span> (\d+)</li>', text)
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


def _no_simulation(*_: object, **__: object) -> NoReturn:
    pytest.fail("drawing a saved figure simulated something")


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_redrawn_from_table_and_configuration_alone(
    name: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same PNG and SVG bytes, with nothing else in the folder and every simulation disabled."""
    for module in (datadose.experiments.common, datadose.experiments.figure5, datadose.experiments.insight1):
        monkeypatch.setattr(module, "sft_error_curve", _no_simulation)
    for function in ("sft_error_curve", "error_curve", "simulate_error"):
        monkeypatch.setattr(datadose.curves, function, _no_simulation)
    monkeypatch.setattr("datadose.reproduction.run_cells", _no_simulation)
    for kind in ("csv", "json"):
        shutil.copy(results / f"{name}.{kind}", tmp_path)
    draw_saved(name, tmp_path)
    for kind in ("png", "svg"):
        assert (tmp_path / f"{name}.{kind}").read_bytes() == (results / f"{name}.{kind}").read_bytes()


def test_drawing_imports_neither_simulation_nor_models() -> None:
    code = (
        "import sys, datadose.figures.sft, datadose.figures.style; "
        "print(*sorted(m for m in sys.modules if m.startswith(('datadose', 'torch'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = done.stdout.split()
    forbidden = ("torch", "datadose.curves", "datadose.models", "datadose.experiments", "datadose.sweep")
    assert not [module for module in loaded if module.startswith(forbidden)]
