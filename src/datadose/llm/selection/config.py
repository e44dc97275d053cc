"""The settings of a selection."""

from __future__ import annotations

import warnings
from dataclasses import InitVar, dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from datadose.errors import reject, require_choice, require_integer, require_number
from datadose.llm.adaptive import check_mixed
from datadose.llm.pass_rates import GROUP, MIXED, chance_mixed_at

Size: TypeAlias = int | Literal["auto"]
"""A number of rows, or `auto`."""
Representation: TypeAlias = Literal["sketch", "embedding"]
Hardness: TypeAlias = Literal["nll", "sketch"]
FILTERS, TRANSPORT = "filters", "transport"
METHOD_NAMES = (
    *("random", "longest", "easiest", "middle", "hardest", "ifd", "bm25"),
    *("rds", "sketch", "sketch-mean", TRANSPORT, FILTERS),
)
"""What ``select --method`` takes."""
DEFAULT = "bm25"
"""The method that the referee's development setting chose (studies/referee)."""
UNORDERED = (TRANSPORT, FILTERS)
"""The methods whose smaller sets are no part of the larger ones."""


_WITH_WEIGHTS = {
    "sft_tokens": "none with weights, whose scale is a number of rows: sft-size",
    "replay": "0 with weights: give the reference its share of a batch with `posttrain --mix`",
    "sft_size": "auto, or a number above 0 with weights: the rows that get half of the draws",
    "rl_size": "auto or 0 with weights: the SFT set has every usable row, and a question is used once",
}


