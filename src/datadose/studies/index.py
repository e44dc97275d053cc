"""The studies by name: where each stands, and the groups that `datadose reproduce` knows.

A study is imported when it is asked for: listing names costs nothing, and one figure loads its own code.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datadose.studies.study import Study

_FIGURES = {
    "fig1": "sft_curves.figure1:STUDY",
    "fig2": "sft_curves.figure2:STUDY",
    "fig3": "gpt.figure3_study:STUDY",
    "fig3map": "gpt.map_study:STUDY",
    "fig3paper": "gpt.paper_model_study:STUDY",
    "fig3path": "gpt.mechanism_study:STUDY",
    "gpt_data": "gpt.data:STUDY",
    "fig4": "figure4.study:STUDY",
    "fig4map": "figure4.map:STUDY",
    "fig5": "sft_curves.figure5:STUDY",
}
_INSIGHTS = {
    "insight1_selection": "insights.selection:STUDY",
    "insight2_size": "insights.size:STUDY",
    "insight3_stability": "insights.stability:STUDY",
    "insight4_balance": "insights.balance:STUDY",
    "rl_bands": "insights.bands:STUDY",
    "sft_then_rl": "insights.sft_then_rl:STUDY",
    "overthinking": "insights.overthinking:STUDY",
}
_PLANNER = {
    "planner": "planner.dose_study:STUDY",
    "planner_stages": "planner.stages_study:STUDY",
}
_DECISIONS = {
    "plan_decision": "planner.decision:STUDY",
    "plan_budget": "planner.budget:STUDY",
    "pretraining_shares": "planner.pretraining_study:STUDY",
}
_TRAINING_TIME = {
    "fig1_time": "training_time.fig1_time:STUDY",
    "fig2_time": "training_time.fig2_time:STUDY",
    "small_set_penalty": "training_time.small_set_penalty:STUDY",
    "ceiling": "training_time.ceiling:STUDY",
    "weight_time_map": "training_time.weight_time_map:STUDY",
    "sft_or_outcome": "training_time.sft_or_outcome:STUDY",
    "crossings": "training_time.crossings:STUDY",
    "budgets": "training_time.budgets:STUDY",
    "sft_before_outcome": "training_time.sft_before_outcome:STUDY",
    "practice": "training_time.practice:STUDY",
    "fresh_batches": "fresh_batches.study:STUDY",
    "best_time": "training_time.best_time:STUDY",
    "equal_time": "training_time.equal_time:STUDY",
    "hard_data": "training_time.hard_data:STUDY",
    "bad_source": "training_time.bad_source:STUDY",
    "balance_time": "training_time.balance:STUDY",
}
_LANGUAGE_MODELS = {
    "token_study": "token_study.study:STUDY",
    "llm_study": "llm_study.study:STUDY",
    "levels": "levels.study:STUDY",
    "sea": "referee.study:STUDY",
    "sea_methods": "referee.methods_study:STUDY",
    "sea_forecast": "referee.forecast_study:STUDY",
    "sea_rl": "referee.rl_study:STUDY",
    "sea_smollm": "referee.smollm_study:STUDY",
}
_CLAIMS = {
    "theorems": "theorems.measured:STUDY",
    "insight1": "insights.kinds_of_data:STUDY",
    "theory": "theorems.formulas:STUDY",
}
_HOMES = _FIGURES | _INSIGHTS | _TRAINING_TIME | _PLANNER | _DECISIONS | _LANGUAGE_MODELS | _CLAIMS
NAMES = tuple(_HOMES)
"""All studies, in the order in which they run."""
PARTS = {
    "The planner": (*_PLANNER, *_DECISIONS),
    "Advice: which data, how much, how long": (*_INSIGHTS, *_TRAINING_TIME),
    "The paper's figures": tuple(_FIGURES),
    "Language models": tuple(_LANGUAGE_MODELS),
}
"""The parts of the report and their studies, decisions first."""
CLAIMS = tuple(_CLAIMS)
"""The studies without a picture; asking for one of them judges all that a results folder holds."""
LEDGER = tuple(_CLAIMS | _HOMES)
"""The order of the ledger, the paper's statements first."""
LANGUAGE_MODELS = tuple(_LANGUAGE_MODELS)
"""About an hour each, so not among ``all``."""
APART = (
    *LANGUAGE_MODELS,
    "fig3map",
    "fig3paper",
    "fig3path",
    *_DECISIONS,
    *(name for name in _TRAINING_TIME if name != "fig1_time"),
)
"""Studies with a target of their own, so that ``all`` takes minutes."""
BEYOND = (
    "gpt_data",
    "fig4map",
    "insight3_stability",
    "insight4_balance",
    "rl_bands",
    "sft_then_rl",
    "planner",
    "planner_stages",
)
"""Those of ``all`` that preset ``quick`` leaves to preset ``full``: none is one of the paper's five figures,
and together they take about as long as all that ``quick`` keeps."""
SIZES = {"small": ("fig3", "gpt_data"), "medium": ("fig3paper",)}
"""Presets of the nonlinear transformer, and the experiments that have them."""
GROUPS = {
    "claims": CLAIMS,
    "insights": tuple(_INSIGHTS),
    "training_time": tuple(_TRAINING_TIME),
    "decisions": tuple(_DECISIONS),
    "all": tuple(name for name in NAMES if name not in APART),
}
"""Names of several studies."""


def named(targets: Collection[str], preset: str) -> set[str]:
    """The studies that ``targets`` (names of studies or of groups) are; at ``quick`` fewer of ``all``."""
    found = {name for target in targets if target != "all" for name in GROUPS.get(target, (target,))}
    if "all" in targets:
        found |= {*GROUPS["all"]} - ({*BEYOND} if preset == "quick" else set())
    return found


@cache
def study(name: str) -> Study[Any]:
    """The study ``name``, one of NAMES."""
    found: Study[Any] = resolve_name(f"{__package__}.{_HOMES[name]}")
    return found
