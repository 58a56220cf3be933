"""What every holder of runs relies on: which orders are obeyed, and why the others are not."""

from typing import Any

import pytest
from nacl.signing import SigningKey

from checkrein.bus.messages import (
    MessageError,
    Order,
    OrderRun,
    Progress,
    SignedOrder,
    decode,
    encode,
    progress_of,
)
from checkrein.bus.orders import (
    AFTER_HALT,
    DOMAIN,
    EXPIRED,
    FORGED,
    GARBAGE,
    HALTED,
    OLD_EPOCH,
    OTHER_SESSION,
    REPLAY,
    Inbox,
    OrderRefused,
    sign,
    verify,
)
from checkrein.world import SimWorld

KEY = SigningKey(bytes(range(32)))
PUBLIC = bytes(KEY.verify_key)
SECOND = 1_000_000_000


@pytest.fixture
def world() -> SimWorld:
    return SimWorld(1)


@pytest.fixture
def inbox(world: SimWorld) -> Inbox:
    return Inbox("s1", PUBLIC, world)


def order(world: SimWorld, verb: str, epoch: int, *runs: str, **other: Any) -> Order:
    fields: dict[str, Any] = {
        "command_id": f"c{epoch}",
        "session": "s1",
        "verb": verb,
        "runs": [OrderRun(run, epoch) for run in runs or ("r1",)],
        "reason": "",
        "issued_by": "ann",
        "issued_at": world.now_ns(),
        "expires_at": world.now_ns() + 10 * SECOND,
        "nonce": world.nonce(),
    }
    return Order(**fields | other)


def outcome(inbox: Inbox, signed: bytes) -> str:
    """In one word, for one run."""
    try:
        accepted = inbox.accept(signed)
    except OrderRefused as error:
        return error.why
    return "obeyed" if accepted.runs else accepted.refused[0][1]


def give(inbox: Inbox, world: SimWorld, verb: str, epoch: int, **other: Any) -> str:
    return outcome(inbox, sign(order(world, verb, epoch, **other), KEY))


def test_an_order_is_what_it_was_when_control_signed_it(world: SimWorld) -> None:
    sent = order(world, "halt", 7, "r1", "r2", arguments={"x": [1, "é"]})
    assert verify(sign(sent, KEY), PUBLIC) == sent


def test_the_form_on_the_wire_is_fixed() -> None:
    fixed = order(SimWorld(0), "halt", 5, nonce="n")
    frame = decode(sign(fixed, KEY), SignedOrder)
    assert decode(frame.payload, Order) == fixed
    KEY.verify_key.verify(b"checkrein-order-v1" + frame.payload, frame.signature)
    assert DOMAIN == b"checkrein-order-v1"


def test_accepted_once_and_a_repeat_is_told_apart(world: SimWorld, inbox: Inbox) -> None:
    signed = sign(order(world, "pause", 5), KEY)
    assert [run.run_id for run in inbox.accept(signed).runs] == ["r1"]
    again = inbox.accept(signed)
    assert (again.runs, again.refused, again.again) == ([], [("r1", REPLAY)], ["r1"])
    assert inbox.epoch("r1") == 5
    assert inbox.epoch("never heard of") == 0


def test_every_run_is_judged_for_itself(world: SimWorld, inbox: Inbox) -> None:
    inbox.accept(sign(order(world, "pause", 9, "r1"), KEY))
    accepted = inbox.accept(sign(order(world, "resume", 8, "r1", "r2"), KEY))
    assert [run.run_id for run in accepted.runs] == ["r2"]
    assert accepted.refused == [("r1", OLD_EPOCH)]


@pytest.mark.parametrize("at", [0, 5, 40, -1])
def test_one_changed_bit_is_forged_or_garbage(world: SimWorld, inbox: Inbox, at: int) -> None:
    signed = bytearray(sign(order(world, "halt", 5), KEY))
    signed[at] ^= 1
    assert outcome(inbox, bytes(signed)) in (FORGED, GARBAGE)
    assert give(inbox, world, "halt", 5) == "obeyed"


def test_another_key_is_forged(world: SimWorld, inbox: Inbox) -> None:
    signed = sign(order(world, "resume", 5), SigningKey(bytes(32)))
    assert outcome(inbox, signed) == FORGED


def test_a_signature_over_the_bare_payload_is_forged(world: SimWorld, inbox: Inbox) -> None:
    payload = encode(order(world, "halt", 5))
    assert outcome(inbox, encode(SignedOrder(payload, KEY.sign(payload).signature))) == FORGED


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"hello", encode([1, 2]), encode({}), bytes(2 * 1024 * 1024)]
)
def test_garbage(inbox: Inbox, data: bytes) -> None:
    assert outcome(inbox, data) == GARBAGE


def test_signed_garbage_is_garbage(inbox: Inbox) -> None:
    payload = b"\x01"
    frame = SignedOrder(payload, KEY.sign(DOMAIN + payload).signature)
    assert outcome(inbox, encode(frame)) == GARBAGE


def test_another_session(world: SimWorld, inbox: Inbox) -> None:
    assert give(inbox, world, "halt", 5, session="s2") == OTHER_SESSION


def test_an_edge_that_comes_late_has_expired_and_a_standing_one_never(
    world: SimWorld, inbox: Inbox
) -> None:
    late = sign(order(world, "pause", 5), KEY)
    standing = sign(order(world, "pause", 5, expires_at=0), KEY)
    world.run_until(11 * SECOND)
    assert outcome(inbox, late) == EXPIRED
    assert outcome(inbox, standing) == "obeyed"


