"""Shares of a batch and weights in the loss: what is drawn, what is trained on, and what is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("trl")
pytest.importorskip("peft")

from datadose.errors import InputError
from datadose.llm import posttrain as module
from datadose.llm.language_model import LanguageModel
from datadose.llm.mixing import all_rows, count_drawn, draw_places, loss_weights, parse_shares, read_sources
from datadose.llm.posttrain import PosttrainConfig, posttrain

pytestmark = pytest.mark.usefixtures("one_thread")

Write = Callable[..., Path]
Rows = list[dict[str, Any]]
SFT = PosttrainConfig("sft", steps=5, batch=4, learning_rate=1e-2, lora_rank=2, checkpoint_every=2)
LEVEL = 1e-6
"""Of each statistical test here: a correct program fails one in a million times."""


def sums(count: int, start: int = 0, **more: Any) -> Rows:
    """Rows with completions of one to four tokens and the end."""
    return [
        {"id": f"r{i}", "prompt": f"{i} + 1 =", "completion": "7" * (1 + i % 4), "answer": str(i + 1), **more}
        for i in range(start, start + count)
    ]


def test_batches_are_drawn_in_the_shares_and_rows_in_turn(write_rows: Write) -> None:
    files = [write_rows(sums(n, 100 * n), f"n={n}.jsonl") for n in (7, 50, 3)]
    sources = read_sources(list(zip(files, (6.0, 3.0, 1.0), strict=True)), weighted=True)
    assert [source.share for source in sources] == pytest.approx([0.6, 0.3, 0.1], rel=1e-15)
    places = draw_places(sources, 20_000, seed=3)
    counts = count_drawn(sources, places)
    assert sum(counts) == len(places) == 20_000
    for source, count in zip(sources, counts, strict=True):
        assert stats.binomtest(count, 20_000, source.share).pvalue > LEVEL / 3
    # Independent draws: as often after a row of the first file as after any other.
    first = np.array(places) < 7
    table = [[np.sum(first[:-1] & first[1:]), np.sum(first[:-1] & ~first[1:])],
             [np.sum(~first[:-1] & first[1:]), np.sum(~first[:-1] & ~first[1:])]]  # fmt: skip
    assert stats.chi2_contingency(table).pvalue > LEVEL
    # Within a file each row is drawn once in any order before one is drawn again.
    for start, size in ((0, 7), (7, 50), (57, 3)):
        own = [place - start for place in places if start <= place < start + size]
        rounds = [own[i : i + size] for i in range(0, len(own) - size + 1, size)]
        assert all(sorted(one) == list(range(size)) for one in rounds)
        assert len({tuple(one) for one in rounds}) > 1
    assert draw_places(sources, 20_000, seed=3) == places
    assert draw_places(sources, 20_000, seed=4) != places
    assert draw_places(sources, 9, seed=3) == places[:9]


def test_a_mixture_is_trained_on_as_it_was_drawn(tiny_llama: Path, write_rows: Write, tmp_path: Path) -> None:
    """Also by a run that was stopped, and counted as far as it went."""
    data = [(write_rows(sums(5), "a=b.jsonl"), 3.0), (write_rows(sums(9, 20), "web.jsonl"), 1.0)]
    whole = posttrain(tiny_llama, data, tmp_path / "whole", config=SFT)
    sources = read_sources(data, weighted=True)
    places = draw_places(sources, 20, SFT.seed)
    assert [one["drawn"] for one in whole["mix"]] == count_drawn(sources, places)
    assert [(Path(one["file"]).name, one["share"], one["rows"]) for one in whole["mix"]] == [
        ("a=b.jsonl", 0.75, 5),
        ("web.jsonl", 0.25, 9),
    ]
    # The untouched model's loss on the first rows drawn, a mean over their tokens.
    model = LanguageModel.load(tiny_llama)
    rows = all_rows(sources)
    batch = [model.encode(rows[place]) for place in places[:4]]
    tokens = [row.targets for row in batch]
    expected = sum(model.measure(batch).nll * tokens) / sum(tokens)
    assert whole["history"][0]["loss"] == pytest.approx(expected, rel=1e-5)

    def stop(name: str, step: int, steps: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        posttrain(tiny_llama, data, tmp_path / "out", config=SFT, progress=stop)
    assert posttrain(tiny_llama, data, tmp_path / "out", config=SFT) == whole
    other = [(data[0][0], 2.0), data[1]]
    with pytest.raises(InputError, match="differs in shares"):
        posttrain(tiny_llama, other, tmp_path / "out", config=SFT)


def test_prompts_of_a_mixture_are_rewarded_by_their_own_rows(
    tiny_llama: Path, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def check(completion: str, columns: Any) -> float:
        seen.append(columns["id"])
        return float(len(seen) % 2)

    monkeypatch.setattr(module, "load_verifier", lambda *_: check)
    config = PosttrainConfig("rl", steps=3, batch=4, samples=2, max_tokens=2, lora_rank=2, checkpoint_every=0)
    data = [(write_rows(sums(1), "a.jsonl"), 1.0), (write_rows(sums(4, 20), "b.jsonl"), 1.0)]
    result = posttrain(tiny_llama, data, tmp_path / "out", config=config, verifier="exact")
    sources = read_sources(data, weighted=False)
    ids = [all_rows(sources)[place].id for place in draw_places(sources, 6, config.seed)]
    assert Counter(seen) == Counter(ids * 2)
    assert [one["drawn"] for one in result["mix"]] == [ids.count("r0"), 6 - ids.count("r0")]


def close(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two runs took the same steps, but for rounding."""
    numbers = [
        [[e[name] for name in ("loss", "grad_norm")] for e in run["history"]] for run in (first, second)
    ]
    return np.allclose(numbers[0], numbers[1], rtol=2e-4, atol=0)


