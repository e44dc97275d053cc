"""From losses to verdicts: intervals, what would have been detected, and which method to take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from datadose.llm.compare.table import RUNS, TABLE, UNTOUCHED, advice, in_words, judged, shown_rows, table_of
from datadose.power import detectable_difference

LEVELS = np.array([0.0, 0.5, 1.0, 0.2])
"""What the test rows of four seeds add to every loss."""
NOISE = 0.01 * np.array([1, -1, 1, -1])


def runs_of(losses: dict[tuple[str, int], Any]) -> pd.DataFrame:
    """Runs of four seeds with these best-stopped losses, above the seeds' levels."""
    rows = [
        (method, budget, seed, 5 * budget, loss, loss, 3, loss + 0.1)
        for (method, budget), values in losses.items()
        for seed, loss in enumerate(np.broadcast_to(values, 4) + LEVELS)
    ]
    return pd.DataFrame(rows, columns=list(RUNS))


BASE = {(UNTOUCHED, 0): 5.0, ("random", 8): 2.0}


def test_a_row_is_means_intervals_and_paired_differences() -> None:
    table = table_of(runs_of({**BASE, ("rds", 8): 1.9 + NOISE}))
    assert list(table) == list(TABLE)
    assert table["method"].to_list() == [UNTOUCHED, "random", "rds"]
    rds = table.iloc[2]
    losses = 1.9 + NOISE + LEVELS
    half = stats.t.ppf(0.975, 3) * losses.std(ddof=1) / 2
    assert (rds["test_loss"], rds["test_loss_low"]) == pytest.approx((losses.mean(), losses.mean() - half))
    assert (rds["last_loss"], rds["best_step"], rds["tokens"]) == pytest.approx((losses.mean() + 0.1, 3, 40))
    # The levels of the seeds are in both and cancel.
    spread = NOISE.std(ddof=1)
    half = stats.t.ppf(0.975, 3) * spread / 2
    assert rds["difference"] == pytest.approx(-0.1)
    assert rds["difference_high"] == pytest.approx(-0.1 + half)
    assert rds["detectable_difference"] == pytest.approx(detectable_difference(spread, 4))
    assert rds["verdict"] == "better"
    assert table["difference"].isna().to_list() == [False, True, False]
    assert table.iloc[0]["verdict"] == "worse"


def test_the_untouched_model_is_compared_where_there_is_one_budget() -> None:
    table = table_of(runs_of({**BASE, ("random", 16): 1.8}))
    assert table["difference"].isna().all()
    assert table["budget"].to_list() == [0, 8, 16]


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([-1.0, -1.1, -0.9], "better"),
        ([1.0, 1.1, 0.9], "worse"),
        ([0.1, -0.1, 0.05], "no difference"),
        # The interval leaves 0 in, and what would have been detected out.
        ([-1.0, -0.2, -0.1, -0.9], "undecided"),
        ([0.0, 0.0, 0.0], "no difference"),
        ([0.5, 0.5], "worse"),
    ],
)
def test_verdicts(differences: list[float], verdict: str) -> None:
    found = judged(np.array(differences))
    assert found["verdict"] == verdict
    assert found["difference_low"] <= found["difference"] <= found["difference_high"]
    least = found["detectable_difference"]
    said = in_words(verdict, least)
    same = f"no difference larger than {least:.2g}" if least else "equal in every seed"
    assert said == (same if verdict == "no difference" else verdict)


def test_the_best_of_the_better_ones_is_to_be_taken() -> None:
    losses = {("rds", 8): 1.5 - NOISE, ("sketch", 8): 1.505 + NOISE, ("longest", 8): 3.0, ("ifd", 8): 1.9}
    runs = runs_of({**BASE, **losses})
    (sentence,) = advice(table_of(runs), runs)
    assert sentence.startswith(
        "8 rows: take rds, whose test loss is 0.5 nats a token below that of random (0.4"
    )
    assert sentence.endswith("; not told from it: sketch")


def test_without_a_better_one_the_power_is_stated() -> None:
    mixed = 0.2 * np.array([1, -1, 1, -1.2])
    undecided = 1.6 + np.array([0.4, 0.1, -0.2, -0.3])
    runs = runs_of({**BASE, ("random", 16): 1.9, ("rds", 8): 2 + mixed, ("rds", 16): undecided})
    table = table_of(runs)
    (sentence,) = advice(table, runs)
    least = table["detectable_difference"].max()
    assert sentence.startswith("8, 16 rows: no method is better than random beyond doubt")
    assert "(ahead, but undecided: rds)" in sentence
    assert f"better by {least:.2g} nats a token would have been found in 4 of 5" in sentence
    assert detectable_difference(1, 10) < detectable_difference(1, 4) / 2 < detectable_difference(1, 9)
    assert "to find half of that, 10 seeds are needed in place of 4" in sentence
    alone = runs_of(BASE)
    assert advice(table_of(alone), alone) == ["only random was run, and nothing to compare it with"]


def test_arms_that_are_the_same_need_no_more_seeds() -> None:
    runs = runs_of({**BASE, ("rds", 8): 2.0})
    (sentence,) = advice(table_of(runs), runs)
    assert "no more seeds are needed" in sentence


def test_runs_that_were_all_best_untouched_are_not_called_alike() -> None:
    """Equal losses of one model: no more seeds would tell the methods apart, another rate might."""
    runs = runs_of(
        {(UNTOUCHED, 0): 2.0, ("random", 8): 2.0, ("rds", 8): 2.0, ("random", 16): 1.9, ("rds", 16): 1.5}
    )
    runs.loc[runs["budget"] <= 8, "best_step"] = 0
    other, untrained = advice(table_of(runs), runs)
    assert untrained.startswith("8 rows: the methods were not compared, since training only did harm")
    assert "--learning-rate" in untrained
    assert other.startswith("16 rows: take rds")
    # One run that gained something is a comparison.
    runs.loc[(runs["budget"] == 8) & (runs["method"] == "rds") & (runs["seed"] == 0), "best_step"] = 3
    assert not any("not compared" in sentence for sentence in advice(table_of(runs), runs))


def test_what_a_reader_sees() -> None:
    header, rows = shown_rows(table_of(runs_of({**BASE, ("rds", 8): 1.9 + NOISE})))
    assert all(len(row) == len(header) for row in rows)
    assert rows[1][:3] == ["random", "8", "2.425"]
    assert rows[1][-3:] == ["-", "-", "-"]
    assert rows[2][-3] == "-0.1"
    assert rows[2][-1] == "better"
