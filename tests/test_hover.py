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

from datadose.drawing.hover import Cells, hover_record, record_cells
from datadose.drawing.style import LOOKS, draw_simulation, draw_theory, new_grid, save

MAGENTA = "#ff00ff"


def _record(draw: Callable[[Any], None]) -> dict[str, Any]:
    """The record of one panel, drawn as :func:`save` draws it."""
    with new_grid(1, 1, width=6.0, height=4.0) as (figure, axes):
        draw(axes[0][0])
        figure.savefig(io.BytesIO(), format="svg")
    return hover_record(figure)


def _panel(draw: Callable[[Any], None]) -> dict[str, Any]:
    (panel,) = _record(draw)["panels"]
    return dict(panel)


def _labels(panel: dict[str, Any]) -> list[str]:
    return [series["label"] for series in panel["series"]]


@pytest.mark.parametrize("scale", ["linear", "log", "symlog"])
def test_a_point_is_recorded_where_the_picture_shows_it(tmp_path: Path, scale: str) -> None:
    """Against the pixels of the saved picture: the middle of the one magenta marker."""
    with new_grid(1, 2, width=6.0, height=4.0) as (figure, axes):
        axes[0][0].plot([1, 1000], [3, 40], label="other panel")
        axis = axes[0][1]
        axis.plot([1, 1000], [2, 300], color="black")
        axis.plot([37.0], [21.0], "s", color=MAGENTA, markersize=5, label="one")
        axis.set_xscale(scale)
        axis.set_yscale(scale)
        axis.set_ylabel("some label that\nmoves the panel")
    save(figure, tmp_path, "seen")
    picture = matplotlib.image.imread(tmp_path / "seen.png")
    red, green, blue = (picture[..., k] for k in range(3))
    rows, columns = np.nonzero((red > 0.95) & (green < 0.05) & (blue > 0.95))
    assert len(rows) > 50
    seen = [(columns.mean() + 0.5) / picture.shape[1], (rows.mean() + 0.5) / picture.shape[0]]
    record = json.loads((tmp_path / "seen.hover.json").read_text())
    (series,) = [one for one in record["panels"][1]["series"] if one["label"] == "one"]
    # Half a pixel of the picture, whose text is set a little differently than the SVG's.
    np.testing.assert_allclose(series["at"], seen, atol=2e-3)
    assert (series["x"], series["y"]) == ([37], [21])


def test_places_follow_from_the_limits_of_a_logarithmic_axis() -> None:
    x, y = np.array([1.0, 10.0, 500.0]), np.array([0.2, 3.0, 40.0])
    found: dict[str, Any] = {}

    def draw(axis: Any) -> None:
        axis.plot(x, y, label="curve")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(0.5, 2000)
        axis.set_ylim(0.1, 100)
        found["axis"] = axis

    panel = _panel(draw)
    area = found["axis"].get_position()
    across = area.x0 + area.width * np.log(x / 0.5) / np.log(2000 / 0.5)
    down = 1 - (area.y0 + area.height * np.log(y / 0.1) / np.log(100 / 0.1))
    at = np.array(panel["series"][0]["at"]).reshape(-1, 2)
    np.testing.assert_allclose(at, np.stack([across, down], 1), atol=6e-5)
    np.testing.assert_allclose(panel["box"], [area.x0, 1 - area.y1, area.x1, 1 - area.y0], atol=6e-5)


def test_error_bars_gaps_and_points_outside() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0, 50.0])
    y = np.array([1.0, np.nan, 3.0, 4.0, 5.0])

    def draw(axis: Any) -> None:
        axis.errorbar(
            x, y, yerr=[[0.1, 0.1, 0.2, 0, 0.1], [0.3] * 3 + [0, 0.1]], xerr=[0, 0, 0.5, 0, 0], label="a"
        )
        axis.set_xlim(0, 5)

    (series,) = _panel(draw)["series"]
    assert series["x"] == [1, 3, 4]
    assert series["y"] == [1, 3, 4]
    assert series["ybar"] == [[0.9, 1.3], [2.8, 3.3], None]
    assert series["xbar"] == [None, [2.5, 3.5], None]


def test_what_guides_the_eye_is_no_data() -> None:
    def draw(axis: Any) -> None:
        axis.plot([0, 1, 2], [1, 2, 3], label="data")
        axis.plot([0, 2], [0, 2], color="#5f6368")
        axis.axhline(1.5)
        axis.axvline(0.5, label="here")
        axis.plot([], [], label="only in the legend")
        axis.plot([1], [0.97], "x", transform=axis.get_xaxis_transform(), label="_run lost")
        axis.legend()

    panel = _panel(draw)
    assert _labels(panel) == ["data", "run lost"]
    lost = panel["series"][1]
    assert (lost["x"], lost["y"]) == ([1], [None])


