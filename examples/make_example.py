"""Make the example: a pool of 300 chat rows, a target, a tiny model, and its scores of both.

    python examples/make_example.py             # examples/pool.jsonl, target.jsonl and the folder model
    python examples/make_example.py --scores    # the folder scores too, with what the model made of them

The rows are sums, differences and products, bare and as stories; about one answer in nine is wrong, and
the column ``answer`` has the right one. The target is stories about products that are not in the pool. The
model is a Llama of 50,000 weights that is trained for some seconds, on many sums and few products. Pool and
target come out alike everywhere, weights and scores only where numbers are rounded alike.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from datadose.files import write_json
from datadose.llm.represent import scores_of
from datadose.llm.score import score
from datadose.llm.score_config import ScoreConfig
from datadose.llm.scores import SAMPLES

HERE = Path(__file__).resolve().parent
KINDS = {"sum": 60, "large sum": 60, "difference": 40, "story sum": 60, "story product": 80}
"""Rows of the pool by kind."""
RANGES = {
    "sum": (2, 9),
    "large sum": (11, 29),
    "difference": (11, 29),
    "story sum": (2, 9),
    "story product": (2, 9),
}
"""Smallest and largest number in a question."""
PRACTICE = {"sum": 30, "large sum": 32, "difference": 12, "story sum": 16, "story product": 10}
"""What the model is trained on, in percent."""
TARGETS, WRONG, STEPS, BATCH = 40, 1 / 8, 700, 64
THINGS = ("pens", "nuts", "eggs", "coins", "cups", "keys", "maps", "pins")
NAMES = ("Ann", "Bo", "Cy", "Di", "Eve", "Flo")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def question(kind: str, rng: random.Random) -> tuple[str, str, int]:
    """A question of a kind, the words before its answer, and the answer."""
    thing, name = rng.choice(THINGS), rng.choice(NAMES)
    low, high = RANGES[kind]
    a, b = rng.randint(low, high), rng.randint(low, high)
    if kind == "difference":
        a, b = max(a, b), min(a, b)
        return f"What is {a} - {b}?", "", a - b
    if kind == "story sum":
        return f"{name} has {a} {thing} and gets {b} more. How many {thing} now?", "The answer is ", a + b
    if kind == "story product":
        return f"{name} has {a} bags of {b} {thing}. How many {thing} in all?", "The answer is ", a * b
    return f"What is {a} + {b}?", "", a + b


def rows(
    kinds: dict[str, int], seed: int, wrong: float = 0.0, without: frozenset[str] = frozenset()
) -> list[Any]:
    """Chat rows in random order, a share ``wrong`` of them false; no question twice, or in ``without``."""
    rng, found, asked = random.Random(seed), [], set(without)
    for kind, count in kinds.items():
        left = count
        while left:
            text, words, answer = question(kind, rng)
            if text in asked:
                continue
            asked.add(text)
            left -= 1
            said = answer + rng.choice((-10, -2, -1, 1, 2, 10)) if rng.random() < wrong else answer
            prompt, completion = (
                {"role": "user", "content": text},
                {"role": "assistant", "content": f"{words}{said}"},
            )
            found.append(
                {"prompt": [prompt], "completion": [completion], "answer": str(answer), "kind": kind}
            )
    rng.shuffle(found)
    return [{"id": f"{seed}-{place}", **row} for place, row in enumerate(found)]


def write_rows(folder: Path) -> None:
    """``pool.jsonl`` and ``target.jsonl``."""
    pool = rows(KINDS, seed=1, wrong=WRONG)
    asked = frozenset(row["prompt"][0]["content"] for row in pool)
    target = rows({"story product": TARGETS}, seed=2, without=asked)
    for name, chosen in (("pool", pool), ("target", target)):
        lines = (json.dumps(row) + "\n" for row in chosen)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


def make_tokenizer() -> Any:
    """Words and digits are the tokens."""
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unknown|>"]
    pattern = r" ?[A-Za-z]+|[\s\S]"
    rng = random.Random(0)
    texts = "".join("".join(map(str, question(kind, rng))) for kind in KINDS for _ in range(500))
    known = sorted({*re.findall(pattern, texts), *"0123456789-"})
    vocabulary = {word: place for place, word in enumerate([*special, *known])}
    whole: Any = Tokenizer(models.WordLevel(vocabulary, unk_token=special[4]))
    whole.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    whole.decoder = decoders.Fuse()
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(
        tokenizer_object=whole,
        pad_token=special[0],
        eos_token=special[1],
        unk_token=special[4],
        additional_special_tokens=special[2:4],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(folder: Path) -> None:
    """Train the model, and save it with its tokenizer in ``folder``."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer, rng = make_tokenizer(), random.Random(3)
    shape = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape, **ends)
    model: Any = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        kinds = rng.choices([*PRACTICE], [*PRACTICE.values()], k=BATCH)
        asked = [question(kind, rng) for kind in kinds]
        texts = [f"<|user|>{text}<|end|><|assistant|>{words}{answer}<|end|>" for text, words, answer in asked]
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        seen = batch["attention_mask"]
        labels = batch["input_ids"].masked_fill(seen == 0, -100)
        model(input_ids=batch["input_ids"], attention_mask=seen, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_scores(folder: Path) -> None:
    """The folder ``scores``, as ``datadose score`` and the first ``datadose select`` leave it."""
    shutil.rmtree(folder / "scores", ignore_errors=True)
    config = ScoreConfig(samples=8, max_tokens=16, sketch_size=48)
    pool = score(
        str(folder / "model"), folder / "pool.jsonl", folder / "scores", config=config, verifier="number"
    )
    scores_of(folder / "target.jsonl", "target", pool)
    (folder / "scores" / SAMPLES).unlink()
    for path in (folder / "scores").rglob("manifest.json"):
        # This checkout's folder is nowhere else. Without the sampled texts the folder is a fifth smaller.
        record = json.loads(path.read_text(encoding="utf-8").replace(f"{folder}/", f"{folder.name}/"))
        record["files"].pop(SAMPLES, None)
        write_json(path, record)
        shutil.rmtree(path.parent / ".cache")


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scores", action="store_true", help="score pool and target too")
    arguments = parser.parse_args()
    write_rows(HERE)
    make_model(HERE / "model")
    print(f"wrote {HERE / 'model'}")
    if arguments.scores:
        write_scores(HERE)


if __name__ == "__main__":
    main()
