"""The post-test error after SFT on B prompts, in three forms behind one function (paper appendix B).

- ``exact``: Err(V*) of the minimiser itself, for any PSD matrices and any number of sources.
- ``first-order``: Thm B.1 corrected and extended to any PSD matrices: Err(V~) of the first-order
  approximation V~ of V*, which is close to V* only for long prompts.
- ``as-printed``: Thm B.1 as in the paper, two blocks, with its wrong T12 coefficient for B < d
  (docs/errata.md). For comparison only.

Notation: B prompts, n their length, beta = B/d, gamma = d/n, Sigma the test covariance, A the data
covariance. Values are divided by d. Derivations: docs/derivations/exact_asymptotics.md, first_order.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from datadose.covariance import (
    dense,
    plus,
    product,
    rotated,
    spectral_basis,
    trace,
    validate_covariance,
    validate_operator,
    wishart_second_moment,
)
from datadose.errors import reject, require_integer, require_number
from datadose.shapes import Array, Float, Operator
from datadose.shift import Shift
from datadose.theory.columns import FINITE_MEAN, Columns
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.equivalent import Equivalent, deterministic_equivalent
from datadose.theory.equivalent import PeakError as PeakError  # noqa: PLC0414  (its public home)
from datadose.theory.finite_size import finite_size_correction
from datadose.theory.one_source import OneSource, infinite_mean
from datadose.theory.post_test import quadratic_error
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.printed import printed_error
from datadose.theory.source import Source as Source  # noqa: PLC0414  (its older home)
from datadose.theory.stopping import Stopping
from datadose.theory.training_time import trained
from datadose.theory.weighted_test import WeightedTest

Form: TypeAlias = Literal["exact", "first-order", "as-printed"]
FORMS: tuple[Form, ...] = ("exact", "first-order", "as-printed")


def mixture_equivalent(
    V0: Operator, eta: float, sources: Sequence[Source], *, chain_steps: int = 0
) -> Equivalent:
    """The deterministic equivalent of V* after SFT to convergence on K sources.

    If all sources are spectra they stay so even if ``V0`` is dense, which is the quick way for one source in
    its own eigenbasis.

    Args:
        V0: operator before SFT, a spectrum (d,) or a matrix (d, d).
        eta: chain-of-thought step, in (0, 2).
        sources: K >= 1 sources of prompts, of one dimension.
        chain_steps: k >= 0 of the chains of thought; it matters where prompts are noisy.

    Raises PeakError at a peak, InputError for a value out of range or of another dimension.
    """
    columns = [source.columns(eta, chain_steps) for source in sources]
    sizes = {len(c.cross) for c in columns}
    if len(sizes) > 1:
        reject("sources", f"dimensions {[len(c.cross) for c in columns]}", "one dimension")
    V0 = validate_operator("V0", V0, *sizes)
    if any(c.cross.ndim > 1 for c in columns):
        columns, V0 = [c.dense() for c in columns], dense(V0)
    return deterministic_equivalent(V0, eta, columns)


def mixture_error(
    V0: Operator,
    eta: float,
    sources: Sequence[Source],
    target: Operator,
    test_length: int,
    *,
    chain_steps: int = 0,
    finite_size: bool = False,
    weights: Sequence[float] | Array | None = None,
    time: float | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    ridge: float | None = None,
) -> float:
    """Exact asymptotic Err(V) / d after SFT from ``V0`` on K sources, any PSD matrices, any V0.

    To convergence (V = V*), unless a time, a number of steps or a penalty is given; the model itself, whose
    error on any other test follows, is :func:`datadose.theory.trained`.

    Args:
        V0: operator before SFT, spectrum (d,) or (d, d).
        eta: chain-of-thought step, in (0, 2).
        sources: where the prompts come from.
        target: test covariance Sigma.
        test_length: length n of the test prompts.
        chain_steps: k of the chains of thought; it matters where prompts are noisy, and for ``steps``.
        finite_size: add the O(1/d) correction (docs/derivations/finite_size.md); at convergence alone.
        weights: w_c >= 0 of a prompt of each source in the loss, shape (K,); 1 unless given.
        time, steps, learning_rate, ridge: as in :class:`datadose.theory.Stopping`.

    Raises:
        PeakError: the training converges and the mean error over finite prompts is infinite: the number of
            prompts, of all or of some sources, is within 1 of the rank that they span, or prompts of length
            1 or 2 are interpolated.
        InputError: a value outside its range.
    """
    require_number("eta", eta, 0, 2, open_ends=True)
    target = validate_covariance("target", target)
    n = require_integer("test_length", test_length, 1)
    require_integer("chain_steps", chain_steps, 0)
    stopping = Stopping(time, steps, learning_rate, ridge)
    if weights is not None or not stopping.is_converged:
        _require_plain(finite_size, stopping)
        model = trained(V0, eta, sources, stopping, weights=weights, chain_steps=chain_steps)
        return model.error(target, n)
    equivalent = mixture_equivalent(V0, eta, sources, chain_steps=chain_steps)
    if len(equivalent.mean) != len(target):
        reject("target", f"dimension {len(target)}", f"dimension {len(equivalent.mean)}, as in the sources")
    equivalent.require_finite()
    error = equivalent.error(target, wishart_second_moment(target, n))
    if finite_size:
        lengths = [int(c.length) for c in equivalent.columns]
        error += finite_size_correction(equivalent, eta, lengths, target, n).total
    return error


def _require_plain(finite_size: bool, stopping: Stopping) -> None:
    """The O(1/d) correction is known for converged training with equal weights."""
    if finite_size:
        reject(
            "finite_size", f"True with {stopping} or weights", "True at convergence with equal weights only"
        )


def predict_error(
    shift: Shift,
    prompts: float,
    length: int,
    *,
    form: Form = "exact",
    finite_size: bool = False,
    pretrain_length: int | None = None,
    test_length: int | None = None,
    chain_steps: int = 0,
    time: float | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    ridge: float | None = None,
) -> float:
    """Predicted post-test error / d after SFT on ``prompts`` prompts of length ``length``.

    To convergence, unless a time, a number of steps or a penalty is given. The error on Sigma0, and the part
    of the error that more prompts would remove, are those of the model that
    :func:`datadose.theory.trained_on_shift` returns.

    Args:
        shift: Sigma0, Delta, A and eta.
        prompts: B >= 0, may be fractional (the theory is smooth in it).
        length: post-training prompt length n.
        form: ``exact``, ``first-order`` or ``as-printed`` (two-block shifts with A full rank only).
        finite_size: add the O(1/d) correction to the exact form (there is none for the others).
        pretrain_length, test_length: prompt lengths of the other stages; ``length`` unless given.
        chain_steps: k of the chains of thought, which sets the clock of ``steps``.
        time, steps, learning_rate, ridge: as in :class:`datadose.theory.Stopping`; with the exact form alone.

    Raises:
        PeakError: the training converges and the mean error over finite prompts is infinite: ``prompts`` is
            within 1 of rank(A) and not 0, or (exact form) between 1 and rank(A) while ``length`` is 1 or 2.
        InputError: any other value out of range.
    """
    B = require_number("prompts", prompts, 0, np.inf)
    if form not in FORMS:
        reject("form", form, ", ".join(FORMS))
    if finite_size and form != "exact":
        reject("finite_size", f"True with form {form}", "True with form exact only")
    stages = _Stages.of(shift, length, pretrain_length, test_length)
    stopping = Stopping(time, steps, learning_rate, ridge)
    if not stopping.is_converged:
        _require_plain(finite_size, stopping)
        if form != "exact":
            reject("form", form, "exact where training is stopped or penalised")
        return float(stages.stopped([B], stopping, chain_steps)[0])
    return stages.converged(shift, B, form, finite_size=finite_size)


def _peak(B: float, n: int, rank: int) -> PeakError:
    """What is raised where B prompts of length n on so many directions have an infinite mean error."""
    if abs(B - rank) <= FINITE_MEAN:
        where = f"B within 1 of rank(A) = {rank}"
        allowed = f"any number more than 1 away from rank(A) = {rank}:"
    else:
        short = f"length <= 2 and 1 <= B <= rank(A) = {rank}"
        where = short if rank >= B else "rank(A) = 1 and length * B <= 4"
        enough = "4" if rank == 1 else f"rank(A) = {rank}"
        allowed = f"more than {enough} where prompts have length {n}: with fewer"
    allowed += " the mean error is infinite there"
    return PeakError("prompts", f"{B:g}", allowed, f"{where}: the mean is infinite there")


class _Stages(NamedTuple):
    """The lengths of all stages, A's eigenvalues, and in its eigenbasis the pretrained operator and Sigma."""

    eta: float
    length: int
    pretrain_length: int
    test_length: int
    spectrum: Array
    start: Array
    target: Array

    @classmethod
    def of(
        cls, shift: Shift, length: int, pretrain_length: int | None = None, test_length: int | None = None
    ) -> _Stages:
        n = require_integer("length", length, 1)
        n_test = n if test_length is None else require_integer("test_length", test_length, 1)
        n_pretrain = n if pretrain_length is None else require_integer("pretrain_length", pretrain_length, 1)
        start, target = pretrained_operator(shift.sigma0, n_pretrain), shift.target
        spectrum, basis = spectral_basis(shift.data)
        if basis is not None:
            start, target = rotated(start, basis), rotated(target, basis)
        return cls(shift.eta, n, n_pretrain, n_test, spectrum, start, target)

    def errors(self, prompts: ArrayLike) -> Array:
        """The exact error along the number of prompts."""
        columns = Source(self.spectrum, self.length, 1).columns(self.eta, 1)
        M = wishart_second_moment(self.target, self.test_length)
        return OneSource(self.start, self.eta, columns, self.target, M).errors(prompts)

    def converged(self, shift: Shift, B: float, form: Form, *, finite_size: bool) -> float:
        """The error at convergence in one of the forms."""
        n, rank = self.length, int((self.spectrum > 0).sum())
        near = B > 0 < rank and abs(B - rank) <= FINITE_MEAN
        if near or (form == "exact" and infinite_mean(B, rank, n)):
            raise _peak(B, n, rank)
        if form == "exact" and not finite_size:
            return float(self.errors([B])[0])
        source, test = Source(self.spectrum, n, B), (self.target, self.test_length)
        if form == "exact":
            return mixture_error(self.start, self.eta, [source], *test, finite_size=True)
        if form == "first-order":
            return first_order_error(self.start, self.eta, source, *test)
        if (self.pretrain_length, self.test_length) != (n, n):
            reject("form", form, "exact or first-order when the stages' lengths differ")
        return printed_error(shift, B, n)

    def stopped(self, prompts: ArrayLike, stopping: Stopping, chain_steps: int) -> Array:
        """The exact error along the number of prompts where training does not converge."""
        counts, source = np.asarray(prompts, dtype=np.float64), Source(self.spectrum, self.length, 1)
        test = WeightedTest.of(self.target, self.test_length)
        if stopping.ridge is not None:
            return EffectivePenalty.of(self.start, self.eta, source, test).errors(counts, stopping.ridge)
        models = (
            trained(self.start, self.eta, [replace(source, prompts=B)], stopping, chain_steps=chain_steps)
            for B in counts.tolist()
        )
        return np.array([test.error(model) for model in models])


