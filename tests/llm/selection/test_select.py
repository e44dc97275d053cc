"""What select promises: clean sets from dirty pools, disjoint, the right sizes, and named errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from datadose.errors import InputError
from datadose.llm.scores import Scores
from datadose.llm.selection import Selection, SelectionConfig, arrays, describe, select, training_commands
from datadose.llm.selection.sft_set import allot
from helpers.synthetic import Pool, make

DIRTY = (0.4, 0.4, 0.1, 0.1)
SETS = ("sft", "rl", "control_sft", "control_rl")

pytestmark = pytest.mark.usefixtures("quick_geometry")


@pytest.fixture(scope="module")
def target() -> Scores:
    return make(300, 1, name="target").scores


@pytest.fixture(scope="module")
def reference() -> Scores:
    return make(600, 2, (0.0, 1.0, 0.0, 0.0), name="reference").scores


@pytest.fixture(scope="module")
def dirty() -> Pool:
    return make(4000, 0, DIRTY, verified=False)


def _bad(pool: Pool, rows: np.ndarray) -> float:
    return float(np.isin(pool.kinds[rows], ("wrong", "interfering")).mean())


def _removed(selection: Selection, name: str, set_: str = "sft") -> int:
    return next(f["removed"] for f in selection.filters if (f["set"], f["name"]) == (set_, name))


def test_contaminants_stay_out_where_naive_hardness_takes_them(dirty, target, reference):
    """The probe's finding: the top by raw NLL are contaminants; here almost none is left."""
    found = select(
        dirty.scores, target, reference=reference, config=SelectionConfig(method="filters", sft_size=200)
    )
    naive = np.argsort(-dirty.scores.table["nll"].to_numpy())[:200]
    assert _bad(dirty, naive) > 0.8
    assert 0.1 < _bad(dirty, found.control_sft) < 0.35
    assert _bad(dirty, found.sft) <= 0.02
    assert (dirty.kinds[found.sft] == "target").mean() > 0.95


@pytest.mark.parametrize(("verified", "samples"), [(True, 0), (False, 16), (False, 0)])
def test_each_guard_works_alone(verified, samples, target, reference):
    """A verifier alone removes wrong labels, own answers alone both kinds; without either, directions do."""
    pool = make(4000, 0, DIRTY, verified=verified, samples=samples)
    config = SelectionConfig(method="filters", sft_size=150, rl_size=0)
    found = select(pool.scores, target, reference=reference, config=config)
    bad = np.isin(pool.kinds, ("wrong", "interfering"))
    if verified:
        assert _removed(found, "label fails the verifier") == bad.sum()
    elif samples:
        assert _removed(found, "suspected conflict") >= 0.95 * bad.sum()
    else:
        assert _removed(found, "suspected conflict") == _removed(found, "label fails the verifier") == 0
        assert (pool.kinds[found.sft] == "interfering").mean() < 0.1
    assert _bad(pool, found.sft) < 0.25
    said = " ".join(found.unchecked)
    assert ("Labels:" in said) == (not verified)
    assert ("Conflicts:" in said) == (not samples)


def test_rows_that_pull_against_the_reference_are_set_apart(target, reference):
    """The sign of interference where nothing else is known: the worst share, and only if negative."""
    pool = make(4000, 0, (0.7, 0.0, 0.0, 0.3), verified=False, samples=0)
    config = SelectionConfig(method="filters", sft_size=200, rl_size=0, interfering=0.25, unaligned=0.0)
    found = select(pool.scores, target, reference=reference, config=config)
    by = {f["name"]: place for place, f in enumerate(found.filters)}["interfering"]
    removed = found.sft_removed == by
    assert (pool.kinds[removed] == "interfering").mean() > 0.9
    assert (found.measures.interference[removed] < 0).all()
    without = select(pool.scores, target, reference=reference, config=replace(config, interfering=0.0))
    assert _removed(without, "interfering") == 0
    left = [np.flatnonzero(s.sft_removed == -1) for s in (found, without)]
    assert _bad(pool, left[0]) < 0.5 * _bad(pool, left[1])
    clean = make(2000, 13, (0.5, 0.5, 0, 0), verified=False, samples=0).scores
    # Rows that all help both: none is against the reference, so none is dropped.
    both = 3 * np.abs(clean.sketches).max() * (np.arange(64) < 2)
    helpful = replace(clean, sketches=clean.sketches + both)
    few = replace(config, sft_size=20)
    assert _removed(select(helpful, target, reference=reference, config=few), "interfering") == 0


