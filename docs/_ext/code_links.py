"""Turns names in the text into links: functions, claims, errata and pages.

The Markdown names a function as code (`datadose.theory.sft_minimiser`), which GitHub shows as code. On the
site the same words link to the reference, ids of claims to their verdict, and `docs/x.md` to that page.
Docstrings are plain text with formulas in ASCII: what reStructuredText would take for markup is escaped.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from docutils import nodes
from generated_pages import claim_anchor, kept_claims
from signatures import only_class_called
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config, GoogleDocstring

LONG_NAME = 16
"""Names from this length on may break."""
INCLUDED = {"../CONTRIBUTING.md": "contributing.md", "../CHANGELOG.md": "changelog.md"}
"""Pages of the site that are files of the repository's root."""
_SAFE = re.compile(r"(``.+?``|(?::[\w:]+:)?`[^`\n]+`)", re.DOTALL)


def escape_formulas(_app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape `*`, `|`, backslashes and trailing underscores outside of code; link `docs/x.md`."""
    escaped = []
    for index, part in enumerate(_SAFE.split("\n".join(lines))):
        if index % 2 == 0:
            plain = re.sub(r"([\\*|])", r"\\\1", part)
            plain = re.sub(r"(?<=\w)_(?![\w{])", r"\\_", plain)
            escaped.append(re.sub(r"docs/([\w/]+)\.md", r":doc:`docs/\1.md </\1>`", plain))
        else:
            role = re.fullmatch(r":(func|class|mod|meth|exc):`(\w+)`", part)
            home = _home_of(role[2], obj, name) if role else None
            escaped.append(f":{role[1]}:`~{home}`" if role and home else part)
    lines[:] = "".join(escaped).split("\n")
    # Sections such as Args. Not by the extension, which reads "a: b" under an attribute as a type.
    if what not in ("attribute", "data", "property"):
        # An entry of "Raises" is one item with line ends in it.
        sections = "\n".join(GoogleDocstring(lines, Config(), what=what, name=name).lines()).split("\n")
        lines[:] = [
            f":raises {f'~{home}' if (home := _home_of(raised[1], obj, name)) else raised[1]}:{raised[2]}"
            if (raised := re.match(r":raises (\w+):(.*)", line))
            else line
            for line in sections
        ]


def _home_of(word: str, documented: Any, name: str) -> str | None:
    """The full name of ``word`` as the documented object's module knows it: two modules may share a word."""
    parts = name.split(".")
    modules = [
        getattr(documented, "__module__", None),
        *(".".join(parts[:cut]) for cut in range(len(parts), 0, -1)),
    ]
    module = next(sys.modules[module] for module in modules if module in sys.modules)
    found = getattr(module, word, None) or only_class_called(word)
    home, own = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    return f"{home}.{own}" if home and own else None


def _definition(name: str) -> str:
    """Where the object that ``name`` stands for is documented: its module and qualified name."""
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError):
        return name
    # A module has neither.
    home, own = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    return f"{home}.{own}" if home and own else name


def _link_code(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    claims = {claim["id"] for claim in kept_claims()}
    for literal in list(doctree.findall(nodes.literal)):
        text = literal.astext()
        if isinstance(literal.parent, nodes.reference | pending_xref):
            continue
        attributes: dict[str, Any] | None = None
        if re.fullmatch(r"datadose(\.\w+)+", text):
            attributes = {"refdomain": "py", "reftype": "obj", "reftarget": _definition(text)}
        elif text in claims and docname != "results":
            attributes = {"refdomain": "std", "reftype": "ref", "reftarget": claim_anchor(text)}
        elif (page := re.fullmatch(r"docs/([\w/]+)\.md", text)) and page[1] in app.env.found_docs:
            attributes = {"refdomain": "std", "reftype": "doc", "reftarget": f"/{page[1]}"}
        if attributes is None:
            continue
        link = pending_xref("", refdoc=docname, refexplicit=True, refwarn=False, **attributes)
        literal.replace_self(link)
        link += literal


def _keep_inside(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links that leave docs/, which GitHub follows: to the page that holds the file, else the words alone."""

    def rewritten(link: re.Match[str]) -> str:
        text, target = link[1], link[2]
        inside = Path(os.path.normpath(Path(docname).parent / target.partition("#")[0]))
        if inside.parts[:1] != ("..",):
            return link[0]
        page = INCLUDED.get(str(inside))
        return text if page is None else f"[{text}]({os.path.relpath(page, Path(docname).parent)})"

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)\s]+)\)", rewritten, source[0])


def _number_errata(app: Sphinx, doctree: nodes.document) -> None:
    """Give every row of the errata's table the anchor `erratum-N`; GitHub's table has none."""
    if app.env.docname != "errata":
        return
    slugs = app.env.metadata["errata"].setdefault("myst_slugs", {})
    for row in doctree.findall(nodes.row):
        number = row.children[0].astext()
        if number.isdigit():
            row["ids"].append(f"erratum-{number}")
            slugs[f"erratum-{number}"] = (row.line or 0, f"erratum-{number}", f"erratum {number}")


def _allow_breaks(app: Sphinx, doctree: nodes.document, _docname: str) -> None:
    """Let long names break after a dot, a slash or an underscore, and not within a word."""
    if app.builder.format != "html":
        return
    for literal in list(doctree.findall(nodes.literal)):
        text = literal.astext()
        if len(text) < LONG_NAME or " " in text or len(literal.children) != 1:
            continue
        pieces = re.split(r"(?<=[./_:])(?=\w)", text)
        literal.children = []
        for index, piece in enumerate(pieces):
            if index:
                literal.append(nodes.raw("", "<wbr>", format="html"))
            literal.append(nodes.Text(piece))


def _forget_unknown(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Node) -> Any:
    """Leave a name that is not documented as code, without a complaint."""
    return contnode if node.get("refwarn") is False and node["refdomain"] == "py" else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    # Before napoleon, which takes the sections apart.
    app.connect("autodoc-process-docstring", escape_formulas, priority=100)
    app.connect("source-read", _keep_inside)
    app.connect("doctree-read", _link_code)
    app.connect("doctree-read", _number_errata)
    app.connect("doctree-resolved", _allow_breaks)
    app.connect("missing-reference", _forget_unknown, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
