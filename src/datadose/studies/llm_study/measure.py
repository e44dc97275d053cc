"""What a model can do, without sampling noise: the exact probability that a sample passes.

A row's completion is a few tokens, so the probability that the model writes exactly these, prod_t p(y_t), is
the pass rate that many samples at temperature 1 would show; one forward pass gives it, and whether greedy
decoding writes them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import torch

from datadose.errors import require_extra
from datadose.llm.chat import Encoded
from datadose.llm.language_model import LanguageModel, length_batches
from datadose.llm.pool import Row

_BATCH_TOKENS = 1024


def encode_rows(model: LanguageModel, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
    """Token ids of plain prompts and completions, without the end token: a line's end marks it."""
    found = []
    for row in rows:
        encoded = model.encode(Row(str(row["id"]), row["prompt"], (row["completion"],), row, 1))
        end = encoded.length - (encoded.ids[-1] in model.eos_ids)
        found.append(Encoded(encoded.ids[:end], encoded.start))
    return found


@torch.inference_mode()
def pass_probabilities(
    model: LanguageModel, rows: Sequence[dict[str, Any]]
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Per row: the probability of its completion, and 1 where greedy decoding writes it."""
    encoded = encode_rows(model, rows)
    probability, greedy = np.zeros(len(rows)), np.zeros(len(rows))
    head = model.model.get_output_embeddings()
    for batch in length_batches([row.length for row in encoded], _BATCH_TOKENS):
        longest = max(encoded[i].length for i in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        for place, i in enumerate(batch):
            whole = encoded[i].prompt_ids + encoded[i].completion_ids
            ids[place, : len(whole)] = torch.tensor(whole)
        # Padding stands at the end, where causal attention never looks from a real token.
        hidden = model.model.base_model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
        for place, i in enumerate(batch):
            first, last = len(encoded[i].prompt_ids), encoded[i].length
            log_p = torch.log_softmax(head(hidden[place, first - 1 : last - 1]).float(), dim=-1)
            wanted = ids[place, first:last].to(model.device)
            probability[i] = float(log_p.gather(1, wanted.unsqueeze(1)).double().sum().exp())
            greedy[i] = float((log_p.argmax(1) == wanted).all())
    return probability, greedy


def text_nll(model: LanguageModel, pieces: int = 8, length: int = 64) -> float:
    """Mean NLL per token of ``pieces`` of English prose (Verne, in reasoning-gym), ``length`` tokens each."""
    require_extra("llm", "reasoning_gym")
    ids = np.array(model.encode_prompt(_prose()), dtype=np.int32)
    starts = np.linspace(0, len(ids) - length, pieces).astype(int)
    return float(model.measure([Encoded(ids[start : start + length], 0) for start in starts]).nll.mean())


def _prose() -> str:
    """The story without its licence, its first 20,000 characters."""
    text = (resources.files("reasoning_gym.data") / "in_the_year_2889.txt").read_text()
    body = text.partition("*** START OF")[2].partition("***")[2]
    return body.strip()[:20_000]
