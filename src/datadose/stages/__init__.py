"""Training stages on one engine: pretraining, supervised fine-tuning, outcome supervision, RL."""

from datadose.stages.engine import FixedData, FreshData, Optimisation, Training, train
from datadose.stages.evaluate import held_out_prompts, post_test
from datadose.stages.outcome import Outcome
from datadose.stages.pretrain import Curriculum, CurriculumData
from datadose.stages.rewards import negative_squared_error, within_tolerance
from datadose.stages.rl import Rl
from datadose.stages.sft import Sft

__all__ = [
    "Curriculum",
    "CurriculumData",
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
