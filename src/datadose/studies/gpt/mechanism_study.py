"""What the weights do along post-training, the study: what is claimed of the GPT's mechanism and paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy import stats

from datadose.covariance import Array
from datadose.power import CONFIDENCE, mean_interval
from datadose.studies.gpt.first_thought import FITS, OWN, RIDGE, TESTS
from datadose.studies.gpt.mechanism import NAME, Column, Mechanism
from datadose.studies.gpt.mechanism_figure import draw
from datadose.studies.gpt.mechanism_verdicts import (
    ERRORS,
    FLAT,
    SLOPES,
    StagePath,
    arm_name,
    clocks,
    paths,
    turns,
    way_of,
    way_of_linear,
)
from datadose.studies.gpt.runs import COMMON, PHI, PRETRAINING, RARE, TARGET, W, of
from datadose.studies.ledger import both, decide, finite_mean, is_more, judge_deviation, judge_settings
from datadose.studies.study import Claim, Judgement, Saved, Study, Verdict
from datadose.studies.tables import LSA, THEORY

_TESTS = dict(zip(TESTS, ("the target", "Sigma0"), strict=True))
_ALL = 1.0
"""The share of cases in which a claim is to hold."""


def _models(saved: Saved[Mechanism]) -> Iterator[tuple[str, StagePath, int]]:
    """(name, path, look) of each model: the untouched ones, then every path's last."""
    seen = set()
    for path in paths(saved.table, saved.config):
        if path.pretrain_steps not in seen:
            seen.add(path.pretrain_steps)
            yield f"untouched, pretrained {path.pretrain_steps:,}", path, 0
        yield path.name, path, -1


def _judge_fits(saved: Saved[Mechanism], threshold: float, *, shares: bool) -> Judgement:
    """R^2 of a map for each X; with ``shares`` that on S w* over it. Of both tests of all models."""
    verdicts: dict[str, Verdict] = {}
    told: dict[str, list[float]] = {name: [] for name in FITS}
    untouched = []
    for model, path, look in _models(saved):
        for test in TESTS:
            fits = {x: path.of_gpt(of(test, "", "fit", x))[:, look] for x in FITS}
            values = fits[PHI] / fits[OWN] if shares else fits[OWN]
            _, low, high = mean_interval(values)
            # A share of nothing is no number: own is an estimate, which may be below zero.
            known = np.isfinite(values).all() and not (shares and (fits[OWN] <= 0).any())
            name = f"{model} on {_TESTS[test]}"
            verdicts[name] = decide(low, high, threshold, below=False) if known else "mixed"
            means = {x: finite_mean(values) for x, values in fits.items()}
            for x, mean in means.items():
                told[x].append(mean)
            if look == 0:
                untouched.append(f"{name}: {_fits(means)}")
    whole = _fits({x: float(np.nanmedian(values)) for x, values in told.items()})
    note = f"{'; '.join(untouched)}; medians over models and tests: {whole}"
    return judge_settings(verdicts, _ALL, saved.config.seeds, note)


def _fits(means: dict[str, float]) -> str:
    names = {OWN: "a map for each X", PHI: "S w*", W: "w*", RIDGE: "ridge"}
    return "R2 " + ", ".join(f"{names[x]} {value:.3f}" for x, value in means.items())


def _judge_linear(saved: Saved[Mechanism], threshold: float) -> Judgement:
    return _judge_fits(saved, threshold, shares=False)


def _judge_one_operator(saved: Saved[Mechanism], threshold: float) -> Judgement:
    return _judge_fits(saved, threshold, shares=True)


def _judge_delta(saved: Saved[Mechanism], threshold: float) -> Judgement:
    """On prompts of Delta: does rare fall, and do common directions and Sigma0 rise?

    Outcome supervision of one thought has another goal than pretraining (w* at once), so that all errors fall
    at first; it is left out.
    """
    clock = clocks(saved.table, saved.config)
    verdicts: dict[str, Verdict] = {}
    notes = []
    for path in paths(saved.table, saved.config):
        if path.variant != "delta" or not path.arm.keeps_goal:
            continue
        rare, common, kept = (path.changes(x) for x in (of(TARGET, RARE), of(TARGET, COMMON), PRETRAINING))
        verdicts[path.name] = both(is_more(-rare), is_more(common), is_more(kept))
        notes.append(f"{path.name}: {_ratios(path, clock[path.pretrain_steps, path.arm])}")
    return judge_settings(verdicts, threshold, saved.config.seeds, "; ".join(notes))


def _ratios(path: StagePath, clock: float) -> str:
    """Errors after over before, of the GPT and in parentheses of the linear model."""
    told = []
    for column, name in ERRORS.items():
        linear = path.matched(column, clock)
        told.append(f"{name} {np.exp(path.changes(column).mean()):.2f} ({linear[-1] / linear[0]:.2f})")
    return "after/before " + ", ".join(told)


