"""Fails the build if a link of the finished site is dead or a page would load something from another host.

Sphinx checks references while it reads; this checks what was written: every `href` and `src` of every page
with its fragment, and every `url()` of a style sheet. Links to other hosts cannot be followed without a
network: their form is checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

_ADDRESS = re.compile(r"https?://[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?(/[^\s<>\"]*)?(#\S*)?", re.IGNORECASE)
_LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
_RELATIONS_NOT_LOADED = {"canonical", "index", "next", "prev", "search", "author", "license"}


@dataclass
class _Page(HTMLParser):
    """The anchors of a page, and what it links to and loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in _LOADING and _LOADING[tag] in given:
            relations = set(given.get("rel", "").split())
            loaded = not relations or relations - _RELATIONS_NOT_LOADED
            (self.loads if loaded else self.links).append(given[_LOADING[tag]])


def problems_of(site: Path) -> list[str]:
    """One line for every dead link, misspelt address and request to another host in the built ``site``."""
    pages: dict[Path, _Page] = {}
    for path in sorted(site.rglob("*.html")):
        if "_static" not in path.relative_to(site).parts:
            pages[path] = _Page()
            pages[path].feed(path.read_text(encoding="utf-8"))
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [f"{name}: {link}: {why}" for link in page.links if (why := _dead(link, path, pages))]
        for link in page.loads:
            parts = urlsplit(link)
            if parts.netloc or parts.scheme not in ("", "data"):
                found.append(f"{name}: loads {link} from another host")
            elif why := _dead(link, path, pages):
                found.append(f"{name}: loads {link}: {why}")
    for sheet in sorted(site.rglob("*.css")):
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text(encoding="utf-8"), flags=re.DOTALL)
        outside = re.findall(r"(?:url\(|@import)\s*[\"']?\s*((?:https?:)?//[^\"')\s]+)", text)
        found += [f"{sheet.relative_to(site)}: loads {address} from another host" for address in outside]
    return found


def _dead(link: str, path: Path, pages: dict[Path, _Page]) -> str:
    """Why ``link`` on the page ``path`` leads nowhere; empty if it leads somewhere."""
    parts = urlsplit(link)
    if parts.scheme in ("http", "https"):
        return "" if _ADDRESS.fullmatch(link) else "no address"
    if parts.scheme == "data":
        return ""
    if parts.scheme or parts.netloc:
        return "a scheme that the site does not use"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return "no such file"
    fragment = unquote(parts.fragment)
    if fragment and target in pages and fragment not in pages[target].anchors:
        return "no such place on that page"
    return ""


def _check(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        found = problems_of(Path(app.outdir).resolve())
        if found:
            raise SphinxError(f"{len(found)} links of the site are wrong:\n" + "\n".join(found))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    # Last: MathJax is copied at the same event.
    app.connect("build-finished", _check, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
