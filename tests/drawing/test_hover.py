"""The hover record: points are where the picture shows them, under the names that a reader knows them by."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from datadose.drawing.curves import draw_curve
from datadose.drawing.hover import Cells, hover_json, record_cells, record_points
from datadose.drawing.style import (
    LOOKS,
    Look,
    draw_lost,
    draw_points,
    draw_simulation,
    draw_theory,
    name_ticks,
    new_grid,
    save,
)


def _figure(draw: Callable[..., None], columns: int = 1) -> Figure:
    with new_grid(1, columns, width=6.0, height=4.0) as (figure, axes):
        draw(*axes[0])
        figure.savefig(io.BytesIO(), format="svg")
    return figure


def _panel(draw: Callable[[Any], None]) -> dict[str, Any]:
    """The record of one panel, drawn as :func:`save` draws it."""
    (panel,) = json.loads(hover_json(_figure(draw)))["panels"]
    return dict(panel)


@pytest.mark.parametrize("scale", ["linear", "log", "symlog"])
def test_a_point_is_recorded_where_the_picture_shows_it(tmp_path: Path, scale: str) -> None:
    """Against the pixels of the saved picture: the middle of the one magenta marker."""

    def draw(other: Any, axis: Any) -> None:
        draw_theory(other, [1, 1000], [3, 40], LOOKS[0], "other panel")
        draw_theory(axis, [1, 1000], [2, 300], LOOKS[0], "line")
        draw_points(axis, 37.0, 21.0, Look("#ff00ff", "none", "s"), "one", markersize=5)
        axis.set_xscale(scale)
        axis.set_yscale(scale)
        axis.set_ylabel("some label that\nmoves the panel")

    save(_figure(draw, columns=2), tmp_path, "seen")
    picture = matplotlib.image.imread(tmp_path / "seen.png")
    red, green, blue = (picture[..., k] for k in range(3))
    rows, columns = np.nonzero((red > 0.95) & (green < 0.05) & (blue > 0.95))
    assert len(rows) > 50
    seen = [(columns.mean() + 0.5) / picture.shape[1], (rows.mean() + 0.5) / picture.shape[0]]
    _, series = json.loads((tmp_path / "seen.hover.json").read_text())["panels"][1]["series"]
    # Half a pixel of the picture, whose text is set a little differently than the SVG's.
    np.testing.assert_allclose(series["at"], seen, atol=2e-3)
    assert (series["label"], series["x"], series["y"]) == ("one", [37], [21])


def test_error_bars_gaps_and_points_outside() -> None:
    x, y = [1.0, 2.0, 3.0, 4.0, 50.0], [1.0, np.nan, 3.0, 4.0, 5.0]
    yerr = [[0.1, 0.1, 0.2, 0, 0.1], [0.3, 0.3, 0.3, 0, 0.1]]

    def draw(axis: Any) -> None:
        draw_points(axis, x, y, LOOKS[0], "a", xerr=[0, 0, 0.5, 0, 0], yerr=yerr)
        axis.set_xlim(0, 5)

    (series,) = _panel(draw)["series"]
    assert (series["x"], series["y"]) == ([1, 3, 4], [1, 3, 4])
    assert series["ybar"] == [[0.9, 1.3], [2.8, 3.3], None]
    assert series["xbar"] == [None, [2.5, 3.5], None]


def test_a_curve_is_told_once_and_runs_that_were_lost_have_no_value() -> None:
    rows = pd.DataFrame({"B": [1, 1, 2, 2], "error": [1.0, 1.2, 2.0, 2.4]})

    def draw(axis: Any) -> None:
        draw_curve(axis, rows, "B", "error", LOOKS[1], "curve")
        draw_simulation(axis, rows, "B", LOOKS[0], "_simulated")
        draw_lost(axis, [3, 4], LOOKS[1], "_run lost")
        axis.axhline(1.5)

    panel = _panel(draw)
    curve, simulated, lost = panel["series"]
    assert [one["label"] for one in panel["series"]] == ["curve", "simulated", "run lost"]
    assert curve["y"] == simulated["y"] == [1.1, 2.2]
    assert curve["ybar"] == simulated["ybar"] == [[1, 1.2], [2, 2.4]]
    assert curve["color"] == lost["color"] == LOOKS[1].color.lower()
    assert (lost["x"], lost["y"]) == ([3, 4], [None, None])
    _, top, _, bottom = panel["box"]
    np.testing.assert_allclose(lost["at"][1::2], bottom + 0.97 * (top - bottom), atol=1e-4)


def test_a_name_for_the_record_is_in_no_legend() -> None:
    def draw(axis: Any) -> None:
        draw_theory(axis, [1, 2], [1, 2], LOOKS[0], "shown")
        draw_theory(axis, [1, 2], [2, 2], LOOKS[1], "_hidden")
        axis.legend()

    figure = _figure(draw)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["shown"]  # type: ignore[union-attr]
    assert [one["label"] for one in json.loads(hover_json(figure))["panels"][0]["series"]] == [
        "shown",
        "hidden",
    ]


def test_points_of_one_name_are_one_series_and_categories_read_as_the_axis_does() -> None:
    def draw(axis: Any) -> None:
        for place, y in ((-0.1, 0.25), (1.1, 0.5), (2, 0.123456)):
            draw_points(axis, place, y, LOOKS[round(place)], "_a", yerr=[[0.01], [0.02]])
        name_ticks(axis.xaxis, ["easy", "medium", "very\nhard"])
        axis.set_xlabel("left: few, right: many")
        axis.yaxis.set_major_formatter(PercentFormatter(1))

    panel = _panel(draw)
    (series,) = panel["series"]
    assert panel["x"] == ""
    assert series["x"] == ["easy", "medium", "very hard"]
    assert series["y"] == ["25%", "50%", "12.35%"]
    assert series["ybar"][0] == ["24%", "27%"]
    assert series["color"] not in [look.color.lower() for look in LOOKS]


def test_named_places_of_a_logarithmic_axis_name_nothing_else() -> None:
    def draw(axis: Any) -> None:
        draw_points(axis, [10, 11, 100], [1, 2, 3], LOOKS[0], "a")
        axis.set_xscale("log")
        name_ticks(axis.xaxis, ["10\n(few)", "100\n(many)"], [10, 100], "prompts")

    panel = _panel(draw)
    assert (panel["x"], panel["series"][0]["x"]) == ("prompts", ["10 (few)", 11, "100 (many)"])


def test_a_bar_on_another_one_tells_its_length_at_its_end() -> None:
    def draw(axis: Any) -> None:
        axis.set_ylim(0, 4)
        record_points(axis, "upper", "red", [0, 1], [0.75, 1.75], length=[0.25, 0.5])

    panel = _panel(draw)
    _, top, _, bottom = panel["box"]
    (upper,) = panel["series"]
    assert upper["y"] == [0.25, 0.5]
    np.testing.assert_allclose(
        upper["at"][1::2], bottom + (top - bottom) * np.array([0.75, 1.75]) / 4, atol=2e-4
    )


def test_cells_are_cut_at_the_panel_and_the_colour_bar_is_no_panel() -> None:
    values = [[1.23456, None, 3], ["x", np.nan, 6]]

    def draw(axis: Any) -> None:
        mesh = axis.pcolormesh([0, 1, 2, 3], [0, 10, 20], [[1, 2, 3], [4, 5, 6]])
        axis.figure.colorbar(mesh, ax=axis)
        axis.set_xlim(0.5, 3)
        record_cells(
            axis, Cells([0, 1, 2, 3], [0, 10, 20], [0.5, 1.5, 2.5], ["low", "high"], values, "error")
        )

    panel = _panel(draw)
    cells, (left, top, right, bottom) = panel["cells"], panel["box"]
    width = right - left
    np.testing.assert_allclose(cells["columns"], left + width * np.array([0, 0.2, 0.6, 1]), atol=2e-4)
    np.testing.assert_allclose(cells["rows"], [bottom, (top + bottom) / 2, top], atol=2e-4)
    assert cells["values"] == [[1.235, None, 3], ["x", None, 6]]
    assert cells["y"] == ["low", "high"]


def test_a_grid_shares_its_titles_and_labels() -> None:
    with new_grid(2, 2, width=6, height=5) as (figure, axes):
        for axis in axes.flat:
            draw_theory(axis, [1, 2, 3], [1, 2, 3], LOOKS[0], "a")
        for axis, title in zip(axes[0], ("left", "right"), strict=True):
            axis.set_title(title)
        for row, label in zip(axes, ("few\nerror", "many\nerror"), strict=True):
            row[0].set_ylabel(label)
        for axis in axes[1]:
            axis.set_xlabel("B (square-root scale)")
        name_ticks(axes[0][1].yaxis, ["one", "two", "three"], [1, 2, 3])
        figure.savefig(io.BytesIO(), format="svg")
    panels = json.loads(hover_json(figure))["panels"]
    assert [panel["title"] for panel in panels] == ["left", "right", "left", "right"]
    assert {panel["x"] for panel in panels} == {"B"}
    assert [panel["y"] for panel in panels] == ["few error", "", "many error", "many error"]


def test_the_record_is_the_same_when_saved_again(tmp_path: Path) -> None:
    def draw(axis: Any) -> None:
        draw_points(axis, [1, 10, 100], [1, 2, 30], LOOKS[0], "a", yerr=0.3)
        axis.set_xscale("log")

    figure = _figure(draw)
    for name in ("first", "second"):
        save(figure, tmp_path, name)
    save(_figure(draw), tmp_path, "third")
    assert len({path.read_bytes() for path in tmp_path.glob("*.hover.json")}) == 1
    save(figure, tmp_path, "plan", kinds=("png",))
    assert not (tmp_path / "plan.hover.json").exists()
