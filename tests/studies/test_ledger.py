"""The ledger itself: complete, guarded by tests, with the promised keys."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.studies.index import LEDGER, study
from datadose.studies.ledger import (
    judge_all,
    judge_mean,
)
from datadose.studies.study import Claim, Judgement, Study, Verdict
from datadose.studies.theorems.measured import STUDY as THEOREMS
from helpers.studies import entry, write_result

ROOT = Path(__file__).parents[2]
STUDIES = [study(name) for name in LEDGER]
CLAIMS = [claim for one in STUDIES for claim in one.claims]
PROMISED_KEYS = [
    "id",
    "paper",
    "statement",
    "setting",
    "statistic",
    "threshold",
    "value",
    "interval",
    "seeds",
    "verdict",
    "note",
]


# --- the ledger -----------------------------------------------------------------------------------------


def test_ids_are_unique_and_fit_for_anchors() -> None:
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids)
    assert all(id_ and not set(id_) & set(" \"'#<>&") for id_ in ids)


def test_every_claim_says_what_it_claims() -> None:
    texts = ("paper", "statement", "setting", "statistic", "test")
    lacking = [f"{claim.id}: no {name}" for claim in CLAIMS for name in texts if not getattr(claim, name)]
    assert not lacking, "\n".join(lacking)


def test_every_numbered_statement_of_the_paper_has_an_entry() -> None:
    papers = [claim.paper for claim in CLAIMS]
    wanted = [
        *("Thm 4.1", "Thm 4.2", "Remark 4.1", "Prop 4.3", "Prop 5.1", "Lemma A.1", "Thm B.1"),
        *("Prop B.2 (i)", "Prop B.2 (ii)", "Prop B.2 (iii)", "Prop 6.1"),
        *(f"Insight {number}" for number in (1, 2, 3, 4)),
        *("Fig 1", "Fig 2", "Fig 5"),
        *(f"Fig {figure}{panel}" for figure in (3, 4) for panel in "abcdef"),
    ]
    assert not [name for name in wanted if name not in papers]


def _test_names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_judged_claim_names_a_test_that_exists() -> None:
    """All missing files and functions in one message; parametrised ids aside."""
    missing = []
    for claim in CLAIMS:
        file, _, function = claim.test.partition("::")
        path = ROOT / file
        if not file.endswith(".py") or not path.is_file():
            missing.append(f"{claim.id}: no file {file!r}")
        elif function.partition("[")[0] not in _test_names(path):
            missing.append(f"{claim.id}: no {function!r} in {file}")
    assert not missing, "\n".join(missing)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The ledger of an empty folder, with a claim of one seed at its end."""

    def infinite(_: object, threshold: float) -> Judgement:
        return judge_mean(np.array([0.2]), threshold)

    extra = Claim("x", "Thm X", "one seed", "s", "t", 1.0, infinite, "tests/x.py::test_x")
    return judge_all([*STUDIES, Study("extra", claims=[extra])], tmp_path_factory.mktemp("empty"))


@pytest.mark.long
def test_missing_tables_are_not_run(entries: list[dict[str, Any]]) -> None:
    """Claims on the theory alone need no table; all others wait for theirs."""
    entries = entries[:-1]
    assert [found["id"] for found in entries] == [claim.id for claim in CLAIMS]
    for found in entries:
        if found["experiment"] == "theory":
            assert found["verdict"] in {"holds", "fails", "mixed"}
            assert found["value"] is not None
            continue
        assert found["verdict"] == "not run"
        assert (found["value"], found["interval"], found["seeds"]) == (None, None, 0)
        assert f"{found['experiment']}.csv" in found["note"]


@pytest.mark.long
def test_entries_have_the_promised_keys_and_are_json(entries: list[dict[str, Any]]) -> None:
    for found in entries:
        assert list(found)[: len(PROMISED_KEYS)] == PROMISED_KEYS
    assert json.loads(json.dumps(entries, allow_nan=False)) == entries
    assert entries[-1]["interval"] == [None, None]
    assert (entries[-1]["verdict"], entries[-1]["value"], entries[-1]["seeds"]) == ("mixed", 0.2, 1)


