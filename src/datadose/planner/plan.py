"""From a shift to a decision: how many prompts, of which kind, from which source, at which stage."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datadose.configs import load_config, read_covariance
from datadose.covariance import (
    RELATIVE_ZERO,
    Array,
    is_spectrum,
    null_basis,
    plus,
    product,
    range_basis,
    range_projector,
    spectral_basis,
    transpose,
)
from datadose.errors import reject, require_integer, require_number
from datadose.planner.allocation import AllocationProblem, Budget, optimise_allocation, spent
from datadose.planner.config import PlanConfig, SourceConfig
from datadose.planner.counts import PoolSource, SourceAdvice, plan_counts
from datadose.planner.dose import COARSE, Dose, dose_of
from datadose.planner.dynamics import Ground, PostTraining, State
from datadose.planner.error_model import ErrorModel, rotated_columns
from datadose.planner.search import SearchRecord
from datadose.planner.stage_choice import StageChoice, choose_stage, error_is_known
from datadose.shift import Shift
from datadose.theory.asymptotics import Source
from datadose.theory.equivalent import Columns
from datadose.theory.outcome import adaptation_radius
from datadose.theory.pretraining import pretrained_operator

_LENGTHS = (0.25, 0.5, 2.0, 4.0)


WORTHWHILE = 1e-3
"""A relative gain below this is not told: rounding alone shows one where the paper's allocation is best."""


@dataclass(frozen=True)
class BetterAllocation:
    """The allocation that the planner would collect instead, under the budget."""

    allocation: Array
    """Covariance, in the form of the shift."""
    prompts: int
    predicted_error: float
    budget: float
    kind: Budget
    gain: float
    """By how much of itself the error falls, to order 1/d: 0 where nothing better was found."""
    search: SearchRecord
    """How the search for it went: descents, those that did not move, failed or were refused."""


@dataclass(frozen=True)
class Plan:
    """A decision and the numbers behind it; errors are predicted post-test errors / d."""

    prompts: int
    predicted_error: float
    error_before: float
    error_at_max_prompts: float | None
    """At ``max_prompts``; with sources with as many prompts of them as there are up to that, in the pool's
    proportions. None at a peak, where the mean error is infinite."""
    near_optimal: tuple[int, int] | None
    """The range of B around the best with an error within 5 percent of it (None with sources)."""
    allocation: Array
    """The data covariance that the numbers above are for (with sources: that of the planned mixture)."""
    spectral_radius: float
    regime: str
    recommendation: str
    curve: tuple[tuple[int, float | None], ...]
    dose: Dose | None
    by_length: tuple[tuple[int, int, float], ...]
    """(length n, best B, error) at other prompt lengths of the post-training data."""
    better: BetterAllocation | None
    stages: StageChoice | None
    sources: tuple[SourceAdvice, ...] | None
    search: SearchRecord | None
    """How the search for the sources' counts went (None without sources)."""
    best_eta: tuple[float, int, float] | None
    """(eta, best B, error) over a grid of eta with the paper's allocation for each."""
    note: str | None = None
    """Why ``predicted_error`` may be far off; None where nothing speaks against it."""

    def to_json(self) -> dict[str, Any]:
        """The document that `datadose plan --json` prints."""
        document: dict[str, Any] = {
            "prompts": self.prompts,
            "predicted_error": self.predicted_error,
            "note": self.note,
            "error_before": self.error_before,
            "error_at_max_prompts": self.error_at_max_prompts,
            "allocation": self.allocation.tolist(),
            "spectral_radius": self.spectral_radius,
            "regime": self.regime,
            "recommendation": self.recommendation,
            "curve": [{"prompts": B, "predicted": error} for B, error in self.curve],
        }
        if self.sources is not None:
            document["sources"] = [asdict(source) for source in self.sources]
        if self.search is not None:
            document["search"] = asdict(self.search)
        document["near_optimal"] = None if self.near_optimal is None else list(self.near_optimal)
        if self.dose is not None:
            for name in ("best_below_peak", "best_above_peak"):
                side = getattr(self.dose, name)
                document[name] = None if side is None else {"prompts": side[0], "predicted": side[1]}
        document["by_length"] = [
            {"length": n, "prompts": B, "predicted_error": error} for n, B, error in self.by_length
        ]
        if self.better is not None:
            document["better_allocation"] = {
                **asdict(self.better),
                "allocation": self.better.allocation.tolist(),
            }
        if self.best_eta is not None:
            document["best_eta"] = dict(
                zip(("eta", "prompts", "predicted_error"), self.best_eta, strict=True)
            )
        if self.stages is not None:
            document["stages"] = asdict(self.stages)
        return document


