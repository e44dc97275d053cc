"""The transformer at the paper's size against the public recipe of in-context regression, side by side.

The recipe is Garg et al.'s: Hugging Face's ``GPT2Model`` on ``inputs_embeds``, x and y interleaved, linear
read-in and read-out, no dropout, its default attention. Both have the same weights, tokens (41 examples of
dimension 20, batch 64, then the thoughts) and loss, L_SFT on the thoughts, checked to agree; a step is
forward, backward and torch's fused AdamW. In bfloat16 both run under autocast. The chain (k = 3, answer's
squared error, with its gradient) is ours with cached keys and values, ours with the whole sequence recomputed
for every thought, and the recipe's way, which recomputes as well. Rounds alternate between the ways. Times
are medians: on one thread of processor time, which other programs disturb little, else of wall time.

Weights meet activations in matrix products that are the same for both; ``products`` times exactly these alone
(forward and backward, no attention), which bounds what an exact implementation can reach. PARTS shows what
our step is made of, each part timed alone in the same rounds (:mod:`gpt_parts`).

    OMP_NUM_THREADS=1 python benchmarks/gpt.py [--repeats 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from datadose.models import GptConfig, GptModel, PromptBatch
from datadose.models.gpt import gpt2_shape, gpt2_state
from datadose.models.linear_attention import chain_decay
from gpt_parts import Products, parts, show, system_seconds
from timing import seconds

DIMENSION, LENGTH, PROMPTS, CHAIN, ETA = 20, 41, 64, 3, 0.2
Loss: TypeAlias = Callable[[], Tensor]


class Recipe(nn.Module):
    """The public recipe, with the weights of ``model``."""

    def __init__(self, model: GptModel) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2Model  # noqa: PLC0415 - slow to import

        # The token table, never used, is made as small as it can be.
        logging.getLogger("transformers").setLevel(logging.ERROR)
        config = GPT2Config(**gpt2_shape(model), use_cache=False)
        self.backbone = GPT2Model(config)
        self.backbone.load_state_dict(gpt2_state(model), strict=False)
        c = model.config
        self.read_in = nn.Linear(c.dimension + 1, c.width)
        self.read_out = nn.Linear(c.width, c.dimension)
        self.read_in.load_state_dict(model.read_in.state_dict())
        self.read_out.load_state_dict(model.read_out.state_dict())

    def forward(self, tokens: Tensor) -> Tensor:
        """Outputs (B, T, d) at all tokens (B, T, d+1)."""
        hidden = self.backbone(inputs_embeds=self.read_in(tokens)).last_hidden_state
        return cast("Tensor", self.read_out(hidden))


def with_thoughts(batch: PromptBatch, thoughts: Tensor) -> Tensor:
    """Interleaved tokens (B, 2n + m, d+1) of a prompt and thoughts (B, m, d)."""
    if batch.inputs is None:
        msg = "a batch with inputs"
        raise ValueError(msg)
    x = functional.pad(batch.inputs[0], (0, 1))
    y = functional.pad(batch.labels()[0].unsqueeze(-1), (0, DIMENSION))
    prompt = torch.stack([x, y], dim=2).flatten(1, 2)
    return torch.cat([prompt, functional.pad(thoughts, (0, 1), value=1)], dim=1)


def recipe_sft(model: Recipe, batch: PromptBatch) -> Tensor:
    """L_SFT in one pass."""
    chain = batch.weights[0].unsqueeze(1) * torch.tensor(chain_decay(ETA, CHAIN)).unsqueeze(-1)
    found: Tensor = model(with_thoughts(batch, chain[:, :-1]))[:, 2 * LENGTH :]
    return (found.float() - chain[:, 1:]).square().sum() / (2 * PROMPTS)


def recipe_chain(model: Recipe, batch: PromptBatch) -> Tensor:
    """L_OS, every thought from the whole sequence."""
    thoughts = torch.zeros_like(batch.weights[0]).unsqueeze(1)
    for _ in range(CHAIN):
        new = model(with_thoughts(batch, thoughts))[:, -1:]
        thoughts = torch.cat([thoughts, new.float()], dim=1)
    return (thoughts[:, -1] - batch.weights[0]).square().sum() / (2 * PROMPTS)


def recomputed_chain(model: GptModel, batch: PromptBatch) -> Tensor:
    """L_OS, every thought from the whole sequence by our own model."""
    thoughts = batch.weights.new_zeros(*batch.weights.shape[:-1], 1, DIMENSION)
    for i in range(CHAIN):
        # The mean of a thought needs the earlier ones alone: the last of these is a place holder.
        new = model.next_means(batch, thoughts)[..., i : i + 1, :]
        thoughts = torch.cat([thoughts[..., :i, :], new, torch.zeros_like(new)], dim=-2)
    return (thoughts[..., -2, :] - batch.weights).square().sum() / (2 * PROMPTS)


def our_chain(model: GptModel, batch: PromptBatch) -> Tensor:
    """L_OS by the library's rollout."""
    answer = model.rollout(batch, CHAIN)[..., -1, :]
    return (answer - batch.weights).square().sum() / (2 * PROMPTS)


