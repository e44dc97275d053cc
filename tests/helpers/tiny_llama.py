"""A tiny random Llama with a tokenizer and a chat template, saved in a folder: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

CHARACTERS = sorted({chr(i) for i in range(32, 127)} | {"\n"})
CONTEXT = 256
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_model(
    folder: Path, *, template: bool = True, seed: int = 0, hidden: int = 32, context: int = CONTEXT
) -> Path:
    """Write a character-level Llama of two layers and its tokenizer to ``folder``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from datadose.studies.characters import character_tokenizer

    special = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"]
    vocabulary = {token: index for index, token in enumerate([*special, *CHARACTERS])}
    tokenizer = character_tokenizer(
        vocabulary,
        pad="<|pad|>",
        end="<|im_end|>",
        unknown="<|unk|>",
        additional_special_tokens=["<|im_start|>"],
    )
    if template:
        tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=vocabulary["<|im_end|>"],
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
