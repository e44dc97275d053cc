"""Pages whose body is computed at build time: the command line from its parser, results from what is kept.

A page with an entry in PAGES ends with what its function returns, as Markdown. Nothing is written beside the
sources.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from sphinx.application import Sphinx

from datadose.cli import _parser
from datadose.studies.index import LANGUAGE_MODELS, NAMES, study

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "results"
LEDGERS = (
    "claims.json",
    "studies-claims.json",
    "levels-claims.json",
    "sea-claims.json",
    "sea_methods-claims.json",
    "sea_forecast-claims.json",
    "sea_rl-claims.json",
    "sea_smollm-claims.json",
    "fig3path-claims.json",
    "fig3map-paper-claims.json",
    "fig3paper-medium-claims.json",
)
"""Of preset quick, and of the one preset at which a study was run."""
VERDICTS = ("holds", "mixed", "no difference", "fails", "not run")
LONG = 12
"""Settings list at most this many values of a grid."""


@cache
def kept_claims() -> list[dict[str, Any]]:
    """The kept verdicts: the paper's claims, then those of studies that are run apart."""
    return [claim for name in LEDGERS for claim in json.loads((KEPT / name).read_text(encoding="utf-8"))]


def claim_anchor(identity: str) -> str:
    """The anchor of a claim's row on the page of results."""
    return "claim-" + identity.lower().replace(".", "-")


def command_line() -> str:
    """`--help` of the program and of every command, from the parser itself."""
    # argparse wraps lines to the terminal; a page has no terminal.
    os.environ["COLUMNS"] = "84"
    parser = _parser()
    blocks = ["## datadose", _shell(parser.format_help())]
    for name, command in sorted(_commands(parser)):
        blocks += [f"## datadose {name}", _shell(command.format_help())]
    return "\n\n".join(blocks)


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _shell(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


def results() -> str:
    """Verdict counts, every kept picture with its story, then the verdict table."""
    claims = kept_claims()
    counts = Counter(claim["verdict"] for claim in claims)
    told = ", ".join(f"{counts[verdict]} {_badge(verdict)}" for verdict in VERDICTS if counts[verdict])
    blocks = [
        "## Verdicts in numbers",
        f"Of {len(claims)} claims: {told}. [All of them, with their statistics](#every-verdict).",
        "## Pictures",
    ]
    for name in NAMES:
        stems = sorted(path.stem for path in KEPT.glob("*.png") if path.stem.split("-")[0] == name)
        blocks += [_picture(stem, alone=stem == stems[0]) for stem in stems]
    blocks += ["## Every verdict", _verdict_table(claims)]
    return "\n\n".join(blocks)


def _picture(stem: str, *, alone: bool) -> str:
    """One kept picture: its story, the command that made it, its configuration and the claims it bears on."""
    name, _, preset = stem.partition("-")
    preset = preset or "quick"
    one: Any = study(name)
    command = f"datadose reproduce {name} --preset {preset}"
    if name in LANGUAGE_MODELS:
        command = f"make {name.replace('_', '-')}"
    shown = {
        claim.id
        for other in map(study, NAMES)
        for claim in other.claims
        if name in (other.name, *claim.shown_by)
    }
    borne = [c for c in _claims_at(preset) if c["id"] in shown]
    lines = [f"### {one.title}" + ("" if preset == "quick" else f", preset {preset}")]
    if alone:
        lines.append(one.story)
    lines += [f"![{one.title}](results/{stem}.png)", f"```\n{command}\n```"]
    if borne:
        judged = "Claims" if preset == "quick" else f"Claims at preset {preset} (the table below is of quick)"
        links = ", ".join(f"{_claim_link(c['id'])} {_badge(c['verdict'])}" for c in borne)
        lines.append(f"{judged}: {links}.")
    config = _short(asdict(one.experiment.preset(preset)))
    settings = yaml.safe_dump(config, sort_keys=False, width=90, default_flow_style=None)
    lines += [
        "<details><summary>Setting (the preset's configuration)</summary>",
        f"```yaml\n{settings}```",
        "</details>",
    ]
    return "\n\n".join(lines)


def _claims_at(preset: str) -> list[dict[str, Any]]:
    """The kept verdicts of a preset; a verdict of another preset says nothing about its pictures."""
    if preset == "quick":
        return kept_claims()
    ledgers = sorted(KEPT.glob(f"*-{preset}-claims.json"))
    return [claim for path in ledgers for claim in json.loads(path.read_text(encoding="utf-8"))]


def _short(value: Any) -> Any:
    """The configuration with long grids cut to their ends."""
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if len(value) > LONG:
            return f"{value[0]}, {value[1]}, ..., {value[-1]} ({len(value)} values)"
        return [_short(item) for item in value]
    return value


def _verdict_table(claims: list[dict[str, Any]]) -> str:
    rows = ["| Claim | Verdict | Statement, and what was measured |", "|---|---|---|"]
    for claim in claims:
        identity = f"[`{claim['id']}`]{{#{claim_anchor(claim['id'])}}}<br>{_cell(claim['paper'])}"
        cells = (identity, _badge(claim["verdict"]), f"{_cell(claim['statement'])}<br>{_measured(claim)}")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _measured(claim: dict[str, Any]) -> str:
    told = f"Statistic: {_cell(claim['statistic'])}"
    if claim["threshold"] is not None:
        told += f"; threshold {claim['threshold']:.4g}"
    if claim["value"] is not None:
        told += f"; measured **{claim['value']:.4g}**"
    if claim["interval"]:
        told += " in \\[{:.4g}, {:.4g}\\]".format(*claim["interval"])
    if claim["seeds"]:
        told += f", {claim['seeds']} seeds"
    if claim["note"]:
        told += f". {_cell(claim['note'])}"
    return f"[{told}.]{{.measured}}"


def _cell(text: str) -> str:
    """Plain text in a Markdown table: nothing in it is markup but `code`."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return re.sub(r"([\\`*_|<>\[\]$])", r"\\\1", text)
    parts[::2] = [re.sub(r"([\\*_|<>\[\]$])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _badge(verdict: str) -> str:
    return f"[{verdict}]{{.verdict .{verdict.replace(' ', '-')}}}"


def _claim_link(identity: str) -> str:
    return f"[`{identity}`](#{claim_anchor(identity)})"


PAGES: dict[str, Callable[[], str]] = {"reference/command_line": command_line, "results": results}


def _complete(_: Sphinx, docname: str, source: list[str]) -> None:
    if docname in PAGES:
        source[0] = f"{source[0].rstrip()}\n\n{PAGES[docname]()}\n"


def _always_again(app: Sphinx, *_: Any) -> list[str]:
    """What these pages are computed from is not among their sources: read them at every build."""
    return [name for name in PAGES if name in app.env.found_docs]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("source-read", _complete)
    app.connect("env-get-outdated", _always_again)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
