"""The simulated error of V* after SFT on a mixture of sources, with noisy labels and demonstrations.

The literal loss of a prompt is sum_i ||rho^i (V phi + eta w) + V h + nu_i||^2 over its k+1 teacher-forced
steps, rho = 1 - eta. It is drawn here in its shortest equal form (docs/derivations/exact_asymptotics.md,
section 9): with F = [phi, h], Y = [-eta w, 0] and O = O_k / c_k = L L^T it is c_k ||V F L - (Y L - N)||^2
plus a constant, where the entries of N = [sum_i rho^i nu_i, sum_i nu_i] L^{-T} / c_k are independent, of
variance t^2/c_k. So a prompt is two columns, F L, of a least-squares problem; one, phi, without label noise;
one, phi + h, if k = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datadose.covariance import validate_covariance, validate_operator, wishart_second_moment
from datadose.errors import reject, require_integer
from datadose.prompts import Moments, NoisyMoments, Seed, draw_moments, draw_noisy_moments, random_stream
from datadose.shapes import Array, Float, Operator
from datadose.theory.post_test import quadratic_error
from datadose.theory.sft import nearest_fit
from datadose.theory.source import Source


@dataclass(frozen=True)
class MixtureErrors:
    """Simulated errors / d of one mixture, one for each seed."""

    errors: Float[Array, " seeds"]
    """Shape (seeds,)."""

    @property
    def mean(self) -> float:
        """The mean error / d over seeds."""
        return float(self.errors.mean())

    @property
    def sem(self) -> float:
        """Standard error of the mean (NaN for one seed)."""
        count = len(self.errors)
        return float(self.errors.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")


def draw_mixture(
    sources: Sequence[Source], eta: float, chain_steps: int, *, seed: Seed
) -> tuple[Float[Array, "d N"], Float[Array, "d N"]]:
    """The columns and answers, both (d, N), of the regression "V columns = answers" that V* solves.

    They are exact in distribution. N counts one column a prompt, two where its labels are noisy and k >= 1.
    A source's stream depends on the seed and its place alone: its prompts are nested in its count.

    Args:
        sources: the sources, with whole numbers of prompts.
        eta: chain-of-thought step, in (0, 2).
        chain_steps: k >= 0 of the chains of thought.
        seed: of all draws.

    Raises InputError if a number of prompts is not whole, or any other value is out of range.
    """
    if not sources:
        reject("sources", "none", "at least one source")
    folded = (seed,) if isinstance(seed, int) else tuple(seed)
    drawn = [
        draw_source(source, eta, chain_steps, seed=(*folded, place)) for place, source in enumerate(sources)
    ]
    if len({len(columns) for columns, _ in drawn}) > 1:
        reject("sources", f"dimensions {[len(columns) for columns, _ in drawn]}", "one dimension")
    return np.hstack([columns for columns, _ in drawn]), np.hstack([answers for _, answers in drawn])


def draw_source(
    source: Source, eta: float, chain_steps: int, *, seed: Seed
) -> tuple[Float[Array, "d N"], Float[Array, "d N"]]:
    """Columns and answers of one source's prompts under a seed of its own, both (d, N).

    Where a prompt gives two columns, the first columns of all prompts come before the second ones. Raises
    InputError as :func:`draw_mixture`.
    """
    theory = source.columns(eta, chain_steps)
    B, d = whole_prompts(source.prompts), len(theory.cross)
    if B == 0:
        return np.zeros((d, 0)), np.zeros((d, 0))
    moments = (
        draw_noisy_moments(source.covariance, source.length, B, source.label_noise, seed=seed)
        if source.label_noise > 0
        else draw_moments(source.covariance, source.length, B, seed=seed)
    )
    weights = None if theory.pair is None else theory.pair.weights
    shape = (B, 1 if weights is None else 2, d)
    noise = random_stream(seed, "demonstration_noise").standard_normal(shape).transpose(1, 2, 0)
    return regression(moments, eta, weights, np.sqrt(theory.noise) * noise)


def whole_prompts(prompts: float) -> int:
    """A source's number of ``prompts`` as an integer >= 0.

    Raises InputError for a number that is not whole.
    """
    return require_integer("prompts", int(prompts) if float(prompts).is_integer() else prompts, 0)


def regression(
    moments: Moments, eta: float, weights: Float[Array, "2 2"] | None, noise: Float[Array, "features d B"]
) -> tuple[Float[Array, "d N"], Float[Array, "d N"]]:
    """Columns and answers of prompts whose w*, phi, h and noise are given; both (d, B) or (d, 2B).

    Args:
        moments: with h, if labels are noisy.
        eta: chain-of-thought step.
        weights: O = O_k / c_k (2, 2) where a prompt gives two columns (noisy labels and k >= 1), else None.
        noise: N of the module docstring, shape (1 or 2, d, B).
    """
    echo = moments.echo if isinstance(moments, NoisyMoments) else None
    wanted = -eta * moments.weights
    if weights is None:
        return moments.phi if echo is None else moments.phi + echo, wanted - noise[0]
    if echo is None:
        reject("moments", "no noise in the labels", "NoisyMoments where a prompt gives two columns")
    L = np.linalg.cholesky(weights)
    columns = [moments.phi * L[0, b] + echo * L[1, b] for b in range(2)]
    return np.hstack(columns), np.hstack([wanted * L[0, b] - noise[b] for b in range(2)])


def seed_list(seeds: int | Sequence[int]) -> list[int]:
    """The seeds 0, 1, .. if their number is given, else the given ones; InputError where there are none."""
    chosen = list(range(require_integer("seeds", seeds, 1))) if isinstance(seeds, int) else list(seeds)
    if not chosen:
        reject("seeds", seeds, "at least one seed")
    return chosen


def simulate_mixture_error(
    V0: Operator,
    eta: float,
    sources: Sequence[Source],
    target: Operator,
    test_length: int,
    *,
    chain_steps: int = 0,
    seeds: int | Sequence[int],
) -> MixtureErrors:
    """Simulated Err(V*) / d after SFT from ``V0``: what ``mixture_error`` predicts.

    ``seeds`` is a number of seeds (0, 1, ..) or the list of them; other arguments are those of
    ``mixture_error``, with whole numbers of prompts. O(d^2 N) a seed, independent of the prompts' lengths.
    Where the number of columns is within one of a peak the mean is infinite and the simulated one means
    nothing.

    Raises InputError for a number of prompts that is not whole, and for any other value out of range.
    """
    chosen = seed_list(seeds)
    target = validate_covariance("target", target)
    V0 = validate_operator("V0", V0, len(target))
    second_moment = wishart_second_moment(target, require_integer("test_length", test_length, 1))
    errors = []
    for seed in chosen:
        columns, answers = draw_mixture(sources, eta, chain_steps, seed=seed)
        if len(columns) != len(target):
            reject("target", f"dimension {len(target)}", f"dimension {len(columns)}, as in the sources")
        V = nearest_fit(columns, answers, V0)
        errors.append(quadratic_error(V, target, second_moment))
    return MixtureErrors(np.array(errors))
