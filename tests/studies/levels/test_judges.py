"""The judges of the levels on tables that are made up: each verdict, and its opposite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.studies.levels import forecasts, judges
from datadose.studies.levels.arms import ADAM, DESCENT, GPT, Arm, at_saturation
from datadose.studies.levels.schema import AVERAGED, LOWER_WEIGHT, WEIGHTS, Column, Model, Pool
from datadose.studies.levels.study import STUDY

UPDATES = (0, 10, 100, 1000)
SEEDS = range(5)


def _rows(
    error: Callable[[int, int], float],
    prompts: Sequence[int] = (16, 64, 512),
    arm: Arm = GPT,
    *,
    train: Callable[[int, int], float] = lambda B, u: 1.0 / (1 + u),
    noise: float = 0.01,
    batch: int = 8,
    columns: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Rows of one arm with log-normal noise over seeds; the error is a function of B and updates."""
    rng = np.random.default_rng(0)
    shared = {
        Column.LEVEL: arm.level,
        Column.OPTIMISER: arm.optimiser,
        Column.POOL: Pool.ONE_KIND,
        Column.WEIGHT: 1.0,
        Column.MODELS: 1,
        Column.MODEL: Model.REAL,
        **(columns or {}),
    }
    return [
        {
            **shared,
            Column.PROMPTS: B,
            Column.UPDATES: u,
            Column.SEED: seed,
            Column.ERROR: error(B, u) * np.exp(noise * rng.standard_normal() * (u > 0)),
            Column.KEPT: 1.0 + u / 1000,
            Column.TRAIN: train(B, u),
            Column.EPOCHS: u * batch / B,
        }
        for B in prompts
        for u in UPDATES
        for seed in SEEDS
    ]


def _falls(B: int, u: int) -> float:
    """Falls with B, faster with updates, and nothing is lost late."""
    return 1.0 if u == 0 else 0.9 - 0.1 * np.log10(u) - 0.01 * np.log(B)


def _diluted(B: int, u: int) -> float:
    return _falls(B, u) * (2.0 if u == 1000 and B == 512 else 1.0)


def _early(B: int, u: int) -> float:
    return _falls(B, u) * (2.0 if u > 0 and B == 512 else 1.0)


@pytest.mark.parametrize(("error", "verdict"), [(_diluted, "holds"), (_falls, "fails"), (_early, "fails")])
def test_dilution_is_late_or_not_at_all(error: Callable[[int, int], float], verdict: str) -> None:
    found = judges.dilution(pd.DataFrame(_rows(error)), GPT, 1.0)
    assert found.verdict == verdict
    assert "B=512 over B=64 after 1000" in found.note
    assert judges.dilution(pd.DataFrame(_rows(error, (16, 64))), GPT, 1.0).verdict == "not run"


def test_the_best_error_falls_or_rises() -> None:
    for power, verdict in ((0.0, "holds"), (0.5, "fails")):
        table = pd.DataFrame(_rows(lambda B, u, power=power: _falls(B, u) * B**power))  # type: ignore[misc]
        assert judges.best_falls(table, GPT, 0.0).verdict == verdict
    # Where training only harms, the untouched model is the best at every B: nothing falls.
    assert judges.best_falls(pd.DataFrame(_rows(lambda B, u: 1.0 + u)), GPT, 0.0).verdict == "fails"


def test_weight_against_removal_by_rows() -> None:
    def pool(scale: dict[float, float], late: bool) -> pd.DataFrame:
        rows = []
        for weight in WEIGHTS:
            for B in (16, 512):
                other = scale[weight] if B == 512 or not late else 1 / scale[weight]
                rows += _rows(
                    lambda B, u, other=other: other * _falls(B, u),  # type: ignore[misc]
                    (B,),
                    columns={Column.POOL: Pool.MISLEADING, Column.WEIGHT: weight},
                )
        return pd.DataFrame(rows)

    better = {1.0: 1.2, LOWER_WEIGHT: 0.9, 0.0: 1.0}
    assert judges.weight_or_removal(pool(better, False), GPT, 1.0).verdict == "holds"
    assert judges.weight_or_removal(pool(better, True), GPT, 1.0).verdict == "mixed"
    worse = {1.0: 1.2, LOWER_WEIGHT: 1.1, 0.0: 1.0}
    found = judges.weight_or_removal(pool(worse, False), GPT, 1.0)
    assert (found.verdict, found.value) == ("fails", 0.0)
    assert "alike/removed 1.2" in found.note
    same = dict.fromkeys(WEIGHTS, 1.0)
    assert judges.weight_or_removal(pool(same, False), GPT, 1.0).verdict == "no difference"


def test_repetition_is_judged_at_the_longest_pass() -> None:
    """B = 16 is met 5 times after 10 updates, 512 only once after 64: at 10 updates alone are there both."""
    table = pd.DataFrame(_rows(_falls))
    found = judges.repetition(table, GPT, 1.0)
    assert found.verdict == "fails"
    assert "B=16 over one pass (B=512) at 10 updates" in found.note
    assert "100:" not in found.note
    repeated = pd.DataFrame(_rows(lambda B, u: 1.0 if u == 0 else B**0.1))
    assert judges.repetition(repeated, GPT, 1.0).verdict == "holds"
    assert judges.repetition(pd.DataFrame(_rows(_falls, batch=4000)), GPT, 1.0).verdict == "not run"


