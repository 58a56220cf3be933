"""A few stories on every change; `make sim` plays thousands."""

import pytest

from tests.sim.scenario_commands import run


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_commands_hold_under_faults(first: int) -> None:
    for seed in range(first, first + 25):
        run(seed)
