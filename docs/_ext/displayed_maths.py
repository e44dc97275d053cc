r"""Hands displayed formulas to MathJax as they are written.

Sphinx wraps a formula that contains `\\` in `split`, which may not hold a `\tag`, and cuts it at blank lines.
GitHub does neither, and the same files are read there.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx


def _unwrap(_: Sphinx, doctree: nodes.document) -> None:
    for formula in doctree.findall(nodes.math_block):
        if formula.get("no-wrap", formula.get("nowrap", False)):
            continue
        text = re.sub(r"\n\s*\n", "\n", formula.astext()).strip()
        formula.children = [nodes.Text(rf"\[{text}\]")]
        formula["no-wrap"] = True
        formula["nowrap"] = True


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("doctree-read", _unwrap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
