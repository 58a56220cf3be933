"""A few stories on every change; `make sim` plays thousands."""

import pytest

from tests.sim.scenario_approvals import run


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_approvals_hold_under_faults(first: int) -> None:
    for seed in range(first, first + 20):
        run(seed)
