"""Shapes in annotations: enforced under the tests, and nothing at run time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from datadose.models import BlockLinearAttention, LinearAttention, PromptBatch, starting_operator
from datadose.stages import held_out_prompts, negative_squared_error, post_test
from datadose.stages.engine import StageLoss
from datadose.theory import post_test_error, pretrained_operator


def test_a_wrong_shape_is_refused_under_the_tests() -> None:
    good = np.ones(4)
    assert post_test_error(-good, good, 8) > 0
    with pytest.raises(TypeCheckError, match="parameter 'target'"):
        post_test_error(-good, np.ones((4, 5)), 8)
    with pytest.raises(TypeCheckError, match="parameter 'sigma0'"):
        pretrained_operator(np.ones((2, 2, 2)), 8)


def test_a_wrong_shape_of_a_tensor_is_refused_too() -> None:
    batch = PromptBatch.draw(np.ones(3), 8, 5, seeds=[0, 1])
    with pytest.raises(TypeCheckError, match="parameter 'covariances'"):
        PromptBatch(batch.weights[0], 8, batch.covariances)
    model = LinearAttention(starting_operator(-np.ones(3), 2))
    with pytest.raises(TypeCheckError, match="parameter 'noise'"):
        model.rollout(batch, 2, batch.weights[0])
    thoughts = [torch.zeros(2, 5, 3)]
    with pytest.raises(TypeCheckError, match="parameter 'thoughts'"):
        model.last_column(batch, thoughts)


def test_a_wrong_shape_in_a_stage_is_refused() -> None:
    batch = PromptBatch.draw(np.ones(3), 8, 5, seeds=[0, 1])
    answers = torch.zeros(4, 2, 5, 3)
    assert negative_squared_error(answers, batch.weights).shape == (4, 2, 5)
    for wrong in (answers[..., 0], answers[..., :2], answers[:, :1]):
        with pytest.raises(TypeCheckError, match="negative_squared_error"):
            negative_squared_error(wrong, batch.weights)
    model = BlockLinearAttention(starting_operator(-np.ones(3)))
    assert post_test(model, batch, [1, 2]).shape == (2, 2)
    with pytest.raises(TypeCheckError, match="parameter 'target'"):
        held_out_prompts(np.ones((3, 4)), 8)
    assert StageLoss(torch.zeros(2), {"reward": torch.zeros(2)}).loss.shape == (2,)
    with pytest.raises(TypeCheckError, match="parameter 'metrics'"):
        StageLoss(torch.zeros(2), {"reward": torch.zeros(3)})


@pytest.mark.usefixtures("any_shape")
def test_wrong_shapes_reach_a_function_where_a_test_needs_it() -> None:
    with pytest.raises(ValueError, match="sigma0"):
        pretrained_operator(np.ones((2, 2, 2)), 8)


@pytest.mark.long
def test_nothing_is_checked_or_imported_at_run_time() -> None:
    code = (
        "import sys, datadose.theory as t\n"
        "assert 'torch' not in sys.modules, 'theory needs no torch'\n"
        "import datadose.models as m, datadose.stages as s\n"
        "assert not {'jaxtyping', 'beartype'} & set(sys.modules), 'imported'\n"
        "for found in (t.post_test_error, m.LinearAttention.rollout, s.negative_squared_error):\n"
        "    assert not hasattr(found, '__wrapped__'), 'wrapped'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
