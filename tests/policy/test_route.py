import pytest

from checkrein.policy.guard import RunGuard
from checkrein.policy.pact import PactError, load
from checkrein.policy.types import Place
from checkrein.sdk.guard import Failed, Seat

PACT = """\
pact: clerk
route:
  - {when: args.cents > 3, model: never}
  - {when: task_type == "triage", model: gpt-5-nano}
  - {when: spent.tokens > 100, model: gpt-5-mini, upstream: cheap}
  - {when: model == "gpt-4o", upstream: other}
"""


def routed(guard: RunGuard, model: str = "gpt-5") -> tuple[str, str] | None:
    found = guard.routed(model, 1)
    return None if found is None else (found.model, found.upstream)


def test_the_first_route_that_holds_counts_and_one_without_an_answer_does_not() -> None:
    pact = load(PACT)
    assert routed(RunGuard(pact)) is None
    assert routed(RunGuard(pact, place=Place(task_type="triage"))) == ("gpt-5-nano", "")
    assert routed(RunGuard(pact), "gpt-4o") == ("", "other")
    spender = RunGuard(pact)
    spender.model_returned(90, 20, None, 1)
    assert routed(spender) == ("gpt-5-mini", "cheap")


def test_a_pact_without_routes_keeps_its_version() -> None:
    pact = load("pact: a\n")
    assert pact.version == "ea83d4274f48"
    assert load(PACT).version != load(PACT.replace("nano", "mini")).version


def test_a_guard_that_cannot_say_leaves_the_call_as_it_was_asked() -> None:
    assert Seat(Failed("judge", ValueError("x")), load(PACT)).routed("gpt-5", 1) is None
    assert Seat.of(load(PACT)).routed("gpt-4o", 1) is not None


@pytest.mark.parametrize(
    ("line", "said", "place"),
    [
        ("{when: true}", "{when: CONDITION, model: NAME}", "3:5"),
        ("{model: x}", "{when: CONDITION, model: NAME}", "3:5"),
        ("{when: true, modle: x}", "modle", "3:18"),
        ("{when: task_typ == 'x', model: x}", "task_typ", "3:12"),
        ("{when: task_type, model: x}", "when", "3:12"),
        ("{when: true, model: gpt-*}", "takes one name", "3:25"),
    ],
)
def test_what_is_wrong_with_a_route_is_said_with_its_place(
    line: str, said: str, place: str
) -> None:
    with pytest.raises(PactError) as refused:
        load(f"pact: a\nroute:\n  - {line}\n", "a.yaml")
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"a.yaml:{place}")
