"""The planner: from a shift to a decision. Which data, how much, from which source, at which stage."""

from datadose.planner.allocation import (
    WORTHWHILE,
    AllocationProblem,
    BetterAllocation,
    better_allocation,
    optimise_allocation,
)
from datadose.planner.counts import PoolSource, SourceAdvice, noisy_for_clean, plan_counts
from datadose.planner.decision import Plan
from datadose.planner.dose import Dose, dose_of, find_dose
from datadose.planner.dynamics import PostTraining
from datadose.planner.error_model import ErrorModel
from datadose.planner.plan import plan
from datadose.planner.pretraining import Category, PossibleShift, PretrainingPlan, plan_pretraining
from datadose.planner.reading import plan_file
from datadose.planner.schedule import Costs, Schedule, plan_schedule
from datadose.planner.stage_choice import Outlook, StageChoice, choose_stage, stage_problem

__all__ = [
    "WORTHWHILE",
    "AllocationProblem",
    "BetterAllocation",
    "Category",
    "Costs",
    "Dose",
    "ErrorModel",
    "Outlook",
    "Plan",
    "PoolSource",
    "PossibleShift",
    "PostTraining",
    "PretrainingPlan",
    "Schedule",
    "SourceAdvice",
    "StageChoice",
    "better_allocation",
    "choose_stage",
    "dose_of",
    "find_dose",
    "noisy_for_clean",
    "optimise_allocation",
    "plan",
    "plan_counts",
    "plan_file",
    "plan_pretraining",
    "plan_schedule",
    "stage_problem",
]
