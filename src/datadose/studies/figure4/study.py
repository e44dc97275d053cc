"""Figure 4 and its map as studies."""

from __future__ import annotations

from datadose.studies.figure4.claims import FIGURE4_CLAIMS
from datadose.studies.figure4.experiment import Figure4
from datadose.studies.figure4.figure import draw_figure4, draw_figure4_map
from datadose.studies.figure4.map import Figure4Map
from datadose.studies.study import Study

FIGURE4 = Study(
    name="fig4",
    title="What does training itself do? (Figure 4)",
    story=(
        "After SFT on the shift's data the error falls and rises again with B only because a fixed number of "
        "epochs means more steps for more data: at equal steps it does not rise. Outcome supervision and RL "
        "improve with B either way, and lose with longer chains when the task is far from the pretrained "
        "model."
    ),
    experiment=Figure4,
    draw=draw_figure4,
    claims=FIGURE4_CLAIMS,
)
FIGURE4_MAP = Study(
    name="fig4map",
    title="Where do Figure 4's claims hold?",
    story=(
        "Each row changes one choice that the paper leaves open, each column is one of its six claims. The "
        "claims about SFT and B hang on the schedule, and those about outcome supervision on the data being "
        "the shift's own."
    ),
    experiment=Figure4Map,
    draw=draw_figure4_map,
)
