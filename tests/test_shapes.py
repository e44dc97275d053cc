"""Shapes in annotations: enforced under the tests, and nothing at run time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from datadose.theory import post_test_error, pretrained_operator


def test_a_wrong_shape_is_refused_under_the_tests() -> None:
    good = np.ones(4)
    assert post_test_error(-good, good, 8) > 0
    with pytest.raises(TypeCheckError, match="parameter 'target'"):
        post_test_error(-good, np.ones((4, 5)), 8)
    with pytest.raises(TypeCheckError, match="parameter 'sigma0'"):
        pretrained_operator(np.ones((2, 2, 2)), 8)


@pytest.mark.usefixtures("any_shape")
def test_wrong_shapes_reach_a_function_where_a_test_needs_it() -> None:
    with pytest.raises(ValueError, match="sigma0"):
        pretrained_operator(np.ones((2, 2, 2)), 8)


def test_nothing_is_checked_or_imported_at_run_time() -> None:
    code = (
        "import sys, datadose.theory as t, numpy as np\n"
        "assert not {'jaxtyping', 'beartype'} & set(sys.modules), 'imported'\n"
        "assert not hasattr(t.post_test_error, '__wrapped__'), 'wrapped'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