def test_a_row_of_weight_two_counts_like_two_rows(
    tiny_llama: Path, write_rows: Write, tmp_path: Path
) -> None:
    """And one of weight 0 like none, whatever the weights' scale; in batches of all rows."""

    def run(name: str, rows: Rows) -> dict[str, Any]:
        trained = sum(row.get("weight", 1) > 0 for row in rows)
        config = replace(SFT, batch=trained, steps=4, checkpoint_every=0)
        return posttrain(tiny_llama, write_rows(rows, f"{name}.jsonl"), tmp_path / name, config=config)

    four = sums(4)
    copied = run("copied", [*four, {**four[3], "id": "again"}])
    weighted = run("weighted", [{**row, "weight": w} for row, w in zip(four, (1, 1, 1, 2), strict=True)])
    assert close(copied, weighted)
    scaled = [{**row, "weight": w} for row, w in zip(four, (1e200, 1e200, 1e200, 2e200), strict=True)]
    assert close(run("scaled", scaled), weighted)
    plain = run("plain", four)
    assert not close(plain, weighted)
    same = run("same", [{**row, "weight": 3} for row in four])
    assert same["history"] == plain["history"]
    zero = run("zero", [*({**row, "weight": 0.5} for row in four), *sums(2, 50, weight=0)])
    assert zero["history"] == plain["history"]
    assert zero["rows"] == 4


