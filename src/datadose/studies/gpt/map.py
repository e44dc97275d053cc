"""Where Figure 3's claims hold: post-training a tiny and a small GPT in settings drawn from what is unstated.

A setting is a draw of the learning rate of post-training, the data (Delta, Sigma0 + Delta, or Delta with as
many prompts of Sigma0), the length of pretraining, eta, how long outcome supervision lasts, and whether the
test has the n of post-training ("tied") or the base one. Numbers of steps and both versions of n are read off
the same trainings, so that a setting shows more than what was drawn for it.

Levels are dealt evenly (:mod:`~datadose.studies.gpt.map_settings`); the seed ``draw`` fixes the deal. Shares
have exact intervals for independent draws, which an even deal makes a little wide.

Not varied: d = 5, the grids of B, n and k, batches of 16 (the paper's 64 would cost four times as much), and
one pretrained model for each length, eta and size, whose chance is in no interval. Pretraining had all n, and
has the eta of post-training. Where n or k moves trainings are shorter; the small GPT has fewer levels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from datadose.studies.gpt.map_settings import MapSize
from datadose.studies.gpt.path_panels import PathPanels
from datadose.studies.study import Preset

NAME = "fig3map"
TINY, SMALL = "tiny", "small"


@dataclass(frozen=True)
class Figure3Map(PathPanels):
    """The map: settings drawn from what the paper leaves open."""

    figure: ClassVar[str] = NAME

    @classmethod
    def preset(cls, name: Preset) -> Figure3Map:
        """The configuration of a preset: ``quick`` is nine settings of the tiny GPT, ``paper`` all 30.

        A pilot (seeds 1000 to 1003; tiny GPT, eta 0.5, pretrained 2,500 steps) gives the spread over seeds
        of the log ratio of errors at two B after up to 100 steps. At learning rates 1e-5, 1e-4 and 1e-3 it is
        at most .01, .04 and .11 between B = 128 and 1,024, and .03, .11 and .27 between 16 and 1,024.
        Four seeds detect 2.1 spreads with power .8: ratios of 1.02, 1.1 and 1.26, and of 1.07, 1.26 and 1.8.
        A share over 24 settings is distinguished from one half if it is at least .83, over 12 if at least .9,
        over 8 or 9 if nearly all.

        Levels that the pilot ruled out: after 1,000 steps of pretraining the tiny GPT has not left zero
        (error 1.05 at eta 0.2 and 0.5), and at eta 0.2 it has not after 2,500 (.98, where 0.5 has .66, and
        .13 after 6,000; eta 0.8 has .51 after 2,000).

        Cost: about 115 core-minutes for ``paper`` by cell times on a machine with three times as many busy
        processes as cores, perhaps 85 on a quiet one; 15 or 11 for ``quick``.
        """
        if name == "smoke":
            return cls._smoke()
        tiny = MapSize(
            preset=TINY,
            settings=24,
            rates=(1e-5, 1e-4, 1e-3),
            pretrain_steps=(2500, 4000, 6000),
            etas=(0.5, 0.8),
            os_steps=(100, 100, 300, 1000),
            sft_looks=(30, 100, 300),
            outcome_looks=(30, 100, 300, 1000),
            most_steps=(100, 300),
            side_by_side=12,
            batch=32,
            learning_rate=3e-3,
        )
        if name == "quick":
            cut = {"pretrain_steps": (2500, 4000), "etas": (0.5,), "os_steps": (100,), "sft_looks": (30, 100)}
            few: Any = {**cut, "settings": 9, "most_steps": (100, 100)}
            return cls._sized((replace(tiny, **few),), seeds=4)
        small = replace(
            tiny,
            preset=SMALL,
            settings=6,
            pretrain_steps=(2000, 4000),
            etas=(0.5,),
            os_steps=(100,),
            sft_looks=(30, 100),
            most_steps=(30, 30),
            side_by_side=1,
            learning_rate=1e-3,
        )
        return cls._sized((tiny, small), seeds=4)

    @classmethod
    def _sized(cls, sizes: tuple[MapSize, ...], seeds: int) -> Figure3Map:
        return cls(
            sizes,
            dimension=5,
            prompts=(16, 128, 1024),
            lengths=(4, 8, 16),
            chains=(1, 3, 5),
            base_prompts=128,
            base_length=8,
            base_chain=3,
            pretrain_chain=5,
            judged_sft=100,
            test_prompts=256,
            seeds=seeds,
        )

    @classmethod
    def _smoke(cls) -> Figure3Map:
        looks: dict[str, Any] = {"sft_looks": (2, 4), "outcome_looks": (2, 4), "most_steps": (2, 4)}
        own: dict[str, Any] = {**looks, "side_by_side": 4, "batch": 8, "learning_rate": 3e-3}
        drawn: dict[str, Any] = {
            "rates": (1e-4, 1e-3),
            "pretrain_steps": (5, 10),
            "etas": (0.5,),
            "os_steps": (2, 4),
        }
        tiny = MapSize(TINY, settings=3, **drawn, **own)
        grids = (8, 16, 32), (4, 6, 8), (1, 2, 3)
        return cls((tiny,), 5, *grids, 16, 6, 2, 2, 32, 2, pretrain_chain=3, batch=8, test_steps=2)
