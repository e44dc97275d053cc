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
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from datadose.covariance import (
    Array,
    dense,
    product,
    rotated,
    same_form,
    spectral_basis,
    trace,
    validate_covariance,
    wishart_second_moment,
)
from datadose.errors import reject, require_integer, require_number
from datadose.shift import Shift
from datadose.theory.equivalent import Columns, Equivalent, Pair, PeakError, deterministic_equivalent
from datadose.theory.finite_size import finite_size_correction
from datadose.theory.one_source import OneSource
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.printed import printed_error
from datadose.theory.sft import chain_weight

Form: TypeAlias = Literal["exact", "first-order", "as-printed"]
FORMS: tuple[Form, ...] = ("exact", "first-order", "as-printed")


@dataclass(frozen=True)
class Source:
    """A source of post-training prompts: covariance A_c, length n_c, number B_c (real), noise variances."""

    covariance: Array
    length: int
    prompts: float
    label_noise: float = 0.0
    """Variance s^2 of the noise in the prompts' labels y_i = <w*, x_i> + eps_i."""
    demonstration_noise: float = 0.0
    """Variance t^2 per dimension of the noise in the chain of thought's thoughts w_{i+1} + nu_i."""

    def columns(self, eta: float, chain_steps: int) -> Columns:
        """Second moments C_c = (1 + 1/n) A^2 + (tr A / n) A and A_c, and what noise adds to them.

        Demonstration noise leaves t^2/c_k in the answers. Label noise adds (s^2/n) A to C_c for a chain of
        one step (k = 0); for k >= 1 it makes a second feature h of that second moment (section 9 of
        docs/derivations/exact_asymptotics.md).
        """
        A = validate_covariance("covariance", self.covariance)
        require_number("prompts", self.prompts, 0, np.inf)
        n = require_integer("length", self.length, 1)
        label = require_number("label_noise", self.label_noise, 0, np.inf)
        demonstration = require_number("demonstration_noise", self.demonstration_noise, 0, np.inf)
        second_moment, pair = wishart_second_moment(A, n), None
        weight = chain_weight(eta, chain_steps)
        if label > 0 and chain_steps == 0:
            second_moment = second_moment + label / n * A
        elif label > 0:
            linear = float(((1 - eta) ** np.arange(chain_steps + 1)).sum())
            weights = np.array([[weight, linear], [linear, chain_steps + 1]]) / weight
            pair = Pair(label / n * A, weights)
        return Columns(self.prompts, second_moment, A, demonstration / weight, pair)


def mixture_equivalent(
    V0: Array, eta: float, sources: Sequence[Source], *, chain_steps: int = 0
) -> Equivalent:
    """The deterministic equivalent of V* after SFT from ``V0`` on ``sources``.

    ``chain_steps`` = k matters where prompts are noisy. If all sources are spectra they stay so even if
    ``V0`` is dense, which is the quick way for one source in its own eigenbasis.
    """
    columns = [source.columns(eta, chain_steps) for source in sources]
    if any(c.cross.ndim > 1 for c in columns):
        columns = [_dense_columns(c) for c in columns]
        V0 = dense(V0)
    return deterministic_equivalent(V0, eta, columns)


def _dense_columns(c: Columns) -> Columns:
    pair = None if c.pair is None else replace(c.pair, second_moment=dense(c.pair.second_moment))
    return replace(c, second_moment=dense(c.second_moment), cross=dense(c.cross), pair=pair)


def mixture_error(
    V0: Array,
    eta: float,
    sources: Sequence[Source],
    target: Array,
    test_length: int,
    *,
    chain_steps: int = 0,
    finite_size: bool = False,
) -> float:
    """Exact asymptotic Err(V*) / d after SFT from ``V0`` on K sources, any PSD matrices, any V0.

    Args:
        V0: operator before SFT, spectrum (d,) or (d, d).
        eta: chain-of-thought step, in (0, 2).
        sources: where the prompts come from.
        target: test covariance Sigma.
        test_length: length n of the test prompts.
        chain_steps: k of the chains of thought; it matters where prompts are noisy.
        finite_size: add the O(1/d) correction (docs/derivations/finite_size.md).

    Raises:
        PeakError: the number of prompts equals the rank of the data, of all or of some sources (with
            ``finite_size``: is within 1).
        InputError: a value outside its range.
    """
    require_number("eta", eta, 0, 2, open_ends=True)
    target = validate_covariance("target", target)
    n = require_integer("test_length", test_length, 1)
    require_integer("chain_steps", chain_steps, 0)
    equivalent = mixture_equivalent(V0, eta, sources, chain_steps=chain_steps)
    error = equivalent.error(target, wishart_second_moment(target, n))
    if finite_size:
        lengths = [source.length for source in sources if source.prompts > 0]
        error += finite_size_correction(equivalent, eta, lengths, target, n).total
    return error


