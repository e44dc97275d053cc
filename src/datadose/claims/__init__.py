"""The ledger: every claim of the paper, its experiment, its statistic and a computed verdict."""

from datadose.claims.ledger import Claim, Judgement, Tables, judge_all
from datadose.claims.registry import CLAIMS, STUDY_CLAIMS

__all__ = ["CLAIMS", "STUDY_CLAIMS", "Claim", "Judgement", "Tables", "judge_all"]
