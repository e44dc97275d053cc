"""Progress outside a terminal: lines that say what is done and how long the rest will take."""

from __future__ import annotations

import pytest

from datadose.progress import PlainLines


def test_lines_come_at_both_ends_and_every_twenty_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """A unit every three seconds, of which ten are there already; and a name beside it that ends at once."""
    now = 0.0
    report = PlainLines(lambda: now)
    for done in range(10, 41):
        report("fig1", done, 40)
        now += 3
    report("fig1", 40, 40)
    report("fig2", 5, 5)
    assert capsys.readouterr().err.splitlines() == [
        "fig1: 10/40",
        "fig1: 17/40, 21 s, about 1 min 9 s left",
        "fig1: 24/40, 42 s, about 48 s left",
        "fig1: 31/40, 1 min 3 s, about 27 s left",
        "fig1: 38/40, 1 min 24 s, about 6 s left",
        "fig1: 40/40, 1 min 30 s",
        "fig2: 5/5",
    ]


def test_time_left_is_said_from_the_first_unit_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is known of units that have not begun; hours have no seconds."""
    now = 0.0
    report = PlainLines(lambda: now)
    report("pretrain", 0, 1000)
    now = 25.0
    report("pretrain", 0, 1000)
    now = 50.0
    report("pretrain", 10, 1000)
    assert capsys.readouterr().err.splitlines() == [
        "pretrain: 0/1000",
        "pretrain: 0/1000, 25 s",
        "pretrain: 10/1000, 50 s, about 1 h 22 min left",
    ]
