"""The picture of README and of the first page: Figure 1, and what became of it (`docs/results/first.png`).

    OMP_NUM_THREADS=1 python docs/_ext/first_picture.py          # about three minutes of a busy core

Left, the paper's Figure 1 for one length. Middle, its pool with interference 0.01 once more: trained to
convergence, stopped at the best time, and weighed against the pretrained model (the best penalty), each with
what unlimited rows reach. Right, 400 rows of that pool beside 2,000 of a misleading source, which teaches an
operator of twice the right size, by the weight of a misleading row. Lines are theory, markers simulation.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from datadose import Shift, predict_error, simulate_error
from datadose.drawing.curves import level, log_y
from datadose.drawing.style import GREY, LOOKS, Look, caption, new_grid
from datadose.files import write_atomic
from datadose.simulation.training import simulate_training
from datadose.theory import Source, Stopping, WeightedTest, best_time, pretrained_operator
from datadose.theory.effective_penalty import EffectivePenalty

RESULTS = Path(__file__).resolve().parents[1] / "results"
D, LENGTH, SEEDS = 400, 400, 3
BLOCKS = {
    r: Shift.two_block(dimension=D, shifted=200, rho=0.1, eta=0.2, interference=r) for r in (0, 0.01, 0.1)
}
POOL = BLOCKS[0.01]
START, TEST = pretrained_operator(POOL.sigma0, LENGTH), WeightedTest.of(POOL.target, LENGTH)
DRAWN = (0, 20, 50, 100, 150, 170, 260, 330, 370, 440, 520, 700, 1000, 1400, 2000)
GOOD, MISLEADING = Source(POOL.data, LENGTH, 400), Source(0.5 * POOL.eta * POOL.target, LENGTH, 2000)
WIDTH, COLOURS = 1100, 128
"""Of the file: pixels, and colours of its palette."""
_ENDED = Look(GREY, "-", "")


def smooth(prompts: tuple[int, ...], peaks: tuple[int, ...]) -> list[int]:
    """Numbers of prompts for a line: even steps of the square root, no nearer to a peak than 2."""
    grid = {
        *prompts,
        *(round(x**2) for x in np.linspace(0, np.sqrt(2000), 80)),
        *(p + s for p in peaks for s in (-3, 3)),
    }
    return sorted(B for B in grid if all(abs(B - p) > 2 for p in peaks))


def converged(axis: Axes) -> None:
    """Figure 1 for one length."""
    for look, (r, shift) in zip(LOOKS, BLOCKS.items(), strict=False):
        for part in (range(0, 200 if r == 0 else D), range(200 if r == 0 else D, 2001)):
            line = [B for B in smooth(DRAWN, (200 if r == 0 else D,)) if B in part]
            axis.plot(
                line, [predict_error(shift, B, LENGTH) for B in line], color=look.color, linestyle=look.dash
            )
        found = simulate_error(shift, DRAWN, length=LENGTH, seeds=SEEDS)
        axis.errorbar(DRAWN, found.mean, found.sem, color=look.color, fmt=look.marker, ms=3.6, mfc="white")
        axis.plot(
            [],
            [],
            color=look.color,
            linestyle=look.dash,
            marker=look.marker,
            ms=4,
            mfc="white",
            label=f"r = {r:g}",
        )
    axis.set_title("Figure 1: trained to convergence")


def stopped(axis: Axes) -> None:
    """The pool of the middle curve: to convergence, stopped, weighed."""
    line = [B for B in smooth(DRAWN, (D,)) if B]
    for part in (range(0, D), range(D, 2001)):
        shown = [B for B in line if B in part]
        axis.plot(shown, [predict_error(POOL, B, LENGTH) for B in shown], color=GREY, linewidth=1)
    axis.plot([], [], color=GREY, linewidth=1, label="to convergence, r = 0.01")
    weighed = EffectivePenalty.of(START, POOL.eta, Source(POOL.data, LENGTH, 1), TEST)
    stops = {B: best_time(START, POOL.eta, [Source(POOL.data, LENGTH, B)], TEST) for B in line}
    penalties = {B: weighed.best(B) for B in line}
    drawn = [B for B in DRAWN if B]
    stoppings = [Stopping(time=stops[B].time) for B in drawn] + [
        Stopping(ridge=penalties[B].ridge) for B in drawn
    ]
    found = simulate_training(
        START,
        POOL.eta,
        [Source(POOL.data, LENGTH, 2000)],
        [POOL.target],
        LENGTH,
        stoppings,
        counts=drawn,
        seeds=SEEDS,
    ).values[..., 0]
    unlimited = best_time(START, POOL.eta, [Source(POOL.data, LENGTH, 1e9)], TEST).error
    curves = (
        ("stopped at its best time", stops, unlimited),
        ("weighed: best penalty", penalties, weighed.ceiling.error),
    )
    for k, (name, best, ceiling) in enumerate(curves):
        look = LOOKS[k]
        axis.plot(line, [best[B].error for B in line], color=look.color, linestyle=look.dash)
        values = np.stack([found[:, i, i + k * len(drawn)] for i in range(len(drawn))], axis=1)
        sem = values.std(axis=0, ddof=1) / np.sqrt(SEEDS)
        axis.errorbar(drawn, values.mean(axis=0), sem, color=look.color, fmt=look.marker, ms=3.6, mfc="white")
        axis.plot(
            [], [], color=look.color, linestyle=look.dash, marker=look.marker, ms=4, mfc="white", label=name
        )
        axis.axhline(ceiling, color=look.color, linewidth=0.9, linestyle=(0, (2, 2)))
    axis.plot([], [], color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), label="ceilings: unlimited rows")
    axis.set_title("the same rows, stopped or weighed")


def misled(axis: Axes) -> None:
    """A misleading source beside the pool, by the weight of its rows."""
    sources, look = [GOOD, MISLEADING], LOOKS[2]
    weights = np.geomspace(0.001, 1, 31)
    stops = [best_time(START, POOL.eta, sources, TEST, weights=[1, w]) for w in weights]
    errors = np.array([stop.error for stop in stops])
    axis.plot(weights, errors, color=look.color, linestyle="-", label="stopped at its best time")
    for at in (0, 10, 20, 23, 27, 30):
        values = simulate_training(
            START,
            POOL.eta,
            sources,
            [POOL.target],
            LENGTH,
            [Stopping(time=stops[at].time)],
            weights=[1, weights[at]],
            seeds=SEEDS,
        )
        axis.errorbar(
            weights[at],
            values.mean.item(),
            values.sem.item(),
            color=look.color,
            fmt=look.marker,
            ms=4,
            mfc="white",
        )
    cut = best_time(START, POOL.eta, [GOOD], TEST).error
    level(axis, cut, "misleading rows cut")
    best = int(errors.argmin())
    axis.plot(
        weights[best],
        errors[best],
        marker="*",
        ms=13,
        color=look.color,
        linestyle="none",
        label="weighed best",
    )
    axis.set_xscale("log")
    axis.set_xlabel("weight of a misleading row")
    axis.set_title("400 of them beside 2,000 misleading rows")
    axis.legend(loc="upper left")
    print(f"cut {cut:.3f}, weight {weights[best]:.2g} {errors[best]:.3f}, all alike {errors[-1]:.3f}")


def picture() -> bytes:
    """The three panels, as a PNG of few colours."""
    with new_grid(1, 3, width=11, height=3.9) as (figure, axes):
        left, middle, right = axes[0]
        converged(left)
        stopped(middle)
        misled(right)
        for axis in (left, middle):
            log_y(axis)
            axis.set_xscale("function", functions=(lambda x: np.sqrt(np.abs(x)), np.square))
            axis.set_xlim(0, 2060)
            axis.set_xticks([0, 50, 200, 400, 800, 1400, 2000])
            axis.set_xlabel("SFT prompts B (square-root scale)")
            axis.set_ylim(0.45, 100)
            axis.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="none")
        left.set_ylabel("post-test error / d")
        caption(
            figure,
            f"d = {D}, m = 200, rho = 0.1, eta = 0.2, n = {LENGTH}; lines: theory; "
            f"markers: simulated, mean of {SEEDS} seeds with standard errors",
        )
        return _small(figure)


def _small(figure: Figure) -> bytes:
    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    image = Image.open(buffer).convert("RGB")
    image = image.resize((WIDTH, round(WIDTH * image.height / image.width)), Image.Resampling.LANCZOS)
    image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(
        small, "png", optimize=True
    )
    return small.getvalue()


if __name__ == "__main__":
    write_atomic(RESULTS / "first.png", picture())
