"""The board and the trace: what is stored, what is not yet, each once and in order."""

import asyncio
from typing import Any

import pytest

from checkrein.world import REAL
from tests.server.api.conftest import Stand, event, eventually, live_run

RUN = "0198a000-0000-7000-8000-000000000001"
OTHER = "0198a000-1111-7000-8000-000000000002"
PS = {
    "run_id", "agent", "room", "environment", "task_id", "status", "step", "tokens", "usd",
    "started_at", "last_event_age_s", "can_halt",
}  # fmt: skip


def story(run_id: str = RUN, recorder: str = "rec-1") -> list[dict[str, Any]]:
    """A run of one step with a model call and a tool call."""
    own = {"run_id": run_id, "recorder": recorder}
    return [
        event(1, "run.start", goal="resolve ticket 42", step=0, **own),
        event(2, "step.start", **own),
        event(3, "model.request", call_id="m1", model="gpt-5-mini", **own),
        event(4, "model.response", call_id="m1", input_tokens=90, output_tokens=10, usd=0.5, **own),
        event(5, "tool.invoked", call_id="t1", tool="refund", **own),
        event(6, "tool.returned", call_id="t1", tool="refund", result={"ok": True}, **own),
        event(7, "step.end", **own),
        event(8, "run.end", status="completed", reason="done", **own),
    ]


async def seen(stand: Stand, path: str, number: int) -> list[dict[str, Any]]:
    """The list at a path once it has `number` entries."""
    async with stand.client() as client:

        async def listed() -> list[dict[str, Any]]:
            answer = await client.get(path)
            found = answer.json()
            return found if answer.status_code == 200 and len(found) == number else []

        return list(await eventually(listed))


async def test_what_came_a_moment_ago_is_shown_before_it_is_stored(stand: Stand) -> None:
    events = story()
    await stand.publish(*events[:4])
    shown = await seen(stand, f"/api/v1/runs/{RUN}/events", 4)
    assert [e["seq"] for e in shown] == [1, 2, 3, 4]
    assert shown == events[:4]
    assert stand.archive.events == []


@pytest.mark.parametrize("stored", [0, 1, 3, 8])
async def test_each_event_is_shown_once_wherever_it_lies(stand: Stand, stored: int) -> None:
    events = story()
    await stand.publish(*events)
    await seen(stand, f"/api/v1/runs/{RUN}/events", 8)
    if stored:
        await stand.store(*events[:stored])
    shown = await seen(stand, f"/api/v1/runs/{RUN}/events", 8)
    assert shown == events
    assert all("position" not in e for e in shown)


async def test_an_event_in_the_store_and_in_the_tail_is_shown_once(stand: Stand) -> None:
    events = story()
    await stand.publish(*events)
    stand.archive.events += events  # durable, but its confirmation is still on the way
    assert await seen(stand, f"/api/v1/runs/{RUN}/events", 8) == events


async def test_a_repeated_message_changes_nothing(stand: Stand) -> None:
    events = story()
    await stand.publish(*events)
    stand.chains.clear()
    await stand.publish(*events)
    await stand.publish(event(9, "checkpoint"))
    assert len(await seen(stand, f"/api/v1/runs/{RUN}/events", 9)) == 9
    async with stand.client() as client:
        line = (await client.get(f"/api/v1/runs/{RUN}")).json()
    assert (line["tokens"], line["usd"], line["tool_calls"]) == (100, 0.5, 1)


