"""Every judge of a figure claim can say *holds* and *fails*: shown on small hand-made tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.studies.index import study
from datadose.studies.ledger import judge_all
from datadose.studies.sft_curves.figure5 import Figure5
from datadose.studies.tables import TwoBlock, as_table, sft_row
from helpers.studies import entry, write_result

D, M = 40, 20
COUNTS = (0, 5, 10, 15, 19, 20, 21, 30, 38, 40, 42, 60, 100, 200)
"""Numbers of prompts; the last before the peak is at 0.95 of it, as `falls then rises` samples there."""
LENGTHS = (40, 80, 120)
INTERFERENCES = (0.0, 0.01, 0.1)
SEEDS = 6
STUDIES = [study(name) for name in ("fig1", "fig2", "fig5", "insight1")]
HOMES = {claim.id: one for one in STUDIES for claim in one.claims}

Curve = Callable[[float, int, float], float]
"""Error at (interference, length, prompts)."""


def _judge(claim_id: str, folder: Path) -> dict[str, Any]:
    return entry(HOMES[claim_id], claim_id, folder)


def _verdict(claim_id: str, folder: Path) -> str:
    return str(_judge(claim_id, folder)["verdict"])


def _noise(seed: int, *setting: float, scale: float = 0.002) -> float:
    """A factor near 1, the same for the same seed and setting."""
    rng = np.random.default_rng([seed, *(int(1000 * x) for x in setting)])
    return float(np.exp(scale * rng.standard_normal()))


# --- tables ---------------------------------------------------------------------------------------------


def _peaked(early: float = 0.25, best: float = 0.5, late: float = 0.8) -> Curve:
    """1 at B = 0, ``best`` at ``early`` of the peak, 50 at the peak, ``late`` at the largest B."""

    def curve(r: float, _: int, B: float) -> float:
        peak = D if r > 0 else M
        places = [0, early * peak, 0.95 * peak, peak, 1.05 * peak, COUNTS[-1]]
        return float(np.interp(B, places, [1.0, best, 5.0, 50.0, 5.0, late]))

    return curve


def _write_figure1(
    folder: Path,
    measured: Curve,
    predicted: Curve | None = None,
    counts: tuple[int, ...] = COUNTS,
    scale: float = 0.002,
) -> Path:
    """fig1.csv as `reproduce` writes it: simulated rows, then theory rows; no prediction at the peak."""

    def theory(r: float, n: int, B: float) -> float | None:
        return None if (D if r > 0 else M) == B else (predicted or measured)(r, n, B)

    rows = [
        sft_row(
            "fig1",
            f"r={r:g}",
            prompts=B,
            length=n,
            interference=r,
            predicted=theory(r, n, B),
            **({"model": "theory"} if seed is None else {"seed": seed, "error": measured(r, n, B) * noise}),
        )
        for r in INTERFERENCES
        for n in LENGTHS
        for B in counts
        for seed in (*range(SEEDS), None)
        for noise in [1.0 if seed is None else _noise(seed, r, n, B, scale=scale)]
    ]
    return write_result(folder, study("fig1"), as_table(rows))


def _write_figure2(folder: Path, curve: Curve) -> Path:
    rows = [
        sft_row(
            "fig2",
            f"r={r:g}",
            prompts=B,
            length=n,
            interference=r,
            seed=seed,
            error=curve(r, n, B) * _noise(seed, r, n, B),
        )
        for r in INTERFERENCES
        for n in (4, 10, 25, 60, 100)
        for B in (5, 15, 30, 50)
        for seed in range(SEEDS)
    ]
    return write_result(folder, study("fig2"), as_table(rows))


def _write_figure5(
    folder: Path,
    *,
    first_order: Callable[[int], float] = lambda B: 1.0,
    form_error: Callable[[str, int], float] = lambda form, B: 0.0,
    lengths: tuple[int, ...] = (100, 500),
    ratio: Callable[[int, int], float] | None = None,
) -> Path:
    """fig5.csv: V~ has ``first_order`` times the error of V*; a form is off by ``form_error`` from V~."""
    counts = (0, 6, 15, 30, 38, 40, 42, 60, 90, 150)

    def times(n: int, B: int) -> float:
        return ratio(n, B) if ratio else first_order(B)

    rows = []
    for n in lengths:
        for B in counts:
            base = {"prompts": B, "length": n, "interference": 0.1}
            error = 1.0 + abs(B - D) / D
            simulated = (("exact", "minimiser", error), ("first-order", "first-order", error * times(n, B)))
            for seed in range(SEEDS):
                for form, estimator, mean in simulated:
                    row = {"seed": seed, "error": mean * _noise(seed, n, B), "form": form}
                    row |= {"estimator": estimator, "predicted": None if B == D else mean}
                    rows.append(sft_row("fig5", f"n={n}", **base, **row))
            for form in ("exact", "first-order", "as-printed"):
                scale = 1.0 if form == "exact" else times(n, B)
                value = None if B == D else error * scale * (1 + form_error(form, B))
                row = {"model": "theory", "form": form, "predicted": value}
                rows.append(sft_row("fig5", f"n={n}", **base, **row))
    config = replace(Figure5.preset("smoke"), block=TwoBlock(D, M))
    return write_result(folder, study("fig5"), as_table(rows), config)


def _write_insight1(folder: Path, curve: Callable[[str, int], float]) -> Path:
    rows = [
        sft_row(
            "insight1",
            kind,
            prompts=B,
            length=80,
            interference=0.0,
            seed=seed,
            error=curve(kind, B) * _noise(seed, B),
        )
        for kind in ("hard", "easy", "pretraining", "test")
        for B in (5, 10)
        for seed in range(SEEDS)
    ]
    return write_result(folder, study("insight1"), as_table(rows))


# --- Insight 1 ------------------------------------------------------------------------------------------


def test_insight_1_is_judged_per_comparison(tmp_path: Path) -> None:
    """Hard data must win against each kind at each B; one loss is *mixed* and named, all lost *fails*."""
    found = _judge("insight-1", _write_insight1(tmp_path, lambda kind, B: 0.5 if kind == "hard" else 1.0))
    assert (found["verdict"], found["value"], found["seeds"]) == ("holds", 1.0, SEEDS)

    def lost_once(kind: str, B: int) -> float:
        return 0.4 if (kind, B) == ("test", 5) else 0.5 if kind == "hard" else 1.0

    found = _judge("insight-1", _write_insight1(tmp_path, lost_once))
    assert found["verdict"] == "mixed"
    assert found["value"] == pytest.approx(5 / 6, abs=1e-5)
    assert "test B=5 fails" in found["note"]
    assert "easy B=5 fails" not in found["note"]

    found = _judge("insight-1", _write_insight1(tmp_path, lambda kind, B: 2.0 if kind == "hard" else 1.0))
    assert (found["verdict"], found["value"]) == ("fails", 0.0)


def test_equal_data_are_no_win(tmp_path: Path) -> None:
    assert _verdict("insight-1", _write_insight1(tmp_path, lambda kind, B: 1.0)) == "fails"


# --- Figure 1 -------------------------------------------------------------------------------------------


def test_dilution_depends_on_interference(tmp_path: Path) -> None:
    """The best small B against the largest: per interference, and r = 0 plays no part."""

    def dilution(late: dict[float, float]) -> Curve:
        return lambda r, n, B: _peaked(late=late[r])(r, n, B)

    everywhere = _write_figure1(tmp_path, dilution({0.0: 0.1, 0.01: 0.8, 0.1: 0.8}))
    assert _verdict("insight-2", everywhere) == "holds"
    assert _verdict("fig-1-strong-interference", everywhere) == "holds"

    weak_only = _write_figure1(tmp_path, dilution({0.0: 0.1, 0.01: 0.8, 0.1: 0.2}))
    found = _judge("insight-2", weak_only)
    assert (found["verdict"], found["value"]) == ("mixed", 0.5)
    assert "r=0.1 n=40 fails" in found["note"]
    assert _verdict("fig-1-strong-interference", weak_only) == "holds"

    strong_only = _write_figure1(tmp_path, dilution({0.0: 0.8, 0.01: 0.2, 0.1: 0.8}))
    assert _verdict("insight-2", strong_only) == "mixed"
    assert _verdict("fig-1-strong-interference", strong_only) == "fails"

    nowhere = _write_figure1(tmp_path, dilution({0.0: 0.8, 0.01: 0.2, 0.1: 0.2}))
    assert _verdict("insight-2", nowhere) == "fails"
    assert _verdict("fig-1-strong-interference", nowhere) == "fails"


def test_peaks_are_found_where_the_curve_has_them(tmp_path: Path) -> None:
    """The peaks of the simulated curves, and the turning points of the theory below them."""
    right = _write_figure1(tmp_path, _peaked())
    assert _verdict("fig-1-peak-clean", right) == "holds"
    assert _verdict("fig-1-peak-interference", right) == "holds"

    swapped = _write_figure1(tmp_path, lambda r, n, B: _peaked()(0.1 if r == 0 else 0.0, n, B))
    assert _verdict("fig-1-peak-clean", swapped) == "fails"
    assert _verdict("fig-1-peak-interference", swapped) == "fails"

    one_off = _write_figure1(tmp_path, lambda r, n, B: _peaked()(r if n > 40 else 0.1 - r, n, B))
    found = _judge("fig-1-peak-clean", one_off)
    assert found["verdict"] == "mixed"
    assert found["value"] == pytest.approx(2 / 3, abs=1e-5)

    def turning(places: dict[int, float]) -> Curve:
        return lambda r, n, B: _peaked(early=places[n])(r, n, B)

    right_moving = _write_figure1(tmp_path, turning({40: 0.125, 80: 0.25, 120: 0.375}))
    found = _judge("fig-1-crossover", right_moving)
    assert found["verdict"] == "holds"
    assert "r=0.1 n=80: B=10" in found["note"]
    for still in ({40: 0.25, 80: 0.25, 120: 0.375}, {40: 0.375, 80: 0.25, 120: 0.125}):
        assert _verdict("fig-1-crossover", _write_figure1(tmp_path, turning(still))) == "fails"


def test_monotone_curves_do_not_fall_then_rise(tmp_path: Path) -> None:
    """A fall alone and a rise alone fail, both together hold."""

    def falling(r: float, n: int, B: float) -> float:
        return float(np.exp(-B / 30))

    def rising(r: float, n: int, B: float) -> float:
        return float(np.exp(B / 30))

    assert _verdict("fig-1-falls-then-rises", _write_figure1(tmp_path, _peaked())) == "holds"
    assert _verdict("fig-1-falls-then-rises", _write_figure1(tmp_path, falling)) == "fails"
    assert _verdict("fig-1-falls-then-rises", _write_figure1(tmp_path, rising)) == "fails"

    def falls_only_with_interference(r: float, n: int, B: float) -> float:
        return _peaked()(r, n, B) if r > 0 else rising(r, n, B)

    found = _judge("fig-1-falls-then-rises", _write_figure1(tmp_path, falls_only_with_interference))
    assert found["verdict"] == "mixed"
    assert "r=0 n=40 fails" in found["note"]


def test_falling_up_to_the_peak_is_no_rise(tmp_path: Path) -> None:
    """The grid of Figure 1 has a B between 0.95 d and d (390 of 400); a curve still falling there fails."""
    counts = tuple(sorted({*COUNTS, 39}))
    found = _judge(
        "fig-1-falls-then-rises",
        _write_figure1(tmp_path, lambda r, n, B: float(np.exp(-B / 30)), counts=counts),
    )
    assert found["verdict"] == "fails", found["note"]


def test_flat_curves_do_not_fall_then_rise(tmp_path: Path) -> None:
    """Choosing the best of many B by its own noise must not make a flat curve fall and rise."""
    counts = (*range(21), *range(22, 40, 2), 40, 60, 200)
    flat = _write_figure1(tmp_path, lambda r, n, B: 1.0, counts=counts, scale=0.05)
    found = _judge("fig-1-falls-then-rises", flat)
    assert found["value"] <= 1 / 3, found["note"]


def test_exact_asymptotics_is_judged_away_from_the_peak(tmp_path: Path) -> None:
    def off(factor: float, where: Callable[[float, float], bool]) -> Curve:
        return lambda r, n, B: _peaked()(r, n, B) * (factor if where(D if r > 0 else M, B) else 1.0)

    near = off(2.0, lambda peak, B: abs(B - peak) <= 0.2 * peak)
    far = off(1.2, lambda peak, B: B > 1.2 * peak)
    low = off(0.8, lambda peak, B: B < 0.8 * peak)
    assert _verdict("exact-asymptotics", _write_figure1(tmp_path, _peaked(), _peaked())) == "holds"
    assert _verdict("exact-asymptotics", _write_figure1(tmp_path, _peaked(), near)) == "holds"
    assert _verdict("exact-asymptotics", _write_figure1(tmp_path, _peaked(), far)) == "fails"
    assert _verdict("exact-asymptotics", _write_figure1(tmp_path, _peaked(), low)) == "fails"
    noisy = _write_figure1(tmp_path, _peaked(), _peaked(), scale=0.1)
    assert _verdict("exact-asymptotics", noisy) == "mixed"


# --- Figure 2 -------------------------------------------------------------------------------------------


def test_u_shape_needs_both_sides(tmp_path: Path) -> None:
    """Small and moderate B under interference; the largest B and r = 0 play no part."""

    def curve(short: float, long: float) -> Curve:
        def error(r: float, n: int, B: float) -> float:
            if r == 0 or B == 50:
                return 1.0 / n
            return float(np.interp(n, [4, 25, 100], [short, 1.0, long]))

        return error

    assert _verdict("fig-2-u-shape", _write_figure2(tmp_path, curve(3.0, 2.0))) == "holds"
    assert _verdict("fig-2-u-shape", _write_figure2(tmp_path, curve(3.0, 0.5))) == "fails"
    assert _verdict("fig-2-u-shape", _write_figure2(tmp_path, curve(0.5, 2.0))) == "fails"
    assert _verdict("fig-2-u-shape", _write_figure2(tmp_path, curve(0.5, 0.5))) == "fails"

    def only_weak(r: float, n: int, B: float) -> float:
        return curve(3.0, 2.0 if r == 0.01 else 0.5)(r, n, B)

    found = _judge("fig-2-u-shape", _write_figure2(tmp_path, only_weak))
    assert (found["verdict"], found["value"]) == ("mixed", 0.5)
    assert "r=0.1 B=15 fails" in found["note"]


# --- Figure 5 -------------------------------------------------------------------------------------------


def test_theorem_b1_is_judged_on_each_side_of_the_peak(tmp_path: Path) -> None:
    def verdicts(form: str, below: float, above: float) -> list[str]:
        folder = _write_figure5(
            tmp_path, form_error=lambda f, B: 0.0 if f != form else below if B < D else above
        )
        return [_verdict(f"thm-B.1-{side}", folder) for side in ("below", "above", "corrected")]

    assert verdicts("as-printed", 0.0, 0.0) == ["holds", "holds", "holds"]
    assert verdicts("as-printed", 0.5, 0.0) == ["fails", "holds", "holds"]
    assert verdicts("as-printed", 0.0, -0.5) == ["holds", "fails", "holds"]
    assert verdicts("first-order", 0.5, 0.0) == ["holds", "holds", "fails"]
    assert verdicts("first-order", 0.0, 0.5) == ["holds", "holds", "fails"]


def test_first_order_error_is_compared_at_every_b_and_length(tmp_path: Path) -> None:
    assert _verdict("fig-5-first-order", _write_figure5(tmp_path, first_order=lambda B: 1.05)) == "holds"
    twice_once = _write_figure5(tmp_path, first_order=lambda B: 2.0 if B == 15 else 1.0)
    found = _judge("fig-5-first-order", twice_once)
    assert (found["verdict"], found["value"]) == ("fails", pytest.approx(2.0))
    assert "at B=15" in found["note"]
    short_only = _write_figure5(tmp_path, ratio=lambda n, B: 2.0 if n == 100 else 1.0)
    assert _verdict("fig-5-first-order", short_only) == "mixed"
    assert _verdict("fig-5-tighter", short_only) == "holds"
    long_only = _write_figure5(tmp_path, ratio=lambda n, B: 2.0 if n == 500 else 1.1)
    assert _verdict("fig-5-tighter", long_only) == "fails"
    once = _write_figure5(tmp_path, ratio=lambda n, B: 2.0 if (n == 100) != (B == 15) else 1.0)
    assert "B=15 fails" in _judge("fig-5-tighter", once)["note"]


def test_figure_5_is_judged_on_its_own_axis(tmp_path: Path) -> None:
    """The paper's axis ends at B = 5 d / 3 (67 of 40 directions here): what lies beyond decides nothing."""
    beyond = _write_figure5(tmp_path, first_order=lambda B: 3.7 if B > 5 * D / 3 else 1.05)
    assert _verdict("fig-5-first-order", beyond) == "holds"
    inside = _write_figure5(tmp_path, first_order=lambda B: 3.7 if B == 60 else 1.05)
    assert _verdict("fig-5-first-order", inside) == "fails"


