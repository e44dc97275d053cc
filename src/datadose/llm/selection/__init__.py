"""Choose an SFT set and an RL set from scores: pure, without a model. See docs/llm_selection.md."""

from datadose.llm.selection.choose import select
from datadose.llm.selection.chosen import Selection
from datadose.llm.selection.commands import training_commands
from datadose.llm.selection.config import SelectionConfig
from datadose.llm.selection.formats import FORMATS, check_format
from datadose.llm.selection.rl_set import wants_rl
from datadose.llm.selection.terminal import describe
from datadose.llm.selection.writing import write_selection

__all__ = [
    "FORMATS",
    "Selection",
    "SelectionConfig",
    "check_format",
    "describe",
    "select",
    "training_commands",
    "wants_rl",
    "write_selection",
]
