"""What SFT and outcome supervision at k = 1 are compared by, exactly: numbers of rows, lengths, balance."""

from __future__ import annotations

import numpy as np

from datadose.shapes import Array
from datadose.studies.training_time import settings
from datadose.studies.training_time.settings import paper_setting, random_setting
from datadose.studies.training_time.two_stages import (
    Prompts,
    Setup,
    best_penalties,
    best_penalty,
)
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.time_search import best_time
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.training_time import trained
from datadose.theory.weighted_test import WeightedTest

SFT, OUTCOME, BOTH = "sft", "outcome", "sft then outcome"
PENALTY, TIME, CONVERGED = "best penalty", "best time", "converged"
UNLIMITED = 1e6
"""Rows over d that count as unlimited: what is left of the scatter is below 1e-5 of the error."""


class Column(settings.Column):
    """The columns of this study."""

    PRETRAINING = "pretraining"
    """Rows of pretraining over d; UNLIMITED in the population regime."""


def _stages(setup: Setup) -> tuple[tuple[str, Prompts], ...]:
    return ((SFT, setup.sft), (OUTCOME, setup.outcome))


def converged_errors(setup: Setup, prompts: Prompts, counts: Array) -> Array:
    """Errors / d at convergence, (P,); infinite within one row of the peak."""
    found = setup.test.error(prompts.train(setup.start, counts, np.zeros(len(counts))))
    rank = prompts.sizes[prompts.moment > 0].sum()
    return np.asarray(np.where(np.abs(counts - rank) <= 1, np.inf, found))


def rows_of_random(seed: int, dimension: int, budgets: tuple[float, ...]) -> list[list[float | str]]:
    """Cell: stage, rule, rows / d, error / d of one random setting; unlimited rows are 0 rows / d."""
    setup = random_setting(seed, dimension)
    counts = dimension * np.array([*budgets, UNLIMITED])
    places = [*budgets, 0.0]
    found: list[list[float | str]] = []
    for stage, prompts in _stages(setup):
        tuned = best_penalty(setup.start, prompts, counts, setup.test).error
        last = converged_errors(setup, prompts, counts)
        for rule, errors in ((PENALTY, tuned), (CONVERGED, last)):
            found += [[stage, rule, b, float(e)] for b, e in zip(places, errors, strict=True)]
    return found


def rows_of_paper(dimension: int, budgets: tuple[float, ...]) -> list[list[float | str]]:
    """Cell: the same for the paper's setting, with the best time."""
    setup = paper_setting(dimension)
    counts = dimension * np.array(budgets)
    start, test = pretrained_operator(setup.sigma0, setup.length), WeightedTest.of(setup.target, setup.length)
    data = {SFT: (setup.data, setup.eta), OUTCOME: (setup.target, 1.0)}
    found: list[list[float | str]] = []
    for stage, prompts in _stages(setup):
        covariance, eta = data[stage]
        timed = [
            best_time(start, eta, [Source(covariance, setup.length, float(B))], test).error for B in counts
        ]
        tuned = best_penalty(setup.start, prompts, counts, setup.test).error
        errors = {PENALTY: tuned, TIME: np.array(timed), CONVERGED: converged_errors(setup, prompts, counts)}
        for rule, values in errors.items():
            found += [[stage, rule, b, float(e)] for b, e in zip(budgets, values, strict=True)]
    return found


def lengths_of_paper(
    dimension: int, lengths: tuple[float, ...], budgets: tuple[float, ...]
) -> list[list[float | str]]:
    """Cell: stage, rule, rows / d, error / d and n / d, only the stage's own prompts changing in length."""
    setup = paper_setting(dimension)
    counts = dimension * np.array(budgets)
    found: list[list[float | str]] = []
    for share in lengths:
        for stage, covariance, eta in ((SFT, setup.data, setup.eta), (OUTCOME, setup.target, 1.0)):
            prompts = setup.prompts(covariance, eta, round(share * dimension))
            tuned = best_penalty(setup.start, prompts, counts, setup.test).error
            last = converged_errors(setup, prompts, counts)
            for rule, errors in ((PENALTY, tuned), (CONVERGED, last)):
                found += [[stage, rule, b, float(e), share] for b, e in zip(budgets, errors, strict=True)]
    return found


def rescaled(seed: int, dimension: int, budgets: tuple[float, ...]) -> list[list[float]]:
    """Cell: rows / d, error of SFT on A and of outcome supervision on A / eta, at a time eta^2 times as long.

    V Phi + eta Omega is eta (V Phi' + Omega) with Phi' of prompts of covariance A / eta, so the eigenvalues
    of Phi Phi^T are eta^2 times those of Phi' Phi'^T.
    """
    setup = random_setting(seed, dimension)
    start, n, eta = pretrained_operator(setup.sigma0, setup.length), setup.length, setup.eta
    found = []
    for place, b in enumerate(budgets):
        time = 10.0 ** (place - 1) / float(setup.data.max()) ** 2
        B = b * dimension
        one = trained(start, eta, [Source(setup.data, n, B)], Stopping(time=time))
        two = trained(start, 1.0, [Source(setup.data / eta, n, B)], Stopping(time=time * eta**2))
        found.append([b, one.error(setup.target, n), two.error(setup.target, n)])
    return found


def balanced(
    dimension: int, rho: float, pretraining: float, cost: float, budgets: tuple[float, ...]
) -> list[list[float | str]]:
    """Cell: arm, budget / d and error / d of the paper's setting, half the budget on each stage.

    Args:
        pretraining: rows of pretraining over d, from V = 0; UNLIMITED in the population regime.
        cost: of a demonstration, in prompts; equal rows at 1.
    """
    setup = paper_setting(dimension, rho)
    start = setup.start
    if pretraining < UNLIMITED:
        source = Source(setup.sigma0, setup.length, pretraining * dimension)
        zero = TrainedOperator.fixed(np.zeros(dimension))
        start = setup.states([trained(zero, 1.0, [source], Stopping())]).at(0)
    rows = dimension * np.array(budgets)
    found: list[list[float | str]] = []
    for arm, x in ((SFT, 1.0), (OUTCOME, 0.0), (BOTH, 0.5)):
        tuned = best_penalties(start, setup.sft, x * rows / cost, setup.outcome, (1 - x) * rows, setup.test)
        found += [[arm, PENALTY, b, float(e)] for b, e in zip(budgets, tuned.error, strict=True)]
    return found
