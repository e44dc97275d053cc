"""Tokens per second of scoring against two plain loops over the same rows, side by side.

Both loops are what one writes first: one row at a time through the whole model. The loop of losses finds the
cross entropy of the completion's tokens and nothing else. The loop of three finds what scoring finds: beside
the loss, the mean hidden state, and the sketch of the last layer's gradient, which autograd forms whole.
Scoring batches by length, computes what prompts share once, applies the output layer at completions only, and
never forms a gradient. All find the same losses and, in float32, both the same sketches, checked. The ways
take turns; times are medians (on a CPU with one thread of the process's CPU time, which a busy machine
distorts less); the rate counts all tokens of all rows. Without --model the model is random: 8 layers of width
256 and a vocabulary of 8,192, or with --smollm2 of SmolLM2-135M's shape with 10 of its 30 layers.

On one thread of a busy machine, in float32, scoring is 1.6 times the loop of losses on rows of 8 to 120
tokens that share nothing (either model; SmolLM2's shape: 12 rows, one round), 1.7 with 24 tokens shared and
3.6 to 3.8 with 200; of the loop of three it is 2.2, 2.3 and 4.5 times with the small model, 3.9, 3.6 and 6.4
with SmolLM2's shape. Three times the loop of losses cannot be had on rows that share nothing. SmolLM2-135M
takes 212 million operations for a token in its layers and 57 million more in the output layer; where a third
of the tokens are targets scoring does 231 of the 269, so equally fast products allow 1.16 times. The rest is
what a row alone is slower by: 755 to 870 us a token in 6 layers at 60 tokens, against 560 to 600 in passes of
240. Matrix products are 79 percent of the time in the layers and run at 65 to 95 GFLOP/s there, of 100 that
the core reaches at best; softmax and sketch are some 0.2 ms a target beside 0.8 ms for its logits and 2.8 ms
for a token in 30 layers.

With --threads N both loops have N threads for each product, and scoring N batches at a time with one each.

    OMP_NUM_THREADS=1 python benchmarks/score.py [--model DIR | --smollm2] [--rows 64] [--tokens 8 120]
        [--dtypes float32 bfloat16] [--repeats 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from datadose.llm.chat import Encoded
from datadose.llm.language_model import BATCH_TOKENS, LanguageModel
from datadose.llm.loading import quiet
from datadose.llm.pool import Row
from datadose.llm.shards import ModelSource, measure_batches
from datadose.llm.sketch import TensorSketch
from datadose.workers import Workers
from timing import seconds

VOCABULARY = 8192
SMOLLM2 = {"vocabulary": 49152, "hidden": 576, "layers": 10, "inner": 1536, "heads": 9, "keys": 3}
"""The shape of SmolLM2-135M, but for the layers."""
OPENINGS = (0, 24, 200)
"""Tokens that all rows begin with: nothing, a chat template's opening, instructions with an example."""
Found: TypeAlias = tuple[NDArray[Any], ...]
"""Losses, mean states and sketches, by row; the first alone from the loop of losses."""
Clock: TypeAlias = Callable[[], float]


def random_llama(
    folder: Path,
    hidden: int = 256,
    layers: int = 8,
    *,
    vocabulary: int = VOCABULARY,
    inner: int | None = None,
    heads: int = 4,
    keys: int = 2,
) -> Path:
    """A random Llama and a tokenizer of whole numbers, saved in ``folder``.

    Feed-forward layers have the width ``inner``, else 3 times ``hidden``.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415 - slow to import
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415

    words = Tokenizer(models.WordLevel({str(i): i for i in range(vocabulary)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner or 3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    made: Any = PreTrainedTokenizerFast
    made(tokenizer_object=words, eos_token="1", pad_token="0").save_pretrained(folder)
    return folder


def random_rows(model: LanguageModel, count: int, opening: int, shortest: int, longest: int) -> list[Encoded]:
    """Rows of random tokens after an ``opening`` that all share, a third of them the completion."""
    rng = np.random.default_rng(0)
    first = rng.integers(2, model.vocabulary_size, opening).tolist()
    rows = []
    for length in rng.integers(shortest, longest + 1, count):
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
def plain_loop(model: LanguageModel, rows: list[Encoded]) -> Found:
    """Mean NLL of each row's completion, one row at a time; no vectors."""
    losses = []
    for row in rows:
        ids = torch.tensor([row.prompt_ids + row.completion_ids], device=model.device)
        first = len(row.prompt_ids)
        logits = model.model(ids).logits[0, first - 1 : -1].float()
        losses.append(float(functional.cross_entropy(logits, ids[0, first:])))
    return (np.array(losses),)


def plain_loop_of_three(model: LanguageModel, rows: list[Encoded], sketch: TensorSketch) -> Found:
    """NLL, mean hidden state and sketch, one row at a time, the gradient by autograd."""
    losses, states, sketches = [], [], []
    W = model.head.weight.detach().requires_grad_(True)
    for row in rows:
        ids = torch.tensor([row.prompt_ids + row.completion_ids], device=model.device)
        first = len(row.prompt_ids)
        with torch.no_grad():
            hidden = model.model.base_model(ids).last_hidden_state[0]
        logits = model.output.logits(functional.linear(hidden, W))[first - 1 : -1]
        loss = functional.cross_entropy(logits, ids[0, first:], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, W)
        losses.append(float(loss.detach()) / row.targets)
        states.append(hidden.float().mean(0).cpu().numpy())
        sketches.append(sketch_of_matrix(gradient, sketch).cpu().numpy())
    return np.array(losses), np.array(states), np.array(sketches)