def test_saturation_reads_losses_and_accuracies() -> None:
    """The fit is done after 100 updates; the error is best after 10, 100 or 1,000."""
    updates = np.array(UPDATES)
    loss = {0: 2.0, 10: 1.5, 100: 0.52, 1000: 0.5}
    curve = pd.DataFrame([[4.0, 1.0, 2.0, 3.0]], columns=updates)
    for sign in (1, -1):
        train = pd.DataFrame([[sign * loss[u] for u in UPDATES]], columns=updates)
        assert at_saturation(curve, train).tolist() == [2.0]
    for best, verdict in ((10, "fails"), (100, "holds"), (1000, "fails")):
        rows = _rows(lambda B, u, best=best: 0.5 if u == best else 1.0, train=lambda B, u: loss[u])  # type: ignore[misc]
        assert judges.saturation(pd.DataFrame(rows), GPT, 1.0).verdict == verdict


def test_averaging_beside_one_model() -> None:
    for gain, verdict in ((0.8, "holds"), (1.25, "fails")):
        averaged = _rows(_falls, (64,), columns={Column.MODELS: AVERAGED})
        averaged = [{**row, Column.ERROR: gain * row[Column.ERROR]} for row in averaged]
        found = judges.averaging(pd.DataFrame(_rows(_falls) + averaged), GPT, 1.0)
        assert found.verdict == verdict
        assert found.value == pytest.approx(gain, rel=0.1)
        averaged = [row for row in averaged if row[Column.UPDATES] <= 30]
        found = judges.averaging(pd.DataFrame(_rows(_falls) + averaged), GPT, 1.0)
        assert found.value == pytest.approx(gain, rel=0.1)
    assert judges.averaging(pd.DataFrame(_rows(_falls)), GPT, 1.0).verdict == "not run"


def test_forecasts_are_judged_by_order_and_sign() -> None:
    """Right order; turned round; and exact theory, which has no seed, beside the linear model."""

    def error(B: int, u: int) -> float:
        return 1.0 if u == 0 else 3 * B**-0.3

    def judged(told: Callable[[int, int], float], arm: Arm, model: str) -> Any:
        forecast = _rows(told, arm=arm, columns={Column.MODEL: model})
        forecast = [row for row in forecast if row[Column.SEED] == 0] if arm is DESCENT else forecast
        for row in forecast:
            row[Column.SEED] = None if arm is DESCENT else row[Column.SEED]
        table = pd.DataFrame(_rows(error, arm=arm) + forecast)
        return forecasts.forecast_of(Column.ERROR)(table, arm, 0.9)

    for arm, model in ((GPT, Model.LINEARISED), (DESCENT, Model.THEORY)):
        right = judged(lambda B, u: error(B, u) ** 0.5, arm, model)
        assert (right.verdict, right.value) == ("holds", 1.0)
        assert "signs of changes 1.00" in right.note
        wrong = judged(lambda B, u: 1 / error(B, u), arm, model)
        assert (wrong.verdict, wrong.value) == ("fails", 0.0)
        assert "signs of changes 0.00" in wrong.note


def test_a_forecast_that_was_not_run_is_not_wrong() -> None:
    """One pool's forecast lacks a seed: the seed is judged by the other pools."""
    rows = _rows(lambda B, u: 1.0 if u == 0 else 3 * B**-0.3)
    told = [{**row, Column.MODEL: Model.LINEARISED} for row in rows]
    told = [row for row in told if (row[Column.PROMPTS], row[Column.SEED]) != (16, 2)]
    found = forecasts.forecast_of(Column.ERROR)(pd.DataFrame(rows + told), GPT, 0.9)
    assert (found.verdict, found.value, found.seeds) == ("holds", 1.0, 5)


def test_power_and_level_are_those_of_a_t_test() -> None:
    """At the stated detectable ratio nine tables in ten decide; level: 4 standard errors of 2,000 draws."""
    rng = np.random.default_rng(1)
    n, spread, draws = 5, 0.1, 2000
    note = judges._power(spread * np.array([-1.0, -1.0, 0.0, 1.0, 1.0]))
    assert note == "detectable ratio 1.21"
    effect = np.log(1.2125)
    logs = rng.normal(-effect, spread, (draws, n))
    verdicts = np.array([judges.judge_ratio(one, 1.0, "").verdict == "holds" for one in logs])
    # The exact power of the t test lies a little below the usual approximation.
    assert abs(verdicts.mean() - 0.9) < 0.02 + 4 * (0.9 * 0.1 / draws) ** 0.5


def test_a_level_that_is_not_in_the_table_is_not_run() -> None:
    class Fake:
        table = pd.DataFrame(_rows(_falls, arm=ADAM))

    found = {claim.id: claim.judge(Fake(), claim.threshold).verdict for claim in STUDY.claims}  # type: ignore[arg-type]
    assert found["levels-best-falls-linear"] == "holds"
    assert {verdict for key, verdict in found.items() if not key.endswith("-linear")} == {"not run"}
