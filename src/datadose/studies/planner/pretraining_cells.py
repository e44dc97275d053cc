"""Random choices of pretraining, drawn by seed: shares for the worst of several shifts, and what they gain.

Directions fall into K groups. Category j has most of its variance in group j, and shift j adds variance
there; one of the shifts will come. Settings of the same seed differ between kinds in one thing alone:

- alike: groups, scales, shifts and costs are the same for all categories
- sizes: the groups differ in size
- scales: the categories differ in the scale of their inputs
- shifts: the shifts differ in size
- costs: the categories differ in cost, and the budget pays for equal spending on each, not for equal shares

Test prompts have the mean covariance of the categories plus the shift, whatever the shares are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from datadose.planner.pretraining import Category, PossibleShift, shares_problem
from datadose.planner.shares import Objective, SharesProblem
from datadose.shapes import Array, Float, Operator
from datadose.shift import Shift
from datadose.simulation.spectral import PostTest
from datadose.simulation.training import train_operator
from datadose.studies import tables
from datadose.studies.training_time.shifts import between
from datadose.theory.pretraining import PretrainingMixture
from datadose.theory.source import Source
from datadose.theory.start_gradient import ErrorFromStart
from datadose.theory.stopping import Stopping
from datadose.theory.weighted_test import WeightedTest

Kind: TypeAlias = Literal["alike", "sizes", "scales", "shifts", "costs"]
KINDS: tuple[Kind, ...] = ("alike", "sizes", "scales", "shifts", "costs")
EXAMPLES: tuple[Kind, ...] = ("alike", "scales")
"""Kinds of which a curve over the shares is shown."""
SFT, OUTCOME = "sft", "outcome"
UNLIMITED, FINITE, RIVAL = "for unlimited", "for finite", "equal"
"""Whose shares: planned for unlimited pretraining, for pretraining of 30 d prompts, or the rival's."""
CHOICE, CURVE, MARK, STARVED, SIMULATED = "choice", "curve", "mark", "starved", "simulated"
"""The columns of a row."""
SCARCE = (0.003, 0.01, 0.03, 0.1, 0.2, 0.5)
"""Shares of the category whose shift comes; the last is balance."""
ROWS, LENGTHS = (0.5, 2.0, 8.0), (0.5, 4.0)
"""B / d and n / d of the settings in which a category is starved."""
PRETRAINED = 30
"""Prompts of pretraining over d, where they are finite."""
WORTH = 0.05
"""Predicted gains above this are simulated."""
ALONG = np.concatenate([np.geomspace(0.002, 0.1, 13), np.linspace(0.14, 0.98, 22)])
"""Shares of the rare category along a curve."""


class Column(tables.Column):
    """The columns of the study."""

    PART = "part"
    KIND = "kind"
    OBJECTIVE = "objective"
    PLAN = "plan"
    SHARE = "share"
    SHIFT = "shift"
    PRETRAINED = "pretrained"
    """Prompts of pretraining over d; empty where unlimited."""
    SIZE = "size"
    """B / d."""
    LONG = "long"
    """n / d."""
    DRAW = "draw"
    """Of simulated prompts."""
    RIVAL = "rival"
    """What is predicted for the rival."""


MEASURED = (
    Column.PART,
    Column.STAGE,
    Column.PLAN,
    Column.SHARE,
    Column.SHIFT,
    Column.PRETRAINED,
    Column.SIZE,
    Column.LONG,
    Column.DRAW,
    Column.ERROR,
    Column.PREDICTED,
    Column.RIVAL,
)


def _row(**values: Any) -> list[Any]:
    """The values of the columns MEASURED; those left out are empty."""
    return [values.get(name) for name in MEASURED]


