"""The study of a real language model as a study."""

from __future__ import annotations

from datadose.studies.llm_study.claims import CLAIMS
from datadose.studies.llm_study.experiment import NAME, LlmStudy
from datadose.studies.llm_study.figure import draw_llm_study
from datadose.studies.study import Study

STUDY = Study(
    name=NAME,
    title="Does the selection pay on a real model?",
    story=(
        "SmolLM2-135M-Instruct on arithmetic from solved to hopeless: SFT by LoRA on sets of equal size that "
        "were chosen in different ways, from a clean and from a contaminated pool, and GRPO on bands of pass "
        "rates. The gain on the target stands beside what the model forgets."
    ),
    experiment=LlmStudy,
    draw=draw_llm_study,
    claims=CLAIMS,
)
