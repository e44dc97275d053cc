"""Figures 1, 2 and 5 as studies."""

from __future__ import annotations

from datadose.studies.sft_curves.claims import FIGURE1_CLAIMS, FIGURE2_CLAIMS
from datadose.studies.sft_curves.experiment import Figure1, Figure2
from datadose.studies.sft_curves.figure import draw_figure1, draw_figure2, draw_figure5
from datadose.studies.sft_curves.figure5 import Figure5
from datadose.studies.sft_curves.figure5_claims import FIGURE5_CLAIMS
from datadose.studies.study import Study

FIGURE1 = Study(
    name="fig1",
    title="How many SFT examples? (Figure 1)",
    story=(
        "Each curve is the test error after supervised fine-tuning on B examples: a few examples aligned "
        "with the shift help, but the error explodes where their number equals the number of directions they "
        "span (B = m, or B = d once interference makes them span everything). Past the peak more data help "
        "again, yet with strong interference (r = 0.01) even the largest set stays worse than the best small "
        "one."
    ),
    experiment=Figure1,
    draw=draw_figure1,
    claims=FIGURE1_CLAIMS,
)
FIGURE2 = Study(
    name="fig2",
    title="How long should the prompts be? (Figure 2)",
    story=(
        "Longer prompts make each example cleaner, but they also make the pretrained model surer of "
        "the old distribution, so under interference the error of small sets falls and then rises with n. "
        "Prompt length and number of examples have to be chosen together."
    ),
    experiment=Figure2,
    draw=draw_figure2,
    claims=FIGURE2_CLAIMS,
)
FIGURE5 = Study(
    name="fig5",
    title="Which theory describes SFT? (Figure 5)",
    story=(
        "The paper's theorem describes a first-order approximation V~ of the fine-tuned model, and as "
        "printed it is off below the peak; with one coefficient corrected it matches V~ on both sides. The "
        "exact theory describes the fine-tuned model V* itself, whose error is well below that of V~."
    ),
    experiment=Figure5,
    draw=draw_figure5,
    claims=FIGURE5_CLAIMS,
)
