"""How much of a misleading source, and for how long: the error over (its share of a batch, training time).

A share q of the batch is the weight q B / B_2 of its rows and (1 - q) B / B_1 of the aligned ones, with
B = B_1 + B_2, so that a unit of time is as many rows at every q: 0 is removal, B_2 / B all rows alike. Both
are compared, each at its best time, with the best pair of share and time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from datadose.covariance import Array
from datadose.drawing.curves import plain_log_ticks
from datadose.drawing.hover import Cells, record_cells
from datadose.drawing.style import Look, caption, draw_points, draw_theory, new_grid
from datadose.power import CONFIDENCE
from datadose.simulation.training import simulate_training
from datadose.studies import tables
from datadose.studies.ledger import by_seed, judge_settings, paired, seeds_of
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import LSA, THEORY, TwoBlock, as_table
from datadose.studies.training_time.ceiling import MISLEADING, covariance
from datadose.studies.training_time.judges import judge_prediction, judge_ratio
from datadose.sweep import Cell
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.time_search import best_time
from datadose.theory.training_time import trained_path
from datadose.theory.weighted_test import WeightedTest

NAME = "weight_time_map"
MAP, BEST = "map", "best time"
"""Values of ``rule``: a time of the map, or the share's own best time."""
TARGET, PRETRAINING = "target", "Sigma0"
"""Values of ``test``."""


class Column(tables.Column):
    """The columns of this study."""

    SHARE = "share"
    TIME = "time"
    RULE = "rule"
    TEST = "test"


def batch_weights(share: float, aligned: int, misleading: int) -> list[float]:
    """Weights of the two sources' rows that give the misleading one this share of a batch."""
    if share == 0:
        return [1.0, 0.0]
    if share == 1:
        return [0.0, 1.0]
    total = aligned + misleading
    return [(1 - share) * total / aligned, share * total / misleading]


def measure_share(
    block: TwoBlock,
    interference: float,
    length: int,
    counts: list[int],
    share: float,
    times: list[float],
    checked: list[float],
    seeds: list[int],
) -> list[list[Any]]:
    """Cell: rows (rule, time, test, predicted, seed, error) of one share; ``checked`` times are simulated.

    The theory's best time is simulated, too; it is None where the best is not to stop.
    """
    shift = block.shift(interference)
    start, weights = pretrained_operator(shift.sigma0, length), batch_weights(share, *counts)
    kinds = (shift.data, covariance(block, interference, MISLEADING))
    sources = [Source(A, length, B) for A, B in zip(kinds, counts, strict=True)]
    targets = {TARGET: shift.target, PRETRAINING: shift.sigma0}
    tests = {name: WeightedTest.of(Sigma, length) for name, Sigma in targets.items()}
    best = best_time(start, shift.eta, sources, tests[TARGET], weights=weights)
    ended = Stopping() if best.time is None else Stopping(time=best.time)
    every = [Stopping(time=t) for t in times]
    models = [*trained_path(start, shift.eta, sources, every, weights=weights), best.model]
    drawn = [Stopping(time=t) for t in checked] + [ended]
    errors = simulate_training(
        start, shift.eta, sources, list(targets.values()), length, drawn, weights=weights, seeds=seeds
    ).values[:, 0]
    rules, rows = [*zip([MAP] * len(times), times, strict=True), (BEST, best.time)], []
    predicted = {
        (rule, time, name): test.error(model)
        for (rule, time), model in zip(rules, models, strict=True)
        for name, test in tests.items()
    }
    rows += [[rule, time, name, error, None, None] for (rule, time, name), error in predicted.items()]
    own = [*((MAP, t) for t in checked), (BEST, best.time)]
    for at, (rule, time) in enumerate(own):
        for k, name in enumerate(targets):
            known = predicted[rule, time, name]
            rows += [
                [rule, time, name, known, s, float(e)] for s, e in zip(seeds, errors[:, at, k], strict=True)
            ]
    return rows


