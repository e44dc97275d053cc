"""A small language model of our own: what the theory's advice is worth on tokens.

Models with no, rare and balanced T in pretraining; then, panel by panel: latent capability (one embedding
trained), SFT size at equal steps and at equal epochs, selectors on a clean and a contaminated pool, replay,
GRPO bands and prompt counts, SFT then RL at matched compute. Post-training starts from the rare model.

Seed s stands for a pretrained model, its pool, its draws and its order of batches at once, so arms are paired
by seed. Learning rates are chosen on validation: for SFT and activation per arm, by the mean over seeds of
accuracy on T plus that on the known families; for RL once, on unfiltered prompts. Steps are the preset's.
Those of pretraining and the rare share were set on validation strings, with a model outside the study (seed
100), so that T is graded by length (0.42 on average, from 0.86 to 0.15) where the known families are learnt;
1,000 steps at 3 percent give 0.85 already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from datadose.dependencies import code_digest
from datadose.progress import cell_progress
from datadose.studies.study import Preset
from datadose.studies.token_study.model import Pretraining, Size, pretrain, pretrained_folder
from datadose.studies.token_study.pools import BANDS, POOLS, SELECTORS, PoolSizes, make_pools, pools_ready
from datadose.studies.token_study.runs import (
    HeldOut,
    Rows,
    Run,
    run_activation,
    run_base,
    run_replay,
    run_rl,
    run_selected,
    run_sft,
    run_stages,
)
from datadose.sweep import Cell, Workers, run_calls, run_cells

NAME = "token_study"
MIXTURES = ("absent", "rare", "balanced")
ARM = ["panel", "arm", "model", "pool", "prompts", "share"]
"""Columns that name an arm; its runs differ by learning rate and seed."""


@dataclass(frozen=True)
class TokenStudy:
    """Sizes, steps, rates and seeds of every panel."""

    pretraining: Pretraining
    """Of the rare model and seed 0; the others differ in these two."""
    held_out: HeldOut
    pools: PoolSizes
    activation_sizes: tuple[int, ...]
    activation_steps: int
    activation_rates: tuple[float, ...]
    sft_sizes: tuple[int, ...]
    sft_steps: int
    sft_rates: tuple[float, ...]
    epochs: int
    """Of the runs at equal epochs."""
    selection_size: int
    replay_size: int
    replay_shares: tuple[float, ...]
    rl_numbers: tuple[int, ...]
    rl_band_size: int
    rl_steps: int
    rl_rates: tuple[float, ...]
    stage_sizes: tuple[int, ...]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> TokenStudy:
        """Smoke: seconds. Quick: about an hour of one core. Paper: five seeds, larger sets, more steps."""
        if name == "smoke":
            return cls(
                Pretraining(0.03, Size(16, 1, 2, 32), steps=6, batch=16, warmup=2),
                HeldOut(24, 6),
                PoolSizes(64, 32, 12, 16, 4),
                activation_sizes=(4,),
                activation_steps=2,
                activation_rates=(0.03,),
                sft_sizes=(8, 64),
                sft_steps=3,
                sft_rates=(1e-3,),
                epochs=1,
                selection_size=8,
                replay_size=8,
                replay_shares=(0.0, 0.5),
                rl_numbers=(4, 16),
                rl_band_size=8,
                rl_steps=2,
                rl_rates=(1e-4, 3e-4),
                stage_sizes=(8,),
                seeds=2,
            )
        quick = cls(
            Pretraining(0.02, steps=500),
            HeldOut(),
            PoolSizes(),
            activation_sizes=(4, 16, 64, 256),
            activation_steps=150,
            activation_rates=(0.03, 0.1),
            sft_sizes=(8, 32, 128, 512, 2048),
            sft_steps=100,
            sft_rates=(1e-4, 3e-4),
            epochs=4,
            selection_size=128,
            replay_size=256,
            replay_shares=(0.0, 0.25, 0.5),
            rl_numbers=(16, 64, 256, 1024),
            rl_band_size=256,
            rl_steps=120,
            rl_rates=(1e-4, 3e-4),
            stage_sizes=(32, 512),
            seeds=3,
        )
        if name == "quick":
            return quick
        return replace(
            quick,
            held_out=HeldOut(1200, 300),
            pools=PoolSizes(8192, 4096, 256, 512, 16),
            activation_steps=300,
            activation_rates=(0.01, 0.03, 0.1),
            sft_sizes=(8, 32, 128, 512, 2048, 8192),
            sft_steps=200,
            sft_rates=(3e-5, 1e-4, 3e-4, 1e-3),
            selection_size=512,
            rl_numbers=(16, 64, 256, 1024, 4096),
            rl_steps=300,
            rl_rates=(3e-5, 1e-4, 3e-4),
            seeds=8,
        )

    def prepare(self, folder: Path, workers: Workers) -> list[Cell]:
        """Pretrain and score what is missing in ``folder``, choose the RL rate, and return the cells."""
        folder = folder / "pretrained"
        folder.mkdir(parents=True, exist_ok=True)
        made = {(m, s): self._pretraining(m, s) for m in MIXTURES for s in range(self.seeds)}
        paths = {key: pretrained_folder(p, folder) for key, p in made.items()}
        tasks = [
            {"pretraining": made[key], "path": str(path)} for key, path in paths.items() if not path.is_dir()
        ]
        _make(f"{NAME}: pretraining", pretrain, tasks, workers)
        pools = [self._pools(paths["rare", s]) for s in range(self.seeds)]
        share = self.pretraining.target_share
        _make(
            f"{NAME}: scoring pools",
            make_pools,
            [
                {
                    "model": str(paths["rare", s]),
                    "folder": str(pool),
                    "sizes": self.pools,
                    "target_share": share,
                    "seed": s,
                }
                for s, pool in enumerate(pools)
                if not pools_ready(pool)
            ],
            workers,
        )
        names = {key: str(path) for key, path in paths.items()}
        cells = _Cells(self, names, [str(pool) for pool in pools])
        trial = list(cells.trials())
        tried = run_cells(trial, cache_folder=folder.parent, workers=workers, title=f"{NAME}: rates")
        chosen = mark_chosen(pd.DataFrame([row for rows in tried for row in rows])).query("chosen")
        rates = {panel: float(rows["rate"].iloc[0]) for panel, rows in chosen.groupby("panel")}
        return [*trial, *cells.rest(rates["sft size"], rates["rl"])]

    def _pretraining(self, mixture: str, seed: int) -> Pretraining:
        shares = {"absent": 0.0, "rare": self.pretraining.target_share, "balanced": 1 / 6}
        return replace(self.pretraining, target_share=shares[mixture], seed=seed)

    def _pools(self, model: Path) -> Path:
        return model.with_name(
            "-".join([model.name, "pools", code_digest(make_pools), *map(str, astuple(self.pools))])
        )

    def table(self, results: Sequence[Rows]) -> pd.DataFrame:
        """One row a run, split, metric and length; ``chosen`` marks the arm's learning rate."""
        table = mark_chosen(pd.DataFrame([row for rows in results for row in rows]))
        table.insert(0, "figure", NAME)
        table["length"] = table["length"].astype("Int64")
        return table


