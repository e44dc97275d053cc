"""Server time of a slider's move in the explorer at d = 400, from the request to the JSON answer.

OMP_NUM_THREADS=1 python benchmarks/explore.py

Each move is a new setting, other ones for each line, so that nothing is remembered. The request goes through
the whole application, though not through the network. Times are the processor's, which on a quiet machine
are those of the clock. Lines of one view are requests that a browser sends at
once: what is slow follows by itself.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from datadose import Shift, predict_error
from datadose.explore import create_app
from datadose.explore.setting import Setting
from timing import seconds

MOVES = 40
AIM = 0.1
BOTH = "time-chart.figure stopped-chart.figure"
AT_REST = ("planned.data", "tuned.data")
"""What is asked for when the hand rests."""
VIEWS = {
    "How much?": {"curve": "dose-chart.figure", "sentence": "sentence.children"},
    "How long?": {"over time": "time-chart.figure", "both charts": BOTH, "both charts, its own slider": BOTH},
    "Which?": {
        "all charts": "allocation-chart.figure",
        "the planner's allocation": "planned.data",
        "the pool": "pool-chart.figure",
        "tuned weights": "tuned.data",
    },
    "Which stage?": {
        "map": "map-chart.figure",
        "choices": "error-bars.figure",
        "learning curves": "learning-chart.figure",
    },
}


def moves(seed: int, only: str | None = None) -> list[Setting]:
    """Settings at d = 400 as a hand would make them: one slider after the other, or ``only`` one."""
    rng = np.random.default_rng(seed)
    if only is not None:
        return [Setting(**{only: round(float(value), 3)}) for value in np.exp(rng.uniform(0, 9, MOVES))]
    places: dict[str, Callable[[], float]] = {
        "share": lambda: round(float(rng.uniform(0.2, 0.9)), 2),
        "rho": lambda: round(float(rng.uniform(0.05, 0.6)), 3),
        "tilt": lambda: round(float(rng.uniform(0, 1.5)), 2),
        "interference": lambda: round(float(rng.uniform(0, 0.1)), 4),
        "length": lambda: int(rng.integers(100, 1500)),
    }
    setting, found = Setting(), []
    for step in range(MOVES):
        name = list(places)[step % len(places)]
        setting = setting.model_copy(update={name: places[name](), "levels": "0.5,0,-0.5", "time": 50.0})
        found.append(setting)
    return found


def request(app: Any, output: str, setting: Setting) -> dict[str, Any]:
    """What a browser posts when a slider has moved."""
    key = next(key for key in app.callback_map if output in key.strip(".").split("..."))
    values = {"setting": setting.model_dump(), "still": setting.model_dump(), "scheme": "light"}
    inputs = [{**part, "value": values.get(part["id"])} for part in app.callback_map[key]["inputs"]]
    ids = [one.rsplit(".", 1) for one in key.strip(".").split("...")]
    outputs: Any = [{"id": name, "property": prop} for name, prop in ids]
    return {
        "output": key,
        "outputs": outputs if key.startswith("..") else outputs[0],
        "inputs": inputs,
        "changedPropIds": ["setting.data"],
    }


def main() -> None:
    app = create_app()
    client = app.server.test_client()
    shift = Shift.two_block(400, 200, 0.1, 0.2, 0.01)
    point = seconds(lambda: predict_error(shift, 100, 400), 20, time.process_time)
    lines = [(view, *line) for view, answers in VIEWS.items() for line in answers.items()]
    for seed, (view, label, output) in enumerate(lines):
        times: list[float] = []
        sizes: list[int] = []
        for setting in moves(seed, "time" if "own slider" in label else None):
            bodies = [request(app, part, setting) for part in output.split()]

            def ask(bodies: list[dict[str, Any]] = bodies, sizes: list[int] = sizes) -> None:
                for body in bodies:
                    answer = client.post("/_dash-update-component", json=body)
                    if answer.status_code != 200:
                        raise RuntimeError(answer.status)
                    json.loads(answer.data)
                    sizes.append(len(answer.data))

            times.append(seconds(ask, clock=time.process_time))
        middle, worst = statistics.median(times), max(times)
        aimed = f"aim of {1e3 * AIM:.0f} ms: {'kept' if middle < AIM else 'MISSED'}"
        if output in AT_REST:
            aimed = "asked for when the hand rests"
        print(
            f"{view} {label}: {1e3 * middle:.0f} ms a move (worst {1e3 * worst:.0f}), "
            f"RATIO {middle / point:.0f} exact predictions, {statistics.median(sizes) / 1e3:.0f} kB; {aimed}"
        )


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
