"""The pure parts of the history under arbitrary input."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.store.sample import START_NS, event

from checkrein.events.envelope import CHAIN_START, Envelope, advance, as_raw
from checkrein.server.archive_lanes import Lane
from checkrein.store import texts
from checkrein.store.numbers import Numbers
from checkrein.store.position import parse_position, position_of
from checkrein.store.runs import RunSummary, as_row, fold, from_row

KINDS = (
    "run.start", "run.end", "status", "step.start", "model.request", "model.response",
    "tool.invoked", "tool.returned", "approval.requested", "approval.decided",
    "escalation.raised", "signal", "hologram",
)  # fmt: skip

some_events = st.lists(
    st.builds(
        lambda seq, kind, own, ts, recorder: event(
            seq, kind, ts=START_NS + ts, recorder=recorder, **own
        ),
        st.integers(1, 50),
        st.sampled_from(KINDS),
        st.dictionaries(
            st.sampled_from(("status", "reason", "goal", "error", "tokens", "input_tokens", "usd")),
            st.sampled_from(("halted", "completed", "lost", "paused", "", 5, 0.25, None)),
        ),
        st.integers(0, 5),
        st.sampled_from(("rec-1", "role:watch")),
    ),
    min_size=1,
    max_size=12,
)


def folded(events: list[dict[str, Any]]) -> RunSummary:
    summary = None
    for fields in events:
        summary = fold(summary, fields)
    assert summary is not None
    return summary


@given(some_events, st.randoms(use_true_random=False))
def test_the_order_of_folding_does_not_matter(events: list[dict[str, Any]], chance: Any) -> None:
    mixed = list(events)
    chance.shuffle(mixed)
    assert folded(mixed) == folded(events)


@given(some_events, st.integers(0, 12))
def test_a_summary_can_be_given_away_and_folded_on(events: list[dict[str, Any]], cut: int) -> None:
    cut = min(cut, len(events) - 1)
    if cut == 0:
        return
    row = msgspec.json.decode(msgspec.json.encode(as_row(folded(events[:cut]))))
    summary = from_row(row)
    for fields in events[cut:]:
        summary = fold(summary, fields)
    assert summary == folded(events)


words = st.text(max_size=8) | st.just("long " * 300) | st.just("$content")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)


@given(values)
def test_lifted_texts_come_back(value: Any) -> None:
    kept: dict[str, str] = {}
    lifted = texts.lift(value, kept.__setitem__)
    again = msgspec.json.decode(msgspec.json.encode(lifted))
    assert texts.references(again) == set(kept)
    assert texts.restore(again, kept) == value
    assert all(len(text) >= texts.LONG_CHARS_MIN for text in kept.values())


@given(st.lists(st.lists(st.integers(1, 60), max_size=8)), st.integers(1, 60), st.integers(0, 30))
def test_numbers_are_a_set(groups: list[list[int]], first: int, span: int) -> None:
    numbers, plain = Numbers(), set()
    for group in groups:
        numbers.add(group)
        plain.update(group)
    assert {n for n in range(70) if n in numbers} == plain
    expected = sum(n not in plain for n in range(first, first + span + 1))
    assert numbers.missing(first, first + span) == expected


@given(st.integers(0, 2**62), st.text(max_size=9), st.integers(1, 2**61), st.text(max_size=9))
def test_positions_say_what_they_were_made_of(at: int, recorder: str, seq: int, agent: str) -> None:
    assert parse_position(position_of(at, recorder, seq, agent)) == (at, recorder, seq, agent)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=10),
    st.sets(st.integers(0, 9)),
    st.randoms(use_true_random=False),
)
def test_a_lane_in_any_order_ends_the_same_and_what_is_missing_is_told(
    sizes: list[int], dropped: set[int], chance: Any
) -> None:
    key, place = ("bot", "rec-1", 1), ("dev", "room", "run", "task", 1)
    envelopes, chain, last = [], CHAIN_START, 0
    for size in sizes:
        seqs = list(range(last + 1, last + size + 1))
        raws = [as_raw({"n": seq}) for seq in seqs]
        for raw in raws:
            chain = advance(chain, raw)
        envelopes.append(Envelope("rec-1", "bot", 1, last, chain, seqs, raws))
        last += size
    sent = [one for index, one in enumerate(envelopes) if index not in dropped]
    delivered = sent + chance.choices(sent, k=3) if sent else []
    chance.shuffle(delivered)
    lane, findings = Lane(), []
    for envelope in delivered:
        findings += lane.follow(key, envelope, 0, place)
    assert findings == []
    findings = lane.overdue(key, 10**18)
    missing = {n for one in findings for n in range(one.first, one.last + 1)}
    expected = {
        seq for index in dropped if index < len(envelopes) for seq in envelopes[index].seqs
        if any(index < envelopes.index(later) for later in sent)
    }  # fmt: skip
    assert missing == expected
    assert lane.mark == (sent[-1].seqs[-1] if sent else 0)
    for index in sorted(dropped):
        if index < len(envelopes) and index < len(envelopes) - 1:
            findings += lane.follow(key, envelopes[index], 0, place)
    taken_back = sum(one.last - one.first + 1 for one in findings if one.kind == "found")
    assert taken_back == len(expected)
