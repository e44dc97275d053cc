"""Running experiments into a results folder: tables, figures, the ledger and the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from datadose.drawing.style import save
from datadose.errors import reject, require_integer
from datadose.files import prepare_folder, read_table, write_json, write_recorded_table
from datadose.reading import read_json
from datadose.studies.figure4.experiment import Figure4
from datadose.studies.figure4.figure import draw_figure4, draw_figure4_map
from datadose.studies.figure4.map import Figure4Map
from datadose.studies.gpt.data import GptData
from datadose.studies.gpt.drawing import draw_figure3, draw_gpt_data
from datadose.studies.gpt.figure3 import Figure3
from datadose.studies.insights.balance import Balance, draw_balance
from datadose.studies.insights.bands import Bands, draw_bands
from datadose.studies.insights.kinds_of_data import Insight1
from datadose.studies.insights.overthinking import Overthinking, draw_overthinking
from datadose.studies.insights.selection import Selection, draw_selection
from datadose.studies.insights.sft_then_rl import SftThenRl, draw_synergy
from datadose.studies.insights.size import Size, draw_size
from datadose.studies.insights.stability import Stability, draw_stability
from datadose.studies.ledger import Claim, Tables, judge_all
from datadose.studies.llm_study.experiment import LlmStudy
from datadose.studies.llm_study.figure import draw_llm_study
from datadose.studies.planner.dose import PlannerRegret
from datadose.studies.planner.dose_figure import draw_planner
from datadose.studies.planner.stages import PlannerStages
from datadose.studies.planner.stages_figure import draw_planner_stages
from datadose.studies.registry import CLAIMS, STUDY_CLAIMS
from datadose.studies.report import write_report
from datadose.studies.sft_curves.experiment import Figure1, Figure2
from datadose.studies.sft_curves.figure import draw_figure1, draw_figure2, draw_figure5
from datadose.studies.sft_curves.figure5 import Figure5
from datadose.studies.tables import PRESETS, Preset
from datadose.studies.theorems.experiment import Theorems
from datadose.studies.token_study.experiment import TokenStudy
from datadose.studies.token_study.figure import draw_token_study
from datadose.sweep import Workers, run_cells
from datadose.versions import versions


@dataclass(frozen=True)
class Target:
    """A thing `reproduce` can make: the experiments it runs and, for a figure, how it is drawn."""

    experiments: dict[str, Any]
    """Table name -> experiment class with a ``preset`` constructor."""
    draw: Callable[[pd.DataFrame, dict[str, Any]], Figure] | None = None


TARGETS: dict[str, Target] = {
    "fig1": Target({"fig1": Figure1}, draw_figure1),
    "fig2": Target({"fig2": Figure2}, draw_figure2),
    "fig3": Target({"fig3": Figure3}, draw_figure3),
    "gpt_data": Target({"gpt_data": GptData}, draw_gpt_data),
    "fig4": Target({"fig4": Figure4}, draw_figure4),
    "fig4map": Target({"fig4map": Figure4Map}, draw_figure4_map),
    "fig5": Target({"fig5": Figure5}, draw_figure5),
    "insight1_selection": Target({"insight1_selection": Selection}, draw_selection),
    "insight2_size": Target({"insight2_size": Size}, draw_size),
    "insight3_stability": Target({"insight3_stability": Stability}, draw_stability),
    "insight4_balance": Target({"insight4_balance": Balance}, draw_balance),
    "rl_bands": Target({"rl_bands": Bands}, draw_bands),
    "sft_then_rl": Target({"sft_then_rl": SftThenRl}, draw_synergy),
    "overthinking": Target({"overthinking": Overthinking}, draw_overthinking),
    "planner": Target({"planner": PlannerRegret}, draw_planner),
    "planner_stages": Target({"planner_stages": PlannerStages}, draw_planner_stages),
    "token_study": Target({"token_study": TokenStudy}, draw_token_study),
    "llm_study": Target({"llm_study": LlmStudy}, draw_llm_study),
    "claims": Target({"theorems": Theorems, "insight1": Insight1}),
}


STUDIES = ("token_study", "llm_study")
"""Studies of language models: about an hour each, so not among ``all``."""
INSIGHTS = tuple(
    name
    for name in TARGETS
    if name != "claims" and name not in STUDIES and not name.startswith(("fig", "planner", "gpt"))
)
GPT = ("fig3", "gpt_data")
"""Experiments on the nonlinear transformer, which also have a preset ``small``."""
GROUPS = {"all": tuple(name for name in TARGETS if name not in STUDIES), "insights": INSIGHTS}
"""Names that stand for several targets."""


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
        if name not in TARGETS and name not in GROUPS:
            reject("target", name, ", ".join([*TARGETS, *GROUPS]))
    wanted = {name for target in targets for name in GROUPS.get(target, (target,))}
    # In the order of TARGETS: the claims come last and judge the tables made before them.
    chosen = [name for name in TARGETS if name in wanted]
    if preset not in PRESETS:
        reject("preset", preset, ", ".join(PRESETS))
    if preset == "small" and not set(chosen) <= set(GPT):
        reject("preset", preset, f"smoke, quick or paper; small is for {', '.join(GPT)}")
    if seeds is not None:
        require_integer("seeds", seeds, 2)
    prepare_folder("out", out)
    for name in chosen:
        target = TARGETS[name]
        for table_name, experiment in target.experiments.items():
            _run(table_name, experiment, preset, seeds, out, workers or Workers(), command)
        if target.draw is not None:
            draw_saved(name, out)
    if "claims" in chosen or any(name in STUDIES for name in chosen):
        write_json(out / "claims.json", judge_all(_ledger(chosen, Tables(out)), Tables(out)))
    write_report(out)
    return out


def _ledger(chosen: Sequence[str], tables: Tables) -> list[Claim]:
    """The paper's claims where they were asked for, and those of the studies that were run."""
    paper = CLAIMS if "claims" in chosen or tables.has("theorems") else []
    return [*paper, *(claim for claim in STUDY_CLAIMS if tables.has(claim.experiment))]


def _run(
    name: str,
    experiment: Any,
    preset: Preset,
    seeds: int | None,
    out: Path,
    workers: Workers,
    command: str,
) -> None:
    config = experiment.preset(preset)
    if seeds is not None:
        config = replace(config, seeds=seeds)
    # An experiment that starts from trained models makes them first, resumably, and keeps them in the cache.
    prepare = getattr(config, "prepare", None)
    cells = config.cells() if prepare is None else prepare(out / ".cache", workers)
    results = run_cells(cells, cache_folder=out / ".cache", workers=workers, title=name)
    write_recorded_table(
        out,
        name,
        config.table(results),
        {
            "name": name,
            "preset": preset,
            "config": asdict(config),
            "seeds": config.seeds,
            "versions": versions(),
            "command": command,
        },
    )


def draw_saved(name: str, out: Path) -> None:
    """Draw the figure ``name`` from the table and configuration saved in ``out``."""
    draw = TARGETS[name].draw
    if draw is None:
        reject("figure", name, ", ".join(key for key, target in TARGETS.items() if target.draw))
    saved = read_json(out / f"{name}.json")
    save(draw(read_table(out / f"{name}.csv"), saved["config"]), out, name)
