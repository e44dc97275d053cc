"""report.html: self-contained, for a reader who did not run the selection. And the same for a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from datadose.covariance import Array
from datadose.drawing.page import render_page
from datadose.files import write_atomic
from datadose.llm.pool import for_trl
from datadose.llm.scores import Scores
from datadose.llm.selection.arrays import Indices, numbers, stream
from datadose.llm.selection.choose import Selection
from datadose.llm.selection.filters import describe_beyond
from datadose.llm.selection.picture import pictures
from datadose.llm.selection.rl_set import describe_rl
from datadose.printing import shortened
from datadose.versions import versions

_EXAMPLES, _REMOVED = 4, 2
_BARS = "▁▂▃▄▅▆▇█"
_LONGEST = 600
"""Characters of a prompt or completion that the report shows."""


def write_report(selection: Selection, pool: Scores, reference: Scores | None, out: Path) -> None:
    """``out/report.html``: sizes, filters with counts and reasons, histograms, example rows."""
    page = render_page(
        "selection.html",
        selection=selection,
        funnels=_funnels(selection),
        pictures=pictures(selection),
        beyond=describe_beyond(selection.filters_of("sft"), selection.sizes["sft"]),
        rl_told=describe_rl(selection.rl_record, selection.sizes["rl"]),
        examples=_examples(selection, pool, reference),
        model=pool.manifest.get("model", "a model"),
        versions=versions(),
    )
    write_atomic(out / "report.html", page)


def _funnels(selection: Selection) -> list[dict[str, Any]]:
    """The filters of each set, with the share of the pool that each removed and left."""
    total = max(1, selection.sizes["pool"])
    found = []
    for name, title in (("sft", "SFT set"), ("rl", "RL set")):
        rows = [
            {**f, "width": 100 * f["left"] / total, "cut": 100 * f["removed"] / total}
            for f in selection.filters_of(name)
        ]
        if rows:
            drawn = selection.sizes[name]
            found.append(
                {"name": name, "title": title, "filters": rows, "drawn": drawn, "width": 100 * drawn / total}
            )
    return found


def _examples(selection: Selection, pool: Scores, reference: Scores | None) -> list[dict[str, Any]]:
    """A few rows of each set and of what each filter removed."""
    rng = stream(selection.config.seed, "order")
    groups: list[tuple[str, Scores, Indices, int]] = []
    if len(selection.sft):
        groups.append(("In the SFT set", pool, selection.sft, _EXAMPLES))
    if reference is not None and len(selection.replay):
        groups.append(("Replayed from the reference", reference, selection.replay, _REMOVED))
    if len(selection.rl):
        groups.append(("In the RL set", pool, selection.rl, _EXAMPLES))
    for name, removed_by in (("sft", selection.sft_removed), ("rl", selection.rl_removed)):
        for place, f in enumerate(selection.filters_of(name)):
            rows = np.flatnonzero(removed_by == place)
            repeated = name == "rl" and f["name"] in ("unscored", "duplicate question", "in the SFT set")
            if len(rows) and not repeated:
                groups.append((f"Removed from the {name.upper()} set: {f['name']}", pool, rows, _REMOVED))
    found = []
    for title, scores, rows, count in groups:
        some = np.sort(rng.choice(rows, min(count, len(rows)), replace=False))
        lines = zip(scores.lines(some), some, strict=True)
        shown = [_shown(row, selection, index, scores is pool) for row, index in lines]
        found.append({"title": title, "rows": shown, "count": len(rows)})
    return found


def _shown(row: dict[str, Any], selection: Selection, index: int, in_pool: bool) -> dict[str, Any]:
    row, facts = for_trl(row), []
    if row.get("issue"):
        facts.append(str(row["issue"]))
    if row.get("nll") is not None:
        facts.append(f"NLL {row['nll']:.2f}")
    if row.get("tokens") is not None:
        facts.append(f"{row['tokens']} tokens")
    if row.get("pass_rate_total"):
        facts.append(f"{row['pass_rate_passed']} of {row['pass_rate_total']} pass")
    if row.get("signal") is not None:
        facts.append(f"signal {row['signal']:.3f}")
    measures = selection.measures
    if in_pool and measures.stratum[index] >= 0:
        facts.append(f"alignment {measures.alignment[index]:+.2f}")
        facts.append(f"reference {measures.interference[index]:+.2f}")
    own = row.get("own_completion")
    if own is not None and row.get("own_differs"):
        confidence = row.get("own_confidence")
        facts.append("own answer differs" + ("" if confidence is None else f", confidence {confidence:.2f}"))
    return {
        "id": row.get("id", index),
        "prompt": _text(row.get("prompt", "")),
        "completion": _text(row.get("completion", "")),
        "own": _text(own) if row.get("own_differs") else None,
        "facts": facts,
    }


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = "\n".join(_said(m) if len(value) == 1 else f"{m['role']}: {_said(m)}" for m in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shortened(text, _LONGEST)


def _said(message: dict[str, Any]) -> str:
    """A message's text; beside a call or a thought, all of it."""
    other = {name: value for name, value in message.items() if name not in ("role", "content")}
    more = f" {json.dumps(other, ensure_ascii=False)}" if other else ""
    return f"{message.get('content') or ''}{more}".strip()