def test_a_verified_label_is_no_conflict(target, reference):
    """The model being confidently wrong is what SFT is for, once the label is known to be right."""
    pool = make(1500, 3, samples=8)
    table = pool.scores.table.assign(own_differs=True, own_confidence=0.99)
    sure = replace(pool.scores, table=table)
    config = SelectionConfig(method="filters", sft_size=50, rl_size=0)
    assert _removed(select(sure, target, reference=reference, config=config), "suspected conflict") == 0
    doubtful = replace(sure, table=table.assign(label_passes=None).astype({"label_passes": "boolean"}))
    with pytest.raises(InputError, match=r"suspected conflict -1500"):
        select(doubtful, target, reference=reference, config=replace(config, sft_size="auto"))
    asked = select(doubtful, target, reference=reference, config=config)
    assert [(f["name"], f["taken"]) for f in asked.filters if f["taken"]] == [("suspected conflict", 50)]


def test_the_models_answer_must_be_likelier_than_the_label(target, reference):
    """Confident in its own, but just as confident in the label: two right answers, not a conflict."""
    pool = make(1500, 3, verified=False).scores
    table = pool.table.assign(own_differs=True, own_confidence=0.8, nll=-np.log(0.9))
    found = select(
        replace(pool, table=table),
        target,
        reference=reference,
        config=SelectionConfig(method="filters", sft_size=50),
    )
    assert _removed(found, "suspected conflict") == 0


def test_hardness_is_not_length(target, reference):
    """NLL falls with length in this pool; the selected set is harder, and not shorter."""
    pool = make(6000, 4, samples=0)
    tokens, nll = (pool.scores.table[name].to_numpy(dtype=float) for name in ("tokens", "nll"))
    assert spearmanr(nll, tokens).statistic < -0.4
    config = SelectionConfig(method="filters", sft_size=600, rl_size=0)
    found = select(pool.scores, target, reference=reference, config=config)
    naive = np.argsort(-nll)[:600]
    assert np.median(tokens[naive]) < 0.7 * np.median(tokens)
    assert np.median(tokens[found.sft]) == pytest.approx(np.median(tokens), rel=0.15)
    # Harder by the truth behind NLL: 0.5 on average in the pool.
    assert pool.difficulty[found.sft].mean() > 0.6


def test_the_set_is_drawn_from_the_stratum_not_cut_off_its_top(target, reference):
    pool = make(4000, 5, samples=0)
    config = SelectionConfig(method="filters", sft_size=300, rl_size=0)
    found = select(pool.scores, target, reference=reference, config=config)
    stratum = np.flatnonzero(found.sft_removed == -1)
    assert np.isin(found.sft, stratum).all()
    hardness = found.measures.hardness
    top = stratum[np.argsort(-hardness[stratum])[:300]]
    assert len(np.intersect1d(top, found.sft)) < 0.4 * 300
    other = select(pool.scores, target, reference=reference, config=replace(config, seed=1))
    assert not np.array_equal(other.sft, found.sft)


def test_the_draw_follows_the_target_over_clusters(target, reference):
    """Two skills in the target, nine to one in the pool: the set has them as the target has."""
    pool, both = make(4000, 6, samples=0), make(400, 7, name="both", samples=0)
    rng = np.random.default_rng(0)
    second = {}
    for name, made, share in (("pool", pool, 0.1), ("target", both, 0.5)):
        second[name] = rng.random(len(made.rows)) < share
        size = np.linalg.norm(made.sketches, axis=1)
        made.sketches[second[name], 2] += 1.5 * size[second[name]]
        made.sketches[~second[name], 3] += 1.5 * size[~second[name]]
    config = SelectionConfig(method="filters", sft_size=100, rl_size=0)
    found = select(pool.scores, both.scores, reference=reference, config=config)
    assert second["pool"][found.sft].mean() == pytest.approx(0.5, abs=0.12)
    assert second["pool"][found.control_sft].mean() < 0.25


