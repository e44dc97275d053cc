"""Running experiments into a results folder: tables, figures, the ledger and the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from datadose.drawing.style import save
from datadose.errors import listed, reject, require_choice, require_integer
from datadose.files import prepare_folder, write_json, write_recorded_table
from datadose.studies.index import CLAIMS, GROUPS, LANGUAGE_MODELS, LEDGER, NAMES, SIZES, named, study
from datadose.studies.ledger import judge_all
from datadose.studies.report import write_report
from datadose.studies.study import FULL, PRESETS, Preset, Saved, Study
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

    @property
    def cache(self) -> Path:
        """Where finished cells are kept."""
        return self.out / ".cache"


def reproduce(
    targets: str | Sequence[str],
    *,
    preset: Preset | Literal["full"] = "quick",
    out: str | Path = Path("results"),
    seeds: int | None = None,
    workers: Workers | None = None,
    command: str = "",
) -> Path:
    """Run the experiments behind figures and claims into a folder.

    Each study leaves a CSV, a JSON with the resolved configuration, and its picture as PNG and SVG; then come
    ``claims.json`` (if "claims" or a study of language models is among the targets) and ``report.html`` from
    all tables that the folder holds, both written again after every study. Finished cells are kept in its
    ``.cache``: a run that was killed continues where it stopped.

    Args:
        targets: names of studies or groups of them, such as ``["fig1", "fig5"]`` or ``"all"``.
        preset: how large the studies are: ``smoke``, ``quick``, ``paper`` or another that a study names.
            ``full`` has the sizes of ``quick``, and of ``all`` it also runs the studies that ``quick`` leaves
            out.
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
    wanted = _wanted(targets, preset)
    if seeds is not None:
        require_integer("seeds", seeds, 2)
    prepare_folder("out", out)
    size: Preset = "quick" if preset == FULL else preset
    run = Run(size, out, seeds, workers or Workers(), command)
    page = _Page(out, wanted)
    _run_all([name for name in NAMES if name in wanted], run, page)
    page.complete()
    return out


def _run_all(order: Sequence[str], run: Run, page: _Page) -> None:
    """Run the studies in this order; each is drawn while the next one runs: this process is idle then."""
    with ThreadPoolExecutor(1) as drawing:
        last: Future[None] | None = None
        for place, name in enumerate(order, 1):
            title = f"target {place} of {len(order)}, {name}" if len(order) > 1 else name
            _run(study(name), run, title)
            if last is not None:
                last.result()
            last = drawing.submit(page.renew, name)
        if last is not None:
            last.result()


def _wanted(targets: Sequence[str], preset: str) -> set[str]:
    """The studies that are asked for; InputError for a target or a preset that there is not."""
    for name in targets:
        require_choice("target", name, [*NAMES, *GROUPS])
    require_choice("preset", preset, [*PRESETS, FULL])
    wanted = named(targets, preset)
    if preset in SIZES and not wanted <= set(SIZES[preset]):
        others = "; ".join(f"{name} for {', '.join(those)}" for name, those in SIZES.items())
        reject("preset", preset, f"smoke, quick, full or paper; {others}")
    return wanted


@dataclass
class _Page:
    """The pictures, the ledger and the report of a results folder, renewed after every study.

    Until all are done it shows those that are: tables of the others may be of another version, or be written
    at the moment.
    """

    out: Path
    wanted: set[str]
    done: set[str] = field(default_factory=set)
    judged: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The entries of the ledger by study."""

    def renew(self, name: str) -> None:
        """Draw the study ``name``, which has been run, judge its claims and write the report."""
        draw_saved(name, self.out)
        self.done.add(name)
        self._judge([name for name in LEDGER if name in self.done])
        write_report(self.out, self.done)

    def complete(self) -> None:
        """Judge what else the folder holds, and what it does not: those claims are not run."""
        self._judge(LEDGER)
        write_report(self.out)

    def _judge(self, names: Iterable[str]) -> None:
        if self.wanted & {*CLAIMS, *LANGUAGE_MODELS}:
            # The paper's claims where they were asked for, and those of the studies that were run.
            paper = self.wanted & {*CLAIMS} or Saved(study("theorems"), self.out).exists
            for name in names:
                if name not in self.judged and (
                    Saved(study(name), self.out).exists if name in LANGUAGE_MODELS else paper
                ):
                    self.judged[name] = judge_all([study(name)], self.out)
            entries = [entry for name in LEDGER for entry in self.judged.get(name, ())]
            write_json(self.out / "claims.json", entries)


def _run(one: Study[Any], run: Run, title: str) -> None:
    """Run the cells of a study and write its table; ``title`` heads its lines of progress."""
    if one.experiment is None:
        return
    config: Any = one.experiment.preset(run.preset)
    if run.seeds is not None:
        config = replace(config, seeds=run.seeds)
    results: Sequence[Any] = ()
    for made, cells in config.rounds(run.cache) if hasattr(config, "rounds") else [("", config.cells())]:
        about = f"{title}: {made}" if made else title
        results = run_cells(cells, cache_folder=run.cache, workers=run.workers, title=about)
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
