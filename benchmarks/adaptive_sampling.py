"""Samples that the adaptive scheme saves against one number for every prompt, on simulated pools.

    OMP_NUM_THREADS=1 python benchmarks/adaptive_sampling.py [--prompts 1000] [--pools 10]

Pass rates are drawn from known laws, so the right decision is known: a prompt belongs to the RL set if its
rate gives mixed groups with at least the threshold's chance. Every scheme decides by the posterior of the
samples it has, with the prior fitted to them; the schemes share their samples. Equal agreement: the smallest
uniform number of samples, interpolated, that agrees with the truth as often as the adaptive scheme. Two of
the laws are no Beta law, which is what the prior assumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datadose.llm.adaptive import AdaptiveRule, more_samples
from datadose.llm.pass_rates import chance_mixed, chance_mixed_at, fit_prior
from datadose.shapes import Array

Counts = NDArray[np.int64]
Law = Callable[[np.random.Generator, int], Array]

LAWS: dict[str, Law] = {
    "U-shaped, Beta(0.2, 0.2)": lambda rng, n: rng.beta(0.2, 0.2, n),
    "U-shaped, Beta(0.5, 0.5)": lambda rng, n: rng.beta(0.5, 0.5, n),
    "uniform": lambda rng, n: rng.random(n),
    "hard, Beta(0.3, 1.2)": lambda rng, n: rng.beta(0.3, 1.2, n),
    "easy, Beta(1.5, 0.3)": lambda rng, n: rng.beta(1.5, 0.3, n),
    "medium, Beta(4, 4)": lambda rng, n: rng.beta(4, 4, n),
    "0, 1 or uniform": lambda rng, n: rng.choice([0.0, 1.0, np.nan], n, p=[0.4, 0.3, 0.3]),
    "0.05 or 0.6": lambda rng, n: rng.choice([0.05, 0.6], n),
}
"""Laws of the pass rate; nan stands for a uniform one."""


@dataclass(frozen=True)
class Outcome:
    """Of one law: agreements with the truth, and samples a prompt."""

    uniform: Array
    """Agreement with 1, 2, ... K samples for every prompt."""
    adaptive: float
    samples: float
    """Mean samples of a prompt in the adaptive scheme."""

    @property
    def equal(self) -> float:
        """The uniform samples a prompt that agree as often, interpolated; K where none do."""
        enough = np.flatnonzero(self.uniform >= self.adaptive)
        if len(enough) == 0:
            return float(len(self.uniform))
        k = int(enough[0])
        if k == 0:
            return 1.0
        below, above = self.uniform[k - 1], self.uniform[k]
        return float(k + (self.adaptive - below) / (above - below))


def decide(passed: Counts, judged: Counts, rule: AdaptiveRule) -> NDArray[np.bool_]:
    """Which prompts are kept after ``passed`` of ``judged`` samples, (N,)."""
    posterior = fit_prior(passed, judged).posterior(passed, judged)
    return np.asarray(chance_mixed(*posterior, rule.group) >= rule.mixed)


def simulate(law: Law, prompts: int, seed: int, rule: AdaptiveRule) -> Outcome:
    """One pool of ``prompts`` prompts, sampled by every scheme."""
    rng = np.random.default_rng(seed)
    rates = law(rng, prompts)
    rates = np.where(np.isnan(rates), rng.random(prompts), rates)
    passes = rng.random((prompts, rule.samples)) < rates[:, None]
    counts = np.concatenate([np.zeros((prompts, 1), int), passes.cumsum(axis=1)], axis=1)
    truth = chance_mixed_at(rates, rule.group) >= rule.mixed
    uniform = [
        float((decide(counts[:, k], np.full(prompts, k), rule) == truth).mean())
        for k in range(1, rule.samples + 1)
    ]
    drawn, every = np.zeros(prompts, dtype=np.int64), np.arange(prompts)
    while (more := more_samples(drawn, counts[every, drawn], drawn, rule)).any():
        drawn += more
    agreement = float((decide(counts[every, drawn], drawn, rule) == truth).mean())
    return Outcome(np.array(uniform), agreement, float(drawn.mean()))


def average(law: Law, prompts: int, pools: int, rule: AdaptiveRule) -> Outcome:
    """The mean of ``pools`` simulations."""
    found = [simulate(law, prompts, seed, rule) for seed in range(pools)]
    return Outcome(
        np.mean([one.uniform for one in found], axis=0),
        float(np.mean([one.adaptive for one in found])),
        float(np.mean([one.samples for one in found])),
    )


def main() -> None:
    """Print a line for each law."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--pools", type=int, default=10)
    parser.add_argument("--samples", type=int, default=16)
    arguments = parser.parse_args()
    rule = AdaptiveRule(samples=arguments.samples)
    K = rule.samples
    print(f"{'pass rates':<26} agree: uniform {K}, adaptive; samples; uniform at equal agreement; saved")
    for name, law in LAWS.items():
        found = average(law, arguments.prompts, arguments.pools, rule)
        print(
            f"{name:<26} {found.uniform[-1]:.4f} {found.adaptive:.4f} "
            f"{found.samples:6.2f} {found.equal:6.2f} "
            f"{1 - found.samples / found.equal:+.2f} ({1 - found.samples / K:+.2f} of {K})",
            flush=True,
        )


if __name__ == "__main__":
    main()
