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
from datadose.power import CONFIDENCE, mean_interval
from datadose.studies.ledger import decide, judge_settings, judge_worst, seeds_of
from datadose.studies.study import Claim, Judgement, Saved, Study, Verdict
from datadose.studies.token_study.experiment import NAME, TokenStudy
from datadose.studies.token_study.figure import draw_token_study
from datadose.studies.token_study.language import TEST, TRAIN, Split
from datadose.studies.token_study.pools import CLEAN, CONTAMINATED, Band, Selector
from datadose.studies.token_study.runs import MIXTURES, Arm, Column, Metric, Mixture, Panel, runs_of

_TEST = "tests/studies/token_study/test_claims.py"
_BASELINES = (Selector.RANDOM, Selector.EASIEST, Selector.NLL, Selector.MIDDLE)
Comparisons: TypeAlias = Mapping[str, Array]
"""Name -> differences by seed; the claim is that each is positive."""


def _accuracy(
    rows: pd.DataFrame, metric: str = Metric.TARGET, split: Split = TEST, *, any_rate: bool = False
) -> pd.Series:
    """By seed, at the chosen rate unless the rows are those of one rate."""
    found = (rows[Column.SPLIT] == split) & (rows[Column.METRIC] == metric) & rows[Column.LENGTH].isna()
    found &= any_rate | rows[Column.CHOSEN]
    return rows[found].set_index(Column.SEED)[Column.VALUE].sort_index()


def _untouched(table: pd.DataFrame) -> pd.Series:
    return _accuracy(runs_of(table, Panel.PRETRAINING, model=Mixture.RARE))


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


def _by_mixture(rows: pd.DataFrame, name: str = "") -> dict[str, Array]:
    absent, rare, balanced = (_accuracy(runs_of(rows, model=mixture)) for mixture in MIXTURES)
    return {f"{name}balanced over rare": _gap(balanced, rare), f"{name}rare over absent": _gap(rare, absent)}


def _pretraining(table: pd.DataFrame) -> Comparisons:
    return _by_mixture(runs_of(table, Panel.PRETRAINING))


def _latent(table: pd.DataFrame) -> Comparisons:
    found: dict[str, Array] = {}
    for B, rows in runs_of(table, Panel.ACTIVATION).groupby(Column.PROMPTS):
        if B:
            found |= _by_mixture(rows, f"B={B} ")
    return found


def _sizes(arm: str) -> Callable[[pd.DataFrame], Comparisons]:
    def find(table: pd.DataFrame) -> Comparisons:
        rows = runs_of(table, Panel.SIZE, arm=arm)
        sizes = sorted(rows[Column.PROMPTS].unique())
        T = {B: _accuracy(runs_of(rows, prompts=B)) for B in sizes}
        return {f"B={b} over {a}": _gap(T[b], T[a]) for a, b in itertools.pairwise(sizes)}

    return find


def _small_harms(table: pd.DataFrame) -> Comparisons:
    rows = runs_of(table, Panel.SIZE)
    smallest = rows[Column.PROMPTS].min()
    return {
        str(arm): _gap(_untouched(table), _accuracy(runs_of(rows, arm=arm, prompts=smallest)))
        for arm in sorted(rows[Column.ARM].unique())
    }


def _forgetting_by_rate(table: pd.DataFrame) -> Comparisons:
    """What the learning rate moves at the largest B, less what B moves at the smallest rate."""
    rows = runs_of(table, Panel.SIZE, arm=Arm.EQUAL_STEPS)
    rates, sizes = sorted(rows[Column.RATE].unique()), sorted(rows[Column.PROMPTS].unique())

    def known(B: int, rate: float) -> pd.Series:
        return _accuracy(runs_of(rows, prompts=B, rate=rate), Metric.KNOWN, any_rate=True)

    by_size = (known(sizes[0], rates[0]) - known(sizes[-1], rates[0])).abs()
    return {f"B={B}": _gap(known(B, rates[0]) - known(B, rates[-1]), by_size) for B in (sizes[0], sizes[-1])}


def _selection(
    pool: str, metrics: Sequence[str], arm: str = Selector.OURS
) -> Callable[[pd.DataFrame], Comparisons]:
    def find(table: pd.DataFrame) -> Comparisons:
        rows = runs_of(table, Panel.SELECTORS, pool=pool)
        return {
            f"{metric} over {other}": _gap(
                _accuracy(runs_of(rows, arm=arm), metric), _accuracy(runs_of(rows, arm=other), metric)
            )
            for metric in metrics
            for other in _BASELINES
        }

    return find


