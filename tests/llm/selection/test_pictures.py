"""The report's pictures: every threshold is drawn where it was applied, and no label lies on another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy.stats import beta, betabinom

from datadose.llm.pass_rates import mixed_band
from datadose.llm.selection import Selection, SelectionConfig, picture, picture_rates, select
from datadose.llm.selection.drawing import draw_thresholds
from datadose.llm.selection.picture import draw_lengths, draw_strata, pictures
from datadose.llm.selection.picture_rates import draw_observed
from datadose.llm.selection.rates import pass_rates_of, table_of
from helpers.synthetic import make

pytestmark = pytest.mark.usefixtures("quick_geometry")

CONFIG = SelectionConfig(
    method="filters", sft_size=60, rl_size=100, extreme=0.1, interfering=0.3, rl_mixed=0.7
)


def chosen(config: SelectionConfig = CONFIG, **options: Any) -> Selection:
    pool = make(600, 0, (0.5, 0.3, 0, 0.2), verified=False, **options).scores
    target = make(60, 1, name="target").scores
    reference = make(100, 2, (0, 1, 0, 0), name="reference").scores
    return select(pool, target, reference=reference, config=config)


@pytest.fixture(scope="module")
def selection(quick_module: None) -> Selection:
    return chosen()


@pytest.fixture(scope="module")
def quick_module() -> Iterator[None]:
    from datadose.llm.selection import geometry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "PERMUTATIONS", 19)
        patch.setattr(geometry, "DIMENSIONS", 8)
        yield


@pytest.fixture
def axis() -> Axes:
    return Figure().subplots()


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are made while this is in use."""
    made: list[Figure] = []

    def keep(figure: Figure) -> str:
        FigureCanvasAgg(figure).draw()
        made.append(figure)
        return "data:,"

    monkeypatch.setattr(picture, "inline", keep)
    monkeypatch.setattr(picture_rates, "inline", keep)
    return made


def _removed(selection: Selection, name: str) -> np.ndarray:
    """The rows beyond a filter's threshold, those that were taken all the same too."""
    place = [f["name"] for f in selection.filters_of("sft")].index(name)
    return np.flatnonzero((selection.sft_removed == place) | (selection.sft_crossed == place))


def _verticals(axis: Axes, begins: str = "") -> list[float]:
    """Places of the vertical lines across the panel whose label begins so."""
    lines = [one for one in axis.lines if list(one.get_ydata()) == [0, 1] and len(set(one.get_xdata())) == 1]
    return [float(one.get_xdata()[0]) for one in lines if str(one.get_label()).startswith(begins)]


def test_the_cuts_of_every_stratum_are_drawn(selection, axis):
    nll = selection.measures.hardness
    draw_strata(axis, selection, nll, {"too hard": "tail", "outside the hard stratum": "hard"})
    drawn = {one.get_label(): one.get_segments() for one in axis.collections if one.get_label()[0] != "_"}
    for name, label, nearest in (("too hard", "tail", np.min), ("outside the hard stratum", "hard", np.max)):
        rows = _removed(selection, name)
        strata = selection.measures.stratum[rows]
        expected = {s: nearest(nll[rows[strata == s]]) for s in np.unique(strata)}
        assert len(expected) > 3
        found = {int(np.round(line[:, 0].mean())): line[0, 1] for line in drawn[label]}
        assert found == pytest.approx(expected, abs=1e-8)


def test_the_length_strata_are_drawn(selection, axis):
    draw_lengths(axis, selection, selection.pool.table["tokens"].to_numpy(float), np.arange(600))
    assert _verticals(axis) == [edge - 0.5 for edge in selection.measures.edges[1:]]
    assert len(_verticals(axis)) > 3


@pytest.mark.long
def test_alignment_and_interference_have_their_thresholds(selection, figures):
    pictures(selection)
    target, reference = figures[1].axes
    needed = selection.measures.needed
    lines = _verticals(target, "needed")
    assert lines == pytest.approx([needed.min()])
    aligned = selection.measures.alignment
    assert (aligned[_removed(selection, "not aligned")] < lines[0] + 1e-9).all()
    within = selection.sft[selection.sft_crossed[selection.sft] == -1]
    assert (aligned[within] > lines[0]).all()
    against = selection.measures.interference[_removed(selection, "interfering")]
    strata = selection.measures.stratum[_removed(selection, "interfering")]
    cuts = [against[strata == s].max() for s in np.unique(strata)]
    assert len(cuts) > 3
    assert _verticals(reference, "out")[0] == pytest.approx(min(cuts), abs=1e-8)
    assert max(_verticals(reference)[:3]) >= max(cuts) - 1e-8


