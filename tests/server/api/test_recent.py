"""The latest runs by themselves: whole only when nothing can be missing, bounded."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein.events.envelope import CHAIN_START, Envelope, as_raw
from checkrein.server.api.live import Live
from checkrein.server.api.recent import MARGIN_NS, RUN_EVENTS_MAX, Recent
from checkrein.server.api.tail import Tail
from checkrein.world import REAL
from tests.server.api.conftest import Stand, event, eventually

BEGUN_NS = 1_000_000_000_000
LATER_NS = BEGUN_NS + MARGIN_NS
RUN = str(event(1)["run_id"])


class Bench:
    """Events through the tail and the summaries into `Recent`, as the follower takes them."""

    def __init__(self, **bounds: int) -> None:
        self.tail, self.live = Tail(), Live()
        self.recent = Recent(lambda: BEGUN_NS, **bounds)
        self.recent.begin()
        self.position = 0

    def take(self, *events: dict[str, Any]) -> None:
        for one in events:
            self.position += 1
            envelope = Envelope(
                one["recorder"], one["agent"], 4, 0, CHAIN_START, [one["seq"]], [as_raw(one)]
            )
            found = self.tail.take(self.position, one["agent"], envelope)
            self.live.feed(found)
            self.recent.feed(found)

    def numbers(self, run_id: str = RUN) -> list[int] | None:
        found = self.recent.of_run(run_id)
        return None if found is None else [seen.head.seq for seen in found]


def begun(seq: int = 1, **own: Any) -> dict[str, Any]:
    return event(seq, "run.start", **{"ts": LATER_NS, "goal": "", **own})


def test_a_run_seen_from_its_start_is_whole_and_in_the_stores_order() -> None:
    bench = Bench()
    early = event(1, recorder="supervisor", ts=LATER_NS + 5)
    bench.take(early, begun(), event(2, ts=LATER_NS + 9), event(3, ts=LATER_NS + 7))
    found = bench.recent.of_run(RUN)
    assert found is not None
    assert [(s.head.recorder, s.head.seq) for s in found] == [
        ("rec-1", 1), ("supervisor", 1), ("rec-1", 2), ("rec-1", 3),
    ]  # fmt: skip


def test_what_the_store_has_confirmed_stays() -> None:
    bench = Bench()
    bench.take(begun(), event(2, ts=LATER_NS))
    bench.tail.stored("support-bot", "rec-1", {4: 2})
    assert bench.numbers() == [1, 2]


@pytest.mark.parametrize("ts", [BEGUN_NS - 1, LATER_NS - 1])
def test_a_run_that_may_have_begun_before_we_listened_is_left_to_the_store(ts: int) -> None:
    bench = Bench()
    bench.take(begun(ts=ts), event(2, ts=ts))
    assert bench.numbers() is None


def test_a_run_whose_start_was_not_seen_is_left_to_the_store() -> None:
    bench = Bench()
    bench.take(event(2, ts=LATER_NS))
    assert bench.numbers() is None


def test_listening_anew_forgets_all() -> None:
    bench = Bench()
    bench.take(begun())
    bench.recent.begin()
    bench.take(event(2, ts=LATER_NS))
    assert bench.numbers() is None
    assert len(bench.recent) == 1


def test_a_run_that_grows_too_long_is_left_to_the_store_for_good() -> None:
    bench = Bench()
    bench.take(begun(), *(event(seq, ts=LATER_NS) for seq in range(2, RUN_EVENTS_MAX + 1)))
    assert len(bench.numbers() or []) == RUN_EVENTS_MAX
    bench.take(event(RUN_EVENTS_MAX + 1, ts=LATER_NS))
    assert (bench.numbers(), len(bench.recent), bench.recent.bytes) == (None, 0, 0)
    bench.take(event(RUN_EVENTS_MAX + 2, ts=LATER_NS))
    assert bench.numbers() is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60))
def test_bounds_hold_and_a_run_is_given_whole_or_not_at_all(
    steps: list[tuple[int, bool]],
) -> None:
    bench = Bench(events_max=12, bytes_max=5_000)
    sent: dict[str, list[int]] = {}
    for seq, (number, starts) in enumerate(steps, start=1):
        run_id = f"run-{number}"
        first = starts and run_id not in sent
        kind, own = ("run.start", {"goal": ""}) if first else ("step.start", {})
        bench.take(event(seq, kind, ts=LATER_NS + seq, run_id=run_id, **own))
        sent.setdefault(run_id, []).append(seq)
        assert len(bench.recent) <= 12
        assert bench.recent.bytes <= 5_000
        for name, numbers in sent.items():
            assert bench.numbers(name) in (None, numbers)


async def test_a_run_of_this_moment_is_shown_without_asking_the_store(stand: Stand) -> None:
    ahead = REAL.now_ns() + 2 * MARGIN_NS
    events = [begun(ts=ahead), event(2, ts=ahead + 1), event(3, ts=ahead + 2)]
    await stand.publish(*events)
    async with stand.client() as client:

        async def shown() -> list[dict[str, Any]]:
            answer = await client.get(f"/api/v1/runs/{RUN}/events")
            found = answer.json()
            return found if answer.status_code == 200 and len(found) == 3 else []

        await eventually(shown)
        await stand.store(*events)
        stand.archive.asked.clear()
        assert await eventually(shown) == events
        assert stand.archive.asked == []
        page = await client.get(f"/api/v1/runs/{RUN}/events", params={"limit": 2})
    assert [e["seq"] for e in page.json()] == [1, 2]
    assert "Checkrein-Next" in page.headers