def our_sft(model: GptModel, batch: PromptBatch) -> Tensor:
    """The library's L_SFT."""
    return model.teacher_forced_loss(batch, ETA, CHAIN).sum()


def training_step(optimiser: torch.optim.Optimizer, loss: Loss, low: bool) -> None:
    """Forward (under bfloat16 autocast if ``low``), backward, AdamW."""
    optimiser.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        found = loss()
    torch.autograd.backward(found)
    optimiser.step()


def alternate(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each way, after one warm-up, the ways taking turns."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for act in ways.values():
        act()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, act in ways.items():
            times[name].append(seconds(act, clock=clock))
    return {name: statistics.median(taken) for name, taken in times.items()}


def agree(name: str, losses: dict[str, Loss], tolerance: float = 1e-4) -> None:
    """ArithmeticError unless all ways find one loss."""
    with torch.no_grad():
        found = {way: float(loss()) for way, loss in losses.items()}
    first = next(iter(found.values()))
    if any(abs(loss / first - 1) > tolerance for loss in found.values()):
        msg = f"{name}: losses differ, {found}"
        raise ArithmeticError(msg)


def optimisers(*models: nn.Module) -> dict[Any, torch.optim.Optimizer]:
    """AdamW for each, at too small a rate to move weights far: all rounds see nearly the same numbers."""
    return {m: torch.optim.AdamW(m.parameters(), 1e-6, fused=True) for m in models}


def compare_sft(ours: GptModel, recipe: Recipe, batch: PromptBatch, repeats: int) -> None:
    """SFT steps in both precisions, beside products alone and all other parts."""
    sft: dict[Any, Loss] = {ours: partial(our_sft, ours, batch), recipe: partial(recipe_sft, recipe, batch)}
    agree("SFT", {"ours": sft[ours], "recipe": sft[recipe]})
    step = optimisers(ours, recipe)
    tokens = 2 * LENGTH + CHAIN + 1
    ways: dict[str, Callable[[], object]] = {}
    for precision, low in (("float32", False), ("bfloat16", True)):
        ways[f"recipe {precision}"] = partial(training_step, step[recipe], sft[recipe], low)
        ways[f"ours {precision}"] = partial(training_step, step[ours], sft[ours], low)
        ways[f"products {precision}"] = Products(ours, PROMPTS * tokens, getattr(torch, precision))
        for part, act in parts(ours, step[ours], PROMPTS, tokens, CHAIN + 1, low).items():
            ways[f"part {precision} {part}"] = act
    took = alternate(ways, repeats)
    whole = {way: s for way, s in took.items() if not way.startswith("part")}
    print("  SFT: " + ", ".join(f"{way} {1 / s:.3f}/s" for way, s in whole.items()))
    for one, other in (
        ("recipe float32", "ours float32"),
        ("recipe float32", "products float32"),
        ("recipe bfloat16", "ours bfloat16"),
        ("recipe bfloat16", "products bfloat16"),
        ("recipe float32", "ours bfloat16"),
    ):
        print(f"  RATIO SFT, {other} against {one}: {took[one] / took[other]:.2f} times")
    for precision in ("float32", "bfloat16"):
        mark = f"part {precision} "
        alone = {way.removeprefix(mark): s for way, s in took.items() if way.startswith(mark)}
        alone["operating system"] = system_seconds(cast("Any", ways[f"ours {precision}"]))
        show(precision, took[f"ours {precision}"], took[f"products {precision}"], alone)


def compare_chains(ours: GptModel, recipe: Recipe, batch: PromptBatch, repeats: int) -> None:
    """Steps on L_OS in float32."""
    step = optimisers(ours, recipe)
    chains: dict[str, tuple[Any, Loss]] = {
        "cached": (ours, partial(our_chain, ours, batch)),
        "recomputed": (ours, partial(recomputed_chain, ours, batch)),
        "recipe": (recipe, partial(recipe_chain, recipe, batch)),
    }
    agree("OS", {way: loss for way, (_, loss) in chains.items()}, 1e-3)
    took = alternate(
        {way: partial(training_step, step[model], loss, False) for way, (model, loss) in chains.items()},
        repeats,
    )
    print("  OS: " + ", ".join(f"{way} {1 / s:.3f}/s" for way, s in took.items()))
    for way in ("recomputed", "recipe"):
        print(f"  RATIO OS, cached against {way}: {took[way] / took['cached']:.2f} times")


def main() -> None:
    """SFT steps in both precisions, then chains."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = GptConfig.preset("paper", DIMENSION, LENGTH, CHAIN)
    batch = PromptBatch.draw(np.ones(DIMENSION), LENGTH, PROMPTS, seeds=[0], hold_inputs=True)
    ours = GptModel(config, seed=0)
    size = sum(p.numel() for p in ours.parameters()) / 1e6
    print(
        f"{size:.2f}M parameters, d={DIMENSION} n={LENGTH} B={PROMPTS} k={CHAIN}, threads={arguments.threads}"
    )
    compare_sft(ours, Recipe(ours), batch, arguments.repeats)
    ours = GptModel(config, seed=0)
    compare_chains(ours, Recipe(ours), batch, max(1, arguments.repeats - 1))


if __name__ == "__main__":
    main()
