"""Policy gradients against exact gradients: bias, scale, zero signal, pass rates, KL, noise per seed.

Statistical tests have fixed seeds and allow 5 standard errors per coordinate: with at most 72 coordinates a
right implementation fails with probability below 72 * 5.7e-7 = 4.2e-5 a test. Each also rejects a scale
wrong by a tenth, so that it can fail.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, ncx2
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from datadose.errors import InputError
from datadose.models import BlockLinearAttention, ChainModel, LinearAttention, PromptBatch
from datadose.stages import (
    FixedData,
    Optimisation,
    Outcome,
    PolicyGradient,
    negative_squared_error,
    train,
    within_tolerance,
)
from datadose.stages.rl import advantages

D, N, K, SIGMA = 2, 5, 2, 0.5
LEVEL = 5.0
RUNS, REDRAWS = 1000, 24


def normal(*shape: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def model_of(runs: int, seed: int = 0) -> LinearAttention:
    """Equal runs of dense attention with no zero entry."""
    model = LinearAttention(-0.4 * torch.eye(D, dtype=torch.float64).expand(runs, D, D))
    with torch.no_grad():
        for place, weights in enumerate((model.V, model.W)):
            weights.add_(0.15 * normal(2 * D + 2, 2 * D + 2, seed=seed + place))
    return model


def prompts_of(runs: int, B: int) -> PromptBatch:
    """The same B prompts for every run."""
    one = PromptBatch.draw(np.array([1.2, 0.6]), N, B, seeds=[7], dtype=torch.float64)
    return PromptBatch(
        one.weights.expand(runs, B, D), N, covariances=one.covariances.expand(runs, B, D, D).contiguous()
    )


def flat_gradients(model: ChainModel, loss: Tensor) -> Tensor:
    """One row of all parameters' gradients per run."""
    found = torch.autograd.grad(loss.sum(), list(model.parameters()))
    return torch.cat([g.flatten(1) for g in found], dim=1)


def sampled_gradients(objective: PolicyGradient, B: int) -> Tensor:
    """RUNS x REDRAWS independent policy gradients at one model and batch: runs by seed, redraws by step."""
    model, batch = model_of(RUNS), prompts_of(RUNS, B)
    rows = [flat_gradients(model, objective(model, batch, step).loss) for step in range(REDRAWS)]
    return torch.cat(rows)


def outcome_gradient(B: int) -> Tensor:
    """dL_OS, exact, as one row."""
    model = model_of(1)
    return flat_gradients(model, Outcome(K)(model, prompts_of(1, B), 0).loss)[0]


def z_scores(sample: Tensor, expected: Tensor, variance: Tensor | float = 0.0) -> Tensor:
    """Per coordinate, in standard errors; coordinates that never vary must equal the expectation."""
    error = (sample.var(dim=0) / len(sample) + variance).sqrt()
    moving = error > 1e-12
    torch.testing.assert_close(
        sample.mean(dim=0)[~moving], expected[~moving], rtol=0, atol=1e-10
    )  # the rows of V that no thought reads
    assert 20 < int(moving.sum()) <= 72
    return ((sample.mean(dim=0) - expected)[moving] / error[moving]).abs()


def assert_mean(sample: Tensor, expected: Tensor, variance: Tensor | float = 0.0) -> None:
    assert float(z_scores(sample, expected, variance).max()) < LEVEL
    assert float(z_scores(sample, 0.9 * expected, variance).max()) > LEVEL


def test_rloo_is_an_unbiased_outcome_gradient() -> None:
    """Per prompt, RLOO estimates the gradient of the expected reward -(||what_k - w*||^2 + d sigma^2).

    The loss is minus its mean over the B prompts, (1/B) sum ||what_k - w*||^2 + const = 2 L_OS + const, so
    E[gradient of the loss] = 2 dL_OS: the 1/B is in both, the factor 2 is L_OS's own 1/2.
    """
    objective = PolicyGradient(K, range(RUNS), group=4, noise=SIGMA, advantage="rloo")
    assert_mean(sampled_gradients(objective, 2), 2 * outcome_gradient(2))


@pytest.mark.parametrize("B", [1, 2])
def test_reinforce_has_the_scale_of_its_own_baseline(B: int) -> None:
    """G = 2: the batch's mean reward contains the sample's own, which leaves 1 - 1/(G B) of the gradient."""
    objective = PolicyGradient(K, range(RUNS), group=2, noise=SIGMA, advantage="reinforce")
    assert_mean(sampled_gradients(objective, B), (1 - 1 / (2 * B)) * 2 * outcome_gradient(B))


