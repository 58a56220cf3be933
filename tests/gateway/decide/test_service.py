"""May this call be made, over real HTTP: what is told, what is recorded, what is waited for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from checkrein.bus.approvals import Asked
from checkrein.bus.memory import MemoryBus, MemoryServer
from checkrein.gateway.app import App
from checkrein.gateway.decide.part import DecidePart, open_part
from checkrein.sdk.asking import Question
from checkrein.world import REAL
from tests.conftest import within
from tests.gateway.conftest import GateHouse, Gates

PACT = """
pact: desk
tools:
  look: {kind: read}
  refund: {kind: compensable, allow: args.cents <= 500, ask: args.cents > 200}
  note: {kind: read}
loops: {no_progress: 15}
"""


class Desk:
    """The service over HTTP, with one agent's key."""

    def __init__(self, house: GateHouse, part: DecidePart, client: httpx.AsyncClient) -> None:
        self.house, self.part, self.client = house, part, client
        self.key = house.agent("bot")

    async def ask(self, tool: str = "", arguments: Any = None, **more: Any) -> dict[str, Any]:
        answer = await self.post({"tool": tool, "arguments": arguments, **more})
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def post(self, body: Any, key: str | None = None) -> httpx.Response:
        headers = {"x-api-key": self.key if key is None else key}
        return await self.client.post("/decide", json=body, headers=headers)

    def answers(self, status: str = "approved", **more: Any) -> None:
        """Whoever is asked from now on says this at once."""
        self.house.link.answer = lambda question: said(question, status, **more)


def said(question: Question, status: Any, **more: Any) -> Asked:
    return Asked(claim=question.claim, approval_id="a1", status=status, by="ann", **more)


@pytest.fixture
async def desk(gates: Gates) -> AsyncIterator[Desk]:
    house = gates(pact=PACT)
    part = await open_part(house.gate)
    try:
        app = httpx.ASGITransport(App(house.gate, part.routes))
        async with httpx.AsyncClient(transport=app, base_url="http://gateway") as client:
            yield Desk(house, part, client)
    finally:
        await part.close()


def waiting(house: GateHouse) -> Callable[[], bool]:
    return lambda: bool(house.link.asked)


async def test_an_allowed_call_is_recorded_from_its_choice_to_its_result(desk: Desk) -> None:
    told = await desk.ask("look", {"order": "A1"}, call_id="c1", why="the user asked")
    assert told == {
        "verdict": "allow", "reason": "", "rule": "", "advice": "", "call_id": "c1",
        "run_id": desk.house.run().run_id, "pact": "desk", "pact_version": told["pact_version"],
    }  # fmt: skip
    after = await desk.ask("look", call_id="c1", phase="after", result={"status": "paid"})
    assert after["verdict"] == "allow"
    (selected,) = desk.house.of("tool.selected")
    (returned,) = desk.house.of("tool.returned")
    assert selected["why"] == "the user asked"
    assert (returned["call_id"], returned["result"]) == ("c1", {"status": "paid"})
    (passage,) = desk.house.of("passage")
    assert (passage["path"], passage["status"], passage["call_id"]) == ("decide", "ok", "c1")
    assert desk.part.service.waiting == (0, 0)
    assert not desk.house.run().in_flight


async def test_a_refusal_says_why_by_which_rule_and_what_may_be_done(desk: Desk) -> None:
    told = await desk.ask("refund", {"cents": 900}, call_id="c2")
    assert told["verdict"] == "deny"
    assert told["rule"] == "tools.refund.allow"
    assert "refund is not allowed" in told["reason"]
    assert told["advice"]
    assert told["pact"] == "desk"
    assert told["call_id"] == "c2"
    (passage,) = desk.house.of("passage")
    assert (passage["status"], passage["call_id"]) == ("refused", "c2")
    assert not desk.house.of("tool.invoked")


async def test_a_tool_that_failed_ends_with_its_error(desk: Desk) -> None:
    told = await desk.ask("look", {})
    await desk.ask(call_id=told["call_id"], phase="after", error="no such order")
    (returned,) = desk.house.of("tool.returned")
    assert (returned["status"], returned["error"]) == ("error", "ToolFailed: no such order")


async def test_a_person_is_waited_for(desk: Desk) -> None:
    desk.answers("approved")
    told = await desk.ask("refund", {"cents": 300})
    assert told["verdict"] == "allow"
    desk.answers("denied", reason="not today")
    told = await desk.ask("refund", {"cents": 301})
    assert (told["verdict"], told["rule"]) == ("deny", "tools.refund.ask")
    assert "not today" in told["reason"]


