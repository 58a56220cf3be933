"""A few stories of `scenario_watch` with every test run; `make sim` plays thousands."""

import pytest

from tests.sim.scenario_watch import run


@pytest.mark.parametrize("seed", range(40))
def test_watch_under_faults(seed: int) -> None:
    run(seed)
