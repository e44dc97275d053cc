"""How many prompts to take from each source, the value of one more, and the cost of noise in prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, minimize

from datadose.covariance import Array
from datadose.equality import ByValue
from datadose.errors import reject, require_integer, require_kind, require_number
from datadose.planner.dose import find_dose
from datadose.planner.error_model import ErrorModel
from datadose.planner.search import Best, SearchRecord, Unsolved, run_search
from datadose.showing import Compact
from datadose.theory.equivalent import Columns, PeakError
from datadose.theory.source import Source

_SHARES = (0.05, 0.15, 0.35, 0.7, 1.0)
_STARTS = 3
_NO_PROMPT = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class PoolSource(ByValue, Compact):
    """A source of a pool that :func:`~datadose.plan` may take prompts from.

    Args:
        name: what the source is called, not empty.
        source: its data; ``source.prompts`` is not used.
        size: number of prompts >= 1 that it has.
        cost: cost > 0 of one prompt in any unit, for a plan of purchases; all sources of a pool have one, or
            none has.

    Raises:
        InputError: an empty name, a ``source`` that is no Source, a size below 1, or a cost that is not above
            0.

    Example:
        >>> import numpy as np
        >>> from datadose import PoolSource, Source
        >>> posts = Source(np.full(50, 0.2), length=100, prompts=0, label_noise=0.5)
        >>> PoolSource("forum", posts, size=2000).size
        2000
    """

    name: str
    source: Source
    size: int
    cost: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            reject("name", self.name, "a name")
        example = "Source(covariance, length=100, prompts=0)"
        require_kind(f"source {self.name}", self.source, Source, example)
        require_integer(f"size of source {self.name}", self.size, 1)
        if self.cost is not None:
            require_number(f"cost of source {self.name}", self.cost, 0, np.inf, open_ends=True)


def require_costs(sources: Sequence[PoolSource]) -> tuple[float | None, ...]:
    """The costs of ``sources``, or as many None. Raises InputError where some have one and others none."""
    costs = tuple(entry.cost for entry in sources)
    if None in costs and any(cost is not None for cost in costs):
        missing = sources[costs.index(None)].name
        reject("cost", f"none for source {missing}", "one for every source, or for none")
    return costs


@dataclass(frozen=True)
class SourceAdvice:
    """What to take from one source and why."""

    name: str
    size: int
    prompts: int
    marginal_value: float | None
    """-dErr/dB_c at the plan: the error / d that one more prompt saves (negative: it dilutes); None where it
    could not be computed."""
    marginal_value_at_all: float | None
    """The marginal value where everything is taken; None next to a peak."""
    noisy_per_clean: float | None
    """How many of its prompts replace one without noise, at the plan; None if none do, or if it has none."""
    clean_error: float | None
    """Predicted error / d of the plan with this source's noise removed; None if it has none."""
    gain_per_cost: float | None = None
    """``marginal_value`` by unit of cost; None without costs."""


@dataclass(frozen=True)
class CountsPlan:
    """The best counts, their error and the advice a source."""

    prompts: tuple[int, ...]
    error: float
    error_at_all: float | None
    """The error / d where everything is taken; None at a peak."""
    error_at_max: float | None
    """Error / d with ``max_prompts`` prompts in the pool's proportions, or all there are; None at a peak."""
    sources: tuple[SourceAdvice, ...]
    curve: tuple[tuple[int, float | None], ...]
    """(total, predicted error / d) with the sources in the plan's proportions, up to their sizes."""
    search: SearchRecord
    """How the search went."""


class _Search:
    """Err as a function of integer counts, remembered."""

    def __init__(self, model: ErrorModel, columns: Sequence[Columns]) -> None:
        self.model, self.columns = model, columns
        self.seen: dict[tuple[int, ...], float] = {}
        self.record = SearchRecord()

    def at(self, counts: Sequence[int] | NDArray[np.int64]) -> float:
        key = tuple(int(B) for B in counts)
        if key not in self.seen:
            try:
                self.seen[key] = self.model.error(self.columns, key)
            except Unsolved:
                self.seen[key], self.record = np.inf, self.record + SearchRecord(unsolved=1)
        return self.seen[key]

    @property
    def best(self) -> tuple[int, ...]:
        """The counts with the smallest error so far; the fewest prompts among equals."""
        return min(self.seen, key=lambda counts: (self.seen[counts], sum(counts), counts))


