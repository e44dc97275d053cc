"""What was read and how it was understood, and how reliable the samples are: sentences from the manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datadose.llm.left_out import unread_sentences
from datadose.llm.pool import describe_layout
from datadose.llm.scores import Scores
from datadose.llm.selection.arrays import numbers
from datadose.llm.selection.chosen import Selection
from datadose.llm.spoiled import LARGE_SHARE, Spoiled, spoiled_samples

_LOSS = {"last": "the tokens of the completion", "all": "the tokens of all assistant turns"}


@dataclass(frozen=True)
class Source:
    """One scored file."""

    name: str
    """``pool``, ``target`` or ``reference``."""
    facts: dict[str, str]
    """What is known of it, by what it is about; what a manifest does not record is not there."""
    alarms: list[str] = field(default_factory=list)
    """What should be checked before anything is trained."""


def read_sources(selection: Selection, reference: Scores | None) -> list[Source]:
    """The pool, and the target and the reference if there are any."""
    named = (("pool", selection.pool), ("target", selection.target), ("reference", reference))
    return [
        Source(name, _facts(scores), [f"{name}: {alarm}" for alarm in _alarms(scores)])
        for name, scores in named
        if scores is not None
    ]


def _facts(scores: Scores) -> dict[str, str]:
    record = scores.manifest
    rows, issues = len(scores.table), record.get("issues")
    scored = int(scores.table["issue"].isna().sum())
    layout = record.get("layout")
    renamed, options = record.get("renamed_columns"), record.get("columns")
    facts = {
        "file": record.get("pool"),
        "rows": f"{rows:,} rows, {scored:,} without an issue",
        "read as": layout and describe_layout(layout),
        "--columns": _pairs(options, "{} from {}"),
        "renamed columns": _pairs(renamed, "{} is {}"),
        "columns not read": _pairs(record.get("unread_columns"), "{} ({} rows)"),
        "how it was read": layout and "; ".join(layout.get("notes", ())),
        "rows with an issue": _pairs(issues, "{}: {}") or ("none" if issues == {} else None),
        "model": record.get("model"),
        "weights": _joined(record.get("dtype"), record.get("device"), " on "),
        "loss": _LOSS.get(str(record.get("loss"))),
        "template": _template(record),
        "samples": _samples(record),
        "verifier": record.get("verifier"),
    }
    return {about: str(said) for about, said in facts.items() if said}


def _pairs(values: Mapping[str, Any] | None, form: str) -> str:
    return ", ".join(form.format(name, value) for name, value in (values or {}).items())


def _joined(first: Any, second: Any, between: str) -> str:
    return between.join(str(part) for part in (first, second) if part)


def _template(record: Mapping[str, Any]) -> str | None:
    if (kind := record.get("template")) in (None, "none"):
        return kind
    return _joined(kind, record.get("template_date"), "; its clock shows ")


def _samples(record: Mapping[str, Any]) -> str | None:
    """How completions came about; None without any."""
    if record.get("completions") is not None:
        return f"given in {record['completions']}"
    if not (most := record.get("samples")):
        return None
    settings = (("temperature", "temperature {}"), ("max_tokens", "at most {} tokens"), ("seed", "seed {}"))
    said = [form.format(record[name]) for name, form in settings if record.get(name) is not None]
    return ", ".join([f"{'up to ' if record.get('adaptive') else ''}{most} a prompt", *said])


def _alarms(scores: Scores) -> list[str]:
    alarms = unread_sentences(scores.manifest.get("unread_columns") or {})
    rows, issues = len(scores.table), int(scores.table["issue"].notna().sum())
    if issues >= LARGE_SHARE * rows:
        kinds = _pairs(scores.manifest.get("issues"), "{}: {}")
        known = f" ({kinds})" if kinds else ""
        alarms.append(f"{issues:,} of {rows:,} rows have an issue and are in no set{known}")
    return alarms


@dataclass(frozen=True)
class Sampling:
    """How reliable the pool's samples are."""

    facts: list[str]
    alarms: list[str]
    """What spoils so large a share of them that it should be mended first."""


def read_sampling(selection: Selection) -> Sampling | None:
    """What the manifest and the table hold on the pool's samples; None if there are none."""
    pool = selection.pool
    judged = numbers(pool.table, "pass_rate_total")
    sampled = int((judged >= 0).sum())
    if not sampled:
        return None
    record = pool.manifest
    counts = record.get("sampling") or {}
    spoiled = spoiled_samples(counts, record.get("max_tokens"), int(record.get("unfinished") or 0))
    facts = [_amount(counts, record, sampled), *(one.text for one in spoiled if not one.large)]
    known, cut = _cut(pool, range(len(pool.table)))
    if not known:
        facts.append(
            "Whether samples were cut by a limit of tokens is not known: no file says how they ended"
        )
    elif not spoiled:
        facts.append("None was cut by the limit of tokens, broke off in a thought or is missing")
    if cut and len(selection.rl):
        facts.append(
            f"In the RL set {_cut(pool, selection.rl)[1]} of {len(selection.rl)} prompts have a cut sample"
        )
    return Sampling(facts, [_with_share(one) for one in spoiled if one.large])


def alarms_of(sources: Sequence[Source], sampling: Sampling | None) -> list[str]:
    """All that should be mended before anything is trained."""
    found = [alarm for source in sources for alarm in source.alarms]
    return found if sampling is None else found + sampling.alarms


def _with_share(one: Spoiled) -> str:
    return f"{100 * one.share:.0f} percent: {one.text}"


def _amount(counts: Mapping[str, Any], record: Mapping[str, Any], sampled: int) -> str:
    """How many samples there are, and what drawing them adaptively has saved."""
    drawn, most = counts.get("samples"), record.get("samples")
    if drawn is None:
        return f"{sampled:,} rows have samples"
    said = f"{drawn:,} samples of {sampled:,} rows"
    if record.get("adaptive") and most:
        saved = max(0.0, 1 - drawn / (most * sampled))
        said += (
            f", {drawn / sampled:.1f} a row of at most {most}: drawn adaptively, {100 * saved:.0f} percent "
            "fewer than for everybody"
        )
    return said


def _cut(pool: Scores, rows: Sequence[int] | Any) -> tuple[bool, int]:
    """(whether it is known of any of the rows, how many have a sample that was cut)."""
    cut = numbers(pool.table, "truncated")[list(rows)]
    return bool((cut >= 0).any()), int((cut > 0).sum())


def evaluation_files(selection: Selection) -> list[dict[str, Any]]:
    """Of each file given with ``--against``: its name, its rows, the unread and the repeated ones."""
    return list((selection.repeats.get("against") or {}).get("files", ()))


def evaluation_sentence(file: Mapping[str, Any]) -> str:
    """What one evaluation file was read as."""
    unread = f", {file['unread']:,} of them not readable and not looked for" if file["unread"] else ""
    repeated = f"{file['repeated']:,} of its questions are in the pool"
    return f"{file['file']}: {file['rows']:,} rows{unread}; {repeated}"


def source_sentence(source: Source) -> str:
    """The same of a scored file in one line, for a terminal."""
    facts = source.facts
    said = [facts.get("file", "a file that is not recorded"), facts["rows"]]
    if "read as" in facts:
        said.append(f"read as {facts['read as']}")
    return f"{source.name}: {'; '.join(said)}"
