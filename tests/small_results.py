"""A results folder with tiny figures 1, 2 and 5 and the ledger judged from them: what a report needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from datadose.studies.registry import CLAIMS
from datadose.studies.sft_curves.experiment import Figure1, Figure2
from datadose.studies.sft_curves.figure import draw_figure1, draw_figure2, draw_figure5

from datadose.files import write_json
from datadose.studies.ledger import Tables, judge_all
from datadose.studies.report import write_report
from datadose.studies.reproduce import Target, reproduce
from datadose.studies.sft_curves.figure5 import Figure5
from datadose.studies.tables import TwoBlock, grid

FIGURES = ("fig1", "fig2", "fig5")
COMMAND = "datadose reproduce --out '<b>&'"
"""Needs escaping, so that a page that forgets to is caught."""

_RS = (0.0, 0.01, 0.1)
_SMALL = {
    "fig1": Figure1(
        TwoBlock(10, 5), _RS, (10, 20, 30), grid(range(0, 30, 2)), (10, 20, 30), grid(range(30)), 2
    ),
    "fig2": Figure2(
        TwoBlock(10, 5), _RS, (4, 10, 25), (2, 4, 8, 14), grid(range(2, 26, 4)), (2, 4, 8, 14), 2
    ),
    "fig5": Figure5(TwoBlock(10, 5), 0.1, (20, 100), grid([2, 5, 15, 30]), grid(range(31)), 2),
}
_DRAW = {"fig1": draw_figure1, "fig2": draw_figure2, "fig5": draw_figure5}


@dataclass(frozen=True)
class _Small:
    """A stand-in for an experiment class: every preset is the same tiny configuration."""

    config: Any

    def preset(self, _: str) -> Any:
        return self.config


def make_small_results(out: Path) -> Path:
    """Tables, pictures, hover records, ``claims.json`` and ``report.html`` in ``out``."""
    with pytest.MonkeyPatch.context() as patch:
        targets = {name: Target({name: _Small(_SMALL[name])}, _DRAW[name]) for name in FIGURES}
        patch.setattr("datadose.studies.reproduce.TARGETS", targets)
        reproduce(["all"], preset="smoke", out=out, command=COMMAND)
    write_json(out / "claims.json", judge_all(CLAIMS, Tables(out)))
    write_report(out)
    return out