async def test_pages_go_on_where_they_ended(stand: Stand) -> None:
    events = story()
    await stand.store(*events[:7])
    await stand.publish(events[7])
    await seen(stand, "/api/v1/runs", 1)
    found: list[dict[str, Any]] = []
    async with stand.client() as client:
        after: str | None = ""
        while after is not None:
            answer = await client.get(
                f"/api/v1/runs/{RUN}/events", params={"limit": 3, "after": after}
            )
            found += answer.json()
            after = answer.headers.get("Checkrein-Next")
    assert [e["seq"] for e in found] == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_a_forged_agent_is_not_shown(stand: Stand) -> None:
    await stand.publish(*story(), agent="somebody-else")
    await stand.publish(event(1, "run.start", run_id=OTHER, recorder="rec-2"))
    await seen(stand, f"/api/v1/runs/{OTHER}/events", 1)
    async with stand.client() as client:
        assert (await client.get(f"/api/v1/runs/{RUN}/events")).status_code == 404
        metrics = (await client.get("/metrics")).text
    assert "checkrein_tail_refused_total 8" in metrics


async def test_the_board_joins_what_control_holds_with_what_was_recorded(stand: Stand) -> None:
    await stand.publish(*story()[:6])
    stand.control.live = [live_run(RUN), live_run(OTHER, "late", can_halt=False, status="paused",
                                                  can_halt_why="no supervisor")]  # fmt: skip
    lines = await seen(stand, "/api/v1/runs", 2)
    by_id = {line["run_id"]: line for line in lines}
    assert set(by_id[RUN]) >= PS
    first = by_id[RUN]
    assert (first["status"], first["can_halt"], first["level"]) == ("running", True, "L2")
    assert (first["tokens"], first["usd"], first["goal"]) == (100, 0.5, "resolve ticket 42")
    assert (first["step"], first["live"], first["last_event_age_s"] < 5) == (3, True, True)
    other = by_id[OTHER]
    assert (other["status"], other["can_halt"]) == ("paused", False)
    assert other["can_halt_why"] == "no supervisor"


async def test_an_ended_run_is_ended_whatever_control_still_says(stand: Stand) -> None:
    events = story()
    events[-1]["status"], events[-1]["reason"] = "halted", "it loops"
    await stand.publish(*events)
    stand.control.live = [live_run(RUN)]
    line = (await seen(stand, "/api/v1/runs?status=halted", 1))[0]
    assert (line["status"], line["reason"], line["live"]) == ("halted", "it loops", False)
    assert (line["can_halt"], line["can_halt_why"]) == (False, "it has ended")
    assert line["ended_at"] == events[-1]["ts"]


async def test_a_summary_is_the_same_from_tail_store_and_both(stand: Stand) -> None:
    events = story()
    await stand.store(*events[:3])
    await stand.publish(*events[3:])

    async def told() -> dict[str, Any]:
        async with stand.client() as client:
            line: dict[str, Any] = (await client.get(f"/api/v1/runs/{RUN}")).json()
        return line if line.get("status") == "completed" else {}

    both = await eventually(told)
    await stand.store(*events[3:])
    stored = await eventually(told)
    for name in ("tokens", "usd", "started_at", "ended_at", "goal", "step", "tool_calls"):
        assert both[name] == stored[name], name
    assert (both["tokens"], both["tool_calls"], both["goal"]) == (100, 1, "resolve ticket 42")


async def test_a_run_nobody_holds_and_nobody_hears_is_unfinished(stand: Stand) -> None:
    old = event(1, "run.start", ts=REAL.now_ns() - 90_000_000_000)
    await stand.store(old)
    line = (await seen(stand, "/api/v1/runs", 1))[0]
    assert line["status"] == "unfinished"
    assert "nobody holds it" in line["reason"]
    assert line["can_halt"] is False


async def test_the_beginning_of_an_id_is_enough_when_it_is_the_only_one(stand: Stand) -> None:
    await stand.publish(*story())
    await stand.store(event(1, "run.start", run_id=OTHER, recorder="rec-2"))
    await seen(stand, "/api/v1/runs", 2)
    async with stand.client() as client:
        one = await client.get(f"/api/v1/runs/{RUN[:12]}")
        two = await client.get("/api/v1/runs/0198a000")
        none = await client.get("/api/v1/runs/ffff")
        bad = await client.get("/api/v1/runs/%07x")
    assert one.json()["run_id"] == RUN
    assert two.status_code == 409
    assert RUN in two.json()["detail"]
    assert OTHER in two.json()["detail"]
    assert (none.status_code, none.json()["error"]) == (404, "unknown_run")
    assert bad.status_code == 400


