"""What the reports from practice are judged by: one random setting of SFT and outcome supervision, measured.

RL represents outcome supervision at k = 1 at its best penalty for the target; its reward is minus the error.
SFT's validation loss is its held-out loss E ||V phi + eta w*||^2 / d. Errors are exact and divided by d.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datadose.shapes import Array
from datadose.studies.training_time import settings
from datadose.studies.training_time.settings import counts_of, random_setting
from datadose.studies.training_time.two_stages import (
    Path,
    Setup,
    State,
    after_best_penalty,
    best_penalty,
    penalty_path,
    time_path,
)

STABLE, SEVERE = 1.02, 1.10
"""Validation losses over the least that bound the regimes of arXiv 2512.11470."""
_SCALES = (0.25, 1.0, 4.0, 16.0)
"""Rows of SFT over d along which its scale moves."""
CANDIDATES = 8
"""Pools of prompts of which hard ones are compared with easy ones."""


class Column(settings.Column):
    """What is measured of a setting."""

    VALUE = "value"


def measure(seed: int, dimension: int, times: int) -> list[list[float | str]]:
    """Cell: the quantities of one setting, each a row (name, value)."""
    setup, (B1, B2) = random_setting(seed, dimension), counts_of(seed, dimension)
    found = {
        **_switching(setup, time_path(setup, B1, times), B2),
        **_scale(setup, B2),
        **_difficulty(setup, B2, seed),
        **_coupling(setup, B1, B2),
        **_first_penalty(setup, B1, B2),
    }
    return [[name, float(value)] for name, value in found.items()]


def _end(setup: Setup, states: State, B2: float) -> Array:
    return after_best_penalty(states, setup.outcome, B2, setup.test)


def _switching(setup: Setup, path: Path, B2: float) -> dict[str, float]:
    """arXiv 2512.11470 (a): when to go from SFT to RL along SFT's validation loss."""
    loss, end = setup.sft.loss.error(path.states), _end(setup, path.states, B2)
    best, lowest = int(end.argmin()), int(loss.argmin())
    return {
        "switch loss over least": loss[best] / loss[lowest],
        "switch after least loss": float(best > lowest),
        "switch cost of least loss": end[lowest] / end[best],
    }


def _least_loss(setup: Setup, B1: float) -> tuple[State, float]:
    """SFT at the penalty of its least validation loss, and that loss."""
    path = penalty_path(setup, setup.sft, B1)
    loss = setup.sft.loss.error(path.states)
    return path.states.at(int(loss.argmin())), float(loss.min())


def _scale(setup: Setup, B2: float) -> dict[str, float]:
    """arXiv 2512.11470 (b): more rows of SFT, which stops at its least validation loss; then RL."""
    found: dict[str, float] = {}
    for scale in _SCALES:
        state, _ = _least_loss(setup, scale * setup.dimension)
        only = State(state.mean[None], state.second[None])
        end, middle = float(_end(setup, only, B2)[0]), float(setup.test.error(state))
        found |= {f"scale {scale:g} end": end, f"scale {scale:g} gain of RL": middle - end}
    return found


def _difficulty(setup: Setup, B2: float, seed: int) -> dict[str, float]:
    """arXiv 2512.11470 (c) and (d): pools of prompts at equal rows, by hardness and by validation loss.

    A pool holds the target's prompts on a random part of the shift and a random part of the rest, and a
    little (r) of all other directions. Hardness is the pretrained model's error on such prompts.
    """
    rng = np.random.default_rng([13, seed])
    inside, off = setup.target > setup.sigma0, setup.data.min()
    found: dict[str, list[float]] = {
        name: [] for name in ("hardness", "few", "many", "own", "target", "pool")
    }
    for _ in range(CANDIDATES):
        parts = rng.uniform(0, 1, 2)
        chosen = rng.uniform(size=setup.dimension) < np.where(inside, parts[0], parts[1])
        pool = replace(setup, data=np.where(chosen, setup.eta * setup.target, off))
        covered = replace(setup, data=setup.data, target=np.maximum(pool.data / setup.eta, 1e-12))
        found["hardness"].append(float(covered.test.error(covered.start)))
        for name, rows in (("few", 0.5), ("many", 4.0)):
            path = penalty_path(pool, pool.sft, rows * setup.dimension)
            own = pool.sft.loss.error(path.states)
            end = _end(pool, path.states, B2)
            found[name].append(float(end[int(own.argmin())]))
        # SFT stops where the loss on one fixed set is least: prompts of the target, or the allocated ones.
        for name, data in (("target", setup.eta * setup.target), ("pool", setup.data)):
            loss = pool.prompts(data, setup.eta).loss.error(path.states)
            at = int(loss.argmin())
            found[name].append(float(loss[at]))
            found["own"].append(float(end[at]))
    ends = np.array(found["own"]).reshape(CANDIDATES, 2)
    hard, few, many = (np.array(found[name]) for name in ("hardness", "few", "many"))
    return {
        "hardness with end, few rows": _correlation(hard, few),
        "hardness with end, many rows": _correlation(hard, many),
        "target validation with end": _correlation(np.array(found["target"]), ends[:, 0]),
        "pool validation with end": _correlation(np.array(found["pool"]), ends[:, 1]),
    }


def _correlation(x: Array, y: Array) -> float:
    """Pearson's, of logarithms."""
    a, b = np.log(x), np.log(y)
    if min(a.std(), b.std()) < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _coupling(setup: Setup, B1: float, B2: float) -> dict[str, Array | float]:
    """arXiv 2601.07389 (1), (2): what the second stage does to the first one's objective; 2602.23197."""
    tuned, least = _least_loss(setup, B1)
    penalty = best_penalty(tuned, setup.outcome, B2, setup.test).first[0]
    after = setup.outcome.train(tuned, B2, penalty)
    rewarded = setup.outcome.train(
        setup.start, B2, best_penalty(setup.start, setup.outcome, B2, setup.test).first[0]
    )
    back = best_penalty(rewarded, setup.sft, B1, setup.sft.loss).first[0]
    then = setup.sft.train(rewarded, B1, back)
    path = penalty_path(setup, setup.sft, B1)
    best = path.states.at(int(setup.test.error(path.states).argmin()))
    known = setup.known.error(setup.start)
    unlimited = setup.sft.train(setup.start, 1e9, setup.sft.grid()[0] * 1e-4)
    moved = setup.outcome.train(
        unlimited, B2, best_penalty(unlimited, setup.outcome, B2, setup.test).first[0]
    )
    return {
        "SFT loss after RL over before": setup.sft.loss.error(after) / least,
        "SFT loss after RL over before, unlimited SFT": setup.sft.loss.error(moved)
        / setup.sft.loss.error(unlimited),
        "error after SFT over before, after RL": setup.test.error(then) / setup.test.error(rewarded),
        "error on the old task over before": setup.known.error(best) / known,
    }


def _first_penalty(setup: Setup, B1: float, B2: float) -> dict[str, float]:
    """arXiv 2511.08401: the penalty of stage one that is best for its own loss, and best before stage two."""
    path = penalty_path(setup, setup.sft, B1)
    own, end = setup.sft.loss.error(path.states), _end(setup, path.states, B2)
    a, b = int(own.argmin()), int(end.argmin())
    return {
        "penalty before RL over own": path.places[b] / path.places[a],
        "cost of own penalty": end[a] / end[b],
    }
