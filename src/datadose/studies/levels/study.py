"""One question put to four levels of model: how long, how many rows, and what of a misleading source?

The linear transformer with all its weights, the tiny GPT, the language model of our own and SmolLM2 are each
post-trained by SFT and measured on their way: the error on the target and the loss of what was known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pandas as pd

from datadose.errors import reject
from datadose.studies.levels.claims import claims
from datadose.studies.levels.figure import draw_levels
from datadose.studies.levels.gpt import GptLevel
from datadose.studies.levels.language import LanguageLevel
from datadose.studies.levels.linear import LinearLevel
from datadose.studies.levels.schema import Column, LevelConfig
from datadose.studies.levels.smollm import SmolLevel
from datadose.studies.study import Preset, Study
from datadose.studies.tables import as_table
from datadose.sweep import Round

NAME = "levels"


@dataclass(frozen=True)
class Levels:
    """A configuration for each level, None to leave it out; at most ``seeds`` repetitions at each."""

    linear: LinearLevel | None
    gpt: GptLevel | None
    language: LanguageLevel | None
    smollm: SmolLevel | None
    seeds: int

    figure: ClassVar[str] = NAME

    @classmethod
    def preset(cls, name: Preset) -> Levels:
        """The configuration of a preset; SmolLM2 is not in quick."""
        if name in ("small", "medium"):
            reject("preset", name, "smoke, quick or paper")
        levels = LinearLevel.preset(name), GptLevel.preset(name), LanguageLevel.preset(name)
        smollm = None if name == "quick" else SmolLevel.preset(name)
        return cls(*levels, smollm, seeds=2 if name == "smoke" else 10)

    def levels(self) -> list[LevelConfig]:
        """The levels that are run, each with its seeds."""
        given: tuple[Any, ...] = (self.linear, self.gpt, self.language, self.smollm)
        return [
            cast("LevelConfig", replace(level, seeds=min(level.seeds, self.seeds)))
            for level in given
            if level is not None
        ]

    def rounds(self, folder: Path) -> Iterator[Round]:
        """The pretrained models, then every run."""
        made = [cell for level in self.levels() for cell in level.made(folder)]
        if made:
            yield "pretrained models", made
        yield "", [cell for level in self.levels() for cell, _ in level.settings(folder)]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """A row for each measurement of each run."""
        rows: list[dict[str, Any]] = []
        remaining = iter(results)
        for level in self.levels():
            for (_, shared), found in zip(level.settings(Path()), remaining, strict=False):
                rows += [{**shared, **dict(zip(level.measured, values, strict=True))} for values in found]
        for row in rows:
            row |= {Column.FIGURE: NAME, Column.STAGE: "sft", Column.DIVERGED: int(row[Column.ERROR] is None)}
        return as_table(rows, Column, (Column.UPDATES, Column.MODELS))


STUDY = Study(
    name=NAME,
    title="Four levels of model: how long, how many rows, and what of a misleading source?",
    story=(
        "At the best time more rows are better at every level, and one pass over new rows at least as good "
        "as many epochs on few at equal updates. What the theory of V~ alone says of long training, that a "
        "large set ends worse than a small one, is gone once all weights move; and where misleading rows are "
        "wrong answers, removing them leaves less error than a lower weight, and forgets far less "
        "(SmolLM2's wrong numbers, near the answers, do too little harm to tell)."
    ),
    experiment=Levels,
    draw=draw_levels,
    claims=claims(),
)
