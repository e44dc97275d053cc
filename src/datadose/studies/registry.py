"""All entries of the ledger, in the paper's order."""

from __future__ import annotations

from datadose.studies.figure4.claims import FIGURE4_CLAIMS
from datadose.studies.gpt.claims import FIGURE3_CLAIMS
from datadose.studies.insights.claims import INSIGHT_CLAIMS
from datadose.studies.llm_study.claims import LLM_STUDY_CLAIMS
from datadose.studies.planner.claims import PLANNER_CLAIMS
from datadose.studies.planner.forecasts import FORECAST_CLAIMS
from datadose.studies.sft_curves.claims import FIGURE_CLAIMS
from datadose.studies.sft_curves.figure5_claims import FIGURE5_CLAIMS
from datadose.studies.theorems.claims import THEOREM_CLAIMS
from datadose.studies.theorems.outcome_claims import OUTCOME_CLAIMS
from datadose.studies.token_study.claims import TOKEN_STUDY_CLAIMS

CLAIMS = [
    *THEOREM_CLAIMS,
    *FIGURE_CLAIMS,
    *FIGURE5_CLAIMS,
    *OUTCOME_CLAIMS,
    *FIGURE4_CLAIMS,
    *INSIGHT_CLAIMS,
    *PLANNER_CLAIMS,
    *FORECAST_CLAIMS,
    *FIGURE3_CLAIMS,
]
STUDY_CLAIMS = [*TOKEN_STUDY_CLAIMS, *LLM_STUDY_CLAIMS]
"""Claims on language models, judged only where their study was run: it is not part of ``reproduce all``."""
