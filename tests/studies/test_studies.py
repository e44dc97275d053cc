"""The studies as a whole: one entry each, pictures and judges that compute nothing, older records."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from datadose import prompts, sweep
from datadose.errors import InputError
from datadose.models import PromptBatch
from datadose.simulation.curves import sft_error_curve
from datadose.stages import train
from datadose.studies.index import LEDGER, NAMES, study
from datadose.studies.ledger import judge_all
from datadose.studies.report import write_report
from datadose.studies.reproduce import draw_saved
from datadose.studies.sft_curves import figure5
from datadose.studies.study import Preset, Saved, Study
from datadose.sweep import Workers, run_cells
from helpers.studies import write_result

pytestmark = pytest.mark.long

KEPT = Path(__file__).parents[2] / "docs" / "results"
LONG: dict[str, tuple[str, Preset]] = {
    "fig3": ("fig3-small", "small"),
    "gpt_data": ("gpt_data-small", "small"),
    "fig3paper": ("fig3paper-medium", "medium"),
    "fig4": ("fig4-paper", "paper"),
    "llm_study": ("llm_study", "quick"),
    "levels": ("levels", "quick"),
    "sea": ("sea", "quick"),
    "sea_methods": ("sea_methods", "quick"),
    "sea_forecast": ("sea_forecast", "quick"),
    "sea_rl": ("sea_rl", "quick"),
    "sea_smollm": ("sea_smollm", "quick"),
}
"""Studies whose smoke preset takes a while, and a table of theirs that is kept."""
LEFT_OUT = {"levels": "-smollm2"}
"""How the claims end on a level of model that a study's quick preset leaves out."""


def test_a_study_is_entered_in_one_place() -> None:
    """The index: the study's own name is its key there, and no claim has two homes."""
    studies = [study(name) for name in NAMES]
    assert [one.name for one in studies] == list(NAMES)
    assert sorted(LEDGER) == sorted(NAMES)
    claims = [claim for one in studies for claim in one.claims]
    assert len({claim.id for claim in claims}) == len(claims)
    drawn = {one.name for one in studies if one.draw is not None}
    assert [claim.id for claim in claims if not drawn.issuperset(claim.shown_by)] == []
    assert [one.name for one in studies if (one.draw is not None) != bool(one.title and one.story)] == []


# --- pictures and judges --------------------------------------------------------------------------------


def _make(one: Study[Any], folder: Path) -> None:
    """A table of the study in ``folder``: a kept one, or that of its smoke preset."""
    if one.name in LONG:
        stem, preset = LONG[one.name]
        table, config = (
            pd.read_csv(KEPT / f"{stem}.csv.gz", dtype={"panel": "string"}),
            one.experiment.preset(preset),
        )
        if "diverged" not in table:
            table["diverged"] = 0  # Of Figure 3 the columns with one value only are not kept.
    else:
        config = one.experiment.preset("smoke")
        config = replace(config, seeds=2) if one.name == "theorems" else config
        table = config.table(_results(config, folder))
    write_result(folder, one, table, config)


def _results(config: Any, folder: Path) -> list[Any]:
    """The results of the configuration's cells, after those that they start from."""
    results: list[Any] = []
    for made, cells in config.rounds(folder) if hasattr(config, "rounds") else [("", config.cells())]:
        results = run_cells(cells, cache_folder=folder, workers=Workers(1), title=made)
    return results


def _refusal(function: Callable[..., Any]) -> Callable[..., NoReturn]:
    @wraps(function)
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a picture or a judge computes a cell")

    return refuse


def _compute_nothing(one: Study[Any], patch: pytest.MonkeyPatch) -> None:
    """Make the study's cells, all training and all drawing of prompts fail, wherever they are imported."""
    config = one.experiment.preset("smoke") if one.experiment is not None else None
    cells = config.cells() if hasattr(config, "cells") else []
    functions: list[Callable[..., Any]] = [cell.function for cell in cells]
    functions += [sweep.run_cells, sft_error_curve, train]
    functions += [prompts.draw_moments, prompts.draw_prompts, prompts.draw_wishart]
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "datadose":
            for key, value in list(vars(module).items()):
                if any(value is function for function in functions):
                    patch.setattr(module, key, _refusal(value))
    patch.setattr(PromptBatch, "draw", _refusal(PromptBatch.draw))
    for key in ("backward", "grad"):
        patch.setattr(torch.autograd, key, _refusal(getattr(torch.autograd, key)))


@pytest.mark.parametrize("name", NAMES)
def test_pictures_and_judges_read_saved_tables_only(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "token_study":
        pytest.skip(
            "its runs take long, the kept table is reduced, and token_study/test_claims.py has its own"
        )
    one = study(name)
    if one.experiment is not None:
        _make(one, tmp_path)
    _compute_nothing(one, monkeypatch)
    entries = judge_all([one], tmp_path)
    assert [entry["id"] for entry in entries] == [claim.id for claim in one.claims]
    left_out = LEFT_OUT.get(name, "-none")
    lost = [entry["id"] for entry in entries if entry["verdict"] == "not run"]
    assert [claim for claim in lost if not claim.endswith(left_out)] == []
    if one.draw is not None:
        saved = Saved(one, tmp_path)
        assert one.draw(saved.table, saved.config).axes


def test_a_picture_that_computes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(_: object, config: figure5.Figure5) -> Figure:
        return Figure(figure5.simulate_both(**config.cells()[0].arguments))

    one = replace(figure5.STUDY, draw=draw)
    _compute_nothing(one, monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="computes a cell"):
        draw(None, figure5.Figure5.preset("smoke"))


# --- records of other versions --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda config: config.pop("lengths"), "lengths"),
        (lambda config: config.update(lengths="all"), "lengths"),
        (lambda config: config["block"].pop("dimension"), "block.dimension"),
        (lambda config: config["block"].pop("rho"), "config"),
        (lambda config: config.update(added=1), "config"),
        (lambda config: config.clear(), "block"),
    ],
    ids=["missing", "other", "inside", "default", "unknown", "empty"],
)
def test_a_configuration_of_another_version_is_one_clear_line(
    change: Callable[[dict[str, Any]], object], place: str, tmp_path: Path
) -> None:
    """By the picture and by the judges, which use it; the report, which does not, is written."""
    _make(figure5.STUDY, tmp_path)
    path = tmp_path / "fig5.json"
    record = json.loads(path.read_text())
    change(record["config"])
    path.write_text(json.dumps(record))
    for read in (lambda: draw_saved("fig5", tmp_path), lambda: judge_all([figure5.STUDY], tmp_path)):
        with pytest.raises(InputError, match=rf"fig5\.json, {place}: .*`datadose reproduce fig5`") as caught:
            read()
        assert "\n" not in str(caught.value)
    write_report(tmp_path)


@pytest.mark.parametrize("record", ["[]", "{}", '{"config": null}', '{"config": []}'])
def test_a_record_without_a_configuration_is_one_clear_line(record: str, tmp_path: Path) -> None:
    _make(figure5.STUDY, tmp_path)
    (tmp_path / "fig5.json").write_text(record)
    with pytest.raises(InputError, match=r"fig5\.json, config: .*`datadose reproduce fig5`"):
        draw_saved("fig5", tmp_path)
