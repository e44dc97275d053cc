"""Prompts for RL on the sea, and which of them a selector takes.

All forty families, on strings as long as those of pretraining and longer: with the families' own difficulty,
pass rates range from solved (known families, short strings) over all that lies between (rare families, eight
and nine letters) to hopeless (ten letters). Answers are deterministic, so that a prompt's pass rate is
known exactly: the probability exp(-NLL) of its answer. K samples of a prompt pass Binomial(K, p) times, which
is the law of K completions drawn at temperature 1 and judged; selectors see such counts, and pay for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from datadose.covariance import Array
from datadose.llm.scores import TABLE, Scores
from datadose.llm.selection.config import SelectionConfig, Size
from datadose.llm.selection.rl_set import choose_rl
from datadose.studies.insights.bands import BANDS, MEDIUM
from datadose.studies.levels.descent import row_losses
from datadose.studies.referee.base import VOCABULARY
from datadose.studies.referee.language import FAMILIES, LETTERS, RARE, example
from datadose.studies.token_study.language import Example, Split, draw_strings
from datadose.studies.token_study.model import encode

LENGTHS = tuple(range(3, 11))
"""Pretraining shows strings of three to eight letters."""
MOST = LENGTHS[-1] + 3
"""Tokens of a completion: the longest answer has a letter more than its string, and the end token."""


class Selector:
    """What chooses prompts; all but the first two read pass rates from K samples a prompt.

    ``medium`` draws from pass rates of 0.1 to 0.9, ``hardest`` takes the lowest pass rates,
    ``hardest-passed`` the lowest above 0. ``drop`` and ``signal`` are those of ``datadose select``: all
    prompts whose groups of 8 are more often mixed than not, and the given number with the largest expected
    p (1 - p).
    """

    UNFILTERED, RANDOM = "unfiltered", "random"
    MEDIUM, HARDEST, PASSED = "medium", "hardest", "hardest-passed"
    DROP, SIGNAL = "drop", "signal"


@dataclass(frozen=True)
class RlRun:
    """A run of RL; its fields are columns of the table.

    Args:
        selector: one of Selector.
        samples: K, completions of each prompt of the pool that the selector reads; 0 where it reads none.
        prompts: how many it takes; 0: as many as there are (unfiltered, drop).
        seed: of the pretrained model, the pool, the counts and the training.
    """

    selector: str
    samples: int
    prompts: int
    seed: int

    @property
    def name(self) -> str:
        """The arm in figures and notes."""
        shown = f"{self.selector}, K = {self.samples}" if self.samples else self.selector
        return f"{shown}, {self.prompts} prompts" if self.prompts else shown


def draw_pool(seed: Sequence[int], each: int, split: Split) -> list[Example]:
    """Prompts of all families and lengths: ``each`` of a known one's, four times as many of a rare one's."""
    counts = {header: 4 * each if header in RARE else each for header in FAMILIES}
    return draw_prompts(seed, counts, split)


def draw_prompts(
    seed: Sequence[int], counts: Mapping[str, int], split: Split, lengths: Sequence[int] = LENGTHS
) -> list[Example]:
    """The number of prompts that ``counts`` gives a family, at each length, with their answers.

    A family has no string twice at a length; wordings are drawn. Short strings come first, so that padding is
    short.
    """
    found = []
    for length in lengths:
        for header, count in counts.items():
            rng = np.random.default_rng([*seed, list(FAMILIES).index(header), length])
            texts = [*dict.fromkeys(draw_strings(rng, 2 * count + 8, split, length, LETTERS))][:count]
            found += [example(header, text, int(rng.integers(6))) for text in texts]
    return found


@torch.no_grad()
def pass_rates(model: Any, examples: Sequence[Example], chunk: int = 256) -> Array:
    """The exact probability that a completion of each prompt at temperature 1 is its answer, (N,)."""
    tokens, found = encode(examples, VOCABULARY), []
    for start in range(0, len(tokens), chunk):
        part = tokens.at(slice(start, start + chunk))
        losses, _ = row_losses(model(input_ids=part.inputs, use_cache=False).logits, part.labels)
        found.append(np.exp(-losses.double().numpy()))
    return np.concatenate(found)


def choose_prompts(rates: Array, run: RlRun) -> NDArray[np.int64]:
    """The prompts that the run's selector takes of a pool whose exact pass ``rates`` are (N,), ascending."""
    rng = np.random.default_rng([run.seed, 71])
    chance = rng.random(len(rates))
    if run.selector == Selector.UNFILTERED:
        return np.arange(len(rates))
    if run.selector == Selector.RANDOM:
        return np.sort(chance.argsort()[: run.prompts])
    passed = np.random.default_rng([run.seed, 72, run.samples]).binomial(run.samples, rates)
    if run.selector in (Selector.DROP, Selector.SIGNAL):
        return _by_signal(passed, run)
    share = passed / run.samples
    low, high = BANDS[MEDIUM]
    outside = np.maximum(low - share, 0) + np.maximum(share - high, 0)
    order = np.lexsort((chance, outside if run.selector == Selector.MEDIUM else share))
    if run.selector == Selector.PASSED:
        order = order[passed[order] > 0]
    return np.sort(order[: run.prompts])


def _by_signal(passed: NDArray[np.int64], run: RlRun) -> NDArray[np.int64]:
    """The RL set of ``datadose select`` for these counts."""
    table = pd.DataFrame(index=range(len(passed)), columns=[*TABLE])
    counts = {"question_hash": np.arange(len(passed)), "pass_rate_passed": passed}
    table = table.assign(
        **counts, pass_rate=passed / run.samples, pass_rate_total=run.samples, offset=0
    ).astype(TABLE)
    nothing = np.zeros((len(passed), 0), dtype=np.float32)
    size: Size = "auto" if run.selector == Selector.DROP else run.prompts
    config = SelectionConfig(sft_size=0, rl_size=size, seed=run.seed)
    return choose_rl(Scores(table, nothing, nothing, {}), np.zeros(0, dtype=np.int64), config).rows