@given(
    seed=st.integers(0, 2**31),
    shares=st.lists(st.floats(0.05, 1), min_size=4, max_size=4),
    repeated=st.integers(0, 60),
    unscored=st.integers(0, 60),
    sft=st.integers(1, 12),
    rl=st.one_of(st.just("auto"), st.integers(0, 40)),
    representation=st.sampled_from(["sketch", "embedding"]),
    hardness=st.sampled_from(["nll", "sketch"]),
)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_sets_are_disjoint_parts_of_the_pool_of_the_right_size(
    target, reference, seed, shares, repeated, unscored, sft, rl, representation, hardness
):
    weights = np.array([shares[0] + 1, *shares[1:]])
    pool = make(600, seed, tuple(weights / weights.sum()))
    rng = np.random.default_rng(seed)
    for row in rng.choice(600, repeated, replace=False):
        pool.rows[row]["prompt"] = pool.rows[0]["prompt"]
    out = rng.choice(600, unscored, replace=False)
    for row in out:
        pool.rows[row] |= {"issue": "empty completion", "nll": None}
    config = SelectionConfig(
        method="filters",
        sft_size=sft,
        rl_size=rl,
        seed=seed,
        representation=representation,
        hardness=hardness,
    )
    scores = pool.scores
    found = select(scores, target, reference=reference, config=config)
    hashes = scores.table["question_hash"].to_numpy()
    for name in SETS:
        rows = getattr(found, name)
        assert len(np.unique(rows)) == len(rows)
        assert ((rows >= 0) & (rows < 600)).all()
        assert not np.isin(rows, out).any()
    for pair in (("sft", "rl"), ("control_sft", "control_rl")):
        both = np.concatenate([getattr(found, name) for name in pair])
        assert len(np.unique(hashes[both])) == len(both)
    assert len(found.sft) == len(found.control_sft) == sft
    assert len(found.rl) == len(found.control_rl)
    if rl != "auto":
        assert len(found.rl) == rl
    for set_ in ("sft", "rl"):
        steps = [f for f in found.filters if f["set"] == set_]
        lefts = [600, *(f["left"] for f in steps)]
        assert [f["removed"] for f in steps] == list(-np.diff(lefts))
    assert _removed(found, "unscored") == unscored


