"""A results folder with tiny figures 1, 2 and 5 and the ledger judged from them: what a report needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from datadose.files import write_json
from datadose.studies.index import LANGUAGE_MODELS, LEDGER, study
from datadose.studies.ledger import judge_all
from datadose.studies.report import write_report
from datadose.studies.reproduce import reproduce
from datadose.studies.sft_curves.figure1 import Figure1
from datadose.studies.sft_curves.figure2 import Figure2
from datadose.studies.sft_curves.figure5 import Figure5
from datadose.studies.study import Preset
from datadose.studies.tables import TwoBlock, grid

FIGURES = ("fig1", "fig2", "fig5")
Figures: TypeAlias = Figure1 | Figure2 | Figure5
COMMAND = "datadose reproduce --out '<b>&'"
"""Needs escaping, so that a page that forgets to is caught."""

_RS = (0.0, 0.01, 0.1)
_SMALL = (
    Figure1(TwoBlock(10, 5), _RS, (10, 20, 30), grid(range(0, 30, 2)), (10, 20, 30), grid(range(30)), 2),
    Figure2(TwoBlock(10, 5), _RS, (4, 10, 25), (2, 4, 8, 14), grid(range(2, 26, 4)), (2, 4, 8, 14), 2),
    Figure5(TwoBlock(10, 5), 0.1, (20, 100), grid([2, 5, 15, 30]), grid(range(31)), 2),
)


@contextmanager
def small_presets(asked: list[Preset] | None = None) -> Iterator[None]:
    """Every preset of the figures is the tiny one; those that are asked for are added to ``asked``."""
    asked = [] if asked is None else asked

    def preset_of(config: Figures) -> Callable[[Preset], Figures]:
        def preset(name: Preset) -> Figures:
            asked.append(name)
            return config

        return preset

    with pytest.MonkeyPatch.context() as patch:
        for config in _SMALL:
            patch.setattr(type(config), "preset", preset_of(config))
        yield


def make_small_results(out: Path) -> Path:
    """Tables, pictures, hover records, ``claims.json`` and ``report.html`` in ``out``."""
    with small_presets():
        reproduce(FIGURES, preset="smoke", out=out, command=COMMAND)
    write_json(out / "claims.json", judge_all([study(n) for n in LEDGER if n not in LANGUAGE_MODELS], out))
    write_report(out)
    return out
