"""The planner's dose and its choice of stage as studies."""

from __future__ import annotations

from datadose.studies.planner.claims import CHOICE_CLAIMS, DOSE_CLAIMS
from datadose.studies.planner.dose import PlannerRegret
from datadose.studies.planner.dose_figure import draw_planner
from datadose.studies.planner.forecasts import FORECAST_CLAIMS
from datadose.studies.planner.stages import PlannerStages
from datadose.studies.planner.stages_figure import draw_planner_stages
from datadose.studies.study import Study

DOSE = Study(
    name="planner",
    title="Does the planner find the right dose?",
    story=(
        "On random shifts that nothing was built from, the number of prompts that `datadose plan` chooses is "
        "compared with the best of all numbers in simulation: it loses next to nothing. The planner's own "
        "choice of directions, at the same total variance, often gains a few percent over the paper's, and "
        "nothing where the best is no SFT at all."
    ),
    experiment=PlannerRegret,
    draw=draw_planner,
    claims=DOSE_CLAIMS,
)
STAGES = Study(
    name="planner_stages",
    title="Does the planner choose the right stage?",
    story=(
        "On random shifts that the rule was not built on, no stage, SFT, RL and SFT then RL are run at the "
        "same number of optimiser steps; rings mark what the planner recommends. It is nearly always as good "
        "as the best of the four, while every fixed rule misses the best in a quarter of the cases or more. "
        "On further shifts the numbers behind it are compared with what training comes to: where they are "
        "wrong, the plan withholds them."
    ),
    experiment=PlannerStages,
    draw=draw_planner_stages,
    claims=(*CHOICE_CLAIMS, *FORECAST_CLAIMS),
)
