"""The documentation builds without warnings, a network or a dead link; and what it must hold."""

from __future__ import annotations

import html
import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

from helpers.site_builder import DOCS

pytest.importorskip("sphinx", reason="needs the extra datadose[docs]")

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(DOCS / "_ext"))


def page(site: Path, name: str) -> str:
    return (site / f"{name}.html").read_text(encoding="utf-8")


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    from offline_links import problems_of

    assert problems_of(site) == []


@pytest.mark.parametrize(
    ("markup", "complaint"),
    [
        ('<a href="missing.html">x</a>', "no such file"),
        ('<a href="other.html#nowhere">x</a>', "no such place"),
        ('<a href="#nowhere">x</a>', "no such place"),
        ('<img src="missing.png">', "no such file"),
        ('<a href="https://exa mple">x</a>', "no address"),
        ('<a href="file:///etc/hosts">x</a>', "a scheme"),
        ('<script src="https://example.org/x.js"></script>', "another host"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "another host"),
        ('<link rel="preconnect" href="https://fonts.example.org">', "another host"),
    ],
)
def test_the_check_sees_what_is_wrong(tmp_path: Path, markup: str, complaint: str) -> None:
    from offline_links import problems_of

    (tmp_path / "other.html").write_text('<p id="place">here</p>')
    (tmp_path / "good.html").write_text(
        '<a href="other.html#place">x</a><a href="https://arxiv.org/abs/2603.01293">y</a>'
        '<link rel="canonical" href="https://example.org/">'
    )
    assert problems_of(tmp_path) == []
    (tmp_path / "page.html").write_text(markup)
    found = problems_of(tmp_path)
    assert len(found) == 1
    assert complaint in found[0]


def test_a_style_sheet_that_loads_from_elsewhere_is_seen(tmp_path: Path) -> None:
    from offline_links import problems_of

    (tmp_path / "x.css").write_text(
        '/* https://example.org */ @font-face { src: url("https://example.org/x.woff") }'
    )
    assert len(problems_of(tmp_path)) == 1


def test_every_markdown_page_is_on_the_site(site: Path) -> None:
    pages = [path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")]
    assert [str(path) for path in pages if not (site / path).is_file()] == []


def test_the_public_names_are_documented(site: Path) -> None:
    text = page(site, "reference/public")
    documented = set(re.findall(r'id="datadose\.(\w+)"', text))
    # Sections of docstrings are shown to their last line.
    assert "(exact form) between 1 and rank(A)" in text
    modules = {"models", "stages", "theory"}
    assert set(import_module("datadose").__all__) - modules == documented
    for module in modules:
        assert f'id="module-datadose.{module}"' in page(site, f"reference/{module}")


@pytest.mark.parametrize("package", ["theory", "planner", "models", "stages", "llm.selection"])
def test_what_a_package_exports_is_documented(site: Path, package: str) -> None:
    module = import_module(f"datadose.{package}")
    name = "language_models" if package.startswith("llm") else package
    text = page(site, f"reference/{name}")
    homes = {
        export: f"{getattr(module, export).__module__}.{export}"
        for export in module.__all__
        if hasattr(getattr(module, export), "__qualname__")
    }
    assert [export for export, home in homes.items() if f'id="{home}"' not in text] == []


def test_signatures_are_those_of_the_source(site: Path) -> None:
    shown = re.findall(
        r'<dl class="py (?:function|class)">\s*<dt.*?</dt>', page(site, "reference/theory"), re.DOTALL
    )
    signatures = [html.unescape(re.sub(r"<[^>]+>", "", signature)).strip() for signature in shown]
    assert any(
        s.startswith("sft_minimiser(moments: Moments, eta: float, V0: Operator) → Matrix") for s in signatures
    )
    assert len(signatures) > 50
    # An alias that was resolved to what it stands for.
    assert [signature for signature in signatures if re.search(r"dtype\[|Annotated\[", signature)] == []


def test_the_command_line_is_the_parser_s_own(site: Path) -> None:
    import argparse

    from datadose.cli import _parser

    text = page(site, "reference/command_line")
    commands = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    assert set(re.findall(r"<h2>datadose (\S+?)<a", text)) == set(commands)
    for name, parser in commands.items():
        section = text.partition(f"<h2>datadose {name}<a")[2].partition("<h2>")[0]
        shown = set(re.findall(r"--[\w-]+", html.unescape(re.sub(r"<[^>]+>", "", section))))
        known = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        options = {o for action in known for o in action.option_strings if o.startswith("--")}
        assert options <= shown, name


def test_the_results_are_the_kept_ones(site: Path) -> None:
    from generated_pages import LEDGERS

    text = page(site, "results")
    claims = [claim for name in LEDGERS for claim in json.loads((DOCS / "results" / name).read_text())]
    assert f"Of {len(claims)} claims" in text
    for claim in claims:
        row = re.search(
            rf'<tr[^>]*>(?:(?!</tr>).)*id="claim-{re.escape(claim["id"].lower().replace(".", "-"))}".*?</tr>',
            text,
            re.DOTALL,
        )
        assert row is not None, claim["id"]
        assert f'verdict {claim["verdict"].replace(" ", "-")}"' in row[0], claim["id"]


def test_every_kept_picture_with_a_story_is_shown(site: Path) -> None:
    from datadose.studies.index import NAMES, study

    text = page(site, "results")
    drawn = {name for name in NAMES if study(name).draw is not None}
    kept = [path for path in (DOCS / "results").glob("*.png") if path.stem.split("-")[0] in drawn]
    assert len(kept) >= len(drawn)
    assert [path.name for path in kept if f"_images/{path.name}" not in text] == []


def test_claims_under_a_picture_have_the_verdicts_of_its_own_preset(site: Path) -> None:
    from generated_pages import LEDGERS, claim_anchor

    sections = re.findall(r'<section id="[^"]*">\n<h3>(.*?)</section>', page(site, "results"), re.DOTALL)
    told = 0
    for section in sections:
        picture = re.search(r"_images/([\w-]+)\.png", section)
        assert picture is not None
        preset = picture[1].partition("-")[2]
        ledgers = [DOCS / "results" / name for name in LEDGERS]
        if preset:
            ledgers = list((DOCS / "results").glob(f"*-{preset}-claims.json"))
        kept = {claim_anchor(c["id"]): c["verdict"] for path in ledgers for c in json.loads(path.read_text())}
        shown = re.findall(
            r'href="#(claim-[\w-]+)".*?<span class="verdict[^"]*">([\w ]+)<', section, re.DOTALL
        )
        assert [(name, verdict) for name, verdict in shown if kept[name] != verdict] == []
        told += len(shown) if preset else 0
    assert told > 10


def test_the_theory_page_links_every_function_claim_and_erratum(site: Path) -> None:
    source = (DOCS / "theory" / "index.md").read_text()
    text = page(site, "theory/index")
    named = re.findall(r"`(datadose(?:\.\w+)+)`", source)
    linked = set(re.findall(r'href="[^"]*#(?:module-)?(datadose[\w.]+)"', text))
    unlinked = [
        name for name in named if name not in linked and not any(x.endswith(name[8:]) for x in linked)
    ]
    assert len(named) > 30
    assert unlinked == []
    for anchor in ("claim-thm-b-1-corrected", "claim-exact-asymptotics", "erratum-1", "erratum-12"):
        assert f'#{anchor}"' in text
