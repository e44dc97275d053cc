"""Ceiling and scarcity by source: what unlimited rows of a source can reach, and what too few of them cost.

At the best penalty the error falls with B to the ceiling F*, and its excess is about G/B; so it is within a
share x of the ceiling at about B = df2 + G/(x F*). The best time has a ceiling of its own. Penalty and time
are the theory's best for each B: an oracle of the limit in d chooses them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.covariance import Array
from datadose.drawing.curves import level, log_y, plain_log_ticks
from datadose.drawing.style import LOOKS, Look, caption, draw_points, draw_simulation, draw_theory, new_grid
from datadose.simulation.training import simulate_training
from datadose.studies import tables
from datadose.studies.ledger import judge_settings
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import LSA, THEORY, TwoBlock, as_table
from datadose.studies.training_time.judges import judge_exact, judge_prediction
from datadose.studies.training_time.time_curves import BEST_PENALTY, BEST_TIME, TUNED
from datadose.sweep import Cell
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.time_search import best_time
from datadose.theory.weighted_test import WeightedTest

NAME = "ceiling"
ALIGNED, TARGET, MISLEADING, MIXED = "aligned", "target-like", "misleading", "mixed"
SOURCES = (ALIGNED, TARGET, MISLEADING, MIXED)
SHARE = 0.1
"""How near to its ceiling a source is to come."""
_UNLIMITED = 1e9
"""Prompts at which the best time's ceiling is read off."""


class Column(tables.Column):
    """The columns of this study; ceilings and needs stand in every row of their source and rule."""

    SOURCE = "source"
    RULE = "rule"
    CEILING = "ceiling"
    SCATTER = "scatter"
    """G at the ceiling's penalty; of the best penalty alone."""
    WITHIN = "within"
    """The prompts from which the best penalty's error is within SHARE of its ceiling."""
    FORECAST = "forecast"
    """df2 + G / (SHARE F*)."""


def covariance(block: TwoBlock, interference: float, source: str) -> Array:
    """A of a source (d,): the paper's allocation, eta Sigma, half of that, or the mean of first and third.

    On eta Sigma the converged model is right at its scale; inputs of half that variance give an operator
    that is twice too large, which is as bad as the zero operator.
    """
    shift = block.shift(interference)
    misleading = 0.5 * shift.eta * shift.target
    kinds = {ALIGNED: shift.data, TARGET: shift.eta * shift.target, MISLEADING: misleading}
    return np.asarray(kinds.get(source, (shift.data + misleading) / 2))


def measure_source(
    block: TwoBlock,
    interference: float,
    length: int,
    source: str,
    simulated: list[int],
    theory: list[int],
    seeds: list[int],
) -> dict[str, Any]:
    """Cell: ceilings of one source, and rows (rule, B, predicted, seed, error) at its best stops."""
    shift, A = block.shift(interference), covariance(block, interference, source)
    start, test = pretrained_operator(shift.sigma0, length), WeightedTest.of(shift.target, length)
    penalty = EffectivePenalty.of(start, shift.eta, Source(A, length, 1), test)
    stops: dict[int, dict[str, tuple[Stopping, float]]] = {}
    for B in {*simulated, *theory}:
        held, timed = penalty.best(B), best_time(start, shift.eta, [Source(A, length, B)], test)
        ridge = Stopping(time=0.0) if np.isinf(held.ridge) else Stopping(ridge=held.ridge)
        until = Stopping() if timed.time is None else Stopping(time=timed.time)
        stops[B] = {BEST_PENALTY: (ridge, held.error), BEST_TIME: (until, timed.error)}
    rows: list[list[Any]] = [[rule, B, stops[B][rule][1], None, None] for B in theory for rule in TUNED]
    stoppings = [stops[B][rule][0] for B in simulated for rule in TUNED]
    sources = [Source(A, length, max(simulated))]
    options: dict[str, Any] = {"counts": simulated, "seeds": seeds}
    found = simulate_training(start, shift.eta, sources, [shift.target], length, stoppings, **options).values
    for at, B in enumerate(simulated):
        for k, rule in enumerate(TUNED):
            errors = found[:, at, at * len(TUNED) + k, 0]
            rows += [[rule, B, stops[B][rule][1], s, float(e)] for s, e in zip(seeds, errors, strict=True)]
    top = penalty.ceiling
    (_, scatter), (_, fitted) = penalty.limit_and_scatter(top.penalty), penalty.degrees(top.penalty)
    unlimited = best_time(start, shift.eta, [Source(A, length, _UNLIMITED)], test).error
    return {
        "ceilings": {BEST_PENALTY: top.error, BEST_TIME: unlimited},
        "scatter": float(scatter),
        "within": penalty.prompts_within(SHARE),
        "forecast": float(fitted) + float(scatter) / (SHARE * top.error),
        "rows": rows,
    }