def _judge_directions(saved: Saved[Mechanism], threshold: float) -> Judgement:
    """Of every path and error: does it fall, rise or stay as the linear model's does?"""
    clock = clocks(saved.table, saved.config)
    verdicts: dict[str, Verdict] = {}
    pairs: Counter[str] = Counter()
    for path in paths(saved.table, saved.config):
        for column, name in ERRORS.items():
            ours = way_of(path.changes(column))
            theirs = way_of_linear(path, column, clock[path.pretrain_steps, path.arm])
            case = f"{path.name}: {name}"
            verdicts[case] = "mixed" if ours == "open" else "holds" if ours == theirs else "fails"
            pairs[f"{name} {ours} where the linear model's {theirs}"] += 1
    note = ", ".join(f"{number} times {pair}" for pair, number in sorted(pairs.items()))
    held = Counter(verdicts.values())
    note = f"{held['holds']} of {len(verdicts)} alike, {held['fails']} not: {note}"
    # The cases by name would fill a page: the pairs show them.
    return replace(judge_settings(verdicts, threshold, saved.config.seeds), note=note)


def _judge_keeps(saved: Saved[Mechanism], threshold: float) -> Judgement:
    """On prompts of the target: does the error on Sigma0 grow more than the linear model's?"""
    clock = clocks(saved.table, saved.config)
    verdicts: dict[str, Verdict] = {}
    notes = []
    for path in paths(saved.table, saved.config):
        if path.variant != "target":
            continue
        linear = path.matched(PRETRAINING, clock[path.pretrain_steps, path.arm])
        excess = path.changes(PRETRAINING) - max(np.log(linear[-1] / linear[0]), 0.0)
        _, low, high = mean_interval(excess)
        verdicts[path.name] = decide(low, high, threshold)
        notes.append(f"{path.name}: {_ratios(path, clock[path.pretrain_steps, path.arm])}")
    return judge_settings(verdicts, _ALL, saved.config.seeds, "; ".join(notes))


def _judge_clock(saved: Saved[Mechanism], threshold: float) -> Judgement:
    """Rank correlation along the path of each curve that moves with the linear model's at matched times."""
    clock = clocks(saved.table, saved.config)
    verdicts: dict[str, Verdict] = {}
    ranks: dict[str, list[float]] = {}
    turned: Counter[str] = Counter()
    names = {**ERRORS, **{column: f"{group} slope" for group, column in SLOPES.items()}}
    for path in paths(saved.table, saved.config):
        for column, name in names.items():
            ours = path.of_gpt(column)
            theirs = path.matched(column, clock[path.pretrain_steps, path.arm])
            if column == TARGET:
                turned[f"GPT {turns(ours.mean(axis=0))}, linear {turns(theirs)}"] += 1
            if np.ptp(theirs) <= FLAT * abs(theirs[0]):
                continue
            rho = np.array([_rank_correlation(values, theirs) for values in ours])
            _, low, high = mean_interval(rho)
            verdicts[f"{path.name}: {name}"] = decide(low, high, threshold, below=False)
            ranks.setdefault(name, []).append(float(rho.mean()))
    if not verdicts:
        return Judgement(None, None, saved.config.seeds, "mixed", "nothing to judge: no linear path moves")
    medians = ", ".join(f"{name} {np.median(values):.2f}" for name, values in ranks.items())
    rates = ", ".join(f"{arm_name(arm)} after {T:,}: {a:.3g}" for (T, arm), a in clock.items())
    turning = ", ".join(f"{pair}: {number}" for pair, number in sorted(turned.items()))
    note = (
        f"medians over paths: {medians}; times by step: {rates}; whether the error on the target turns on "
        f"the way: {turning}"
    )
    return replace(judge_settings(verdicts, _ALL, saved.config.seeds), note=note)


def _rank_correlation(ours: Array, theirs: Array) -> float:
    """Spearman's; 0 where the GPT was lost or does not move at all."""
    if not np.isfinite(ours).all() or np.ptp(ours) == 0:
        return 0.0
    return float(stats.spearmanr(ours, theirs).statistic)


