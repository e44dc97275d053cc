"""The settings of a selection: what is out of range is named."""

from __future__ import annotations

import pytest

from datadose.errors import InputError
from datadose.llm.selection import SelectionConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sft_size": -1}, "sft_size: got -1"),
        ({"sft_size": 0, "rl_size": 0}, "rl_size: got 0; allowed: a number above 0, or auto"),
        ({"sft_size": 0, "replay": 0.1}, "replay: got 0.1; allowed: 0 with an sft_size of 0"),
        ({"sft_size": "many"}, "sft_size: got many; allowed: auto, or an integer >= 0"),
        ({"rl_size": -1}, "rl_size: got -1"),
        ({"rl_size": 2.5}, "rl_size: got 2.5"),
        ({"replay": 1.0}, "replay: got 1.0"),
        ({"hard": 0.0}, "hard: got 0.0"),
        ({"conflict": 1.5}, "conflict: got 1.5"),
        ({"representation": "hidden"}, "representation: got hidden; allowed: sketch, embedding"),
        ({"hardness": "loss"}, "hardness: got loss; allowed: nll, sketch"),
        ({"group": 1}, "group: got 1"),
        ({"group": 10**8}, "group: got 100000000; allowed: an integer in [2, 4096]"),
        ({"group": 2, "rl_mixed": 0.6}, "rl_mixed: got 0.6; allowed: a number in (0, 0.5]"),
        ({"rl_mixed": 0.0}, "rl_mixed: got 0.0"),
        ({"near_duplicates": 0.0}, "near_duplicates: got 0.0; allowed: a number in (0, 1]"),
        ({"overlap": 1.5}, "overlap: got 1.5"),
        ({"sft_tokens": 0}, "sft_tokens: got 0"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_configurations_are_checked(change, message):
    with pytest.raises(InputError) as error:
        SelectionConfig(method="filters", **change)
    assert message in str(error.value)