def test_a_line_through_markers_is_told_once_and_beside_others_apart() -> None:
    rows = pd.DataFrame({"B": [1, 1, 2, 2], "error": [1.0, 1.2, 2.0, 2.4]})

    def through(axis: Any) -> None:
        draw_theory(axis, [1, 2], [1.1, 2.2], LOOKS[0], "curve")
        draw_simulation(axis, rows, "B", LOOKS[0])

    def beside(axis: Any) -> None:
        draw_theory(axis, [1, 1.5, 2], [1.15, 1.6, 2.1], LOOKS[0], "curve")
        draw_simulation(axis, rows, "B", LOOKS[0])

    (series,) = _panel(through)["series"]
    assert series["label"] == "curve"
    assert series["y"] == [1.1, 2.2]
    assert "ybar" in series
    assert _labels(_panel(beside)) == ["curve, line", "curve, markers"]


def test_the_outline_of_a_line_is_not_told_beside_it() -> None:
    def draw(axis: Any) -> None:
        axis.plot([1, 2, 3], [1, 2, 3], color="white", linewidth=4)
        axis.plot([1, 2, 3], [1, 2, 3], color="black", label="theory")
        axis.plot([1, 2, 3], [1, 2, 3], color="#0072B2", label="the same values by another name")

    assert _labels(_panel(draw)) == ["theory", "the same values by another name"]


def test_series_are_named_by_their_colour_in_the_legend_unless_two_tie() -> None:
    def draw(axis: Any) -> None:
        axis.plot([], [], "o", color="#0072B2", label="blue dots")
        axis.plot([], [], "s", color="#D55E00", label="orange squares")
        axis.plot([], [], "^", color="#D55E00", label="orange triangles")
        axis.legend()
        axis.plot([1, 2, 3], [1, 2, 3], "o", color="#0072B2")
        axis.plot([1, 2, 3], [2, 3, 4], "^", color="#D55E00")
        axis.plot([1, 2, 3], [3, 4, 5], "D", color="#D55E00")
        axis.plot([1, 2, 3], [4, 5, 6], "o", color="#009E73", label="_named for the record")

    assert _labels(_panel(draw)) == ["blue dots", "orange triangles", "", "named for the record"]


def test_a_name_for_the_record_is_in_no_legend_and_changes_no_picture() -> None:
    def picture(label: str | None) -> bytes:
        with new_grid(1, 1, width=4.0, height=3.0) as (figure, axes):
            draw_theory(axes[0][0], [1, 2, 3], [1, 2, 3], LOOKS[0], "shown")
            draw_theory(axes[0][0], [1, 2, 3], [2, 2, 3], LOOKS[1], label)
            axes[0][0].legend()
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()

    assert picture(None) == picture("_hidden")
    assert picture(None) != picture("hidden")


def test_categories_and_shares_read_as_the_axis_does() -> None:
    def draw(axis: Any) -> None:
        axis.plot([-0.1, 1.1, 2], [0.25, 0.5, 0.123456], "o", label="a")
        axis.set_xticks(range(3), ["easy", "medium", "very\nhard"])
        axis.yaxis.set_major_formatter(PercentFormatter(1))

    (series,) = _panel(draw)["series"]
    assert series["x"] == ["easy", "medium", "very hard"]
    assert series["y"] == ["25%", "50%", "12.35%"]


def test_markers_drawn_one_by_one_are_one_series_if_they_were_given_one_name() -> None:
    def draw(axis: Any) -> None:
        axis.plot([], [], "o", color="#0072B2", label="borrowed")
        axis.legend()
        for place, marker in enumerate("os"):
            axis.errorbar(place, 1, yerr=0.2, fmt=marker, color=LOOKS[place].color, label="_given")
            axis.plot([place], [2], marker, color="#0072B2")
        axis.set_xticks([0, 1], ["easy", "hard"])
        axis.set_xlabel("left: few, right: many")

    panel = _panel(draw)
    assert panel["x"] == ""
    assert _labels(panel) == ["given", "borrowed, markers", "borrowed, markers"]
    assert panel["series"][0]["x"] == ["easy", "hard"]
    assert panel["series"][0]["ybar"] == [[0.8, 1.2], [0.8, 1.2]]


