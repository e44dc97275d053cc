"""Tokens per second of scoring against a plain loop over the same rows, side by side.

The plain loop is what one writes first: one row at a time through the whole model, cross entropy of the
completion's tokens. Scoring batches by length, computes what prompts share once, applies the output layer at
completions only, and gives two things more from the same pass: the mean hidden state and the gradient sketch.
Both find the same losses, checked. Rounds alternate between the ways; times are medians; the rate counts all
tokens of all rows for both. Without --model the model is random: 8 layers of width 256, vocabulary of 8,192.

With --memory the peak memory of scoring a pool of 1,000 tokens a row is printed as it grows, and what each
row added to it after the first quarter, beside the bytes of a row's own vectors and text (random model of one
layer of width 64).

    OMP_NUM_THREADS=1 python benchmarks/score.py [--model DIR] [--rows 64] [--repeats 3] [--threads 1]
    OMP_NUM_THREADS=1 python benchmarks/score.py --memory --rows 4000
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from datadose.llm.chat import Encoded
from datadose.llm.language_model import BATCH_TOKENS, DTYPES, LanguageModel
from datadose.llm.loading import quiet
from datadose.llm.pool import Row
from datadose.llm.score import score
from datadose.llm.sketch import TensorSketch
from timing import seconds

VOCABULARY = 8192


def random_llama(folder: Path, hidden: int = 256, layers: int = 8) -> Path:
    """A random Llama and a tokenizer of whole numbers, saved in ``folder``."""
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415 - slow to import
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415

    words = Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    made: Any = PreTrainedTokenizerFast
    made(tokenizer_object=words, eos_token="1", pad_token="0").save_pretrained(folder)
    return folder


def random_rows(model: LanguageModel, count: int, opening: int) -> list[Encoded]:
    """Rows of 8 to 120 random tokens after an ``opening`` that all share, a third of them the completion."""
    rng = np.random.default_rng(0)
    first = rng.integers(2, model.vocabulary_size, opening).tolist()
    rows = []
    for length in rng.integers(8, 121, count):
        ids = rng.integers(2, model.vocabulary_size, length).tolist()
        rows.append(Encoded(np.array(first + ids, dtype=np.int32), opening + 2 * len(ids) // 3))
    return rows


def arithmetic_rows(model: LanguageModel, count: int) -> list[Encoded]:
    """Questions of a chat with short answers, as in a pool of arithmetic tasks."""
    rng = np.random.default_rng(0)
    rows = []
    for place in range(count):
        terms = rng.integers(1, 100, rng.integers(2, 9)).tolist()
        question = f"What is {' + '.join(map(str, terms))}? Answer with the number only."
        answer = [{"role": "assistant", "content": str(sum(terms))}]
        row = Row(str(place), [{"role": "user", "content": question}], (answer,), {}, place + 1)
        rows.append(model.encode(row))
    return rows


@torch.inference_mode()
def plain_loop(model: LanguageModel, rows: list[Encoded]) -> list[float]:
    """Mean NLL of each row's completion, one row at a time."""
    losses = []
    for row in rows:
        ids = torch.tensor([row.prompt_ids + row.completion_ids], device=model.device)
        first = len(row.prompt_ids)
        logits = model.model(ids).logits[0, first - 1 : -1].float()
        losses.append(float(functional.cross_entropy(logits, ids[0, first:])))
    return losses


def scored(model: LanguageModel, rows: list[Encoded], sketch: TensorSketch) -> list[float]:
    """The same by the library, which also finds mean states and sketches."""
    losses = [0.0] * len(rows)
    for batch in model.loss_batches([row.length for row in rows], BATCH_TOKENS):
        for place, nll in zip(batch, model.measure([rows[i] for i in batch], sketch).nll, strict=True):
            losses[place] = float(nll)
    return losses


def compare(name: str, models: dict[str, LanguageModel], rows: list[Encoded], repeats: int) -> None:
    """Print the rates of both ways in each precision, and their ratios."""
    ways: dict[str, Callable[[], list[float]]] = {}
    for precision, model in models.items():
        sketch = TensorSketch(model.hidden_size, model.vocabulary_size).to(model.device)
        ways[f"plain loop {precision}"] = partial(plain_loop, model, rows)
        ways[f"scoring {precision}"] = partial(scored, model, rows, sketch)
    found = {way: np.array(act()) for way, act in ways.items()}  # also the warm-up
    for precision, tolerance in (("float32", 1e-4), ("bfloat16", 0.1)):
        one, other = found[f"plain loop {precision}"], found[f"scoring {precision}"]
        gap = float(np.max(np.abs(one - other) / one))
        if gap > tolerance:
            msg = f"{name}, {precision}: losses differ by {gap:.1e}"
            raise ArithmeticError(msg)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, act in ways.items():
            times[way].append(seconds(act))
    took = {way: statistics.median(spent) for way, spent in times.items()}
    tokens = sum(row.length for row in rows)
    rates = ", ".join(f"{way} {tokens / time:,.0f}/s" for way, time in took.items())
    print(f"{name}: {len(rows)} rows, {tokens} tokens: {rates}")
    for one_way, other_way in (
        ("plain loop float32", "scoring float32"),
        ("plain loop bfloat16", "scoring bfloat16"),
        ("plain loop float32", "scoring bfloat16"),
    ):
        print(f"  RATIO {other_way} against {one_way}: {took[one_way] / took[other_way]:.2f} times")


def memory(rows: int) -> None:
    """Print the peak memory of one run of ``score`` as rows are measured."""
    rng = np.random.default_rng(0)
    seen: list[tuple[float, float]] = []

    def note(name: str, done: int, total: int) -> None:
        if name.startswith("score"):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            seen.append((done / total * rows, peak))
            if len(seen) % max(1, rows // 8) == 0:
                print(f"  {seen[-1][0]:6.0f} rows: {peak / 2**20:,.0f} MB")

    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            source = random_llama(Path(folder) / "model", 64, 1)
        pool = Path(folder) / "pool.jsonl"
        with pool.open("w") as handle:
            for _ in range(rows):
                prompt, completion = (" ".join(map(str, rng.integers(2, VOCABULARY, 500))) for _ in range(2))
                handle.write(json.dumps({"prompt": prompt, "completion": completion}) + "\n")
        found = score(source, pool, Path(folder) / "scores", progress=note)
        vectors = 4 * (found.embeddings.shape[1] + found.sketches.shape[1])
        text = pool.stat().st_size / rows
    (first, low), (last, high) = seen[len(seen) // 4], seen[-1]
    end = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{(high - low) / (last - first) / 1000:.1f} kB a row, {end:,.0f} MB in the end", end="; ")
    print(f"its vectors are {vectors / 1000:.1f} kB, its text {text / 1000:.1f} kB")


def main() -> None:
    """A chat's rows if the model has a template, random rows with and without a shared opening."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model's folder")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--memory", action="store_true", help="peak memory in place of speed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        memory(arguments.rows)
        return
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            source = arguments.model or random_llama(Path(folder))
        models = {precision: LanguageModel.load(source, dtype=precision) for precision in DTYPES}
    model = models["float32"]
    print(f"{model.model.num_parameters() / 1e6:.1f}M parameters on {model.device.type}")
    if model.template_digest:
        compare("arithmetic in a chat", models, arithmetic_rows(model, arguments.rows), arguments.repeats)
    for opening in (0, 24):
        rows = random_rows(model, arguments.rows, opening)
        compare(f"random rows, {opening} tokens shared", models, rows, arguments.repeats)


if __name__ == "__main__":
    main()
