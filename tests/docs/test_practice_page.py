"""The page of reports from practice quotes the kept ledger: every verdict and its number."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PAGE = (ROOT / "docs" / "practice.md").read_text()
LEDGER = {claim["id"]: claim for claim in json.loads((ROOT / "docs" / "results" / "claims.json").read_text())}
QUOTED = re.findall(r"`((?:practice|budgets)-[\w-]+)` \| \*\*([\w ]+)\*\*: (0|[01]?\.\d+)", PAGE)


def test_every_report_is_quoted_once() -> None:
    named = [name for name, _, _ in QUOTED]
    assert len(named) == len(set(named))
    assert set(named) >= {name for name in LEDGER if name.startswith("practice-")}


@pytest.mark.parametrize(("name", "verdict", "number"), QUOTED)
def test_the_verdict_and_its_number_are_those_of_the_ledger(name: str, verdict: str, number: str) -> None:
    claim = LEDGER[name]
    assert claim["verdict"] == verdict
    assert float(number) == pytest.approx(claim["value"], abs=0.0051)
