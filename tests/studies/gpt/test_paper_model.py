"""Figure 3 with the paper's model: what is run, and judges on hand-made tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.models.gpt import GptConfig, GptModel
from datadose.studies.gpt.map_settings import Column
from datadose.studies.gpt.map_verdicts import ALL
from datadose.studies.gpt.paper_model import BEST, FAILING, PaperModel
from datadose.studies.gpt.paper_model_study import STUDY
from helpers.studies import entry, write_result
from helpers.training_tables import Curve, against_the_paper, along_training, as_in_the_paper, flat

CONFIG = replace(PaperModel.preset("smoke"), seeds=3)
BEST_NAME, FAILING_NAME = (CONFIG.settings()[place][1].name for place in (BEST, FAILING))


def judged(claim: str, made: pd.DataFrame, folder: Path) -> dict[str, Any]:
    return entry(STUDY, f"fig3paper-{claim}", write_result(folder, STUDY, made, CONFIG))


def both(best: Curve, failing: Curve, **options: Any) -> pd.DataFrame:
    """The first curve in the setting of the best chance, the second where it should fail."""
    tables = [along_training(CONFIG, curve, **options) for curve in (best, failing)]
    kept = zip(tables, (BEST_NAME, FAILING_NAME), strict=True)
    return pd.concat([made[made[Column.PANEL] == name] for made, name in kept])


@pytest.mark.parametrize("preset", ["medium", "paper"])
def test_the_model_is_the_papers(preset: Any) -> None:
    config = PaperModel.preset(preset)
    [size] = config.sizes
    task = config.task(0.5)
    model = GptModel(GptConfig.preset(size.preset, task.dimension, task.length, task.chain_steps), seed=0)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(9.5e6, rel=0.01)
    assert (task.chain_steps, task.test_steps, config.judged_sft) == (8, 3, 100)
    assert len(config.settings()) == 2
    for one, setting in config.settings():
        last = {path.stage: path.looks[-1] for path in reversed([*config.paths(one, setting)])}
        assert last["sft"] == 100
        assert last["outcome"] >= 1000
        assert last["rl"] >= 300
        assert all(B % path.batch == 0 for path in config.paths(one, setting) for B in path.prompts)


def test_sigma0_is_measured_at_the_base_length_before_and_after_training() -> None:
    """Its error falls with n: measured at another n before, it would show forgetting that is none."""
    _, (_, cells) = CONFIG.rounds(Path("unused"))
    last = [cell.arguments["lengths"][-1] for cell in cells if "lengths" in cell.arguments]
    last += [cell.arguments["path"].test_lengths[-1] for cell in cells if "path" in cell.arguments]
    assert set(last) == {CONFIG.base_length}


@pytest.mark.parametrize("claim", ["a", "b", "c", "d", "e", "f", "d-rl"])
def test_claims_are_judged_in_the_best_setting(claim: str, tmp_path: Path) -> None:
    held = judged(claim, both(as_in_the_paper, against_the_paper), tmp_path)
    assert (held["verdict"], held["seeds"]) == ("holds", 3)
    assert "on delta after 2 steps" in held["note"]
    assert "untouched 1" in held["note"]
    assert judged(claim, both(against_the_paper, as_in_the_paper), tmp_path)["verdict"] == "fails"


def test_where_all_runs_are_lost_nothing_is_insensitive(tmp_path: Path) -> None:
    made = both(as_in_the_paper, as_in_the_paper)
    made.loc[made["stage"] == "sft", "error"] = np.nan
    found = judged("c", made, tmp_path)
    assert (found["verdict"], found["value"]) == ("fails", None)
    assert "every run was lost" in found["note"]
    assert "nan" not in found["note"]
    assert judged("d", made, tmp_path)["verdict"] == "holds"


@pytest.mark.parametrize("claim", ["sft-helps", "outcome-helps", "rl-helps"])
def test_help_is_judged_against_the_untouched_model(claim: str, tmp_path: Path) -> None:
    assert judged(claim, both(flat, flat), tmp_path)["verdict"] == "holds"
    assert judged(claim, both(flat, flat, before=0.7), tmp_path)["verdict"] == "fails"


def test_that_delta_alone_hurts_can_be_refuted(tmp_path: Path) -> None:
    worse = judged("delta", both(flat, flat, before=0.7), tmp_path)
    assert (worse["verdict"], worse["value"]) == ("holds", 1.0)
    assert judged("delta", both(flat, flat), tmp_path)["verdict"] == "fails"

    def only_sft(stage: str, axis: str, place: int) -> float:
        return 1.2 if stage == "sft" else flat(stage, axis, place)

    mixed = judged("delta", both(flat, only_sft), tmp_path)
    assert (mixed["verdict"], mixed["value"]) == ("mixed", pytest.approx(1 / 3))


@pytest.mark.parametrize("kept", [[], ["sft"], ["sft", "outcome"]])
@pytest.mark.parametrize("with_rl", [True, False])
def test_what_a_budget_left_out_is_not_run(kept: list[str], with_rl: bool, tmp_path: Path) -> None:
    """Whether RL is still to come, or no part of the configuration."""
    made = both(as_in_the_paper, flat, before=0.7)
    made = made[made[Column.STAGE].isna() | made[Column.STAGE].isin(kept)]
    config = CONFIG if with_rl else replace(CONFIG, rl_prompts=())
    folder = write_result(tmp_path, STUDY, made, config)
    found = {claim.id: entry(STUDY, claim.id, folder) for claim in STUDY.claims}
    missing = {name for name, row in found.items() if row["verdict"] == "not run"}
    stages = {claim: stage for claim, stage, *_ in ALL}
    expected = {f"fig3paper-{claim}" for claim, stage in stages.items() if stage not in kept}
    whole = set(config.stages) <= {*kept}
    assert missing == expected | (set() if whole else {"fig3paper-delta"})
    assert all(found[name]["value"] is None and found[name]["seeds"] == 0 for name in missing)


@pytest.mark.long
def test_the_picture_has_every_stage_along_its_axes_and_training() -> None:
    assert STUDY.draw is not None
    figure = STUDY.draw(along_training(CONFIG, as_in_the_paper), CONFIG)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert sum(title.startswith("SFT") for title in titles) == 5
    assert sum(title.startswith("OS") for title in titles) == 5
    assert sum(title.startswith("RL") for title in titles) == 3
