"""Data, bad input, records, pretraining and composition of stages."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from datadose.errors import InputError
from datadose.models import BlockLinearAttention, ChainModel, LinearAttention, PromptBatch
from datadose.stages import (
    FixedData,
    FreshData,
    Optimisation,
    Outcome,
    PolicyGradient,
    Sft,
    Training,
    held_out_prompts,
    post_test,
    train,
)
from datadose.stages.data import SideBySide
from datadose.stages.engine import Objective, StageLoss
from datadose.theory import pretrained_on_mixture, pretrained_operator
from helpers.stage_examples import (
    RUNS,
    B,
    D,
    N,
    dense_model,
    fixed,
    fresh,
    scaled_runs,
    start,
)


@pytest.mark.parametrize("size", [1, 3, 5, 10, None])
def test_fixed_data_covers_every_prompt_once_an_epoch(size: int | None) -> None:
    data = fixed(size)
    steps = Optimisation("sgd", 0.1, epochs=1, batch=size).total_steps(B)
    assert steps == -(-B // (size or B))
    whole = data.whole.weights
    orders = []
    for epoch in range(3):
        batches = [data.batch(epoch * steps + i) for i in range(steps)]
        assert all(b.prompts <= (size or B) for b in batches)
        seen = torch.cat([b.weights for b in batches], dim=1)
        places = [(whole[0] == w).all(-1).nonzero().item() for w in seen[0]]
        assert sorted(places) == list(range(B))
        assert torch.equal(seen, whole[:, places])
        orders.append(tuple(places))
    if size not in (None, B):
        assert len(set(orders)) == 3
    assert torch.equal(data.batch(4).weights, data.batch(4).weights)


def test_fresh_data_are_a_function_of_seed_and_step() -> None:
    data = fresh()
    assert data.prompts is None
    assert torch.equal(data.batch(3).weights, data.batch(3).weights)
    assert not torch.equal(data.batch(3).weights, data.batch(4).weights)
    own = FreshData(np.ones(D), N, 6, (1,)).batch(3)
    assert torch.equal(data.batch(3).covariances[1:], own.covariances)


@pytest.mark.parametrize(
    ("field", "shown", "arguments"),
    [
        ("optimiser", "rmsprop", {"optimiser": "rmsprop"}),
        ("learning_rate", "0", {"learning_rate": 0}),
        ("learning_rate", "-1", {"learning_rate": -1}),
        ("learning_rate", "nan", {"learning_rate": float("nan")}),
        ("learning_rate", "inf", {"learning_rate": float("inf")}),
        ("learning_rate", "fast", {"learning_rate": "fast"}),
        ("epochs, steps", "2, 3", {"epochs": 2}),
        ("epochs, steps", "None, None", {"steps": None}),
        ("steps", "-1", {"steps": -1}),
        ("steps", "1.5", {"steps": 1.5}),
        ("epochs", "True", {"steps": None, "epochs": True}),
        ("batch", "0", {"batch": 0}),
        ("batch", "4", {"optimiser": "gd", "batch": 4}),
        ("clip", "0", {"clip": 0}),
        ("clip", "-1", {"clip": -1}),
        ("clip", "nan", {"clip": float("nan")}),
    ],
)
def test_bad_optimisation_is_named(field: str, shown: str, arguments: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        Optimisation(**{"steps": 3, **arguments})
    assert caught.value.field == field
    assert f"got {shown};" in str(caught.value)
    assert str(caught.value).partition("allowed: ")[2]


@pytest.mark.parametrize("eta", [0, 2, -0.1, float("nan"), float("inf"), "0.3", None])
def test_bad_eta_is_named(eta: object) -> None:
    with pytest.raises(InputError, match="eta"):
        Sft(eta)


@pytest.mark.parametrize(
    ("make", "value"),
    [(Outcome, 0), (Outcome, 1.5), (lambda k: PolicyGradient(k, (0,)), 0), (lambda k: Sft(0.3, k), -1)],
)
def test_bad_chain_steps_are_named(make: Callable[[object], object], value: object) -> None:
    with pytest.raises(InputError, match="chain_steps"):
        make(value)
    assert Sft(0.3, 0).chain_steps == 0


@pytest.mark.parametrize(
    ("field", "value", "arguments"),
    [
        ("group", 1, {"group": 1}),
        ("noise", 0, {"noise": 0}),
        ("noise", "nan", {"noise": float("nan")}),
        ("kl", -1, {"kl": -1}),
        ("kl", 0.5, {"kl": 0.5}),
        ("advantage", "ppo", {"advantage": "ppo"}),
    ],
)
def test_bad_rl_is_named(field: str, value: object, arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"{field}: got {value}"):
        PolicyGradient(2, (0,), **arguments)


@pytest.mark.parametrize("size", [B + 1, 0, -1])
def test_bad_mini_batches_are_named(size: int) -> None:
    with pytest.raises(InputError, match=f"batch: got {size}"):
        fixed(size)


def test_epochs_need_fixed_data() -> None:
    with pytest.raises(InputError, match="epochs: got 3"):
        train(dense_model(), Outcome(1), fresh(), Optimisation("adam", 0.01, epochs=3))


@pytest.mark.parametrize(("size", "batch"), [(None, 4), (4, None), (4, 5)])
def test_data_and_optimisation_agree_on_the_mini_batch(size: int | None, batch: int | None) -> None:
    """Otherwise epochs are miscounted, or "mini-batch" steps silently see all prompts."""
    with pytest.raises(InputError, match="batch"):
        train(dense_model(), Outcome(1), fixed(size), Optimisation("sgd", 0.01, epochs=3, batch=batch))


def test_metrics_are_recorded_first_last_and_in_between() -> None:
    objective = PolicyGradient(2, (3, 4), group=4)
    steps = [
        [
            row["step"]
            for row in train(dense_model(), objective, fresh(), optimisation, record_every=every).history
        ]
        for optimisation, every in ((Optimisation(steps=8), 0), (Optimisation(steps=8), 3))
    ]
    assert steps == [[0, 7], [0, 3, 6, 7]]
    assert train(dense_model(), objective, fresh(), Optimisation(steps=0)) == Training()
    row = train(dense_model(), objective, fresh(), Optimisation(steps=1)).history[0]
    assert set(row) == {"step", "loss", "reward", "zero_signal", "kl"}
    assert all(len(values) == RUNS for name, values in row.items() if name != "step")


def pretraining_noise(sigma0: np.ndarray, n: int, batch: int, rate: float) -> dict[str, float]:
    """E||V - V_inf||_F^2 in the stationary state of small constant steps, to first order in the rate.

    The curvature is diagonal, h_j = E[S^2]_jj; a batch gradient at V_inf has entry variances s_ij^2, here
    from 20,000 prompts. SGD: sum rate s_ij^2 / (2 h_j). Adam divides by s_ij: sum rate s_ij / (2 h_j).
    """
    prompts = PromptBatch.draw(sigma0, n, 20_000, seeds=[99], dtype=torch.float64)
    w, S = prompts.weights[0], prompts.covariances[0]
    V = torch.from_numpy(np.diag(pretrained_operator(sigma0, n)))
    phi = (S @ w.unsqueeze(-1)).squeeze(-1)
    gradient = (w + phi @ V.T).unsqueeze(-1) * phi.unsqueeze(-2)
    s = (gradient.var(dim=0) / batch).sqrt()
    h = (S @ S).mean(0).diagonal()
    return {"sgd": float((rate * s**2 / (2 * h)).sum()), "adam": float((rate * s / (2 * h)).sum())}


@pytest.mark.parametrize(("optimiser", "rate", "steps"), [("sgd", 0.02, 600), ("adam", 4e-3, 600)])
def test_outcome_on_fresh_prompts_pretrains(optimiser: str, rate: float, steps: int) -> None:
    """(3.6), (3.7): from V = 0, OS with k = 1 on the population ends at -Gamma0^{-1} up to step noise.

    12 runs. The squared distance falls at least 200 times and its mean over runs is within a factor 2 of the
    first-order noise level; the mean of the runs is nearer still: that distance is 1/12 of the noise.
    """
    sigma0, n, batch, runs = np.array([1.5, 1.0, 1.0, 0.7]), 10, 16, 12
    target = torch.from_numpy(np.diag(pretrained_operator(sigma0, n)))
    model = BlockLinearAttention(torch.zeros(runs, D, D, dtype=torch.float64), train_attention=False)
    data = FreshData(sigma0, n, batch, tuple(range(runs)), torch.float64)
    train(model, Outcome(1), data, Optimisation(optimiser, rate, steps=steps))
    V = model.V.detach()
    distance = float((V - target).square().sum((-1, -2)).mean())
    noise = pretraining_noise(sigma0, n, batch, rate)[optimiser]
    assert float(target.square().sum()) > 200 * distance
    assert noise / 2 < distance < 2 * noise
    assert float((V.mean(0) - target).square().sum()) < distance / 4


def test_stages_compose() -> None:
    """SFT, RL, then OS on one model: each ends nearer to the target than it began, history of its own."""
    data = np.array([1.0, 1.0, 0.5, 0.5])
    model = LinearAttention(torch.zeros(RUNS, D, D) - 0.05 * torch.eye(D))
    tests = held_out_prompts(data, 12, 400, runs=RUNS)
    errors = [post_test(model, tests, 3)]
    assert errors[0].shape == (RUNS, 1)
    stages: list[tuple[Objective, float]] = [
        (Sft(0.5, 3), 3e-3),
        (PolicyGradient(3, (0, 1), advantage="rloo", noise=0.2), 3e-3),
        (Outcome(3), 3e-3),
    ]
    for place, (objective, rate) in enumerate(stages):
        prompts = FreshData(data, 12, 32, tuple(100 * place + r for r in range(RUNS)))
        training = train(model, objective, prompts, Optimisation("adam", rate, steps=60))
        assert training.steps == 60
        assert training.diverged == []
        errors.append(post_test(model, tests, 3))
    means = [float(e.mean()) for e in errors]
    assert all(after < before for before, after in pairwise(means))
    assert means[-1] < 0.5 * means[0]


def test_an_objective_is_any_function_of_model_batch_and_step() -> None:
    """The loop passes the step, and the gradient of the sum of the runs' losses."""
    seen: list[int] = []

    def pull(model: ChainModel, batch: PromptBatch, step: int) -> StageLoss:
        seen.append(step)
        return StageLoss(model.effective_operator().square().sum((-1, -2)) / 2)

    model = start(2)
    train(model, pull, scaled_runs((1.0, 1.0)), Optimisation("gd", 0.1, steps=3))
    assert seen == [0, 1, 2]
    torch.testing.assert_close(model.V, 0.9**3 * start(2).V)


