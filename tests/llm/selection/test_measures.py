"""Signs by hand, strata, shares, and that length does not pass for hardness."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from datadose.llm.scores import Scores
from datadose.llm.selection import SelectionConfig, arrays
from datadose.llm.selection.arrays import Usable
from datadose.llm.selection.measures import (
    alignment_of_the_target,
    length_strata,
    mean_gradient,
    measure,
    shares_within,
    sizes_and_cosines,
)


def _loss(W: np.ndarray, h: np.ndarray, y: np.ndarray) -> float:
    """Mean NLL over tokens of one row: logits W h_t, targets y_t."""
    logits = h @ W.T
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]))


def _gradient(W: np.ndarray, h: np.ndarray, y: np.ndarray) -> np.ndarray:
    """sum_t (p_t - onehot(y_t)) h_t^T, flattened: what a sketch keeps the inner products of."""
    logits = h @ W.T
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return (p.T @ h).ravel()


def _scores(gradients: list[np.ndarray], tokens: list[int]) -> Scores:
    table = pd.DataFrame({"tokens": tokens, "nll": np.ones(len(tokens))})
    sketches = np.array(gradients, dtype=np.float32)
    return Scores(table, sketches[:, :2], sketches, {})


def _measured(pool: Scores, target: Scores, reference: Scores):
    used = (Usable(scores, np.arange(len(scores.table))) for scores in (pool, target, reference))
    return measure(*used, SelectionConfig())


def test_one_token_by_hand():
    """W = 0, two words, h = 1: a row that says word 0 helps one that says 0, and harms one that says 1."""
    W, h = np.zeros((2, 1)), np.ones((1, 1))
    says = [_gradient(W, h, np.array([word])) for word in (0, 1)]
    assert np.allclose(says[0], [-0.5, 0.5])
    assert np.allclose(says[1], [0.5, -0.5])
    found = _measured(_scores(says, [1, 1]), _scores([says[0]], [1]), _scores([says[1]], [1]))
    assert np.allclose(found.alignment, [1, -1])
    assert np.allclose(found.interference, [-1, 1])  # word 0 pulls against the reference, which says 1
    # The step on row 0 itself: the loss of word 0 falls, that of word 1 rises.
    stepped = W - 0.1 * says[0].reshape(2, 1)
    assert _loss(stepped, h, np.array([0])) < _loss(W, h, np.array([0]))
    assert _loss(stepped, h, np.array([1])) > _loss(W, h, np.array([1]))


def test_signs_tell_what_a_step_does():
    """Random rows of different lengths: the measured sign is that of the loss's true change, every time."""
    rng = np.random.default_rng(0)
    W = rng.standard_normal((5, 3))

    def draw(count: int):
        lengths = [int(n) for n in rng.integers(1, 9, count)]
        return [(rng.standard_normal((n, 3)), rng.integers(0, 5, n)) for n in lengths], lengths

    (rows, lengths), (others, other_lengths) = draw(40), draw(6)
    pool = _scores([_gradient(W, *row) for row in rows], lengths)
    reference = _scores([_gradient(W, *row) for row in others], other_lengths)
    found = _measured(pool, reference, reference)
    before = np.mean([_loss(W, *row) for row in others])
    for row, cosine, aligned in zip(rows, found.interference, found.alignment, strict=True):
        stepped = W - 1e-5 * _gradient(W, *row).reshape(W.shape)
        change = np.mean([_loss(stepped, *other) for other in others]) - before
        assert np.sign(change) == -np.sign(cosine)
        assert cosine == pytest.approx(aligned)
    assert (found.interference < 0).any()
    assert (found.interference > 0).any()


def test_the_mean_counts_every_row_alike():
    """A long row weighs as much as a short one: sketches are sums over tokens, the mean is per row."""
    sketches = np.array([[2.0, 0], [0, 100.0]], dtype=np.float32)
    assert np.allclose(mean_gradient(sketches, np.array([2.0, 100.0]), np.arange(2)), [0.5, 0.5])


def test_a_row_without_gradient_is_neither_for_nor_against():
    norms, cosines = sizes_and_cosines(np.zeros((1, 3), dtype=np.float32), np.arange(1), np.ones((3, 1)))
    assert norms[0] == 0
    assert cosines[0, 0] == 0


def test_the_targets_own_alignment_leaves_the_row_out():
    sketches = np.array([[1.0, 0], [0, 1.0], [1.0, 1.0]], dtype=np.float32)
    ones = np.ones(3)
    own = alignment_of_the_target(sketches, np.arange(3), ones, sketches.mean(axis=0))
    others = [sketches[[j for j in range(3) if j != i]].mean(axis=0) for i in range(3)]
    expected = [x @ m / np.linalg.norm(x) / np.linalg.norm(m) for x, m in zip(sketches, others, strict=True)]
    assert np.allclose(own, expected)
    assert alignment_of_the_target(sketches[:1], np.arange(1), ones[:1], sketches[0])[0] == 0


def test_strata_hold_the_rows_and_enough_of_them():
    rng = np.random.default_rng(0)
    tokens = np.maximum(1, rng.lognormal(3, 1, 3000)).astype(int).astype(float)
    among = rng.random(3000) < 0.8
    stratum, edges = length_strata(tokens, among)
    assert (stratum[~among] == -1).all()
    assert np.bincount(stratum[among]).min() >= 50
    assert len(edges) > 10
    for place, edge in enumerate(edges):
        assert tokens[stratum == place].min() == edge
    stratum, edges = length_strata(tokens[:30], np.ones(30, dtype=bool))
    assert len(edges) == 1
    assert (stratum == 0).all()


def test_shares_are_ranks_within_the_stratum():
    values = np.array([3.0, 1, 2, 9, 9, 7])
    stratum = np.array([0, 0, 0, 1, 1, -1])
    among = stratum >= 0
    assert np.allclose(shares_within(values, stratum, among)[:5], [5 / 6, 1 / 6, 3 / 6, 0.25, 0.75])
    assert np.isnan(shares_within(values, stratum, among)[5])


def test_blocks_read_every_row_once(monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK", 7)
    rows = np.arange(100.0).reshape(50, 2).astype(np.float32)
    for indices in (np.arange(50), np.array([0, 3, 4, 9, 20, 21, 22, 49]), np.zeros(0, dtype=int)):
        read = np.zeros((len(indices), 2))
        for where, block in arrays.blocks(rows, indices):
            assert block.dtype == np.float64
            read[where] += block
        assert (read == rows[indices]).all()
    rows[4, 1] = np.nan
    rows[9, 0] = np.inf
    assert list(arrays.finite_rows(rows, np.arange(10))) == [0, 1, 2, 3, 5, 6, 7, 8]
