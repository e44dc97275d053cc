"""The simulated mixture: its short regression equals the literal one with every teacher-forced step."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.covariance import dense
from datadose.errors import InputError
from datadose.prompts import Moments, NoisyMoments, draw_moments, draw_noisy_moments, draw_prompts
from datadose.simulation.mixtures import MixtureErrors, draw_mixture, regression, simulate_mixture_error
from datadose.theory import Source, chain_weight, post_test_error
from datadose.theory.sft import nearest_fit
from helpers.literal import random_psd

pytestmark = pytest.mark.long

ETA = 0.3


def all_steps(moments: Moments, nu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every teacher-forced step of every prompt: a column rho^i phi + h with answer -eta rho^i w - nu_i."""
    h = moments.echo if isinstance(moments, NoisyMoments) else 0.0
    rho = (1 - ETA) ** np.arange(len(nu))
    columns = [r * moments.phi + h for r in rho]
    return np.hstack(columns), np.hstack(
        [-ETA * r * moments.weights - n for r, n in zip(rho, nu, strict=True)]
    )


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("prompts", [5, 13, 45])
def test_short_regression_has_the_solution_of_the_literal_one(prompts: int, noisy: bool, steps: int) -> None:
    """Given w*, phi, h and nu: the same V to 1e-9, below rank/2, below the rank and above it."""
    d = 20
    A, V0, t = random_psd(d, 1), -0.7 * random_psd(d, 2), 0.4
    moments = (
        draw_noisy_moments(A, 30, prompts, 2.0, seed=5) if noisy else draw_moments(A, 30, prompts, seed=5)
    )
    nu = t * np.random.default_rng(6).standard_normal((steps + 1, d, prompts))
    rho = (1 - ETA) ** np.arange(steps + 1)
    pulls = np.stack([np.tensordot(rho, nu, 1), nu.sum(axis=0)])
    if noisy and steps > 0:
        O_k = np.array([[(rho**2).sum(), rho.sum()], [rho.sum(), steps + 1]])
        L = np.linalg.cholesky(O_k / O_k[0, 0])
        noise = np.tensordot(np.linalg.inv(L), pulls, 1) / O_k[0, 0]
        short = regression(moments, ETA, O_k / O_k[0, 0], noise)
    else:
        short = regression(moments, ETA, None, pulls[:1] / (rho**2).sum())
    literal = all_steps(moments, nu)
    expected = nearest_fit(*literal, V0)
    np.testing.assert_allclose(nearest_fit(*short, V0), expected, rtol=0, atol=1e-9)


def literal_error(V0: np.ndarray, sources: list[Source], steps: int, seed: int) -> float:
    """Err(V*) from explicit inputs, label noise example by example and demonstration noise step by step."""
    blocks = []
    for place, s in enumerate(sources):
        B = int(s.prompts)
        prompts = draw_prompts(s.covariance, s.length, B, seed=[seed, place])
        rng = np.random.default_rng([seed, place, 7])
        eps = np.sqrt(s.label_noise) * rng.standard_normal((B, s.length))
        h = np.einsum("bni,bn->ib", prompts.inputs, eps) / s.length
        nu = np.sqrt(s.demonstration_noise) * rng.standard_normal((steps + 1, len(V0), B))
        blocks.append(all_steps(NoisyMoments(prompts.moments.weights, prompts.moments.phi, h), nu))
    columns, answers = (np.hstack(parts) for parts in zip(*blocks, strict=True))
    return post_test_error(nearest_fit(columns, answers, V0), np.ones(len(V0)), 40)


@pytest.mark.parametrize("counts", [(3, 4), (14, 3), (30, 20)])
def test_drawn_mixtures_have_the_errors_of_explicit_prompts(counts: tuple[int, int]) -> None:
    """Two sources, both noises, k = 2: means of log Err over 400 seeds within 5 standard errors of the
    difference: failure below 2e-6 for fresh seeds.
    """
    d = 12
    sources = [
        Source(random_psd(d, 1, rank=5), 20, counts[0], 1.0, 0.2),
        Source(random_psd(d, 2), 15, counts[1]),
    ]
    V0 = -0.5 * np.eye(d)
    fast = np.log(
        simulate_mixture_error(V0, ETA, sources, np.ones(d), 40, chain_steps=2, seeds=range(400)).errors
    )
    slow = np.log([literal_error(V0, sources, 2, seed) for seed in range(400)])
    assert abs(fast.mean() - slow.mean()) < 5 * np.sqrt((fast.var() + slow.var()) / 400)


