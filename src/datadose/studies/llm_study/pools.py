"""Splits of the study, the pools of a seed, and which rows each arm trains on.

Test and validation rows are the same for all seeds; a seed has its own pool, target examples, reference
and faults. Nothing is shared between splits. A pool is scored once; the clean pool is the part of the
contaminated one without the faulty rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from datadose.files import whole_folder, write_jsonl
from datadose.llm.language_model import LanguageModel
from datadose.llm.score import score
from datadose.llm.score_config import ScoreConfig
from datadose.llm.scores import Scores, read_scores
from datadose.llm.selection import SelectionConfig, select
from datadose.llm.selection.config import FILTERS
from datadose.printing import muted
from datadose.studies.llm_study.tasks import LEVELS, draw_mixture, draw_rows, spoil

Row: TypeAlias = dict[str, Any]
Arm: TypeAlias = Literal[
    "ours",
    "ours_unverified",
    "ours_replay",
    "random",
    "random_target",
    "easiest",
    "nll_top",
    "nll_band",
    "all",
]
Band: TypeAlias = Literal["ours", "easy", "medium", "hard", "all"]
Contents: TypeAlias = Literal["clean", "contaminated"]
VERIFIER = "datadose.studies.llm_study.tasks:first_line"
MAX_TOKENS = 6
"""A sign, up to three digits and the line's end."""
REPLAY = 0.25
_PASS_RATES: dict[Band, tuple[float, float]] = {"easy": (0.5, 1.0), "medium": (0.2, 0.5), "hard": (0.0, 0.2)}
"""Of the samples drawn; ``hard`` without the prompts that never passed."""
_TEST, _VALIDATION, _REFERENCE, _POOL = 9001, 9002, 100, 1000
"""Seeds of the draws."""
_SCORED, _TARGET, _REFERENCES = "pool", "target", "reference"
"""The scored folders of a seed."""


@dataclass(frozen=True)
class Split:
    """Which levels are the target, what was there before, and how many rows of each there are."""

    target: tuple[str, ...]
    earlier: tuple[str, ...]
    pool: tuple[tuple[str, int], ...]
    """Levels of the clean pool and their rows."""
    spoiled: int
    """Faulty rows on questions of the target, half with a wrong number, half worded; 0 for none."""
    target_rows: int
    reference_rows: int
    test_rows: int
    """Per level of the target."""
    earlier_rows: int
    """Test rows per earlier level, of which there are few distinct ones; validation has half of either."""
    samples: int
    """Completions drawn for the pass rate of a pool row."""


@dataclass(frozen=True)
class Held:
    """Rows that only measure."""

    test: dict[str, list[Row]]
    validation: dict[str, list[Row]]

    @property
    def prompts(self) -> set[str]:
        """The questions that no other split may have."""
        return {
            row["prompt"] for split in (self.test, self.validation) for rows in split.values() for row in rows
        }


