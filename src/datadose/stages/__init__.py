"""Training stages: supervised fine-tuning, outcome supervision and policy-gradient RL on one engine."""

from datadose.stages.engine import FixedData, FreshData, Optimisation, Training, train
from datadose.stages.evaluate import held_out_prompts, post_test
from datadose.stages.outcome import Outcome
from datadose.stages.rewards import negative_squared_error, within_tolerance
from datadose.stages.rl import Rl
from datadose.stages.sft import Sft

__all__ = [
    "FixedData",
    "FreshData",
    "Optimisation",
    "Outcome",
    "Rl",
    "Sft",
    "Training",
    "held_out_prompts",
    "negative_squared_error",
    "post_test",
    "train",
    "within_tolerance",
]