@pytest.mark.parametrize("kind", ["rloo", "reinforce"])
def test_sampled_chains_estimate_the_noisy_chains_gradient(kind: str) -> None:
    """``every_step``: the score-function mean against the pathwise one, E d/dtheta ||a_k - w*||^2 / B with
    the noise of every thought held fixed; both by simulation, so their variances add.
    """
    B, G = 2, 3
    objective = PolicyGradient(K, range(RUNS), group=G, noise=SIGMA, advantage=kind, every_step=True)
    model, batch = model_of(RUNS), prompts_of(RUNS, B)
    rows = []
    for draw in range(REDRAWS):
        noise = SIGMA * normal(RUNS, B, K, D, seed=100 + draw)
        answer = model.rollout(batch, K, noise)[..., -1, :]
        rows.append(flat_gradients(model, (answer - batch.weights).square().sum((-1, -2)) / B))
    pathwise = torch.cat(rows)
    scale = 1.0 if kind == "rloo" else 1 - 1 / (G * B)
    variance = scale**2 * pathwise.var(dim=0) / len(pathwise)
    assert_mean(sampled_gradients(objective, B), scale * pathwise.mean(dim=0), variance)


def test_the_noisy_chain_is_not_the_noise_free_one() -> None:
    """Noise in the thoughts changes the objective itself: the pathwise mean is away from 2 dL_OS."""
    objective = PolicyGradient(K, range(RUNS), group=3, noise=SIGMA, advantage="rloo", every_step=True)
    z = z_scores(sampled_gradients(objective, 2), 2 * outcome_gradient(2))
    assert float(z.max()) > LEVEL


@pytest.mark.parametrize("every_step", [False, True])
def test_recorded_reward_is_the_mean_reward(*, every_step: bool) -> None:
    """One thought: mean of -(||what - w*||^2 + d sigma^2) within 5 standard errors (6e-7), both policies."""
    model, batch = model_of(RUNS), prompts_of(RUNS, 3)
    objective = PolicyGradient(1, range(RUNS), noise=SIGMA, every_step=every_step)
    reward = objective(model, batch, 0).metrics["reward"]
    exact = -(2 * Outcome(1)(model, batch, 0).loss[0].detach() + D * SIGMA**2)
    assert abs(float((reward.mean() - exact) / (reward.std() / RUNS**0.5))) < LEVEL


def test_advantages_by_hand() -> None:
    """Three samples of two prompts; the second prompt's rewards are equal."""
    rewards = torch.tensor([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]], dtype=torch.float64)
    grpo = torch.tensor([-2.0, -1.0, 3.0], dtype=torch.float64) / (14 / 3) ** 0.5
    torch.testing.assert_close(advantages(rewards, "grpo"), torch.stack([grpo, 0 * grpo], dim=1))
    rloo = torch.tensor([1 - 4.0, 2 - 3.5, 6 - 1.5], dtype=torch.float64)
    torch.testing.assert_close(advantages(rewards, "rloo"), torch.stack([rloo, 0 * rloo], dim=1))
    torch.testing.assert_close(advantages(rewards, "reinforce"), rewards - 4)


def test_advantages_of_runs_do_not_mix() -> None:
    rewards = normal(5, 2, 3, seed=0)
    for kind in ("grpo", "rloo", "reinforce"):
        for run in range(2):
            torch.testing.assert_close(advantages(rewards, kind)[:, run], advantages(rewards[:, run], kind))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_give_no_advantage(dtype: torch.dtype) -> None:
    """Values that are not exact in binary, groups that are not powers of two."""
    for group in range(2, 40):
        rewards = normal(500, seed=group).to(dtype).expand(group, 500)
        assert float(advantages(rewards, "grpo").abs().max()) == 0
        assert float(advantages(rewards, "rloo").abs().max()) < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_groups_without_signal_are_counted_and_silent(kind: str) -> None:
    """Prompt 0 always passes, 1 never, 2 and 3 sometimes: half of the groups say nothing."""
    B, G = 4, 6
    model, batch = model_of(2), prompts_of(2, B)

    def reward(answers: Tensor, weights: Tensor) -> Tensor:
        passed = torch.zeros(answers.shape[:-1], dtype=answers.dtype)
        passed[..., 0] = 1
        passed[::2, ..., 2:] = 1
        return passed

    objective = PolicyGradient(K, (0, 1), reward, group=G, noise=SIGMA, advantage=kind)
    found = objective(model, batch, 0)
    assert found.metrics["zero_signal"].tolist() == [0.5, 0.5]
    assert found.metrics["reward"].tolist() == [0.5, 0.5]
    # The gradient is that of the two prompts with signal alone, at half weight.
    mean = model.rollout(batch, K)[..., -1, :]
    (xi,) = objective.draws(batch.weights.shape, 0)
    noise = SIGMA * xi.to(batch.weights).squeeze(-2)
    density = -(mean.detach() + noise - mean).square().sum(-1) / (2 * SIGMA**2)
    signal = advantages(reward(noise, batch.weights), kind)
    by_hand = -(signal * density)[..., 2:].mean(dim=(0, -1)) / 2
    torch.testing.assert_close(flat_gradients(model, found.loss), flat_gradients(model, by_hand))
    silent = PolicyGradient(K, (0, 1), lambda a, w: torch.ones_like(a[..., 0]), group=G, advantage=kind)(
        model, batch, 0
    )
    assert silent.metrics["zero_signal"].tolist() == [1, 1]
    assert not flat_gradients(model, silent.loss).any()