def test_ticks_that_are_numbers_name_nothing_and_others_only_their_own_place() -> None:
    def numbers(axis: Any) -> None:
        axis.plot([1, 2, 3], [1, 2, 3], label="a")
        axis.set_xticks([1, 2, 3], ["1", "2", "3"])

    def names(axis: Any) -> None:
        axis.plot([10, 11, 100], [1, 2, 3], label="a")
        axis.set_xscale("log")
        axis.set_xticks([10, 100], ["10\n(few)", "100\n(many)"])

    assert _panel(numbers)["series"][0]["x"] == [1, 2, 3]
    assert _panel(names)["series"][0]["x"] == ["10 (few)", 11, "100 (many)"]


def test_bars_and_scatter() -> None:
    def draw(axis: Any) -> None:
        for place in range(2):
            axis.bar(place, 0.5 + place, label="_lower", color="#0072B2")
            axis.bar(place, 0.25, bottom=0.5 + place, label="_upper", color="#D55E00")
        axis.scatter([0, 1], [2, 2.5], color="#009E73", label="dots")
        axis.set_ylim(0, 4)

    panel = _panel(draw)
    assert _labels(panel) == ["lower", "upper", "dots"]
    lower, upper, dots = panel["series"]
    assert (lower["x"], lower["y"]) == ([0, 1], [0.5, 1.5])
    assert upper["y"] == [0.25, 0.25]
    assert dots["y"] == [2, 2.5]
    _, top, _, bottom = panel["box"]
    height = bottom - top
    np.testing.assert_allclose(upper["at"][1::2], bottom - height * np.array([0.75, 1.75]) / 4, atol=2e-4)


def test_cells_are_cut_at_the_panel_and_the_colour_bar_is_no_panel() -> None:
    def draw(axis: Any) -> None:
        mesh = axis.pcolormesh([0, 1, 2, 3], [0, 10, 20], [[1, 2, 3], [4, 5, 6]])
        axis.figure.colorbar(mesh, ax=axis)
        axis.set_xlim(0.5, 3)
        values = [[1.23456, None, 3], ["x", np.nan, 6]]
        record_cells(
            axis, Cells([0, 1, 2, 3], [0, 10, 20], [0.5, 1.5, 2.5], ["low", "high"], values, "error")
        )

    panel = _panel(draw)
    cells = panel["cells"]
    left, top, right, bottom = panel["box"]
    width = right - left
    np.testing.assert_allclose(cells["columns"], left + width * np.array([0, 0.2, 0.6, 1]), atol=2e-4)
    np.testing.assert_allclose(cells["rows"], [bottom, (top + bottom) / 2, top], atol=2e-4)
    assert cells["values"] == [[1.235, None, 3], ["x", None, 6]]
    assert cells["y"] == ["low", "high"]


def test_a_grid_shares_its_titles_and_labels() -> None:
    with new_grid(2, 2, width=6, height=5) as (figure, axes):
        for axis in axes.flat:
            axis.plot([1, 2, 3], [1, 2, 3], label="a")
        for axis, title in zip(axes[0], ("left", "right"), strict=True):
            axis.set_title(title)
        for row, label in zip(axes, ("few\nerror", "many\nerror"), strict=True):
            row[0].set_ylabel(label)
        for axis in axes[1]:
            axis.set_xlabel("B (square-root scale)")
        axes[0][1].set_yticks([1, 2, 3], ["one", "two", "three"])
        figure.savefig(io.BytesIO(), format="svg")
    panels = hover_record(figure)["panels"]
    assert [panel["title"] for panel in panels] == ["left", "right", "left", "right"]
    assert {panel["x"] for panel in panels} == {"B"}
    assert [panel["y"] for panel in panels] == ["few error", "", "many error", "many error"]


def _figure() -> Figure:
    with new_grid(1, 2, width=6, height=3, sharey=True) as (figure, axes):
        for axis in axes[0]:
            axis.errorbar([1, 10, 100], [1, 2, 30], yerr=0.3, label="a")
            axis.set_xscale("log")
        axes[0][0].set_ylabel("error")
    return figure


def test_the_record_is_the_same_when_drawn_again(tmp_path: Path) -> None:
    for name in ("first", "second"):
        save(_figure(), tmp_path, name)
    figure = _figure()
    save(figure, tmp_path, "third")
    save(figure, tmp_path, "third")
    found = {(tmp_path / f"{name}.hover.json").read_bytes() for name in ("first", "second", "third")}
    assert len(found) == 1
    assert b"NaN" not in found.pop()


def test_a_picture_without_svg_has_no_record(tmp_path: Path) -> None:
    save(_figure(), tmp_path, "plan", kinds=("png",))
    assert [path.name for path in tmp_path.iterdir()] == ["plan.png"]
