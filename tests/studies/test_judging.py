"""From numbers to verdicts: what an interval, a share or a difference decides, and how often it errs."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.power import mean_interval
from datadose.studies.ledger import (
    decide,
    judge_deviation,
    judge_difference,
    judge_mean,
    judge_settings,
    judge_share,
    judge_worst,
    none_of,
)
from datadose.studies.study import Judgement, Verdict


@pytest.mark.parametrize(
    ("low", "high", "below", "verdict"),
    [
        (0.0, 0.5, True, "holds"),
        (0.0, 1.0, True, "holds"),  # a tie keeps `<=`
        (1.0, 1.0, True, "holds"),
        (1.0, 1.5, True, "mixed"),
        (0.5, 1.5, True, "mixed"),
        (1.1, 1.5, True, "fails"),
        (-np.inf, np.inf, True, "mixed"),
        (np.nan, np.nan, True, "mixed"),
        (1.5, 2.0, False, "holds"),
        (1.0, 2.0, False, "holds"),  # a tie keeps `>=`
        (0.5, 1.0, False, "mixed"),
        (0.5, 1.5, False, "mixed"),
        (0.5, 0.9, False, "fails"),
        (-np.inf, np.inf, False, "mixed"),
    ],
)
def test_decide_compares_an_interval_with_1(low: float, high: float, below: bool, verdict: Verdict) -> None:
    assert decide(low, high, 1.0, below=below) == verdict


def test_mean_interval_of_known_numbers() -> None:
    """Mean 2, standard deviation 1, three seeds: half width 4.302653 / sqrt(3)."""
    mean, low, high = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2.0
    assert high - mean == pytest.approx(4.302652729749464 / 3**0.5, rel=1e-12)
    assert mean - low == pytest.approx(high - mean, rel=1e-12)


def test_one_seed_decides_nothing() -> None:
    judgement = judge_mean(np.array([0.1]), 1.0)
    assert judgement.value == 0.1
    assert judgement.interval == (-np.inf, np.inf)
    assert judgement.verdict == "mixed"
    assert judgement.seeds == 1


def test_judge_mean_in_both_directions() -> None:
    values = np.array([0.9, 1.0, 1.1, 1.0])
    for threshold, below, above in (
        (2.0, "holds", "fails"),
        (0.5, "fails", "holds"),
        (1.01, "mixed", "mixed"),
    ):
        assert judge_mean(values, threshold).verdict == below
        assert judge_mean(values, threshold, below=False).verdict == above
    judgement = judge_mean(values, 2.0, note="why")
    assert judgement.value == pytest.approx(1.0)
    assert judgement.seeds == 4
    assert judgement.note == "why"


def test_judge_worst_asks_every_seed() -> None:
    values = np.array([1e-3, 2e-3, 5e-2])
    assert judge_worst(values, 5e-2) == Judgement(5e-2, (1e-3, 5e-2), 3, "holds")
    assert judge_worst(values, 4e-2).verdict == "fails"
    assert judge_worst(values, 1e-3, below=False) == Judgement(1e-3, (1e-3, 5e-2), 3, "holds")
    assert judge_worst(values, 2e-3, below=False).verdict == "fails"


@pytest.mark.parametrize(
    ("verdicts", "threshold", "verdict", "interval"),
    [
        (["holds"] * 4, 1.0, "holds", (1.0, 1.0)),
        (["holds"] * 3 + ["fails"], 1.0, "mixed", (0.75, 0.75)),
        (["holds"] * 3 + ["fails"], 0.75, "holds", (0.75, 0.75)),
        (["holds"] * 3 + ["mixed"], 1.0, "mixed", (0.75, 1.0)),
        (["fails"] * 4, 1.0, "fails", (0.0, 0.0)),
        (["fails"] * 3 + ["mixed"], 1.0, "mixed", (0.0, 0.25)),
        (["mixed"] * 2, 1.0, "mixed", (0.0, 1.0)),
        (["no difference"] * 3, 1.0, "no difference", (0.0, 1.0)),
        (["holds", "no difference"], 1.0, "mixed", (0.5, 1.0)),
    ],
)
def test_judge_settings_is_a_share(
    verdicts: list[Verdict], threshold: float, verdict: Verdict, interval: tuple[float, float]
) -> None:
    named = {f"setting{index}": v for index, v in enumerate(verdicts)}
    judgement = judge_settings(named, threshold, 5)
    assert judgement.verdict == verdict
    assert judgement.interval == pytest.approx(interval)
    assert judgement.value == interval[0]
    assert judgement.seeds == 5


@pytest.mark.parametrize(
    ("mean", "spread", "below", "verdict"),
    [
        (-0.10, 0.01, True, "holds"),
        (-0.10, 0.01, False, "fails"),
        (0.10, 0.01, True, "fails"),
        (0.10, 0.01, False, "holds"),
        (0.00, 0.01, True, "no difference"),
        # A difference that is surely there, and surely smaller than the one that matters.
        (-0.02, 0.01, True, "no difference"),
        # Neither zero nor a difference that matters is excluded: too few draws for either.
        (-0.02, 0.80, True, "mixed"),
        (-0.05, 0.01, True, "holds"),
    ],
)
def test_no_difference_needs_an_interval_within_the_detectable_one(
    mean: float, spread: float, *, below: bool, verdict: str
) -> None:
    steps = np.linspace(-1, 1, 50)
    judgement = judge_difference(mean + spread * steps, 0.05, below=below, note="more")
    assert judgement.verdict == verdict
    assert judgement.value == pytest.approx(mean)
    assert ("0.05 either way is excluded" in judgement.note) == (verdict == "no difference")
    assert judgement.note.endswith("; more")


def test_a_detectable_difference_is_above_zero() -> None:
    with pytest.raises(InputError, match="detectable"):
        judge_difference(np.zeros(5), 0.0)


@pytest.mark.parametrize("size", [6, 60, 600])
def test_the_share_of_exceptions_that_would_be_seen_is_seen_with_probability_95_percent(size: int) -> None:
    share = float(none_of(size).split(" percent")[0].split()[-1]) / 100
    # The share is told with two digits.
    assert 1 - (1 - share) ** size == pytest.approx(0.95, abs=0.01)


def test_a_share_has_its_exact_interval_and_says_what_it_could_tell() -> None:
    none = judge_share(np.zeros(200, bool), 0.5)
    assert none.verdict == "fails"
    assert none.interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 200)))
    assert judge_share(np.ones(200, bool), 0.5).verdict == "holds"
    assert judge_share(np.arange(200) < 100, 0.5).verdict == "mixed"
    assert judge_share(np.zeros(200, bool), 0.05, below=True).verdict == "holds"
    assert judge_share(np.ones(200, bool), 0.05, below=True).verdict == "fails"
    few = judge_share(np.ones(10, bool), 0.95)
    assert few.verdict == "mixed"
    assert "so few draws" in few.note


@pytest.mark.parametrize(("size", "threshold"), [(60, 0.5), (200, 0.5), (200, 0.9)])
def test_the_share_that_a_judgement_says_it_could_tell_is_told_nine_times_in_ten(
    size: int, threshold: float
) -> None:
    """4,000 repetitions at the stated share and at the threshold; a false alarm at a rate of .001 each."""
    note = judge_share(np.ones(size, bool), threshold).note
    share = float(note.split("at least ")[1].split(" is told")[0])
    rng = np.random.default_rng(3)

    def told(at: float) -> float:
        counts = rng.binomial(size, at, 4000)
        verdicts = {k: judge_share(np.arange(size) < k, threshold).verdict for k in set(counts.tolist())}
        return float(np.mean([verdicts[int(k)] == "holds" for k in counts]))

    assert told(share) >= 0.9 - 3.1 * (0.09 / 4000) ** 0.5
    assert told(threshold) <= 0.025 + 3.1 * (0.025 * 0.975 / 4000) ** 0.5


def test_judge_settings_names_where_the_claim_is_lost() -> None:
    note = judge_settings({"n=40": "holds", "n=80": "fails", "n=120": "mixed"}, 1.0, 5, "more").note
    assert "n=80 fails" in note
    assert "n=120 mixed" in note
    assert "n=40" not in note
    assert note.endswith("more")
    assert judge_settings({"n=40": "holds"}, 1.0, 5).note == ""


def test_judge_deviation_in_both_directions() -> None:
    """Signs do not matter; the worst setting decides; large standard errors leave it open."""
    deviation = np.array([0.01, -0.03, 0.0])
    exact, rough = np.full(3, 1e-5), np.full(3, 0.1)
    assert judge_deviation(deviation, exact, 10, 0.05).verdict == "holds"
    assert judge_deviation(deviation, exact, 10, 0.02).verdict == "fails"
    assert judge_deviation(deviation, rough, 10, 0.05).verdict == "mixed"
    judgement = judge_deviation(deviation, exact, 10, 0.05, "where")
    assert judgement.value == pytest.approx(0.03)
    assert judgement.interval == pytest.approx((0.03, 0.03), abs=1e-3)
    assert (judgement.seeds, judgement.note) == (10, "where")
    low, high = judge_deviation(deviation, rough, 10, 0.05).interval or (None, None)
    assert low == 0.0
    assert high is not None
    assert high > 0.2


# --- coverage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [2, 5, 20])
def test_mean_interval_covers_the_mean_95_times_in_100(seeds: int) -> None:
    """20,000 Gaussian samples: 0.95 +- 4.5 binomial standard errors.

    The interval is exact for Gaussian values, so the count is Binomial(20000, 0.95) and a right interval
    fails this with probability 7e-6 (normal tail at 4.5, two sides; the seed is fixed).
    """
    repeats = 20_000
    values = np.random.default_rng([seeds, 1]).normal(3.0, 2.0, (repeats, seeds))
    covered = 0
    for sample in values:
        _, low, high = mean_interval(sample)
        covered += low <= 3.0 <= high
    assert abs(covered / repeats - 0.95) < 4.5 * (0.95 * 0.05 / repeats) ** 0.5


@pytest.mark.parametrize("bias", [0.0, 0.03])
def test_deviation_interval_covers_the_worst_setting(bias: float) -> None:
    """Twelve settings, ten seeds, 4,000 repeats: the true largest deviation is inside at least 95 in 100.

    Bonferroni is conservative, so the count is at least Binomial(4000, 0.95) up to the linearisation of
    prediction / mean at 2 percent noise; falling below 0.95 by 4 standard errors has probability 3e-5 (normal
    tail, one side; the seed is fixed).
    """
    repeats, settings, seeds = 4_000, 12, 10
    rng = np.random.default_rng([17, int(100 * bias)])
    truth = np.geomspace(0.5, 5.0, settings)
    deviations = bias * np.linspace(-1, 1, settings)
    predicted = truth * (1 + deviations)
    errors = truth[:, None] * (1 + 0.02 * rng.standard_normal((repeats, settings, seeds)))
    mean, sem = errors.mean(axis=2), errors.std(axis=2, ddof=1) / seeds**0.5
    ratio = predicted / mean
    covered = 0
    for deviation, error in zip(ratio - 1, ratio * sem / mean, strict=True):
        low, high = judge_deviation(deviation, error, seeds, 0.05).interval or (np.nan, np.nan)
        covered += low <= np.abs(deviations).max() <= high
    assert covered / repeats > 0.95 - 4 * (0.95 * 0.05 / repeats) ** 0.5


def test_true_claim_at_its_threshold_rarely_fails() -> None:
    """The ledger promises at most 2.5 percent; 20,000 samples, 4 standard errors: probability 3e-5."""
    values = np.random.default_rng(5).normal(1.0, 0.3, (20_000, 6))
    failed = np.mean([judge_mean(sample, 1.0).verdict == "fails" for sample in values])
    assert failed < 0.025 + 4 * (0.025 * 0.975 / 20_000) ** 0.5
