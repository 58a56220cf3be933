"""A few stories on every change; `make sim` plays thousands."""

import pytest

from tests.sim.scenario_fences import run


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_fences_hold_under_faults(first: int) -> None:
    for seed in range(first, first + 10):
        run(seed)