def describe(selection: Selection) -> str:
    """The selection for a terminal: sizes, filters, histograms, what was not checked."""
    sizes, planner = selection.sizes, selection.planner
    lines = [
        f"SFT set {sizes['sft']} rows"
        + (f" and {sizes['replay']} replayed" if sizes["replay"] else "")
        + f", RL set {sizes['rl']} prompts, of {sizes['pool']} rows; random controls of the same sizes",
    ]
    if geometry := selection.geometry:
        lines.append(f"shift: {geometry['shifted_directions']} of {geometry['dimensions']} directions")
    if "prompts" in planner:
        lines.append(
            f"SFT size by the planner (a heuristic): {planner['size']}"
            + (f", its own advice {planner['prompts']} clipped" if planner["clipped"] else "")
        )
    if beyond := describe_beyond(selection.filters_of("sft"), sizes["sft"]):
        lines.append(beyond)
    lines += describe_rl(selection.rl_record, sizes["rl"])
    width = max(len(f["name"]) for f in selection.filters)
    for name in ("sft", "rl"):
        if rows := selection.filters_of(name):
            lines += ["", f"{name.upper() + ' filter':<{width}}  {'removed':>8}  {'left':>8}  why"]
            lines += [f"{f['name']:<{width}}  {f['removed']:>8}  {f['left']:>8}  {f['why']}" for f in rows]
    lines += ["", *_histograms(selection)]
    if selection.unchecked:
        lines += ["", "Not checked:", *(f"- {sentence}" for sentence in selection.unchecked)]
    return "\n".join(lines)


def _histograms(selection: Selection, bins: int = 32) -> list[str]:
    table, measures = selection.pool.table, selection.measures
    columns: list[tuple[str, Array]] = [
        ("NLL, nats per token", numbers(table, "nll")),
        ("completion tokens", numbers(table, "tokens")),
        ("alignment with the target", measures.alignment),
        ("alignment with the reference", measures.interference),
        ("pass rate", numbers(table, "pass_rate")),
    ]
    sets = [("pool", np.flatnonzero(selection.eligible)), ("SFT", selection.sft), ("RL", selection.rl)]
    lines = []
    for title, values in columns:
        known = values[selection.eligible]
        known = known[np.isfinite(known)]
        if len(known) == 0:
            continue
        low, high = np.quantile(known, [0.005, 0.995])
        # No more bins than values: a rate of K samples has K + 1.
        edges = np.linspace(low, high if high > low else low + 1, min(bins, len(np.unique(known))) + 1)
        lines.append(f"{title}: {low:.3g} to {high:.3g}")
        for name, rows in sets:
            if len(rows):
                # The outermost half percent on either side is shown in the end bins.
                shown = np.clip(values[rows][np.isfinite(values[rows])], edges[0], edges[-1])
                counts = np.histogram(shown, edges)[0]
                lines.append(f"  {name:<5}{_bars(counts)}")
    return lines


def _bars(counts: Any) -> str:
    top = max(1, counts.max())
    return "".join(" " if c == 0 else _BARS[min(7, int(8 * c / top))] for c in counts)
