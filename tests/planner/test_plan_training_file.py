"""`datadose plan` with `training`: sections of its JSON, its tables, its picture, one line for bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.cli import main
from datadose.configs import load_config
from datadose.drawing.plan import draw_plan
from datadose.planner.config import PlanConfig
from helpers.command import run_main
from helpers.plans import BASE, POOL, document_of, sourced, write

CONFIGS = Path(__file__).parents[2] / "configs"
PRICED = [{**POOL[0], "cost": 2.0}, {**POOL[1], "cost": 1}]
STOPPING = {
    *("prompts", "time", "steps", "epochs", "predicted_error", "predicted_pretraining"),
    *("error_if_converged", "near_optimal_time", "ceiling", "prompts_within_10_percent"),
}
PENALTY = {
    *("value", "predicted_error", "predicted_pretraining", "error_if_converged", "ceiling", "variance"),
    "pretraining_before",
    "prompts_within_10_percent",
}
MIXTURE = {"name", "prompts", "weight", "share", "marginal_value"}


def test_the_sections_of_one_kind_of_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = document_of(write(tmp_path, BASE), capsys)
    assert not {"stopping", "penalty", "mixture", "next_purchase"} & plain.keys()
    for training, name, fields in (("best", "stopping", STOPPING), ("penalty", "penalty", PENALTY)):
        found = document_of(write(tmp_path, {**BASE, "training": training, "keep": 0.25}), capsys)
        assert fields <= found[name].keys()
        assert {key: found[key] for key in plain} == plain
        assert not ({"stopping", "penalty", "mixture"} - {name}) & found.keys()


def test_the_sections_of_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = {"training": "penalty", "weights": "tuned"}
    found = document_of(write(tmp_path, sourced(**shared)), capsys)
    assert [part["name"] for part in found["mixture"]] == ["experts", "crowd"]
    assert max(part["weight"] for part in found["mixture"]) == 1
    assert sum(part["share"] for part in found["mixture"]) == pytest.approx(1)
    for part in found["mixture"]:
        assert MIXTURE <= part.keys()
        assert part["marginal_value"] >= 0
        assert part["weight"] > 0 or part["reason"]
    assert "next_purchase" not in found
    priced = document_of(write(tmp_path, sourced(sources=PRICED, **shared)), capsys)
    assert priced["penalty"] == found["penalty"]
    for before, after, cost in zip(found["sources"], priced["sources"], (2.0, 1.0), strict=True):
        assert after == {**before, "gain_per_cost": after["marginal_value"] / cost}
    costs = dict(zip(("experts", "crowd"), (2.0, 1.0), strict=True))
    spent = sum(costs[part["name"]] * part["prompts"] for part in priced["next_purchase"])
    assert 0 < spent <= priced["purchase_budget"]


def test_covariances_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "test.npy", np.diag(np.repeat([1.1, 1.0], [6, 10])))
    tests = [{"covariance": "test.npy", "weight": 1.0}]
    dense, flat = (
        document_of(write(tmp_path, {**BASE, "training": "penalty", **changes}), capsys)["penalty"]
        for changes in ({"tests": tests}, {})
    )
    for name in PENALTY:
        assert dense[name] == pytest.approx(flat[name], rel=1e-6), name


@pytest.mark.parametrize("name", ["plan_training", "plan_mixture"])
def test_the_examples(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture and a document of each; the tables name what they are about."""
    path = tmp_path / "plan.png"
    file = tmp_path / "shift.yaml"
    # The same shift with an eighth of the directions and rows.
    config = load_config(CONFIGS / f"{name}.yaml", PlanConfig).model_dump(exclude_none=True)
    file.write_text(json.dumps(_smaller(config)))
    assert main(["plan", str(file), "--json", "--plot", str(path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert main(["plan", str(file)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    words = ["training: stop after", "within 5 percent", "ceiling", "trained to convergence"]
    if name == "plan_mixture":
        words += ["share of a batch", "next purchase", "replay"]
        assert len(document["mixture"]) == len(document["next_purchase"]) == 4
    assert [word for word in words if word not in shown.out] == []


def _smaller(node: Any) -> Any:
    if isinstance(node, dict):
        counts = ("length", "max_prompts", "size", "rl_prompts")
        return {k: max(1, v // 8) if k in counts else _smaller(v) for k, v in node.items()}
    if isinstance(node, list) and len(node) == 2 and all(isinstance(x, (int, float)) for x in node):
        return [node[0], node[1] // 8]
    return [_smaller(part) for part in node] if isinstance(node, (list, tuple)) else node


def test_not_to_train_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for training in ("best", "penalty"):
        assert main(["plan", str(write(tmp_path, {**BASE, "training": training, "keep": 1}))]) == 0
        assert "do not train" in capsys.readouterr().out


def test_the_recommendation_says_what_it_does_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stages are compared at convergence and without a budget, whatever else the file decides."""
    costs = {"costs": {"demonstration": 1, "prompt": 1, "total": 50}}
    timed, priced = {"training": "best"}, {"training": "penalty", **costs}
    for changes, said, unsaid in (
        ({}, [], ["note on the recommendation"]),
        (timed, ["stopped at its best time on ", "give `costs`"], ["does not count `costs`"]),
        (priced, ["under its best penalty on ", "does not count `costs`"], ["give `costs`"]),
        (costs, ["does not count `costs`"], ["SFT runs there"]),
    ):
        assert main(["plan", str(write(tmp_path, {**BASE, **changes}))]) == 0
        shown = capsys.readouterr().out
        assert all(text in shown for text in said)
        assert not any(text in shown for text in unsaid)


def test_what_the_file_asks_for_comes_first_in_text_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = {"costs": {"demonstration": 1, "prompt": 1, "total": 50}}
    kinds = [{"name": "a", "covariance": [1.0] * 16}, {"name": "b", "covariance": [0.5] * 16}]
    coming = {"pretraining": {"categories": kinds, "shifts": [{"delta": [1.0] * 16}]}}
    for changes, word, panel in (
        ({"training": "best"}, "training: ", "How long?"),
        ({"training": "penalty"}, "training: penalty ", "Which penalty?"),
        (costs, "schedule: ", "What to buy?"),
        (coming, "pretraining: ", "What to pretrain on?"),
    ):
        path = write(tmp_path, {**BASE, **changes})
        assert main(["plan", str(path)]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(word)
        assert shown.index(word) < shown.index("recommendation: ") < shown.index("SFT to convergence")
        figure = draw_plan(document_of(path, capsys))
        assert figure.axes[0].get_title(loc="left").startswith(panel)


def test_a_dash_in_the_table_of_training_has_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for most, is_peak in ((16, True), (60, False)):
        assert main(["plan", str(write(tmp_path, {**BASE, "training": "best", "max_prompts": most}))]) == 0
        shown = capsys.readouterr().out
        table = shown[shown.index("training: predicted errors") : shown.index("ceiling: ")]
        assert (" - " in table) == ("the mean error is infinite there" in table) == is_peak


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "training": ({**BASE, "training": "never"}, "training: got never"),
    "keep": ({**BASE, "training": "best", "keep": 1.5}, "keep: got 1.5"),
    "keep at convergence": ({**BASE, "keep": 0.5}, "keep: got 0.5"),
    "weights": (sourced(training="best", weights="heavy"), "weights: got heavy"),
    "weights without sources": ({**BASE, "training": "best", "weights": "tuned"}, "weights: got tuned"),
    "weights at convergence": (sourced(weights="tuned"), "weights: got tuned"),
    "tests at convergence": (
        {**BASE, "tests": [{"covariance": [1.0] * 16, "weight": 1}]},
        "tests: got some",
    ),
    "tests that do not sum": (
        {**BASE, "training": "best", "tests": [{"covariance": [1.0] * 16, "weight": 0.4}] * 2},
        "tests: got weights with sum 0.8",
    ),
    "a test of another size": (
        {**BASE, "training": "best", "tests": [{"covariance": [1.0] * 3, "weight": 1}]},
        "covariance of a test: got shape (3,)",
    ),
    "a negative weight": (
        {**BASE, "training": "best", "tests": [{"covariance": [1.0] * 16, "weight": -1}]},
        "tests.0.weight: got -1",
    ),
    "an unknown key of a test": (
        {**BASE, "training": "best", "tests": [{"covariance": [1.0] * 16, "wieght": 1}]},
        "tests.0.wieght: unknown key; did you mean weight?",
    ),
    "some costs": (sourced(sources=[PRICED[0], POOL[1]]), "cost: got none for source crowd"),
    "a negative cost": (sourced(sources=[{**POOL[0], "cost": -2}]), "sources.0.cost: got -2"),
    "learning rate": ({**BASE, "training": "best", "learning_rate": 0}, "learning_rate: got 0"),
    "too large a learning rate": (
        {**BASE, "training": "best", "learning_rate": 1e6},
        "learning_rate: got 1e+06; allowed: a number below",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_one_line_for_bad_input(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, message = BAD[name]
    assert run_main(["plan", str(write(tmp_path, document)), "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert "allowed: " in shown.err


def test_steps_need_no_learning_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert document_of(write(tmp_path, {**BASE, "steps": 50}), capsys)["prompts"] >= 0
