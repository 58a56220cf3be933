"""Shutting agents out at the gateways, and letting them in again."""

from tests.control.gate_party import GateParty
from tests.control.rig import Faults, Holder, Rig

from checkrein.bus.messages import CommandRun, CommandState
from checkrein.control.containment import NO_GATEWAY


def line_of(state: CommandState) -> CommandRun:
    (line,) = state.runs
    return line


def test_an_agent_is_contained_when_every_gateway_has_said_so() -> None:
    rig = Rig()
    gates = [GateParty(rig, "one"), GateParty(rig, "two")]
    state = rig.command("contain", "agent:bot")
    line = line_of(state)
    assert (line.run_id, line.agent, line.confirmed, line.outcome) == (
        "", "bot", "gateway", "obeyed",
    )  # fmt: skip
    assert set(line.how) == {"fence"}
    assert not any(gate.call("r1", "bot") for gate in gates)
    assert gates[0].call("r2", "other")
    released = rig.command("release", "agent:bot")
    assert (line_of(released).confirmed, line_of(released).outcome) == ("gateway", "obeyed")
    assert all(gate.call("r1", "bot") for gate in gates)
    assert not rig.disk["contained"]


def test_a_target_of_runs_means_their_agents() -> None:
    rig = Rig()
    GateParty(rig, "g")
    holder = Holder(rig, "s1")
    for run_id, agent in (("r1", "a"), ("r2", "a"), ("r3", "b")):
        holder.start(run_id, agent, room="x")
    rig.run_for(0.1)
    state = rig.command("contain", "room:x")
    assert [line.agent for line in state.runs] == ["a", "b"]
    released = rig.command("release", "all")
    assert [line.agent for line in released.runs] == ["a", "b"]
    assert rig.command("release", "all").error == "no agent is contained"


def test_without_a_gateway_it_fails_and_says_so() -> None:
    rig = Rig()
    state = rig.command("contain", "agent:bot")
    assert state.error == NO_GATEWAY
    assert not state.runs
    rig.run_for(1.0)
    assert not rig.disk["contained"]


def test_one_gateway_that_has_not_said_so_is_waited_for_by_name() -> None:
    rig = Rig()
    first, second = GateParty(rig, "one"), GateParty(rig, "two")
    rig.cut(second.session)
    state = rig.command("contain", "agent:bot", wait_ms=500)
    line = line_of(state)
    assert not line.outcome
    assert "1 of 2 gateways have said so; waiting for http://two on h" in line.note
    assert not first.call("r1", "bot")
    assert second.call("r1", "bot")
    rig.net.cut.clear()
    rig.run_for(3.0)  # the bucket is written again
    assert line_of(rig.state(state.command_id)).confirmed == "gateway"
    assert not second.call("r1", "bot")


def test_a_gateway_that_falls_silent_makes_it_fail_in_words() -> None:
    rig = Rig()
    GateParty(rig, "one")
    second = GateParty(rig, "two")
    rig.cut(second.session)
    state = rig.command("contain", "agent:bot", wait_ms=500)
    rig.run_for(20.0)
    line = line_of(rig.state(state.command_id))
    assert (line.outcome, line.confirmed) == ("failed", "")
    assert "http://two on h fell silent" in line.note


def test_a_gateway_that_was_started_again_counts_as_itself() -> None:
    rig = Rig()
    gate = GateParty(rig, "one")
    rig.cut(gate.session)
    state = rig.command("contain", "agent:bot", wait_ms=500)
    gate.crash()
    gate.start()
    rig.run_for(20.0)
    line = line_of(rig.state(state.command_id))
    assert (line.outcome, line.confirmed) == ("obeyed", "gateway")
    assert not gate.call("r1", "bot")


def test_it_holds_over_restarts_of_control_and_of_gateways() -> None:
    rig = Rig()
    gate = GateParty(rig, "one")
    rig.command("contain", "agent:bot")
    rig.run_for(1.0)
    rig.crash()
    gate.crash()
    rig.boot()
    gate.start()
    assert not gate.call("r1", "bot")
    again = line_of(rig.command("contain", "agent:bot"))
    assert (again.outcome, again.obeyed_ms) == ("obeyed", 0.0)
    assert "contained already by ann: test" in again.note
    assert line_of(rig.command("release", "agent:bot")).confirmed == "gateway"
    assert gate.call("r1", "bot")


def test_what_was_under_way_when_control_died_is_finished() -> None:
    rig = Rig()
    gate = GateParty(rig, "one")
    rig.net.faults = Faults(lost=1.0)
    state = rig.command("contain", "agent:bot", wait_ms=300)
    assert not line_of(state).outcome
    rig.crash()
    rig.net.faults = Faults()
    rig.boot()
    rig.run_for(3.0)
    assert line_of(rig.state(state.command_id)).confirmed == "gateway"
    assert not gate.call("r1", "bot")


def test_only_a_person_releases() -> None:
    rig = Rig()
    gate = GateParty(rig, "one")
    rig.command("contain", "agent:bot")
    for issuer in ("rule:loop", "bot"):
        state = rig.command("release", "agent:bot", issued_by=issuer)
        assert "released by a person" in state.error
    assert not gate.call("r1", "bot")


def test_a_rule_may_contain() -> None:
    rig = Rig()
    GateParty(rig, "one")
    state = rig.command("contain", "agent:bot", issued_by="rule:loop")
    assert line_of(state).confirmed == "gateway"


def test_who_was_not_contained_is_released_at_once() -> None:
    rig = Rig()
    state = rig.command("release", "agent:bot")
    assert line_of(state).note == "it was not contained"
    assert line_of(state).outcome == "obeyed"


def test_a_release_takes_the_place_of_what_still_waits() -> None:
    rig = Rig()
    gate = GateParty(rig, "one")
    second = GateParty(rig, "two")
    rig.cut(second.session)
    contain = rig.command("contain", "agent:bot", wait_ms=100)
    release = rig.command("release", "agent:bot", wait_ms=8_000)
    assert line_of(rig.state(contain.command_id)).outcome == "superseded"
    line = line_of(release)
    assert (line.outcome, line.confirmed) == ("obeyed", "")
    assert "waiting for http://two" in line.note
    assert gate.call("r1", "bot")


def test_it_is_written_down_for_the_agent() -> None:
    rig = Rig()
    GateParty(rig, "one")
    state = rig.command("contain", "agent:bot")
    rig.run_for(1.0)
    told = [event for event in rig.events.values() if event.agent == "bot"]
    assert [type(event).__name__ for event in told] == ["Command", "Receipt"]
    assert told[0].run_id.startswith("outside-")
    records = [one.record for one in rig.audit.values()]
    assert [one["kind"] for one in records] == ["command", "receipt"]
    assert {one["command_id"] for one in records} == {state.command_id}
