"""A few hundred seeds of every scenario at every test run; `make sim` runs thousands."""

import pytest

from tests.sim.harness import explore, scenarios

_SEEDS = 200


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", list(scenarios()))
def test_scenario(name: str) -> None:
    count, failures = explore(name, scenarios()[name], range(1, _SEEDS + 1))
    assert not failures, "\n".join(map(str, failures))
    assert count == _SEEDS


def test_a_failure_names_its_seed() -> None:
    def run(seed: int) -> None:
        assert seed != 7, "broken"

    count, (failure,) = explore("made_up", run, range(10))
    assert count == 10
    assert "--scenario made_up --seed 7" in str(failure)
    assert "broken" in failure.text
