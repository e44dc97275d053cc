"""Which of two arms is better: paired differences over seeds, judged with the power that a pilot states.

A pilot on other seeds gives the spread of the paired differences before the run; with it, the run's number
of seeds says which difference it detects with 80 percent power (:mod:`datadose.power`). A comparison is then
*no difference* if its interval leaves room for none larger than the detectable one; else it *holds* or
*fails* if the interval leaves out zero, and is *mixed* if not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.power import detectable_difference
from datadose.studies.ledger import judge_difference, judge_settings
from datadose.studies.study import Judgement, Verdict

POWER = 0.8
"""With which a difference is to be detected."""


@dataclass(frozen=True)
class Pilot:
    """What a pilot on seeds outside the study has measured.

    Args:
        spread: standard deviation over seeds of a paired difference between two arms, pooled over the arms.
        seeds: those of the pilot.
        command: what made it.
    """

    spread: float
    seeds: tuple[int, ...]
    command: str

    def detectable(self, seeds: int) -> float:
        """The smallest mean difference that ``seeds`` paired seeds detect with probability POWER."""
        return detectable_difference(self.spread, seeds, power=POWER)


Pilots: TypeAlias = Pilot | Mapping[str, Pilot]
"""One pilot for all comparisons, or one for each by its name."""


def paired(first: pd.Series, second: pd.Series) -> Array:
    """The differences first - second of two series by seed; seeds that only one of them has are left out."""
    both = first.index.intersection(second.index)
    return np.asarray(first[both] - second[both], dtype=np.float64)


def _finished(gains: Mapping[str, Array]) -> dict[str, Array]:
    """The comparisons that at least two seeds have finished."""
    return {name: values for name, values in gains.items() if len(values) > 1}


def compare(gains: Array, pilot: Pilot) -> Judgement:
    """Judge the claim that paired ``gains`` (seeds,) are positive on average; see the module.

    The note names the detectable difference of so many seeds.
    """
    return judge_difference(gains, pilot.detectable(len(gains)), below=False)


def compare_all(gains: Mapping[str, Array], pilot: Pilots, threshold: float) -> Judgement:
    """Judge that all named ``gains`` are positive, as a share of comparisons against ``threshold``.

    ``pilot`` is that of all comparisons, or one for each name. Comparisons of fewer than two seeds are left
    out. The note lists mean and interval of each comparison and the detectable differences.
    """
    gains = _finished(gains)
    if not gains:
        return Judgement(None, None, 0, "not run", "no finished comparison")
    found = {name: compare(values, pilot_of(pilot, name)) for name, values in gains.items()}
    seeds = min(len(values) for values in gains.values())
    if len(found) == 1:
        return next(iter(found.values()))
    verdicts: dict[str, Verdict] = {name: one.verdict for name, one in found.items()}
    told = "; ".join(f"{name} {shown(one)}" for name, one in found.items())
    return judge_settings(verdicts, threshold, seeds, f"{detects(gains, pilot)}; {told}")


def beaten_by(gains: Mapping[str, Array], pilot: Pilots, named: str = "gains of rivals") -> Judgement:
    """Judge that no rival's ``gains`` over an arm exceed the detectable difference, each by its interval.

    *holds* if every interval stays below its detectable difference, *fails* if one lies above it wholly,
    else *mixed*. The value is the largest mean gain, and the note calls them ``named``. Comparisons of fewer
    than two seeds are left out.
    """
    gains = _finished(gains)
    if not gains:
        return Judgement(None, None, 0, "not run", "no finished comparison")
    found = {name: compare(values, pilot_of(pilot, name)) for name, values in gains.items()}
    limits = np.array([pilot_of(pilot, name).detectable(len(values)) for name, values in gains.items()])
    lows, highs = np.array([one.interval or (np.nan, np.nan) for one in found.values()]).T
    verdict: Verdict = "holds" if (highs <= limits).all() else "fails" if (lows > limits).any() else "mixed"
    worst = max(found, key=lambda name: float(gains[name].mean()))
    told = "; ".join(f"{name} {shown(one)}" for name, one in found.items())
    note = f"{detects(gains, pilot)}; {named}: {told}"
    seeds = min(len(values) for values in gains.values())
    return Judgement(found[worst].value, found[worst].interval, seeds, verdict, note)


def pilot_of(pilot: Pilots, name: str) -> Pilot:
    """The pilot of a comparison."""
    return pilot if isinstance(pilot, Pilot) else pilot[name]


def detects(gains: Mapping[str, Array], pilot: Pilots) -> str:
    """The sentence on power of a note."""
    limits = [pilot_of(pilot, name).detectable(len(values)) for name, values in gains.items()]
    seeds = min(len(values) for values in gains.values())
    many = f" to {max(limits):.3g}" if max(limits) > 1.001 * min(limits) else ""
    return f"{seeds} seeds detect {min(limits):.3g}{many} with {POWER:.0%} power"


def shown(judgement: Judgement) -> str:
    """Mean and interval in a note."""
    low, high = judgement.interval or (np.nan, np.nan)
    return f"{judgement.value:+.3f} [{low:+.3f}, {high:+.3f}]"
