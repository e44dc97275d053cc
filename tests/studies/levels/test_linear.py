"""The linear transformer's level: the theory beside it, weights as copies, shares of the rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from datadose.models.baselines import lsa
from datadose.models.linear_attention import LinearAttention, starting_operator
from datadose.stages import held_out_prompts
from datadose.stages.evaluate import post_test
from datadose.studies.levels.linear import LinearRows, LinearTask, forecast_linear, run_linear
from datadose.studies.levels.schema import LOWER_WEIGHT, Pool
from datadose.studies.levels.trajectory import Trajectory, follow
from datadose.studies.tables import TwoBlock
from datadose.theory.post_test import post_test_error

TASK = LinearTask(TwoBlock(40, 10, 0.3), 0.05, 120, 4.0, 8)
SMALL = LinearTask(TwoBlock(6, 2, 0.3), 0.05, 12, 4.0, 64)


@pytest.mark.parametrize(
    ("pool", "weight"), [(Pool.ONE_KIND, 1.0), (Pool.MISLEADING, 1.0), (Pool.MISLEADING, LOWER_WEIGHT)]
)
def test_gradient_descent_with_fixed_attention_follows_the_theory(pool: str, weight: float) -> None:
    """Within 3 percent of the error (a limit in d, met at d = 40), and sampling at level .001."""
    trajectory, seeds = Trajectory("gd", 0.3, None, (0, 3, 30, 200)), [*range(8)]
    rows = LinearRows.drawn(TASK, pool, weight, 80, 1, seeds)
    model = lsa(TASK.start, len(seeds)).double()

    def look() -> list[float]:
        target = np.asarray(TASK.shift.target)
        return [post_test_error(V, target, TASK.length) for V in model.V.detach().numpy()]

    seen = follow(model, trajectory, rows.count, 0, lambda chosen: rows.loss(model, chosen).sum(), look)
    told = forecast_linear(TASK, trajectory, pool, weight, 80)
    quantile = stats.t.ppf(1 - 0.001 / (2 * 4 * 3), len(seeds) - 1)
    for (updates, _, errors), (u, epochs, seed, error, *_) in zip(seen, told, strict=True):
        assert (updates, float(updates), None) == (u, epochs, seed)
        sem = float(np.std(errors, ddof=1)) / len(seeds) ** 0.5
        assert abs(np.mean(errors) - error) <= quantile * sem + 0.03 * error, (
            updates,
            np.mean(errors),
            error,
        )
    assert max(row[3] for row in told) > 1.3 * min(row[3] for row in told)


def test_what_parts_from_the_theory_early_is_the_attentions_weight_on_labels() -> None:
    """V~ and the one entry of W that scales a step together go the way of all weights, V~ alone does not."""
    task = LinearTask(TwoBlock(16, 4, 0.3), 0.05, 48, 4.0, 256)
    rows = LinearRows.drawn(task, Pool.ONE_KIND, 1.0, 64, 1, [0, 1])
    shown = held_out_prompts(task.shift.target, task.length, 256, runs=2, dtype=torch.float64)
    errors = {}
    for trained in ("all", "V~ and the label's", "V~"):
        model = LinearAttention(starting_operator(task.start, 2, torch.float64))
        if trained != "all":
            V, W = torch.zeros_like(model.V), torch.zeros_like(model.W)
            V[:, 17:33, :16] = 1.0
            W[:, 16, 33] = float(trained != "V~")
            for weight, kept in ((model.V, V), (model.W, W)):
                weight.register_hook(lambda slope, kept=kept: slope * kept)  # type: ignore[no-untyped-call]

        def loss(chosen: torch.Tensor, model: LinearAttention = model) -> torch.Tensor:
            return rows.loss(model, chosen).sum()

        def look(model: LinearAttention = model) -> float:
            return float(post_test(model, shown, 1).mean())

        errors[trained] = follow(model, Trajectory("gd", 0.1, None, (10,)), 64, 0, loss, look)[0][2]
    whole = errors["all"]
    assert abs(errors["V~ and the label's"] - whole) < 0.25 * abs(errors["V~"] - whole), errors


def test_a_weight_is_a_number_of_copies() -> None:
    rows = LinearRows.drawn(SMALL, Pool.MISLEADING, 0.5, 10, 1, [0])
    good, bad = rows.parts
    heavy = LinearRows([good, bad], [1.0, 3.0], SMALL)
    copied = LinearRows([good, bad.repeat(3)], [1.0, 1.0], SMALL)
    gradients = []
    for one in (heavy, copied):
        model = LinearAttention(starting_operator(SMALL.start, 1, torch.float64))
        (one.loss(model, None).sum() * one.count).backward()  # type: ignore[no-untyped-call]
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1])
    assert float(gradients[0].norm()) > 0


def test_a_batch_is_the_mean_over_its_own_rows() -> None:
    rows = LinearRows.drawn(SMALL, Pool.MISLEADING, LOWER_WEIGHT, 10, 1, [0, 1])
    model = LinearAttention(starting_operator(SMALL.start, 2, torch.float64))
    batches = [torch.tensor(chosen) for chosen in ([0, 8, 9], [1, 2, 3, 4], [5, 6, 7])]
    parts = [len(chosen) * rows.loss(model, chosen) for chosen in batches]
    torch.testing.assert_close(torch.stack(parts).sum(0) / 10, rows.loss(model, None))


def test_removal_leaves_the_good_rows_and_shares_are_disjoint() -> None:
    removed, alike = (LinearRows.drawn(SMALL, Pool.MISLEADING, w, 20, 1, [4]) for w in (0.0, 1.0))
    assert (removed.count, alike.count) == (14, 20)
    torch.testing.assert_close(removed.parts[0].weights, alike.parts[0].weights)
    shared = LinearRows.drawn(SMALL, Pool.MISLEADING, 1.0, 20, 2, [4, 5])
    first = shared.parts[0].weights  # (seeds x models, rows, d)
    assert first.shape[:2] == (4, 7)
    torch.testing.assert_close(first[:2].flatten(0, 1), alike.parts[0].weights[0])


def test_seeds_side_by_side_are_seeds_alone() -> None:
    trajectory = Trajectory("adam", 0.01, 4, (0, 5))
    both = run_linear(SMALL, trajectory, Pool.MISLEADING, 1.0, 12, 2, [0, 1])
    alone = [run_linear(SMALL, trajectory, Pool.MISLEADING, 1.0, 12, 2, [seed]) for seed in (0, 1)]
    expected = [alone[seed][place] for place in (0, 1) for seed in (0, 1)]
    np.testing.assert_allclose(both, expected, rtol=1e-9)
    assert [row[2] for row in both] == [0, 1, 0, 1]


def test_what_diverges_has_no_error() -> None:
    found = run_linear(SMALL, Trajectory("gd", 1e3, None, (0, 30)), Pool.ONE_KIND, 1.0, 12, 1, [0])
    assert found[0][3] is not None
    assert found[1][3] is None