def plan(
    shift: Shift,
    *positional: int,
    length: int | None = None,
    max_prompts: int | None = None,
    rl_prompts: int | None = None,
    training: PostTraining | None = None,
    sources: Sequence[PoolSource] | None = None,
    budget: tuple[Budget, float] | None = None,
    choose_eta: bool = False,
) -> Plan:
    """Decide how many prompts to take, of which kind, from which source, and at which stage.

    Args:
        shift: Sigma0, Delta, the data's covariance A (see ``Shift.aligned``) and eta. With ``sources`` A is
            not used.
        length: prompt length n of all stages, >= 1.
        max_prompts: the largest number of prompts of SFT, >= 1.
        positional: ``length`` and ``max_prompts`` without names, which warns and will be refused: they are
            easily swapped (:func:`predict_error` takes the prompts first), and either order is a plan.
        rl_prompts: how many target prompts RL has; ``max_prompts`` unless given.
        training: chain length k (of SFT, OS and RL), steps and reward; PostTraining() unless given.
        sources: the pool, to choose counts from.
        budget: (kind, cap) on tr A or tr A^2 for the better allocation; the cost of A itself unless given.
        choose_eta: also look for the best eta, with the paper's allocation for each.

    Raises InputError for values out of range. A zero Delta gives a plan: nothing to adapt to.
    """
    length, max_prompts = _named(positional, length, max_prompts)
    rl_prompts = max_prompts if rl_prompts is None else require_integer("rl_prompts", rl_prompts, 1)
    training = training or PostTraining()
    V0 = pretrained_operator(shift.sigma0, length)
    model = ErrorModel(V0, shift.eta, shift.target, length, training.chain_steps)
    if not shift.delta.any():
        return _nothing_to_adapt_to(shift, model)
    radius = adaptation_radius(shift.sigma0, shift.delta, length)
    dose = better = counts = None
    if sources is None:
        dose, by_length = _doses(shift, model, length, max_prompts)
        better = better_allocation(shift, model, length, max_prompts, dose, budget)
        columns = [replace(model.columns(Source(shift.data, length, 1)), count=float(dose.prompts))]
        allocation = shift.data
    else:
        by_length = ()
        counts = plan_counts(model, sources, max_prompts)
        columns = [
            model.columns(replace(entry.source, prompts=B))
            for entry, B in zip(sources, counts.prompts, strict=True)
        ]
        allocation = _mixture(sources, counts.prompts)
    ground, turned = stage_problem(shift, model, columns, training)
    stages = choose_stage(ground, turned, rl_prompts, radius)
    return Plan(
        prompts=dose.prompts if dose else sum(counts.prompts) if counts else 0,
        predicted_error=dose.error if dose else counts.error if counts else 0.0,
        error_before=model.error([], []),
        error_at_max_prompts=dose.error_at_max if dose else counts.error_at_max if counts else None,
        near_optimal=dose.near_optimal if dose else None,
        allocation=allocation,
        spectral_radius=radius,
        regime=stages.regime,
        recommendation=stages.reason,
        curve=dose.curve if dose else counts.curve if counts else (),
        dose=dose,
        by_length=by_length,
        better=better,
        stages=stages,
        sources=counts.sources if counts else None,
        search=counts.search if counts else None,
        best_eta=_best_eta(shift, V0, length, max_prompts, training) if choose_eta and dose else None,
        note=_caution(ground, turned),
    )


def _caution(ground: Ground, columns: Sequence[Columns]) -> str | None:
    """A warning where the error of the plan's ``columns`` is a limit that finite sizes are far from."""
    found = ground.model.equivalent(columns, [c.count for c in columns])
    correction = ground.correction(State(found.mean, found))
    if error_is_known(correction):
        return None
    size = f"by about {correction:.0%} of it" if np.isfinite(correction) else "by an unknown amount"
    return (
        f"predicted_error is the limit of many directions: with so few the mean differs {size}, and the next "
        "order may be as large"
    )


