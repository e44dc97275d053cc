"""Selection methods: each against its definition, on pools whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from datadose.errors import InputError
from datadose.llm.selection.arrays import Usable
from datadose.llm.selection.config import FILTERS, METHOD_NAMES, UNORDERED
from datadose.llm.selection.methods import METHODS, choose_rows
from datadose.llm.selection.nearest import unit_rows
from datadose.llm.selection.transport import nearest_measure
from helpers.synthetic import make


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Usable, Usable]:
    """60 usable rows of a pool of 80, and 7 target rows; every column that a method needs."""
    folder: Path = tmp_path_factory.mktemp("methods")
    found = []
    for name, count, shares in (("pool", 80, (0.3, 0.7, 0, 0)), ("target", 7, (1.0, 0, 0, 0))):
        pool = make(count, len(name), shares, name=name)
        alone = np.random.default_rng(3).permutation(count) / count
        for row, value in zip(pool.rows, alone, strict=True):
            row["nll_alone"] = row["nll"] / (0.5 + value)
        found.append(pool.saved(folder / name))
    rows = np.sort(np.random.default_rng(1).permutation(80)[:60])
    return Usable(found[0], rows), Usable(found[1], np.arange(7))


def test_every_method_has_a_name_that_select_takes() -> None:
    assert (*METHODS, FILTERS) == METHOD_NAMES


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_distinct_usable_rows_and_begins_alike(
    name: str, cases: tuple[Usable, Usable]
) -> None:
    pool, target = cases
    found = {size: choose_rows(name, pool, [target], size, 5) for size in (1, 13, 60)}
    for size, rows in found.items():
        assert len(set(rows.tolist())) == size
        assert np.isin(rows, pool.rows).all()
    assert sorted(found[60].tolist()) == pool.rows.tolist()
    if name not in UNORDERED:
        assert found[60][:13].tolist() == found[13].tolist()


@pytest.mark.parametrize("size", [1, 13, 59, 60])
def test_the_first_of_equal_rows_come_first(size: int, cases: tuple[Usable, Usable]) -> None:
    """The order is that of a stable sort, whatever part of it is asked for."""
    pool, target = cases
    tokens = pool.numbers("tokens")[pool.rows]
    assert len(set(tokens.tolist())) < len(tokens)
    every = pool.rows[np.argsort(-tokens, kind="stable")]
    assert choose_rows("longest", pool, [target], size, 0).tolist() == every[:size].tolist()


@pytest.mark.parametrize("size", [1, 13, 57, 58, 60])
@pytest.mark.parametrize(("name", "column"), [("easiest", "nll"), ("ifd", "nll_alone")])
def test_rows_without_a_number_come_last(
    name: str, column: str, size: int, cases: tuple[Usable, Usable]
) -> None:
    """And none is lost, however many are asked for."""
    pool, target = cases
    every = choose_rows(name, pool, [target], 60, 0)
    without = pool.rows[[3, 20, 41]]
    values = pool.scores.table[column].copy()
    values.iloc[without] = np.nan
    some = replace(pool, scores=replace(pool.scores, table=pool.scores.table.assign(**{column: values})))
    expected = [row for row in every.tolist() if row not in without] + without.tolist()
    assert choose_rows(name, some, [target], size, 0).tolist() == expected[:size]


@pytest.mark.parametrize(
    ("name", "column", "sign"), [("longest", "tokens", -1), ("easiest", "nll", 1), ("hardest", "nll", -1)]
)
def test_orders_of_a_column(name: str, column: str, sign: int, cases: tuple[Usable, Usable]) -> None:
    pool, target = cases
    values = sign * pool.numbers(column)[choose_rows(name, pool, [target], 60, 0)]
    assert (np.diff(values) >= 0).all()


def test_the_middle_is_around_the_median(cases: tuple[Usable, Usable]) -> None:
    pool, target = cases
    taken = choose_rows("middle", pool, [target], 20, 0)
    ranked = pool.rows[np.argsort(pool.numbers("nll")[pool.rows])]
    assert sorted(taken.tolist()) == sorted(ranked[20:40].tolist())


def test_ifd_takes_the_largest_ratio_below_one_first(cases: tuple[Usable, Usable]) -> None:
    pool, target = cases
    rows = choose_rows("ifd", pool, [target], 60, 0)
    ratio = (pool.numbers("nll") / pool.numbers("nll_alone"))[rows]
    below = int((ratio < 1).sum())
    assert 0 < below < 60
    assert (ratio[:below] < 1).all()
    assert (np.diff(ratio[:below]) <= 0).all()
    assert (np.diff(ratio[below:]) >= 0).all()
    lacking = make(10, 0, name="lacking").scores
    with pytest.raises(InputError, match=r"ifd with 10 usable rows without nll_alone.*--alone"):
        choose_rows("ifd", Usable(lacking, np.arange(10)), [target], 3, 0)


def test_bm25_finds_the_rows_that_share_rare_words(cases: tuple[Usable, Usable]) -> None:
    pool, target = cases
    # The prompts of the pool's rows are "pool KIND question NUMBER", those of the target "target target ...".
    kinds = [
        line["prompt"].split()[1] for line in pool.scores.lines(choose_rows("bm25", pool, [target], 60, 0))
    ]
    targets = kinds.count("target")
    assert 5 < targets < 55
    # Numbers are shared by chance: rare words too.
    assert kinds[:targets].count("target") >= targets - 7


def test_sketch_mean_is_the_step_that_lowers_the_target_most(cases: tuple[Usable, Usable]) -> None:
    pool, target = cases
    mean = (target.scores.sketches / target.numbers("tokens")[:, None]).mean(axis=0)
    ours = pool.scores.sketches
    effect = ours @ mean / np.linalg.norm(ours, axis=1)
    found = effect[choose_rows("sketch-mean", pool, [target], 60, 0)]
    assert (np.diff(found) <= 1e-7).all()


@pytest.mark.parametrize(("name", "kind"), [("rds", "embeddings"), ("sketch", "sketches")])
def test_nearest_methods_use_their_representation(name: str, kind: str, cases: tuple[Usable, Usable]) -> None:
    pool, target = cases
    ours, theirs = (unit_rows(getattr(one.scores, kind), one.rows) for one in cases)
    best = pool.rows[(theirs @ ours.T).argmax(axis=1)].tolist()
    firsts = [choose_rows(name, pool, [target], 1, seed)[0] for seed in range(40)]
    # Which target row has the first turn is drawn: of 7, one is missed by 40 draws with chance .015.
    assert set(firsts) == set(best)


def test_several_targets_take_turns(cases: tuple[Usable, Usable]) -> None:
    pool, target = cases
    parts = [Usable(target.scores, np.array([row])) for row in (2, 4)]
    first, second = (choose_rows("rds", pool, [part], 60, 0).tolist() for part in parts)
    assert choose_rows("rds", pool, parts, 2, 0).tolist() == [
        first[0],
        next(row for row in second if row != first[0]),
    ]


def test_transport_is_the_cheapest_measure_of_its_size() -> None:
    """With 3 rows for 3 target rows the plan is an assignment, whose best is known."""
    costs = np.random.default_rng(0).random((9, 3))
    own, wanted = linear_sum_assignment(costs)
    assert sorted(nearest_measure(costs, 3).tolist()) == sorted(own.tolist())
    assert costs[own, wanted].sum() == pytest.approx(
        min(
            costs[list(rows)][linear_sum_assignment(costs[list(rows)])].sum()
            for rows in combinations(range(9), 3)
        )
    )
    # Twice as many rows: each target row is split between two.
    double = linear_sum_assignment(np.repeat(costs, 2, axis=1))[0]
    assert sorted(nearest_measure(costs, 6).tolist()) == sorted(double.tolist())


@pytest.mark.parametrize("prompt", ["?!", "\u05e9\u05dc\u05d5\u05dd"])
def test_bm25_is_refused_where_no_word_is_shared(
    prompt: str, cases: tuple[Usable, Usable], tmp_path: Path
) -> None:
    made = make(4, 0, name="other")
    for row in made.rows:
        row |= {"prompt": prompt, "completion": prompt}
    other = Usable(made.saved(tmp_path), np.arange(4))
    for pool, target in ((other, cases[1]), (cases[0], other)):
        with pytest.raises(InputError, match="bm25 with a target that shares no word with a usable row"):
            choose_rows("bm25", pool, [target], 2, 0)


@pytest.mark.parametrize("name", ["rds", "sketch", "sketch-mean", "transport"])
def test_a_target_row_of_zeros_points_nowhere(name: str, cases: tuple[Usable, Usable]) -> None:
    pool, target = cases
    keep = np.arange(7)[:, None] < 3
    found, nothing = (
        replace(
            target.scores,
            embeddings=target.scores.embeddings * mask,
            sketches=target.scores.sketches * mask,
        )
        for mask in (keep, keep & False)
    )
    if name in ("rds", "sketch"):
        kind = "embeddings" if name == "rds" else "sketches"
        ours, theirs = (
            unit_rows(getattr(s, kind), r) for s, r in ((pool.scores, pool.rows), (found, range(3)))
        )
        best = pool.rows[(theirs @ ours.T).argmax(axis=1)].tolist()
        firsts = {choose_rows(name, pool, [Usable(found, target.rows)], 1, seed)[0] for seed in range(20)}
        assert firsts == set(best)
    with pytest.raises(
        InputError, match=f"method: got {'rds' if name == 'transport' else name} with a target"
    ):
        choose_rows(name, pool, [Usable(nothing, target.rows)], 2, 0)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("rd", 3, r"method: got rd \(did you mean rds\?\)"),
        ("rds", 61, "size: got 61; allowed: 1 to 60, the usable rows"),
        ("random", 0, "size: got 0; allowed: 1 to 60"),
    ],
)
def test_bad_requests_are_refused(name: str, size: int, message: str, cases: tuple[Usable, Usable]) -> None:
    with pytest.raises(InputError, match=message):
        choose_rows(name, cases[0], [cases[1]], size, 0)
