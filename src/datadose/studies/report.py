"""The self-contained HTML report: a summary, figures, what they mean, and the ledger. Reads saved files only.

The page holds everything it shows and requests nothing: pictures, the places of their data points
(``NAME.hover.json``, if it is there), style and script are inside. It reads well without its script.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from datadose._version import __version__
from datadose.drawing.page import CAPTION, render_page
from datadose.errors import reject
from datadose.files import check_table, write_atomic
from datadose.reading import read_bytes, read_json
from datadose.studies.index import CLAIMS, GROUPS, NAMES, PARTS, study
from datadose.studies.study import Study

_VERDICTS = ("holds", "mixed", "no difference", "fails", "not run")


def write_report(out: Path, among: Collection[str] = NAMES) -> Path:
    """``out/report.html`` from whatever tables, figures and claims ``out`` holds; no network when opened.

    Of the studies those in ``among`` are shown. Raises InputError for a table that is not the one its figure
    was drawn from.
    """
    ledger = out / "claims.json"
    claims = [_claim(out, claim) for claim in read_ledger(ledger)] if ledger.is_file() else []
    # Studies that train load torch: only those are loaded that have something here to show.
    judged = [name for name in NAMES if any(claim.get("experiment") == name for claim in claims)]
    shown_by = {claim.id: (name, *claim.shown_by) for name in judged for claim in study(name).claims}
    for claim in claims:
        claim["shown_by"] = shown_by.get(claim["id"], ())
    parts = {
        title: [_figure(out, study(name), claims) for name in names if name in among and _drawn(out, name)]
        for title, names in PARTS.items()
    }
    figures = [figure for part in parts.values() for figure in part]
    for claim in claims:
        claim["figures"] = [figure for figure in figures if figure["name"] in claim["shown_by"]]
    verdicts = [claim["verdict"] for claim in claims]
    page = render_page(
        "report.html",
        scripts=("tables.js", "hover.js"),
        parts={title: part for title, part in parts.items() if part},
        summary=summarise(figures, claims),
        claims=claims,
        counts={v: verdicts.count(v) for v in _VERDICTS},
        left_over=[name for name in GROUPS["all"] if name not in CLAIMS and not _drawn(out, name)],
        version=__version__,
    )
    write_atomic(out / "report.html", page)
    return out / "report.html"


_READABLE = 0.9
"""How far a picture may be shrunk: letters of 8 points are then 10 pixels high."""
_OURS = re.compile(r"\b(ours|arXiv|Kopiczko)\b|in this model")
"""What a claim's label has if it is no statement of the paper."""


def summarise(figures: list[dict[str, Any]], claims: list[dict[str, Any]]) -> dict[str, Any]:
    """What was run, and how the claims came out.

    ``presets`` is how many figures each preset made; ``paper`` and ``ours`` are the claims of the paper and
    all others, by verdict; ``labels`` has, by verdict, one of the paper's claims for each of its labels.
    """
    paper: dict[str, list[dict[str, Any]]] = {verdict: [] for verdict in _VERDICTS}
    ours: dict[str, list[dict[str, Any]]] = {verdict: [] for verdict in _VERDICTS}
    labels: dict[str, dict[str, dict[str, Any]]] = {verdict: {} for verdict in _VERDICTS}
    for claim in claims:
        label, verdict = claim.get("paper", ""), claim["verdict"]
        if _OURS.search(label):
            ours.setdefault(verdict, []).append(claim)
        else:
            paper.setdefault(verdict, []).append(claim)
            labels.setdefault(verdict, {}).setdefault(label, claim)
    return {
        "presets": Counter(str(figure["preset"]) for figure in figures),
        "studies": len(figures),
        "judged": sum(claim["verdict"] != "not run" for claim in claims),
        "paper": paper,
        "ours": ours,
        "labels": labels,
    }


