"""Simulating the curve that is shown, seed by seed, beside the server: progress, a stop, partial results."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from datadose.errors import reject
from datadose.explore.answers import SFT_IGNORES, dose
from datadose.explore.setting import Setting
from datadose.simulation.curves import SimulatedCurve, sft_error_curve

SEEDS = 10
POINTS = 22
_WAITING = 4
_KEPT = 64
_UNSEEN = 10.0
"""Seconds after which a simulation that no page asks for is given up."""


@dataclass
class Simulation:
    """One curve on its way: the errors of the seeds that are done, in their order."""

    setting: Setting
    prompts: list[int]
    curves: list[list[float]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    running: bool = False
    finished: bool = False
    seen: float = field(default_factory=time.monotonic)
    """When somebody last looked."""
    failure: str = ""

    def run(self) -> None:
        """Simulate seeds 0, 1, .. until all are done, it is stopped, or nobody looks at it any more."""
        shift, self.running = self.setting.shift(), True
        try:
            for seed in range(SEEDS):
                if time.monotonic() - self.seen > _UNSEEN:
                    self.stopped.set()
                if self.stopped.is_set():
                    break
                curve = sft_error_curve(shift, max(self.prompts), self.setting.length, seed=seed)
                self.curves.append(curve[self.prompts].tolist())
        except Exception as error:
            self.failure = f"the simulation failed: {error}"
        self.finished = True

    def points(self) -> dict[str, Any]:
        """What a chart needs, of the seeds that are done; ``sem`` is None where there is one seed."""
        found = SimulatedCurve(np.array(self.prompts, dtype=np.float64), np.array(self.curves))
        sem = [None if np.isnan(value) else float(value) for value in found.sem]
        return {"prompts": self.prompts, "mean": found.mean.tolist(), "sem": sem, "seeds": len(self.curves)}


class Simulations:
    """The simulations of this server by setting: one runs at a time, a few wait, the last ones are kept."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="simulate")
        self._known: OrderedDict[Setting, Simulation] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, setting: Setting) -> Simulation:
        """The simulation of a setting: the known one, or a new one.

        Raises InputError where too many are waiting.
        """
        key = setting.without(*SFT_IGNORES)
        counts = simulated_counts(key)
        with self._lock:
            known = self._known.get(key)
            if known is not None and not known.stopped.is_set() and not known.failure:
                known.seen = time.monotonic()
                return known
            if sum(not s.finished for s in self._known.values()) > _WAITING:
                reject(
                    "simulate", "one more simulation", f"at most {_WAITING} waiting; try again in a minute"
                )
            started = self._known[key] = Simulation(key, counts)
            self._known.move_to_end(key)
            for old in list(self._known)[: max(0, len(self._known) - _KEPT)]:
                if self._known[old].finished:
                    del self._known[old]
        self._pool.submit(started.run)
        return started

    def find(self, setting: Setting) -> Simulation | None:
        """The simulation of a setting, if it was started; it counts as looked at."""
        with self._lock:
            found = self._known.get(setting.without(*SFT_IGNORES))
            if found is not None:
                found.seen = time.monotonic()
            return found

    def close(self) -> None:
        """Stop what runs; no new ones."""
        for simulation in self._known.values():
            simulation.stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


def simulated_counts(setting: Setting) -> list[int]:
    """Where to simulate: counts spread over the curve that is shown, the best one included.

    Counts within two of the peak are left out: the mean over seeds does not exist there.
    """
    found, peak = dose(setting), setting.shift().data_rank
    counts = [B for B, _ in found.curve if abs(B - peak) > 2]
    chosen = np.unique(np.linspace(0, len(counts) - 1, POINTS).round().astype(int))
    return sorted({*(counts[i] for i in chosen), *([found.prompts] if abs(found.prompts - peak) > 2 else [])})
