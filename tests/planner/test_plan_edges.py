"""Plans at the edges: large ones, short prompts, data beside the shift, searches that do not move."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from datadose.cli import main
from datadose.errors import InputError
from datadose.planner import PostTraining, plan
from datadose.planner.search import SearchRecord
from datadose.shift import Shift
from datadose.theory import predict_error
from helpers.plans import BASE, SHIFT, document_of, sourced, write


def test_one_prompt_at_most() -> None:
    found = plan(SHIFT, length=40, max_prompts=1)
    assert found.prompts in (0, 1)
    assert found.error_at_max_prompts == pytest.approx(predict_error(SHIFT, 1, 40))


def test_unnamed_numbers_are_read_aloud_and_never_mixed_with_named_ones() -> None:
    named = plan(SHIFT, length=40, max_prompts=60)
    with pytest.warns(FutureWarning, match="read as length=40, max_prompts=60"):
        assert plan(SHIFT, 40, 60).predicted_error == named.predicted_error
    for numbers, names in (((40,), {"max_prompts": 60}), ((40, 60), {"length": 40}), ((1, 2, 3), {})):
        with pytest.raises(InputError, match="plan: got "):
            plan(SHIFT, *numbers, **names)
    with pytest.raises(InputError, match="length: got None"):
        plan(SHIFT, max_prompts=60)


@pytest.mark.long
def test_a_large_dense_reward_and_many_judged_directions_take_memory_of_order_d() -> None:
    """Twice the dimension takes twice the memory; one (d, d) matrix of doubles would make it three times."""
    peaks = []
    for d in (1500, 3000):
        inside, spectrum = np.arange(d) < d // 2, np.geomspace(0.5, 2, d)
        start = spectrum * np.where(inside, 0.1, 1.0), np.where(inside, spectrum, 0.0)
        shift = Shift.aligned(*start, 0.2, 0.05)
        tracemalloc.start()
        for reward in ("dense", "verifiable"):
            recipe = PostTraining(reward=reward)  # type: ignore[arg-type]
            plan(shift, length=2 * d, max_prompts=d // 2, training=recipe)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2.3 * peaks[0]
    assert peaks[1] < 3000**2 * 8


def test_the_pass_rates_of_a_large_plan_are_probabilities() -> None:
    """600 judged directions, and a tolerance beyond the mean error: RL does not look hopeless there."""
    training = PostTraining(reward="verifiable", tolerance=0.94)
    found = plan(Shift.two_block(1200, 600, 0.9, 0.2, 0.05), length=2000, max_prompts=2000, training=training)
    assert found.stages is not None
    rates = {outlook.stage: outlook.pass_rate for outlook in found.stages.outlooks}
    assert all(rate is None or 0 <= rate <= 1 for rate in rates.values())
    assert rates["none"] is not None
    assert rates["none"] > 0
    assert found.stages.stage != "none"


def test_data_beside_the_shift_leave_nothing_to_move() -> None:
    inside = np.arange(16) < 6
    for turn in (None, np.linalg.qr(np.random.default_rng(3).standard_normal((16, 16)))[0]):
        spectra = np.where(inside, 0.1, 1.0), np.where(inside, 1.0, 0.0), np.where(inside, 0.0, 0.3)
        matrices = spectra if turn is None else tuple((turn * a) @ turn.T for a in spectra)
        found = plan(Shift(*matrices, eta=0.2), length=40, max_prompts=30)
        assert found.better is None
        assert "better_allocation" not in found.to_json()


def test_short_prompts_have_a_number_only_where_the_mean_is_finite() -> None:
    """Prompts of one example have an infinite mean wherever they are interpolated: B below the rank."""
    shift = Shift.aligned(np.where(np.arange(24) < 10, 0.1, 1.0), np.where(np.arange(24) < 10, 1.0, 0.0), 0.3)
    for most in (8, 60):
        found = plan(shift, length=4, max_prompts=most, choose_eta=True)
        for n, B, error in found.by_length:
            again = predict_error(shift, B, n, pretrain_length=4, test_length=4)
            assert error == pytest.approx(again, rel=1e-7)
            assert n > 2 or B == 0 or shift.data_rank + 1 < B
        short = plan(shift, length=1, max_prompts=most, choose_eta=True)
        ends = [(B, error) for B, error in short.curve if 1 <= B <= shift.data_rank + 1]
        assert ends
        assert all(error is None for _, error in ends)
        assert short.best_eta is not None
        assert short.best_eta[1] == 0 or short.best_eta[1] > shift.data_rank + 1


def test_a_plan_for_few_directions_says_that_its_error_is_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {**BASE, "sigma0": [0.1, 0.1, 1.0, 1.0], "delta": [1.0, 1.0, 0.0, 0.0], "max_prompts": 8}
    many = {
        **BASE,
        "sigma0": {"blocks": [[0.1, 60], [1.0, 100]]},
        "delta": {"blocks": [[1.0, 60], [0.0, 100]]},
    }
    for document, is_far in ((few, True), ({**many, "length": 400, "max_prompts": 600}, False)):
        path = write(tmp_path, document)
        assert (document_of(path, capsys)["note"] is not None) == is_far
        assert main(["plan", str(path)]) == 0
        assert ("note on the best number: " in capsys.readouterr().out) == is_far


def test_a_search_that_did_not_move_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for document, key in ((BASE, "better_allocation"), (sourced(), "search")):
        path = write(tmp_path, document)
        found = document_of(path, capsys)
        record = SearchRecord(**(found[key]["search"] if key == "better_allocation" else found[key]))
        assert main(["plan", str(path)]) == 0
        assert ("note on the search" in capsys.readouterr().out) == (record.remark is not None)
    assert SearchRecord(descents=3, unmoved=2).remark is None
    assert "none of 3" in (SearchRecord(descents=3, unmoved=3).remark or "")
    assert "2 points" in (SearchRecord(descents=3, unsolved=2).remark or "")
