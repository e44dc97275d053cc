"""Print what ``grid`` and ``rl_grid`` keep: ``python -m datadose.studies.referee rates FOLDER`` and so on."""

from __future__ import annotations

import sys
from pathlib import Path

from datadose.studies.referee import pilot, rl_pilot

PILOTS = {
    "rates": pilot.run_rates,
    "spread": pilot.run_spread,
    "forecasts": pilot.run_forecasts,
    "rl-targets": rl_pilot.list_targets,
    "rl-rates": rl_pilot.run_rates,
    "rl-stages": rl_pilot.run_stages,
    "rl-spread": rl_pilot.run_spread,
}

if __name__ == "__main__":
    for line in PILOTS[sys.argv[1]](Path(sys.argv[2])):
        print(line, flush=True)
