"""The command protocol against an adversary who owns the wire: he reorders, doubles, drops and
replays whatever was ever sent, and control may die at any moment. Hypothesis looks for the shortest
story in which a run obeys twice, an older order wins, or a halted run acts."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.control.rig import Holder, Rig, Send

from checkrein.bus.orders import AFTER_HALT

WAITING_MAX = 300


class Wire:
    """In place of the simulated net: nothing arrives unless the adversary lets it."""

    def __init__(self) -> None:
        self.cut: set[str] = set()
        self.up = True
        self.waiting: list[Callable[[], None]] = []

    def carry(self, session: str, deliver: Callable[[], None]) -> None:
        if len(self.waiting) < WAITING_MAX:
            self.waiting.append(deliver)


class CommandProtocol(RuleBasedStateMachine):
    @initialize(kinds=st.lists(st.sampled_from(["supervisor", "sdk"]), min_size=1, max_size=2))
    def begin(self, kinds: list[str]) -> None:
        self.rig = Rig()
        self.wire = Wire()
        self.rig.net = self.wire  # type: ignore[assignment]
        self.recorded: list[Send] = []
        self.confirmed: dict[str, int] = {}
        for number, kind in enumerate(kinds):
            holder = Holder(self.rig, f"s{number}", kind)
            holder.start(f"r{number}")
        self.flush()

    def flush(self) -> None:
        while self.wire.waiting:
            self.wire.waiting.pop(0)()

    @rule(
        verb=st.sampled_from(["pause", "resume", "halt", "inject"]),
        who=st.sampled_from(["all", "run:r0", "run:r1"]),
    )
    def ask(self, verb: str, who: str) -> None:
        self.rig.ask(verb, who, wait_ms=0)

    @rule(at=st.integers(0, WAITING_MAX))
    def deliver(self, at: int) -> None:
        if self.wire.waiting:
            self.wire.waiting.pop(at % len(self.wire.waiting))()

    @rule()
    def deliver_all(self) -> None:
        for _ in range(len(self.wire.waiting)):
            self.wire.waiting.pop(0)()

    @rule(at=st.integers(0, WAITING_MAX))
    def deliver_a_copy(self, at: int) -> None:
        if self.wire.waiting:
            self.wire.waiting[at % len(self.wire.waiting)]()

    @rule(at=st.integers(0, WAITING_MAX))
    def drop(self, at: int) -> None:
        if self.wire.waiting:
            self.wire.waiting.pop(at % len(self.wire.waiting))

    @rule(at=st.integers(0, 10_000), to=st.integers(0, 1))
    def replay(self, at: int, to: int) -> None:
        """Any order ever sent, to any holder."""
        holders = list(self.rig.holders.values())
        if self.rig.sent:
            holders[to % len(holders)].on_order(self.rig.sent[at % len(self.rig.sent)].data)

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.1, 12.0]))
    def wait(self, seconds: float) -> None:
        self.rig.run_for(seconds)

    @precondition(lambda self: self.rig.control is not None)
    @rule()
    def crash(self) -> None:
        self.rig.crash()
        self.rig.boot()

    @precondition(lambda self: self.rig.control is not None)
    @rule(kind=st.sampled_from(["run", "level", "command"]))
    def crash_and_lose(self, kind: str) -> None:
        """The disk had not got that far."""
        self.rig.crash()
        self.rig.disk[kind].clear()
        self.rig.boot()

    @invariant()
    def holds(self) -> None:
        for holder in getattr(self, "rig", Rig()).holders.values():
            for run_id, acting in holder.runs.items():
                verbs = [verb for verb, _ in acting.did]
                assert len(set(acting.did)) == len(acting.did), acting.did
                assert len(set(acting.acts)) == len(acting.acts), acting.acts
                states = [epoch for verb, epoch in acting.did if verb in ("pause", "resume")]
                assert states == sorted(states), acting.did
                if "halt" in verbs:
                    assert set(verbs[verbs.index("halt") :]) <= AFTER_HALT, acting.did
                    assert acting.state == "halted"
                for state in self.rig.control.commands(_ALL) if self.rig.control else []:
                    for line in state.runs:
                        if line.run_id == run_id and state.verb == "halt" and line.confirmed:
                            assert holder.kind == "supervisor"
                            first = self.confirmed.setdefault(run_id, acting.effects)
                            assert acting.effects == first, "acted after a confirmed halt"

    def teardown(self) -> None:
        """Once the adversary tires, every run is as it is wanted."""
        if not hasattr(self, "rig"):
            return
        for _ in range(60):
            self.flush()
            self.rig.run_for(0.5)
        self.flush()
        assert self.rig.control is not None
        for holder in self.rig.holders.values():
            for run_id, acting in holder.runs.items():
                known = self.rig.control._book.registry.known(run_id)
                if not acting.ended:
                    assert known is not None
                    assert acting.state == known.wanted, (run_id, acting.state, known.wanted)


def _query() -> object:
    from checkrein.bus.messages import LiveQuery

    return LiveQuery(limit=100)


_ALL = _query()


@pytest.mark.timeout(120)
def test_command_protocol() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        CommandProtocol,
        settings=settings(
            max_examples=300, stateful_step_count=40, deadline=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