@dataclass(frozen=True)
class WeightTimeMap:
    """Shares by times; ``checked`` times of the map are simulated at every share."""

    block: TwoBlock
    interference: float
    length: int
    aligned: int
    misleading: int
    shares: tuple[float, ...]
    times: tuple[float, ...]
    checked: tuple[float, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> WeightTimeMap:
        """The configuration of a preset: as many aligned rows as directions, ten times as many misleading."""
        if name == "smoke":
            return cls._of(20, 5, 9, 2)
        return cls._of(200, 25, 41, 12) if name == "quick" else cls._of(400, 51, 81, 20)

    @classmethod
    def _of(cls, d: int, shares: int, times: int, seeds: int) -> WeightTimeMap:
        chosen = tuple(float(q) for q in np.unique([*np.linspace(0, 1, shares).round(4), 10 / 11]))
        grid = np.geomspace(1, 1e4, times)
        checked = tuple(float(grid[round(at * (times - 1) / 4)]) for at in (1, 2, 3))
        spread = tuple(float(t) for t in grid)
        return cls(TwoBlock(d, d // 2), 0.01, 3 * d, d, 10 * d, chosen, spread, checked, seeds)

    @property
    def alike(self) -> float:
        """The share at which every row counts alike."""
        return self.misleading / (self.aligned + self.misleading)

    def cells(self) -> list[Cell]:
        """One cell a share."""
        shared = {
            "block": self.block,
            "interference": self.interference,
            "length": self.length,
            "counts": [self.aligned, self.misleading],
            "times": list(self.times),
            "checked": list(self.checked),
            "seeds": list(range(self.seeds)),
        }
        return [Cell(measure_share, {**shared, "share": share}) for share in self.shares]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """The theory on the map and at the best times (model theory), and the simulated rows (model lsa)."""
        return as_table(self._rows(results), Column)

    def _rows(self, results: Sequence[Any]) -> Iterator[dict[str, Any]]:
        for share, found in zip(self.shares, results, strict=True):
            for rule, time, test, predicted, seed, error in found:
                yield {
                    Column.FIGURE: NAME,
                    Column.STAGE: "sft",
                    Column.MODEL: THEORY if seed is None else LSA,
                    Column.ESTIMATOR: tables.TRAINED,
                    Column.PROMPTS: self.aligned + self.misleading,
                    Column.LENGTH: self.length,
                    Column.INTERFERENCE: self.interference,
                    Column.SHARE: share,
                    Column.TIME: time,
                    Column.RULE: rule,
                    Column.TEST: test,
                    Column.PREDICTED: predicted,
                    Column.SEED: seed,
                    Column.ERROR: error,
                }


def draw(table: pd.DataFrame, config: WeightTimeMap) -> Figure:
    """The error on the target and on Sigma0 over (time, share), with the best of either marked."""
    shown = (TARGET, "error on the shifted target"), (PRETRAINING, "error on what was known, Sigma0")
    with new_grid(1, 2, width=11.5, height=4.7, sharey=True) as (figure, axes):
        for axis, (test, title) in zip(axes[0], shown, strict=True):
            _draw_map(figure, axis, table[table[Column.TEST] == test], config, title)
        best = _best_pair(table)
        for axis in axes[0]:
            style: dict[str, Any] = {"marker": "*", "markersize": 15, "markeredgecolor": "black", "zorder": 6}
            at = (best[Column.TIME], best[Column.SHARE])
            draw_points(axis, *at, Look("white", "-", ""), "_best share and time for the target", **style)
        axes[0, 0].set_ylabel("share of the misleading source in a batch")
        block = config.block
        caption(
            figure,
            f"d = {block.dimension}, m = {block.shifted}, rho = {block.rho:g}, eta = {block.eta:g}, r = "
            f"{config.interference:g}, n = {config.length}; {config.aligned} aligned and "
            f"{config.misleading} misleading rows; map: theory;\ndiscs: simulated, mean of {config.seeds} "
            f"seeds; white line: best time at each share; dots: best share at each time; star: best of all",
        )
    return figure


_HEIGHT = 4.0
"""Times the least error: where the colours of a map end."""


def _draw_map(figure: Figure, axis: Axes, rows: pd.DataFrame, config: WeightTimeMap, title: str) -> None:
    theory = rows[(rows[Column.MODEL] == THEORY) & (rows[Column.RULE] == MAP)]
    grid = theory.pivot_table(index=Column.SHARE, columns=Column.TIME, values=Column.PREDICTED)
    x, y, values = grid.columns.to_numpy(dtype=float), grid.index.to_numpy(dtype=float), grid.to_numpy()
    x_edges, y_edges = np.exp(_edges(np.log(x))), np.clip(_edges(y), -0.02, 1.02)
    # The valley is to be visible, not the heights around it.
    height = _HEIGHT * float(values.min())
    norm = LogNorm(float(values.min()), height)
    mesh = axis.pcolormesh(x_edges, y_edges, values, norm=norm, cmap="cividis", rasterized=True)
    bar = figure.colorbar(mesh, ax=axis, extend="max")
    bar.set_label("predicted error / d")
    ticks = [v for v in (0.2, 0.3, 0.4, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10) if values.min() <= v <= height]
    bar.set_ticks(ticks, labels=[f"{v:g}" for v in ticks])
    bar.ax.minorticks_off()
    record_cells(
        axis,
        Cells(
            x_edges.tolist(), y_edges.tolist(), x.tolist(), y.tolist(), values.tolist(), "predicted error / d"
        ),
    )
    plain_log_ticks(axis, (1, 10, 100, 1000, 10000))
    axis.set(xlim=(x_edges[0], x_edges[-1]), ylim=(y_edges[0], y_edges[-1]))
    axis.grid(visible=False)
    axis.set_xlabel("training time t")
    axis.set_title(title)
    axis.axhline(config.alike, color="white", linewidth=1.0, linestyle=(0, (4, 3)))
    axis.text(0.8 * x[-1], config.alike + 0.015, "all rows alike", color="white", fontsize=8.5, ha="right")
    if rows[Column.TEST].iloc[0] == TARGET:
        stops = rows[(rows[Column.MODEL] == THEORY) & (rows[Column.RULE] == BEST)].dropna(
            subset=[Column.TIME]
        )
        draw_theory(axis, stops[Column.TIME], stops[Column.SHARE], Look("white", "-", ""), "_best time")
        style: dict[str, Any] = {"marker": ".", "markersize": 5}
        draw_points(axis, x, y[values.argmin(axis=0)], Look("white", "", "."), "_best share", **style)
    _draw_checked(axis, rows, norm)


def _draw_checked(axis: Axes, rows: pd.DataFrame, norm: LogNorm) -> None:
    """Simulated cells at every fourth share, coloured by their mean error like the map."""
    simulated = rows[(rows[Column.MODEL] == LSA) & (rows[Column.RULE] == MAP)]
    means = simulated.groupby([Column.SHARE, Column.TIME])[Column.ERROR].mean().reset_index()
    shares = np.unique(means[Column.SHARE])
    means = means[means[Column.SHARE].isin(shares[:: max(1, (len(shares) - 1) // 6)])]
    axis.scatter(
        means[Column.TIME],
        means[Column.SHARE],
        c=means[Column.ERROR],
        norm=norm,
        cmap="cividis",
        s=60,
        edgecolors="white",
        linewidths=0.9,
        zorder=4,
    )


def _edges(centres: Array) -> Array:
    """Edges midway between centres that need not be even, (K,) to (K + 1,)."""
    inner = (centres[1:] + centres[:-1]) / 2
    return np.array([2 * centres[0] - inner[0], *inner, 2 * centres[-1] - inner[-1]])


def _at_best_times(table: pd.DataFrame, model: str) -> pd.DataFrame:
    """Rows on the target at each share's best time."""
    return table[
        (table[Column.MODEL] == model) & (table[Column.RULE] == BEST) & (table[Column.TEST] == TARGET)
    ]


def _best_pair(table: pd.DataFrame) -> pd.Series:
    """The theory's best share with its best time."""
    stops = _at_best_times(table, THEORY)
    return stops.loc[stops[Column.PREDICTED].idxmin()]


def _gain(saved: Saved[WeightTimeMap], threshold: float) -> Judgement:
    """The best pair's simulated error over that of all rows alike and of removal, each at its best time."""
    simulated, best = _at_best_times(saved.table, LSA), _best_pair(saved.table)
    theory = _at_best_times(saved.table, THEORY).set_index(Column.SHARE)

    def errors(share: float) -> Array:
        return by_seed(simulated[np.isclose(simulated[Column.SHARE], share)])

    chosen = float(best[Column.SHARE])
    rivals = {"all rows alike": saved.config.alike, "removal": 0.0}
    logs = {name: np.log(errors(chosen) / errors(share)) for name, share in rivals.items()}
    told = [f"share {chosen:.2g} at t={best[Column.TIME]:.3g}: {best[Column.PREDICTED]:.3f}"]
    for name, share in rivals.items():
        row = theory.iloc[int(np.abs(theory.index - share).argmin())]
        told.append(f"{name} at t={row[Column.TIME]:.3g}: {row[Column.PREDICTED]:.3f}")
    means = ", ".join(f"{np.exp(log.mean()):.3f} over {name}" for name, log in logs.items())
    return judge_ratio(list(logs.values()), threshold, f"theory: {'; '.join(told)}; simulated ratio {means}")


def _later_more(saved: Saved[WeightTimeMap], threshold: float) -> Judgement:
    """Whether, of two simulated times, each one's best share beats the other's, and the later's is larger."""
    table, times = saved.table[saved.table[Column.TEST] == TARGET], saved.config.checked
    maps = table[table[Column.RULE] == MAP]
    theory, simulated = (maps[maps[Column.MODEL] == model] for model in (THEORY, LSA))
    best = {}
    for time in times:
        own = theory[np.isclose(theory[Column.TIME], time)]
        best[time] = float(own.loc[own[Column.PREDICTED].idxmin(), Column.SHARE])

    def errors(time: float, share: float) -> Array:
        at = np.isclose(simulated[Column.TIME], time) & np.isclose(simulated[Column.SHARE], share)
        return by_seed(simulated[at])

    verdicts: dict[str, Verdict] = {}
    for early, late in pairwise(times):
        for time, own, other in ((early, best[early], best[late]), (late, best[late], best[early])):
            wins = best[early] < best[late]
            verdicts[f"t={time:g}: {own:.2g} beats {other:.2g}"] = (
                paired(errors(time, own), errors(time, other)) if wins else "fails"
            )
    note = "best shares: " + ", ".join(f"{share:.2g} at t={time:.3g}" for time, share in best.items())
    return judge_settings(verdicts, threshold, seeds_of(simulated), note)


def _theory_matches(saved: Saved[WeightTimeMap], threshold: float) -> Judgement:
    rows = saved.table[saved.table[Column.MODEL] == LSA]
    return judge_prediction(rows, (Column.RULE, Column.TEST, Column.SHARE, Column.TIME), threshold)


_SIZES = (
    "d=200, m=100, rho=0.1, eta=0.2, r=0.01, n=600, 200 rows of the paper's allocation and 2000 misleading "
    "rows of eta Sigma / 2 (sizes of the preset); shares and times are the theory's"
)
_JUDGES = "tests/studies/training_time/test_weight_time_map.py"

CLAIMS = (
    Claim(
        id="weight-time-gain",
        paper="ours, on Insight 1",
        statement="A misleading source can be worth a smaller weight, and not removal: here the best share "
        "of it, at its best time, beats both all rows alike and none of them, each at its own best time, by "
        "5 percent.",
        setting=_SIZES
        + "; the source was chosen for an inner optimum: with a quarter of the variance instead of "
        "half removal is best",
        statistic="larger of the two ratios of errors (geometric means over paired seeds), both intervals "
        "together "
        f"at {CONFIDENCE:.0%} confidence",
        threshold=0.95,
        judge=_gain,
        test=f"{_JUDGES}::test_the_gain_is_over_both_rivals",
    ),
    Claim(
        id="weight-time-later",
        paper="ours, on Insight 1",
        statement="The longer one trains, the larger is the best share of the misleading source.",
        setting=_SIZES + "; at t = 10, 100 and 1000",
        statistic=f"share of comparisons in which the best share of a time beats its neighbour's there, "
        f"each at {CONFIDENCE:.0%} confidence over paired seeds",
        threshold=1.0,
        judge=_later_more,
        test=f"{_JUDGES}::test_later_times_have_to_prefer_more",
    ),
    Claim(
        id="weight-time-theory",
        paper="ours",
        statement="The theory predicts the simulated error on the target and on Sigma0 over shares and "
        "times.",
        setting=_SIZES + "; three times of the map and the best time at every share",
        statistic="largest relative deviation of the prediction from the mean over seeds",
        threshold=0.05,
        judge=_theory_matches,
        test=f"{_JUDGES}::test_the_map_has_to_be_measured",
    ),
)
STUDY = Study(
    name=NAME,
    title="How much of a misleading source, and for how long?",
    story=(
        "Ten times as many rows that teach twice too large an answer are not worthless: at a smaller "
        "weight, and stopped in time, they beat both counting every row alike and leaving them out. Early "
        "on only the aligned rows should count, later more and more of the misleading ones, which alone "
        "hold the directions off the shift in place."
    ),
    experiment=WeightTimeMap,
    draw=draw,
    claims=CLAIMS,
)