@pytest.mark.parametrize("directions", [None, (1.0, 0.0)])
def test_pass_rate_is_a_non_central_chi_square(directions: tuple[float, ...] | None) -> None:
    """Binomial tests of 3 prompts x 20,000 answers at level 1e-6 (failure below 3e-6); a tolerance 10
    percent wider is rejected.
    """
    B, G, tolerance = 3, 20_000, 0.8
    mask = None if directions is None else torch.tensor(directions, dtype=torch.float64)
    seen: list[Tensor] = []

    def reward(answers: Tensor, weights: Tensor) -> Tensor:
        seen.append(within_tolerance(tolerance, mask)(answers, weights))
        return seen[-1]

    model, batch = model_of(1), prompts_of(1, B)
    found = PolicyGradient(K, (5,), reward, group=G, noise=SIGMA)(model, batch, 0)
    gap = (model.rollout(batch, K)[0, :, -1] - batch.weights[0]).detach().square()
    kept = gap.sum(-1) if mask is None else (gap * mask).sum(-1)
    degrees = D if mask is None else 1
    passes = seen[0][:, 0].sum(0)
    assert float(found.metrics["reward"]) == pytest.approx(float(passes.mean()) / G)
    wrong = []
    for count, distance in zip(passes.int().tolist(), kept.tolist(), strict=True):
        right, wide = (
            float(ncx2.cdf(t**2 / SIGMA**2, degrees, distance / SIGMA**2))
            for t in (tolerance, 1.1 * tolerance)
        )
        assert binomtest(count, G, right).pvalue > 1e-6
        wrong.append(binomtest(count, G, wide).pvalue)
    assert min(wrong) < 1e-6


def test_rewards_by_hand() -> None:
    answers = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])
    weights = torch.tensor([[0.0, 0.0], [0.0, 3.0]])
    assert negative_squared_error(answers, weights).tolist() == [[-25, -4]]
    assert within_tolerance(5.0)(answers, weights).tolist() == [[1, 1]]
    assert within_tolerance(4.9)(answers, weights).tolist() == [[0, 1]]
    assert within_tolerance(3.0, torch.tensor([1.0, 0.0]))(answers, weights).tolist() == [[1, 1]]
    assert within_tolerance(1.0, torch.tensor([False, True]))(answers, weights).tolist() == [[0, 0]]
    with pytest.raises(InputError, match="directions"):
        within_tolerance(1.0, torch.ones(3))(answers, weights)
    for tolerance in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="tolerance"):
            within_tolerance(tolerance)


def no_signal(answers: Tensor, weights: Tensor) -> Tensor:
    """Reward: the same for all, so that the KL term acts alone."""
    return torch.zeros_like(answers[..., 0])


@pytest.mark.parametrize("every_step", [False, True])
def test_kl_is_that_of_two_gaussians(*, every_step: bool) -> None:
    """Summed over the sampled thoughts, mean over prompts (and chains); enters the loss ``kl`` times."""
    B, G = 3, 4
    model, reference, batch = model_of(2), model_of(2, seed=40), prompts_of(2, B)
    plain, with_kl = (
        PolicyGradient(
            K,
            (0, 1),
            group=G,
            noise=SIGMA,
            kl=kl,
            every_step=every_step,
            reference=reference,
            advantage="rloo",
        )
        for kl in (0.0, 0.7)
    )
    if every_step:
        (xi,) = plain.draws(batch.weights.shape, 0)
        noise = SIGMA * xi.to(batch.weights).movedim(0, 2).flatten(1, 2)
        wide = batch.repeat(G)
        thoughts = model.rollout(wide, K, noise)
        means = [m.next_means(wide, thoughts).detach() for m in (model, reference)]
    else:
        means = [m.rollout(batch, K)[..., -1:, :].detach() for m in (model, reference)]
    policies = [Independent(Normal(m, SIGMA), 1) for m in means]
    expected = kl_divergence(*policies).sum(-1).mean(-1)
    found = with_kl(model, batch, 0)
    assert float(expected.min()) > 0.01
    torch.testing.assert_close(found.metrics["kl"].detach(), expected)
    torch.testing.assert_close(found.loss.detach(), plain(model, batch, 0).loss.detach() + 0.7 * expected)
    assert not plain(model, batch, 0).metrics["kl"].any()


