"""Models that post-training trains: linear self-attention (section 3), a GPT-2 of regressions (section 8)."""

from datadose.models.gpt import GptConfig, GptModel
from datadose.models.linear_attention import (
    BlockLinearAttention,
    ChainModel,
    LinearAttention,
    embed_prompts,
    starting_operator,
)
from datadose.models.prompt_batch import PromptBatch

__all__ = [
    "BlockLinearAttention",
    "ChainModel",
    "GptConfig",
    "GptModel",
    "LinearAttention",
    "PromptBatch",
    "embed_prompts",
    "starting_operator",
]