async def test_without_the_archive_the_latest_is_shown_and_the_gap_is_told(stand: Stand) -> None:
    await stand.publish(*story())
    await seen(stand, "/api/v1/runs", 1)
    await stand.archive.bus.close()
    async with stand.client() as client:
        async with asyncio.timeout(20):
            answer = await client.get(f"/api/v1/runs/{RUN}/events")
            health = await client.get("/healthz")
    assert len(answer.json()) == 8
    assert "archive" in answer.headers["Checkrein-Incomplete"]
    assert health.status_code == 503
    assert "archive" in health.json()["detail"]


async def test_without_control_nothing_is_called_haltable(stand: Stand) -> None:
    await stand.publish(*story()[:3])
    stand.control.live = [live_run(RUN)]
    await seen(stand, "/api/v1/runs", 1)
    await stand.control.bus.close()
    async with stand.client() as client:
        answer = await client.get("/api/v1/runs")
    line = answer.json()[0]
    assert line["can_halt"] is False
    assert "control does not answer" in line["can_halt_why"]
    assert "control" in answer.headers["Checkrein-Incomplete"]


async def test_filters(stand: Stand) -> None:
    await stand.publish(*story())
    await stand.publish(event(1, "run.start", run_id=OTHER, recorder="r2", room="ops", agent="b"))
    await seen(stand, "/api/v1/runs", 2)
    async with stand.client() as client:
        for query, ids in [
            ("agent=b", [OTHER]),
            ("room=refunds", [RUN]),
            ("status=completed", [RUN]),
            ("status=running,completed", [OTHER, RUN]),
            ("live=true", []),
            ("limit=1", [OTHER]),
        ]:
            found = (await client.get(f"/api/v1/runs?{query}")).json()
            assert [line["run_id"] for line in found] == ids, query
        wrong = await client.get("/api/v1/runs?status=dancing")
        agents = (await client.get("/api/v1/agents")).json()
        rooms = (await client.get("/api/v1/rooms")).json()
        listed = (await client.get("/api/v1/events?types=run.end,tool.invoked")).json()
    assert wrong.status_code == 400
    assert "dancing" in wrong.json()["detail"]
    assert {agent["agent"] for agent in agents} == {"support-bot", "b"}
    assert [room["room"] for room in rooms] == ["ops", "refunds"]
    assert [e["type"] for e in listed] == ["tool.invoked", "run.end"]


async def test_a_task_is_shown_across_its_agents(stand: Stand) -> None:
    await stand.publish(*story()[:2])
    await stand.publish(event(1, "run.start", run_id=OTHER, recorder="r2", agent="b"))
    task = event(1)["task_id"]
    shown = await seen(stand, f"/api/v1/tasks/{task}/events", 3)
    assert {e["agent"] for e in shown} == {"support-bot", "b"}


async def test_events_hold_whatever_agents_put_in_them(stand: Stand) -> None:
    strange = {"nan": float("nan"), "text": "\x1b[2J\u202e", "bytes": b"\x00\xff", "deep": [[[1]]]}
    await stand.publish(event(1, "run.start"), event(2, "tool.arguments", call_id="c", tool="t",
                                                    arguments=strange))  # fmt: skip
    await stand.publish(event(3, "new.kind", anything={"1": 2}))
    shown = await seen(stand, f"/api/v1/runs/{RUN}/events", 3)
    assert shown[1]["arguments"]["text"] == "\x1b[2J\u202e"
    assert shown[1]["arguments"]["nan"] is None
    assert (shown[2]["type"], shown[2]["anything"]) == ("new.kind", {"1": 2})
