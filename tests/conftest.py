"""One BLAS thread a test process, signals as in a terminal, examples that stay, shapes enforced."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).parent))

# Before the first import of the package: its annotations become types that can be enforced.
import jaxtyping  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from helpers import shape_checks  # noqa: E402
from helpers.site_builder import built_site  # noqa: E402

shape_checks.enforce_shapes()
# The same examples in every run, and no verdict on how long a busy machine took for one.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")
if os.name == "posix":
    # A run in the background may ignore these, and so would every process that a test starts and stops.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the built site come first: far apart, one process would wait while another builds it."""
    items.sort(key=lambda item: "site" not in getattr(item, "fixturenames", ()))


def pytest_runtest_setup() -> None:
    """Each test checks the first calls of every function anew."""
    shape_checks.calls.clear()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation."""
    return built_site(tmp_path_factory)


@pytest.fixture
def any_shape() -> Iterator[None]:
    """Arrays of wrong shapes reach the functions, as at run time, for tests of what is said of them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
