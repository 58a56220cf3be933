"""The live tail and the summaries by themselves: bounds, repeats, what is let go."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from checkrein.events.envelope import CHAIN_START, Envelope, as_raw
from checkrein.server.api.live import Live, merged
from checkrein.server.api.metrics import SERIES_MAX, Metrics
from checkrein.server.api.tail import Seen, Tail
from checkrein.store.position import position_of
from checkrein.store.runs import RunSummary, fold
from tests.server.api.conftest import event


def take(tail: Tail, position: int, *events: dict[str, Any], partition: int = 4) -> list[Seen]:
    first = events[0]
    seqs = [e["seq"] for e in events]
    raws = [as_raw(e) for e in events]
    envelope = Envelope(first["recorder"], first["agent"], partition, 0, CHAIN_START, seqs, raws)
    return tail.take(position, first["agent"], envelope)


def test_it_keeps_a_bounded_number_of_events_and_counts_what_it_lets_go() -> None:
    tail = Tail(events_max=5)
    for seq in range(1, 13):
        take(tail, seq, event(seq))
    assert len(tail) == 5
    assert tail.evicted == 7
    assert [seen.head.seq for seen in tail.of_run(event(1)["run_id"])] == [8, 9, 10, 11, 12]


def test_it_keeps_a_bounded_number_of_bytes() -> None:
    tail = Tail(bytes_max=10_000)
    for seq in range(1, 50):
        take(tail, seq, event(seq, "checkpoint", name="x" * 1000))
    assert 0 < tail.bytes <= 10_000
    assert tail.bytes == sum(len(seen.raw) for seen in tail.where(lambda _: True))


def test_what_is_stored_is_let_go_lane_by_lane() -> None:
    tail = Tail()
    take(tail, 1, event(1), event(2), event(3))
    take(tail, 2, event(4), partition=5)
    take(tail, 3, event(1, agent="b"))
    assert tail.stored("support-bot", "rec-1", {4: 2}) == 2
    assert tail.stored("support-bot", "rec-1", {4: 2}) == 0
    assert [(s.head.agent, s.head.seq) for s in tail.where(lambda _: True)] == [
        ("support-bot", 3), ("support-bot", 4), ("b", 1),
    ]  # fmt: skip
    tail.stored("support-bot", "rec-1", {4: 9, 5: 9})
    tail.stored("b", "rec-1", {4: 1})
    assert (len(tail), tail.bytes, tail.run_ids()) == (0, 0, [])


def test_what_the_store_had_before_we_began_is_seen_but_not_kept() -> None:
    tail = Tail()
    tail.known_stored([("support-bot", "rec-1", 4, 2)])
    found = take(tail, 1, event(1), event(2), event(3))
    assert [seen.stored for seen in found] == [True, True, False]
    assert len(tail) == 1


def test_roles_may_skip_and_repeat_numbers() -> None:
    tail = Tail()
    signal = {"recorder": "role:watch"}
    assert len(take(tail, 1, event(900, **signal))) == 1
    assert len(take(tail, 2, event(7, **signal))) == 1
    assert len(take(tail, 3, event(900, **signal), event(7, **signal))) == 0


def test_events_of_another_recorder_or_without_their_fields_are_refused() -> None:
    tail = Tail()
    raws = [as_raw(event(1, recorder="other")), as_raw({"type": "x"}), as_raw(event(2))]
    envelope = Envelope("rec-1", "support-bot", 4, 0, CHAIN_START, [1, 2, 3], raws)
    found = tail.take(1, "support-bot", envelope)
    assert [seen.head.seq for seen in found] == [2]
    assert tail.refused == 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5), st.booleans()), max_size=60),
    st.integers(1, 20),
)
def test_counts_and_indexes_agree_whatever_happens(
    steps: list[tuple[int, int, bool]], events_max: int
) -> None:
    """Against the simplest model: a list of what should be there."""
    tail = Tail(events_max=events_max)
    model: list[tuple[str, int]] = []
    numbers = {1: 0, 2: 0, 3: 0}
    for position, (lane, number, stored) in enumerate(steps, 1):
        recorder = f"r{lane}"
        if stored:
            tail.stored("support-bot", recorder, {4: number})
            model = [(r, n) for r, n in model if r != recorder or n > number]
        else:
            numbers[lane] += 1
            take(tail, position, event(numbers[lane], recorder=recorder, run_id=f"run-{number}"))
            model.append((recorder, numbers[lane]))
            if len(model) > events_max:
                # Oldest first; within its lane nothing older can be left.
                model.pop(0)
    kept = tail.where(lambda _: True)
    assert [(s.head.recorder, s.head.seq) for s in kept] == model
    assert sorted(
        (s.head.recorder, s.head.seq) for run in tail.run_ids() for s in tail.of_run(run)
    ) == sorted(model)
    assert tail.bytes == sum(len(seen.raw) for seen in kept)


def test_summaries_are_bounded() -> None:
    tail, live = Tail(), Live(runs_max=3)
    for number in range(5):
        live.feed(take(tail, number + 1, event(1, "run.start", run_id=f"run-{number}",
                                              recorder=f"r{number}")))  # fmt: skip
    assert live.run_ids() == ["run-2", "run-3", "run-4"]
    assert live.summary("run-0", None, []) is None
    assert isinstance(live.summary("run-0", None, tail.of_run("run-0")), RunSummary)


def test_an_envelope_that_was_overtaken_is_taken_once() -> None:
    tail = Tail()

    def arrives(position: int, prev: int, *seqs: int) -> list[int]:
        raws = [as_raw(event(seq)) for seq in seqs]
        envelope = Envelope("rec-1", "support-bot", 4, prev, CHAIN_START, list(seqs), raws)
        return [seen.head.seq for seen in tail.take(position, "support-bot", envelope)]

    assert arrives(1, 0, 1, 2) == [1, 2]
    assert arrives(2, 6, 7, 9) == [7, 9]
    assert arrives(3, 4, 5, 6) == [5, 6]
    tail.stored("support-bot", "rec-1", {4: 9})
    assert arrives(4, 4, 5, 6) == []
    assert arrives(5, 2, 3, 4) == [3, 4]
    assert arrives(6, 0, 1, 2, 3, 4, 5, 6, 7, 9, 10) == [10]
    assert arrives(7, 6, 7, 9) == []


def test_a_clock_that_steps_back_does_not_change_the_order() -> None:
    tail, live = Tail(), Live()
    found = take(tail, 1, event(1, "run.start", ts=1000), event(2, ts=10), event(3, ts=2000))
    live.feed(found)
    stored = [{**found[0].fields, "position": position_of(1000, "rec-1", 1, "support-bot")}]
    assert [e["seq"] for e in merged(stored, found)] == [1, 2, 3]


def test_a_summary_folds_each_event_once() -> None:
    tail, live = Tail(), Live()
    events = [event(1, "run.start"), event(2, "tool.invoked", call_id="c", tool="t")]
    live.feed(take(tail, 1, *events))
    live.feed(take(tail, 2, *events))
    expected: RunSummary | None = None
    for each in events:
        expected = fold(expected, each)
    assert live.summary(events[0]["run_id"], None, []) == expected


def test_metrics_do_not_grow_without_bound() -> None:
    metrics = Metrics()
    for number in range(SERIES_MAX + 500):
        metrics.count("things_total", labels=(("name", str(number)),))
    assert len(metrics.text().splitlines()) <= SERIES_MAX + 10
    assert metrics.counted("things_total") == 500


def test_metric_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.count("odd_total", labels=(("name", 'a"b\\c\nd'),))
    assert 'odd_total{name="a\\"b\\\\c\\nd"} 1' in metrics.text()