def sketch_of_matrix(G: Tensor, sketch: TensorSketch) -> Tensor:
    """The sketch (D,) of a gradient (V, H) that is there: rows into buckets first, then columns."""
    (left, left_signs), (right, right_signs) = sketch._left, sketch._right
    rows = torch.zeros(sketch.size, G.shape[1], device=G.device)
    rows.index_add_(0, right, G.float() * right_signs.unsqueeze(1))
    places = (torch.arange(sketch.size, device=G.device).unsqueeze(1) + left) % sketch.size
    return torch.zeros(sketch.size, device=G.device).index_add_(
        0, places.flatten(), (rows * left_signs).flatten()
    )


def scored(model: LanguageModel, rows: list[Encoded], size: int, threads: int) -> Found:
    """The same three by the library."""
    nll = np.empty(len(rows))
    states, sketches = (np.empty((len(rows), width)) for width in (model.hidden_size, size))
    batches, source = model.loss_batches([row.length for row in rows], BATCH_TOKENS), ModelSource.of(model)
    found = measure_batches(model, source, batches, rows.__getitem__, size, Workers(threads))
    for place, records in found:
        for i, record in zip(batches[place], records, strict=True):
            nll[i], states[i], sketches[i] = record["nll"], record["embedding"], record["sketch"]
    return nll, states, sketches


def compare(
    name: str, models: dict[str, LanguageModel], rows: list[Encoded], repeats: int, clock: Clock, threads: int
) -> None:
    """Print the rates of the three ways in each precision, and their ratios."""
    ways: dict[str, Callable[[], Any]] = {}
    for precision, model in models.items():
        sketch = TensorSketch(model.hidden_size, model.vocabulary_size).to(model.device)
        ways[f"loop of losses {precision}"] = partial(plain_loop, model, rows)
        ways[f"loop of three {precision}"] = partial(plain_loop_of_three, model, rows, sketch)
        ways[f"scoring {precision}"] = partial(scored, model, rows, sketch.size, threads)
    check(name, {way: act() for way, act in ways.items()})  # also the warm-up
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, act in ways.items():
            times[way].append(seconds(act, clock=clock))
    took = {way: statistics.median(spent) for way, spent in times.items()}
    tokens = sum(row.length for row in rows)
    rates = ", ".join(f"{way} {tokens / time:,.0f}/s" for way, time in took.items())
    print(f"{name}: {len(rows)} rows, {tokens} tokens: {rates}")
    for precision in models:
        for loop in ("loop of losses", "loop of three"):
            ratio = took[f"{loop} {precision}"] / took[f"scoring {precision}"]
            print(f"  RATIO scoring {precision} against {loop} {precision}: {ratio:.2f} times", flush=True)
    if len(models) > 1:
        ratio = took["loop of losses float32"] / took["scoring bfloat16"]
        print(f"  RATIO scoring bfloat16 against loop of losses float32: {ratio:.2f} times", flush=True)


def check(name: str, found: dict[str, Any]) -> None:
    """ArithmeticError if a way found other losses, or in float32 other states or sketches."""
    for way, (nll, *vectors) in found.items():
        if not way.startswith("scoring"):
            continue
        precision = way.split()[-1]
        for loop in ("losses", "three"):
            expected, *others = found[f"loop of {loop} {precision}"]
            gaps = [float(np.max(np.abs(nll - expected) / expected))]
            if precision == "float32":
                gaps += [
                    float(np.abs(x - y).max() / np.abs(y).max())
                    for x, y in zip(vectors, others, strict=False)
                ]
            if max(gaps) > (1e-4 if precision == "float32" else 0.1):
                msg = f"{name}, {way}: differs from the loop of {loop} by {max(gaps):.1e}"
                raise ArithmeticError(msg)


def main() -> None:
    """A chat's rows if the model has a template, random rows with and without a shared opening."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model's folder")
    parser.add_argument("--smollm2", action="store_true", help="a random model of SmolLM2-135M's shape")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, nargs=2, default=(8, 120), help="shortest and longest row")
    parser.add_argument("--openings", type=int, nargs="+", default=OPENINGS, help="shared tokens")
    parser.add_argument("--dtypes", nargs="+", default=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            shape = SMOLLM2 if arguments.smollm2 else {}
            source = arguments.model or random_llama(Path(folder), **shape)
        models = {precision: LanguageModel.load(source, dtype=precision) for precision in arguments.dtypes}
    model = models[arguments.dtypes[0]]
    of_one = model.device.type == "cpu" and arguments.threads == 1
    clock = time.process_time if of_one else time.perf_counter
    print(f"{model.model.num_parameters() / 1e6:.1f}M parameters on {model.device.type}")
    if model.template_digest:
        rows = arithmetic_rows(model, arguments.rows)
        compare("arithmetic in a chat", models, rows, arguments.repeats, clock, arguments.threads)
    for opening in arguments.openings:
        rows = random_rows(model, arguments.rows, opening, *arguments.tokens)
        compare(
            f"random rows, {opening} tokens shared", models, rows, arguments.repeats, clock, arguments.threads
        )


if __name__ == "__main__":
    main()