@pytest.mark.parametrize("representation", ["sketch", "embedding"])
def test_the_same_seed_gives_the_same_sets(dirty, target, reference, representation, monkeypatch):
    """Whatever the size of a block, the threads, and the layout of the arrays."""
    config = SelectionConfig(
        method="filters", seed=3, sft_size=120, rl_size=500, replay=0.2, representation=representation
    )
    first = select(dirty.scores, target, reference=reference, config=config)
    monkeypatch.setattr(arrays, "BLOCK", 37)
    scores = replace(dirty.scores, sketches=np.asfortranarray(dirty.sketches))
    with threadpool_limits(2):
        second = select(scores, target, reference=reference, config=config)
    for name in (*SETS, "replay"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert first.filters == second.filters


def test_auto_takes_what_the_planner_says_and_everything_for_rl(dirty, target, reference):
    config = SelectionConfig(method="filters")
    found = select(dirty.scores, target, reference=reference, config=config)
    assert len(found.sft) == found.planner["size"] <= found.sizes["hard_stratum"]
    assert found.planner["max_prompts"] == found.sizes["hard_stratum"]
    assert found.geometry["shifted_directions"] >= 1
    assert len(found.rl) == found.filters[-1]["left"]


def test_without_a_reference_the_pool_stands_for_it(dirty, target):
    found = select(dirty.scores, target, config=SelectionConfig(method="filters", sft_size=50))
    assert found.sizes["reference"] == min(4096, found.sizes["eligible"])
    assert any("no reference" in sentence for sentence in found.unchecked)


def test_few_target_rows_are_enough_and_told(dirty, reference):
    few = make(3, 1, name="target").scores
    selection = select(
        dirty.scores,
        few,
        reference=reference,
        config=SelectionConfig(method="filters", sft_size=5, rl_size=5),
    )
    assert len(selection.sft) == len(selection.rl) == 5
    assert any(said.startswith("The target has 3 scored rows") for said in selection.unchecked)


def test_a_pool_without_the_target_is_told(target, reference):
    pool = make(1000, 12, (0.03, 0.97, 0, 0)).scores
    found = select(pool, target, reference=reference, config=SelectionConfig(method="filters", sft_size=3))
    assert any("Whether the pool holds what the target asks for" in sentence for sentence in found.unchecked)


def test_replay_has_its_share_and_asks_nothing_twice(dirty, target):
    old = make(600, 2, (0.0, 1.0, 0.0, 0.0), name="reference")
    for i in range(100):
        old.rows[i]["prompt"] = dirty.rows[i]["prompt"]
    for i in range(100, 200):
        old.rows[i]["prompt"] = f"target target question {i}"
    config = SelectionConfig(method="filters", sft_size=300, replay=0.4)
    found = select(dirty.scores, target, reference=old.scores, config=config)
    assert len(found.replay) == 200
    assert not np.isin(found.replay, np.arange(100, 200)).any()
    hashes = dirty.scores.table["question_hash"].to_numpy()
    used = np.concatenate([hashes[getattr(found, name)] for name in SETS])
    assert not np.isin(old.scores.table["question_hash"].to_numpy()[found.replay], used).any()
    with pytest.raises(InputError, match=r"replay: got 0\.9; allowed: at most"):
        select(dirty.scores, target, reference=old.scores, config=replace(config, replay=0.9))
    with pytest.raises(InputError, match=r"replay: got 0\.4; allowed: 0 without a reference"):
        select(dirty.scores, target, config=config)


def test_errors_are_named(dirty, target, reference):
    plain = make(500, 10, samples=0).scores
    config = SelectionConfig(method="filters", sft_size=10)
    for asked in ({"rl_size": 3}, {"sft_size": 0}):
        with pytest.raises(InputError, match=r"rl-size: got scores without pass rates.*--samples"):
            select(plain, target, reference=reference, config=replace(config, **asked))
    alone = select(plain, target, reference=reference, config=config)
    assert len(alone.rl) == 0
    assert alone.filters_of("rl") == []
    assert any("no RL set" in said for said in alone.unchecked)
    none = select(plain, target, reference=reference, config=replace(config, rl_size=0))
    assert not any("no RL set" in said for said in none.unchecked)
    seen = make(50, 1, name="seen")
    seen.rows[7]["prompt"] = dirty.rows[11]["prompt"]
    with pytest.raises(InputError, match=r"target: got 1 pool rows .*\(pool-11\)"):
        select(dirty.scores, seen.scores, config=config)
    with pytest.raises(
        InputError, match=r"sft-size: got 4001; allowed: at most 4000, the usable rows, or auto"
    ):
        select(dirty.scores, target, reference=reference, config=replace(config, sft_size=4001))
    with pytest.raises(InputError, match=r"rl-size: got 4000; allowed: at most 3990, or auto: 3990 distinct"):
        select(dirty.scores, target, reference=reference, config=replace(config, rl_size=4000))
    solved = replace(plain, table=plain.table.assign(pass_rate=1.0, pass_rate_low=0.95, pass_rate_high=1.0))
    auto = replace(config, sft_size="auto", rl_size=0)
    with pytest.raises(
        InputError, match=r"sft-size: got auto; allowed: nothing can be chosen: 0 .*solved -500"
    ):
        select(solved, target, reference=reference, config=auto)
    with pytest.raises(InputError, match=r"target: got none; allowed: examples of the target"):
        select(dirty.scores, config=config)
    other = replace(target, manifest={"model": "another", "model_digest": "1"})
    with pytest.raises(InputError, match="target: got another; allowed: scores under synthetic"):
        select(dirty.scores, other, config=config)
    narrow = replace(target, sketches=target.sketches[:, :5])
    with pytest.raises(InputError, match="target: got sketches of size 5"):
        select(dirty.scores, narrow, config=config)
    broken = replace(dirty.scores, table=dirty.scores.table.assign(issue="prompt too long"))
    with pytest.raises(InputError, match=r"none of them scored \(4000 marked: prompt too long\)"):
        select(broken, target, config=config)


def test_rows_with_broken_numbers_are_unscored(target, reference):
    pool = make(600, 11)
    pool.sketches[3] = np.nan
    pool.sketches[4, 2] = np.inf
    found = select(
        pool.scores, target, reference=reference, config=SelectionConfig(method="filters", sft_size=10)
    )
    assert _removed(found, "unscored") == 2
    assert not found.eligible[[3, 4]].any()


@given(
    st.lists(st.tuples(st.floats(0.1, 50), st.integers(0, 40)), min_size=1, max_size=12),
    st.floats(0, 1),
)
@settings(deadline=None, derandomize=True)
@example([(1.0, 3), (1.0, 3), (2.0, 18)], 0.125)
def test_allotments_add_up_and_fit(places, part):
    weights, available = np.array([w for w, _ in places]), np.array([n for _, n in places])
    size = int(part * available.sum())
    quota = allot(size, weights, available)
    assert quota.sum() == size
    assert (quota <= available).all()
    assert (quota >= 0).all()
    if (available >= size).all():
        assert (np.abs(quota - size * weights / weights.sum()) <= 1).all()


def test_the_control_of_rl_asks_nothing_of_either_sft_set(dirty, target, reference):
    """Tight: all that is left must do."""
    hashes = dirty.scores.table["question_hash"].to_numpy()
    for size in (100, 1500, 3900):
        config = SelectionConfig(method="filters", sft_size=size, rl_size=50)
        found = select(dirty.scores, target, reference=reference, config=config)
        assert (len(found.control_sft), len(found.control_rl)) == (size, 50)
        for name in ("sft", "control_sft"):
            assert not np.isin(hashes[found.control_rl], hashes[getattr(found, name)]).any()
        assert found.has_control("sft")
        assert found.has_control("rl")


def test_a_set_of_all_rows_has_no_control(dirty):
    """Its commands are those of the set alone, and that is said."""
    among = int(np.isfinite(dirty.scores.table["pass_rate"].to_numpy(dtype=float)).sum())
    found = select(dirty.scores, config=SelectionConfig(method="filters", sft_size=0, rl_size=among))
    assert not found.has_control("rl")
    commands = training_commands(found, Path("out"))
    assert [one.text.split()[1] for one in commands] == ["posttrain", "score"]
    assert "there is no control to compare it with" in describe(found, commands=commands)
