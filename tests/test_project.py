"""What surrounds the code agrees: versions, bounds, the lock, workflows and forms."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from datadose import __version__

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MADE = {"lowest.txt": "lowest", "without-torch.txt": "without_torch"}


@pytest.fixture(scope="module")
def write() -> ModuleType:
    """The script that writes the constraints."""
    spec = importlib.util.spec_from_file_location("write", ROOT / "constraints" / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_changelog_citation_and_package_have_one_version_and_date() -> None:
    latest = re.search(r"^## (\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert latest is not None
    assert latest.groups() == (citation["version"], str(citation["date-released"]))
    assert citation["version"] == __version__
    assert citation.get("repository-code") == PROJECT["urls"].get("Repository")


@pytest.mark.parametrize("name", MADE)
def test_files_of_bounds_are_those_of_pyproject(name: str, write: ModuleType) -> None:
    wanted = getattr(write, MADE[name])()
    assert (ROOT / "constraints" / name).read_text() == wanted, "run `make bounds`"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_lock_has_one_version_of_every_dependency_within_its_bounds(
    python: str, write: ModuleType
) -> None:
    lines = (ROOT / "constraints" / "lock.txt").read_text().splitlines()
    locked = {}
    for requirement in map(Requirement, (line for line in lines if not line.startswith("#"))):
        assert requirement.url is None
        where = {"python_version": python, "python_full_version": f"{python}.9"}
        if requirement.marker is None or requirement.marker.evaluate(where):
            assert requirement.name not in locked
            locked[requirement.name] = str(requirement.specifier).removeprefix("==")
    assert {"datadose", "torch"}.isdisjoint(locked)
    for needed in write.dependencies(extras=True):
        if needed.name != "torch":
            assert needed.specifier.contains(locked[canonicalize_name(needed.name)])


def steps(workflow: Path) -> list[dict[str, Any]]:
    """All steps of a workflow, a matrix filled in."""
    found = []
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        targets = [*matrix.get("target", []), *(more["target"] for more in matrix.get("include", []))]
        for step in job["steps"]:
            run = step.get("run", "")
            found += [
                {**step, "run": run.replace("${{ matrix.target }}", target)} for target in targets or [""]
            ]
    return found


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_each_step_of_a_workflow_is_set_up_or_a_target_of_make(workflow: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    runs = [step["run"] for step in steps(workflow) if "uses" not in step]
    assert runs
    for run in runs:
        called = re.fullmatch(r"make ([\w-]+)( [A-Z]+=(\S*|\$\{\{ [\w.]+ \}\}))*", run)
        assert called is not None, run
        assert called[1] in targets


@pytest.mark.parametrize(
    ("given", "processes"),
    [
        (["JOBS=1"], "2"),
        (["JOBS=3"], "4"),
        (["JOBS=auto"], "auto"),
        (["TESTERS=7"], "7"),
        ([], r"(\d+|auto)"),
    ],
)
@pytest.mark.parametrize("tools", ["", "/nowhere"])
def test_tests_have_a_number_of_processes(given: list[str], processes: str, tools: str) -> None:
    """Without nproc and expr too, as where the path has neither."""
    make = shutil.which("make")
    assert make is not None
    path = tools or os.environ["PATH"]
    # Nothing is built: what make would run is printed, as if .venv were ready.
    told = subprocess.run(
        [make, "-n", "-o", "pyproject.toml", "test", f"PATH={path}", *given],
        cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    if tools and given and given[0].startswith("JOBS"):
        processes = "auto"
    assert re.search(rf"pytest -n {processes}$", told.stdout, re.MULTILINE), told.stdout


def test_workflows_cover_what_a_release_rests_on() -> None:
    runs = {step["run"].split()[1] for path in WORKFLOWS for step in steps(path) if "uses" not in step}
    assert {"lint", "test", "test-all", "docs", "wheel", "lowest"} <= runs
    weekly = (ROOT / ".github" / "workflows" / "weekly.yml").read_text()
    assert "make test LOCK= " in weekly
    checks = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())
    pythons = checks["jobs"]["make"]["strategy"]["matrix"]["python"]
    assert [f"Programming Language :: Python :: {python}" for python in pythons] == [
        name for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)
    ]


def test_forms_have_what_a_form_requires() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.stem == "config":
            continue
        assert {"name", "description", "body"} <= set(form)
        ids = [part["id"] for part in form["body"]]
        assert len(set(ids)) == len(ids)
        assert all(part["attributes"]["label"] for part in form["body"])


def test_hooks_without_an_environment_say_what_to_do(tmp_path: Path) -> None:
    """The first hook is the one that fails, and its name is the remedy."""
    first = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"][0]
    assert "make setup" in first["name"]
    assert first["fail_fast"]
    assert first["always_run"]
    assert subprocess.run(first["entry"], shell=True, cwd=tmp_path, check=False).returncode != 0
    place = tmp_path / ".venv" / "bin"
    place.mkdir(parents=True)
    shutil.copy("/bin/sh", place / "mypy")
    assert subprocess.run(first["entry"], shell=True, cwd=tmp_path, check=False).returncode == 0
