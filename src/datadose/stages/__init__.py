"""Training stages on one engine: pretraining, supervised fine-tuning, outcome supervision, RL.

Names are loaded on first use: the keys of a training file are read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from datadose.deprecation import renamed

if TYPE_CHECKING:
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

_HOMES = {
    "Curriculum": "datadose.stages.pretrain",
    "CurriculumData": "datadose.stages.pretrain",
    "FixedData": "datadose.stages.data",
    "FreshData": "datadose.stages.data",
    "Optimisation": "datadose.stages.optimisation",
    "Outcome": "datadose.stages.outcome",
    "PolicyGradient": "datadose.stages.rl",
    "Sft": "datadose.stages.sft",
    "Training": "datadose.stages.checkpoint",
    "held_out_prompts": "datadose.stages.evaluate",
    "negative_squared_error": "datadose.stages.rewards",
    "post_test": "datadose.stages.evaluate",
    "squared_gaps": "datadose.stages.evaluate",
    "stage_objective": "datadose.stages.objectives",
    "train": "datadose.stages.engine",
    "within_tolerance": "datadose.stages.rewards",
}

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

_renamed = renamed(__name__, {"Rl": "datadose.stages.rl.PolicyGradient"}, depth=3)

if not TYPE_CHECKING:  # A type checker takes a module that has __getattr__ to have every name.

    def __getattr__(name: str) -> Any:
        return getattr(import_module(_HOMES[name]), name) if name in _HOMES else _renamed(name)