def test_mixtures_pretrain_towards_the_mixtures_solution() -> None:
    """Adam on fresh prompts of two categories: the squared distance to the population solution falls at least
    50 times, and the end is nearer to it than to either category's own solution.
    """
    categories = ((3.0, np.array([1.0, 0.5, 0.5, 0.2])), (1.0, np.array([0.1, 2.0, 0.1, 1.0])))
    model = BlockLinearAttention(torch.zeros(2, 4, 4), train_attention=False)
    aim = torch.from_numpy(np.diag(pretrained_on_mixture(categories, 12))).float()
    train(model, Outcome(1), FreshData(categories, 12, 128, (3, 4)), Optimisation("adam", 0.01, steps=500))
    train(model, Outcome(1), FreshData(categories, 12, 128, (13, 14)), Optimisation("adam", 0.002, steps=300))
    distance = (model.V.detach() - aim).square().sum((-1, -2))
    assert (distance < aim.square().sum() / 50).all()
    for _, covariance in categories:
        own = torch.from_numpy(np.diag(pretrained_operator(covariance, 12))).float()
        assert (distance < (model.V.detach() - own).square().sum((-1, -2))).all()


def test_mixtures_are_a_function_of_seed_and_step() -> None:
    """A run alone is the run beside another; the mean covariance is (1 + 2 * 9) / 3 times the identity.

    200 prompts of 6 inputs in 2 runs and 4 directions: the standard error of the mean is below 0.2 (labels
    and inputs), so 1.0 is 5 of them.
    """
    categories = ((1.0, np.ones(4)), (2.0, np.full(4, 9.0)))
    pair = FreshData(categories, 6, 200, (3, 4)).batch(7)
    alone = FreshData(categories, 6, 200, (4,)).batch(7)
    assert torch.equal(pair.weights[1], alone.weights[0])
    torch.testing.assert_close(pair.mean_covariance()[1], alone.mean_covariance()[0])
    assert abs(float(pair.mean_covariance().diagonal(dim1=-2, dim2=-1).mean()) - 19 / 3) < 1.0


def test_runs_side_by_side_have_batches_of_their_own() -> None:
    """Each run's batch is that of its own data; what cannot have one shape at every step is refused."""
    each = tuple(
        FixedData(PromptBatch.draw(np.ones(D), N, size, seeds=[size]), 4, seed=size) for size in (4, 8, 12)
    )
    data = SideBySide(each)
    assert (data.size, data.prompts) == (4, None)
    for step in (0, 1, 5):
        batch = data.batch(step)
        assert batch.weights.shape == (3, 4, D)
        for run, own in enumerate(each):
            assert torch.equal(batch.weights[run : run + 1], own.batch(step).weights)
    with pytest.raises(InputError, match=r"prompts: .* multiple of the batch, 4"):
        SideBySide((FixedData(PromptBatch.draw(np.ones(D), N, 6, seeds=[0]), 4),))
    for wrong in ((), (each[0], FixedData(each[1].whole, 2))):
        with pytest.raises(InputError, match=r"batch: .*one size for all runs"):
            SideBySide(wrong)