@dataclass(frozen=True, eq=False)
class Setting:
    """Categories, and the shifts that may come after pretraining on them."""

    covariances: tuple[Array, ...]
    deltas: tuple[Array, ...]
    eta: float
    length: int
    prompts: int
    interference: float
    costs: Float[Array, " J"]
    budget: float | None

    @property
    def base(self) -> Array:
        """Covariance of the test prompts without a shift."""
        return np.asarray(np.mean(self.covariances, axis=0))

    @property
    def rival(self) -> Float[Array, " J"]:
        """Equal shares; equal spending where costs differ."""
        return np.asarray((1 / self.costs) / (1 / self.costs).sum())

    def problem(self, objective: Objective = "worst", pretrained: int | None = None) -> SharesProblem:
        """The choice of shares, with ``pretrained`` d prompts of pretraining or unlimited ones."""
        categories = [
            Category(str(j), C, float(cost))
            for j, (C, cost) in enumerate(zip(self.covariances, self.costs, strict=True))
        ]
        return shares_problem(
            categories,
            [PossibleShift(delta) for delta in self.deltas],
            sigma0=self.base,
            eta=self.eta,
            length=self.length,
            max_prompts=self.prompts,
            interference=self.interference,
            prompts=None if pretrained is None else pretrained * len(self.base),
            budget=self.budget,
            objective=objective,
        )


def random_setting(kind: Kind, dimension: int, seed: int) -> Setting:
    """The setting of this kind and seed; two groups for even seeds, three for odd ones.

    Log-uniform: variance outside a category's own group .02 to .5 of that inside, shifts .3 to 3, n / d .5
    to 8, B / d .2 to 8, eta .1 to .8, r .003 to .3. Where they differ: sizes by a factor of up to 6, scales
    and shifts of up to 9, costs of up to 10.
    """
    rng = np.random.default_rng([51, dimension, seed])
    K, d = 2 + seed % 2, dimension
    low, strength, eta = between(rng, 0.02, 0.5), between(rng, 0.3, 3), between(rng, 0.1, 0.8)
    length, prompts = round(d * between(rng, 0.5, 8)), round(d * between(rng, 0.2, 8))
    interference = between(rng, 3e-3, 0.3)
    sizes, scales, shifts, costs = (
        np.array([between(rng, 1, most) for _ in range(K)]) for most in (6, 9, 9, 10)
    )
    weights = sizes if kind == "sizes" else np.ones(K)
    group = np.searchsorted(np.cumsum(weights)[:-1] / weights.sum(), (np.arange(d) + 0.5) / d)
    scales = scales / np.sqrt(scales.min() * scales.max()) if kind == "scales" else np.ones(K)
    shifts = shifts / np.sqrt(shifts.min() * shifts.max()) if kind == "shifts" else np.ones(K)
    costs = costs / costs.min() if kind == "costs" else np.ones(K)
    return Setting(
        tuple(scales[j] * np.where(group == j, 1.0, low) for j in range(K)),
        tuple(strength * shifts[j] * np.where(group == j, 1.0, 0.0) for j in range(K)),
        eta,
        length,
        prompts,
        interference,
        costs,
        float(K / (1 / costs).sum()) if kind == "costs" else None,
    )


def choose_shares(
    kind: Kind, dimension: int, seed: int, objective: Objective, pretrained: int | None
) -> list[list[Any]]:
    """Cell: the objective at the best shares and at the rival's, and the smallest of the best shares."""
    setting = random_setting(kind, dimension, seed)
    problem = setting.problem(objective, pretrained)
    shares, errors, _ = problem.solve()
    rival = problem.value(problem.errors(setting.rival)[0])
    least, found = float(shares.min()), problem.value(errors)
    return [_row(part=CHOICE, pretrained=pretrained, share=least, predicted=found, rival=rival)]


def share_curve(kind: Kind, dimension: int, seed: int, pretrained: int | None) -> list[list[Any]]:
    """Cell: the error after either shift against the share of the first category, and at two choices."""
    setting = random_setting(kind, dimension, seed)
    problem = setting.problem("worst", pretrained)
    best = float(problem.solve()[0][0])
    rows: list[list[Any]] = []
    places: list[tuple[str, str | None, float]] = [(CURVE, None, float(share)) for share in ALONG]
    places += [(MARK, FINITE if pretrained else UNLIMITED, best), (MARK, RIVAL, float(setting.rival[0]))]
    for part, plan, share in places:
        errors = problem.errors(np.array([share, 1 - share]))[0]
        shared = {"part": part, "plan": plan, "share": share, "pretrained": pretrained}
        rows += [_row(**shared, shift=i, predicted=float(error)) for i, error in enumerate(errors)]
    return rows