def predict_error(
    shift: Shift,
    prompts: float,
    length: int,
    *,
    form: Form = "exact",
    finite_size: bool = False,
    pretrain_length: int | None = None,
    test_length: int | None = None,
) -> float:
    """Predicted post-test error / d after SFT on ``prompts`` prompts of length ``length``.

    Args:
        shift: Sigma0, Delta, A and eta.
        prompts: B >= 0, may be fractional (the theory is smooth in it).
        length: post-training prompt length n.
        form: ``exact``, ``first-order`` or ``as-printed`` (two-block shifts with A full rank only).
        finite_size: add the O(1/d) correction to the exact form (there is none for the others).
        pretrain_length, test_length: prompt lengths of the other stages; ``length`` unless given.

    Raises:
        PeakError: ``prompts`` equals rank(A), where the mean error is infinite.
        InputError: any other value out of range.
    """
    B = require_number("prompts", prompts, 0, np.inf)
    n = require_integer("length", length, 1)
    n_test = n if test_length is None else require_integer("test_length", test_length, 1)
    n_pretrain = n if pretrain_length is None else require_integer("pretrain_length", pretrain_length, 1)
    if form not in FORMS:
        reject("form", form, ", ".join(FORMS))
    if finite_size and form != "exact":
        reject("finite_size", f"True with form {form}", "True with form exact only")
    V0 = pretrained_operator(shift.sigma0, n_pretrain)
    if form == "exact":
        return mixture_error(
            V0, shift.eta, [Source(shift.data, n, B)], shift.target, n_test, finite_size=finite_size
        )
    if form == "first-order":
        return first_order_error(V0, shift.eta, Source(shift.data, n, B), shift.target, n_test)
    if (n_pretrain, n_test) != (n, n):
        reject("form", form, "exact or first-order when the stages' lengths differ")
    return printed_error(shift, B, n)


def predict_curve(
    shift: Shift,
    prompts: ArrayLike,
    length: int,
    *,
    pretrain_length: int | None = None,
    test_length: int | None = None,
) -> Array:
    """The exact form of :func:`predict_error` at many numbers of prompts B, in one array: shape (P,), / d.

    Infinite at the peak, B = rank(A). Costs as much as a few single points. Dense covariances are rotated to
    the eigenbasis of A first. Arguments as there.

    Raises InputError for prompts that are not finite numbers >= 0, and for lengths out of range.
    """
    B = np.asarray(prompts, dtype=np.float64)
    if B.ndim != 1 or not (np.isfinite(B) & (B >= 0)).all():
        reject("prompts", prompts, "a sequence of finite numbers >= 0")
    n = require_integer("length", length, 1)
    n_test = n if test_length is None else require_integer("test_length", test_length, 1)
    n_pretrain = n if pretrain_length is None else require_integer("pretrain_length", pretrain_length, 1)
    V0, target = pretrained_operator(shift.sigma0, n_pretrain), shift.target
    spectrum, basis = spectral_basis(shift.data)
    if basis is not None:
        V0, target = rotated(V0, basis), rotated(target, basis)
    columns = Source(spectrum, n, 1).columns(shift.eta, 1)
    return OneSource(V0, shift.eta, columns, target, wishart_second_moment(target, n_test)).errors(B)


def first_order_error(V0: Array, eta: float, source: Source, target: Array, test_length: int) -> float:
    """Thm B.1 corrected, for any PSD matrices: the limit of Err(V~) / d, V~ = VS + VN of eq. (B.3).

    VS is V* on noise-free columns phi = A w, so it is the same theorem with C = A^2; VN adds the columns'
    noise, of covariance (tr A / n) A, to first order. With kappa the leverage and
    quad(M) = (1/d) E tr(VS M VS^T):
    (1/d) E||I + VS Sigma||^2 + (tr Sigma/n) quad(Sigma)
    + (tr A/n) quad(A) [kappa(Sigma^2) + (tr Sigma/n) kappa(Sigma)].
    Like the theorem it drops terms of order 1/n that carry no trace.
    """
    A = validate_covariance("covariance", source.covariance)
    V0, A, target = same_form(V0, A, target)
    clean = deterministic_equivalent(V0, eta, [Columns(source.prompts, product(A, A), A)])
    squared = product(target, target)
    mean_trace = trace(target) / test_length
    noise = trace(A) / source.length * clean.quadratic(A)

    def kappa(M: Array) -> float:
        return float(clean.leverages(M).sum())

    return (
        clean.error(target, squared)
        + mean_trace * clean.quadratic(target)
        + noise * (kappa(squared) + mean_trace * kappa(target))
    )


def first_order_limits(shift: Shift, length: int) -> tuple[float, float]:
    """Prop B.2: F(0) and F(infinity) of the first-order theory, divided by d.

    F(0) = sum mu alpha^2 + gamma Sbar sum mu Sigma g^2 and
    F(inf) = sum mu (alpha + delta)^2 + gamma Sbar sum mu Sigma (g + dt)^2, where V = g on each direction
    before and V = g + dt = -eta / a after; for any PSD matrices, directions outside range(A) stay at g.
    """
    n = require_integer("length", length, 1)
    V0 = pretrained_operator(shift.sigma0, n)
    before = first_order_error(V0, shift.eta, Source(shift.data, n, 0), shift.target, n)
    # The limit is the error of the minimiser of the noise-free population loss, with no variance left.
    infinite = 1e12 * shift.dimension
    after = first_order_error(V0, shift.eta, Source(shift.data, n, infinite), shift.target, n)
    return before, after


__all__ = [
    "FORMS",
    "Form",
    "PeakError",
    "Source",
    "first_order_error",
    "first_order_limits",
    "mixture_equivalent",
    "mixture_error",
    "predict_curve",
    "predict_error",
]
