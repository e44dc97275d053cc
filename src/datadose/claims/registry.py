"""All entries of the ledger, in the paper's order; those whose experiment is not built yet say so."""

from __future__ import annotations

from datadose.claims.figure4 import FIGURE4_CLAIMS
from datadose.claims.figures import FIGURE_CLAIMS
from datadose.claims.insights import INSIGHT_CLAIMS
from datadose.claims.ledger import Claim
from datadose.claims.outcome import OUTCOME_CLAIMS
from datadose.claims.planner import PLANNER_CLAIMS
from datadose.claims.theorems import THEOREM_CLAIMS


def _later(id_: str, paper: str, statement: str) -> Claim:
    return Claim(id_, paper, statement, "", "", None, "", None)


LATER_CLAIMS = [
    _later(f"fig-3{panel}", f"Fig 3{panel}", f"GPT-2: {statement}")
    for panel, statement in (
        ("a", "SFT error falls, then rises with B."),
        ("b", "SFT error falls, then rises with n."),
        ("c", "SFT error is insensitive to k."),
        ("d", "OS error falls with B."),
        ("e", "OS error falls with n."),
        ("f", "OS error rises with k."),
    )
]

CLAIMS = [
    *THEOREM_CLAIMS,
    *FIGURE_CLAIMS,
    *OUTCOME_CLAIMS,
    *FIGURE4_CLAIMS,
    *INSIGHT_CLAIMS,
    *PLANNER_CLAIMS,
    *LATER_CLAIMS,
]