def predict_curve(
    shift: Shift,
    prompts: ArrayLike,
    length: int,
    *,
    pretrain_length: int | None = None,
    test_length: int | None = None,
    chain_steps: int = 0,
    time: float | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    ridge: float | None = None,
) -> Float[Array, " P"]:
    """The exact form of :func:`predict_error` at many numbers of prompts B, in one array: shape (P,), / d.

    Infinite where :func:`predict_error` raises PeakError. Costs as much as a few single points. Dense
    covariances are rotated to the eigenbasis of A first. Arguments as there.

    Raises InputError for prompts that are not finite numbers >= 0, and for lengths out of range.
    """
    try:
        B = np.asarray(prompts, dtype=np.float64)
    except (TypeError, ValueError):
        reject("prompts", prompts, "a sequence of finite numbers >= 0")
    if B.ndim != 1 or not (np.isfinite(B) & (B >= 0)).all():
        reject("prompts", prompts, "a sequence of finite numbers >= 0")
    stages = _Stages.of(shift, length, pretrain_length, test_length)
    stopping = Stopping(time, steps, learning_rate, ridge)
    if stopping.is_converged:
        return stages.errors(B)
    return stages.stopped(B, stopping, chain_steps)


def first_order_error(V0: Operator, eta: float, source: Source, target: Operator, test_length: int) -> float:
    """The limit of Err(V~) / d for V~ = VS + VN of eq. (B.3): Thm B.1 corrected, for any PSD matrices.

    VS is V* on noise-free columns phi = A w, so it is the same theorem with C = A^2; VN adds the columns'
    noise, of covariance (tr A / n) A, to first order. With kappa the leverage and
    quad(M) = (1/d) E tr(VS M VS^T):
    (1/d) E||I + VS Sigma||^2 + (tr Sigma/n) quad(Sigma)
    + (tr A/n) quad(A) [kappa(Sigma^2) + (tr Sigma/n) kappa(Sigma)].
    Like the theorem it drops terms of order 1/n that carry no trace.

    Args:
        V0: operator before SFT, a spectrum (d,) or a matrix (d, d).
        eta: chain-of-thought step, in (0, 2).
        source: the prompts: covariance A, length n and their number B, without noise.
        target: test covariance Sigma, a spectrum (d,) or a PSD matrix (d, d).
        test_length: length >= 1 of the test prompts.

    Raises PeakError where ``source.prompts`` equals rank(A), InputError for a value out of range.
    """
    A = validate_covariance("covariance", source.covariance)
    target = validate_covariance("target", target, len(A))
    V0 = validate_operator("V0", V0, len(A))
    n = require_integer("test_length", test_length, 1)
    length = require_integer("length", source.length, 1)
    prompts = require_number("prompts", source.prompts, 0, np.inf)
    A, basis = spectral_basis(A)
    if basis is not None:
        V0, target = rotated(V0, basis), rotated(target, basis)
    clean = deterministic_equivalent(V0, eta, [Columns(prompts, A**2, A)])
    squared = product(target, target)
    noise = trace(A) / length * clean.quadratic(A)

    def kappa(M: Array) -> float:
        return float(clean.leverages(M).sum())

    return (
        clean.error(target, squared)
        + trace(target) / n * clean.quadratic(target)
        + noise * (kappa(squared) + trace(target) / n * kappa(target))
    )


def first_order_limits(shift: Shift, length: int) -> tuple[float, float]:
    """The limits F(0) and F(infinity) of the first-order theory, both divided by d (Prop B.2).

    F(0) = sum mu alpha^2 + gamma Sbar sum mu Sigma g^2 and
    F(inf) = sum mu (alpha + delta)^2 + gamma Sbar sum mu Sigma (g + dt)^2, where V = g on each direction
    before SFT and V = g + dt = -eta / a after it. They hold for any PSD matrices; directions outside range(A)
    stay at g. ``shift`` gives Sigma0, Delta, A and eta, and ``length`` >= 1 is n of all prompts.
    """
    stages = _Stages.of(shift, length)
    V0, a, target = stages.start, stages.spectrum, stages.target
    inside = a > 0
    kept = product(V0, np.where(inside, 0.0, 1.0))
    after = plus(kept, np.where(inside, -shift.eta / np.where(inside, a, 1.0), 0.0))
    form = product(target, target) + trace(target) / stages.length * target
    return quadratic_error(V0, target, form), quadratic_error(after, target, form)
