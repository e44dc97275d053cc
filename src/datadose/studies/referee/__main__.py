"""``python -m datadose.studies.referee NAME FOLDER``: the pilots, and a pool for the tool's own commands.

``smollm-pool`` writes SmolLM2 and a pool of the sea for ``datadose score`` and ``datadose compare``; the
others print what ``grid`` and ``rl_grid`` keep.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from datadose.studies.referee import pilot, rl_pilot
from datadose.studies.referee.experiment import SeaStudy
from datadose.studies.referee.methods_experiment import MethodsStudy
from datadose.studies.referee.smollm_experiment import CURVE_SEA
from datadose.studies.referee.smollm_pool import write_pool

COMMANDS: dict[str, Callable[[Path], Iterator[str]]] = {
    "rates": pilot.run_rates,
    "spread": partial(pilot.run_spread, study=SeaStudy.preset("quick")),
    "methods-spread": partial(pilot.run_spread, study=MethodsStudy.preset("quick")),
    "forecasts": pilot.run_forecasts,
    "rl-targets": rl_pilot.list_targets,
    "rl-rates": rl_pilot.run_rates,
    "rl-stages": rl_pilot.run_stages,
    "rl-spread": rl_pilot.run_spread,
    "smollm-pool": partial(write_pool, sea=CURVE_SEA),
}

if __name__ == "__main__":
    for line in COMMANDS[sys.argv[1]](Path(sys.argv[2])):
        print(line, flush=True)