_TEXTS = ("id", "statement", "verdict")
_NUMBERS = ("value", "threshold")
_MORE_TEXTS = ("paper", "setting", "statistic", "note", "experiment", "test")


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """The entries of a claims.json; InputError naming the entry and the key of what is none."""
    claims = read_json(path, "out")
    if not isinstance(claims, list):
        reject(
            "out",
            f"{path} with a {type(claims).__name__}",
            "a list of claims, as datadose reproduce writes it",
        )
    for place, claim in enumerate(claims):
        where = f"{path}, entry {place + 1}"
        if not isinstance(claim, dict):
            reject("out", f"{where}: a {type(claim).__name__}", "a claim with id, statement and verdict")
        for key in (*_TEXTS, *_NUMBERS):
            if key not in claim:
                reject("out", f"{where} without {key}", f"claims with {', '.join((*_TEXTS, *_NUMBERS))}")
        for key in (*_TEXTS, *_MORE_TEXTS):
            if not isinstance(claim.get(key, ""), str):
                reject("out", f"{where}: {key} {claim[key]}", "text")
        ends = claim.get("interval") or [None, None]
        if not isinstance(ends, list) or len(ends) != 2:
            reject("out", f"{where}: interval {ends}", "null or a list of two numbers")
        for key, value in (*((key, claim[key]) for key in _NUMBERS), *(("interval", end) for end in ends)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
                reject("out", f"{where}: {key} {value}", "a number or null")
    return claims


def _drawn(out: Path, name: str) -> bool:
    return all((out / f"{name}.{kind}").is_file() for kind in ("svg", "json", "csv"))


def _figure(out: Path, one: Study[Any], claims: list[dict[str, Any]]) -> dict[str, Any]:
    name = one.name
    check_table(out / f"{name}.csv")
    svg = read_bytes("figure", out / f"{name}.svg", "an SVG picture")
    saved = _saved(out, name)
    hover = out / f"{name}.hover.json"
    record = read_json(hover) if hover.is_file() else None
    caption = str(record.get("caption", "")) if isinstance(record, dict) else ""
    kinds = ("csv", "json", "png", "svg")
    return {
        "name": name,
        "title": one.title,
        "text": one.story,
        "image": "data:image/svg+xml;base64," + base64.b64encode(_shown(svg, caption)).decode(),
        "caption": caption,
        "width": _least_width(svg),
        "claims": [claim for claim in claims if name in claim["shown_by"]],
        **{key: saved.get(key, "") for key in ("command", "preset", "seeds")},
        "versions": saved["versions"],
        "files": [f"{name}.{kind}" for kind in kinds if (out / f"{name}.{kind}").is_file()],
        "hover": record,
    }


def _shown(svg: bytes, caption: str) -> bytes:
    """The picture without its caption where the page has it as text, which wraps and keeps its size."""
    return svg.replace(f'<g id="{CAPTION}">'.encode(), b'<g display="none">') if caption else svg


def _least_width(svg: bytes) -> int:
    """The width, in pixels of the page, below which a picture's small print could not be read."""
    found = re.search(rb'<svg[^>]*?\swidth="([\d.]+)pt"', svg)
    return round(_READABLE * float(found[1]) * 4 / 3) if found else 0


def _claim(out: Path, claim: dict[str, Any]) -> dict[str, Any]:
    """An entry of the ledger with where it comes from: its table, and the command that makes it."""
    table = claim.get("experiment", "")
    saved = _saved(out, "theorems" if table == "theory" else table)
    target = "claims" if table in CLAIMS else table
    alone = f"datadose reproduce {target} --preset {saved.get('preset', 'quick')}"
    return {
        **claim,
        "experiment": table,
        "test": claim.get("test", ""),
        "table": f"{table}.csv" if table and (out / f"{table}.csv").is_file() else "",
        "command": (saved.get("command") or alone) if table else "",
        "order": _VERDICTS.index(claim["verdict"]) if claim["verdict"] in _VERDICTS else len(_VERDICTS),
    }


def _saved(out: Path, table: str) -> dict[str, Any]:
    """The record of how a table was made; {} where there is none."""
    path = out / f"{table}.json"
    if not table or not path.is_file():
        return {}
    saved = read_json(path)
    if not isinstance(saved, dict) or not isinstance(saved.get("versions"), dict):
        reject("file", str(path), "a record with versions, as datadose reproduce writes it")
    return saved
