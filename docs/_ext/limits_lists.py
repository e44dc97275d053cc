"""`make limits`: the claims that did not come out, as docs/limits.md lists them, after results/claims.json.

Order, values, thresholds and counts are the ledger's. What a failed claim stated is put in words by hand: it
stays as it stands on the page, and for a claim that is new there it is the ledger's statement and statistic.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
_ROW = re.compile(r"^\| `([\w.-]+)` \| (.*) \| [\d.e+-]+ \| [\d.e+-]+ \|\n", re.MULTILINE)
_COUNTS = re.compile(r"Of the \d+ claims \d+ hold, \d+ are mixed and \d+ fail\b")
_MIXED = re.compile(r"(?<=\n\n)`[\w.-]+`(?:,\s`[\w.-]+`)*\.(?=\n\nAt the paper)")
_WIDTH = 128


def with_lists(page: str, claims: list[dict[str, Any]]) -> str:
    """The text of limits.md with counts, table and list of the verdicts of ``claims`` (entries of a ledger).

    Raises ValueError for a verdict that the page does not count, and where the page lacks one of the three.
    """
    named = {
        verdict: [c for c in claims if c["verdict"] == verdict] for verdict in ("holds", "mixed", "fails")
    }
    others = Counter(c["verdict"] for c in claims if c["verdict"] not in named)
    if others:
        raise ValueError(f"verdicts: {dict(others)}; the page counts {', '.join(named)}")
    stated = dict(_ROW.findall(page))
    rows = "".join(_row(claim, stated.get(claim["id"])) for claim in named["fails"])
    counts = (
        f"Of the {len(claims)} claims {len(named['holds'])} hold, {len(named['mixed'])} are mixed and "
        f"{len(named['fails'])} fail"
    )
    listed = ", ".join(f"`{claim['id']}`" for claim in named["mixed"]) + "."
    filled = textwrap.fill(listed, _WIDTH, break_on_hyphens=False, break_long_words=False)
    # The rows stand together: the new ones take the place of all.
    for pattern, text in (
        (re.compile(f"(?:{_ROW.pattern})+", re.MULTILINE), rows),
        (_COUNTS, counts),
        (_MIXED, filled),
    ):
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"page: {len(pattern.findall(page))} places for {text[:40]!r}...; 1 is needed")
        page = pattern.sub(lambda _, text=text: text, page)
    return page


def _row(claim: dict[str, Any], stated: str | None) -> str:
    if stated is None:
        stated = f"{claim['statement'].rstrip('.')} ({claim['statistic']})".replace("|", "\\|")
    return f"| `{claim['id']}` | {stated} | {claim['value']:.3g} | {claim['threshold']:.3g} |\n"


def main() -> None:
    """Rewrite limits.md, and name the rows that are to be put in words."""
    path = DOCS / "limits.md"
    before = path.read_text(encoding="utf-8")
    claims = json.loads((DOCS / "results" / "claims.json").read_text(encoding="utf-8"))
    after = with_lists(before, claims)
    path.write_text(after, encoding="utf-8")
    new = {found[0] for found in _ROW.findall(after)} - {found[0] for found in _ROW.findall(before)}
    for name in sorted(new):
        print(f"put in words what {name} stated", file=sys.stderr)


if __name__ == "__main__":
    main()
