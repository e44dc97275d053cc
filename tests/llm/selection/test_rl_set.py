"""The RL set: prompts whose groups will be mixed, best-ranked first, with or without an SFT set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.llm.pass_rates import Prior, chance_mixed
from datadose.llm.scores import MEASURED, Scores, write_scores
from datadose.llm.selection import Selection, SelectionConfig, describe, select, write_selection
from datadose.llm.selection.filters import HOPELESS, SOLVED
from helpers.synthetic import MANIFEST, Pool, make, question_hashes

pytestmark = pytest.mark.usefixtures("quick_geometry")

RL_ONLY = SelectionConfig(sft_size=0)


def sampled(rates: np.ndarray, samples: int, seed: int = 0, **columns: Any) -> Pool:
    """A pool of prompts without completions whose pass rates are known; nothing else is measured on them."""
    passed = np.random.default_rng(seed).binomial(samples, rates)
    rows = [
        {"id": f"p{i}", "prompt": f"question {i}", "answer": str(i), **dict.fromkeys(MEASURED)}
        | {"pass_rate": k / samples, "pass_rate_total": samples, "pass_rate_passed": int(k), **columns}
        for i, k in enumerate(passed)
    ]
    nothing = np.full((len(rows), 2), np.nan, dtype=np.float32)
    return Pool(rows, np.full(len(rows), "target"), rates, nothing, nothing)


def passes(scores: Scores, rows: np.ndarray) -> np.ndarray:
    return scores.table["pass_rate_passed"].to_numpy(dtype=int)[rows]


def removed(selection: Selection, name: str) -> int:
    return next(f["removed"] for f in selection.filters if f["name"] == name)


@pytest.mark.parametrize("samples", [8, 16])
@pytest.mark.parametrize("law", [(0.3, 0.3), (0.4, 1.0), (1.0, 1.0)])
def test_all_pass_and_all_fail_go_and_the_middle_stays(samples: int, law: tuple[float, float]) -> None:
    """At the README's K and at half of it: the filter removes both ends, nothing between, and says why."""
    scores = sampled(np.random.default_rng(1).beta(*law, 2000), samples).scores
    found = select(scores, config=RL_ONLY)
    kept = set(passes(scores, found.rl).tolist())
    assert kept >= set(range(samples // 8 + 1, samples - samples // 8))
    assert not kept & {0, samples}
    counts = passes(scores, np.arange(2000))
    assert removed(found, HOPELESS) >= (counts == 0).sum() > 0
    assert removed(found, SOLVED) >= (counts == samples).sum() > 0
    record = found.rl_record
    assert (record["prior"]["a"], record["prior"]["b"]) == pytest.approx(law, rel=0.25)
    assert record["chance_mixed"] > max(0.75, record["chance_mixed_pool"])
    assert record["kept"] == len(found.rl)


@pytest.mark.parametrize("samples", [8, 16])
def test_groups_of_the_kept_prompts_are_mixed_as_promised(samples: int) -> None:
    """Draw groups at the true rates: the share of mixed ones is the mean chance that the record tells."""
    rates = np.random.default_rng(2).beta(0.3, 0.5, 4000)
    found = select(sampled(rates, samples).scores, config=RL_ONLY)
    drawn = np.random.default_rng(3).binomial(8, rates[found.rl][:, None], (len(found.rl), 50))
    share = ((drawn > 0) & (drawn < 8)).mean()
    assert share == pytest.approx(found.rl_record["chance_mixed"], abs=0.02)
    everybody = np.random.default_rng(4).binomial(8, np.repeat(rates, 20))
    pool = ((everybody > 0) & (everybody < 8)).mean()
    assert pool == pytest.approx(found.rl_record["chance_mixed_pool"], abs=0.02)


def test_half_always_half_never_has_no_rl_set_unless_asked(tmp_path: Path) -> None:
    """33 prompts at 0 of 16 and 60 at 16 of 16: no group will be mixed, and no file pretends otherwise."""
    scores = sampled(np.repeat([0.0, 1.0], [33, 60]), 16).scores
    with pytest.raises(InputError) as error:
        select(scores, config=RL_ONLY)
    assert f"rl-size: got auto; allowed: nothing can be chosen: 0 rows are left of 93 ({SOLVED} -60" in str(
        error.value
    )
    mixed = make(400, 0, (0.6, 0.4, 0, 0))
    for i, row in enumerate(mixed.rows):
        row |= {"pass_rate": float(i % 2), "pass_rate_passed": 16 * (i % 2), "pass_rate_low": 0.0}
    target = make(100, 1, name="target").scores
    found = select(mixed.scores, target, config=SelectionConfig(method="filters", sft_size=10))
    assert len(found.sft) == 10
    assert len(found.rl) == len(found.control_rl) == 0
    assert "No prompt's group of 8 is mixed with a chance of 0.5 or more: no RL set" in describe(found)
    asked = select(scores, config=replace(RL_ONLY, rl_size=7))
    assert len(asked.rl) == asked.rl_record["beyond_threshold"] == 7
    assert "7 of the 7 prompts lie beyond the threshold, 0 are within it" in describe(asked)
    assert (asked.rl_removed[asked.rl] == -1).all()


def test_a_number_takes_the_best_ranked() -> None:
    scores = sampled(np.random.default_rng(5).random(1000), 8).scores
    everybody = passes(scores, np.arange(1000))
    found = select(scores, config=replace(RL_ONLY, rl_size=200))
    assert len(found.rl) == 200
    middle = (everybody == 4).sum()
    assert (passes(scores, found.rl) == 4).sum() == middle
    assert set(passes(scores, found.rl).tolist()) <= {3, 4, 5}
    assert found.rl_record["beyond_threshold"] == 0
    # Ties are broken by the seed, and by nothing else.
    again = select(scores, config=replace(RL_ONLY, rl_size=200))
    other = select(scores, config=replace(RL_ONLY, rl_size=200, seed=1))
    assert np.array_equal(found.rl, again.rl)
    assert not np.array_equal(found.rl, other.rl)
    tied = set(np.flatnonzero(everybody == 4)) & set(found.rl.tolist())
    assert tied <= set(other.rl.tolist())
    kept = select(scores, config=RL_ONLY).rl_record["kept"]
    more = select(scores, config=replace(RL_ONLY, rl_size=kept + 5))
    assert more.rl_record["beyond_threshold"] == 5
    assert len(more.rl) == kept + 5
    with pytest.raises(InputError, match=r"rl-size: got 1001; allowed: at most 1000, or auto: 1000 distinct"):
        select(scores, config=replace(RL_ONLY, rl_size=1001))


def test_larger_groups_and_a_lower_threshold_keep_more() -> None:
    scores = sampled(np.random.default_rng(6).beta(0.5, 0.5, 1000), 8).scores
    sizes = [
        len(select(scores, config=replace(RL_ONLY, group=group, rl_mixed=mixed)).rl)
        for group, mixed in ((4, 0.5), (8, 0.5), (64, 0.5), (64, 0.1))
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] == 1000


def test_a_question_is_one_prompt_and_in_one_set() -> None:
    pool = make(1500, 8, samples=16)
    for row in pool.rows[:30]:
        row["prompt"] = "the same"
    target = make(100, 1, name="target").scores
    found = select(pool.scores, target, config=SelectionConfig(method="filters", sft_size=20))
    assert (found.rl < 30).sum() + (found.sft < 30).sum() <= 1
    assert not np.isin(found.rl, found.sft).any()
    hashes = pool.scores.table["question_hash"].to_numpy()
    assert not np.isin(hashes[found.rl], hashes[found.sft]).any()


def test_rows_that_were_not_judged_or_have_an_issue_are_left_out() -> None:
    pool = make(800, 9)
    for row in pool.rows[:100]:
        row |= {name: None for name in row if name.startswith("pass_rate")}
    for row in pool.rows[100:150]:
        row["issue"] = "prompt too long"
    found = select(pool.scores, config=RL_ONLY)
    assert found.rl.min() >= 150
    assert (removed(found, "no pass rate"), removed(found, "unscored")) == (100, 50)
    assert found.control_rl.min() >= 150


def test_the_signal_of_scores_is_that_of_the_ranking() -> None:
    """The column that `score` writes ranks the prompts as `select` does."""
    pool = make(500, 3)
    signal = np.array([row["signal"] for row in pool.rows])
    found = select(pool.scores, config=replace(RL_ONLY, rl_size=50))
    assert signal[found.rl].min() >= np.delete(signal, found.rl).max() - 1e-12
    prior = Prior(*(found.rl_record["prior"][name] for name in ("a", "b", "prompts", "samples")))
    k = passes(pool.scores, found.rl)
    chances = chance_mixed(*prior.posterior(k, np.full(50, 16)), 8)
    assert found.rl_record["chance_mixed"] == pytest.approx(chances.mean())


def test_without_pass_rates_there_is_no_rl_set() -> None:
    with pytest.raises(InputError, match=r"rl-size: got scores without pass rates.*--samples"):
        select(make(50, 0, samples=0).scores, config=RL_ONLY)


def test_prompts_alone_make_an_rl_set_and_its_files(tmp_path: Path) -> None:
    """No completion, no loss, no representation, no target: rl.jsonl, its control, manifest and report."""
    pool = sampled(np.random.default_rng(7).random(300), 8)
    del pool.rows[0]["answer"]
    ids, questions = [row["id"] for row in pool.rows], question_hashes(pool.rows)
    arrays = pool.embeddings, pool.sketches
    scores = write_scores(tmp_path / "scores", pool.rows, ids, questions, *arrays, dict(MANIFEST))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sft.jsonl").write_text("of an earlier selection")
    found = select(scores, config=replace(RL_ONLY, rl_size=40))
    write_selection(found, scores, None, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"rl.jsonl", "control_rl.jsonl", "manifest.json", "report.html"}
    for name in ("rl", "control_rl"):
        lines = [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
        assert len(lines) == 40
        assert all({"prompt", "answer", "signal", "pass_rate"} <= set(line) for line in lines)
    saved = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert saved["rl"] == found.rl_record
    assert saved["scores"]["target"] is None
    shown, page = describe(found), (tmp_path / "out" / "report.html").read_text()
    prior = found.rl_record["prior"]
    for text in (shown, page):
        assert f"Beta({prior['a']:.3g}, {prior['b']:.3g}), mean {prior['mean']:.3g}" in text
        assert "percent of the prompts pass more often than 0.917" in text
    assert "nan" not in page.split("Rows to look at")[1].lower()


def test_a_pool_that_is_solved_for_sft_still_has_an_rl_set(tmp_path: Path) -> None:
    """All prompts pass 14 of 16: nothing to demonstrate, and much that a group can learn from."""
    pool = make(400, 4)
    for row in pool.rows:
        row |= {"pass_rate": 14 / 16, "pass_rate_passed": 14, "pass_rate_low": 0.64, "pass_rate_high": 0.97}
    saved = pool.saved(tmp_path / "scores")
    target = make(100, 1, name="target").scores
    found = select(saved, target, config=SelectionConfig(method="filters"))
    assert len(found.sft) == len(found.control_sft) == 0
    assert len(found.rl) == 400
    assert "already solved -400" in found.planner["note"]
    write_selection(found, saved, None, tmp_path / "out")
    assert not (tmp_path / "out" / "sft.jsonl").exists()
    assert "already solved" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(InputError, match="sft-size: got auto; allowed: nothing can be chosen"):
        select(saved, target, config=SelectionConfig(method="filters", rl_size=0))


def test_controls_fit_when_the_sets_draw_on_different_rows() -> None:
    """A sixth of the rows are sampled, and all that the SFT set leaves of these are the RL set.

    A control of the SFT set that took more of them than the SFT set would leave too few for the other.
    """
    pool = make(600, 6, samples=16)
    for row in pool.rows[100:]:
        row |= {name: None for name in row if name.startswith("pass_rate")}
    target = make(100, 1, name="target").scores
    none: dict[str, Any] = {"extreme": 0.0, "unaligned": 0.0, "interfering": 0.0, "sft_solved": 1.0}
    config = SelectionConfig(method="filters", sft_size=300, rl_mixed=1e-9, hard=1.0, **none)
    for seed in range(6):
        found = select(pool.scores, target, config=replace(config, seed=seed))
        assert len(found.rl) == 100 - (found.sft < 100).sum()
        assert (len(found.control_sft), len(found.control_rl)) == (300, len(found.rl))
        assert (found.control_rl < 100).all()
        assert not np.isin(found.control_rl, found.control_sft).any()


def test_the_old_ends_of_the_band_are_taken_for_the_chance_of_the_outer_one() -> None:
    with pytest.warns(FutureWarning, match=r"rl_solved and rl_hopeless will go: rl_mixed = 0.337 "):
        both = SelectionConfig(rl_solved=0.9, rl_hopeless=0.05)
    assert both.rl_mixed == pytest.approx(1 - 0.05**8 - 0.95**8)
    with pytest.warns(FutureWarning, match="rl_solved will go"):
        assert SelectionConfig(rl_solved=0.9, group=2).rl_mixed == pytest.approx(0.18)
    assert replace(both, seed=3).rl_mixed == both.rl_mixed
    with pytest.warns(FutureWarning, match="rl_hopeless will go"):
        assert SelectionConfig(rl_hopeless=0).rl_mixed == 1e-9
    old: dict[str, float]
    for old, message in (
        ({"rl_hopeless": 2.0}, "rl_hopeless: got 2"),
        ({"rl_hopeless": 0.9, "rl_solved": 0.1}, "rl_hopeless: got 0.9; allowed: a number below rl_solved"),
        ({"rl_solved": 0.9, "rl_mixed": 0.3}, "rl_mixed: got 0.3; allowed: none beside rl_solved"),
    ):
        with pytest.raises(InputError, match=message):
            SelectionConfig(**old)  # type: ignore[arg-type]
