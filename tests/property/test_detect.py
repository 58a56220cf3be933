"""Detectors by any stream: a restart changes nothing, bounds hold, order of lanes is kept."""

from collections.abc import Callable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.loops import LOOPS, NOT_LOOPS
from tests.detect.made import SECOND_NS, Run

from checkrein.detect.catalogue import detectors
from checkrein.detect.engine import Engine, Found
from checkrein.detect.lanes import Lanes
from checkrein.detect.sketch import Sketch
from checkrein.events.envelope import CHAIN_START, Envelope, as_raw
from checkrein.events.types import Base
from checkrein.policy.pact import load

PACT = load(
    "pact: p\nbudgets: {tool_calls: 9, tokens: 9000, wall: 5m}\ntools: {search_kb: {timeout: 1s}}"
)

_deeds: dict[str, Callable[[Run], list[Base]]] = {
    "start": lambda run: [run.starts(tools=["search_kb"])],
    "step": lambda run: [run.steps()],
    "model": lambda run: [run.asks_model(), run.hears_model(3000)],
    "beat": lambda run: [run.beats()],
    "pause": lambda run: [run.is_("paused")],
    "go on": lambda run: [run.is_("running")],
    "refused": lambda run: [run.refused("tools", "tools.pact", "wire")],
    "end": lambda run: [run.ends("lost")],
}  # fmt: skip
_names = [*_deeds, *LOOPS, *NOT_LOOPS]


@st.composite
def streams(draw: st.DrawFn) -> list[Base]:
    runs = [Run(number, agent=f"a{number % 2}") for number in range(1, 4)]
    events: list[Base] = []
    for name in draw(st.lists(st.sampled_from(_names), min_size=1, max_size=12)):
        run = draw(st.sampled_from(runs))
        if name in _deeds:
            events += _deeds[name](run)
            continue
        made = {**LOOPS, **NOT_LOOPS}[name](Random(draw(st.integers(0, 9))))
        for _, each in zip(range(draw(st.integers(1, 10))), made, strict=False):
            events += run.calls(each)
    return events


def engine() -> Engine:
    return Engine(detectors(), lambda *about: PACT)


def play(on: Engine, events: list[Base]) -> list[Found]:
    found: list[Found] = []
    for number, event in enumerate(events):
        found += on.observe(event)
        if number % 7 == 0:
            found += on.tick(event.ts + 40 * SECOND_NS)
    return found


@settings(max_examples=60, deadline=None)
@given(streams(), st.data())
def test_a_snapshot_at_any_point_changes_no_signal(events: list[Base], data: st.DataObject) -> None:
    whole = play(engine(), events)
    cut = data.draw(st.integers(0, len(events))) // 7 * 7
    first, second = engine(), engine()
    found = play(first, events[:cut])
    second.restore(first.snapshot())
    assert found + play(second, events[cut:]) == whole
    assert first.error_count == second.error_count == 0


@settings(max_examples=30, deadline=None)
@given(streams())
def test_state_stays_within_its_bounds(events: list[Base]) -> None:
    small = Engine(detectors(), lambda *about: PACT, runs_max=2, keys_max=2)
    for event in events:
        small.observe(event)
        assert len(small.runs) <= 2
        assert all(len(states) <= 2 for states in small._states.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_a_lane_in_any_order_is_read_whole_and_in_order(sizes: list[int], random: Random) -> None:
    envelopes, prev = [], 0
    for size in sizes:
        seqs = list(range(prev + 1, prev + size + 1))
        raws = [as_raw({"n": seq}) for seq in seqs]
        envelopes.append(Envelope("r", "a", 0, prev, CHAIN_START, seqs, raws))
        prev += size
    lanes, read = Lanes(), []
    shuffled = envelopes + random.choices(envelopes, k=3)
    random.shuffle(shuffled)
    for each in shuffled:
        for _, fresh, gap in lanes.take(each, 0):
            assert gap is None
            read += [seq for seq, _ in fresh]
    assert read == list(range(1, prev + 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=300), st.floats(0.01, 1.0))
def test_quantiles_are_right_within_two_percent(values: list[float], share: float) -> None:
    sketch, halves = Sketch(), (Sketch(), Sketch())
    for number, value in enumerate(values):
        sketch.add(value)
        halves[number % 2].add(value)
    halves[0].merge(halves[1])
    assert halves[0] == sketch
    rank = max(1, -(-round(share * len(values) * 1e9) // 10**9))
    exact = sorted(values)[min(len(values), rank) - 1]
    near = sorted(values)[max(0, min(len(values), rank) - 2)]
    assert near * 0.979 <= sketch.quantile(share) <= max(exact, near) * 1.021 or (
        sketch.quantile(share) <= sorted(values)[min(len(values) - 1, rank)] * 1.021
    )
