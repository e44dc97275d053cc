"""The how-tos run and show what they print; the page on limits says what the kept ledgers say."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datadose import Shift
from datadose.planner import PoolSource, plan
from datadose.theory import Source
from helpers.pages import RELATIVE, alterations, differences, follow, unsupported_decimals

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "how_to").glob("*.md"))
LIMITS = (ROOT / "docs" / "limits.md").read_text()
TRAINED = {"select_data": 1e9, "cut_stop_or_weigh": 1e9, "compare_selectors": 1e9}
"""Pages whose decimals come from training a toy: another CPU's rounding moves them at will (docs/log.md)."""
SLOW = ("compare_selectors", "cut_stop_or_weigh", "run_on_a_cluster", "select_data")
"""Pages that train language models or start a cluster; what they do is tested small beside the code."""


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page.stem in SLOW)) for page in PAGES],
    ids=lambda page: page.stem,
)
def test_a_how_to_shows_what_it_prints(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    relative = TRAINED.get(page.stem, RELATIVE)
    done = follow(page.read_text(), tmp_path)
    found = (differences(step, printed, relative) for step, printed in done)
    assert "\n".join(filter(None, found)) == ""
    if relative == RELATIVE:
        changed = [(other, printed) for step, printed in done for other in alterations(step)]
        assert [other.expected for other, printed in changed if not differences(other, printed)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_decimals_in_a_how_tos_prose_are_printed_somewhere(page: Path) -> None:
    assert unsupported_decimals(page.read_text()) == []


def test_every_field_of_a_plan_is_explained() -> None:
    """Top-level fields and those of a source, of the choice of stage and of the end of training."""
    shift = Shift.two_block(12, 4, 0.1, 0.2)
    pool = [PoolSource(name, Source(shift.data, 30, 0), 20, cost=1.0) for name in ("one", "two")]
    documents = [
        plan(shift, length=30, max_prompts=20, choose_eta=True).to_json(),
        plan(shift, length=30, max_prompts=20, sources=pool).to_json(),
        plan(shift, length=30, max_prompts=20, stop="penalty").to_json(),
        plan(shift, length=30, max_prompts=40, sources=pool, stop="best").to_json(),
    ]
    fields = {name for document in documents for name in document}
    fields |= {f"sources[].{name}" for name in documents[1]["sources"][0]}
    fields |= set(documents[2]["penalty"]) | set(documents[3]["stopping"])
    fields |= {f"mixture[].{name}" for name in documents[3]["mixture"][0]}
    fields |= {f"stages.{name}" for name in documents[0]["stages"]}
    fields |= {f"stages.outlooks[].{name}" for name in documents[0]["stages"]["outlooks"][0]}
    text = (ROOT / "docs" / "how_to" / "plan_own_covariances.md").read_text()
    table = text[text.index("## 4.") : text.index("## 5.")]
    explained = set(re.findall(r"`([\w.\[\]]+)`", table))
    explained |= {name.rpartition(".")[2] for name in explained} | {"sources", "stages", "stages.outlooks"}
    explained |= {name.removesuffix("[]") for name in explained}
    assert sorted(name for name in fields if not {name, name.rpartition(".")[2]} & explained) == []


def ledger(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
    return found


def count(name: str) -> Counter[str]:
    return Counter(claim["verdict"] for claim in ledger(name))


def test_the_limits_list_every_claim_that_did_not_come_out() -> None:
    rows = re.findall(r"^\| `([\w.-]+)` \|.*\| ([\d.e+-]+) \| ([\d.e+-]+) \|$", LIMITS, re.MULTILINE)
    failed = [c for c in ledger("claims") if c["verdict"] == "fails"]
    assert rows == [(c["id"], f"{c['value']:.3g}", f"{c['threshold']:.3g}") for c in failed]
    listed = LIMITS[LIMITS.index("The mixed ones hold") : LIMITS.index("At the paper's size")]
    mixed = [c["id"] for c in ledger("claims") if c["verdict"] == "mixed"]
    assert re.findall(r"`([\w.-]+)`", listed) == mixed


def test_the_limits_are_written_from_a_ledger() -> None:
    """As they stand they change nothing; another order and other verdicts are followed, words are kept."""
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    from limits_lists import with_lists

    claims = ledger("claims")
    assert with_lists(LIMITS, claims) == LIMITS
    turned = with_lists(LIMITS, claims[::-1])
    failed = [c["id"] for c in claims if c["verdict"] == "fails"]
    assert re.findall(r"^\| `([\w.-]+)` \|", turned, re.MULTILINE) == failed[::-1]
    assert with_lists(turned, claims) == LIMITS
    other = [{**c, "verdict": "fails" if c["id"] == "shares-mean" else c["verdict"]} for c in claims]
    changed = with_lists(LIMITS, other)
    statement = next(c["statement"] for c in claims if c["id"] == "shares-mean").rstrip(".")
    assert f"| `shares-mean` | {statement} (" in changed
    assert f"and {len(failed) + 1} fail" in changed
    with pytest.raises(ValueError, match="not run"):
        with_lists(LIMITS, [{**claims[0], "verdict": "not run"}])
    with pytest.raises(ValueError, match="page"):
        with_lists("No table.", claims)


def test_the_limits_count_as_the_ledgers_do() -> None:
    text = " ".join(LIMITS.split())
    whole, gpt, studies = count("claims"), count("fig3-small-claims"), count("studies-claims")
    paper = count("fig3paper-medium-claims")
    rows, every, smol, rl, curves = (
        count(f"{one}-claims") for one in ("sea", "sea_methods", "sea_smollm", "sea_rl", "sea_forecast")
    )
    for sentence in (
        f"Of the {whole.total()} claims {whole['holds']} hold, {whole['mixed']} are mixed and "
        f"{whole['fails']} fail",
        f"of Figure 3's {gpt.total()} claims holds, {gpt['mixed']} are mixed and {gpt['fails']} fail",
        f"with the paper's own model {paper['holds']} of {paper.total()} hold, {paper['fails']} fail and "
        f"{paper['mixed']} is mixed",
        f"Of the {studies.total()} claims on language models {studies['holds']} hold and "
        f"{studies['mixed']} are mixed",
        f"of {rows.total()} claims on rows {rows['holds']} hold, {rows['mixed']} are mixed and "
        f"{rows['fails']} fails",
        f"of {every.total()} on every method in every pool {every['holds']} hold, "
        f"{every['no difference']} finds no difference, {every['mixed']} is mixed and {every['fails']} fail",
        f"of {smol.total()} on SmolLM2 {smol['holds']} hold and {smol['mixed']} are mixed",
        f"of {rl.total()} on RL {rl['holds']} hold, {rl['no difference']} find no difference, "
        f"{rl['mixed']} is mixed and {rl['fails']} fails",
        f"of {curves.total()} on forecasts {curves['holds']} holds and {curves['mixed']} are mixed",
    ):
        assert sentence in text
    assert gpt["holds"] == 1
    assert Counter(c["verdict"] for c in ledger("studies-claims") if c["id"].startswith("llm-")) == {
        "mixed": 10
    }
    larger = {c["id"]: c["verdict"] for c in ledger("fig4-paper-claims")}
    quick = {c["id"]: c["verdict"] for c in ledger("claims")}
    moved = {name: verdict for name, verdict in larger.items() if verdict != quick[name]}
    assert moved == {"fig-4e": "mixed", "fig-4e-fixed-lengths": "fails"}
