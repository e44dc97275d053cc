"""Print what ``grid`` keeps: ``python -m datadose.studies.referee rates FOLDER``, or ``spread``."""

from __future__ import annotations

import sys
from pathlib import Path

from datadose.studies.referee.pilot import run_rates, run_spread

if __name__ == "__main__":
    for line in {"rates": run_rates, "spread": run_spread}[sys.argv[1]](Path(sys.argv[2])):
        print(line)