async def test_what_a_person_has_edited_is_what_is_to_be_called_with(desk: Desk) -> None:
    desk.answers("approved", edited=True, arguments={"cents": 250})
    told = await desk.ask("refund", {"cents": 300})
    assert (told["verdict"], told["arguments"]) == ("modify", {"cents": 250})


async def test_who_does_not_wait_asks_again_and_is_told(desk: Desk) -> None:
    desk.house.link.answer = lambda question: None
    told = await desk.ask("refund", {"cents": 300}, wait=False)
    assert (told["verdict"], told["advice"], told["rule"]) == ("ask", "WAIT", "tools.refund.ask")
    again = await desk.ask("refund", {"cents": 300}, call_id=told["call_id"], wait=False)
    assert again["verdict"] == "ask"
    assert len(desk.house.link.asked) == 1, "the same question, not another one"
    other = await desk.post(
        {"tool": "refund", "arguments": {"cents": 499}, "call_id": told["call_id"]}
    )
    assert other.status_code == 409, "a yes to one call is none to another"
    desk.house.link.asked[0].told(said(desk.house.link.asked[0], "approved"))
    await within(5, lambda: desk.part.service.waiting[0] == 1)
    final = await desk.ask("refund", {"cents": 300}, call_id=told["call_id"])
    assert final["verdict"] == "allow"
    assert desk.part.service.waiting == (1, 0)
    assert len(desk.house.of("tool.invoked")) == 1


async def test_a_no_that_came_while_nobody_waited_is_still_told(desk: Desk) -> None:
    desk.house.link.answer = lambda question: None
    told = await desk.ask("refund", {"cents": 300}, wait=False)
    desk.house.link.asked[0].told(said(desk.house.link.asked[0], "denied"))
    await within(5, lambda: bool(desk.house.of("tool.returned")))
    final = await desk.ask("refund", {"cents": 300}, call_id=told["call_id"])
    assert final["verdict"] == "deny"
    assert len(desk.house.link.asked) == 1


async def test_a_wait_has_a_bound(desk: Desk) -> None:
    desk.house.link.answer = lambda question: None
    told = await desk.ask("refund", {"cents": 300}, wait_s=0.05)
    assert told["verdict"] == "ask"


async def test_who_hangs_up_takes_the_question_back(desk: Desk) -> None:
    desk.house.link.answer = lambda question: None
    async with desk.house.serving(desk.part.routes) as url, httpx.AsyncClient() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                f"{url}/decide", json={"tool": "refund", "arguments": {"cents": 300}},
                headers={"authorization": f"Bearer {desk.key}"}, timeout=0.3,
            )  # fmt: skip
        await within(5, lambda: bool(desk.house.of("tool.returned")))
    (returned,) = desk.house.of("tool.returned")
    assert returned["status"] == "cancelled"
    assert desk.part.service.waiting == (0, 0)


async def test_a_halted_run_is_told_so_and_what_waits_is_cut(desk: Desk) -> None:
    desk.house.link.answer = lambda question: None
    asking = asyncio.ensure_future(desk.ask("refund", {"cents": 300}))
    await within(5, waiting(desk.house))
    desk.house.halt()
    told = await asking
    assert (told["verdict"], told["code"], told["advice"]) == ("deny", "halted", "TERMINAL")
    told = await desk.ask("look", {})
    assert (told["verdict"], told["code"]) == ("deny", "halted")


async def test_what_was_made_before_the_halt_is_recorded_after_it(desk: Desk) -> None:
    await desk.house.keys.open(MemoryBus(MemoryServer(REAL)))
    await desk.ask("look", {}, run="s1", call_id="c1")
    run = desk.house.run()
    desk.house.halt()
    desk.house.runs.halted(run)  # as the role does when nothing of it is in flight any more
    await within(5, lambda: bool(desk.house.keys.halted))
    told = await desk.ask(call_id="c1", run="s1", phase="after", result="just made it")
    assert (told["verdict"], told["code"]) == ("deny", "halted")
    (returned,) = desk.house.of("tool.returned")
    assert (returned["call_id"], returned["result"]) == ("c1", "just made it")
    assert desk.part.service.waiting == (0, 0)
    begun = await desk.ask(phase="begin", run="s1", goal="once more")
    assert (begun["verdict"], begun["code"]) == ("deny", "halted")


async def test_a_contained_agent_is_refused_but_what_it_did_is_recorded(desk: Desk) -> None:
    told = await desk.ask("look", {})
    desk.house.contain()
    refused = await desk.ask("look", {})
    assert (refused["verdict"], refused["code"], refused["by"]) == ("deny", "contained", "ann")
    await desk.ask(call_id=told["call_id"], phase="after", result="late")
    (returned,) = desk.house.of("tool.returned")
    assert returned["result"] == "late"


