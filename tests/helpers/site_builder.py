"""The documentation site, built once for all tests of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

DOCS = Path(__file__).parents[2] / "docs"


def built_site(factory: pytest.TempPathFactory) -> Path:
    """The folder of the site. A warning, a dead link or a request to another host fails the build itself."""
    base = factory.getbasetemp()
    # The processes of one run have folders of their own beside each other.
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out, done = base / "site", base / "site-built"
    with FileLock(base / "site.lock"):
        if not done.is_file():
            options = ["-W", "--keep-going", "-n", "-q", "-b", "html", "-d", str(base / "site-doctrees")]
            built = subprocess.run(
                [sys.executable, "-m", "sphinx", *options, str(DOCS), str(out)],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            assert built.returncode == 0, built.stderr[-6000:]
            done.touch()
    return out
