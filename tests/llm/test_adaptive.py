"""Which prompts get more samples: where the decision is open, in rounds, and how many samples that saves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import adaptive_sampling as benchmark
from datadose.errors import InputError
from datadose.llm.adaptive import AdaptiveRule, flip_chance, more_samples
from datadose.llm.pass_rates import Prior, chance_mixed, fit_prior

RULE = AdaptiveRule()
UNIFORM = Prior(1.0, 1.0, 1, 1)


def test_everybody_has_the_pilot_first() -> None:
    drawn = np.array([0, 2, 4, 9])
    assert more_samples(drawn, np.zeros(4, int), drawn, RULE).tolist() == [4, 2, 0, 0]
    small = replace(RULE, samples=3)
    assert more_samples(np.zeros(2, int), np.zeros(2, int), np.zeros(2, int), small).tolist() == [3, 3]


def test_only_open_prompts_get_more_and_never_beyond_the_limit() -> None:
    """In a U-shaped pool 2 of 4 is surely mixed, 0 of 4 is open, and 16 samples are the end."""
    rng = np.random.default_rng(0)
    drawn = np.full(2000, 4)
    passed = rng.binomial(4, rng.beta(0.5, 0.5, 2000))
    more = more_samples(drawn, passed, drawn, RULE)
    assert set(more[(passed == 0) | (passed == 4)].tolist()) == {4}
    assert set(more[passed == 2].tolist()) == {0}
    drawn[:50], drawn[50:100] = 16, 14
    passed[:100] = 0
    more = more_samples(drawn, passed, drawn, replace(RULE, tolerance=0.0))
    assert (more[:50] == 0).all()
    assert ((drawn + more) <= 16).all()


def test_the_answer_depends_on_the_counts_alone() -> None:
    """Equal counts get equal answers, whatever the order of the prompts; a closed prompt stays closed."""
    rng = np.random.default_rng(1)
    drawn = rng.integers(4, 17, 500)
    judged = drawn - rng.integers(0, 2, 500)
    passed = rng.binomial(judged, rng.beta(0.3, 0.6, 500))
    more = more_samples(drawn, passed, judged, RULE)
    order = rng.permutation(500)
    again = more_samples(drawn[order], passed[order], judged[order], RULE)
    assert np.array_equal(more[order], again)
    assert (more[drawn == 16] == 0).all()
    assert more.any()


def test_prompts_without_a_verdict_stay_open_to_the_end() -> None:
    drawn, judged = np.array([4, 4, 4, 16]), np.array([0, 4, 4, 0])
    more = more_samples(drawn, np.array([0, 2, 2, 0]), judged, RULE)
    assert more[0] == 4
    assert more[3] == 0
    nothing = np.zeros(4, int)
    assert more_samples(drawn, nothing, nothing, RULE).tolist() == [4, 4, 4, 0]


@pytest.mark.parametrize(("passed", "judged", "further"), [(0, 4, 12), (1, 8, 8), (4, 4, 4), (2, 4, 12)])
def test_the_chance_of_a_flip_is_what_draws_show(passed: int, judged: int, further: int) -> None:
    rng = np.random.default_rng(2)
    prior = Prior(0.4, 0.8, 1, 1)
    rates = rng.beta(prior.a + passed, prior.b + judged - passed, 200_000)
    after = passed + rng.binomial(further, rates)

    def kept(k: np.ndarray, n: int) -> np.ndarray:
        return chance_mixed(*prior.posterior(k, np.full(len(k), n)), RULE.group) >= RULE.mixed

    flips = kept(after, judged + further) != kept(np.array([passed]), judged)[0]
    found = flip_chance(prior, passed, judged, further, RULE)
    assert found == pytest.approx(flips.mean(), abs=4 * flips.std() / np.sqrt(len(flips)) + 1e-9)


def test_nothing_flips_without_further_samples() -> None:
    assert flip_chance(UNIFORM, 0, 4, 0, RULE) == 0.0
    # After 0 of 8, sixteen samples more can still show a mixed prompt; 8 of 16 stays mixed whatever comes.
    assert flip_chance(UNIFORM, 0, 8, 16, RULE) > 0.1
    assert flip_chance(UNIFORM, 8, 16, 8, RULE) == 0.0


def test_a_tolerance_of_zero_changes_no_decision() -> None:
    """Only prompts that nothing can move are closed: the decisions are those of 16 samples each.

    The prior is that of fewer samples, so a decision at the very edge may differ.
    """
    rule = replace(RULE, tolerance=0.0)
    rng = np.random.default_rng(3)
    rates = rng.random(1000)
    passes = rng.random((1000, 16)) < rates[:, None]
    counts = np.concatenate([np.zeros((1000, 1), int), passes.cumsum(axis=1)], axis=1)
    drawn, every, rounds = np.zeros(1000, int), np.arange(1000), 0
    while (more := more_samples(drawn, counts[every, drawn], drawn, rule)).any():
        drawn, rounds = drawn + more, rounds + 1
    assert rounds == 4
    assert drawn.mean() < 12
    full = np.full(1000, 16)
    prior = fit_prior(counts[:, 16], full)
    kept = [
        chance_mixed(*prior.posterior(counts[every, n], n), rule.group) >= rule.mixed for n in (drawn, full)
    ]
    assert (kept[0] == kept[1]).mean() > 0.995


@pytest.mark.parametrize(
    "name", ["U-shaped, Beta(0.5, 0.5)", "uniform", "hard, Beta(0.3, 1.2)", "0.05 or 0.6"]
)
def test_samples_are_saved_at_equal_agreement(name: str) -> None:
    """At least a fifth, against the uniform number of samples that is right as often."""
    found = benchmark.average(benchmark.LAWS[name], 600, 4, RULE)
    assert found.adaptive > found.uniform[-1] - 0.01
    assert found.samples < 0.8 * found.equal


def test_equal_agreement_is_read_off_the_uniform_curve() -> None:
    curve = np.array([0.5, 0.7, 0.8])
    for agreement, expected in ((0.4, 1), (0.7, 2), (0.75, 2.5), (0.9, 3)):
        assert benchmark.Outcome(curve, agreement, 1.0).equal == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples: got 0"),
        ({"pilot": 0}, "pilot: got 0"),
        ({"group": 1}, "group: got 1"),
        ({"mixed": 0.0}, "mixed: got 0.0; allowed: a number in (0, 0.9922]"),
        ({"group": 2, "mixed": 0.6}, "mixed: got 0.6; allowed: a number in (0, 0.5]"),
        ({"tolerance": 1.0}, "tolerance: got 1.0"),
    ],
)
def test_rules_are_checked(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as error:
        AdaptiveRule(**change)
    assert message in str(error.value)