def starve(dimension: int, seed: int) -> list[list[Any]]:
    """Cell: the error after the shift of a scarce category, by stage, rows, prompt length and its share."""
    setting = random_setting("alike", dimension, 2 * seed)
    d, target = dimension, setting.base + setting.deltas[0]
    data = Shift.aligned(setting.base, setting.deltas[0], setting.eta, setting.interference).data
    rows: list[list[Any]] = []
    for long in LENGTHS:
        n = round(long * d)
        mixture, test = PretrainingMixture.of(setting.covariances, n), WeightedTest.of(target, n)
        for share in SCARCE:
            V0 = mixture.operator([share, 1 - share])
            for stage, (eta, A) in {SFT: (setting.eta, data), OUTCOME: (1.0, target)}.items():
                for B in ROWS:
                    error = ErrorFromStart.of(eta, Source(A, n, B * d), test).best(V0).error
                    place = {"part": STARVED, "stage": stage, "size": B, "long": long}
                    rows.append(_row(**place, share=share, predicted=error))
    return rows


def simulate_gain(kind: Kind, dimension: int, seed: int, draws: list[int]) -> list[list[Any]]:
    """Cell: simulated errors from three mixtures, by draw, shift and prompts of pretraining.

    Post-training is on drawn prompts with the penalties that the theory finds for the mixture. No rows where
    neither plan is predicted to gain more than 5 percent.
    """
    setting = random_setting(kind, dimension, seed)
    problems = {pretrained: setting.problem("worst", pretrained) for pretrained in (None, PRETRAINED)}
    solved = {pretrained: problem.solve() for pretrained, problem in problems.items()}
    mixtures = {UNLIMITED: solved[None][0], FINITE: solved[PRETRAINED][0], RIVAL: setting.rival}
    rows: list[list[Any]] = []
    if all(
        errors.max() > (1 - WORTH) * problems[pretrained].errors(setting.rival)[0].max()
        for pretrained, (_, errors, _) in solved.items()
    ):
        return rows
    for pretrained, problem in problems.items():
        for plan, shares in mixtures.items():
            predicted = problem.errors(shares)[0]
            for draw in draws:
                found = _measured(setting, problem, shares, draw, pretrained)
                rows += [
                    _row(
                        part=SIMULATED,
                        plan=plan,
                        shift=shift,
                        pretrained=pretrained,
                        draw=draw,
                        error=error,
                        predicted=float(predicted[shift]),
                    )
                    for shift, error in enumerate(found)
                ]
    return rows


def _measured(
    setting: Setting, problem: SharesProblem, shares: Array, draw: int, pretrained: int | None
) -> list[float]:
    """Simulated error after each shift from one mixture."""
    d, model = len(setting.base), problem.pretraining.start(shares)
    V0: Operator = model.mean
    if pretrained is not None:
        sources = [
            Source(C, setting.length, round(float(share) * pretrained * d))
            for C, share in zip(setting.covariances, shares, strict=True)
        ]
        V0 = train_operator(np.zeros(d), 1.0, sources, Stopping(), seed=(draw, len(sources)))
    errors = []
    for place, (delta, end) in enumerate(zip(setting.deltas, problem.ends, strict=True)):
        shift = Shift.aligned(setting.base, delta, setting.eta, setting.interference)
        ridge, V = end.best(model).trained.ridge, V0
        if np.isfinite(ridge):
            source = Source(shift.data, setting.length, setting.prompts)
            V = train_operator(V0, setting.eta, [source], Stopping(ridge=ridge), seed=(draw, place))
        [test] = PostTest.all_of([shift.target], setting.length, d)
        errors.append(test.error(V))
    return errors
