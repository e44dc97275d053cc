"""Why a single row is where it is: what was measured on it, against the threshold that decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from datadose.llm.pass_rates import Prior, chance_mixed
from datadose.llm.selection.arrays import Indices, numbers
from datadose.llm.selection.chosen import Selection
from datadose.llm.selection.config import FILTERS
from datadose.llm.selection.filters import (
    CONFLICT,
    DUPLICATE,
    HOPELESS,
    IN_EVALUATION,
    INTERFERING,
    KNOWN,
    NEAR_COPY,
    NO_RATE,
    NOT_ALIGNED,
    SOLVED,
    TOO_EASY,
    TOO_HARD,
    UNSCORED,
    WRONG,
    Filter,
    cuts_of,
)

Why: TypeAlias = Callable[[int, str | None], str]
"""The reason of a row, by its place in its scores and its issue."""


class Reasons:
    """What decided on a row, in numbers."""

    def __init__(self, selection: Selection) -> None:
        self.selection, self.measures, table = selection, selection.measures, selection.pool.table
        self.ids = table["id"].to_numpy()
        self.hashes = table["question_hash"].to_numpy()
        self.columns = {
            name: numbers(table, name)
            for name in ("nll", "own_confidence", "pass_rate_low", "pass_rate_passed", "pass_rate_total")
        }
        record = selection.repeats
        self.copies = {one["id"]: one for one in (record.get("near_duplicates") or {}).get("examples", ())}
        self.overlaps = {one["id"]: one for one in (record.get("against") or {}).get("examples", ())}

    def told(self, name: str, rows: Indices) -> Indices:
        """Those of the rows of which more is recorded, if there are any; else all."""
        known = {NEAR_COPY: self.copies, IN_EVALUATION: self.overlaps}.get(name)
        if not known:
            return rows
        there = rows[np.isin(self.ids[rows].astype(str), list(known))]
        return there if len(there) else rows

    def of(self, one: Filter, name: str) -> Why:
        """The reason of a row that the filter ``one`` of the set ``name`` removed."""
        return lambda place, issue: self.removed(one, name, place, issue)

    def why_sft(self, place: int, _: str | None = None) -> str:
        """Why the row at ``place`` is in the SFT set."""
        crossed = int(self.selection.sft_crossed[place])
        if crossed >= 0:
            one = self.selection.filters_of("sft")[crossed]
            return f"taken although it lies beyond `{one['name']}`: {self.removed(one, 'sft', place)}"
        if (name := self.selection.config.method) != FILTERS:
            return f"taken by the method {name}; loss {self.columns['nll'][place]:.2f} nats a token"
        limit = self._cut(TOO_EASY, place)
        hardness = self.measures.hardness[place]
        above = "" if limit is None else f", above {limit:.2f}, where the hard stratum of its length begins"
        aligned = self.measures.alignment[place]
        return f"hardness {hardness:.2f}{above}; alignment {aligned:+.2f}, {self._needed(place)} needed"

    def why_rl(self, place: int, _: str | None = None) -> str:
        """Why the row at ``place`` is in the RL set."""
        crossed = int(self.selection.rl_crossed[place])
        beyond = ""
        if crossed >= 0:
            beyond = f"taken although it lies beyond `{self.selection.filters_of('rl')[crossed]['name']}`: "
        return f"{beyond}{self._mixed(place)}"

    def removed(self, one: Filter, name: str, place: int, issue: str | None = None) -> str:
        """Why the filter ``one`` of the set ``name`` removed the row at ``place``, with its issue if any."""
        if one["name"] == UNSCORED:
            return issue or "its loss or its representation is not finite"
        facts: dict[str, Callable[[], str]] = {
            NO_RATE: lambda: "none of its samples was judged",
            IN_EVALUATION: lambda: self._overlap(place),
            DUPLICATE: lambda: self._duplicate(name, place),
            NEAR_COPY: lambda: self._copy(place),
            WRONG: lambda: f"its completion does not pass the verifier{self._verifier()}",
            SOLVED: lambda: self._mixed(place),
            HOPELESS: lambda: self._mixed(place),
            NOT_ALIGNED: lambda: (
                f"alignment {self.measures.alignment[place]:+.2f} ({self._needed(place)} needed)"
            ),
        }
        if (fact := facts.get(one["name"])) is not None:
            return fact()
        cut = self._cut(one["name"], place)
        return one["why"] if cut is None else self._against(one["name"], place, cut)

    def _against(self, name: str, place: int, cut: float) -> str:
        """A row's value against the threshold of a judgement."""
        known = {column: float(values[place]) for column, values in self.columns.items()}
        reference, hardness = self.measures.interference[place], self.measures.hardness[place]
        label = float(np.exp(-known["nll"]))
        return {
            CONFLICT: f"own answer with confidence {known['own_confidence']:.2f} (threshold {cut:.2f}); the "
            f"label has {label:.2f}",
            KNOWN: f"pass rate at least {known['pass_rate_low']:.2f} (threshold {cut:.2f})",
            TOO_HARD: f"NLL {known['nll']:.2f} (at its length {cut:.2f} and more is out)",
            INTERFERING: f"reference {reference:+.2f} (at its length {cut:+.2f} and less is out)",
            TOO_EASY: f"hardness {hardness:.2f} (at its length {cut:.2f} and less is out)",
        }[name]

    def _cut(self, name: str, place: int) -> float | None:
        """The threshold of a filter of the SFT set at the length of a row; None where it removed nothing."""
        cuts = cuts_of(self.selection.filters_of("sft"), name)
        if len(cuts) < 2:
            return cuts[0] if cuts else None
        return cuts[int(self.measures.stratum[place])]

    def _needed(self, place: int) -> str:
        # A threshold of zero is crossed by standing on it.
        needed = self._cut(NOT_ALIGNED, place)
        return "more than 0" if not needed else f"{needed:+.2f}"

    def _verifier(self) -> str:
        name = self.selection.pool.manifest.get("verifier")
        return f" {name}" if name else ""

    def _overlap(self, place: int) -> str:
        one = self.overlaps.get(str(self.ids[place]))
        if one is None:
            return "it repeats a question of an evaluation file"
        return f"it holds {100 * one['share']:.0f} percent of a question of {one['file']} ({one['place']})"

    def _duplicate(self, name: str, place: int) -> str:
        """Which row of the question stays: the one that this filter left."""
        removed = self.selection.sft_removed if name == "sft" else self.selection.rl_removed
        at = next(i for i, f in enumerate(self.selection.filters_of(name)) if f["name"] == DUPLICATE)
        same = np.flatnonzero(self.hashes == self.hashes[place])
        stays = [other for other in same if removed[other] > at or removed[other] == -1]
        return f"the same question as row {self.ids[stays[0]]}" if stays else "as another row asks"

    def _copy(self, place: int) -> str:
        one = self.copies.get(str(self.ids[place]))
        if one is None or one["of"] is None:
            return "nearly the question of a row that stays"
        return f"nearly the question of row {one['of']}: similarity {one['similarity']:.2f}"

    def _mixed(self, place: int) -> str:
        record, known = self.selection.rl_record, self.columns
        prior = Prior.from_json(record["prior"])
        passed, judged = known["pass_rate_passed"][place], known["pass_rate_total"][place]
        alpha, beta = prior.posterior(np.array(passed), np.array(judged))
        chance = float(chance_mixed(alpha, beta, record["group"]))
        return (
            f"{passed:.0f} of {judged:.0f} samples pass: a group of {record['group']} is mixed with chance "
            f"{chance:.2f} (threshold {record['mixed']:g})"
        )
