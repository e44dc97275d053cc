"""Figures of the stages' experiments: RL pass-rate bands, SFT then RL, overthinking."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from datadose.figures.insights import FIFTH, draw_curve, level, log_y, plain_log_ticks
from datadose.figures.style import LOOKS, caption, draw_simulation, draw_theory, new_figure, new_grid


def draw_bands(table: pd.DataFrame, config: dict[str, Any]) -> Figure:
    """Finding 3: pass rate after RL against B, one panel a pool, one curve a band."""
    bands = {
        "medium": "medium",
        "too hard": "too hard (passes at most 10%)",
        "too easy": "too easy (at least 90%)",
        "all": "all, unfiltered",
        "hardest": "hardest (largest error)",
    }
    panels = list(dict.fromkeys(table["panel"]))
    with new_figure(len(panels), width=4.3 * len(panels) + 0.6) as (figure, axes):
        for axis, panel in zip(axes, panels, strict=True):
            rows = table[(table["panel"] == panel) & (table["prompts"] > 0)]
            for look, (band, label) in zip((*LOOKS, FIFTH), bands.items(), strict=True):
                draw_curve(axis, rows[rows["kind"] == band], "prompts", "pass_rate", look, label)
            base = table[(table["panel"] == panel) & (table["kind"] == "base")]
            level(axis, float(base["pass_rate"].mean()), "before RL")
            plain_log_ticks(axis, config["prompts"])
            shares = rows.groupby("kind")["share_of_pool"].mean()
            axis.set_title(
                f"shift directions of {panel}\n(too easy {shares['too easy']:.0%}, medium "
                f"{shares['medium']:.0%}, too hard {shares['too hard']:.0%} of the pool)"
            )
            axis.set_xlabel("RL prompts B, equal steps")
        axes[0].set_ylabel("pass rate on fresh prompts of the pool")
        axes[0].set_ylim(0, 1.02)
        axes[-1].legend(loc="upper left")
        task, recipe = config["task"], config["recipe"]
        caption(
            figure,
            f"d = {task['dimension']}, m = {task['shifted']}, n = {task['length']}; GRPO, "
            f"{recipe['steps']} steps of {recipe['batch']} prompts, {recipe['group']} samples, 0/1 reward; "
            f"bands by 16 samples of the pretrained model; {config['seeds']} seeds, standard errors",
        )
    return figure


def draw_synergy(table: pd.DataFrame, config: dict[str, Any]) -> Figure:
    """SFT then RL: error against the total steps; columns are shifts, rows numbers of demonstrations."""
    arms = (
        ("rl", "RL alone"),
        ("sft", "SFT alone"),
        ("sft then rl", "SFT, then RL"),
        ("rl then sft", "RL, then SFT"),
    )
    radii, counts = config["radii"], config["demonstrations"]
    size = {"width": 3.5 * len(radii) + 0.6, "height": 2.7 * len(counts) + 0.5}
    with new_grid(len(counts), len(radii), **size, sharex=True, sharey="col") as (figure, grid):
        for axes, count in zip(grid, counts, strict=True):
            for axis, radius in zip(axes, radii, strict=True):
                rows = table[table["panel"] == f"radius={radius:g}"]
                for look, (arm, label) in zip(LOOKS, arms, strict=True):
                    chosen = rows[(rows["kind"] == arm) & rows["demonstrations"].isin([0, count])]
                    draw_curve(axis, chosen, "training_steps", "error", look, label)
                level(axis, float(rows.loc[rows["kind"] == "base", "error"].mean()), "before")
                plain_log_ticks(axis, config["training_steps"])
                log_y(axis)
            axes[0].set_ylabel(f"{count} demonstrations\npost-test error / d")
        for axis, radius in zip(grid[0], radii, strict=True):
            axis.set_title(f"rho(inv(Gamma0) Delta) = {radius:g}")
        for axis in grid[-1]:
            axis.set_xlabel("optimiser steps in all")
        grid[-1][-1].legend(loc="lower left", fontsize=8)
        task, recipe = config["task"], config["recipe"]
        caption(
            figure,
            f"d = {task['dimension']}, m = {task['shifted']}, n = {task['length']}, eta = {task['eta']:g}; "
            f"RL: GRPO on {recipe['prompts']} prompts, 0/1 reward; Adam {recipe['learning_rate']:g}, k = "
            f"{recipe['chain_steps']}; {config['seeds']} seeds, standard errors",
        )
    return figure


def draw_overthinking(table: pd.DataFrame, config: dict[str, Any]) -> Figure:
    """Overthinking: error against thinking steps, one panel a shift, one curve a stage, with its theory."""
    arms = (("base", "pretrained"), ("sft", "after SFT"), ("outcome", "after OS"), ("rl", "after RL"))
    radii = config["radii"]
    with new_figure(len(radii), width=3.6 * len(radii) + 0.4) as (figure, axes):
        for axis, radius in zip(axes, radii, strict=True):
            rows = table[table["panel"] == f"radius={radius:g}"]
            for look, (arm, label) in zip(LOOKS, arms, strict=True):
                chosen = rows[rows["kind"] == arm]
                theory = chosen.groupby("thinking_steps")["predicted"].mean()
                draw_theory(axis, theory.index, theory.to_numpy(), look, label)
                far = chosen.groupby("thinking_steps")["predicted_long"].mean()
                named = f"_{label}, theory of long prompts"
                draw_theory(axis, far.index, far.to_numpy(), look, named, linewidth=0.7, alpha=0.75)
                draw_simulation(axis, chosen, "thinking_steps", look, f"_{label}, simulated")
            axis.axvline(config["recipe"]["chain_steps"], color="#5f6368", linewidth=0.9, linestyle=":")
            level(axis, 1.0)
            plain_log_ticks(axis, config["thinking"])
            axis.set_yscale("log")
            axis.set_title(f"rho(inv(Gamma0) Delta) = {radius:g}")
            axis.set_xlabel("thinking steps at the post-test")
        axes[0].set_ylim(2e-4, 3e3)
        axes[0].set_ylabel("post-test error / d")
        axes[0].legend(loc="upper left")
        task, recipe = config["task"], config["recipe"]
        caption(
            figure,
            f"d = {task['dimension']}, m = {task['shifted']}, n = {task['length']}; trained with k = "
            f"{recipe['chain_steps']} (dotted), {recipe['steps']} steps; lines: theory at this n, thin: long "
            f"prompts; markers: {config['seeds']} seeds, standard errors; dashes: no answer",
        )
    return figure
