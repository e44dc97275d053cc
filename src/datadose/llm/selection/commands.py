"""The commands to train on a selection and on its controls, and to compare the results.

They are lines for a shell, quoted, to be run where ``datadose select`` was run.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datadose.llm.posttrain_config import PosttrainConfig, Stage
from datadose.llm.selection.chosen import Selection
from datadose.llm.selection.trainer_rows import REWARD, TRAINERS

HELD_OUT = "HELD_OUT.jsonl"
"""In place of a file that only the reader has."""
VERIFIER = "VERIFIER"
"""In place of a verifier where none is recorded."""


@dataclass(frozen=True)
class Command:
    """A line for a shell, and what it does."""

    what: str
    text: str
    trains: bool = True
    """Whether it trains; else it measures what was trained."""


def training_commands(selection: Selection, out: Path, form: str = "trl") -> list[Command]:
    """Train on each set and on its control, then measure all of them on rows that none was trained on.

    Args:
        selection: what was chosen.
        out: the folder that it was written to.
        form: the trainer, one of FORMATS. What a trainer cannot do is a command of ``datadose posttrain``.
    """
    sets: tuple[tuple[Stage, int], ...] = (("sft", len(selection.sft)), ("rl", len(selection.rl)))
    found = []
    for stage in (stage for stage, rows in sets if rows):
        theirs = form != "trl" and not (stage == "rl" and TRAINERS[form].problem is None)
        make = _theirs if theirs else _ours
        controls = (False, True) if selection.has_control(stage) else (False,)
        found += [make(selection, out, form, stage, control=control) for control in controls]
        if form == "trl":
            found += _measured(selection, out, stage)
    return found


def _ours(selection: Selection, out: Path, form: str, stage: Stage, *, control: bool) -> Command:
    """A line of ``datadose posttrain``."""
    record, name = selection.pool.manifest, f"control_{stage}" if control else stage
    model = str(record.get("model", "MODEL"))
    if stage == "rl" and len(selection.sft) and form == "trl":
        model = str(out / "runs" / "sft" / "adapter")
    options: dict[str, Any] = {"model": model, "data": out / f"{name}.jsonl", "stage": stage}
    default = PosttrainConfig(stage)
    settings: dict[str, Any] = {"template_date": record.get("template_date")}
    if stage == "sft":
        settings["loss"] = record.get("loss")
    else:
        group = selection.config.group
        options["verifier"] = record.get("verifier") or VERIFIER
        settings |= {
            "samples": group,
            "batch": default.batch if default.batch % group == 0 else group,
            "temperature": record.get("temperature") or None,
            "max_tokens": record.get("max_tokens"),
            "verifier_timeout": record.get("verifier_timeout"),
        }
    options |= {
        key: value for key, value in settings.items() if value is not None and value != getattr(default, key)
    }
    line = _line("posttrain", {**options, "out": out / "runs" / name})
    return Command(_what(selection, form, stage, control=control), line)


def _what(selection: Selection, form: str, stage: Stage, *, control: bool) -> str:
    if control and stage == "sft" and selection.weights is not None:
        return "the same rows, drawn equally often"
    if control:
        return "the same on its random control"
    if stage == "sft":
        return f"SFT on {selection.sizes['sft'] + selection.sizes['replay']} rows"
    said = f"RL on {selection.sizes['rl']} prompts"
    if form == "trl":
        return f"{said}, from the weights of SFT" if len(selection.sft) else said
    if TRAINERS[form].problem is None:
        return f"{said}, with TRL, since {form} has no RL with a verifier; from the base model"
    known = selection.pool.manifest.get("verifier") is not None
    reward = f"the verifier is its reward ({REWARD})" if known else f"it needs your {REWARD} there"
    return f"{said}; {reward}, and it begins with the base model unless you change its path"


def _measured(selection: Selection, out: Path, stage: Stage) -> list[Command]:
    """Score both runs on rows that are in no file of the selection."""
    record, found = selection.pool.manifest, []
    options: dict[str, Any] = {}
    if stage == "rl":
        options = {"samples": selection.config.group, "verifier": record.get("verifier") or VERIFIER}
        if (limit := record.get("max_tokens")) is not None:
            options["max_tokens"] = limit
    for name in (stage, f"control_{stage}") if selection.has_control(stage) else (stage,):
        run = out / "runs" / name
        line = _line(
            "score", {"model": run / "adapter", "pool": HELD_OUT, **options, "out": run / "held-out"}
        )
        what = f"measure {'SFT' if stage == 'sft' else 'RL'} on rows of yours that are in no file here"
        found.append(Command(what if name == stage else "the same for the control", line, trains=False))
    return found


def _line(command: str, options: Mapping[str, Any]) -> str:
    """A command of datadose; a value that begins like an option is tied to its own."""
    words = ["datadose", command]
    for key, value in options.items():
        name, text = f"--{key.replace('_', '-')}", str(value)
        words += [f"{name}={text}"] if text.startswith("-") else [name, text]
    return shlex.join(words)


def _theirs(selection: Selection, out: Path, form: str, stage: Stage, *, control: bool) -> Command:
    """Another trainer on the files in its folder; the control in a folder apart: no run overwrites another.

    There the control's file has the name of the set, so that the same configuration serves both.
    """
    trainer, here = TRAINERS[form], out / form
    launch, what = trainer.launch.format(stage=stage), _what(selection, form, stage, control=control)
    if not control:
        return Command(what, _inside(here, launch))
    there = out / "control" / form
    copies = [here / name.format(stage=stage) for name in trainer.configuration]
    copies += [here / REWARD] * (stage == "rl")
    lines = [
        _join("mkdir", "-p", there),
        _join("cp", here / f"control_{stage}{trainer.suffix}", there / f"{stage}{trainer.suffix}"),
        _join("cp", *copies, there),
        _inside(there, launch),
    ]
    return Command(what, " && ".join(lines))


def _inside(folder: Path, launch: str) -> str:
    return f"({_join('cd', folder)} && {launch})"


def _join(*words: str | Path) -> str:
    return shlex.join(str(word) for word in words)


def in_lines(commands: Sequence[Command]) -> list[str]:
    """The commands that train for a terminal, each under a comment of what it does."""
    return [line for one in commands if one.trains for line in (f"# {one.what}", one.text)]