async def test_a_call_that_nobody_asked_about_is_recorded_as_one(desk: Desk) -> None:
    told = await desk.ask("look", {"order": "A1"}, call_id="c9", phase="after", result="done")
    assert "nobody had asked" in told["reason"]
    (returned,) = desk.house.of("tool.returned")
    assert (returned["call_id"], returned["result"]) == ("c9", "done")
    (passage,) = desk.house.of("passage")
    assert "nobody had asked" in passage["reason"]


async def test_a_call_made_before_the_answer_takes_the_question_back(desk: Desk) -> None:
    desk.house.link.answer = lambda question: None
    told = await desk.ask("refund", {"cents": 300}, wait=False)
    await desk.ask("refund", {"cents": 300}, call_id=told["call_id"], phase="after", result="ok")
    assert desk.part.service.waiting == (0, 0)
    statuses = [event["status"] for event in desk.house.of("tool.returned")]
    assert statuses == ["cancelled", "ok"]


async def test_a_run_is_begun_named_and_ended_by_who_asks(desk: Desk) -> None:
    begun = await desk.ask(phase="begin", run="s1", goal="refund order A1", task_type="refunds")
    await desk.ask(phase="begin", run="s1", goal="and be quick")
    run = desk.house.run()
    assert (begun["run_id"], run.goal) == (run.run_id, "refund order A1")
    assert run.info.task_type == "refunds"
    await desk.ask("look", {}, run="s1", call_id="c1")
    await desk.ask(phase="end", run="s1")
    assert run.ended
    assert run.ended_status == "completed"
    assert desk.part.service.waiting == (0, 0)
    assert (await desk.ask("look", {}, run="s1"))["run_id"] != run.run_id


async def test_directives_are_handed_over_once(desk: Desk) -> None:
    told = await desk.ask("look", {}, call_id="c1")
    assert "directives" not in told
    desk.house.run().advise("look at order B2 too")
    told = await desk.ask("look", call_id="c1", phase="after", result=1, directives=True)
    assert told["directives"] == ["look at order B2 too"]
    assert "directives" not in await desk.ask("look", {}, directives=True)


async def test_what_cannot_be_read_is_a_no(desk: Desk) -> None:
    for body in (
        b"", b"[]", b"{", b'"x"', b"{}", b'{"tool": 3}', b'{"tool": "look", "phase": "during"}',
        b'{"tool": "look", "argument": {}}', b'{"tool": "look", "wait_s": -1}',
        b'{"tool": "look", "wait_s": 1e9}', b'{"tool": "' + b"x" * 600 + b'"}', b"\xff\xfe",
        b'{"phase": "after"}',
    ):  # fmt: skip
        answer = await desk.client.post("/decide", content=body, headers={"api-key": desk.key})
        assert (answer.status_code, answer.json()["verdict"]) == (400, "deny"), body
    assert not desk.house.recorder.events


async def test_a_stranger_is_told_no(desk: Desk) -> None:
    for key in ("", "cra_nobody", "crr_nobody", "cro_operator"):
        answer = await desk.post({"tool": "look"}, key=key)
        assert (answer.status_code, answer.json()["verdict"]) == (401, "deny"), key


async def test_other_paths_and_methods_are_named(desk: Desk) -> None:
    assert (await desk.client.get("/decide")).status_code == 405
    assert (await desk.client.post("/decide/other")).status_code == 404


async def test_calls_that_never_come_back_are_ended(desk: Desk) -> None:
    await desk.ask("look", {}, call_id="c1")
    run = desk.house.run()
    assert run.in_flight
    desk.part.service._open.sweep(desk.house.gate.world.monotonic_ns() + 2 * 3600 * 10**9)
    (returned,) = desk.house.of("tool.returned")
    assert (returned["status"], run.in_flight) == ("cancelled", {})


async def test_an_announced_call_is_judged_and_recorded_once(desk: Desk) -> None:
    key = desk.house.run_key()
    headers = {"authorization": f"Bearer {key}", "x-checkrein-call": "sdk-1"}
    body = {"tool": "look", "arguments": {}}
    answer = await desk.client.post("/decide", json=body, headers=headers)
    assert answer.json()["call_id"] == "sdk-1"
    assert not desk.house.of("tool.selected")
    (passage,) = desk.house.of("passage")
    assert (passage["announced"], passage["call_id"]) == (True, "sdk-1")