def mark_chosen(table: pd.DataFrame) -> pd.DataFrame:
    """Add ``chosen``: whether the run has its arm's learning rate that is best on validation."""
    judged = table[(table["split"] == "validation") & table["metric"].isin(["target", "known"])]
    judged = judged[judged["length"].isna()]
    means = judged.groupby([*ARM, "rate"], sort=True)["value"].mean().reset_index()
    best = means.loc[means.groupby(ARM)["value"].idxmax(), [*ARM, "rate"]]
    return table.merge(best.assign(chosen=True), on=[*ARM, "rate"], how="left").assign(
        chosen=lambda t: t["chosen"].eq(True)
    )


def _make(title: str, function: Callable[..., Any], tasks: list[dict[str, Any]], workers: Workers) -> None:
    """Call ``function`` for each of ``tasks`` on this machine, where the results are to be."""
    if not tasks:
        return
    with cell_progress(title, len(tasks)) as advance:
        for _ in run_calls(title, [(function, task) for task in tasks], Workers(workers.jobs)):
            advance()


@dataclass(frozen=True)
class _Cells:
    """The study's cells, given its pretrained models and pools."""

    study: TokenStudy
    models: dict[tuple[str, int], str]
    pools: list[str]

    def _cell(self, function: Callable[..., Rows], run: Run, **extra: Any) -> Cell:
        path = self.models[run.model, run.seed]
        return Cell(function, {"path": path, "run": run, "held_out": self.study.held_out, **extra})

    def _each(
        self,
        function: Callable[..., Rows],
        run: Run,
        rates: Sequence[float],
        pooled: bool = False,
        **extra: Any,
    ) -> Iterator[Cell]:
        """The run at every rate and seed."""
        for rate in rates:
            for seed in range(self.study.seeds):
                pools = {"pools": self.pools[seed]} if pooled else {}
                yield self._cell(function, replace(run, rate=rate, seed=seed), **pools, **extra)

    def trials(self) -> Iterator[Cell]:
        """Runs that choose a rate for others: one SFT size and unfiltered RL."""
        s = self.study
        middle = s.sft_sizes[-2]
        run = Run("sft size", "equal steps", 0, prompts=middle, steps=s.sft_steps)
        yield from self._each(run_sft, run, s.sft_rates)
        yield from self._each(run_rl, self._rl("all", s.rl_band_size), s.rl_rates, pooled=True)

    def _rl(self, band: str, prompts: int) -> Run:
        return Run("rl", band, 0, prompts=prompts, steps=self.study.rl_steps)

    def rest(self, sft_rate: float, rl_rate: float) -> Iterator[Cell]:
        """All other runs."""
        yield from self._pretrained()
        yield from self._sft()
        s = self.study
        arms = [(band, s.rl_band_size) for band in BANDS if band != "all"]
        arms += [("all", count) for count in s.rl_numbers if count != s.rl_band_size]
        for band, count in arms:
            yield from self._each(run_rl, self._rl(band, count), [rl_rate], pooled=True)
        stages = {"rl_rate": rl_rate, "rl_prompts": s.rl_band_size}
        for arm, size in [("rl", 0), *((arm, n) for n in s.stage_sizes for arm in ("sft", "sft-rl"))]:
            run = Run("stages", arm, 0, prompts=size, steps=s.rl_steps)
            yield from self._each(run_stages, run, [sft_rate], pooled=True, **stages)

    def _pretrained(self) -> Iterator[Cell]:
        s = self.study
        for mixture in MIXTURES:
            yield from self._each(run_base, Run("pretraining", "base", 0, model=mixture), [0.0])
            yield from self._each(run_activation, Run("activation", "symbol", 0, model=mixture), [0.0])
            for size in s.activation_sizes:
                run = Run("activation", "symbol", 0, mixture, prompts=size, steps=s.activation_steps)
                yield from self._each(run_activation, run, s.activation_rates)

    def _sft(self) -> Iterator[Cell]:
        s = self.study
        batch = 32
        for size in s.sft_sizes:
            run = Run("sft size", "equal steps", 0, prompts=size, steps=s.sft_steps)
            if size != s.sft_sizes[-2]:
                yield from self._each(run_sft, run, s.sft_rates)
            steps = max(1, s.epochs * size // min(batch, size))
            yield from self._each(run_sft, replace(run, arm="equal epochs", steps=steps), s.sft_rates)
        for pool in POOLS:
            for selector in SELECTORS:
                run = Run("selectors", selector, 0, pool=pool, prompts=s.selection_size, steps=s.sft_steps)
                yield from self._each(run_selected, run, s.sft_rates, pooled=True)
        for pool in POOLS:
            for share in s.replay_shares:
                run = Run(
                    "replay", "sft", 0, pool=pool, prompts=s.replay_size, steps=s.sft_steps, share=share
                )
                extra = {"target_share": s.pretraining.target_share}
                yield from self._each(run_replay, run, s.sft_rates, pooled=True, **extra)
