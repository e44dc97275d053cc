"""A selection as an object: its line, its data frame and its picture."""

from __future__ import annotations

import numpy as np
import pytest

from datadose.llm.selection import SelectionConfig, select
from helpers.synthetic import make

SETS = ("sft", "rl", "control_sft", "control_rl")


@pytest.mark.usefixtures("quick_geometry")
def test_a_selection_is_a_line_a_frame_and_a_picture() -> None:
    dirty, target = make(4000, 0, (0.4, 0.4, 0.1, 0.1), verified=False), make(300, 1, name="target")
    reference = make(600, 2, (0.0, 1.0, 0.0, 0.0), name="reference")
    config = SelectionConfig(method="filters", sft_size=200)
    found = select(dirty.scores, target.scores, reference=reference.scores, config=config)
    assert repr(found).startswith("Selection(pool=4000, sft=200, rl=")
    frame, axes = found.to_frame(), found.plot()
    assert [list(np.flatnonzero(frame[name])) for name in SETS] == [
        list(getattr(found, name)) for name in SETS
    ]
    removed = frame["sft_removed_by"].value_counts()
    for one in found.filters_of("sft"):
        assert removed.get(one["name"], 0) == one["removed"] - one["taken"]
    last = axes.patches[len([one for one in found.filters_of("sft") if one["removed"]]) + 1]
    assert last.get_width() == 200
