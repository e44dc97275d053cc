"""Tasks of any covariance: what isotropic ones reduce to, and errors of drawn prompts."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.covariance import dense, square_root
from datadose.errors import InputError
from datadose.shapes import Array
from datadose.theory import Source, WeightedTest, post_test_error, pretrained_operator
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.tasks import TaskPrompts, penalised_on_tasks, pretrained_on_tasks

ETA = 0.4


def covariance(rng: np.random.Generator, d: int, *, dense_form: bool) -> Array:
    values = np.exp(rng.uniform(-1.5, 0.5, d))
    if not dense_form:
        return values
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return np.asarray((Q * values) @ Q.T)


@pytest.mark.parametrize("dense_form", [False, True])
def test_isotropic_tasks_are_the_paper_s(dense_form: bool) -> None:
    rng, d, n = np.random.default_rng(1), 11, 16
    A, Sigma, V0 = (covariance(rng, d, dense_form=dense_form) for _ in range(3))
    data, test = TaskPrompts(A, np.ones(d), n), TaskPrompts(Sigma, np.ones(d), n)
    np.testing.assert_allclose(pretrained_on_tasks(data), pretrained_operator(A, n), rtol=1e-9, atol=1e-12)
    assert test.error(-V0) == pytest.approx(post_test_error(-V0, Sigma, n), rel=1e-12)
    curve = EffectivePenalty.of(-V0, ETA, Source(A, n, 1), WeightedTest.of(Sigma, n))
    expected = curve.at_penalty(20.0, 0.7)
    found = penalised_on_tasks(-V0, ETA, data, 20.0, 0.7, test)
    for name in ("error", "limit", "variance", "ridge"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-10)


def drawn(prompts: TaskPrompts, count: int, seed: int) -> tuple[Array, Array]:
    """Omega and Phi, (d, B) each, from explicit prompts."""
    rng, d = np.random.default_rng(seed), len(prompts.inputs)
    w = rng.standard_normal((count, d)) @ dense(square_root(prompts.tasks))
    x = rng.standard_normal((count, prompts.length, d)) @ dense(square_root(prompts.inputs))
    labels = np.einsum("bni,bi->bn", x, w)
    return w.T, (np.einsum("bni,bn->bi", x, labels) / prompts.length).T


def test_pretraining_and_the_error_are_those_of_drawn_prompts() -> None:
    """100,000 prompts, matrices that do not commute: the error of V~ within 5 standard errors (level 1e-6),
    and no small change of V~ is better on them by more than that."""
    rng, d = np.random.default_rng(2), 5
    A, tasks = (covariance(rng, d, dense_form=True) for _ in range(2))
    prompts = TaskPrompts(A, tasks, 8)
    V = pretrained_on_tasks(prompts)
    w, phi = drawn(prompts, 100_000, 3)
    squares = ((w + V @ phi) ** 2).sum(axis=0) / np.trace(prompts.tasks)
    sem = squares.std() / np.sqrt(squares.size)
    assert abs(squares.mean() - prompts.error(V)) < 5 * sem
    gradient = (w + V @ phi)[:, None] * phi[None]
    deviation = gradient.mean(axis=2) / (gradient.std(axis=2) / np.sqrt(squares.size))
    assert np.abs(deviation).max() < 5


@pytest.mark.parametrize("dense_form", [False, True])
def test_training_on_few_tasks_is_as_simulated(dense_form: bool) -> None:
    """d = 60, tasks of SFT with most of their variance in some directions; mean of 16 seeds.

    Within 4 standard errors and 3 percent, which is what d = 60 leaves.
    """
    rng, d, n, B, mu = np.random.default_rng(4), 60, 90, 45, 0.3
    A, Sigma = (covariance(rng, d, dense_form=dense_form) for _ in range(2))
    few = np.where(np.arange(d) < 20, 2.0, 0.1)
    if dense_form:
        Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
        few = np.asarray((Q * few) @ Q.T)
    data, test = TaskPrompts(A, few, n), TaskPrompts(Sigma, np.ones(d), n)
    V0 = pretrained_operator(Sigma, n)
    expected = penalised_on_tasks(V0, ETA, data, B, mu, test)
    errors = []
    for seed in range(16):
        w, phi = drawn(data, B, 100 + seed)
        left = expected.ridge * dense(V0) - ETA * w @ phi.T
        errors.append(test.error(left @ np.linalg.inv(phi @ phi.T + expected.ridge * np.eye(d))))
    sem = np.std(errors, ddof=1) / 4
    assert abs(np.mean(errors) - expected.error) < 4 * sem + 0.03 * expected.error
    assert expected.variance > 0.02 * expected.error
    alike = penalised_on_tasks(V0, ETA, TaskPrompts(A, np.ones(d), n), B, mu, test)
    assert abs(np.mean(errors) - alike.error) > 4 * sem + 0.03 * expected.error


def test_what_is_no_task_is_named() -> None:
    good = TaskPrompts(np.ones(3), np.ones(3), 5)
    with pytest.raises(InputError, match="tasks: got a zero matrix"):
        TaskPrompts(np.ones(3), np.zeros(3), 5)
    with pytest.raises(InputError, match="inputs: got a covariance that misses a direction"):
        pretrained_on_tasks(TaskPrompts(np.array([1.0, 0.0, 1.0]), np.ones(3), 5))
    with pytest.raises(InputError, match="prompts: got 1 at penalty"):
        penalised_on_tasks(-np.ones(3), ETA, good, 1.0, 0.01, good)
    with pytest.raises(InputError, match="test: got dimension 2"):
        penalised_on_tasks(-np.ones(3), ETA, good, 9.0, 0.1, TaskPrompts(np.ones(2), np.ones(2), 5))