@dataclass(frozen=True)
class SelectionConfig:
    """Sizes and thresholds; docs/llm_selection.md describes the purpose of each filter.

    Args:
        sft_size: rows taken from the pool for the SFT set, or ``auto`` (the planner's), or 0 for none: then
            neither losses nor representations nor a target are used.
            A number is given whenever there are as many usable rows: where too few are within the thresholds
            of judgement (conflict, sft_solved, extreme, unaligned, interfering, hard), rows beyond them
            follow, the nearest first. ``auto`` stays within.
        sft_tokens: in place of a number of rows, scored completion tokens that the rows from the pool have
            together at most, >= 1; else None.
        rl_size: prompts of the RL set, the best-ranked, or ``auto`` (all whose groups are mixed with at least
            the chance ``rl_mixed``), or 0 for none.
        seed: of everything that is drawn.
        method: which rows come first: ``filters``, all filters below and a draw as diverse as the target, or
            one of the orders of :mod:`datadose.llm.selection.methods`, which no threshold of judgement cuts.
        weights: whether the SFT set is every usable row with a sampling weight by its place in the method's
            order (:func:`~datadose.llm.selection.ordered.place_weights`), ``sft_size`` being the scale; there
            is no RL set then.
        representation: what alignment, the shift and diversity are measured on. Interference is always
            measured on the sketches: only a gradient shows what a step would undo.
        hardness: ``nll`` per token or the ``sketch``'s size per token, ranked within a length stratum.
        replay: share of the rows of sft.jsonl that come from the reference, in [0, 1).
        hard: share of each length stratum, hardest first, that the SFT set is drawn from, in (0, 1].
        extreme: share of each stratum with the largest NLL that is taken for unlearnable, in [0, 1).
        conflict: the model's confidence in its own different answer from which an unverified label is
            suspect, in [0, 1].
        unaligned: a row must be aligned with the target's mean at least as well as this quantile of the
            target's own rows, in [0, 1); and never against it.
        interfering: share of each stratum that is set apart as most opposed to the reference, in [0, 1).
        sft_solved: pass rates surely above this (lower end of the interval) have nothing to learn by SFT.
        group: samples G of a prompt in a step of RL, from 2 to 4096.
        near_duplicates: similarity of two questions' 5-grams, in (0, 1], from which only one of them stays;
            None: near duplicates are not sought.
        overlap: share of an evaluation question's 8-grams, in (0, 1], with which a row is out.
        rl_mixed: the chance that a group of G is mixed (some pass, some fail) from which a prompt justifies
            its samples, in (0, 1 - 2^(1-G)].
        rl_solved: deprecated, with ``rl_hopeless``: an end of the band of pass rates. Taken for the
            ``rl_mixed`` of the outer one.
        rl_hopeless: deprecated.

    Raises InputError for a value out of range.
    """

    sft_size: Size = "auto"
    sft_tokens: int | None = None
    rl_size: Size = "auto"
    seed: int = 0
    method: str = DEFAULT
    weights: bool = False
    representation: Representation = "sketch"
    hardness: Hardness = "nll"
    replay: float = 0.0
    hard: float = 0.5
    extreme: float = 0.02
    conflict: float = 0.7
    unaligned: float = 0.1
    interfering: float = 0.1
    sft_solved: float = 0.5
    near_duplicates: float | None = None
    overlap: float = 0.5
    group: int = GROUP
    rl_mixed: float = MIXED
    rl_solved: InitVar[float | None] = None
    rl_hopeless: InitVar[float | None] = None

    def __post_init__(self, rl_solved: float | None, rl_hopeless: float | None) -> None:
        if rl_solved is not None or rl_hopeless is not None:
            self._take_band(rl_solved, rl_hopeless)
        self._check_sizes()
        require_integer("seed", self.seed, 0)
        for name, allowed in (("representation", get_args(Representation)), ("hardness", get_args(Hardness))):
            require_choice(name, getattr(self, name), allowed)
        for name in ("replay", "extreme", "unaligned", "interfering"):
            if require_number(name, getattr(self, name), 0, 1) == 1:
                reject(name, getattr(self, name), "a number in [0, 1)")
        if require_number("hard", self.hard, 0, 1) == 0:
            reject("hard", self.hard, "a number in (0, 1]")
        for name in ("near_duplicates", "overlap"):
            value = getattr(self, name)
            if value is not None and require_number(name, value, 0, 1) == 0:
                reject(name, value, "a number in (0, 1]")
        for name in ("conflict", "sft_solved"):
            require_number(name, getattr(self, name), 0, 1)
        check_mixed("rl_mixed", self.rl_mixed, self.group)
        self._check_method()

    def _take_band(self, solved: float | None, hopeless: float | None) -> None:
        """The ``rl_mixed`` of a band of pass rates, as ends were once given."""
        ends = {"rl_solved": solved, "rl_hopeless": hopeless}
        rates = np.array([require_number(name, end, 0, 1) for name, end in ends.items() if end is not None])
        if solved is not None and hopeless is not None and hopeless >= solved:
            reject("rl_hopeless", hopeless, f"a number below rl_solved, {solved:g}")
        if self.rl_mixed != MIXED:
            reject("rl_mixed", self.rl_mixed, "none beside rl_solved and rl_hopeless, which it replaces")
        check_mixed("rl_mixed", self.rl_mixed, self.group)
        # An end of 0 or 1 left nothing out.
        object.__setattr__(self, "rl_mixed", max(float(chance_mixed_at(rates, self.group).min()), 1e-9))
        given = " and ".join(name for name, end in ends.items() if end is not None)
        message = (
            f"{given} will go: rl_mixed = {self.rl_mixed:.3g} has the same outer end at known pass rates"
        )
        warnings.warn(message, FutureWarning, stacklevel=4)

    def _check_method(self) -> None:
        require_choice("method", self.method, METHOD_NAMES)
        if self.weights:
            if self.method in UNORDERED:
                ordered = [name for name in METHOD_NAMES if name not in UNORDERED]
                reject("method", f"{self.method} with weights", f"an order of rows: {', '.join(ordered)}")
            wrong = {
                "sft_tokens": self.sft_tokens is not None,
                "replay": self.replay != 0,
                "sft_size": self.sft_size == 0,
                "rl_size": self.rl_size not in (0, "auto"),
            }
            for name in (name for name, bad in wrong.items() if bad):
                reject(name, getattr(self, name), _WITH_WEIGHTS[name])
        elif self.method == TRANSPORT and self.sft_tokens is not None:
            reject("sft_tokens", self.sft_tokens, f"none with the method {TRANSPORT}")

    def _check_sizes(self) -> None:
        for name in ("sft_size", "rl_size"):
            if getattr(self, name) != "auto":
                _check_size(name, getattr(self, name), 0)
        if self.sft_size == self.rl_size == 0:
            reject("rl_size", 0, "a number above 0, or auto, with an sft_size of 0: nothing was asked for")
        if self.sft_size == 0 and self.replay:
            reject("replay", self.replay, "0 with an sft_size of 0: rows are replayed in the SFT set")
        if self.sft_tokens is not None:
            require_integer("sft_tokens", self.sft_tokens, 1)
            if self.sft_size != "auto":
                reject("sft_tokens", self.sft_tokens, "none with a number of rows as sft_size")


def _check_size(name: str, value: object, minimum: int) -> None:
    if isinstance(value, (str, float)):
        reject(name, value, f"auto, or an integer >= {minimum}")
    require_integer(name, value, minimum)
