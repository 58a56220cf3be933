"""The shipper's judgement, step by step."""

import msgspec
import pytest

from checkrein.events import envelope
from checkrein.events.envelope import CHAIN_START, Envelope, advance
from checkrein.sdk.lane import MARKS_MAX, STALL_NS_MIN, Send
from checkrein.sdk.lanes import (
    BATCH_EVENTS_MAX,
    IN_FLIGHT_MAX,
    LANE_GATHERED_BYTES_MAX,
    LINGER_NS,
    RESEND_NS,
    ShipperCore,
)

SECOND = 1_000_000_000
TASKS = ["0" * 32, "1" * 32, "2" * 32]


def event(seq: int, task: str = TASKS[0], agent: str = "a", size: int = 10) -> tuple[int, bytes]:
    fields = {"agent": agent, "task_id": task, "seq": seq, "type": "output", "content": "x" * size}
    return seq, msgspec.msgpack.encode(fields)


def sent(sends: list[Send]) -> list[Envelope]:
    return [envelope.unpack(send.data) for send in sends]


def core_with(*records: tuple[int, bytes]) -> ShipperCore:
    core = ShipperCore("r", agent="a")
    core.take(list(records), 0)
    return core


def test_events_linger_then_go_together() -> None:
    core = core_with(event(1), event(2))
    assert core.due(LINGER_NS - 1) == []
    assert core.next_due_ns() == LINGER_NS
    (send,) = core.due(LINGER_NS)
    (batch,) = sent([send])
    assert (batch.recorder, batch.agent, batch.partition) == ("r", "a", 0)
    assert (batch.prev, batch.seqs) == (0, [1, 2])
    chain = advance(advance(CHAIN_START, event(1)[1]), event(2)[1])
    assert batch.chain == chain
    assert send.subject == "ev.a.00"
    assert send.message_id == "r/a/0/1-2"


def test_hurry_and_full_batches_do_not_linger() -> None:
    assert core_with(event(1)).due(0, hurry=True)
    core = core_with(*[event(seq) for seq in range(1, BATCH_EVENTS_MAX + 2)])
    (batch,) = sent(core.due(0))
    assert batch.seqs == list(range(1, BATCH_EVENTS_MAX + 1))


def test_an_envelope_stays_below_a_mebibyte() -> None:
    core = core_with(*[event(seq, size=250_000) for seq in range(1, 8)])
    (send,) = core.due(0)
    assert len(send.data) < 1024 * 1024
    assert sent([send])[0].seqs == [1, 2, 3]


def test_a_lane_has_one_envelope_under_way_and_others_go_beside_it() -> None:
    core = core_with(event(1), event(2, TASKS[1]), event(3, agent="b"))
    first = core.due(LINGER_NS)
    assert {send.subject for send in first} == {"ev.a.00", "ev.a.01", "ev.b.00"}
    core.take([event(4), event(5, TASKS[1])], LINGER_NS)
    assert core.due(SECOND) == []
    core.acked(first[0].message_id, SECOND)
    (batch,) = sent(core.due(SECOND))
    assert (batch.prev, batch.seqs) == (1, [4])


def test_the_same_envelope_goes_again_after_a_failure_or_silence() -> None:
    core = core_with(event(1))
    (send,) = core.due(LINGER_NS)
    core.take([event(2)], LINGER_NS)
    core.failed(send.message_id, LINGER_NS)
    assert core.due(LINGER_NS) == []
    assert core.due(SECOND) == [send]
    assert core.due(SECOND + RESEND_NS - 1) == []
    assert core.due(SECOND + RESEND_NS) == [send]
    core.failed(send.message_id, 20 * SECOND)
    core.hasten(20 * SECOND)
    assert core.due(20 * SECOND) == [send]
    core.acked(send.message_id, 21 * SECOND)
    core.acked(send.message_id, 21 * SECOND)
    core.failed(send.message_id, 21 * SECOND)
    assert core.acked_events == core.sent == 1
    assert sent(core.due(22 * SECOND))[0].seqs == [2]


def test_in_flight_is_bounded() -> None:
    tasks = [f"{digit:x}" * 32 for digit in range(16)]
    records = [event(n + 1, tasks[n % 16], agent=f"agent-{n // 16}") for n in range(40)]
    core = core_with(*records)
    first = core.due(SECOND)
    assert len(first) == IN_FLIGHT_MAX
    assert core.unacked == 40  # one in each envelope
    core.acked(first[0].message_id, SECOND)
    assert len(core.due(SECOND)) == 1


def test_the_cursor_follows_the_store_not_the_bus() -> None:
    core = core_with(event(1), event(2, TASKS[1]), event(3))
    sends = core.due(SECOND)
    for send in sends:
        core.acked(send.message_id, SECOND)
    assert core.cursor()[0] == 0
    core.stored("a", {0: 3}, SECOND)
    assert core.cursor()[0] == 1
    assert not core.all_safe
    core.stored("a", {1: 2}, SECOND)
    assert core.cursor()[0] == 3
    assert core.all_safe
    assert core.stored_events == 3


