"""A call that the gateway and the agent's SDK do not both tell of is noticed; what only comes in
another order, or late, is not."""

from typing import Any

import pytest

from checkrein.detect.unannounced import KEPT_NS, SILENT_WAIT_NS, WAIT_NS
from checkrein.events.types import Base, ModelRequest, ModelResponse, Passage, ToolInvoked
from tests.detect.made import SECOND_NS, START_NS, Run, Watched, halts, levels, signals

HOUR_NS = 3600 * SECOND_NS


class Story:
    """One run as its SDK, its supervisor and a gateway tell it, a second between any two events."""

    def __init__(self, watched: Watched | None = None, number: int = 1) -> None:
        self.run = Run(number)
        self.watched = watched or Watched()
        self.now_ns = START_NS

    def event(self, kind: type[Base], recorder: str = "sdk", /, **fields: Any) -> Base:
        self.now_ns += SECOND_NS // 10
        self.run.ts = self.now_ns - SECOND_NS
        common = self.run.common() | {"recorder": recorder}
        return kind(**common, **fields)

    def tells(self, kind: type[Base], recorder: str = "sdk", /, **fields: Any) -> None:
        self.watched.see(self.event(kind, recorder, **fields))

    def starts(self, recorder: str = "sdk") -> "Story":
        self.watched.see(self.event(type(self.run.starts()), recorder))
        return self

    def passes(self, call_id: str = "m", announced: bool = True, **more: Any) -> None:
        self.tells(
            Passage, "gateway", call_id=call_id, announced=announced,
            **({"name": "gpt", "path": "openai"} | more),
        )  # fmt: skip

    def asks(self, call_id: str = "m", recorder: str = "sdk") -> None:
        self.tells(ModelRequest, recorder, call_id=call_id, model="gpt")

    def hears(self, call_id: str = "m", recorder: str = "sdk", **more: Any) -> None:
        self.tells(ModelResponse, recorder, call_id=call_id, model="gpt", **more)

    def calls_itself(self, call_id: str) -> None:
        """What the gateway records of a call that was not announced."""
        self.asks(call_id, "gateway")
        self.hears(call_id, "gateway")

    def later(self, by_ns: int) -> list[str]:
        """What has been said when so much time has passed, with nothing heard in it."""
        for now_ns in range(self.now_ns, self.now_ns + by_ns + SECOND_NS, SECOND_NS):
            self.watched.tick(now_ns)
        self.now_ns += by_ns + SECOND_NS
        return levels(self.watched.said, "unannounced")


@pytest.mark.parametrize("order", ["apr", "arp", "par", "rap"])
def test_a_call_that_both_tell_of_is_no_disagreement_in_any_order(order: str) -> None:
    story = Story().starts()
    deeds = {"a": story.asks, "p": story.passes, "r": story.hears}
    for one in order:
        deeds[one]()
    assert story.later(HOUR_NS // 60) == []


def test_a_call_made_around_the_sdk_is_a_breach_that_names_both_calls() -> None:
    story = Story().starts()
    story.asks("m1")
    story.passes("m1")
    story.hears("m1")
    story.calls_itself("m2")
    story.passes("m2", announced=False)
    assert story.later(WAIT_NS - 2 * SECOND_NS) == []
    story.tells(ToolInvoked, call_id="t", tool="look")
    assert story.later(3 * SECOND_NS) == ["breach"]
    (signal,) = signals(story.watched.said, "unannounced")
    assert "model call m2 (gpt) passed the gateway" in signal.why
    assert {recorder for recorder, _ in signal.evidence} == {"gateway", "sdk"}
    assert halts(story.watched.said) == []


def test_a_run_that_no_sdk_records_has_nothing_to_announce() -> None:
    story = Story().starts("supervisor")
    for number in range(5):
        story.calls_itself(f"m{number}")
        story.passes(f"m{number}", announced=False)
        story.tells(type(story.run.beats()), "supervisor")
    assert story.later(HOUR_NS // 60) == []


def test_a_call_that_only_claims_to_be_recorded_is_a_breach() -> None:
    story = Story().starts("gateway")
    story.passes("m1")
    assert story.later(WAIT_NS) == ["breach"]
    assert "no SDK has" in signals(story.watched.said)[-1].why


def test_an_sdk_that_is_not_heard_is_waited_for_longer() -> None:
    story = Story().starts()
    story.passes("m1")
    assert story.later(SILENT_WAIT_NS - 4 * SECOND_NS) == []
    story.asks("m1")
    assert story.later(HOUR_NS // 60) == []
    story.passes("m2")
    assert story.later(SILENT_WAIT_NS) == ["breach"]


def test_what_the_sdk_would_have_told_by_now_is_missing() -> None:
    story = Story().starts()
    story.passes("m1")
    story.tells(type(story.run.beats()))
    assert story.later(WAIT_NS) == ["breach"]


def test_a_model_call_that_went_around_the_gateway_is_a_warning() -> None:
    story = Story().starts()
    story.asks("m0")
    story.hears("m0")
    assert story.later(HOUR_NS // 60) == [], "no call of this run passes a gateway"
    story.asks("m1")
    story.passes("m1")
    story.hears("m1")
    story.asks("m2")
    story.hears("m2")
    assert story.later(SILENT_WAIT_NS + SECOND_NS) == ["warn"]
    story.asks("m3")
    story.hears("m3", error="connection refused")
    assert story.later(SILENT_WAIT_NS + SECOND_NS) == ["warn"]


def test_refusals_questions_and_tools_of_the_agents_own_are_left_alone() -> None:
    story = Story().starts()
    story.asks("m1")
    story.passes("m1")
    story.hears("m1")
    story.passes("", announced=False, status="refused")
    story.passes("m2", announced=False, status="refused")
    story.passes("d1", announced=False, kind="tool", path="decide")
    story.tells(ToolInvoked, call_id="t1", tool="local")
    assert story.later(HOUR_NS // 60) == []


def test_a_run_that_has_ended_is_still_judged_and_then_forgotten() -> None:
    story = Story().starts()
    story.asks("m1")
    story.calls_itself("m2")
    story.passes("m2", announced=False)
    story.watched.see(story.event(type(story.run.ends()), status="completed"))
    assert story.later(SILENT_WAIT_NS) == ["breach"]
    story.later(KEPT_NS)
    state = story.watched.engine._states["unannounced"]["test"]
    assert state.runs == {}


def test_state_is_bounded() -> None:
    story = Story().starts()
    for number in range(300):
        story.asks(f"m{number}")
        story.hears(f"m{number}")
        story.passes(f"p{number}", announced=False)
    (run,) = story.watched.engine._states["unannounced"]["test"].runs.values()
    assert max(map(len, (run.called, run.over, run.waiting, run.passages))) == 64
    assert story.watched.errors == []
