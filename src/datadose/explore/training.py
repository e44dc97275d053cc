"""The numbers behind *How long?* and behind the weights of a pool: training that is stopped before its end.

Like :mod:`datadose.explore.answers` it calls the theory and remembers; errors are post-test errors / d.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datadose.covariance import Array
from datadose.explore.answers import SFT_IGNORES, STAGES, error_model, remembered
from datadose.explore.setting import FIRST, LAST, WEIGHTS, Setting
from datadose.theory.effective_weights import EffectiveSources
from datadose.theory.equivalent import PeakError
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.time_search import BestTime, best_time, best_time_curve
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.training_time import trained
from datadose.theory.tuned_weights import tuned_weights
from datadose.theory.unlimited import UnlimitedFlow
from datadose.theory.weighted_test import WeightedTest

_PER_DECADE = 3
"""Times a decade of the curves over time; the best time is first looked for there."""
_NEAR = 0.05
_COUNTS, _TIMED = 6, 12
"""Numbers of prompts at the best time and at one time."""
POOL = ("your data", "like pretraining", "spread evenly")
"""The pool's sources, in the order of :data:`datadose.explore.setting.WEIGHTS`."""
_FEW, _EVEN = 4, 0.25
"""One's own data have so many times fewer prompts than the others. Variance of the even ones over the mean of
one's own."""


@dataclass(frozen=True)
class Errors:
    """One model's errors / d."""

    target: float
    known: float
    """On Sigma0, what was known before."""


def errors_of(setting: Setting, model: TrainedOperator) -> Errors:
    """The errors of a model of this setting."""
    shift, n = setting.shift(), setting.length
    return Errors(model.error(shift.target, n), model.error(shift.sigma0, n))


@dataclass(frozen=True)
class LongRun:
    """Training on all prompts there are, over time."""

    times: Array
    """t in [FIRST, LAST], shape (T,)."""
    target: Array
    """Errors on the target at these times, (T,)."""
    known: Array
    """The same on Sigma0."""
    before: Errors
    """Of the untouched model."""
    converged: Errors | None
    """None where the mean is infinite."""
    best: BestTime
    at_best: Errors
    near: tuple[float, float]
    """Times within 5 percent of the best."""


def _source(setting: Setting) -> Source:
    return Source(setting.shift().data, setting.length, setting.max_prompts)


def _target(setting: Setting) -> WeightedTest:
    return WeightedTest.of(setting.shift().target, setting.length)


@remembered(*SFT_IGNORES)
def long_run(setting: Setting) -> LongRun:
    """The error on the target and on Sigma0 over time, for all prompts of the paper's data."""
    V0, known = error_model(setting).V0, WeightedTest.of(setting.shift().sigma0, setting.length)
    request = (V0, setting.eta, [_source(setting)], _target(setting))
    best = best_time(*request, per_decade=_PER_DECADE, also=[known])
    seen = (best.grid >= FIRST) & (best.grid <= LAST)
    return LongRun(
        best.grid[seen],
        best.errors[seen],
        best.also[0][seen],
        errors_of(setting, TrainedOperator.fixed(V0)),
        _ends(setting, Stopping()),
        best,
        errors_of(setting, best.model),
        best.near(_NEAR),
    )


@remembered(*SFT_IGNORES, uses=("time",))
def at_time(setting: Setting) -> Errors | None:
    """The errors at the training time of the setting; None where the mean is infinite."""
    return _ends(setting, setting.stopping())


def _ends(setting: Setting, stopping: Stopping) -> Errors | None:
    try:
        model = trained(error_model(setting).V0, setting.eta, [_source(setting)], stopping)
    except PeakError:
        return None
    return errors_of(setting, model)


@dataclass(frozen=True)
class StoppedCurve:
    """Errors / d against the number of prompts."""

    prompts: tuple[int, ...]
    errors: tuple[float, ...]


def _counts(largest: int, number: int) -> tuple[int, ...]:
    return tuple(int(B) for B in np.unique(np.geomspace(3, largest, number).round()))


@remembered(*SFT_IGNORES)
def ceiling(setting: Setting) -> float:
    """The error at the best time with unlimited prompts."""
    flow = UnlimitedFlow.of(error_model(setting).V0, setting.eta, [_source(setting)])
    return flow.ceiling(_target(setting), [1.0])[0]


@remembered(*SFT_IGNORES)
def at_best_times(setting: Setting) -> StoppedCurve:
    """The error at the best time along the number of prompts."""
    counts, start = _counts(setting.max_prompts, _COUNTS), error_model(setting).V0
    found = best_time_curve(start, setting.eta, _source(setting), _target(setting), counts[:-1])
    return StoppedCurve(counts, (*found.tolist(), long_run(setting).best.error))


@remembered(*SFT_IGNORES, uses=("time",))
def at_one_time(setting: Setting) -> StoppedCurve | None:
    """The error at the setting's time along the number of prompts; None for convergence."""
    stopping, test = setting.stopping(), _target(setting)
    if stopping.is_converged:
        return None
    V0, data, n = error_model(setting).V0, setting.shift().data, setting.length
    counts = _counts(setting.max_prompts, _TIMED)
    models = (trained(V0, setting.eta, [Source(data, n, B)], stopping) for B in counts)
    return StoppedCurve(counts, tuple(test.error(model) for model in models))


# --- a pool -----------------------------------------------------------------------------------------------


def pool(setting: Setting) -> list[Source]:
    """The sources of the pool: a few of the data as dragged, and many prompts of two other kinds.

    Those like pretraining's have the spectrum eta Sigma0, for which the chain's step is right where nothing
    has shifted. Those that are spread evenly have little variance in every direction: they mislead.
    """
    data, n, most = setting.dragged_data(), setting.length, setting.max_prompts
    even = np.full(len(data), data.mean() * _EVEN)
    spectra = (data, setting.eta * setting.shift().sigma0, even)
    counts = (most // _FEW, most, most)
    return [Source(spectrum, n, B) for spectrum, B in zip(spectra, counts, strict=True)]


@dataclass(frozen=True)
class Weighed:
    """Training on the pool under one choice of weights."""

    weights: tuple[float, ...]
    best: BestTime
    at_best: Errors
    shares: tuple[float, ...]
    """Of each source in a batch."""


def _weighed(setting: Setting, weights: Sequence[float]) -> Weighed:
    sources = pool(setting)
    best = best_time(
        error_model(setting).V0,
        setting.eta,
        sources,
        _target(setting),
        weights=weights,
        per_decade=_PER_DECADE,
    )
    taken = np.array([w * source.prompts for w, source in zip(weights, sources, strict=True)])
    return Weighed(
        tuple(weights), best, errors_of(setting, best.model), tuple((taken / taken.sum()).tolist())
    )


@remembered(*STAGES, uses=WEIGHTS)
def weighed(setting: Setting) -> Weighed:
    """The pool at the setting's weights. Raises InputError where all sources are left out."""
    return _weighed(setting, setting.weights())


def equally_weighed(setting: Setting) -> Weighed:
    """The pool where every row counts alike."""
    return weighed(setting.without(*WEIGHTS))


@remembered(*STAGES)
def tuned(setting: Setting) -> Weighed | None:
    """The pool at the weights that are best with a penalty, trained for the time that is best with them.

    None where the best is to use no source at all.
    """
    sources = EffectiveSources.of(error_model(setting).V0, setting.eta, pool(setting))
    found = tuned_weights(sources, _target(setting)).weights
    return _weighed(setting, found.tolist()) if found.any() else None