def _contaminants(arm: str, below: bool) -> Callable[[Saved[TokenStudy], float], Judgement]:
    def judge(saved: Saved[TokenStudy], threshold: float) -> Judgement:
        rows = runs_of(saved.table, Panel.SELECTORS, pool=CONTAMINATED)
        share = _accuracy(runs_of(rows, arm=arm), Metric.CONTAMINANTS, TRAIN)
        return judge_worst(np.asarray(share, dtype=np.float64), threshold, below=below)

    return judge


def _replay(table: pd.DataFrame) -> Comparisons:
    rows = runs_of(table, Panel.REPLAY)
    none, most = rows[Column.SHARE].min(), rows[Column.SHARE].max()
    return {
        str(pool): _gap(*(_accuracy(runs_of(own, share=share), Metric.KNOWN) for share in (most, none)))
        for pool, own in rows.groupby(Column.POOL)
    }


def _medium(table: pd.DataFrame) -> Comparisons:
    rows = runs_of(table, Panel.RL)
    T = {band: _accuracy(runs_of(rows, arm=band)) for band in (Band.EASY, Band.MEDIUM, Band.HARD)}
    return {f"over {band}": _gap(T[Band.MEDIUM], T[band]) for band in (Band.EASY, Band.HARD)}


def _numbers(table: pd.DataFrame) -> Comparisons:
    rows = runs_of(table, Panel.RL, arm=Band.ALL)
    least, *_, most = sorted(rows[Column.PROMPTS].unique())
    few, many = (_accuracy(runs_of(rows, prompts=size)) for size in (least, most))
    return {
        f"{most} over {least} prompts": _gap(many, few),
        f"untouched over {least} prompts": _gap(_untouched(table), few),
    }


def _unfiltered(saved: Saved[TokenStudy], threshold: float) -> Judgement:
    rows = runs_of(saved.table, Panel.RL)
    every = runs_of(rows, arm=Band.ALL)
    most = runs_of(every, prompts=every[Column.PROMPTS].max())
    gap = _gap(_accuracy(most), _accuracy(runs_of(rows, arm=Band.MEDIUM)))
    mean, low, high = mean_interval(gap)
    return Judgement(mean, (low, high), len(gap), decide(low, high, threshold, below=False))


def _stages(table: pd.DataFrame) -> Comparisons:
    rows = runs_of(table, Panel.STAGES)
    found = {}
    for B in sorted(size for size in rows[Column.PROMPTS].unique() if size):
        both = _accuracy(runs_of(rows, arm=Arm.SFT_RL, prompts=B))
        found[f"B={B} over SFT"] = _gap(both, _accuracy(runs_of(rows, arm=Arm.SFT, prompts=B)))
        found[f"B={B} over RL"] = _gap(both, _accuracy(runs_of(rows, arm=Arm.RL, prompts=0)))
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
        _sizes(Arm.EQUAL_STEPS),
    ),
    _claim(
        "sft-more-epochs",
        "Insight 2 (contrast)",
        "Language model: at equal epochs, more clean SFT examples of T are better at every B.",
        "fresh examples of T, each B against the one before",
        _sizes(Arm.EQUAL_EPOCHS),
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
        _selection(CONTAMINATED, (Metric.TARGET,), Selector.OURS_UNVERIFIED),
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
            (
                Selector.NLL,
                False,
                0.9,
                "Language model: the rows with the largest raw NLL are contaminants.",
            ),
            (
                Selector.OURS,
                True,
                0.05,
                "Language model: `select` with a verifier takes hardly any contaminant.",
            ),
            (
                Selector.OURS_UNVERIFIED,
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

STUDY = Study(
    name=NAME,
    title="The same questions, on a language model of our own",
    story=(
        "A character-level transformer meets a task never, rarely or as often as any other in pretraining. "
        "Each panel asks one of the theory's questions on tokens: what pretraining left latent, how many "
        "demonstrations and which, what replay keeps, which prompts for RL. Points are means over seeds, "
        "bars 95 percent intervals; forgetting is read on the tasks that the model knew."
    ),
    experiment=TokenStudy,
    draw=draw_token_study,
    claims=CLAIMS,
)
