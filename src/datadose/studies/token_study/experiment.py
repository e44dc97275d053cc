"""A small language model of our own: the value of the theory's advice on tokens.

Models with no, rare and balanced T in pretraining; then, panel by panel: latent capability (one embedding
trained), SFT size at equal steps and at equal epochs, selectors on a clean and a contaminated pool, replay,
GRPO bands and prompt counts, SFT then RL at matched compute. Post-training starts from the rare model.

Seed s sets a pretrained model, its pool, its draws and its order of batches at once, so arms are paired
by seed. Learning rates are chosen on validation: for SFT and activation per arm, by the mean over seeds of
accuracy on T plus that on the known families; for RL once, on unfiltered prompts. Steps are the preset's.
Those of pretraining and the rare share were set on validation strings, with a model outside the study (seed
100), so that T is graded by length (0.42 on average, from 0.86 to 0.15) where the known families are learnt;
1,000 steps at 3 percent give 0.85 already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from datadose.studies.study import Preset
from datadose.studies.token_study.language import VALIDATION
from datadose.studies.token_study.model import DecoderShape, TokenPretraining, pretrain
from datadose.studies.token_study.pools import BANDS, POOLS, SELECTORS, Band, PoolSizes, make_pools
from datadose.studies.token_study.runs import (
    ARM_COLUMNS,
    MIXTURES,
    Arm,
    Column,
    HeldOut,
    Metric,
    Mixture,
    Panel,
    Rows,
    TokenRun,
    run_activation,
    run_base,
    run_replay,
    run_rl,
    run_selected,
    run_sft,
    run_stages,
)
from datadose.sweep import Cell, Round, file_cell, kept_results

NAME = "token_study"


@dataclass(frozen=True)
class TokenStudy:
    """Sizes, steps, rates and seeds of every panel."""

    pretraining: TokenPretraining
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
        """Smoke: seconds. Quick: about an hour of one core. Paper: more seeds and steps, larger sets."""
        if name == "smoke":
            return cls._smoke()
        quick = cls._quick()
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

    @classmethod
    def _smoke(cls) -> TokenStudy:
        return cls(
            TokenPretraining(0.03, DecoderShape(16, 1, 2, 32), steps=6, batch=16, warmup=2),
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

    @classmethod
    def _quick(cls) -> TokenStudy:
        return cls(
            TokenPretraining(0.02, steps=500),
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

    def rounds(self, folder: Path) -> Iterator[Round]:
        """The pretrained models, the scored pools of the rare ones, the runs that choose rates, all runs."""
        made = folder / "pretrained"
        models = {
            (mixture, seed): self._pretraining(mixture, seed, made)
            for mixture in MIXTURES
            for seed in range(self.seeds)
        }
        yield "pretraining", list(models.values())
        pools = [self._pools(models[Mixture.RARE, seed], seed, made) for seed in range(self.seeds)]
        yield "scoring pools", pools
        cells = _Cells(self, {key: cell.file for key, cell in models.items()}, [cell.file for cell in pools])
        trials = list(cells.trials())
        yield "rates", trials
        tried = pd.DataFrame([row for rows in kept_results(trials, folder) for row in rows])
        chosen = mark_chosen(tried).query(Column.CHOSEN)
        rates = {panel: float(rows[Column.RATE].iloc[0]) for panel, rows in chosen.groupby(Column.PANEL)}
        yield "", [*trials, *cells.rest(rates[Panel.SIZE], rates[Panel.RL])]

    def _pretraining(self, mixture: str, seed: int, folder: Path) -> Cell:
        shares = {Mixture.ABSENT: 0.0, Mixture.RARE: self.pretraining.target_share, Mixture.BALANCED: 1 / 6}
        made = replace(self.pretraining, target_share=shares[mixture], seed=seed)
        return file_cell(folder, f"token-{made.target_share:g}-{seed}", "", pretrain, pretraining=made)

    def _pools(self, model: Cell, seed: int, folder: Path) -> Cell:
        own = {"sizes": self.pools, "target_share": self.pretraining.target_share, "seed": seed}
        return file_cell(folder, f"token-pools-{seed}", "", make_pools, model=model.file, **own)

    def table(self, results: Sequence[Rows]) -> pd.DataFrame:
        """One row a run, split, metric and length; ``chosen`` marks the arm's learning rate."""
        table = mark_chosen(pd.DataFrame([row for rows in results for row in rows]))
        table.insert(0, Column.FIGURE, NAME)
        table[Column.LENGTH] = table[Column.LENGTH].astype("Int64")
        return table