def _named(positional: Sequence[int], length: int | None, max_prompts: int | None) -> tuple[int, int]:
    """(length, max_prompts) of a call of :func:`plan`, with a warning where they came without names."""
    if positional:
        if len(positional) != 2 or length is not None or max_prompts is not None:
            reject("plan", f"{len(positional)} unnamed numbers", "length=... and max_prompts=..., both named")
        length, max_prompts = positional
        warnings.warn(
            f"plan(shift, {length}, {max_prompts}) is read as length={length}, max_prompts={max_prompts}: "
            "name the two; the next release refuses them without names",
            FutureWarning,
            stacklevel=3,
        )
    return require_integer("length", length, 1), require_integer("max_prompts", max_prompts, 1)


def _nothing_to_adapt_to(shift: Shift, model: ErrorModel) -> Plan:
    error = model.error([], [])
    reason = "no stage: nothing to adapt to (delta is zero), the pretrained model is already the best: B* = 0"
    return Plan(
        0, error, error, None, (0, 0), shift.data, 0.0, "incremental", reason, ((0, error),), None, (), None,
        None, None, None, None,
    )  # fmt: skip


def _doses(
    shift: Shift, model: ErrorModel, length: int, max_prompts: int
) -> tuple[Dose, tuple[tuple[int, int, float], ...]]:
    """The dose at the plan's length and the best (n, B, error) at others, in the data's own eigenbasis."""
    spectrum, basis = spectral_basis(shift.data)
    model = model if basis is None else model.rotated(basis)
    others = [max(1, round(factor * length)) for factor in _LENGTHS]
    found = {n: dose_of(model, spectrum, n, max_prompts, COARSE) for n in sorted({*others})}
    found[length] = dose_of(model, spectrum, length, max_prompts)
    return found[length], tuple((n, found[n].prompts, found[n].error) for n in sorted(found))


def better_allocation(
    shift: Shift,
    model: ErrorModel,
    length: int,
    max_prompts: int,
    dose: Dose,
    budget: tuple[Budget, float] | None = None,
) -> BetterAllocation | None:
    """The allocation to collect instead of ``shift.data``, whose ``dose`` is known.

    Minimises the exact error over the eigenvalues on the shift's directions within ``budget`` (the cost of
    ``shift.data`` unless given); the data outside them are the floor. ``model`` is in the basis of ``shift``.
    None where ``shift.data`` have nothing on the shift's directions: their cost leaves nothing to move.
    """
    kind, cap = budget or ("trace", None)
    basis, start, floor, inside = _allocation_basis(shift)
    model = model if basis is None else model.rotated(basis)
    cap = spent(start, kind) if cap is None else require_number("budget", cap, 0, np.inf, open_ends=True)
    if budget is None and spent(floor, kind) >= cap:
        return None
    problem = AllocationProblem(model, length, start, floor, inside, cap, kind)
    found = optimise_allocation(problem, max_prompts)
    allocation = found.spectrum
    if basis is not None:
        allocation = product(basis, product(allocation, transpose(basis)))
        allocation = (allocation + allocation.T) / 2
    # The start is shift.data but for what that mixes between the shift and the rest.
    gain = max(0.0, 1 - (1 - found.gain) * found.start_error / dose.error)
    return BetterAllocation(allocation, found.dose.prompts, found.dose.error, cap, kind, gain, found.search)


def _allocation_basis(shift: Shift) -> tuple[Array | None, Array, Array, Any]:
    """(basis, eigenvalues of A, floor, which are the shift's): A's part on range(Delta), then its rest.

    What A mixes between the two is left out; the paper's allocation mixes nothing.
    """
    if is_spectrum(shift.delta):
        inside = range_projector(shift.delta) > 0
        return None, shift.data, np.where(inside, 0.0, shift.data), inside
    parts = [range_basis(shift.delta), null_basis(shift.delta)]
    values, vectors = [], []
    for part in parts:
        found = np.linalg.eigh(part.T @ shift.data @ part)
        values.append(np.clip(found[0], 0, None))
        vectors.append(part @ found[1])
    spectrum, inside = np.concatenate(values), np.arange(shift.dimension) < parts[0].shape[1]
    spectrum[spectrum < RELATIVE_ZERO * spectrum.max()] = 0.0
    return np.hstack(vectors), spectrum, np.where(inside, 0.0, spectrum), inside