def _judge_twin(saved: Saved[Mechanism], threshold: float) -> Judgement:
    """The theory against the linear transformer with the most prompts: slopes and errors along the way."""
    table, B = saved.table, max(saved.config.prompts)
    rows = table[table[Column.PROMPTS] == B]
    keys = [Column.PANEL, Column.OPTIMISER_STEPS]
    columns = [*ERRORS, *SLOPES.values()]
    exact = rows[rows[Column.MODEL] == THEORY].groupby(keys)[columns].mean()
    runs = rows[rows[Column.MODEL] == LSA].groupby(keys)[columns]
    mean, sem = (frame.loc[exact.index].to_numpy() for frame in (runs.mean(), runs.sem()))
    values = exact.to_numpy()
    worst = {name: float(np.nanmax(np.abs(mean / values - 1)[:, i])) for i, name in enumerate(columns)}
    note = "largest by curve: " + ", ".join(f"{name} {x:.3f}" for name, x in worst.items())
    gaps, errors = (mean / values - 1).ravel(), np.abs(sem / values).ravel()
    return judge_deviation(gaps, errors, saved.config.lsa_seeds, threshold, note)


_SETTING = (
    "tiny GPT, d=5, eta .5, n=8; SFT (k = 3) and OS (k = 1, 3) on prompts of Delta and of Sigma0+Delta, few "
    "and many; linear model by exact theory (OS with k = 3: by gradient descent), its time fitted once an arm"
)
_TEST = "tests/studies/gpt/test_mechanism.py"
_SEEDS = f"{CONFIDENCE:.0%} interval over seeds, in all cases"

CLAIMS = [
    Claim(
        f"{NAME}-linear",
        "Fig 3 (ours)",
        "GPT-2: at fixed inputs the first thought is linear in w*, before and after post-training.",
        f"{_SETTING}; held-out prompts of the target and of Sigma0",
        f"R2 of a linear map of its own for each X, corrected for its numbers; {_SEEDS}",
        0.9,
        _judge_linear,
        f"{_TEST}::test_linearity_is_judged_in_all_models",
    ),
    Claim(
        f"{NAME}-one-operator",
        "Fig 3 (ours)",
        "GPT-2: one operator V makes the first thought, -V S w*, whatever the inputs: the linear mechanism.",
        f"{_SETTING}; held-out prompts of the target and of Sigma0",
        f"R2 of one matrix on S w* over that of a map of its own for each X; {_SEEDS}",
        0.9,
        _judge_one_operator,
        f"{_TEST}::test_one_operator_is_told_from_a_map_for_each_input",
    ),
    Claim(
        f"{NAME}-delta",
        "Fig 3 (ours)",
        "GPT-2: on prompts of Delta the error falls on rare directions, and rises on common ones and on "
        "Sigma0.",
        _SETTING,
        f"log ratios of errors after and before; {_SEEDS}",
        _ALL,
        _judge_delta,
        f"{_TEST}::test_all_three_signs_are_needed_on_delta",
    ),
    Claim(
        f"{NAME}-directions",
        "Fig 3 (ours)",
        "GPT-2: each error (target, its rare and common directions, Sigma0) falls, rises or stays as the "
        "linear theory has it.",
        _SETTING,
        f"log ratio of errors after and before, below {FLAT:g} no change; {_SEEDS}",
        _ALL,
        _judge_directions,
        f"{_TEST}::test_directions_are_compared_curve_by_curve",
    ),
    Claim(
        f"{NAME}-keeps",
        "Fig 3 (ours)",
        "GPT-2: on prompts of the target nothing is forgotten beyond what the linear theory forgets.",
        _SETTING,
        f"log ratio of errors on Sigma0 after and before, less the linear model's rise; {_SEEDS}",
        FLAT,
        _judge_keeps,
        f"{_TEST}::test_forgetting_is_held_against_the_linear_models",
    ),
    Claim(
        f"{NAME}-clock",
        "Fig 3 (ours)",
        "GPT-2: with one clock an arm, errors and slopes run along the linear theory's.",
        f"{_SETTING}; curves that move in the theory",
        f"Spearman's rank correlation over the looks; {_SEEDS}",
        0.8,
        _judge_clock,
        f"{_TEST}::test_the_clock_is_fitted_once_and_the_rest_is_predicted",
    ),
    Claim(
        f"{NAME}-twin",
        "Fig 3 (ours)",
        "The theory of training time holds for the linear transformer on these prompts, at d = 5.",
        f"{_SETTING}; the most prompts, all looks of the arms that the theory covers",
        "largest relative deviation of mean slopes and errors (95% interval over all at once)",
        0.1,
        _judge_twin,
        f"{_TEST}::test_theory_is_the_linear_transformers_path",
    ),
]

STUDY = Study(
    name=NAME,
    title="What do the weights do along post-training?",
    story=(
        "Each column is a stage on one kind of data, with time from left to right: the GPT beside the linear "
        "model at matched times. Read the errors for what is gained and forgotten on the way, and the lowest "
        "row for whether one operator on S w*, the linear mechanism, makes the thought."
    ),
    experiment=Mechanism,
    draw=draw,
    claims=CLAIMS,
)
