"""How the documentation is built: `make docs`, or `python -m sphinx -W -n docs site`. Works offline."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from datadose._version import __version__  # noqa: E402

project = "datadose"
author = "The datadose authors"
project_copyright = author
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    # MathJax with its fonts, inside the site. KaTeX would need its stylesheet and fonts from somewhere else.
    "sphinx-mathjax-offline",
    "myst_parser",
    "sphinx_copybutton",
    "generated_pages",
    "notebooks",
    "code_links",
    "signatures",
    "displayed_maths",
    "offline_links",
]
exclude_patterns = ["_ext", "_static"]

# Markdown as GitHub reads it. The extensions beyond that are for generated text only (anchors of claims).
myst_enable_extensions = ["amsmath", "attrs_inline", "dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 4

default_role = "code"
add_module_names = False
# Counted with full module names, which are not shown.
maximum_signature_line_length = 150
python_use_unqualified_type_names = True
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "ignore-module-all": True,
}
# Annotations come from `_ext/signatures.py`.
autodoc_typehints = "none"
autodoc_preserve_defaults = True

# With -n every name in a signature is a reference. Those below lead out of the package, and without a network
# there is nothing to link them to; names of the package that are not public are not documented on purpose.
nitpick_ignore_regex = [
    (r"py:.*", r"(numpy|np|torch|nn|pd|pandas|scipy|stats|matplotlib|pydantic|argparse|transformers)\..*"),
    (
        r"py:.*",
        r"(collections|collections\.abc|typing|pathlib|types|contextlib|dataclasses|enum|functools)\..*",
    ),
    (r"py:.*", r"(.*\.)?_\w+"),
    (r"py:.*", r"NDArray|ArrayLike|Field|datadose\.configs\.Config|Config|E|Bool|Float|Inexact|Int"),
]

# MathJax's letters stand taller than the text's.
mathjax3_config = {"chtml": {"scale": 0.94}}

html_theme = "furo"
html_title = f"datadose {version}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = ["wide_maths.js"]
html_show_sourcelink = False
html_show_sphinx = False
html_copy_source = False


def _colours(scheme: str) -> dict[str, str]:
    """The colours of the report's style sheet, light or dark: the site has the same, written down once."""
    sheet = (ROOT / "src/datadose/templates/look.css").read_text(encoding="utf-8")
    light, _, dark = sheet.partition("@media (prefers-color-scheme: dark)")
    return dict(
        re.findall(r"--(\w+):(#[0-9A-Fa-f]{3,6})", dark.split("} }")[0] if scheme == "dark" else light)
    )


def _furo(scheme: str) -> dict[str, str]:
    colour = _colours(scheme)
    own = {f"datadose-{name}": value for name, value in colour.items()}
    return own | {
        "color-brand-primary": colour["link"],
        "color-brand-content": colour["link"],
        "color-brand-visited": colour["link"],
        "color-foreground-primary": colour["ink"],
        "color-foreground-secondary": colour["soft"],
        "color-foreground-muted": colour["soft"],
        "color-foreground-border": colour["line"],
        "color-background-primary": colour["paper"],
        "color-background-secondary": colour["tint"],
        "color-background-hover": colour["line"],
        "color-background-border": colour["line"],
        "color-table-border": colour["line"],
        "color-inline-code-background": colour["tint"],
        "color-api-background": colour["tint"],
        "color-api-background-hover": colour["tint"],
        "font-stack": 'system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif',
        "font-stack--monospace": 'ui-monospace, "DejaVu Sans Mono", monospace',
    }


html_theme_options = {
    "light_css_variables": _furo("light"),
    "dark_css_variables": _furo("dark"),
    "navigation_with_keys": True,
}