def test_weights_are_relative_to_their_mean_over_the_tokens_drawn(write_rows: Write) -> None:
    heavy, plain = write_rows(sums(2, weight=4), "heavy.jsonl"), write_rows(sums(3, 10), "plain.jsonl")
    sources = read_sources([(heavy, 1.0), (plain, 1.0)], weighted=True)
    tokens, places = [2, 3, 1, 1, 5], [0, 0, 1, 4]
    factors = loss_weights(sources, tokens, places)
    assert factors is not None
    # Seven tokens of weight 4 and five of weight 1: 33 for 12 tokens.
    assert factors == pytest.approx(np.array([4, 4, 1, 1, 1]) * 12 / 33, rel=1e-14)
    assert sum(factors[i] * tokens[i] for i in places) == pytest.approx(12, rel=1e-14)
    assert loss_weights(sources[1:], tokens[2:], [0]) is None


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ("1" + "0" * 400, "line 2: weight 1000"),
        ("-1", "line 2: weight -1; allowed: a number >= 0"),
        ("NaN", "line 2: column weight has a number without a finite value"),
        ("1e999", "line 2: column weight has a number without a finite value"),
        ('"2"', "line 2: weight 2 as text; allowed: a number >= 0"),
        ("true", "line 2: weight True; allowed: a number >= 0"),
        ("null", "line 2: no weight; allowed: a number >= 0 as the weight of each row"),
    ],
)
def test_a_bad_weight_names_its_line(weight: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps(row)[:-1] for row in sums(3)]
    given = (f', "weight": {value}}}' for value in ("1", weight, "1"))
    path.write_text("\n".join(row + value for row, value in zip(rows, given, strict=True)))
    with pytest.raises(InputError, match=rf"^data: got .*{re.escape(said)}"):
        read_sources(path, weighted=True)


def test_weights_that_cannot_be_used_are_refused(write_rows: Write) -> None:
    texts = write_rows(sums(2, weight="high"), "texts.jsonl")
    with pytest.raises(InputError, match="line 1: weight high"):
        read_sources(texts, weighted=True)
    table = write_rows([], "weighed.csv")
    table.write_text("prompt,completion,sampling_weight\na,b,0.5\n")
    said = r"row 1: sampling_weight 0\.5 as text; .* \(a CSV file holds text alone: write JSON lines\)"
    with pytest.raises(InputError, match=said):
        read_sources(table, weighted=True)
    zero = write_rows(sums(2, weight=0), "zero.jsonl")
    with pytest.raises(InputError, match="weight is 0 in every row; allowed: a weight above 0 in some row"):
        read_sources(zero, weighted=True)
    with pytest.raises(InputError, match=r"mix: .*column weight; allowed: .* only the loss of stage sft"):
        read_sources([(zero, 1.0)], weighted=False)


@pytest.mark.parametrize("text", ["a.jsonl", "a.jsonl=", "a.jsonl=x", "a.jsonl=0", "a=-1", "a=nan", "=3"])
def test_a_bad_share_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=rf"^mix: got {re.escape(text)}; allowed: FILE=SHARE with a share"):
        parse_shares([text])
    assert parse_shares(["a=b.jsonl=3", "c=0.5"]) == [(Path("a=b.jsonl"), 3.0), (Path("c"), 0.5)]


def test_files_that_make_no_mixture_are_refused(tiny_llama: Path, write_rows: Write, tmp_path: Path) -> None:
    path = write_rows(sums(2), "a.jsonl")
    link = tmp_path / "b.jsonl"
    link.symlink_to(path)
    for data, said in (
        ([], "mix: got no file"),
        ([(path, 1.0), (path, 2.0)], "a.jsonl and .*a.jsonl; allowed: each file once"),
        ([(path, 1.0), (link, 2.0)], "a.jsonl and .*b.jsonl; allowed: each file once"),
        ([(path, -1.0)], "mix: got .*=-1.0; allowed: FILE=SHARE"),
        ([(path, 1.0), (tmp_path / "none.jsonl", 1.0)], "mix: got .*none.jsonl"),
    ):
        with pytest.raises(InputError, match=said):
            read_sources(data, weighted=True)
    empty = write_rows([{"prompt": "a", "completion": " "}], "empty.jsonl")
    with pytest.raises(InputError, match=r"mix: got .*empty.jsonl, line 1: empty completion"):
        posttrain(tiny_llama, [(path, 1.0), (empty, 1.0)], tmp_path / "out", config=SFT)