def plan_counts(model: ErrorModel, pool: Sequence[PoolSource], max_prompts: int) -> CountsPlan:
    """Choose how many prompts to take from each source, at most ``max_prompts`` in all.

    The exact error is smooth in the counts but has poles (peaks) and several valleys. A coarse scan over
    sources alone, in pairs and together picks starts. Sequential quadratic programming with exact
    derivatives runs from the best of them, and its result is rounded and improved on integers. The result is
    the best point tried; a better valley elsewhere cannot be excluded.

    Args:
        model: the pretrained model and the target.
        pool: sources with different names, each with its number of prompts, >= 1.
        max_prompts: the largest number of prompts in all, >= 1.

    Raises InputError for no source, equal names, a size below 1, or ``max_prompts`` below 1.
    """
    require_integer("max_prompts", max_prompts, 1)
    if not pool:
        reject("sources", "none", "at least one source")
    names = [source.name for source in pool]
    for name in names:
        if names.count(name) > 1:
            reject("sources", f"the name {name} twice", "a name of its own for each source")
    columns = [model.columns(replace(entry.source, prompts=1)) for entry in pool]
    sizes = np.array([entry.size for entry in pool])
    search = _Search(model, columns)
    _scan(search, sizes, max_prompts)
    ranked = sorted((c for c in search.seen if np.isfinite(search.seen[c])), key=lambda c: search.seen[c])
    for start in ranked[:_STARTS]:
        _polish(search, _descend(search, np.array(start), sizes, max_prompts), sizes, max_prompts)
    _polish(search, np.array(search.best), sizes, max_prompts)
    counts = search.best
    ends = [search.at(taken) for taken in (sizes, rounded(sizes * min(1.0, max_prompts / sizes.sum())))]
    at_all, at_max = (error if np.isfinite(error) else None for error in ends)
    curve = _curve(search, sizes, counts, max_prompts)
    advice = _advise(model, pool, columns, counts, with_all=at_all is not None)
    return CountsPlan(counts, search.at(counts), at_all, at_max, advice, curve, search.record)


def rounded(exact: Array) -> NDArray[np.int64]:
    """Whole numbers next to ``exact`` by largest remainders: they sum to its rounded sum."""
    taken: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    missing = round(float(exact.sum())) - int(taken.sum())
    taken[np.argsort(taken - exact, kind="stable")[:missing]] += 1
    return taken


def _curve(
    search: _Search, sizes: Array, counts: Sequence[int], max_prompts: int
) -> tuple[tuple[int, float | None], ...]:
    """Errors along the plan's proportions (the pool's where the plan takes nothing)."""
    chosen = np.array(counts if sum(counts) else sizes, dtype=np.float64)
    points = {}
    for total in np.append(0, np.geomspace(1, max_prompts, 40)):
        taken = rounded(np.minimum(sizes, chosen * total / chosen.sum()))
        value = search.at(taken)
        points[int(taken.sum())] = value if np.isfinite(value) else None
    return tuple(sorted(points.items()))


def _scan(search: _Search, sizes: Array, max_prompts: int) -> None:
    """Evaluate nothing, every source alone (at its best dose), pairs, and all in proportion to their size."""
    K = len(sizes)
    search.at([0] * K)
    for place in range(K):
        limit = int(min(sizes[place], max_prompts))

        def alone(B: int, place: int = place) -> float:
            return search.at([B if c == place else 0 for c in range(K)])

        if K == 1:
            find_dose(alone, limit, 0)
        for share in _SHARES:
            alone(max(1, round(share * limit)))
    groups = [*combinations(range(K), 2), tuple(range(K))] if K > 2 else [tuple(range(K))]
    for group in groups if len(groups) <= 16 else groups[-1:]:
        inside = np.isin(np.arange(K), group)
        room = min(int(sizes[inside].sum()), max_prompts)
        for share in _SHARES:
            search.at(rounded(np.where(inside, sizes, 0) * (share * room / sizes[inside].sum())))


def _descend(search: _Search, start: Array, sizes: Array, max_prompts: int) -> Array:
    """The best real counts that sequential quadratic programming from ``start`` finds."""
    model, columns, best = search.model, search.columns, Best()

    def objective(counts: Array) -> tuple[float, Array]:
        counts = np.clip(counts, 0, sizes)
        counts[counts < _NO_PROMPT] = 0.0
        value = model.error(columns, counts)
        if not np.isfinite(value):
            raise PeakError("prompts", counts.sum(), "counts away from the peaks")
        gradient = model.count_gradient(columns, counts)
        if counts.sum() <= max_prompts:
            best.see(value, counts)
        return value, gradient

    search.record += run_search(
        lambda: minimize(
            objective,
            start,
            jac=True,
            method="SLSQP",
            bounds=Bounds(np.zeros(len(sizes)), sizes),
            constraints=[LinearConstraint(np.ones(len(sizes)), 0, max_prompts)],
            options={"maxiter": 30, "ftol": 1e-7},
        )
    )
    if best.moved:
        return best.place
    search.record += SearchRecord(unmoved=1)
    return start


