"""One BLAS thread a test process, signals as in a terminal, the twins on the path."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).parent))
if os.name == "posix":
    # A run in the background may ignore these, and so would every process that a test starts and stops.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
