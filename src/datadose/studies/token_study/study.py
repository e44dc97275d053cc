"""The token study as a study."""

from __future__ import annotations

from datadose.studies.study import Study
from datadose.studies.token_study.claims import CLAIMS
from datadose.studies.token_study.experiment import NAME, TokenStudy
from datadose.studies.token_study.figure import draw_token_study

STUDY = Study(
    name=NAME,
    title="The same questions, on a language model of our own",
    story=(
        "A character-level transformer meets a task never, rarely or as often as any other in pretraining. "
        "Each panel asks one of the theory's questions on tokens: what pretraining left latent, how many "
        "demonstrations and which, what replay keeps, which prompts for RL. Points are means over seeds, "
        "bars 95 percent intervals; forgetting is read on the tasks that the model knew."
    ),
    experiment=TokenStudy,
    draw=draw_token_study,
    claims=CLAIMS,
)
