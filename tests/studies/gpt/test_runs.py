"""Pretrained models on disk, post-training runs and what is measured of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose import dependencies
from datadose.errors import RunError
from datadose.models.baselines import pretrained_lsa
from datadose.stages import Sft
from datadose.studies.gpt import runs as gpt_runs
from datadose.studies.gpt.data import GptData, measure_baselines
from datadose.studies.gpt.paths import follow_seeds, path_of
from datadose.studies.gpt.runs import (
    GptPretraining,
    GptRun,
    GptTask,
    measure,
    pretrain,
    pretrained_cell,
    pretrained_cells,
    pretraining_round,
    run_gpt,
    run_lsa,
)
from datadose.sweep import Workers, run_cells
from datadose.theory.post_test import post_test_error
from datadose.theory.pretraining import pretrained_operator
from datadose.workers import run_one

pytestmark = pytest.mark.long

TASK = GptTask(5, 6, 2, 1, eta=0.5, test_prompts=400)
PRETRAINING = GptPretraining("tiny", 6, batch=8, warmup=2, every=2)
ONE = Workers(1)
RUN = GptRun("sft", "delta", 16, 6, 2, 3, 1e-3, batch=8)


def make(folder: Path, workers: Workers = ONE) -> Path:
    """The file of the pretrained model below ``folder``."""
    _, cells = pretraining_round([pretrained_cell(TASK, PRETRAINING, folder)])
    [made] = run_cells(cells, cache_folder=folder, workers=workers, title="test")
    return made


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("cache"))


def test_pretrained_models_are_made_once_and_named_after_what_made_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(path.parent.iterdir()) == [path]
    monkeypatch.setattr(gpt_runs, "pretrain_on_chains", lambda *_, **__: pytest.fail("made twice"))
    assert make(path.parents[1]) == path
    changed = ({"steps": 7}, {"seed": 1}, {"learning_rate": 1.0})
    others = [(TASK, replace(PRETRAINING, **change)) for change in changed]  # type: ignore[arg-type]
    others.append((replace(TASK, eta=0.4), PRETRAINING))
    cells = [cell for task, p in others for cell in pretrained_cells(task, [p], path.parents[1]).values()]
    assert len({path, *(cell.file for cell in cells)}) == 5


def test_a_pretrained_models_name_depends_on_what_makes_it_alone() -> None:
    """Hours of training are not lost to code that moves no weight, nor to how the model will be tested."""
    lines, _ = dependencies._reached(dependencies._places(pretrain, PRETRAINING, run_one))
    others = {line.split(":")[0].removeprefix("datadose.") for line in lines}
    made_by = {"models", "stages", "prompts", "covariance"}
    found_in = {"studies.gpt.runs", "studies.training", "configs", "strict", "tensor_files", "workers"}
    assert {name for name in others if name.split(".")[0] not in made_by} == found_in
    assert not {f"stages.{name}" for name in ("rl", "rewards", "outcome", "pipeline", "evaluate")} & others
    later = replace(TASK, test_steps=9, test_prompts=7)
    names = [
        [cell.file for cell in pretrained_cells(t, [PRETRAINING], Path()).values()] for t in (TASK, later)
    ]
    assert names[0] == names[1]


def test_the_longest_pretraining_begins_first(tmp_path: Path) -> None:
    cells = pretrained_cells(TASK, [PRETRAINING, replace(PRETRAINING, steps=9)], tmp_path)
    assert [cell.arguments["pretraining"].steps for cell in pretraining_round(cells.values())[1]] == [9, 6]


def test_an_interrupted_pretraining_ends_with_the_same_weights(path: Path, tmp_path: Path) -> None:
    calls = {"n": 0}
    real, recipe = Sft.__call__, gpt_runs.pretrain_on_chains

    def stop_at_step_four(self: Sft, *arguments: Any) -> Any:
        calls["n"] += 1
        if calls["n"] == 5:
            raise KeyboardInterrupt
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sft, "__call__", stop_at_step_four)
        patch.setattr(
            gpt_runs, "pretrain_on_chains", lambda *a, **k: recipe(*a, **{**k, "checkpoint_every": 1})
        )
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path)
    [left] = (tmp_path / "pretrained").iterdir()
    assert left.suffix == ".checkpoint"
    resumed = make(tmp_path)
    assert resumed.name == path.name
    assert resumed.read_bytes() == path.read_bytes()
    assert list(resumed.parent.iterdir()) == [resumed]


def test_a_pretraining_that_diverges_leaves_no_model(tmp_path: Path) -> None:
    """Its weights are no numbers, and all that is measured of them would be none."""
    own: dict[str, Any] = {"dimension": 5, "length": 6, "chain_steps": 2, "eta": 0.5}
    for optimiser in ("adamw", "muon"):
        wild = replace(PRETRAINING, steps=30, warmup=0, learning_rate=1e6, optimiser=optimiser)
        with pytest.raises(RunError, match="pretraining diverged at step"):
            pretrain(**own, pretraining=wild, file=tmp_path / f"{optimiser}.safetensors")
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.slow
def test_pretraining_on_a_dask_cluster_gives_the_same_weights(path: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        made = make(tmp_path, Workers(backend="dask", address=cluster.scheduler_address))
    assert made.read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_pretraining_on_a_ray_cluster_gives_the_same_weights(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    assert make(tmp_path, Workers(2, "ray")).read_bytes() == path.read_bytes()


def test_the_linear_models_slopes_are_its_operator_and_its_error_the_theorem() -> None:
    [found] = measure(pretrained_lsa(TASK.sigma0, TASK.length), TASK, TASK.length)
    V0 = pretrained_operator(TASK.sigma0, TASK.length)
    for group, inside in (("rare", TASK.rare), ("common", ~TASK.rare)):
        assert found[f"target_slope_{group}_phi"] == pytest.approx(-V0[inside].mean(), rel=1e-4)
        assert found[f"target_fit_{group}_phi"] == pytest.approx(1, abs=1e-6)
        assert found[f"target_fit_{group}_w"] < 0.9
    exact = post_test_error(V0, TASK.sigma0 + TASK.delta, TASK.length)
    # 400 prompts with heavy-tailed errors: 40 percent is over four standard errors of the mean.
    assert found["target"] == pytest.approx(exact, rel=0.4)
    assert found["target"] == pytest.approx((found["target_rare"] + 4 * found["target_common"]) / 5)


@pytest.mark.parametrize("stage", ["sft", "outcome", "rl"])
def test_runs_repeat_and_depend_on_their_seed(path: Path, stage: str) -> None:
    run = replace(RUN, stage=stage)
    first = run_gpt(path, TASK, run, 0, 6)
    assert first == run_gpt(path, TASK, run, 0, 6)
    assert first != run_gpt(path, TASK, run, 1, 6)
    untouched = run_gpt(path, TASK, replace(run, prompts=0), 0, 6)
    assert first["target"] != untouched["target"]
    assert run_lsa(TASK, run, 0, 6)["target"] is not None


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_figure_3_trains_seeds_side_by_side_and_looks_on_the_way(path: Path, stage: str) -> None:
    """The numbers are those of runs of their own, each as long as its look, up to rounding."""
    task, run = replace(TASK, test_prompts=32), replace(RUN, stage=stage, length=4)
    rows = follow_seeds(path, task, path_of(run, {1, 3}, {4, 6}), [0, 1])
    assert [row[:3] for row in rows] == [[s, step, n] for s in (0, 1) for step in (1, 3) for n in (4, 6)]
    for seed, step, n, found in (rows[1], rows[6]):
        alone = run_gpt(path, task, replace(run, steps=step), seed, n)
        assert found == pytest.approx(alone, rel=2e-4, abs=1e-6)


def test_lost_seeds_have_no_numbers_on_the_way(path: Path) -> None:
    wild = replace(RUN, stage="outcome", learning_rate=1e30)
    rows = follow_seeds(path, replace(TASK, test_prompts=8), path_of(wild, {8}, {6}), [0, 1])
    assert rows == [[0, 8, 6, {}], [1, 8, 6, {}]]


def test_replay_is_half_of_the_pretraining_distribution() -> None:
    batch = gpt_runs.draw_prompts(TASK, "replay", 400, 6, 0)
    assert batch.inputs is not None
    spread = batch.inputs.square().mean(dim=(0, 2)).numpy()
    rare = TASK.delta > 0
    assert np.abs(spread[:200][:, ~rare]).max() == 0
    assert spread[200:][:, ~rare].mean() == pytest.approx(1, rel=0.1)


def test_a_lost_run_has_no_numbers() -> None:
    lost = run_lsa(TASK, replace(RUN, stage="outcome", learning_rate=1e30, steps=8), 0, 6)
    assert set(lost.values()) == {None}


def test_exact_predictors_stand_beside() -> None:
    found = measure_baselines(TASK)
    assert found["zero"]["target"] == pytest.approx(1, rel=0.2)
    assert found["least squares"]["target"] < found["ridge"]["target"] < found["zero"]["target"]
    assert GptData.preset("quick").pretrainings