def test_a_restart_goes_on_with_the_chain() -> None:
    core = core_with(event(1), event(2))
    (send,) = core.due(SECOND)
    core.acked(send.message_id, SECOND)
    core.stored("a", {0: 2}, SECOND)
    upto, state = core.cursor()
    again = ShipperCore("r", agent="a", upto=upto, state=state)
    assert again.read_after == 2
    again.take([event(3)], 0)
    (batch,) = sent(again.due(SECOND))
    chain = CHAIN_START
    for seq in (1, 2, 3):
        chain = advance(chain, event(seq)[1])
    assert (batch.prev, batch.seqs, batch.chain) == (2, [3], chain)


def test_what_the_store_has_already_is_passed_over() -> None:
    core = ShipperCore("r", agent="a")
    core.stored("a", {0: 2}, 0)
    core.take([event(1), event(2), event(3)], 0)
    (batch,) = sent(core.due(SECOND))
    chain = CHAIN_START
    for seq in (1, 2, 3):
        chain = advance(chain, event(seq)[1])
    assert (batch.prev, batch.seqs, batch.chain) == (2, [3], chain)
    assert core.cursor()[0] == 2


def test_the_store_may_confirm_before_the_bus_does() -> None:
    core = core_with(event(1))
    (send,) = core.due(SECOND)
    core.stored("a", {0: 1}, SECOND)
    assert core.cursor()[0] == 1
    assert core.unacked == 0
    core.failed(send.message_id, SECOND)
    assert core.due(100 * SECOND) == []


def test_a_lane_that_stands_still_does_not_hold_up_the_others() -> None:
    core = ShipperCore("r", agent="a")
    core.take([event(1, agent="refused")], 0)
    (refused,) = core.due(SECOND)
    core.failed(refused.message_id, SECOND)
    count = LANE_GATHERED_BYTES_MAX // 100_000 + 10
    flood = [event(n, agent="refused", size=100_000) for n in range(2, count)]
    core.take([*flood, event(count)], SECOND)
    assert core.wants_bytes > 0
    sends = core.due(SECOND + LINGER_NS)
    assert [(batch.agent, batch.seqs) for batch in sent(sends)] == [("a", [count])]
    core.acked(sends[0].message_id, SECOND)
    assert core.read_after == count
    (again,) = [send for send in core.due(10 * SECOND) if send.subject.startswith("ev.refused")]
    core.acked(again.message_id, 10 * SECOND)
    # What was left in the recorder is read again, and the other lane does not send it twice.
    assert 1 < core.read_after < count
    core.take([record for record in [*flood, event(count)] if record[0] > core.read_after], 0)
    seqs: list[int] = []
    while sends := core.due(20 * SECOND, hurry=True):
        for send, batch in zip(sends, sent(sends), strict=True):
            seqs += batch.seqs
            core.acked(send.message_id, 20 * SECOND)
    assert seqs == list(range(2, count))


def test_what_the_bus_lost_is_read_and_sent_again() -> None:
    core = core_with(event(1), event(2))
    (send,) = core.due(SECOND)
    core.acked(send.message_id, SECOND)
    assert not core.answered("a", 2 * SECOND)
    assert not core.answered("a", 2 * SECOND + STALL_NS_MIN - 1)
    assert core.answered("a", 2 * SECOND + STALL_NS_MIN)
    assert core.read_after == 0
    core.take([event(1), event(2)], 20 * SECOND)
    assert core.due(21 * SECOND) == [send]
    core.acked(send.message_id, 21 * SECOND)
    assert not core.answered("a", 21 * SECOND)
    assert not core.answered("a", 22 * SECOND + STALL_NS_MIN), "patience must double"
    assert core.answered("a", 22 * SECOND + 2 * STALL_NS_MIN)


def test_a_slow_store_that_moves_on_is_not_sent_everything_again() -> None:
    core = ShipperCore("r", agent="a")
    for seq in range(1, 4):
        core.take([event(seq)], 0)
        (send,) = core.due(SECOND, hurry=True)
        core.acked(send.message_id, SECOND)
    now = SECOND
    for seq in (1, 2, 3):
        for _ in range(3):
            now += STALL_NS_MIN // 4
            assert not core.answered("a", now)
        core.stored("a", {0: seq}, now)
    assert core.all_safe


def test_memory_of_what_awaits_the_store_is_bounded() -> None:
    core = ShipperCore("r", agent="a")
    for seq in range(1, 10 * MARKS_MAX):
        core.take([event(seq)], seq)
        (send,) = core.due(seq, hurry=True)
        core.acked(send.message_id, seq)
    (lane,) = core._lanes.values()
    assert len(lane.marks) <= MARKS_MAX + 1
    core.stored("a", {0: 5 * MARKS_MAX}, 0)
    assert 4 * MARKS_MAX < core.cursor()[0] <= 5 * MARKS_MAX
    core.stored("a", {0: 10 * MARKS_MAX}, 0)
    assert core.cursor()[0] == 10 * MARKS_MAX - 1


def test_chains_are_empty_once_events_were_torn() -> None:
    core = core_with(event(1))
    core.chains_broken()
    (batch,) = sent(core.due(SECOND))
    assert batch.chain == b""


def test_what_cannot_be_read_goes_by_the_recorders_own_agent() -> None:
    core = ShipperCore("r", agent="fallback")
    core.take([(1, b"\xc1 not msgpack")], 0)
    with pytest.raises(msgspec.DecodeError):
        msgspec.msgpack.decode(b"\xc1")
    assert [send.subject for send in core.due(SECOND)] == ["ev.fallback.00"]