# --- all of them ----------------------------------------------------------------------------------------


def _all_true(folder: Path) -> None:
    def figure1(r: float, n: int, B: float) -> float:
        return _peaked(early={40: 0.125, 80: 0.25, 120: 0.375}[n] if r > 0 else 0.25)(r, n, B)

    _write_figure1(folder, figure1)
    _write_figure2(folder, lambda r, n, B: float(np.interp(n, [4, 25, 100], [3.0, 1.0, 2.0])))
    _write_figure5(folder, ratio=lambda n, B: 1.05 if n == 100 else 1.01)
    _write_insight1(folder, lambda kind, B: 0.5 if kind == "hard" else 1.0)


def _all_false(folder: Path) -> None:
    """Curves that fall with B past every peak, in n too; theories that are 50 percent off."""
    _write_figure1(
        folder, lambda r, n, B: float(np.exp(-B / 30)), lambda r, n, B: 1.5 * float(np.exp(-B / 30))
    )
    _write_figure2(folder, lambda r, n, B: 1.0 / n)
    _write_figure5(folder, ratio=lambda n, B: 2.0 if n == 100 else 3.0, form_error=lambda form, B: 0.5)
    _write_insight1(folder, lambda kind, B: 2.0 if kind == "hard" else 1.0)


@pytest.mark.parametrize(("write", "verdict"), [(_all_true, "holds"), (_all_false, "fails")])
def test_no_figure_claim_is_decided_in_advance(
    write: Callable[[Path], None], verdict: str, tmp_path: Path
) -> None:
    """Also guards new claims: a judge whose table is not made here is *not run* and shows up."""
    write(tmp_path)
    verdicts = {found["id"]: found["verdict"] for found in judge_all(STUDIES, tmp_path)}
    assert verdicts == dict.fromkeys(HOMES, verdict)