def _mixture(sources: Sequence[PoolSource], counts: Sequence[int]) -> Array:
    """The covariance of a prompt of the planned mixture; of the whole pool where the plan takes nothing."""
    weights = np.array(counts if sum(counts) else [entry.size for entry in sources], dtype=np.float64)
    shares = weights / weights.sum()
    return plus(*(share * entry.source.covariance for share, entry in zip(shares, sources, strict=True)))


def stage_problem(
    shift: Shift, model: ErrorModel, columns: Sequence[Columns], training: PostTraining
) -> tuple[Ground, list[Columns]]:
    """(ground, columns) of :func:`choose_stage`, in the target's eigenbasis.

    There outcome supervision is elementwise. ``columns`` hold the counts of SFT; ``model`` is in the basis of
    ``shift``. A verifiable reward judges the directions of Delta.
    """
    target, basis = spectral_basis(shift.target)
    judged = range_projector(shift.delta) if is_spectrum(shift.delta) else range_basis(shift.delta)
    if basis is not None:
        model = model.rotated(basis, target)
        judged = transpose(basis) @ judged
        columns = [rotated_columns(c, basis) for c in columns]
    return Ground(model, judged, training), list(columns)


def _best_eta(
    shift: Shift, V0: Array, length: int, max_prompts: int, training: PostTraining
) -> tuple[float, int, float]:
    """(eta, B, error) over a grid of eta, data by the paper's allocation plus A's part off the shift."""
    found = []
    basis, _, floor, _ = _allocation_basis(shift)
    outside = floor if basis is None else product(basis, product(floor, transpose(basis)))
    for eta in np.geomspace(0.05, 1.0, 9):
        data = Shift.aligned(shift.sigma0, shift.delta, float(eta)).data + outside
        model = ErrorModel(V0, float(eta), shift.target, length, training.chain_steps)
        dose = dose_of(model, data, length, max_prompts, COARSE)
        found.append((float(eta), dose.prompts, dose.error))
    return min(found, key=lambda entry: entry[2])


def plan_file(path: Path) -> Plan:
    """The plan for a SHIFT.yaml; covariance files are found beside it.

    Raises InputError naming the line, the field and what is allowed.
    """
    config = load_config(path, PlanConfig)
    folder = path.parent
    sigma0 = read_covariance("sigma0", config.sigma0, folder)
    delta = read_covariance("delta", config.delta, folder, len(sigma0))
    training = PostTraining(config.chain_steps, config.steps, config.reward, config.tolerance, config.noise)
    if config.sources is not None:
        pool = [_pool_source(entry, folder, len(sigma0), config.length) for entry in config.sources]
        everything = _mixture(pool, [entry.size for entry in pool])
        shift = Shift(sigma0, delta, everything, config.eta)
        return plan(
            shift,
            length=config.length,
            max_prompts=config.max_prompts,
            rl_prompts=config.rl_prompts,
            training=training,
            sources=pool,
        )
    if not delta.any():
        shift = Shift(sigma0, delta, sigma0, config.eta)
    else:
        shift = Shift.aligned(sigma0, delta, config.eta, config.interference or 0.0)
    return plan(
        shift,
        length=config.length,
        max_prompts=config.max_prompts,
        rl_prompts=config.rl_prompts,
        training=training,
        budget=None if config.budget is None else (config.budget.kind, config.budget.cap),
        choose_eta=config.choose_eta,
    )


def _pool_source(entry: SourceConfig, folder: Path, dimension: int, length: int) -> PoolSource:
    covariance = read_covariance(f"covariance of source {entry.name}", entry.covariance, folder, dimension)
    source = Source(covariance, entry.length or length, 0, entry.label_noise, entry.demonstration_noise)
    return PoolSource(entry.name, source, entry.size)