def _theorem_values(claim_id: str, statistics: dict[tuple[str, str], float], folder: Path) -> Verdict:
    rows = [
        {"check": check, "seed": seed, "statistic": name, "value": value}
        for (check, name), value in statistics.items()
        for seed in range(4)
    ]
    verdict: Verdict = entry(THEOREMS, claim_id, write_result(folder, THEOREMS, pd.DataFrame(rows)))[
        "verdict"
    ]
    return verdict


@pytest.mark.parametrize(
    ("claim_id", "holding", "failing"),
    [
        (
            "thm-4.1-interpolating",
            {("interpolation", "extrapolated_gap"): 1e-9},
            {("interpolation", "extrapolated_gap"): 1e-2},
        ),
        (
            "thm-4.1-overdetermined",
            {
                ("overdetermined", "loss_decrease"): 1e-12,
                ("overdetermined", "attention_gradient"): 1e-12,
                ("overdetermined", "error_change"): 0.0,
            },
            {
                ("overdetermined", "loss_decrease"): 0.1,
                ("overdetermined", "attention_gradient"): 0.03,
                ("overdetermined", "error_change"): -0.05,
            },
        ),
        (
            "thm-4.2-iterates",
            {("gradient_descent", f"iterate_gap_{step}"): 1e-14 for step in ("balanced", "large")},
            {
                ("gradient_descent", "iterate_gap_balanced"): 1e-14,
                ("gradient_descent", "iterate_gap_large"): 1e-3,
            },
        ),
        (
            "remark-4.1",
            {
                ("chain_length", "speed_up"): 3.0,
                ("chain_length", "speed_up_predicted"): 3.0,
                ("chain_length", "limit_gap"): 1e-9,
            },
            {
                ("chain_length", "speed_up"): 1.0,
                ("chain_length", "speed_up_predicted"): 3.0,
                ("chain_length", "limit_gap"): 1e-9,
            },
        ),
        (
            "prop-4.3",
            {("population", "slope"): -0.5, ("population", "relative_gap"): 0.01},
            {("population", "slope"): -0.1, ("population", "relative_gap"): 0.5},
        ),
        ("prop-5.1", {("post_test", "ratio"): 1.0}, {("post_test", "ratio"): 1.2}),
        (
            "lemma-A.1-last-line",
            {("post_test", "ratio_last_line"): 1.0},
            {("post_test", "ratio_last_line"): 0.8},
        ),
        (
            "remark-4.1-any-step",
            {("chain_length_at_large_step", f"slow_down{x}"): 0.5 for x in ("", "_predicted")},
            {("chain_length_at_large_step", f"slow_down{x}"): 20.0 for x in ("", "_predicted")},
        ),
        (
            "app-E",
            {("curvature", f"{x}_printed_over_curvature"): 1.5 for x in ("scaled", "zero_loss")}
            | {("curvature", "scaled_printed_over_curvature_predicted"): 1.5},
            {
                ("curvature", "scaled_printed_over_curvature"): 1.5,
                ("curvature", "scaled_printed_over_curvature_predicted"): 1.5,
                ("curvature", "zero_loss_printed_over_curvature"): 0.0,
            },
        ),
        (
            "sec-5.1-allocation",
            {("allocation", "excess_long"): 1e-5, ("allocation", "excess_moderate"): 0.1},
            {("allocation", "excess_long"): 1e-2, ("allocation", "excess_moderate"): 0.1},
        ),
    ],
)
def test_judges_of_the_theorems_can_say_both(
    claim_id: str,
    holding: dict[tuple[str, str], float],
    failing: dict[tuple[str, str], float],
    tmp_path: Path,
) -> None:
    assert _theorem_values(claim_id, holding, tmp_path) == "holds"
    assert _theorem_values(claim_id, failing, tmp_path) == "fails"
