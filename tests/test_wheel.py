"""The package as it is installed: what its wheel holds, and that it works where there is no checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from datadose import __version__
from helpers.command import PATIENCE, environment
from helpers.synthetic import make

ROOT = Path(__file__).parents[1]


def files_below(folder: Path) -> set[str]:
    """Paths below ``folder``, those behind links too, without what Python and its tools leave there."""
    walked = (
        (Path(place) / name).relative_to(folder).as_posix()
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
    )
    return {path for path in walked if "__pycache__" not in path and ".egg-info" not in path}


SAMPLES = files_below(ROOT / "src" / "datadose" / "samples")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that DATADOSE_WHEEL names (`make wheel`), else one made from a copy of the sources."""
    if "DATADOSE_WHEEL" in os.environ:
        return ROOT / os.environ["DATADOSE_WHEEL"]
    copy, out = (tmp_path_factory.mktemp(name) for name in ("sources", "dist"))
    linked = (ROOT / "src" / "datadose" / "samples" / path for path in SAMPLES)
    for name in {"src", *(path.resolve().relative_to(ROOT).parts[0] for path in linked)}:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=copy, check=True, stdout=subprocess.DEVNULL)
    return next(out.glob("*.whl"))


def test_a_wheel_holds_every_file_of_the_package_and_the_samples(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(next(n for n in names if n.endswith("METADATA"))).decode())
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == {f"datadose/{path}" for path in files_below(ROOT / "src" / "datadose")}
    assert {f"configs/{path}" for path in files_below(ROOT / "configs")} <= SAMPLES
    assert metadata["Version"] == __version__
    assert {"cluster", "explore", "llm", "ray", "train"} <= set(metadata.get_all("Provides-Extra"))


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Any:
    """A function that runs the installed `datadose` in an empty folder; its libraries are the tests'."""
    place, work = tmp_path / "environment", tmp_path / "work"
    # Sources on PYTHONPATH would count as installed.
    clean = {name: value for name, value in environment().items() if not name.startswith("PYTHON")}
    venv.create(place, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(wheel)], check=True, env=clean)
    # Links to checkouts in the libraries' own .pth files are not followed from here.
    folder = next(place.glob("lib/python*/site-packages"))
    (folder / "libraries.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    work.mkdir()

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [str(place / "bin" / "datadose"), *arguments]
        return subprocess.Popen(
            command, cwd=work, env=clean, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    where = [str(place / "bin" / "python"), "-c", "import datadose; print(datadose.__file__)"]
    found = subprocess.run(where, cwd=work, env=clean, text=True, capture_output=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(place)
    return start


@pytest.mark.slow
def test_an_installed_wheel_works_without_a_checkout(installed: Any, tmp_path: Path) -> None:
    def output(*arguments: str) -> str:
        process = installed(*arguments)
        printed, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        return str(printed)

    work = tmp_path / "work"
    assert output("--version") == f"datadose {__version__}\n"
    output("samples")
    assert files_below(work) == SAMPLES
    planned = json.loads(output("plan", "configs/plan_sources.yaml", "--json"))
    assert {source["name"] for source in planned["sources"]}
    output("plan", "configs/memos/cut_stop_or_weigh.yaml", "--plot", "plan.png")
    output("reproduce", "fig1", "--preset", "smoke")
    assert {"report.html", "fig1.png", "fig1.csv"} <= files_below(work / "results")
    make(60, 0).saved(work / "scores")
    make(20, 1, name="target").saved(work / "target")
    sizes = ("--sft-size", "10", "--rl-size", "10", "--unaligned", "0")
    output("select", "--scores", "scores", "--target", "target", "--out", "selected", *sizes)
    assert {"sft.jsonl", "rl.jsonl", "report.html"} <= files_below(work / "selected")
    page = installed("explore", "--port", "0")
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+/", page.stdout.readline())
        assert address is not None
        shown = urlopen(address.group(), timeout=PATIENCE).read().decode()
        for name in ("explore.css", "explore.js"):
            link = re.search(rf'"/?([\w/]*{name}[^"]*)"', shown)
            assert link is not None
            assert urlopen(address.group() + link[1], timeout=PATIENCE).status == 200
        page.send_signal(signal.SIGINT)
        page.communicate(timeout=PATIENCE)
    finally:
        page.kill()
    assert page.returncode == 130
