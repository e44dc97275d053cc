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
from datadose.error_curve import ErrorCurve
from datadose.errors import reject, require_choice, require_integer, require_kind, require_number
from datadose.shapes import Array, Operator
from datadose.shift import Shift
from datadose.theory.columns import FINITE_MEAN
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.equivalent import Equivalent, deterministic_equivalent
from datadose.theory.equivalent import PeakError as PeakError  # noqa: PLC0414  (its public home)
from datadose.theory.finite_size import finite_size_correction
from datadose.theory.first_order import first_order_error as first_order_error  # noqa: PLC0414  (its older home)
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
    """Predict the post-test error / d after SFT on several sources: any PSD matrices, any start.

    Training converges (V = V*) unless a time, steps or a penalty is given. The model itself, whose error on
    any other test follows, is :func:`datadose.theory.trained`. Source: docs/derivations/exact_asymptotics.md.

    Args:
        V0: operator before SFT, a spectrum (d,) or a matrix (d, d).
        eta: step of the ground-truth chain of thought, in (0, 2).
        sources: the K sources that the prompts come from.
        target: covariance Sigma of the test prompts, (d,) or (d, d).
        test_length: length n >= 1 of the test prompts.
        chain_steps: k >= 0 of the chains of thought; it matters where prompts are noisy, and for ``steps``.
        finite_size: whether to add the O(1/d) correction (docs/derivations/finite_size.md); at convergence.
        weights: weight w_c >= 0 of a prompt of each source in the loss, shape (K,); 1 unless given.
        time, steps, learning_rate, ridge: as in :class:`datadose.theory.Stopping`.

    Returns:
        The predicted error divided by d.

    Raises:
        PeakError: training converges and the mean error over finite prompts is infinite: the prompts of all
            or of some sources are within 1 of the rank that they span, or those of length <= 2 interpolated.
        InputError: a value out of range.

    Example:
        >>> import numpy as np
        >>> from datadose import Source, mixture_error
        >>> pool = [Source(np.full(40, 0.2), 40, 60), Source(np.full(40, 0.2), 40, 60, label_noise=1)]
        >>> round(mixture_error(-np.ones(40), 0.2, pool, target=np.full(40, 2.0), test_length=40), 3)
        1.954
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
    return _converged_error(equivalent, eta, target, n, finite_size)


def _converged_error(
    equivalent: Equivalent, eta: float, target: Operator, n: int, finite_size: bool
) -> float:
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
    """Predict the post-test error / d after SFT on a number of prompts: exact asymptotics, or Thm B.1.

    Training converges unless a time, steps or a penalty is given (docs/derivations/exact_asymptotics.md).
    Where the mean error is infinite PeakError says why; :func:`predict_curve` has infinity in that place. The
    error on Sigma0 is that of the model which :func:`datadose.theory.trained_on_shift` returns.

    Args:
        shift: Sigma0, Delta, A and eta.
        prompts: number B >= 0, which may be fractional: the theory is smooth in it. 0 is no SFT.
        length: length n >= 1 of the prompts of SFT.
        form: ``exact``, ``first-order`` (Thm B.1 corrected) or ``as-printed`` (two-block, A of full rank).
        finite_size: whether to add the O(1/d) correction to the exact form (there is none for the others).
        pretrain_length, test_length: prompt lengths >= 1 of the other stages; ``length`` unless given.
        chain_steps: k >= 0 of the chains of thought, which sets the clock of ``steps``.
        time, steps, learning_rate, ridge: as in :class:`datadose.theory.Stopping`; with the exact form alone.

    Returns:
        The predicted error divided by d.

    Raises:
        PeakError: training converges and the mean error over finite prompts is infinite: ``prompts`` is
            within 1 of rank(A) and not 0, or (exact form) between 1 and rank(A) while ``length`` is 1 or 2.
        InputError: any other value out of range.

    Example:
        >>> from datadose import Shift, predict_error
        >>> round(predict_error(Shift.two_block(40, 20, 0.1, 0.2, 0.1), prompts=10, length=40), 3)
        1.728
    """
    B = require_number("prompts", prompts, 0, np.inf)
    stages = _Stages.of(shift, length, pretrain_length, test_length)
    stopping = Stopping(time, steps, learning_rate, ridge)
    _require_form(form, finite_size, stopping)
    if not stopping.is_converged:
        return float(stages.stopped([B], stopping, chain_steps)[0])
    return stages.converged(shift, B, form, finite_size=finite_size)


def _require_form(form: Form, finite_size: bool, stopping: Stopping) -> None:
    """InputError for a form or a correction that is not known for such training."""
    require_choice("form", form, FORMS)
    if finite_size and form != "exact":
        reject("finite_size", f"True with form {form}", "True with form exact only")
    if not stopping.is_converged:
        _require_plain(finite_size, stopping)
        if form != "exact":
            reject("form", form, "exact where training is stopped or penalised")


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
        require_kind("shift", shift, Shift, "Shift.two_block(400, 200, 0.1, 0.2)")
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
) -> ErrorCurve:
    """Predict the post-test error / d at many numbers of prompts at once.

    The numbers are those of the exact form of :func:`predict_error`, for the price of a few of them, and
    infinite where that function raises PeakError.

    Args:
        shift: Sigma0, Delta, A and eta.
        prompts: numbers of prompts B >= 0, shape (P,), or one of them.
        length: length n >= 1 of the prompts of SFT.
        pretrain_length: length of the pretraining prompts, >= 1; ``length`` unless given.
        test_length: length of the test prompts, >= 1; ``length`` unless given.
        chain_steps: k >= 0 of the chains of thought, which sets the clock of ``steps``.
        time: time T >= 0 of gradient flow after which training stops; training converges unless one is given.
        steps: number of steps >= 0 of gradient descent after which it stops; needs ``learning_rate``.
        learning_rate: their size > 0.
        ridge: penalty L >= 0 of ||V - V0||_F^2 beside the loss, summed over rows.

    Returns:
        The predicted errors divided by d, a float64 array of shape (P,).

    Raises:
        InputError: prompts that are not finite numbers >= 0, or another value out of range.

    Example:
        >>> from datadose import Shift, predict_curve
        >>> predict_curve(Shift.two_block(40, 20, 0.1, 0.2, 0.1), [0, 10, 40, 100], length=40)
        ErrorCurve(prompts=[0, 10, 40, 100], predicted=[1.91, 1.728, inf, 1.342])
    """
    try:
        B = np.atleast_1d(np.asarray(prompts, dtype=np.float64))
    except (TypeError, ValueError):
        reject("prompts", prompts, "a sequence of finite numbers >= 0")
    if B.ndim != 1 or not (np.isfinite(B) & (B >= 0)).all():
        reject("prompts", prompts, "a sequence of finite numbers >= 0")
    stages = _Stages.of(shift, length, pretrain_length, test_length)
    stopping = Stopping(time, steps, learning_rate, ridge)
    errors = stages.errors(B) if stopping.is_converged else stages.stopped(B, stopping, chain_steps)
    return ErrorCurve(B, errors, "predicted")


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
