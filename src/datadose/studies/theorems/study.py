"""The statements of the paper that numbers or theory alone decide, as studies."""

from __future__ import annotations

from datadose.studies.study import Study
from datadose.studies.theorems.claims import SFT_CLAIMS, THEORY_CLAIMS
from datadose.studies.theorems.experiment import Theorems
from datadose.studies.theorems.outcome_claims import OUTCOME_CLAIMS

THEOREMS = Study(
    name="theorems",
    experiment=Theorems,
    claims=(*SFT_CLAIMS, *OUTCOME_CLAIMS),
)
THEORY: Study[Theorems] = Study(
    name="theory",
    claims=THEORY_CLAIMS,
)
