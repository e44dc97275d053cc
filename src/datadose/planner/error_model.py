"""Err as a function of what is collected: the pretrained model and the target fixed, columns free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from datadose.covariance import Array, rotated, validate_operator, wishart_second_moment
from datadose.theory.equivalent import Columns, Equivalent, PeakError, deterministic_equivalent
from datadose.theory.one_source import OneSource
from datadose.theory.sensitivity import sensitivity
from datadose.theory.source import Source
from datadose.theory.weighted_test import WeightedTest


@dataclass(frozen=True, eq=False)
class ErrorModel:
    """The exact asymptotic error / d after SFT from ``V0``, as a function of SFT's columns.

    Args:
        V0: operator before SFT, spectrum (d,) or (d, d).
        eta: chain-of-thought step.
        target: test covariance Sigma.
        test_length: length n of the test prompts.
        chain_steps: k of the chains; it matters where prompts are noisy.

    Raises InputError for a ``V0`` that is not a finite operator of the target's size.
    """

    V0: Array
    eta: float
    target: Array
    test_length: int
    chain_steps: int = 1
    tests_second_moment: Array | None = None
    """E[S^2] of several tests, weighted, of which ``target`` is then the weighted sum."""

    def __post_init__(self) -> None:
        validate_operator("V0", self.V0, len(self.target))

    @cached_property
    def test_second_moment(self) -> Array:
        """E[S^2] of the test prompts."""
        if self.tests_second_moment is not None:
            return self.tests_second_moment
        return wishart_second_moment(self.target, self.test_length)

    def rotated(self, basis: Array, target: Array | None = None) -> ErrorModel:
        """The problem in the orthonormal ``basis`` (d, d), where Sigma is ``target`` if that is given."""
        return replace(
            self,
            V0=rotated(self.V0, basis),
            target=rotated(self.target, basis) if target is None else target,
            tests_second_moment=None if (M := self.tests_second_moment) is None else rotated(M, basis),
        )

    def judged_by(self, test: WeightedTest) -> ErrorModel:
        """The problem with another test, such as a weighted sum of several."""
        return replace(self, target=test.target, tests_second_moment=test.second_moment)

    def columns(self, source: Source) -> Columns:
        """The second moments of a source's prompts."""
        return source.columns(self.eta, self.chain_steps)

    def equivalent(self, columns: Sequence[Columns], counts: Sequence[float] | Array) -> Equivalent:
        """The deterministic equivalent of V* with ``counts`` (K,) prompts of the K ``columns``."""
        counted = [replace(c, count=float(B)) for c, B in zip(columns, counts, strict=True)]
        return deterministic_equivalent(self.V0, self.eta, counted)

    def error(self, columns: Sequence[Columns], counts: Sequence[float] | Array) -> float:
        """The error / d with these numbers of prompts (``counts``, shape (K,)) of the K ``columns``.

        It is infinite where the mean over finite prompts is (``Equivalent.infinite_because``).
        """
        try:
            equivalent = self.equivalent(columns, counts)
        except PeakError:
            return np.inf
        if equivalent.infinite_because is not None:
            return np.inf
        return equivalent.error(self.target, self.test_second_moment)

    def along(self, columns: Columns) -> OneSource:
        """The error as a function of the number of prompts of one source, whose moments are spectra (d,)."""
        return OneSource(self.V0, self.eta, columns, self.target, self.test_second_moment)

    def count_gradient(self, columns: Sequence[Columns], counts: Sequence[float] | Array) -> Array:
        """The derivatives dErr/dB_c at ``counts`` (K,) prompts of the K ``columns``, shape (K,).

        For a source without prompts it is the limit from above, taken one source at a time, which changes
        no other derivative. Differences are used where some sources are above their peak and others below.
        """
        counts = np.asarray(counts, dtype=np.float64)
        gradient, taken = np.zeros(len(counts)), counts > 0
        gradient[taken] = self._slopes(columns, counts, np.flatnonzero(taken).tolist())
        for place in np.flatnonzero(~taken).tolist():
            first = counts.copy()
            first[place] = _FIRST
            gradient[place] = self._slopes(columns, first, [place])[0]
        return gradient

    def _slopes(self, columns: Sequence[Columns], counts: Array, places: Sequence[int]) -> Array:
        """dErr/dB_c of the sources at ``places``, which have prompts."""
        equivalent, moments = self.equivalent(columns, counts), (self.target, self.test_second_moment)
        if not equivalent.is_mixed:
            used = [B > 0 and bool(c.second_moment.any()) for B, c in zip(counts, columns, strict=True)]
            slopes = np.zeros(len(counts))
            slopes[used] = sensitivity(equivalent, *moments).counts
            return np.asarray(slopes[places])

        def at(place: int, B: float) -> float:
            moved = counts.copy()
            moved[place] = B
            return self.equivalent(columns, moved).error(*moments)

        found = []
        for place in places:
            B, h = counts[place], _STEP * max(1.0, counts[place])
            if h < B:
                found.append((at(place, B + h) - at(place, B - h)) / (2 * h))
            else:
                # From above, to the same order.
                found.append((4 * at(place, B + h) - at(place, B + 2 * h) - 3 * at(place, B)) / (2 * h))
        return np.array(found)


_FIRST = 1e-9
"""The prompts at which the limit of none is evaluated: it is linear there to nine digits."""
_STEP = 1e-4
