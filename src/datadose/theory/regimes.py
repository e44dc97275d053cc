"""The equations of the deterministic equivalent, put together from fixed points: above, below, mixed, ridge.

The statement is in :mod:`datadose.theory.equivalent`. A set T of sources is over-determined on what it spans,
the others interpolate on the rest; T = all and T = none are the two pure regimes. Matrices are reduced to the
span that a regime lives on, and one source is solved in its own eigenvectors, where all is elementwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import is_spectrum, plus, product, transpose
from datadose.shapes import Array, Bool, Float, Operator
from datadose.theory.columns import Columns, Features
from datadose.theory.fixed_point import Frame, MatrixFrame, Regime, Solved, SpectralFrame, solve_fixed_point
from datadose.theory.one_source import weights_below_peak
from datadose.theory.peaks import joint_basis, rank_of

_ROUNDING = 1e-12
LOOSE, TIGHT = Regime(0.0, loose=True), Regime(1.0, loose=False)


def with_ridge(
    V0: Operator, eta: float, sources: Sequence[Columns], features: Features, ridge: float
) -> tuple[Operator, Operator, Solved]:
    """q = B / (1 + tr(C R)), R = (ridge I + sum q C)^{-1}, Vbar = (ridge V0 - eta sum q A) R.

    Returns Vbar, K with Vbar = V0 K + terms without V0, and the fixed point.
    """
    solved = _solve(features, Regime(ridge, loose=True), None)
    kept = ridge * solved.resolvent
    return plus(product(V0, kept), -eta * _crossed(sources, features, solved)), kept, solved


def ridge_weights(features: Features, ridge: float) -> Float[Array, " F"]:
    """q (F,) of :func:`with_ridge` alone."""
    return _solve(features, Regime(ridge, loose=True), None).weights


def without_ridge(
    V0: Operator,
    eta: float,
    sources: Sequence[Columns],
    features: Features,
    above: Bool[NDArray[np.bool_], " F"],
) -> tuple[Operator, Operator, Solved]:
    """V_T + [V0 - sum_{c not in T} q_c (eta A_c + V_T C_c)] R', where ``above`` marks T's features.

    With Vbar come K, where Vbar = V0 K + terms without V0, and q, G and L^T F_a of all features, and R (R' of
    those below their peak where some are).
    """
    on_top = above[features.first]
    top, rest = list(compress(sources, on_top)), list(compress(sources, ~on_top))
    if not top:
        solved = _solve(features, TIGHT, None)
        mean = plus(product(V0, solved.resolvent), -eta * _crossed(rest, features, solved))
        return mean, solved.resolvent, solved
    spanned, beside = joint_basis([c.span for c in top])
    high = features.subset(above)
    over = _solve(high, LOOSE, spanned)
    fitted = -eta * _crossed(top, high, over)
    if not rest:
        kept = beside if is_spectrum(beside) else beside @ beside.T
        return plus(fitted, product(V0, kept)), kept, over
    low = features.subset(~above)
    under = _solve(low, TIGHT, beside)
    pulled = eta * _crossed(rest, low, under)
    pull = list(zip(under.weights, low.roots, under.reach, strict=True))
    for q, F, X in pull:
        pulled = plus(pulled, product(q * product(fitted, F), transpose(X)))
    mean = plus(fitted, product(V0, under.resolvent), -pulled)
    # L^T F = R_T F - R' (sum_{c not in T} q_c C_c) R_T F.
    crossed = [plus(Y, *(-q * product(X, product(transpose(F), Y)) for q, F, X in pull)) for Y in over.reach]
    weights, gain = np.zeros(len(above)), np.zeros((len(above), len(above)))
    weights[above], weights[~above] = over.weights, under.weights
    gain[np.ix_(above, above)], gain[np.ix_(~above, ~above)] = over.gain, under.gain
    high_reach, low_reach = iter(crossed), iter(under.reach)
    reach = tuple(next(high_reach if high else low_reach) for high in above)
    return mean, under.resolvent, Solved(weights, gain, under.resolvent, reach)


def _crossed(sources: Sequence[Columns], features: Features, solved: Solved) -> Array:
    """sum_c q_c A_c R."""
    total = np.zeros_like(solved.resolvent)
    for place, c in zip(features.first, sources, strict=True):
        total = total + solved.weights[place] * crossed(c, solved.resolvent, solved.reach[place])
    return total


def crossed(source: Columns, resolvent: Array, reach: Array) -> Array:
    """A_c R; where A_c is known by its modes, through ``reach`` = R F_c, which keeps small digits."""
    if source.shared is None:
        return product(source.cross, resolvent)
    left = source.shared.vectors * (source.shared.cross / np.sqrt(source.shared.moments[0]))
    return np.asarray(left @ reach.T)


def _solve(features: Features, regime: Regime, basis: Array | None) -> Solved:
    """The fixed point of ``features`` on the span of ``basis`` (None: everywhere), as matrices everywhere."""
    spectral = is_spectrum(features.moments[0])
    if basis is not None and spectral:
        features = replace(features, roots=tuple(basis * F for F in features.roots))
    elif basis is not None and basis.shape[1] < basis.shape[0]:
        features = replace(features, roots=tuple(basis.T @ F for F in features.roots))
    else:
        basis = None
    frame = _frame(features, regime)
    size = len(features.roots[0]) if basis is None else rank_of(basis)
    solved = _at_fixed_point(features, regime, frame, size)
    if basis is None:
        return solved
    if spectral:
        return replace(solved, resolvent=basis * solved.resolvent)
    return replace(
        solved,
        resolvent=basis @ solved.resolvent @ basis.T,
        reach=tuple(basis @ X for X in solved.reach),
    )


def _at_fixed_point(features: Features, regime: Regime, frame: Frame, size: int) -> Solved:
    counts = features.counts
    if len(counts) > 1 or (regime.loose and regime.ridge > 0):
        return solve_fixed_point(features, regime, frame)
    # One source above its peak: q = w (B - r), theta = r / q.
    q = features.heavy * (counts - size)
    if not regime.loose:
        assert isinstance(frame, SpectralFrame)
        levels = frame.moments[0]
        q = weights_below_peak(levels[levels > 0], np.ones((levels > 0).sum()), counts)
    return Solved(q, np.diag(q / counts), *frame.resolved(q))


def _frame(features: Features, regime: Regime) -> Frame:
    """Spectra elementwise, one source in its own eigenvectors, matrices otherwise."""
    roots = features.roots
    if is_spectrum(roots[0]):
        return SpectralFrame(np.stack(roots), regime.ridge)
    if _share(roots):
        norms = np.array([np.linalg.norm(F, axis=0) for F in roots])
        return _Modes(roots[0] / norms[0], norms, None, regime)
    if len(roots) == 1:
        U, values, turn = np.linalg.svd(roots[0], full_matrices=False)
        return _Modes(U, values[None, :], turn, regime)
    return MatrixFrame(roots, regime.ridge)


def _share(roots: Sequence[Array]) -> bool:
    """Whether all roots have the same orthogonal columns, up to their lengths (a prompt's two features)."""
    if len({F.shape for F in roots}) > 1:
        return False
    with np.errstate(invalid="ignore", divide="ignore"):
        first, *others = (F / np.linalg.norm(F, axis=0) for F in roots)
    if not all(np.allclose(first, unit, rtol=0, atol=_ROUNDING) for unit in others):
        return False
    return np.allclose(first.T @ first, np.eye(first.shape[1]), rtol=0, atol=_ROUNDING)


class _Modes(SpectralFrame):
    """Moments that share the orthonormal vectors U (d, r): spectra in U, and R = 1/ridge beside it.

    The roots are U diag(roots_a), times ``turn`` from the right if that is given.
    """

    def __init__(self, vectors: Array, roots: Array, turn: Array | None, regime: Regime) -> None:
        super().__init__(roots, regime.ridge)
        self._vectors, self._turn = vectors, turn
        self._beside = 1 / regime.ridge if regime.ridge > 0 else 0.0

    def resolved(self, q: Array) -> tuple[Array, tuple[Array, ...]]:
        """R and R F_a."""
        R, reach = super().resolved(q)
        U = self._vectors
        whole = (U * R) @ U.T
        if self._beside and U.shape[1] < U.shape[0]:
            whole += self._beside * (np.eye(len(U)) - U @ U.T)
        if self._turn is not None:
            return whole, tuple((U * X) @ self._turn for X in reach)
        return whole, tuple(U * X for X in reach)