def test_a_halt_does_not_expire(world: SimWorld, inbox: Inbox) -> None:
    late = sign(order(world, "halt", 5), KEY)
    world.run_until(3600 * SECOND)
    assert outcome(inbox, late) == "obeyed"


def test_a_refused_order_leaves_no_trace(world: SimWorld, inbox: Inbox) -> None:
    late = sign(order(world, "pause", 9), KEY)
    world.run_until(11 * SECOND)
    assert outcome(inbox, late) == EXPIRED
    assert give(inbox, world, "pause", 5) == "obeyed"


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_stepped_local_clock_does_not_age_an_order(
    world: SimWorld, inbox: Inbox, step_s: int
) -> None:
    control = SimWorld(2)
    assert give(inbox, world, "probe", 1) == "obeyed"
    world.step_wall_clock(step_s)
    assert give(inbox, control, "pause", 5) == "obeyed"


def test_a_wrong_local_clock_is_put_right_by_the_first_authentic_order(inbox: Inbox) -> None:
    behind = SimWorld(2)
    behind.step_wall_clock(-3600)
    assert give(inbox, behind, "pause", 5) == EXPIRED
    assert give(inbox, behind, "pause", 5) == "obeyed"


def test_a_forged_order_teaches_no_time(world: SimWorld, inbox: Inbox) -> None:
    ahead = order(world, "pause", 5, issued_at=world.now_ns() + 3600 * SECOND)
    assert outcome(inbox, sign(ahead, SigningKey(bytes(32)))) == FORGED
    assert give(inbox, world, "pause", 5) == "obeyed"


def test_older_never_wins(world: SimWorld, inbox: Inbox) -> None:
    assert give(inbox, world, "resume", 6) == "obeyed"
    assert give(inbox, world, "pause", 5) == OLD_EPOCH
    assert inbox.epoch("r1") == 6


def test_after_a_halt_nothing_but_questions(world: SimWorld, inbox: Inbox) -> None:
    assert give(inbox, world, "halt", 5) == "obeyed"
    for epoch, verb in enumerate(
        ("pause", "resume", "redirect", "inject", "approve", "release"), start=6
    ):
        assert give(inbox, world, verb, epoch) == HALTED
    for epoch, verb in enumerate(sorted(AFTER_HALT), start=20):
        assert give(inbox, world, verb, epoch) == "obeyed"


def test_a_second_halt_is_heard_and_the_same_one_is_a_repeat(world: SimWorld, inbox: Inbox) -> None:
    assert give(inbox, world, "halt", 5, command_id="c") == "obeyed"
    assert give(inbox, world, "halt", 9, command_id="c") == REPLAY
    assert inbox.epoch("r1") == 9
    assert give(inbox, world, "halt", 10, command_id="d") == "obeyed"


def test_an_overtaken_halt_still_halts_once(world: SimWorld, inbox: Inbox) -> None:
    assert give(inbox, world, "resume", 6) == "obeyed"
    assert give(inbox, world, "halt", 5) == "obeyed"
    assert give(inbox, world, "halt", 5) == REPLAY
    assert give(inbox, world, "resume", 7) == HALTED


def test_acts_are_each_accepted_once_in_any_order(world: SimWorld, inbox: Inbox) -> None:
    assert give(inbox, world, "inject", 8) == "obeyed"
    assert give(inbox, world, "inject", 7) == "obeyed"
    assert give(inbox, world, "inject", 7) == REPLAY
    assert give(inbox, world, "pause", 6) == "obeyed"


def test_an_act_asked_again_under_a_new_epoch_is_the_same_act(
    world: SimWorld, inbox: Inbox
) -> None:
    assert give(inbox, world, "inject", 7, command_id="c") == "obeyed"
    assert give(inbox, world, "inject", 9, command_id="c") == REPLAY
    assert give(inbox, world, "inject", 10, command_id="d") == "obeyed"


def test_a_probe_is_answered_once_per_nonce(world: SimWorld, inbox: Inbox) -> None:
    assert give(inbox, world, "probe", 0, nonce="a") == "obeyed"
    assert give(inbox, world, "probe", 0, nonce="a") == REPLAY
    assert give(inbox, world, "probe", 0, nonce="b") == "obeyed"
    assert inbox.epoch("r1") == 0


def test_what_was_forgotten_is_not_accepted_again(world: SimWorld) -> None:
    inbox = Inbox("s1", PUBLIC, world, runs_max=3, acts_per_run_max=2, nonces_max=2)
    first = sign(order(world, "pause", 1, "r0"), KEY)
    inbox.accept(first)
    for epoch in range(2, 7):
        inbox.accept(sign(order(world, "pause", epoch, f"r{epoch}"), KEY))
    assert inbox.accept(first).refused == [("r0", OLD_EPOCH)]
    acts = [sign(order(world, "inject", epoch, "r6"), KEY) for epoch in range(10, 14)]
    for signed in acts:
        assert inbox.accept(signed).runs
    assert [outcome(inbox, signed) for signed in acts] == [OLD_EPOCH, OLD_EPOCH, REPLAY, REPLAY]


def test_progress_travels_alone_or_in_a_list() -> None:
    one = Progress(
        command_id="c", session="s", run_id="r", epoch=1, stage="freeze", ms=1.5, at=1,
        by="supervisor", confirmed=True,
    )  # fmt: skip
    assert progress_of(encode(one)) == [one]
    assert progress_of(encode([one] * 3)) == [one] * 3
    assert len(progress_of(encode([one] * 70_000))) == 70_000
    assert progress_of(encode([])) == []
    for bad in (b"", b"\xc1", encode({"command_id": 1}), encode([1])):
        with pytest.raises(MessageError):
            progress_of(bad)