def _polish(search: _Search, counts: Array, sizes: Array, max_prompts: int) -> None:
    """Round, then move single counts and pairs by steps that halve, while the error falls."""
    K = len(sizes)
    current = np.clip(np.floor(np.clip(counts, 0, sizes) + 0.5), 0, sizes).astype(int)
    while current.sum() > max_prompts:
        current[int(np.argmax(current))] -= 1
    step = max(1, int(max(current.max(), 8)) // 8)
    moves = [np.eye(K, dtype=int)[c] * sign for c in range(K) for sign in (1, -1)]
    moves += [np.eye(K, dtype=int)[c] - np.eye(K, dtype=int)[e] for c in range(K) for e in range(K) if c != e]
    while step >= 1:
        improved = False
        for move in moves:
            candidate = current + step * move
            allowed = (candidate >= 0).all() and (candidate <= sizes).all() and candidate.sum() <= max_prompts
            if allowed and search.at(candidate) < search.at(current):
                current, improved = candidate, True
        if not improved:
            step //= 2


def _advise(
    model: ErrorModel,
    pool: Sequence[PoolSource],
    columns: Sequence[Columns],
    counts: Sequence[int],
    *,
    with_all: bool,
) -> tuple[SourceAdvice, ...]:
    """Marginal values and the price of noise, a source; ``with_all``: the error has a value at all counts."""
    worth = _worth(model, columns, counts)
    at_all = _worth(model, columns, [entry.size for entry in pool]) if with_all else [None] * len(pool)
    advice = []
    for place, entry in enumerate(pool):
        clean = replace(entry.source, prompts=1, label_noise=0.0, demonstration_noise=0.0)
        rate = clean_error = None
        if entry.source.label_noise > 0 or entry.source.demonstration_noise > 0:
            better = [*columns[:place], model.columns(clean), *columns[place + 1 :]]
            cleaned = _Search(model, better).at(counts)
            clean_error = cleaned if np.isfinite(cleaned) else None
            own, beside = worth[place], _worth(model, [*columns, model.columns(clean)], [*counts, 0])[-1]
            if own is not None and beside is not None and own > 0 and beside > 0:
                rate = beside / own
        value = worth[place]
        advice.append(
            SourceAdvice(
                entry.name,
                entry.size,
                int(counts[place]),
                worth[place],
                at_all[place],
                rate,
                clean_error,
                None if entry.cost is None or value is None else value / entry.cost,
            )
        )
    return tuple(advice)


def _worth(model: ErrorModel, columns: Sequence[Columns], counts: Sequence[int]) -> Sequence[float | None]:
    """What one more prompt of each source saves; None where the error has no derivative or is unsolved."""
    try:
        found = -model.count_gradient(columns, counts)
    except (PeakError, *Unsolved):
        return [None] * len(columns)
    return [float(saved) if np.isfinite(saved) else None for saved in found]


def noisy_for_clean(model: ErrorModel, noisy: Source, clean_prompts: int, max_prompts: int) -> int | None:
    """The fewest prompts of ``noisy`` that reach the error of ``clean_prompts`` prompts without its noise.

    Args:
        model: the pretrained model and the target.
        noisy: the source; its own number of prompts is not used.
        clean_prompts: number of noise-free prompts of the same covariance and length.
        max_prompts: the largest number of noisy prompts that is tried.

    Returns:
        That number; None if no number up to ``max_prompts`` reaches the error, since more noisy prompts do
        not replace clean ones there, and where the clean prompts' own mean error is infinite or unsolved.
    """
    clean = replace(noisy, prompts=1, label_noise=0.0, demonstration_noise=0.0)
    goal = _Search(model, [model.columns(clean)]).at([clean_prompts])
    if not np.isfinite(goal):
        return None
    search = _Search(model, [model.columns(replace(noisy, prompts=1))])
    low, high = 0, None
    for B in np.unique(np.geomspace(1, max_prompts, 200).round().astype(int)):
        if search.at([int(B)]) <= goal:
            high = int(B)
            break
        low = int(B)
    if high is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if search.at([middle]) <= goal else (middle, high)
    return high
