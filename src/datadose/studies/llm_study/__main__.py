"""The table of a study that was stopped or still goes on, from the cells that are finished.

``python -m datadose.studies.llm_study OUT [PRESET]`` writes OUT/llm_study.csv and .json like the full
run, which overwrites them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from datadose.studies.llm_study.experiment import LlmStudy
from datadose.studies.llm_study.study import STUDY
from datadose.studies.reproduce import write_results
from datadose.studies.study import Preset
from datadose.sweep import kept_results


def write_finished(out: Path, preset: Preset) -> tuple[int, int]:
    """Write the table of the finished cells; returns how many there are, and how many in all."""
    study = LlmStudy.preset(preset)
    *_, (_, cells) = study.rounds(out / ".cache")
    results = kept_results(cells, out / ".cache")
    write_results(STUDY, study, results, preset, out, " ".join(sys.argv))
    return sum(result is not None for result in results), len(results)


if __name__ == "__main__":
    done, total = write_finished(Path(sys.argv[1]), cast("Preset", (sys.argv[2:] or ["quick"])[0]))
    print(f"{done} of {total} cells", file=sys.stderr)
