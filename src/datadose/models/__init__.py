"""Models that post-training trains: linear self-attention (the paper's section 3)."""

from datadose.models.linear_attention import LinearAttention, embed_prompts

__all__ = ["LinearAttention", "embed_prompts"]