@pytest.mark.parametrize("every_step", [False, True])
def test_kl_pulls_towards_the_reference(*, every_step: bool) -> None:
    """Without reward signal the policy comes back: its KL falls at least 20 times; the reference stays."""
    V = -0.4 * torch.eye(D, dtype=torch.float64).expand(2, D, D)
    model, reference = BlockLinearAttention(V + 0.3), BlockLinearAttention(V)
    objective = PolicyGradient(
        K, (0, 1), no_signal, noise=SIGMA, kl=0.5, every_step=every_step, reference=reference
    )
    data = FixedData(prompts_of(2, 8))
    start = (model.V - reference.V).detach().norm()
    history = train(model, objective, data, Optimisation("gd", 0.1, steps=150), record_every=1).history
    for run in range(2):
        values = [row["kl"][run] for row in history]
        assert values[-1] < values[0] / 20
    assert (model.V - reference.V).detach().norm() < start
    assert torch.equal(reference.V, V)


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("kind", ["grpo", "rloo", "reinforce"])
def test_runs_side_by_side_are_the_runs_one_by_one(kind: str, *, every_step: bool) -> None:
    """A run's noise is a function of its own seed and the step; losses, metrics and gradients agree."""
    batch = PromptBatch.draw(np.array([1.2, 0.6]), N, 3, seeds=[1, 2], dtype=torch.float64)
    many, reference = model_of(2), model_of(2, seed=50)

    def objective(seeds: tuple[int, ...], anchor: LinearAttention) -> PolicyGradient:
        return PolicyGradient(
            K,
            seeds,
            group=4,
            noise=SIGMA,
            advantage=kind,
            every_step=every_step,
            kl=0.3,
            reference=anchor,
        )

    found = objective((8, 9), reference)(many, batch, 6)
    gradient = flat_gradients(many, found.loss)
    for run, seed in enumerate((8, 9)):
        own = PromptBatch(
            batch.weights[run : run + 1], N, covariances=batch.covariances[run : run + 1].contiguous()
        )
        alone = model_of(1)
        expected = objective((seed,), model_of(1, seed=50))(alone, own, 6)
        torch.testing.assert_close(found.loss[run], expected.loss[0])
        torch.testing.assert_close(gradient[run], flat_gradients(alone, expected.loss)[0])
        for name, values in found.metrics.items():
            torch.testing.assert_close(values[run], expected.metrics[name][0])


def test_noise_is_redrawn_by_step_and_seed() -> None:
    """Every thought has its own; a run's does not depend on the others."""
    (noise,) = PolicyGradient(K, (3, 9), group=4, every_step=True).draws(torch.Size((2, 3, D)), 6)
    assert noise.shape == (4, 2, 3, K, D)
    same, alone, later = (
        PolicyGradient(K, seeds, group=4, every_step=True).draws(torch.Size((len(seeds), 3, D)), step)[0]
        for seeds, step in (((3, 9), 6), ((9,), 6), ((3, 9), 7))
    )
    assert torch.equal(noise, same)
    assert torch.equal(noise[:, 1:], alone)
    assert not torch.equal(noise, later)
    assert not torch.equal(noise[:, 0], noise[:, 1])
    answers = PolicyGradient(K, (3, 9), group=4).draws(torch.Size((2, 3, D)), 6)[0]
    assert answers.shape == (4, 2, 3, 1, D)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_seeds_must_match_the_runs(seeds: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="seeds"):
        PolicyGradient(K, seeds, noise=SIGMA)(model_of(2), prompts_of(2, 3), 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PolicyGradient(K, (0, 1), noise=0.2, advantage="grpo"),
        lambda: PolicyGradient(K, (0, 1), noise=0.2, every_step=True),
    ],
)
def test_training_on_the_dense_reward_learns(make: Callable[[], PolicyGradient]) -> None:
    """150 Adam steps on 16 prompts at least halve the outcome loss of both runs."""
    model, batch = (
        BlockLinearAttention(-0.1 * torch.eye(D, dtype=torch.float64).expand(2, D, D)),
        prompts_of(2, 16),
    )
    before = Outcome(K)(model, batch, 0).loss
    train(model, make(), FixedData(batch), Optimisation("adam", 0.01, steps=150))
    assert (Outcome(K)(model, batch, 0).loss < before / 2).all()
