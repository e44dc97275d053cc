"""Notebooks as pages of the site, and their cells executed without Jupyter.

A page of docs/notebooks is Markdown made of its cells: texts, code, and what the notebook holds as their
outputs. `python docs/_ext/notebooks.py` executes all cells and stores what they show; a test executes them
and compares (tests/docs/test_notebooks.py).
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
_DPI = 72


def markdown(notebook: dict[str, Any]) -> str:
    """The notebook as Markdown, with the outputs that it holds."""
    blocks = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(text)
        else:
            blocks.append(f"```python\n{text}\n```")
            blocks += map(_shown, cell["outputs"])
    return "\n\n".join(blocks) + "\n"


def _shown(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="What the cell draws" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        # A blank line would end the HTML.
        return "\n".join(line for line in "".join(data["text/html"]).splitlines() if line.strip())
    return f"```text\n{plain(output)}```"


def plain(output: dict[str, Any]) -> str:
    """An output as text; empty for a picture."""
    found = output["text"] if output["output_type"] == "stream" else output["data"].get("text/plain", [])
    text = "".join(found).rstrip()
    return f"{text}\n" if text else ""


def execute(notebook: dict[str, Any], folder: Path) -> list[list[dict[str, Any]]]:
    """The outputs of every code cell, as a notebook holds them, executed in order in ``folder``."""
    import matplotlib as mpl  # noqa: PLC0415  (a build of the site executes nothing)

    mpl.use("agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    with contextlib.chdir(folder):
        return [_outputs(source, names) for source in sources]


def _outputs(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    from matplotlib import pyplot  # noqa: PLC0415

    tree, value = ast.parse(source), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        # dont_inherit: this file's `from __future__ import annotations` is not the notebook's.
        exec(compile(tree, "notebook", "exec", dont_inherit=True), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "notebook", "eval", dont_inherit=True), names)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
    if value is not None and not source.rstrip().endswith(";"):
        data = {"text/plain": _lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = _lines(value._repr_html_())
        found.append({"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": None})
    for number in pyplot.get_fignums():
        buffer = io.BytesIO()
        pyplot.figure(number).savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
        image = {"image/png": base64.b64encode(buffer.getvalue()).decode()}
        found.append({"output_type": "display_data", "data": image, "metadata": {}})
    pyplot.close("all")
    return found


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _read(_: Sphinx, docname: str, source: list[str]) -> None:
    if docname.startswith("notebooks/"):
        source[0] = markdown(json.loads(source[0]))


def setup(app: Sphinx) -> dict[str, bool]:
    """Read notebooks as Markdown."""
    app.add_source_suffix(".ipynb", "markdown")
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _store(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        outputs = iter(execute(notebook, Path(folder)))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = next(outputs)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for chosen in [Path(name) for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
        _store(chosen)
