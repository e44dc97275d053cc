"""A surface of errors over (number of prompts, training time) against training the model at its points.

Three ways to the same 40 x 40 surface at d = 300 or 1,000, in one run: theory; one simulated seed, from one
nested stream and one factorisation a number of prompts; and gradient descent on L_SFT, one run a point, at
the largest step that does not overshoot (gamma = B / (c_k lmax)), of which some steps are timed at random
points and multiplied by the number of steps and points. Under penalties the theory is explicit: its surface
is compared with the general form at the same points too. Last, the best penalty and weights of 5 sources.

    OMP_NUM_THREADS=1 python benchmarks/training_time.py [--dimension 1000] [--points 8] [--repeats 1]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from datadose import Shift
from datadose.prompts import draw_moments
from datadose.simulation.descent import simulate_descent
from datadose.simulation.training import simulate_training
from datadose.theory import Source, pretrained_operator
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.effective_weights import EffectiveSources
from datadose.theory.sft import sft_gradient
from datadose.theory.stopping import Stopping
from datadose.theory.training_time import trained, trained_path
from datadose.theory.tuned_weights import tuned_weights
from datadose.theory.weighted_test import WeightedTest
from timing import seconds

TIMES = np.geomspace(0.3, 3000.0, 40)
RIDGES = np.geomspace(0.01, 1000.0, 40)
STEPS_TIMED = 3


def shift_of(d: int) -> Shift:
    """A shift like Figure 1's with some interference, whose eigenvalues are all different."""
    blocks, spread = Shift.two_block(d, d // 2, 0.1, 0.2, 0.01), np.geomspace(0.5, 2.0, d)
    return Shift(blocks.sigma0 * spread, blocks.delta * spread, blocks.data * spread[::-1], blocks.eta)


def prompts_of(d: int) -> list[int]:
    """40 numbers of prompts from d/20 to 10 d, on both sides of the peaks."""
    return [int(B) for B in np.geomspace(d / 20, 10 * d, 40)]


def theory_surface(shift: Shift, n: int, stoppings: Sequence[Stopping]) -> np.ndarray:
    """Errors (B, stopping) from the theory."""
    V0 = pretrained_operator(shift.sigma0, n)
    return np.array(
        [
            [
                model.error(shift.target, n)
                for model in trained_path(V0, shift.eta, [Source(shift.data, n, B)], stoppings)
            ]
            for B in prompts_of(shift.dimension)
        ]
    )


def explicit(shift: Shift, n: int) -> EffectivePenalty:
    """The explicit form under penalties."""
    V0, test = pretrained_operator(shift.sigma0, n), WeightedTest.of(shift.target, n)
    return EffectivePenalty.of(V0, shift.eta, Source(shift.data, n, 1), test)


def penalised_surface(shift: Shift, n: int) -> np.ndarray:
    """Errors (B, penalty), explicit; a penalty stands beside the plain sum over the prompts."""
    return explicit(shift, n).errors(np.array(prompts_of(shift.dimension))[:, None], RIDGES)


def simulated_surface(shift: Shift, n: int, stoppings: Sequence[Stopping]) -> np.ndarray:
    """Errors (B, stopping) of one simulated seed."""
    V0, source = pretrained_operator(shift.sigma0, n), Source(shift.data, n, 0)
    request = (V0, shift.eta, [source], [shift.target], n, stoppings)
    return simulate_training(*request, counts=prompts_of(shift.dimension), seeds=1).mean[:, :, 0]


def literal_seconds(shift: Shift, n: int, B: int, time: float) -> tuple[float, float]:
    """Time of training one model by gradient descent up to ``time``, and the number of its steps."""
    moments = draw_moments(shift.data, n, B, seed=0)
    rate = B / float(np.linalg.norm(moments.phi, 2)) ** 2
    V0 = np.diag(pretrained_operator(shift.sigma0, n))

    def some_steps() -> None:
        V = V0
        for _ in range(STEPS_TIMED):
            V = V - rate * sft_gradient(V, moments, shift.eta, 0)

    steps = max(1.0, time / rate)
    drawn = seconds(partial(draw_moments, shift.data, n, B, seed=0))
    return drawn + seconds(some_steps) / STEPS_TIMED * steps, steps


def surfaces(d: int, points: int, repeats: int) -> None:
    """The three ways, and their ratios."""
    shift, n = shift_of(d), 3 * d
    stoppings = [Stopping(time=float(t)) for t in TIMES]
    ridges = [Stopping(ridge=float(r)) for r in RIDGES]
    rng, costs = np.random.default_rng(0), []
    for _ in range(points):
        B, t = int(rng.choice(prompts_of(d))), float(rng.choice(TIMES))
        cost, steps = literal_seconds(shift, n, B, t)
        costs.append(cost)
        print(f"  descent at B={B} t={t:.3g}: {steps:.0f} steps, {cost:.2f} s")
    number = len(prompts_of(d)) * len(TIMES)
    literal = statistics.mean(costs) * number
    simulated = seconds(partial(simulated_surface, shift, n, stoppings), repeats)
    theory = seconds(partial(theory_surface, shift, n, stoppings), repeats)
    general = seconds(partial(theory_surface, shift, n, ridges), repeats)
    penalised = seconds(partial(penalised_surface, shift, n), repeats)
    print(f"a surface of {number} points (B, t), spectra d = {d}, one core")
    print(f"  descent: {literal:.0f} s (mean of {points} points times {number})")
    print(f"  one simulated seed: {simulated:.2f} s, RATIO {literal / simulated:.0f} times")
    print(f"  theory: {theory:.2f} s, RATIO {literal / theory:.0f} times")
    ratio = f"RATIO {general / penalised:.0f} times the general form ({general:.2f} s)"
    print(f"  theory under {len(RIDGES)} penalties: {penalised:.2f} s, {ratio}")


def single_points(d: int, repeats: int) -> None:
    """One (B, t) point and one (B, penalty) point of the theory, with what they need from scratch."""
    shift, n = shift_of(d), 3 * d
    V0, source = pretrained_operator(shift.sigma0, n), [Source(shift.data, n, 2 * d)]
    points: dict[str, Callable[[], object]] = {
        "(B, t)": partial(trained, V0, shift.eta, source, Stopping(time=50.0)),
        "(B, lambda)": lambda: explicit(shift, n).at(2 * d, 50.0),
    }
    for name, point in points.items():
        print(f"one {name} point, spectra d = {d}: {1e3 * seconds(point, 10 * repeats):.1f} ms")


def weights(d: int, repeats: int) -> None:
    """The best penalty and weights for 5 sources: random spectra (seed 1), one of them noisy."""
    shift, n, rng = shift_of(d), 3 * d, np.random.default_rng(1)
    spectra = [shift.data, *np.exp(rng.uniform(-2.0, 0.5, (4, d)))]
    noises = (0.0, 0.0, 0.0, 0.0, 0.5)
    pool = [Source(A, n, d / 2, label_noise=s) for A, s in zip(spectra, noises, strict=True)]
    V0, test = pretrained_operator(shift.sigma0, n), WeightedTest.of(shift.target, n)
    tuned = partial(tuned_weights, EffectiveSources.of(V0, shift.eta, pool), test)
    point = seconds(partial(trained, V0, shift.eta, pool, Stopping(ridge=50.0)), 3 * repeats)
    cost = seconds(tuned, repeats)
    print(f"best penalty and weights of 5 sources, spectra d = {d}: {cost:.2f} s, {cost / point:.0f} times")
    print(f"  a penalised point of the general form ({1e3 * point:.0f} ms); error {tuned().error:.4f}")


def updates(d: int, repeats: int) -> None:
    """An update of stochastic descent against its arithmetic, 4 d^2 b."""
    shift, n, count = shift_of(d), 3 * d, 2000
    V0, source = pretrained_operator(shift.sigma0, n), [Source(shift.data, n, 4 * d)]
    X = np.random.default_rng(0).standard_normal((d, d))
    rate = 2 * d**3 / seconds(lambda: X @ X, 20)
    for b in (1, 32):
        for fresh in (False, True):
            request = (V0, shift.eta, source, b, 1e-3, [count], [shift.target], n)
            cost = seconds(partial(simulate_descent, *request, fresh=fresh, seeds=1), repeats) / count
            label = "fresh rows" if fresh else "epochs"
            floor = 4 * d**2 * b / rate
            print(f"an update of {b} rows, {label}, d = {d}: {1e3 * cost:.2f} ms, {cost / floor:.1f} floors")


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dimension", type=int, default=1000)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    with threadpool_limits(1):
        surfaces(arguments.dimension, arguments.points, arguments.repeats)
        single_points(arguments.dimension, arguments.repeats)
        weights(arguments.dimension, arguments.repeats)
        updates(arguments.dimension // 4, arguments.repeats)


if __name__ == "__main__":
    main()