def mark_chosen(table: pd.DataFrame) -> pd.DataFrame:
    """Add ``chosen``: whether the run has its arm's learning rate that is best on validation."""
    run = [*ARM_COLUMNS, Column.RATE]
    judged = (table[Column.SPLIT] == VALIDATION) & table[Column.METRIC].isin([Metric.TARGET, Metric.KNOWN])
    judged &= table[Column.LENGTH].isna()
    means = table[judged].groupby(run, sort=True)[Column.VALUE].mean().reset_index()
    best = means.loc[means.groupby(ARM_COLUMNS)[Column.VALUE].idxmax(), run].assign(**{Column.CHOSEN: True})
    marked = table.merge(best, on=run, how="left")
    marked[Column.CHOSEN] = marked[Column.CHOSEN].eq(True)
    return marked


@dataclass(frozen=True)
class _Cells:
    """The study's cells, given its pretrained models and pools."""

    study: TokenStudy
    models: dict[tuple[str, int], Path | None]
    pools: list[Path | None]

    def _cell(self, function: Callable[..., Rows], run: TokenRun, **extra: Any) -> Cell:
        own = {"path": self.models[run.model, run.seed], "run": run, "held_out": self.study.held_out}
        return Cell(function, {**own, **extra})

    def _each(
        self,
        function: Callable[..., Rows],
        run: TokenRun,
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
        run = TokenRun(Panel.SIZE, Arm.EQUAL_STEPS, 0, prompts=middle, steps=s.sft_steps)
        yield from self._each(run_sft, run, s.sft_rates)
        yield from self._each(run_rl, self._rl(Band.ALL, s.rl_band_size), s.rl_rates, pooled=True)

    def _rl(self, band: str, prompts: int) -> TokenRun:
        return TokenRun(Panel.RL, band, 0, prompts=prompts, steps=self.study.rl_steps)

    def rest(self, sft_rate: float, rl_rate: float) -> Iterator[Cell]:
        """All other runs."""
        yield from self._pretrained()
        yield from self._sft()
        s = self.study
        arms = [(band, s.rl_band_size) for band in BANDS if band != Band.ALL]
        arms += [(Band.ALL, count) for count in s.rl_numbers if count != s.rl_band_size]
        for band, count in arms:
            yield from self._each(run_rl, self._rl(band, count), [rl_rate], pooled=True)
        stages = {"rl_rate": rl_rate, "rl_prompts": s.rl_band_size}
        for arm, size in [(Arm.RL, 0), *((arm, n) for n in s.stage_sizes for arm in (Arm.SFT, Arm.SFT_RL))]:
            run = TokenRun(Panel.STAGES, arm, 0, prompts=size, steps=s.rl_steps)
            yield from self._each(run_stages, run, [sft_rate], pooled=True, **stages)

    def _pretrained(self) -> Iterator[Cell]:
        s = self.study
        for mixture in MIXTURES:
            yield from self._each(run_base, TokenRun(Panel.PRETRAINING, Arm.BASE, 0, model=mixture), [0.0])
            yield from self._each(
                run_activation, TokenRun(Panel.ACTIVATION, Arm.SYMBOL, 0, model=mixture), [0.0]
            )
            for size in s.activation_sizes:
                run = TokenRun(
                    Panel.ACTIVATION, Arm.SYMBOL, 0, mixture, prompts=size, steps=s.activation_steps
                )
                yield from self._each(run_activation, run, s.activation_rates)

    def _sft(self) -> Iterator[Cell]:
        s = self.study
        batch = 32
        for size in s.sft_sizes:
            run = TokenRun(Panel.SIZE, Arm.EQUAL_STEPS, 0, prompts=size, steps=s.sft_steps)
            if size != s.sft_sizes[-2]:
                yield from self._each(run_sft, run, s.sft_rates)
            steps = max(1, s.epochs * size // min(batch, size))
            yield from self._each(run_sft, replace(run, arm=Arm.EQUAL_EPOCHS, steps=steps), s.sft_rates)
        for pool in POOLS:
            for selector in SELECTORS:
                run = TokenRun(
                    Panel.SELECTORS, selector, 0, pool=pool, prompts=s.selection_size, steps=s.sft_steps
                )
                yield from self._each(run_selected, run, s.sft_rates, pooled=True)
        for pool in POOLS:
            for share in s.replay_shares:
                run = TokenRun(
                    Panel.REPLAY, Arm.SFT, 0, pool=pool, prompts=s.replay_size, steps=s.sft_steps, share=share
                )
                extra = {"target_share": s.pretraining.target_share}
                yield from self._each(run_replay, run, s.sft_rates, pooled=True, **extra)
