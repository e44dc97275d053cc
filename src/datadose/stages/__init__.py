"""Training stages on one engine: pretraining, supervised fine-tuning, outcome supervision, RL."""

from typing import TYPE_CHECKING

from datadose.deprecation import renamed
from datadose.stages.checkpoint import Training
from datadose.stages.data import FixedData, FreshData
from datadose.stages.engine import train
from datadose.stages.evaluate import held_out_prompts, post_test, squared_gaps
from datadose.stages.objectives import stage_objective
from datadose.stages.optimisation import Optimisation
from datadose.stages.outcome import Outcome
from datadose.stages.pretrain import Curriculum, CurriculumData
from datadose.stages.rewards import negative_squared_error, within_tolerance
from datadose.stages.rl import PolicyGradient
from datadose.stages.sft import Sft

__all__ = [
    "Curriculum",
    "CurriculumData",
    "FixedData",
    "FreshData",
    "Optimisation",
    "Outcome",
    "PolicyGradient",
    "Sft",
    "Training",
    "held_out_prompts",
    "negative_squared_error",
    "post_test",
    "squared_gaps",
    "stage_objective",
    "train",
    "within_tolerance",
]

if not TYPE_CHECKING:  # A type checker takes a module that has __getattr__ to have every name.
    __getattr__ = renamed(__name__, {"Rl": "datadose.stages.rl.PolicyGradient"})
