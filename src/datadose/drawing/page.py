"""A page that holds everything it shows: style and script are inside, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from datadose.drawing.formulas import typeset

CAPTION = "caption"
"""The key, in the record of a picture's points, of the text below it; in the picture the id of that text."""


def render_page(template: str, *, scripts: Sequence[str] = (), **values: Any) -> str:
    """A page of ``templates/`` with the ``scripts`` inside; whatever else the page holds cannot run.

    The policy of the page names its one script by the digest of its text; nothing is loaded from elsewhere.
    The filter ``formulas`` typesets the formulas of a text.
    """
    environment = Environment(
        loader=PackageLoader("datadose"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["formulas"] = typeset
    parts = "".join(environment.get_template(name).render() for name in scripts)
    script = f'\n"use strict";\n(() => {{\n{parts}}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
        + (f"; script-src 'sha256-{digest}'" if scripts else "")
    )
    return environment.get_template(template).render(script=Markup(script), policy=policy, **values)
