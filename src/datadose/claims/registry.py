"""All entries of the ledger, in the paper's order."""

from __future__ import annotations

from datadose.claims.figure3 import FIGURE3_CLAIMS
from datadose.claims.figure4 import FIGURE4_CLAIMS
from datadose.claims.figures import FIGURE_CLAIMS
from datadose.claims.insights import INSIGHT_CLAIMS
from datadose.claims.llm_study import LLM_STUDY_CLAIMS
from datadose.claims.outcome import OUTCOME_CLAIMS
from datadose.claims.planner import PLANNER_CLAIMS
from datadose.claims.planner_forecasts import FORECAST_CLAIMS
from datadose.claims.theorems import THEOREM_CLAIMS
from datadose.claims.token_study import TOKEN_STUDY_CLAIMS

CLAIMS = [
    *THEOREM_CLAIMS,
    *FIGURE_CLAIMS,
    *OUTCOME_CLAIMS,
    *FIGURE4_CLAIMS,
    *INSIGHT_CLAIMS,
    *PLANNER_CLAIMS,
    *FORECAST_CLAIMS,
    *FIGURE3_CLAIMS,
]
STUDY_CLAIMS = [*TOKEN_STUDY_CLAIMS, *LLM_STUDY_CLAIMS]
"""Claims on language models, judged only where their study was run: it is not part of ``reproduce all``."""
