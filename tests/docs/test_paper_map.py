"""The documentation cannot rot: every function, test, claim and file that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from datadose.studies.index import LEDGER, study

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_in_the_documentation_exists(page: Path) -> None:
    text, missing = page.read_text(), []
    last_file = None
    for path, test in re.findall(r"(tests/[\w/]+\.py)?::(\w+)", text):
        last_file = ROOT / path if path else last_file
        if last_file is None or not last_file.is_file() or test not in functions_of(last_file):
            missing.append(f"{path}::{test}")
    paths = re.findall(r"`((?:src|tests|benchmarks|docs|configs)/[\w/.-]+)`", text)
    missing += [path for path in paths if not (ROOT / path).exists()]
    for name in re.findall(r"`(datadose(?:\.\w+)+)`", text):
        try:
            resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    links = re.findall(r"\]\(([\w/.-]+)\)", text)
    missing += [link for link in links if not (page.parent / link).exists()]
    assert not missing


def _claims() -> list[str]:
    return [claim.id for name in LEDGER for claim in study(name).claims]


def test_the_map_covers_every_claim_that_is_judged() -> None:
    text = (ROOT / "docs" / "paper_map.md").read_text()
    assert [name for name in _claims() if f"`{name}`" not in text] == []


def test_the_map_names_only_claims_of_the_ledger() -> None:
    text = (ROOT / "docs" / "paper_map.md").read_text() + (ROOT / "docs" / "errata.md").read_text()
    named = set(
        re.findall(
            r"`((?:thm|prop|fig|insight|sec|remark|lemma|app|finding|os|token|llm|repetition)-[\w.-]+)`", text
        )
    )
    assert named - {*_claims()} == set()
