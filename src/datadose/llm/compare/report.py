"""report.html of a comparison: self-contained, for a reader who decides and did not run it."""

from __future__ import annotations

from pathlib import Path

from datadose.drawing.page import render_page
from datadose.files import write_atomic
from datadose.llm.compare.picture import pictures
from datadose.llm.compare.result import Compared
from datadose.llm.compare.table import shown_rows
from datadose.versions import versions


def write_report(found: Compared, out: Path) -> None:
    """Write ``out/report.html``: advice, table, pictures, what was not checked, how the arms were trained."""
    header, rows = shown_rows(found.table)
    page = render_page(
        "compare.html",
        header=header,
        rows=rows,
        words=[name in ("method", "verdict") for name in header],
        found=found,
        setting=found.setting,
        pictures=pictures(found),
        versions=versions("transformers", "trl", "peft"),
    )
    write_atomic(out / "report.html", page)
