"""Running experiments into a results folder: tables, figures, the ledger and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datadose.drawing.style import save
from datadose.errors import listed, reject, require_choice, require_integer
from datadose.files import prepare_folder, write_json, write_recorded_table
from datadose.studies.index import CLAIMS, GROUPS, LANGUAGE_MODELS, LEDGER, NAMES, SIZES, study
from datadose.studies.ledger import judge_all
from datadose.studies.report import write_report
from datadose.studies.study import PRESETS, Preset, Saved, Study
from datadose.sweep import Workers, run_cells
from datadose.versions import versions


@dataclass(frozen=True)
class Run:
    """How studies are run: their sizes, where results go, on how many workers, and the command that asked."""

    preset: Preset
    out: Path
    seeds: int | None
    """Repetitions of every setting, None for those of the preset."""
    workers: Workers
    command: str


def reproduce(
    targets: str | Sequence[str],
    *,
    preset: Preset = "quick",
    out: str | Path = Path("results"),
    seeds: int | None = None,
    workers: Workers | None = None,
    command: str = "",
) -> Path:
    """Run the experiments behind figures and claims into a folder.

    Each study leaves a CSV, a JSON with the resolved configuration, and its picture as PNG and SVG; then come
    ``claims.json`` (if "claims" or a study of language models is among the targets) and ``report.html`` from
    all tables that the folder holds. Finished cells are kept in its ``.cache``: a run that was killed
    continues where it stopped.

    Args:
        targets: names of studies or groups of them, such as ``["fig1", "fig5"]`` or ``"all"``.
        preset: how large the studies are: ``smoke``, ``quick``, ``paper`` or another that a study names.
        out: the folder, made if need be.
        seeds: repetitions >= 2 of every setting; those of the preset unless given.
        workers: where the cells run; one process unless given.
        command: the command line that the configuration files record.

    Returns:
        The folder.

    Raises:
        InputError: an unknown target or preset, a number of seeds below 2, or an ``out`` that is a file.

    Example:
        >>> from datadose import InputError, reproduce
        >>> folder = reproduce("fig5", preset="smoke", out=scratch, seeds=2)
        >>> sorted(path.name for path in folder.glob("fig5.*"))
        ['fig5.csv', 'fig5.hover.json', 'fig5.json', 'fig5.png', 'fig5.svg']
    """
    targets, out = listed(targets), Path(out)
    for name in targets:
        require_choice("target", name, [*NAMES, *GROUPS])
    wanted = {name for target in targets for name in GROUPS.get(target, (target,))}
    require_choice("preset", preset, PRESETS)
    if preset in SIZES and not wanted <= set(SIZES[preset]):
        others = "; ".join(f"{name} for {', '.join(those)}" for name, those in SIZES.items())
        reject("preset", preset, f"smoke, quick or paper; {others}")
    if seeds is not None:
        require_integer("seeds", seeds, 2)
    prepare_folder("out", out)
    run = Run(preset, out, seeds, workers or Workers(), command)
    for name in NAMES:
        if name in wanted:
            _run(study(name), run)
            draw_saved(name, out)
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


def _run(one: Study[Any], run: Run) -> None:
    """Run the cells of a study and write its table."""
    if one.experiment is None:
        return
    config: Any = one.experiment.preset(run.preset)
    if run.seeds is not None:
        config = replace(config, seeds=run.seeds)
    cache, results = run.out / ".cache", []
    for made, cells in config.rounds(cache) if hasattr(config, "rounds") else [("", config.cells())]:
        title = f"{one.name}: {made}" if made else one.name
        results = run_cells(cells, cache_folder=cache, workers=run.workers, title=title)
    write_results(one, config, results, run.preset, run.out, run.command)


def write_results(
    one: Study[Any], config: Any, results: Sequence[Any], preset: Preset, out: Path, command: str
) -> None:
    """Write the table of a study's ``results`` into ``out``, with the record of how it was made."""
    record = {
        "name": one.name,
        "preset": preset,
        "config": asdict(config),
        "seeds": config.seeds,
        "versions": versions(),
        "command": command,
    }
    write_recorded_table(out, one.name, config.table(results), record)


def draw_saved(name: str, out: Path) -> None:
    """Draw the picture of a study, if it has one, from the table and configuration saved in ``out``."""
    saved: Saved[Any] = Saved(study(name), out)
    if saved.study.draw is not None:
        save(saved.study.draw(saved.table, saved.config), out, name)
