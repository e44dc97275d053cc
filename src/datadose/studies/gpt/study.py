"""Figure 3 and the data of a real transformer as studies."""

from __future__ import annotations

from datadose.studies.gpt.claims import DATA_CLAIMS, FIGURE3_CLAIMS
from datadose.studies.gpt.data import GptData
from datadose.studies.gpt.drawing import draw_figure3, draw_gpt_data
from datadose.studies.gpt.figure3 import Figure3
from datadose.studies.study import Study

FIGURE3 = Study(
    name="fig3",
    title="Does a real transformer do the same? (Figure 3)",
    story=(
        "A GPT-2 is pretrained to write chains of thought for the weights of a regression, then post-trained "
        "on the shift. Dotted lines are the untouched models: how long the model was pretrained decides what "
        "post-training can still add, and on data of the shift alone it may only take away."
    ),
    experiment=Figure3,
    draw=draw_figure3,
    claims=FIGURE3_CLAIMS,
)
GPT_DATA = Study(
    name="gpt_data",
    title="Which data for a real transformer, and what do its weights do?",
    story=(
        "Top: rare and common directions of the target, and the old distribution (forgetting), after each "
        "stage on three kinds of data. Bottom: the slope of the first thought on S w*, which for the linear "
        "model is its operator. For the GPT read it as a summary: how well S w* and w* itself explain the "
        "thought stands below."
    ),
    experiment=GptData,
    draw=draw_gpt_data,
    claims=DATA_CLAIMS,
)