def test_a_threshold_that_differs_by_length_is_a_span(axis):
    draw_thresholds(axis, [0.2, None, 0.4], "needed")
    assert _verticals(axis) == [0.2, 0.4]
    (span,) = axis.patches
    assert (span.get_x(), span.get_width()) == pytest.approx((0.2, 0.2))
    assert axis.get_legend_handles_labels()[1] == ["needed 0.20 to 0.40, by length"]
    draw_thresholds(empty := Figure().subplots(), [None], "needed")
    assert not empty.lines


def test_the_law_of_the_pass_rates_lies_over_the_observed_ones(selection, axis):
    rates = pass_rates_of(selection)
    assert rates is not None
    eligible = np.flatnonzero(selection.eligible)
    draw_observed(axis, selection, eligible, rates)
    assert _verticals(axis) == pytest.approx(list(mixed_band(8, 0.7)))
    lines = {one.get_label(): one for one in axis.lines}
    prior = selection.rl_record["prior"]
    curve = next(line for label, line in lines.items() if label.startswith("Beta("))
    x, y = curve.get_xdata(), curve.get_ydata()
    assert y == pytest.approx(len(eligible) / 16 * beta.pdf(x, prior["a"], prior["b"]))
    counts = lines["expected counts"].get_ydata()
    assert counts == pytest.approx(len(eligible) * betabinom.pmf(np.arange(17), 16, prior["a"], prior["b"]))
    observed = np.bincount(selection.pool.table["pass_rate_passed"][eligible], minlength=17)
    (bars,) = [one for one in axis.patches if one.get_label() == "pool"]
    assert list(bars.get_data().values) == list(observed)


@pytest.mark.long
def test_what_a_count_says_is_drawn_and_listed(selection, figures):
    found = pictures(selection)[2]
    rates = pass_rates_of(selection)
    assert rates is not None
    signal, chance = figures[2].axes[1:]
    for panel, values in ((signal, rates.signal), (chance, rates.chance)):
        (points,) = [one for one in panel.lines if one.get_marker() == "o"]
        assert points.get_ydata() == pytest.approx(values)
        assert panel.get_ylim()[1] > max(values)
    assert [list(one.get_ydata()) for one in chance.lines if "0.7" in one.get_label()] == [[0.7, 0.7]]
    kept = np.flatnonzero(rates.chance >= 0.7)
    assert found.sentences[-1].endswith(f"0.7 or more where {kept[0]} to {kept[-1]} of them passed")
    assert [row[0] for row in found.table] == [str(k) for k in range(17)]
    assert sum(int(row[1].replace(",", "")) for row in found.table) == 600
    assert "expected by the law" in found.header


def test_of_adaptive_samples_no_count_is_expected(selection, axis):
    """Half of the prompts got 4 samples, by what these said: the others' counts are no sample of the law."""
    table = selection.pool.table.copy()
    table.loc[::2, "pass_rate_total"], table.loc[::2, "pass_rate_passed"] = 4, 2
    table.loc[::2, "pass_rate"] = 0.5
    rates = pass_rates_of(changed := replace(selection, pool=replace(selection.pool, table=table)))
    assert rates is not None
    assert (rates.samples, rates.rows.sum(), rates.alike) == (16, 300, False)
    assert "expected by the law" not in table_of(rates)[0]
    draw_observed(axis, changed, np.arange(600), rates)
    assert "expected counts" not in [one.get_label() for one in axis.lines]
    assert axis.get_xlabel() == "pass rate of up to 16 samples"


def _shown(side: Axis, ends: tuple[float, float]) -> list[Text]:
    """The tick labels inside the panel: matplotlib keeps some beyond it, which it does not draw."""
    labels = zip(side.get_ticklocs(), side.get_ticklabels(), strict=True)
    return [label for place, label in labels if min(ends) <= place <= max(ends)]


@pytest.mark.long
@pytest.mark.parametrize(
    ("config", "options"),
    [
        (CONFIG, {}),
        (replace(CONFIG, hardness="sketch", sft_size="auto", rl_size=0), {"samples": 4}),
        (replace(CONFIG, sft_size=0), {"samples": 2}),
    ],
)
def test_no_label_lies_on_another(figures, config, options):
    pictures(chosen(config, **options))
    assert figures
    for figure in figures:
        for panel in figure.axes:
            texts = [panel.title, panel.xaxis.label, panel.yaxis.label, *panel.texts]
            texts += _shown(panel.xaxis, panel.get_xlim()) + _shown(panel.yaxis, panel.get_ylim())
            legend = panel.get_legend()
            boxes = [one.get_window_extent() for one in texts if one.get_text() and one.get_visible()]
            boxes += [legend.get_window_extent()] if legend is not None else []
            assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
            for one, other in combinations(boxes, 2):
                assert not one.padded(-1).overlaps(other.padded(-1)), (one, other)
