"""Running experiments into a results folder: tables, figures, the ledger and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from datadose.drawing.style import save
from datadose.errors import reject, require_integer
from datadose.files import prepare_folder, write_json, write_recorded_table
from datadose.studies.index import CLAIMS, GPT, GROUPS, LANGUAGE_MODELS, LEDGER, NAMES, study
from datadose.studies.ledger import judge_all
from datadose.studies.report import write_report
from datadose.studies.study import PRESETS, Experiment, Preset, Saved, Study
from datadose.sweep import Workers, run_cells
from datadose.versions import versions


def reproduce(
    targets: Sequence[str],
    *,
    preset: Preset = "quick",
    out: Path = Path("results"),
    seeds: int | None = None,
    workers: Workers | None = None,
    command: str = "",
) -> Path:
    """Run ``targets`` (names in TARGETS or GROUPS) into ``out`` and return it.

    Per experiment: a CSV and a JSON with the resolved configuration; per figure also PNG and SVG; then
    ``claims.json`` (if "claims" or a study is among the targets) and ``report.html`` from all tables that
    ``out`` holds.
    Finished cells are cached in ``out/.cache``: a killed run continues where it stopped.

    Raises InputError for an unknown target or preset, a seeds count below 2, or an ``out`` that is a file.
    """
    for name in targets:
        if name not in NAMES and name not in GROUPS:
            reject("target", name, ", ".join([*NAMES, *GROUPS]))
    wanted = {name for target in targets for name in GROUPS.get(target, (target,))}
    chosen = [study(name) for name in NAMES if name in wanted]
    if preset not in PRESETS:
        reject("preset", preset, ", ".join(PRESETS))
    if preset == "small" and not wanted <= set(GPT):
        reject("preset", preset, f"smoke, quick or paper; small is for {', '.join(GPT)}")
    if seeds is not None:
        require_integer("seeds", seeds, 2)
    prepare_folder("out", out)
    for one in chosen:
        if one.experiment is not None:
            _run(one, one.experiment, preset, seeds, out, workers or Workers(), command)
        draw_saved(one, out)
    if wanted & {*CLAIMS, *LANGUAGE_MODELS}:
        write_json(out / "claims.json", judge_all(_judged(wanted, out), out))
    write_report(out)
    return out


def _judged(wanted: set[str], out: Path) -> list[Study[Any]]:
    """The paper's claims where they were asked for, and those of the studies that were run."""
    paper = wanted & {*CLAIMS} or Saved(study("theorems"), out).exists
    return [
        study(name)
        for name in LEDGER
        if (Saved(study(name), out).exists if name in LANGUAGE_MODELS else paper)
    ]


def _run(
    one: Study[Any],
    experiment: type[Experiment],
    preset: Preset,
    seeds: int | None,
    out: Path,
    workers: Workers,
    command: str,
) -> None:
    config: Any = experiment.preset(preset)
    if seeds is not None:
        config = replace(config, seeds=seeds)
    cache, results = out / ".cache", []
    for made, cells in config.rounds(cache) if hasattr(config, "rounds") else [("", config.cells())]:
        title = f"{one.name}: {made}" if made else one.name
        results = run_cells(cells, cache_folder=cache, workers=workers, title=title)
    write_recorded_table(
        out,
        one.name,
        config.table(results),
        {
            "name": one.name,
            "preset": preset,
            "config": asdict(config),
            "seeds": config.seeds,
            "versions": versions(),
            "command": command,
        },
    )


def draw_saved(one: Study[Any], out: Path) -> None:
    """Draw the figure of a study from the table and configuration saved in ``out``, if it has one."""
    if one.draw is not None:
        saved = Saved(one, out)
        save(one.draw(saved.table, saved.config), out, one.name)
