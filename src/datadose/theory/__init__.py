"""The theory: numbers from formulas, in float64. It imports no model and no training stage."""

from datadose.theory.asymptotics import (
    FORMS,
    PeakError,
    first_order_error,
    first_order_limits,
    mixture_equivalent,
    mixture_error,
    predict_curve,
    predict_error,
)
from datadose.theory.outcome import (
    outcome_gradient,
    outcome_loss,
    pass_probability,
    pass_rate,
    regime,
    rollout_error,
)
from datadose.theory.post_test import hardness, post_test_error
from datadose.theory.pretraining import gamma0, pretrained_on_mixture, pretrained_operator
from datadose.theory.sft import (
    GradientDescent,
    chain_weight,
    optimal_allocation,
    population_minimiser,
    sft_loss,
    sft_minimiser,
)
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.time_search import BestTime, best_time
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.training_time import largest_learning_rate, trained, trained_on_shift, trained_path
from datadose.theory.weighted_test import WeightedTest

__all__ = [
    "FORMS",
    "BestTime",
    "GradientDescent",
    "PeakError",
    "Source",
    "Stopping",
    "TrainedOperator",
    "WeightedTest",
    "best_time",
    "chain_weight",
    "first_order_error",
    "first_order_limits",
    "gamma0",
    "hardness",
    "largest_learning_rate",
    "mixture_equivalent",
    "mixture_error",
    "optimal_allocation",
    "outcome_gradient",
    "outcome_loss",
    "pass_probability",
    "pass_rate",
    "population_minimiser",
    "post_test_error",
    "predict_curve",
    "predict_error",
    "pretrained_on_mixture",
    "pretrained_operator",
    "regime",
    "rollout_error",
    "sft_loss",
    "sft_minimiser",
    "trained",
    "trained_on_shift",
    "trained_path",
]
