"""The plan's steps, taken by the literal model on matrices Z under autograd, end at the promised error."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from datadose.models import LinearAttention
from datadose.planner import plan
from datadose.prompts import draw_prompts
from datadose.shift import Shift
from datadose.theory import post_test_error, pretrained_operator
from helpers.literal import literal_sft_loss

D, N, ROWS, SEEDS = 8, 24, 40, 8
SHIFT = Shift.two_block(D, 4, 0.1, 0.3, 0.02)


def test_the_literal_model_ends_where_the_plan_says() -> None:
    """8 draws of rows: the mean is within chance (level 1e-4) and a tenth for so few directions.

    All blocks but V~ keep their values, as Thm 4.2 has it. Untouched and converged the errors are far off.
    """
    found = plan(SHIFT, length=N, max_prompts=ROWS, stop="best").training
    assert found is not None
    section = found.stopping
    assert section is not None
    assert section.steps is not None
    assert section.learning_rate is not None
    assert section.prompts == ROWS
    V0 = np.diag(pretrained_operator(SHIFT.sigma0, N))
    errors = []
    for seed in range(SEEDS):
        prompts = draw_prompts(np.diag(np.asarray(SHIFT.data)), N, ROWS, seed=seed)
        model = LinearAttention(torch.from_numpy(V0.copy()))
        for _ in range(section.steps):
            model.zero_grad()
            literal_sft_loss(model, prompts, SHIFT.eta, 1).backward()  # type: ignore[no-untyped-call]
            assert model.V.grad is not None
            slope = model.V.grad[D + 1 : 2 * D + 1, :D]
            with torch.no_grad():
                model.operator.sub_(section.learning_rate * slope)
        errors.append(post_test_error(model.operator.detach().numpy(), np.diag(SHIFT.target), N))
    mean, sem = float(np.mean(errors)), float(np.std(errors, ddof=1) / SEEDS**0.5)
    told, chance = section.error_of_steps, float(stats.t.ppf(1 - 5e-5, SEEDS - 1)) * sem
    assert told is not None
    assert abs(told - mean) <= 0.1 * mean + chance
    for other in (post_test_error(V0, np.diag(SHIFT.target), N), section.error_if_converged):
        assert other is not None
        assert abs(other - mean) > 0.1 * mean + chance