@cache
def held_out(split: Split) -> Held:
    """Test and validation rows by level: target, then earlier."""
    counts = {
        **dict.fromkeys(split.target, split.test_rows),
        **dict.fromkeys(split.earlier, split.earlier_rows),
    }
    test = {level: draw_rows(level, count, _TEST) for level, count in counts.items()}
    taken = {row["prompt"] for rows in test.values() for row in rows}
    validation = {
        level: draw_rows(level, max(count // 2, 2), _VALIDATION, taken) for level, count in counts.items()
    }
    return Held(test, validation)


def profile_rows(count: int) -> dict[str, list[Row]]:
    """``count`` rows of every level."""
    return {level: draw_rows(level, count, _TEST) for level in LEVELS}


def score_seed(base: Path, split: Split, seed: int, *, file: Path) -> None:
    """Cell: pool, target and reference of a seed, scored, in a folder; continues where it stopped."""
    taken = held_out(split).prompts
    target = draw_mixture(dict.fromkeys(split.target, split.target_rows), _REFERENCE + seed, taken)
    reference = draw_mixture(dict.fromkeys(split.earlier, split.reference_rows), _REFERENCE + seed, taken)
    taken |= {row["prompt"] for row in target + reference}
    half = -(-split.spoiled // len(split.target))
    counts = dict(split.pool)
    for level in split.target:
        counts[level] = counts.get(level, 0) + half
    drawn = draw_mixture(counts, _POOL + seed, taken)
    clean, faulty = _divide(drawn, dict(split.pool))
    pool = clean + spoil(faulty, ("format", "wrong"), seed)
    # Samples in bfloat16 at a third of the time; losses are ranks and filters here.
    model = LanguageModel.load(base, dtype="bfloat16")
    files = ((_SCORED, pool, split.samples), (_TARGET, target, 0), (_REFERENCES, reference, 0))
    with whole_folder(file) as where, muted():
        for name, rows, samples in files:
            path, out = where / f"{name}.jsonl", where / name
            write_jsonl(path, rows)
            config = ScoreConfig(samples=samples, max_tokens=MAX_TOKENS, seed=seed)
            score(model, path, out, config=config, verifier=VERIFIER)


def _divide(rows: list[Row], wanted: Mapping[str, int]) -> tuple[list[Row], list[Row]]:
    """The first rows of each level, as many as requested, and the others."""
    first: list[Row] = []
    rest: list[Row] = []
    left = dict(wanted)
    for row in rows:
        left[row["level"]] = left.get(row["level"], 0) - 1
        (first if left[row["level"]] >= 0 else rest).append(row)
    return first, rest


def pool_of(where: Path, contents: Contents) -> tuple[Scores, list[Row]]:
    """The scored pool and its full rows."""
    scores = read_scores(where / _SCORED)
    rows = scores.lines(range(len(scores.table)))
    if contents == "contaminated":
        return scores, rows
    keep = np.flatnonzero([row["kind"] == "clean" for row in rows])
    return scores.part(keep), [rows[i] for i in keep]


def choose_sft(where: Path, contents: Contents, arm: Arm, size: int, split: Split, seed: int) -> list[Row]:
    """The ``size`` rows that ``arm`` takes from the pool (``all`` takes all)."""
    scores, rows = pool_of(where, contents)
    if arm in ("ours", "ours_unverified", "ours_replay"):
        return _choose_ours(where, scores, arm, size, seed)
    draw = np.random.default_rng([seed, 2])
    nll = scores.table["nll"].to_numpy(dtype=np.float64)
    order = np.argsort(nll, kind="stable")
    if arm == "easiest":
        places = order[:size]
    elif arm == "nll_top":
        places = order[-size:]
    elif arm == "all":
        places = order
    else:
        among = order
        if arm == "nll_band":
            among = order[len(order) // 4 : max(3 * len(order) // 4, len(order) // 4 + size)]
        elif arm == "random_target":
            among = np.flatnonzero([row["level"] in split.target for row in rows])
        places = draw.choice(among, min(size, len(among)), replace=False)
    return [rows[i] for i in np.sort(places)]


def _choose_ours(where: Path, scores: Scores, arm: Arm, size: int, seed: int) -> list[Row]:
    if arm == "ours_unverified":
        scores = replace(scores, table=_without_verdicts(scores))
    reference = read_scores(where / _REFERENCES)
    share = REPLAY if arm == "ours_replay" else 0.0
    own = round(size * (1 - share))
    config = SelectionConfig(method=FILTERS, sft_size=own, rl_size=0, replay=share, seed=seed)
    chosen = select(scores, read_scores(where / _TARGET), reference=reference, config=config)
    return scores.lines(chosen.sft) + reference.lines(chosen.replay)


def _without_verdicts(scores: Scores) -> pd.DataFrame:
    """The table of a user without a verifier: nothing marks what is right, only that an answer differs."""
    rows = scores.lines(range(len(scores.table)))
    differs = [row["own_completion"].strip() != row["completion"].strip() for row in rows]
    rates = [name for name in scores.table if name.startswith("pass_rate")]
    return scores.table.assign(label_passes=None, own_differs=differs, **dict.fromkeys(rates))


def choose_rl(where: Path, band: Band, size: int, seed: int) -> list[Row]:
    """RL prompts among the sums of the clean pool: ``size`` of a pass-rate band, or all that ours keeps."""
    scores, rows = pool_of(where, "clean")
    sums = np.flatnonzero([row["level"].startswith("sum") for row in rows])
    scores, rows = scores.part(sums), [rows[i] for i in sums]
    if band == "ours":
        return scores.lines(select(scores, config=SelectionConfig(sft_size=0, seed=seed)).rl)
    rate = scores.table["pass_rate"].to_numpy(dtype=np.float64)
    low, high = _PASS_RATES.get(band, (-1.0, 1.0))
    inside = np.flatnonzero((rate >= low) & (rate < high if high < 1 else rate <= high))
    if band == "hard":
        inside = inside[rate[inside] > 0]
    places = np.random.default_rng([seed, 3]).choice(inside, min(size, len(inside)), replace=False)
    return [rows[i] for i in np.sort(places)]
