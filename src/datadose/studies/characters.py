"""A tokenizer of one token a character, for the language models that the studies make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datadose.errors import require_extra


def character_tokenizer(
    vocabulary: Mapping[str, int], *, pad: str, end: str, unknown: str, **options: Any
) -> Any:
    """A fast tokenizer without a chat template.

    ``vocabulary`` maps each character and each of the special tokens ``pad``, ``end`` and ``unknown`` to its
    number; ``options`` are those of transformers' PreTrainedTokenizerFast.
    """
    require_extra("llm", "transformers", "tokenizers")
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    characters: Any = Tokenizer(models.WordLevel(dict(vocabulary), unk_token=unknown))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    characters.decoder = decoders.Fuse()
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=characters, pad_token=pad, eos_token=end, unk_token=unknown, **options)