def test_columns_and_answers_of_a_mixture() -> None:
    """One column a prompt, two with noisy labels and a chain; demonstration noise of variance t^2 / c_k."""
    A = np.linspace(0.5, 1, 8)
    sources = [Source(A, 10, 3), Source(A, 10, 4, label_noise=0.5), Source(A, 10, 0), Source(A, 10, 2.0)]
    columns, answers = draw_mixture(sources, ETA, 3, seed=1)
    assert columns.shape == answers.shape == (8, 3 + 2 * 4 + 2)
    assert draw_mixture(sources, ETA, 0, seed=1)[0].shape == (8, 9)
    first = draw_moments(A, 10, 3, seed=[1, 0])
    np.testing.assert_array_equal(columns[:, :3], first.phi)
    np.testing.assert_array_equal(answers[:, :3], -ETA * first.weights)
    quiet, noisy = (draw_mixture([Source(A, 10, 4000, 0.5, t)], ETA, 3, seed=[1, 2])[1] for t in (0.0, 0.9))
    # 64000 normals: their variance has a relative standard error of 0.56 percent.
    assert (noisy - quiet).var() == pytest.approx(0.9 / chain_weight(ETA, 3), rel=0.03)


def test_seeds_and_nesting() -> None:
    A = np.linspace(0.5, 1, 8)
    long, short = (draw_mixture([Source(A, 10, B, 0.0, 0.3)], ETA, 1, seed=4) for B in (9, 5))
    np.testing.assert_allclose(long[1][:, :5], short[1], rtol=1e-12)
    request = (-np.eye(8), ETA, [Source(A, 10, 5), Source(dense(A), 20, 2)], A, 30)
    several = simulate_mixture_error(*request, seeds=3)
    assert several.errors.shape == (3,)
    np.testing.assert_array_equal(simulate_mixture_error(*request, seeds=[2]).errors, several.errors[2:])
    assert several.mean == pytest.approx(several.errors.mean())
    assert np.isnan(MixtureErrors(np.ones(1)).sem)
    empty = simulate_mixture_error(-np.eye(8), ETA, [Source(A, 10, 0)], A, 30, seeds=1)
    assert empty.mean == pytest.approx(post_test_error(-np.eye(8), A, 30))


@pytest.mark.parametrize(
    ("field", "sources", "options"),
    [
        ("prompts", [Source(np.ones(4), 10, 2.5)], {}),
        ("prompts", [Source(np.ones(4), 10, -1)], {}),
        ("prompts", [Source(np.ones(4), 10, float("nan"))], {}),
        ("length", [Source(np.ones(4), 0, 2)], {}),
        ("label_noise", [Source(np.ones(4), 5, 2, -1.0)], {}),
        ("demonstration_noise", [Source(np.ones(4), 5, 2, 0.0, -1.0)], {}),
        ("sources", [], {}),
        ("sources", [Source(np.ones(4), 5, 2), Source(np.ones(3), 5, 2)], {}),
        ("seeds", [Source(np.ones(4), 5, 2)], {"seeds": []}),
        ("seeds", [Source(np.ones(4), 5, 2)], {"seeds": 0}),
        ("steps", [Source(np.ones(4), 5, 2)], {"chain_steps": -1}),
        ("test_length", [Source(np.ones(4), 5, 2)], {"test_length": 0}),
    ],
)
def test_bad_requests_are_named(field: str, sources: list[Source], options: dict) -> None:
    arguments = {"test_length": 10, "seeds": 1, **options}
    with pytest.raises(InputError) as caught:
        simulate_mixture_error(-np.ones(4), ETA, sources, np.ones(4), **arguments)
    assert caught.value.field == field
