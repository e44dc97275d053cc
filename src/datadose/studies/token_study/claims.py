"""Claims on the token study, from token_study.csv: accuracy on test strings at rates chosen on validation.

Every comparison is a difference of accuracies over paired seeds (one seed: one pretrained model, its pool
and its draws) with a 95 percent Student interval; with three seeds these are wide, and a comparison whose
interval holds zero is *mixed*. A claim over several comparisons gives the share of them that hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.studies.ledger import CONFIDENCE, decide, judge_settings, judge_worst, mean_interval, seeds_of
from datadose.studies.study import Claim, Judgement, Saved, Verdict
from datadose.studies.token_study.experiment import TokenStudy
from datadose.studies.token_study.language import TEST, TRAIN, Split
from datadose.studies.token_study.pools import (
    ALL,
    CLEAN,
    CONTAMINATED,
    EASIEST,
    EASY,
    HARD,
    MEDIUM,
    MIDDLE,
    NLL,
    OURS,
    OURS_UNVERIFIED,
    RANDOM,
)  # fmt: skip
from datadose.studies.token_study.runs import (
    ABSENT,
    BALANCED,
    EQUAL_EPOCHS,
    EQUAL_STEPS,
    MIXTURES,
    RARE,
    RL,
    SFT,
    SFT_RL,
    Column,
    Metric,
    Panel,
)  # fmt: skip

_TEST = "tests/claims/test_token_study_claims.py"
_BASELINES = (RANDOM, EASIEST, NLL, MIDDLE)
Comparisons: TypeAlias = Mapping[str, Array]
"""Name -> differences by seed; the claim says that each is positive."""


def _accuracy(
    rows: pd.DataFrame,
    metric: str = Metric.TARGET,
    split: Split = TEST,
    *,
    model: str | None = None,
    arm: str | None = None,
    prompts: float | None = None,
    rate: float | None = None,
    share: float | None = None,
) -> pd.Series:
    """By seed, of the runs with these values (None: all); without a rate, at the chosen one."""
    found = (rows[Column.SPLIT] == split) & (rows[Column.METRIC] == metric) & rows[Column.LENGTH].isna()
    if rate is None:
        found &= rows[Column.CHOSEN]
    columns = (Column.MODEL, Column.ARM, Column.PROMPTS, Column.RATE, Column.SHARE)
    for column, value in zip(columns, (model, arm, prompts, rate, share), strict=True):
        if value is not None:
            found &= rows[column] == value
    return rows[found].set_index(Column.SEED)[Column.VALUE].sort_index()


def _of(table: pd.DataFrame, panel: str, pool: str | None = None) -> pd.DataFrame:
    """The rows of a panel, and of a pool."""
    rows = table[table[Column.PANEL] == panel]
    return rows if pool is None else rows[rows[Column.POOL] == pool]


def _untouched(table: pd.DataFrame) -> pd.Series:
    return _accuracy(_of(table, Panel.PRETRAINING), model=RARE)


def _gap(first: pd.Series, second: pd.Series) -> Array:
    return np.asarray((first - second).dropna(), dtype=np.float64)


def _judge(find: Callable[[pd.DataFrame], Comparisons]) -> Callable[[Saved[TokenStudy], float], Judgement]:
    """Judge that each difference is above 0; the note lists means and intervals."""

    def judge(saved: Saved[TokenStudy], threshold: float) -> Judgement:
        table = saved.table
        verdicts: dict[str, Verdict] = {}
        notes = []
        for name, values in find(table).items():
            mean, low, high = mean_interval(values)
            verdicts[name] = "holds" if low > 0 else "fails" if high <= 0 else "mixed"
            notes.append(f"{name} {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
        return judge_settings(verdicts, threshold, seeds_of(table), "; ".join(notes))

    return judge


def _pretraining(table: pd.DataFrame) -> Comparisons:
    rows = _of(table, Panel.PRETRAINING)
    T = {m: _accuracy(rows, model=m) for m in MIXTURES}
    return {
        "balanced over rare": _gap(T[BALANCED], T[RARE]),
        "rare over absent": _gap(T[RARE], T[ABSENT]),
    }


def _latent(table: pd.DataFrame) -> Comparisons:
    found = {}
    rows = table[(table[Column.PANEL] == Panel.ACTIVATION) & (table[Column.PROMPTS] > 0)]
    for B in sorted(rows[Column.PROMPTS].unique()):
        T = {m: _accuracy(rows, model=m, prompts=B) for m in MIXTURES}
        found[f"B={B} balanced over rare"] = _gap(T[BALANCED], T[RARE])
        found[f"B={B} rare over absent"] = _gap(T[RARE], T[ABSENT])
    return found


def _sizes(arm: str) -> Callable[[pd.DataFrame], Comparisons]:
    def find(table: pd.DataFrame) -> Comparisons:
        rows = table[(table[Column.PANEL] == Panel.SIZE) & (table[Column.ARM] == arm)]
        sizes = sorted(rows[Column.PROMPTS].unique())
        T = {B: _accuracy(rows, prompts=B) for B in sizes}
        return {f"B={b} over {a}": _gap(T[b], T[a]) for a, b in itertools.pairwise(sizes)}

    return find


def _small_harms(table: pd.DataFrame) -> Comparisons:
    rows = table[table[Column.PANEL] == Panel.SIZE]
    smallest = rows[Column.PROMPTS].min()
    return {
        str(arm): _gap(_untouched(table), _accuracy(rows, arm=arm, prompts=smallest))
        for arm in sorted(rows[Column.ARM].unique())
    }


def _forgetting_by_rate(table: pd.DataFrame) -> Comparisons:
    """What the learning rate moves at the largest B, less what B moves at the smallest rate."""
    rows = table[(table[Column.PANEL] == Panel.SIZE) & (table[Column.ARM] == EQUAL_STEPS)]
    rates, sizes = sorted(rows[Column.RATE].unique()), sorted(rows[Column.PROMPTS].unique())

    def known(B: int, rate: float) -> pd.Series:
        return _accuracy(rows, Metric.KNOWN, prompts=B, rate=rate)

    by_size = (known(sizes[0], rates[0]) - known(sizes[-1], rates[0])).abs()
    return {f"B={B}": _gap(known(B, rates[0]) - known(B, rates[-1]), by_size) for B in (sizes[0], sizes[-1])}


def _selection(pool: str, metrics: Sequence[str], arm: str = OURS) -> Callable[[pd.DataFrame], Comparisons]:
    def find(table: pd.DataFrame) -> Comparisons:
        rows = _of(table, Panel.SELECTORS, pool)
        return {
            f"{metric} over {other}": _gap(
                _accuracy(rows, metric, arm=arm), _accuracy(rows, metric, arm=other)
            )
            for metric in metrics
            for other in _BASELINES
        }

    return find


def _contaminants(arm: str, below: bool) -> Callable[[Saved[TokenStudy], float], Judgement]:
    def judge(saved: Saved[TokenStudy], threshold: float) -> Judgement:
        rows = _of(saved.table, Panel.SELECTORS, CONTAMINATED)
        share = _accuracy(rows, Metric.CONTAMINANTS, TRAIN, arm=arm)
        return judge_worst(np.asarray(share, dtype=np.float64), threshold, below=below)

    return judge


def _replay(table: pd.DataFrame) -> Comparisons:
    rows = _of(table, Panel.REPLAY)
    none, most = rows[Column.SHARE].min(), rows[Column.SHARE].max()
    return {
        str(pool): _gap(*(_accuracy(own, Metric.KNOWN, share=share) for share in (most, none)))
        for pool, own in rows.groupby(Column.POOL)
    }


def _sizes_of(rows: pd.DataFrame, band: str) -> list[float]:
    """The numbers of RL prompts that were drawn from a band."""
    return sorted(rows.loc[rows[Column.ARM] == band, Column.PROMPTS].unique())


def _medium(table: pd.DataFrame) -> Comparisons:
    rows = _of(table, Panel.RL)
    (size,) = _sizes_of(rows, MEDIUM)
    T = {band: _accuracy(rows, arm=band, prompts=size) for band in (EASY, MEDIUM, HARD)}
    return {f"over {band}": _gap(T[MEDIUM], T[band]) for band in (EASY, HARD)}


def _numbers(table: pd.DataFrame) -> Comparisons:
    rows = _of(table, Panel.RL)
    least, *_, most = _sizes_of(rows, ALL)
    few, many = (_accuracy(rows, arm=ALL, prompts=size) for size in (least, most))
    return {
        f"{most} over {least} prompts": _gap(many, few),
        f"untouched over {least} prompts": _gap(_untouched(table), few),
    }


def _unfiltered(saved: Saved[TokenStudy], threshold: float) -> Judgement:
    rows = _of(saved.table, Panel.RL)
    gap = _gap(*(_accuracy(rows, arm=band, prompts=_sizes_of(rows, band)[-1]) for band in (ALL, MEDIUM)))
    mean, low, high = mean_interval(gap)
    return Judgement(mean, (low, high), len(gap), decide(low, high, threshold, below=False))


def _stages(table: pd.DataFrame) -> Comparisons:
    rows = _of(table, Panel.STAGES)
    found = {}
    for B in sorted(size for size in rows[Column.PROMPTS].unique() if size):
        both = _accuracy(rows, arm=SFT_RL, prompts=B)
        found[f"B={B} over SFT"] = _gap(both, _accuracy(rows, arm=SFT, prompts=B))
        found[f"B={B} over RL"] = _gap(both, _accuracy(rows, arm=RL, prompts=0))
    return found


_SETTING = (
    "0.6M-parameter character Llama on five string families and sorting (T); post-training from the model "
    "that saw T rarely; test strings with unseen letter multisets (sizes of the preset)"
)
_SHARE = (
    f"share of comparisons above 0, each the mean difference in test accuracy over paired seeds with a "
    f"{CONFIDENCE:.0%} Student interval"
)


def _claim(
    name: str, paper: str, statement: str, where: str, judge: Callable[[pd.DataFrame], Comparisons]
) -> Claim:
    return Claim(
        f"token-{name}",
        paper,
        statement,
        f"{_SETTING}; {where}",
        _SHARE,
        1.0,
        _judge(judge),
        f"{_TEST}::test_comparisons_hold_fail_or_stay_mixed",
    )


CLAIMS = [
    _claim(
        "pretraining",
        "Sec 7",
        "Language model: the larger the share of T in pretraining, the better T.",
        "T absent, rare, or as frequent as the others",
        _pretraining,
    ),
    _claim(
        "latent",
        "Sec 7",
        "Language model: training one new symbol's embedding brings out what pretraining taught: more of T "
        "in the balanced model than in the rare one, and more there than where T is absent.",
        "every other weight frozen, each number of examples B",
        _latent,
    ),
    _claim(
        "sft-more-steps",
        "Insight 2 (contrast)",
        "Language model: at equal steps, more clean SFT examples of T are better at every B.",
        "fresh examples of T, each B against the one before",
        _sizes(EQUAL_STEPS),
    ),
    _claim(
        "sft-more-epochs",
        "Insight 2 (contrast)",
        "Language model: at equal epochs, more clean SFT examples of T are better at every B.",
        "fresh examples of T, each B against the one before",
        _sizes(EQUAL_EPOCHS),
    ),
    _claim(
        "sft-few",
        "ours",
        "Language model: SFT on the smallest set of T makes T worse than no SFT.",
        "smallest B, equal steps and equal epochs",
        _small_harms,
    ),
    _claim(
        "forgetting",
        "ours",
        "Language model: at equal steps, forgetting moves more with the learning rate than with B.",
        "loss of the known families from the smallest to the largest rate, less their change from the "
        "smallest to the largest B at the smallest rate",
        _forgetting_by_rate,
    ),
    _claim(
        "selection-clean",
        "Insight 1",
        "Language model: `select` beats random, easiest, raw-NLL and perplexity-band choice of as many rows "
        "on T, clean pool.",
        "pool of T and known families, all right",
        _selection(CLEAN, (Metric.TARGET,)),
    ),
    _claim(
        "selection-contaminated",
        "Insight 1",
        "Language model: `select` with a verifier beats the same choices on T, a quarter of the pool "
        "contaminated.",
        "pool with wrong answers on T and interfering rows",
        _selection(CONTAMINATED, (Metric.TARGET,)),
    ),
    _claim(
        "selection-keeps",
        "ours",
        "Language model: `select` with a verifier also keeps the known families better than the same "
        "choices, a quarter of the pool contaminated.",
        "pool with wrong answers on T and interfering rows, accuracy on the known families",
        _selection(CONTAMINATED, (Metric.KNOWN,)),
    ),
    _claim(
        "selection-unverified",
        "ours",
        "Language model: `select` without a verifier beats the same choices on T, a quarter of the pool "
        "contaminated.",
        "pool with wrong answers on T and interfering rows; rows' own completions are taken for right",
        _selection(CONTAMINATED, (Metric.TARGET,), OURS_UNVERIFIED),
    ),
    *(
        Claim(
            f"token-contaminants-{arm}",
            "ours",
            statement,
            f"{_SETTING}; contaminated pool",
            "share of contaminants among the chosen rows, worst seed",
            threshold,
            _contaminants(arm, below),
            f"{_TEST}::test_contaminants_are_judged_by_the_worst_seed",
        )
        for arm, below, threshold, statement in (
            (NLL, False, 0.9, "Language model: the rows with the largest raw NLL are contaminants."),
            (OURS, True, 0.05, "Language model: `select` with a verifier takes hardly any contaminant."),
            (
                OURS_UNVERIFIED,
                True,
                0.25,
                "Language model: without a verifier, `select` takes no larger share of contaminants than "
                "the pool has.",
            ),
        )
    ),
    _claim(
        "replay",
        "ours",
        "Language model: replaying the pretraining mixture in SFT keeps the known families better.",
        "largest share of replay against none, on T alone and on T with interfering rows",
        _replay,
    ),
    _claim(
        "rl-medium",
        "Finding 3",
        "Language model: GRPO on prompts of medium pass rate beats easy and hard ones.",
        "as many prompts of each band as there are, up to the same number",
        _medium,
    ),
    _claim(
        "rl-number",
        "Finding 3",
        "Language model: GRPO needs many prompts: the most beat the fewest, which fall below no RL.",
        "unfiltered prompts, equal steps",
        _numbers,
    ),
    Claim(
        "token-rl-unfiltered",
        "Finding 3",
        "Language model: GRPO on many unfiltered prompts does as well as on medium ones (to 0.02).",
        f"{_SETTING}; the largest unfiltered set against the medium band",
        f"difference in test accuracy over paired seeds, {CONFIDENCE:.0%} Student interval",
        -0.02,
        _unfiltered,
        f"{_TEST}::test_unfiltered_prompts_may_lose_a_little",
    ),
    _claim(
        "sft-then-rl",
        "ours",
        "Language model: SFT and then RL beats either alone at the same compute.",
        "each number of demonstrations; a sampled token counts 1, a trained one 3",
        _stages,
    ),
]
