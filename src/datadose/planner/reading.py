"""A plan from a SHIFT.yaml, with the covariance files beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from datadose.configs import load_config, read_covariance
from datadose.planner.config import PlanConfig, SourceConfig
from datadose.planner.counts import PoolSource
from datadose.planner.decision import Plan
from datadose.planner.dynamics import PostTraining
from datadose.planner.plan import mean_covariance, plan
from datadose.planner.pretraining import pretraining_of
from datadose.planner.schedule import Costs
from datadose.shift import Shift
from datadose.theory.source import Source


def plan_file(path: str | Path) -> Plan:
    """The plan that a file SHIFT.yaml describes. Covariance files are found beside it.

    Raises InputError, which names the line, the field and what is allowed.
    """
    path = Path(path)
    config = load_config(path, PlanConfig)
    folder = path.parent
    sigma0 = read_covariance("sigma0", config.sigma0, folder)
    delta = read_covariance("delta", config.delta, folder, len(sigma0))
    pool = None
    if config.sources is not None:
        pool = [_pool_source(entry, folder, len(sigma0), config.length) for entry in config.sources]
        shift = Shift(sigma0, delta, mean_covariance(pool, [entry.size for entry in pool]), config.eta)
    elif not delta.any():
        shift = Shift(sigma0, delta, sigma0, config.eta)
    else:
        shift = Shift.aligned(sigma0, delta, config.eta, config.interference or 0.0)
    tests = None
    if config.tests is not None:
        forms = [
            read_covariance("covariance of a test", t.covariance, folder, len(sigma0)) for t in config.tests
        ]
        tests = [(form, t.weight) for form, t in zip(forms, config.tests, strict=True)]
    pretraining = pretraining_of(config, folder, sigma0)
    found = plan(
        shift,
        length=config.length,
        max_prompts=config.max_prompts,
        rl_prompts=config.rl_prompts,
        training=PostTraining(
            config.chain_steps, config.steps, config.reward, config.tolerance, config.noise
        ),
        sources=pool,
        budget=None if config.budget is None else (config.budget.kind, config.budget.cap),
        choose_eta=config.choose_eta,
        stop=config.training,
        keep=config.keep,
        weights=config.weights,
        tests=tests,
        learning_rate=config.learning_rate,
        costs=None if config.costs is None else Costs(**config.costs.model_dump()),
    )
    return found if pretraining is None else replace(found, pretraining=pretraining)


def _pool_source(entry: SourceConfig, folder: Path, dimension: int, length: int) -> PoolSource:
    covariance = read_covariance(f"covariance of source {entry.name}", entry.covariance, folder, dimension)
    source = Source(covariance, entry.length or length, 0, entry.label_noise, entry.demonstration_noise)
    return PoolSource(entry.name, source, entry.size, entry.cost)
