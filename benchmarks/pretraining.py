"""Muon against AdamW in pretraining a tiny GPT: errors after as many steps, and after as much time.

The task is the map's (d = 5, n up to 16, eta 0.5, chains of 5, batches of 32, warm-up and cosine decay). A
model is trained for its whole schedule at every number of steps, with each seed both the model's and the
prompts'. AdamW's learning rate is the map's, chosen there of 1e-3 and 3e-3; Muon's is one of two.

    OMP_NUM_THREADS=1 python benchmarks/pretraining.py [--steps 1000 2000] [--seeds 2]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

from datadose.models.gpt import GptConfig, GptModel
from datadose.stages.pretrain import pretrain_on_chains
from datadose.studies.gpt.runs import PRETRAINING, TARGET, GptPretraining, GptTask, measure

TASK = GptTask(5, 16, 5, 3, eta=0.5, test_prompts=512)
ADAMW = "adamw 3e-3"
WAYS = {
    ADAMW: GptPretraining("tiny", 0, 32, 3e-3, start_length=4),
    "muon 5e-3": GptPretraining("tiny", 0, 32, 5e-3, start_length=4, optimiser="muon"),
    "muon 1e-2": GptPretraining("tiny", 0, 32, 1e-2, start_length=4, optimiser="muon"),
}
TEST_LENGTH = 8


def pretrained(way: GptPretraining, steps: int, seed: int) -> GptModel:
    """A model after ``steps``; the curriculum is over after a quarter of them at most."""
    way = replace(way, steps=steps, warmup=min(200, steps // 5), every=min(40, steps // 25))
    model = GptModel(GptConfig.preset(way.preset, TASK.dimension, TASK.length, TASK.chain_steps), seed=seed)
    config = way.config(TASK.length, TASK.chain_steps, TASK.eta)
    pretrain_on_chains(model, TASK.sigma0, config, seed=seed, vary_length=True)
    return model


def main() -> None:
    """One line a way and number of steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 2000])
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for steps in arguments.steps:
        took: dict[str, float] = {}
        for name, way in WAYS.items():
            start = time.process_time()
            models = [pretrained(way, steps, seed) for seed in range(arguments.seeds)]
            took[name] = time.process_time() - start
            found = [one for model in models for one in measure(model, TASK, TEST_LENGTH)]
            shown = (" ".join(f"{errors[test]:.3f}" for errors in found) for test in (PRETRAINING, TARGET))
            print(f"{steps:,} steps, {name}: errors on Sigma0 {next(shown)}, on the target {next(shown)}")
            print(f"  RATIO of its time to AdamW's: {took[name] / took[ADAMW]:.2f}", flush=True)


if __name__ == "__main__":
    main()
