"""Models that post-training trains: linear self-attention (the paper's section 3)."""

from datadose.models.linear_attention import (
    BlockLinearAttention,
    ChainModel,
    LinearAttention,
    embed_prompts,
)
from datadose.models.prompt_batch import PromptBatch

__all__ = ["BlockLinearAttention", "ChainModel", "LinearAttention", "PromptBatch", "embed_prompts"]