@dataclass(frozen=True)
class CeilingBySource:
    """Four sources; simulation at ``prompts``, theory at ``theory_prompts``."""

    block: TwoBlock
    interference: float
    length: int
    prompts: tuple[int, ...]
    theory_prompts: tuple[int, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> CeilingBySource:
        """The configuration of a preset."""
        if name == "smoke":
            return cls._of(20, (0.25, 1.5, 5), 8, 2)
        shares = (0.1, 0.2, 0.33, 0.5, 0.8, 1.25, 2.0, 3.5, 6.0, 10.0)
        return cls._of(300, shares, 33, 12) if name == "quick" else cls._of(600, (*shares, 20.0), 65, 20)

    @classmethod
    def _of(cls, d: int, shares: Sequence[float], theory: int, seeds: int) -> CeilingBySource:
        counts = tuple(round(share * d) for share in shares)
        grid = tables.grid(counts, np.geomspace(0.1 * d, 300 * d, theory).round().astype(int).tolist())
        return cls(TwoBlock(d, d // 2), 0.01, 3 * d, counts, tuple(B for B in grid if abs(B - d) > 1), seeds)

    def cells(self) -> list[Cell]:
        """One cell a source."""
        shared = {
            "block": self.block,
            "interference": self.interference,
            "length": self.length,
            "simulated": list(self.prompts),
            "theory": list(self.theory_prompts),
            "seeds": list(range(self.seeds)),
        }
        return [Cell(measure_source, {**shared, "source": source}) for source in SOURCES]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """The theory on its grid (model theory) and the simulated rows (model lsa) with their prediction."""
        return as_table(self._rows(results), Column)

    def _rows(self, results: Sequence[Any]) -> Iterator[dict[str, Any]]:
        for source, found in zip(SOURCES, results, strict=True):
            for rule, B, predicted, seed, error in found["rows"]:
                own = {} if rule == BEST_TIME else {c: found[c] for c in _NEEDS}
                yield {
                    Column.FIGURE: NAME,
                    Column.STAGE: "sft",
                    Column.MODEL: THEORY if seed is None else LSA,
                    Column.ESTIMATOR: tables.TRAINED,
                    Column.LENGTH: self.length,
                    Column.INTERFERENCE: self.interference,
                    Column.SOURCE: source,
                    Column.RULE: rule,
                    Column.PROMPTS: B,
                    Column.PREDICTED: predicted,
                    Column.SEED: seed,
                    Column.ERROR: error,
                    Column.CEILING: found["ceilings"][rule],
                    **own,
                }


_NEEDS = (Column.SCATTER, Column.WITHIN, Column.FORECAST)


def draw(table: pd.DataFrame, config: CeilingBySource) -> Figure:
    """Error over B at the best penalty and at the best time with ceilings, and the excess times B over G."""
    d = config.block.dimension
    places = table.assign(place=table[Column.PROMPTS] / d)
    with new_grid(1, 3, width=12.5, height=4.3) as (figure, axes):
        left, middle, right = axes[0]
        middle.sharey(left)
        for look, source in zip(LOOKS, SOURCES, strict=True):
            own = places[places[Column.SOURCE] == source]
            for axis, rule in ((left, BEST_PENALTY), (middle, BEST_TIME)):
                _draw_error(axis, own[own[Column.RULE] == rule], look, source)
            _draw_excess(right, own, look, source)
            _mark_within(left, own, look, source, d)
        for axis, title in ((left, "best penalty (stars: within 10 percent)"), (middle, "best time")):
            log_y(axis)
            axis.set_title(title)
        left.set_ylabel("post-test error / d")
        left.legend(loc="upper right")
        level(right, 1.0)
        right.set_ylim(0, 4)
        right.set_ylabel("(error - F*) B / G")
        right.set_title("best penalty: the excess is G / B")
        for axis in axes[0]:
            plain_log_ticks(axis, (0.1, 1, 10, 100))
            axis.set_xlabel("prompts B / d")
        block = config.block
        caption(
            figure,
            f"d = {d}, m = {block.shifted}, rho = {block.rho:g}, eta = {block.eta:g}, r = "
            f"{config.interference:g}, n = {config.length}; lines: theory; dashed levels: ceilings; "
            f"markers: simulated, mean of {config.seeds} seeds with standard errors",
        )
    return figure


def _draw_error(axis: Axes, rows: pd.DataFrame, look: Look, source: str) -> None:
    theory = rows[rows[Column.MODEL] == THEORY].sort_values("place")
    axis.axhline(
        float(rows[Column.CEILING].iloc[0]), color=look.color, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6
    )
    draw_theory(axis, theory["place"], theory[Column.PREDICTED], Look(look.color, "-", ""), source)
    draw_simulation(axis, rows[rows[Column.MODEL] == LSA], "place", look, f"_{source}, simulated")


def _mark_within(axis: Axes, own: pd.DataFrame, look: Look, source: str, d: int) -> None:
    row = own[own[Column.RULE] == BEST_PENALTY].iloc[0]
    place, error = float(row[Column.WITHIN]) / d, (1 + SHARE) * float(row[Column.CEILING])
    style: dict[str, Any] = {"marker": "*", "markersize": 13, "markeredgecolor": "white", "zorder": 5}
    draw_points(axis, place, error, look, f"_{source}, within 10 percent", **style)


def _draw_excess(axis: Axes, own: pd.DataFrame, look: Look, source: str) -> None:
    rows = own[(own[Column.RULE] == BEST_PENALTY) & (own[Column.MODEL] == THEORY)].sort_values("place")
    draw_theory(axis, rows["place"], _excess(rows), look, source)


def _excess(rows: pd.DataFrame) -> pd.Series:
    """(error - F*) B / G."""
    return (rows[Column.PREDICTED] - rows[Column.CEILING]) * rows[Column.PROMPTS] / rows[Column.SCATTER]


def _best_penalty(saved: Saved[CeilingBySource]) -> pd.DataFrame:
    """Theory rows at the best penalty."""
    table = saved.table
    return table[(table[Column.MODEL] == THEORY) & (table[Column.RULE] == BEST_PENALTY)]


def _excess_is_scatter(saved: Saved[CeilingBySource], threshold: float) -> Judgement:
    rows = _best_penalty(saved)
    last = rows[rows[Column.PROMPTS] == rows[Column.PROMPTS].max()]
    off = (_excess(last) - 1).abs().to_numpy()
    d = saved.config.block.dimension
    note = f"at B = {last[Column.PROMPTS].iloc[0] / d:g} d: " + "; ".join(
        f"{row[Column.SOURCE]} F*={row[Column.CEILING]:.3f} G={row[Column.SCATTER]:.1f}"
        for _, row in last.iterrows()
    )
    return judge_exact(float(off.max()), threshold, note)


def _need_is_forecast(saved: Saved[CeilingBySource], threshold: float) -> Judgement:
    needs = _best_penalty(saved).groupby(Column.SOURCE)[[Column.WITHIN, Column.FORECAST]].first()
    off = (needs[Column.FORECAST] / needs[Column.WITHIN] - 1).abs().to_numpy()
    told = [f"{name} {row[Column.WITHIN]:.0f} ({row[Column.FORECAST]:.0f})" for name, row in needs.iterrows()]
    return judge_exact(
        float(off.max()), threshold, "prompts within 10 percent, exact (forecast): " + ", ".join(told)
    )


def _time_reaches_further(saved: Saved[CeilingBySource], threshold: float) -> Judgement:
    verdicts: dict[str, Verdict] = {}
    told: list[str] = []
    for source, rows in saved.table.groupby(Column.SOURCE):
        top = rows.groupby(Column.RULE)[Column.CEILING].first()
        verdicts[str(source)] = "holds" if top[BEST_TIME] <= top[BEST_PENALTY] * (1 + 1e-6) else "fails"
        told.append(f"{source} {top[BEST_TIME]:.3f} against {top[BEST_PENALTY]:.3f}")
    return judge_settings(verdicts, threshold, 0, "ceilings of time and penalty: " + ", ".join(told))


def _theory_matches(saved: Saved[CeilingBySource], threshold: float) -> Judgement:
    rows = saved.table[saved.table[Column.MODEL] == LSA]
    return judge_prediction(rows, (Column.SOURCE, Column.RULE, Column.PROMPTS), threshold)


_SIZES = (
    "d=300, m=150, rho=0.1, eta=0.2, r=0.01, n=900; data: the paper's allocation, eta Sigma, eta Sigma / 2, "
    "and the mean of first and third (sizes of the preset)"
)
_JUDGES = "tests/studies/training_time/test_ceiling.py"

CLAIMS = (
    Claim(
        id="ceiling-excess",
        paper="ours",
        statement="At the best penalty the error of every source exceeds its ceiling F* by G/B where rows "
        "are many.",
        setting=_SIZES + ", B = 300 d; theory",
        statistic="largest |(error - F*) B / G - 1| over sources",
        threshold=0.05,
        judge=_excess_is_scatter,
        test=f"{_JUDGES}::test_excess_and_need_are_judged_against_the_table",
    ),
    Claim(
        id="ceiling-prompts",
        paper="ours",
        statement="df2 + G / (x F*) forecasts how many prompts bring the best penalty within x = 10 percent "
        "of F*.",
        setting=_SIZES + "; theory",
        statistic="largest relative deviation of the forecast from the exact number over sources",
        threshold=0.1,
        judge=_need_is_forecast,
        test=f"{_JUDGES}::test_excess_and_need_are_judged_against_the_table",
    ),
    Claim(
        id="ceiling-of-time",
        paper="ours",
        statement="With unlimited rows the best stopping time reaches at least as low as the best penalty.",
        setting=_SIZES + "; theory",
        statistic="share of sources where it does, up to a relative 1e-6",
        threshold=1.0,
        judge=_time_reaches_further,
        test=f"{_JUDGES}::test_the_ceiling_of_time_is_compared_by_source",
    ),
    Claim(
        id="ceiling-theory",
        paper="ours",
        statement="The simulated error at the best penalty and at the best time is the predicted one for "
        "every source, from B = d/10 to 10 d.",
        setting=_SIZES,
        statistic="largest relative deviation of the prediction from the mean over seeds",
        threshold=0.05,
        judge=_theory_matches,
        test=f"{_JUDGES}::test_simulation_has_to_agree",
    ),
)
STUDY = Study(
    name=NAME,
    title="How many examples of a source are enough? Ceiling and scarcity",
    story=(
        "With a tuned penalty or time every source has a ceiling that more of its rows cannot lower, and "
        "being short of rows costs about G/B above it. The aligned source is the best where rows are few "
        "and ends above target-like ones; no number of misleading rows gets below the error of a model that "
        "predicts zero."
    ),
    experiment=CeilingBySource,
    draw=draw,
    claims=CLAIMS,
)
