"""The figures beside Figures 1 and 2: every judge can say *holds* and *fails*, and the theory never rises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.studies.sft_curves.curves import INTERFERENCES
from datadose.studies.study import Study
from datadose.studies.tables import LSA, THEORY, TwoBlock, as_table
from datadose.studies.training_time import fig1_time, fig2_time
from datadose.studies.training_time.fig1_time import Figure1Time
from datadose.studies.training_time.fig2_time import Figure2Time
from datadose.studies.training_time.time_curves import (
    BEST_PENALTY,
    BEST_TIME,
    CONVERGED,
    Column,
    fixed,
    measure_stops,
    rules,
)
from helpers.studies import entry, write_result

SEEDS = 8
B, N = (0, 4, 8, 19, 100), (40, 80)
RULES = (CONVERGED, fixed(10.0), BEST_TIME, BEST_PENALTY)
Errors = Callable[[str, float, int, int], float]


def write(
    folder: Path,
    one: Study[Any],
    simulated: Errors,
    theory: Errors | None = None,
    *,
    prompts: Sequence[int] = B,
    lengths: Sequence[int] = N,
    noise: float = 0.001,
) -> Path:
    """A table of the study with these errors by rule, r, B and n, and multiplicative noise of this size."""
    rng, theory = np.random.default_rng(0), theory or simulated
    rows: list[dict[str, Any]] = []
    for rule, r, count, n in product(RULES, INTERFERENCES, prompts, lengths):
        place = {
            Column.RULE: rule,
            Column.INTERFERENCE: r,
            Column.PROMPTS: count,
            Column.LENGTH: n,
            Column.PREDICTED: theory(rule, r, count, n),
        }
        rows.append({Column.MODEL: THEORY, **place})
        for seed in range(SEEDS):
            error = simulated(rule, r, count, n) * float(np.exp(noise * rng.standard_normal()))
            rows.append({Column.MODEL: LSA, Column.SEED: seed, Column.ERROR: error, **place})
    kind: Any = one.experiment
    config = replace(kind.preset("smoke"), block=TwoBlock(20, 10), prompts=tuple(prompts), seeds=SEEDS)
    return write_result(folder, one, as_table(rows, Column), config)


def falls(rule: str, r: float, count: int, n: int) -> float:
    return 4.0 - 0.5 * B.index(count)


def rises_at_the_best_time(rule: str, r: float, count: int, n: int) -> float:
    late = rule == BEST_TIME and count == 100
    return falls(rule, r, count, n) * (1.3 if late and r == 0.01 else 1.0)


def judged(one: Study[Any], claim: str, folder: Path) -> Any:
    return entry(one, claim, folder)


# --- Figure 1 -------------------------------------------------------------------------------------------


def test_a_rise_is_seen_in_theory_and_in_simulation(tmp_path: Path) -> None:
    both = ("fig-1-time-monotone", "fig-1-time-monotone-simulated")
    write(tmp_path, fig1_time.STUDY, falls)
    assert [judged(fig1_time.STUDY, claim, tmp_path)["verdict"] for claim in both] == ["holds", "holds"]
    write(tmp_path, fig1_time.STUDY, rises_at_the_best_time)
    found = [judged(fig1_time.STUDY, claim, tmp_path) for claim in both]
    assert [claim["verdict"] for claim in found] == ["fails", "fails"]
    # From 2.5 at B = 19 to 2.0 times 1.3.
    assert found[0]["value"] == pytest.approx(2.6 / 2.5 - 1, rel=1e-5)
    assert found[1]["value"] == pytest.approx(np.log(2.6 / 2.5), abs=0.002)
    assert "best time, r=0.01 n=" in found[0]["note"]


def test_a_rise_too_small_to_be_told_is_undecided(tmp_path: Path) -> None:
    write(tmp_path, fig1_time.STUDY, lambda *_: 1.0, noise=0.05)
    found = judged(fig1_time.STUDY, "fig-1-time-monotone-simulated", tmp_path)
    assert found["verdict"] == "mixed"
    assert "would be told from none" in found["note"]


def test_double_descent_needs_all_three(tmp_path: Path) -> None:
    def descent(rule: str, r: float, count: int, n: int) -> float:
        peak = 8 if r == 0 else 19
        return {0: 4.0, 4: 2.0, peak: 9.0, 100: 3.0}.get(count, 5.0)

    def verdict(errors: Errors) -> str:
        write(tmp_path, fig1_time.STUDY, errors)
        return str(judged(fig1_time.STUDY, "fig-1-time-converged", tmp_path)["verdict"])

    assert verdict(descent) == "holds"
    assert verdict(falls) == "fails"
    assert verdict(lambda *at: 12.0 if at[2] == 100 else descent(*at)) == "fails"
    assert verdict(lambda *at: 12.0 if at[2] == 100 and at[3] == 40 else descent(*at)) == "mixed"


def test_deviations_leave_out_convergence(tmp_path: Path) -> None:
    def off(wrong: str) -> Errors:
        return lambda rule, *at: falls(rule, *at) * (1.2 if rule == wrong else 1.0)

    write(tmp_path, fig1_time.STUDY, falls, off(CONVERGED))
    found = judged(fig1_time.STUDY, "fig-1-time-theory", tmp_path)
    assert found["verdict"] == "holds"
    assert "converged, away from the peak: largest 20." in found["note"]
    write(tmp_path, fig1_time.STUDY, falls, off(fixed(10.0)))
    assert judged(fig1_time.STUDY, "fig-1-time-theory", tmp_path)["verdict"] == "fails"
    write(tmp_path, fig2_time.STUDY, falls, off(BEST_PENALTY))
    found = judged(fig2_time.STUDY, "fig-2-time-theory", tmp_path)
    assert found["verdict"] == "fails"
    assert "above the threshold at n = 40, 80" in found["note"]


# --- Figure 2 -------------------------------------------------------------------------------------------

LENGTHS = (10, 20, 40)


def u(left: float, tuned_left: float) -> Errors:
    """A U in n with this left arm, and another one at the best time and penalty."""

    def errors(rule: str, r: float, count: int, n: int) -> float:
        arm = left if rule == CONVERGED else tuned_left
        return {10: arm, 20: 1.0, 40: 2.0}[n]

    return errors


def test_a_u_needs_both_sides(tmp_path: Path) -> None:
    for left, expected in ((1.5, "holds"), (0.8, "fails")):
        write(tmp_path, fig2_time.STUDY, u(left, 1.0), prompts=(3, 8, 15, 25), lengths=LENGTHS)
        assert judged(fig2_time.STUDY, "fig-2-time-converged", tmp_path)["verdict"] == expected


def test_the_left_arm_is_measured(tmp_path: Path) -> None:
    for arm, expected in ((1.0, "holds"), (1.05, "mixed"), (1.2, "fails")):
        write(tmp_path, fig2_time.STUDY, u(2.0, arm), prompts=(3, 8, 15, 25), lengths=LENGTHS)
        found = judged(fig2_time.STUDY, "fig-2-time-left-arm", tmp_path)
        assert found["verdict"] == expected, arm
        assert found["value"] == pytest.approx(arm, rel=0.002)


# --- what is drawn --------------------------------------------------------------------------------------


def test_the_tuned_rules_are_the_best_of_their_kind() -> None:
    block = TwoBlock(60, 30)
    times = [10.0, 50.0, 250.0, 1250.0]
    found = {rule.name: rule.error or np.inf for rule in rules(block, 0.01, 120, 90, times)}
    assert found[BEST_TIME] <= min(found[fixed(t)] for t in times)
    assert found[BEST_PENALTY] < found[CONVERGED] < np.inf
    (at_peak,) = (rule for rule in rules(block, 0.01, 120, 60, [10.0]) if rule.name == CONVERGED)
    assert at_peak.error is None


def test_the_simulation_stops_where_the_theory_does() -> None:
    """Each B of the simulation meets its own best time: its error is the predicted one, not a neighbour's."""
    rows = measure_stops(TwoBlock(60, 30), 0.01, 180, [30, 300], [], [50.0], list(range(6)))
    for name, prompts in product((BEST_TIME, BEST_PENALTY, fixed(50.0)), (30, 300)):
        own = [row for row in rows if row[:2] == [name, prompts]]
        errors, predicted = [row[-1] for row in own], own[0][4]
        # Seven standard errors, and the O(1/d) of the theory.
        allowed = 7 * np.std(errors, ddof=1) / 6**0.5 + 0.03 * predicted
        assert abs(np.mean(errors) - predicted) < allowed, (name, prompts)


@pytest.mark.parametrize("kind", [Figure1Time, Figure2Time])
def test_a_table_has_every_rule_at_every_point(kind: Any) -> None:
    config = replace(kind.preset("smoke"), interferences=(0.01,))
    table = config.table([cell.function(**cell.arguments) for cell in config.cells()])
    names = {CONVERGED, BEST_TIME, BEST_PENALTY, *map(fixed, config.times)}
    sizes = {LSA: (config.lengths, config.prompts), THEORY: (config.theory_lengths, config.theory_prompts)}
    for model, (lengths, prompts) in sizes.items():
        rows = table[table[Column.MODEL] == model]
        expected = len(names) * len(lengths) * len(prompts) * (config.seeds if model == LSA else 1)
        assert len(rows) == expected
        assert set(rows[Column.RULE]) == names
    assert not table.loc[table[Column.RULE].isin([BEST_TIME, BEST_PENALTY]), Column.PREDICTED].isna().any()
