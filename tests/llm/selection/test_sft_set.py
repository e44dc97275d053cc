"""The rows of the SFT set: one of each question, and as many rows or tokens as were asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datadose.errors import InputError
from datadose.llm.pool import Row
from datadose.llm.scores import Scores, hash_question
from datadose.llm.selection import SelectionConfig, describe, select
from datadose.llm.selection.filters import Funnel
from datadose.llm.selection.sft_set import best_of_each
from helpers.synthetic import make

pytestmark = pytest.mark.usefixtures("quick_geometry")


@pytest.fixture(scope="module")
def target() -> Scores:
    return make(100, 1, name="target").scores


def _table(scores: Scores, **columns: object) -> Scores:
    table = scores.table.assign(**columns)
    return replace(scores, table=table.astype({"label_passes": "boolean"}))


def test_two_answers_a_question_the_wrong_one_first(target):
    """All that is wrong stands first: the right answers are chosen, and nothing is lost."""
    made = make(160, 0)
    for i in range(80):
        made.rows[80 + i]["prompt"] = made.rows[i]["prompt"]
        made.rows[i]["label_passes"], made.rows[80 + i]["label_passes"] = False, True
    found = select(made.scores, target, config=SelectionConfig(method="filters", sft_size=60, rl_size=0))
    assert len(found.sft) == 60
    assert (found.sft >= 80).all()
    removed = {f["name"]: f["removed"] for f in found.filters}
    assert removed["duplicate question"] == 80
    assert removed["label fails the verifier"] == 0


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([True, None, False]), st.sampled_from([0.5, 1.0, 2.0])),
        min_size=1,
        max_size=25,
    ),
    out=st.sets(st.integers(0, 24)),
)
@settings(deadline=None, derandomize=True)
def test_the_best_row_of_a_question(rows, out):
    """By enumeration: passing with the lowest loss, else the first unjudged, else the first that fails."""
    questions, labels, losses = zip(*rows, strict=True)
    scores = make(len(rows), 0).scores
    scores = _table(
        scores, question_hash=np.array(questions), label_passes=pd.array(labels, "boolean"), nll=losses
    )
    among = np.array([place not in out for place in range(len(rows))])
    expected = set()
    for question in set(questions):
        own = [place for place in range(len(rows)) if questions[place] == question and among[place]]
        passing = [place for place in own if labels[place]]
        unjudged = [place for place in own if labels[place] is None]
        if passing:
            expected.add(min(passing, key=lambda place: (losses[place], place)))
        elif own:
            expected.add((unjudged or own)[0])
    assert set(np.flatnonzero(best_of_each(scores, among)).tolist()) == expected


def test_the_system_message_is_part_of_the_question(target):
    """Ninety rows with one user text under three system messages each: none is a duplicate."""
    made = make(90, 0)
    for i, row in enumerate(made.rows):
        system = {"role": "system", "content": f"You speak {('French', 'Greek', 'Hindi')[i % 3]}."}
        row["prompt"] = Row(
            "", [system, {"role": "user", "content": f"Question {i // 3}"}], (), {}, 1
        ).question
    assert len({hash_question(row["prompt"]) for row in made.rows}) == 90
    found = select(made.scores, target, config=SelectionConfig(method="filters", sft_size=30, rl_size=0))
    assert next(f for f in found.filters if f["name"] == "duplicate question")["removed"] == 0


def test_a_size_is_given_beyond_the_thresholds(target):
    """Of 144 rows, few are aligned: any size up to the usable rows is given, and what lies beyond is told."""
    pool = make(144, 0, (0.2, 0.8, 0.0, 0.0), samples=0, verified=False)
    config = SelectionConfig(method="filters", rl_size=0)
    auto = select(pool.scores, target, config=config)
    within = np.flatnonzero(auto.sft_removed == -1)
    assert 0 < len(auto.sft) <= len(within) < 40
    before: set[int] = set()
    for size in (len(within), len(within) + 1, 60, 100, 144):
        found = select(pool.scores, target, config=replace(config, sft_size=size))
        assert len(found.sft) == len(found.control_sft) == size
        beyond = {f["name"]: f["taken"] for f in found.filters if f["taken"]}
        assert sum(beyond.values()) == size - len(within)
        assert set(within.tolist()) <= set(found.sft.tolist())
        assert before <= set(found.sft.tolist())
        before = set(found.sft.tolist())
        line = f"{size} rows: " + ", ".join(f"{n} lie beyond `{name}`" for name, n in beyond.items())
        assert (line in describe(found).splitlines()) == bool(beyond)
    with pytest.raises(
        InputError, match=r"sft-size: got 145; allowed: at most 144, the usable rows, or auto"
    ):
        select(pool.scores, target, config=replace(config, sft_size=145))


def test_the_mildest_doubt_is_crossed_first_and_the_nearest_row(target):
    pool = make(400, 0, (0.5, 0.5, 0.0, 0.0), samples=0, verified=False)
    config = SelectionConfig(method="filters", rl_size=0)
    auto = select(pool.scores, target, config=config)
    names = [f["name"] for f in auto.filters_of("sft")]
    easier = np.flatnonzero(auto.sft_removed == names.index("outside the hard stratum"))
    unaligned = np.flatnonzero(auto.sft_removed == names.index("not aligned"))
    within = (auto.sft_removed == -1).sum()
    found = select(pool.scores, target, config=replace(config, sft_size=int(within) + 5))
    assert np.isin(found.sft, np.concatenate([np.flatnonzero(auto.sft_removed == -1), easier])).all()
    later = sum(f["removed"] for f in auto.filters_of("sft")[names.index("not aligned") + 1 :])
    found = select(pool.scores, target, config=replace(config, sft_size=int(within) + later + 20))
    taken = np.intersect1d(found.sft, unaligned)
    left = np.setdiff1d(unaligned, taken)
    assert len(taken) == 20
    shortfall = found.measures.needed[found.measures.stratum] - found.measures.alignment
    assert shortfall[taken].max() <= shortfall[left].min()


def test_hard_exclusions_are_never_crossed(target):
    made = make(300, 0, (0.3, 0.5, 0.2, 0.0))
    for i in range(40):
        made.rows[i]["prompt"] = made.rows[40]["prompt"]
    made.rows[99] |= {"issue": "empty completion", "nll": None}
    scores = made.scores
    passes = scores.table["label_passes"].to_numpy(dtype=bool)
    usable = int(best_of_each(scores, scores.table["issue"].isna().to_numpy() & passes).sum())
    found = select(scores, target, config=SelectionConfig(method="filters", sft_size=usable, rl_size=0))
    assert len(found.sft) == usable
    assert passes[found.sft].all()
    assert 99 not in found.sft
    assert scores.table["question_hash"].iloc[found.sft].is_unique
    with pytest.raises(InputError, match=rf"at most {usable}, the usable rows"):
        select(scores, target, config=SelectionConfig(method="filters", sft_size=usable + 1, rl_size=0))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 1.0])
def test_a_budget_in_tokens_is_kept_and_nearly_spent(target, share):
    pool = make(600, 0, (0.6, 0.4, 0.0, 0.0), samples=0, verified=False).scores
    tokens = pool.table["tokens"].to_numpy(dtype=int)
    budget = int(share * tokens.sum())
    found = select(pool, target, config=SelectionConfig(method="filters", sft_tokens=budget, rl_size=0))
    spent = tokens[found.sft].sum()
    assert budget - tokens.max() < spent <= budget
    assert found.sizes["sft_tokens"] == spent
    control = tokens[found.control_sft].sum()
    assert spent - tokens.max() < control <= spent
    if share == 1.0:
        assert len(found.sft) == 600


def test_a_budget_in_tokens_that_cannot_be_had(target):
    pool = make(300, 0, samples=0, verified=False).scores
    total, least = int(pool.table["tokens"].sum()), int(pool.table["tokens"].min())
    for budget in (total + 1, least - 1):
        with pytest.raises(InputError, match=rf"sft-tokens: got {budget}; allowed: {least} to {total}"):
            select(pool, target, config=SelectionConfig(method="filters", sft_tokens=budget, rl_size=0))
    with pytest.raises(InputError, match="sft_tokens: got 5; allowed: none with a number of rows"):
        SelectionConfig(method="filters", sft_tokens=5, sft_size=3)


def test_a_funnel_ranks_what_only_a_judgement_removed():
    funnel = Funnel("sft", 8)
    rows = np.arange(8)
    funnel.drop("broken", rows == 0, "")
    funnel.drop("grave", np.isin(rows, [1, 2]), "", np.array([0, 0.2, 0.1, 0, 0, 0, 0, 0]))
    funnel.drop("mild", np.isin(rows, [2, 3, 4, 5]), "", np.array([9, 9, 9, 0.3, 0.1, 0.3, 0, 0]))
    assert funnel.beyond().tolist() == [4, 3, 5, 2, 1]
    assert funnel.rows.tolist() == [6, 7]
    funnel.take(np.array([2, 4, 6]))
    assert [f["taken"] for f in funnel.filters] == [0, 1, 1]
    assert funnel.removed_by.tolist() == [0, 1, -1, 2, -1, 2, -1, -1]
