"""The planner's choice of stage against real training, on random shifts that the rule was not built on.

Four arms start from the pretrained model and take equally many steps in all: nothing, SFT on the plan's
demonstrations (gradient descent at half of the largest stable step), RL on target prompts, and half of each.
RL is outcome supervision by gradient descent (dense reward), or GRPO with Adam at the best of two learning
rates on held-out prompts (verifiable reward). The measure is the one-step post-test error / d, or the pass
rate of k thinking steps. Two sets of cases: those that the choice is judged by, and those that the numbers
behind it, the forecasts, are judged by; among the latter the stages with a dense reward are also run with
Adam, which the forecasts are not made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch

from datadose.configs import Stage as TrainingStage
from datadose.covariance import Array
from datadose.models import BlockLinearAttention, PromptBatch
from datadose.models.baselines import pretrained_lsa
from datadose.planner.stage_choice import Stage
from datadose.stages import held_out_prompts, squared_gaps
from datadose.stages.optimisation import Optimiser
from datadose.studies import training
from datadose.studies.planner.cases import COMBINATIONS, Case, forecast_case, random_case
from datadose.studies.study import Preset
from datadose.studies.tables import as_table
from datadose.studies.training import OUTCOME, Recipe, pass_probabilities, post_train
from datadose.sweep import Cell
from datadose.theory.outcome import largest_curvature

NAME = "planner_stages"
ARMS: tuple[Stage, ...] = ("none", "sft", "rl", "sft then rl")
NO_STAGE, SFT, RL, SFT_THEN_RL = ARMS
DENSE, VERIFIABLE = "dense", "verifiable"
"""The rewards of the cases."""
FORECAST = "forecast "
"""How the panels begin that judge forecasts; the others judge the choice of stage."""
LEARNING_RATES = (3e-3, 1e-2)
ADAM_RATE = 1e-2
"""The learning rate of Adam where a stage with a dense reward is also run with it."""
_VALIDATION_SEED = 987_654
_FIRST_CASE = 200


class Column(training.Column):
    """The columns of this study; ``kind`` is the arm."""

    REWARD = "reward"
    RECOMMENDED = "recommended"
    PREDICTED_PASS_RATE = "predicted_pass_rate"
    PASS_RATE = "pass_rate"
    SPECTRAL_RADIUS = "spectral_radius"
    TRAINING_STEPS = "training_steps"
    DEMONSTRATIONS = "demonstrations"
    OPTIMISER = "optimiser"
    DIMENSION = "dimension"
    DENSE = "dense"
    ERROR_WITHHELD = "error_withheld"
    PASS_RATE_WITHHELD = "pass_rate_withheld"


def train_arm(
    case: Case, arm: Stage, demonstrations: int, seeds: Sequence[int], optimiser: Optimiser = "gd"
) -> BlockLinearAttention:
    """The model after one arm, runs side by side; Adam takes full batches at :data:`ADAM_RATE`."""
    torch.set_num_threads(1)
    T = case.training.steps
    half = T // 2 if arm == SFT_THEN_RL else 0
    model = pretrained_lsa(case.shift.sigma0, case.length, len(seeds))
    if arm in (SFT, SFT_THEN_RL) and demonstrations > 0:
        prompts = PromptBatch.draw(case.shift.data, case.length, demonstrations, seeds=seeds)
        rate = min(1 / _sft_curvature(prompts, run) for run in range(len(seeds)))
        recipe = replace(_full_batch(case, optimiser, rate, half or T), chain_steps=0)
        _train(case, model, "sft", prompts, recipe, seeds)
    if arm in (RL, SFT_THEN_RL):
        _reinforce(case, model, T - half, seeds, optimiser)
    return model


def _train(
    case: Case,
    model: BlockLinearAttention,
    stage: TrainingStage,
    prompts: PromptBatch,
    recipe: Recipe,
    seeds: Sequence[int],
) -> None:
    post_train(model, stage, prompts, recipe, eta=case.shift.eta, inside=case.inside, seeds=seeds)


def _full_batch(case: Case, optimiser: Optimiser, rate: float, steps: int) -> Recipe:
    """Gradient descent at ``rate``, or Adam at its own, on all prompts at every step."""
    rate = rate if optimiser == "gd" else ADAM_RATE
    return replace(_recipe(case, steps), optimiser=optimiser, learning_rate=rate, batch=None)


def _reinforce(
    case: Case, model: BlockLinearAttention, steps: int, seeds: Sequence[int], optimiser: Optimiser
) -> None:
    """Outcome supervision, or GRPO at the learning rate that passes most often on held-out prompts."""
    prompts = PromptBatch.draw(case.shift.target, case.length, case.max_prompts, seeds=seeds)
    if case.training.reward == DENSE:
        k = case.training.chain_steps
        operators = model.V.detach().double().numpy()
        rate = min(
            1 / largest_curvature(operators[run], *_weights_and_covariances(prompts, run), k)
            for run in range(len(seeds))
        )
        _train(case, model, OUTCOME, prompts, _full_batch(case, optimiser, rate, steps), seeds)
        return
    start = {name: value.clone() for name, value in model.state_dict().items()}
    held_out = PromptBatch.draw(case.shift.target, case.length, 256, seeds=[_VALIDATION_SEED] * len(seeds))
    found: list[tuple[float, dict[str, Any]]] = []
    for rate in LEARNING_RATES:
        model.load_state_dict(start)
        _train(case, model, "rl", prompts, replace(_recipe(case, steps), learning_rate=rate), seeds)
        passed = float(np.mean(_pass_rates(case, model, held_out)))
        found.append((passed, {name: value.clone() for name, value in model.state_dict().items()}))
    model.load_state_dict(max(found, key=lambda one: one[0])[1])


def _recipe(case: Case, steps: int = 0) -> Recipe:
    how = case.training
    return Recipe(0, steps, noise=how.noise, tolerance=how.tolerance, chain_steps=how.chain_steps)


def _weights_and_covariances(prompts: PromptBatch, run: int) -> tuple[Array, Array]:
    """w* (d, B) and S (B, d, d) of one run, float64."""
    if prompts.covariances is None:
        msg = "prompts of length n >= d / 2 hold covariances"
        raise ValueError(msg)
    return prompts.weights[run].double().numpy().T, prompts.covariances[run].double().numpy()


def _sft_curvature(prompts: PromptBatch, run: int) -> float:
    """lambda_max(Phi Phi^T) / B of one run: the largest curvature of the SFT loss with k = 0."""
    weights, covariances = _weights_and_covariances(prompts, run)
    phi = np.einsum("bij,jb->ib", covariances, weights)
    return float(np.linalg.norm(phi, 2) ** 2 / phi.shape[1])


def _pass_rates(case: Case, model: BlockLinearAttention, batch: PromptBatch) -> Array:
    """Pass rate of k thinking steps on ``batch``, a run."""
    gaps = squared_gaps(model, batch, case.training.chain_steps)
    return np.asarray(pass_probabilities(gaps, _recipe(case), case.inside).mean(-1).numpy())


def run_case(dimension: int, index: int, seeds: list[int]) -> list[dict[str, Any]]:
    """Cell: the rows of the four arms on a case of the choice of stage."""
    return _run(random_case(dimension, index), seeds, 512, ("gd",))


def run_forecast(index: int, seeds: list[int]) -> list[dict[str, Any]]:
    """Cell: the same on a case of the forecasts, dense rewards also with Adam."""
    case = forecast_case(index)
    return _run(case, seeds, 2048, ("gd", "adam") if case.training.reward == DENSE else ("gd",))


def _run(
    case: Case, seeds: list[int], test_prompts: int, optimisers: Sequence[Optimiser]
) -> list[dict[str, Any]]:
    """What is forecast of each arm, whether the plan shows it, and the result of each seed."""
    found = case.plan()
    if found.stages is None:
        msg = "a random case has a non-zero shift"
        raise ValueError(msg)
    test = held_out_prompts(case.shift.target, case.length, test_prompts, runs=len(seeds))
    forecasts = case.forecasts(found.prompts)
    rows = []
    for optimiser, arm in product(optimisers, ARMS):
        if optimiser == "adam" and arm == NO_STAGE:
            continue
        outlook, forecast = found.stages.of(arm), forecasts[arm]
        model = train_arm(case, arm, outlook.demonstrations, seeds, optimiser)
        errors = squared_gaps(model, test, 1).mean((-1, -2)).tolist()
        shared = {
            Column.STAGE: arm,
            Column.PROMPTS: outlook.outcome_prompts,
            Column.LENGTH: case.length,
            Column.STEPS: case.training.chain_steps,
            Column.PREDICTED: forecast.error,
            Column.KIND: arm,
            Column.REWARD: case.training.reward,
            Column.RECOMMENDED: found.stages.stage,
            Column.PREDICTED_PASS_RATE: forecast.pass_rate,
            Column.SPECTRAL_RADIUS: found.spectral_radius,
            Column.TRAINING_STEPS: case.training.steps,
            Column.DEMONSTRATIONS: outlook.demonstrations,
            Column.OPTIMISER: optimiser,
            Column.DIMENSION: case.shift.dimension,
            Column.DENSE: not case.shift.is_spectral,
            Column.ERROR_WITHHELD: outlook.error is None,
            Column.PASS_RATE_WITHHELD: outlook.pass_rate is None,
        }
        rows += [
            {
                **shared,
                Column.SEED: seed,
                Column.ERROR: error if np.isfinite(error) else None,
                Column.PASS_RATE: float(passed),
            }
            for seed, error, passed in zip(seeds, errors, _pass_rates(case, model, test), strict=True)
        ]
    return rows


@dataclass(frozen=True)
class PlannerStages:
    """Cases 200, 201, .. of the choice: even ones with a dense reward, odd ones with a verifiable one.

    Those from 1000 on were used while the rule was made, and 0 to 139 were used before two repairs of the
    predictions (docs/log.md): neither belongs here. Beside them cases 0, 1, .. of the forecasts.
    """

    dimension: int
    cases: int
    seeds: int
    forecasts: int = 6 * COMBINATIONS

    @classmethod
    def preset(cls, name: Preset) -> PlannerStages:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(10, 2, 2, 2)
        return cls(20, 40, 6) if name == "quick" else cls(40, 100, 10, 12 * COMBINATIONS)

    def _cases(self) -> list[tuple[str, Cell]]:
        """The panel of each case, and its cell."""
        seeds = list(range(self.seeds))
        chosen = [
            (f"case {i}", Cell(run_case, {"dimension": self.dimension, "index": i, "seeds": seeds}))
            for i in range(_FIRST_CASE, _FIRST_CASE + self.cases)
        ]
        return chosen + [
            (f"{FORECAST}{i}", Cell(run_forecast, {"index": i, "seeds": seeds}))
            for i in range(self.forecasts)
        ]

    def cells(self) -> list[Cell]:
        """One cell a case, its seeds side by side."""
        return [cell for _, cell in self._cases()]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a case (panel), arm (kind), optimiser and seed."""
        rows = [
            {Column.FIGURE: NAME, Column.PANEL: panel, **row}
            for (panel, _), found in zip(self._cases(), results, strict=True)
            for row in found
        ]
        return as_table(rows, Column)
